//! The second loop, first half: a record of `dispatch` becomes a submission to its webhook's lane, or goes on at once
//! when there is nothing to attempt. What follows from an attempt is in `conclude`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::error;

use super::inline::Absent;
use super::{Ways, now_ms};
use crate::delivery::{DeadReason, Delivery, Ending, Waiting};
use crate::kafka::consumer::Stage;
use crate::kafka::receipt::Receipt;
use crate::outbound::Outbound;
use crate::outbound::budget::Budget;
use crate::outbound::shard::Submission;
use crate::record::Record;
use crate::retry::{dead_letter, ladder};
use crate::subscription::Subscription;
use crate::subscription::read::DEFAULT_MAX_AGE_SECONDS;
use crate::subscription::seal::SealError;

pub(super) const STAGE: &str = "deliver";
/// How long a delivery waits for a webhook that is not in the catalog, before the catalog is believed.
const UNKNOWN_PAUSE: Duration = Duration::from_secs(15);

/// The longest timeout of a webhook, and what comes before and after its request.
const LONGEST_OPEN: Duration = Duration::from_secs(360);

/// The stage on its reader's thread.
pub struct Deliver {
    pub ways: Arc<Ways>,
    pub outbound: Arc<Outbound>,
    pub budget: Arc<Budget>,
}

impl Stage for Deliver {
    fn longest_open(&self, _topic: &str) -> Duration {
        LONGEST_OPEN
    }

    fn admits(&mut self) -> bool {
        self.budget.has_room()
    }

    fn receive(&mut self, record: Record, receipt: Receipt) {
        match Delivery::from_record(&record) {
            Ok(delivery) => {
                let cost = record.cost_bytes();
                self.take(delivery, cost, receipt);
            }
            Err(fault) => {
                self.ways
                    .bury_undecodable(&record, &fault.to_string(), STAGE, receipt);
            }
        }
    }

    fn stopping(&mut self) {
        self.outbound.park();
    }

    fn fenced(&mut self) {
        self.outbound.fence();
    }
}

impl Deliver {
    fn take(&self, mut delivery: Delivery, cost: usize, receipt: Receipt) {
        let now = now_ms();
        let webhook = match &delivery.inline {
            None => match self.ways.catalog.now().get(&delivery.webhook) {
                Some(webhook) => Arc::clone(webhook),
                None => return self.unknown(delivery, receipt),
            },
            Some(carried) => match self.ways.inline_webhook(&delivery, carried) {
                Ok(webhook) => webhook,
                Err(Absent::Sealed(fault)) => return self.sealed(delivery, &fault, receipt),
                Err(Absent::Refused(why)) => {
                    return self.bury(&delivery, DeadReason::Rejected, &why, receipt);
                }
            },
        };
        if webhook.customer.is_some() && webhook.customer != delivery.customer {
            // It changed hands, or its id was used again, after the delivery was made (promise 7).
            let text = "the delivery was made for another customer than the one that its webhook is of now; nobody sees another's events";
            return self.bury(&delivery, DeadReason::Rejected, text, receipt);
        }
        if !webhook.enabled {
            let text = match self.ways.conditions.of(&webhook) {
                Some(condition) => format!("the webhook is disabled: {}", condition.reason),
                None => "the webhook is disabled".to_owned(),
            };
            return self.bury(&delivery, DeadReason::Disabled, &text, receipt);
        }
        if is_expired(&delivery, &webhook, now) {
            let text = format!(
                "waited for longer than max_age_seconds = {}",
                webhook.max_age_seconds
            );
            return self.bury(&delivery, DeadReason::Expired, &text, receipt);
        }
        if webhook.paused {
            let topic = &self.ways.topics.held;
            return self
                .ways
                .put(&delivery, topic, true, STAGE, receipt.split(1));
        }
        // Counted when it first comes to its lane, not when it comes back from the ladder.
        let is_new = matches!(delivery.waiting, None | Some(Waiting::Unknown));
        if is_new && delivery.replay_id.is_some() && delivery.attempts == 0 {
            self.ways.metrics.replayed.inc();
        }
        if delivery.due_ms.is_some_and(|due_ms| due_ms > now) {
            return self.ways.delay(&delivery, STAGE, receipt.split(1));
        }
        delivery.due_ms = None;
        self.outbound.submit(Submission {
            delivery,
            webhook,
            receipt,
            charge: self.budget.charge(cost),
        });
    }

