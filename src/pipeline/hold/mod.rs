//! Deliveries of paused webhooks and of endpoints that have been down for long: kept in the held topic, and drained when their webhook is
//! resumed or its endpoint recovers.
//!
//! The owner of a partition of the held topic looks at each record once and remembers, for each webhook, only where its first undrained record stands: the
//! memory follows the number of webhooks, not of deliveries (promise 6). When nothing holds a webhook any more, its stretch is read
//! again, one batch after another at a set pace (`drain`), so that many webhooks take turns (promise 4). While its endpoint is down one record goes out now and
//! then: a webhook without new events would never be probed otherwise. How far each webhook is drained stands in
//! `postrider.replays` under `held/<webhook>`, so a drain goes on after its instance dies; what repeats then is at most one batch.

mod drain;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use tracing::{error, info};

use super::{Ways, now_ms};
use crate::kafka::consumer::Stage;
use crate::kafka::receipt::{Assignment, Receipt};
use crate::kafka::settings::Connection;
use crate::record::Record;
use crate::subscription::{Subscription, WebhookId};
use drain::{Drain, Drained, Drainer, Purpose};

const KEY_PREFIX: &str = "held/";
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Between two looks at what holds a webhook that was held before: there may be very many.
const STILL_HELD: Duration = Duration::from_millis(500);
/// At most so many are sent on at a time, and at most what the pace permits in [`BATCH_SPAN`].
const BATCH_RECORDS: f64 = 500.0;
const BATCH_SPAN: Duration = Duration::from_secs(2);

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
    /// What holds it is not looked at before.
    look_at: Instant,
    /// The pace permits no batch before.
    drain_at: Instant,
    /// When the endpoint, while it is down, may be probed with a record from here.
    probe_at: Instant,
    /// Of the webhook when it was last probed: one that is changed is probed at once.
    version: u64,
    /// Sent on since the drain began, for the log.
    drained: u64,
}

/// Why deliveries of a webhook are kept here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// Somebody paused it.
    Paused,
    /// Its endpoint is down, so long that it is worth a probe.
    Down,
    /// Its endpoint is down, since a moment ago.
    JustDown,
}

