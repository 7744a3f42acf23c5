//! The names of our topics and how each is to be made (design.md, "Where facts live").

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::kafka::topics::Plan;
use crate::retry::ladder::{RUNGS, Rung};

const DAY_MS: u64 = 24 * 3_600_000;
const AUDIT_DAYS: u64 = 365;

/// The names, made once and shared by every record.
#[derive(Clone, Debug)]
pub struct Topics {
    pub subscriptions: Arc<str>,
    pub dispatch: Arc<str>,
    pub held: Arc<str>,
    pub dead_letters: Arc<str>,
    pub attempts: Arc<str>,
    pub alerts: Arc<str>,
    pub audit: Arc<str>,
    pub replays: Arc<str>,
    /// What stands before a rung's name.
    pub delay_prefix: String,
    prefix: String,
    delays: Vec<(&'static Rung, Arc<str>)>,
}

impl Topics {
    /// Names under a prefix such as `postrider.`.
    pub fn new(prefix: &str) -> Self {
        let name = |last: &str| Arc::from(format!("{prefix}{last}"));
        Self {
            subscriptions: name("subscriptions"),
            dispatch: name("dispatch"),
            held: name("held"),
            dead_letters: name("dead-letters"),
            attempts: name("attempts"),
            alerts: name("alerts"),
            audit: name("audit"),
            replays: name("replays"),
            delay_prefix: format!("{prefix}delay."),
            prefix: prefix.to_owned(),
            delays: RUNGS
                .iter()
                .map(|rung| (rung, name(&format!("delay.{}", rung.name))))
                .collect(),
        }
    }

    /// Whether a name is under our prefix, so that nothing is written there but what we made.
    pub fn are_ours(&self, name: &str) -> bool {
        name.starts_with(&self.prefix)
    }

    /// The topic of a rung.
    pub fn delay(&self, rung: &Rung) -> &Arc<str> {
        self.delays
            .iter()
            .find(|(known, _)| *known == rung)
            .map_or(&self.dispatch, |(_, name)| name)
    }

    /// All delay topics, shortest first.
    pub fn delays(&self) -> impl Iterator<Item = (&'static Rung, &Arc<str>)> {
        self.delays.iter().map(|(rung, name)| (*rung, name))
    }
}

/// What the plans depend on.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub dispatch_partitions: i32,
    pub delay_partitions: i32,
    pub dead_letter_partitions: i32,
    pub held_partitions: i32,
    pub dead_letter_retention_days: u64,
    /// The largest record: above what the source topics allow, because headers are added.
    pub message_bytes: usize,
    /// Of the topics that are made, as far as the cluster has the brokers.
    pub replication: i32,
}

/// Every topic that the program needs.
pub fn plans(topics: &Topics, sizes: &Sizes) -> Vec<Plan> {
    let plan =
        |name: &Arc<str>, partitions: i32, retention_ms: Option<u64>, purpose: &'static str| {
            let mut settings = BTreeMap::new();
            // Ages count from when a record was appended here, not from when the event happened: an old event must not be removed at once.
            settings.insert("message.timestamp.type", "LogAppendTime".to_owned());
            settings.insert("max.message.bytes", sizes.message_bytes.to_string());
            if sizes.replication >= 3 {
                settings.insert("min.insync.replicas", "2".to_owned());
            }
            match retention_ms {
                Some(milliseconds) => {
                    settings.insert("cleanup.policy", "delete".to_owned());
                    settings.insert("retention.ms", milliseconds.to_string());
                }
                None => {
                    settings.insert("cleanup.policy", "compact".to_owned());
                }
            }
            Plan {
                name: name.to_string(),
                partitions,
                settings,
                purpose,
            }
        };
    let mut plans = vec![
        plan(
            &topics.subscriptions,
            1,
            None,
            "the catalog of webhooks and the states of their endpoints",
        ),
        plan(
            &topics.dispatch,
            sizes.dispatch_partitions,
            Some(7 * DAY_MS),
            "deliveries to attempt now",
        ),
    ];
    for (rung, name) in topics.delays() {
        let residency_ms = u64::try_from(rung.residency.as_millis()).unwrap_or(0);
        plans.push(plan(
            name,
            sizes.delay_partitions,
            Some(residency_ms + 7 * DAY_MS),
            "deliveries waiting",
        ));
    }
    plans.push(plan(
        &topics.held,
        sizes.held_partitions,
        Some(30 * DAY_MS),
        "deliveries of paused webhooks and of endpoints that are down",
    ));
    plans.push(plan(
        &topics.dead_letters,
        sizes.dead_letter_partitions,
        Some(sizes.dead_letter_retention_days * DAY_MS),
        "exhausted or impossible deliveries, undecodable records",
    ));
    plans.push(plan(
        &topics.attempts,
        sizes.dead_letter_partitions,
        Some(7 * DAY_MS),
        "one record an attempt",
    ));
    plans.push(plan(
        &topics.alerts,
        1,
        Some(30 * DAY_MS),
        "operator events",
    ));
    plans.push(plan(
        &topics.audit,
        1,
        Some(AUDIT_DAYS * DAY_MS),
        "who changed what by the API",
    ));
    plans.push(plan(
        &topics.replays,
        1,
        None,
        "replay jobs and drain cursors",
    ));
    plans
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_of_the_design_is_planned() {
        let topics = Topics::new("postrider.");
        let sizes = Sizes {
            dispatch_partitions: 64,
            delay_partitions: 4,
            dead_letter_partitions: 4,
            held_partitions: 16,
            dead_letter_retention_days: 30,
            message_bytes: 1_300_000,
            replication: 3,
        };
        let plans = plans(&topics, &sizes);
        assert_eq!(plans.len(), 19);
        let find = |name: &str| plans.iter().find(|plan| plan.name == name).unwrap();
        assert_eq!(
            find("postrider.subscriptions").settings["cleanup.policy"],
            "compact"
        );
        assert_eq!(
            find("postrider.delay.256m").settings["retention.ms"],
            (256 * 60_000 + 7 * DAY_MS).to_string()
        );
        assert_eq!(find("postrider.dispatch").partitions, 64);
        assert_eq!(
            find("postrider.dispatch").settings["min.insync.replicas"],
            "2"
        );
    }
}
