//! The story of a delivery is told in the order in which things happened.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::delivery::{DeadReason, Delivery, Waiting};
use crate::record::{Outgoing, SourceOffset};
use crate::retry::dead_letter;
use crate::subscription::WebhookId;

const SECOND: i64 = 1_000;

fn topics() -> Topics {
    Topics::new("postrider.")
}

fn delivery() -> Delivery {
    let record = Record {
        topic: "events.job".into(),
        partition: 1,
        offset: SourceOffset(9),
        timestamp_ms: Some(0),
        key: None,
        payload: Some(Bytes::from_static(b"{}")),
        headers: vec![],
    };
    Delivery::new(
        &record,
        "job.failed",
        &WebhookId::new("wh_a").unwrap(),
        None,
        0,
    )
}

fn appended(outgoing: Outgoing, at_ms: i64) -> Record {
    Record {
        topic: outgoing.topic,
        partition: 0,
        offset: SourceOffset(at_ms),
        timestamp_ms: Some(at_ms),
        key: outgoing.key,
        payload: outgoing.payload,
        headers: outgoing.headers,
    }
}

fn in_topic(delivery: &Delivery, topic: &Arc<str>, at_ms: i64) -> Record {
    appended(delivery.to_record(topic, true), at_ms)
}

fn attempt(number: u32, ending: Option<&str>, due_ms: Option<i64>, at_ms: i64) -> Record {
    let value = json!({
        "delivery_id": delivery().id, "webhook_id": "wh_a", "event_type": "job.failed",
        "source": "events.job/1/9", "attempt": number, "outcome": "server_error", "status": 503,
        "duration_seconds": 0.0125, "error_message": "status 503", "ending": ending, "due_ms": due_ms,
    });
    appended(
        Outgoing {
            topic: topics().attempts,
            key: Some(delivery().id.into()),
            payload: Some(value.to_string().into()),
            headers: vec![],
        },
        at_ms,
    )
}

fn waiting(attempts: u32, due_ms: i64, at_ms: i64) -> Record {
    let mut delivery = delivery();
    delivery.attempts = attempts;
    delivery.due_ms = Some(due_ms);
    delivery.waiting = Some(Waiting::Retry);
    let topic = topics().delays().next().unwrap().1.clone();
    in_topic(&delivery, &topic, at_ms)
}

fn story(records: Vec<Record>, now_ms: i64) -> Story {
    let id = delivery().id;
    let steps = records
        .into_iter()
        .map(|record| Step::read(record, &id, &topics()).unwrap())
        .collect();
    Story::of(&id, steps, now_ms).unwrap()
}

fn whats(story: &Story) -> Vec<What> {
    story.steps.iter().map(|step| step.what).collect()
}

#[test]
fn a_waiting_delivery_is_told_with_its_next_attempt() {
    let records = vec![
        waiting(1, 60 * SECOND, 110),
        attempt(1, None, Some(60 * SECOND), 110),
        in_topic(&delivery(), &topics().dispatch, 100),
    ];
    let story = story(records, 20 * SECOND);
    assert_eq!(
        whats(&story),
        [What::Dispatched, What::Attempted, What::Waits]
    );
    assert_eq!(story.state, State::Waiting);
    assert_eq!(
        story.next_attempt_at.as_deref(),
        Some("1970-01-01T00:01:00.000Z")
    );
    assert!(story.conclusion(20 * SECOND).ends_with("in 40 s"));
    assert_eq!(story.webhook_id.as_deref(), Some("wh_a"));
    assert_eq!(story.source.as_deref(), Some("events.job/1/9"));
    let told: Vec<String> = story.steps.iter().map(Step::sentence).collect();
    assert_eq!(
        told,
        [
            "queued for attempt 1",
            "attempt 1: server_error, status 503, 0.013 s: status 503",
            "waits for its next attempt, due 1970-01-01T00:01:00.000Z",
        ]
    );
}

#[test]
fn an_attempt_is_told_before_what_followed_from_it() {
    let records = vec![
        in_topic(&delivery(), &topics().dispatch, 100),
        waiting(1, 60 * SECOND, 110),
        attempt(1, None, Some(60 * SECOND), 113),
    ];
    assert_eq!(
        whats(&story(records, 0)),
        [What::Dispatched, What::Attempted, What::Waits]
    );
}

#[test]
fn the_next_attempt_is_not_taken_for_the_cause_of_the_wait_before_it() {
    let records = vec![
        attempt(1, None, Some(SECOND), 110),
        waiting(1, SECOND, 110),
        attempt(2, Some("delivered"), None, 900),
    ];
    let story = story(records, 5 * SECOND);
    assert_eq!(
        whats(&story),
        [What::Attempted, What::Waits, What::Attempted]
    );
    assert_eq!(story.state, State::Delivered);
    assert_eq!(story.next_attempt_at, None);
}

#[test]
fn a_delivery_that_stays_past_its_time_is_overdue() {
    let story = story(vec![waiting(1, SECOND, 110)], 31 * SECOND);
    assert_eq!(story.state, State::Overdue);
    assert!(story.conclusion(31 * SECOND).contains("30 s ago"));
}

#[test]
fn every_state_is_recognised_by_the_last_step() {
    let mut dead = delivery();
    dead.attempts = 4;
    let letter = dead_letter::of_delivery(
        &dead,
        DeadReason::Exhausted,
        "status 500",
        &topics().dead_letters,
        "g",
    );
    let mut replayed = delivery();
    replayed.replay_id = Some("rp_1".to_owned());
    let letter = appended(letter, 200);
    let dropped = {
        let mut record = attempt(0, Some("dropped"), None, 200);
        record.payload = Some(
            json!({"delivery_id": delivery().id, "attempt": 0, "ending": "dropped"})
                .to_string()
                .into(),
        );
        record
    };
    let held = in_topic(&delivery(), &topics().held, 200);
    let again = in_topic(&replayed, &topics().dispatch, 300);
    for (records, state, said) in [
        (vec![letter.clone()], State::DeadLettered, "--delivery dlv_"),
        (vec![dropped], State::Dropped, "deleted"),
        (vec![held], State::Held, "resume wh_a"),
        (vec![letter, again], State::Dispatched, "in dispatch"),
        (
            vec![attempt(4, Some("dead_lettered"), None, 5)],
            State::DeadLettered,
            "replay",
        ),
    ] {
        let story = story(records, SECOND);
        assert_eq!(story.state, state);
        assert!(story.conclusion(SECOND).contains(said));
    }
}

#[test]
fn records_of_other_deliveries_and_damaged_ones_are_passed_over() {
    let other = in_topic(&delivery(), &topics().dispatch, 1);
    assert_eq!(Step::read(other, "dlv_other", &topics()), None);
    let mut damaged = attempt(1, None, None, 1);
    for payload in [None, Some(Bytes::from_static(b"{\"attempt\":"))] {
        damaged.payload = payload;
        assert_eq!(Step::read(damaged.clone(), &delivery().id, &topics()), None);
    }
    assert!(Story::of("dlv_x", vec![], 0).is_none());
}
