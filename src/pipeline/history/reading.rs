//! What a record of the topics of the view means as rows: the one place where the forms of attempts, dead letters and held deliveries, which
//! belong to several stages, meet those of the history. It also says whose a row is (promise 7).

use std::sync::Arc;

use crate::delivery::{Delivery, headers};
use crate::history::rows::{Change, DeadLetterRow, DeliveryRow, Status};
use crate::history::view;
use crate::matching::catalog::Catalog;
use crate::pipeline::topics::Topics;
use crate::record::{Record, header_text};
use crate::retry::dead_letter::DeadLetter;
use crate::subscription::{Customer, WebhookId};

/// Reads records as rows. Whose a delivery is, its record says; where it does not, the catalog does.
#[derive(Clone)]
pub struct Reading {
    attempts: Arc<str>,
    dead_letters: Arc<str>,
    held: Arc<str>,
    catalog: Option<Arc<Catalog>>,
}

impl Reading {
    /// Of the topics of one router.
    pub fn new(topics: &Topics, catalog: Option<Arc<Catalog>>) -> Self {
        Self {
            attempts: Arc::clone(&topics.attempts),
            dead_letters: Arc::clone(&topics.dead_letters),
            held: Arc::clone(&topics.held),
            catalog,
        }
    }

    /// The topics that are read.
    pub fn topics(&self) -> [Arc<str>; 3] {
        [&self.attempts, &self.dead_letters, &self.held].map(Arc::clone)
    }

    /// What a record means for the view.
    pub fn change(&self, record: Record) -> Change {
        if record.topic == self.attempts {
            view::attempt(&record)
        } else if record.topic == self.held {
            self.held(&record)
        } else {
            self.dead_letter(record)
        }
    }

    fn customer(&self, webhook: &WebhookId) -> Option<String> {
        let catalog = self.catalog.as_ref()?.now();
        let customer = catalog.get(webhook)?.customer.clone()?;
        Some(Customer::as_str(&customer).to_owned())
    }

    fn held(&self, record: &Record) -> Change {
        let mut change = view::nothing(record);
        if let Ok(delivery) = Delivery::from_record(record) {
            let at_ms = record.timestamp_ms.unwrap_or(delivery.created_at_ms);
            let customer = self.customer(&delivery.webhook);
            let message =
                "held because its webhook is paused; resume the webhook to send it".to_owned();
            change.delivery = Some(DeliveryRow {
                error_message: Some(message),
                ..row_of(delivery, Status::Held, at_ms, customer)
            });
        }
        change
    }

    fn dead_letter(&self, record: Record) -> Change {
        let mut change = view::nothing(&record);
        let letter = DeadLetter::from_record(record);
        // A record that never was a delivery keeps its producer's headers, which may say anything.
        let is_ours = letter.reason != "undecodable" && letter.reason != "foreign";
        let delivery = letter.delivery.filter(|_| is_ours);
        let said = header_text(&letter.record.headers, headers::CUSTOMER).map(str::to_owned);
        let customer = delivery
            .as_ref()
            .and_then(|delivery| said.or_else(|| self.customer(&delivery.webhook)));
        let replayable = delivery.is_some() && letter.full_bytes.is_none();
        change.dead_letter = Some(DeadLetterRow {
            topic: letter.place.topic.to_string(),
            partition: letter.place.partition,
            offset: letter.place.offset,
            delivery_id: delivery.as_ref().map(|delivery| delivery.id.clone()),
            webhook: letter.webhook.filter(|_| is_ours),
            customer: customer.clone(),
            event_type: letter.event_type,
            reason: letter.reason.clone(),
            message: letter.message.clone(),
            attempts: letter.attempts,
            last_status: letter.last_status,
            died_at_ms: letter.died_at_ms,
            replays: letter.replay_count,
            replayable,
        });
        if let Some(delivery) = delivery {
            let last_status = letter.last_status;
            change.delivery = Some(DeliveryRow {
                reason: Some(letter.reason),
                error_message: Some(letter.message),
                last_status,
                ..row_of(delivery, Status::Failed, letter.died_at_ms, customer)
            });
        }
        change
    }
}

fn row_of(
    delivery: Delivery,
    status: Status,
    updated_at_ms: i64,
    customer: Option<String>,
) -> DeliveryRow {
    DeliveryRow {
        source: delivery.source.to_string(),
        id: delivery.id,
        webhook: delivery.webhook.as_str().to_owned(),
        customer,
        event_type: delivery.event_type,
        created_at_ms: delivery.created_at_ms,
        updated_at_ms,
        status,
        attempts: delivery.attempts,
        next_attempt_at_ms: None,
        last_status: delivery.last_status,
        error_message: None,
        replay_id: delivery.replay_id,
        reason: None,
    }
}
