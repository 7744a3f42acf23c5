//! The conditions of all webhooks' endpoints as the catalog topic tells them, and what follows when an endpoint trips,
//! recovers or is given up.
//!
//! Part of promise 4: what one owner of a lane learnt, every instance knows and a restart remembers. Only the owner writes, and only
//! transitions. Nothing is entered here before it has come back from the topic, so all instances see one order.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use tracing::{error, info, warn};

use super::alerts::Kind;
use super::{Ways, now_ms};
use crate::outbound::notice::{Notice, Signs};
use crate::record::Outgoing;
use crate::subscription::condition::{
    Condition, EndpointState, condition_key, endpoint_digest, state_word,
};
use crate::subscription::seal;
use crate::subscription::{Subscription, WebhookId};

/// How fresh the catalog must be for a webhook to be disabled by what it says.
const CATALOG_AGE: Duration = Duration::from_secs(5);

/// See the module's text.
pub struct Conditions {
    known: RwLock<HashMap<WebhookId, Condition>>,
    /// Deliveries of an endpoint that has been tripped for longer are held.
    hold_after_seconds: AtomicU64,
    /// The version of each webhook that was disabled here: many requests may be under way when the first 410 comes.
    disabled: Mutex<HashMap<WebhookId, u64>>,
}

impl Conditions {
    /// Knowing none.
    pub fn new(hold_after: Duration) -> Self {
        Self {
            known: RwLock::default(),
            hold_after_seconds: AtomicU64::new(hold_after.as_secs()),
            disabled: Mutex::default(),
        }
    }

    /// Another time after which deliveries are held.
    pub fn hold_after(&self, limit: Duration) {
        self.hold_after_seconds
            .store(limit.as_secs(), Ordering::Relaxed);
    }

    /// Enters what a record says, or forgets a webhook.
    pub(super) fn enter(&self, id: WebhookId, condition: Option<Condition>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        match condition {
            Some(condition) => known.insert(id, condition),
            None => known.remove(&id),
        };
    }

    /// The condition of a webhook as it is now; `None` where nothing ever happened.
    pub fn of(&self, webhook: &Subscription) -> Option<Condition> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known
            .get(&webhook.id)
            .filter(|condition| condition.applies_to(webhook))
            .cloned()
    }

    /// For how long the endpoint of a webhook has been tripped, if it is.
    pub fn tripped_for(&self, webhook: &Subscription, now_ms: i64) -> Option<Duration> {
        let condition = self.of(webhook)?;
        let for_ms = now_ms.saturating_sub(condition.since_ms).max(0);
        (condition.state == EndpointState::Tripped)
            .then(|| Duration::from_millis(for_ms.unsigned_abs()))
    }

    /// Whether deliveries of this webhook are held because its endpoint has been down for long.
    pub fn is_holding(&self, webhook: &Subscription, now_ms: i64) -> bool {
        self.tripped_for(webhook, now_ms)
            .is_some_and(|tripped_for| {
                tripped_for.as_secs() >= self.hold_after_seconds.load(Ordering::Relaxed)
            })
    }

    /// Whether a webhook of this version has not been disabled here before.
    fn is_first(&self, webhook: &Subscription) -> bool {
        let mut disabled = self.disabled.lock().unwrap_or_else(PoisonError::into_inner);
        let before = disabled.insert(webhook.id.clone(), webhook.version);
        before != Some(webhook.version)
    }
}

impl Ways {
    /// What a new lane is told of its endpoint.
    pub fn recalled(&self, webhook: &Subscription) -> Signs {
        let Some(condition) = self.conditions.of(webhook) else {
            return Signs::default();
        };
        Signs {
            failing_since_ms: condition.failing_since_ms,
            last_success_at_ms: condition.last_success_at_ms,
            last_failure_at_ms: condition.last_failure_at_ms,
            tripped_for: self.conditions.tripped_for(webhook, now_ms()),
            told: condition.failing_since_ms.is_some(),
            failures: 0,
        }
    }

