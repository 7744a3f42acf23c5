//! The books of one assigned partition: which received offsets are open, and what may be committed.
//!
//! It keeps promise 2: an offset is committed only when everything it caused is durable, never because something newer
//! was. It tracks what was *received* and is unfinished, not a range that it expects, so that the gaps which compaction
//! and transaction markers leave cost nothing. There is no Kafka client, clock or lock in it. A ledger is made when a
//! partition is assigned and dropped when it is revoked; a receipt of an earlier assignment never reaches it.

use std::collections::VecDeque;
use std::time::Duration;

use super::finished::Finished;
use crate::record::{NextOffset, SourceOffset};

/// What is committed of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Everything below is finished.
    pub offset: NextOffset,
    /// What is finished above it, as a note that Kafka keeps beside the offset (`finished`).
    pub note: String,
}

/// What the books make of a received offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// To be worked on.
    Fresh,
    /// An earlier owner has finished it: there is nothing to do.
    Finished,
    /// It is not above the last one: a repetition, or one that came too late and was never seen. The books cannot tell, so the caller
    /// must begin again at what is committed.
    Disordered,
}

/// What a receipt did to the books.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The lowest unfinished offset moved: there is more to commit.
    Advanced,
    /// Noted; something older is still open.
    Noted,
    /// The offset is not open here: it was settled before, or never received. Nothing changed.
    Unknown,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    offset: SourceOffset,
    received_at: Duration,
    finished: bool,
}

/// See the module's text. Times are offsets on the caller's monotonic clock.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Received and not yet committed away, in offset order; the front is always unfinished.
    entries: VecDeque<Entry>,
    open: usize,
    /// One past the last received offset; `None` before the first.
    end: Option<NextOffset>,
    committed: Option<Commit>,
    /// What the owner before has finished above its commit.
    inherited: Finished,
}

impl Ledger {
    /// Books of a partition whose group has committed `committed` (`None` when it has not).
    pub fn new(committed: Option<Commit>) -> Self {
        let inherited = committed.as_ref().map_or_else(Finished::default, |commit| {
            Finished::from_note(&commit.note, commit.offset)
        });
        Self {
            committed,
            inherited,
            ..Self::default()
        }
    }

    /// Enters a received offset. Offsets of a partition only rise.
    pub fn open(&mut self, offset: SourceOffset, now: Duration) -> Opened {
        if self.end.is_some_and(|end| offset.next() <= end) {
            return Opened::Disordered;
        }
        let finished = self.inherited.contains(offset);
        self.end = Some(offset.next());
        if finished && self.entries.is_empty() {
            return Opened::Finished;
        }
        self.entries.push_back(Entry {
            offset,
            received_at: now,
            finished,
        });
        if finished {
            return Opened::Finished;
        }
        self.open += 1;
        Opened::Fresh
    }

    /// Enters that everything this offset caused is durable.
    pub fn settle(&mut self, offset: SourceOffset) -> Settled {
        let Ok(index) = self
            .entries
            .binary_search_by_key(&offset, |entry| entry.offset)
        else {
            return Settled::Unknown;
        };
        match self.entries.get_mut(index) {
            Some(entry) if !entry.finished => entry.finished = true,
            _ => return Settled::Unknown,
        }
        self.open -= 1;
        if index > 0 {
            return Settled::Noted;
        }
        while self.entries.front().is_some_and(|entry| entry.finished) {
            self.entries.pop_front();
        }
        Settled::Advanced
    }

    /// The lowest unfinished offset, or one past the last received when nothing is open, with what is finished above it: what may be
    /// committed now. `None` while nothing was received, or when it is committed already. Planning changes nothing, so a
    /// commit that fails is planned again. Without `notes` only the offset counts, for a cluster that keeps none.
    pub fn commit_plan(&self, notes: bool) -> Option<Commit> {
        let frontier = match self.entries.front() {
            Some(entry) => NextOffset(entry.offset.0),
            None => self.end?,
        };
        let note = if notes {
            self.finished_above().to_note(frontier)
        } else {
            String::new()
        };
        let is_news = self.committed.as_ref().is_none_or(|committed| {
            frontier > committed.offset || (frontier == committed.offset && note != committed.note)
        });
        is_news.then_some(Commit {
            offset: frontier,
            note,
        })
    }

