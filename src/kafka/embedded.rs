//! A Kafka broker inside this process, for the demo: librdkafka's mock cluster, which any Kafka client can reach on loopback.
//!
//! It is no place for data that matters: everything is in memory, a partition keeps at most 5 MiB and drops its oldest
//! records beyond that, nothing is compacted, and there is no admin protocol, so topics are made by
//! [`EmbeddedBroker::create_topic`] alone (librdkafka, `rdkafka_mock.h`).

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use super::Error;

/// A running broker; it is gone, records and all, when dropped. Clients must be dropped first.
pub struct EmbeddedBroker {
    cluster: MockCluster<'static, DefaultProducerContext>,
}

impl EmbeddedBroker {
    /// Starts one broker on a free port of loopback.
    ///
    /// # Errors
    /// No port, or no thread, can be had.
    pub fn start() -> Result<Self, Error> {
        let cluster = MockCluster::new(1)?;
        Ok(Self { cluster })
    }

    /// Where clients find it, `127.0.0.1:<port>`.
    pub fn bootstrap_servers(&self) -> String {
        self.cluster.bootstrap_servers()
    }

    /// Makes a topic.
    ///
    /// # Errors
    /// There is one of this name, or the name is none.
    pub fn create_topic(&self, name: &str, partitions: i32) -> Result<(), Error> {
        Ok(self.cluster.create_topic(name, partitions, 1)?)
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
            bootstrap_servers: broker.bootstrap_servers(),
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
