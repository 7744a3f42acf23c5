//! The books of one assigned partition: which received offsets are open, and what may be committed.
//!
//! It keeps promise 2: an offset is committed only when everything it caused is durable, never because something newer
//! was. It tracks what was *received* and is unfinished, not a range that it expects, so that the gaps which compaction
//! and transaction markers leave cost nothing. There is no Kafka client, clock or lock in it. A ledger is made when a
//! partition is assigned and dropped when it is revoked; a receipt of an earlier assignment never reaches it.

use std::collections::VecDeque;
use std::time::Duration;

use crate::record::{NextOffset, SourceOffset};

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
    committed: Option<NextOffset>,
}

impl Ledger {
    /// Books of a partition whose group has committed `committed` (`None` when it has not).
    pub fn new(committed: Option<NextOffset>) -> Self {
        Self {
            committed,
            ..Self::default()
        }
    }

    /// Enters a received offset. Offsets of a partition only rise. `false` is for one that does not: it may be a repetition, or one
    /// that came too late and was never seen; the books cannot tell, so the caller must begin again at what is committed.
    pub fn open(&mut self, offset: SourceOffset, now: Duration) -> bool {
        if self.end.is_some_and(|end| offset.next() <= end) {
            return false;
        }
        self.entries.push_back(Entry {
            offset,
            received_at: now,
            finished: false,
        });
        self.end = Some(offset.next());
        self.open += 1;
        true
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

    /// The lowest unfinished offset, or one past the last received when nothing is open: what may be committed now.
    /// `None` while nothing was received, or when it is committed already. Planning changes nothing, so a commit that
    /// fails is planned again.
    pub fn commit_plan(&self) -> Option<NextOffset> {
        let frontier = match self.entries.front() {
            Some(entry) => NextOffset(entry.offset.0),
            None => self.end?,
        };
        (self.committed.is_none_or(|committed| frontier > committed)).then_some(frontier)
    }

    /// Enters that the broker acknowledged a commit.
    pub fn confirm_committed(&mut self, offset: NextOffset) {
        if self.committed.is_none_or(|committed| offset > committed) {
            self.committed = Some(offset);
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
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const NOW: Duration = Duration::ZERO;

    #[test]
    fn nothing_is_committed_past_the_lowest_open_offset() {
        let mut ledger = Ledger::new(None);
        for offset in [10, 11, 14] {
            assert!(ledger.open(SourceOffset(offset), NOW));
        }
        assert_eq!(ledger.settle(SourceOffset(14)), Settled::Noted);
        assert_eq!(ledger.settle(SourceOffset(11)), Settled::Noted);
        assert_eq!(ledger.commit_plan(), Some(NextOffset(10)));
        assert_eq!(ledger.settle(SourceOffset(10)), Settled::Advanced);
        assert_eq!(ledger.commit_plan(), Some(NextOffset(15)));
        assert_eq!(ledger.open_count(), 0);
    }

    #[test]
    fn a_failed_commit_is_planned_again_and_a_confirmed_one_is_not() {
        let mut ledger = Ledger::new(Some(NextOffset(5)));
        ledger.open(SourceOffset(5), NOW);
        assert_eq!(ledger.commit_plan(), None);
        ledger.settle(SourceOffset(5));
        assert_eq!(ledger.commit_plan(), Some(NextOffset(6)));
        assert_eq!(ledger.commit_plan(), Some(NextOffset(6)));
        ledger.confirm_committed(NextOffset(6));
        assert_eq!(ledger.commit_plan(), None);
    }

    #[test]
    fn an_offset_that_is_received_twice_is_worked_on_once() {
        let mut ledger = Ledger::new(None);
        assert!(ledger.open(SourceOffset(7), NOW));
        assert!(!ledger.open(SourceOffset(7), NOW));
        assert_eq!(ledger.settle(SourceOffset(7)), Settled::Advanced);
        assert!(!ledger.open(SourceOffset(7), NOW));
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
                    prop_assert!(ledger.open(SourceOffset(next), NOW));
                    model.0.insert(next, false);
                } else if let Some((&offset, finished)) = model.0.iter_mut().nth(argument) {
                    let was = *finished;
                    *finished = true;
                    let settled = ledger.settle(SourceOffset(offset));
                    prop_assert_eq!(settled == Settled::Unknown, was);
                }
                prop_assert_eq!(ledger.commit_plan().map(|offset| offset.0), model.frontier());
                prop_assert_eq!(ledger.open_count(), model.0.values().filter(|finished| !**finished).count());
            }
        }
    }
}
