//! `postrider subscriptions delete`, `pause` and `resume`: every id is known before the first is changed.

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Opened;
use crate::cli::Answer;
use crate::cli::audit::Audit;
use crate::cli::output::{self, Output};
use crate::config::Config;
use crate::subscription::{Subscription, WebhookId};

#[derive(Args)]
struct Which {
    /// Ids of webhooks
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
    /// The form of the answer
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Args)]
pub(in crate::cli) struct Delete {
    #[command(flatten)]
    which: Which,
}

#[derive(Args)]
pub(in crate::cli) struct Pause {
    #[command(flatten)]
    which: Which,
}

#[derive(Args)]
pub(in crate::cli) struct Resume {
    #[command(flatten)]
    which: Which,
}

impl Delete {
    pub(super) fn run(self, config: &Config) -> Answer {
        let opened = Opened::by(config)?;
        let ids: Vec<&WebhookId> = self
            .which
            .ids
            .iter()
            .map(|id| opened.id(id))
            .collect::<Result<_, _>>()?;
        let mut changes = Vec::new();
        let audit = Audit::by(opened.catalog.producer(), config);
        for id in ids {
            opened.catalog.delete(id)?;
            audit.webhook("webhook.delete", id, opened.webhook(id).ok(), None);
            changes.push((id, "deleted"));
        }
        report(&changes, self.which.output)
    }
}

impl Pause {
    pub(super) fn run(self, config: &Config) -> Answer {
        set_paused(&self.which, true, config)
    }
}

impl Resume {
    pub(super) fn run(self, config: &Config) -> Answer {
        set_paused(&self.which, false, config)
    }
}

fn set_paused(which: &Which, paused: bool, config: &Config) -> Answer {
    let opened = Opened::by(config)?;
    let webhooks: Vec<&Subscription> = which
        .ids
        .iter()
        .map(|id| opened.webhook(id))
        .collect::<Result<_, _>>()?;
    let mut changes = Vec::new();
    let audit = Audit::by(opened.catalog.producer(), config);
    let action = if paused {
        "webhook.pause"
    } else {
        "webhook.resume"
    };
    for webhook in webhooks {
        if webhook.paused == paused {
            changes.push((&webhook.id, "unchanged"));
            continue;
        }
        let mut changed = webhook.clone();
        changed.set_paused(paused, Timestamp::now());
        opened.catalog.write(&changed)?;
        audit.webhook(action, &webhook.id, Some(webhook), Some(&changed));
        changes.push((&webhook.id, if paused { "paused" } else { "resumed" }));
    }
    report(&changes, which.output)
}

fn report(changes: &[(&WebhookId, &str)], form: Output) -> Answer {
    match form {
        Output::Table => output::print(
            &changes
                .iter()
                .map(|(id, change)| format!("{change} {id}\n"))
                .collect::<String>(),
        ),
        Output::Json => {
            let list: Vec<Value> = changes
                .iter()
                .map(|(id, change)| json!({"id": id, "action": change}))
                .collect();
            output::print_json(&list)
        }
    }
}
