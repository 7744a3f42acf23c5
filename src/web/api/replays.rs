//! Dead letters over HTTP: sent in again by a job of the routers, or marked as done with. A job is its tenant's (promise 7); it outlives
//! the instance that was asked (promise 1).

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::{Caller, Operator, Viewer};
use super::body::{Id, Json, OptionalObject, Query, object, refuse_unknown};
use super::letters::must_see_all;
use super::order::{DiscardInput, Fields, ReplayInput};
use super::paging::{self, Page};
use super::past::{Order, Ordered, Replay, Tenant, Wish};
use super::problem::Problem;
use super::{Api, audit, json};
use crate::token::Role;

/// A letter that was replayed so often, and died each time, is left for somebody to look at.
pub const MOST_REPLAYS: u32 = 5;

/// The routes.
pub(super) fn routes() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(discard_dead_letters))
        .routes(routes!(list_replays, create_replay))
        .routes(routes!(get_replay))
        .routes(routes!(pause_replay))
        .routes(routes!(resume_replay))
        .routes(routes!(cancel_replay))
        .routes(routes!(undo_discard))
}

async fn carry_out(
    api: Arc<Api>,
    caller: Caller,
    order: Order,
    action: &'static str,
) -> Result<Response, Problem> {
    api.blocking(move |api| {
        let ordered = api.behind.past().order(&Tenant::from(&caller), &order)?;
        let Some(replay) = &ordered.replay else {
            return Ok(json(StatusCode::OK, &ordered));
        };
        let after = serde_json::to_value(replay).unwrap_or_default();
        audit::note(api, &caller, action, &replay.id, Value::Null, after);
        Ok(json(StatusCode::ACCEPTED, &ordered))
    })
    .await
}

