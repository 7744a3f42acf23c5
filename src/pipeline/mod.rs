//! The three loops, and the only place that knows their order: route → dispatch → deliver → delay → release → dispatch.
//!
//! Stages answer, this module acts: it brings a stage what it works on, carries out what it decides, and settles a receipt
//! only when everything that followed from the record is acknowledged (promises 1 and 2).

pub mod admission;
pub mod alerts;
pub mod catalog_topic;
pub mod changes;
mod conclude;
pub mod conditions;
pub mod deliver;
pub mod followers;
pub mod history;
pub mod hold;
mod inline;
pub mod rekey;
pub mod release;
pub mod replaying;
pub mod route;
pub mod test_event;
pub mod topics;

use std::sync::Arc;

use arc_swap::ArcSwap;
use tracing::error;

use crate::delivery::{DeadReason, Delivery, Ending};
pub use crate::kafka::clock::now_ms;
use crate::kafka::producer::Producer;
use crate::kafka::receipt::{Receipt, SharedReceipt};
use crate::matching::catalog::Catalog;
use crate::metrics::Metrics;
use crate::record::{Outgoing, Record};
use crate::retry::{dead_letter, ladder};
use crate::subscription::seal::SealingKey;
use crate::traces::span::Span;
use crate::traces::{Tracer, names};
use alerts::Alerts;
use conditions::Conditions;
use hold::Paces;
use topics::Topics;

/// What the loops share.
pub struct Ways {
    pub topics: Topics,
    pub producer: Producer,
    pub catalog: Arc<Catalog>,
    pub conditions: Arc<Conditions>,
    /// Of what is held; a reload of the configuration changes them.
    pub paces: ArcSwap<Paces>,
    pub alerts: Alerts,
    /// Seals and opens the secrets of webhooks.
    pub key: Option<SealingKey>,
    pub metrics: Arc<Metrics>,
    /// `None` where nothing is traced.
    pub tracer: Option<Arc<Tracer>>,
    /// The name before a stage's in a consumer group's name, `postrider`.
    pub group: String,
    /// Whether every attempt is written to the attempts topic.
    pub record_attempts: bool,
}

impl Ways {
    /// Writes a dead letter; `done` when it is durable. A letter that its topic does not take is cut until it fits.
    pub(crate) fn bury(
        self: &Arc<Self>,
        letter: Outgoing,
        reason: DeadReason,
        done: SharedReceipt,
    ) {
        let ways = Arc::clone(self);
        self.producer.send(
            &letter,
            Box::new(move |written| match written {
                Ok(_) => ways.buried(reason, done),
                Err(refused) => {
                    error!(%refused, reason = reason.as_str(), "a dead letter does not fit into its topic and is cut");
                    ways.bury_cut(dead_letter::truncated(&refused.record), reason, done);
                }
            }),
        );
    }

    /// Writes the dead letter of a record that is no event or no delivery, and settles it.
    pub(crate) fn bury_undecodable(
        self: &Arc<Self>,
        record: &Record,
        why: &str,
        stage: &'static str,
        receipt: Receipt,
    ) {
        let letter = dead_letter::of_record(
            record,
            DeadReason::Undecodable,
            why,
            &self.topics.dead_letters,
            &self.group_of(stage),
        );
        self.bury(letter, DeadReason::Undecodable, receipt.split(1));
    }

    /// The same from within an acknowledgement, for what a topic refused.
    fn bury_later(self: &Arc<Self>, letter: Outgoing, done: SharedReceipt) {
        let ways = Arc::clone(self);
        self.producer.send_later(
            letter,
            Box::new(move |written| match written {
                Ok(_) => ways.buried(DeadReason::TooLarge, done),
                Err(refused) => ways.bury_cut(
                    dead_letter::truncated(&refused.record),
                    DeadReason::TooLarge,
                    done,
                ),
            }),
        );
    }

