//! A webhook's form in the catalog topic. Whoever can read the topic sees where webhooks go, but no header value, cookie,
//! credential or signing secret: those are one sealed blob (promise 7).
//!
//! XChaCha20-Poly1305, because its nonce of 24 bytes may be drawn at random for any number of records. The webhook's id
//! is the associated data, so that a blob cannot be moved into another webhook's record.

mod key;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::XNonce;
use chacha20poly1305::aead::{Aead, Payload};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{Auth, BodyForm, Customer, Method, RateLimit, Subscription, WebhookId};
pub use key::{InvalidKey, SealingKey};

/// The form that this program writes. A reader refuses higher ones rather than lose what it does not know.
const FORM: u32 = 1;

/// Why a webhook could not be written to or read from the catalog topic. The catalog keeps what it knew before and says
/// so; a webhook whose secrets cannot be read is not delivered to without them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// There are secrets to seal and no key.
    #[error(
        "webhook {webhook} has secrets and there is no key to encrypt them with: make one with \
         `head -c 32 /dev/urandom | base64` and put it into the environment variable POSTRIDER_SECRET_KEY (or secrets.key)"
    )]
    NoKeyToSeal {
        /// The webhook to be written.
        webhook: WebhookId,
    },
    /// The record has sealed secrets and there is no key.
    #[error(
        "the secrets of webhook {webhook} are encrypted with the key {key_id} and there is no key: put that key into the \
         environment variable POSTRIDER_SECRET_KEY (or secrets.key)"
    )]
    NoKeyToOpen {
        /// The webhook of the record.
        webhook: WebhookId,
        /// Id of the key that is wanted.
        key_id: String,
    },
    /// The record was sealed with another key.
    #[error(
        "the secrets of webhook {webhook} are encrypted with the key {wanted}, and the key given is {given}: give the key \
         {wanted} (in secrets.old_keys, if it was the key before), or apply the webhook again with its secrets"
    )]
    WrongKey {
        /// The webhook of the record.
        webhook: WebhookId,
        /// Id of the key that sealed it.
        wanted: String,
        /// Ids of the keys that were there, the newest first.
        given: String,
    },
    /// The seal does not hold.
    #[error(
        "the encrypted secrets of webhook {webhook} were changed, or belong to another webhook: apply the webhook again \
         with its secrets"
    )]
    Tampered {
        /// The webhook of the record.
        webhook: WebhookId,
    },
    /// The record was written by a later version.
    #[error("the catalog record has the form {0}, which a later Postrider wrote: run that version")]
    LaterForm(u32),
    /// The record is not a webhook's.
    #[error("the catalog record cannot be read: {0}")]
    Unreadable(String),
    /// The system's random source or the cipher failed.
    #[error("the secrets of webhook {webhook} could not be encrypted: {reason}")]
    Failed {
        /// The webhook to be written.
        webhook: WebhookId,
        /// What failed.
        reason: String,
    },
}

/// The record's JSON.
#[derive(Serialize, Deserialize)]
struct Record {
    form: u32,
    id: WebhookId,
    customer: Option<Customer>,
    name: String,
    description: String,
    tags: Vec<String>,
    url: Url,
    method: Method,
    #[serde(default, skip_serializing_if = "BodyForm::is_default")]
    body: BodyForm,
    event_types: Vec<String>,
    filter: Option<serde_json::Value>,
    enabled: bool,
    paused: bool,
    verify_ssl: bool,
    timeout_seconds: f64,
    max_retries: u32,
    retry_backoff: u64,
    rate_limit: Option<RateLimit>,
    max_concurrency: u32,
    max_age_seconds: u64,
    created_at: Timestamp,
    updated_at: Timestamp,
    version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    old_secret_expires_at: Option<Timestamp>,
    sealed: Option<Sealed>,
}

/// The secrets of one webhook, encrypted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sealed {
    /// Which key opens it ([`SealingKey::id`]).
    pub key_id: String,
    nonce: String,
    ciphertext: String,
}

