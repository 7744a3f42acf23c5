//! Webhooks over HTTP, with *webnet*'s routes and fields.
//!
//! - `reading`: list, details, tags, event types
//! - `writing`: create, change, replace, delete; `many`: delete many
//! - `actions`: test, pause, resume, rotate the secret

mod actions;
mod many;
mod reading;
mod writing;

use std::sync::Arc;

use axum::http::{StatusCode, header};
use axum::response::Response;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::Caller;
use super::etag::IfMatch;
use super::problem::Problem;
use super::{Api, Standing, audit, etag, json};
use crate::subscription::{Edit, Edited, Subscription, WebhookId};

/// The routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(reading::list_webhooks, writing::create_webhook))
        .routes(routes!(
            reading::get_webhook,
            writing::update_webhook,
            writing::replace_webhook,
            writing::delete_webhook
        ))
        .routes(routes!(many::bulk_delete_webhooks))
        .routes(routes!(reading::list_tags))
        .routes(routes!(reading::list_event_types))
        .routes(routes!(actions::test_webhook))
        .routes(routes!(actions::pause_webhook))
        .routes(routes!(actions::resume_webhook))
        .routes(routes!(actions::rotate_secret))
}

/// A webhook as it is shown: its public form, and how it stands.
fn shown(webhook: &Subscription, standing: &Standing) -> Value {
    let mut shown = webhook.public_json();
    if let Value::Object(members) = &mut shown {
        members.insert("state".into(), standing.state.into());
        members.insert(
            "last_success_at".into(),
            serde_json::json!(standing.last_success_at),
        );
        members.insert(
            "last_failure_at".into(),
            serde_json::json!(standing.last_failure_at),
        );
        members.insert("pending".into(), standing.pending.into());
    }
    shown
}

/// The answer that shows one webhook, with a secret that was made just now. Blocks.
fn answer(api: &Api, status: StatusCode, webhook: &Subscription, secret: Option<&str>) -> Response {
    let standing = api.behind.standings(&[webhook]).into_iter().next();
    let mut shown = shown(webhook, &standing.unwrap_or_default());
    if let (Value::Object(members), Some(secret)) = (&mut shown, secret) {
        members.insert("secret".into(), secret.into());
    }
    let mut response = json(status, &shown);
    response
        .headers_mut()
        .insert(header::ETAG, etag::of(webhook));
    response
}

/// The webhook of this id, if the caller may see it.
fn found(api: &Api, caller: &Caller, id: &str) -> Result<Arc<Subscription>, Problem> {
    api.behind
        .webhook(id)
        .filter(|webhook| caller.sees(webhook))
        .ok_or_else(|| Problem::no_such("webhook", id))
}

/// The stored webhook, if there is one that the caller may see.
fn seen<'a>(
    caller: &Caller,
    id: &WebhookId,
    stored: Option<&'a Subscription>,
) -> Result<&'a Subscription, Problem> {
    stored
        .filter(|webhook| caller.sees(webhook))
        .ok_or_else(|| Problem::no_such("webhook", id))
}

/// Changes a stored webhook that the caller may see, if it is as `If-Match` says, and notes who did `action`. `make` may be asked
/// again, when another was faster.
fn edit(
    api: &Api,
    caller: &Caller,
    id: &WebhookId,
    if_match: &IfMatch,
    action: &str,
    mut make: impl FnMut(&Subscription) -> Result<Edit, Problem>,
) -> Result<Edited, Problem> {
    let edited = api
        .behind
        .change(id, if_match.is_conditional(), &mut |stored| {
            let stored = seen(caller, id, stored)?;
            if_match.check(stored)?;
            make(stored)
        })?;
    audit::webhook(api, caller, action, &edited);
    Ok(edited)
}

/// The id of a path. What is no id names nothing.
fn id_of(text: &str) -> Result<WebhookId, Problem> {
    WebhookId::new(text).map_err(|_| Problem::no_such("webhook", text))
}
