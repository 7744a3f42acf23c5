//! The second loop, second half: what an attempt came to is carried out and recorded, then the receipt is settled.
//!
//! Promise 1: a delivery leaves here delivered, on the ladder, or dead-lettered, and each of these is acknowledged by Kafka
//! before its record counts as done. One wide log line an attempt; never a body, secret or query string.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tracing::info;

use super::alerts::Kind;
use super::deliver::STAGE;
use super::{Ways, now_ms};
use crate::attempt::Attempt;
use crate::delivery::{DeadReason, Delivery, Ending, Waiting};
use crate::kafka::receipt::SharedReceipt;
use crate::outbound::shard::{Finish, Submission};
use crate::record::Outgoing;
use crate::retry::dead_letter;
use crate::retry::ladder::{self, Decision};
use crate::subscription::Customer;

const EXHAUSTED: &str = "deliveries have spent all their attempts and are dead letters; `postrider dead-letters replay` sends them again";

impl Ways {
    /// Carries out what became of a submission. Called on the shards' threads.
    pub fn conclude(self: &Arc<Self>, submission: Submission, finish: Finish) {
        let Submission {
            mut delivery,
            webhook,
            receipt,
            charge,
        } = submission;
        match finish {
            Finish::Parked => self.put(
                &delivery,
                &self.topics.dispatch,
                true,
                STAGE,
                receipt.split(1),
            ),
            Finish::Later(pause, waiting) => {
                let now = now_ms();
                // What is to be the next probe waits for it; all else of an endpoint that has been down for long waits where it costs nothing.
                let is_probe = delivery.waiting == Some(Waiting::Probe);
                if waiting == Waiting::Tripped
                    && !is_probe
                    && self.conditions.is_holding(&webhook, now)
                {
                    delivery.due_ms = None;
                    delivery.waiting = Some(waiting);
                    self.put(&delivery, &self.topics.held, true, STAGE, receipt.split(1));
                    return;
                }
                let due_ms = ladder::after(now, pause);
                // Told once, or a full lane would tell it at every turn: one write beside the five or so of an overflow.
                let is_first = delivery.attempts == 0
                    && matches!(delivery.waiting, None | Some(Waiting::Unknown));
                let done = if is_first && self.record_attempts {
                    let done = receipt.split(2);
                    self.record(
                        &waiting_record(self, &delivery, waiting, due_ms),
                        done.clone(),
                    );
                    done
                } else {
                    receipt.split(1)
                };
                self.wait(&mut delivery, due_ms, waiting, done);
            }
            Finish::Attempted(attempt) => {
                let now = now_ms();
                let decision =
                    ladder::decide(&delivery, &webhook, &attempt, now, chance(&delivery));
                fail::fail_point!(
                    "deliver-after-2xx",
                    matches!(decision, Decision::Delivered),
                    |_| crate::failpoint::die()
                );
                log(&delivery, &attempt, decision);
                let done = if self.record_attempts {
                    let done = receipt.split(2);
                    let record = attempt_record(self, &delivery, &attempt, decision);
                    self.record(&record, done.clone());
                    done
                } else {
                    receipt.split(1)
                };
                match decision {
                    Decision::Delivered => {
                        self.ended(Ending::Delivered);
                        if let Some(source_ms) = delivery.source_timestamp_ms {
                            let seconds = now.saturating_sub(source_ms).max(0) as f64 / 1000.0;
                            self.metrics.end_to_end.observe(seconds);
                        }
                        done.done();
                    }
                    Decision::Again { due_ms, waiting } => {
                        self.wait(&mut delivery, due_ms, waiting, done)
                    }
                    Decision::Dead(reason) => {
                        if reason == DeadReason::Exhausted {
                            self.alert(&webhook, Kind::Exhausted, EXHAUSTED);
                        }
                        let group = self.group_of(STAGE);
                        let topic = &self.topics.dead_letters;
                        let letter = dead_letter::of_delivery(
                            &delivery,
                            reason,
                            &attempt.message,
                            topic,
                            &group,
                        );
                        self.bury(letter, reason, done);
                    }
                }
            }
        }
        drop(charge);
    }

    fn wait(
        self: &Arc<Self>,
        delivery: &mut Delivery,
        due_ms: i64,
        waiting: Waiting,
        done: SharedReceipt,
    ) {
        delivery.due_ms = Some(due_ms);
        delivery.waiting = Some(waiting);
        self.delay(delivery, STAGE, done);
    }

    fn record(&self, record: &Outgoing, done: SharedReceipt) {
        self.producer.send(
            record,
            Box::new(move |written| {
                if let Err(refused) = written {
                    // The audit trail loses a line; the delivery itself is not at stake.
                    tracing::error!(%refused, "an attempt could not be recorded");
                }
                done.done();
            }),
        );
    }
}

