//! Reading topics for ever from places that the reader keeps itself, without a group: for a view that stores its positions with its
//! rows. What retention has removed meanwhile, and a topic that was made anew, are passed over with a word in the log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Message, Offset, TopicPartitionList};
use tracing::warn;

use super::Error;
use super::settings::Connection;
use super::table::{record_of, spans};
use crate::record::Record;

/// A running reader; it ends when it is dropped.
pub struct Tail {
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Tail {
    /// Asks the thread to end, without waiting.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Reads all partitions of `topics`, each from its position (topic, partition → the next offset) or from its first record. `each` is called on
/// the thread of the tail and may block: then less is read.
///
/// # Errors
/// A topic is missing or the broker does not answer.
pub fn tail(
    connection: &Connection,
    topics: &[Arc<str>],
    positions: &BTreeMap<(String, i32), i64>,
    mut each: impl FnMut(Record) + Send + 'static,
) -> Result<Tail, Error> {
    let consumer: BaseConsumer = connection.reader().create()?;
    let mut list = TopicPartitionList::new();
    for topic in topics {
        for span in spans(connection, topic)? {
            let kept = positions.get(&(topic.to_string(), span.partition)).copied();
            let from = match kept {
                Some(next) if next > span.to => {
                    warn!(%topic, partition = span.partition, "the topic is shorter than what was read of it; begin at its first record");
                    span.from
                }
                Some(next) => next.max(span.from),
                None => span.from,
            };
            list.add_partition_offset(topic, span.partition, Offset::Offset(from))?;
        }
    }
    consumer.assign(&list)?;
    let stopping = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&stopping);
    let names: Vec<Arc<str>> = topics.to_vec();
    let thread = std::thread::Builder::new()
        .name("tail".into())
        .spawn(move || {
            while !stop.load(Ordering::Acquire) {
                match consumer.poll(Duration::from_millis(100)) {
                    Some(Ok(message)) => {
                        let name = names.iter().find(|name| ***name == *message.topic());
                        if let Some(name) = name {
                            each(record_of(name, &message));
                        }
                    }
                    Some(Err(failure)) => warn!(%failure, "reading met an error and goes on"),
                    None => {}
                }
            }
        })
        .map_err(Error::Thread)?;
    Ok(Tail {
        stopping,
        thread: Some(thread),
    })
}
