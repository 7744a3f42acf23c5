//! A Kafka broker inside this process, for the demo: librdkafka's mock cluster, which any Kafka client can reach on loopback.
//!
//! It is no place for data that matters: everything is in memory, a partition keeps at most 5 MiB and drops its oldest
//! records beyond that, nothing is compacted, and there is no admin protocol, so topics are made by
//! [`EmbeddedBroker::create_topic`] alone (librdkafka, `rdkafka_mock.h`).

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::bindings::{
    rd_kafka_handle_mock_cluster, rd_kafka_mock_group_initial_rebalance_delay_ms,
};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, DefaultProducerContext, Producer};

use super::Error;

/// How long a new group waits for more members. The mock's own 3 s would be most of the time until the first delivery.
const JOIN_DELAY: Duration = Duration::from_millis(100);

/// A running broker; it is gone, records and all, when dropped. Clients must be dropped first.
pub struct EmbeddedBroker {
    /// The client that the mock cluster belongs to; it sends nothing itself.
    owner: BaseProducer,
}

impl EmbeddedBroker {
    /// Starts one broker on a free port of loopback.
    ///
    /// # Errors
    /// No port, or no thread, can be had.
    pub fn start() -> Result<Self, Error> {
        let owner: BaseProducer = ClientConfig::new()
            .set("test.mock.num.brokers", "1")
            .create()?;
        let broker = Self { owner };
        broker.cluster()?;
        broker.shorten_joins();
        Ok(broker)
    }

    fn cluster(&self) -> Result<MockCluster<'_, DefaultProducerContext>, Error> {
        let cluster = self.owner.client().mock_cluster();
        cluster.ok_or_else(|| Error::NoAnswer("librdkafka gave no embedded broker".to_owned()))
    }

    /// rdkafka has no safe form of this setting.
    #[allow(unsafe_code, reason = "two calls of librdkafka's own interface")]
    fn shorten_joins(&self) {
        let delay_ms = i32::try_from(JOIN_DELAY.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the client lives as long as `self`, and its cluster as long as the client; the setter takes the cluster's lock.
        unsafe {
            let cluster = rd_kafka_handle_mock_cluster(self.owner.client().native_ptr());
            if !cluster.is_null() {
                rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, delay_ms);
            }
        }
    }

    /// Where clients find it, `127.0.0.1:<port>`.
    ///
    /// # Errors
    /// None that is known; the client has its cluster from its start.
    pub fn bootstrap_servers(&self) -> Result<String, Error> {
        Ok(self.cluster()?.bootstrap_servers())
    }

    /// Makes a topic.
    ///
    /// # Errors
    /// There is one of this name, or the name is none.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<(), Error> {
        Ok(self.cluster()?.create_topic(name, partitions, 1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::settings::Connection;
    use crate::kafka::topics::describe;

    #[test]
    fn a_topic_that_was_made_is_there_for_any_client() {
        let broker = EmbeddedBroker::start().unwrap();
        broker.create_topic("events.job", 2).unwrap();
        let connection = Connection {
            bootstrap_servers: broker.bootstrap_servers().unwrap(),
            client_id: "test".to_owned(),
            ..Connection::default()
        };
        let cluster = describe(&connection).unwrap();
        assert_eq!(cluster.brokers, 1);
        assert_eq!(cluster.topics.get("events.job"), Some(&2));
    }

    #[test]
    fn a_topic_is_not_made_twice() {
        let broker = EmbeddedBroker::start().unwrap();
        broker.create_topic("a", 1).unwrap();
        assert!(broker.create_topic("a", 1).is_err());
    }
}
