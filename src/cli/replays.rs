//! `postrider replays`: the replay jobs, and what the routers are to do with theirs.

use clap::{Args, Subcommand};

use super::output::{Output, print, print_json, table};
use super::{Answer, Context};
use crate::app;
use crate::pipeline::replaying::Replaying;
use crate::pipeline::topics::Topics;
use crate::retry::replay::{Deed, Job, Runner, State, Want};

/// `postrider replays`.
#[derive(Args)]
pub(super) struct Replays {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lists replays and discards, newest last
    List(Listing),
    /// Shows one
    Show(One),
    /// Tells the routers to stop working on it for now
    Pause(One),
    /// Tells the routers to go on with it
    Resume(One),
    /// Tells the routers to end it for good
    Cancel(One),
}

#[derive(Args)]
struct Listing {
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Args)]
struct One {
    /// Its id, rp_…
    #[arg(value_name = "REPLAY_ID")]
    id: String,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl Replays {
    pub(super) fn run(self, context: &Context) -> Answer {
        let config = context.config()?;
        let (connection, _) = super::runtime()?.block_on(app::planned(&config))?;
        let topics = Topics::new(&config.kafka.topic_prefix);
        let replaying = Replaying::open(connection, &topics, None)?;
        let (one, want) = match self.command {
            Command::List(listing) => {
                let mut jobs = replaying.jobs()?.0;
                jobs.sort_by_key(|job| job.created_at_ms);
                return show(&jobs, listing.output);
            }
            Command::Show(one) => {
                let job = replaying.job(&one.id)?;
                return match one.output {
                    Output::Json => print_json(&job),
                    Output::Table => show(&[job], Output::Table),
                };
            }
            Command::Pause(one) => (one, Want::Pause),
            Command::Resume(one) => (one, Want::Run),
            Command::Cancel(one) => (one, Want::Cancel),
        };
        let job = replaying.wish(&one.id, want)?;
        match one.output {
            Output::Json => print_json(&job),
            Output::Table => {
                let word = match want {
                    Want::Run => "resumed",
                    Want::Pause => "paused",
                    Want::Cancel => "cancelled",
                };
                print(&format!(
                    "{}: the routers were told; it is {word} after its batch\n",
                    job.id
                ))
            }
        }
    }
}

/// The word for a state.
fn state(job: &Job) -> &'static str {
    match (job.state, job.undone_at_ms) {
        (_, Some(_)) => "undone",
        (State::Running, _) => "running",
        (State::Stopped, _) => "stopped",
        (State::Finished, _) => "finished",
        (State::Cancelled, _) => "cancelled",
    }
}

fn show(jobs: &[Job], output: Output) -> Answer {
    if output == Output::Json {
        return print_json(&jobs);
    }
    let mut table = table(&["id", "deed", "by", "state", "done", "note"]);
    for job in jobs {
        let deed = match job.deed {
            Deed::Replay => "replay",
            Deed::Discard => "discard",
        };
        let runner = match job.runner {
            Runner::Command => "command",
            Runner::Fleet => "routers",
        };
        let note = if job.note.is_empty() {
            &job.reason
        } else {
            &job.note
        };
        table.add_row(vec![
            job.id.clone(),
            deed.to_owned(),
            runner.to_owned(),
            state(job).to_owned(),
            format!("{} of {}", job.done, job.total),
            note.clone(),
        ]);
    }
    print(&format!("{table}\n"))
}
