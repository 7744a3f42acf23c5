//! Sends the dead letters of the demo's webhooks in again, once their receiver has recovered.

use std::collections::BTreeMap;
use std::time::Duration;

use super::account::Account;
use super::screen::Sign;
use crate::kafka;
use crate::kafka::producer::Producer;
use crate::pipeline::now_ms;
use crate::pipeline::topics::Topics;
use crate::subscription::WebhookId;

const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(5);

/// Replays every dead letter that is worth it, each with its own delivery id, and says so.
///
/// # Errors
/// The broker does not take a record; what was taken before is on its way.
pub(super) fn replay(
    account: &Account,
    producer: &Producer,
    topics: &Topics,
) -> Result<(), kafka::Error> {
    let mut counts: BTreeMap<WebhookId, usize> = BTreeMap::new();
    let letters = account.take_letters();
    let replay_id = format!("rp_{}", uuid::Uuid::now_v7().simple());
    let deliveries: Vec<_> = letters
        .iter()
        .filter_map(|letter| letter.to_replay(&replay_id, None, now_ms()))
        .collect();
    for delivery in &deliveries {
        *counts.entry(delivery.webhook.clone()).or_default() += 1;
    }
    // Said before it is done, or the first delivery would come before the line that explains it.
    for (webhook, count) in counts {
        account.screen.line(
            Sign::Replayed,
            format_args!("{count} dead letters of {webhook} are replayed"),
        );
    }
    for delivery in &deliveries {
        let record = delivery.to_record(&topics.dispatch, true);
        producer.write(&record, ACKNOWLEDGED_WITHIN)?;
    }
    Ok(())
}
