//! The limiter against a bucket written the naive way.

use super::*;
use proptest::prelude::*;

/// A bucket that fills by the nanosecond and starts empty.
struct Bucket {
    level: u128,
    size: u128,
    interval: u128,
    last: u128,
}

impl Bucket {
    fn new(limit: &RateLimit) -> Self {
        let interval = limit.interval().as_nanos();
        Self {
            level: 0,
            size: interval * u128::from(limit.burst),
            interval,
            last: 0,
        }
    }

    fn try_take(&mut self, now: Duration) -> bool {
        let now = now.as_nanos();
        self.level = (self.level + now - self.last).min(self.size);
        self.last = now;
        let enough = self.level >= self.interval;
        if enough {
            self.level -= self.interval;
        }
        enough
    }
}

fn limits() -> impl Strategy<Value = RateLimit> {
    (1..2000_u32, prop::sample::select(vec![1, 7, 60]), 1..50_u32).prop_map(
        |(requests, per_seconds, burst)| RateLimit {
            requests,
            per_seconds,
            burst,
        },
    )
}

/// Takes a slot and sends at once.
fn take(limiter: &mut Limiter, now: Duration) -> bool {
    let is_taken = limiter.try_take(now).is_ok();
    if is_taken {
        limiter.sent(now);
    }
    is_taken
}

proptest! {
    #[test]
    fn however_late_requests_are_sent_no_window_holds_more_than_rate_and_burst(
        limit in limits(), steps in prop::collection::vec((0..300_u64, 0..4_u8), 1..300)
    ) {
        let interval = limit.interval();
        let mut limiter = Limiter::new(&limit, Duration::ZERO);
        let mut now = Duration::ZERO;
        let mut waiting = 0;
        let mut sent: Vec<Duration> = Vec::new();
        for (percents, what) in steps {
            now += interval.mul_f64(percents as f64 / 100.0);
            match what {
                // As a busy machine lets them go: all at once.
                0 => while waiting > 0 {
                    waiting -= 1;
                    limiter.sent(now);
                    sent.push(now);
                },
                1 if waiting > 0 => {
                    waiting -= 1;
                    limiter.withdrawn();
                }
                _ => while limiter.try_take(now).is_ok() {
                    waiting += 1;
                },
            }
        }
        for (first, start) in sent.iter().enumerate() {
            for (last, end) in sent.iter().enumerate().skip(first) {
                let allowed = (*end - *start).as_nanos() / interval.as_nanos() + u128::from(limit.burst);
                prop_assert!((last - first + 1) as u128 <= allowed, "{} in {:?}", last - first + 1, *end - *start);
            }
        }
    }

    #[test]
    fn the_limiter_agrees_with_a_naive_bucket_and_no_window_holds_more_than_rate_and_burst(
        limit in limits(), steps in prop::collection::vec(0..400_u64, 1..300)
    ) {
        let interval = limit.interval();
        let mut limiter = Limiter::new(&limit, Duration::ZERO);
        let mut bucket = Bucket::new(&limit);
        let mut now = Duration::ZERO;
        let mut taken: Vec<Duration> = Vec::new();
        for step in steps {
            // Steps in percents of the interval, with a long rest now and then.
            let percents = if step > 390 { step * 20 } else { step % 100 };
            now += interval.mul_f64(percents as f64 / 100.0);
            let answer = limiter.try_take(now);
            prop_assert_eq!(answer.is_ok(), bucket.try_take(now), "at {:?}", now);
            match answer {
                Ok(()) => {
                    limiter.sent(now);
                    taken.push(now);
                }
                Err(wait) => prop_assert!(wait > Duration::ZERO && wait <= interval),
            }
        }
        for (first, start) in taken.iter().enumerate() {
            for (last, end) in taken.iter().enumerate().skip(first) {
                let allowed = (*end - *start).as_nanos() / interval.as_nanos() + u128::from(limit.burst);
                prop_assert!((last - first + 1) as u128 <= allowed);
            }
        }
    }

    #[test]
    fn the_wait_is_exact(limit in limits(), takes in 0..60_usize, later in 0..3_000_000_000_u64) {
        let mut limiter = Limiter::new(&limit, Duration::ZERO);
        let now = Duration::from_nanos(later);
        for _ in 0..takes {
            take(&mut limiter, now);
        }
        if let Err(wait) = limiter.try_take(now) {
            prop_assert!(limiter.try_take(now + wait - Duration::from_nanos(1)).is_err());
            prop_assert!(limiter.try_take(now + wait).is_ok());
        }
    }

    #[test]
    fn reserved_slots_are_an_interval_apart_and_free_when_the_lane_before_them_is_served(
        limit in limits(), waiting in 0..40_usize, reservations in 1..40_usize, rested in 0..5_000_000_000_u64
    ) {
        let mut limiter = Limiter::new(&limit, Duration::ZERO);
        let mut now = Duration::from_nanos(rested);
        let slots: Vec<_> = (0..reservations).map(|_| now + limiter.reserve(now, waiting)).collect();
        prop_assert!(limiter.has_reservations(now));
        for pair in slots.windows(2) {
            prop_assert_eq!(pair[1] - pair[0], limit.interval());
        }
        for _ in 0..waiting {
            if let Err(wait) = limiter.try_take(now) {
                now += wait;
                prop_assert_eq!(limiter.try_take(now), Ok(()));
            }
            limiter.sent(now);
        }
        if slots[0] > now {
            prop_assert!(limiter.try_take(slots[0] - Duration::from_nanos(1)).is_err(), "an earlier slot was free");
        }
        for slot in slots {
            prop_assert!(slot >= now);
            prop_assert!(take(&mut limiter, slot));
        }
    }

    #[test]
    fn no_numbers_make_it_panic(requests in any::<u32>(), per_seconds in any::<u32>(), burst in any::<u32>(), now in any::<u64>(), waiting in any::<usize>()) {
        let limit = RateLimit { requests, per_seconds, burst };
        let now = Duration::from_secs(now);
        let mut limiter = Limiter::new(&limit, now);
        let _ = limiter.try_take(now);
        let _ = limiter.try_take(Duration::ZERO);
        limiter.sent(now);
        limiter.withdrawn();
        limiter.withdrawn();
        let _ = limiter.reserve(now, waiting);
        let _ = limiter.reserve(Duration::ZERO, 0);
        let _ = limiter.has_reservations(now);
    }
}

