//! Record → event: the webnet shape, any JSON object with a type, and CloudEvents 1.0 in both Kafka content modes
//! (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md>).
//!
//! Promise 1: a record that cannot be read is not skipped. It is answered with a reason, and the caller dead-letters its bytes.

use serde_json::Value;

use super::inline;
use crate::event::Event;
use crate::json;
use crate::record::{Record, header_text};
use crate::subscription::Customer;

const TYPE_BYTES: usize = 256;
const CUSTOMER_BYTES: usize = 256;

/// What a source record turned out to be.
#[derive(Debug, PartialEq)]
pub enum Decoded {
    Event(Event),
    /// No value: nothing to deliver; counted and skipped.
    Tombstone,
    /// Not an event, and why, in words for whoever wrote it.
    Undecodable(String),
}

/// How the records of the source topics are read: the same for all who read them, so that nobody sees more than another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// JSON pointer (RFC 6901) of the tenant; in a structured CloudEvent it is looked up in the whole first and then in `data`. Empty:
    /// events have none.
    pub customer_pointer: String,
    /// Whether events may carry a webhook for themselves.
    pub inline_webhooks: bool,
}

/// Reads a record. A webhook that its event carries for itself is taken out of the record, so that whatever is made of it afterwards does
/// not have it; of a value that is no JSON nothing is taken.
pub fn decode(record: &mut Record, reading: &Reading) -> Decoded {
    let Some(payload) = record.payload.clone() else {
        return Decoded::Tombstone;
    };
    match event(record, &payload, reading) {
        Ok(event) => Decoded::Event(event),
        Err(reason) => Decoded::Undecodable(reason),
    }
}

fn event(record: &mut Record, payload: &[u8], reading: &Reading) -> Result<Event, String> {
    let customer_pointer = reading.customer_pointer.as_str();
    if payload.is_empty() {
        return Err("the value is empty; write a JSON object".to_owned());
    }
    let mut parsed = json::parse(payload);
    let mut inline = None;
    // What is refused for a key that stands twice may have one too.
    if reading.inline_webhooks
        && parsed.as_ref().map_or(true, inline::is_in)
        && let Some(cut) = inline::cut(payload)
    {
        parsed = json::parse(cut.rest.as_bytes());
        let webhook = cut.webhook();
        record.payload = Some(cut.rest.into());
        inline = webhook?;
    }
    let body = parsed.map_err(|error| format!("the value is not JSON: {error}"))?;
    let header_type = header_text(&record.headers, "ce_type");
    if header_type.is_none() && !body.is_object() {
        return Err("the value is not a JSON object".to_owned());
    }
    let event_type = checked_type(find_type(&body, header_type)?)?;
    for name in ["event_timestamp", "timestamp", "time"] {
        match body.get(name) {
            None | Some(Value::Null | Value::String(_) | Value::Number(_)) => {}
            Some(_) => return Err(format!("/{name} is neither text nor a number")),
        }
    }
    // The empty pointer means the whole document, which is no tenant: it says that events have none.
    let found = if customer_pointer.is_empty() {
        None
    } else {
        body.pointer(customer_pointer)
            .or_else(|| body.get("data")?.pointer(customer_pointer))
    };
    Ok(Event {
        event_type,
        customer: customer(found, customer_pointer)?,
        body,
        inline,
    })
}

fn find_type<'a>(body: &'a Value, header_type: Option<&'a str>) -> Result<&'a str, String> {
    let text = |name: &str| match body.get(name) {
        None => Ok(None),
        Some(Value::String(found)) => Ok(Some(found.as_str())),
        Some(_) => Err(format!("/{name} is not text")),
    };
    if let Some(found) = text("event_type")?.or(header_type) {
        return Ok(found);
    }
    if let Some(found) = text("type")? {
        return Ok(found);
    }
    text("event")?.ok_or_else(|| {
        "the event names no type; set `event_type` (or `type`, `event`, or the header ce_type)"
            .to_owned()
    })
}

fn checked_type(found: &str) -> Result<String, String> {
    if found.is_empty() {
        return Err("the event's type is empty".to_owned());
    }
    if found.len() > TYPE_BYTES {
        return Err(format!(
            "the event's type is longer than {TYPE_BYTES} bytes"
        ));
    }
    if found.chars().any(char::is_control) {
        return Err("the event's type contains a control character".to_owned());
    }
    Ok(found.to_owned())
}

