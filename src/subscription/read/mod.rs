//! Untrusted JSON to a checked [`Draft`]. Written by hand rather than derived, because a derived reader stops at the
//! first fault: here every fault is found, with its JSON pointer and its cure. Beside the contract's names, those of
//! NetPulse (`auth` as a list, `timeout`) and of RAG (`events`, `status`, `auth_type` …, `retry_enabled`, `retry_count`)
//! are read, so that their webhooks need no rewriting.
//!
//! Read-only fields (`created_at`, `version`, `state` …) are ignored, so that what `export` and the API give out can be
//! sent back as it is. What a filter's operators mean is checked by `matching`, not here.

pub mod checks;
mod credentials;
mod fields;
mod words;

#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{Customer, Draft, FieldError, RateLimit, Subscription, WebhookId};
use fields::{Fields, kind, shown};

pub(super) use fields::unknown;

/// Every field that may be written: the contract's names first.
const FIELDS: [&str; 32] = [
    "id",
    "customer",
    "name",
    "description",
    "tags",
    "url",
    "method",
    "body",
    "event_types",
    "filter",
    "headers",
    "cookies",
    "auth",
    "secret",
    "enabled",
    "paused",
    "verify_ssl",
    "timeout_seconds",
    "max_retries",
    "retry_backoff",
    "rate_limit",
    "max_concurrency",
    "max_age_seconds",
    "timeout",
    "events",
    "status",
    "auth_type",
    "auth_token",
    "auth_username",
    "auth_password",
    "retry_enabled",
    "retry_count",
];
/// Given out, and ignored when they come in.
const READ_ONLY: [&str; 7] = [
    "created_at",
    "updated_at",
    "version",
    "state",
    "last_success_at",
    "last_failure_at",
    "pending",
];

const LONGEST_NAME: usize = 200;
const LONGEST_DESCRIPTION: usize = 4_000;
const MOST_TAGS: usize = 32;
const LONGEST_TAG: usize = 64;
const MOST_EVENT_TYPES: usize = 256;
const LONGEST_EVENT_TYPE: usize = 256;
const LONGEST_CUSTOMER: usize = 200;
/// Bytes of a filter, serialized.
const LARGEST_FILTER: usize = 16 * 1_024;
/// Three days.
pub const DEFAULT_MAX_AGE_SECONDS: u64 = 259_200;

