//! Every metric, described once: name, labels, unit, meaning, what to do when it moves. Served at `/metrics`; `dashboards/METRICS.md` is made
//! from it (`make dashboards`), and a test holds the two, the dashboards and the alerts together.
//!
//! Names are the contract's; base units, `_total` for counters, webhook labels are ids and never URLs.

use crate::attempt::Outcome;
use crate::delivery::{DeadReason, Ending};
use prometheus::{
    GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

/// What is said of a metric besides its values.
#[derive(Clone, Copy, Debug)]
pub struct Description {
    pub name: &'static str,
    pub labels: &'static [&'static str],
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    pub meaning: &'static str,
    /// What an operator does when it moves.
    pub action: &'static str,
}

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $field:ident: $kind:ident = $name:literal $([$($label:literal),*])? $(=> $action:literal)?;)*) => {
        /// All metrics of the process. Cheap to share; each field is thread-safe.
        pub struct Metrics {
            registry: Registry,
            $($(#[doc = $help])+ pub $field: $kind,)*
        }

        impl Metrics {
            fn build() -> Result<Self, prometheus::Error> {
                let registry = Registry::new();
                $(
                    let $field = metrics!(@make $kind, $name, concat!($($help),+).trim(), [$($($label),*)?])?;
                    registry.register(Box::new($field.clone()))?;
                )*
                Ok(Self { registry, $($field,)* })
            }

            /// Every metric, in this file's order.
            pub const DESCRIPTIONS: &'static [Description] = &[
                $(Description {
                    name: $name,
                    labels: &[$($($label),*)?],
                    kind: metrics!(@kind $kind),
                    meaning: concat!($($help),+).trim_ascii(),
                    action: concat!($($action)?),
                },)*
            ];
        }
    };
    (@kind IntCounter) => { "counter" };
    (@kind IntCounterVec) => { "counter" };
    (@kind Histogram) => { "histogram" };
    (@kind $gauge:ident) => { "gauge" };
    (@make IntCounter, $name:literal, $help:expr, []) => { IntCounter::new($name, $help) };
    (@make IntGauge, $name:literal, $help:expr, []) => { IntGauge::new($name, $help) };
    (@make Histogram, $name:literal, $help:expr, []) => {
        Histogram::with_opts(HistogramOpts::new($name, $help).buckets(DURATION_BUCKETS.to_vec()))
    };
    (@make IntCounterVec, $name:literal, $help:expr, [$($label:literal),+]) => { IntCounterVec::new(Opts::new($name, $help), &[$($label),+]) };
    (@make IntGaugeVec, $name:literal, $help:expr, [$($label:literal),+]) => { IntGaugeVec::new(Opts::new($name, $help), &[$($label),+]) };
    (@make GaugeVec, $name:literal, $help:expr, [$($label:literal),+]) => { GaugeVec::new(Opts::new($name, $help), &[$($label),+]) };
}

/// 1 ms to 24 h: an attempt takes milliseconds, an event that waits for its endpoint takes hours.
const DURATION_BUCKETS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0, 900.0, 3600.0, 14400.0, 86400.0,
];

