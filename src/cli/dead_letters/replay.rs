//! `dead-letters replay`: count, ask, send, and be stoppable at any moment.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::super::output::{Output, print, print_json};
use super::super::remote::{Client, Remote};
use super::super::{Answer, Context};
use super::remote::Order as RemoteOrder;
use super::selection::Selection;
use crate::app;
use crate::config::Config;
use crate::matching::catalog::Catalog;
use crate::outbound::guard::Guard;
use crate::pipeline::catalog_topic::CatalogTopic;
use crate::pipeline::replaying::{Asked, Error, Halt, Order, Origin, Replaying};
use crate::pipeline::topics::Topics;
use crate::retry::replay::{Deed, Job, Runner, State};

const SPEAK_EVERY: Duration = Duration::from_secs(5);

#[derive(Args)]
pub(super) struct Replay {
    #[command(flatten)]
    selection: Selection,
    /// Letters per second [default: retry.held_drain_per_second]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Only so many, those that died first
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// To this URL rather than the webhooks' own
    #[arg(long, value_name = "URL")]
    to: Option<String>,
    /// Only what never was a delivery (undecodable events, letters of other programs), into this topic as it once came
    #[arg(long, value_name = "TOPIC", conflicts_with = "to")]
    into: Option<String>,
    /// Rather than dead letters, the events between --since and --until that --webhook wants and did not get
    #[arg(long, requires_all = ["webhook", "since", "until"], conflicts_with_all = [
        "reason", "status", "delivery", "limit", "into", "again", "dead_topic", "resume",
    ])]
    never_delivered: bool,
    /// Count only
    #[arg(long)]
    dry_run: bool,
    /// Also those that were replayed or discarded before
    #[arg(long)]
    again: bool,
    /// Leave letters that were replayed so often before, and died each time
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    max_replays: u32,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Let the routers do it: print the id of the replay and end (see `postrider replays`)
    #[arg(long, conflicts_with = "resume")]
    detach: bool,
    /// Go on with a replay that was stopped
    #[arg(long, value_name = "REPLAY_ID", conflicts_with_all = [
        "webhook", "event_type", "reason", "status", "since", "until", "delivery", "limit", "to", "into", "again", "dry_run", "dead_topic",
    ])]
    resume: Option<String>,
    /// Read the dead letters of this topic
    #[arg(long, value_name = "NAME")]
    dead_topic: Option<String>,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl Replay {
    pub(super) fn run(self, context: &Context, remote: &Remote) -> Answer {
        let must_ask = !self.yes && !self.dry_run && self.resume.is_none();
        if must_ask && !std::io::stdin().is_terminal() {
            super::super::wrong_usage(
                "there is no terminal to ask on: add --yes to replay, or --dry-run to count",
            );
        }
        if let Some(client) = remote.client()? {
            return self.ask(&client, must_ask);
        }
        let config = context.config()?;
        let replaying = super::open(context, self.dead_topic.as_deref())?;
        let output = self.output;
        if let Some(id) = &self.resume {
            // The topic of a job is its own.
            let topic = replaying.job(id)?.topic;
            let replaying = super::open(context, Some(&topic))?;
            let mut job = replaying.job(id)?;
            let replaying = match job.missed {
                Some(_) => replaying.knowing(origin(&config)?),
                None => replaying,
            };
            job = replaying.resume(id)?;
            job.rate = self.rate.or(job.rate);
            return send(&replaying, job, output);
        }
        let to = match &self.to {
            Some(text) => {
                let guard = Guard::new(config.outbound.allow_networks.clone());
                let url = guard.parse_url(text);
                Some(url.map_err(|refused| anyhow::anyhow!("--to: {refused}"))?)
            }
            None => None,
        };
        if let Some(topic) = &self.into
            && !replaying.has_topic(topic)?
        {
            bail!(
                "there is no topic {topic}; a source topic belongs to its producers, so have it made"
            );
        }
        let everything = self.selection.is_everything();
        let order = Order {
            deed: Deed::Replay,
            filter: self.selection.filter(),
            to,
            into: self.into,
            again: self.again,
            reason: String::new(),
            rate: Some(self.rate.unwrap_or(config.retry.held_drain_per_second)),
            limit: self.limit,
            max_replays: Some(self.max_replays),
            runner: if self.detach {
                Runner::Fleet
            } else {
                Runner::Command
            },
        };
        let replaying = if self.never_delivered {
            replaying.knowing(origin(&config)?)
        } else {
            replaying
        };
        let planned = if self.never_delivered {
            replaying.plan_missed(order)
        } else {
            replaying.plan(order)
        };
        let plan = planned.map_err(in_flags)?;
        if self.dry_run || plan.counts.total == 0 {
            return match output {
                Output::Json => print_json(&plan.counts),
                Output::Table => print(&format!("to replay: {}\n", super::describe(&plan.counts))),
            };
        }
        eprintln!("to replay: {}", super::describe(&plan.counts));
        if let Some(to) = &plan.job.to {
            eprintln!("to the URL {to}");
        }
        if must_ask {
            let which = if everything { "all of them" } else { "them" };
            if !super::confirmed(&format!("Replay {which}?"))? {
                return print("nothing was replayed\n");
            }
        }
        let job = replaying.begin(plan)?;
        if self.detach {
            return match output {
                Output::Json => print_json(&job),
                Output::Table => print(&format!(
                    "{} began; see `postrider replays show {}`\n",
                    job.id, job.id
                )),
            };
        }
        send(&replaying, job, output)
    }
}

