//! The lane of one webhook: a bounded queue, a concurrency cap, a rate limit and a gate.
//!
//! Promise 4 in small: what a lane cannot send soon it gives back at once, with a time to come again, so that nothing of a slow
//! endpoint stays in the memory that all share. How much it keeps follows from how fast the endpoint answers: two seconds of
//! work. Pure: `now` is an offset on the shard's clock, requests are made by the shard.

use std::collections::VecDeque;
use std::time::Duration;

use super::limiter::Limiter;
use crate::delivery::Waiting;

/// How much work a lane keeps: what it can send within this.
const HORIZON: Duration = Duration::from_secs(2);
/// What waits longer in a lane is given back, whatever was expected when it came.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause after a 429 that names none.
const GATE_PAUSE: Duration = Duration::from_secs(1);
/// A lane that sends so many a second keeps all that comes. The ladder costs each delivery four more topic writes, so that giving
/// back to it what would be sent within seconds makes a busy machine busier and everybody later; that reading waits for such
/// a lane when the budget is full is the lesser delay. Slower lanes, and all that have a limit, give back.
const FAST_PER_SECOND: f64 = 500.0;
/// What is assumed of an endpoint before it has answered once. It is optimistic, because a lane that gives back too much
/// costs topic writes, while one that keeps too much is corrected within [`HORIZON`].
const FIRST_LATENCY: Duration = Duration::from_micros(100);

/// What became of an item that was offered.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission<T> {
    /// It waits in the lane or is next.
    Queued,
    /// Not now: come again after this pause.
    Later(T, Duration, Waiting),
}

/// What the shard may do next for this lane.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn<T> {
    Send(T),
    /// Ask again at this time.
    NotBefore(Duration),
    /// Nothing until something arrives or ends.
    Nothing,
}

struct Queued<T> {
    item: T,
    since: Duration,
}

/// See the module's text.
pub struct Lane<T> {
    queue: VecDeque<Queued<T>>,
    in_flight: u32,
    max_concurrency: u32,
    limiter: Option<Limiter>,
    /// One interval of the limiter: the pace that it allows in the long run.
    limit_interval: Option<Duration>,
    gate_closed_until: Option<Duration>,
    /// A moving average of what a request takes.
    latency: Duration,
    /// When the last request ended or, with none since, the first of those in flight began.
    quiet_since: Duration,
    /// The end of the slots that were given to items that did not fit (without a limiter).
    reserved_until: Duration,
}

impl<T> Lane<T> {
    /// An empty lane.
    pub fn new(max_concurrency: u32, now: Duration) -> Self {
        Self {
            queue: VecDeque::new(),
            in_flight: 0,
            max_concurrency: max_concurrency.max(1),
            limiter: None,
            limit_interval: None,
            gate_closed_until: None,
            latency: FIRST_LATENCY,
            quiet_since: now,
            reserved_until: now,
        }
    }

    /// Takes over changed settings; what waits and what is under way stays. A limiter comes new and therefore empty.
    pub fn configure(&mut self, max_concurrency: u32, limiter: Option<(Limiter, Duration)>) {
        self.max_concurrency = max_concurrency.max(1);
        let (limiter, interval) = limiter.unzip();
        self.limiter = limiter;
        self.limit_interval = interval;
    }

    /// How many items the lane keeps. All, where it is fast; else what can be sent within [`HORIZON`], judging by the limit and by how long the endpoint takes.
    pub fn capacity(&self, now: Duration) -> usize {
        if self.is_fast(now) {
            return usize::MAX;
        }
        let by_latency = HORIZON.as_secs_f64() * self.pace(now);
        let by_limit = self.limit_interval.map_or(f64::INFINITY, |interval| {
            HORIZON.as_secs_f64() / interval.as_secs_f64()
        });
        let floor = f64::from(self.max_concurrency).min(by_limit).max(1.0);
        // Float to integer saturates, which is what is wanted here.
        by_latency.min(by_limit).max(floor).ceil() as usize
    }

    /// Whether waiting in the lane is cheaper than the ladder.
    fn is_fast(&self, now: Duration) -> bool {
        self.limiter.is_none() && self.pace(now) >= FAST_PER_SECOND
    }

    /// What the endpoint takes in a second, without a limit.
    fn pace(&self, now: Duration) -> f64 {
        let latency = self.latency.max(self.silence(now));
        let latency = latency.max(Duration::from_micros(1));
        f64::from(self.max_concurrency) / latency.as_secs_f64()
    }

