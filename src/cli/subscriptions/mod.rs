//! `postrider subscriptions`: the catalog of webhooks, read and changed through its compacted topic. Routers follow that topic live;
//! nothing here talks to one.
//!
//! - `file`: a file and the catalog become one plan, refused whole or carried out whole; `apply`, `diff`
//! - `list`: `list`, `show`, `export`
//! - `change`: `delete`, `pause`, `resume`
//! - `test_event`: `test`

mod apply;
mod change;
mod diff;
mod file;
mod list;
mod test_event;

use std::collections::BTreeMap;

use anyhow::{anyhow, bail};
use clap::Subcommand;

use super::{Answer, Context};
use crate::app;
use crate::config::Config;
use crate::kafka::settings::Connection;
use crate::kafka::topics::Cluster;
use crate::pipeline::catalog_topic::{CatalogTopic, Conditions, Records};
use crate::pipeline::topics::Topics;
use crate::subscription::condition::Condition;
use crate::subscription::seal::SealError;
use crate::subscription::{Subscription, WebhookId};

#[derive(Subcommand)]
pub(super) enum Subscriptions {
    /// Lists the webhooks
    List(list::List),
    /// Shows a webhook with all its fields, secrets masked
    Show(list::Show),
    /// Brings the catalog to what a file says; nothing is changed unless all of the file is valid
    Apply(apply::Apply),
    /// Shows what `apply` would change, secrets masked
    Diff(diff::Diff),
    /// Writes the catalog as a file that `apply` reads again; secrets are masked, which means "as stored" there
    Export(list::Export),
    /// Deletes webhooks; their waiting deliveries are dropped
    Delete(change::Delete),
    /// Pauses webhooks: their events are held until they are resumed
    Pause(change::Pause),
    /// Resumes paused webhooks; what was held for them is delivered
    Resume(change::Resume),
    /// Sends a sample event to one webhook, by the way of all deliveries
    Test(test_event::TestEvent),
}

impl Subscriptions {
    pub(super) fn run(self, context: &Context) -> Answer {
        let config = context.config()?;
        match self {
            Self::List(list) => list.run(&config),
            Self::Show(show) => show.run(&config),
            Self::Apply(apply) => apply.run(&config),
            Self::Diff(diff) => diff.run(&config),
            Self::Export(export) => export.run(&config),
            Self::Delete(delete) => delete.run(&config),
            Self::Pause(pause) => pause.run(&config),
            Self::Resume(resume) => resume.run(&config),
            Self::Test(test) => test.run(&config),
        }
    }
}

/// An open catalog and what it held when it was opened.
struct Opened {
    connection: Connection,
    cluster: Cluster,
    topics: Topics,
    catalog: CatalogTopic,
    records: Records,
    conditions: Conditions,
}

impl Opened {
    fn by(config: &Config) -> anyhow::Result<Self> {
        let (connection, cluster) = app::reached(config)?;
        let key = app::sealing_key(config)?;
        let topics = Topics::new(&config.kafka.topic_prefix);
        needs(&cluster, &topics.subscriptions)?;
        let catalog = CatalogTopic::open(connection.clone(), &topics, key)?;
        let (records, conditions) = catalog.read_with_conditions()?;
        Ok(Self {
            connection,
            cluster,
            topics,
            catalog,
            records,
            conditions,
        })
    }

    /// The id of a webhook that there is, whether its record can be opened or not.
    fn id(&self, text: &str) -> anyhow::Result<&WebhookId> {
        match self.records.get_key_value(text) {
            Some((id, _)) => Ok(id),
            None => Err(unknown(text, self.records.keys())),
        }
    }

    fn webhook(&self, text: &str) -> anyhow::Result<&Subscription> {
        let id = self.id(text)?;
        match self.records.get(id) {
            Some(Ok(webhook)) => Ok(webhook),
            Some(Err(fault)) => Err(unopened(id, fault)),
            None => Err(unknown(text, self.records.keys())),
        }
    }

    /// What routers have learnt of a webhook's endpoint, as it is now.
    fn condition(&self, webhook: &Subscription) -> Option<&Condition> {
        let condition = self.conditions.get(&webhook.id)?;
        condition.applies_to(webhook).then_some(condition)
    }

    /// All webhooks, if every record can be opened.
    fn webhooks(&self) -> anyhow::Result<BTreeMap<&WebhookId, &Subscription>> {
        self.records
            .iter()
            .map(|(id, record)| match record {
                Ok(webhook) => Ok((id, webhook)),
                Err(fault) => Err(unopened(id, fault)),
            })
            .collect()
    }
}

/// Why the record of a webhook cannot be opened, with the webhook's id once.
fn unopened(id: &WebhookId, fault: &SealError) -> anyhow::Error {
    match fault {
        SealError::Unreadable(_) | SealError::LaterForm(_) => anyhow!("webhook {id}: {fault}"),
        named => anyhow!("{named}"),
    }
}

fn needs(cluster: &Cluster, topic: &str) -> Answer {
    if cluster.topics.contains_key(topic) {
        return Ok(());
    }
    bail!(
        "the topic {topic} does not exist; `postrider topics apply` makes it (or is kafka.topic_prefix another one?)"
    )
}

fn unknown<'a>(text: &str, ids: impl Iterator<Item = &'a WebhookId>) -> anyhow::Error {
    let nearest = ids
        .map(|id| (strsim::normalized_damerau_levenshtein(text, id), id))
        .max_by(|left, right| left.0.total_cmp(&right.0));
    let text: String = text.chars().take(80).collect();
    match nearest {
        Some((likeness, id)) if likeness >= 0.6 => {
            anyhow!("there is no webhook {text:?}; did you mean {id}?")
        }
        _ => {
            anyhow!(
                "there is no webhook {text:?}; `postrider subscriptions list` shows those there are"
            )
        }
    }
}