fn customer(found: Option<&Value>, pointer: &str) -> Result<Option<String>, String> {
    match found {
        None | Some(Value::Null) => Ok(None),
        Some(number @ Value::Number(_)) => match Customer::from_json(number) {
            Some(customer) => Ok(Some(customer.as_str().to_owned())),
            None => Err(format!(
                "{pointer} (the customer) is a number that 64 bits do not hold exactly; write it as text"
            )),
        },
        Some(Value::String(text)) if text.is_empty() || text.len() > CUSTOMER_BYTES => Err(
            format!("{pointer} (the customer) is empty or longer than {CUSTOMER_BYTES} bytes"),
        ),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(format!(
            "{pointer} (the customer) is neither a number nor text"
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::record::{Header, SourceOffset};

    fn record(payload: Option<&[u8]>, headers: Vec<Header>) -> Record {
        Record {
            topic: Arc::from("events.job"),
            partition: 0,
            offset: SourceOffset(1),
            timestamp_ms: Some(1),
            key: None,
            payload: payload.map(Bytes::copy_from_slice),
            headers,
        }
    }

    fn reading() -> Reading {
        Reading {
            customer_pointer: "/customer".to_owned(),
            inline_webhooks: true,
        }
    }

    fn read(text: &str) -> Decoded {
        decode(&mut record(Some(text.as_bytes()), vec![]), &reading())
    }

    fn refusal(payload: &[u8]) -> String {
        match decode(&mut record(Some(payload), vec![]), &reading()) {
            Decoded::Undecodable(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_webnet_event_is_read() {
        let Decoded::Event(event) =
            read(r#"{"event_type":"job.failed","customer":7,"job":{"id":1}}"#)
        else {
            panic!()
        };
        assert_eq!(event.event_type, "job.failed");
        assert_eq!(event.customer.as_deref(), Some("7"));
        assert_eq!(event.body["job"]["id"], 1);
    }

    #[test]
    fn every_spelling_of_the_type_is_read() {
        for text in [
            r#"{"event_type":"a.b"}"#,
            r#"{"type":"a.b"}"#,
            r#"{"event":"a.b"}"#,
        ] {
            let Decoded::Event(event) = read(text) else {
                panic!("{text}")
            };
            assert_eq!(event.event_type, "a.b");
            assert_eq!(event.customer, None);
        }
    }

    #[test]
    fn cloud_events_are_read_in_both_modes() {
        let binary = record(
            Some(br#"{"customer":"x"}"#),
            vec![Header::text("ce_type", "job.started")],
        );
        let structured = record(
            Some(br#"{"specversion":"1.0","type":"job.started","id":"1","source":"/s","data":{"customer":"x"}}"#),
            vec![Header::text("content-type", "application/cloudevents+json")],
        );
        for mut record in [binary, structured] {
            let Decoded::Event(event) = decode(&mut record, &reading()) else {
                panic!()
            };
            assert_eq!(event.event_type, "job.started");
            assert_eq!(event.customer.as_deref(), Some("x"));
        }
    }

    #[test]
    fn the_webhook_of_an_event_is_in_nothing_that_is_made_of_it() {
        let text = r#"{"event_type":"a","webhook":{"url":"http://secret"}}"#;
        let mut carrying = record(Some(text.as_bytes()), vec![]);
        let Decoded::Event(event) = decode(&mut carrying, &reading()) else {
            panic!()
        };
        assert_eq!(event.inline.unwrap()["url"], "http://secret");
        assert_eq!(event.body, serde_json::json!({"event_type": "a"}));
        assert_eq!(carrying.payload.unwrap(), r#"{"event_type":"a"}"#);
        // Nor in the dead letter of what is no event.
        for refused in [
            r#"{"x":1,"webhook":{"url":"http://secret"}}"#,
            r#"{"x":1,"x":2,"webhook":{"url":"http://secret"}}"#,
            r#"{"event_type":"a","webhook":{"url":"http://secret","url":2}}"#,
            r#"{"event_type":"a","webhook":{"url":"http://secret"},"webhook":1}"#,
        ] {
            let mut carrying = record(Some(refused.as_bytes()), vec![]);
            let Decoded::Undecodable(reason) = decode(&mut carrying, &reading()) else {
                panic!("{refused}")
            };
            let left = String::from_utf8(carrying.payload.unwrap().to_vec()).unwrap();
            assert!(
                !reason.contains("secret") && !left.contains("secret"),
                "{left}"
            );
        }
        // Where no event may carry one it is data like any other.
        let mut plain = record(Some(text.as_bytes()), vec![]);
        let Decoded::Event(event) = decode(&mut plain, &Reading::default()) else {
            panic!()
        };
        assert_eq!(event.inline, None);
        assert_eq!(event.body["webhook"]["url"], "http://secret");
        assert_eq!(plain.payload.unwrap(), text);
    }

    #[test]
    fn a_tombstone_is_no_event_and_no_fault() {
        assert_eq!(
            decode(&mut record(None, vec![]), &reading()),
            Decoded::Tombstone
        );
    }

    #[test]
    fn what_is_no_event_is_refused_with_its_reason() {
        let deep = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
        let deep = format!(r#"{{"event_type":"a","x":{deep}}}"#);
        let long = format!(r#"{{"event_type":"{}"}}"#, "a".repeat(300));
        let cases: &[(&[u8], &str)] = &[
            (b"", "empty"),
            (b"\xff\xfe{}", "not JSON"),
            (b"\xef\xbb\xbf{}", "not JSON"),
            (br#"{"event_type":"a","x":NaN}"#, "not JSON"),
            (br#"{"event_type":"a"} {}"#, "not JSON"),
            (
                br#"{"event_type":"a","customer":1,"customer":2}"#,
                "stands twice",
            ),
            (br#"{"event_type":"a","x":{"y":1,"y":1}}"#, "stands twice"),
            (deep.as_bytes(), "recursion"),
            (b"[]", "not a JSON object"),
            (b"null", "not a JSON object"),
            (br#"{"job":{}}"#, "names no type"),
            (br#"{"event_type":7}"#, "/event_type is not text"),
            (br#"{"type":null}"#, "/type is not text"),
            (br#"{"event":{}}"#, "/event is not text"),
            (br#"{"event_type":""}"#, "is empty"),
            (br#"{"event_type":"a\r\nb"}"#, "control character"),
            (long.as_bytes(), "longer than"),
            (
                br#"{"event_type":"a","customer":{}}"#,
                "neither a number nor text",
            ),
            (
                br#"{"event_type":"a","customer":true}"#,
                "neither a number nor text",
            ),
            (br#"{"event_type":"a","customer":""}"#, "empty or longer"),
            (
                br#"{"event_type":"a","event_timestamp":[]}"#,
                "/event_timestamp is neither",
            ),
        ];
        for (payload, reason) in cases {
            let found = refusal(payload);
            assert!(found.contains(reason), "{found}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(payload in prop::collection::vec(any::<u8>(), 0..200)) {
            decode(&mut record(Some(&payload), vec![]), &reading());
        }
    }
}