#[test]
fn a_new_limiter_has_no_burst_to_give() {
    let limit = RateLimit {
        requests: 10,
        per_seconds: 1,
        burst: 10,
    };
    let start = Duration::from_secs(1000);
    let mut limiter = Limiter::new(&limit, start);
    assert_eq!(limiter.try_take(start), Err(Duration::from_millis(100)));
    assert!(take(&mut limiter, start + Duration::from_millis(100)));
    assert!(!take(&mut limiter, start + Duration::from_millis(100)));
}

#[test]
fn a_backlog_gets_the_whole_rate() {
    let limit = RateLimit {
        requests: 50,
        per_seconds: 1,
        burst: 1,
    };
    let mut limiter = Limiter::new(&limit, Duration::ZERO);
    let taken = (0..10_000)
        .filter(|millis| take(&mut limiter, Duration::from_millis(*millis)))
        .count();
    assert!((498..=500).contains(&taken), "{taken} in 10 s at 50/s");
}

#[test]
fn reservations_end_when_their_time_has_passed() {
    let limit = RateLimit {
        requests: 1,
        per_seconds: 1,
        burst: 1,
    };
    let mut limiter = Limiter::new(&limit, Duration::ZERO);
    assert!(!limiter.has_reservations(Duration::ZERO));
    assert_eq!(limiter.reserve(Duration::ZERO, 2), Duration::from_secs(3));
    assert!(limiter.has_reservations(Duration::from_millis(3999)));
    assert!(!limiter.has_reservations(Duration::from_secs(4)));
}
