//! `postrider explain`: answers the two questions that people have of a router, from what is true and not from a copy of it. Why
//! did this webhook (not) get this event: asked of the catalog with the code that routes. What became of this delivery: told from the topics.

mod delivery;
mod event;
mod story;

use std::path::PathBuf;

use clap::Args;

use super::output::Output;
use super::{Answer, Context, input};

#[derive(Args)]
pub(super) struct Explain {
    /// A delivery, by the id that its receiver sees as webhook-id: what became of it
    #[arg(
        value_name = "DELIVERY_ID",
        required_unless_present = "event",
        conflicts_with = "event"
    )]
    delivery: Option<String>,
    /// A file with an event, `-` for stdin: which webhooks want it, and why the others do not
    #[arg(long, value_name = "FILE")]
    event: Option<PathBuf>,
    /// Ask the webhooks of this file rather than the catalog; needs no Kafka
    #[arg(long, value_name = "FILE", requires = "event")]
    subscriptions: Option<PathBuf>,
    /// A header of the event's record, such as ce_type=…; may be repeated
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = input::pair, requires = "event")]
    headers: Vec<(String, String)>,
    /// Only this webhook
    #[arg(long, value_name = "ID", requires = "event")]
    webhook: Option<String>,
    /// Show every webhook, however many do not want the event
    #[arg(long, requires = "event")]
    all: bool,
    /// Look only at what was written since then: a time (RFC 3339), or how long ago, such as 2h
    #[arg(long, value_name = "TIME", value_parser = since, conflicts_with = "event")]
    since: Option<jiff::Timestamp>,
    /// The form of the answer
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl Explain {
    pub(super) fn run(self, context: &Context) -> Answer {
        let config = context.config()?;
        match (&self.delivery, &self.event) {
            (Some(id), _) => delivery::explain(id, self.since, self.output, &config),
            (None, Some(path)) => event::explain(&self, path, &config),
            // Refused by clap already.
            (None, None) => super::wrong_usage("give DELIVERY_ID, or --event FILE"),
        }
    }
}

fn since(text: &str) -> Result<jiff::Timestamp, String> {
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        return Ok(time);
    }
    let ago: jiff::SignedDuration = text.parse().map_err(|_| {
        "write a time such as 2026-03-01T10:00:00Z, or how long ago, such as 30m or 2h".to_owned()
    })?;
    jiff::Timestamp::now()
        .checked_sub(ago)
        .map_err(|_| "that is too long ago".to_owned())
}
