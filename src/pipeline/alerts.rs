//! What an operator should know without looking: records of the alerts topic, at most one of a kind per webhook an hour.
//!
//! An alert stands beside promise 4 and never in its way: it is handed to the producer and not waited for, and one that is lost is
//! logged. What was not written is counted in the next alert of its kind.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::json;
use tracing::error;

use super::{Ways, now_ms};
use crate::record::Outgoing;
use crate::subscription::{Subscription, WebhookId};

/// The shortest time between two alerts of a kind for a webhook.
const PAUSE_MS: i64 = 3_600_000;
/// Above so many entries, those that have nothing to say any more are forgotten.
const TIDY_ABOVE: usize = 1024;

/// What an alert is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Its breaker tripped.
    Tripped,
    /// Its breaker lets everything pass again.
    Recovered,
    /// The program disabled the webhook.
    Disabled,
    /// A delivery spent all its attempts.
    Exhausted,
}

impl Kind {
    /// The word in the record.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tripped => "tripped",
            Self::Recovered => "recovered",
            Self::Disabled => "disabled",
            Self::Exhausted => "exhausted",
        }
    }
}

#[derive(Debug, Default)]
struct Said {
    at_ms: i64,
    /// Since then, and not written.
    unsaid: u64,
}

/// Which alerts are written and which only counted. Pure: time is a parameter, in Unix milliseconds.
#[derive(Debug, Default)]
pub struct Throttle {
    said: HashMap<(WebhookId, Kind), Said>,
}

impl Throttle {
    /// How many this alert stands for, if it is to be written: itself and those counted since the last one. A recovery is written
    /// whenever the last word on the webhook was that it tripped: nobody should be left with that.
    pub fn admit(&mut self, webhook: &WebhookId, kind: Kind, now_ms: i64) -> Option<u64> {
        let last = |kind| {
            let said = self.said.get(&(webhook.clone(), kind));
            said.map(|said: &Said| said.at_ms)
        };
        let answers = kind == Kind::Recovered
            && last(Kind::Tripped).is_some_and(|tripped| last(kind).is_none_or(|at| tripped >= at));
        if self.said.len() > TIDY_ABOVE {
            self.said
                .retain(|_, said| said.unsaid > 0 || now_ms.saturating_sub(said.at_ms) < PAUSE_MS);
        }
        let Some(said) = self.said.get_mut(&(webhook.clone(), kind)) else {
            let said = Said {
                at_ms: now_ms,
                unsaid: 0,
            };
            self.said.insert((webhook.clone(), kind), said);
            return Some(1);
        };
        said.unsaid += 1;
        if !answers && now_ms.saturating_sub(said.at_ms) < PAUSE_MS {
            return None;
        }
        said.at_ms = now_ms;
        Some(std::mem::take(&mut said.unsaid))
    }
}

/// The throttle of the process, shared by the shards.
#[derive(Debug, Default)]
pub struct Alerts(Mutex<Throttle>);

/// Under which id a webhook's alerts are counted: those that events carry are too many, and gone too soon, to have one each.
fn throttled_as(webhook: &Subscription) -> WebhookId {
    if webhook.id.is_inline() {
        WebhookId::derived(webhook.customer.as_ref(), "inline")
    } else {
        webhook.id.clone()
    }
}

impl Ways {
    /// Writes an alert, unless one of its kind was written within the hour.
    pub(super) fn alert(&self, webhook: &Subscription, kind: Kind, message: &str) {
        let now = now_ms();
        let count = {
            let mut throttle = self.alerts.0.lock().unwrap_or_else(PoisonError::into_inner);
            throttle.admit(&throttled_as(webhook), kind, now)
        };
        let Some(count) = count else { return };
        let at = Timestamp::from_millisecond(now).unwrap_or_default();
        let value = json!({
            "kind": kind.as_str(),
            "webhook_id": webhook.id.as_str(),
            "customer": webhook.customer.as_ref().map(ToString::to_string),
            "name": webhook.name,
            "at": at.to_string(),
            "count": count,
            "message": message,
        });
        let record = Outgoing {
            topic: Arc::clone(&self.topics.alerts),
            key: Some(Bytes::copy_from_slice(webhook.id.as_str().as_bytes())),
            payload: Some(value.to_string().into()),
            headers: Vec::new(),
        };
        // Not `send`, which waits for room in a full queue.
        self.producer.send_later(
            record,
            Box::new(|written| {
                if let Err(refused) = written {
                    error!(%refused, "an alert is lost");
                }
            }),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;

    fn id(text: &str) -> WebhookId {
        WebhookId::new(text).unwrap()
    }

    #[test]
    fn one_of_a_kind_is_written_an_hour_and_the_next_one_counts_the_others() {
        let mut throttle = Throttle::default();
        assert_eq!(throttle.admit(&id("a"), Kind::Exhausted, 0), Some(1));
        for minute in 1..60 {
            let admitted = throttle.admit(&id("a"), Kind::Exhausted, minute * MINUTE);
            assert_eq!(admitted, None, "minute {minute}");
        }
        let next = throttle.admit(&id("a"), Kind::Exhausted, 60 * MINUTE);
        assert_eq!(next, Some(60));
        assert_eq!(throttle.admit(&id("a"), Kind::Exhausted, 61 * MINUTE), None);
    }

    #[test]
    fn kinds_and_webhooks_do_not_keep_each_other_quiet() {
        let mut throttle = Throttle::default();
        for webhook in ["a", "b"] {
            for kind in [
                Kind::Tripped,
                Kind::Disabled,
                Kind::Exhausted,
                Kind::Recovered,
            ] {
                assert_eq!(throttle.admit(&id(webhook), kind, 0), Some(1));
            }
        }
    }

    #[test]
    fn nobody_is_left_with_a_trip_that_is_over() {
        let mut throttle = Throttle::default();
        assert_eq!(throttle.admit(&id("a"), Kind::Tripped, 0), Some(1));
        assert_eq!(
            throttle.admit(&id("a"), Kind::Recovered, 58 * MINUTE),
            Some(1)
        );
        assert_eq!(
            throttle.admit(&id("a"), Kind::Tripped, 61 * MINUTE),
            Some(1)
        );
        assert_eq!(
            throttle.admit(&id("a"), Kind::Recovered, 62 * MINUTE),
            Some(1)
        );
        assert_eq!(throttle.admit(&id("a"), Kind::Tripped, 63 * MINUTE), None);
        assert_eq!(throttle.admit(&id("a"), Kind::Recovered, 64 * MINUTE), None);
    }

    #[test]
    fn old_entries_are_forgotten_when_they_are_many() {
        let mut throttle = Throttle::default();
        for n in 0..3 * TIDY_ABOVE {
            throttle.admit(
                &id(&format!("w{n}")),
                Kind::Tripped,
                i64::try_from(n).unwrap() * MINUTE,
            );
        }
        assert!(
            throttle.said.len() <= TIDY_ABOVE + 1,
            "{}",
            throttle.said.len()
        );
    }
}
