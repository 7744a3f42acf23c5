//! What a configuration means on a cluster: how to connect, which topics are needed and whether they are there, the key.

use std::sync::Arc;

use tracing::{info, warn};

use super::Error;
use crate::config::{self, Config, Secret};
use crate::intake::decode::Reading;
use crate::kafka::topics::{self, Cluster, Finding, Plan};
use crate::kafka::{self, settings::Connection};
use crate::matching::catalog::Catalog;
use crate::metrics::Metrics;
use crate::pipeline::replaying::Origin;
use crate::pipeline::topics::{Sizes, Topics, plans};
use crate::subscription::seal::SealingKey;
use crate::traces::{self, Tracer};

/// The client settings that a configuration means.
pub fn connection(config: &Config) -> Connection {
    let kafka = &config.kafka;
    let copy = |properties: &config::Properties| {
        properties
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    };
    Connection {
        bootstrap_servers: kafka.bootstrap_servers.clone(),
        client_id: format!("postrider-{}", std::process::id()),
        group_id: kafka.group_id.clone(),
        properties: copy(&kafka.properties),
        consumer_properties: copy(&kafka.consumer),
        producer_properties: copy(&kafka.producer),
        message_bytes: 0,
    }
}

/// How a configuration's events are read.
pub fn reading(config: &Config) -> Reading {
    Reading {
        customer_pointer: config.intake.customer_pointer.clone(),
        inline_webhooks: config.intake.inline_webhooks,
    }
}

/// Where a configuration's events come from, for replays of what a webhook missed.
pub fn origin(config: &Config, catalog: Arc<Catalog>) -> Origin {
    let topics = Topics::new(&config.kafka.topic_prefix);
    Origin {
        sources: config.intake.topics.clone(),
        reading: reading(config),
        catalog,
        attempts: config.history.attempts.then_some(topics.attempts),
    }
}

/// What takes spans, where they are wanted.
pub(super) fn tracer(
    config: &Config,
    metrics: &Arc<Metrics>,
) -> Result<Option<Arc<Tracer>>, traces::Error> {
    let traces = &config.traces;
    let authorization = traces.authorization.as_ref().and_then(Secret::expose);
    let start = |endpoint| {
        Tracer::start(endpoint, authorization, traces.sample_ratio, metrics).map(Arc::new)
    };
    traces.endpoint.as_ref().map(start).transpose()
}

/// What the cluster of a configuration has, and the connection to it.
///
/// # Errors
/// The broker does not answer, with the reason and what to check, within ten seconds; or the client refuses its settings.
pub fn reached(config: &Config) -> Result<(Connection, Cluster), Error> {
    let connection = connection(config);
    let cluster = topics::describe(&connection).map_err(|fault| match fault {
        kafka::Error::NoAnswer(why) => {
            Error::Unreachable(config.kafka.bootstrap_servers.clone(), why)
        }
        other => other.into(),
    })?;
    Ok((connection, cluster))
}

/// The topics that a configuration needs, and the connection with the record size that follows from its source topics.
///
/// # Errors
/// The broker does not answer.
pub async fn planned(config: &Config) -> Result<(Connection, Vec<Plan>), Error> {
    let (mut connection, cluster) = reached(config)?;
    let sources: Vec<&str> = config
        .intake
        .topics
        .iter()
        .map(String::as_str)
        .filter(|name| cluster.topics.contains_key(*name))
        .collect();
    let message_bytes = topics::message_bytes(&connection, &sources).await;
    connection.message_bytes = message_bytes;
    let sizes = Sizes {
        dispatch_partitions: config.kafka.dispatch_partitions.into(),
        delay_partitions: config.kafka.delay_partitions.into(),
        dead_letter_partitions: config.kafka.dead_letter_partitions.into(),
        held_partitions: config.kafka.held_partitions.into(),
        dead_letter_retention_days: config.retry.dead_letter_retention_days.into(),
        message_bytes,
        replication: topics::replication(&connection, config.kafka.replication_factor.into())?,
    };
    Ok((
        connection,
        plans(&Topics::new(&config.kafka.topic_prefix), &sizes),
    ))
}

/// The key that seals secrets, if there is one, with the old ones that still open.
///
/// # Errors
/// One of them is no key.
pub fn sealing_key(config: &Config) -> Result<Option<SealingKey>, Error> {
    let secrets = &config.secrets;
    let key = secrets.key.expose().map(SealingKey::from_base64);
    let Some(key) = key.transpose()? else {
        return Ok(None);
    };
    let old = secrets.old_keys.iter().filter_map(Secret::expose);
    let old: Result<_, _> = old.map(SealingKey::from_base64).collect();
    Ok(Some(key.with_old(old.map_err(Error::OldKey)?)))
}

/// Makes sure that every topic is there, or says which are missing and how to make them.
pub(super) async fn prepare_topics(
    config: &Config,
    connection: &Connection,
    plans: Vec<Plan>,
) -> Result<(), Error> {
    let found = topics::verify(connection, &plans).await?;
    for (plan, finding) in &found {
        if let Finding::Differs(differences) = finding {
            for (setting, wanted, found) in differences {
                warn!(
                    topic = plan.name,
                    setting, wanted, found, "a topic is not set as planned"
                );
            }
        }
    }
    let missing: Vec<Plan> = found
        .into_iter()
        .filter(|(_, finding)| *finding == Finding::Missing)
        .map(|(plan, _)| plan)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let replication = i32::from(config.kafka.replication_factor);
    let failures = if config.kafka.create_topics {
        info!(count = missing.len(), "creating topics");
        topics::create(connection, &missing, replication).await?
    } else {
        Vec::new()
    };
    if config.kafka.create_topics && failures.is_empty() {
        return Ok(());
    }
    let replication = topics::replication(connection, replication)?;
    let mut text = String::from("topics are missing");
    for (name, why) in &failures {
        text.push_str(&format!("\n  {name}: not created: {why}"));
    }
    text.push_str(
        "\ncreate them with `postrider topics apply`, or have somebody with the rights run:",
    );
    for plan in &missing {
        text.push_str(&format!(
            "\n  {}",
            topics::command(plan, &config.kafka.bootstrap_servers, replication)
        ));
    }
    Err(Error::Topics(text))
}
