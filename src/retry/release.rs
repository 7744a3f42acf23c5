//! When a waiting record leaves its delay topic: held until its residency is over, then sent on to `dispatch`, or to the next
//! rung when more waiting remains. The last stretch is waited out in a bounded heap.
//!
//! Memory is the heads of the partitions and the heap's bound, whatever the number that waits (promise 6). A record is never released before it is due.
//! Pure: the pipeline brings records and carries out the steps.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use super::ladder::{RUNGS, Rung, rung_for};

/// The rest of a wait that is kept in memory rather than put on another rung.
const LAST_MILE_MS: i64 = 15_000;

/// What to do with a record whose time has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Step<T> {
    Dispatch(T),
    Move(&'static Rung, T),
}

/// A record that arrives from a delay topic.
pub struct Arrival<T> {
    pub topic: Arc<str>,
    pub partition: i32,
    pub rung: &'static Rung,
    /// When the broker appended it, Unix milliseconds of its clock.
    pub appended_ms: i64,
    /// Not to be dispatched before, Unix milliseconds of ours.
    pub due_ms: i64,
    /// What holding it costs.
    pub bytes: usize,
    pub item: T,
}

struct Head<T> {
    /// When its residency is over, by the broker's clock.
    leaves_ms: i64,
    arrival: Arrival<T>,
}

impl<T> Head<T> {
    /// When it goes on, by our clock, which is ahead of the broker's by `ahead_ms`. A delivery that is due before its residency is over (it
    /// cannot be, unless clocks differ) is not kept longer.
    fn goes_on_ms(&self, ahead_ms: i64) -> i64 {
        let leaves_ms = self.leaves_ms.saturating_add(ahead_ms);
        leaves_ms.min(self.arrival.due_ms)
    }
}

struct Near<T> {
    due_ms: i64,
    number: u64,
    bytes: usize,
    item: T,
}

impl<T> PartialEq for Near<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.due_ms, self.number) == (other.due_ms, other.number)
    }
}
impl<T> Eq for Near<T> {}
impl<T> PartialOrd for Near<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Near<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due_ms, self.number).cmp(&(other.due_ms, other.number))
    }
}

/// See the module's text.
pub struct Release<T> {
    heads: Vec<Head<T>>,
    near: BinaryHeap<Reverse<Near<T>>>,
    near_bytes: usize,
    bound_bytes: usize,
    number: u64,
}

impl<T> Release<T> {
    /// `bound_bytes` bounds the heap.
    pub fn new(bound_bytes: usize) -> Self {
        Self {
            heads: Vec::new(),
            near: BinaryHeap::new(),
            near_bytes: 0,
            bound_bytes,
            number: 0,
        }
    }

    /// Whether this partition may be read: its last record is not waiting for its residency, and the heap has room.
    pub fn wants(&self, topic: &str, partition: i32) -> bool {
        self.near_bytes < self.bound_bytes
            && !self.heads.iter().any(|head| {
                head.arrival.partition == partition && head.arrival.topic.as_ref() == topic
            })
    }

    /// Takes a record in; it comes out of [`Release::due`].
    pub fn arrive(&mut self, arrival: Arrival<T>) {
        let residency = if arrival.rung == &RUNGS[0] {
            Duration::ZERO
        } else {
            arrival.rung.residency
        };
        let residency_ms = i64::try_from(residency.as_millis()).unwrap_or(i64::MAX);
        self.heads.push(Head {
            leaves_ms: arrival.appended_ms.saturating_add(residency_ms),
            arrival,
        });
    }

    /// Everything whose time has come, appended to `steps`. `ahead_ms` is by how much our clock, which says `now_ms`, is ahead of the broker's,
    /// which says when a record was put on its rung: were they taken for one, a record on a rung shorter than the difference would have
    /// served its time on arrival, and would go round as fast as Kafka takes it.
    pub fn due(&mut self, now_ms: i64, ahead_ms: i64, steps: &mut Vec<Step<T>>) {
        let mut index = 0;
        while let Some(head) = self.heads.get(index) {
            if head.goes_on_ms(ahead_ms) > now_ms {
                index += 1;
                continue;
            }
            let Arrival {
                due_ms,
                bytes,
                item,
                rung,
                ..
            } = self.heads.swap_remove(index).arrival;
            let remaining_ms = due_ms.saturating_sub(now_ms);
            if remaining_ms <= 0 {
                steps.push(Step::Dispatch(item));
            } else if remaining_ms <= LAST_MILE_MS
                || (rung == &RUNGS[0] && remaining_ms < 2 * LAST_MILE_MS)
            {
                self.number += 1;
                self.near_bytes += bytes;
                self.near.push(Reverse(Near {
                    due_ms,
                    number: self.number,
                    bytes,
                    item,
                }));
            } else {
                let remaining = Duration::from_millis(remaining_ms.unsigned_abs());
                steps.push(Step::Move(rung_for(remaining), item));
            }
        }
        while self
            .near
            .peek()
            .is_some_and(|Reverse(near)| near.due_ms <= now_ms)
        {
            if let Some(Reverse(near)) = self.near.pop() {
                self.near_bytes -= near.bytes;
                steps.push(Step::Dispatch(near.item));
            }
        }
    }

