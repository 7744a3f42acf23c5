//! Changes of the catalog by running instances, checked on the catalog's own order: two that change one webhook at a time
//! never overwrite each other silently.
//!
//! A change is written, and waited for in this instance's own follower, which says what stood there just before it in
//! the log. If that is not what the writer had seen, another was faster: a conditional change then puts back what it
//! overwrote and is refused, any other is made once more, on top of the other's. When the answer goes out, this instance's
//! catalog has the change (a read after one's own write sees it).
//!
//! Between a lost write and its putting back, a few milliseconds, routers see the lost one; a writer that dies just
//! then leaves it, and has told nobody that it holds.

use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tracing::{error, warn};

use super::Ways;
use crate::record::{Header, Outgoing, Record, header_text};
use crate::subscription::seal::{self, SealError, SealingKey};
use crate::subscription::{Edit, Edited, Subscription, WebhookId};
use crate::token::Token;

/// What names a write, so that its writer knows it again in the log.
const WRITE_HEADER: &str = "postrider-write";
/// What stands before a token's id in its record's key.
const TOKEN_KEY: &str = "token/";
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(20);
const SEEN_WITHIN: Duration = Duration::from_secs(10);
/// Times that a change is made on top of others before it gives up.
const ATTEMPTS: usize = 5;

/// Why a change was not made. `E` is what its maker says.
#[derive(Debug, thiserror::Error)]
pub enum Fault<E> {
    /// The maker refuses, having seen how the webhook stands.
    #[error("refused")]
    Refused(E),
    /// Its secrets cannot be sealed.
    #[error(transparent)]
    Sealed(#[from] SealError),
    /// The cluster does not take it, or this instance did not see it in time; it may hold all the same.
    #[error("{0}")]
    NotSeen(String),
    /// Others were faster each time.
    #[error("others changed it at the same time, again and again; try once more")]
    Busy,
}

type Stood = Option<Arc<Subscription>>;

/// Writes that wait to be seen, and the tokens that were: fed by the catalog's follower.
#[derive(Default)]
pub struct Written {
    waiting: Mutex<HashMap<String, Sender<Stood>>>,
    /// Seen, but not yet in the published catalog.
    seen: Mutex<Vec<(Sender<Stood>, Stood)>>,
    /// Only the follower writes here.
    collected: Mutex<(BTreeMap<String, Token>, bool)>,
    tokens: ArcSwap<Vec<Token>>,
}

impl Written {
    /// The tokens that were made by the API.
    pub fn tokens(&self) -> Arc<Vec<Token>> {
        self.tokens.load_full()
    }

    /// Takes a record if it is a token's; the answer is whether it was.
    pub fn take_token(&self, record: &Record) -> bool {
        let key = record
            .key
            .as_deref()
            .and_then(|key| std::str::from_utf8(key).ok());
        let Some(id) = key.and_then(|key| key.strip_prefix(TOKEN_KEY)) else {
            return false;
        };
        let mut collected = self
            .collected
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let token = record
            .payload
            .as_deref()
            .map(serde_json::from_slice::<Token>);
        match token {
            None => drop(collected.0.remove(id)),
            Some(Ok(token)) => drop(collected.0.insert(id.to_owned(), token)),
            // A token that cannot be read must not stay valid in its older form: it may be a revocation of a later version.
            Some(Err(fault)) => {
                error!(token = id, %fault, "the record of a token cannot be read; the token is refused");
                collected.0.remove(id);
            }
        }
        collected.1 = true;
        drop(collected);
        self.seen(record, None);
        true
    }

    /// Tells of a record of the log, and what stood there before it.
    pub fn seen(&self, record: &Record, before: Stood) {
        let Some(name) = header_text(&record.headers, WRITE_HEADER) else {
            return;
        };
        let waiting = self
            .waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name);
        if let Some(waiting) = waiting {
            self.seen
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((waiting, before));
        }
    }

    /// Tells that everything seen is in the published catalog.
    pub fn published(&self) {
        let mut collected = self
            .collected
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut collected.1) {
            self.tokens
                .store(Arc::new(collected.0.values().cloned().collect()));
        }
        drop(collected);
        let seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        for (waiting, before) in seen {
            let _ = waiting.send(before);
        }
    }

    fn wait_for(&self, name: &str) -> Receiver<Stood> {
        let (waiting, seen) = mpsc::channel();
        let mut all = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(name.to_owned(), waiting);
        seen
    }

    fn forget(&self, name: &str) {
        self.waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name);
    }
}

/// Changes the catalog.
pub struct Changes {
    pub ways: Arc<Ways>,
    pub written: Arc<Written>,
    pub key: Option<SealingKey>,
}

