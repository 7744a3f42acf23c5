//! The forms that the API's document shows for what is read and written by hand elsewhere (`subscription::read`,
//! `subscription::View`). Nothing is made of these types; tests hold them to what is really sent.

#![allow(dead_code, reason = "they are forms for the document, not values")]

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// What a webhook's deliveries meet.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Deliveries are sent.
    Passing,
    /// The endpoint fails; deliveries wait without using up attempts.
    Tripped,
    /// One delivery tries whether the endpoint is back.
    Probing,
    /// Deliveries are held until the webhook is resumed.
    Paused,
    /// Events are not delivered and not kept.
    Disabled,
}

impl State {
    /// The words.
    pub const WORDS: [&'static str; 5] = ["passing", "tripped", "probing", "paused", "disabled"];
}

/// The request method of a delivery.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)]
pub enum Method {
    Post,
    Put,
    Patch,
    Get,
    Delete,
}

/// What stands in the body of a request.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum BodyForm {
    /// The event as it was produced.
    Event,
    /// `{"id", "result"}`, both text, for receivers of *NetPulse*: those of the event's `job`, `data`, or its own.
    Netpulse,
}

/// How a request proves who sends it, beside the signature.
#[derive(Serialize, ToSchema)]
pub struct Auth {
    /// `none bearer api_key basic`.
    #[serde(rename = "type")]
    #[schema(example = "bearer")]
    kind: String,
    /// Of `bearer` and `api_key`; shown as `***`.
    token: Option<String>,
    /// Of `basic`.
    username: Option<String>,
    /// Of `basic`; shown as `***`.
    password: Option<String>,
    /// Of `api_key`: the header that carries it.
    #[schema(example = "X-API-Key")]
    header: Option<String>,
}

/// A pace that the endpoint allows.
#[derive(Serialize, ToSchema)]
pub struct RateLimit {
    /// Requests in `per_seconds`.
    #[schema(minimum = 1, example = 10)]
    requests: u32,
    /// The span in seconds.
    #[schema(minimum = 1, maximum = 86400, example = 1)]
    per_seconds: Option<u32>,
    /// Requests that may go at once after a silence.
    #[schema(minimum = 1, example = 10)]
    burst: Option<u32>,
}

/// A webhook as it is shown. Secrets are not; the values of headers, cookies and credentials are `***`.
#[derive(Serialize, ToSchema)]
pub struct Webhook {
    /// What it is asked for by.
    #[schema(example = "wh_01931f6c2b7e7c3c9d5a4f1e8b6a2c10")]
    id: String,
    /// A number or text; null: events of all customers.
    #[schema(example = 1)]
    customer: Option<Value>,
    /// For people.
    #[schema(example = "Slack Notifications")]
    name: String,
    /// For people.
    description: String,
    /// For finding it.
    tags: Vec<String>,
    /// Where deliveries go.
    #[schema(example = "https://hooks.slack.com/services/YOUR/WEBHOOK/URL")]
    url: String,
    method: Method,
    body: BodyForm,
    /// Types or globs that it wants.
    #[schema(example = json!(["job.completed", "job.failed"]))]
    event_types: Vec<String>,
    /// Conditions on the event.
    #[schema(example = json!({"job": {"status": {"$in": ["failed"]}}}))]
    filter: Option<BTreeMap<String, Value>>,
    /// Sent with each delivery; values are `***`.
    headers: BTreeMap<String, String>,
    /// Sent with each delivery; values are `***`.
    cookies: BTreeMap<String, String>,
    auth: Auth,
    /// False: events are not delivered and not kept.
    enabled: bool,
    /// True: deliveries are held.
    paused: bool,
    /// Whether the receiver's certificate is checked.
    verify_ssl: bool,
    /// Seconds.
    #[schema(example = 10)]
    timeout_seconds: f64,
    /// Attempts after the first.
    max_retries: u32,
    /// Seconds before the first retry; doubled each time.
    retry_backoff: u64,
    rate_limit: Option<RateLimit>,
    /// Requests at a time.
    max_concurrency: u32,
    /// Seconds.
    max_age_seconds: u64,
    /// When it was made.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it was last changed.
    #[schema(format = DateTime)]
    updated_at: String,
    /// One more with every change; the ETag.
    version: u64,
    state: State,
    /// When an attempt last succeeded; null where none did, or no history is kept.
    #[schema(format = DateTime)]
    last_success_at: Option<String>,
    /// When an attempt last failed; null where none did, or no history is kept.
    #[schema(format = DateTime)]
    last_failure_at: Option<String>,
    /// Deliveries that are put off, to be tried again, or held; 100000 stands for that many or more. Null where no history is kept.
    pending: Option<u64>,
    /// `***` where there is one; itself only in the answer to the request that had it generated.
    #[schema(required = false)]
    secret: Option<String>,
}

