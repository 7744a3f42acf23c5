//! What a group has not settled: the part of a topic from its committed offsets to its end.
//!
//! A record there is not lost, whatever became of the process that was to read it (promise 2).

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::Error;
use super::settings::Connection;
use super::table::{Span, spans};

const BROKER_WAIT: Duration = Duration::from_secs(20);
/// Asked of the client and never used: nothing joins the group here.
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);

/// The unsettled part of every partition; the whole of one of which the group has committed nothing.
///
/// # Errors
/// The topic is missing, or the broker does not answer.
pub fn unread(connection: &Connection, group: &str, topic: &str) -> Result<Vec<Span>, Error> {
    let mut spans = spans(connection, topic)?;
    let consumer: BaseConsumer = connection
        .consumer(group, SESSION_TIMEOUT, false)
        .create()?;
    let mut list = TopicPartitionList::new();
    for span in &spans {
        list.add_partition(topic, span.partition);
    }
    let answered = consumer.committed_offsets(list, BROKER_WAIT)?;
    for span in &mut spans {
        let found = answered.find_partition(topic, span.partition);
        if let Some(Offset::Offset(committed)) = found.map(|element| element.offset()) {
            span.from = span.from.max(committed);
        }
    }
    Ok(spans)
}