    fn bury_cut(self: &Arc<Self>, letter: Outgoing, reason: DeadReason, done: SharedReceipt) {
        let ways = Arc::clone(self);
        self.producer.send_later(
            letter,
            Box::new(move |written| match written {
                Ok(_) => ways.buried(reason, done),
                Err(refused) => {
                    // The topic takes very little. Its place in the source is the last thing to keep.
                    let mut bare = *refused.record;
                    bare.payload = None;
                    bare.headers.retain(|header| crate::delivery::headers::is_ours(&header.name));
                    let last = Arc::clone(&ways);
                    ways.producer.send_later(bare, Box::new(move |written| match written {
                        Ok(_) => last.buried(reason, done),
                        Err(refused) => error!(
                            %refused,
                            "a dead letter cannot be written at all; raise max.message.bytes of the topic. Its record stays open and is read again after a restart"
                        ),
                    }));
                }
            }),
        );
    }

    fn buried(&self, reason: DeadReason, done: SharedReceipt) {
        self.metrics
            .dead_letters
            .with_label_values(&[reason.as_str()])
            .inc();
        self.ended(Ending::DeadLettered);
        done.done();
    }

    pub(crate) fn ended(&self, ending: Ending) {
        self.metrics
            .deliveries
            .with_label_values(&[ending.as_str()])
            .inc();
    }

    /// Puts a delivery into a topic of ours; `done` when it is durable. One that no topic of ours takes is dead-lettered.
    pub(crate) fn put(
        self: &Arc<Self>,
        delivery: &Delivery,
        topic: &Arc<str>,
        keyed_by_webhook: bool,
        stage: &'static str,
        done: SharedReceipt,
    ) {
        self.put_traced(delivery, topic, keyed_by_webhook, stage, done, None);
    }

    /// The same with the span of the write, where it is traced.
    pub(crate) fn put_traced(
        self: &Arc<Self>,
        delivery: &Delivery,
        topic: &Arc<str>,
        keyed_by_webhook: bool,
        stage: &'static str,
        done: SharedReceipt,
        span: Option<Box<Span>>,
    ) {
        let record = delivery.to_record(topic, keyed_by_webhook);
        let ways = Arc::clone(self);
        self.producer.send(
            &record,
            Box::new(move |written| match written {
                Ok(_) => {
                    ways.end(span, None);
                    // Of all that comes this way, only the ladder's topics are not keyed by webhook.
                    fail::fail_point!(
                        "deliver-after-retry-written",
                        stage == deliver::STAGE && !keyed_by_webhook,
                        |_| crate::failpoint::die()
                    );
                    done.done();
                }
                Err(refused) => {
                    let message = refused.to_string();
                    ways.end(span, Some(("too_large", &message)));
                    let letter = dead_letter::of_refused(
                        *refused.record,
                        &message,
                        &ways.topics.dead_letters,
                        &ways.group_of(stage),
                    );
                    // A letter that does not fit either is cut on the way.
                    ways.bury_later(letter, done);
                }
            }),
        );
    }

    /// Ends a span, if there is one; `fault` is why nothing came of it, in a word and in a sentence.
    pub(crate) fn end(&self, span: Option<Box<Span>>, fault: Option<(&str, &str)>) {
        if let (Some(tracer), Some(mut span)) = (&self.tracer, span) {
            if let Some((kind, message)) = fault {
                names::failed(&mut span, kind, message);
            }
            tracer.end(*span);
        }
    }

    /// Puts a delivery on the ladder until its due time.
    pub(crate) fn delay(
        self: &Arc<Self>,
        delivery: &Delivery,
        stage: &'static str,
        done: SharedReceipt,
    ) {
        let remaining_ms = delivery.due_ms.unwrap_or(0).saturating_sub(now_ms()).max(0);
        let remaining = std::time::Duration::from_millis(remaining_ms.unsigned_abs());
        let topic = self.topics.delay(ladder::rung_for(remaining));
        self.put(delivery, topic, false, stage, done);
    }

    /// The consumer group of a stage.
    pub fn group_of(&self, stage: &str) -> String {
        format!("{}.{stage}", self.group)
    }
}
