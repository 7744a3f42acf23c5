//! The broker, our topics on it, the topics that events come from, and the groups: what can be asked without a change.

use super::{Line, Report, catalog};
use crate::app;
use crate::cli::Answer;
use crate::config::Config;
use crate::kafka::may_use_group;
use crate::kafka::settings::Connection;
use crate::kafka::topics::{self, Cluster, Finding, Plan};
use crate::pipeline::topics::Topics;

pub(super) async fn check(config: &Config, report: &mut Report) -> Answer {
    let (connection, cluster) = match app::reached(config) {
        Ok(reached) => reached,
        Err(fault) => {
            report.tell(Line::wrong("broker", fault.to_string(), ""))?;
            return catalog::check_key(config, report).map(|_| ());
        }
    };
    report.tell(Line::ok(
        "broker",
        format!(
            "{} answers, brokers: {}",
            config.kafka.bootstrap_servers, cluster.brokers
        ),
    ))?;
    let (connection, plans) = match app::planned(config).await {
        Ok((sized, plans)) => (sized, plans),
        Err(fault) => {
            report.tell(Line::wrong("topics", fault.to_string(), ""))?;
            (connection, Vec::new())
        }
    };
    check_topics(config, &connection, &plans, report).await?;
    report.tell(sources(config, &connection, &cluster))?;
    report.tell(rights(config, &connection, &cluster, &plans).await)?;
    catalog::check(config, &connection, &cluster, report)
}

async fn check_topics(
    config: &Config,
    connection: &Connection,
    plans: &[Plan],
    report: &mut Report,
) -> Answer {
    const NAME: &str = "topics";
    if plans.is_empty() {
        return Ok(());
    }
    let found = match topics::verify(connection, plans).await {
        Ok(found) => found,
        Err(fault) => return report.tell(Line::wrong(NAME, fault.to_string(), "")),
    };
    let missing: Vec<Plan> = found
        .iter()
        .filter(|(_, finding)| *finding == Finding::Missing)
        .map(|(plan, _)| plan.clone())
        .collect();
    if missing.is_empty() {
        report.tell(Line::ok(NAME, format!("all {} are there", plans.len())))?;
    } else {
        report.tell(missing_line(config, connection, plans.len(), &missing).await)?;
    }
    for (plan, finding) in &found {
        let Finding::Differs(differences) = finding else {
            continue;
        };
        let list: Vec<String> = differences
            .iter()
            .map(|(setting, wanted, found)| format!("{setting} is {found}, planned {wanted}"))
            .collect();
        report.tell(Line::warning(
            NAME,
            format!("{}: {}", plan.name, list.join(", ")),
            "`postrider topics plan` shows the command",
        ))?;
    }
    Ok(())
}

async fn missing_line(
    config: &Config,
    connection: &Connection,
    planned: usize,
    missing: &[Plan],
) -> Line {
    const NAME: &str = "topics";
    let names: Vec<&str> = missing.iter().map(|plan| plan.name.as_str()).collect();
    let detail = format!(
        "{} of {planned} are missing ({})",
        missing.len(),
        names.join(" ")
    );
    if !config.kafka.create_topics {
        return Line::wrong(
            NAME,
            detail,
            "kafka.create_topics is false, so create them with `postrider topics apply`",
        );
    }
    let replication = config.kafka.replication_factor.into();
    let refusals = match topics::try_create(connection, missing, replication).await {
        Ok(refusals) => refusals,
        Err(fault) => vec![(String::new(), fault.to_string())],
    };
    match refusals.first() {
        None => Line::warning(
            NAME,
            detail,
            "`postrider run` creates them, or `postrider topics apply`",
        ),
        Some((name, why)) => Line::wrong(
            NAME,
            format!("{detail} and the cluster does not let us create them ({name}: {why})"),
            "have somebody with the rights run what `postrider topics plan --commands` prints",
        ),
    }
}

fn sources(config: &Config, connection: &Connection, cluster: &Cluster) -> Line {
    const NAME: &str = "sources";
    let named = || {
        let topics = config.intake.topics.iter();
        topics.filter(|topic| !topic.starts_with('^'))
    };
    let (mut forbidden, mut missing) = (Vec::new(), Vec::new());
    for topic in named().filter(|topic| !cluster.topics.contains_key(*topic)) {
        match topics::is_forbidden(connection, topic) {
            Ok(true) => forbidden.push(topic.as_str()),
            _ => missing.push(topic.as_str()),
        }
    }
    if !forbidden.is_empty() {
        return Line::wrong(
            NAME,
            format!("no right to read {}", forbidden.join(" ")),
            "grant Read and Describe on them",
        );
    }
    if !missing.is_empty() {
        return Line::warning(
            NAME,
            format!("missing: {}", missing.join(" ")),
            "their producers make them; until then nothing comes from there",
        );
    }
    let patterns = config.intake.topics.len() - named().count();
    let note = if patterns > 0 {
        format!(", and {patterns} patterns")
    } else {
        String::new()
    };
    Line::ok(NAME, format!("{} topics{note}", named().count()))
}

/// Rights that show by asking: to the groups, and to the settings of topics.
async fn rights(
    config: &Config,
    connection: &Connection,
    cluster: &Cluster,
    plans: &[Plan],
) -> Line {
    const NAME: &str = "rights";
    let dispatch = Topics::new(&config.kafka.topic_prefix).dispatch;
    for stage in ["route", "deliver", "release", "held", "replays"] {
        let group = format!("{}.{stage}", config.kafka.group_id);
        match may_use_group(connection, &group, &dispatch) {
            Ok(true) => {}
            Ok(false) => {
                return Line::wrong(
                    NAME,
                    format!("no right to the group {group}"),
                    "grant Read on the groups that begin with kafka.group_id",
                );
            }
            Err(fault) => {
                return Line::warning(
                    NAME,
                    format!("the group {group} could not be asked for: {fault}"),
                    "try again; the broker may be starting",
                );
            }
        }
    }
    let topics: Vec<&str> = plans
        .iter()
        .map(|plan| plan.name.as_str())
        .chain(config.intake.topics.iter().map(String::as_str))
        .filter(|name| cluster.topics.contains_key(*name))
        .collect();
    let why = match topics::settings_of(connection, &topics).await {
        Ok(settings) if settings.len() == topics.len() => {
            return Line::ok(
                NAME,
                "groups and settings of topics can be read (writing was not tried)",
            );
        }
        Ok(settings) => format!("{} of {} answered", settings.len(), topics.len()),
        Err(fault) => fault.to_string(),
    };
    Line::warning(
        NAME,
        format!("settings of topics cannot be read ({why}), so wrong ones are not seen"),
        "grant DescribeConfigs on the topics",
    )
}
