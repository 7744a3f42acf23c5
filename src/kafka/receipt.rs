//! A receipt: the duty to settle one received record, tied to the assignment under which it was received.
//!
//! Promise 2 rests on it. Every receipt carries its assignment, so one that comes back after the partition was revoked
//! finds no books to write in. A receipt that is dropped settles nothing: the record stays open and is read again.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use crate::record::SourceOffset;

/// One assignment of one partition to this process, from assign to revoke.
#[derive(Debug)]
pub struct Assignment {
    /// Unique in the process; a partition that is revoked and assigned again has a new one.
    pub epoch: u64,
    pub topic: Arc<str>,
    pub partition: i32,
    /// When it began: a rate limit begins empty here, so that a hand-over adds no second burst.
    pub started: Instant,
    /// Only moves forward through [`Standing`].
    standing: AtomicU8,
    outstanding: AtomicUsize,
    /// Shared by all assignments of one consumer.
    heartbeat: Arc<Heartbeat>,
}

/// When a consumer last turned its loop: how a process that slept (SIGSTOP, a suspended machine) knows that its
/// partitions may have gone to somebody else meanwhile.
#[derive(Debug)]
pub struct Heartbeat {
    start: Instant,
    turned_at_ms: AtomicI64,
    session_timeout: Duration,
}

impl Heartbeat {
    pub(super) fn new(session_timeout: Duration) -> Self {
        Self {
            start: Instant::now(),
            turned_at_ms: AtomicI64::new(0),
            session_timeout,
        }
    }

    fn elapsed_ms(&self) -> i64 {
        i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    pub(super) fn turn(&self) {
        self.turned_at_ms
            .store(self.elapsed_ms(), Ordering::Release);
    }

    /// Whether the consumer's loop turned within the group's session timeout.
    pub fn is_recent(&self) -> bool {
        let since = self.elapsed_ms() - self.turned_at_ms.load(Ordering::Acquire);
        since < i64::try_from(self.session_timeout.as_millis()).unwrap_or(i64::MAX)
    }
}

impl Assignment {
    pub(super) fn new(
        epoch: u64,
        topic: Arc<str>,
        partition: i32,
        heartbeat: Arc<Heartbeat>,
    ) -> Arc<Self> {
        Arc::new(Self {
            epoch,
            topic,
            partition,
            started: Instant::now(),
            standing: AtomicU8::new(LIVE),
            outstanding: AtomicUsize::new(0),
            heartbeat,
        })
    }

    pub(super) fn hand_back(&self) {
        self.standing.fetch_max(HANDING_BACK, Ordering::AcqRel);
    }

    pub(super) fn end(&self) {
        self.standing.fetch_max(LOST, Ordering::AcqRel);
    }

    /// Receipts that are neither settled nor dropped.
    pub(super) fn outstanding(&self) -> usize {
        self.outstanding.load(Ordering::Acquire)
    }

    /// Whether work for this assignment may still begin. Ask immediately before a request is sent.
    pub fn is_live(&self) -> bool {
        self.standing() == Standing::Live
    }

    /// What may be done for this assignment now.
    pub fn standing(&self) -> Standing {
        match self.standing.load(Ordering::Acquire) {
            _ if !self.heartbeat.is_recent() => Standing::Lost,
            LIVE => Standing::Live,
            HANDING_BACK => Standing::HandingBack,
            _ => Standing::Lost,
        }
    }
}

const LIVE: u8 = 0;
const HANDING_BACK: u8 = 1;
const LOST: u8 = 2;

/// How an assignment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Work may begin.
    Live,
    /// It is asked back and still ours for a moment: no work may begin; what waits is to be put back into its topic and settled, so
    /// that the next owner does not repeat what ended behind it.
    HandingBack,
    /// It is somebody else's: what waits is to be forgotten, for the new owner reads it.
    Lost,
}

/// What comes back to the consumer's thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settlement {
    pub epoch: u64,
    pub offset: SourceOffset,
}

/// See the module's text. Not `Clone`: one duty, settled once.
#[derive(Debug)]
pub struct Receipt {
    assignment: Arc<Assignment>,
    offset: SourceOffset,
    back: Sender<Settlement>,
}

impl Receipt {
    pub(super) fn new(
        assignment: &Arc<Assignment>,
        offset: SourceOffset,
        back: &Sender<Settlement>,
    ) -> Self {
        assignment.outstanding.fetch_add(1, Ordering::AcqRel);
        Self {
            assignment: Arc::clone(assignment),
            offset,
            back: back.clone(),
        }
    }

    /// Says that everything the record caused is durable.
    pub fn settle(self) {
        // The other end is gone when the consumer has stopped; then the record is read again by the next one.
        let _ = self.back.send(Settlement {
            epoch: self.assignment.epoch,
            offset: self.offset,
        });
    }

    /// The assignment under which the record was received.
    pub fn assignment(&self) -> &Arc<Assignment> {
        &self.assignment
    }

    /// Splits the duty over `parts` acknowledgements: the record is settled when all of them are.
    pub fn split(self, parts: u32) -> SharedReceipt {
        SharedReceipt(Arc::new(Shared {
            missing: AtomicU32::new(parts),
            receipt: std::sync::Mutex::new(Some(self)),
        }))
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        self.assignment.outstanding.fetch_sub(1, Ordering::AcqRel);
    }
}

#[derive(Debug)]
struct Shared {
    missing: AtomicU32,
    receipt: std::sync::Mutex<Option<Receipt>>,
}

/// A receipt that waits for several acknowledgements. Each clone stands for one of them; a clone that is dropped without
/// [`SharedReceipt::done`] leaves the record open.
#[derive(Clone, Debug)]
pub struct SharedReceipt(Arc<Shared>);

impl SharedReceipt {
    /// One of the parts is durable.
    pub fn done(self) {
        if self.0.missing.fetch_sub(1, Ordering::AcqRel) == 1 {
            let receipt = self
                .0
                .receipt
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .take();
            if let Some(receipt) = receipt {
                receipt.settle();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn assignment() -> Arc<Assignment> {
        let heartbeat = Arc::new(Heartbeat::new(Duration::from_secs(10)));
        Assignment::new(7, "t".into(), 0, heartbeat)
    }

    #[test]
    fn a_dropped_receipt_settles_nothing() {
        let (back, settled) = mpsc::channel();
        let assignment = assignment();
        drop(Receipt::new(&assignment, SourceOffset(1), &back));
        assert!(settled.try_recv().is_err());
        assert_eq!(assignment.outstanding(), 0);
    }

    #[test]
    fn a_split_receipt_settles_with_its_last_part() {
        let (back, settled) = mpsc::channel();
        let shared = Receipt::new(&assignment(), SourceOffset(1), &back).split(2);
        shared.clone().done();
        assert!(settled.try_recv().is_err());
        shared.done();
        assert_eq!(settled.try_recv().map(|s| s.offset), Ok(SourceOffset(1)));
    }

    #[test]
    fn a_revoked_assignment_lets_no_work_begin() {
        let assignment = assignment();
        assert_eq!(assignment.standing(), Standing::Live);
        assignment.hand_back();
        assert_eq!(assignment.standing(), Standing::HandingBack);
        assignment.end();
        assignment.hand_back();
        assert_eq!(assignment.standing(), Standing::Lost);
    }
}
