//! `postrider subscriptions test`: a sample event for one webhook, put straight into the dispatch topic, so that it goes the way of
//! every delivery: signature, pace, retries, dead letter. Types, customer and filter are not asked.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{anyhow, bail};
use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};

use super::{Opened, needs};
use crate::cli::Answer;
use crate::cli::output::{self, Output};
use crate::config::Config;
use crate::delivery::Delivery;
use crate::event::KNOWN_TYPES;
use crate::kafka::producer::Producer;
use crate::matching::{Glob, check_pattern};
use crate::metrics::Metrics;
use crate::pipeline::now_ms;
use crate::record::{Record, SourceOffset};
use crate::samples;
use crate::subscription::Subscription;

const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(20);
/// What stands where a real event's topic does; no topic of this name exists.
const SOURCE_TOPIC: &str = "postrider.test";

#[derive(Args)]
pub(in crate::cli) struct TestEvent {
    /// The webhook's id
    id: String,
    /// The event's type [default: the first that the webhook wants]
    #[arg(long, value_name = "TYPE")]
    event_type: Option<String>,
    /// The form of the answer
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl TestEvent {
    pub(super) fn run(self, config: &Config) -> Answer {
        let opened = Opened::by(config)?;
        let webhook = opened.webhook(&self.id)?;
        needs(&opened.cluster, &opened.topics.dispatch)?;
        if !webhook.enabled {
            bail!(
                "{} is disabled, so nothing is sent to it; set `enabled: true` and apply it first",
                webhook.id
            );
        }
        let event_type = match self.event_type {
            Some(given) => {
                check_pattern(&given)?;
                given
            }
            None => wanted_type(webhook),
        };
        let now_ms = now_ms();
        let record = Record {
            topic: SOURCE_TOPIC.into(),
            partition: 0,
            offset: SourceOffset(now_ms),
            timestamp_ms: Some(now_ms),
            key: Some(Bytes::copy_from_slice(webhook.id.as_bytes())),
            payload: Some(body(
                &event_type,
                webhook,
                &config.intake.customer_pointer,
                now_ms,
            )?),
            headers: Vec::new(),
        };
        let delivery = Delivery::new(
            &record,
            &event_type,
            &webhook.id,
            webhook.customer.as_ref(),
            now_ms,
        );
        let producer = Producer::start(&opened.connection.producer(), Arc::new(Metrics::new()?))?;
        producer.write(
            &delivery.to_record(&opened.topics.dispatch, true),
            ACKNOWLEDGED_WITHIN,
        )?;
        if webhook.paused {
            eprintln!(
                "{} is paused: the delivery is held until `postrider subscriptions resume {}`",
                webhook.id, webhook.id
            );
        }
        match self.output {
            Output::Table => {
                output::print(&format!("{}\n", delivery.id))?;
                eprintln!(
                    "a sample {event_type} is on its way; `postrider explain {}` tells what becomes of it",
                    delivery.id
                );
                Ok(())
            }
            Output::Json => output::print_json(&json!({
                "delivery_id": delivery.id,
                "webhook_id": webhook.id,
                "event_type": event_type,
                "source": delivery.source.to_string(),
            })),
        }
    }
}

/// An exact type as it stands; for a pattern the first known type that it matches.
fn wanted_type(webhook: &Subscription) -> String {
    let types = webhook.event_types.iter().filter_map(|pattern| {
        let glob = Glob::new(pattern);
        if glob.is_exact() {
            return Some(pattern.as_str());
        }
        KNOWN_TYPES
            .iter()
            .find(|known| glob.matches(known))
            .copied()
    });
    let mut types = types;
    types.next().unwrap_or(SOURCE_TOPIC).to_owned()
}

/// Looks like a real event but for `"test": true`, by which a receiver can tell.
fn body(
    event_type: &str,
    webhook: &Subscription,
    customer_pointer: &str,
    now_ms: i64,
) -> anyhow::Result<Bytes> {
    let now = jiff::Timestamp::from_millisecond(now_ms)?;
    let sequence = now_ms.unsigned_abs() / 1000 % 1_000_000;
    let mut event = samples::sample(event_type, sequence, Value::Null, now);
    event["test"] = true.into();
    let customer = webhook.public_json()["customer"].take();
    if !customer.is_null() && !customer_pointer.is_empty() {
        samples::set(&mut event, customer_pointer, &customer.to_string())
            .map_err(|fault| anyhow!("intake.customer_pointer: {fault}"))?;
    }
    Ok(event.to_string().into())
}
