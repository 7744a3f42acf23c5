//! `postrider subscriptions apply`: a file becomes the catalog. All is checked and sealed before the first record is written.

use anyhow::{anyhow, bail};
use clap::Args;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::Opened;
use super::file::{Action, Plan, Source, Step};
use crate::cli::Answer;
use crate::cli::audit::Audit;
use crate::cli::output::{self, Output};
use crate::config::Config;
use crate::pipeline::catalog_topic::{CatalogTopic, Entry, Error};
use crate::subscription::seal::SealError;

#[derive(Args)]
pub(in crate::cli) struct Apply {
    #[command(flatten)]
    source: Source,
    /// Check everything and show what would be done, without doing it
    #[arg(long)]
    dry_run: bool,
    /// The form of the answer
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl Action {
    /// What was done.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "created",
            Self::Change => "changed",
            Self::Unchanged => "unchanged",
            Self::Prune => "pruned",
        }
    }
}

impl Apply {
    pub(super) fn run(self, config: &Config) -> Answer {
        let opened = Opened::by(config)?;
        let plan = self.source.plan(config, &opened)?;
        let entries = sealed(&plan, &opened.catalog)?;
        let count = entries.len();
        let written = if self.dry_run {
            Vec::new()
        } else {
            opened.catalog.put_all(entries)
        };
        let audit = Audit::by(opened.catalog.producer(), config);
        // What failed is not shown as done; the secrets of what was written are shown, as nobody can see them later.
        let mut failures = Vec::new();
        let mut answers = written.into_iter();
        let mut done = Vec::new();
        for step in &plan.steps {
            let answer = if step.action == Action::Unchanged {
                None
            } else {
                answers.next()
            };
            match answer {
                Some(Err(fault)) => failures.push(format!("\n  {}: {fault}", step.id)),
                Some(Ok(())) => {
                    let before = opened.webhook(&step.id).ok();
                    audit.webhook("webhook.apply", &step.id, before, step.after.as_ref());
                    done.push(step);
                }
                None => done.push(step),
            }
        }
        match self.output {
            Output::Table => output::print(&self.as_text(&done, &plan))?,
            Output::Json => output::print_json(&self.as_json(&done, &plan))?,
        }
        if failures.is_empty() {
            return Ok(());
        }
        bail!(
            "{} of {count} webhooks were not written; apply the file again, which repeats nothing:{}",
            failures.len(),
            failures.concat()
        )
    }

    fn as_text(&self, done: &[&Step], plan: &Plan) -> String {
        let mut table = output::table(&["action", "id", "name", "fields"]);
        for step in done {
            table.add_row([
                step.action.as_str(),
                step.id.as_str(),
                &output::escaped(step.name()),
                &step.fields.join(" "),
            ]);
        }
        let mut text = if done.is_empty() {
            String::new()
        } else {
            format!("{table}\n\n")
        };
        text.push_str(&format!("{}\n", self.counts(done)));
        if plan.kept > 0 {
            text.push_str(&format!(
                "{} not in the file and kept (--prune deletes them)\n",
                plan.kept
            ));
        }
        if self.dry_run {
            text.push_str("nothing was written (--dry-run)\n");
            return text;
        }
        for step in done {
            if let Some(secret) = &step.generated_secret {
                text.push_str(&format!(
                    "\nsecret of {} (shown this once): {}\n",
                    step.id,
                    secret.expose_secret()
                ));
            }
        }
        text
    }

    fn counts(&self, done: &[&Step]) -> String {
        [
            Action::Create,
            Action::Change,
            Action::Unchanged,
            Action::Prune,
        ]
        .map(|action| {
            let count = done.iter().filter(|step| step.action == action).count();
            format!("{count} {}", action.as_str())
        })
        .join(", ")
    }

    fn as_json(&self, done: &[&Step], plan: &Plan) -> Value {
        let webhooks: Vec<Value> = done
            .iter()
            .map(|step| {
                let mut object = json!({
                    "id": step.id,
                    "name": step.name(),
                    "action": step.action.as_str(),
                    "fields": step.fields,
                });
                if let Some(secret) = &step.generated_secret
                    && !self.dry_run
                {
                    object["secret"] = secret.expose_secret().into();
                }
                object
            })
            .collect();
        json!({"dry_run": self.dry_run, "kept": plan.kept, "webhooks": webhooks})
    }
}

/// The records of all that changes, in the plan's order.
fn sealed(plan: &Plan, catalog: &CatalogTopic) -> anyhow::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut without_key = Vec::new();
    for step in &plan.steps {
        match (step.action, &step.after) {
            (Action::Unchanged, _) => {}
            (_, None) => entries.push((step.id.clone(), None)),
            (_, Some(webhook)) => match catalog.seal(webhook) {
                Ok(record) => entries.push((step.id.clone(), Some(record))),
                Err(Error::Sealed(_, fault @ SealError::NoKeyToSeal { .. })) => {
                    without_key.push((step.id.as_str(), fault));
                }
                Err(fault) => return Err(fault.into()),
            },
        }
    }
    match without_key.as_slice() {
        [] => Ok(entries),
        [(_, fault)] => Err(anyhow!("{fault}; nothing was changed")),
        [(_, fault), others @ ..] => {
            let others: Vec<&str> = others.iter().map(|(id, _)| *id).collect();
            Err(anyhow!(
                "{fault}; nothing was changed (the same holds for {})",
                others.join(", ")
            ))
        }
    }
}
