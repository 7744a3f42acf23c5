//! Every metric, described once: name, labels, unit, meaning. Served at `/metrics`.
//!
//! Names are the contract's; base units, `_total` for counters, webhook labels are ids and never URLs.

use prometheus::{
    GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $field:ident: $kind:ident = $name:literal $([$($label:literal),*])?;)*) => {
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

            /// Name, labels and meaning of every metric, in this file's order.
            pub const DESCRIPTIONS: &'static [(&'static str, &'static [&'static str], &'static str)] = &[
                $(($name, &[$($($label),*)?], concat!($($help),+)),)*
            ];
        }
    };
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
    events_consumed: IntCounterVec = "postrider_events_consumed_total"["topic"];
    /// Events that at least one webhook wants.
    events_matched: IntCounterVec = "postrider_events_matched_total"["topic"];
    /// Events that no webhook wants.
    events_unmatched: IntCounterVec = "postrider_events_unmatched_total"["topic"];
    /// Records without a value in source topics: counted and skipped.
    events_tombstones: IntCounterVec = "postrider_events_tombstones_total"["topic"];
    /// Deliveries made by routing: one for each event and webhook that wants it.
    deliveries_created: IntCounter = "postrider_deliveries_created_total";
    /// HTTP attempts by outcome.
    attempts: IntCounterVec = "postrider_attempts_total"["outcome"];
    /// Deliveries that ended, by ending.
    deliveries: IntCounterVec = "postrider_deliveries_total"["ending"];
    /// Time of one attempt in seconds, from name resolution to the last byte read.
    attempt_duration: Histogram = "postrider_attempt_duration_seconds";
    /// Seconds from the source record's timestamp to the 2xx.
    end_to_end: Histogram = "postrider_end_to_end_seconds";
    /// Deliveries in the lane of a webhook: waiting in memory or under way.
    webhook_pending: IntGaugeVec = "postrider_webhook_pending"["webhook"];
    /// Age in seconds of the oldest delivery that waits in the lane of a webhook, counted from when it was made.
    webhook_oldest_pending: GaugeVec = "postrider_webhook_oldest_pending_seconds"["webhook"];
    /// 1 for the state that a webhook is in.
    webhook_state: IntGaugeVec = "postrider_webhook_state"["webhook", "state"];
    /// HTTP attempts of a webhook by outcome.
    webhook_attempts: IntCounterVec = "postrider_webhook_attempts_total"["webhook", "outcome"];
    /// Records waiting in a delay topic, in the partitions of this instance.
    delayed: IntGaugeVec = "postrider_delayed"["rung"];
    /// Deliveries held for paused webhooks and for endpoints that have been down for long, in the partitions of this instance.
    held: IntGauge = "postrider_held";
    /// Dead letters written, by reason.
    dead_letters: IntCounterVec = "postrider_dead_letters_total"["reason"];
    /// Dead letters sent in again.
    replayed: IntCounter = "postrider_replayed_total";
    /// Times that a delivery could not be sent at once because of its webhook's rate limit.
    rate_limited: IntCounter = "postrider_rate_limited_total";
    /// HTTP requests under way.
    in_flight_requests: IntGauge = "postrider_in_flight_requests";
    /// Records between the committed offset and the end of a partition, by librdkafka's statistics.
    consumer_lag: IntGaugeVec = "postrider_consumer_lag"["stage", "topic", "partition"];
    /// Records received and not yet settled.
    ledger_open: IntGaugeVec = "postrider_ledger_open"["stage"];
    /// Age in seconds of the oldest record that is not yet settled. More than a minute is a fault.
    ledger_oldest: GaugeVec = "postrider_ledger_oldest_seconds"["stage"];
    /// Produces that failed; each is tried again until the topic takes it.
    produce_errors: IntCounterVec = "postrider_produce_errors_total"["topic"];
    /// Assignments gained or lost.
    rebalances: IntCounterVec = "postrider_rebalances_total"["stage"];
    /// Partitions assigned to this instance.
    assigned_partitions: IntGaugeVec = "postrider_assigned_partitions"["stage"];
    /// Webhooks in the catalog.
    webhooks: IntGauge = "postrider_webhooks";
    /// Catalog records that could not be read; their webhooks keep their last good form.
    catalog_errors: IntCounter = "postrider_catalog_errors_total";
    /// Source topics that do not exist; they are waited for.
    source_topics_missing: IntGauge = "postrider_source_topics_missing";
    /// What the history takes on disk, in bytes.
    history_bytes: IntGauge = "postrider_history_bytes";
    /// Age in seconds of the oldest record that was read for the history and is not written to it yet; 0 when nothing waits.
    history_lag: GaugeVec = "postrider_history_lag_seconds"["store"];
    /// Records written to the history.
    history_records: IntCounter = "postrider_history_records_total";
    /// Writes to the history that failed; each is tried again.
    history_errors: IntCounter = "postrider_history_errors_total";
    /// Requests to the API whose token was missing, wrong, expired, or given after too many wrong ones.
    authentication_failures: IntCounterVec = "postrider_authentication_failures_total"["reason"];
    /// Always 1; the label is the version.
    build_info: IntGaugeVec = "postrider_build_info"["version"];
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
    fn every_metric_is_registered_once_and_described() {
        let metrics = Metrics::new().unwrap();
        assert!(Metrics::DESCRIPTIONS.len() > 25);
        for (name, _, help) in Metrics::DESCRIPTIONS {
            assert!(name.starts_with("postrider_"), "{name}");
            assert!(help.trim().ends_with('.'), "{name}");
        }
        assert!(metrics.page().unwrap().contains("postrider_build_info"));
    }
}
