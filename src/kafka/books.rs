//! The ledgers of everything that one consumer has been assigned, and the commits that follow from them.
//!
//! Created on assign, dropped on revoke: a settlement of an earlier assignment (an older epoch) finds no ledger here and
//! is ignored, which is the bug class that lost records in several products of this field (design.md, "Bookkeeping").

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use super::ledger::{Commit, Ledger, Opened, Settled};
use super::receipt::{Assignment, Heartbeat, Receipt, Settlement};
use crate::record::SourceOffset;

/// A topic and a partition.
pub(super) type Place = (Arc<str>, i32);

struct Page {
    assignment: Arc<Assignment>,
    ledger: Ledger,
}

/// What a stage's books say as a whole, for metrics and the watchdog.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BookSummary {
    /// Received and unfinished records.
    pub open: usize,
    /// Age of the lowest unfinished record of any partition.
    pub oldest: Duration,
    /// Assigned partitions.
    pub partitions: usize,
}

pub(super) struct Books {
    pages: HashMap<Place, Page>,
    places: HashMap<u64, Place>,
    /// Topic names, shared by all their records.
    topics: HashSet<Arc<str>>,
    next_epoch: u64,
    disordered: bool,
    heartbeat: Arc<Heartbeat>,
    back: Sender<Settlement>,
}

impl Books {
    pub(super) fn new(heartbeat: Arc<Heartbeat>, back: Sender<Settlement>) -> Self {
        Self {
            pages: HashMap::new(),
            places: HashMap::new(),
            topics: HashSet::new(),
            next_epoch: 1,
            disordered: false,
            heartbeat,
            back,
        }
    }

    pub(super) fn assign(&mut self, place: Place, committed: Option<Commit>) {
        self.revoke(&place);
        let epoch = self.next_epoch;
        self.next_epoch += 1;
        let assignment = Assignment::new(
            epoch,
            Arc::clone(&place.0),
            place.1,
            Arc::clone(&self.heartbeat),
        );
        self.topics.insert(Arc::clone(&place.0));
        self.places.insert(epoch, place.clone());
        self.pages.insert(
            place,
            Page {
                assignment,
                ledger: Ledger::new(committed),
            },
        );
    }

    /// Says that no work may begin any more; receipts are still taken until [`Books::revoke`].
    pub(super) fn hand_back(&mut self, place: &Place) {
        if let Some(page) = self.pages.get(place) {
            page.assignment.hand_back();
        }
    }

    pub(super) fn close_all(&mut self) {
        for page in self.pages.values() {
            page.assignment.end();
        }
    }

    pub(super) fn revoke(&mut self, place: &Place) {
        if let Some(page) = self.pages.remove(place) {
            page.assignment.end();
            self.places.remove(&page.assignment.epoch);
        }
    }

    pub(super) fn revoke_all(&mut self) {
        self.close_all();
        self.pages.clear();
        self.places.clear();
    }

    /// Enters a received record. `None` when there is nothing to do: the partition is not assigned, or an earlier owner has finished the record,
    /// or its offset is not above the last one; then [`Books::is_disordered`] holds from here on.
    pub(super) fn open(
        &mut self,
        topic: &str,
        partition: i32,
        offset: SourceOffset,
        now: Duration,
    ) -> Option<(Receipt, Arc<str>)> {
        let place = (Arc::clone(self.topics.get(topic)?), partition);
        let page = self.pages.get_mut(&place)?;
        match page.ledger.open(offset, now) {
            Opened::Fresh => {}
            Opened::Finished => return None,
            Opened::Disordered => {
                self.disordered = true;
                return None;
            }
        }
        let receipt = Receipt::new(&page.assignment, offset, &self.back);
        Some((receipt, place.0))
    }

    /// Whether a record came whose offset was not above the last one of its partition. It may be a repetition, or one that was never
    /// seen and that the frontier has passed: only beginning again at what is committed is sure to lose nothing.
    pub(super) fn is_disordered(&self) -> bool {
        self.disordered
    }

