//! Sends one batch of a webhook's held records on to `dispatch`, and writes how far it came.
//!
//! Promises 1 and 3: the cursor moves when the batch is acknowledged and not before, so an instance that dies repeats at most one batch
//! and loses nothing.

use std::ops::ControlFlow;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use tracing::{error, warn};

use super::{Cursor, Hold, KEY_PREFIX, held_by};
use crate::delivery::{Delivery, Waiting};
use crate::kafka::receipt::Assignment;
use crate::kafka::settings::Connection;
use crate::kafka::table::{Span, scan};
use crate::pipeline::deliver::is_expired;
use crate::pipeline::{Ways, now_ms};
use crate::record::{Outgoing, Record};
use crate::subscription::WebhookId;

const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(60);
/// A batch ends here too, for memory is bounded (promise 6).
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// A batch looks at so many records at most: those of other webhooks between its own must not keep all drains waiting.
const LOOKED_AT: usize = 20_000;

/// What a batch is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Nothing holds the webhook any more: at most so many records.
    Send { limit: usize },
    /// Its endpoint is down: the oldest record, to look whether it still is. Those before it that are too old to be sent go with it.
    Probe,
}

/// What a drain needs to know.
pub(super) struct Drain {
    pub(super) webhook: WebhookId,
    pub(super) assignment: Arc<Assignment>,
    pub(super) first: i64,
    pub(super) end: i64,
    pub(super) purpose: Purpose,
}

/// What it came to.
pub(super) struct Drained {
    pub(super) webhook: WebhookId,
    pub(super) partition: i32,
    /// Everything below is drained.
    pub(super) next: i64,
    pub(super) count: u64,
    /// A probe found none but expired deliveries, which ended without a request: another look is due.
    pub(super) is_unprobed: bool,
}

/// Lives on a thread of its own, because it waits for the broker.
pub(super) struct Drainer {
    pub(super) ways: Arc<Ways>,
    pub(super) connection: Connection,
}

impl Drainer {
    pub(super) fn drain(&self, drain: Drain) -> Drained {
        let partition = drain.assignment.partition;
        let unchanged = Drained {
            webhook: drain.webhook.clone(),
            partition,
            next: drain.first,
            count: 0,
            is_unprobed: false,
        };
        let limit = match drain.purpose {
            Purpose::Send { limit } => limit,
            Purpose::Probe => 500,
        };
        let is_probe = drain.purpose == Purpose::Probe;
        let mut has_live = false;
        let span = Span {
            partition,
            from: drain.first,
            to: drain.end,
        };
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut looked_at = 0;
        // Where nothing breaks the scan off, all of the stretch was seen.
        let mut next = drain.end;
        let result = scan(
            &self.connection,
            &self.ways.topics.held,
            &[span],
            |record| {
                looked_at += 1;
                let after = record.offset.0 + 1;
                if record.key.as_deref() == Some(drain.webhook.as_str().as_bytes()) {
                    bytes += record.cost_bytes();
                    has_live |= self.is_live(&drain, &record);
                    batch.push(record);
                }
                if is_probe && has_live {
                    next = after;
                    return ControlFlow::Break(());
                }
                if batch.len() < limit && bytes < BATCH_BYTES && looked_at < LOOKED_AT {
                    return ControlFlow::Continue(());
                }
                next = after;
                ControlFlow::Break(())
            },
        );
        if let Err(fault) = result {
            warn!(webhook = %drain.webhook, %fault, "a drain stopped; it is begun again");
            return unchanged;
        }
        match self.send(&drain, &batch, next) {
            Some(count) => Drained {
                next,
                count,
                is_unprobed: is_probe && !has_live,
                ..unchanged
            },
            None => unchanged,
        }
    }

    /// Whether a record would be sent, rather than end as expired.
    fn is_live(&self, drain: &Drain, record: &Record) -> bool {
        let catalog = self.ways.catalog.now();
        let Some(webhook) = catalog.get(&drain.webhook) else {
            return false;
        };
        Delivery::from_record(record)
            .is_ok_and(|delivery| !is_expired(&delivery, webhook, now_ms()))
    }

    /// Whether what the batch is for still holds.
    fn is_wanted(&self, drain: &Drain) -> bool {
        let probe_every = self.ways.paces.load().probe_every;
        let held = held_by(&self.ways, &drain.webhook, probe_every);
        let is_wanted = match drain.purpose {
            Purpose::Send { .. } => held.is_none(),
            Purpose::Probe => held == Some(Hold::Down),
        };
        is_wanted && drain.assignment.is_live()
    }

    /// Sends a batch on, waits until it is in `dispatch`, and writes the cursor. `None` when it did not come so far.
    fn send(&self, drain: &Drain, batch: &[Record], next: i64) -> Option<u64> {
        if !self.is_wanted(drain) {
            return None;
        }
        let (acknowledged, acknowledgements) = mpsc::channel();
        let write = |record: &Outgoing| {
            let acknowledged = acknowledged.clone();
            self.ways.producer.send(
                record,
                Box::new(move |written| {
                    let _ = acknowledged.send(written.is_ok());
                }),
            );
        };
        let is_written = || acknowledgements.recv_timeout(ACKNOWLEDGED_WITHIN) == Ok(true);
        let mut count = 0;
        for record in batch {
            let Ok(mut delivery) = Delivery::from_record(record) else {
                error!(source = %record.source(), "a record of the held topic is no delivery; it is passed over");
                continue;
            };
            delivery.waiting = (drain.purpose == Purpose::Probe).then_some(Waiting::Probe);
            delivery.due_ms = None;
            write(&delivery.to_record(&self.ways.topics.dispatch, true));
            count += 1;
        }
        if !(0..count).all(|_| is_written()) {
            return None;
        }
        let cursor = Cursor {
            partition: drain.assignment.partition,
            next,
        };
        write(&Outgoing {
            topic: Arc::clone(&self.ways.topics.replays),
            key: Some(Bytes::from(format!("{KEY_PREFIX}{}", drain.webhook))),
            payload: Some(serde_json::to_vec(&cursor).ok()?.into()),
            headers: Vec::new(),
        });
        is_written().then_some(count)
    }
}