/// A number in 0..1 for the jitter, from the delivery's own id and attempt: spread over deliveries, the same after a crash.
fn chance(delivery: &Delivery) -> f64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (&delivery.id, delivery.attempts).hash(&mut hasher);
    (hasher.finish() >> 11) as f64 / (1_u64 << 53) as f64
}

fn log(delivery: &Delivery, attempt: &Attempt, decision: Decision) {
    let (ending, due_ms, reason) = match decision {
        Decision::Delivered => (Some(Ending::Delivered.as_str()), None, None),
        Decision::Again { due_ms, .. } => (None, Some(due_ms), None),
        Decision::Dead(reason) => (
            Some(Ending::DeadLettered.as_str()),
            None,
            Some(reason.as_str()),
        ),
    };
    info!(
        delivery = delivery.id,
        webhook = %delivery.webhook,
        event_type = delivery.event_type,
        source = %delivery.source,
        attempt = attempt.number,
        outcome = attempt.outcome.as_str(),
        status = attempt.status,
        duration_seconds = attempt.duration.as_secs_f64(),
        ending,
        reason,
        due_ms,
        message = attempt.message,
    );
}

fn attempt_record(
    ways: &Ways,
    delivery: &Delivery,
    attempt: &Attempt,
    decision: Decision,
) -> Outgoing {
    let (ending, due_ms, reason) = match decision {
        Decision::Delivered => (Some(Ending::Delivered), None, None),
        Decision::Again { due_ms, .. } => (None, Some(due_ms), None),
        Decision::Dead(reason) => (Some(Ending::DeadLettered), None, Some(reason)),
    };
    let mut value = json!({
        "delivery_id": delivery.id,
        "webhook_id": delivery.webhook.as_str(),
        "customer": delivery.customer.as_ref().map(Customer::as_str),
        "event_type": delivery.event_type,
        "source": delivery.source.to_string(),
        "created_at_ms": delivery.created_at_ms,
        "replay_id": delivery.replay_id,
        "attempt": attempt.number,
        "started_at_ms": attempt.started_at_ms,
        "duration_seconds": duration_seconds(attempt.duration),
        "outcome": attempt.outcome.as_str(),
        "status": attempt.status,
        "error_message": attempt.message,
        "response_body": String::from_utf8_lossy(&attempt.response_body),
        "ending": ending.map(Ending::as_str),
        "reason": reason.map(crate::delivery::DeadReason::as_str),
        "due_ms": due_ms,
    });
    for (name, headers) in [
        ("request_headers", &attempt.request_headers),
        ("response_headers", &attempt.response_headers),
    ] {
        if !headers.is_empty()
            && let Some(fields) = value.as_object_mut()
        {
            fields.insert(name.to_owned(), joined(headers));
        }
    }
    outgoing(ways, delivery, &value)
}

/// An object of headers; values of one name are joined with a comma, as RFC 9110 5.3 allows.
fn joined(headers: &[(String, String)]) -> serde_json::Value {
    let mut fields: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in headers {
        let text = fields.entry(name).or_default();
        if !text.is_empty() {
            text.push_str(", ");
        }
        text.push_str(value);
    }
    json!(fields)
}

fn duration_seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e6
}

/// The record of an ending that came without an attempt.
pub(super) fn ending_record(
    ways: &Ways,
    delivery: &Delivery,
    ending: Ending,
    message: &str,
) -> Outgoing {
    let mut value = unattempted(delivery, message);
    value["ending"] = ending.as_str().into();
    outgoing(ways, delivery, &value)
}

/// The record of a delivery that was put off before its first attempt, so that it can be listed.
fn waiting_record(ways: &Ways, delivery: &Delivery, waiting: Waiting, due_ms: i64) -> Outgoing {
    let message = match waiting {
        Waiting::Gated => "not sent yet: the receiver asked for a pause",
        Waiting::Tripped => "not sent yet: the receiver is down, and only probes are sent",
        _ => "not sent yet: the webhook's rate limit or concurrency is used up",
    };
    let mut value = unattempted(delivery, message);
    value["waiting"] = waiting.as_str().into();
    value["due_ms"] = due_ms.into();
    outgoing(ways, delivery, &value)
}

fn unattempted(delivery: &Delivery, message: &str) -> serde_json::Value {
    json!({
        "delivery_id": delivery.id,
        "webhook_id": delivery.webhook.as_str(),
        "customer": delivery.customer.as_ref().map(Customer::as_str),
        "event_type": delivery.event_type,
        "source": delivery.source.to_string(),
        "created_at_ms": delivery.created_at_ms,
        "replay_id": delivery.replay_id,
        "attempt": delivery.attempts,
        "started_at_ms": now_ms(),
        "error_message": message,
        "ending": null,
    })
}

fn outgoing(ways: &Ways, delivery: &Delivery, value: &serde_json::Value) -> Outgoing {
    Outgoing {
        topic: Arc::clone(&ways.topics.attempts),
        key: Some(Bytes::copy_from_slice(delivery.id.as_bytes())),
        payload: Some(value.to_string().into()),
        headers: Vec::new(),
    }
}