    /// The contract's word for how a webhook stands, as far as the catalog topic tells.
    pub fn state_of(&self, webhook: &Subscription) -> &'static str {
        state_word(webhook, self.conditions.of(webhook).as_ref())
    }

    /// Carries out what an endpoint's lane noticed. Called on the shards' threads; it only hands records to the producer.
    pub fn noticed(self: &Arc<Self>, webhook: &Subscription, notice: Notice, signs: &Signs) {
        if webhook.id.is_inline() {
            // No catalog has it, and none would ever forget it.
            return;
        }
        let now = now_ms();
        let condition = |state, reason: &str| Condition {
            state,
            since_ms: now,
            failing_since_ms: signs.failing_since_ms,
            last_success_at_ms: signs.last_success_at_ms,
            last_failure_at_ms: signs.last_failure_at_ms,
            reason: reason.to_owned(),
            endpoint: endpoint_digest(webhook),
        };
        match notice {
            Notice::Tripped => {
                let reason = "the endpoint fails; nothing but probes is sent until it recovers";
                self.write_condition(&webhook.id, &condition(EndpointState::Tripped, reason));
                self.alert(webhook, Kind::Tripped, reason);
            }
            Notice::Recovered => {
                self.write_condition(&webhook.id, &condition(EndpointState::Passing, ""));
                self.alert(webhook, Kind::Recovered, "the endpoint answers again");
            }
            Notice::Failing | Notice::Steady => {
                self.write_condition(&webhook.id, &condition(EndpointState::Passing, ""));
            }
            Notice::Gone => {
                let reason = "the endpoint answered 410: it is gone";
                self.disable(webhook, &condition(EndpointState::Disabled, reason));
            }
            Notice::GivenUp => {
                let since_ms = signs.failing_since_ms.unwrap_or(now);
                let seconds = now.saturating_sub(since_ms) / 1000;
                let reason = format!("no request succeeded for {seconds} s");
                self.disable(webhook, &condition(EndpointState::Disabled, &reason));
            }
        }
    }

    /// Disables a webhook, unless somebody has changed it since: then what was seen is not about what is there now.
    fn disable(self: &Arc<Self>, seen: &Subscription, condition: &Condition) {
        let fresh = Instant::now()
            .checked_sub(CATALOG_AGE)
            .is_some_and(|instant| self.catalog.is_newer_than(instant));
        let current = self.catalog.now().get(&seen.id).cloned();
        let Some(current) = current.filter(|current| fresh && current.version == seen.version)
        else {
            info!(webhook = %seen.id, "not disabled: the webhook was changed meanwhile, or the catalog is not fresh");
            return;
        };
        if !current.enabled || !self.conditions.is_first(&current) {
            return;
        }
        let mut disabled = Subscription::clone(&current);
        disabled.enabled = false;
        disabled.version += 1;
        disabled.updated_at = Timestamp::now();
        let value = match seal::to_record(&disabled, self.key.as_ref()) {
            Ok(value) => value,
            Err(fault) => {
                error!(webhook = %seen.id, %fault, "a webhook that should be disabled cannot be written");
                return;
            }
        };
        warn!(webhook = %seen.id, reason = condition.reason, "the webhook is disabled");
        // The reason first: a state `disabled` says nothing of a webhook that is enabled.
        self.write_condition(&seen.id, condition);
        self.write_catalog(seen.id.as_str().to_owned(), value);
        let message = format!(
            "the webhook is disabled: {}; its waiting deliveries go to the dead letters",
            condition.reason
        );
        self.alert(seen, Kind::Disabled, &message);
    }

    fn write_condition(&self, id: &WebhookId, condition: &Condition) {
        self.write_catalog(condition_key(id), condition.to_json());
    }

    fn write_catalog(&self, key: String, value: Vec<u8>) {
        let record = Outgoing {
            topic: Arc::clone(&self.topics.subscriptions),
            key: Some(Bytes::from(key)),
            payload: Some(value.into()),
            headers: Vec::new(),
        };
        self.producer.send(
            &record,
            Box::new(|written| {
                if let Err(refused) = written {
                    error!(%refused, "the state of a webhook cannot be written; another instance does not learn of it");
                }
            }),
        );
    }
}
