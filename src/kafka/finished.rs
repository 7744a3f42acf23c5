//! What is finished above the lowest unfinished offset, so that the next owner need not repeat it.
//!
//! A commit says "everything below is done"; what is done above it would be done again after a crash, and with many webhooks in one
//! partition that is seconds of work. It is noted in the commit's metadata (a string that Kafka keeps beside each
//! committed offset, at most `offset.metadata.max.bytes`), as Confluent's parallel-consumer does. Only offsets that were received and settled are
//! noted (promise 2); a note that cannot be read is none, which costs copies and loses nothing. Pure.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::record::{NextOffset, SourceOffset};

/// What a note begins with; another form begins otherwise.
const FORM: &str = "f1:";
/// Bytes of a note before base64. The highest runs are left out where there are more: they are repeated after a crash.
const LIMIT_BYTES: usize = 750;

/// Finished offsets, as runs `first..end` that rise and do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finished(Vec<(i64, i64)>);

impl Finished {
    /// Takes in an offset above all that are in.
    pub fn push(&mut self, offset: SourceOffset) {
        self.push_run(offset.0, offset.next().0);
    }

    fn push_run(&mut self, first: i64, end: i64) {
        match self.0.last_mut() {
            Some(last) if last.1 == first => last.1 = end,
            _ => self.0.push((first, end)),
        }
    }

    /// Whether an offset is in.
    pub fn contains(&self, offset: SourceOffset) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= offset.0);
        let run = after.checked_sub(1).and_then(|index| self.0.get(index));
        run.is_some_and(|(_, end)| offset.0 < *end)
    }

    /// Takes in what is in another one from an offset on, all of it above what is in here.
    pub fn extend_from(&mut self, other: &Self, from: NextOffset) {
        for (first, end) in &other.0 {
            if *end > from.0 {
                self.push_run(from.0.max(*first), *end);
            }
        }
    }

    /// The note beside a commit of `frontier`, which is not above anything that is in. Empty when nothing is.
    pub fn to_note(&self, frontier: NextOffset) -> String {
        let mut bytes = Vec::new();
        let mut at = frontier.0;
        for (first, end) in &self.0 {
            let before = bytes.len();
            for length in [first - at, end - first] {
                push_number(&mut bytes, length.unsigned_abs());
            }
            if bytes.len() > LIMIT_BYTES {
                bytes.truncate(before);
                break;
            }
            at = *end;
        }
        if bytes.is_empty() {
            return String::new();
        }
        format!("{FORM}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Reads the note beside a committed offset. Anything that is no note of this form says nothing.
    pub fn from_note(note: &str, frontier: NextOffset) -> Self {
        Self::read(note, frontier).unwrap_or_default()
    }

    fn read(note: &str, frontier: NextOffset) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(note.strip_prefix(FORM)?).ok()?;
        let mut bytes = bytes.iter().copied();
        let mut finished = Self::default();
        let mut at = frontier.0;
        while let Some(byte) = bytes.next() {
            let first = at.checked_add(number(byte, &mut bytes)?)?;
            let byte = bytes.next()?;
            let end = first.checked_add(number(byte, &mut bytes)?)?;
            finished.push_run(first, end);
            at = end;
        }
        Some(finished)
    }
}

/// LEB128: seven bits a byte, the lowest first; the eighth says that more follow.
fn push_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(0x80 | (number & 0x7f) as u8);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn number(first: u8, rest: &mut impl Iterator<Item = u8>) -> Option<i64> {
    let mut number = i64::from(first & 0x7f);
    let mut byte = first;
    let mut shift = 7;
    while byte & 0x80 != 0 {
        byte = rest.next()?;
        if shift > 56 {
            return None;
        }
        number |= i64::from(byte & 0x7f) << shift;
        shift += 7;
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn of(offsets: impl IntoIterator<Item = i64>) -> Finished {
        let mut finished = Finished::default();
        for offset in offsets {
            finished.push(SourceOffset(offset));
        }
        finished
    }

    #[test]
    fn nothing_finished_is_no_note_and_no_note_is_nothing_finished() {
        assert_eq!(Finished::default().to_note(NextOffset(7)), "");
        assert_eq!(Finished::from_note("", NextOffset(7)), Finished::default());
    }

    #[test]
    fn what_is_no_note_says_nothing() {
        for text in [
            "f1:",
            "f1:!",
            "f1:AQ",
            "f1:gICAgICAgICAgIAB",
            "f2:AQE",
            "by some tool",
            "f1:_____________38BAQ",
        ] {
            assert_eq!(
                Finished::from_note(text, NextOffset(7)),
                Finished::default(),
                "{text}"
            );
        }
    }

    #[test]
    fn a_note_that_would_be_too_long_keeps_the_lowest() {
        let finished = of((0..10_000).map(|n| 100 + 2 * n));
        let note = finished.to_note(NextOffset(99));
        assert!(note.len() <= 1_010, "{}", note.len());
        let read = Finished::from_note(&note, NextOffset(99));
        assert_eq!(read, of((0..LIMIT_BYTES as i64 / 2).map(|n| 100 + 2 * n)));
    }

    proptest! {
        #[test]
        fn a_note_says_what_is_finished_and_nothing_else(
            frontier in 0i64..1 << 50,
            offsets in prop::collection::btree_set(0i64..2_000, 0..300),
        ) {
            let offsets: BTreeSet<i64> = offsets.into_iter().map(|n| frontier + n).collect();
            let finished = of(offsets.iter().copied());
            let read = Finished::from_note(&finished.to_note(NextOffset(frontier)), NextOffset(frontier));
            for offset in frontier - 2..frontier + 2_002 {
                prop_assert_eq!(read.contains(SourceOffset(offset)), offsets.contains(&offset));
            }
        }

        #[test]
        fn no_text_is_a_panic(text in ".{0,40}", bytes in prop::collection::vec(any::<u8>(), 0..40), frontier: i64) {
            Finished::from_note(&text, NextOffset(frontier));
            Finished::from_note(&format!("{FORM}{}", URL_SAFE_NO_PAD.encode(bytes)), NextOffset(frontier));
        }

        #[test]
        fn what_is_taken_over_begins_where_it_is_told(
            offsets in prop::collection::btree_set(0i64..100, 0..50),
            from in 0i64..100,
        ) {
            let mut over = Finished::default();
            over.extend_from(&of(offsets.iter().copied()), NextOffset(from));
            for offset in 0..100 {
                prop_assert_eq!(over.contains(SourceOffset(offset)), offset >= from && offsets.contains(&offset));
            }
        }
    }
}
