//! Webhooks that are written. Each write is answered when the catalog topic has it and this instance knows it; two writers at a
//! time are told apart on the catalog's own order.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde_json::{Map, Value};

use super::super::auth::{Admin, Caller};
use super::super::body::{Id, Json, object};
use super::super::etag::IfMatch;
use super::super::problem::Problem;
use super::super::{Api, PREFIX, audit, schema};
use super::{answer, edit, id_of};
use crate::subscription::{
    Customer, Draft, Edit, FieldError, Resolved, Subscription, WebhookId, read,
};

/// What other services call a field of ours. A change that uses one of these names replaces the field.
const OTHER_NAMES: [(&str, &str); 9] = [
    ("events", "event_types"),
    ("status", "enabled"),
    ("timeout", "timeout_seconds"),
    ("auth_type", "auth"),
    ("auth_token", "auth"),
    ("auth_username", "auth"),
    ("auth_password", "auth"),
    ("retry_enabled", "max_retries"),
    ("retry_count", "max_retries"),
];

/// Puts the caller's customer into what it writes, and refuses another's.
fn confine(caller: &Caller, members: &mut Map<String, Value>) -> Result<(), Problem> {
    let Some(own) = &caller.customer else {
        return Ok(());
    };
    match members.get("customer") {
        None | Some(Value::Null) => {}
        Some(given) if Customer::from_json(given).as_ref() == Some(own) => {}
        Some(_) => {
            let detail = format!(
                "the token is of customer {own} and writes webhooks of that customer only; leave `customer` out"
            );
            return Err(Problem::at("/customer", detail));
        }
    }
    members.insert("customer".into(), own.as_str().into());
    Ok(())
}

/// Refuses an id that a token of a customer gives: ids are one space for all customers, and that one is taken would tell that another's webhook
/// exists (promise 7).
fn refuse_id(caller: &Caller, members: &Map<String, Value>) -> Result<(), Problem> {
    let is_given = members.get("id").is_some_and(|id| !id.is_null());
    if caller.customer.is_some() && is_given {
        let detail = "the token is of one customer, and the ids of its webhooks are made here; leave `id` out and take the one of the answer";
        return Err(Problem::at("/id", detail));
    }
    Ok(())
}

/// Reads and checks all of a webhook. `touched`: only what stands in these fields is asked of the address and the filter, so
/// that a webhook from before a change of the rules can still be switched off.
fn draft(
    api: &Api,
    members: &Map<String, Value>,
    touched: Option<&Map<String, Value>>,
) -> Result<Draft, Problem> {
    let draft = read::read(&Value::Object(members.clone()), "").map_err(Problem::of_fields)?;
    let mut faults = api
        .behind
        .faults(&draft, members.get("url").and_then(Value::as_str));
    if let Some(touched) = touched {
        faults.retain(|fault: &FieldError| {
            let field = fault.pointer.split('/').nth(1).unwrap_or_default();
            touched.contains_key(field)
                || OTHER_NAMES
                    .iter()
                    .any(|(other, ours)| *ours == field && touched.contains_key(*other))
        });
    }
    if faults.is_empty() {
        Ok(draft)
    } else {
        Err(Problem::of_fields(faults))
    }
}

/// The edit that stores a draft.
fn put(resolved: Resolved, secret: &mut Option<String>, is_new: bool) -> Edit {
    *secret = resolved
        .generated_secret
        .map(|secret| secret.expose_secret().to_owned());
    if !is_new && resolved.changed.is_empty() {
        return Edit::Keep;
    }
    Edit::Put(Box::new(resolved.subscription))
}

/// Refuses another webhook to a customer that has as many as it may.
fn refuse_more(api: &Api, customer: Option<&Customer>) -> Result<(), Problem> {
    let most = api.settings.max_webhooks_per_customer;
    let webhooks = api.behind.webhooks();
    let its = webhooks
        .iter()
        .filter(|webhook| webhook.customer.as_ref() == customer);
    if its.count() < most {
        return Ok(());
    }
    let detail = format!(
        "the customer has {most} webhooks, as many as it may (web.max_webhooks_per_customer); delete some"
    );
    Err(Problem::new(StatusCode::CONFLICT, detail))
}

