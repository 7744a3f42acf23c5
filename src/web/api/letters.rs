//! Dead letters over HTTP, listed and counted: our own, and for those who see everything those of other programs.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{Caller, Viewer};
use super::body::Query;
use super::deliveries::time;
use super::paging;
use super::past::{DeadLetter, LetterPlace, Selection, Tenant};
use super::problem::Problem;
use super::{Api, json};

const FATES: [&str; 4] = ["waiting", "replayed", "discarded", "all"];

/// The routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(list_dead_letters))
}

/// A page of dead letters.
#[derive(Serialize, ToSchema)]
pub(super) struct LetterPage {
    /// Cursor of the next page; null on the last.
    next: Option<String>,
    /// Cursor of the page before; null on the first.
    previous: Option<String>,
    /// Newest first.
    results: Vec<DeadLetter>,
    /// All that are meant, on whatever page.
    total: u64,
    /// The same by reason.
    by_reason: BTreeMap<String, u64>,
}

fn key_of(place: &LetterPlace) -> String {
    format!("{}/{}/{}", place.0, place.1, place.2)
}

fn place_of(key: &str) -> Option<LetterPlace> {
    let mut parts = key.splitn(3, '/');
    let time = parts.next()?.parse().ok()?;
    let partition = parts.next()?.parse().ok()?;
    Some((time, partition, parts.next()?.parse().ok()?))
}

/// Dead letters, newest first, with counts by reason. They are read from the dead-letter topic itself, so they are there without a
/// history too.
#[utoipa::path(get, path = "/dead-letters/", tag = "dead letters", operation_id = "list_dead_letters",
    params(
        ("cursor" = Option<String>, Query, description = "`next` or `previous` of a page"),
        ("page_size" = Option<u32>, Query, minimum = 1, maximum = 200, description = "rows of a page; 50"),
        ("webhook" = Option<String>, Query, description = "only of this webhook"),
        ("event_type" = Option<String>, Query, description = "only of this event type; a `*` at the end stands for any rest"),
        ("reason" = Option<String>, Query, description = "only those that died for this reason"),
        ("status" = Option<u16>, Query, minimum = 100, maximum = 599, description = "only with this last HTTP status"),
        ("since" = Option<String>, Query, format = DateTime, description = "only those that died at this time or later"),
        ("until" = Option<String>, Query, format = DateTime, description = "only those that died before this time"),
        ("delivery" = Option<String>, Query, description = "only of this delivery"),
        ("fate" = Option<String>, Query, description = "waiting (what nothing is said), replayed, discarded or all"),
        ("topic" = Option<String>, Query, description = "in this dead-letter topic of another program, such as Kafka Connect or Spring Kafka; needs a token of all customers"),
    ),
    responses(
        (status = 200, description = "A page", body = LetterPage),
        (status = 400, description = "A parameter or the cursor is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The cluster does not answer, or many ask at the same time", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn list_dead_letters(
    State(api): State<Arc<Api>>,
    Viewer(caller): Viewer,
    query: Query,
) -> Result<Response, Problem> {
    query.refuse_unknown(&[
        "cursor",
        "page_size",
        "webhook",
        "event_type",
        "reason",
        "status",
        "since",
        "until",
        "delivery",
        "fate",
        "topic",
    ])?;
    if query.get("topic").is_some() {
        must_see_all(&caller, "topic")?;
    }
    let size = paging::size(&query)?;
    let fate = query.get("fate").unwrap_or("waiting");
    if !FATES.contains(&fate) {
        let detail = format!("it must be one of {}", FATES.join(", "));
        return Err(Problem::of_parameter("fate", detail));
    }
    let fate = (fate != "all").then(|| fate.to_owned());
    let selection = selection(&query)?;
    let scope = format!(
        "dead-letters\n{}\n{}",
        caller.scope(),
        query.without(&["cursor", "page_size"])
    );
    let from = api.cursors.read(&scope, query.get("cursor"))?.at(place_of);
    let tenant = Tenant::from(&caller);
    api.blocking(move |api| {
        let past = api.behind.past();
        let found = past.dead_letters(&tenant, &selection, fate.as_deref(), from, size)?;
        let page = api.cursors.page(&scope, found.slice, key_of);
        let page = LetterPage {
            next: page.next,
            previous: page.previous,
            results: page.results,
            total: found.total,
            by_reason: found.by_reason,
        };
        Ok(json(StatusCode::OK, &page))
    })
    .await
}

fn selection(query: &Query) -> Result<Selection, Problem> {
    let status = match query.get("status") {
        None => None,
        Some(text) => {
            let status = text.parse().ok().filter(|code| (100..600).contains(code));
            Some(status.ok_or_else(|| {
                Problem::of_parameter("status", "it must be an HTTP status, 100 to 599")
            })?)
        }
    };
    let text = |name: &str| query.get(name).map(str::to_owned);
    let selection = Selection {
        webhook: text("webhook"),
        event_type: text("event_type"),
        reason: text("reason"),
        status,
        since_ms: time(query, "since")?,
        until_ms: time(query, "until")?,
        delivery: text("delivery"),
        topic: text("topic"),
    };
    match super::order::fault(&selection) {
        Some((name, why)) => Err(Problem::of_parameter(name, why)),
        None => Ok(selection),
    }
}

/// Other programs' records are of no customer that we would know.
pub(super) fn must_see_all(caller: &Caller, name: &str) -> Result<(), Problem> {
    if caller.customer.is_none() {
        return Ok(());
    }
    let detail = format!("`{name}` needs a token of all customers");
    Err(Problem::new(StatusCode::FORBIDDEN, detail))
}
