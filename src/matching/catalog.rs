//! The live set of webhooks, swapped whole when it changes.
//!
//! One writer follows the catalog topic and collects changes; readers take a snapshot and are never blocked. A webhook whose
//! filter cannot be read is kept and marked: its events are dead-lettered with that reason, never skipped (promise 1). One whose record
//! cannot be opened is locked: as far as is known what it wants, deliveries to it are made, and wait.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use arc_swap::ArcSwap;

use super::filter::Filter;
use super::index::{Entry, Index};
use crate::event::Event;
use crate::subscription::{Subscription, WebhookId};

/// A webhook that may want an event.
#[derive(Clone)]
pub struct Candidate {
    pub webhook: Arc<Subscription>,
    /// Why its filter cannot be evaluated; then it stands here for every event of its types and customer.
    pub filter_fault: Option<Arc<str>>,
}

/// Webhooks whose newest record cannot be opened and of which no earlier one is known, without their secrets; `None` where even the
/// rest cannot be read.
pub type Locked = HashMap<WebhookId, Option<Arc<Subscription>>>;

/// The catalog as it was at one moment.
pub struct Snapshot {
    webhooks: HashMap<WebhookId, Arc<Subscription>>,
    locked: Locked,
    index: Index<Candidate>,
}

impl Snapshot {
    /// The webhook of this id.
    pub fn get(&self, id: &str) -> Option<&Arc<Subscription>> {
        self.webhooks.get(id)
    }

    /// Webhooks that there are and that cannot be opened.
    pub fn locked(&self) -> &Locked {
        &self.locked
    }

    /// All webhooks, in no order.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Subscription>> {
        self.webhooks.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.webhooks.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.webhooks.is_empty()
    }

    /// The enabled webhooks that want the event, appended to `found`.
    pub fn wanting<'a>(&'a self, event: &Event, found: &mut Vec<&'a Candidate>) {
        self.index.wanting(
            &event.event_type,
            event.customer.as_deref(),
            &event.body,
            found,
        );
    }
}

/// See the module's text.
pub struct Catalog {
    current: ArcSwap<Snapshot>,
    start: Instant,
    /// Everything written before this time (milliseconds after `start`) is in the snapshot; 0 before the first load.
    caught_up_ms: AtomicU64,
}

impl Default for Catalog {
    fn default() -> Self {
        Self {
            current: ArcSwap::from_pointee(snapshot(HashMap::new(), Locked::new())),
            start: Instant::now(),
            caught_up_ms: AtomicU64::new(0),
        }
    }
}

impl Catalog {
    /// The catalog as it is now. Take it once for a record, so that one event sees one catalog.
    pub fn now(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.current.load()
    }

    /// Publishes a new set.
    pub fn publish(&self, webhooks: HashMap<WebhookId, Arc<Subscription>>, locked: Locked) {
        self.current.store(Arc::new(snapshot(webhooks, locked)));
    }

    /// Says that everything written before this instant has been published.
    pub fn confirm(&self, caught_up_at: Instant) {
        self.caught_up_ms
            .store(self.milliseconds(caught_up_at).max(1), Ordering::Release);
    }

    /// Whether the whole catalog has been read once.
    pub fn is_loaded(&self) -> bool {
        self.caught_up_ms.load(Ordering::Acquire) > 0
    }

    /// Whether everything that was written to the catalog before `instant` has been published.
    pub fn is_newer_than(&self, instant: Instant) -> bool {
        self.caught_up_ms.load(Ordering::Acquire) > self.milliseconds(instant)
    }

    fn milliseconds(&self, instant: Instant) -> u64 {
        let since = instant.saturating_duration_since(self.start).as_millis();
        u64::try_from(since).unwrap_or(u64::MAX)
    }
}

fn snapshot(webhooks: HashMap<WebhookId, Arc<Subscription>>, locked: Locked) -> Snapshot {
    let all = webhooks.values().chain(locked.values().flatten());
    let enabled = all.filter(|webhook| webhook.enabled);
    let index = Index::build(enabled.map(|webhook| {
        let (entry, filter_fault) = entry_of(webhook);
        let candidate = Candidate {
            webhook: Arc::clone(webhook),
            filter_fault,
        };
        (entry, candidate)
    }));
    Snapshot {
        webhooks,
        locked,
        index,
    }
}

/// What a webhook wants, for the index, and why its filter cannot be evaluated.
pub fn entry_of(webhook: &Subscription) -> (Entry, Option<Arc<str>>) {
    let (filter, fault) = match webhook.filter.as_ref().map(Filter::parse) {
        None => (None, None),
        Some(Ok(filter)) => (Some(filter), None),
        Some(Err(errors)) => {
            let text: Vec<String> = errors
                .iter()
                .map(|error| format!("{}: {}", error.pointer, error.message))
                .collect();
            (None, Some(Arc::from(text.join("; "))))
        }
    };
    let entry = Entry {
        event_types: webhook.event_types.clone(),
        customer: webhook.customer.as_ref().map(ToString::to_string),
        filter,
    };
    (entry, fault)
}
