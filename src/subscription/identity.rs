//! The two names that everything is keyed by: the webhook's id and the customer. Both are cheap to clone, because every
//! delivery carries them. Promise 7 (no tenant sees another's data) needs one canonical text for a customer.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// A webhook's id: 1 to 64 characters of `A-Z a-z 0-9 _ -`, so that it is legal as it stands in a header, a path, a
/// metric label and a Kafka key.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WebhookId(Arc<str>);

/// Why a text is not a webhook id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a webhook id has 1 to 64 characters of A-Z a-z 0-9 _ -; rename it, or leave `id` out to get one"
)]
pub struct InvalidWebhookId;

impl WebhookId {
    /// Checks a text.
    ///
    /// # Errors
    /// [`InvalidWebhookId`] for a wrong length or character.
    pub fn new(text: &str) -> Result<Self, InvalidWebhookId> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if (1..=64).contains(&text.len()) && text.bytes().all(legal) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidWebhookId)
        }
    }

    /// A new id, `wh_` and a UUID of version 7 (RFC 9562), which sorts by its time of birth.
    pub fn generate() -> Self {
        Self(format!("wh_{}", uuid::Uuid::now_v7().simple()).into())
    }

    /// The id that a webhook of a file without an `id` has: the same customer and name always give the same one, so
    /// that applying a file twice changes nothing.
    pub fn derived(customer: Option<&Customer>, name: &str) -> Self {
        // The length stands before the customer so that no two pairs run together into the same bytes.
        let scope = customer.map_or_else(
            || "*".to_owned(),
            |customer| format!("{}:{customer}", customer.len()),
        );
        let digest = Sha256::digest(format!("postrider webhook {scope} {name}"));
        Self(format!("wh_{}", hex(&digest, 16)).into())
    }

    /// The id of a webhook that an event carries for itself, before it is known which it is, and where it never will be.
    pub fn inline() -> Self {
        Self("inline".into())
    }

    /// The id of such a webhook by what tells it from others, in hexadecimal digits.
    pub(super) fn of_inline(tag: &str) -> Self {
        Self(format!("inline_{tag}").into())
    }

    /// Whether it is that of a webhook that an event carries; no other has such an id.
    pub fn is_inline(&self) -> bool {
        is_inline(self)
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The first bytes of a digest in hexadecimal digits.
pub(super) fn hex(digest: &[u8], bytes: usize) -> String {
    let kept = digest.iter().take(bytes);
    kept.map(|byte| format!("{byte:02x}")).collect()
}

/// Whether an id is that of a webhook that an event carries ([`WebhookId::is_inline`]).
pub fn is_inline(id: &str) -> bool {
    matches!(id.strip_prefix("inline"), Some(rest) if rest.is_empty() || rest.starts_with('_'))
}

impl Deref for WebhookId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

/// Lets a map keyed by ids be asked with a text.
impl std::borrow::Borrow<str> for WebhookId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl FromStr for WebhookId {
    type Err = InvalidWebhookId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl fmt::Display for WebhookId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for WebhookId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Serialize for WebhookId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for WebhookId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

/// A tenant, as the one text that stands for it: the number 1 and the string "1" are the same customer.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Customer(Arc<str>);

impl Customer {
    /// The customer that a JSON value names, of an event or a webhook; `None` for an empty string, for a number too large to be exact, and
    /// for anything that is neither a number nor a string.
    pub fn from_json(value: &serde_json::Value) -> Option<Self> {
        match value {
            serde_json::Value::String(text) if !text.is_empty() => Some(Self(text.as_str().into())),
            serde_json::Value::Number(number) => Some(Self(canonical_number(number)?.into())),
            _ => None,
        }
    }

    /// The customer of a text that is canonical already, such as a record's header.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// 1, 1.0 and 1e0 are one number and so one customer. Above 2^53 neighbouring integers share a float, and two customers would be one.
fn canonical_number(number: &serde_json::Number) -> Option<String> {
    const LARGEST_EXACT: f64 = 9_007_199_254_740_992.0;
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 =>
        {
            #[allow(clippy::cast_possible_truncation, reason = "whole and below 2^53")]
            (float.abs() < LARGEST_EXACT).then(|| (float as i64).to_string())
        }
        _ => Some(number.to_string()),
    }
}

impl Deref for Customer {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Customer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for Customer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", &*self.0)
    }
}

impl Serialize for Customer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Customer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        Self::from_json(&value)
            .ok_or_else(|| serde::de::Error::custom("a customer is a number or a non-empty string"))
    }
}
