//! The bytes that waiting deliveries may take in this instance (promise 6).
//!
//! Every delivery is charged when it is read and discharged when it has gone on, whatever way it went. At the bound reading
//! stops and the lag grows; nothing else breaks.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Shared by the reader, which asks for room, and the deliveries, which hold it.
#[derive(Debug)]
pub struct Budget {
    used: AtomicUsize,
    bound_bytes: AtomicUsize,
}

impl Budget {
    /// A budget of so many bytes.
    pub fn new(bound_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            used: AtomicUsize::new(0),
            bound_bytes: AtomicUsize::new(bound_bytes),
        })
    }

    /// Whether anything more may be taken in. One delivery may exceed the bound, so that the largest can pass at all.
    pub fn has_room(&self) -> bool {
        self.used.load(Ordering::Acquire) < self.bound_bytes.load(Ordering::Relaxed)
    }

    /// Takes bytes; dropping the charge gives them back.
    pub fn charge(self: &Arc<Self>, bytes: usize) -> Charge {
        self.used.fetch_add(bytes, Ordering::AcqRel);
        Charge {
            budget: Arc::clone(self),
            bytes,
        }
    }

    /// Another bound; what is in use above it is given back as deliveries go on.
    pub fn bound(&self, bytes: usize) {
        self.bound_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }
}

/// What one delivery holds of the budget.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_charge_gives_its_bytes_back() {
        let budget = Budget::new(10);
        let charge = budget.charge(10);
        assert!(!budget.has_room());
        drop(charge);
        assert!(budget.has_room());
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn another_bound_holds_for_what_is_in_use_already() {
        let budget = Budget::new(10);
        let _charge = budget.charge(10);
        budget.bound(11);
        assert!(budget.has_room());
        budget.bound(5);
        assert!(!budget.has_room());
    }
}
