//! The topics that the program needs: planned, compared with the cluster, created where that is allowed.
//!
//! A missing topic in the middle of a run would be a produce that fails for ever, so everything is verified at the start and the
//! program refuses to start otherwise, naming the commands that mend it. Source topics belong to their producers and are
//! never created here.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::RDKafkaErrorCode;

use super::Error;
use super::settings::Connection;

const BROKER_WAIT: Duration = Duration::from_secs(20);
/// What the headers of a delivery may add to the body of its event.
const HEADERS_BYTES: usize = 256 * 1024;
/// Kafka's own default of `message.max.bytes`.
const USUAL_MESSAGE_BYTES: usize = 1_048_588;
/// The name in a [`Finding::Differs`] of what is no setting.
const PARTITIONS: &str = "partitions";

/// One topic as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub name: String,
    pub partitions: i32,
    /// Kafka's topic settings.
    pub settings: BTreeMap<&'static str, String>,
    /// What the topic is for, in a few words.
    pub purpose: &'static str,
}

/// What the cluster said of a planned topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    Good,
    Missing,
    /// The topic works, but not as planned: setting, wanted, found.
    Differs(Vec<(String, String, String)>),
}

/// What a cluster has, as far as planning needs it.
pub struct Cluster {
    pub brokers: usize,
    /// Name and number of partitions.
    pub topics: BTreeMap<String, usize>,
}

/// Asks the cluster for its brokers and topics; the answer, or that there is none, comes within ten seconds.
///
/// # Errors
/// [`Error::NoAnswer`] with the reason as the client tells it, [`Error::Settings`] when there can be no client.
pub fn describe(connection: &Connection) -> Result<Cluster, Error> {
    let metadata = super::reach::metadata(connection)?;
    Ok(Cluster {
        brokers: metadata.brokers().len(),
        topics: metadata
            .topics()
            .iter()
            .filter(|topic| topic.error().is_none())
            .map(|topic| (topic.name().to_owned(), topic.partitions().len()))
            .collect(),
    })
}

fn admin(connection: &Connection) -> Result<AdminClient<DefaultClientContext>, Error> {
    Ok(connection.admin().create()?)
}

/// The settings of existing topics, by topic and name.
pub async fn settings_of(
    connection: &Connection,
    names: &[&str],
) -> Result<BTreeMap<String, BTreeMap<String, String>>, Error> {
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let resources: Vec<ResourceSpecifier<'_>> = names
        .iter()
        .map(|name| ResourceSpecifier::Topic(name))
        .collect();
    let options = AdminOptions::new().request_timeout(Some(BROKER_WAIT));
    let answers = admin(connection)?
        .describe_configs(&resources, &options)
        .await?;
    let mut found = BTreeMap::new();
    for answer in answers.into_iter().flatten() {
        if let rdkafka::admin::OwnedResourceSpecifier::Topic(name) = answer.specifier {
            let settings = answer
                .entries
                .into_iter()
                .filter_map(|entry| Some((entry.name, entry.value?)))
                .collect();
            found.insert(name, settings);
        }
    }
    Ok(found)
}

/// The largest record that our topics must take: what the source topics allow, and room for headers.
pub async fn message_bytes(connection: &Connection, sources: &[&str]) -> usize {
    let largest = match settings_of(connection, sources).await {
        Ok(settings) => settings
            .values()
            .filter_map(|settings| settings.get("max.message.bytes")?.parse().ok())
            .max()
            .unwrap_or(USUAL_MESSAGE_BYTES),
        Err(_) => USUAL_MESSAGE_BYTES,
    };
    largest.max(USUAL_MESSAGE_BYTES) + HEADERS_BYTES
}

/// Compares plans with the cluster. Settings of existing topics are compared too; where the rights to read them are
/// missing, existence must do.
pub async fn verify(
    connection: &Connection,
    plans: &[Plan],
) -> Result<Vec<(Plan, Finding)>, Error> {
    let cluster = describe(connection)?;
    let existing: Vec<&str> = plans
        .iter()
        .map(|plan| plan.name.as_str())
        .filter(|name| cluster.topics.contains_key(*name))
        .collect();
    let settings = settings_of(connection, &existing).await.unwrap_or_default();
    Ok(plans
        .iter()
        .map(|plan| {
            let finding = match cluster.topics.get(&plan.name) {
                None => Finding::Missing,
                Some(partitions) => compare(plan, *partitions, settings.get(&plan.name)),
            };
            (plan.clone(), finding)
        })
        .collect())
}

fn compare(plan: &Plan, partitions: usize, settings: Option<&BTreeMap<String, String>>) -> Finding {
    let mut differences = Vec::new();
    if partitions < usize::try_from(plan.partitions).unwrap_or(0) {
        differences.push((
            PARTITIONS.to_owned(),
            plan.partitions.to_string(),
            partitions.to_string(),
        ));
    }
    for (name, wanted) in &plan.settings {
        let Some(found) = settings.and_then(|settings| settings.get(*name)) else {
            continue;
        };
        // More room or a longer life than planned is somebody's choice, not a fault.
        let enough = match (wanted.parse::<i64>(), found.parse::<i64>()) {
            (Ok(wanted), Ok(found)) => found >= wanted || found == -1,
            _ => found == wanted,
        };
        if !enough {
            differences.push(((*name).to_owned(), wanted.clone(), found.clone()));
        }
    }
    if differences.is_empty() {
        Finding::Good
    } else {
        Finding::Differs(differences)
    }
}

