//! A webhook as somebody wrote it, before it is known whether it is new or a change. It tells "leave the secret alone"
//! from "no secret", and puts stored values where the writer left [`MASK`], so that exported webhooks can be applied
//! again without a secret ever being shown (promise 7).

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use secrecy::SecretString;

use super::read::pointer;
use super::{Auth, FieldError, MASK, Subscription, WebhookId};

/// What the writer wants with the signing secret.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretChange {
    /// The field is absent: a new webhook has none, a stored one keeps its own.
    Keep,
    /// `null`: not signed.
    Remove,
    /// `"generate"`: one is made, unless the stored webhook has one (applying a file twice changes nothing).
    Generate,
    /// [`MASK`]: as stored, and there must be one.
    Stored,
    /// This one, alone; [`Subscription::rotate_secret`] is the way to keep two for a while.
    Set(String),
}

impl std::fmt::Debug for SecretChange {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Keep => "Keep",
            Self::Remove => "Remove",
            Self::Generate => "Generate",
            Self::Stored => "Stored",
            Self::Set(_) => "Set(***)",
        })
    }
}

/// A checked webhook that is not written yet; made by [`super::read::read`].
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// Its version and times mean nothing yet, and values may be [`MASK`].
    pub(super) wanted: Subscription,
    pub(super) id_given: bool,
    pub(super) paused_given: bool,
    pub(super) secret: SecretChange,
    /// Where it stands in its document: the prefix of the pointers of its faults.
    pub(super) prefix: String,
}

/// A draft that became a webhook.
#[derive(Debug)]
pub struct Resolved {
    /// What to store.
    pub subscription: Subscription,
    /// A secret that was made just now, to be shown this once.
    pub generated_secret: Option<SecretString>,
    /// Contract names of the fields that changed; all that differ from the stored webhook, none for a new one.
    pub changed: Vec<&'static str>,
}

impl Draft {
    /// The id that was given, derived or made for it.
    pub fn id(&self) -> &WebhookId {
        &self.wanted.id
    }

    /// False where the id was made at random, because the writer gave none.
    pub fn has_given_id(&self) -> bool {
        self.id_given
    }

    /// The settings that are wanted; values of headers, cookies and credentials may be [`MASK`].
    pub fn wanted(&self) -> &Subscription {
        &self.wanted
    }

    /// Where it stands in its document, as a JSON pointer.
    pub fn pointer(&self) -> &str {
        &self.prefix
    }

    /// A new webhook.
    ///
    /// # Errors
    /// A value is [`MASK`], which stands for a stored value, and there is none.
    pub fn create(self, now: Timestamp) -> Result<Resolved, Vec<FieldError>> {
        let mut subscription = self.wanted;
        reveal(&mut subscription, &Stored::Nothing, &self.prefix)?;
        let generated_secret =
            set_secret(&mut subscription, Vec::new(), self.secret, &self.prefix)?;
        subscription.created_at = now;
        subscription.updated_at = now;
        subscription.version = 1;
        Ok(Resolved {
            subscription,
            generated_secret,
            changed: Vec::new(),
        })
    }

    /// A change of a stored webhook, whose id and time of creation stay. Where nothing differs, the stored webhook comes
    /// back as it was, version included.
    ///
    /// # Errors
    /// A value is [`MASK`] and the stored webhook has none of that name, or sends to another server: stored credentials
    /// must not be carried off by a change of the URL.
    pub fn update(
        self,
        stored: &Subscription,
        now: Timestamp,
    ) -> Result<Resolved, Vec<FieldError>> {
        let mut subscription = self.wanted;
        if subscription.url.origin() == stored.url.origin() {
            reveal(&mut subscription, &Stored::Values(stored), &self.prefix)?;
        } else {
            reveal(&mut subscription, &Stored::OtherServer, &self.prefix)?;
        }
        let generated_secret = set_secret(
            &mut subscription,
            stored.secrets.clone(),
            self.secret,
            &self.prefix,
        )?;
        if subscription.secrets == stored.secrets {
            subscription.old_secret_expires_at = stored.old_secret_expires_at;
        }
        if !self.paused_given {
            subscription.paused = stored.paused;
        }
        let changed = subscription.differing_fields(stored);
        subscription.id = stored.id.clone();
        subscription.created_at = stored.created_at;
        subscription.updated_at = if changed.is_empty() {
            stored.updated_at
        } else {
            now
        };
        subscription.version = stored.version + u64::from(!changed.is_empty());
        Ok(Resolved {
            subscription,
            generated_secret,
            changed,
        })
    }
}

