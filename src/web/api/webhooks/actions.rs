//! What is done with a webhook: a test event, a pause, a new secret.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::super::auth::{Admin, Caller, Operator};
use super::super::body::{Id, OptionalObject, refuse_unknown};
use super::super::etag::IfMatch;
use super::super::problem::Problem;
use super::super::{Api, audit, json, schema};
use super::{answer, edit, found, id_of};
use crate::subscription::{Edit, generate_secret};

const DEFAULT_OVERLAP_HOURS: u64 = 24;
const LONGEST_OVERLAP_HOURS: u64 = 720;
/// A secret's characters, as for one that is written with a webhook.
const LONGEST_SECRET: usize = 256;

/// A test that is on its way.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct TestSent {
    /// The delivery; the `webhook-id` that the receiver sees.
    delivery_id: String,
    /// The webhook.
    webhook: String,
    /// The type of the event that was made up.
    #[schema(example = "job.failed")]
    event_type: String,
    /// `pending`.
    #[schema(example = "pending")]
    status: &'static str,
}

/// Sends a made-up event, with `"test": true` in it.
#[utoipa::path(post, path = "/webhooks/{id}/test/", tag = "webhooks", operation_id = "test_webhook",
    params(("id" = String, Path, description = "the webhook")),
    request_body(content = schema::TestInput, description = "may be left out"),
    responses(
        (status = 202, description = "It is on its way, as every delivery", body = TestSent),
        (status = 400, description = "The type is none", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is none", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is disabled, so nothing is sent to it", body = Problem, content_type = "application/problem+json"),
    ))]
pub(in super::super) async fn test_webhook(
    State(api): State<Arc<Api>>,
    Operator(caller): Operator,
    Id(id): Id,
    OptionalObject(members): OptionalObject,
) -> Result<Response, Problem> {
    refuse_unknown(&members, &["event_type"])?;
    let event_type = match members.get("event_type") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(_) => {
            return Err(Problem::at(
                "/event_type",
                "`event_type` must be text such as job.failed",
            ));
        }
    };
    api.blocking(move |api| {
        let webhook = found(api, &caller, &id)?;
        if !webhook.enabled {
            let detail =
                "the webhook is disabled, so nothing is sent to it; set `enabled` to true first";
            return Err(Problem::new(StatusCode::CONFLICT, detail));
        }
        let (delivery_id, event_type) = api.behind.send_test(&webhook, event_type.as_deref())?;
        audit::note(
            api,
            &caller,
            "webhook.test",
            &id,
            Value::Null,
            delivery_id.as_str().into(),
        );
        let sent = TestSent {
            delivery_id,
            webhook: id,
            event_type,
            status: "pending",
        };
        Ok(json(StatusCode::ACCEPTED, &sent))
    })
    .await
}

async fn set_paused(
    api: Arc<Api>,
    caller: Caller,
    id: String,
    headers: HeaderMap,
    paused: bool,
) -> Result<Response, Problem> {
    let if_match = IfMatch::read(&headers);
    api.blocking(move |api| {
        let id = id_of(&id)?;
        let action = if paused {
            "webhook.pause"
        } else {
            "webhook.resume"
        };
        let edited = edit(api, &caller, &id, &if_match, action, |stored| {
            if stored.paused == paused {
                return Ok(Edit::Keep);
            }
            let mut webhook = stored.clone();
            webhook.set_paused(paused, Timestamp::now());
            Ok(Edit::Put(Box::new(webhook)))
        })?;
        let webhook = edited
            .after
            .ok_or_else(|| Problem::no_such("webhook", &id))?;
        Ok(answer(api, StatusCode::OK, &webhook, None))
    })
    .await
}

/// Holds the webhook's deliveries until it is resumed.
#[utoipa::path(post, path = "/webhooks/{id}/pause/", tag = "webhooks", operation_id = "pause_webhook",
    params(
        ("id" = String, Path, description = "the webhook"),
        ("If-Match" = Option<String>, Header, description = "only if this is its ETag"),
    ),
    responses(
        (status = 200, description = "It is paused", body = schema::Webhook, headers(("ETag" = String, description = "its version"))),
        (status = 404, description = "There is none", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "Another changed it", body = Problem, content_type = "application/problem+json"),
    ))]