/// Creates topics; one that somebody else has just created counts as created. The answer is the failures, by topic.
pub async fn create(
    connection: &Connection,
    plans: &[Plan],
    replication_factor: i32,
) -> Result<Vec<(String, String)>, Error> {
    let failures = ask_to_create(connection, plans, replication_factor, false).await?;
    if failures.is_empty() {
        wait_until_known(connection, plans)?;
    }
    Ok(failures)
}

/// Why topics could not be created, by topic, without creating any.
///
/// # Errors
/// The broker does not answer.
pub async fn try_create(
    connection: &Connection,
    plans: &[Plan],
    replication_factor: i32,
) -> Result<Vec<(String, String)>, Error> {
    ask_to_create(connection, plans, replication_factor, true).await
}

async fn ask_to_create(
    connection: &Connection,
    plans: &[Plan],
    replication_factor: i32,
    only_validate: bool,
) -> Result<Vec<(String, String)>, Error> {
    if plans.is_empty() {
        return Ok(Vec::new());
    }
    let replication = replication(connection, replication_factor)?;
    let topics: Vec<NewTopic<'_>> = plans
        .iter()
        .map(|plan| {
            let mut topic = NewTopic::new(
                &plan.name,
                plan.partitions,
                TopicReplication::Fixed(replication),
            );
            for (name, value) in &plan.settings {
                topic = topic.set(name, value);
            }
            topic
        })
        .collect();
    let options = AdminOptions::new()
        .operation_timeout(Some(BROKER_WAIT))
        .validate_only(only_validate);
    let answers = admin(connection)?.create_topics(&topics, &options).await?;
    Ok(answers
        .into_iter()
        .filter_map(Result::err)
        .filter(|(_, code)| *code != RDKafkaErrorCode::TopicAlreadyExists)
        .map(|(name, code)| (name, code.to_string()))
        .collect())
}

/// A topic is created before every broker knows of it, and before the leaders of its partitions know that they are; whoever comes
/// then fails for a moment, so wait here.
fn wait_until_known(connection: &Connection, plans: &[Plan]) -> Result<(), Error> {
    let deadline = std::time::Instant::now() + BROKER_WAIT;
    for plan in plans {
        while let Err(failure) = super::table::spans(connection, &plan.name) {
            if std::time::Instant::now() > deadline {
                return Err(Error::NoAnswer(format!(
                    "topic {} was created but cannot be read: {failure}",
                    plan.name
                )));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

/// The replication factor that this cluster can carry: what is asked for, or its number of brokers.
pub fn replication(connection: &Connection, wanted: i32) -> Result<i32, Error> {
    let brokers = i32::try_from(describe(connection)?.brokers).unwrap_or(i32::MAX);
    Ok(wanted.min(brokers).max(1))
}

/// The command of Kafka's own tools that creates a topic, for whoever has the rights.
pub fn command(plan: &Plan, bootstrap_servers: &str, replication: i32) -> String {
    let mut text = format!(
        "kafka-topics.sh --bootstrap-server {bootstrap_servers} --create --topic {} --partitions {} --replication-factor {replication}",
        plan.name, plan.partitions
    );
    for (name, value) in &plan.settings {
        text.push_str(&format!(" --config {name}={value}"));
    }
    text
}

/// The commands of Kafka's own tools that bring an existing topic to its plan, from what [`Finding::Differs`] holds.
pub fn alter_commands(
    plan: &Plan,
    differences: &[(String, String, String)],
    bootstrap_servers: &str,
) -> Vec<String> {
    let mut commands = Vec::new();
    let settings: Vec<String> = differences
        .iter()
        .filter(|(setting, _, _)| setting != PARTITIONS)
        .map(|(setting, wanted, _)| format!("{setting}={wanted}"))
        .collect();
    if !settings.is_empty() {
        commands.push(format!(
            "kafka-configs.sh --bootstrap-server {bootstrap_servers} --alter --entity-type topics --entity-name {} --add-config {}",
            plan.name,
            settings.join(",")
        ));
    }
    if settings.len() < differences.len() {
        commands.push(format!(
            "kafka-topics.sh --bootstrap-server {bootstrap_servers} --alter --topic {} --partitions {}",
            plan.name, plan.partitions
        ));
    }
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_that_differs_gets_one_command_for_settings_and_one_for_partitions() {
        let plan = Plan {
            name: "postrider.dispatch".to_owned(),
            partitions: 64,
            settings: BTreeMap::from([("cleanup.policy", "delete".to_owned())]),
            purpose: "",
        };
        let found = BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]);
        let Finding::Differs(differences) = compare(&plan, 3, Some(&found)) else {
            panic!("nothing differs");
        };
        assert_eq!(
            alter_commands(&plan, &differences, "b:9092"),
            [
                "kafka-configs.sh --bootstrap-server b:9092 --alter --entity-type topics --entity-name postrider.dispatch --add-config cleanup.policy=delete",
                "kafka-topics.sh --bootstrap-server b:9092 --alter --topic postrider.dispatch --partitions 64",
            ]
        );
    }
}
