//! What is finished beyond the frontier, as the metadata of a committed offset.
//!
//! One slow request holds its partition's frontier for as long as it takes, while everything behind it goes on. Without this, whoever
//! takes the partition over without a hand-back (kill -9, a lost session) repeats all of that; with it, what was finished since
//! the last commit. It weakens nothing of promise 2: the committed offset is the lowest unfinished one all the same, and
//! what cannot be read here is repeated. Others do the same (Confluent's parallel-consumer, `OffsetMapCodecManager`). Pure.
//!
//! Form: `1`, then pairs of numbers: how many offsets to skip, how many after them are finished. A number is written in
//! groups of five bits, the lowest first, one character of [`DIGITS`] each, with the sixth bit where another follows.

use std::ops::Range;

use crate::record::NextOffset;

/// A broker takes 4,096 bytes by default (`offset.metadata.max.bytes`).
pub(super) const LIMIT_BYTES: usize = 4000;
const VERSION: char = '1';
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const MORE: u64 = 0x20;

/// Where a partition's group stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontier {
    /// The lowest unfinished offset: what is committed.
    pub offset: NextOffset,
    /// What is finished beyond it; empty when nothing is.
    pub beyond: String,
}

/// Writes finished ranges (rising, not below `frontier`; those that touch are joined) in at most `limit` bytes. Those that do not fit are left out.
pub(super) fn write(
    frontier: NextOffset,
    finished: impl Iterator<Item = Range<i64>>,
    limit: usize,
) -> String {
    let mut text = String::new();
    let mut at = frontier.0;
    let mut finished = finished.peekable();
    while let Some(mut range) = finished.next() {
        while let Some(next) = finished.next_if(|next| next.start <= range.end) {
            range.end = range.end.max(next.end);
        }
        let mut pair = String::new();
        digits(range.start.abs_diff(at), &mut pair);
        digits(range.end.abs_diff(range.start), &mut pair);
        if 1 + text.len() + pair.len() > limit {
            break;
        }
        text.push_str(&pair);
        at = range.end;
    }
    if !text.is_empty() {
        text.insert(0, VERSION);
    }
    text
}

fn digits(mut number: u64, text: &mut String) {
    loop {
        let rest = number >> 5;
        let digit = (number & (MORE - 1)) | if rest > 0 { MORE } else { 0 };
        text.extend(
            usize::try_from(digit)
                .ok()
                .and_then(|digit| DIGITS.get(digit))
                .map(|digit| char::from(*digit)),
        );
        if rest == 0 {
            return;
        }
        number = rest;
    }
}

/// Reads what [`write`] wrote. Anything else, such as what another program put there, is nothing.
pub(super) fn read(frontier: NextOffset, text: &str) -> Vec<Range<i64>> {
    try_read(frontier, text).unwrap_or_default()
}

fn try_read(frontier: NextOffset, text: &str) -> Option<Vec<Range<i64>>> {
    let mut rest = text.strip_prefix(VERSION)?.bytes();
    let mut ranges = Vec::new();
    let mut at = frontier.0;
    while rest.len() > 0 {
        let start = at.checked_add(number(&mut rest)?)?;
        at = start.checked_add(number(&mut rest)?)?;
        ranges.push(start..at);
    }
    Some(ranges)
}

fn number(rest: &mut impl Iterator<Item = u8>) -> Option<i64> {
    let mut number = 0_u64;
    for shift in (0..60).step_by(5) {
        let character = rest.next()?;
        let digit = DIGITS.iter().position(|digit| *digit == character)? as u64;
        number |= (digit & (MORE - 1)) << shift;
        if digit & MORE == 0 {
            return i64::try_from(number).ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_does_not_fit_is_left_out_from_the_end() {
        let ranges = (0..10_000).map(|number| 10 + 2 * number..11 + 2 * number);
        let text = write(NextOffset(9), ranges, 100);
        assert_eq!(text.len(), 99);
        let read = read(NextOffset(9), &text);
        assert_eq!(read.len(), 49);
        assert_eq!((read[0].clone(), read[48].clone()), (10..11, 106..107));
    }

    #[test]
    fn what_others_put_into_a_commit_is_nothing() {
        for text in [
            "",
            "1A",
            "2AB",
            "1A B",
            "1é",
            "1______________",
            "consumer-7",
            "1f",
        ] {
            assert_eq!(read(NextOffset(5), text), [], "{text:?}");
        }
        assert_eq!(read(NextOffset(i64::MAX), "1BB"), []);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(frontier in 0..i64::MAX / 2, gaps in prop::collection::vec((1..1_i64 << 40, 1..1_i64 << 20), 0..50)) {
            let mut at = frontier;
            let ranges: Vec<_> = gaps.iter().map(|(skip, length)| {
                let start = at + skip;
                at = start + length;
                start..at
            }).collect();
            let text = write(NextOffset(frontier), ranges.iter().cloned(), LIMIT_BYTES);
            prop_assert_eq!(read(NextOffset(frontier), &text), ranges);
        }

        #[test]
        fn no_metadata_is_too_strange_to_be_read(text in "1[A-Za-z0-9_-]{0,60}", frontier in 0..i64::MAX) {
            let ranges = read(NextOffset(frontier), &text);
            prop_assert!(ranges.iter().all(|range| range.start >= frontier && range.start <= range.end));
        }
    }
}
