//! The catalog topic for those who change it: read whole, write one, delete one.
//!
//! Routers follow the topic by `followers`; this is for commands, and for the API.

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::topics::Topics;
use crate::kafka::producer::Producer;
use crate::kafka::settings::Connection;
use crate::kafka::table;
use crate::metrics::Metrics;
use crate::record::Outgoing;
use crate::subscription::condition::{CatalogKey, Condition, condition_key};
use crate::subscription::seal::{self, SealError, SealingKey};
use crate::subscription::{Subscription, WebhookId};

const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(20);

/// Why the catalog could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Kafka(#[from] crate::kafka::Error),
    #[error("webhook {0}: {1}")]
    Sealed(WebhookId, SealError),
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// What the catalog topic holds: each webhook, or why its record cannot be opened.
pub type Records = BTreeMap<WebhookId, Result<Subscription, SealError>>;

/// What is known of the webhooks' endpoints; see [`Condition::applies_to`].
pub type Conditions = BTreeMap<WebhookId, Condition>;

/// A record to be written, or `None` for a webhook to be deleted.
pub type Entry = (WebhookId, Option<Vec<u8>>);

/// An open catalog.
pub struct CatalogTopic {
    connection: Connection,
    topic: Arc<str>,
    key: Option<SealingKey>,
    producer: Producer,
}

impl CatalogTopic {
    /// Opens the catalog of a cluster.
    ///
    /// # Errors
    /// The client refuses its settings.
    pub fn open(
        connection: Connection,
        topics: &Topics,
        key: Option<SealingKey>,
    ) -> Result<Self, Error> {
        let producer = Producer::start(&connection.producer(), Arc::new(Metrics::new()?))?;
        Ok(Self {
            connection,
            topic: Arc::clone(&topics.subscriptions),
            key,
            producer,
        })
    }

    /// What it writes by.
    pub fn producer(&self) -> &Producer {
        &self.producer
    }

    /// Every webhook, by id.
    ///
    /// # Errors
    /// The topic cannot be read, or a record cannot be opened (another key).
    pub fn read(&self) -> Result<BTreeMap<WebhookId, Subscription>, Error> {
        self.read_each()?
            .into_iter()
            .map(|(id, webhook)| match webhook {
                Ok(webhook) => Ok((id, webhook)),
                Err(fault) => Err(Error::Sealed(id, fault)),
            })
            .collect()
    }

    /// The same where a record that cannot be opened does not hide the others. A record whose key is no webhook id is
    /// passed over, as routers do.
    ///
    /// # Errors
    /// The topic cannot be read.
    pub fn read_each(&self) -> Result<Records, Error> {
        Ok(self.read_with_conditions()?.0)
    }

    /// The same with what routers have learnt of the endpoints. A condition that cannot be read counts as none.
    ///
    /// # Errors
    /// The topic cannot be read.
    pub fn read_with_conditions(&self) -> Result<(Records, Conditions), Error> {
        let mut webhooks = Records::new();
        let mut conditions = Conditions::new();
        for (key, record) in table::latest(&self.connection, &self.topic)? {
            let bytes = record.payload.unwrap_or_default();
            match CatalogKey::parse(Some(&key)) {
                Some(CatalogKey::Webhook(id)) => {
                    webhooks.insert(id, seal::from_record(&bytes, self.key.as_ref()));
                }
                Some(CatalogKey::Condition(id)) => {
                    if let Ok(condition) = serde_json::from_slice(&bytes) {
                        conditions.insert(id, condition);
                    }
                }
                Some(CatalogKey::Other) | None => {}
            }
        }
        Ok((webhooks, conditions))
    }

    /// The record of a webhook, sealed, without writing it: so that all of a file can be checked before any of it is applied.
    ///
    /// # Errors
    /// It has secrets and there is no key.
    pub fn seal(&self, webhook: &Subscription) -> Result<Vec<u8>, Error> {
        seal::to_record(webhook, self.key.as_ref())
            .map_err(|fault| Error::Sealed(webhook.id.clone(), fault))
    }

    /// Writes a webhook; done when the cluster has it.
    ///
    /// # Errors
    /// As [`CatalogTopic::seal`], or the cluster does not take it.
    pub fn write(&self, webhook: &Subscription) -> Result<(), Error> {
        let value = self.seal(webhook)?;
        self.put(&webhook.id, Some(value.into()))
    }

    /// Deletes a webhook. Its waiting deliveries end as dropped.
    ///
    /// # Errors
    /// The cluster does not take it.
    pub fn delete(&self, id: &WebhookId) -> Result<(), Error> {
        // The state first: it says nothing without its webhook.
        self.forget_condition(id);
        self.put(id, None)
    }

    /// Deletes what is known of an endpoint. It is not waited for: what is left of it is passed over with its webhook.
    fn forget_condition(&self, id: &WebhookId) {
        self.producer.send(
            &self.record(&condition_key(id), None),
            Box::new(|written| {
                if let Err(refused) = written {
                    tracing::warn!(%refused, "the state of a deleted webhook is left over");
                }
            }),
        );
    }

    /// Writes and deletes in this order, and waits for each: what became of it. After a failure the rest may be written all the
    /// same; none is given up before its answer or the end of the wait.
    pub fn put_all(&self, entries: Vec<Entry>) -> Vec<Result<(), Error>> {
        let waits: Vec<_> = entries
            .into_iter()
            .map(|(id, value)| {
                let (written, answer) = mpsc::channel();
                if value.is_none() {
                    self.forget_condition(&id);
                }
                self.producer.send(
                    &self.record(&id, value.map(Bytes::from)),
                    Box::new(move |result| {
                        let _ = written.send(result);
                    }),
                );
                answer
            })
            .collect();
        let deadline = Instant::now() + ACKNOWLEDGED_WITHIN;
        waits
            .into_iter()
            .map(|answer| {
                let left = deadline.saturating_duration_since(Instant::now());
                let fault = match answer.recv_timeout(left) {
                    Ok(Ok(_)) => return Ok(()),
                    Ok(Err(refused)) => refused.to_string(),
                    Err(_) => format!(
                        "{} did not acknowledge a record within {} s",
                        self.topic,
                        ACKNOWLEDGED_WITHIN.as_secs()
                    ),
                };
                Err(crate::kafka::Error::NoAnswer(fault).into())
            })
            .collect()
    }

    fn record(&self, key: &str, payload: Option<Bytes>) -> Outgoing {
        Outgoing {
            topic: Arc::clone(&self.topic),
            key: Some(Bytes::copy_from_slice(key.as_bytes())),
            payload,
            headers: Vec::new(),
        }
    }

    fn put(&self, id: &WebhookId, payload: Option<Bytes>) -> Result<(), Error> {
        self.producer
            .write(&self.record(id, payload), ACKNOWLEDGED_WITHIN)?;
        Ok(())
    }
}
