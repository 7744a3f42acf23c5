//! What became of deliveries, in the API's words: forms, and what is asked of whoever stands behind the API.
//!
//! Promise 7: every question takes the [`Tenant`] that asks, so that none can forget it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::auth::Caller;
use super::paging::{self, Slice};
use super::problem::Problem;
use crate::subscription::Customer;

/// Whose data may be seen: one customer's, or everybody's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant(pub Option<Customer>);

impl From<&Caller> for Tenant {
    fn from(caller: &Caller) -> Self {
        Self(caller.customer.clone())
    }
}

/// The words for where a delivery is.
pub const STATUSES: [&str; 6] = [
    "pending", "retrying", "success", "failed", "held", "dropped",
];

/// A delivery.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Delivery {
    /// The `webhook-id` that the receiver saw.
    #[schema(example = "dlv_3f0c8a5b7e1d4c2fa9b6")]
    pub id: String,
    /// The webhook.
    pub webhook: String,
    /// The webhook's customer.
    pub customer: Option<String>,
    /// The event's type.
    #[schema(example = "job.failed")]
    pub event_type: String,
    /// `pending retrying success failed held dropped`.
    #[schema(example = "success")]
    pub status: String,
    /// Attempts so far, since the last replay.
    pub attempts: u32,
    /// The last answer's HTTP status.
    pub last_status: Option<u16>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When something last became of it.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// When it is attempted again.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_attempt_at: Option<Timestamp>,
    /// What went wrong and how to mend it.
    pub error_message: Option<String>,
    /// Why it was dead-lettered.
    pub reason: Option<String>,
    /// The replay that sent it last.
    pub replay_id: Option<String>,
    /// Topic, partition and offset of its event.
    #[schema(example = "events.job/0/1234")]
    pub source: String,
}

/// An attempt.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Attempt {
    /// 1 for the first.
    pub number: u32,
    /// When its request began.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// Until the last byte of the answer, or the failure.
    pub duration_ms: f64,
    /// `success redirect client_error server_error rate_limited timeout dns connect tls blocked protocol`.
    #[schema(example = "server_error")]
    pub outcome: String,
    /// The answer's HTTP status.
    pub status: Option<u16>,
    /// What went wrong and how to mend it.
    pub error_message: Option<String>,
    /// An object of text, secrets masked; null where they were not kept, as of a success.
    pub request_headers: Value,
    /// As those of the request.
    pub response_headers: Value,
    /// The first bytes of the answer; null where it was not kept.
    pub response_body: Option<String>,
    /// The replay that it was part of.
    pub replay_id: Option<String>,
}

/// A delivery with all its attempts.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Told {
    /// The delivery.
    #[serde(flatten)]
    pub delivery: Delivery,
    /// Oldest first.
    pub tries: Vec<Attempt>,
}

/// Times of answers in milliseconds, of the newest deliveries.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ResponseTimes {
    /// Attempts that the figures rest on.
    pub attempts: u64,
    /// The mean.
    pub average_ms: f64,
    /// Half were quicker.
    pub p50_ms: f64,
    /// 95 of 100 were quicker.
    pub p95_ms: f64,
}

/// What became of deliveries.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Statistics {
    /// Deliveries that were attempted at least once.
    pub total: u64,
    /// Those that a receiver has.
    pub success: u64,
    /// Those that were dead-lettered.
    pub failure: u64,
    /// Successes among those that ended, 0 to 1; null where none did.
    pub success_rate: Option<f64>,
    /// When the newest was made.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_triggered_at: Option<Timestamp>,
    /// How many by status.
    pub by_status: BTreeMap<String, u64>,
    /// How quick the answers were.
    pub response_times: ResponseTimes,
}

/// Which deliveries; what is `None` lets everything pass.
#[derive(Clone, Debug, Default)]
pub struct DeliveryFilter {
    /// For those who see all: of this customer.
    pub customer: Option<String>,
    /// Of this webhook.
    pub webhook: Option<String>,
    /// One of [`STATUSES`].
    pub status: Option<String>,
    /// Of this event type.
    pub event_type: Option<String>,
    /// Made at this time (Unix milliseconds) or later.
    pub since_ms: Option<i64>,
    /// Made before this time.
    pub until_ms: Option<i64>,
}

/// A place in the list of deliveries: when one was made (Unix milliseconds), and its id.
pub type DeliveryPlace = (i64, String);