    /// Its webhook was deleted, or the catalog has not told of it yet. Only a catalog that is newer than the delivery's wait is believed.
    fn unknown(&self, delivery: Delivery, receipt: Receipt) {
        if let Some(locked) = self.ways.catalog.now().locked().get(&delivery.webhook) {
            let max_age = locked
                .as_ref()
                .map_or(DEFAULT_MAX_AGE_SECONDS, |webhook| webhook.max_age_seconds);
            return self.closed(delivery, max_age, "its webhook cannot be opened", receipt);
        }
        let waited = delivery.waiting == Some(Waiting::Unknown);
        let before_the_wait = Instant::now().checked_sub(UNKNOWN_PAUSE / 2);
        let is_certain =
            before_the_wait.is_some_and(|instant| self.ways.catalog.is_newer_than(instant));
        if waited && is_certain {
            tracing::info!(delivery = delivery.id, webhook = %delivery.webhook, "dropped: its webhook was deleted");
            self.ways.dropped(&delivery, receipt.split(1));
            return;
        }
        self.ask_again(delivery, receipt);
    }

    /// No key of this instance opens the webhook that it carries: it waits for an instance, or a configuration, that has the key.
    fn sealed(&self, delivery: Delivery, fault: &SealError, receipt: Receipt) {
        error!(delivery = delivery.id, %fault, "a delivery waits: its webhook cannot be opened");
        let why = fault.to_string();
        self.closed(delivery, DEFAULT_MAX_AGE_SECONDS, &why, receipt);
    }

    /// Waits until its webhook can be opened, or it is too old.
    fn closed(&self, delivery: Delivery, max_age: u64, why: &str, receipt: Receipt) {
        if is_older(&delivery, max_age, now_ms()) {
            return self.bury(&delivery, DeadReason::Expired, why, receipt);
        }
        self.ask_again(delivery, receipt);
    }

    fn ask_again(&self, mut delivery: Delivery, receipt: Receipt) {
        delivery.waiting = Some(Waiting::Unknown);
        delivery.due_ms = Some(ladder::after(now_ms(), UNKNOWN_PAUSE));
        self.ways.delay(&delivery, STAGE, receipt.split(1));
    }

    fn bury(&self, delivery: &Delivery, reason: DeadReason, message: &str, receipt: Receipt) {
        let letter = dead_letter::of_delivery(
            delivery,
            reason,
            message,
            &self.ways.topics.dead_letters,
            &self.ways.group_of(STAGE),
        );
        self.ways.bury(letter, reason, receipt.split(1));
    }
}

/// Whether a delivery is older than its webhook wants.
pub(super) fn is_expired(delivery: &Delivery, webhook: &Subscription, now_ms: i64) -> bool {
    is_older(delivery, webhook.max_age_seconds, now_ms)
}

fn is_older(delivery: &Delivery, seconds: u64, now_ms: i64) -> bool {
    let age_ms = now_ms.saturating_sub(delivery.created_at_ms);
    u64::try_from(age_ms).is_ok_and(|age_ms| age_ms / 1000 > seconds)
}

impl Ways {
    /// Records that a delivery ended because its webhook is gone.
    pub(super) fn dropped(
        self: &Arc<Self>,
        delivery: &Delivery,
        done: crate::kafka::receipt::SharedReceipt,
    ) {
        let ways = Arc::clone(self);
        let record = super::conclude::ending_record(
            self,
            delivery,
            Ending::Dropped,
            "its webhook was deleted",
        );
        self.producer.send(
            &record,
            Box::new(move |written| match written {
                Ok(_) => {
                    ways.ended(Ending::Dropped);
                    done.done();
                }
                Err(refused) => {
                    tracing::error!(%refused, "an ending cannot be written; its record stays open")
                }
            }),
        );
    }
}
