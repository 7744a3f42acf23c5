//! The first loop: a record of a source topic becomes one delivery for every webhook that wants it.
//!
//! It never waits for HTTP. The record is settled when all its deliveries (or its dead letter) are in their topics.

use std::sync::Arc;

use super::{Ways, now_ms};
use crate::delivery::{DeadReason, Delivery};
use crate::event::Event;
use crate::intake::decode::{Decoded, decode};
use crate::kafka::consumer::Stage;
use crate::kafka::receipt::Receipt;
use crate::matching::catalog::Candidate;
use crate::record::Record;
use crate::retry::dead_letter;

const STAGE: &str = "route";

/// The stage on its reader's thread.
pub struct Route {
    pub ways: Arc<Ways>,
    pub customer_pointer: String,
    /// Events that may be open at a time: produced and not acknowledged.
    pub max_open_events: usize,
}

impl Stage for Route {
    fn admits(&mut self) -> bool {
        self.ways.producer.waiting() < self.max_open_events
    }

    fn receive(&mut self, record: Record, receipt: Receipt) {
        let metrics = &self.ways.metrics;
        let topic: &[&str] = &[&record.topic];
        metrics.events_consumed.with_label_values(topic).inc();
        match decode(&record, &self.customer_pointer) {
            Decoded::Tombstone => {
                metrics.events_tombstones.with_label_values(topic).inc();
                receipt.settle();
            }
            Decoded::Undecodable(reason) => {
                tracing::warn!(stage = STAGE, source = %record.source(), reason, "a record is no event; it goes to the dead letters");
                self.ways.bury_undecodable(&record, &reason, STAGE, receipt);
            }
            Decoded::Event(event) => self.fan_out(&record, &event, receipt),
        }
    }
}

impl Route {
    fn fan_out(&self, record: &Record, event: &Event, receipt: Receipt) {
        let metrics = &self.ways.metrics;
        let topic: &[&str] = &[&record.topic];
        let catalog = self.ways.catalog.now();
        let mut wanting: Vec<&Candidate> = Vec::new();
        catalog.wanting(event, &mut wanting);
        let Ok(parts) = u32::try_from(wanting.len()) else {
            return;
        };
        if parts == 0 {
            metrics.events_unmatched.with_label_values(topic).inc();
            receipt.settle();
            return;
        }
        metrics.events_matched.with_label_values(topic).inc();
        metrics.deliveries_created.inc_by(u64::from(parts));
        let receipt = receipt.split(parts);
        let now_ms = now_ms();
        for candidate in &wanting {
            fail::fail_point!(
                "route-between-deliveries",
                wanting
                    .first()
                    .is_some_and(|first| !std::ptr::eq(*first, *candidate)),
                |_| crate::failpoint::die()
            );
            let webhook = &candidate.webhook;
            let customer = webhook.customer.as_ref();
            let delivery = Delivery::new(record, &event.event_type, &webhook.id, customer, now_ms);
            let part = receipt.clone();
            match &candidate.filter_fault {
                None => self
                    .ways
                    .put(&delivery, &self.ways.topics.dispatch, true, STAGE, part),
                Some(fault) => {
                    let letter = dead_letter::of_delivery(
                        &delivery,
                        DeadReason::FilterFailed,
                        fault,
                        &self.ways.topics.dead_letters,
                        &self.ways.group_of(STAGE),
                    );
                    self.ways.bury(letter, DeadReason::FilterFailed, part);
                }
            }
        }
    }
}
