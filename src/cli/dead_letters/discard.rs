//! `dead-letters discard`: marks letters as done with, and takes that back.

use std::io::IsTerminal;

use clap::Args;
use serde_json::{Map, Value, json};

use super::super::output::{Output, print, print_json};
use super::super::remote::Remote;
use super::super::{Answer, Context};
use super::remote::Order as RemoteOrder;
use super::selection::Selection;
use crate::pipeline::replaying::Order;
use crate::retry::replay::{Deed, Runner};

#[derive(Args)]
pub(super) struct Discard {
    #[command(flatten)]
    selection: Selection,
    /// Why, for whoever asks later
    #[arg(long, value_name = "TEXT", value_parser = not_blank, required_unless_present_any = ["undo", "dry_run"])]
    reason_text: Option<String>,
    /// Only so many, those that died first
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Count only
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Take a discard back: its letters wait again
    #[arg(long, value_name = "DISCARD_ID", conflicts_with_all = [
        "webhook", "event_type", "reason", "status", "since", "until", "delivery", "limit", "dry_run", "reason_text",
    ])]
    undo: Option<String>,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

fn not_blank(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("say why, for whoever asks later".to_owned()),
        text => Ok(text.to_owned()),
    }
}

impl Discard {
    pub(super) fn run(self, context: &Context, remote: &Remote) -> Answer {
        let must_ask = !self.yes && !self.dry_run && self.undo.is_none();
        if must_ask && !std::io::stdin().is_terminal() {
            super::super::wrong_usage(
                "there is no terminal to ask on: add --yes to discard, or --dry-run to count",
            );
        }
        if let Some(client) = remote.client()? {
            if let Some(id) = &self.undo {
                return super::remote::undo(&client, id, self.output);
            }
            let mut body: Map<String, Value> = self
                .selection
                .members()
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect();
            body.insert("limit".to_owned(), self.limit.into());
            body.insert("reason_text".to_owned(), self.reason_text.into());
            let order = RemoteOrder {
                path: "/dead-letters/discard/",
                body,
                dry_run: self.dry_run,
                must_ask,
                follow: false,
                output: self.output,
            };
            return order.carry_out(&client);
        }
        let config = context.config()?;
        let replaying = super::open(context, None)?;
        if let Some(id) = &self.undo {
            let job = replaying.undo(id)?;
            super::note(&replaying, &config, "dead_letters.undo", &job);
            return match self.output {
                Output::Json => print_json(&json!({"id": job.id, "undone": job.done})),
                Output::Table => print(&format!(
                    "{} was taken back; {} wait again\n",
                    job.id,
                    super::letters(job.done)
                )),
            };
        }
        let plan = replaying.plan(Order {
            deed: Deed::Discard,
            filter: self.selection.filter(),
            to: None,
            into: None,
            to_webhook: None,
            again: false,
            reason: self.reason_text.unwrap_or_default(),
            rate: None,
            runner: Runner::Command,
            limit: self.limit,
            max_replays: None,
        })?;
        if self.dry_run || plan.counts.total == 0 {
            return match self.output {
                Output::Json => print_json(&plan.counts),
                Output::Table => print(&super::counted("discard", &plan.counts)),
            };
        }
        eprintln!("to discard: {}", super::describe(&plan.counts));
        if must_ask && !super::confirmed("Discard them?")? {
            return print("nothing was discarded\n");
        }
        let job = replaying.begin(plan)?;
        super::note(&replaying, &config, "dead_letters.discard", &job);
        match self.output {
            Output::Json => print_json(&json!({
                "id": job.id,
                "state": job.state,
                "done": job.done,
                "total": job.total,
            })),
            Output::Table => print(&super::discarded(&super::letters(job.done), &job.id)),
        }
    }
}
