//! The lane of one webhook: a bounded queue, a concurrency cap, a rate limit, a breaker and a gate.
//!
//! Promise 4 in small: what a lane cannot send soon it gives back at once, with a time to come again, so that nothing of a slow
//! endpoint stays in the memory that all share. How much it keeps follows from how fast the endpoint answers: two seconds of
//! work. Pure: `now` is an offset on the shard's clock, requests are made by the shard.

use std::collections::VecDeque;
use std::time::Duration;

use super::breaker::{Breaker, Pass, Patience, State};
use super::limiter::Limiter;
use super::window::Window;
use crate::delivery::Waiting;

/// How much work a lane keeps: what it can send within this.
const HORIZON: Duration = Duration::from_secs(2);
/// What waits longer in a lane is given back, whatever was expected when it came.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause after a 429 that names none.
const GATE_PAUSE: Duration = Duration::from_secs(1);
/// A lane that sends so many a second keeps all that comes: the ladder costs a delivery four more topic writes, and what would be sent
/// within seconds anyway had better wait here, even if reading has to wait for it when the budget is full (which is small for that reason).
const FAST_PER_SECOND: f64 = 500.0;
/// A lane from which nothing comes back for so long is taken for slower than its requests were. Less is a hiccup, of this
/// machine more often than of the endpoint, and giving back a whole queue for it costs more than it can gain.
const SILENCE: Duration = HORIZON;
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

/// How an item comes to its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    Fresh,
    /// At the time that was reserved for it.
    Reserved,
    /// To be the probe of an endpoint that is down.
    Probe,
}

/// What the end of a request tells a lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub took: Duration,
    /// What the breaker learns of the endpoint, if anything.
    pub worked: Option<bool>,
    /// Whether the delivery was taken; `None` where that says nothing of the endpoint.
    pub delivered: Option<bool>,
    /// A sign that it has more than it bears: a timeout, a 429, a 503.
    pub congested: bool,
    /// The receiver asked for a pause; `Some(None)` when it named none.
    pub gate: Option<Option<Duration>>,
    /// It said that it is there no more.
    pub gone: bool,
}

struct Queued<T> {
    item: T,
    since: Duration,
}

/// See the module's text.
pub struct Lane<T> {
    queue: VecDeque<Queued<T>>,
    in_flight: u32,
    /// Requests that may be in flight now, at most the webhook's `max_concurrency`.
    window: Window,
    limiter: Option<Limiter>,
    /// One interval of the limiter: the pace that it allows in the long run.
    limit_interval: Option<Duration>,
    gate_closed_until: Option<Duration>,
    breaker: Breaker,
    /// A moving average of what a request takes.
    latency: Duration,
    /// When the last request ended or, with none since, the first of those in flight began.
    quiet_since: Duration,
    /// The latest slot that was given to an item that did not fit (without a limiter).
    reserved_until: Duration,
    /// Since when items have not fitted without a break.
    behind_since: Duration,
}

impl<T> Lane<T> {
    /// An empty lane.
    pub fn new(max_concurrency: u32, patience: Patience, now: Duration) -> Self {
        Self {
            queue: VecDeque::new(),
            in_flight: 0,
            window: Window::new(max_concurrency),
            limiter: None,
            limit_interval: None,
            gate_closed_until: None,
            breaker: Breaker::new(patience, now),
            latency: FIRST_LATENCY,
            quiet_since: now,
            reserved_until: now,
            behind_since: now,
        }
    }

    /// Takes over changed settings; what waits and what is under way stays. A limiter comes new and therefore empty.
    pub fn configure(&mut self, max_concurrency: u32, limiter: Option<(Limiter, Duration)>) {
        self.window.limit(max_concurrency);
        let (limiter, interval) = limiter.unzip();
        self.limiter = limiter;
        self.limit_interval = interval;
    }

    /// Begins anew with what is remembered of the endpoint: for how long it has been tripped, if it is.
    pub fn recall(&mut self, tripped_for: Option<Duration>, patience: Patience, now: Duration) {
        self.breaker = match tripped_for {
            Some(tripped_for) => Breaker::tripped(patience, tripped_for, now),
            None => Breaker::new(patience, now),
        };
    }

    /// Takes over another patience of the breaker, which goes on as it stands.
    pub fn be_patient(&mut self, patience: Patience) {
        self.breaker.be_patient(patience);
    }

    /// Makes the next probe due, if the endpoint is down.
    pub fn hasten_probe(&mut self, now: Duration) {
        self.breaker.hasten_probe(now);
    }