/// What a mask may be replaced from.
enum Stored<'a> {
    Nothing,
    OtherServer,
    Values(&'a Subscription),
}

fn reveal(
    subscription: &mut Subscription,
    stored: &Stored<'_>,
    prefix: &str,
) -> Result<(), Vec<FieldError>> {
    let mut errors = Vec::new();
    let reason = match stored {
        Stored::Nothing => "there is no stored webhook to take it from",
        Stored::OtherServer => {
            "the webhook now sends to another server, which must not get what was meant for the old one"
        }
        Stored::Values(_) => "the stored webhook has no such value",
    };
    let mut refuse = |path: &[&str]| {
        let pointer = path
            .iter()
            .fold(prefix.to_owned(), |parent, name| pointer(&parent, name));
        let message = format!("`{MASK}` means \"as stored\", but {reason}; write the value itself");
        errors.push(FieldError { pointer, message });
    };
    let known = if let Stored::Values(stored) = stored {
        Some(*stored)
    } else {
        None
    };
    for (field, values, stored) in [
        (
            "headers",
            &mut subscription.headers,
            known.map(|stored| &stored.headers),
        ),
        (
            "cookies",
            &mut subscription.cookies,
            known.map(|stored| &stored.cookies),
        ),
    ] {
        for (name, value) in values.iter_mut().filter(|(_, value)| *value == MASK) {
            match stored.and_then(|stored: &BTreeMap<String, String>| stored.get(name)) {
                Some(found) => value.clone_from(found),
                None => refuse(&[field, name]),
            }
        }
    }
    match (&mut subscription.auth, known.map(|stored| &stored.auth)) {
        (Auth::Bearer { token }, Some(Auth::Bearer { token: found })) if token == MASK => {
            token.clone_from(found)
        }
        (Auth::ApiKey { token, .. }, Some(Auth::ApiKey { token: found, .. })) if token == MASK => {
            token.clone_from(found)
        }
        (
            Auth::Basic { password, .. },
            Some(Auth::Basic {
                password: found, ..
            }),
        ) if password == MASK => {
            password.clone_from(found);
        }
        (Auth::Bearer { token } | Auth::ApiKey { token, .. }, _) if token == MASK => {
            refuse(&["auth", "token"])
        }
        (Auth::Basic { password, .. }, _) if password == MASK => refuse(&["auth", "password"]),
        _ => {}
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors)
    }
}

fn set_secret(
    subscription: &mut Subscription,
    stored: Vec<String>,
    change: SecretChange,
    prefix: &str,
) -> Result<Option<SecretString>, Vec<FieldError>> {
    match change {
        SecretChange::Stored if stored.is_empty() => {
            let message = format!(
                "`{MASK}` means \"as stored\", but no secret is stored; write the secret itself, or \"generate\""
            );
            return Err(vec![FieldError {
                pointer: pointer(prefix, "secret"),
                message,
            }]);
        }
        SecretChange::Keep | SecretChange::Stored => subscription.secrets = stored,
        SecretChange::Generate if !stored.is_empty() => subscription.secrets = stored,
        SecretChange::Remove => subscription.secrets.clear(),
        // The newest one again: an old one that still lives for a rotation stays.
        SecretChange::Set(secret) if stored.first() == Some(&secret) => {
            subscription.secrets = stored
        }
        SecretChange::Set(secret) => subscription.secrets = vec![secret],
        SecretChange::Generate => {
            let secret = generate_secret().map_err(|error| {
                let message = format!("no secret could be made: {error}; write one yourself");
                vec![FieldError {
                    pointer: pointer(prefix, "secret"),
                    message,
                }]
            })?;
            subscription.secrets = vec![secret.clone()];
            return Ok(Some(secret.into()));
        }
    }
    Ok(None)
}

/// A new signing secret: `whsec_` and 32 random bytes in base64 (Standard Webhooks).
///
/// # Errors
/// The system's random source failed.
pub fn generate_secret() -> Result<String, getrandom::Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(format!("whsec_{}", STANDARD.encode(bytes)))
}