/// A webhook as it is written. *RAG's* and *NetPulse's* fields are read too: `events`, `status`, `auth_type`, `auth_token`,
/// `auth_username`, `auth_password`, `retry_enabled`, `retry_count`, `timeout`, and `auth` as a pair.
#[derive(Serialize, ToSchema)]
pub struct WebhookInput {
    /// 1 to 64 characters of A-Z a-z 0-9 _ -; made where it is left out.
    id: Option<String>,
    /// A number or text; null: events of all customers. A token of a customer writes that customer's.
    #[schema(example = 1)]
    customer: Option<Value>,
    /// For people.
    #[schema(example = "Slack Notifications", max_length = 200)]
    name: Option<String>,
    /// For people.
    #[schema(max_length = 4000)]
    description: Option<String>,
    /// For finding it.
    #[schema(max_items = 32)]
    tags: Option<Vec<String>>,
    /// http or https.
    #[schema(
        example = "https://hooks.slack.com/services/YOUR/WEBHOOK/URL",
        max_length = 2048
    )]
    url: String,
    /// POST where it is left out.
    method: Option<Method>,
    /// `event` where it is left out.
    body: Option<BodyForm>,
    /// Types or globs: `job.failed`, `job.*`, `*`.
    #[schema(example = json!(["job.completed", "job.failed"]), min_items = 1, max_items = 256)]
    event_types: Vec<String>,
    /// Conditions on the event: `$eq $neq $gt $gte $lt $lte $in $nin $startsWith $endsWith $exist $or $and $not`.
    #[schema(example = json!({"job": {"status": {"$in": ["failed"]}}}))]
    filter: Option<BTreeMap<String, Value>>,
    /// Sent with each delivery; not those of the connection, and none of `webhook-*`.
    headers: Option<BTreeMap<String, String>>,
    /// Sent with each delivery.
    cookies: Option<BTreeMap<String, String>>,
    auth: Option<Auth>,
    /// Signs the deliveries; `generate` makes one, null removes it.
    #[schema(write_only, example = "your-secret-key")]
    secret: Option<String>,
    /// False: events are not delivered and not kept; true where it is left out.
    enabled: Option<bool>,
    /// True: deliveries are held; false where it is left out.
    paused: Option<bool>,
    /// Whether the receiver's certificate is checked; true where it is left out.
    verify_ssl: Option<bool>,
    /// Seconds; 10.
    #[schema(minimum = 0.5, maximum = 300, example = 10)]
    timeout_seconds: Option<f64>,
    /// 3.
    #[schema(minimum = 0, maximum = 20, example = 3)]
    max_retries: Option<u32>,
    /// Seconds; 60.
    #[schema(minimum = 1, maximum = 3600, example = 60)]
    retry_backoff: Option<u64>,
    rate_limit: Option<RateLimit>,
    /// 16.
    #[schema(minimum = 1, maximum = 256)]
    max_concurrency: Option<u32>,
    /// Seconds; three days.
    #[schema(minimum = 60, maximum = 2592000)]
    max_age_seconds: Option<u64>,
}

/// Any of the fields of a webhook.
#[derive(Serialize, ToSchema)]
pub struct WebhookPatch(BTreeMap<String, Value>);

/// Which webhooks to delete.
#[derive(Serialize, ToSchema)]
pub struct BulkDelete {
    /// Their ids.
    #[schema(min_items = 1, max_items = 500)]
    ids: Vec<String>,
    /// Only say which.
    dry_run: Option<bool>,
}

/// What a test sends.
#[derive(Serialize, ToSchema)]
pub struct TestInput {
    /// By default the first that the webhook wants.
    #[schema(example = "job.failed")]
    event_type: Option<String>,
}

/// How a secret is changed.
#[derive(Serialize, ToSchema)]
pub struct RotateInput {
    /// The new one; made where it is left out.
    #[schema(write_only)]
    secret: Option<String>,
    /// How long the old one goes on signing too; 24.
    #[schema(minimum = 0, maximum = 720)]
    overlap_hours: Option<u64>,
}

/// A token to be made.
#[derive(Serialize, ToSchema)]
pub struct TokenInput {
    /// For people.
    #[schema(example = "ci", min_length = 1, max_length = 100)]
    name: String,
    /// `viewer operator admin`.
    #[schema(example = "operator")]
    role: String,
    /// The one customer that it sees; null sees all. A token of a customer makes tokens of that customer.
    customer: Option<Value>,
    /// It is refused from then on; null: never.
    #[schema(example = "2030-01-01T00:00:00Z")]
    expires_at: Option<String>,
}

/// An event: *webnet's* form, any JSON object that names a type, or a CloudEvent.
#[derive(Serialize, ToSchema)]
pub struct EventInput(BTreeMap<String, Value>);