    /// How long nothing has come back, once that is longer than any hiccup; those of this machine are more frequent than
    /// the endpoint's, and to give back a whole queue for one costs more than it can gain.
    fn silence(&self, now: Duration) -> Duration {
        let silence = now.saturating_sub(self.quiet_since);
        if self.in_flight > 0 && silence >= HORIZON {
            silence
        } else {
            Duration::ZERO
        }
    }

    /// Offers an item. `fresh` is false for one that comes back at the time that was reserved for it.
    pub fn offer(&mut self, item: T, fresh: bool, now: Duration) -> Admission<T> {
        if let Some(until) = self.gate_closed_until
            && until > now + HORIZON
        {
            return Admission::Later(item, until - now, Waiting::Gated);
        }
        let reserved = self
            .limiter
            .as_ref()
            .is_some_and(|limiter| limiter.has_reservations(now));
        if self.queue.len() >= self.capacity(now) || (fresh && reserved) {
            let pause = self.reserve(now);
            return Admission::Later(item, pause, Waiting::Paced);
        }
        self.queue.push_back(Queued { item, since: now });
        Admission::Queued
    }

    /// The next free slot, as a pause from now.
    fn reserve(&mut self, now: Duration) -> Duration {
        let waiting = self.queue.len();
        if let Some(limiter) = &mut self.limiter {
            return limiter.reserve(now, waiting);
        }
        let interval = self.latency / self.max_concurrency;
        let interval = interval.clamp(Duration::from_micros(10), Duration::from_secs(1));
        // How long a silence lasts says when to try again, not how far apart: that is as it was before.
        let pause = HORIZON.max(self.silence(now) * 2);
        let slot = self.reserved_until.max(now + pause) + interval;
        self.reserved_until = slot;
        slot - now
    }

    /// What to do next. Call it again after each [`Turn::Send`].
    pub fn turn(&mut self, now: Duration) -> Turn<T> {
        if self.queue.is_empty() || self.in_flight >= self.max_concurrency {
            return Turn::Nothing;
        }
        if let Some(until) = self.gate_closed_until {
            if until > now {
                return Turn::NotBefore(until);
            }
            self.gate_closed_until = None;
        }
        if let Some(limiter) = &mut self.limiter
            && let Err(wait) = limiter.try_take(now)
        {
            return Turn::NotBefore(now + wait);
        }
        match self.queue.pop_front() {
            None => Turn::Nothing,
            Some(next) => {
                if self.in_flight == 0 {
                    self.quiet_since = now;
                }
                self.in_flight += 1;
                Turn::Send(next.item)
            }
        }
    }

    /// A request ended. `took` is the endpoint's share of its time: a lane that held our own slowness against its endpoint
    /// would give back more the busier this machine is, and make it busier still. `gate` is set when the receiver asked for a pause; `Some(None)` when it named none.
    pub fn ended(&mut self, took: Duration, gate: Option<Option<Duration>>, now: Duration) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.quiet_since = now;
        self.latency = (self.latency * 7 + took) / 8;
        if let Some(pause) = gate {
            let until = now + pause.unwrap_or(GATE_PAUSE);
            self.gate_closed_until =
                Some(self.gate_closed_until.map_or(until, |old| old.max(until)));
        }
    }

    /// What [`Lane::turn`] gave out was not sent after all.
    pub fn withdrawn(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Gives back what has waited too long or does not fit any more, with the time to come again.
    pub fn sweep(&mut self, now: Duration) -> Vec<(T, Duration, Waiting)> {
        let mut back = Vec::new();
        let gated = self
            .gate_closed_until
            .filter(|until| *until > now + HORIZON);
        if let Some(until) = gated {
            back.extend(
                self.queue
                    .drain(..)
                    .map(|queued| (queued.item, until - now, Waiting::Gated)),
            );
            return back;
        }
        if self.is_fast(now) {
            return back;
        }
        let capacity = self.capacity(now);
        while let Some(newest) = self.queue.pop_back() {
            if self.queue.len() < capacity {
                self.queue.push_back(newest);
                break;
            }
            let pause = self.reserve(now);
            back.push((newest.item, pause, Waiting::Paced));
        }
        while self
            .queue
            .front()
            .is_some_and(|oldest| now.saturating_sub(oldest.since) > PATIENCE)
        {
            if let Some(oldest) = self.queue.pop_front() {
                let pause = self.reserve(now);
                back.push((oldest.item, pause, Waiting::Paced));
            }
        }
        back
    }

    /// Forgets what waits and for which `keep` is false.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.queue.retain(|queued| keep(&queued.item));
    }

    /// Takes out everything that waits.
    pub fn drain(&mut self) -> Vec<T> {
        self.queue.drain(..).map(|queued| queued.item).collect()
    }

    /// Waiting items and requests in flight.
    pub fn pending(&self) -> usize {
        self.queue.len() + self.in_flight as usize
    }
}

