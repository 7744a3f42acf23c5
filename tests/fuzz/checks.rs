//! What may be asked of any bytes that others wrote: nothing of it may panic or hang, and what is read must mean the same when it is read
//! again (promises 1 and 3). Each answers whether the input got past the first refusal.
//!
//! The targets of cargo-fuzz (beside this) and `tests/it/fuzz.rs` share them.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use postrider::delivery::Delivery;
use postrider::intake::decode::{Decoded, Reading, decode};
use postrider::matching::filter::Filter;
use postrider::record::{Header, Outgoing, Record, SourceOffset};
use postrider::retry::dead_letter::DeadLetter;
use serde_json::Value;

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

/// Every record is an event, a tombstone, or refused with a reason.
pub fn event(input: &[u8]) -> bool {
    let reading = Reading {
        customer_pointer: "/customer".to_owned(),
        inline_webhooks: true,
    };
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
}

static EVENTS: LazyLock<Vec<Value>> = LazyLock::new(|| {
    [
        r#"{"job": {"id": 5, "status": "failed", "tags": ["a", "b"], "steps": [{"n": 1}, {"n": 2}]}, "a": null}"#,
        r#"{"a": {"b": [[1], [], {"c": 1.5}]}, "tags": [], "job": "text"}"#,
        r#"[1, "failed", {"job": 1}]"#,
        "null",
    ]
    .iter()
    .map(|text| serde_json::from_str(text).expect("JSON"))
    .collect()
});

/// Every filter is read, or refused with a place; its explanation agrees with its answer.
pub fn filter(input: &[u8]) -> bool {
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
            for event in &*EVENTS {
                assert_eq!(
                    filter.matches(event),
                    filter.explain(event).is_match(),
                    "{event}"
                );
            }
            true
        }
    }
}

/// Headers that are read as a delivery are written the same, and no headers break a reader.
pub fn headers(input: &[u8]) -> bool {
    let topic: Arc<str> = "postrider.dispatch".into();
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
            assert_eq!(Delivery::from_record(&again).expect("its own"), delivery);
        }
    }
    true
}
