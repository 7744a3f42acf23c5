//! What the API is told of the past: from the history's database, and from the dead-letter and replays topics themselves.
//!
//! Promise 7: a tenant becomes a history's [`Scope`], or a letter's filter by customer and by the webhooks that are the tenant's now. A letter
//! whose webhook was deleted is for unscoped callers only: nothing can be sent for it.

mod letters;
mod window;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use axum::http::StatusCode;
use jiff::Timestamp;
use serde_json::Value;
use tracing::warn;

use super::health::Running;
use crate::history::query::{Begin, Cursor, DeliveryFilter as Wanted};
use crate::history::rows::{AttemptRow, DeliveryRow};
use crate::history::webhook_queries::Recent;
use crate::history::{Fault, Scope, Store};
use crate::outbound::guard::Guard;
use crate::pipeline::replaying::{Error, Replaying};
use crate::subscription::Subscription;
use crate::web::api::paging::{From, Slice};
use crate::web::api::past::{
    Attempt, Delivery, DeliveryFilter, DeliveryPlace, LetterPlace, Letters, Order, Ordered, Past,
    Replay, ResponseTimes, Selection, Statistics, Tenant, Told, Wish,
};
use crate::web::api::problem::Problem;

/// What the past is read from.
pub(super) struct Known {
    pub(super) running: Arc<Running>,
    pub(super) replaying: Replaying,
    pub(super) guard: Guard,
    /// Readings of the dead-letter topic that are under way.
    pub(super) readings: AtomicUsize,
}

fn scope(tenant: &Tenant) -> Scope {
    match &tenant.0 {
        Some(customer) => Scope::Customer(customer.to_string()),
        None => Scope::All,
    }
}

/// A time that a record carries; the beginning of time where it is none.
pub(super) fn time(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn away(fault: &Fault) -> Problem {
    warn!(%fault, "the history could not be asked");
    Problem::unavailable("the history cannot be asked now; the log of the router says why")
}

fn unavailable(fault: &Error) -> Problem {
    warn!(%fault, "the dead letters or replays could not be asked");
    Problem::unavailable("the cluster does not answer as it should; the log of the router says why")
}

fn conflict(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::CONFLICT, detail)
}

impl Known {
    fn store(&self) -> Result<&Arc<Store>, Problem> {
        let writer = self.running.history.as_ref();
        writer.map(|writer| writer.store()).ok_or_else(|| {
            Problem::unavailable(
                "there is no history: history.store is \"none\"; name a store there (sqlite:PATH or postgres://…), and `postrider history rebuild` reads what the topics hold",
            )
        })
    }
}

impl Known {
    /// How webhooks stand, by their ids; empty where there is no history, or it is away: a page of webhooks does not wait for it.
    pub(super) fn recent(&self, webhooks: &[&Subscription]) -> BTreeMap<String, Recent> {
        let writer = self.running.history.as_ref();
        let Some(writer) = writer.filter(|writer| !writer.is_away()) else {
            return BTreeMap::new();
        };
        let ids: Vec<&str> = webhooks.iter().map(|webhook| webhook.id.as_str()).collect();
        writer.store().recent(&ids).unwrap_or_else(|fault| {
            warn!(%fault, "the history could not be asked how webhooks stand");
            BTreeMap::new()
        })
    }
}

fn wanted(filter: &DeliveryFilter) -> Result<Wanted, Problem> {
    let status = filter.status.as_deref().map(str::parse).transpose();
    Ok(Wanted {
        customer: filter.customer.clone(),
        webhook: filter.webhook.clone(),
        status: status.map_err(|why: String| Problem::of_parameter("status", why))?,
        event_type: filter.event_type.clone(),
        since_ms: filter.since_ms,
        until_ms: filter.until_ms,
    })
}

fn delivery(row: DeliveryRow) -> Delivery {
    Delivery {
        id: row.id,
        webhook: row.webhook,
        customer: row.customer,
        event_type: row.event_type,
        status: row.status.as_str().to_owned(),
        attempts: row.attempts,
        last_status: row.last_status,
        created_at: time(row.created_at_ms),
        updated_at: time(row.updated_at_ms),
        next_attempt_at: row.next_attempt_at_ms.map(time),
        error_message: row.error_message,
        reason: row.reason,
        replay_id: row.replay_id,
        source: row.source,
    }
}

