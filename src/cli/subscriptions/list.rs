//! `postrider subscriptions list`, `show` and `export`: what the catalog holds, with secrets masked (promise 7).

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::{Opened, unopened};
use crate::cli::Answer;
use crate::cli::output::{self, Output};
use crate::config::Config;
use crate::subscription::condition::state_word;
use crate::subscription::{Subscription, View, WebhookId, file};

/// In place of a state: the record is there and cannot be opened.
const UNREADABLE: &str = "unreadable";

#[derive(Args)]
pub(in crate::cli) struct List {
    /// The form of the answer
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Args)]
pub(in crate::cli) struct Show {
    /// The webhook's id
    id: String,
    /// The form of the answer
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Args)]
pub(in crate::cli) struct Export {
    /// Write to this file instead of stdout
    #[arg(short = 'o', long = "to", value_name = "FILE")]
    to: Option<PathBuf>,
}

impl List {
    pub(super) fn run(self, config: &Config) -> Answer {
        let opened = Opened::by(config)?;
        match self.output {
            Output::Table => output::print(&table(&opened))?,
            Output::Json => {
                let list: Vec<Listed<'_>> = opened
                    .records
                    .iter()
                    .map(|(id, record)| match record {
                        Ok(webhook) => Listed::Readable(Box::new(Shown::of(webhook, &opened))),
                        Err(_) => Listed::Unreadable {
                            id,
                            state: UNREADABLE,
                        },
                    })
                    .collect();
                output::print_json(&list)?;
            }
        }
        let mut faults = opened
            .records
            .iter()
            .filter_map(|(id, record)| Some(unopened(id, record.as_ref().err()?)));
        match (faults.next(), faults.count()) {
            (None, _) => Ok(()),
            (Some(fault), 0) => Err(fault),
            (Some(fault), more) => bail!("{fault} ({more} more cannot be read)"),
        }
    }
}

fn table(opened: &Opened) -> String {
    if opened.records.is_empty() {
        return "there are no webhooks; `postrider subscriptions apply -f FILE` brings some\n"
            .to_owned();
    }
    let mut table = output::table(&["id", "customer", "name", "url", "types", "state", "version"]);
    for (id, record) in &opened.records {
        let Ok(webhook) = record else {
            table.add_row([id.as_str(), "", "", "", "", UNREADABLE, ""]);
            continue;
        };
        // A query may hold a token.
        let mut url = webhook.url.clone();
        url.set_query(None);
        url.set_fragment(None);
        table.add_row([
            id.as_str(),
            &webhook
                .customer
                .as_ref()
                .map_or_else(|| "all".to_owned(), |customer| output::escaped(customer)),
            &output::escaped(&webhook.name),
            url.as_str(),
            &webhook.event_types.join(" "),
            state_word(webhook, opened.condition(webhook)),
            &webhook.version.to_string(),
        ]);
    }
    format!("{table}\n")
}

/// A webhook as users may see it, in the contract's order.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    view: View,
    state: &'static str,
    /// Why it is tripped or was disabled; empty where a person did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    state_reason: Option<String>,
    /// As of the last transition, where one is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_success_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure_at: Option<Timestamp>,
    /// Whether there is a signing secret.
    signed: bool,
}

impl Shown {
    fn of(webhook: &Subscription, opened: &Opened) -> Self {
        let condition = opened.condition(webhook);
        let time = |ms: Option<i64>| ms.and_then(|ms| Timestamp::from_millisecond(ms).ok());
        Self {
            view: View::of(webhook),
            state: state_word(webhook, condition),
            state_reason: condition
                .map(|condition| condition.reason.clone())
                .filter(|reason| !reason.is_empty()),
            last_success_at: time(condition.and_then(|condition| condition.last_success_at_ms)),
            last_failure_at: time(condition.and_then(|condition| condition.last_failure_at_ms)),
            signed: !webhook.secrets.is_empty(),
        }
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum Listed<'a> {
    Readable(Box<Shown>),
    Unreadable {
        id: &'a WebhookId,
        state: &'static str,
    },
}

impl Show {
    pub(super) fn run(self, config: &Config) -> Answer {
        let opened = Opened::by(config)?;
        let shown = Shown::of(opened.webhook(&self.id)?, &opened);
        match self.output {
            Output::Table => output::print(&output::escaped(&serde_saphyr::to_string(&shown)?)),
            Output::Json => output::print_json(&shown),
        }
    }
}

impl Export {
    pub(super) fn run(self, config: &Config) -> Answer {
        let opened = Opened::by(config)?;
        let webhooks = opened.webhooks().context(
            "an export that leaves webhooks out would delete them when it is applied with --prune",
        )?;
        let count = webhooks.len();
        let text = file::write(webhooks.into_values())?;
        match self.to {
            None => output::print(&text),
            Some(path) => {
                std::fs::write(&path, text).with_context(|| {
                    format!(
                        "{} cannot be written; check the path and its rights",
                        path.display()
                    )
                })?;
                eprintln!("{count} webhooks written to {}", path.display());
                Ok(())
            }
        }
    }
}
