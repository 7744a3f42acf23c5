//! The catalog topic for those who change it: read whole, write one, delete one.
//!
//! Routers follow the topic by `followers`; this is for commands, and for the API.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::topics::Topics;
use crate::kafka::producer::Producer;
use crate::kafka::settings::Connection;
use crate::kafka::table;
use crate::metrics::Metrics;
use crate::record::Outgoing;
use crate::subscription::seal::{self, SealError, SealingKey};
use crate::subscription::{Subscription, WebhookId};

const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(20);

/// Why the catalog could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Kafka(#[from] crate::kafka::Error),
    #[error("webhook {0}: {1}")]
    Sealed(String, SealError),
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

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

    /// Every webhook, by id.
    ///
    /// # Errors
    /// The topic cannot be read, or a record cannot be opened (another key).
    pub fn read(&self) -> Result<BTreeMap<WebhookId, Subscription>, Error> {
        let records = table::latest(&self.connection, &self.topic)?;
        let mut webhooks = BTreeMap::new();
        for (key, record) in records {
            let name = String::from_utf8_lossy(&key).into_owned();
            let bytes = record.payload.unwrap_or_default();
            let webhook = seal::from_record(&bytes, self.key.as_ref())
                .map_err(|fault| Error::Sealed(name, fault))?;
            webhooks.insert(webhook.id.clone(), webhook);
        }
        Ok(webhooks)
    }

    /// The record of a webhook, sealed, without writing it: so that all of a file can be checked before any of it is applied.
    ///
    /// # Errors
    /// It has secrets and there is no key.
    pub fn seal(&self, webhook: &Subscription) -> Result<Vec<u8>, Error> {
        seal::to_record(webhook, self.key.as_ref())
            .map_err(|fault| Error::Sealed(webhook.id.to_string(), fault))
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
        self.put(id, None)
    }

    fn put(&self, id: &WebhookId, payload: Option<Bytes>) -> Result<(), Error> {
        let record = Outgoing {
            topic: Arc::clone(&self.topic),
            key: Some(Bytes::copy_from_slice(id.as_str().as_bytes())),
            payload,
            headers: Vec::new(),
        };
        self.producer.write(&record, ACKNOWLEDGED_WITHIN)?;
        Ok(())
    }
}