impl Replay {
    fn ask(self, client: &Client, must_ask: bool) -> Answer {
        if self.resume.is_some() {
            super::super::wrong_usage(
                "the API resumes what the routers work on: `postrider replays resume`",
            );
        }
        if self.dead_topic.is_some() || self.into.is_some() {
            super::super::wrong_usage(
                "the API knows its own deliveries only; leave --api out for --dead-topic and --into",
            );
        }
        let mut body: Map<String, Value> = self
            .selection
            .members()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        body.insert("rate".to_owned(), self.rate.into());
        body.insert("limit".to_owned(), self.limit.into());
        body.insert("to".to_owned(), self.to.into());
        body.insert("again".to_owned(), self.again.into());
        if self.never_delivered {
            body.insert("never_delivered".to_owned(), true.into());
            body.remove("again");
        }
        body.insert("max_replays".to_owned(), self.max_replays.into());
        let order = RemoteOrder {
            path: "/replays/",
            body,
            dry_run: self.dry_run,
            must_ask,
            follow: !self.detach,
            output: self.output,
        };
        order.carry_out(client)
    }
}

/// Where events come from and who wants them now, for what a webhook missed.
fn origin(config: &Config) -> anyhow::Result<Origin> {
    let topics = Topics::new(&config.kafka.topic_prefix);
    let (connection, _) = app::reached(config)?;
    let topic = CatalogTopic::open(connection, &topics, app::sealing_key(config)?)?;
    let webhooks = topic.read()?.into_iter();
    let catalog = Arc::new(Catalog::default());
    catalog.publish(
        webhooks
            .map(|(id, webhook)| (id, Arc::new(webhook)))
            .collect(),
    );
    Ok(app::origin(config, catalog))
}

/// A refusal that names the flag rather than the field.
fn in_flags(fault: Error) -> anyhow::Error {
    match fault {
        Error::Order { field, why } => anyhow::anyhow!("--{}: {why}", field.replace('_', "-")),
        other => other.into(),
    }
}

fn send(replaying: &Replaying, job: Job, output: Output) -> Answer {
    let halt = stop_on_signals()?;
    let id = job.id.clone();
    let how_to_resume = format!("go on with `postrider dead-letters replay --resume {id}`");
    eprintln!("{id} began; Ctrl-C stops it, and it can be resumed");
    let mut progress = Progress::new(&job);
    let result = replaying.run(job, &halt, &mut |job| progress.tell(job));
    progress.end();
    let job = match result {
        Ok(job) => job,
        Err(fault) => bail!("{fault}; {how_to_resume}"),
    };
    if output == Output::Json {
        print_json(&json!({
            "id": job.id,
            "state": job.state,
            "done": job.done,
            "total": job.total,
        }))?;
    }
    if job.state != State::Finished {
        bail!(
            "stopped after {} of {}; {how_to_resume}",
            job.done,
            super::letters(job.total)
        );
    }
    if output == Output::Table {
        print(&format!(
            "replayed {} as {}\n",
            super::letters(job.done),
            job.id
        ))?;
    }
    Ok(())
}

/// Set by the first Ctrl-C or SIGTERM; a second one ends the process at once.
fn stop_on_signals() -> anyhow::Result<Arc<Halt>> {
    let halt = Arc::new(Halt::default());
    let told = Arc::clone(&halt);
    let runtime = super::super::runtime()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        )
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                    if told.asked() != Asked::Nothing {
                        std::process::exit(1);
                    }
                    told.ask(Asked::Stop);
                    eprintln!("stopping after this batch");
                }
            });
        })?;
    Ok(halt)
}

/// A bar on a terminal, a line now and then elsewhere.
struct Progress {
    bar: Option<ProgressBar>,
    spoke_at: Instant,
}

impl Progress {
    fn new(job: &Job) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(job.total).with_position(job.done);
            let style =
                ProgressStyle::with_template("{wide_bar} {pos}/{len}  {per_sec}  {eta} left");
            match style {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        Self {
            bar,
            spoke_at: Instant::now(),
        }
    }

    fn tell(&mut self, job: &Job) {
        if let Some(bar) = &self.bar {
            bar.set_position(job.done);
        } else if self.spoke_at.elapsed() >= SPEAK_EVERY {
            self.spoke_at = Instant::now();
            eprintln!("{} of {}", job.done, super::letters(job.total));
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
