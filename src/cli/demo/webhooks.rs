//! The demo's webhooks: one for each thing that can be seen, with backoffs of seconds instead of minutes.

use std::fmt;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::subscription::{FieldError, Subscription, read};

/// How a receiver behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Manner {
    Good,
    /// Answers after a while.
    Slow,
    /// Answers 503 for a time, then recovers.
    Failing,
    /// Good too; its webhooks have a rate limit.
    Limited,
}

impl Manner {
    /// All receivers.
    pub(super) const ALL: [Self; 4] = [Self::Good, Self::Slow, Self::Failing, Self::Limited];
}

/// A webhook that its own reader refuses: a defect, which a test excludes.
#[derive(Debug, thiserror::Error)]
#[error("the demo's webhook {id} is refused: {}", Lines(.faults))]
pub(super) struct Refused {
    id: String,
    faults: Vec<FieldError>,
}

struct Lines<'a>(&'a [FieldError]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|fault| write!(formatter, "{}: {}; ", fault.pointer, fault.message))
    }
}

/// The webhooks; `address` says where the receiver of a manner listens, as `host:port`.
///
/// # Errors
/// [`Refused`].
pub(super) fn webhooks(
    address: impl Fn(Manner) -> String,
    now: Timestamp,
) -> Result<Vec<Subscription>, Refused> {
    fields()
        .into_iter()
        .map(|(id, manner, mut fields)| {
            let refused = |faults| Refused {
                id: id.to_owned(),
                faults,
            };
            fields["id"] = id.into();
            fields["name"] = id.into();
            fields["tags"] = json!(["demo"]);
            fields["url"] = format!("http://{}/{id}", address(manner)).into();
            fields["secret"] = "generate".into();
            fields["retry_backoff"] = 1.into();
            let draft = read::read(&fields, "").map_err(refused)?;
            Ok(draft.create(now).map_err(refused)?.subscription)
        })
        .collect()
}

fn fields() -> [(&'static str, Manner, Value); 5] {
    [
        (
            "wh_good",
            Manner::Good,
            json!({"event_types": ["*"], "description": "wants everything of every customer"}),
        ),
        (
            "wh_slow",
            Manner::Slow,
            json!({
                "event_types": ["config.*"],
                "customer": 1,
                "description": "customer 1's configuration changes; answers after 1.5 s"
            }),
        ),
        (
            "wh_failing",
            Manner::Failing,
            json!({
                "event_types": ["job.*"],
                "filter": {"job": {"status": {"$in": ["failed", "success"]}}},
                // 1 + 2 + 4 + 8 + 16 s: longer than the receiver fails.
                "max_retries": 5,
                "description": "jobs that ended; retried until the receiver recovers"
            }),
        ),
        (
            "wh_impatient",
            Manner::Failing,
            json!({
                "event_types": ["job.failed", "device.deleted", "compliance.*"],
                "max_retries": 1,
                "description": "the same receiver with one retry: its deliveries die and are replayed"
            }),
        ),
        (
            "wh_limited",
            Manner::Limited,
            json!({
                "event_types": ["device.*"],
                "rate_limit": {"requests": 2, "per_seconds": 1, "burst": 2},
                "description": "takes two requests a second"
            }),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matching::catalog::entry_of;

    #[test]
    fn every_webhook_of_the_demo_is_valid() {
        let webhooks = webhooks(|_| "127.0.0.1:1".to_owned(), Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(webhooks.len(), 5);
        for webhook in webhooks {
            let (_, fault) = entry_of(&webhook);
            assert_eq!(fault, None, "{}", webhook.id);
            assert_eq!(webhook.secrets.len(), 1);
            assert!(webhook.url.path().ends_with(webhook.id.as_str()));
        }
    }
}