/// What is sealed.
#[derive(Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Secrets {
    pub(super) headers: BTreeMap<String, String>,
    pub(super) cookies: BTreeMap<String, String>,
    pub(super) auth: Auth,
    pub(super) secrets: Vec<String>,
}

/// Which key sealed a record's secrets; `None` where it has none, or is no record of ours.
pub fn key_id_of(bytes: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Only {
        sealed: Option<Sealed>,
    }
    let Only { sealed } = serde_json::from_slice(bytes).ok()?;
    sealed.map(|sealed| sealed.key_id)
}

/// The secrets of a webhook, sealed by themselves; `None` where it has none.
///
/// # Errors
/// The random source failed.
pub fn secrets_of(
    subscription: &Subscription,
    key: Option<&SealingKey>,
) -> Result<Option<Sealed>, SealError> {
    let webhook = &subscription.id;
    let secrets = Secrets {
        headers: subscription.headers.clone(),
        cookies: subscription.cookies.clone(),
        auth: subscription.auth.clone(),
        secrets: subscription.secrets.clone(),
    };
    if secrets == Secrets::default() {
        return Ok(None);
    }
    let key = key.ok_or_else(|| SealError::NoKeyToSeal {
        webhook: webhook.clone(),
    })?;
    let sealed = seal(&secrets, webhook.as_str(), key).map_err(|reason| SealError::Failed {
        webhook: webhook.clone(),
        reason,
    })?;
    Ok(Some(sealed))
}

/// The value of a webhook's record, JSON. A webhook without secrets needs no key.
///
/// # Errors
/// There are secrets and no key, or the random source failed.
pub fn to_record(
    subscription: &Subscription,
    key: Option<&SealingKey>,
) -> Result<Vec<u8>, SealError> {
    let webhook = &subscription.id;
    let sealed = secrets_of(subscription, key)?;
    let record = Record {
        form: FORM,
        id: webhook.clone(),
        customer: subscription.customer.clone(),
        name: subscription.name.clone(),
        description: subscription.description.clone(),
        tags: subscription.tags.clone(),
        url: subscription.url.clone(),
        method: subscription.method,
        body: subscription.body,
        event_types: subscription.event_types.clone(),
        filter: subscription.filter.clone(),
        enabled: subscription.enabled,
        paused: subscription.paused,
        verify_ssl: subscription.verify_ssl,
        timeout_seconds: subscription.timeout.as_secs_f64(),
        max_retries: subscription.max_retries,
        retry_backoff: subscription.retry_backoff_seconds,
        rate_limit: subscription.rate_limit,
        max_concurrency: subscription.max_concurrency,
        max_age_seconds: subscription.max_age_seconds,
        created_at: subscription.created_at,
        updated_at: subscription.updated_at,
        version: subscription.version,
        old_secret_expires_at: subscription.old_secret_expires_at,
        sealed,
    };
    serde_json::to_vec(&record).map_err(|error| SealError::Failed {
        webhook: webhook.clone(),
        reason: error.to_string(),
    })
}

/// The webhook of a record's value.
///
/// # Errors
/// The record is not one of ours, or its secrets cannot be opened with this key.
pub fn from_record(bytes: &[u8], key: Option<&SealingKey>) -> Result<Subscription, SealError> {
    let mut record = read(bytes)?;
    let secrets = match record.sealed.take() {
        None => Secrets::default(),
        Some(sealed) => open(&sealed, record.id.as_str(), &record.id, key)?,
    };
    subscription(record, secrets)
}

/// The same without its secrets, which no key is needed for: what it wants is known then, and nothing can be sent to it.
///
/// # Errors
/// The record is not one of ours.
pub fn without_secrets(bytes: &[u8]) -> Result<Subscription, SealError> {
    subscription(read(bytes)?, Secrets::default())
}

