//! Says when the next request of a webhook may go, and gives away future slots to what does not fit now.
//!
//! Keeps promise 5: there is one limiter for a webhook in the fleet, in the lane that owns it, and it starts empty, so
//! that a change of owner never adds a second burst. What counts is when requests are sent, not when they may be. Pure: the time is a parameter, as a monotonic offset from any start.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{NotKeyed, StateStore};
use governor::{Quota, RateLimiter};

use crate::subscription::RateLimit;

/// 34 years: far beyond any interval, and small enough that no sum of two leaves a `u64`.
const LONGEST_NANOS: u64 = 1 << 60;

/// The time as the caller last gave it.
struct GivenTime(AtomicU64);

impl Clock for GivenTime {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        Nanos::new(self.0.load(Relaxed))
    }
}

/// GCRA's one number, the theoretical arrival time, where the reservations can read it (governor shows it to nobody).
/// Two owners, both inside one [`Limiter`]; plain loads and stores suffice, since every change needs `&mut Limiter`.
struct Arrival(Arc<AtomicU64>);

impl StateStore for Arrival {
    type Key = NotKeyed;

    fn measure_and_replace<T, F, E>(&self, _key: &NotKeyed, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let (answer, next) = measure(Some(Nanos::new(self.0.load(Relaxed))))?;
        self.0.store(next.as_u64(), Relaxed);
        Ok(answer)
    }
}

/// The limiter of one webhook, held by the lane that owns it. Dropping it forgets the slots that were given away.
pub struct Limiter {
    governor: RateLimiter<NotKeyed, Arrival, GivenTime, NoOpMiddleware<Nanos>>,
    arrival: Arc<AtomicU64>,
    interval: u64,
    /// What a full bucket holds beyond one request, in nanoseconds.
    tolerance: u64,
    /// Requests that have taken a slot and are not on their way yet.
    unsent: u64,
    /// When the slot after the last one given away begins.
    tail: u64,
}

impl Limiter {
    /// A limiter with an empty bucket: its first request may go one interval after `now`.
    pub fn new(limit: &RateLimit, now: Duration) -> Self {
        let interval = nanos(limit.interval()).max(1);
        let longest_burst = u32::try_from(LONGEST_NANOS / interval).unwrap_or(u32::MAX);
        let burst = NonZeroU32::new(limit.burst.min(longest_burst)).unwrap_or(NonZeroU32::MIN);
        let tolerance = interval * u64::from(burst.get() - 1);
        let arrival = Arc::new(AtomicU64::new(nanos(now) + tolerance + interval));
        let quota = Quota::with_period(Duration::from_nanos(interval))
            .unwrap_or(Quota::per_second(NonZeroU32::MIN))
            .allow_burst(burst);
        // The clock stands at zero here, so that governor counts from the same start as the caller.
        let clock = GivenTime(AtomicU64::new(0));
        let governor = RateLimiter::new(quota, Arrival(Arc::clone(&arrival)), clock);
        Self {
            governor,
            arrival,
            interval,
            tolerance,
            unsent: 0,
            tail: 0,
        }
    }

    /// Takes a slot now, for a request that [`Self::sent`] or [`Self::withdrawn`] is to be told of.
    ///
    /// # Errors
    /// The time to wait until one is free, if nothing else takes it and what has taken one is sent; never zero.
    pub fn try_take(&mut self, now: Duration) -> Result<(), Duration> {
        let now = nanos(now);
        self.hold(now);
        self.governor.clock().0.store(now, Relaxed);
        self.governor
            .check()
            .map_err(|not_until| not_until.wait_time_from(Nanos::new(now)))?;
        self.unsent += 1;
        Ok(())
    }

    /// One of those that took a slot goes now.
    pub fn sent(&mut self, now: Duration) {
        self.hold(nanos(now));
        self.withdrawn();
    }

    /// One of those that took a slot will not go. Its slot is not given back.
    pub fn withdrawn(&mut self) {
        self.unsent = self.unsent.saturating_sub(1);
    }

    /// Counts what is not on its way yet as taken now: on a busy machine requests are sent long after they took their slots, and with a
    /// bucket that had filled meanwhile others would follow at once, so that the endpoint saw more in a second than it allows.
    fn hold(&mut self, now: u64) {
        if self.unsent > 0 {
            let held = now.saturating_add(self.unsent.saturating_mul(self.interval));
            self.arrival
                .store(self.arrival.load(Relaxed).max(held), Relaxed);
        }
    }

    /// Gives away the next slot that is free once the `waiting_in_lane` deliveries have gone, and says how far off it is.
    ///
    /// Slots given one after the other lie an interval apart. A slot is a place in time, not a right: the delivery
    /// still takes its turn with [`Self::try_take`] when it comes back.
    pub fn reserve(&mut self, now: Duration, waiting_in_lane: usize) -> Duration {
        let now = nanos(now);
        let waiting = u64::try_from(waiting_in_lane)
            .unwrap_or(u64::MAX)
            .saturating_mul(self.interval);
        let arrival = self.arrival.load(Relaxed).max(now);
        let free = arrival
            .saturating_add(waiting)
            .saturating_sub(self.tolerance)
            .max(now);
        let slot = free.max(self.tail);
        self.tail = slot.saturating_add(self.interval);
        Duration::from_nanos(slot - now)
    }

    /// Whether slots are given away that lie ahead. New deliveries then reserve too, or they would take those slots.
    pub fn has_reservations(&self, now: Duration) -> bool {
        self.tail > nanos(now)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos())
        .unwrap_or(u64::MAX)
        .min(LONGEST_NANOS)
}

#[cfg(test)]
mod tests;
