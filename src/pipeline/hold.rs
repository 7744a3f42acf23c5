//! Deliveries of paused webhooks: kept in the held topic, and drained when their webhook is resumed.
//!
//! The owner of a partition of the held topic looks at each record once and remembers, for each webhook, only where its first undrained record stands: the
//! memory follows the number of webhooks, not of deliveries (promise 6). When a webhook is no longer paused a drain reads
//! its stretch again and sends its records to `dispatch` at a set pace. How far each webhook is drained stands in
//! `postrider.replays` under `held/<webhook>`, so a drain goes on after its instance dies; what repeats then is at most one batch.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::{error, info, warn};

use super::Ways;
use crate::delivery::Delivery;
use crate::kafka::consumer::Stage;
use crate::kafka::receipt::{Assignment, Receipt};
use crate::kafka::settings::Connection;
use crate::kafka::table::{Span, scan};
use crate::record::{Outgoing, Record};
use crate::subscription::WebhookId;

const KEY_PREFIX: &str = "held/";
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A drain's cursor is written after each of these.
const BATCH_RECORDS: usize = 500;
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(60);

/// How far each webhook's held records have been drained, as the replays topic tells.
#[derive(Default)]
pub struct Cursors {
    next: Mutex<HashMap<WebhookId, (i32, i64)>>,
    loaded: AtomicBool,
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Cursor {
    partition: i32,
    next: i64,
}

impl Cursors {
    /// Takes over a record of the replays topic, if it is a cursor.
    pub(super) fn read(&self, record: &Record) {
        let key = record
            .key
            .as_deref()
            .and_then(|key| std::str::from_utf8(key).ok());
        let Some(webhook) = key
            .and_then(|key| key.strip_prefix(KEY_PREFIX))
            .and_then(|id| WebhookId::new(id).ok())
        else {
            return;
        };
        match record
            .payload
            .as_deref()
            .map(serde_json::from_slice::<Cursor>)
        {
            Some(Ok(cursor)) => {
                hold(&self.next).insert(webhook, (cursor.partition, cursor.next));
            }
            Some(Err(fault)) => {
                error!(%webhook, %fault, "a drain cursor cannot be read; some held deliveries may be sent twice")
            }
            None => {
                hold(&self.next).remove(&webhook);
            }
        }
    }

    pub(super) fn loaded(&self) {
        self.loaded.store(true, Ordering::Release);
    }

    /// Whether the whole topic has been read once; the stage must not begin before.
    pub fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::Acquire)
    }

    fn is_drained(&self, webhook: &WebhookId, partition: i32, offset: i64) -> bool {
        hold(&self.next)
            .get(webhook)
            .is_some_and(|(at, next)| *at == partition && offset < *next)
    }
}

struct Held {
    assignment: Arc<Assignment>,
    first: i64,
    end: i64,
    count: u64,
    draining: bool,
}

/// What a drain needs to know.
struct Drain {
    webhook: WebhookId,
    assignment: Arc<Assignment>,
    first: i64,
    end: i64,
}

struct Drained {
    webhook: WebhookId,
    partition: i32,
    /// Everything below is drained.
    next: i64,
    count: u64,
}

/// The stage on its reader's thread.
pub struct Holding {
    ways: Arc<Ways>,
    cursors: Arc<Cursors>,
    held: HashMap<WebhookId, Held>,
    drains: mpsc::Sender<Drain>,
    drained: mpsc::Receiver<Drained>,
    looked_at: Instant,
}

