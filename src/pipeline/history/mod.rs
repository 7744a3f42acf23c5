//! The fourth loop: records of attempts, dead letters and held deliveries → rows of the history.
//!
//! It stands beside the others and nothing waits for it (promise 4): a database that is slow, full or away makes it lag, which it says in
//! `/readyz?verbose`, in metrics and once a minute in the log; it tries again until the database is back. What is read and not written
//! is a bounded queue (promise 6), behind which reading stops. Positions are written with the rows: a crash repeats nothing.
//!
//! A store of one instance is fed by a tail of all partitions, from the positions in the store; a shared one by the group
//! `postrider.history`, whose offsets are committed once the rows are written.

mod reading;

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

pub use reading::Reading;

use super::now_ms;
use crate::history::rows::Change;
use crate::history::{Fault, Store};
use crate::kafka::consumer::Stage;
use crate::kafka::receipt::Receipt;
use crate::metrics::Metrics;
use crate::record::Record;

/// Rows read and not yet written; with the largest bodies they take 16 MiB.
const QUEUE: usize = 1000;
/// Records of one transaction. What a transaction costs is shared by its records: a page is written once for all that changed in it.
const BATCH: usize = 20_000;
/// What they may take, in bytes: those that failed carry headers and a body.
const BATCH_BYTES: usize = 16 * 1024 * 1024;
/// How long the first record waits for more; when many came by then, all wait for longer.
const BATCH_WAIT: Duration = Duration::from_millis(100);
const MANY: usize = 100;
const LONGER_BATCH_WAIT: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
const SAY_EVERY: Duration = Duration::from_secs(60);
/// Between two rounds of retention, and between two batches of one round.
const FORGET_EVERY: Duration = Duration::from_secs(60);
const FORGET_ROWS: u32 = 500;
const DAY_MS: i64 = 24 * 3_600_000;

/// What is to be written, with the receipt where a group reads.
type Fed = (Change, Option<Receipt>);

/// What the writer tells of itself.
#[derive(Default)]
struct Standing {
    /// When the oldest record was written that waits for the store, Unix milliseconds; 0 when none does.
    oldest_ms: AtomicI64,
    fault: Mutex<Option<String>>,
    records: AtomicI64,
}

/// The thread that writes. It ends when it is stopped, or when nobody feeds it any more.
pub struct Writer {
    store: Arc<Store>,
    standing: Arc<Standing>,
    metrics: Arc<Metrics>,
    stopping: Arc<AtomicBool>,
    feed: SyncSender<Fed>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// The operating system gives none.
    pub fn start(
        store: Arc<Store>,
        retention_days: u16,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let (feed, fed) = sync_channel(QUEUE);
        let standing = Arc::new(Standing::default());
        let stopping = Arc::new(AtomicBool::new(false));
        let writing = Writing {
            store: Arc::clone(&store),
            standing: Arc::clone(&standing),
            metrics: Arc::clone(&metrics),
            stopping: Arc::clone(&stopping),
            retention_ms: i64::from(retention_days) * DAY_MS,
            said_at: None,
        };
        let thread = std::thread::Builder::new()
            .name("history".into())
            .spawn(move || writing.run(&fed))?;
        Ok(Self {
            store,
            standing,
            metrics,
            stopping,
            feed,
            thread: Some(thread),
        })
    }