fn read(bytes: &[u8]) -> Result<Record, SealError> {
    /// Read first: the rest of a later form may not fit [`Record`].
    #[derive(Deserialize)]
    struct Form {
        form: u32,
    }
    let unreadable = |error: serde_json::Error| SealError::Unreadable(error.to_string());
    let Form { form } = serde_json::from_slice(bytes).map_err(unreadable)?;
    if form > FORM {
        return Err(SealError::LaterForm(form));
    }
    serde_json::from_slice(bytes).map_err(unreadable)
}

fn subscription(record: Record, secrets: Secrets) -> Result<Subscription, SealError> {
    let timeout = Duration::try_from_secs_f64(record.timeout_seconds)
        .map_err(|error| SealError::Unreadable(format!("timeout_seconds: {error}")))?;
    Ok(Subscription {
        id: record.id,
        customer: record.customer,
        name: record.name,
        description: record.description,
        tags: record.tags,
        url: record.url,
        method: record.method,
        body: record.body,
        event_types: record.event_types,
        filter: record.filter,
        headers: secrets.headers,
        cookies: secrets.cookies,
        auth: secrets.auth,
        secrets: secrets.secrets,
        old_secret_expires_at: record.old_secret_expires_at,
        enabled: record.enabled,
        paused: record.paused,
        verify_ssl: record.verify_ssl,
        timeout,
        max_retries: record.max_retries,
        retry_backoff_seconds: record.retry_backoff,
        rate_limit: record.rate_limit,
        max_concurrency: record.max_concurrency,
        max_age_seconds: record.max_age_seconds,
        created_at: record.created_at,
        updated_at: record.updated_at,
        version: record.version,
    })
}

/// Seals a value for one owner; what is sealed for one does not open for another.
pub(super) fn seal(
    value: &impl Serialize,
    owner: &str,
    key: &SealingKey,
) -> Result<Sealed, String> {
    let plain = serde_json::to_vec(value).map_err(|error| error.to_string())?;
    let mut nonce = XNonce::default();
    getrandom::fill(&mut nonce).map_err(|error| error.to_string())?;
    let payload = Payload {
        msg: &plain,
        aad: owner.as_bytes(),
    };
    let ciphertext = key
        .cipher()
        .encrypt(&nonce, payload)
        .map_err(|error| error.to_string())?;
    Ok(Sealed {
        key_id: key.id().to_owned(),
        nonce: STANDARD.encode(nonce),
        ciphertext: STANDARD.encode(ciphertext),
    })
}

/// Opens what was sealed for an owner; the webhook is for messages.
pub(super) fn open<T: DeserializeOwned>(
    sealed: &Sealed,
    owner: &str,
    webhook: &WebhookId,
    key: Option<&SealingKey>,
) -> Result<T, SealError> {
    let Some(key) = key else {
        return Err(SealError::NoKeyToOpen {
            webhook: webhook.clone(),
            key_id: sealed.key_id.clone(),
        });
    };
    let Some(cipher) = key.cipher_of(&sealed.key_id) else {
        return Err(SealError::WrongKey {
            webhook: webhook.clone(),
            wanted: sealed.key_id.clone(),
            given: key.ids(),
        });
    };
    let tampered = || SealError::Tampered {
        webhook: webhook.clone(),
    };
    let nonce = STANDARD.decode(&sealed.nonce).map_err(|_| tampered())?;
    let nonce = XNonce::try_from(nonce.as_slice()).map_err(|_| tampered())?;
    let ciphertext = STANDARD
        .decode(&sealed.ciphertext)
        .map_err(|_| tampered())?;
    let payload = Payload {
        msg: &ciphertext,
        aad: owner.as_bytes(),
    };
    let plain = cipher.decrypt(&nonce, payload).map_err(|_| tampered())?;
    // Not the parser's message: it could repeat a part of what was sealed.
    serde_json::from_slice(&plain)
        .map_err(|_| SealError::Unreadable("what was sealed is not a webhook's secrets".into()))
}
