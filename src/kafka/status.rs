//! What a reader tells of itself to health checks and metrics, without a lock.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::books::BookSummary;

/// Shared between the reader's thread, which writes, and whoever asks.
#[derive(Debug)]
pub struct Status {
    /// The stage's name.
    pub stage: &'static str,
    joined: AtomicBool,
    open: AtomicUsize,
    oldest_ms: AtomicU64,
    partitions: AtomicUsize,
}

impl Status {
    pub(super) fn new(stage: &'static str) -> Self {
        Self {
            stage,
            joined: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            oldest_ms: AtomicU64::new(0),
            partitions: AtomicUsize::new(0),
        }
    }

    pub(super) fn set(&self, summary: BookSummary) {
        self.open.store(summary.open, Ordering::Release);
        let oldest_ms = u64::try_from(summary.oldest.as_millis()).unwrap_or(u64::MAX);
        self.oldest_ms.store(oldest_ms, Ordering::Release);
        self.partitions.store(summary.partitions, Ordering::Release);
    }

    pub(super) fn joined(&self) {
        self.joined.store(true, Ordering::Release);
    }

    /// Whether the group has answered with an assignment, which may be empty when there are more members than partitions.
    pub fn has_joined(&self) -> bool {
        self.joined.load(Ordering::Acquire)
    }

    /// Received and unfinished records, the age of the oldest, and the assigned partitions.
    pub fn summary(&self) -> BookSummary {
        BookSummary {
            open: self.open.load(Ordering::Acquire),
            oldest: Duration::from_millis(self.oldest_ms.load(Ordering::Acquire)),
            partitions: self.partitions.load(Ordering::Acquire),
        }
    }
}