/// Which dead letters; what is `None` lets everything pass.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Of this webhook.
    pub webhook: Option<String>,
    /// Of this event type; a `*` at the end stands for any rest.
    pub event_type: Option<String>,
    /// Died for this reason.
    pub reason: Option<String>,
    /// With this last HTTP status.
    pub status: Option<u16>,
    /// Died at this time (Unix milliseconds) or later.
    pub since_ms: Option<i64>,
    /// Died before this time.
    pub until_ms: Option<i64>,
    /// Of this delivery.
    pub delivery: Option<String>,
    /// In this topic of another program, rather than our own.
    pub topic: Option<String>,
}

/// A dead letter.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DeadLetter {
    /// Partition and offset in the dead-letter topic.
    #[schema(example = "0/17")]
    pub place: String,
    /// The topic.
    pub topic: String,
    /// When it was written.
    #[schema(value_type = String, format = DateTime)]
    pub died_at: Timestamp,
    /// `exhausted rejected undecodable too_large expired blocked_address filter_failed disabled`, or `foreign`.
    #[schema(example = "exhausted")]
    pub reason: String,
    /// The webhook; null for a record that was no event.
    pub webhook_id: Option<String>,
    /// The delivery; null for a record that was no event.
    pub delivery_id: Option<String>,
    /// The event's type.
    pub event_type: Option<String>,
    /// Attempts that were made.
    pub attempts: Option<u32>,
    /// The last answer's HTTP status.
    pub last_status: Option<u16>,
    /// How often it had been replayed before it died.
    pub replays: u32,
    /// `waiting replayed discarded`.
    #[schema(example = "waiting")]
    pub fate: String,
    /// The replay or discard that dealt with it.
    pub job: Option<String>,
    /// Whether a replay can send it.
    pub replayable: bool,
    /// That it goes round, where it does: replays leave it.
    #[schema(required)]
    pub note: Option<String>,
    /// What went wrong and how to mend it.
    pub error_message: String,
}

/// A place in the list of dead letters: time of death (Unix milliseconds), partition, offset.
pub type LetterPlace = (i64, i32, i64);

/// Some dead letters, and how many there are.
#[derive(Clone, Debug)]
pub struct Letters {
    /// Newest first.
    pub slice: Slice<LetterPlace, DeadLetter>,
    /// All that are meant, on whatever page.
    pub total: u64,
    /// The same by reason.
    pub by_reason: BTreeMap<String, u64>,
}

/// How many dead letters an order means.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Counts {
    /// Those that would be dealt with.
    pub total: u64,
    /// By reason.
    pub by_reason: BTreeMap<String, u64>,
    /// By webhook; beyond a thousand webhooks the rest is `(others)`.
    pub by_webhook: BTreeMap<String, u64>,
    /// By event type, likewise.
    pub by_event_type: BTreeMap<String, u64>,
    /// By the last answer's status; `none` where there was no answer.
    pub by_status: BTreeMap<String, u64>,
    /// By the day of death (UTC); of a missed event, the day that it was written.
    #[schema(example = json!({"2026-01-01": 42}))]
    pub by_day: BTreeMap<String, u64>,
    /// Meant, but never a delivery, or cut to fit: a replay leaves them.
    pub not_replayable: u64,
    /// Meant, but replayed or discarded before.
    pub done_before: u64,
    /// Meant, but replayed `max_replays` times already: a loop that somebody must look at.
    pub replayed_too_often: u64,
    /// With `never_delivered`: what is on its way to the webhook, or held, which is left.
    pub on_their_way: u64,
    /// With `never_delivered`: what is a dead letter, which is left; a replay of dead letters sends it.
    pub dead_letters: u64,
    /// What must be known before these numbers are believed.
    pub warnings: Vec<String>,
    /// With `to_webhook`: the first of those that cannot go there, and why; at most twenty.
    pub left: Vec<Left>,
}

/// A letter that a replay leaves where it is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Left {
    /// Topic, partition and offset.
    #[schema(example = "connect-dlq/0/17")]
    pub place: String,
    /// Why.
    pub why: String,
}

/// What is to be done with dead letters.
#[derive(Clone, Debug)]
pub struct Order {
    /// Which.
    pub selection: Selection,
    /// `Some` discards them, for this reason; `None` replays them.
    pub discard: Option<String>,
    /// Rather than dead letters, the events that the webhook wants and did not get between the two times.
    pub never_delivered: bool,
    /// Another URL than the webhooks' own.
    pub to: Option<String>,
    /// What never was a delivery, into this topic.
    pub into: Option<String>,
    /// What never was a delivery, to this webhook.
    pub to_webhook: Option<String>,
    /// Also those that were replayed or discarded before.
    pub again: bool,
    /// Letters per second.
    pub rate: Option<u32>,
    /// Only so many, those that died first.
    pub limit: Option<usize>,
    /// Leave those that were replayed so often.
    pub max_replays: Option<u32>,
    /// Count only.
    pub dry_run: bool,
}

