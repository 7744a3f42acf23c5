//! Events over HTTP, for producers without Kafka, and what webhooks would make of one. An event is answered when its source topic
//! has it on all replicas (promise 1); then it goes the way of every event.
//!
//! An `Idempotency-Key` is remembered for a day in the memory of one instance, the newest 10,000 of them: it saves a client's
//! retries from doubling an event, and is no promise across restarts or instances.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{Caller, Operator, Viewer};
use super::body::Raw;
use super::problem::Problem;
use super::{Api, body, json, schema};
use crate::token::Role;

const REMEMBERED_FOR: Duration = Duration::from_secs(24 * 3_600);
const MOST_REMEMBERED: usize = 10_000;
const LONGEST_KEY: usize = 255;

/// An event as it was sent.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The body, which is delivered byte for byte.
    pub body: Bytes,
    /// Headers of its record: those of a CloudEvent in binary mode (`ce_type` …), and the media type.
    pub headers: Vec<(String, String)>,
}

/// An event as it was read.
#[derive(Clone, Debug)]
pub struct Read {
    /// Its type.
    pub event_type: String,
    /// Its customer.
    pub customer: Option<String>,
    /// For filters.
    pub body: Value,
    /// Whether it carries a webhook for itself, where events may.
    pub carries_webhook: bool,
}

/// Where an event was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Placed {
    /// Its type.
    #[schema(example = "job.failed")]
    pub event_type: String,
    /// The source topic.
    #[schema(example = "events.job")]
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
}

/// What becomes of an event for one webhook.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Explained {
    /// The webhook.
    pub webhook: String,
    /// Its name.
    pub name: String,
    /// Whether a delivery is made.
    pub matches: bool,
    /// `delivered held filter_failed not_wanted`.
    #[schema(example = "not_wanted")]
    pub fate: String,
    /// What refuses it: `disabled event_type customer filter`.
    #[schema(example = "filter")]
    pub refusal: Option<String>,
    /// In words.
    pub reason: Option<String>,
    /// The first condition of the filter that fails, with the path and value of the event.
    pub condition: Option<Value>,
}

/// What webhooks make of an event.
#[derive(Serialize, ToSchema)]
pub(super) struct Matched {
    /// The event's type, as it was read.
    event_type: String,
    /// Its customer.
    customer: Option<String>,
    /// Webhooks that want it.
    matches: usize,
    /// Each webhook, those that want it first.
    webhooks: Vec<Explained>,
}

/// The routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(send_event))
        .routes(routes!(match_event))
}

