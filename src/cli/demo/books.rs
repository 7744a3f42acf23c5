//! The demo's bookkeeping: what was produced, who wants it, and what the receivers really got.
//!
//! Promise 1 is judged here, so nothing is taken from the router's own counters: an event counts when the broker has it,
//! a delivery when a receiver has answered 2xx to it, a dead letter when it is read from its topic. Whatever is wanted and has
//! none of these endings, and is in no topic either, is lost. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::delivery::delivery_id;
use crate::event::Event;
use crate::matching::Entry;
use crate::record::Source;
use crate::subscription::WebhookId;

/// A delivery as it looks from outside.
struct Story {
    webhook: WebhookId,
    /// An event was produced that its webhook wants.
    wanted: bool,
    /// How often a receiver took it.
    accepted: u32,
    /// It came to its receiver with an attempt number above 1.
    retried: bool,
    has_died: bool,
    /// It is in the dead-letter topic and was not sent in again since.
    is_dead: bool,
    replayed: bool,
    /// It ended because its webhook was deleted.
    dropped: bool,
}

impl Story {
    fn is_open(&self) -> bool {
        self.wanted && self.accepted == 0 && !self.is_dead && !self.dropped
    }
}

struct Watched {
    entry: Entry,
    /// Somebody has changed the webhook: what it wants is not known any more, so it is not judged.
    changed: bool,
}

/// What a receiver's 2xx meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acceptance {
    First,
    AfterReplay,
    /// It had this delivery already.
    Repeated,
}

/// See the module's text.
pub(super) struct Books {
    webhooks: BTreeMap<WebhookId, Watched>,
    /// Events that are in the source topics.
    events: HashMap<Source, Vec<String>>,
    /// By delivery id.
    deliveries: HashMap<String, Story>,
}

/// The figures of one webhook, or of all. Numbers of deliveries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub wanted: usize,
    pub delivered: usize,
    pub retried: usize,
    pub dead_lettered: usize,
    pub replayed: usize,
    /// Taken by a receiver that had them already.
    pub repeated: usize,
    /// Taken by a receiver though no event of the source topics accounts for them, such as a webhook's test.
    pub others: usize,
    /// Without an ending yet, and in a topic.
    pub waiting: usize,
    pub lost: usize,
}

/// All figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tally {
    pub events: usize,
    pub all: Counts,
    pub webhooks: Vec<(WebhookId, Counts)>,
    /// Webhooks that somebody changed; nothing of theirs counts as lost.
    pub changed: Vec<WebhookId>,
}

impl Books {
    pub(super) fn new(webhooks: impl IntoIterator<Item = (WebhookId, Entry)>) -> Self {
        let watched = |entry| Watched {
            entry,
            changed: false,
        };
        Self {
            webhooks: webhooks
                .into_iter()
                .map(|(id, entry)| (id, watched(entry)))
                .collect(),
            events: HashMap::new(),
            deliveries: HashMap::new(),
        }
    }

    /// The story of a delivery; `None` for a webhook that is not the demo's.
    fn story(&mut self, id: &str, webhook: &WebhookId) -> Option<&mut Story> {
        if !self.webhooks.contains_key(webhook) {
            return None;
        }
        let story = self
            .deliveries
            .entry(id.to_owned())
            .or_insert_with(|| Story {
                webhook: webhook.clone(),
                wanted: false,
                accepted: 0,
                retried: false,
                has_died: false,
                is_dead: false,
                replayed: false,
                dropped: false,
            });
        Some(story)
    }

    /// An event is in a source topic. Telling it twice changes nothing.
    pub(super) fn produced(&mut self, source: Source, event: &Event) {
        if self.events.contains_key(&source) {
            return;
        }
        let customer = event.customer.as_deref();
        let wanting: Vec<WebhookId> = self
            .webhooks
            .iter()
            .filter(|(_, watched)| {
                let entry = &watched.entry;
                entry
                    .refusal(&event.event_type, customer, &event.body)
                    .is_none()
            })
            .map(|(id, _)| id.clone())
            .collect();
        let mut ids = Vec::with_capacity(wanting.len());
        for webhook in wanting {
            let id = delivery_id(&source, &webhook);
            if let Some(story) = self.story(&id, &webhook) {
                story.wanted = true;
            }
            ids.push(id);
        }
        self.events.insert(source, ids);
    }

    /// A request came to a receiver; `attempt` is its number, 1 for the first.
    pub(super) fn arrived(&mut self, id: &str, webhook: &WebhookId, attempt: u32) {
        if let Some(story) = self.story(id, webhook) {
            story.retried |= attempt > 1;
        }
    }

