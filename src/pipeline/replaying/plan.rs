//! What an order means, counted exactly before anything is done. Memory follows `limit` at most, never the topic (promise 6).

use std::collections::{BTreeMap, BinaryHeap};
use std::ops::ControlFlow;

use super::super::now_ms;
use super::counts::Labels;
use super::{Counts, Error, ID_PREFIX, Replaying};
use crate::intake::decode::{Decoded, decode};
use crate::kafka::table::{Span, narrow_to_time, scan, spans};
use crate::record::Record;
use crate::retry::dead_letter::{DeadLetter, Heading, Target};
use crate::retry::replay::{Deed, Job, Jobs, LetterFilter, Runner, State, Stretch};

/// What somebody wants done with dead letters.
#[derive(Clone, Debug)]
pub struct Order {
    pub deed: Deed,
    pub filter: LetterFilter,
    /// Another URL than the webhooks' own. The caller has asked the guard about it; it is asked again at each request.
    pub to: Option<url::Url>,
    /// What never was a delivery, into this topic. The caller has seen that there is one.
    pub into: Option<String>,
    /// What never was a delivery, to this webhook. See [`Replaying::target`].
    pub to_webhook: Option<Target>,
    /// Also what was replayed or discarded before.
    pub again: bool,
    /// Why, for a discard.
    pub reason: String,
    /// Letters per second.
    pub rate: Option<u32>,
    /// Only so many: those that died first.
    pub limit: Option<usize>,
    /// Letters that were replayed so often before are left.
    pub max_replays: Option<u32>,
    /// Who is to work on it.
    pub runner: Runner,
}

/// An order, counted: nothing has been written yet.
#[derive(Clone, Debug)]
pub struct Plan {
    pub job: Job,
    pub counts: Counts,
}

