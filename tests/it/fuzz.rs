//! What reads bytes that others wrote, given bytes that nobody would write: events, filters and the headers of our own records.
//!
//! Here the seeds of `tests/fuzz/corpus` are changed at random, and a failure is made small; `make fuzz` has cargo-fuzz look for hours,
//! guided by coverage, with the same checks.

#[path = "../fuzz/checks.rs"]
mod checks;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use postrider::matching::filter::OPERATORS;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRunner};

const CASES: u32 = 20_000;
/// An input that takes longer hangs a router.
const LONGEST: Duration = Duration::from_secs(2);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(folder().join("corpus").join(target)).unwrap();
    let seeds: Vec<Vec<u8>> = entries
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
        .collect();
    assert!(seeds.len() >= 4, "{target} has no seeds");
    seeds
}

/// The words of a language, in libFuzzer's form: <https://llvm.org/docs/LibFuzzer.html#dictionaries>.
fn dictionary(target: &str) -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(folder().join("dictionaries").join(target)).unwrap();
    let word = |line: &str| {
        let quoted = line.strip_prefix('"').unwrap().strip_suffix('"').unwrap();
        let text = quoted.replace("\\x0A", "\n").replace("\\\"", "\"");
        text.replace("\\\\", "\\").into_bytes()
    };
    text.lines().map(word).collect()
}

/// A change of an input.
#[derive(Clone, Debug)]
enum Change {
    Put(Vec<u8>),
    Replace(u8),
    Remove(usize),
    /// Deep nesting and long runs.
    Repeat(usize, usize),
    End,
}

impl Change {
    fn make(&self, input: &mut Vec<u8>, at: usize) {
        let piece = |length: usize| at..input.len().min(at + length);
        match self {
            Self::Put(word) => drop(input.splice(at..at, word.iter().copied())),
            Self::Replace(byte) => drop(input.splice(piece(1), [*byte])),
            Self::Remove(length) => drop(input.drain(piece(*length))),
            Self::Repeat(length, times) => {
                let repeated = input[piece(*length)].repeat(*times);
                drop(input.splice(at..at, repeated));
            }
            Self::End => input.truncate(at),
        }
    }
}

fn inputs(target: &str) -> impl Strategy<Value = Vec<u8>> {
    let words = [
        dictionary(target),
        seeds(target),
        [
            "0",
            "-1",
            "255",
            "65536",
            "2147483648",
            "9223372036854775808",
            "1e400",
            "0.1",
        ]
        .map(Vec::from)
        .to_vec(),
    ]
    .concat();
    let change = prop_oneof![
        4 => select(words).prop_map(Change::Put),
        2 => any::<u8>().prop_map(Change::Replace),
        2 => (1..64_usize).prop_map(Change::Remove),
        1 => (1..64_usize, 1..512_usize).prop_map(|(length, times)| Change::Repeat(length, times)),
        1 => Just(Change::End),
    ];
    let changes = prop::collection::vec((any::<Index>(), change), 0..8);
    (select(seeds(target)), changes).prop_map(|(mut input, changes)| {
        for (place, change) in changes {
            let at = place.index(input.len() + 1);
            change.make(&mut input, at);
        }
        input
    })
}

fn hold(target: &str, check: fn(&[u8]) -> bool) {
    let well_formed = Cell::new(0);
    let holds = |input: &[u8]| {
        let began = Instant::now();
        well_formed.set(well_formed.get() + u32::from(check(input)));
        assert!(began.elapsed() < LONGEST, "it took {:?}", began.elapsed());
    };
    seeds(target).iter().for_each(|seed| holds(seed));
    let config = Config {
        failure_persistence: None,
        ..Config::with_cases(CASES)
    };
    let found = TestRunner::new(config).run(&inputs(target), |input| {
        holds(&input);
        Ok(())
    });
    found.unwrap_or_else(|fault| panic!("{target}: {fault}"));
    let well_formed = well_formed.get();
    assert!(
        (CASES / 100..CASES).contains(&well_formed),
        "{well_formed} of the inputs were well-formed"
    );
}

#[test]
fn every_record_is_an_event_a_tombstone_or_refused_with_a_reason() {
    hold("event", checks::event);
}

#[test]
fn every_filter_is_read_or_refused_with_a_place_and_its_explanation_agrees_with_its_answer() {
    let words = dictionary("filter");
    for operator in OPERATORS {
        assert!(words.contains(&operator.into()), "{operator}");
    }
    hold("filter", checks::filter);
}

#[test]
fn headers_that_are_read_as_a_delivery_are_written_the_same_and_no_headers_break_a_reader() {
    hold("headers", checks::headers);
}
