//! From a record of the topic of attempts to rows. Pure, and it never fails: a record that cannot be read changes nothing, and says so in the
//! answer, because the view must not stop at it.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::rows::{AttemptRow, Change, DeliveryRow, Place, Status};
use crate::record::Record;

/// Kept of a response's body, in bytes: what `outbound.response_body_bytes` is by default. The attempts topic may hold more.
pub const BODY_BYTES: usize = 16_384;

/// A record of the topic of attempts. Fields that older versions did not write are optional.
#[derive(Deserialize)]
struct Written {
    delivery_id: String,
    webhook_id: String,
    #[serde(default)]
    customer: Option<String>,
    event_type: String,
    source: String,
    #[serde(default)]
    created_at_ms: Option<i64>,
    #[serde(default)]
    replay_id: Option<String>,
    attempt: u32,
    started_at_ms: i64,
    #[serde(default)]
    duration_seconds: f64,
    #[serde(default)]
    outcome: Option<String>,
    #[serde(default)]
    status: Option<u16>,
    #[serde(default)]
    error_message: String,
    #[serde(default)]
    request_headers: BTreeMap<String, String>,
    #[serde(default)]
    response_headers: BTreeMap<String, String>,
    #[serde(default)]
    response_body: String,
    #[serde(default)]
    ending: Option<String>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    due_ms: Option<i64>,
}

/// A change that only moves the position.
pub fn nothing(record: &Record) -> Change {
    Change {
        place: Place {
            topic: std::sync::Arc::clone(&record.topic),
            partition: record.partition,
            offset: record.offset.0,
        },
        written_at_ms: record.timestamp_ms,
        delivery: None,
        attempt: None,
    }
}

/// Reads a record of the topic of attempts.
pub fn attempt(record: &Record) -> Change {
    let mut change = nothing(record);
    let payload = record.payload.as_deref().unwrap_or_default();
    let Ok(written) = serde_json::from_slice::<Written>(payload) else {
        tracing::debug!(source = %record.source(), "a record of the topic of attempts cannot be read and is not shown");
        return change;
    };
    let duration_us = (written.duration_seconds * 1e6).round() as i64;
    let status = match written.ending.as_deref() {
        Some("delivered") => Status::Success,
        Some("dead_lettered") => Status::Failed,
        Some("dropped") => Status::Dropped,
        _ if written.attempt == 0 && written.outcome.is_none() => Status::Pending,
        _ => Status::Retrying,
    };
    let message = Some(written.error_message).filter(|message| !message.is_empty());
    if let Some(outcome) = written.outcome {
        change.attempt = Some(AttemptRow {
            delivery_id: written.delivery_id.clone(),
            number: written.attempt,
            replay_id: written.replay_id.clone(),
            started_at_ms: written.started_at_ms,
            duration_us,
            outcome,
            status: written.status,
            error_message: message.clone(),
            request_headers: as_json(&written.request_headers),
            response_headers: as_json(&written.response_headers),
            response_body: Some(capped(&written.response_body).to_owned())
                .filter(|body| !body.is_empty()),
        });
    }
    change.delivery = Some(DeliveryRow {
        id: written.delivery_id,
        webhook: written.webhook_id,
        customer: written.customer,
        event_type: written.event_type,
        source: written.source,
        created_at_ms: written.created_at_ms.unwrap_or(written.started_at_ms),
        updated_at_ms: written.started_at_ms.saturating_add(duration_us / 1000),
        status,
        attempts: written.attempt,
        next_attempt_at_ms: written
            .due_ms
            .filter(|_| matches!(status, Status::Retrying | Status::Pending)),
        last_status: written.status,
        error_message: message,
        replay_id: written.replay_id,
        reason: written.reason,
    });
    change
}

fn as_json(headers: &BTreeMap<String, String>) -> Option<String> {
    (!headers.is_empty())
        .then(|| serde_json::to_string(headers).ok())
        .flatten()
}

/// The beginning of a text, cut between characters.
fn capped(text: &str) -> &str {
    let mut end = text.len().min(BODY_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::SourceOffset;

    fn record(payload: &str) -> Record {
        Record {
            topic: "postrider.attempts".into(),
            partition: 1,
            offset: SourceOffset(7),
            timestamp_ms: Some(5000),
            key: None,
            payload: Some(payload.to_owned().into()),
            headers: Vec::new(),
        }
    }

    #[test]
    fn a_failed_attempt_becomes_a_retrying_delivery_with_the_time_of_the_next() {
        let change = attempt(&record(
            r#"{"delivery_id":"dlv_1","webhook_id":"wh_a","customer":"7","event_type":"job.failed","source":"events.job/0/1",
            "created_at_ms":900,"attempt":2,"started_at_ms":1000,"duration_seconds":0.25,"outcome":"server_error","status":500,
            "error_message":"the receiver answered 500","response_body":"oops","due_ms":61000,
            "request_headers":{"authorization":"***"}}"#,
        ));
        let delivery = change.delivery.unwrap();
        assert_eq!(delivery.status, Status::Retrying);
        assert_eq!(delivery.next_attempt_at_ms, Some(61_000));
        assert_eq!(
            (delivery.created_at_ms, delivery.updated_at_ms),
            (900, 1250)
        );
        assert_eq!(delivery.customer.as_deref(), Some("7"));
        let attempt = change.attempt.unwrap();
        assert_eq!((attempt.number, attempt.duration_us), (2, 250_000));
        assert_eq!(attempt.response_body.as_deref(), Some("oops"));
        assert_eq!(
            attempt.request_headers.as_deref(),
            Some(r#"{"authorization":"***"}"#)
        );
    }

    #[test]
    fn a_delivery_that_was_put_off_before_its_first_attempt_is_pending_and_has_no_attempt() {
        let change = attempt(&record(
            r#"{"delivery_id":"dlv_1","webhook_id":"wh_a","event_type":"a","source":"s/0/1","attempt":0,"started_at_ms":1,
            "error_message":"not sent yet","waiting":"paced","due_ms":9000,"ending":null}"#,
        ));
        assert_eq!(change.attempt, None);
        let delivery = change.delivery.unwrap();
        assert_eq!(delivery.status, Status::Pending);
        assert_eq!(delivery.next_attempt_at_ms, Some(9000));
    }

    #[test]
    fn a_record_that_cannot_be_read_moves_the_position_and_nothing_else() {
        for payload in ["", "{", "[]", r#"{"delivery_id":5}"#] {
            let change = attempt(&record(payload));
            assert!(
                change.delivery.is_none() && change.attempt.is_none(),
                "{payload}"
            );
            assert_eq!(change.place.offset, 7);
        }
    }

    #[test]
    fn a_long_body_is_cut_between_characters() {
        let text = format!("a{}", "é".repeat(BODY_BYTES));
        assert_eq!(capped(&text).len(), BODY_BYTES - 1);
        assert_eq!(capped("short"), "short");
    }
}