/// The paces of the stage.
#[derive(Clone, Copy, Debug)]
pub struct Paces {
    /// Held deliveries of one webhook that go out again in a second, if its rate limit permits as many.
    pub per_second: u32,
    /// Between two probes with what is held here.
    pub probe_every: Duration,
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

/// How fast a webhook's held deliveries may go out, in records a second.
fn pace(webhook: Option<&Subscription>, per_second: u32) -> f64 {
    let limit = webhook
        .and_then(|webhook| webhook.rate_limit.as_ref())
        .map_or(f64::INFINITY, |limit| 1.0 / limit.interval().as_secs_f64());
    f64::from(per_second.max(1)).min(limit)
}

/// How many records a batch has at a pace; at least one.
fn batch(pace: f64) -> usize {
    // Float to integer saturates, which is what is wanted here.
    (pace * BATCH_SPAN.as_secs_f64())
        .clamp(1.0, BATCH_RECORDS)
        .floor() as usize
}

impl Holding {
    /// Starts the thread that drains, one batch of one webhook at a time.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn start(
        ways: Arc<Ways>,
        cursors: Arc<Cursors>,
        connection: Connection,
    ) -> std::io::Result<Self> {
        let (drains, to_drain) = mpsc::channel::<Drain>();
        let (done, drained) = mpsc::channel();
        let drainer = Drainer {
            ways: Arc::clone(&ways),
            connection,
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
            self.take_back(&drained);
        }
        let now = Instant::now();
        let catalog = self.ways.catalog.now();
        let paces = **self.ways.paces.load();
        let idle = |held: &Held| !held.draining && held.look_at <= now;
        for (webhook, held) in self.held.iter_mut().filter(|(_, held)| idle(held)) {
            let known = catalog.get(webhook).map(Arc::as_ref);
            let pace = pace(known, paces.per_second);
            let version = known.map_or(0, |webhook| webhook.version);
            // Deleted and disabled webhooks are drained too: their deliveries end by the usual way.
            let purpose = match held_by(&self.ways, webhook, paces.probe_every) {
                None if held.drain_at <= now => {
                    let limit = batch(pace);
                    held.drain_at = now + Duration::from_secs_f64(limit as f64 / pace);
                    held.probe_at = now;
                    Purpose::Send { limit }
                }
                Some(Hold::Down) if held.probe_at <= now || held.version != version => {
                    held.probe_at = now + paces.probe_every;
                    held.version = version;
                    Purpose::Probe
                }
                None => continue,
                Some(_) => {
                    held.look_at = now + STILL_HELD;
                    continue;
                }
            };
            held.draining = true;
            let _ = self.drains.send(Drain {
                webhook: webhook.clone(),
                assignment: Arc::clone(&held.assignment),
                first: held.first,
                end: held.end,
                purpose,
            });
        }
        let count = self.held.values().map(|held| held.count).sum::<u64>();
        self.ways
            .metrics
            .held
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    fn take_back(&mut self, drained: &Drained) {
        hold(&self.cursors.next).insert(drained.webhook.clone(), (drained.partition, drained.next));
        let Some(held) = self.held.get_mut(&drained.webhook) else {
            return;
        };
        held.draining = false;
        held.first = held.first.max(drained.next);
        held.count = held.count.saturating_sub(drained.count);
        held.drained += drained.count;
        if drained.is_unprobed {
            held.probe_at = Instant::now();
        }
        if held.first >= held.end {
            info!(webhook = %drained.webhook, count = held.drained, "held deliveries were sent on");
            self.held.remove(&drained.webhook);
        }
    }
}

/// What holds a webhook now, if anything.
pub(super) fn held_by(ways: &Ways, id: &WebhookId, probe_every: Duration) -> Option<Hold> {
    let webhook = ways.catalog.now().get(id).cloned()?;
    if !webhook.enabled {
        return None;
    }
    if webhook.paused {
        return Some(Hold::Paused);
    }
    let now = now_ms();
    let tripped_for = ways.conditions.tripped_for(&webhook, now)?;
    let is_down = tripped_for >= probe_every || ways.conditions.is_holding(&webhook, now);
    Some(if is_down { Hold::Down } else { Hold::JustDown })
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
        let now = Instant::now();
        let held = self.held.entry(webhook).or_insert_with(|| Held {
            assignment: Arc::clone(&assignment),
            first: offset,
            end: offset,
            count: 0,
            draining: false,
            look_at: now,
            drain_at: now,
            probe_at: now,
            version: 0,
            drained: 0,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subscription::read::read;

    fn webhook(limit: serde_json::Value) -> Subscription {
        let object = serde_json::json!({"name": "n", "url": "https://example.com/", "event_types": ["*"], "rate_limit": limit});
        let draft = read(&object, "").unwrap();
        draft
            .create(jiff::Timestamp::UNIX_EPOCH)
            .unwrap()
            .subscription
    }

    #[test]
    fn a_drain_is_as_slow_as_the_slower_of_its_own_pace_and_the_webhooks_limit() {
        let slow = webhook(serde_json::json!({"requests": 5, "per_seconds": 10}));
        let free = webhook(serde_json::Value::Null);
        assert_eq!(pace(Some(&slow), 1000), 0.5);
        assert_eq!(pace(Some(&free), 1000), 1000.0);
        assert_eq!(pace(Some(&slow), 0), 0.5);
        assert_eq!(pace(None, 100), 100.0);
    }

    #[test]
    fn a_batch_is_small_for_a_slow_webhook_and_bounded_for_a_fast_one() {
        assert_eq!(batch(0.1), 1);
        assert_eq!(batch(10.0), 20);
        assert_eq!(batch(1e6), 500);
    }
}