    /// A receiver answered 2xx.
    pub(super) fn accepted(&mut self, id: &str, webhook: &WebhookId) -> Acceptance {
        let Some(story) = self.story(id, webhook) else {
            return Acceptance::First;
        };
        story.accepted += 1;
        match (story.accepted, story.replayed) {
            (1, false) => Acceptance::First,
            (1, true) => Acceptance::AfterReplay,
            _ => Acceptance::Repeated,
        }
    }

    /// It is in the dead-letter topic.
    pub(super) fn died(&mut self, id: &str, webhook: &WebhookId) {
        if let Some(story) = self.story(id, webhook) {
            story.has_died = true;
            story.is_dead = true;
        }
    }

    /// Whether a dead letter is worth a replay: nobody has replayed it, and its receiver does not have it.
    pub(super) fn may_replay(&self, id: &str) -> bool {
        self.deliveries
            .get(id)
            .is_some_and(|story| story.is_dead && !story.replayed && story.accepted == 0)
    }

    /// It was sent in again.
    pub(super) fn replayed(&mut self, id: &str) {
        if let Some(story) = self.deliveries.get_mut(id) {
            story.replayed = true;
            story.is_dead = false;
        }
    }

    /// It ended because its webhook was deleted.
    pub(super) fn dropped(&mut self, id: &str, webhook: &WebhookId) {
        if let Some(story) = self.story(id, webhook) {
            story.dropped = true;
        }
    }

    /// Somebody has changed a webhook.
    pub(super) fn changed(&mut self, webhook: &str) {
        if let Some(watched) = self.webhooks.get_mut(webhook) {
            watched.changed = true;
        }
    }

    /// The deliveries that an event caused.
    pub(super) fn caused_by(&self, source: &Source) -> &[String] {
        self.events.get(source).map_or(&[], Vec::as_slice)
    }

    /// How many deliveries have no ending, by webhook; webhooks without any are left out.
    pub(super) fn open(&self) -> BTreeMap<&WebhookId, usize> {
        let mut open = BTreeMap::new();
        for story in self.deliveries.values().filter(|story| story.is_open()) {
            *open.entry(&story.webhook).or_default() += 1;
        }
        open
    }

    /// Everything is settled but what belongs to webhooks that somebody changed.
    pub(super) fn is_settled(&self) -> bool {
        !self.deliveries.values().any(|story| {
            let judged = self.webhooks.get(&story.webhook);
            story.is_open() && judged.is_some_and(|watched| !watched.changed)
        })
    }

    /// The figures. `in_topics` are deliveries that have been seen in a topic, unsettled.
    pub(super) fn tally(&self, in_topics: &HashSet<String>) -> Tally {
        let mut by_webhook: BTreeMap<&WebhookId, Counts> = self
            .webhooks
            .keys()
            .map(|id| (id, Counts::default()))
            .collect();
        let mut all = Counts::default();
        for (id, story) in &self.deliveries {
            let changed = self
                .webhooks
                .get(&story.webhook)
                .is_some_and(|watched| watched.changed);
            let open = story.is_open() && !changed;
            let waits = open && in_topics.contains(id);
            let one = Counts {
                wanted: usize::from(story.wanted),
                delivered: usize::from(story.wanted && story.accepted > 0),
                retried: usize::from(story.retried),
                dead_lettered: usize::from(story.has_died),
                replayed: usize::from(story.replayed),
                repeated: usize::from(story.accepted > 1),
                others: usize::from(!story.wanted && story.accepted > 0),
                waiting: usize::from(waits),
                lost: usize::from(open && !waits),
            };
            all.add(&one);
            if let Some(counts) = by_webhook.get_mut(&story.webhook) {
                counts.add(&one);
            }
        }
        Tally {
            events: self.events.len(),
            all,
            webhooks: by_webhook
                .into_iter()
                .map(|(id, counts)| (id.clone(), counts))
                .collect(),
            changed: self
                .webhooks
                .iter()
                .filter(|(_, watched)| watched.changed)
                .map(|(id, _)| id.clone())
                .collect(),
        }
    }
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.wanted += other.wanted;
        self.delivered += other.delivered;
        self.retried += other.retried;
        self.dead_lettered += other.dead_lettered;
        self.replayed += other.replayed;
        self.repeated += other.repeated;
        self.others += other.others;
        self.waiting += other.waiting;
        self.lost += other.lost;
    }
}

#[cfg(test)]
mod tests;
