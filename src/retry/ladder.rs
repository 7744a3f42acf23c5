//! The delay ladder: which topic a waiting delivery is put on, and when the next attempt is due.
//!
//! Kafka has no timers. In a topic where every record stays equally long, log order is release order, so no record blocks
//! another whatever endpoint or backoff it belongs to (design.md, "The delay ladder"). With rungs of 60·2^k seconds the default backoff
//! costs one hop a retry. Pure: time and chance are parameters.

use std::time::Duration;

use crate::attempt::{Attempt, Next, Outcome};
use crate::delivery::{DeadReason, Delivery, Waiting};
use crate::subscription::Subscription;

/// The longest that a backoff grows to: the top rung.
pub const LONGEST_BACKOFF: Duration = Duration::from_secs(256 * 60);
const JITTER_LIMIT: Duration = Duration::from_secs(15);

/// One delay topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rung {
    /// The last part of the topic's name, and the metric's label.
    pub name: &'static str,
    /// How long every record stays in the topic. The shortest rung is read at once and waits in memory: it is the last mile.
    pub residency: Duration,
}

const fn rung(name: &'static str, seconds: u64) -> Rung {
    Rung {
        name,
        residency: Duration::from_secs(seconds),
    }
}

/// All rungs, shortest first.
pub const RUNGS: [Rung; 11] = [
    rung("15s", 15),
    rung("30s", 30),
    rung("1m", 60),
    rung("2m", 2 * 60),
    rung("4m", 4 * 60),
    rung("8m", 8 * 60),
    rung("16m", 16 * 60),
    rung("32m", 32 * 60),
    rung("64m", 64 * 60),
    rung("128m", 128 * 60),
    rung("256m", 256 * 60),
];

/// The largest rung that is not longer than what remains; the shortest when less than that remains.
pub fn rung_for(remaining: Duration) -> &'static Rung {
    RUNGS
        .iter()
        .rev()
        .find(|rung| rung.residency <= remaining)
        .unwrap_or(&RUNGS[0])
}

/// The rung whose topic has this name, given the part of the name before the rung's (`postrider.delay.`).
pub fn rung_of_topic(topic: &str, prefix: &str) -> Option<&'static Rung> {
    let name = topic.strip_prefix(prefix)?;
    RUNGS.iter().find(|rung| rung.name == name)
}

/// The pause after attempt number `attempts` (1 for the first): `base`·2^(attempts−1), at most [`LONGEST_BACKOFF`], and a jitter that only adds: at
/// most 10 % and at most 15 s. `chance` is in 0..1.
pub fn backoff(base: Duration, attempts: u32, chance: f64) -> Duration {
    let doublings = attempts.saturating_sub(1).min(20);
    let pause = base.saturating_mul(1 << doublings).min(LONGEST_BACKOFF);
    let jitter = pause
        .mul_f64(0.1)
        .min(JITTER_LIMIT)
        .mul_f64(chance.clamp(0.0, 1.0));
    pause + jitter
}

/// What follows from an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Delivered,
    /// Again, not before this time (Unix milliseconds).
    Again {
        due_ms: i64,
        waiting: Waiting,
    },
    Dead(DeadReason),
}

/// Decides what follows from an attempt, which the delivery has already counted.
pub fn decide(
    delivery: &Delivery,
    webhook: &Subscription,
    attempt: &Attempt,
    now_ms: i64,
    chance: f64,
) -> Decision {
    let not_before = match attempt.next {
        Next::Delivered => return Decision::Delivered,
        Next::Reject(reason) => return Decision::Dead(reason),
        Next::Retry { not_before } => not_before,
    };
    if delivery.attempts > webhook.max_retries {
        return Decision::Dead(DeadReason::Exhausted);
    }
    let base = Duration::from_secs(webhook.retry_backoff_seconds);
    let pause = backoff(base, delivery.attempts, chance).max(not_before.unwrap_or_default());
    let waiting = if attempt.outcome == Outcome::RateLimited {
        Waiting::Gated
    } else {
        Waiting::Retry
    };
    Decision::Again {
        due_ms: after(now_ms, pause),
        waiting,
    }
}

/// A time that lies a pause after another, in Unix milliseconds, rounded up so that nothing is early.
pub fn after(now_ms: i64, pause: Duration) -> i64 {
    let pause_ms = i64::try_from(pause.as_nanos().div_ceil(1_000_000)).unwrap_or(i64::MAX);
    now_ms.saturating_add(pause_ms)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_default_backoff_is_sixty_seconds_doubled_and_capped() {
        let base = Duration::from_secs(60);
        let seconds: Vec<u64> = (1..=4).map(|n| backoff(base, n, 0.0).as_secs()).collect();
        assert_eq!(seconds, [60, 120, 240, 480]);
        assert_eq!(backoff(base, 20, 0.0), LONGEST_BACKOFF);
        assert_eq!(backoff(base, u32::MAX, 0.0), LONGEST_BACKOFF);
    }

    #[test]
    fn the_default_backoff_costs_one_hop() {
        for (attempts, name) in [(1, "1m"), (2, "2m"), (3, "4m"), (4, "8m")] {
            let pause = backoff(Duration::from_secs(60), attempts, 0.999);
            let rung = rung_for(pause);
            assert_eq!(rung.name, name);
            assert!(
                pause - rung.residency <= JITTER_LIMIT,
                "the rest is the last mile"
            );
        }
    }

    proptest! {
        #[test]
        fn jitter_only_adds_and_stays_small(base in 1u64..3600, attempts in 1u32..21, chance in 0.0f64..1.0) {
            let plain = backoff(Duration::from_secs(base), attempts, 0.0);
            let jittered = backoff(Duration::from_secs(base), attempts, chance);
            prop_assert!(jittered >= plain);
            prop_assert!(jittered - plain <= JITTER_LIMIT.min(plain.mul_f64(0.1) + Duration::from_nanos(1)));
        }

        #[test]
        fn a_rung_is_never_longer_than_what_remains(remaining in 15u64..200_000) {
            let rung = rung_for(Duration::from_secs(remaining));
            prop_assert!(rung.residency.as_secs() <= remaining);
        }

        #[test]
        fn every_wait_ends_in_few_hops(remaining in 0u64..86_400) {
            let mut left = Duration::from_secs(remaining);
            let mut hops = 0;
            while left > RUNGS[0].residency {
                left -= rung_for(left).residency;
                hops += 1;
            }
            prop_assert!(hops <= 5 + 10, "{hops}");
        }
    }
}
