//! The webhooks as they are stored, and the key that opens their secrets.

use super::rights::Found;
use super::{Line, Report};
use crate::app;
use crate::cli::Answer;
use crate::config::{Config, SecretSource};
use crate::kafka::rights::Operation;
use crate::kafka::settings::Connection;
use crate::kafka::topics::Cluster;
use crate::matching::catalog::entry_of;
use crate::outbound::guard::Guard;
use crate::pipeline::catalog_topic::{CatalogTopic, Records};
use crate::pipeline::topics::Topics;
use crate::subscription::seal::SealingKey;

const KEY: &str = "key";
const CATALOG: &str = "catalog";

/// The key by itself; `Err` inside where it is none.
pub(super) fn check_key(
    config: &Config,
    report: &mut Report,
) -> anyhow::Result<Option<SealingKey>> {
    match app::sealing_key(config) {
        Ok(Some(key)) => {
            report.tell(Line::ok(KEY, format!("the key {} is there", key.id())))?;
            Ok(Some(key))
        }
        Ok(None) => {
            let place = match config.secrets.key.source() {
                SecretSource::Env(name) => format!("the environment variable {name} is not set"),
                SecretSource::File(path) => format!("{path} holds none"),
                SecretSource::Text => "secrets.key is empty".to_owned(),
            };
            report.tell(Line::warning(
                KEY,
                format!("there is none ({place}), so no webhook with secrets can be stored"),
                "make one with: head -c 32 /dev/urandom | base64",
            ))?;
            Ok(None)
        }
        Err(fault) => {
            report.tell(Line::wrong(KEY, fault.to_string(), ""))?;
            Ok(None)
        }
    }
}

pub(super) fn check(
    config: &Config,
    connection: &Connection,
    cluster: &Cluster,
    rights: &Found,
    report: &mut Report,
) -> Answer {
    let key = check_key(config, report)?;
    let topics = Topics::new(&config.kafka.topic_prefix);
    if !cluster.topics.contains_key(&*topics.subscriptions) {
        // Said with the topics already.
        return Ok(());
    }
    let refused = rights.get(&*topics.subscriptions);
    if refused.is_some_and(|rights| rights.refuses(Operation::Read)) {
        // Said with the rights.
        return Ok(());
    }
    let records = CatalogTopic::open(connection.clone(), &topics, key)
        .and_then(|catalog| catalog.read_each());
    match records {
        Ok(records) => report.tell(webhooks(config, &records)),
        Err(fault) => report.tell(Line::wrong(CATALOG, fault.to_string(), "")),
    }
}

fn webhooks(config: &Config, records: &Records) -> Line {
    let mut unreadable = records.values().filter_map(|record| record.as_ref().err());
    if let Some(fault) = unreadable.next() {
        let count = unreadable.count() + 1;
        return Line::wrong(
            CATALOG,
            format!(
                "{count} of {} webhooks cannot be read: {fault}",
                records.len()
            ),
            "",
        );
    }
    let guard = Guard::new(config.outbound.allow_networks.clone());
    let mut faults = Vec::new();
    for webhook in records.values().flatten().filter(|webhook| webhook.enabled) {
        if let Err(refused) = guard.check_url(&webhook.url) {
            faults.push(format!("{}: {refused}", webhook.id));
        }
        if let (_, Some(fault)) = entry_of(webhook) {
            faults.push(format!(
                "{}: its filter cannot be evaluated: {fault}",
                webhook.id
            ));
        }
    }
    match faults.first() {
        None => Line::ok(CATALOG, format!("webhooks: {}", records.len())),
        Some(first) => Line::warning(
            CATALOG,
            format!(
                "{} of {} webhooks would have their deliveries dead-lettered ({first})",
                faults.len(),
                records.len()
            ),
            "mend them and apply them again",
        ),
    }
}
