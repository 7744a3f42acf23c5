//! Many webhooks deleted by one request, or said which it would be. Each is a change of its own: what fails is told and the rest
//! holds.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::super::auth::Admin;
use super::super::body::{Json, object, refuse_unknown};
use super::super::etag::IfMatch;
use super::super::problem::Problem;
use super::super::{Api, json, schema};
use super::id_of;
use super::writing::delete;

/// Webhooks that one request may delete.
const MOST_DELETED: usize = 500;
/// Deletions that wait for the topic at a time.
const DELETED_AT_A_TIME: usize = 8;

/// What became of many.
#[derive(Default, Serialize, ToSchema)]
pub(in super::super) struct BulkDeleted {
    /// True: nothing was deleted; `deleted` are those that would be.
    dry_run: bool,
    /// Ids of those that are deleted.
    deleted: Vec<String>,
    /// Ids of which there are no webhooks.
    not_found: Vec<String>,
    /// Ids that could not be deleted; ask again.
    failed: Vec<String>,
}

/// Deletes many webhooks, or says which it would.
#[utoipa::path(post, path = "/webhooks/bulk-delete/", tag = "webhooks", operation_id = "bulk_delete_webhooks",
    request_body = schema::BulkDelete,
    responses(
        (status = 200, description = "What became of each", body = BulkDeleted),
        (status = 400, description = "A field is wrong", body = Problem, content_type = "application/problem+json"),
    ))]
pub(in super::super) async fn bulk_delete_webhooks(
    State(api): State<Arc<Api>>,
    Admin(caller): Admin,
    Json(body): Json,
) -> Result<Response, Problem> {
    let members = object(body)?;
    refuse_unknown(&members, &["ids", "dry_run"])?;
    let dry_run = match members.get("dry_run") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(dry_run)) => *dry_run,
        Some(_) => return Err(Problem::at("/dry_run", "`dry_run` must be true or false")),
    };
    let ids = members
        .get("ids")
        .and_then(Value::as_array)
        .filter(|ids| (1..=MOST_DELETED).contains(&ids.len()));
    let ids = ids.ok_or_else(|| {
        Problem::at(
            "/ids",
            format!("`ids` must be a list of 1 to {MOST_DELETED} webhook ids"),
        )
    })?;
    let mut wanted = std::collections::BTreeSet::new();
    for (position, id) in ids.iter().enumerate() {
        let id = id
            .as_str()
            .ok_or_else(|| Problem::at(&format!("/ids/{position}"), "a webhook id is text"))?;
        wanted.insert(id.to_owned());
    }
    api.blocking(move |api| {
        let (there, absent): (Vec<String>, Vec<String>) = wanted
            .into_iter()
            .partition(|id| super::found(api, &caller, id).is_ok());
        let mut done = BulkDeleted {
            dry_run,
            not_found: absent,
            ..BulkDeleted::default()
        };
        if dry_run {
            done.deleted = there;
            return Ok(json(StatusCode::OK, &done));
        }
        for some in there.chunks(DELETED_AT_A_TIME) {
            let results: Vec<bool> = std::thread::scope(|scope| {
                let caller = &caller;
                let running: Vec<_> = some
                    .iter()
                    .map(|id| {
                        scope.spawn(move || delete(api, caller, &id_of(id)?, &IfMatch::Absent))
                    })
                    .collect();
                running
                    .into_iter()
                    .map(|one| matches!(one.join(), Ok(Ok(()))))
                    .collect()
            });
            for (id, deleted) in some.iter().zip(results) {
                if deleted {
                    &mut done.deleted
                } else {
                    &mut done.failed
                }
                .push(id.clone());
            }
        }
        Ok(json(StatusCode::OK, &done))
    })
    .await
}