#[cfg(test)]
mod tests {
    use super::super::limiter::RateLimit;
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn limited(requests: u32, now: Duration) -> Lane<u32> {
        let limit = RateLimit {
            requests,
            per_seconds: 1.0,
            burst: 1,
        };
        let mut lane = Lane::new(16, now);
        lane.configure(16, Some((Limiter::new(&limit, now), limit.interval())));
        lane
    }

    #[test]
    fn a_fast_endpoint_keeps_much_and_a_silent_one_little() {
        let mut lane: Lane<u32> = Lane::new(16, Duration::ZERO);
        assert!(lane.capacity(Duration::ZERO) > 10_000);
        lane.offer(1, true, Duration::ZERO);
        assert_eq!(lane.turn(Duration::ZERO), Turn::Send(1));
        assert!(lane.capacity(5 * S) <= 16, "{}", lane.capacity(5 * S));
    }

    #[test]
    fn what_a_hanging_endpoint_cannot_take_is_given_back() {
        let mut lane: Lane<u32> = Lane::new(2, Duration::ZERO);
        for item in 0..100 {
            assert_eq!(lane.offer(item, true, Duration::ZERO), Admission::Queued);
        }
        lane.turn(Duration::ZERO);
        lane.turn(Duration::ZERO);
        assert_eq!(lane.turn(Duration::ZERO), Turn::Nothing);
        let back = lane.sweep(3 * S);
        assert_eq!(back.len(), 96);
        assert!(back.iter().all(|(_, pause, _)| *pause >= HORIZON));
        assert_eq!(lane.sweep(20 * S).len(), 2, "patience is over for the rest");
    }

    #[test]
    fn a_silence_postpones_what_waits_and_does_not_spread_it() {
        let mut lane: Lane<u32> = Lane::new(64, Duration::ZERO);
        for item in 0..10_000 {
            lane.offer(item, true, Duration::ZERO);
        }
        for _ in 0..64 {
            lane.turn(Duration::ZERO);
        }
        assert!(lane.sweep(S).is_empty(), "a second may be ours");
        let back = lane.sweep(3 * S);
        assert!(back.len() > 9_000);
        assert!(
            back.iter()
                .all(|(_, pause, _)| (6 * S..8 * S).contains(pause))
        );
    }

    #[test]
    fn a_fast_lane_keeps_all_and_a_slow_one_what_it_sends_soon() {
        let now = 100 * S;
        let mut lane: Lane<u32> = Lane::new(64, now);
        for latency_ms in [10, 1_000] {
            for _ in 0..100 {
                lane.ended(Duration::from_millis(latency_ms), None, now);
            }
            match latency_ms {
                10 => assert_eq!(lane.capacity(now), usize::MAX),
                _ => assert!((120..140).contains(&lane.capacity(now))),
            }
        }
    }

    #[test]
    fn a_rate_limit_reserves_the_next_slots_in_turn() {
        let mut lane = limited(10, Duration::ZERO);
        let mut pauses = Vec::new();
        for item in 0..100 {
            if let Admission::Later(_, pause, Waiting::Paced) =
                lane.offer(item, true, Duration::ZERO)
            {
                pauses.push(pause);
            }
        }
        assert!(pauses.len() >= 80, "{}", pauses.len());
        for pair in pauses.windows(2) {
            assert_eq!(pair[1] - pair[0], S / 10);
        }
    }

    #[test]
    fn a_429_closes_the_gate_until_the_time_that_it_names() {
        let mut lane: Lane<u32> = Lane::new(1, Duration::ZERO);
        lane.offer(1, true, Duration::ZERO);
        assert_eq!(lane.turn(Duration::ZERO), Turn::Send(1));
        lane.offer(2, true, Duration::ZERO);
        lane.ended(S / 100, Some(Some(S)), Duration::ZERO);
        assert_eq!(lane.turn(Duration::ZERO), Turn::NotBefore(S));
        assert_eq!(lane.turn(S), Turn::Send(2));
        lane.ended(S / 100, Some(Some(60 * S)), S);
        assert_eq!(
            lane.offer(3, true, S),
            Admission::Later(3, 60 * S, Waiting::Gated)
        );
    }
}