    /// When something is due next, Unix milliseconds; `ahead_ms` as in [`Release::due`].
    pub fn next_ms(&self, ahead_ms: i64) -> Option<i64> {
        let near = self.near.peek().map(|Reverse(near)| near.due_ms);
        let head = self
            .heads
            .iter()
            .map(|head| head.goes_on_ms(ahead_ms))
            .min();
        near.into_iter().chain(head).min()
    }

    /// Lets go of everything for which `out` is true, in an orderly way: what waits in the heap goes back to a delay topic, because records
    /// that came after it have gone on already. A partition's head has nothing behind it and is simply forgotten, to be read again.
    pub fn give_back(
        &mut self,
        now_ms: i64,
        mut out: impl FnMut(&T) -> bool,
        steps: &mut Vec<Step<T>>,
    ) {
        self.heads.retain(|head| !out(&head.arrival.item));
        let near = std::mem::take(&mut self.near).into_vec();
        self.near_bytes = 0;
        for Reverse(near) in near {
            if out(&near.item) {
                let remaining_ms = near.due_ms.saturating_sub(now_ms).max(0);
                let remaining = Duration::from_millis(remaining_ms.unsigned_abs());
                steps.push(Step::Move(rung_for(remaining), near.item));
            } else {
                self.near_bytes += near.bytes;
                self.near.push(Reverse(near));
            }
        }
    }