metrics! {
    /// Records read from source topics, tombstones and undecodable ones included.
    events_consumed: IntCounterVec = "postrider_events_consumed_total"["topic"]
        => "Falls to 0 while producers produce: look at lag, assignments and the readiness page.";
    /// Events that at least one webhook wants.
    events_matched: IntCounterVec = "postrider_events_matched_total"["topic"]
        => "Compare with unmatched: a fall after a change of webhooks means that a filter or a type is wrong; `postrider explain --event` says why.";
    /// Events that no webhook wants.
    events_unmatched: IntCounterVec = "postrider_events_unmatched_total"["topic"]
        => "Nothing by itself: events that nobody wants. A rise after a release of a producer may be a renamed type.";
    /// Records without a value in source topics: counted and skipped.
    events_tombstones: IntCounterVec = "postrider_events_tombstones_total"["topic"]
        => "Nothing, unless the producer means its tombstones to be events: they are not delivered.";
    /// Deliveries made by routing: one for each event and webhook that wants it.
    deliveries_created: IntCounter = "postrider_deliveries_created_total"
        => "Its ratio to matched events is the fan-out; capacity is planned by it (deploy/SIZING.md).";
    /// HTTP attempts by outcome.
    attempts: IntCounterVec = "postrider_attempts_total"["outcome"]
        => "A share other than success that grows: see the outcome, then which webhook, on the Webhook dashboard.";
    /// Deliveries that ended, by ending.
    deliveries: IntCounterVec = "postrider_deliveries_total"["ending"]
        => "dead_lettered moves: see the reasons. dropped moves: somebody deleted a webhook with deliveries under way.";
    /// Time of one attempt in seconds, from name resolution to the last byte read.
    attempt_duration: Histogram = "postrider_attempt_duration_seconds"
        => "A rise is receivers being slow; lanes with few requests at a time (max_concurrency) fall behind first.";
    /// Seconds from the source record's timestamp to the 2xx.
    end_to_end: Histogram = "postrider_end_to_end_seconds"
        => "High with short attempts: deliveries wait; see lag, rungs and lanes.";
    /// Deliveries in the lane of a webhook: waiting in memory or under way.
    webhook_pending: IntGaugeVec = "postrider_webhook_pending"["webhook"]
        => "Grows: the receiver takes less than arrives, by rate_limit, max_concurrency or slowness.";
    /// Age in seconds of the oldest delivery that waits in the lane of a webhook, counted from when it was made.
    webhook_oldest_pending: GaugeVec = "postrider_webhook_oldest_pending_seconds"["webhook"]
        => "More than 15 min: the alert PostriderDeliveryWaits.";
    /// 1 for the state that a webhook is in.
    webhook_state: IntGaugeVec = "postrider_webhook_state"["webhook", "state"]
        => "tripped or disabled: the receiver is down or gone; tell its owner.";
    /// HTTP attempts of a webhook by outcome.
    webhook_attempts: IntCounterVec = "postrider_webhook_attempts_total"["webhook", "outcome"]
        => "Which outcome, since when: tell the owner of the receiver.";
    /// Records waiting in a delay topic, in the partitions of this instance.
    delayed: IntGaugeVec = "postrider_delayed"["rung"]
        => "Grows on all rungs: many retries, some endpoint is down. On the short rungs only: a rate limit at work.";
    /// Age in seconds of what has been longest on a rung, in the partitions of this instance, counted from when it was put there. Never much more than the rung is long.
    delayed_oldest: GaugeVec = "postrider_delayed_oldest_seconds"["rung"]
        => "Well above the rung's length: release does not keep up; see its lag, and the instances that run it.";
    /// Deliveries held for paused webhooks and for endpoints that have been down for long, in the partitions of this instance.
    held: IntGauge = "postrider_held"
        => "Falls by itself after resume or recovery. A webhook that nobody will resume should be deleted.";
    /// Dead letters written, by reason.
    dead_letters: IntCounterVec = "postrider_dead_letters_total"["reason"]
        => "Any: the alert PostriderDeadLetters. `postrider dead-letters list` shows them, `replay` sends them again.";
    /// Dead letters sent in again.
    replayed: IntCounter = "postrider_replayed_total"
        => "Moves while a replay runs; compare with the success ratio and stop the replay if that falls.";
    /// Times that a delivery could not be sent at once because of its webhook's rate limit.
    rate_limited: IntCounter = "postrider_rate_limited_total"
        => "Nothing when a limit is wanted; its rate against attempts says how far demand is above the limit.";
    /// HTTP requests under way.
    in_flight_requests: IntGauge = "postrider_in_flight_requests"
        => "Near outbound.max_in_flight: receivers are slow, or the instance needs a larger limit.";
    /// Records between the committed offset and the end of a partition, by librdkafka's statistics.
    consumer_lag: IntGaugeVec = "postrider_consumer_lag"["stage", "topic", "partition"]
        => "Grows for route or deliver: the alert PostriderLagRises; more instances, up to the partitions. For release it is what waits by intent.";
    /// Records received and not yet settled.
    ledger_open: IntGaugeVec = "postrider_ledger_open"["stage"]
        => "Stays high with an old oldest: the alert PostriderLedgerStuck.";
    /// Age in seconds of the oldest record that is not yet settled. More than a minute is a fault.
    ledger_oldest: GaugeVec = "postrider_ledger_oldest_seconds"["stage"]
        => "route above 60: the alert PostriderLedgerStuck. For release it is the wait itself, for deliver up to the longest timeout.";
    /// Produces that failed; each is tried again until the topic takes it.
    produce_errors: IntCounterVec = "postrider_produce_errors_total"["topic"]
        => "Any on dead-letters pages: offsets stop until it works. See rights, min.insync.replicas and max.message.bytes of the topic.";
    /// Assignments gained or lost.
    rebalances: IntCounterVec = "postrider_rebalances_total"["stage"]
        => "More than a few in ten minutes without a deployment: instances die, or stall longer than the session timeout.";
    /// Partitions assigned to this instance.
    assigned_partitions: IntGaugeVec = "postrider_assigned_partitions"["stage"]
        => "0 over all instances of a stage: the alert PostriderNoAssignment.";
    /// Webhooks in the catalog.
    webhooks: IntGauge = "postrider_webhooks"
        => "A jump that nobody made: the history of the subscriptions topic tells.";
    /// Catalog records that could not be read; their webhooks keep their last good form.
    catalog_errors: IntCounter = "postrider_catalog_errors_total"
        => "Any: a record that this version cannot read, or whose secret the key does not open. The log names the webhook.";
    /// Source topics that do not exist; they are waited for.
    source_topics_missing: IntGauge = "postrider_source_topics_missing"
        => "Above 0 for long: a name in intake.topics is wrong, or the producer has never run.";
    /// What the history takes on disk, in bytes.
    history_bytes: IntGauge = "postrider_history_bytes"
        => "Nears the disk: less history.retention_days.";
    /// Age in seconds of the oldest record that was read for the history and is not written to it yet; 0 when nothing waits.
    history_lag: GaugeVec = "postrider_history_lag_seconds"["store"]
        => "Minutes: the store is slow or away; nothing is lost, lists are behind.";
    /// Records written to the history.
    history_records: IntCounter = "postrider_history_records_total"
        => "Stands still while attempts move: see the lag and the errors.";
    /// Writes to the history that failed; each is tried again.
    history_errors: IntCounter = "postrider_history_errors_total"
        => "Any: the store refuses writes; the log says why (disk full, rights, PostgreSQL away).";
    /// Requests to the API whose token was missing, wrong, expired, or given after too many wrong ones.
    authentication_failures: IntCounterVec = "postrider_authentication_failures_total"["reason"]
        => "A burst: somebody guesses tokens, or a client holds one that has expired.";
    /// Spans that the collector of the traces did not take, or that came while it was behind.
    trace_spans_dropped: IntCounter = "postrider_trace_spans_dropped_total"
        => "Traces have holes, deliveries go on: see traces.endpoint and the collector; the log says what it answers.";
    /// Always 1; the label is the version.
    build_info: IntGaugeVec = "postrider_build_info"["version"]
        => "Absent: the alert PostriderNoInstance. Two versions for long: a deployment that did not end.";
}

