//! The command line: one file a command. Every command ends with 0 (done), 1 (it did not work: one message on stderr says what and
//! how to mend it) or 2 (wrong usage).

mod audit;
mod check;
mod dead_letters;
mod deliveries;
mod demo;
mod emit;
mod explain;
mod health;
mod history;
mod input;
mod listen;
mod logging;
mod manual;
mod output;
mod remote;
mod replays;
mod run;
mod secrets;
mod sign;
mod subscriptions;
mod token;
mod topics;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::{Config, process_environment};

/// Carries Kafka events to webhooks: signed, paced, retried, dead-lettered and replayed, never lost.
#[derive(Parser)]
#[command(name = "postrider", version, max_term_width = 110)]
struct Arguments {
    /// The configuration file [default: POSTRIDER_CONFIG, else config/postrider.toml if it exists, else defaults and
    /// environment]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything in this process: a broker, a producer, receivers and the router; nothing else is needed
    Demo(demo::Demo),
    /// The router: reads events, delivers them, retries and dead-letters
    Run(run::Run),
    /// Looks at configuration, broker, topics, rights and keys; says what is wrong and how to mend it; exit code 0, or 1
    Check(check::Check),
    /// The topics that are needed
    #[command(subcommand)]
    Topics(topics::Topics),
    /// The catalog of webhooks
    #[command(subcommand)]
    Subscriptions(subscriptions::Subscriptions),
    /// Signs a body from a file or stdin, as a delivery would be
    Sign(sign::Sign),
    /// Checks a signature; exit code 0 if it is valid, 1 if not
    Verify(sign::Verify),
    /// A receiver for development: prints what arrives, verifies signatures, answers as told
    Listen(listen::Listen),
    /// Produces sample events of a type into its source topic
    Emit(emit::Emit),
    /// Which webhooks match an event and why not (--event); what became of a delivery (DELIVERY_ID)
    Explain(explain::Explain),
    /// Tokens of the API
    #[command(subcommand)]
    Token(token::Token),
    /// The key that the secrets of webhooks are encrypted with
    #[command(subcommand)]
    Secrets(secrets::Secrets),
    /// What could not be delivered: shown, sent in again, discarded
    DeadLetters(Box<dead_letters::DeadLetters>),
    /// Shows replays, and pauses, resumes or cancels those that the routers work on
    Replays(replays::Replays),
    /// Asks a running instance whether it lives, or is ready (--ready); exit code 0 if so, 1 if not
    Health(health::Health),
    /// Writes the manual pages (for packagers)
    #[command(hide = true)]
    Man(manual::Man),
    /// Prints the completions of a shell (for packagers)
    #[command(hide = true)]
    Completions(manual::Completions),
    /// What became of deliveries: listed, shown with every attempt
    Deliveries(deliveries::Deliveries),
    /// The database of what happened
    History(history::History),
}

/// What a command gives back: an error is one message for people.
type Answer = anyhow::Result<()>;

/// Where the configuration comes from; read only by the commands that need it.
struct Context {
    path: Option<PathBuf>,
}

impl Context {
    fn config(&self) -> anyhow::Result<Config> {
        Ok(Config::load(self.path.as_deref(), &process_environment())?)
    }
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let context = Context {
        path: arguments.config,
    };
    let answer = match arguments.command {
        Command::Demo(demo) => demo.run(),
        Command::Run(run) => run.run(&context),
        Command::Check(check) => check.run(&context),
        Command::Topics(topics) => topics.run(&context),
        Command::Subscriptions(subscriptions) => subscriptions.run(&context),
        Command::Sign(sign) => sign.run(),
        Command::Verify(verify) => verify.run(),
        Command::Listen(listen) => listen.run(),
        Command::Emit(emit) => emit.run(&context),
        Command::Explain(explain) => explain.run(&context),
        Command::Token(token) => token.run(),
        Command::Secrets(secrets) => secrets.run(&context),
        Command::DeadLetters(dead_letters) => dead_letters.run(&context),
        Command::Replays(replays) => replays.run(&context),
        Command::Health(health) => health.run(&context),
        Command::Man(man) => man.run(Arguments::command()),
        Command::Completions(completions) => completions.run(&mut Arguments::command()),
        Command::Deliveries(deliveries) => deliveries.run(&context),
        Command::History(history) => history.run(&context),
    };
    match answer {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("postrider: {fault:#}");
            ExitCode::FAILURE
        }
    }
}

/// A runtime for commands that wait for the network.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

/// Ends the process with exit code 2, for what clap cannot see by itself.
fn wrong_usage(message: &str) -> ! {
    Arguments::command()
        .error(clap::error::ErrorKind::MissingRequiredArgument, message)
        .exit()
}
