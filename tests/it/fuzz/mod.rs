//! What reads bytes that others wrote, given bytes that nobody would write: events, filters and the headers of our own records. Nothing
//! of it may panic or hang, and what is read must mean the same when it is read again (promises 1 and 3).
//!
//! Seeds from `corpus/` are mutated at random for `FUZZ_SECONDS` each (a second in `make test`, minutes in `make fuzz`); `FUZZ_SEED`
//! repeats a run. An input that fails is kept in `corpus/`, and is the first of the next run.
//!
//! Not cargo-fuzz: its coverage needs a second build of everything, librdkafka too, with a nightly compiler. Tokens of each
//! language (`TOKENS`) take the place of what coverage would find.

mod mutation;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use postrider::delivery::Delivery;
use postrider::intake::decode::{Decoded, Reading, decode};
use postrider::matching::filter::{Filter, OPERATORS};
use postrider::record::{Header, Outgoing, Record, SourceOffset};
use postrider::retry::dead_letter::DeadLetter;
use serde_json::Value;

use mutation::Mutator;

/// An input that takes longer hangs a router.
const LONGEST: Duration = Duration::from_secs(2);

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Gives `check` the seeds and then mutations of them; the answer of `check` is whether it got past the first refusal.
fn fuzz(target: &str, tokens: &[&'static str], check: impl Fn(&[u8]) -> bool) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/fuzz/corpus")
        .join(target);
    let mut names: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    let mut pool: Vec<Vec<u8>> = names
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect();
    assert!(pool.len() >= 4, "{} has no seeds", folder.display());
    let seed = variable("FUZZ_SEED").unwrap_or_else(|| {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap();
        u64::try_from(now.as_micros()).unwrap()
    });
    let mut mutator = Mutator::new(seed, tokens);
    let until = Instant::now() + Duration::from_secs(variable("FUZZ_SECONDS").unwrap_or(1));
    let (mut runs, mut taken) = (0_u64, 0_u64);
    let seeds = pool.len();
    let mut run = |input: &[u8]| {
        let began = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| check(input)));
        let fault = match &outcome {
            Err(_) => "broke a promise",
            Ok(_) if began.elapsed() > LONGEST => "took too long",
            Ok(_) => "",
        };
        if !fault.is_empty() {
            let path = folder.join(format!("found-{seed}-{runs}"));
            std::fs::write(&path, input).unwrap();
            panic!(
                "{target}: an input {fault} (FUZZ_SEED={seed}); it is kept in {}",
                path.display()
            );
        }
        runs += 1;
        let was_taken = matches!(outcome, Ok(true));
        taken += u64::from(was_taken);
        was_taken
    };
    for input in &pool {
        run(input);
    }
    while Instant::now() < until {
        let input = mutator.mutated(&pool);
        // What is still well-formed leads further than what is not.
        if run(&input) && input.len() < 16_384 {
            if pool.len() < 512 {
                pool.push(input);
            } else {
                let place = seeds + mutator.below(pool.len() - seeds);
                pool[place] = input;
            }
        }
    }
    eprintln!("{target}: {runs} inputs, {taken} of them well-formed, FUZZ_SEED={seed}");
    assert!(taken > 0, "no input was well-formed, so nothing was shown");
}

/// Lines `name: value` (no colon: a header without a value), an empty line, and the value; without that line a tombstone.
fn record_of(input: &[u8]) -> Record {
    let end = input.windows(2).position(|two| two == b"\n\n");
    let (head, payload) = match end {
        Some(end) => (
            &input[..end],
            Some(Bytes::copy_from_slice(&input[end + 2..])),
        ),
        None => (input, None),
    };
    let header = |line: &[u8]| {
        let colon = line.windows(2).position(|two| two == b": ");
        let (name, value) = match colon {
            Some(colon) => (
                &line[..colon],
                Some(Bytes::copy_from_slice(&line[colon + 2..])),
            ),
            None => (line, None),
        };
        let name = String::from_utf8_lossy(name).into_owned();
        Header {
            name: name.into(),
            value,
        }
    };
    let lines = head.split(|byte| *byte == b'\n');
    Record {
        topic: "events.job".into(),
        partition: 3,
        offset: SourceOffset(7),
        timestamp_ms: Some(1),
        key: Some(Bytes::from_static(b"k")),
        payload,
        headers: lines.filter(|line| !line.is_empty()).map(header).collect(),
    }
}

fn read_back(written: Outgoing) -> Record {
    Record {
        topic: written.topic,
        partition: 0,
        offset: SourceOffset(0),
        timestamp_ms: Some(2),
        key: written.key,
        payload: written.payload,
        headers: written.headers,
    }
}