/// A replay or a discard.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Replay {
    /// Its id.
    #[schema(example = "rp_01931f6c2b7e7c3c9d5a4f1e8b6a2c10")]
    pub id: String,
    /// `replay discard`.
    #[schema(example = "replay")]
    pub deed: String,
    /// Who works on it: `routers`, or the `command` that began it.
    #[schema(example = "routers")]
    pub by: String,
    /// `running stopped finished cancelled undone`.
    #[schema(example = "running")]
    pub state: String,
    /// Letters that were dealt with.
    pub done: u64,
    /// Letters in all, as counted before it began.
    pub total: u64,
    /// Letters per second.
    pub rate: Option<u32>,
    /// The URL that they are sent to, if not the webhooks' own.
    pub to: Option<String>,
    /// The topic that they are read from.
    #[schema(example = "postrider.dead-letters")]
    pub topic: String,
    /// The topic that they are written to, of records that never were deliveries.
    #[schema(required)]
    pub into: Option<String>,
    /// The webhook that such records are sent to.
    #[schema(required)]
    pub to_webhook: Option<String>,
    /// Which letters: the fields that were given.
    #[schema(value_type = Object)]
    pub filter: Value,
    /// Why, of a discard.
    pub reason_text: Option<String>,
    /// Why it stopped by itself.
    pub note: Option<String>,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    /// When it last came further.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
}

/// An order that was counted, and begun if that was wanted and there was something to do.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Ordered {
    /// How many it means.
    pub counts: Counts,
    /// What works on them; null for a dry run, and where nothing is meant.
    #[schema(required)]
    pub replay: Option<Replay>,
}

/// What is wanted of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Stop for now.
    Pause,
    /// Go on.
    Resume,
    /// End for good.
    Cancel,
    /// Take a discard back.
    Undo,
}

/// Knows what became of deliveries. Everything may take long, and is called on threads for that. What is another tenant's is not there.
pub trait Past: Send + Sync {
    /// Deliveries, newest first.
    ///
    /// # Errors
    /// 503 where there is no history, or it is away.
    fn deliveries(
        &self,
        tenant: &Tenant,
        filter: &DeliveryFilter,
        from: paging::From<DeliveryPlace>,
        size: usize,
    ) -> Result<Slice<DeliveryPlace, Delivery>, Problem>;

    /// One delivery; `None` where there is none.
    ///
    /// # Errors
    /// As [`Past::deliveries`].
    fn delivery(&self, tenant: &Tenant, id: &str) -> Result<Option<Told>, Problem>;

    /// What became of the deliveries that pass.
    ///
    /// # Errors
    /// As [`Past::deliveries`].
    fn statistics(&self, tenant: &Tenant, filter: &DeliveryFilter) -> Result<Statistics, Problem>;

    /// Whether there is a history at all.
    fn has_history(&self) -> bool;

    /// Dead letters of a fate (`None`: of whatever fate), from the topic itself.
    ///
    /// # Errors
    /// 503 when the cluster does not answer, or too many ask.
    fn dead_letters(
        &self,
        tenant: &Tenant,
        selection: &Selection,
        fate: Option<&str>,
        from: paging::From<LetterPlace>,
        size: usize,
    ) -> Result<Letters, Problem>;

    /// Counts what an order means and, unless that is all that is wanted, begins it.
    ///
    /// # Errors
    /// 400 for a URL that may not be reached, 409 when another is at work on the same letters, 503 as above.
    fn order(&self, tenant: &Tenant, order: &Order) -> Result<Ordered, Problem>;

    /// Replays and discards, oldest first.
    ///
    /// # Errors
    /// 503 when the cluster does not answer.
    fn replays(&self, tenant: &Tenant) -> Result<Vec<Replay>, Problem>;

    /// Tells what is wanted of a replay.
    ///
    /// # Errors
    /// 404 where there is none, 409 where that cannot be done with it, 503.
    fn wish(&self, tenant: &Tenant, id: &str, wish: Wish) -> Result<Replay, Problem>;
}
