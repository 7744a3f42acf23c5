//! The subscription (a *webhook* in the API): who wants which events, where, how fast and signed with what.
//!
//! In come untrusted JSON or YAML ([`mod@read`], [`mod@file`]) and records of the catalog topic ([`seal`]); out comes a checked
//! [`Subscription`]. Promise 7 lives here: a secret is never in `Debug`, never in the public view, never in plain text
//! in the topic. Everything here is pure: time comes in as a parameter.

pub mod condition;
mod draft;
mod edit;
pub mod file;
mod identity;
pub mod inline;
pub mod read;
pub mod seal;
mod view;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use url::Url;

pub use draft::{Draft, Resolved, SecretChange, generate_secret};
pub use edit::{Edit, Edited};
pub use identity::{Customer, InvalidWebhookId, WebhookId, is_inline};
pub use view::View;

/// What stands in the public view where a secret value is. In a draft it means "as it is stored".
pub const MASK: &str = "***";
/// The header that carries an API key when the webhook names none.
pub const DEFAULT_API_KEY_HEADER: &str = "X-API-Key";

/// A fault in a webhook that somebody wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// JSON pointer (RFC 6901) to the field.
    pub pointer: String,
    /// What is wrong and how to mend it, as a sentence.
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.pointer, self.message)
    }
}

/// The request method of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)]
pub enum Method {
    #[default]
    Post,
    Put,
    Patch,
    Get,
    Delete,
}

impl Method {
    /// Every method, in the order in which messages name them.
    pub const ALL: [Self; 5] = [Self::Post, Self::Put, Self::Patch, Self::Get, Self::Delete];

    /// The method as it stands on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Get => "GET",
            Self::Delete => "DELETE",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// What stands in the body of a delivery's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BodyForm {
    /// The producer's bytes, untouched.
    #[default]
    Event,
    /// `{"id", "result"}`, both text, as NetPulse's callers send it.
    Netpulse,
}

impl BodyForm {
    /// Whether it is what a webhook has that names none.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How a request proves to the receiver who sends it, beside the signature.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Auth {
    /// Nothing is added.
    #[default]
    None,
    /// `Authorization: Bearer <token>` (RFC 6750).
    Bearer {
        /// The token.
        token: String,
    },
    /// `<header>: <token>`.
    ApiKey {
        /// The key.
        token: String,
        /// The header's name; [`DEFAULT_API_KEY_HEADER`] where none was given.
        header: String,
    },
    /// `Authorization: Basic …` (RFC 7617).
    Basic {
        /// The user; has no colon.
        username: String,
        /// The password; may be empty.
        password: String,
    },
}

impl Auth {
    /// The word for it in the field `type`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Bearer { .. } => "bearer",
            Self::ApiKey { .. } => "api_key",
            Self::Basic { .. } => "basic",
        }
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Auth({}, {MASK})", self.kind())
    }
}

/// A pace that the endpoint allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    /// Requests in `per_seconds`.
    pub requests: u32,
    /// The span in seconds.
    pub per_seconds: u32,
    /// Requests that may go at once after a silence.
    pub burst: u32,
}

impl RateLimit {
    /// The time between two requests at the steady rate, rounded up so that rounding never lets more through.
    pub fn interval(&self) -> Duration {
        let period_nanos = u64::from(self.per_seconds.max(1)) * 1_000_000_000;
        Duration::from_nanos(period_nanos.div_ceil(u64::from(self.requests.max(1))))
    }
}

/// A checked webhook: every limit of the contract holds for it.
#[derive(Clone, PartialEq)]
pub struct Subscription {
    /// Stable, unique name; the key of its records and deliveries.
    pub id: WebhookId,
    /// Only events of this customer; `None` wants those of all.
    pub customer: Option<Customer>,
    /// For people; may be empty.
    pub name: String,
    /// For people; may be empty.
    pub description: String,
    /// For people.
    pub tags: Vec<String>,
    /// Where to send; http or https, without user and password.
    pub url: Url,
    /// How to send.
    pub method: Method,
    /// What to send.
    pub body: BodyForm,
    /// Types or globs; at least one.
    pub event_types: Vec<String>,
    /// Conditions on the event: an object, whose operators `matching` checks, not this module.
    pub filter: Option<serde_json::Value>,
    /// Additional headers, names as they were written. Values are secret.
    pub headers: BTreeMap<String, String>,
    /// Cookies to send. Values are secret.
    pub cookies: BTreeMap<String, String>,
    /// Credentials to send.
    pub auth: Auth,
    /// Signing secrets, newest first, at most two (the second lives while a rotation lasts); empty: not signed.
    pub secrets: Vec<String>,
    /// From then on the second secret is not used; `None`: it is until the next change of the secret.
    pub old_secret_expires_at: Option<Timestamp>,
    /// False: its events are not delivered and not kept.
    pub enabled: bool,
    /// True: its events are held until it is resumed.
    pub paused: bool,
    /// Whether the receiver's certificate must be valid.
    pub verify_ssl: bool,
    /// One deadline from name resolution to the last byte read.
    pub timeout: Duration,
    /// Attempts after the first.
    pub max_retries: u32,
    /// Wait before the first retry; doubled each time.
    pub retry_backoff_seconds: u64,
    /// The pace, `None` for as fast as `max_concurrency` allows.
    pub rate_limit: Option<RateLimit>,
    /// Requests in flight at a time.
    pub max_concurrency: u32,
    /// A delivery older than this is dead-lettered as expired.
    pub max_age_seconds: u64,
    /// When it was first written.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// 1 at first, one more with every change.
    pub version: u64,
}

