//! Notices that a topic which is read was deleted and made anew under the running reader.
//!
//! The old client goes on at offsets that the new topic does not have, and may hold its leaders for stale, because their
//! epochs begin at 0 again (`rd_kafka_toppar_leader_update` in librdkafka): it would read nothing, and say nothing. A log
//! that is shorter than what was read of it shows it; the reader then begins again with a client of its own (promise 1).
//! Not noticed: a topic that grows beyond the old one within [`ASK_EVERY`].

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::books::Place;
use super::membership::Membership;
use crate::record::NextOffset;

const ASK_EVERY: Duration = Duration::from_secs(3);
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// A new leader may know less for a moment than the old one had shown.
const TIMES: u32 = 2;

/// Asks for the ends of topics now and then, on a thread of its own: a turn never waits for the broker.
#[derive(Default)]
pub(super) struct Renewal {
    /// How far each partition was ever read by this client, whoever has it now: the client is what has to begin anew.
    reached: HashMap<Place, NextOffset>,
    asked: HashMap<Place, NextOffset>,
    answer: Option<Receiver<HashMap<Place, i64>>>,
    due: Duration,
    times: u32,
}

impl Renewal {
    /// Whether it happened. `reached` is how far the partitions that are assigned now were read.
    pub(super) fn turn(
        &mut self,
        consumer: &Arc<BaseConsumer<Membership>>,
        reached: impl FnOnce() -> Vec<(Place, NextOffset)>,
        now: Duration,
    ) -> bool {
        if let Some(answer) = &self.answer {
            match answer.try_recv() {
                Ok(ends) => {
                    self.answer = None;
                    self.judge(&ends);
                }
                Err(TryRecvError::Disconnected) => self.answer = None,
                Err(TryRecvError::Empty) => {}
            }
        } else if now >= self.due {
            self.due = now + ASK_EVERY;
            self.reached.extend(reached());
            self.asked.clone_from(&self.reached);
            self.answer = ask(consumer, self.asked.keys());
        }
        self.times >= TIMES
    }

    fn judge(&mut self, ends: &HashMap<Place, i64>) {
        let is_short = |(place, reached): (&Place, &NextOffset)| {
            ends.get(place).is_some_and(|end| *end < reached.0)
        };
        if self.asked.iter().any(is_short) {
            self.times += 1;
        } else {
            self.times = 0;
        }
    }
}

fn ask<'a>(
    consumer: &Arc<BaseConsumer<Membership>>,
    places: impl Iterator<Item = &'a Place>,
) -> Option<Receiver<HashMap<Place, i64>>> {
    let mut by_topic: HashMap<Arc<str>, Vec<i32>> = HashMap::new();
    for (topic, partition) in places {
        let partitions = by_topic.entry(Arc::clone(topic)).or_default();
        partitions.push(*partition);
    }
    if by_topic.is_empty() {
        return None;
    }
    let (tell, answer) = mpsc::channel();
    let consumer = Arc::clone(consumer);
    let asking = move || {
        let mut ends = HashMap::new();
        for (topic, partitions) in &by_topic {
            // One that is not there now is asked for again.
            if let Ok(of_topic) = ends_of(&consumer, topic, partitions) {
                ends.extend(of_topic);
            }
        }
        // The reader closes its consumer when it ends, and must not find it here.
        drop(consumer);
        let _ = tell.send(ends);
    };
    let spawned = std::thread::Builder::new()
        .name("topic-ends".into())
        .spawn(asking);
    spawned.ok().map(|_| answer)
}

fn ends_of(
    consumer: &BaseConsumer<Membership>,
    topic: &Arc<str>,
    partitions: &[i32],
) -> Result<HashMap<Place, i64>, KafkaError> {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition_offset(topic, *partition, Offset::End)?;
    }
    let answered = consumer.offsets_for_times(list, ANSWER_WAIT)?;
    Ok(answered
        .elements()
        .iter()
        .filter_map(|element| match (element.error(), element.offset()) {
            (Ok(()), Offset::Offset(end)) => Some(((Arc::clone(topic), element.partition()), end)),
            _ => None,
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(renewal: &mut Renewal, end: i64) -> bool {
        let place: Place = ("t".into(), 0);
        renewal.judge(&HashMap::from([(place, end)]));
        renewal.times >= TIMES
    }

    #[test]
    fn a_log_that_is_shorter_than_what_was_read_twice_running_was_made_anew() {
        let mut renewal = Renewal::default();
        renewal.asked.insert(("t".into(), 0), NextOffset(10));
        renewal.asked.insert(("other".into(), 0), NextOffset(10));
        assert!(!judged(&mut renewal, 10));
        assert!(!judged(&mut renewal, 9));
        assert!(!judged(&mut renewal, 12));
        assert!(!judged(&mut renewal, 9));
        assert!(judged(&mut renewal, 0));
    }
}