    /// What feeds the writer from a tail: it waits while the queue is full.
    pub fn feed(&self, reading: Reading) -> impl FnMut(Record) + Send + 'static {
        let (feed, stopping) = (self.feed.clone(), Arc::clone(&self.stopping));
        move |record| {
            let mut fed = (reading.change(record), None);
            while !stopping.load(Ordering::Acquire) {
                match feed.try_send(fed) {
                    Err(TrySendError::Full(back)) => fed = back,
                    Ok(()) | Err(TrySendError::Disconnected(_)) => return,
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// The same from a group.
    pub fn stage(&self, reading: Reading) -> Box<dyn Stage> {
        Box::new(Feeding {
            feed: self.feed.clone(),
            reading,
            waiting: None,
        })
    }

    /// The store that is written.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Seconds by which the view is behind.
    pub fn lag_seconds(&self) -> f64 {
        match self.standing.oldest_ms.load(Ordering::Acquire) {
            0 => 0.0,
            oldest_ms => now_ms().saturating_sub(oldest_ms).max(0) as f64 / 1000.0,
        }
    }

    /// Whether the store did not take what was last written.
    pub fn is_away(&self) -> bool {
        let fault = self.standing.fault.lock();
        fault.unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// One line for `/readyz?verbose`.
    pub fn says(&self) -> String {
        let fault = self
            .standing
            .fault
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let lag = self.lag_seconds();
        let name = self.store.name();
        match fault {
            Some(fault) => format!("{name}, {lag:.0} s behind and tried again: {fault}"),
            None => format!(
                "{name}, {lag:.1} s behind, {} records written",
                self.standing.records.load(Ordering::Acquire)
            ),
        }
    }

    /// Brings the gauge of the lag up to now.
    pub fn refresh(&self) {
        self.metrics
            .history_lag
            .with_label_values(&[self.store.name()])
            .set(self.lag_seconds());
    }

    /// Asks the thread to end. What waits is read again after the next start.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Feeds the writer from a consumer's thread, which must not wait.
struct Feeding {
    feed: SyncSender<Fed>,
    reading: Reading,
    /// The one that found the queue full.
    waiting: Option<Fed>,
}

impl Feeding {
    fn push(&mut self, fed: Fed) {
        if let Err(TrySendError::Full(back)) = self.feed.try_send(fed) {
            self.waiting = Some(back);
        }
    }
}

impl Stage for Feeding {
    fn receive(&mut self, record: Record, receipt: Receipt) {
        // `admits` was asked just before, so nothing waits here.
        let fed = (self.reading.change(record), Some(receipt));
        self.push(fed);
    }

    fn admits(&mut self) -> bool {
        if let Some(fed) = self.waiting.take() {
            self.push(fed);
        }
        self.waiting.is_none()
    }

    fn turn(&mut self) {
        self.admits();
    }
}

/// The thread's own.
struct Writing {
    store: Arc<Store>,
    standing: Arc<Standing>,
    metrics: Arc<Metrics>,
    stopping: Arc<AtomicBool>,
    retention_ms: i64,
    said_at: Option<Instant>,
}

impl Writing {
    fn run(mut self, fed: &Receiver<Fed>) {
        let mut forget_at = Instant::now();
        let mut size_at = Instant::now();
        let mut batch: Vec<Change> = Vec::with_capacity(BATCH);
        let mut receipts: Vec<Receipt> = Vec::new();
        while !self.stopping.load(Ordering::Acquire) {
            match gather(fed, &self.stopping, &mut batch, &mut receipts) {
                Gathered::Some => {
                    let oldest = batch.iter().filter_map(|change| change.written_at_ms).min();
                    let oldest_ms = oldest.unwrap_or_else(now_ms).max(1);
                    self.standing.oldest_ms.store(oldest_ms, Ordering::Release);
                    if !self.write(&batch) {
                        return;
                    }
                    receipts.drain(..).for_each(Receipt::settle);
                    batch.clear();
                }
                Gathered::Nothing => self.standing.oldest_ms.store(0, Ordering::Release),
                Gathered::Over => return,
            }
            if Instant::now() >= forget_at {
                // A round is cut into batches, and what is new goes between them.
                let pause = if self.forget() {
                    BATCH_WAIT
                } else {
                    FORGET_EVERY
                };
                forget_at = Instant::now() + pause;
            }
            if Instant::now() >= size_at {
                if let Ok(bytes) = self.store.bytes() {
                    self.metrics.history_bytes.set(bytes);
                }
                size_at = Instant::now() + Duration::from_secs(10);
            }
        }
    }

    /// Writes a batch, however long it takes; `false` when the process stops before.
    fn write(&mut self, batch: &[Change]) -> bool {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.store.apply(batch) {
                Ok(()) => {
                    let count = batch.len() as u64;
                    self.metrics.history_records.inc_by(count);
                    let count = i64::try_from(count).unwrap_or(0);
                    self.standing.records.fetch_add(count, Ordering::AcqRel);
                    self.mended();
                    return true;
                }
                Err(fault) => self.failed(&fault),
            }
            let until = Instant::now() + pause;
            while Instant::now() < until {
                if self.stopping.load(Ordering::Acquire) {
                    return false;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Whether there is more to forget.
    fn forget(&mut self) -> bool {
        let before_ms = now_ms().saturating_sub(self.retention_ms);
        match self.store.forget(before_ms, FORGET_ROWS) {
            Ok(more) => more,
            Err(fault) => {
                self.failed(&fault);
                false
            }
        }
    }

    fn failed(&mut self, fault: &Fault) {
        self.metrics.history_errors.inc();
        *self
            .standing
            .fault
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(fault.to_string());
        if self
            .said_at
            .is_none_or(|said_at| said_at.elapsed() > SAY_EVERY)
        {
            self.said_at = Some(Instant::now());
            error!(%fault, "the history cannot be written and lags; deliveries go on, and it is tried again");
        }
    }

    fn mended(&mut self) {
        let fault = self
            .standing
            .fault
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if fault.is_some() {
            self.said_at = None;
            info!("the history is written again");
        }
    }
}

enum Gathered {
    Some,
    Nothing,
    Over,
}

/// Waits for a first record, and briefly for those that come with it.
fn gather(
    fed: &Receiver<Fed>,
    stopping: &AtomicBool,
    batch: &mut Vec<Change>,
    receipts: &mut Vec<Receipt>,
) -> Gathered {
    let mut bytes = 0;
    let mut take = |(change, receipt): Fed| {
        bytes += change.cost_bytes();
        batch.push(change);
        receipts.extend(receipt);
        batch.len() < BATCH && bytes < BATCH_BYTES
    };
    match fed.recv_timeout(BATCH_WAIT) {
        Ok(first) => take(first),
        Err(RecvTimeoutError::Timeout) => return Gathered::Nothing,
        Err(RecvTimeoutError::Disconnected) => return Gathered::Over,
    };
    let began = Instant::now();
    let mut count = 1;
    while !stopping.load(Ordering::Acquire) {
        let wait = if count < MANY {
            BATCH_WAIT
        } else {
            LONGER_BATCH_WAIT
        };
        match fed.recv_timeout(wait.saturating_sub(began.elapsed())) {
            Ok(next) => {
                count += 1;
                if !take(next) {
                    break;
                }
            }
            Err(_) => break,
        }
    }
    Gathered::Some
}

/// Says once that a shared store is empty although its group has read before.
pub fn warn_when_empty(store: &Store) {
    if store
        .positions()
        .is_ok_and(|positions| positions.is_empty())
    {
        warn!(
            "the history is empty; if there were deliveries before, `postrider history rebuild` reads them from the topics"
        );
    }
}
