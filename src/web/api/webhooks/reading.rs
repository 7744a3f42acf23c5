//! Webhooks that are looked at. Every list holds the caller's webhooks and no others (promise 7).

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::super::auth::{Caller, Viewer};
use super::super::body::{Id, Query};
use super::super::paging::{self, Page};
use super::super::problem::Problem;
use super::super::{Api, etag, json, schema};
use super::{answer, found, shown};
use crate::event::KNOWN_TYPES;
use crate::subscription::Subscription;

/// How often a tag or a type is named.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct TagCount {
    /// The tag.
    #[schema(example = "slack")]
    tag: String,
    /// Webhooks that have it.
    webhooks: usize,
}

/// An event type, or a pattern of them.
#[derive(Serialize, ToSchema)]
pub(in super::super) struct EventTypeCount {
    /// The type or pattern.
    #[schema(example = "job.failed")]
    event_type: String,
    /// Webhooks that name it just so.
    webhooks: usize,
    /// Whether it is one of the types that Postrider has samples of.
    known: bool,
}

fn own(api: &Api, caller: &Caller) -> Vec<Arc<Subscription>> {
    let mut webhooks = api.behind.webhooks();
    webhooks.retain(|webhook| caller.sees(webhook));
    webhooks
}

/// Webhooks, oldest first.
#[utoipa::path(get, path = "/webhooks/", tag = "webhooks", operation_id = "list_webhooks",
    params(
        ("cursor" = Option<String>, Query, description = "`next` or `previous` of a page"),
        ("page_size" = Option<u32>, Query, minimum = 1, maximum = 200, description = "rows of a page; 50"),
        ("enabled" = Option<bool>, Query, description = "only those that are, or are not"),
        ("state" = Option<schema::State>, Query, description = "only those in this state"),
        ("tag" = Option<String>, Query, description = "only those with this tag"),
        ("event_type" = Option<String>, Query, description = "only those that name this type or pattern"),
        ("customer" = Option<String>, Query, description = "only those of this customer"),
        ("search" = Option<String>, Query, description = "only those whose name, description or host has this text"),
    ),
    responses(
        (status = 200, description = "A page", body = Page<schema::Webhook>),
        (status = 400, description = "A parameter or the cursor is wrong", body = Problem, content_type = "application/problem+json"),
    ))]
pub(in super::super) async fn list_webhooks(
    State(api): State<Arc<Api>>,
    Viewer(caller): Viewer,
    query: Query,
) -> Result<Response, Problem> {
    query.refuse_unknown(&[
        "cursor",
        "page_size",
        "enabled",
        "state",
        "tag",
        "event_type",
        "customer",
        "search",
    ])?;
    let size = paging::size(&query)?;
    let enabled = query.boolean("enabled")?;
    let state = query.get("state");
    if state.is_some_and(|state| !schema::State::WORDS.contains(&state)) {
        let detail = format!("it must be one of {}", schema::State::WORDS.join(", "));
        return Err(Problem::of_parameter("state", detail));
    }
    let scope = format!(
        "webhooks\n{}\n{}",
        caller.scope(),
        query.without(&["cursor", "page_size"])
    );
    let from = api.cursors.read(&scope, query.get("cursor"))?;
    let search = query.get("search").map(str::to_lowercase);
    let wanted = |webhook: &Subscription| {
        enabled.is_none_or(|enabled| webhook.enabled == enabled)
            && state.is_none_or(|state| api.behind.state(webhook) == state)
            && query
                .get("tag")
                .is_none_or(|tag| webhook.tags.iter().any(|found| found == tag))
            && query
                .get("event_type")
                .is_none_or(|wanted| webhook.event_types.iter().any(|found| found == wanted))
            && query
                .get("customer")
                .is_none_or(|wanted| webhook.customer.as_deref() == Some(wanted))
            && search.as_deref().is_none_or(|text| {
                let host = webhook.url.host_str().unwrap_or_default();
                [&webhook.name, &webhook.description, host]
                    .iter()
                    .any(|place| place.to_lowercase().contains(text))
            })
    };
    let mut rows: Vec<(String, Arc<Subscription>)> = own(&api, &caller)
        .into_iter()
        .filter(|webhook| wanted(webhook))
        .map(|webhook| {
            let millis = webhook.created_at.as_millisecond().max(0);
            (format!("{millis:016}/{}", webhook.id), webhook)
        })
        .collect();
    rows.sort_by(|one, other| one.0.cmp(&other.0));
    let page = paging::cut(rows, &from, size, |from| api.cursors.write(&scope, from));
    api.blocking(move |api| {
        let webhooks: Vec<&Subscription> = page.results.iter().map(AsRef::as_ref).collect();
        let standings = api.behind.standings(&webhooks);
        let results = webhooks.iter().zip(&standings);
        let page = Page {
            next: page.next,
            previous: page.previous,
            results: results
                .map(|(webhook, standing)| shown(webhook, standing))
                .collect(),
        };
        Ok(json(StatusCode::OK, &page))
    })
    .await
}

