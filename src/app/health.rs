//! What is shown of a running instance: readiness and the gauges that are read rather than counted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::kafka::settings::Connection;
use crate::kafka::topics;
use crate::metrics::Metrics;
use crate::outbound::breaker::{Standings, State};
use crate::pipeline::Ways;
use crate::pipeline::history::Writer;
use crate::subscription::Subscription;
use crate::web::{Check, Inside};

/// How old the answer to "which source topics are missing" may be.
const SOURCES_AGE: Duration = Duration::from_secs(10);

/// What the health checks and gauges look at.
pub(super) struct Running {
    pub(super) ways: Arc<Ways>,
    pub(super) history: Option<Arc<Writer>>,
    /// Webhooks that may have metrics of their own.
    pub(super) labelled_webhooks: usize,
    pub(super) sources: Sources,
    pub(super) statuses: Vec<Arc<crate::kafka::Status>>,
    pub(super) standings: Option<Arc<Standings>>,
    pub(super) draining: AtomicBool,
}

/// The source topics, of which some may not exist yet.
pub(super) struct Sources {
    connection: Connection,
    names: Vec<String>,
    missing: Mutex<(Option<Instant>, Vec<String>)>,
}

impl Sources {
    pub(super) fn new(config: &Config, connection: &Connection) -> Self {
        let topics = config.intake.topics.iter();
        Self {
            connection: connection.clone(),
            names: topics
                .filter(|name| !name.starts_with('^'))
                .cloned()
                .collect(),
            missing: Mutex::default(),
        }
    }

    /// Those that do not exist, as of a few seconds ago.
    fn missing(&self) -> Vec<String> {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        if missing.0.is_none_or(|asked| asked.elapsed() > SOURCES_AGE)
            && let Ok(cluster) = topics::describe(&self.connection)
        {
            let absent = self
                .names
                .iter()
                .filter(|name| !cluster.topics.contains_key(*name));
            *missing = (Some(Instant::now()), absent.cloned().collect());
        }
        missing.1.clone()
    }
}

impl Running {
    /// How a webhook stands in this instance: `passing tripped probing paused disabled`.
    pub(super) fn state(&self, webhook: &Subscription) -> &'static str {
        let shared = self.ways.state_of(webhook);
        // The owner of its lane knows more than all others: that a probe is under way, and what has changed a moment ago.
        match &self.standings {
            Some(standings) if webhook.enabled && !webhook.paused => {
                let own = standings.get(&webhook.id);
                if own == State::Passing {
                    shared
                } else {
                    own.as_str()
                }
            }
            _ => shared,
        }
    }
}

impl Inside for Running {
    fn checks(&self) -> Vec<Check> {
        let check = |name: &str, passes: bool, detail: String| Check {
            name: name.to_owned(),
            passes,
            detail,
        };
        let draining = self.draining.load(Ordering::Acquire);
        let broker = self.ways.producer.reaches_broker(Duration::from_secs(2));
        let catalog = self.ways.catalog.now();
        let locked = catalog.locked().len();
        let mut checks = vec![
            check(
                "running",
                !draining,
                if draining { "stopping" } else { "yes" }.to_owned(),
            ),
            check(
                "catalog",
                self.ways.catalog.is_loaded() && locked == 0,
                match locked {
                    0 => format!("{} webhooks", catalog.len()),
                    // A rolling restart with the wrong key must not go on to the next instance.
                    _ => format!(
                        "{} webhooks, and {locked} that cannot be opened: deliveries to them wait; the log and `postrider check` say why",
                        catalog.len()
                    ),
                },
            ),
            check(
                "producer",
                broker.is_ok() && !self.ways.producer.has_failed(),
                broker.map_or_else(
                    |fault| fault.to_string(),
                    |()| format!("{} records unacknowledged", self.ways.producer.waiting()),
                ),
            ),
        ];
        let missing = self.sources.missing();
        for status in &self.statuses {
            let summary = status.summary();
            checks.push(check(
                status.stage,
                status.has_joined(),
                format!(
                    "{} partitions, {} open, oldest {:.1} s",
                    summary.partitions,
                    summary.open,
                    summary.oldest.as_secs_f64()
                ),
            ));
        }
        if !missing.is_empty() {
            // Not a fault of this instance: the topics belong to their producers and are waited for.
            checks.push(check(
                "sources",
                true,
                format!("missing: {}", missing.join(", ")),
            ));
        }
        if let Some(history) = &self.history {
            // Told, and no condition: deliveries do not wait for it.
            checks.push(check("history", true, history.says()));
        }
        checks
    }

    fn refresh(&self) {
        let missing = i64::try_from(self.sources.missing().len()).unwrap_or(i64::MAX);
        self.ways.metrics.source_topics_missing.set(missing);
        if let Some(history) = &self.history {
            history.refresh();
        }
        let states = &self.ways.metrics.webhook_state;
        states.reset();
        for webhook in self.ways.catalog.now().all().take(self.labelled_webhooks) {
            let state = self.state(webhook);
            states
                .with_label_values(&[webhook.id.as_str(), state])
                .set(1);
        }
        for status in &self.statuses {
            let summary = status.summary();
            let label: &[&str] = &[status.stage];
            let metrics = &self.ways.metrics;
            metrics
                .ledger_open
                .with_label_values(label)
                .set(i64::try_from(summary.open).unwrap_or(i64::MAX));
            metrics
                .ledger_oldest
                .with_label_values(label)
                .set(summary.oldest.as_secs_f64());
            metrics
                .assigned_partitions
                .with_label_values(label)
                .set(i64::try_from(summary.partitions).unwrap_or(i64::MAX));
        }
    }

    fn metrics(&self) -> &Metrics {
        &self.ways.metrics
    }
}
