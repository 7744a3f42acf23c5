//! The rights that `run` needs (deploy/ACLS.md has the same list), and the command that grants one that is missing.

use std::collections::BTreeMap;

use super::{Line, Report};
use crate::cli::Answer;
use crate::config::Config;
use crate::history::store::Kind;
use crate::kafka::rights::{Operation, Rights, to_group, to_topics};
use crate::kafka::settings::Connection;
use crate::kafka::topics::Plan;
use crate::pipeline::topics::Topics;

const NAME: &str = "rights";

/// The rights to topics that were found, by name.
pub(super) type Found = BTreeMap<String, Rights>;

/// Asks for the rights to our topics and to the sources that are named.
pub(super) fn to_all_topics(
    config: &Config,
    connection: &Connection,
    plans: &[Plan],
) -> Result<Found, crate::kafka::Error> {
    let names: Vec<&str> = plans
        .iter()
        .map(|plan| plan.name.as_str())
        .chain(sources(config))
        .collect();
    to_topics(connection, &names)
}

fn sources(config: &Config) -> impl Iterator<Item = &str> {
    let topics = config.intake.topics.iter().map(String::as_str);
    topics.filter(|name| !name.starts_with('^'))
}

/// Tells each right that is missing, an operation and a kind of resource a line.
pub(super) fn check(
    config: &Config,
    connection: &Connection,
    plans: &[Plan],
    found: &Found,
    report: &mut Report,
) -> Answer {
    let mut all_good = true;
    for (operation, topics) in refused_topics(config, plans, found) {
        all_good = false;
        report.tell(line(config, connection, operation, "topic", &topics))?;
    }
    let mut groups = [
        (Operation::Read, Vec::new()),
        (Operation::Describe, Vec::new()),
    ];
    for (operation, group) in needed_groups(config) {
        match to_group(connection, &group) {
            Ok(rights) if rights.refuses(operation) => {
                let of_operation = groups.iter_mut().find(|(needed, _)| *needed == operation);
                of_operation
                    .into_iter()
                    .for_each(|(_, names)| names.push(group.clone()));
            }
            Ok(_) => {}
            Err(fault) => {
                all_good = false;
                report.tell(Line::warning(
                    NAME,
                    format!("the group {group} could not be asked for: {fault}"),
                    "try again; the broker may be starting",
                ))?;
            }
        }
    }
    for (operation, names) in groups.iter().filter(|(_, names)| !names.is_empty()) {
        all_good = false;
        report.tell(line(config, connection, *operation, "group", names))?;
    }
    if all_good {
        let unknown = found.values().find_map(|rights| match rights {
            Rights::Unknown(why) if why.contains("KIP-430") => Some(why),
            _ => None,
        });
        report.tell(match unknown {
            None => Line::ok(NAME, "all that is needed of topics and groups"),
            Some(why) => {
                Line::warning(NAME, format!("cannot be seen: {why}"), "see deploy/ACLS.md")
            }
        })?;
    }
    Ok(())
}

fn refused_topics(config: &Config, plans: &[Plan], found: &Found) -> Vec<(Operation, Vec<String>)> {
    let ours = Topics::new(&config.kafka.topic_prefix);
    let write_only = [&*ours.alerts, &*ours.audit];
    let our_names = || plans.iter().map(|plan| plan.name.as_str());
    let refused = |operation: Operation, names: Vec<&str>| -> (Operation, Vec<String>) {
        let refuses = |name: &&str| {
            let rights = found.get(*name);
            rights.is_some_and(|rights| {
                // Of a topic that may not even be described the broker tells no further right.
                let hidden = rights.refuses(Operation::Describe);
                rights.refuses(operation) && !(hidden && operation == Operation::DescribeConfigs)
            })
        };
        let names = names.into_iter().filter(refuses).map(str::to_owned);
        (operation, names.collect())
    };
    let read = our_names()
        .filter(|name| !write_only.contains(name))
        .chain(sources(config));
    let all = our_names().chain(sources(config));
    [
        refused(Operation::Read, read.collect()),
        refused(Operation::Write, our_names().collect()),
        refused(Operation::DescribeConfigs, all.collect()),
    ]
    .into_iter()
    .filter(|(_, names)| !names.is_empty())
    .collect()
}

fn needed_groups(config: &Config) -> Vec<(Operation, String)> {
    let mut stages = vec!["route", "deliver", "release", "held", "replays"];
    if matches!(config.history.store.expose().parse(), Ok(Kind::Postgres(_))) {
        stages.push("history");
    }
    let name = |stage| format!("{}.{stage}", config.kafka.group_id);
    let mut groups: Vec<(Operation, String)> = stages
        .into_iter()
        .map(|stage| (Operation::Read, name(stage)))
        .collect();
    // Readers without a group, which look for the coordinator of this one.
    groups.push((Operation::Describe, name("none")));
    groups
}

fn line(
    config: &Config,
    connection: &Connection,
    operation: Operation,
    kind: &'static str,
    names: &[String],
) -> Line {
    let detail = format!(
        "no right {} to the {kind}{} {}",
        operation.as_str(),
        if names.len() == 1 { "" } else { "s" },
        names.join(" ")
    );
    let resources: Vec<String> = names
        .iter()
        .map(|name| format!("--{kind} {name}"))
        .collect();
    let command = format!(
        "kafka-acls.sh --bootstrap-server {} --add --allow-principal {} --operation {} {}",
        config.kafka.bootstrap_servers,
        principal(connection),
        operation.as_str(),
        resources.join(" ")
    );
    let cure = format!("have somebody with the rights run: {command}");
    if operation == Operation::DescribeConfigs {
        // The router works without; it then cannot see settings that lose or refuse records.
        return Line::warning(
            NAME,
            format!("{detail}, so wrong settings are not seen"),
            cure,
        );
    }
    Line::wrong(NAME, detail, cure)
}

/// Whom the cluster takes us for, as far as it can be known here: SASL tells it by name, a certificate by the cluster's own rules.
fn principal(connection: &Connection) -> String {
    let user = ["sasl.username", "sasl.user.name"]
        .iter()
        .find_map(|name| connection.properties.get(*name));
    match user {
        Some(user) => format!("User:{user}"),
        None => "User:<principal>".to_owned(),
    }
}
