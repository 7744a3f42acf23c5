//! The section of Kafka: the cluster and our topics in it. What the promises rest on cannot be set (see `properties`).

use serde::Serialize;

use super::checks::{check_name, check_servers};
use super::properties::Properties;
use super::read::Reader;

const MOST_PARTITIONS: u16 = 10_000;

/// The cluster, and our topics in it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Kafka {
    /// `host:port`, several separated by commas.
    pub bootstrap_servers: String,
    /// The names of the consumer groups begin with it.
    pub group_id: String,
    /// A name that this instance keeps across restarts (KIP-345); empty: none. Two that run at a time must not share one.
    pub instance_id: String,
    /// The names of our topics begin with it.
    pub topic_prefix: String,
    /// Of topics that are created; 1 when the cluster has one broker.
    pub replication_factor: u16,
    /// Whether topics that are missing are created.
    pub create_topics: bool,
    /// Of the dispatch topic: at most so many instances can deliver.
    pub dispatch_partitions: u16,
    /// Of each delay topic.
    pub delay_partitions: u16,
    /// Of the dead-letter topic.
    pub dead_letter_partitions: u16,
    /// Of the topic of held deliveries.
    pub held_partitions: u16,
    /// For every client.
    pub properties: Properties,
    /// For consumers; wins over `properties`.
    pub consumer: Properties,
    /// For producers; wins over `properties`.
    pub producer: Properties,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            bootstrap_servers: "localhost:9092".to_owned(),
            group_id: "postrider".to_owned(),
            instance_id: String::new(),
            topic_prefix: "postrider.".to_owned(),
            replication_factor: 3,
            create_topics: true,
            dispatch_partitions: 64,
            delay_partitions: 4,
            dead_letter_partitions: 4,
            held_partitions: 16,
            properties: Properties::default(),
            consumer: Properties::default(),
            producer: Properties::default(),
        }
    }
}

impl Kafka {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let default = Self::default();
        let mut section = reader.section("kafka");
        let partitions = 1..=MOST_PARTITIONS;
        let kafka = Self {
            bootstrap_servers: section.checked(
                "bootstrap_servers",
                &default.bootstrap_servers,
                check_servers,
            ),
            group_id: section.checked("group_id", &default.group_id, check_name),
            instance_id: section.checked("instance_id", &default.instance_id, |name| {
                if name.is_empty() {
                    Ok(())
                } else {
                    check_name(name)
                }
            }),
            topic_prefix: section.checked("topic_prefix", &default.topic_prefix, check_name),
            replication_factor: section.whole(
                "replication_factor",
                default.replication_factor,
                1..=32,
                "replicas",
            ),
            create_topics: section.boolean("create_topics", default.create_topics),
            dispatch_partitions: section.whole(
                "dispatch_partitions",
                default.dispatch_partitions,
                partitions.clone(),
                "partitions",
            ),
            delay_partitions: section.whole(
                "delay_partitions",
                default.delay_partitions,
                partitions.clone(),
                "partitions",
            ),
            dead_letter_partitions: section.whole(
                "dead_letter_partitions",
                default.dead_letter_partitions,
                partitions.clone(),
                "partitions",
            ),
            held_partitions: section.whole(
                "held_partitions",
                default.held_partitions,
                partitions,
                "partitions",
            ),
            properties: Properties::read(&mut section, "properties"),
            consumer: Properties::read(&mut section, "consumer"),
            producer: Properties::read(&mut section, "producer"),
        };
        section.finish();
        kafka
    }
}
