//! A webhook's form in the catalog topic. Whoever can read the topic sees where webhooks go, but no header value, cookie,
//! credential or signing secret: those are one sealed blob (promise 7).
//!
//! XChaCha20-Poly1305, because its nonce of 24 bytes may be drawn at random for any number of records. The webhook's id
//! is the associated data, so that a blob cannot be moved into another webhook's record.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use url::Url;

use super::{Auth, Customer, Method, RateLimit, Subscription, WebhookId};

/// The form that this program writes. A reader refuses higher ones rather than lose what it does not know.
const FORM: u32 = 1;

/// Why a text is not a sealing key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// It is not base64 (RFC 4648 4).
    #[error("the secret key is not base64; make one with: head -c 32 /dev/urandom | base64")]
    NotBase64,
    /// It has another length.
    #[error(
        "the secret key has {0} bytes and must have 32; make one with: head -c 32 /dev/urandom | base64"
    )]
    WrongLength(usize),
}

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
         {wanted}, or apply the webhook again with its secrets"
    )]
    WrongKey {
        /// The webhook of the record.
        webhook: WebhookId,
        /// Id of the key that sealed it.
        wanted: String,
        /// Id of the key that was tried.
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

/// The key that encrypts the secrets of webhooks in the catalog topic.
#[derive(Clone)]
pub struct SealingKey {
    cipher: XChaCha20Poly1305,
    id: String,
}

impl SealingKey {
    /// Reads a key of 32 bytes in base64; white space around it is ignored.
    ///
    /// # Errors
    /// [`InvalidKey`]; it never repeats the text.
    pub fn from_base64(text: &str) -> Result<Self, InvalidKey> {
        let bytes = STANDARD
            .decode(text.trim())
            .map_err(|_| InvalidKey::NotBase64)?;
        let cipher = XChaCha20Poly1305::new_from_slice(&bytes)
            .map_err(|_| InvalidKey::WrongLength(bytes.len()))?;
        let id = Sha256::digest(&bytes)
            .iter()
            .take(4)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok(Self { cipher, id })
    }

    /// The first 8 hexadecimal digits of the key's SHA-256: tells keys apart and gives nothing away.
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SealingKey({})", self.id)
    }
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

#[derive(Serialize, Deserialize)]
struct Sealed {
    key_id: String,
    nonce: String,
    ciphertext: String,
}

/// What is sealed.
#[derive(Default, PartialEq, Serialize, Deserialize)]
struct Secrets {
    headers: BTreeMap<String, String>,
    cookies: BTreeMap<String, String>,
    auth: Auth,
    secrets: Vec<String>,
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
    let secrets = Secrets {
        headers: subscription.headers.clone(),
        cookies: subscription.cookies.clone(),
        auth: subscription.auth.clone(),
        secrets: subscription.secrets.clone(),
    };
    let sealed = match (secrets == Secrets::default(), key) {
        (true, _) => None,
        (false, None) => {
            return Err(SealError::NoKeyToSeal {
                webhook: webhook.clone(),
            });
        }
        (false, Some(key)) => {
            Some(
                seal(&secrets, webhook, key).map_err(|reason| SealError::Failed {
                    webhook: webhook.clone(),
                    reason,
                })?,
            )
        }
    };
    let record = Record {
        form: FORM,
        id: webhook.clone(),
        customer: subscription.customer.clone(),
        name: subscription.name.clone(),
        description: subscription.description.clone(),
        tags: subscription.tags.clone(),
        url: subscription.url.clone(),
        method: subscription.method,
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
    let record: Record = serde_json::from_slice(bytes).map_err(unreadable)?;
    let timeout = Duration::try_from_secs_f64(record.timeout_seconds)
        .map_err(|error| SealError::Unreadable(format!("timeout_seconds: {error}")))?;
    let secrets = match record.sealed {
        None => Secrets::default(),
        Some(sealed) => open(&sealed, &record.id, key)?,
    };
    Ok(Subscription {
        id: record.id,
        customer: record.customer,
        name: record.name,
        description: record.description,
        tags: record.tags,
        url: record.url,
        method: record.method,
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

fn seal(secrets: &Secrets, webhook: &WebhookId, key: &SealingKey) -> Result<Sealed, String> {
    let plain = serde_json::to_vec(secrets).map_err(|error| error.to_string())?;
    let mut nonce = XNonce::default();
    getrandom::fill(&mut nonce).map_err(|error| error.to_string())?;
    let payload = Payload {
        msg: &plain,
        aad: webhook.as_bytes(),
    };
    let ciphertext = key
        .cipher
        .encrypt(&nonce, payload)
        .map_err(|error| error.to_string())?;
    Ok(Sealed {
        key_id: key.id.clone(),
        nonce: STANDARD.encode(nonce),
        ciphertext: STANDARD.encode(ciphertext),
    })
}

fn open(
    sealed: &Sealed,
    webhook: &WebhookId,
    key: Option<&SealingKey>,
) -> Result<Secrets, SealError> {
    let Some(key) = key else {
        return Err(SealError::NoKeyToOpen {
            webhook: webhook.clone(),
            key_id: sealed.key_id.clone(),
        });
    };
    if key.id != sealed.key_id {
        return Err(SealError::WrongKey {
            webhook: webhook.clone(),
            wanted: sealed.key_id.clone(),
            given: key.id.clone(),
        });
    }
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
        aad: webhook.as_bytes(),
    };
    let plain = key
        .cipher
        .decrypt(&nonce, payload)
        .map_err(|_| tampered())?;
    // Not the parser's message: it could repeat a part of what was sealed.
    serde_json::from_slice(&plain)
        .map_err(|_| SealError::Unreadable("what was sealed is not a webhook's secrets".into()))
}
