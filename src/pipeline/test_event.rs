//! A sample event for one webhook, for the command and the API. Put into the dispatch topic it goes the way of every delivery:
//! signature, pace, retries, dead letter. Types, customer and filter are not asked.

use bytes::Bytes;
use serde_json::Value;

use crate::delivery::Delivery;
use crate::event::KNOWN_TYPES;
use crate::matching::{Glob, check_pattern};
use crate::record::{Record, SourceOffset};
use crate::samples;
use crate::subscription::Subscription;

/// What stands where a real event's topic does; no topic of this name exists.
const SOURCE_TOPIC: &str = "postrider.test";

/// The delivery of a sample. `event_type` is by default the first that the webhook wants.
///
/// # Errors
/// A sentence: the type is none, or the customer's place cannot be set in an event.
pub fn delivery(
    webhook: &Subscription,
    event_type: Option<&str>,
    customer_pointer: &str,
    now_ms: i64,
) -> Result<Delivery, String> {
    let event_type = match event_type {
        Some(given) => {
            check_pattern(given).map_err(|fault| fault.to_string())?;
            given.to_owned()
        }
        None => wanted_type(webhook),
    };
    let record = Record {
        topic: SOURCE_TOPIC.into(),
        partition: 0,
        offset: SourceOffset(now_ms),
        timestamp_ms: Some(now_ms),
        key: Some(Bytes::copy_from_slice(webhook.id.as_bytes())),
        payload: Some(body(&event_type, webhook, customer_pointer, now_ms)?),
        headers: Vec::new(),
    };
    Ok(Delivery::new(
        &record,
        &event_type,
        &webhook.id,
        webhook.customer.as_ref(),
        now_ms,
    ))
}

/// An exact type as it stands; for a pattern the first known type that it matches.
fn wanted_type(webhook: &Subscription) -> String {
    let mut types = webhook.event_types.iter().filter_map(|pattern| {
        let glob = Glob::new(pattern);
        if glob.is_exact() {
            return Some(pattern.as_str());
        }
        KNOWN_TYPES
            .iter()
            .find(|known| glob.matches(known))
            .copied()
    });
    types.next().unwrap_or(SOURCE_TOPIC).to_owned()
}

/// Looks like a real event but for `"test": true`, by which a receiver can tell.
fn body(
    event_type: &str,
    webhook: &Subscription,
    customer_pointer: &str,
    now_ms: i64,
) -> Result<Bytes, String> {
    let now = jiff::Timestamp::from_millisecond(now_ms).map_err(|fault| fault.to_string())?;
    let sequence = now_ms.unsigned_abs() / 1000 % 1_000_000;
    let mut event = samples::sample(event_type, sequence, Value::Null, now);
    event["test"] = true.into();
    let customer = webhook.public_json()["customer"].take();
    if !customer.is_null() && !customer_pointer.is_empty() {
        samples::set(&mut event, customer_pointer, &customer.to_string())
            .map_err(|fault| format!("intake.customer_pointer: {fault}"))?;
    }
    Ok(event.to_string().into())
}
