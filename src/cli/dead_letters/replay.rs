//! `dead-letters replay`: count, ask, send, and be stoppable at any moment.

use std::io::IsTerminal;
use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use serde_json::{Map, Value};

use super::super::output::{Output, print, print_json};
use super::super::remote::{Client, Remote};
use super::super::{Answer, Context};
use super::remote::Order as RemoteOrder;
use super::selection::{Selection, webhook};
use super::sending::send;
use crate::app;
use crate::config::Config;
use crate::matching::catalog::{Catalog, Locked};
use crate::outbound::guard::Guard;
use crate::pipeline::catalog_topic::CatalogTopic;
use crate::pipeline::replaying::{Error, Order, Origin};
use crate::pipeline::topics::Topics;
use crate::retry::dead_letter::MOST_REPLAYS;
use crate::retry::replay::{Deed, Runner};

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
    #[arg(
        long,
        value_name = "TOPIC",
        conflicts_with = "to",
        visible_alias = "to-topic"
    )]
    into: Option<String>,
    /// Only what never was a delivery, to this webhook: an event each, whatever the webhook's event types and filter say
    #[arg(long, value_name = "ID", conflicts_with_all = ["to", "into"], value_parser = webhook)]
    to_webhook: Option<String>,
    /// Rather than dead letters, the events between --since and --until that --webhook wants and did not get
    #[arg(long, requires_all = ["webhook", "since", "until"], conflicts_with_all = [
        "reason", "status", "delivery", "limit", "into", "to_webhook", "again", "dead_topic", "resume",
    ])]
    never_delivered: bool,
    /// Count only
    #[arg(long)]
    dry_run: bool,
    /// Also those that were replayed or discarded before
    #[arg(long)]
    again: bool,
    /// Leave letters that were replayed so often before, and died each time
    #[arg(long, value_name = "N", default_value_t = MOST_REPLAYS, value_parser = clap::value_parser!(u32).range(1..))]
    max_replays: u32,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Let the routers do it: print the id of the replay and end (see `postrider replays`)
    #[arg(long, conflicts_with = "resume")]
    detach: bool,
    /// Go on with a replay that was stopped
    #[arg(long, value_name = "REPLAY_ID", conflicts_with_all = [
        "webhook", "event_type", "reason", "status", "since", "until", "delivery", "limit", "to", "into", "to_webhook", "again", "dry_run", "dead_topic",
    ])]
    resume: Option<String>,
    /// Another program's dead-letter topic; those of Kafka Connect and Spring are understood
    #[arg(long = "topic", value_name = "NAME", visible_alias = "dead-topic")]
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
            let found = replaying.job(id)?;
            let replaying = super::open(context, Some(&found.topic))?;
            let replaying = match found.missed {
                Some(_) => replaying.knowing(origin(&config)?),
                None => replaying,
            };
            let mut job = replaying.resume(id)?;
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
        let replaying = if self.never_delivered || self.to_webhook.is_some() {
            replaying.knowing(origin(&config)?)
        } else {
            replaying
        };
        let to_webhook = self.to_webhook.as_deref();
        let to_webhook = to_webhook.map(|id| replaying.target(id)).transpose();
        let to_webhook = to_webhook.map_err(in_flags)?;
        let everything = self.selection.is_everything();
        let order = Order {
            deed: Deed::Replay,
            filter: self.selection.filter(),
            to,
            into: self.into,
            to_webhook,
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
        let planned = if self.never_delivered {
            replaying.plan_missed(order)
        } else {
            replaying.plan(order)
        };
        let plan = planned.map_err(in_flags)?;
        super::tell_left(&plan.counts);
        if self.dry_run || plan.counts.total == 0 {
            return match output {
                Output::Json => print_json(&plan.counts),
                Output::Table => print(&super::counted("replay", &plan.counts)),
            };
        }
        eprintln!("to replay: {}", super::describe(&plan.counts));
        if let Some(to) = &plan.job.to {
            eprintln!("to the URL {to}");
        }
        if let Some(target) = &plan.job.to_webhook {
            eprintln!("to the webhook {}", target.webhook);
        }
        if must_ask {
            let which = if everything { "all of them" } else { "them" };
            if !super::confirmed(&format!("Replay {which}?"))? {
                return print("nothing was replayed\n");
            }
        }
        let job = replaying.begin(plan)?;
        super::note(&replaying, &config, "replay.create", &job);
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
        let mut body: Map<String, Value> = self
            .selection
            .members()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        body.insert("rate".to_owned(), self.rate.into());
        body.insert("limit".to_owned(), self.limit.into());
        body.insert("to".to_owned(), self.to.into());
        body.insert("topic".to_owned(), self.dead_topic.into());
        body.insert("into".to_owned(), self.into.into());
        body.insert("to_webhook".to_owned(), self.to_webhook.into());
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
        Locked::new(),
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
