//! Client properties: what the user may set, and what this program must own because its promises rest on it.
//!
//! Sources: librdkafka's CONFIGURATION.md; the reasons are beside each property.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;

/// How long a rebalance waits for a member. Longer than the hand-over of partitions takes at most (`handover`).
const REBALANCE_LIMIT: Duration = Duration::from_secs(30);

/// How to reach the cluster, as the user gave it.
#[derive(Clone, Debug, Default)]
pub struct Connection {
    pub bootstrap_servers: String,
    /// Shown in the broker's logs and quotas.
    pub client_id: String,
    /// What the names of consumer groups begin with.
    pub group_id: String,
    /// librdkafka properties of all clients, then those of consumers and producers only.
    pub properties: BTreeMap<String, String>,
    pub consumer_properties: BTreeMap<String, String>,
    pub producer_properties: BTreeMap<String, String>,
    /// The largest record that our own topics take, in bytes; 0 leaves the client's default (1,000,000).
    pub message_bytes: usize,
}

impl Connection {
    fn base(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap_servers)
            .set("client.id", &self.client_id)
            // A topic that is made, or grows, is noticed within seconds rather than five minutes.
            .set("topic.metadata.refresh.interval.ms", "10000")
            .set("reconnect.backoff.max.ms", "2000")
            .set("socket.keepalive.enable", "true")
            // The application is told of broker trouble by its own log, throttled; librdkafka's would repeat each line.
            .set("log.connection.close", "false");
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config
    }

    /// A member of a consumer group. `session_timeout` is how long the group waits for a dead member, `split` whether each partition is
    /// read by itself.
    pub fn consumer(&self, group: &str, session_timeout: Duration, split: bool) -> ClientConfig {
        let mut config = self.base();
        let heartbeat_ms = (session_timeout.as_millis() / 4).max(250);
        let poll_ms = session_timeout.max(REBALANCE_LIMIT).as_millis();
        config
            // Eager and even; cooperative rebalancing has open defects in librdkafka (3306, 4783).
            .set("partition.assignment.strategy", "roundrobin")
            .set(
                "session.timeout.ms",
                session_timeout.as_millis().to_string(),
            )
            .set("heartbeat.interval.ms", heartbeat_ms.to_string())
            // Also the limit that a rebalance sets to its members: by default everybody waits for five minutes for one that
            // does not answer. A thread of ours that stood still for a session begins anew anyway (`Heartbeat`).
            .set("max.poll.interval.ms", poll_ms.to_string())
            .set("statistics.interval.ms", "5000")
            .set("check.crcs", "true")
            // The prefetch is memory that no budget of ours sees, so it is small; the pause that librdkafka makes when it
            // is full (a second by default) is short.
            .set("queued.min.messages", "5000")
            .set(
                "queued.max.messages.kbytes",
                if split { "256" } else { "4096" },
            )
            .set("fetch.queue.backoff.ms", "20")
            .set("fetch.wait.max.ms", "100");
        if split {
            // Each partition has a queue of its own then, and those whose first record is not due stay full. (A record that is larger
            // comes all the same, KIP-74.)
            config.set("fetch.message.max.bytes", "262144");
        }
        for (name, value) in &self.consumer_properties {
            config.set(name, value);
        }
        own_consumer(&mut config);
        config.set("group.id", group);
        config
    }

    /// A reader without a group: tables, scans, the command line.
    pub fn reader(&self) -> ClientConfig {
        let mut config = self.base();
        config
            .set("queued.max.messages.kbytes", "8192")
            .set("fetch.wait.max.ms", "100");
        for (name, value) in &self.consumer_properties {
            config.set(name, value);
        }
        own_consumer(&mut config);
        // The consumer needs a group's name to be assigned partitions by hand; it neither joins the group nor commits, but
        // looks for its coordinator, to which it must have the right.
        config.set("group.id", format!("{}.none", self.group_id));
        config
    }

    /// The producer of all our topics.
    pub fn producer(&self) -> ClientConfig {
        let mut config = self.base();
        config
            .set("linger.ms", "2")
            .set("queue.buffering.max.kbytes", "32768")
            .set("queue.buffering.max.messages", "100000")
            .set("compression.type", "none");
        for (name, value) in &self.producer_properties {
            config.set(name, value);
        }
        if self.message_bytes > 0 {
            config.set("message.max.bytes", self.message_bytes.to_string());
        }
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // Java's default partitioner, so that other tools find a key in the same partition.
            .set("partitioner", "murmur2_random");
        config
    }

    /// For metadata and the admin protocol.
    pub fn admin(&self) -> ClientConfig {
        self.base()
    }
}

fn own_consumer(config: &mut ClientConfig) {
    config
        // Offsets are committed by the ledger alone (promise 2).
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "false")
        // Starts are decided in `start.rs`; this is for records that retention removes under a running reader.
        .set("auto.offset.reset", "earliest")
        .set("allow.auto.create.topics", "false")
        .set("isolation.level", "read_committed");
}