impl Metrics {
    /// A fresh set with the process's own metrics.
    ///
    /// # Errors
    /// Two metrics of one name: a defect, which a test excludes.
    pub fn new() -> Result<Self, prometheus::Error> {
        let metrics = Self::build()?;
        #[cfg(target_os = "linux")]
        metrics.registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))?;
        metrics
            .build_info
            .with_label_values(&[env!("CARGO_PKG_VERSION")])
            .set(1);
        // A counter that appears with its first count has no increase for Prometheus: the first dead letter would wake nobody.
        for reason in DeadReason::ALL {
            metrics.dead_letters.with_label_values(&[reason.as_str()]);
        }
        for ending in [Ending::Delivered, Ending::DeadLettered, Ending::Dropped] {
            metrics.deliveries.with_label_values(&[ending.as_str()]);
        }
        for outcome in Outcome::ALL {
            metrics.attempts.with_label_values(&[outcome.as_str()]);
        }
        Ok(metrics)
    }

    /// The page in Prometheus' text format 0.0.4.
    ///
    /// # Errors
    /// Only when a metric is malformed: a defect.
    pub fn page(&self) -> Result<String, prometheus::Error> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_registered_once_and_described_with_what_to_do() {
        let metrics = Metrics::new().unwrap();
        assert!(Metrics::DESCRIPTIONS.len() > 25);
        for metric in Metrics::DESCRIPTIONS {
            assert!(metric.name.starts_with("postrider_"), "{metric:?}");
            assert!(metric.meaning.ends_with('.'), "{metric:?}");
            assert!(
                metric.action.ends_with('.'),
                "{} does not say what to do when it moves: => \"...\"",
                metric.name
            );
        }
        assert!(metrics.page().unwrap().contains("postrider_build_info"));
    }

    #[test]
    fn what_wakes_people_counts_from_zero() {
        let page = Metrics::new().unwrap().page().unwrap();
        for line in [
            "postrider_dead_letters_total{reason=\"exhausted\"} 0",
            "postrider_deliveries_total{ending=\"dead_lettered\"} 0",
            "postrider_attempts_total{outcome=\"success\"} 0",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        }
    }

    #[test]
    fn the_buckets_reach_from_a_millisecond_to_a_day() {
        assert_eq!(DURATION_BUCKETS.first(), Some(&0.001));
        assert_eq!(DURATION_BUCKETS.last(), Some(&86_400.0));
    }

    #[test]
    fn a_page_with_as_many_webhooks_as_have_labels_stays_below_five_megabytes() {
        let metrics = Metrics::new().unwrap();
        // The default of web.metrics_webhooks; with 10,000 webhooks in the catalog the other 9,000 have no labels.
        for number in 0..1000 {
            let id = format!("wh_0198a3f2c4d17e8b9a6f0123456{number:05}");
            for outcome in Outcome::ALL {
                let labels: &[&str] = &[&id, outcome.as_str()];
                metrics.webhook_attempts.with_label_values(labels).inc();
            }
            metrics.webhook_pending.with_label_values(&[&id]).set(1);
            metrics
                .webhook_oldest_pending
                .with_label_values(&[&id])
                .set(1.5);
            metrics
                .webhook_state
                .with_label_values(&[&id, "passing"])
                .set(1);
        }
        let page = metrics.page().unwrap();
        assert!(page.lines().count() > 14_000, "{}", page.lines().count());
        assert!(page.len() < 5_000_000, "{} bytes", page.len());
    }
}