/// A new webhook.
#[utoipa::path(post, path = "/webhooks/", tag = "webhooks", operation_id = "create_webhook",
    request_body = schema::WebhookInput,
    responses(
        (status = 201, description = "Stored, and known to this instance. `secret` is shown this once where it was generated", body = schema::Webhook,
            headers(("ETag" = String, description = "its version"), ("Location" = String, description = "its path"))),
        (status = 400, description = "A field is wrong; `id` is one for a token of a customer", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The id is taken, or the customer has as many webhooks as it may", body = Problem, content_type = "application/problem+json"),
    ))]
pub(in super::super) async fn create_webhook(
    State(api): State<Arc<Api>>,
    Admin(caller): Admin,
    Json(body): Json,
) -> Result<Response, Problem> {
    let mut members = object(body)?;
    confine(&caller, &mut members)?;
    refuse_id(&caller, &members)?;
    api.blocking(move |api| {
        let draft = draft(api, &members, None)?;
        let customer = draft.wanted().customer.clone();
        refuse_more(api, customer.as_ref())?;
        let mut secret = None;
        let id = draft.id().clone();
        let edited = api.behind.change(&id, true, &mut |stored| {
            if stored.is_some() {
                let detail =
                    format!("the id {id} is taken; change that webhook, or leave `id` out");
                return Err(Problem::new(StatusCode::CONFLICT, detail));
            }
            let resolved = draft
                .clone()
                .create(Timestamp::now())
                .map_err(Problem::of_fields)?;
            Ok(put(resolved, &mut secret, true))
        })?;
        audit::webhook(api, &caller, "webhook.create", &edited);
        let webhook = edited
            .after
            .ok_or_else(|| Problem::no_such("webhook", &id))?;
        let mut response = answer(api, StatusCode::CREATED, &webhook, secret.as_deref());
        if let Ok(path) = HeaderValue::from_str(&format!("{PREFIX}/webhooks/{id}/")) {
            response.headers_mut().insert(header::LOCATION, path);
        }
        Ok(response)
    })
    .await
}

/// Makes what is wanted of what is stored and what is given.
type Build = fn(&Api, &Subscription, &Map<String, Value>) -> Result<Draft, Problem>;

/// Changes an existing webhook; `build` makes what is wanted of what is stored.
async fn change(
    api: Arc<Api>,
    caller: Caller,
    id: String,
    if_match: IfMatch,
    given: Map<String, Value>,
    action: &'static str,
    build: Build,
) -> Result<Response, Problem> {
    let id = id_of(&id)?;
    if given
        .get("id")
        .is_some_and(|given| given.as_str() != Some(&id))
    {
        return Err(Problem::at(
            "/id",
            "the id of a webhook stays; leave it out, or make another webhook",
        ));
    }
    let mut given = given;
    if given.contains_key("customer") {
        confine(&caller, &mut given)?;
    }
    api.blocking(move |api| {
        let mut secret = None;
        let edited = edit(api, &caller, &id, &if_match, action, |stored| {
            let resolved = build(api, stored, &given)?.update(stored, Timestamp::now());
            let resolved = resolved.map_err(Problem::of_fields)?;
            let customer = &resolved.subscription.customer;
            if *customer != stored.customer {
                refuse_more(api, customer.as_ref())?;
            }
            Ok(put(resolved, &mut secret, false))
        })?;
        let webhook = edited
            .after
            .ok_or_else(|| Problem::no_such("webhook", &id))?;
        Ok(answer(api, StatusCode::OK, &webhook, secret.as_deref()))
    })
    .await
}

