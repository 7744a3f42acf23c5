//! Reading without a group: a compacted topic as a table that is followed live, and bounded scans of any topic.
//!
//! The catalog and the replay jobs are such tables; the command line and the drains scan.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Offset, TopicPartitionList};
use tracing::warn;

use super::books::Place;
use super::settings::Connection;
use super::start::edges;
use super::turns::headers_of;
use super::{Error, bytes_of};
use crate::record::{Record, SourceOffset};

const BROKER_WAIT: Duration = Duration::from_secs(20);
const CHECK_EVERY: Duration = Duration::from_millis(500);
/// After a record: whoever wrote it may be waiting to see it.
const CHECK_SOON: Duration = Duration::from_millis(20);

/// What a follower tells.
#[derive(Debug)]
pub enum Change {
    /// A record; without a payload it deletes its key.
    Put(Record),
    /// Everything that was in the topic at this instant has been told.
    CaughtUp(Instant),
}

/// A running follower; it ends when it is dropped.
pub struct Follower {
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Follows a topic from its first record and for ever. `each` is called on the follower's own thread. Trouble with the
/// broker is waited out; the table then only stops being fresh, which [`Change::CaughtUp`] shows.
pub fn follow(
    connection: &Connection,
    topic: &str,
    mut each: impl FnMut(Change) + Send + 'static,
) -> Result<Follower, Error> {
    let consumer: BaseConsumer = connection.reader().create()?;
    let partitions = partition_count(&consumer, topic)?;
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions {
        list.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&list)?;
    let stopping = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&stopping);
    let topic: Arc<str> = topic.into();
    let thread = std::thread::Builder::new()
        .name("table-follower".into())
        .spawn(move || {
            let mut next = vec![0_i64; usize::try_from(partitions).unwrap_or(0)];
            let mut check_at = Instant::now();
            let mut target: Option<(Instant, Vec<i64>)> = None;
            while !stop.load(Ordering::Acquire) {
                match consumer.poll(Duration::from_millis(20)) {
                    Some(Ok(message)) => {
                        let place = usize::try_from(message.partition()).ok();
                        if let Some(slot) = place.and_then(|place| next.get_mut(place)) {
                            *slot = message.offset() + 1;
                        }
                        each(Change::Put(record_of(&topic, &message)));
                        check_at = check_at.min(Instant::now() + CHECK_SOON);
                    }
                    Some(Err(failure)) => {
                        warn!(%topic, %failure, "following a table met an error and goes on")
                    }
                    None => {}
                }
                if target.is_none() && Instant::now() >= check_at {
                    let asked = Instant::now();
                    match ends(&consumer, &topic, partitions) {
                        Ok(ends) => target = Some((asked, ends)),
                        Err(failure) => {
                            warn!(%topic, %failure, "could not ask for the end of a table")
                        }
                    }
                    check_at = Instant::now() + CHECK_EVERY;
                }
                // Compaction and markers can leave the end beyond the last record, so a quiet queue counts as well as a position.
                let reached = target.as_ref().is_some_and(|(_, ends)| {
                    ends.iter().zip(&next).all(|(end, next)| next >= end)
                        || position_reaches(&consumer, &topic, ends)
                });
                if reached && let Some((asked, _)) = target.take() {
                    each(Change::CaughtUp(asked));
                }
            }
        })
        .map_err(Error::Thread)?;
    Ok(Follower {
        stopping,
        thread: Some(thread),
    })
}

fn places_of(topic: &str, partitions: i32) -> Vec<Place> {
    let topic: Arc<str> = topic.into();
    (0..partitions)
        .map(|partition| (Arc::clone(&topic), partition))
        .collect()
}

/// The end of each partition; 0 for an empty one.
fn ends(consumer: &BaseConsumer, topic: &str, partitions: i32) -> Result<Vec<i64>, Error> {
    let places = places_of(topic, partitions);
    let lows = edges(consumer, &places, Offset::Beginning)?;
    let highs = edges(consumer, &places, Offset::End)?;
    Ok(places
        .iter()
        .map(|place| {
            let low = lows.get(place).copied().unwrap_or(0);
            highs
                .get(place)
                .copied()
                .filter(|high| *high > low)
                .unwrap_or(0)
        })
        .collect())
}

fn position_reaches(consumer: &BaseConsumer, topic: &str, ends: &[i64]) -> bool {
    let Ok(position) = consumer.position() else {
        return false;
    };
    ends.iter().zip(0..).all(|(end, partition)| {
        *end == 0
            || position
                .find_partition(topic, partition)
                .is_some_and(|element| matches!(element.offset(), Offset::Offset(at) if at >= *end))
    })
}

