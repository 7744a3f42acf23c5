//! Where a partition begins to be read when it is assigned.
//!
//! librdkafka's own rule (`auto.offset.reset`) applies silently and again after each restart, so a group that begins at
//! the end and dies before its first record skips what came between. Here the start is decided once, said, and committed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use tracing::error;

use super::Error;
use super::books::Place;
use super::ledger::Commit;
use super::renewal::Ids;
use super::topic_id::{self, TopicId};
use crate::record::NextOffset;

const BROKER_WAIT: Duration = Duration::from_secs(20);
/// Shorter than a session, because an assignment waits for it.
const LEADER_WAIT: Duration = Duration::from_secs(4);
const LEADER_PAUSE: Duration = Duration::from_millis(50);

/// Where a group without a committed offset begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record that is still there.
    Earliest,
    /// With what comes from now on. A partition that was added to a topic that the group reads already begins at its
    /// first record all the same: what is in it came after the group began.
    Latest,
}

/// Where one partition begins.
pub(super) struct Position {
    pub place: Place,
    pub offset: NextOffset,
    pub committed: Option<Commit>,
}

/// Decides the start of each assigned partition; `ids` are those that the topics have now. Fails when the broker does not answer in time; the caller lets the
/// process end, and it begins again.
pub(super) fn positions<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    places: &[Place],
    start: Start,
    keeps_place: bool,
    ids: &Ids,
) -> Result<Vec<Position>, Error> {
    if places.is_empty() {
        return Ok(Vec::new());
    }
    let committed = if keeps_place {
        committed_offsets(consumer, places)?
    } else {
        HashMap::new()
    };
    let known_topics: HashSet<Arc<str>> = if start == Start::Latest {
        topics_with_commits(consumer, places)?
    } else {
        HashSet::new()
    };
    let lows = edges(consumer, places, Offset::Beginning)?;
    let highs = edges(consumer, places, Offset::End)?;
    let mut positions = Vec::with_capacity(places.len());
    for place in places {
        let low = lows.get(place).copied().unwrap_or(0);
        let high = highs.get(place).copied().unwrap_or(low);
        let committed = committed.get(place);
        if is_of_another_topic(committed, ids.get(&place.0)) {
            error!(
                topic = %place.0,
                partition = place.1,
                "the topic was deleted and made anew since it was read; begin at its first record"
            );
            positions.push(Position {
                place: place.clone(),
                offset: NextOffset(low),
                committed: None,
            });
            continue;
        }
        let committed = committed.map(|found| &found.commit);
        let offset = match committed.map(|commit| commit.offset) {
            Some(offset) if offset.0 < low => {
                error!(
                    topic = %place.0,
                    partition = place.1,
                    lost_records = low - offset.0,
                    "the topic's retention has removed records before they were read; begin at the oldest that is left"
                );
                NextOffset(low)
            }
            Some(offset) if offset.0 > high => {
                error!(
                    topic = %place.0,
                    partition = place.1,
                    "the topic is shorter than what was read of it (was it deleted and made anew?); begin at its first record"
                );
                NextOffset(low)
            }
            Some(offset) => offset,
            None if start == Start::Latest && !known_topics.contains(&place.0) => NextOffset(high),
            None => NextOffset(low),
        };
        positions.push(Position {
            place: place.clone(),
            offset,
            // A commit that was moved counts as none, so that the new start is committed.
            committed: committed
                .filter(|committed| committed.offset == offset)
                .cloned(),
        });
    }
    Ok(positions)
}

/// What a group has committed of a partition.
struct Found {
    /// Of the topic that the offset belongs to.
    id: Option<TopicId>,
    commit: Commit,
}

/// Whether a commit outlived the topic that it belongs to. The broker removes the offsets of a topic that is deleted, but a member
/// that has not noticed may commit after that.
fn is_of_another_topic(committed: Option<&Found>, now: Option<&TopicId>) -> bool {
    committed
        .and_then(|found| found.id.as_ref())
        .zip(now)
        .is_some_and(|(then, now)| then != now)
}

/// The first offset ([`Offset::Beginning`]) or the next one ([`Offset::End`]) of each partition, with one request a broker: asking for
/// each partition's watermarks takes a round trip each, which for many partitions is longer than a session.
pub(super) fn edges<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    places: &[Place],
    edge: Offset,
) -> Result<HashMap<Place, i64>, Error> {
    if places.is_empty() {
        return Ok(HashMap::new());
    }
    let mut list = TopicPartitionList::new();
    for (topic, partition) in places {
        list.add_partition_offset(topic, *partition, edge)?;
    }
    let deadline = Instant::now() + LEADER_WAIT;
    loop {
        match edges_once(consumer, list.clone()) {
            Err(failure) if is_passing(&failure) && Instant::now() < deadline => {
                std::thread::sleep(LEADER_PAUSE);
            }
            answer => return Ok(answer?),
        }
    }
}

fn edges_once<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    list: TopicPartitionList,
) -> Result<HashMap<Place, i64>, KafkaError> {
    let answered = consumer.offsets_for_times(list, BROKER_WAIT)?;
    let mut found = HashMap::new();
    for element in answered.elements() {
        element.error()?;
        if let Offset::Offset(offset) = element.offset() {
            let place = (Arc::from(element.topic()), element.partition());
            found.insert(place, offset);
        }
    }
    Ok(found)
}

/// A new topic is shown before its leaders lead, and leaders move.
fn is_passing(failure: &KafkaError) -> bool {
    matches!(
        failure.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::UnknownTopicOrPartition
        )
    )
}

fn committed_offsets<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    places: &[Place],
) -> Result<HashMap<Place, Found>, Error> {
    let mut list = TopicPartitionList::new();
    for (topic, partition) in places {
        list.add_partition(topic, *partition);
    }
    let answered = consumer.committed_offsets(list, BROKER_WAIT)?;
    Ok(answered
        .elements()
        .iter()
        .filter_map(|element| match element.offset() {
            Offset::Offset(offset) => {
                let (id, note) = topic_id::from_metadata(element.metadata());
                let commit = Commit {
                    offset: NextOffset(offset),
                    note: note.to_owned(),
                };
                Some((
                    (Arc::from(element.topic()), element.partition()),
                    Found { id, commit },
                ))
            }
            _ => None,
        })
        .collect())
}

/// The topics among `places` of which the group has committed any partition, whoever owns it.
fn topics_with_commits<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    places: &[Place],
) -> Result<HashSet<Arc<str>>, Error> {
    let topics: HashSet<&Arc<str>> = places.iter().map(|(topic, _)| topic).collect();
    let mut all = Vec::new();
    for topic in topics {
        let metadata = consumer.fetch_metadata(Some(topic), BROKER_WAIT)?;
        for described in metadata.topics() {
            for partition in described.partitions() {
                all.push((Arc::clone(topic), partition.id()));
            }
        }
    }
    let committed = committed_offsets(consumer, &all)?;
    Ok(committed.into_keys().map(|(topic, _)| topic).collect())
}