impl Replaying {
    /// Visits the letters that a filter means, partition by partition, each with the job that dealt with it last.
    ///
    /// # Errors
    /// [`Error::Kafka`] and [`Error::Unreadable`].
    pub fn letters(
        &self,
        filter: &LetterFilter,
        mut visit: impl FnMut(DeadLetter, Option<&Job>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let jobs = self.jobs()?;
        self.scan(filter, &self.spans(filter)?, |letter| {
            let doer = jobs.doer(&letter);
            visit(letter, doer)
        })
    }

    /// The letter at a place; `None` when there is none, or no longer.
    ///
    /// # Errors
    /// As [`Replaying::letters`].
    pub fn letter_at(&self, partition: i32, offset: i64) -> Result<Option<DeadLetter>, Error> {
        let all = spans(&self.connection, &self.letters)?;
        let holds =
            |span: &&Span| span.partition == partition && span.from <= offset && offset < span.to;
        let Some(span) = all.iter().find(holds) else {
            return Ok(None);
        };
        let one = Span {
            from: offset,
            to: offset.saturating_add(1),
            ..*span
        };
        let mut found = None;
        self.scan(&LetterFilter::default(), &[one], |letter| {
            found = Some(letter);
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// Counts what an order means.
    ///
    /// # Errors
    /// [`Error::Order`] names the field that is wrong; else as [`Replaying::letters`].
    pub fn plan(&self, order: Order) -> Result<Plan, Error> {
        if order.into.as_deref() == Some(&*self.letters) {
            let why = format!(
                "the letters are from {}, and would come back to it; name a source topic",
                self.letters
            );
            return Err(Error::Order { field: "into", why });
        }
        let jobs = self.jobs()?;
        let spans = self.spans(&order.filter)?;
        let mut counts = Counts::default();
        let mut first = order.limit.map(Earliest::new);
        self.scan(&order.filter, &spans, |letter| {
            match standing(&order, &jobs, &letter) {
                Standing::Done => counts.done_before += 1,
                Standing::Impossible(why) => counts.leave(&letter, why),
                Standing::TooOften => counts.replayed_too_often += 1,
                Standing::Meant => match &mut first {
                    Some(first) => first.offer(letter),
                    None => counts.count(&Labels::of(&letter)),
                },
            }
            ControlFlow::Continue(())
        })?;
        let mut stretches: BTreeMap<i32, Stretch> = spans
            .iter()
            .filter(|span| span.from < span.to)
            .map(|span| (span.partition, stretch(*span)))
            .collect();
        if let Some(first) = first {
            first.cut(&mut stretches, &mut counts);
        }
        Ok(self.planned(order, counts, stretches))
    }

    /// The plan of an order that was counted.
    pub(super) fn planned(
        &self,
        order: Order,
        counts: Counts,
        stretches: BTreeMap<i32, Stretch>,
    ) -> Plan {
        let now = now_ms();
        let job = Job {
            id: format!("{ID_PREFIX}{}", uuid::Uuid::now_v7().simple()),
            topic: self.letters.to_string(),
            deed: order.deed,
            filter: order.filter,
            to: order.to.map(String::from),
            into: order.into,
            to_webhook: order.to_webhook,
            missed: None,
            again: order.again,
            reason: order.reason,
            rate: order.rate,
            max_replays: order.max_replays,
            runner: order.runner,
            note: String::new(),
            state: State::Running,
            created_at_ms: now,
            updated_at_ms: now,
            reached_at_ms: 0,
            resumptions: Vec::new(),
            undone_at_ms: None,
            stretches,
            done: 0,
            total: counts.total,
        };
        Plan { job, counts }
    }

    pub(super) fn spans(&self, filter: &LetterFilter) -> Result<Vec<Span>, Error> {
        self.since(&self.letters, filter.since_ms.unwrap_or(0))
    }

    /// What was written to a topic since a time (Unix milliseconds); all of it where the time is not after 0.
    pub(super) fn since(&self, topic: &str, since_ms: i64) -> Result<Vec<Span>, Error> {
        let mut spans = spans(&self.connection, topic)?;
        // Kafka takes negative times for words: -1 is the end, -2 the beginning.
        if since_ms > 0 {
            narrow_to_time(&self.connection, topic, &mut spans, since_ms)?;
        }
        Ok(spans)
    }

    /// A record of the dead-letter topic. What never was a delivery is read as an event, which only the decoder can.
    pub(super) fn letter(&self, record: Record) -> DeadLetter {
        let mut letter = DeadLetter::from_record(record);
        if letter.is_whole_record() {
            // A replay into a topic sends the record as it is.
            let mut record = letter.record.clone();
            let event = match decode(&mut record, &self.reading) {
                Decoded::Event(event) => Ok(Heading {
                    event_type: event.event_type,
                    customer: event.customer,
                    payload: record.payload,
                }),
                Decoded::Tombstone => Err("it has no value".to_owned()),
                Decoded::Undecodable(why) => Err(why),
            };
            letter.read_as(event);
        }
        letter
    }

    /// The webhook that letters of other programs are to go to.
    ///
    /// # Errors
    /// [`Error::Order`]: there is no such webhook, or it is disabled.
    pub fn target(&self, webhook: &str) -> Result<Target, Error> {
        let refused = |why: String| Error::Order {
            field: "to_webhook",
            why,
        };
        let origin = self.origin.as_deref();
        let found = origin.and_then(|origin| origin.catalog.now().get(webhook).cloned());
        let Some(found) = found else {
            return Err(refused(format!(
                "there is no webhook {webhook}; `postrider subscriptions list` shows them"
            )));
        };
        if !found.enabled {
            return Err(refused(format!(
                "{webhook} is disabled, and would get nothing; enable it first"
            )));
        }
        let customer = found.customer.as_ref();
        Ok(Target {
            webhook: webhook.to_owned(),
            customer: customer.map(|customer| customer.as_str().to_owned()),
        })
    }

    pub(super) fn scan(
        &self,
        filter: &LetterFilter,
        spans: &[Span],
        mut each: impl FnMut(DeadLetter) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        scan(&self.connection, &self.letters, spans, |record| {
            let letter = self.letter(record);
            if filter.matches(&letter) {
                each(letter)
            } else {
                ControlFlow::Continue(())
            }
        })?;
        Ok(())
    }
}

enum Standing {
    Meant,
    Done,
    /// And why, where the order names a webhook.
    Impossible(Option<String>),
    TooOften,
}

fn standing(order: &Order, jobs: &Jobs, letter: &DeadLetter) -> Standing {
    if !order.again && jobs.doer(letter).is_some() {
        return Standing::Done;
    }
    if order.deed == Deed::Replay
        && let Err(why) = letter.can_go(order.into.is_some(), order.to_webhook.as_ref())
    {
        return Standing::Impossible(why);
    }
    if order
        .max_replays
        .is_some_and(|most| letter.replay_count >= most)
    {
        Standing::TooOften
    } else {
        Standing::Meant
    }
}

pub(super) fn stretch(span: Span) -> Stretch {
    Stretch {
        from: span.from,
        to: span.to,
        next: span.from,
    }
}

/// The letters that died first, at most `limit` of them, so chosen that in each partition they are all that come before a place.
struct Earliest {
    limit: usize,
    /// Time, partition, offset, and what it is counted by; the last to have died on top.
    chosen: BinaryHeap<(i64, i32, i64, Labels)>,
    is_cut: bool,
    /// The partition that is being offered, and the latest time seen in it: a broker's clock may step back, offsets do not.
    latest: (i32, i64),
}

impl Earliest {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            chosen: BinaryHeap::new(),
            is_cut: false,
            latest: (-1, i64::MIN),
        }
    }

    fn offer(&mut self, letter: DeadLetter) {
        let partition = letter.place.partition;
        let time_ms = match self.latest {
            (same, latest) if same == partition => latest.max(letter.died_at_ms),
            _ => letter.died_at_ms,
        };
        self.latest = (partition, time_ms);
        self.chosen
            .push((time_ms, partition, letter.place.offset, Labels::of(&letter)));
        if self.chosen.len() > self.limit {
            self.chosen.pop();
            self.is_cut = true;
        }
    }

    /// Ends the stretches behind the last chosen letter of each partition, if letters were left out.
    fn cut(self, stretches: &mut BTreeMap<i32, Stretch>, counts: &mut Counts) {
        let mut ends: BTreeMap<i32, i64> = BTreeMap::new();
        for (_, partition, offset, labels) in &self.chosen {
            counts.count(labels);
            let end = ends.entry(*partition).or_default();
            *end = (*end).max(offset.saturating_add(1));
        }
        if self.is_cut {
            stretches.retain(|partition, stretch| {
                ends.get(partition).is_some_and(|end| {
                    stretch.to = *end;
                    true
                })
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::{Record, SourceOffset};

    fn letter(partition: i32, offset: i64, died_at_ms: i64) -> DeadLetter {
        DeadLetter::from_record(Record {
            topic: "dead".into(),
            partition,
            offset: SourceOffset(offset),
            timestamp_ms: Some(died_at_ms),
            key: None,
            payload: None,
            headers: Vec::new(),
        })
    }

    fn earliest(partitions: &[Vec<i64>], limit: usize) -> (BTreeMap<i32, Stretch>, Counts) {
        let mut first = Earliest::new(limit);
        let mut stretches = BTreeMap::new();
        for (partition, times) in (0..).zip(partitions) {
            for (offset, time) in (0..).zip(times) {
                first.offer(letter(partition, offset, *time));
            }
            let to = i64::try_from(times.len()).unwrap();
            let span = Span {
                partition,
                from: 0,
                to,
            };
            stretches.insert(partition, stretch(span));
        }
        let mut counts = Counts::default();
        first.cut(&mut stretches, &mut counts);
        (stretches, counts)
    }

    #[test]
    fn the_first_to_have_died_are_chosen_over_all_partitions() {
        let (stretches, counts) = earliest(&[vec![10, 30], vec![20, 40]], 3);
        assert_eq!(counts.total, 3);
        assert_eq!(stretches[&0].to, 2);
        assert_eq!(stretches[&1].to, 1);
    }

    proptest! {
        #[test]
        fn the_stretches_hold_exactly_the_counted_letters(
            partitions in prop::collection::vec(prop::collection::vec(0i64..50, 0..20), 1..4),
            limit in 1usize..40,
        ) {
            let all: usize = partitions.iter().map(Vec::len).sum();
            let (stretches, counts) = earliest(&partitions, limit);
            let held: i64 = stretches.values().map(|stretch| stretch.to - stretch.from).sum();
            prop_assert_eq!(counts.total, all.min(limit) as u64);
            prop_assert_eq!(held, all.min(limit) as i64);
        }
    }
}
