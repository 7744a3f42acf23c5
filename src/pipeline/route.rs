//! The first loop: a record of a source topic becomes one delivery for every webhook that wants it.
//!
//! It never waits for HTTP. The record is settled when all its deliveries (or its dead letter) are in their topics.

use std::sync::Arc;

use super::{Ways, now_ms};
use crate::delivery::{DeadReason, Delivery};
use crate::event::Event;
use crate::intake::decode::{Decoded, Reading, decode};
use crate::kafka::consumer::Stage;
use crate::kafka::receipt::{Receipt, SharedReceipt};
use crate::matching::catalog::Candidate;
use crate::record::{Record, header_text};
use crate::retry::dead_letter;
use crate::traces::names;
use crate::traces::span::Span;

const STAGE: &str = "route";

/// The stage on its reader's thread.
pub struct Route {
    pub ways: Arc<Ways>,
    /// How records are read.
    pub reading: Reading,
    /// Events that may be open at a time: produced and not acknowledged.
    pub max_open_events: usize,
}

impl Stage for Route {
    fn admits(&mut self) -> bool {
        self.ways.producer.waiting() < self.max_open_events
    }

    fn receive(&mut self, mut record: Record, receipt: Receipt) {
        let metrics = &self.ways.metrics;
        let source = Arc::clone(&record.topic);
        let topic: &[&str] = &[&source];
        metrics.events_consumed.with_label_values(topic).inc();
        match decode(&mut record, &self.reading) {
            Decoded::Tombstone => {
                metrics.events_tombstones.with_label_values(topic).inc();
                receipt.settle();
            }
            Decoded::Undecodable(reason) => {
                tracing::warn!(stage = STAGE, source = %record.source(), reason, "a record is no event; it goes to the dead letters");
                let span = self.process(&record);
                self.ways.end(span, Some(("undecodable", &reason)));
                self.ways.bury_undecodable(&record, &reason, STAGE, receipt);
            }
            Decoded::Event(event) => {
                let span = self.process(&record);
                self.fan_out(&record, &event, receipt, span.as_deref());
                self.ways.end(span, None);
            }
        }
    }
}

impl Route {
    /// The span of a record, if it is traced.
    fn process(&self, record: &Record) -> Option<Box<Span>> {
        let tracer = self.ways.tracer.as_ref()?;
        let mut span = tracer.enter(header_text(&record.headers, "traceparent"))?;
        names::process(&mut span, record, &self.ways.group_of(STAGE));
        Some(Box::new(span))
    }

    /// The span of writing a delivery, below that of its record; the delivery carries it.
    fn send(&self, delivery: &mut Delivery, parent: Option<&Span>) -> Option<Box<Span>> {
        let tracer = self.ways.tracer.as_ref()?;
        let mut span = tracer.below(&parent?.context)?;
        let topic = &self.ways.topics.dispatch;
        names::send(&mut span, topic, &delivery.id, delivery.webhook.as_str());
        delivery.traced.publish = Some(span.context);
        Some(Box::new(span))
    }

    fn fan_out(&self, record: &Record, event: &Event, receipt: Receipt, span: Option<&Span>) {
        let metrics = &self.ways.metrics;
        let topic: &[&str] = &[&record.topic];
        let catalog = self.ways.catalog.now();
        let mut wanting: Vec<&Candidate> = Vec::new();
        catalog.wanting(event, &mut wanting);
        let count = wanting.len() + usize::from(event.inline.is_some());
        let Ok(parts) = u32::try_from(count) else {
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
        if let Some(webhook) = &event.inline {
            let (delivery, outcome) = self.ways.inline_delivery(record, event, webhook, now_ms);
            let fault = outcome.err();
            let fault = fault.as_deref().map(|why| (DeadReason::Rejected, why));
            self.put(delivery, fault, receipt.clone(), span);
        }
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
            let fault = candidate.filter_fault.as_deref();
            let fault = fault.map(|why| (DeadReason::FilterFailed, why));
            self.put(delivery, fault, receipt.clone(), span);
        }
    }

    /// Writes a delivery to `dispatch`, or to the dead letters where something keeps it from being one.
    fn put(
        &self,
        mut delivery: Delivery,
        fault: Option<(DeadReason, &str)>,
        done: SharedReceipt,
        span: Option<&Span>,
    ) {
        let topics = &self.ways.topics;
        let Some((reason, why)) = fault else {
            let span = self.send(&mut delivery, span);
            self.ways
                .put_traced(&delivery, &topics.dispatch, true, STAGE, done, span);
            return;
        };
        let group = self.ways.group_of(STAGE);
        let letter = dead_letter::of_delivery(&delivery, reason, why, &topics.dead_letters, &group);
        self.ways.bury(letter, reason, done);
    }
}
