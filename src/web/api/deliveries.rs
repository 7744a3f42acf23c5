//! Deliveries over HTTP, with *webnet*'s routes: what became of each, and another try for one that failed. Confined to the caller's
//! customer (promise 7).

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{Operator, Viewer};
use super::body::{Id, OptionalObject, Query, refuse_unknown};
use super::paging::{self, Page};
use super::past::{
    Delivery, DeliveryFilter, DeliveryPlace, Order, Replay, STATUSES, Selection, Statistics,
    Tenant, Told,
};
use super::problem::Problem;
use super::{Api, audit, json};

/// The routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(list_deliveries))
        .routes(routes!(get_delivery))
        .routes(routes!(retry_delivery))
        .routes(routes!(webhook_stats))
        .routes(routes!(stats))
}

/// A time of a query, RFC 3339, as Unix milliseconds.
pub(super) fn time(query: &Query, name: &str) -> Result<Option<i64>, Problem> {
    let Some(text) = query.get(name) else {
        return Ok(None);
    };
    // A `+` of an offset that was not escaped arrives as a space.
    let text = text.replace(' ', "+");
    match text.parse::<jiff::Timestamp>() {
        Ok(time) => Ok(Some(time.as_millisecond())),
        Err(_) => Err(Problem::of_parameter(
            name,
            "it must be a time such as 2026-03-01T12:00:00Z",
        )),
    }
}

/// A word of a query. No id or type holds control characters, and PostgreSQL takes no NUL.
fn word(query: &Query, name: &str) -> Result<Option<String>, Problem> {
    match query.get(name) {
        Some(text) if text.contains(char::is_control) => Err(Problem::of_parameter(
            name,
            "it must be text without control characters",
        )),
        text => Ok(text.map(str::to_owned)),
    }
}

fn status(query: &Query) -> Result<Option<String>, Problem> {
    match query.get("status") {
        Some(word) if !STATUSES.contains(&word) => Err(Problem::of_parameter(
            "status",
            format!("it must be one of {}", STATUSES.join(", ")),
        )),
        word => Ok(word.map(str::to_owned)),
    }
}

fn key_of((time, id): &DeliveryPlace) -> String {
    format!("{time}/{id}")
}

fn place_of(key: &str) -> Option<DeliveryPlace> {
    let (time, id) = key.split_once('/')?;
    Some((time.parse().ok()?, id.to_owned()))
}