    /// How many items the lane keeps: all where it is fast, else what can be sent within two seconds, judging by the limit and by how
    /// long the endpoint takes.
    pub fn capacity(&self, now: Duration) -> usize {
        let window = self.window.size();
        let pace = f64::from(window) / self.latency_now(now).as_secs_f64();
        let limit = self
            .limit_interval
            .map_or(f64::INFINITY, |interval| 1.0 / interval.as_secs_f64());
        if pace.min(limit) >= FAST_PER_SECOND {
            return usize::MAX;
        }
        let horizon = HORIZON.as_secs_f64();
        let floor = f64::from(window).min(horizon * limit).max(1.0);
        // Float to integer saturates, which is what is wanted here.
        (horizon * pace.min(limit)).max(floor).ceil() as usize
    }

    /// What a request takes, or how long none has ended.
    fn latency_now(&self, now: Duration) -> Duration {
        self.latency
            .max(self.silence(now))
            .max(Duration::from_micros(1))
    }

    /// How long nothing has come back, once that is longer than any hiccup.
    fn silence(&self, now: Duration) -> Duration {
        let silence = now.saturating_sub(self.quiet_since);
        if self.in_flight > 0 && silence >= SILENCE {
            silence
        } else {
            Duration::ZERO
        }
    }

    /// Offers an item.
    pub fn offer(&mut self, item: T, arrival: Arrival, now: Duration) -> Admission<T> {
        if let Some(until) = self.gate_closed_until
            && until > now + HORIZON
        {
            return Admission::Later(item, until - now, Waiting::Gated);
        }
        let pause = match arrival {
            Arrival::Probe => self.breaker.wait_of_probe(now),
            Arrival::Fresh | Arrival::Reserved => self.breaker.wait(now),
        };
        if let Some(pause) = pause {
            return Admission::Later(item, pause, Waiting::Tripped);
        }
        let fresh = arrival != Arrival::Reserved;
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
    ///
    /// Without a limit the pace is an estimate, and an estimate is trusted for as long as it has held: slots reach twice as far ahead as
    /// the lane has been behind, and then begin anew at the nearest. So a hiccup of seconds puts nothing off for minutes, and what waits
    /// for an endpoint that stays slow comes back ever more rarely (a delivery is put off a logarithmic number of times).
    fn reserve(&mut self, now: Duration) -> Duration {
        let waiting = self.queue.len();
        if let Some(limiter) = &mut self.limiter {
            return limiter.reserve(now, waiting);
        }
        let interval = (self.latency / self.window.size())
            .clamp(Duration::from_micros(10), Duration::from_secs(1));
        // How long a silence lasts says when to try again, not how far apart: spread over it, a stall of a second would cost minutes.
        let nearest = now + HORIZON.max(self.silence(now) * 2);
        if self.reserved_until <= now {
            self.behind_since = now;
        }
        let foresight = HORIZON.max(now.saturating_sub(self.behind_since) * 2);
        let mut slot = self.reserved_until.max(nearest) + interval;
        if slot > nearest + foresight {
            slot = nearest + interval;
        }
        self.reserved_until = slot;
        slot - now
    }

    /// What to do next. Call it again after each [`Turn::Send`].
    pub fn turn(&mut self, now: Duration) -> Turn<T> {
        if self.queue.is_empty() || self.in_flight >= self.window.size() {
            return Turn::Nothing;
        }
        if let Some(until) = self.gate_closed_until {
            if until > now {
                return Turn::NotBefore(until);
            }
            self.gate_closed_until = None;
        }
        match self.breaker.pass(now) {
            Pass::Go => {}
            Pass::Wait => return Turn::Nothing,
            Pass::NotBefore(at) => return Turn::NotBefore(at),
        }
        if let Some(limiter) = &mut self.limiter
            && let Err(wait) = limiter.try_take(now)
        {
            self.breaker.withdrawn();
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

    /// What [`Lane::turn`] gave out is sent now.
    pub fn sent(&mut self, now: Duration) {
        if let Some(limiter) = &mut self.limiter {
            limiter.sent(now);
        }
    }

    /// A request ended.
    pub fn ended(&mut self, answer: Answer, now: Duration) {
        let Answer { took, gate, .. } = answer;
        self.breaker.ended(answer.worked, now);
        if answer.gone {
            self.breaker.trip(now);
        }
        if answer.congested {
            self.window.congested(took, now);
        } else if answer.worked == Some(true) {
            self.window.answered();
        }
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
        self.breaker.withdrawn();
        if let Some(limiter) = &mut self.limiter {
            limiter.withdrawn();
        }
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
        if self.breaker.state() == State::Tripped {
            while let Some(oldest) = self.queue.pop_front() {
                let Some(pause) = self.breaker.wait(now) else {
                    self.queue.push_front(oldest);
                    break;
                };
                back.push((oldest.item, pause, Waiting::Tripped));
            }
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

    /// Takes out what waits and for which `out` is true.
    pub fn take_if(&mut self, mut out: impl FnMut(&T) -> bool) -> Vec<T> {
        let (out, stay): (Vec<_>, Vec<_>) =
            self.queue.drain(..).partition(|queued| out(&queued.item));
        self.queue.extend(stay);
        out.into_iter().map(|queued| queued.item).collect()
    }

    /// Takes out everything that waits.
    pub fn drain(&mut self) -> Vec<T> {
        self.queue.drain(..).map(|queued| queued.item).collect()
    }

    /// What the breaker lets pass.
    pub fn state(&self) -> State {
        self.breaker.state()
    }

    /// The item that has waited longest.
    pub fn oldest(&self) -> Option<&T> {
        self.queue.front().map(|queued| &queued.item)
    }

    /// Waiting items and requests in flight.
    pub fn pending(&self) -> usize {
        self.queue.len() + self.in_flight as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subscription::RateLimit;

    const S: Duration = Duration::from_secs(1);

    fn limited(requests: u32, now: Duration) -> Lane<u32> {
        let limit = RateLimit {
            requests,
            per_seconds: 1,
            burst: 1,
        };
        let mut lane = Lane::new(16, Patience::default(), now);
        lane.configure(16, Some((Limiter::new(&limit, now), limit.interval())));
        lane
    }

    #[test]
    fn a_fast_endpoint_keeps_much_and_a_silent_one_little() {
        let mut lane: Lane<u32> = Lane::new(16, Patience::default(), Duration::ZERO);
        assert!(lane.capacity(Duration::ZERO) > 10_000);
        lane.offer(1, Arrival::Fresh, Duration::ZERO);
        assert_eq!(lane.turn(Duration::ZERO), Turn::Send(1));
        assert!(lane.capacity(5 * S) <= 16, "{}", lane.capacity(5 * S));
    }

    #[test]
    fn what_a_hanging_endpoint_cannot_take_is_given_back() {
        let mut lane: Lane<u32> = Lane::new(2, Patience::default(), Duration::ZERO);
        for item in 0..100 {
            assert_eq!(
                lane.offer(item, Arrival::Fresh, Duration::ZERO),
                Admission::Queued
            );
        }
        lane.turn(Duration::ZERO);
        lane.turn(Duration::ZERO);
        assert_eq!(lane.turn(Duration::ZERO), Turn::Nothing);
        let back = lane.sweep(3 * S);
        assert_eq!(back.len(), 96);
        assert!(back.iter().all(|(_, pause, _)| *pause >= HORIZON));
        assert_eq!(lane.sweep(20 * S).len(), 2, "patience is over for the rest");
    }

    fn answer(worked: Option<bool>, gate: Option<Option<Duration>>) -> Answer {
        Answer {
            took: S / 100,
            worked,
            gate,
            ..Answer::default()
        }
    }

    fn send_all(lane: &mut Lane<u32>) -> usize {
        std::iter::from_fn(|| matches!(lane.turn(Duration::ZERO), Turn::Send(_)).then_some(()))
            .count()
    }

    #[test]
    fn the_window_grows_with_answers_to_the_cap_and_halves_with_congestion_only() {
        let mut lane: Lane<u32> = Lane::new(10, Patience::default(), Duration::ZERO);
        for item in 0..100 {
            lane.offer(item, Arrival::Fresh, Duration::ZERO);
        }
        let mut open = send_all(&mut lane);
        assert_eq!(open, 4);
        for _ in 0..20 {
            lane.ended(answer(Some(true), None), Duration::ZERO);
            open = open - 1 + send_all(&mut lane);
        }
        assert_eq!(open, 10);
        lane.ended(answer(Some(false), None), Duration::ZERO);
        assert_eq!(send_all(&mut lane), 1, "a 500 is no sign of congestion");
        let timeout = Answer {
            congested: true,
            ..answer(Some(false), None)
        };
        lane.ended(timeout, Duration::ZERO);
        assert_eq!(send_all(&mut lane), 0, "nine are under way, five may be");
    }

    #[test]
    fn a_silence_postpones_what_waits_and_does_not_spread_it() {
        let mut lane: Lane<u32> = Lane::new(64, Patience::default(), Duration::ZERO);
        for item in 0..10_000 {
            lane.offer(item, Arrival::Fresh, Duration::ZERO);
        }
        send_all(&mut lane);
        assert!(lane.sweep(S).is_empty(), "a second may be ours");
        let back = lane.sweep(3 * S);
        assert!(back.len() > 9_000);
        let soon = |pause: &Duration| (6 * S..8 * S).contains(pause);
        assert!(back.iter().all(|(_, pause, _)| soon(pause)));
    }

    #[test]
    fn a_slowness_is_planned_for_as_long_as_it_has_lasted() {
        let mut lane: Lane<u32> = Lane::new(4, Patience::default(), Duration::ZERO);
        let took = Duration::from_secs(9);
        let mut now = took;
        lane.ended(
            Answer {
                took,
                ..Answer::default()
            },
            now,
        );
        let mut farthest = |now| {
            (0..2000)
                .filter_map(|item| match lane.offer(item, Arrival::Fresh, now) {
                    Admission::Later(_, pause, _) => Some(pause),
                    Admission::Queued => None,
                })
                .max()
                .unwrap()
        };
        assert!(farthest(now) <= 2 * HORIZON, "one slow answer");
        for _ in 0..100 {
            now += Duration::from_secs(1);
            let pause = farthest(now);
            assert!(pause <= 2 * HORIZON + 2 * (now - took), "{pause:?}");
        }
        assert!(farthest(now) >= Duration::from_secs(150), "slow for long");
        now += Duration::from_secs(300);
        assert!(farthest(now) <= 2 * HORIZON, "another slowness");
    }

    #[test]
    fn a_rate_limit_reserves_the_next_slots_in_turn() {
        let mut lane = limited(10, Duration::ZERO);
        let mut pauses = Vec::new();
        for item in 0..100 {
            if let Admission::Later(_, pause, Waiting::Paced) =
                lane.offer(item, Arrival::Fresh, Duration::ZERO)
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
    fn a_dead_endpoint_gives_everything_back_and_takes_one_probe() {
        let mut lane: Lane<u32> = Lane::new(10, Patience::default(), Duration::ZERO);
        for item in 0..20 {
            lane.offer(item, Arrival::Fresh, Duration::ZERO);
        }
        for _ in 0..10 {
            assert!(matches!(lane.turn(Duration::ZERO), Turn::Send(_)));
            lane.ended(answer(Some(false), None), Duration::ZERO);
        }
        assert_eq!(lane.state(), State::Tripped);
        assert_eq!(lane.turn(S), Turn::NotBefore(30 * S));
        let back = lane.sweep(S);
        assert_eq!(back.len(), 10);
        assert!(
            back.iter()
                .all(|(_, pause, waiting)| *pause >= 29 * S && *waiting == Waiting::Tripped)
        );
        assert!(matches!(
            lane.offer(99, Arrival::Fresh, 2 * S),
            Admission::Later(99, _, Waiting::Tripped)
        ));
        assert_eq!(lane.offer(0, Arrival::Fresh, 30 * S), Admission::Queued);
        assert_eq!(lane.turn(30 * S), Turn::Send(0));
        assert!(matches!(
            lane.offer(1, Arrival::Fresh, 30 * S),
            Admission::Later(1, _, Waiting::Tripped)
        ));
        lane.ended(answer(Some(true), None), 31 * S);
        assert_eq!(lane.state(), State::Passing);
    }

    #[test]
    fn a_lane_that_is_taken_over_tripped_sends_one_probe_first() {
        let mut lane: Lane<u32> = Lane::new(10, Patience::default(), Duration::ZERO);
        lane.recall(Some(600 * S), Patience::default(), Duration::ZERO);
        for item in 0..10 {
            lane.offer(item, Arrival::Fresh, Duration::ZERO);
        }
        assert_eq!(send_all(&mut lane), 1);
        assert_eq!(lane.state(), State::Probing);
    }

    #[test]
    fn an_endpoint_that_is_gone_gets_nothing_more() {
        let mut lane: Lane<u32> = Lane::new(1, Patience::default(), Duration::ZERO);
        for item in 0..3 {
            lane.offer(item, Arrival::Fresh, Duration::ZERO);
        }
        assert_eq!(send_all(&mut lane), 1);
        let gone = Answer {
            gone: true,
            ..answer(Some(true), None)
        };
        lane.ended(gone, Duration::ZERO);
        assert_eq!(send_all(&mut lane), 0);
        assert_eq!(lane.sweep(Duration::ZERO).len(), 2);
    }

    #[test]
    fn a_429_closes_the_gate_until_the_time_that_it_names() {
        let mut lane: Lane<u32> = Lane::new(1, Patience::default(), Duration::ZERO);
        lane.offer(1, Arrival::Fresh, Duration::ZERO);
        assert_eq!(lane.turn(Duration::ZERO), Turn::Send(1));
        lane.offer(2, Arrival::Fresh, Duration::ZERO);
        lane.ended(answer(None, Some(Some(S))), Duration::ZERO);
        assert_eq!(lane.turn(Duration::ZERO), Turn::NotBefore(S));
        assert_eq!(lane.turn(S), Turn::Send(2));
        lane.ended(answer(None, Some(Some(60 * S))), S);
        assert_eq!(
            lane.offer(3, Arrival::Fresh, S),
            Admission::Later(3, 60 * S, Waiting::Gated)
        );
    }
}