    pub(super) fn settle(&mut self, settlement: Settlement) -> Settled {
        let page = self
            .places
            .get(&settlement.epoch)
            .and_then(|place| self.pages.get_mut(place));
        match page {
            Some(page) => page.ledger.settle(settlement.offset),
            None => Settled::Unknown,
        }
    }

    pub(super) fn commit_plan(&self, notes: bool) -> Vec<(Place, Commit)> {
        self.pages
            .iter()
            .filter_map(|(place, page)| Some((place.clone(), page.ledger.commit_plan(notes)?)))
            .collect()
    }

    pub(super) fn confirm_committed(&mut self, place: &Place, commit: Commit) {
        if let Some(page) = self.pages.get_mut(place) {
            page.ledger.confirm_committed(commit);
        }
    }

    /// Receipts of these assignments that are still in somebody's hands.
    pub(super) fn outstanding(&self) -> usize {
        self.pages
            .values()
            .map(|page| page.assignment.outstanding())
            .sum()
    }

    /// The record that has been open for longest beyond what its topic may have, and for how long.
    pub(super) fn overdue(
        &self,
        now: Duration,
        longest_open: impl Fn(&str) -> Duration,
    ) -> Option<(&Place, Duration)> {
        let open = self.pages.iter().filter_map(|(place, page)| {
            let age = now.saturating_sub(page.ledger.oldest()?);
            (age > longest_open(&place.0)).then_some((place, age))
        });
        open.max_by_key(|(_, age)| *age)
    }

    pub(super) fn summary(&self, now: Duration) -> BookSummary {
        BookSummary {
            open: self
                .pages
                .values()
                .map(|page| page.ledger.open_count())
                .sum(),
            oldest: self
                .pages
                .values()
                .filter_map(|page| page.ledger.oldest())
                .min()
                .map_or(Duration::ZERO, |oldest| now.saturating_sub(oldest)),
            partitions: self.pages.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn plain(offset: i64) -> Commit {
        Commit {
            offset: crate::record::NextOffset(offset),
            note: String::new(),
        }
    }

    #[test]
    fn a_record_is_overdue_when_it_is_open_for_longer_than_its_topic_lets_it() {
        let (back, _settlements) = mpsc::channel();
        let heartbeat = Arc::new(Heartbeat::new(Duration::from_secs(10)));
        let mut books = Books::new(heartbeat, back);
        let seconds = Duration::from_secs;
        let mut receipts = Vec::new();
        for (topic, at) in [("slow", 0), ("quick", 50)] {
            books.assign((topic.into(), 0), None);
            receipts.push(books.open(topic, 0, SourceOffset(5), seconds(at)).unwrap());
        }
        let longest = |topic: &str| seconds(if topic == "slow" { 300 } else { 60 });
        assert_eq!(books.overdue(seconds(110), longest), None);
        let (place, age) = books.overdue(seconds(111), longest).unwrap();
        assert_eq!((&*place.0, age), ("quick", seconds(61)));
        let (place, age) = books.overdue(seconds(301), longest).unwrap();
        assert_eq!((&*place.0, age), ("slow", seconds(301)));
    }

    #[test]
    fn a_late_receipt_after_revoke_is_ignored() {
        let (back, settlements) = mpsc::channel();
        let heartbeat = Arc::new(Heartbeat::new(Duration::from_secs(10)));
        let mut books = Books::new(heartbeat, back);
        let place: Place = ("t".into(), 0);

        books.assign(place.clone(), None);
        let (old, _) = books.open("t", 0, SourceOffset(5), Duration::ZERO).unwrap();
        books.revoke(&place);
        books.assign(place.clone(), None);
        let (new, _) = books.open("t", 0, SourceOffset(5), Duration::ZERO).unwrap();

        old.settle();
        assert_eq!(books.settle(settlements.recv().unwrap()), Settled::Unknown);
        assert_eq!(books.commit_plan(true), vec![(place.clone(), plain(5))]);
        new.settle();
        assert_eq!(books.settle(settlements.recv().unwrap()), Settled::Advanced);
        assert_eq!(books.commit_plan(true), vec![(place, plain(6))]);
    }
}