pub(super) fn record_of(topic: &Arc<str>, message: &BorrowedMessage<'_>) -> Record {
    Record {
        topic: Arc::clone(topic),
        partition: message.partition(),
        offset: SourceOffset(message.offset()),
        timestamp_ms: message.timestamp().to_millis(),
        key: message.key().map(bytes_of),
        payload: message.payload().map(bytes_of),
        headers: headers_of(message),
    }
}

fn partition_count(consumer: &BaseConsumer, topic: &str) -> Result<i32, Error> {
    let metadata = consumer.fetch_metadata(Some(topic), BROKER_WAIT)?;
    let count = metadata
        .topics()
        .iter()
        .find(|described| described.name() == topic && described.error().is_none())
        .map_or(0, |described| described.partitions().len());
    if count == 0 {
        return Err(Error::NoAnswer(format!(
            "topic {topic} does not exist; `postrider topics apply` makes it"
        )));
    }
    Ok(i32::try_from(count).unwrap_or(i32::MAX))
}

/// A part of one partition: `from` is read, `to` is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub partition: i32,
    pub from: i64,
    pub to: i64,
}

/// What a topic holds now, partition by partition.
pub fn spans(connection: &Connection, topic: &str) -> Result<Vec<Span>, Error> {
    let consumer: BaseConsumer = connection.reader().create()?;
    let partitions = partition_count(&consumer, topic)?;
    let places = places_of(topic, partitions);
    let lows = edges(&consumer, &places, Offset::Beginning)?;
    let highs = edges(&consumer, &places, Offset::End)?;
    Ok(places
        .iter()
        .map(|place| Span {
            partition: place.1,
            from: lows.get(place).copied().unwrap_or(0),
            to: highs.get(place).copied().unwrap_or(0),
        })
        .collect())
}

/// The newest record of every key of a topic; deleted keys are left out.
///
/// # Errors
/// As [`spans`] and [`scan`].
pub fn latest(connection: &Connection, topic: &str) -> Result<BTreeMap<Bytes, Record>, Error> {
    let mut table = BTreeMap::new();
    let spans = spans(connection, topic)?;
    scan(connection, topic, &spans, |record| {
        if let Some(key) = record.key.clone() {
            if record.payload.is_some() {
                table.insert(key, record);
            } else {
                table.remove(&key);
            }
        }
        ControlFlow::Continue(())
    })?;
    Ok(table)
}

/// The first offsets at or after a time (Unix milliseconds), for narrowing spans; a partition without one keeps its end.
pub fn narrow_to_time(
    connection: &Connection,
    topic: &str,
    spans: &mut [Span],
    since_ms: i64,
) -> Result<(), Error> {
    let consumer: BaseConsumer = connection.reader().create()?;
    let mut list = TopicPartitionList::new();
    for span in spans.iter() {
        list.add_partition_offset(topic, span.partition, Offset::Offset(since_ms))?;
    }
    let answered = consumer.offsets_for_times(list, BROKER_WAIT)?;
    for span in spans {
        match answered
            .find_partition(topic, span.partition)
            .map(|found| found.offset())
        {
            Some(Offset::Offset(offset)) => span.from = span.from.max(offset),
            _ => span.from = span.to,
        }
    }
    Ok(())
}

/// Reads spans of a topic, one partition after another in the order given, until their ends or until `each` breaks.
/// Fails when the broker gives nothing for a while.
pub fn scan(
    connection: &Connection,
    topic: &str,
    spans: &[Span],
    mut each: impl FnMut(Record) -> ControlFlow<()>,
) -> Result<(), Error> {
    let consumer: BaseConsumer = connection.reader().create()?;
    let name: Arc<str> = topic.into();
    for span in spans.iter().filter(|span| span.from < span.to) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, span.partition, Offset::Offset(span.from))?;
        consumer.assign(&list)?;
        let mut heard = Instant::now();
        loop {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    if message.partition() != span.partition || message.offset() >= span.to {
                        break;
                    }
                    let last = message.offset() + 1 >= span.to;
                    if each(record_of(&name, &message)).is_break() {
                        return Ok(());
                    }
                    if last {
                        break;
                    }
                }
                Some(Err(failure)) => warn!(topic, %failure, "a scan met an error and goes on"),
                None => {
                    // The rest of the span may be markers or compacted away: then the position has passed it.
                    let mut ends = vec![0; usize::try_from(span.partition).unwrap_or(0)];
                    ends.push(span.to);
                    if position_reaches(&consumer, topic, &ends) {
                        break;
                    }
                    if heard.elapsed() > BROKER_WAIT {
                        return Err(Error::NoAnswer(format!(
                            "the broker gave nothing of {topic}/{} for {} s",
                            span.partition,
                            BROKER_WAIT.as_secs()
                        )));
                    }
                }
            }
        }
    }
    Ok(())
}
