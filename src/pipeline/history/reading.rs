//! What a record of the topics of the view means as rows: the one place where the forms of attempts, dead letters and held deliveries, which
//! belong to several stages, meet those of the history. Whose a row is, its record says (promise 7):
//! the catalog is not asked, because it may have changed since, and a rebuild would show one customer what was another's.

use std::sync::Arc;

use crate::delivery::Delivery;
use crate::history::rows::{Change, DeliveryRow, Status};
use crate::history::view;
use crate::pipeline::topics::Topics;
use crate::record::Record;
use crate::retry::dead_letter::DeadLetter;

/// Reads records as rows. A record that does not say whose it is becomes a row that only those see who may see everything.
#[derive(Clone)]
pub struct Reading {
    attempts: Arc<str>,
    dead_letters: Arc<str>,
    held: Arc<str>,
}

impl Reading {
    /// Of the topics of one router.
    pub fn new(topics: &Topics) -> Self {
        Self {
            attempts: Arc::clone(&topics.attempts),
            dead_letters: Arc::clone(&topics.dead_letters),
            held: Arc::clone(&topics.held),
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
            Self::held(&record)
        } else {
            Self::dead_letter(record)
        }
    }

    fn held(record: &Record) -> Change {
        let mut change = view::nothing(record);
        if let Ok(delivery) = Delivery::from_record(record) {
            let at_ms = record.timestamp_ms.unwrap_or(delivery.created_at_ms);
            let message =
                "held because its webhook is paused; resume the webhook to send it".to_owned();
            change.delivery = Some(DeliveryRow {
                error_message: Some(message),
                ..row_of(delivery, Status::Held, at_ms)
            });
        }
        change
    }

    fn dead_letter(record: Record) -> Change {
        let mut change = view::nothing(&record);
        let letter = DeadLetter::from_record(record);
        // A record that never was a delivery keeps its producer's headers, which may say anything.
        let is_ours = letter.reason != "undecodable" && letter.reason != "foreign";
        if let Some(delivery) = letter.delivery.filter(|_| is_ours) {
            change.delivery = Some(DeliveryRow {
                reason: Some(letter.reason),
                error_message: Some(letter.message),
                last_status: letter.last_status,
                ..row_of(delivery, Status::Failed, letter.died_at_ms)
            });
        }
        change
    }
}

fn row_of(delivery: Delivery, status: Status, updated_at_ms: i64) -> DeliveryRow {
    DeliveryRow {
        customer: delivery
            .customer
            .map(|customer| customer.as_str().to_owned()),
        source: delivery.source.to_string(),
        id: delivery.id,
        webhook: delivery.webhook.as_str().to_owned(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::{DeadReason, headers};
    use crate::record::{Header, Outgoing, SourceOffset};
    use crate::retry::dead_letter;
    use crate::subscription::{Customer, WebhookId};

    fn reading() -> Reading {
        Reading {
            attempts: "attempts".into(),
            dead_letters: "dead-letters".into(),
            held: "held".into(),
        }
    }

    fn read(written: Outgoing) -> Record {
        Record {
            topic: written.topic,
            partition: 0,
            offset: SourceOffset(4),
            timestamp_ms: Some(5000),
            key: written.key,
            payload: written.payload,
            headers: written.headers,
        }
    }

    fn source() -> Record {
        Record {
            topic: "events.job".into(),
            partition: 0,
            offset: SourceOffset(1),
            timestamp_ms: Some(1000),
            key: None,
            payload: Some("{}".into()),
            headers: vec![Header::text(headers::CUSTOMER, "forged")],
        }
    }

    fn delivery(customer: Option<&str>) -> Delivery {
        let webhook = WebhookId::new("wh_a").unwrap();
        let customer = customer.map(Customer::new);
        Delivery::new(&source(), "job.failed", &webhook, customer.as_ref(), 2000)
    }

    fn row(written: Outgoing) -> Option<DeliveryRow> {
        reading().change(read(written)).delivery
    }

    #[test]
    fn whose_a_held_or_dead_delivery_is_its_own_record_says() {
        for wanted in [Some("7"), None] {
            let delivery = delivery(wanted);
            let wanted = wanted.map(str::to_owned);
            let held = row(delivery.to_record(&"held".into(), true));
            assert_eq!(held.unwrap().customer, wanted);
            let letter = dead_letter::of_delivery(
                &delivery,
                DeadReason::Exhausted,
                "why",
                &"dead-letters".into(),
                "group",
            );
            assert_eq!(row(letter).unwrap().customer, wanted);
        }
    }

    #[test]
    fn an_undecodable_record_is_nobodys_delivery() {
        let letter = dead_letter::of_record(
            &source(),
            DeadReason::Undecodable,
            "why",
            &"dead-letters".into(),
            "group",
        );
        assert_eq!(row(letter), None);
    }
}
