//! The sections of the configuration, one a stage (that of Kafka is next door): their keys, units, defaults and limits. `config/postrider.toml` shows
//! the same, and a test holds the two together.

use ipnet::IpNet;
use serde::{Serialize, Serializer};

use super::checks::{check_pointer, check_source, parse_network};
use super::read::Reader;

/// Where a group without committed offsets begins to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// At the oldest event that is still there.
    Earliest,
    /// At the next event.
    Latest,
}

/// What is read.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Intake {
    /// Names of source topics; one that begins with `^` is a regular expression.
    pub topics: Vec<String>,
    /// Where a group without committed offsets begins.
    pub start: Start,
    /// JSON pointer to the customer in an event; empty: events have none.
    pub customer_pointer: String,
    /// Whether an event may carry a webhook for itself, which is then delivered to.
    pub inline_webhooks: bool,
    /// Records of one instance that may wait for Kafka's acknowledgement before no more events are read; at twice as many no request is
    /// begun. What was done and is not committed when a session is lost is done again by the next owner, so this bounds how
    /// much. At 10 ms for an acknowledgement 250 allow 25,000 events and 50,000 requests a second.
    pub max_open_events: usize,
}

impl Default for Intake {
    fn default() -> Self {
        Self {
            topics: [
                "events.job",
                "events.device",
                "events.config",
                "events.compliance",
            ]
            .map(str::to_owned)
            .to_vec(),
            start: Start::Latest,
            customer_pointer: "/customer".to_owned(),
            inline_webhooks: false,
            max_open_events: 250,
        }
    }
}

impl Intake {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let default = Self::default();
        let mut section = reader.section("intake");
        let intake = Self {
            topics: section.list("topics", default.topics, |topic| {
                check_source(topic).map(|()| topic.to_owned())
            }),
            start: section.word(
                "start",
                default.start,
                &[("latest", Start::Latest), ("earliest", Start::Earliest)],
            ),
            customer_pointer: section.checked(
                "customer_pointer",
                &default.customer_pointer,
                check_pointer,
            ),
            inline_webhooks: section.boolean("inline_webhooks", default.inline_webhooks),
            max_open_events: section.whole(
                "max_open_events",
                default.max_open_events,
                1..=10_000_000,
                "events",
            ),
        };
        if intake.topics.is_empty() {
            section.fail(
                "topics",
                None,
                "must name at least one topic, such as [\"events.job\"]",
            );
        }
        section.finish();
        intake
    }
}

/// What is sent, and how much at a time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outbound {
    /// Networks outside the global Internet that may be reached.
    #[serde(serialize_with = "networks")]
    pub allow_networks: Vec<IpNet>,
    /// Requests of the whole instance at a time.
    pub max_in_flight: usize,
    /// Part of a webhook's timeout that may go into connecting.
    pub connect_timeout_seconds: u64,
    /// Bytes that are kept of a response.
    pub response_body_bytes: usize,
    /// Threads over which the lanes are spread; 0 for one less than the processor has cores, at least 1.
    pub shards: usize,
    /// Failures in a row that trip a webhook's breaker.
    pub breaker_failures: u32,
    /// Seconds from tripping to the first probe; the pause doubles up to ten times that.
    pub breaker_probe_seconds: u64,
    /// A webhook whose endpoint fails for so long without one success is disabled; 0: never.
    pub disable_after_seconds: u64,
    /// Bytes of waiting bodies in one instance.
    pub memory_bytes: usize,
}

impl Default for Outbound {
    fn default() -> Self {
        Self {
            allow_networks: Vec::new(),
            max_in_flight: 1_024,
            connect_timeout_seconds: 5,
            response_body_bytes: 16_384,
            shards: 0,
            breaker_failures: 10,
            breaker_probe_seconds: 30,
            disable_after_seconds: 432_000,
            memory_bytes: 16_777_216,
        }
    }
}

impl Outbound {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let default = Self::default();
        let mut section = reader.section("outbound");
        let outbound = Self {
            allow_networks: section.list("allow_networks", default.allow_networks, parse_network),
            max_in_flight: section.whole(
                "max_in_flight",
                default.max_in_flight,
                1..=100_000,
                "requests",
            ),
            connect_timeout_seconds: section.whole(
                "connect_timeout_seconds",
                default.connect_timeout_seconds,
                1..=300,
                "seconds",
            ),
            response_body_bytes: section.whole(
                "response_body_bytes",
                default.response_body_bytes,
                0..=1_048_576,
                "bytes",
            ),
            shards: section.whole("shards", default.shards, 0..=256, "threads"),
            breaker_failures: section.whole(
                "breaker_failures",
                default.breaker_failures,
                1..=1_000_000,
                "failures",
            ),
            breaker_probe_seconds: section.whole(
                "breaker_probe_seconds",
                default.breaker_probe_seconds,
                1..=3_600,
                "seconds",
            ),
            disable_after_seconds: section.whole(
                "disable_after_seconds",
                default.disable_after_seconds,
                0..=31_536_000,
                "seconds",
            ),
            // The smallest still holds one record of Kafka's default limit.
            memory_bytes: section.whole(
                "memory_bytes",
                default.memory_bytes,
                1_048_576..=2_147_483_648,
                "bytes",
            ),
        };
        section.finish();
        outbound
    }
}

/// What happens to what could not be sent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Retry {
    /// How long dead letters are kept.
    pub dead_letter_retention_days: u32,
    /// Held deliveries of one webhook that go out again in a second.
    pub held_drain_per_second: u32,
    /// Deliveries of an endpoint that has been down for so long are held rather than kept on the ladder.
    pub hold_after_seconds: u64,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            dead_letter_retention_days: 30,
            held_drain_per_second: 1_000,
            hold_after_seconds: 300,
        }
    }
}

impl Retry {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let default = Self::default();
        let mut section = reader.section("retry");
        let retry = Self {
            dead_letter_retention_days: section.whole(
                "dead_letter_retention_days",
                default.dead_letter_retention_days,
                1..=3_650,
                "days",
            ),
            held_drain_per_second: section.whole(
                "held_drain_per_second",
                default.held_drain_per_second,
                1..=1_000_000,
                "deliveries",
            ),
            hold_after_seconds: section.whole(
                "hold_after_seconds",
                default.hold_after_seconds,
                1..=2_592_000,
                "seconds",
            ),
        };
        section.finish();
        retry
    }
}

fn networks<S: Serializer>(networks: &[IpNet], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(networks.iter().map(ToString::to_string))
}
