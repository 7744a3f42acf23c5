//! The books of one assigned partition: which received offsets are open, and what may be committed.
//!
//! It keeps promise 2: an offset is committed only when everything it caused is durable, never because something newer
//! was. It tracks what was *received* and is unfinished, not a range that it expects, so that the gaps which compaction
//! and transaction markers leave cost nothing. There is no Kafka client, clock or lock in it. A ledger is made when a
//! partition is assigned and dropped when it is revoked; a receipt of an earlier assignment never reaches it.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use super::beyond::{self, Frontier};
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

/// What a received offset is to the books.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// It is to be worked on.
    New,
    /// An earlier owner finished it, and said so in its commit: there is nothing to do.
    Finished,
    /// Not above the last one. It may be a repetition, or one that came too late and was never seen; the books cannot tell,
    /// so the caller must begin again at what is committed.
    Disordered,
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
    committed: Option<Frontier>,
    /// Finished by earlier owners and not received yet, rising.
    inherited: VecDeque<Range<i64>>,
}

impl Ledger {
    /// Books of a partition whose group has committed `committed` (`None` when it has not).
    pub fn new(committed: Option<Frontier>) -> Self {
        let inherited = committed
            .as_ref()
            .map(|frontier| beyond::read(frontier.offset, &frontier.beyond).into())
            .unwrap_or_default();
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
        self.end = Some(offset.next());
        let finished = self.inherits(offset);
        // The front is always unfinished.
        if !finished || !self.entries.is_empty() {
            self.entries.push_back(Entry {
                offset,
                received_at: now,
                finished,
            });
        }
        if finished {
            return Opened::Finished;
        }
        self.open += 1;
        Opened::New
    }