impl Changes {
    /// Changes a webhook as `edit` says, which is asked anew when another was faster. It blocks.
    ///
    /// # Errors
    /// See [`Fault`].
    pub fn change<E>(
        &self,
        id: &WebhookId,
        conditional: bool,
        edit: &mut dyn FnMut(Option<&Subscription>) -> Result<Edit, E>,
    ) -> Result<Edited, Fault<E>> {
        let mut before = self.ways.catalog.now().get(id).cloned();
        // After a lost write it is that which stands before the next one, not what the next one is made of.
        let mut expected = before.clone();
        let mut version = 0;
        for _ in 0..ATTEMPTS {
            let after = match edit(before.as_deref()).map_err(Fault::Refused)? {
                Edit::Keep if version == 0 => {
                    return Ok(Edited {
                        after: before.clone(),
                        before,
                    });
                }
                // What was written meanwhile is not what the other wrote.
                Edit::Keep => before.as_deref().cloned(),
                Edit::Delete => None,
                Edit::Put(webhook) => Some(*webhook),
            };
            let after = after.map(|mut webhook| {
                webhook.version = webhook.version.max(version + 1);
                Arc::new(webhook)
            });
            let stood = self.write(id, after.as_deref())?;
            if place(stood.as_deref()) == place(expected.as_deref()) {
                return Ok(Edited { before, after });
            }
            version = newest(version, &[&after, &stood]);
            if conditional {
                self.put_back(id, stood.clone(), after, version);
                edit(stood.as_deref()).map_err(Fault::Refused)?;
                return Err(Fault::Busy);
            }
            before = stood;
            expected = after;
        }
        Err(Fault::Busy)
    }

    /// Writes a token, or deletes it, and waits until this instance knows it. It blocks.
    ///
    /// # Errors
    /// [`Fault::NotSeen`].
    pub fn put_token(&self, id: &str, token: Option<&Token>) -> Result<(), Fault<()>> {
        let value = token.map(serde_json::to_vec).transpose();
        let value = value.map_err(|fault| Fault::NotSeen(fault.to_string()))?;
        self.put(format!("{TOKEN_KEY}{id}"), value)
            .map(drop)
            .map_err(Fault::NotSeen)
    }

    /// Puts back what a lost write overwrote, or what yet another wrote on top of it.
    fn put_back(&self, id: &WebhookId, stood: Stood, lost: Stood, version: u64) {
        let (mut back, mut expected, mut version) = (stood, lost, version);
        for _ in 0..ATTEMPTS {
            let again = back.as_deref().cloned().map(|mut webhook| {
                webhook.version = version + 1;
                Arc::new(webhook)
            });
            match self.write::<()>(id, again.as_deref()) {
                Ok(found) if place(found.as_deref()) == place(expected.as_deref()) => return,
                Ok(found) => {
                    version = newest(version, &[&again, &found]);
                    expected = again;
                    back = found;
                }
                Err(fault) => {
                    warn!(webhook = %id, %fault, "what another wrote at the same time could not be put back");
                    return;
                }
            }
        }
    }

    /// Writes, waits until it is seen, and answers what stood there before.
    fn write<E>(&self, id: &WebhookId, webhook: Option<&Subscription>) -> Result<Stood, Fault<E>> {
        let value = webhook
            .map(|webhook| seal::to_record(webhook, self.key.as_ref()))
            .transpose()?;
        self.put(id.to_string(), value).map_err(Fault::NotSeen)
    }

    fn put(&self, key: String, value: Option<Vec<u8>>) -> Result<Stood, String> {
        let name = uuid::Uuid::now_v7().simple().to_string();
        let record = Outgoing {
            topic: Arc::clone(&self.ways.topics.subscriptions),
            key: Some(Bytes::from(key)),
            payload: value.map(Bytes::from),
            headers: vec![Header::text(WRITE_HEADER, name.clone())],
        };
        let seen = self.written.wait_for(&name);
        let result = self.ways.producer.write(&record, ACKNOWLEDGED_WITHIN);
        let result = result.map_err(|fault| fault.to_string()).and_then(|_| {
            seen.recv_timeout(SEEN_WITHIN).map_err(|_| {
                "the change is written, but this instance has not read it back in time; look again before repeating it"
                    .to_owned()
            })
        });
        self.written.forget(&name);
        result
    }
}

fn newest(version: u64, states: &[&Stood]) -> u64 {
    let versions = states.iter().filter_map(|state| state.as_ref());
    versions
        .map(|webhook| webhook.version)
        .fold(version, u64::max)
}

/// What tells one state of a webhook from another.
fn place(webhook: Option<&Subscription>) -> Option<(u64, jiff::Timestamp)> {
    webhook.map(|webhook| (webhook.version, webhook.updated_at))
}