/// Sends dead letters in again, each with the delivery id that it had: counted first, then worked on by the routers.
#[utoipa::path(post, path = "/replays/", tag = "dead letters", operation_id = "create_replay",
    request_body(content = ReplayInput, description = "which letters, and how; `{}` means all that wait"),
    responses(
        (status = 200, description = "A dry run, or nothing is meant: counted, and nothing begun", body = Ordered),
        (status = 202, description = "It has begun; GET /replays/{id}/ shows its progress", body = Ordered),
        (status = 400, description = "A field is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Another is at work on the same letters", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn create_replay(
    State(api): State<Arc<Api>>,
    Operator(caller): Operator,
    Json(body): Json,
) -> Result<Response, Problem> {
    let members: Map<String, Value> = object(body)?;
    refuse_unknown(&members, ReplayInput::FIELDS)?;
    let fields = Fields(&members);
    let to = fields.text("to")?;
    if to.is_some() && caller.role < Role::Admin {
        // The webhook's headers and credentials go to that URL too, and whoever may not write webhooks may not read those.
        let detail = "another URL gets the webhook's headers and credentials; `to` needs a token of the role admin";
        return Err(Problem::new(StatusCode::FORBIDDEN, detail));
    }
    fields.one_place()?;
    for name in ["topic", "into", "to_webhook"] {
        if fields.text(name)?.is_some() {
            must_see_all(&caller, name)?;
            // Whoever chooses what an event is and where it goes does what producers and writers of webhooks do.
            caller.must_be(Role::Admin)?;
        }
    }
    let order = Order {
        selection: fields.selection()?,
        discard: None,
        never_delivered: fields.never_delivered()?,
        to,
        into: fields.text("into")?,
        to_webhook: fields.text("to_webhook")?,
        again: fields.boolean("again")?,
        rate: fields.number("rate", 1, 1_000_000)?,
        limit: fields.limit()?,
        max_replays: Some(
            fields
                .number("max_replays", 1, 1_000_000)?
                .unwrap_or(MOST_REPLAYS),
        ),
        dry_run: fields.boolean("dry_run")?,
    };
    carry_out(api, caller, order, "replay.create").await
}

/// Marks dead letters as done with. Nothing is deleted: POST /replays/{id}/undo/ takes it back, until their retention ends.
#[utoipa::path(post, path = "/dead-letters/discard/", tag = "dead letters", operation_id = "discard_dead_letters",
    request_body(content = DiscardInput, description = "which letters, and why"),
    responses(
        (status = 200, description = "A dry run, or nothing is meant: counted, and nothing discarded", body = Ordered),
        (status = 202, description = "They are discarded", body = Ordered),
        (status = 400, description = "A field is wrong, or `reason_text` is missing", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "A replay is at work on the same letters", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn discard_dead_letters(
    State(api): State<Arc<Api>>,
    Operator(caller): Operator,
    Json(body): Json,
) -> Result<Response, Problem> {
    let members = object(body)?;
    refuse_unknown(&members, DiscardInput::FIELDS)?;
    let fields = Fields(&members);
    let dry_run = fields.boolean("dry_run")?;
    let why = fields.text("reason_text")?;
    if why.is_none() && !dry_run {
        let detail = "`reason_text` is missing: say why, for whoever asks later";
        return Err(Problem::at("/reason_text", detail));
    }
    let order = Order {
        selection: fields.selection()?,
        discard: Some(why.unwrap_or_default()),
        never_delivered: false,
        to: None,
        into: None,
        to_webhook: None,
        again: false,
        rate: None,
        limit: fields.limit()?,
        max_replays: None,
        dry_run,
    };
    carry_out(api, caller, order, "dead_letters.discard").await
}

/// Replays and discards, newest first.
#[utoipa::path(get, path = "/replays/", tag = "dead letters", operation_id = "list_replays",
    params(
        ("cursor" = Option<String>, Query, description = "`next` or `previous` of a page"),
        ("page_size" = Option<u32>, Query, minimum = 1, maximum = 200, description = "rows of a page; 50"),
    ),
    responses(
        (status = 200, description = "A page", body = Page<Replay>),
        (status = 400, description = "A parameter or the cursor is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The cluster does not answer", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn list_replays(
    State(api): State<Arc<Api>>,
    Viewer(caller): Viewer,
    query: Query,
) -> Result<Response, Problem> {
    query.refuse_unknown(&["cursor", "page_size"])?;
    let size = paging::size(&query)?;
    let scope = format!("replays\n{}", caller.scope());
    let from = api.cursors.read(&scope, query.get("cursor"))?;
    api.blocking(move |api| {
        let found = api.behind.past().replays(&Tenant::from(&caller))?;
        let mut rows: Vec<(String, Replay)> = found
            .into_iter()
            .map(|replay| {
                // Rows are cut in the order of their keys, and the newest comes first.
                let age = i64::MAX - replay.created_at.as_millisecond().max(0);
                (format!("{age:019}/{}", replay.id), replay)
            })
            .collect();
        rows.sort_by(|one, other| one.0.cmp(&other.0));
        let page = paging::cut(rows, &from, size, |from| api.cursors.write(&scope, from));
        Ok(json(StatusCode::OK, &page))
    })
    .await
}

/// One replay or discard, and how far it has come.
#[utoipa::path(get, path = "/replays/{id}/", tag = "dead letters", operation_id = "get_replay",
    params(("id" = String, Path, description = "the replay")),
    responses(
        (status = 200, description = "The replay", body = Replay),
        (status = 404, description = "There is none", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The cluster does not answer", body = Problem, content_type = "application/problem+json"),
    ))]
pub(super) async fn get_replay(
    State(api): State<Arc<Api>>,
    Viewer(caller): Viewer,
    Id(id): Id,
) -> Result<Response, Problem> {
    api.blocking(move |api| {
        let all = api.behind.past().replays(&Tenant::from(&caller))?;
        let found = all.into_iter().find(|replay| replay.id == id);
        let found = found.ok_or_else(|| Problem::no_such("replay", &id))?;
        Ok(json(StatusCode::OK, &found))
    })
    .await
}

async fn wish(
    api: Arc<Api>,
    caller: Caller,
    id: String,
    members: Map<String, Value>,
    wish: Wish,
) -> Result<Response, Problem> {
    refuse_unknown(&members, &[])?;
    api.blocking(move |api| {
        let replay = api.behind.past().wish(&Tenant::from(&caller), &id, wish)?;
        let action = match wish {
            Wish::Pause => "replay.pause",
            Wish::Resume => "replay.resume",
            Wish::Cancel => "replay.cancel",
            Wish::Undo => "dead_letters.undo_discard",
        };
        audit::note(api, &caller, action, &id, Value::Null, Value::Null);
        Ok(json(StatusCode::ACCEPTED, &replay))
    })
    .await
}

/// The four routes that tell what is wanted of a job, which differ in their words only.
macro_rules! wishes {
    ($($(#[doc = $text:literal])+ $name:ident, $path:literal, $id:literal, $conflict:literal, $wish:expr;)*) => {$(
        $(#[doc = $text])+
        #[utoipa::path(post, path = $path, tag = "dead letters", operation_id = $id,
            params(("id" = String, Path, description = "the replay")),
            responses(
                (status = 202, description = "The routers were told; it is done within a batch", body = Replay),
                (status = 400, description = "There is a body, and it is not empty", body = Problem, content_type = "application/problem+json"),
                (status = 404, description = "There is none", body = Problem, content_type = "application/problem+json"),
                (status = 409, description = $conflict, body = Problem, content_type = "application/problem+json"),
                (status = 413, description = "The body is larger than 1 MiB", body = Problem, content_type = "application/problem+json"),
                (status = 415, description = "The body is said not to be JSON", body = Problem, content_type = "application/problem+json"),
            ))]
        pub(super) async fn $name(
            State(api): State<Arc<Api>>,
            Operator(caller): Operator,
            Id(id): Id,
            OptionalObject(members): OptionalObject,
        ) -> Result<Response, Problem> {
            wish(api, caller, id, members, $wish).await
        }
    )*};
}

wishes! {
    /// Stops a replay for now.
    pause_replay, "/replays/{id}/pause/", "pause_replay", "It has ended, or is a command's", Wish::Pause;
    /// Lets a replay go on.
    resume_replay, "/replays/{id}/resume/", "resume_replay", "It has ended, is a command's, or another is at work on the same letters", Wish::Resume;
    /// Ends a replay for good. What was sent stays sent.
    cancel_replay, "/replays/{id}/cancel/", "cancel_replay", "It has ended, or is a command's", Wish::Cancel;
    /// Takes a discard back: its letters wait again.
    undo_discard, "/replays/{id}/undo/", "undo_discard", "It is no discard, or was taken back already", Wish::Undo;
}