impl Subscription {
    /// What users may see, with the contract's field names: no secret, and [`MASK`] for the values of headers and
    /// cookies and for credentials. [`read::read`] accepts it again.
    pub fn public_json(&self) -> serde_json::Value {
        // The view is text, numbers and lists, which always have a JSON form.
        serde_json::to_value(View::of(self)).unwrap_or_default()
    }

    /// Pauses or resumes it; nothing changes where it is so already.
    pub fn set_paused(&mut self, paused: bool, now: Timestamp) {
        if self.paused != paused {
            self.paused = paused;
            self.updated_at = now;
            self.version += 1;
        }
    }

    /// Puts a new signing secret in front and keeps the one that was newest, so that a receiver can change over.
    pub fn rotate_secret(&mut self, secret: String, now: Timestamp) {
        self.secrets.insert(0, secret);
        self.secrets.truncate(2);
        self.old_secret_expires_at = None;
        self.updated_at = now;
        self.version += 1;
    }

    /// The contract's names of the fields in which two webhooks differ; id, version and times are left out.
    pub fn differing_fields(&self, other: &Self) -> Vec<&'static str> {
        [
            ("customer", self.customer != other.customer),
            ("name", self.name != other.name),
            ("description", self.description != other.description),
            ("tags", self.tags != other.tags),
            ("url", self.url != other.url),
            ("method", self.method != other.method),
            ("body", self.body != other.body),
            ("event_types", self.event_types != other.event_types),
            ("filter", self.filter != other.filter),
            ("headers", self.headers != other.headers),
            ("cookies", self.cookies != other.cookies),
            ("auth", self.auth != other.auth),
            ("secret", self.secrets != other.secrets),
            ("enabled", self.enabled != other.enabled),
            ("paused", self.paused != other.paused),
            ("verify_ssl", self.verify_ssl != other.verify_ssl),
            ("timeout_seconds", self.timeout != other.timeout),
            ("max_retries", self.max_retries != other.max_retries),
            (
                "retry_backoff",
                self.retry_backoff_seconds != other.retry_backoff_seconds,
            ),
            ("rate_limit", self.rate_limit != other.rate_limit),
            (
                "max_concurrency",
                self.max_concurrency != other.max_concurrency,
            ),
            (
                "max_age_seconds",
                self.max_age_seconds != other.max_age_seconds,
            ),
        ]
        .into_iter()
        .filter_map(|(name, differs)| differs.then_some(name))
        .collect()
    }
}

/// Prints names of headers and cookies, never their values, nor credentials, secrets or the URL's query.
impl fmt::Debug for Subscription {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut url = self.url.clone();
        if url.query().is_some() {
            url.set_query(Some(MASK));
        }
        formatter
            .debug_struct("Subscription")
            .field("id", &self.id)
            .field("version", &self.version)
            .field("customer", &self.customer)
            .field("name", &self.name)
            .field("url", &url.as_str())
            .field("method", &self.method)
            .field("body", &self.body)
            .field("event_types", &self.event_types)
            .field("filter", &self.filter)
            .field("headers", &self.headers.keys())
            .field("cookies", &self.cookies.keys())
            .field("auth", &self.auth)
            .field("secrets", &self.secrets.len())
            .field("enabled", &self.enabled)
            .field("paused", &self.paused)
            .field("timeout", &self.timeout)
            .field("max_retries", &self.max_retries)
            .field("rate_limit", &self.rate_limit)
            .finish_non_exhaustive()
    }
}
