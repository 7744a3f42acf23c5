//! Events over HTTP, for producers without Kafka, and what webhooks would make of one. An event is answered when its source topic
//! has it on all replicas (promise 1); then it goes the way of every event.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{Caller, Operator, Viewer};
use super::body::Raw;
use super::problem::Problem;
use super::{Api, body, json, schema};
use crate::token::Role;

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
    /// Where its customer stands, a JSON pointer.
    pub customer_pointer: String,
    /// Whether it carries a webhook for itself, where events may.
    pub carries_webhook: bool,
}

/// Where an event was written.
#[derive(Clone, Debug, Serialize, ToSchema)]
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
    let read = api.behind.read_event(event).map_err(Problem::of_fields)?;
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
            Err(Problem::at(&read.customer_pointer, detail))
        }
        _ => Ok(read),
    }
}

/// Takes an event in: *webnet's* form, any JSON object that names a type, or a CloudEvent (structured or binary). Where
/// `intake.inline_webhooks` is on, one that carries a `webhook` for itself needs the role admin.
#[utoipa::path(post, path = "/events/", tag = "events", operation_id = "send_event",
    request_body = schema::EventInput,
    responses(
        (status = 202, description = "Its source topic has it", body = Placed),
        (status = 400, description = "It is no event, of another customer, or no source topic takes its type", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "It is larger than 1 MiB, or than its source topic takes", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn send_event(
    State(api): State<Arc<Api>>,
    Operator(caller): Operator,
    raw: Raw,
) -> Result<Response, Problem> {
    let event = submission(raw)?;
    api.blocking(move |api| {
        let read = read(api, &caller, &event)?;
        if read.carries_webhook {
            // Else whoever may send events could have requests sent where only those who write webhooks may.
            caller.must_be(Role::Admin)?;
        }
        let placed = api.behind.produce(&event, &read.event_type)?;
        Ok(json(StatusCode::ACCEPTED, &placed))
    })
    .await
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
