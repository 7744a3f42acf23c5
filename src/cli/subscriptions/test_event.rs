//! `postrider subscriptions test`: a sample event for one webhook, put straight into the dispatch topic, so that it goes the way of
//! every delivery: signature, pace, retries, dead letter. Types, customer and filter are not asked.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{anyhow, bail};
use clap::Args;
use serde_json::json;

use super::{Opened, needs};
use crate::cli::Answer;
use crate::cli::output::{self, Output};
use crate::config::Config;
use crate::kafka::producer::Producer;
use crate::metrics::Metrics;
use crate::pipeline::{now_ms, test_event};

const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(20);

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
        let pointer = &config.intake.customer_pointer;
        let made = test_event::delivery(webhook, self.event_type.as_deref(), pointer, now_ms());
        let delivery = made.map_err(|fault| anyhow!("{fault}"))?;
        let event_type = delivery.event_type.clone();
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