    fn finished_above(&self) -> Finished {
        let mut finished = Finished::default();
        for entry in self.entries.iter().filter(|entry| entry.finished) {
            finished.push(entry.offset);
        }
        if let Some(end) = self.end {
            finished.extend_from(&self.inherited, end);
        }
        finished
    }

    /// Enters that the broker acknowledged a commit.
    pub fn confirm_committed(&mut self, commit: Commit) {
        let is_newer = |before: &Commit| commit.offset >= before.offset;
        if self.committed.as_ref().is_none_or(is_newer) {
            self.committed = Some(commit);
        }
    }

    /// How many received offsets are unfinished.
    pub fn open_count(&self) -> usize {
        self.open
    }

    /// When the lowest unfinished offset was received.
    pub fn oldest(&self) -> Option<Duration> {
        self.entries.front().map(|entry| entry.received_at)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    const NOW: Duration = Duration::ZERO;

    /// A commit with nothing finished above it.
    fn plain(offset: i64) -> Option<Commit> {
        Some(Commit {
            offset: NextOffset(offset),
            note: String::new(),
        })
    }

    #[test]
    fn what_an_earlier_owner_finished_is_not_worked_on_again_and_stays_noted() {
        let mut first = Ledger::new(None);
        for offset in 10..20 {
            first.open(SourceOffset(offset), NOW);
        }
        for offset in [11, 12, 15, 19] {
            first.settle(SourceOffset(offset));
        }
        let left = first.commit_plan(true);
        let mut second = Ledger::new(left.clone());
        assert_eq!(second.commit_plan(true), None);
        assert_eq!(second.open(SourceOffset(10), NOW), Opened::Fresh);
        assert_eq!(second.open(SourceOffset(11), NOW), Opened::Finished);
        assert_eq!(
            second.commit_plan(true),
            None,
            "nothing is new, and what was not read yet is not forgotten"
        );
        assert_eq!(second.settle(SourceOffset(11)), Settled::Unknown);
        assert_eq!(second.open_count(), 1);
        second.settle(SourceOffset(10));
        let plan = second.commit_plan(true).unwrap();
        assert_eq!(plan.offset, NextOffset(12));
        let third = Ledger::new(Some(plan)).inherited;
        let kept: Vec<i64> = (0..30)
            .filter(|n| third.contains(SourceOffset(*n)))
            .collect();
        assert_eq!(kept, [12, 15, 19]);
        assert_eq!(second.open(SourceOffset(12), NOW), Opened::Finished);
        assert_eq!(second.commit_plan(true).unwrap().offset, NextOffset(13));
    }

    #[test]
    fn a_commit_that_only_adds_what_is_finished_is_planned_until_it_is_confirmed() {
        let mut ledger = Ledger::new(plain(5));
        for offset in 5..8 {
            ledger.open(SourceOffset(offset), NOW);
        }
        assert_eq!(ledger.commit_plan(true), None);
        ledger.settle(SourceOffset(7));
        let plan = ledger.commit_plan(true).unwrap();
        assert_eq!(plan.offset, NextOffset(5));
        ledger.confirm_committed(plan);
        assert_eq!(ledger.commit_plan(true), None);
    }

    #[test]
    fn nothing_is_committed_past_the_lowest_open_offset() {
        let mut ledger = Ledger::new(None);
        for offset in [10, 11, 14] {
            assert_eq!(ledger.open(SourceOffset(offset), NOW), Opened::Fresh);
        }
        assert_eq!(ledger.settle(SourceOffset(14)), Settled::Noted);
        assert_eq!(ledger.settle(SourceOffset(11)), Settled::Noted);
        let plan = ledger.commit_plan(true).unwrap();
        assert_eq!(plan.offset, NextOffset(10));
        let next = Ledger::new(Some(plan)).inherited;
        assert!(next.contains(SourceOffset(11)) && next.contains(SourceOffset(14)));
        assert!(
            !(12..14).any(|offset| next.contains(SourceOffset(offset))),
            "what was never received is not finished"
        );
        assert_eq!(ledger.settle(SourceOffset(10)), Settled::Advanced);
        assert_eq!(ledger.commit_plan(true), plain(15));
        assert_eq!(ledger.open_count(), 0);
    }

    #[test]
    fn a_failed_commit_is_planned_again_and_a_confirmed_one_is_not() {
        let mut ledger = Ledger::new(plain(5));
        ledger.open(SourceOffset(5), NOW);
        assert_eq!(ledger.commit_plan(true), None);
        ledger.settle(SourceOffset(5));
        assert_eq!(ledger.commit_plan(true), plain(6));
        assert_eq!(ledger.commit_plan(true), plain(6));
        ledger.confirm_committed(plain(6).unwrap());
        assert_eq!(ledger.commit_plan(true), None);
    }

    #[test]
    fn an_offset_that_is_received_twice_is_worked_on_once() {
        let mut ledger = Ledger::new(None);
        assert_eq!(ledger.open(SourceOffset(7), NOW), Opened::Fresh);
        assert_eq!(ledger.open(SourceOffset(7), NOW), Opened::Disordered);
        assert_eq!(ledger.settle(SourceOffset(7)), Settled::Advanced);
        assert_eq!(ledger.open(SourceOffset(7), NOW), Opened::Disordered);
        assert_eq!(ledger.settle(SourceOffset(7)), Settled::Unknown);
    }

    /// The naive model: every received offset with whether it is finished.
    #[derive(Default)]
    struct Model(BTreeMap<i64, bool>);

    impl Model {
        fn frontier(&self) -> Option<i64> {
            self.0
                .iter()
                .find(|(_, finished)| !**finished)
                .map(|(offset, _)| *offset)
                .or_else(|| self.0.keys().next_back().map(|last| last + 1))
        }
    }

    proptest! {
        #[test]
        fn the_books_agree_with_a_naive_model(steps in prop::collection::vec((0u8..4, 0usize..40), 1..400)) {
            let mut ledger = Ledger::new(None);
            let mut model = Model::default();
            let mut next = 100;
            for (kind, argument) in steps {
                if kind == 0 {
                    next += 1 + argument as i64 % 3;
                    prop_assert_eq!(ledger.open(SourceOffset(next), NOW), Opened::Fresh);
                    model.0.insert(next, false);
                } else if let Some((&offset, finished)) = model.0.iter_mut().nth(argument) {
                    let was = *finished;
                    *finished = true;
                    let settled = ledger.settle(SourceOffset(offset));
                    prop_assert_eq!(settled == Settled::Unknown, was);
                }
                prop_assert_eq!(ledger.commit_plan(true).map(|commit| commit.offset.0), model.frontier());
                prop_assert_eq!(ledger.open_count(), model.0.values().filter(|finished| !**finished).count());
            }
        }

        /// Owners come and go at any moment: what one has finished by its last commit is never worked on again, the rest is.
        #[test]
        fn an_offset_is_worked_on_until_an_owner_that_finished_it_has_committed(
            steps in prop::collection::vec((0u8..8, 0usize..30), 1..300),
        ) {
            let mut ledger = Ledger::new(None);
            let mut committed: Option<Commit> = None;
            let (mut finished, mut durable) = (BTreeSet::new(), BTreeSet::new());
            let mut read = 0;
            for (kind, argument) in steps {
                match kind {
                    0..=3 => {
                        let opened = ledger.open(SourceOffset(read), NOW);
                        let wanted = if durable.contains(&read) { Opened::Finished } else { Opened::Fresh };
                        prop_assert_eq!(opened, wanted);
                        read += 1;
                    }
                    4 | 5 => {
                        let offset = read - 1 - argument as i64;
                        if ledger.settle(SourceOffset(offset)) != Settled::Unknown {
                            finished.insert(offset);
                        }
                    }
                    6 => if let Some(plan) = ledger.commit_plan(true) {
                        ledger.confirm_committed(plan.clone());
                        committed = Some(plan);
                        durable.extend(finished.iter().copied());
                    },
                    _ => {
                        ledger = Ledger::new(committed.clone());
                        finished = durable.clone();
                        read = committed.as_ref().map_or(0, |commit| commit.offset.0);
                        prop_assert!((0..read).all(|offset| durable.contains(&offset)));
                    }
                }
            }
        }
    }
}
