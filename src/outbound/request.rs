//! What a request carries: prepared once for a webhook ([`Endpoint`]), completed for each attempt ([`attempt_headers`]).
//!
//! Part of promise 3 (`webhook-id` is the same in every attempt) and 7 (no header can be smuggled in, secrets are
//! marked so that they do not show). Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::time::Duration;

use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use url::Url;

use super::signature::SigningKey;
use crate::subscription::{self, BodyForm, Subscription};

mod body;
mod custom;

pub use body::body_of;
pub use custom::{Auth, LONGEST_HEADER, MOST_HEADERS, check_cookie, check_header};

/// The longest deadline of an attempt. A longer one is cut to this, so that adding it to a clock is always possible.
pub const LONGEST_TIMEOUT: Duration = Duration::from_secs(300);

/// The only product name receivers see.
const PRODUCT: HeaderValue =
    HeaderValue::from_static(concat!("Postrider/", env!("CARGO_PKG_VERSION")));
const JSON: HeaderValue = HeaderValue::from_static("application/json");

const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const PLAIN_SIGNATURE: HeaderName = HeaderName::from_static("x-webhook-signature");
const EVENT_TYPE: HeaderName = HeaderName::from_static("x-webhook-event");
const ATTEMPT_NUMBER: HeaderName = HeaderName::from_static("x-webhook-attempt");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// Bytes; so many have to be passed on (W3C Trace Context, 3.3.1.5), and more are not.
const LONGEST_TRACESTATE: usize = 512;

/// The parts of a webhook that shape its requests, as its owner wrote them.
pub struct EndpointSettings<'a> {
    /// The target, already accepted by the guard.
    pub url: Url,
    /// The method.
    pub method: Method,
    /// Custom headers.
    pub headers: Vec<(&'a str, &'a str)>,
    /// Cookies; joined into one `Cookie` header.
    pub cookies: Vec<(&'a str, &'a str)>,
    /// Authentication.
    pub auth: Auth<'a>,
    /// Live secrets, newest first; none, one, or two while rotating.
    pub secrets: Vec<&'a str>,
    /// One deadline from DNS to the last byte read; at most [`LONGEST_TIMEOUT`].
    pub timeout: Duration,
    /// Whether the receiver's certificate is checked.
    pub verify_ssl: bool,
}

/// A field of a webhook that cannot be sent. The webhook is refused when it is written, or disabled when it was already there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pointer}: {message}")]
pub struct EndpointError {
    /// JSON pointer into the webhook.
    pub pointer: String,
    /// What is wrong and how to mend it; never the value.
    pub message: String,
}

impl EndpointError {
    fn new(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            message: message.into(),
        }
    }
}

/// All that is the same for every attempt of a webhook. Held by its lane; replaced whole when the webhook changes.
#[derive(Clone)]
pub struct Endpoint {
    pub(super) url: Url,
    pub(super) method: Method,
    pub(super) timeout: Duration,
    pub(super) verify_ssl: bool,
    /// What stands in its requests.
    pub(super) body: BodyForm,
    headers: HeaderMap,
    signing_keys: Vec<SigningKey>,
    /// From this Unix second on only the newest key signs.
    old_keys_until: u64,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Endpoint")
            .field("method", &self.method)
            .field("host", &self.url.host_str())
            .field("timeout", &self.timeout)
            .field("verify_ssl", &self.verify_ssl)
            .finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Prepares a webhook's requests.
    ///
    /// # Errors
    /// [`EndpointError`] for the first field that cannot be sent.
    pub fn new(settings: EndpointSettings<'_>) -> Result<Self, EndpointError> {
        let EndpointSettings {
            url,
            method,
            headers,
            cookies,
            auth,
            secrets,
            timeout,
            verify_ssl,
        } = settings;
        let mut headers = custom::prepare(&headers, &cookies, auth)?;
        headers.entry(CONTENT_TYPE).or_insert(JSON);
        headers.entry(USER_AGENT).or_insert(PRODUCT);
        let keys = secrets
            .into_iter()
            .map(SigningKey::new)
            .collect::<Result<_, _>>();
        let signing_keys =
            keys.map_err(|error| EndpointError::new("/secret", error.to_string()))?;
        Ok(Self {
            url,
            method,
            timeout: timeout.min(LONGEST_TIMEOUT),
            verify_ssl,
            body: BodyForm::Event,
            headers,
            signing_keys,
            old_keys_until: u64::MAX,
        })
    }