impl Holding {
    /// Starts the thread that drains, one webhook at a time, at most `per_second` records.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn start(
        ways: Arc<Ways>,
        cursors: Arc<Cursors>,
        connection: Connection,
        per_second: u32,
    ) -> std::io::Result<Self> {
        let (drains, to_drain) = mpsc::channel::<Drain>();
        let (done, drained) = mpsc::channel();
        let drainer = Drainer {
            ways: Arc::clone(&ways),
            connection,
            pause: Duration::from_secs(1) / per_second.max(1),
        };
        std::thread::Builder::new()
            .name("held-drain".into())
            .spawn(move || {
                while let Ok(drain) = to_drain.recv() {
                    if done.send(drainer.drain(drain)).is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self {
            ways,
            cursors,
            held: HashMap::new(),
            drains,
            drained,
            looked_at: Instant::now(),
        })
    }

    fn look(&mut self) {
        while let Ok(drained) = self.drained.try_recv() {
            hold(&self.cursors.next)
                .insert(drained.webhook.clone(), (drained.partition, drained.next));
            if let Some(held) = self.held.get_mut(&drained.webhook) {
                held.draining = false;
                held.first = held.first.max(drained.next);
                held.count = held.count.saturating_sub(drained.count);
                if held.first >= held.end {
                    self.held.remove(&drained.webhook);
                }
            }
        }
        let catalog = self.ways.catalog.now();
        for (webhook, held) in &mut self.held {
            // Deleted webhooks are drained too: their deliveries end as dropped, by the usual way.
            let waits = catalog
                .get(webhook)
                .is_some_and(|webhook| webhook.paused && webhook.enabled);
            if waits || held.draining {
                continue;
            }
            held.draining = true;
            let _ = self.drains.send(Drain {
                webhook: webhook.clone(),
                assignment: Arc::clone(&held.assignment),
                first: held.first,
                end: held.end,
            });
        }
        let count = self.held.values().map(|held| held.count).sum::<u64>();
        self.ways
            .metrics
            .held
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

impl Stage for Holding {
    fn receive(&mut self, record: Record, receipt: Receipt) {
        let assignment = Arc::clone(receipt.assignment());
        // The record stays in its topic until its retention; the cursor, not the group's offset, says whether it is done.
        receipt.settle();
        let webhook = record
            .key
            .as_deref()
            .and_then(|key| std::str::from_utf8(key).ok())
            .and_then(|text| WebhookId::new(text).ok());
        let Some(webhook) = webhook else {
            error!(source = %record.source(), "a record of the held topic has no webhook id for a key; it is passed over");
            return;
        };
        let offset = record.offset.0;
        if self.cursors.is_drained(&webhook, record.partition, offset) {
            return;
        }
        let held = self.held.entry(webhook).or_insert_with(|| Held {
            assignment: Arc::clone(&assignment),
            first: offset,
            end: offset,
            count: 0,
            draining: false,
        });
        if held.assignment.epoch != assignment.epoch {
            held.assignment = assignment;
        }
        held.end = offset + 1;
        held.count += 1;
    }

    fn turn(&mut self) {
        if self.looked_at.elapsed() >= LOOK_EVERY {
            self.looked_at = Instant::now();
            self.look();
        }
    }

    fn fenced(&mut self) {
        self.held.retain(|_, held| held.assignment.is_live());
    }
}

struct Drainer {
    ways: Arc<Ways>,
    connection: Connection,
    pause: Duration,
}

impl Drainer {
    fn drain(&self, drain: Drain) -> Drained {
        let partition = drain.assignment.partition;
        let mut drained = Drained {
            webhook: drain.webhook.clone(),
            partition,
            next: drain.first,
            count: 0,
        };
        let span = Span {
            partition,
            from: drain.first,
            to: drain.end,
        };
        let mut batch = Vec::new();
        let mut complete = true;
        let result = scan(
            &self.connection,
            &self.ways.topics.held,
            &[span],
            |record| {
                let next = record.offset.0 + 1;
                if record.key.as_deref() == Some(drain.webhook.as_str().as_bytes()) {
                    batch.push(record);
                }
                if batch.len() < BATCH_RECORDS {
                    return ControlFlow::Continue(());
                }
                complete = self.send(&drain, &mut batch, next, &mut drained);
                if complete {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            },
        );
        if let Err(fault) = result {
            warn!(webhook = %drain.webhook, %fault, "a drain stopped; it is begun again");
            return drained;
        }
        if complete {
            self.send(&drain, &mut batch, drain.end, &mut drained);
        }
        info!(webhook = %drain.webhook, count = drained.count, "held deliveries were sent on");
        drained
    }

    /// Sends a batch on, waits until it is in `dispatch`, and writes the cursor. `false` when the drain must stop.
    fn send(
        &self,
        drain: &Drain,
        batch: &mut Vec<Record>,
        next: i64,
        drained: &mut Drained,
    ) -> bool {
        let still_paused = self
            .ways
            .catalog
            .now()
            .get(&drain.webhook)
            .is_some_and(|webhook| webhook.paused && webhook.enabled);
        if still_paused || !drain.assignment.is_live() {
            return false;
        }
        let (acknowledged, acknowledgements) = mpsc::channel();
        let mut expected = 0;
        for record in batch.drain(..) {
            let Ok(mut delivery) = Delivery::from_record(&record) else {
                error!(source = %record.source(), "a record of the held topic is no delivery; it is passed over");
                continue;
            };
            delivery.waiting = None;
            delivery.due_ms = None;
            let acknowledged = acknowledged.clone();
            let outgoing = delivery.to_record(&self.ways.topics.dispatch, true);
            self.ways.producer.send(
                &outgoing,
                Box::new(move |written| {
                    let _ = acknowledged.send(written.is_ok());
                }),
            );
            expected += 1;
            std::thread::sleep(self.pause);
        }
        let cursor = Cursor {
            partition: drained.partition,
            next,
        };
        for _ in 0..expected {
            if acknowledgements.recv_timeout(ACKNOWLEDGED_WITHIN) != Ok(true) {
                return false;
            }
        }
        drained.next = next;
        drained.count += expected;
        let Ok(value) = serde_json::to_vec(&cursor) else {
            return false;
        };
        let record = Outgoing {
            topic: Arc::clone(&self.ways.topics.replays),
            key: Some(Bytes::from(format!("{KEY_PREFIX}{}", drain.webhook))),
            payload: Some(value.into()),
            headers: Vec::new(),
        };
        self.ways.producer.send(
            &record,
            Box::new(move |written| {
                let _ = acknowledged.send(written.is_ok());
            }),
        );
        acknowledgements.recv_timeout(ACKNOWLEDGED_WITHIN) == Ok(true)
    }
}