    /// Forgets everything for which `keep` is false.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.heads.retain(|head| keep(&head.arrival.item));
        self.near.retain(|Reverse(near)| keep(&near.item));
        self.near_bytes = self.near.iter().map(|Reverse(near)| near.bytes).sum();
    }

    /// The record that has been longest on each rung, by when it was put there (Unix milliseconds); rungs with nothing at their heads
    /// are not among them.
    pub fn oldest(&self) -> impl Iterator<Item = (&'static Rung, i64)> {
        RUNGS.iter().filter_map(|rung| {
            let heads = self.heads.iter().filter(|head| head.arrival.rung == rung);
            let oldest_ms = heads.map(|head| head.arrival.appended_ms).min()?;
            Some((rung, oldest_ms))
        })
    }

    /// How many records are held in memory.
    pub fn held(&self) -> usize {
        self.heads.len() + self.near.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn arrival(rung: &'static Rung, appended_ms: i64, due_ms: i64, item: u32) -> Arrival<u32> {
        Arrival {
            topic: rung.name.into(),
            partition: 0,
            rung,
            appended_ms,
            due_ms,
            bytes: 100,
            item,
        }
    }

    fn steps(release: &mut Release<u32>, now_ms: i64) -> Vec<Step<u32>> {
        let mut steps = Vec::new();
        release.due(now_ms, 0, &mut steps);
        steps
    }

    #[test]
    fn a_clock_that_is_an_hour_ahead_of_the_brokers_lets_nothing_go_round_its_rung() {
        let (mut release, ahead_ms) = (Release::new(1000), 3_600_000);
        let mut steps = Vec::new();
        let due_ms = ahead_ms + 1_000_000;
        release.arrive(arrival(&RUNGS[6], 0, due_ms, 1));
        release.due(ahead_ms, ahead_ms, &mut steps);
        assert_eq!(steps, [], "put there just now");
        assert_eq!(release.next_ms(ahead_ms), Some(ahead_ms + 960_000));
        release.due(ahead_ms + 960_000, ahead_ms, &mut steps);
        assert_eq!(steps, [Step::Move(&RUNGS[1], 1)]);
    }

    #[test]
    fn a_clock_that_is_an_hour_behind_the_brokers_keeps_nothing_for_longer() {
        let (mut release, ahead_ms) = (Release::new(1000), -3_600_000);
        let mut steps = Vec::new();
        release.arrive(arrival(&RUNGS[2], 0, ahead_ms + 60_500, 1));
        release.due(ahead_ms + 59_999, ahead_ms, &mut steps);
        assert_eq!(release.held(), 1);
        assert!(!release.wants("1m", 0));
        release.due(ahead_ms + 60_000, ahead_ms, &mut steps);
        assert!(release.wants("1m", 0), "it waits in the heap now");
        release.due(ahead_ms + 60_500, ahead_ms, &mut steps);
        assert_eq!(steps, [Step::Dispatch(1)]);
    }

    #[test]
    fn a_record_stays_for_its_residency_and_the_last_mile() {
        let mut release = Release::new(1000);
        release.arrive(arrival(&RUNGS[2], 0, 63_000, 1));
        assert!(!release.wants("1m", 0));
        assert!(release.wants("1m", 1));
        assert_eq!(steps(&mut release, 59_999), vec![]);
        assert_eq!(steps(&mut release, 60_000), vec![]);
        assert!(release.wants("1m", 0), "it waits in the heap now");
        assert_eq!(release.next_ms(0), Some(63_000));
        assert_eq!(steps(&mut release, 62_999), vec![]);
        assert_eq!(steps(&mut release, 63_000), vec![Step::Dispatch(1)]);
    }

    #[test]
    fn a_long_wait_goes_to_the_next_rung() {
        let mut release = Release::new(1000);
        release.arrive(arrival(&RUNGS[10], 0, 24 * 3_600_000, 1));
        let now_ms = 256 * 60_000;
        assert_eq!(steps(&mut release, now_ms), vec![Step::Move(&RUNGS[10], 1)]);
    }

    #[test]
    fn a_full_heap_stops_the_reading_and_due_records_free_it() {
        let mut release = Release::new(100);
        release.arrive(arrival(&RUNGS[0], 0, 5_000, 1));
        assert_eq!(steps(&mut release, 1), vec![]);
        assert!(!release.wants("15s", 0));
        assert_eq!(steps(&mut release, 5_000), vec![Step::Dispatch(1)]);
        assert!(release.wants("15s", 0));
    }

    #[test]
    fn what_is_handed_back_goes_from_the_heap_to_a_topic() {
        let mut release = Release::new(1000);
        release.arrive(arrival(&RUNGS[0], 0, 5_000, 1));
        assert_eq!(steps(&mut release, 1), vec![]);
        release.arrive(arrival(&RUNGS[3], 0, 500_000, 2));
        let mut moved = Vec::new();
        release.give_back(2, |_| true, &mut moved);
        assert_eq!(moved, vec![Step::Move(&RUNGS[0], 1)]);
        assert_eq!(release.held(), 0);
        assert!(release.wants("15s", 0) && release.wants("2m", 0));
    }

    #[test]
    fn what_was_lost_is_forgotten() {
        let mut release = Release::new(100);
        release.arrive(arrival(&RUNGS[0], 0, 5_000, 1));
        steps(&mut release, 1);
        release.arrive(arrival(&RUNGS[3], 0, 500_000, 2));
        release.retain(|_| false);
        assert_eq!(release.held(), 0);
        assert!(release.wants("15s", 0));
    }

    proptest! {
        #[test]
        fn no_record_is_dispatched_early_and_none_is_forgotten(
            records in prop::collection::vec((0usize..11, 0i64..2_000_000), 1..60),
        ) {
            let mut release = Release::new(usize::MAX);
            let mut due = Vec::new();
            for (item, (rung, extra)) in records.into_iter().enumerate() {
                let rung = &RUNGS[rung];
                let due_ms = rung.residency.as_millis() as i64 + extra;
                due.push(due_ms);
                release.arrive(arrival(rung, 0, due_ms, item as u32));
            }
            let mut out = 0;
            let mut now = 0;
            while let Some(next) = release.next_ms(0) {
                now = now.max(next);
                for step in steps(&mut release, now) {
                    match step {
                        Step::Dispatch(item) => {
                            out += 1;
                            prop_assert!(due[item as usize] <= now);
                        }
                        Step::Move(rung, item) => {
                            prop_assert!(now + rung.residency.as_millis() as i64 <= due[item as usize]);
                            release.arrive(arrival(rung, now, due[item as usize], item));
                        }
                    }
                }
            }
            prop_assert_eq!(out, due.len());
        }
    }
}