pub(in super::super) async fn pause_webhook(
    State(api): State<Arc<Api>>,
    Operator(caller): Operator,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    set_paused(api, caller, id, headers, true).await
}

/// Lets the webhook's deliveries go on; what was held goes out at `retry.held_drain_per_second`.
#[utoipa::path(post, path = "/webhooks/{id}/resume/", tag = "webhooks", operation_id = "resume_webhook",
    params(
        ("id" = String, Path, description = "the webhook"),
        ("If-Match" = Option<String>, Header, description = "only if this is its ETag"),
    ),
    responses(
        (status = 200, description = "It is not paused", body = schema::Webhook, headers(("ETag" = String, description = "its version"))),
        (status = 404, description = "There is none", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "Another changed it", body = Problem, content_type = "application/problem+json"),
    ))]
pub(in super::super) async fn resume_webhook(
    State(api): State<Arc<Api>>,
    Operator(caller): Operator,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    set_paused(api, caller, id, headers, false).await
}

/// A secret that was changed.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct Rotated {
    /// The new secret, shown this once.
    #[schema(example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    secret: String,
    /// Until then both secrets sign; null where there was none before, or its time is over.
    #[schema(value_type = Option<String>, format = DateTime)]
    old_secret_expires_at: Option<Timestamp>,
}

/// Gives a webhook a new secret. The one before goes on signing beside it for `overlap_hours`.
#[utoipa::path(post, path = "/webhooks/{id}/rotate-secret/", tag = "webhooks", operation_id = "rotate_secret",
    params(
        ("id" = String, Path, description = "the webhook"),
        ("If-Match" = Option<String>, Header, description = "only if this is its ETag"),
    ),
    request_body(content = schema::RotateInput, description = "may be left out"),
    responses(
        (status = 200, description = "The new secret, shown this once", body = Rotated),
        (status = 400, description = "A field is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is none", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "Another changed it", body = Problem, content_type = "application/problem+json"),
    ))]
pub(in super::super) async fn rotate_secret(
    State(api): State<Arc<Api>>,
    Admin(caller): Admin,
    Id(id): Id,
    headers: HeaderMap,
    OptionalObject(members): OptionalObject,
) -> Result<Response, Problem> {
    refuse_unknown(&members, &["secret", "overlap_hours"])?;
    let hours = match members.get("overlap_hours") {
        None | Some(Value::Null) => DEFAULT_OVERLAP_HOURS,
        Some(given) => given.as_u64().filter(|hours| *hours <= LONGEST_OVERLAP_HOURS).ok_or_else(|| {
            Problem::at("/overlap_hours", format!("`overlap_hours` must be a whole number of hours from 0 to {LONGEST_OVERLAP_HOURS}"))
        })?,
    };
    let secret = match members.get("secret") {
        None | Some(Value::Null) => generated()?,
        Some(Value::String(word)) if word == "generate" => generated()?,
        Some(Value::String(text))
            if (1..=LONGEST_SECRET).contains(&text.len()) && !text.contains(char::is_control) =>
        {
            text.clone()
        }
        Some(_) => {
            let detail = format!(
                "`secret` must be text of 1 to {LONGEST_SECRET} characters; leave it out to get one"
            );
            return Err(Problem::at("/secret", detail));
        }
    };
    let if_match = IfMatch::read(&headers);
    api.blocking(move |api| {
        let id = id_of(&id)?;
        let action = "webhook.rotate_secret";
        let edited = edit(api, &caller, &id, &if_match, action, |stored| {
            let now = Timestamp::now();
            let mut webhook = stored.clone();
            webhook.rotate_secret(secret.clone(), now);
            if hours == 0 {
                webhook.secrets.truncate(1);
            } else if webhook.secrets.len() > 1 {
                let overlap = SignedDuration::from_hours(i64::try_from(hours).unwrap_or(0));
                webhook.old_secret_expires_at = now.checked_add(overlap).ok();
            }
            Ok(Edit::Put(Box::new(webhook)))
        })?;
        let ends = edited
            .after
            .and_then(|webhook| webhook.old_secret_expires_at);
        Ok(json(
            StatusCode::OK,
            &Rotated {
                secret,
                old_secret_expires_at: ends,
            },
        ))
    })
    .await
}

fn generated() -> Result<String, Problem> {
    generate_secret().map_err(|fault| {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("no secret could be made: {fault}"),
        )
    })
}