/// Takes the headers that belong to the event (CloudEvents HTTP binding 3.1: `ce-` there is `ce_` in Kafka).
fn submission(raw: Raw) -> Result<Submission, Problem> {
    let text = |value: &axum::http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let media_type = raw
        .headers
        .get(header::CONTENT_TYPE)
        .map(text)
        .unwrap_or_default();
    let essence = media_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let is_json = essence.is_empty() || essence == "application/json" || essence.ends_with("+json");
    if !is_json || essence == "application/cloudevents-batch+json" {
        let detail = format!(
            "an event is JSON, or one CloudEvent in JSON; the body is said to be {essence:?}"
        );
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let mut headers: Vec<(String, String)> = raw
        .headers
        .iter()
        .filter_map(|(name, value)| {
            Some((
                format!("ce_{}", name.as_str().strip_prefix("ce-")?),
                text(value),
            ))
        })
        .collect();
    if !essence.is_empty() {
        headers.push(("content-type".to_owned(), media_type));
    }
    for name in ["traceparent", "tracestate"] {
        if let Some(value) = raw.headers.get(name) {
            headers.push((name.to_owned(), text(value)));
        }
    }
    Ok(Submission {
        body: raw.bytes,
        headers,
    })
}

/// Reads an event and holds it to the caller's customer.
fn read(api: &Api, caller: &Caller, event: &Submission) -> Result<Read, Problem> {
    // For its line and column.
    body::parse(&event.body)?;
    let read = api
        .behind
        .read_event(event)
        .map_err(|reason| Problem::at("", format!("this is no event: {reason}")))?;
    match (&caller.customer, &read.customer) {
        (Some(own), found) if found.as_deref() != Some(own) => {
            let detail = match found {
                Some(found) => {
                    format!("the event is of customer {found} and the token of customer {own}")
                }
                None => format!(
                    "the event names no customer; the token is of customer {own}, so its events must too"
                ),
            };
            Err(Problem::at("", detail))
        }
        _ => Ok(read),
    }
}

/// Takes an event in: *webnet's* form, any JSON object that names a type, or a CloudEvent (structured or binary). Where
/// `intake.inline_webhooks` is on, one that carries a `webhook` for itself needs the role admin.
#[utoipa::path(post, path = "/events/", tag = "events", operation_id = "send_event",
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 255 characters: a repetition with the same key and body within a day is answered as the first was and not written again (by the same instance, as long as it runs)")),
    request_body = schema::EventInput,
    responses(
        (status = 202, description = "Its source topic has it", body = Placed),
        (status = 400, description = "It is no event, of another customer, or no source topic takes its type", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The Idempotency-Key was used with another body, or its request is under way", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn send_event(
    State(api): State<Arc<Api>>,
    Operator(caller): Operator,
    raw: Raw,
) -> Result<Response, Problem> {
    let key = key_of(&raw.headers, &caller)?;
    let event = submission(raw)?;
    api.blocking(move |api| {
        let read = read(api, &caller, &event)?;
        if read.carries_webhook {
            // Else whoever may send events could have requests sent where only those who write webhooks may.
            caller.must_be(Role::Admin)?;
        }
        let Some(key) = key else {
            let placed = api.behind.produce(&event, &read.event_type)?;
            return Ok(json(StatusCode::ACCEPTED, &placed));
        };
        let digest: [u8; 32] = Sha256::digest(&event.body).into();
        if let Some(placed) = api.remembered.begin(&key, digest, Instant::now())? {
            return Ok(json(StatusCode::ACCEPTED, &placed));
        }
        let placed = api.behind.produce(&event, &read.event_type);
        api.remembered.end(&key, placed.as_ref().ok());
        Ok(json(StatusCode::ACCEPTED, &placed?))
    })
    .await
}

fn key_of(headers: &HeaderMap, caller: &Caller) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let text = value
        .to_str()
        .ok()
        .filter(|text| (1..=LONGEST_KEY).contains(&text.len()));
    let text = text.ok_or_else(|| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            format!("Idempotency-Key must have 1 to {LONGEST_KEY} ASCII characters"),
        )
    })?;
    Ok(Some(format!("{}\n{}\n{text}", caller.scope(), caller.name)))
}