/// Deliveries, newest first. A delivery is listed from its first attempt on.
#[utoipa::path(get, path = "/webhook-deliveries/", tag = "deliveries", operation_id = "list_deliveries",
    params(
        ("cursor" = Option<String>, Query, description = "`next` or `previous` of a page"),
        ("page_size" = Option<u32>, Query, minimum = 1, maximum = 200, description = "rows of a page; 50"),
        ("webhook" = Option<String>, Query, description = "only of this webhook"),
        ("status" = Option<String>, Query, description = "only in this status: pending retrying success failed held dropped"),
        ("event_type" = Option<String>, Query, description = "only of this event type"),
        ("since" = Option<String>, Query, format = DateTime, description = "only those made at this time or later"),
        ("until" = Option<String>, Query, format = DateTime, description = "only those made before this time"),
        ("customer" = Option<String>, Query, description = "only of this customer"),
    ),
    responses(
        (status = 200, description = "A page; `previous` is null on the first, though the list grows there", body = Page<Delivery>),
        (status = 400, description = "A parameter or the cursor is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "There is no history (history.store), or its database is away", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn list_deliveries(
    State(api): State<Arc<Api>>,
    Viewer(caller): Viewer,
    query: Query,
) -> Result<Response, Problem> {
    query.refuse_unknown(&[
        "cursor",
        "page_size",
        "webhook",
        "status",
        "event_type",
        "since",
        "until",
        "customer",
    ])?;
    let size = paging::size(&query)?;
    let filter = DeliveryFilter {
        customer: word(&query, "customer")?,
        webhook: word(&query, "webhook")?,
        status: status(&query)?,
        event_type: word(&query, "event_type")?,
        since_ms: time(&query, "since")?,
        until_ms: time(&query, "until")?,
    };
    let scope = format!(
        "deliveries\n{}\n{}",
        caller.scope(),
        query.without(&["cursor", "page_size"])
    );
    let from = api.cursors.read(&scope, query.get("cursor"))?.at(place_of);
    let tenant = Tenant::from(&caller);
    api.blocking(move |api| {
        let past = api.behind.past();
        let found = past.deliveries(&tenant, &filter, from, size)?;
        let page = api.cursors.page(&scope, found, key_of);
        Ok(json(StatusCode::OK, &page))
    })
    .await
}

/// One delivery with every attempt.
#[utoipa::path(get, path = "/webhook-deliveries/{id}/", tag = "deliveries", operation_id = "get_delivery",
    params(("id" = String, Path, description = "the delivery")),
    responses(
        (status = 200, description = "The delivery", body = Told),
        (status = 404, description = "There is none, or it was not attempted yet", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "There is no history (history.store), or its database is away", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn get_delivery(
    State(api): State<Arc<Api>>,
    Viewer(caller): Viewer,
    Id(id): Id,
) -> Result<Response, Problem> {
    let tenant = Tenant::from(&caller);
    api.blocking(move |api| {
        let told = api.behind.past().delivery(&tenant, &id)?;
        let told = told.ok_or_else(|| Problem::no_such("delivery", &id))?;
        Ok(json(StatusCode::OK, &told))
    })
    .await
}

/// Sends a delivery that failed once more, with its id and all its attempts anew.
#[utoipa::path(post, path = "/webhook-deliveries/{id}/retry/", tag = "deliveries", operation_id = "retry_delivery",
    params(("id" = String, Path, description = "the delivery")),
    responses(
        (status = 202, description = "A replay of this delivery alone is under way", body = Replay),
        (status = 400, description = "There is a body, and it is not empty", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is none", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It did not fail, or was sent once more already", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is larger than 1 MiB", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is said not to be JSON", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn retry_delivery(
    State(api): State<Arc<Api>>,
    Operator(caller): Operator,
    Id(id): Id,
    OptionalObject(members): OptionalObject,
) -> Result<Response, Problem> {
    refuse_unknown(&members, &[])?;
    let tenant = Tenant::from(&caller);
    api.blocking(move |api| {
        let past = api.behind.past();
        let conflict = |detail: String| Err(Problem::new(StatusCode::CONFLICT, detail));
        let is_known = if past.has_history() {
            match past.delivery(&tenant, &id)?.map(|told| told.delivery) {
                Some(delivery) => match why_not(&delivery) {
                    Some(why) => return conflict(why),
                    None => true,
                },
                None => false,
            }
        } else {
            false
        };
        let ordered = past.order(&tenant, &order_of(&id))?;
        if let Some(replay) = ordered.replay {
            audit::note(api, &caller, "delivery.retry", &id, Value::Null, replay.id.as_str().into());
            return Ok(json(StatusCode::ACCEPTED, &replay));
        }
        let counts = ordered.counts;
        if counts.done_before > 0 {
            return conflict("it was sent once more, or discarded, after it failed; see /replays/".into());
        }
        if counts.not_replayable > 0 {
            return conflict("its body was cut to fit into the dead-letter topic, so it cannot be sent; send its event again".into());
        }
        if is_known {
            return conflict("its dead letter is not in the topic any more (retry.dead_letter_retention_days), or not yet; send its event again".into());
        }
        Err(Problem::no_such("delivery", &id))
    })
    .await
}

/// Why a delivery is not to be retried by hand; `None` when it is.
fn why_not(delivery: &Delivery) -> Option<String> {
    match delivery.status.as_str() {
        "failed" => None,
        "success" => Some("its receiver has it; there is nothing to retry".to_owned()),
        "held" => {
            Some("it is held because its webhook is paused or down; resume the webhook".to_owned())
        }
        "dropped" => Some("its webhook was deleted".to_owned()),
        _ => Some(match delivery.next_attempt_at {
            Some(at) => format!("it is attempted again at {at} by itself"),
            None => "it is under way".to_owned(),
        }),
    }
}

fn order_of(id: &str) -> Order {
    Order {
        selection: Selection {
            delivery: Some(id.to_owned()),
            ..Selection::default()
        },
        discard: None,
        never_delivered: false,
        to: None,
        into: None,
        to_webhook: None,
        again: false,
        rate: None,
        limit: None,
        // Somebody asked for this one: no loop of a program.
        max_replays: None,
        dry_run: false,
    }
}

fn statistics_filter(query: &Query, webhook: Option<String>) -> Result<DeliveryFilter, Problem> {
    Ok(DeliveryFilter {
        webhook,
        customer: word(query, "customer")?,
        event_type: word(query, "event_type")?,
        since_ms: time(query, "since")?,
        until_ms: time(query, "until")?,
        status: None,
    })
}

async fn statistics(
    api: Arc<Api>,
    tenant: Tenant,
    filter: DeliveryFilter,
) -> Result<Response, Problem> {
    api.blocking(move |api| {
        let found = api.behind.past().statistics(&tenant, &filter)?;
        Ok(json(StatusCode::OK, &found))
    })
    .await
}

/// What became of a webhook's deliveries.
#[utoipa::path(get, path = "/webhooks/{id}/stats/", tag = "deliveries", operation_id = "webhook_stats",
    params(
        ("id" = String, Path, description = "the webhook"),
        ("event_type" = Option<String>, Query, description = "only of this event type"),
        ("since" = Option<String>, Query, format = DateTime, description = "only those made at this time or later"),
        ("until" = Option<String>, Query, format = DateTime, description = "only those made before this time"),
    ),
    responses(
        (status = 200, description = "The figures", body = Statistics),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is none", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "There is no history (history.store), or its database is away", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn webhook_stats(
    State(api): State<Arc<Api>>,
    Viewer(caller): Viewer,
    Id(id): Id,
    query: Query,
) -> Result<Response, Problem> {
    query.refuse_unknown(&["event_type", "since", "until"])?;
    let webhook = api.behind.webhook(&id);
    if !webhook.is_some_and(|webhook| caller.sees(&webhook)) {
        return Err(Problem::no_such("webhook", &id));
    }
    let filter = statistics_filter(&query, Some(id))?;
    statistics(api, Tenant::from(&caller), filter).await
}

/// What became of all deliveries.
#[utoipa::path(get, path = "/stats/", tag = "deliveries", operation_id = "stats",
    params(
        ("event_type" = Option<String>, Query, description = "only of this event type"),
        ("since" = Option<String>, Query, format = DateTime, description = "only those made at this time or later"),
        ("until" = Option<String>, Query, format = DateTime, description = "only those made before this time"),
        ("customer" = Option<String>, Query, description = "only of this customer"),
    ),
    responses(
        (status = 200, description = "The figures", body = Statistics),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "There is no history (history.store), or its database is away", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn stats(
    State(api): State<Arc<Api>>,
    Viewer(caller): Viewer,
    query: Query,
) -> Result<Response, Problem> {
    query.refuse_unknown(&["event_type", "since", "until", "customer"])?;
    let filter = statistics_filter(&query, None)?;
    statistics(api, Tenant::from(&caller), filter).await
}