    /// Prepares a webhook of the catalog, whose fields were checked when it was written.
    ///
    /// # Errors
    /// [`EndpointError`] for the first field that cannot be sent; then the record was written by something else.
    pub fn of(webhook: &Subscription) -> Result<Self, EndpointError> {
        let auth = match &webhook.auth {
            subscription::Auth::None => Auth::None,
            subscription::Auth::Bearer { token } => Auth::Bearer { token },
            subscription::Auth::ApiKey { token, header } => Auth::ApiKey {
                header: Some(header),
                token,
            },
            subscription::Auth::Basic { username, password } => Auth::Basic { username, password },
        };
        let mut endpoint = Self::new(EndpointSettings {
            url: webhook.url.clone(),
            method: match webhook.method {
                subscription::Method::Post => Method::POST,
                subscription::Method::Put => Method::PUT,
                subscription::Method::Patch => Method::PATCH,
                subscription::Method::Get => Method::GET,
                subscription::Method::Delete => Method::DELETE,
            },
            headers: pairs(&webhook.headers),
            cookies: pairs(&webhook.cookies),
            auth,
            secrets: webhook.secrets.iter().map(String::as_str).collect(),
            timeout: webhook.timeout,
            verify_ssl: webhook.verify_ssl,
        })?;
        endpoint.body = webhook.body;
        if let Some(end) = webhook.old_secret_expires_at {
            endpoint.old_keys_until = u64::try_from(end.as_second()).unwrap_or(0);
        }
        Ok(endpoint)
    }

    /// The same endpoint at another URL, for a replay that goes elsewhere. Where it may go is asked when it is sent.
    ///
    /// # Errors
    /// [`EndpointError`] when the text is no URL.
    pub fn at(&self, url: &str) -> Result<Self, EndpointError> {
        let url = Url::parse(url)
            .map_err(|fault| EndpointError::new("/url", format!("no URL: {fault}")))?;
        Ok(Self {
            url,
            ..self.clone()
        })
    }

    /// The target.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The deadline of one attempt.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }
}

fn pairs(map: &BTreeMap<String, String>) -> Vec<(&str, &str)> {
    map.iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect()
}

/// What differs from one attempt to the next.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// The delivery's id, the same in every attempt.
    pub delivery_id: &'a str,
    /// The event's type.
    pub event_type: &'a str,
    /// 1 for the first.
    pub number: u32,
    /// The time of this attempt.
    pub unix_seconds: u64,
    /// W3C trace context of the event, if it had one.
    pub traceparent: Option<&'a str>,
    /// What goes with it, if the event had that.
    pub tracestate: Option<&'a str>,
    /// What is sent, and signed; made by [`body_of`].
    pub body: &'a [u8],
}

/// All headers of one attempt, except those the HTTP client writes itself.
///
/// Bytes of the id and the type that are not visible ASCII, and `%`, are percent-encoded, and the id is signed as it is
/// sent. A `traceparent` that is not visible ASCII is left out, and a `tracestate` that is not, is longer than
/// 512 bytes, or has no `traceparent` beside it (W3C Trace Context, 3.3).
pub fn attempt_headers(endpoint: &Endpoint, attempt: &Attempt<'_>) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(endpoint.headers.len() + 7);
    headers.extend(
        endpoint
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), value.clone())),
    );
    let id = percent_encoded(attempt.delivery_id);
    if let Some(newest) = endpoint.signing_keys.first() {
        insert(&mut headers, PLAIN_SIGNATURE, newest.plain(attempt.body));
        let mut signatures = newest.standard(&id, attempt.unix_seconds, attempt.body);
        let live = attempt.unix_seconds < endpoint.old_keys_until;
        for older in endpoint.signing_keys.iter().skip(1).filter(|_| live) {
            signatures.push(' ');
            signatures.push_str(&older.standard(&id, attempt.unix_seconds, attempt.body));
        }
        insert(&mut headers, WEBHOOK_SIGNATURE, signatures);
    }
    headers.insert(WEBHOOK_TIMESTAMP, attempt.unix_seconds.into());
    headers.insert(ATTEMPT_NUMBER, attempt.number.into());
    insert(&mut headers, WEBHOOK_ID, id.into_owned());
    insert(
        &mut headers,
        EVENT_TYPE,
        percent_encoded(attempt.event_type).into_owned(),
    );
    let is_visible =
        |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    if let Some(traceparent) = attempt.traceparent.filter(is_visible) {
        insert(&mut headers, TRACEPARENT, traceparent.to_owned());
        let is_state = |text: &&str| {
            text.len() <= LONGEST_TRACESTATE && text.split(' ').all(|part| is_visible(&part))
        };
        if let Some(tracestate) = attempt.tracestate.filter(is_state) {
            insert(&mut headers, TRACESTATE, tracestate.to_owned());
        }
    }
    headers
}

/// Every text that comes here is visible ASCII, which a header value always takes: the other arm only spares a panic.
fn insert(headers: &mut HeaderMap, name: HeaderName, text: String) {
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(name, value);
    }
}

fn percent_encoded(text: &str) -> Cow<'_, str> {
    let stays = |byte: u8| byte.is_ascii_graphic() && byte != b'%';
    if text.bytes().all(stays) {
        return Cow::Borrowed(text);
    }
    let mut encoded = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if stays(byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    Cow::Owned(encoded)
}

#[cfg(test)]
mod tests;
