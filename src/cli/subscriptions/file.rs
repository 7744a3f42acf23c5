//! A file and the catalog become one plan: what `apply` does and `diff` shows. Everything that can be wrong is found here, before
//! anything is written, and told at once.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use clap::Args;
use jiff::Timestamp;
use secrecy::SecretString;

use super::Opened;
use crate::app;
use crate::cli::input;
use crate::config::Config;
use crate::outbound::guard::Guard;
use crate::pipeline::admission;
use crate::pipeline::catalog_topic::Records;
use crate::subscription::file::{FileError, Reading};
use crate::subscription::seal::SealError;
use crate::subscription::{Draft, FieldError, Subscription, WebhookId, read::pointer};

/// The file and how it is meant.
#[derive(Args)]
pub(super) struct Source {
    /// The file, YAML or JSON; `-` for stdin. `${NAME}` in it is taken from the environment
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    file: PathBuf,
    /// Delete the webhooks that are not in the file
    #[arg(long)]
    pub(super) prune: bool,
    /// Write anew the webhooks whose stored secrets cannot be opened, because their key is lost; what the file does not say is
    /// lost too
    #[arg(long)]
    replace_unreadable: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Create,
    Change,
    Unchanged,
    Prune,
}

/// What becomes of one webhook.
pub(super) struct Step {
    pub(super) id: WebhookId,
    pub(super) action: Action,
    pub(super) before: Option<Subscription>,
    pub(super) after: Option<Subscription>,
    /// Contract names of the fields that change.
    pub(super) fields: Vec<&'static str>,
    pub(super) generated_secret: Option<SecretString>,
}

impl Step {
    pub(super) fn name(&self) -> &str {
        let webhook = self.after.as_ref().or(self.before.as_ref());
        webhook.map_or("", |webhook| webhook.name.as_str())
    }
}

/// What becomes of the catalog.
pub(super) struct Plan {
    /// In the order of the file, then what is pruned.
    pub(super) steps: Vec<Step>,
    /// Webhooks that are not in the file and stay.
    pub(super) kept: usize,
}

impl Plan {
    pub(super) fn count(&self, action: Action) -> usize {
        let is_it = |step: &&Step| step.action == action;
        self.steps.iter().filter(is_it).count()
    }
}

impl Source {
    /// The plan against the catalog as it is.
    ///
    /// # Errors
    /// The file cannot be read, or holds faults: all of them, each with its line.
    pub(super) fn plan(&self, config: &Config, opened: &Opened) -> anyhow::Result<Plan> {
        let name = match self.file.to_str() {
            Some("-") => "stdin".to_owned(),
            _ => self.file.display().to_string(),
        };
        let text = String::from_utf8(input::read(&self.file)?)
            .ok()
            .with_context(|| format!("{name} is not UTF-8 text"))?;
        let environment = |name: &str| std::env::var(name).ok();
        let reading = Reading::of(
            &name,
            &text,
            &environment,
            app::sealing_key(config)?.as_ref(),
        )
        .map_err(|fault| refused(&name, std::slice::from_ref(&fault)))?;
        let guard = Guard::new(config.outbound.allow_networks.clone());
        let planner = Planner {
            records: &opened.records,
            guard,
            now: Timestamp::now(),
            replace_unreadable: self.replace_unreadable,
        };
        planner.check_key()?;
        let mut plan = planner
            .steps(reading)
            .map_err(|faults| refused(&name, &faults))?;
        let in_file: BTreeSet<&WebhookId> = plan.steps.iter().map(|step| &step.id).collect();
        let missing: Vec<Step> = opened
            .records
            .iter()
            .filter(|(id, _)| !in_file.contains(id))
            .map(|(id, record)| Step {
                id: id.clone(),
                action: Action::Prune,
                before: record.as_ref().ok().cloned(),
                after: None,
                fields: Vec::new(),
                generated_secret: None,
            })
            .collect();
        if self.prune {
            plan.steps.extend(missing);
        } else {
            plan.kept = missing.len();
        }
        Ok(plan)
    }
}

fn refused(name: &str, faults: &[FileError]) -> anyhow::Error {
    let lines: String = faults.iter().map(|fault| format!("\n  {fault}")).collect();
    anyhow!("{name} is refused, and nothing was changed:{lines}")
}

struct Planner<'a> {
    records: &'a Records,
    guard: Guard,
    now: Timestamp,
    replace_unreadable: bool,
}

impl Planner<'_> {
    /// A catalog sealed with two keys could be read whole by no router, so another key than the stored one is refused.
    fn check_key(&self) -> anyhow::Result<()> {
        let other_key = self.records.values().find_map(|record| match record {
            Err(fault @ SealError::WrongKey { .. }) => Some(fault),
            _ => None,
        });
        match other_key {
            Some(fault) if !self.replace_unreadable => Err(anyhow!(
                "{fault}; where that key is lost, --replace-unreadable writes such webhooks anew"
            )),
            _ => Ok(()),
        }
    }

    fn steps(&self, mut reading: Reading) -> Result<Plan, Vec<FileError>> {
        let mut steps = Vec::new();
        for draft in reading.drafts().to_vec() {
            let url = reading
                .text(&pointer(draft.pointer(), "url"))
                .map(str::to_owned);
            for fault in admission::faults(&draft, url.as_deref(), &self.guard) {
                reading.refuse(fault);
            }
            match self.step(draft) {
                Ok(step) => steps.push(step),
                Err(faults) => faults.into_iter().for_each(|fault| reading.refuse(fault)),
            }
        }
        reading.finish()?;
        Ok(Plan { steps, kept: 0 })
    }

    fn step(&self, draft: Draft) -> Result<Step, Vec<FieldError>> {
        let id = draft.id().clone();
        let stored = match self.records.get(&id) {
            Some(Ok(stored)) => Some(stored),
            Some(Err(fault)) if !self.replace_unreadable => {
                return Err(vec![FieldError {
                    pointer: draft.pointer().to_owned(),
                    message: format!("what is stored cannot be opened: {fault}"),
                }]);
            }
            Some(Err(_)) | None => None,
        };
        let resolved = match stored {
            Some(stored) => draft.update(stored, self.now)?,
            None => draft.create(self.now)?,
        };
        let action = match stored {
            None => Action::Create,
            Some(_) if resolved.changed.is_empty() => Action::Unchanged,
            Some(_) => Action::Change,
        };
        Ok(Step {
            id,
            action,
            before: stored.cloned(),
            after: Some(resolved.subscription),
            fields: resolved.changed,
            generated_secret: resolved.generated_secret,
        })
    }
}