/// One webhook.
#[utoipa::path(get, path = "/webhooks/{id}/", tag = "webhooks", operation_id = "get_webhook",
    params(
        ("id" = String, Path, description = "the webhook"),
        ("If-None-Match" = Option<String>, Header, description = "an ETag that is known already"),
    ),
    responses(
        (status = 200, description = "The webhook", body = schema::Webhook, headers(("ETag" = String, description = "its version"))),
        (status = 304, description = "It is as If-None-Match says"),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is none", body = Problem, content_type = "application/problem+json"),
    ))]
pub(in super::super) async fn get_webhook(
    State(api): State<Arc<Api>>,
    Viewer(caller): Viewer,
    Id(id): Id,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    query.refuse_unknown(&[])?;
    let webhook = found(&api, &caller, &id)?;
    if etag::is_known(&headers, &webhook) {
        return Ok((
            StatusCode::NOT_MODIFIED,
            [(header::ETAG, etag::of(&webhook))],
        )
            .into_response());
    }
    api.blocking(move |api| Ok(answer(api, StatusCode::OK, &webhook, None)))
        .await
}

/// The tags that webhooks have.
#[utoipa::path(get, path = "/webhooks/tags/", tag = "webhooks", operation_id = "list_tags",
    responses(
        (status = 200, description = "Every tag, by name", body = Page<TagCount>),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
    ))]
pub(in super::super) async fn list_tags(
    State(api): State<Arc<Api>>,
    Viewer(caller): Viewer,
    query: Query,
) -> Result<Response, Problem> {
    query.refuse_unknown(&[])?;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for webhook in own(&api, &caller) {
        for tag in &webhook.tags {
            *counts.entry(tag.clone()).or_default() += 1;
        }
    }
    let results = counts
        .into_iter()
        .map(|(tag, webhooks)| TagCount { tag, webhooks });
    Ok(whole(results.collect()))
}

/// The event types that Postrider knows, and those that webhooks name.
#[utoipa::path(get, path = "/event-types/", tag = "events", operation_id = "list_event_types",
    responses(
        (status = 200, description = "Every type and pattern, by name", body = Page<EventTypeCount>),
        (status = 400, description = "A parameter is wrong", body = Problem, content_type = "application/problem+json"),
    ))]
pub(in super::super) async fn list_event_types(
    State(api): State<Arc<Api>>,
    Viewer(caller): Viewer,
    query: Query,
) -> Result<Response, Problem> {
    query.refuse_unknown(&[])?;
    let mut counts: BTreeMap<String, usize> = KNOWN_TYPES
        .iter()
        .map(|known| ((*known).to_owned(), 0))
        .collect();
    for webhook in own(&api, &caller) {
        for event_type in &webhook.event_types {
            *counts.entry(event_type.clone()).or_default() += 1;
        }
    }
    let results = counts
        .into_iter()
        .map(|(event_type, webhooks)| EventTypeCount {
            known: KNOWN_TYPES.contains(&event_type.as_str()),
            event_type,
            webhooks,
        });
    Ok(whole(results.collect()))
}

fn whole<T: Serialize>(results: Vec<T>) -> Response {
    let page = Page {
        next: None,
        previous: None,
        results,
    };
    json(StatusCode::OK, &page)
}