/// The JSON pointer of a field below `parent` (RFC 6901).
pub fn pointer(parent: &str, name: &str) -> String {
    format!("{parent}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Reads a webhook that stands at `prefix` in its document (`""` for the document itself).
///
/// # Errors
/// Every fault that was found; never an empty list.
pub fn read(value: &Value, prefix: &str) -> Result<Draft, Vec<FieldError>> {
    let Some(object) = value.as_object() else {
        let message = format!("a webhook must be an object; this is {}", kind(value));
        return Err(vec![FieldError {
            pointer: prefix.to_owned(),
            message,
        }]);
    };
    let mut fields = Fields::new(object, prefix);
    let draft = draft(&mut fields, object, prefix);
    match draft {
        Some(draft) if fields.errors.is_empty() => Ok(draft),
        _ => Err(fields.errors),
    }
}

/// `None` only where an error was noted.
fn draft<'a>(
    fields: &mut Fields<'a>,
    object: &'a Map<String, Value>,
    prefix: &str,
) -> Option<Draft> {
    fields.refuse_unknown(&FIELDS, &READ_ONLY);
    let id = id(fields);
    let headers = credentials::headers(fields);
    let cookies = credentials::cookies(fields, &headers);
    let auth = credentials::auth(fields, &headers);
    let secret = credentials::secret(fields);
    let url = url(fields);
    let wanted = Subscription {
        id: id.clone().unwrap_or_else(WebhookId::generate),
        customer: customer(fields),
        name: fields
            .text("name", LONGEST_NAME)
            .unwrap_or_default()
            .trim()
            .to_owned(),
        description: fields
            .text("description", LONGEST_DESCRIPTION)
            .unwrap_or_default()
            .to_owned(),
        tags: fields
            .get("tags")
            .map(|value| fields.texts("tags", value, MOST_TAGS, LONGEST_TAG))
            .unwrap_or_default(),
        method: words::method(fields),
        body: words::body(fields),
        event_types: event_types(fields),
        filter: filter(fields),
        headers,
        cookies,
        auth,
        secrets: Vec::new(),
        old_secret_expires_at: None,
        enabled: enabled(fields),
        paused: fields.boolean("paused").unwrap_or(false),
        verify_ssl: fields.boolean("verify_ssl").unwrap_or(true),
        timeout: timeout(fields),
        max_retries: max_retries(fields),
        retry_backoff_seconds: seconds(fields, "retry_backoff", 1, 3_600, 60),
        rate_limit: rate_limit(fields),
        max_concurrency: fields.whole_or("max_concurrency", 1, 256, 16),
        max_age_seconds: seconds(
            fields,
            "max_age_seconds",
            60,
            30 * 86_400,
            DEFAULT_MAX_AGE_SECONDS,
        ),
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
        version: 0,
        url: url?,
    };
    let paused_given = object.get("paused").is_some_and(Value::is_boolean);
    Some(Draft {
        wanted,
        id_given: id.is_some(),
        paused_given,
        secret,
        prefix: prefix.to_owned(),
    })
}

/// What stands where an id may in the API's paths: such a webhook could not be asked for.
const TAKEN_IDS: [&str; 2] = ["tags", "bulk-delete"];

fn id(fields: &mut Fields<'_>) -> Option<WebhookId> {
    let value = fields.get("id")?;
    let id = match value.as_str() {
        Some(text) => match WebhookId::new(text) {
            Ok(id) if id.is_inline() => Err(
                "such ids are those of webhooks that events carry; begin it otherwise".to_owned(),
            ),
            Ok(id) if TAKEN_IDS.contains(&id.as_str()) => Err(format!(
                "{id} is a path of the API; take another id, such as wh_{id}"
            )),
            other => other.map_err(|error| error.to_string()),
        },
        None => Err(format!(
            "`id` must be text; it is {}: put it in quotes",
            shown(value)
        )),
    };
    id.map_err(|message| fields.fail(&["id"], message)).ok()
}

fn url(fields: &mut Fields<'_>) -> Option<url::Url> {
    let url = match fields.get("url") {
        None => Err(
            "`url` is missing; write where to send, such as https://example.com/hook".to_owned(),
        ),
        Some(Value::String(text)) => checks::check_url(text),
        Some(value) => Err(format!("`url` must be text; it is {}", kind(value))),
    };
    url.map_err(|message| fields.fail(&["url"], message)).ok()
}

fn customer(fields: &mut Fields<'_>) -> Option<Customer> {
    let value = fields.get("customer")?;
    let customer = Customer::from_json(value);
    let legal = |customer: &Customer| {
        customer.chars().count() <= LONGEST_CUSTOMER
            && !customer.contains(char::is_control)
            && customer.trim() == &**customer
    };
    if !customer.as_ref().is_some_and(legal) {
        let message = format!(
            "`customer` must be a number, or text of 1 to {LONGEST_CUSTOMER} characters without spaces around it, or null \
             for all customers; a number that 64 bits do not hold exactly is written as text"
        );
        fields.fail(&["customer"], message);
    }
    customer
}

fn event_types(fields: &mut Fields<'_>) -> Vec<String> {
    let Some((name, value)) = fields.one_of(&["event_types", "events"]) else {
        fields.fail(
            &["event_types"],
            "`event_types` is missing; list types or globs, such as [\"job.*\"] or [\"*\"]",
        );
        return Vec::new();
    };
    let types = fields.texts(name, value, MOST_EVENT_TYPES, LONGEST_EVENT_TYPE);
    if value.as_array().is_some_and(Vec::is_empty) {
        fields.fail(&[name], format!("`{name}` is empty, so no event would match; list at least one type, or \"*\" for all"));
    }
    for (position, entry) in value.as_array().into_iter().flatten().enumerate() {
        if entry.as_str().is_some_and(|entry| entry.contains(' ')) {
            let message = format!("an event type has no spaces; this is {}", shown(entry));
            fields.fail(&[name, &position.to_string()], message);
        }
    }
    types
}

fn filter(fields: &mut Fields<'_>) -> Option<Value> {
    let value = fields.get("filter")?;
    if !value.is_object() {
        let example = r#"{"job": {"status": {"$in": ["failed"]}}}"#;
        fields.fail(
            &["filter"],
            format!(
                "`filter` must be an object such as {example}; it is {}",
                kind(value)
            ),
        );
    } else if value.to_string().len() > LARGEST_FILTER {
        fields.fail(
            &["filter"],
            format!("`filter` may have at most {LARGEST_FILTER} bytes; make it shorter"),
        );
    }
    Some(value.clone())
}

fn enabled(fields: &mut Fields<'_>) -> bool {
    match fields.one_of(&["enabled", "status"]) {
        Some(("status", Value::String(word))) if word == "active" => true,
        Some(("status", Value::String(word))) if word == "inactive" || word == "disabled" => false,
        Some(("status", value)) => {
            fields.fail(
                &["status"],
                format!(
                    "`status` must be active, inactive or disabled; it is {}",
                    shown(value)
                ),
            );
            true
        }
        Some(_) => fields.boolean("enabled").unwrap_or(true),
        None => true,
    }
}

fn timeout(fields: &mut Fields<'_>) -> Duration {
    const DEFAULT: Duration = Duration::from_secs(10);
    let Some((name, value)) = fields.one_of(&["timeout_seconds", "timeout"]) else {
        return DEFAULT;
    };
    let most = if name == "timeout" { 120.0 } else { 300.0 };
    match value
        .as_f64()
        .filter(|seconds| (0.5..=most).contains(seconds))
    {
        Some(seconds) => Duration::from_secs_f64(seconds),
        None => {
            fields.fail(
                &[name],
                format!(
                    "`{name}` must be a number of seconds from 0.5 to {most}; it is {}",
                    shown(value)
                ),
            );
            DEFAULT
        }
    }
}

fn max_retries(fields: &mut Fields<'_>) -> u32 {
    const DEFAULT: u32 = 3;
    let retries = match fields.one_of(&["max_retries", "retry_count"]) {
        Some((name, value)) => fields.whole(name, value, 0, 20, ""),
        None => None,
    };
    if fields.boolean("retry_enabled") == Some(false) {
        return 0;
    }
    retries
        .and_then(|retries| u32::try_from(retries).ok())
        .unwrap_or(DEFAULT)
}

fn seconds(
    fields: &mut Fields<'_>,
    name: &'static str,
    least: u64,
    most: u64,
    default: u64,
) -> u64 {
    let Some(value) = fields.get(name) else {
        return default;
    };
    fields
        .whole(name, value, least, most, "seconds")
        .unwrap_or(default)
}

fn rate_limit(fields: &mut Fields<'_>) -> Option<RateLimit> {
    const KNOWN: [&str; 3] = ["requests", "per_seconds", "burst"];
    const MOST: u32 = 100_000;
    let value = fields.get("rate_limit")?;
    let Some(object) = value.as_object() else {
        let example = r#"{"requests": 10, "per_seconds": 1, "burst": 10}"#;
        fields.fail(
            &["rate_limit"],
            format!(
                "`rate_limit` must be an object such as {example}; it is {}",
                shown(value)
            ),
        );
        return None;
    };
    let mut inner = Fields::new(object, "");
    inner.refuse_unknown(&KNOWN, &[]);
    if inner.get("requests").is_none() {
        inner.fail(
            &["requests"],
            "`requests` is missing; write how many may go in `per_seconds`",
        );
    }
    let requests = inner.whole_or("requests", 1, MOST, 1);
    let per_seconds = inner.whole_or("per_seconds", 1, 86_400, 1);
    let burst = inner.whole_or("burst", 1, MOST, requests);
    for error in inner.errors {
        fields.fail(
            &["rate_limit", error.pointer.trim_start_matches('/')],
            error.message,
        );
    }
    Some(RateLimit {
        requests,
        per_seconds,
        burst,
    })
}
