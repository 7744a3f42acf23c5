//! The broker, our topics on it, the topics that events come from: what can be asked without a change.

use super::{Line, Report, catalog, clock, rights};
use crate::app;
use crate::cli::Answer;
use crate::config::Config;
use crate::kafka::rights::{Operation, Rights};
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
    let found = match rights::to_all_topics(config, &connection, &plans) {
        Ok(found) => found,
        Err(fault) => {
            report.tell(Line::wrong("rights", fault.to_string(), ""))?;
            rights::Found::new()
        }
    };
    let hidden = |name: &str| {
        let rights = found.get(name);
        rights.is_some_and(|rights| rights.refuses(Operation::Describe))
    };
    check_topics(config, &connection, &plans, &hidden, report).await?;
    report.tell(sources(config, &cluster, &hidden))?;
    rights::check(config, &connection, &plans, &found, report)?;
    catalog::check(config, &connection, &cluster, &found, report)?;
    let replays = Topics::new(&config.kafka.topic_prefix).replays;
    if may(&found, &replays, Operation::Write) {
        report.tell(clock::check(&connection, &replays))?;
    }
    Ok(())
}

/// What is not there cannot be used, and a right that is refused has been told.
pub(super) fn may(found: &rights::Found, topic: &str, operation: Operation) -> bool {
    matches!(found.get(topic), Some(rights @ Rights::Known(_)) if !rights.refuses(operation))
}

async fn check_topics(
    config: &Config,
    connection: &Connection,
    plans: &[Plan],
    hidden: &impl Fn(&str) -> bool,
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
        .filter(|(plan, finding)| *finding == Finding::Missing && !hidden(&plan.name))
        .map(|(plan, _)| plan.clone())
        .collect();
    let unseen = plans.iter().filter(|plan| hidden(&plan.name)).count();
    if missing.is_empty() {
        let detail = if unseen == 0 {
            format!("all {} are there", plans.len())
        } else {
            format!(
                "{unseen} of {} cannot be seen, none is missing of the others",
                plans.len()
            )
        };
        report.tell(Line::ok(NAME, detail))?;
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

fn sources(config: &Config, cluster: &Cluster, hidden: &impl Fn(&str) -> bool) -> Line {
    const NAME: &str = "sources";
    let named = || {
        let topics = config.intake.topics.iter().map(String::as_str);
        topics.filter(|topic| !topic.starts_with('^'))
    };
    let absent = |topic: &&str| !cluster.topics.contains_key(*topic) && !hidden(topic);
    let missing: Vec<&str> = named().filter(absent).collect();
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
    let unseen = match named().filter(|topic| hidden(topic)).count() {
        0 => String::new(),
        unseen => format!(", {unseen} that cannot be seen"),
    };
    Line::ok(NAME, format!("{} topics{note}{unseen}", named().count()))
}