    fn inherits(&mut self, offset: SourceOffset) -> bool {
        while self
            .inherited
            .front()
            .is_some_and(|range| range.end <= offset.0)
        {
            self.inherited.pop_front();
        }
        self.inherited
            .front()
            .is_some_and(|range| range.contains(&offset.0))
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

    /// The lowest unfinished offset, or one past the last received when nothing is open: what may be committed now, with what is
    /// finished beyond it in at most `limit` bytes. `None` while nothing was received, or when it is committed already.
    /// Planning changes nothing, so a commit that fails is planned again.
    pub fn commit_plan(&self, limit: usize) -> Option<Frontier> {
        let offset = match self.entries.front() {
            Some(entry) => NextOffset(entry.offset.0),
            None => self.end?,
        };
        let frontier = Frontier {
            offset,
            beyond: beyond::write(offset, self.finished(), limit),
        };
        let is_news = self.committed.as_ref().is_none_or(|committed| {
            offset > committed.offset
                || (offset == committed.offset && frontier.beyond != committed.beyond)
        });
        is_news.then_some(frontier)
    }

    /// The ranges that are finished beyond the frontier. Between two neighbours that were received there is nothing to receive.
    fn finished(&self) -> impl Iterator<Item = Range<i64>> {
        let mut entries = self.entries.iter().peekable();
        let received = std::iter::from_fn(move || {
            let first = entries.by_ref().find(|entry| entry.finished)?;
            let mut last = first;
            while let Some(next) = entries.next_if(|entry| entry.finished) {
                last = next;
            }
            Some(first.offset.0..last.offset.next().0)
        });
        let end = self.end.map_or(i64::MIN, |end| end.0);
        let inherited = self
            .inherited
            .iter()
            .map(move |range| range.start.max(end)..range.end)
            .filter(|range| !range.is_empty());
        received.chain(inherited)
    }

    /// Enters that the broker acknowledged a commit.
    pub fn confirm_committed(&mut self, frontier: Frontier) {
        let is_newer = |committed: &Frontier| frontier.offset >= committed.offset;
        if self.committed.as_ref().is_none_or(is_newer) {
            self.committed = Some(frontier);
        }
    }

    /// How far the partition was read, by this owner or those before it.
    pub fn reached(&self) -> Option<NextOffset> {
        self.end
            .or(self.committed.as_ref().map(|committed| committed.offset))
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

    fn planned(ledger: &Ledger) -> Option<i64> {
        ledger.commit_plan(0).map(|frontier| frontier.offset.0)
    }

    fn at(offset: i64) -> Frontier {
        Frontier {
            offset: NextOffset(offset),
            beyond: String::new(),
        }
    }

    #[test]
    fn nothing_is_committed_past_the_lowest_open_offset() {
        let mut ledger = Ledger::new(None);
        for offset in [10, 11, 14] {
            assert_eq!(ledger.open(SourceOffset(offset), NOW), Opened::New);
        }
        assert_eq!(ledger.settle(SourceOffset(14)), Settled::Noted);
        assert_eq!(ledger.settle(SourceOffset(11)), Settled::Noted);
        assert_eq!(planned(&ledger), Some(10));
        assert_eq!(ledger.settle(SourceOffset(10)), Settled::Advanced);
        assert_eq!(planned(&ledger), Some(15));
        assert_eq!(ledger.open_count(), 0);
    }

    #[test]
    fn a_failed_commit_is_planned_again_and_a_confirmed_one_is_not() {
        let mut ledger = Ledger::new(Some(at(5)));
        ledger.open(SourceOffset(5), NOW);
        assert_eq!(planned(&ledger), None);
        ledger.settle(SourceOffset(5));
        assert_eq!(planned(&ledger), Some(6));
        assert_eq!(planned(&ledger), Some(6));
        ledger.confirm_committed(at(6));
        assert_eq!(planned(&ledger), None);
    }

    #[test]
    fn an_offset_that_is_received_twice_is_worked_on_once() {
        let mut ledger = Ledger::new(None);
        assert_eq!(ledger.open(SourceOffset(7), NOW), Opened::New);
        assert_eq!(ledger.open(SourceOffset(7), NOW), Opened::Disordered);
        assert_eq!(ledger.settle(SourceOffset(7)), Settled::Advanced);
        assert_eq!(ledger.open(SourceOffset(7), NOW), Opened::Disordered);
        assert_eq!(ledger.settle(SourceOffset(7)), Settled::Unknown);
    }

    #[test]
    fn what_an_owner_finished_beyond_its_frontier_is_not_repeated_by_any_later_one() {
        let mut first = Ledger::new(Some(at(5)));
        for offset in [5, 6, 7, 9, 10, 11] {
            first.open(SourceOffset(offset), NOW);
        }
        for offset in [6, 7, 9, 11] {
            first.settle(SourceOffset(offset));
        }
        let left = first.commit_plan(100).unwrap();
        assert_eq!(left.offset, NextOffset(5));
        first.confirm_committed(left.clone());
        assert_eq!(first.commit_plan(100), None);

        let mut second = Ledger::new(Some(left.clone()));
        assert_eq!(second.open(SourceOffset(5), NOW), Opened::New);
        assert_eq!(second.open(SourceOffset(6), NOW), Opened::Finished);
        assert_eq!(
            second.commit_plan(100),
            None,
            "what was not received is kept"
        );

        let mut third = Ledger::new(Some(left));
        let seen: Vec<Opened> = [5, 6, 7, 9, 10, 11, 12]
            .map(|offset| third.open(SourceOffset(offset), NOW))
            .into();
        use Opened::{Finished, New};
        assert_eq!(
            seen,
            [New, Finished, Finished, Finished, New, Finished, New]
        );
        assert_eq!(third.open_count(), 3);
        third.settle(SourceOffset(5));
        assert_eq!(planned(&third), Some(10));
        third.settle(SourceOffset(10));
        assert_eq!(planned(&third), Some(12));
    }

    #[test]
    fn an_inheritance_that_is_received_first_moves_the_frontier() {
        let mut ledger = Ledger::new(Some(Frontier {
            offset: NextOffset(5),
            beyond: beyond::write(NextOffset(5), std::iter::once(6..8), 100),
        }));
        // Retention has taken 5.
        assert_eq!(ledger.open(SourceOffset(6), NOW), Opened::Finished);
        assert_eq!(planned(&ledger), Some(7));
        assert_eq!(ledger.open(SourceOffset(7), NOW), Opened::Finished);
        assert_eq!(planned(&ledger), Some(8));
        assert_eq!(ledger.open_count(), 0);
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
                    prop_assert_eq!(ledger.open(SourceOffset(next), NOW), Opened::New);
                    model.0.insert(next, false);
                } else if let Some((&offset, finished)) = model.0.iter_mut().nth(argument) {
                    let was = *finished;
                    *finished = true;
                    let settled = ledger.settle(SourceOffset(offset));
                    prop_assert_eq!(settled == Settled::Unknown, was);
                }
                prop_assert_eq!(planned(&ledger), model.frontier());
                prop_assert_eq!(ledger.open_count(), model.0.values().filter(|finished| !**finished).count());
            }
        }
    }
}