/// Changes the fields that are given; each is replaced whole, and `***` means "as stored".
#[utoipa::path(patch, path = "/webhooks/{id}/", tag = "webhooks", operation_id = "update_webhook",
    params(
        ("id" = String, Path, description = "the webhook"),
        ("If-Match" = Option<String>, Header, description = "change it only if this is its ETag"),
    ),
    request_body = schema::WebhookPatch,
    responses(
        (status = 200, description = "As it is now", body = schema::Webhook, headers(("ETag" = String, description = "its version"))),
        (status = 400, description = "A field is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is none", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The customer that it is to be of has as many webhooks as it may", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "Another changed it", body = Problem, content_type = "application/problem+json"),
    ))]
pub(in super::super) async fn update_webhook(
    State(api): State<Arc<Api>>,
    Admin(caller): Admin,
    Id(id): Id,
    headers: HeaderMap,
    Json(body): Json,
) -> Result<Response, Problem> {
    let given = object(body)?;
    change(
        api,
        caller,
        id,
        IfMatch::read(&headers),
        given,
        "webhook.update",
        |api, stored, given| draft(api, &merged(stored, given), Some(given)),
    )
    .await
}

/// The stored fields with the given ones in their places.
fn merged(stored: &Subscription, given: &Map<String, Value>) -> Map<String, Value> {
    let Value::Object(mut members) = stored.public_json() else {
        return given.clone();
    };
    for (_, ours) in OTHER_NAMES
        .iter()
        .filter(|(other, _)| given.contains_key(*other))
    {
        members.remove(*ours);
    }
    members.extend(given.clone());
    members
}

/// Replaces all fields; those that are left out get their defaults. The secret, `paused` and `customer` stay where they are left out.
#[utoipa::path(put, path = "/webhooks/{id}/", tag = "webhooks", operation_id = "replace_webhook",
    params(
        ("id" = String, Path, description = "the webhook"),
        ("If-Match" = Option<String>, Header, description = "change it only if this is its ETag"),
    ),
    request_body = schema::WebhookInput,
    responses(
        (status = 200, description = "As it is now", body = schema::Webhook, headers(("ETag" = String, description = "its version"))),
        (status = 400, description = "A field is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is none", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "Another changed it", body = Problem, content_type = "application/problem+json"),
    ))]
pub(in super::super) async fn replace_webhook(
    State(api): State<Arc<Api>>,
    Admin(caller): Admin,
    Id(id): Id,
    headers: HeaderMap,
    Json(body): Json,
) -> Result<Response, Problem> {
    let given = object(body)?;
    change(
        api,
        caller,
        id,
        IfMatch::read(&headers),
        given,
        "webhook.replace",
        |api, stored, given| {
            let mut members = given.clone();
            if let (None, Some(customer)) = (members.get("customer"), &stored.customer) {
                members.insert("customer".into(), customer.as_str().into());
            }
            draft(api, &members, None)
        },
    )
    .await
}

/// Deletes a webhook. Its waiting deliveries end as dropped.
#[utoipa::path(delete, path = "/webhooks/{id}/", tag = "webhooks", operation_id = "delete_webhook",
    params(
        ("id" = String, Path, description = "the webhook"),
        ("If-Match" = Option<String>, Header, description = "delete it only if this is its ETag"),
    ),
    responses(
        (status = 204, description = "It is deleted"),
        (status = 404, description = "There is none", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "Another changed it", body = Problem, content_type = "application/problem+json"),
    ))]
pub(in super::super) async fn delete_webhook(
    State(api): State<Arc<Api>>,
    Admin(caller): Admin,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let if_match = IfMatch::read(&headers);
    api.blocking(move |api| {
        delete(api, &caller, &id_of(&id)?, &if_match)?;
        Ok(StatusCode::NO_CONTENT.into_response())
    })
    .await
}

pub(super) fn delete(
    api: &Api,
    caller: &Caller,
    id: &WebhookId,
    if_match: &IfMatch,
) -> Result<(), Problem> {
    let delete = |_: &Subscription| Ok(Edit::Delete);
    edit(api, caller, id, if_match, "webhook.delete", delete).map(|_| ())
}
