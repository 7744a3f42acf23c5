//! The two compacted topics that every instance follows live: the catalog of webhooks with the conditions of their endpoints, and
//! the drain cursors.

use std::collections::HashMap;
use std::sync::Arc;

use tracing::error;

use super::changes::Written;
use super::conditions::Conditions;
use super::hold::Cursors;
use crate::kafka::Error;
use crate::kafka::settings::Connection;
use crate::kafka::table::{Change, Follower, follow};
use crate::matching::catalog::{Catalog, Locked};
use crate::metrics::Metrics;
use crate::record::Record;
use crate::subscription::condition::{CatalogKey, Condition};
use crate::subscription::seal::{self, SealError, SealingKey};
use crate::subscription::{Subscription, WebhookId};

/// Follows the catalog topic and publishes what it says.
///
/// # Errors
/// The topic is missing or the broker does not answer; the process does not start.
pub fn catalog(
    connection: &Connection,
    topic: &str,
    key: Option<SealingKey>,
    catalog: Arc<Catalog>,
    conditions: Arc<Conditions>,
    metrics: Arc<Metrics>,
    written: Arc<Written>,
) -> Result<Follower, Error> {
    let mut webhooks: HashMap<WebhookId, Arc<Subscription>> = HashMap::new();
    let mut locked = Locked::new();
    // Of records that could not be read since the last time; only those count that no later record has replaced.
    let mut faults: HashMap<WebhookId, SealError> = HashMap::new();
    let mut changed = false;
    follow(connection, topic, move |change| match change {
        Change::Put(record) => {
            if written.take_token(&record) {
                return;
            }
            fail::fail_point!("catalog-in-replay", |_| crate::failpoint::die());
            let id = match CatalogKey::parse(record.key.as_deref()) {
                Some(CatalogKey::Webhook(id)) => id,
                Some(CatalogKey::Condition(id)) => {
                    if let Err(fault) = remember(&conditions, &id, &record) {
                        metrics.catalog_errors.inc();
                        error!(webhook = %id, %fault, "the recorded state of a webhook cannot be read; it is passed over");
                    }
                    return;
                }
                // Of another kind, and read by somebody else.
                Some(CatalogKey::Other) => return,
                None => {
                    metrics.catalog_errors.inc();
                    error!(source = %record.source(), "a catalog record's key is no webhook id; it is passed over");
                    return;
                }
            };
            written.seen(&record, webhooks.get(&id).cloned());
            faults.remove(&id);
            let Some(bytes) = record.payload.as_deref() else {
                changed |= webhooks.remove(&id).is_some() | locked.remove(&id).is_some();
                conditions.enter(id, None);
                return;
            };
            match seal::from_record(bytes, key.as_ref()) {
                Ok(webhook) if webhook.id != id => {
                    metrics.catalog_errors.inc();
                    error!(key = %id, webhook = %webhook.id, "a catalog record is of another webhook than its key; it is passed over");
                }
                Ok(webhook) => {
                    locked.remove(&id);
                    webhooks.insert(id, Arc::new(webhook));
                    changed = true;
                }
                Err(fault) => {
                    if !webhooks.contains_key(&id) {
                        let rest = seal::without_secrets(bytes).ok();
                        let rest = rest.filter(|webhook| webhook.id == id);
                        locked.insert(id.clone(), rest.map(Arc::new));
                        changed = true;
                    }
                    faults.insert(id, fault);
                }
            }
        }
        Change::CaughtUp(instant) => {
            for (id, fault) in faults.drain() {
                metrics.catalog_errors.inc();
                if locked.contains_key(&id) {
                    error!(webhook = %id, %fault, "a catalog record cannot be read; deliveries to the webhook wait until it can");
                } else {
                    error!(webhook = %id, %fault, "a catalog record cannot be read; the webhook stays as it was");
                }
            }
            if std::mem::take(&mut changed) {
                metrics
                    .webhooks
                    .set(i64::try_from(webhooks.len()).unwrap_or(i64::MAX));
                catalog.publish(webhooks.clone(), locked.clone());
            }
            catalog.confirm(instant);
            written.published();
        }
    })
}

/// Takes over the condition of a webhook's endpoint, or forgets it.
fn remember(
    conditions: &Conditions,
    id: &WebhookId,
    record: &Record,
) -> Result<(), serde_json::Error> {
    let payload = record.payload.as_deref();
    let condition: Option<Condition> = payload.map(serde_json::from_slice).transpose()?;
    conditions.enter(id.clone(), condition);
    Ok(())
}

/// Follows the drain cursors.
///
/// # Errors
/// As [`catalog`].
pub fn cursors(
    connection: &Connection,
    topic: &str,
    cursors: Arc<Cursors>,
) -> Result<Follower, Error> {
    follow(connection, topic, move |change| match change {
        Change::Put(record) => cursors.read(&record),
        Change::CaughtUp(_) => cursors.loaded(),
    })
}