#[test]
fn every_record_is_an_event_a_tombstone_or_refused_with_a_reason() {
    const TOKENS: &[&str] = &[
        "event_type",
        "type",
        "event",
        "ce_type",
        "ce_id",
        "ce_source",
        "ce_specversion: 1.0",
        "content-type",
        "application/cloudevents+json",
        "\"specversion\":\"1.0\"",
        "data",
        "data_base64",
        "customer",
        "event_timestamp",
        "time",
        "null",
        "true",
        "1e999",
        "-0",
        "\"\"",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\\u0000",
        "\\ud800",
        "\n\n",
        ": ",
        "18446744073709551616",
        "\"webhook\":",
        "job.failed",
        "2026-01-01T00:00:00Z",
    ];
    let reading = Reading {
        customer_pointer: "/customer".to_owned(),
        inline_webhooks: true,
    };
    fuzz("event", TOKENS, |input| {
        let mut record = record_of(input);
        let decoded = decode(&mut record, &reading);
        assert_eq!(
            decoded,
            decode(&mut record_of(input), &reading),
            "it is read twice in two ways"
        );
        match decoded {
            Decoded::Tombstone => {
                assert!(record.payload.is_none());
                false
            }
            Decoded::Undecodable(reason) => {
                assert!(!reason.is_empty() && reason.len() < 2_000, "{reason}");
                false
            }
            Decoded::Event(event) => {
                assert!(!event.event_type.is_empty());
                assert_eq!(event.body.get("webhook"), None);
                true
            }
        }
    });
}

#[test]
fn every_filter_is_read_or_refused_with_a_place_and_its_explanation_agrees_with_its_answer() {
    const TOKENS: &[&str] = &[
        "$regex",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "null",
        "true",
        "1",
        "-1.5",
        "1e308",
        "\"job\"",
        "\"status\"",
        "\"failed\"",
        "\"tags\"",
        "{\"$not\":",
        "{\"$and\":[",
        "{\"a\":{\"b\":",
        "[[",
        "]]",
        "}}",
    ];
    let tokens = [&OPERATORS, TOKENS].concat();
    let events: Vec<Value> = [
        r#"{"job": {"id": 5, "status": "failed", "tags": ["a", "b"], "steps": [{"n": 1}, {"n": 2}]}, "a": null}"#,
        r#"{"a": {"b": [[1], [], {"c": 1.5}]}, "tags": [], "job": "text"}"#,
        r#"[1, "failed", {"job": 1}]"#,
        "null",
    ]
    .iter()
    .map(|text| serde_json::from_str(text).unwrap())
    .collect();
    fuzz("filter", &tokens, |input| {
        let Ok(source) = serde_json::from_slice::<Value>(input) else {
            return false;
        };
        match Filter::parse(&source) {
            Err(errors) => {
                assert!(!errors.is_empty());
                for error in errors {
                    assert!(error.message.len() < 1_000, "{error}");
                }
                false
            }
            Ok(filter) => {
                for event in &events {
                    assert_eq!(
                        filter.matches(event),
                        filter.explain(event).is_match(),
                        "{event}"
                    );
                }
                true
            }
        }
    });
}

#[test]
fn headers_that_are_read_as_a_delivery_are_written_the_same_and_no_headers_break_a_reader() {
    const TOKENS: &[&str] = &[
        "postrider-delivery-id: ",
        "postrider-webhook-id: wh_a",
        "postrider-event-type: ",
        "postrider-attempt: ",
        "postrider-due: ",
        "postrider-reason: ",
        "postrider-last-status: ",
        "postrider-first-attempt-at: ",
        "postrider-replay-id: ",
        "postrider-replay-count: ",
        "postrider-source: ",
        "postrider-source-key: ",
        "postrider-source-timestamp: ",
        "postrider-created-at: ",
        "postrider-url: ",
        "__dlq.errors.topic: ",
        "__dlq.errors.offset: ",
        "__dlq.errors.delivery.count: ",
        "__connect.errors.topic: ",
        "kafka_dlt-original-offset: ",
        "a/1/2",
        "-1",
        "9223372036854775807",
        "4294967296",
        "\n",
        "\n\n",
        ": ",
        "exhausted",
        "retry",
        "traceparent: 00-",
    ];
    let topic: Arc<str> = "postrider.dispatch".into();
    fuzz("headers", TOKENS, |input| {
        let record = record_of(input);
        let letter = DeadLetter::from_record(record.clone());
        let replay = letter.to_replay("rpl_1", Some("https://example.com/"), 5);
        assert_eq!(replay.is_some(), letter.is_replayable());
        let Ok(delivery) = Delivery::from_record(&record) else {
            assert!(replay.is_none());
            return false;
        };
        for delivery in std::iter::once(delivery).chain(replay) {
            for keyed_by_webhook in [true, false] {
                let again = read_back(delivery.to_record(&topic, keyed_by_webhook));
                assert_eq!(Delivery::from_record(&again).unwrap(), delivery);
            }
        }
        true
    });
}