/// Says of each webhook whether it wants an event, or the first condition that fails, by path and value. Nothing is sent.
#[utoipa::path(post, path = "/match/", tag = "events", operation_id = "match_event",
    request_body = schema::EventInput,
    responses(
        (status = 200, description = "Each webhook of the tenant", body = Matched),
        (status = 400, description = "It is no event, or of another customer", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn match_event(
    State(api): State<Arc<Api>>,
    Viewer(caller): Viewer,
    raw: Raw,
) -> Result<Response, Problem> {
    let event = submission(raw)?;
    api.blocking(move |api| {
        let read = read(api, &caller, &event)?;
        let mut webhooks: Vec<Explained> = api
            .behind
            .webhooks()
            .iter()
            .filter(|webhook| caller.sees(webhook))
            .map(|webhook| api.behind.explain(webhook, &read))
            .collect();
        webhooks.sort_by(|one, other| {
            (!one.matches, &one.webhook).cmp(&(!other.matches, &other.webhook))
        });
        let matched = Matched {
            event_type: read.event_type,
            customer: read.customer,
            matches: webhooks.iter().filter(|webhook| webhook.matches).count(),
            webhooks,
        };
        Ok(json(StatusCode::OK, &matched))
    })
    .await
}

/// The answers that were given under an `Idempotency-Key`.
#[derive(Default)]
pub struct Remembered(Mutex<(HashMap<String, Answer>, VecDeque<String>)>);

struct Answer {
    body: [u8; 32],
    since: Instant,
    /// `None` while the request is under way.
    placed: Option<Placed>,
}

impl Remembered {
    /// The answer that was given under this key; `None`: go on, and then [`Remembered::end`] it.
    fn begin(&self, key: &str, body: [u8; 32], now: Instant) -> Result<Option<Placed>, Problem> {
        let conflict = |detail: &str| Err(Problem::new(StatusCode::CONFLICT, detail));
        let mut locked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (answers, order) = &mut *locked;
        match answers.get(key) {
            Some(answer) if now.duration_since(answer.since) >= REMEMBERED_FOR => {}
            Some(answer) if answer.body != body => {
                return conflict("this Idempotency-Key was used with another body; take a new key");
            }
            Some(Answer { placed: None, .. }) => {
                return conflict(
                    "the request of this Idempotency-Key is under way; wait for its answer",
                );
            }
            Some(answer) => return Ok(answer.placed.clone()),
            None => order.push_back(key.to_owned()),
        }
        let since = now;
        answers.insert(
            key.to_owned(),
            Answer {
                body,
                since,
                placed: None,
            },
        );
        while order.len() > MOST_REMEMBERED {
            if let Some(oldest) = order.pop_front() {
                answers.remove(&oldest);
            }
        }
        Ok(None)
    }

    /// Keeps the answer; where there is none, the key may be used again.
    fn end(&self, key: &str, placed: Option<&Placed>) {
        let mut locked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (answers, order) = &mut *locked;
        match (placed, answers.get_mut(key)) {
            (Some(placed), Some(answer)) => answer.placed = Some(placed.clone()),
            _ => {
                answers.remove(key);
                order.retain(|known| known != key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(offset: i64) -> Placed {
        Placed {
            event_type: "job.failed".into(),
            topic: "events.job".into(),
            partition: 0,
            offset,
        }
    }

    #[test]
    fn a_key_is_answered_once_more_for_a_day_and_never_for_another_body() {
        let remembered = Remembered::default();
        let now = Instant::now();
        assert_eq!(remembered.begin("k", [1; 32], now).unwrap(), None);
        assert_eq!(
            remembered.begin("k", [1; 32], now).unwrap_err().status(),
            StatusCode::CONFLICT
        );
        remembered.end("k", Some(&placed(7)));
        assert_eq!(
            remembered.begin("k", [1; 32], now).unwrap(),
            Some(placed(7))
        );
        assert!(remembered.begin("k", [2; 32], now).is_err());
        assert_eq!(
            remembered
                .begin("k", [2; 32], now + REMEMBERED_FOR)
                .unwrap(),
            None
        );
    }

    #[test]
    fn a_key_whose_event_was_not_written_may_be_used_again() {
        let remembered = Remembered::default();
        let now = Instant::now();
        assert_eq!(remembered.begin("k", [1; 32], now).unwrap(), None);
        remembered.end("k", None);
        assert_eq!(remembered.begin("k", [1; 32], now).unwrap(), None);
    }

    #[test]
    fn only_the_newest_keys_are_remembered() {
        let remembered = Remembered::default();
        for n in 0..MOST_REMEMBERED + 10 {
            remembered
                .begin(&format!("{n}"), [1; 32], Instant::now())
                .unwrap();
        }
        let locked = remembered.0.lock().unwrap();
        assert_eq!(
            (locked.0.len(), locked.1.len()),
            (MOST_REMEMBERED, MOST_REMEMBERED)
        );
    }
}