fn attempt(row: AttemptRow) -> Attempt {
    let object = |text: Option<String>| {
        let parsed = text.and_then(|text| serde_json::from_str(&text).ok());
        parsed.unwrap_or(Value::Null)
    };
    Attempt {
        number: row.number,
        started_at: time(row.started_at_ms),
        duration_ms: row.duration_us as f64 / 1000.0,
        outcome: row.outcome,
        status: row.status,
        error_message: row.error_message,
        request_headers: object(row.request_headers),
        response_headers: object(row.response_headers),
        response_body: row.response_body,
        replay_id: row.replay_id,
    }
}

impl Past for Known {
    fn deliveries(
        &self,
        tenant: &Tenant,
        filter: &DeliveryFilter,
        from: From<DeliveryPlace>,
        size: usize,
    ) -> Result<Slice<DeliveryPlace, Delivery>, Problem> {
        let from = match from {
            From::Start => Begin::Newest,
            From::After((created_at_ms, id)) => Begin::OlderThan(Cursor { created_at_ms, id }),
            From::Before((created_at_ms, id)) => Begin::NewerThan(Cursor { created_at_ms, id }),
        };
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        let store = self.store()?;
        let page = store.deliveries(&scope(tenant), &wanted(filter)?, &from, size);
        let page = page.map_err(|fault| away(&fault))?;
        let placed = |row: DeliveryRow| ((row.created_at_ms, row.id.clone()), delivery(row));
        Ok(Slice {
            rows: page.rows.into_iter().map(placed).collect(),
            has_before: page.has_newer,
            has_after: page.has_older,
        })
    }

    fn delivery(&self, tenant: &Tenant, id: &str) -> Result<Option<Told>, Problem> {
        let store = self.store()?;
        // No id has them, and PostgreSQL takes no NUL.
        if id.contains(char::is_control) {
            return Ok(None);
        }
        let told = store.delivery(&scope(tenant), id);
        let told = told.map_err(|fault| away(&fault))?;
        Ok(told.map(|told| Told {
            delivery: delivery(told.delivery),
            tries: told.attempts.into_iter().map(attempt).collect(),
        }))
    }

    fn statistics(&self, tenant: &Tenant, filter: &DeliveryFilter) -> Result<Statistics, Problem> {
        let found = self.store()?.statistics(&scope(tenant), &wanted(filter)?);
        let found = found.map_err(|fault| away(&fault))?;
        let times = found.response_times;
        Ok(Statistics {
            total: found.total,
            success: found.success,
            failure: found.failure,
            success_rate: found.success_rate,
            last_triggered_at: found.last_triggered_at_ms.map(time),
            by_status: found
                .by_status
                .into_iter()
                .map(|(status, count)| (status.to_owned(), count))
                .collect(),
            response_times: ResponseTimes {
                attempts: times.attempts,
                average_ms: times.average,
                p50_ms: times.p50,
                p95_ms: times.p95,
            },
        })
    }

    fn has_history(&self) -> bool {
        self.running.history.is_some()
    }

    fn dead_letters(
        &self,
        tenant: &Tenant,
        selection: &Selection,
        fate: Option<&str>,
        from: From<LetterPlace>,
        size: usize,
    ) -> Result<Letters, Problem> {
        self.read_letters(tenant, selection, fate, from, size)
    }

    fn order(&self, tenant: &Tenant, order: &Order) -> Result<Ordered, Problem> {
        self.carry_out(tenant, order)
    }

    fn replays(&self, tenant: &Tenant) -> Result<Vec<Replay>, Problem> {
        let jobs = self.replaying.jobs().map_err(|fault| unavailable(&fault))?;
        let mut jobs = jobs.0;
        jobs.retain(|job| letters::is_of(tenant, job));
        jobs.sort_by_key(|job| job.created_at_ms);
        Ok(jobs.into_iter().map(letters::replay).collect())
    }

    fn wish(&self, tenant: &Tenant, id: &str, wish: Wish) -> Result<Replay, Problem> {
        self.tell(tenant, id, wish)
    }
}
