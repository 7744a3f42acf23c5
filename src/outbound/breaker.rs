//! The breaker of one webhook: it learns from outcomes whether the endpoint works, and lets only a probe through when it
//! does not.
//!
//! Promise 4: a dead endpoint is not attempted for every delivery that waits for it, and an outage burns no retries (what is
//! not sent consumes no attempt). Three states, named by what they let pass: [`State::Passing`], [`State::Tripped`], [`State::Probing`].
//! Pure: `now` is an offset on the shard's clock.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::subscription::WebhookId;

const FAILURE_SHARE: f64 = 0.7;
const WINDOW: Duration = Duration::from_secs(60);
/// The pause between probes doubles up to so many times the first.
pub const LAST_PROBE: u32 = 10;
/// The longest that a delivery waits at a time for an endpoint that is down.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// When it trips and how soon it looks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// So many failures in a row trip it; or 70 % of the outcomes of a minute when there are at least so many.
    pub failures: u32,
    /// From tripping to the first probe.
    pub first_probe: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            failures: 10,
            first_probe: Duration::from_secs(30),
        }
    }
}

/// What the breaker lets pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Everything.
    Passing,
    /// Nothing until the next probe.
    Tripped,
    /// One request is under way, and its outcome decides.
    Probing,
}

impl State {
    /// The word that users see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Tripped => "tripped",
            Self::Probing => "probing",
        }
    }
}

/// The webhooks of this process whose breakers do not pass everything, for whoever shows states. Shards write it when a state changes.
#[derive(Debug, Default)]
pub struct Standings(Mutex<HashMap<WebhookId, State>>);

impl Standings {
    /// Enters the state of a webhook.
    pub fn set(&self, webhook: &WebhookId, state: State) {
        let mut standings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state == State::Passing {
            standings.remove(webhook);
        } else {
            standings.insert(webhook.clone(), state);
        }
    }

    /// The state of a webhook.
    pub fn get(&self, webhook: &WebhookId) -> State {
        let standings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        standings.get(webhook).copied().unwrap_or(State::Passing)
    }
}

/// Whether a request may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    Go,
    /// Wait for what is under way.
    Wait,
    NotBefore(Duration),
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    all: u32,
    failed: u32,
}

/// See the module's text.
#[derive(Debug)]
pub struct Breaker {
    patience: Patience,
    state: State,
    failures_in_a_row: u32,
    /// The window that runs and the one before it: together they always cover at least one window's length.
    counts: [Count; 2],
    window_began: Duration,
    tripped_at: Duration,
    probe_at: Duration,
    probe_pause: Duration,
    /// A delivery is on its way back for the next probe.
    probe_awaited: bool,
}

impl Breaker {
    /// Passing, with no memory.
    pub fn new(patience: Patience, now: Duration) -> Self {
        Self {
            patience,
            state: State::Passing,
            failures_in_a_row: 0,
            counts: [Count::default(); 2],
            window_began: now,
            tripped_at: now,
            probe_at: now,
            probe_pause: patience.first_probe,
            probe_awaited: false,
        }
    }

    /// Tripped since a while before now, as somebody else found it: its first request is a probe.
    pub fn tripped(patience: Patience, tripped_for: Duration, now: Duration) -> Self {
        Self {
            state: State::Tripped,
            tripped_at: now.saturating_sub(tripped_for),
            probe_pause: tripped_for.clamp(
                patience.first_probe,
                patience.first_probe.saturating_mul(LAST_PROBE),
            ),
            ..Self::new(patience, now)
        }
    }

    /// Counts to other figures from now on. A probe that is due at a time stays due then; the pauses after it are of the new ones.
    pub fn be_patient(&mut self, patience: Patience) {
        self.patience = patience;
        self.probe_pause = self.probe_pause.clamp(
            patience.first_probe,
            patience.first_probe.saturating_mul(LAST_PROBE),
        );
    }

    /// Trips it whatever it has counted.
    pub fn trip(&mut self, now: Duration) {
        if self.state == State::Passing {
            self.tripped_at = now;
            self.probe_pause = self.patience.first_probe;
        }
        self.state = State::Tripped;
        self.probe_at = now + self.probe_pause;
        self.probe_awaited = false;
    }

    /// What it lets pass now.
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether a request may be sent now. [`Pass::Go`] while tripped makes it the probe.
    pub fn pass(&mut self, now: Duration) -> Pass {
        match self.state {
            State::Passing => Pass::Go,
            State::Probing => Pass::Wait,
            State::Tripped if now < self.probe_at => Pass::NotBefore(self.probe_at),
            State::Tripped => {
                self.state = State::Probing;
                self.probe_awaited = false;
                Pass::Go
            }
        }
    }

    /// How long a delivery that comes now has to wait, if it has to: the first until the next probe, whose request it
    /// will be, the others as long as the endpoint has been down already (so that each waits a few times and not at every probe).
    pub fn wait(&mut self, now: Duration) -> Option<Duration> {
        match self.state {
            State::Passing => None,
            State::Tripped if now >= self.probe_at => None,
            State::Tripped if !self.probe_awaited => {
                self.probe_awaited = true;
                Some(self.probe_at - now)
            }
            State::Tripped | State::Probing => {
                let down_for = now.saturating_sub(self.tripped_at);
                Some(down_for.max(self.patience.first_probe).min(LONGEST_WAIT))
            }
        }
    }

    /// Makes the next probe due.
    pub fn hasten_probe(&mut self, now: Duration) {
        if self.state == State::Tripped {
            self.probe_at = self.probe_at.min(now);
        }
    }

    /// How long a delivery that is to be the probe has to wait: until the next one is due.
    pub fn wait_of_probe(&self, now: Duration) -> Option<Duration> {
        match self.state {
            State::Passing => None,
            State::Tripped => self
                .probe_at
                .checked_sub(now)
                .filter(|wait| !wait.is_zero()),
            State::Probing => Some(self.probe_pause),
        }
    }

    /// A request ended; `None` says nothing of the endpoint (it asked for a slower pace, or was never reached by our own choice).
    pub fn ended(&mut self, worked: Option<bool>, now: Duration) {
        match (self.state, worked) {
            (State::Probing, Some(true)) => *self = Self::new(self.patience, now),
            (State::Probing, Some(false) | None) => {
                self.probe_pause =
                    (self.probe_pause * 2).min(self.patience.first_probe * LAST_PROBE);
                self.state = State::Tripped;
                self.probe_at = now + self.probe_pause;
            }
            // What was under way when it tripped changes nothing.
            (State::Tripped, _) | (State::Passing, None) => {}
            (State::Passing, Some(worked)) => self.count(worked, now),
        }
    }

    /// A probe was not sent after all.
    pub fn withdrawn(&mut self) {
        if self.state == State::Probing {
            self.state = State::Tripped;
        }
    }

    fn count(&mut self, worked: bool, now: Duration) {
        let windows = now.saturating_sub(self.window_began).as_nanos() / WINDOW.as_nanos();
        if windows > 0 {
            let before = if windows == 1 {
                self.counts[0]
            } else {
                Count::default()
            };
            self.counts = [Count::default(), before];
            self.window_began = now;
        }
        self.counts[0].all += 1;
        if worked {
            self.failures_in_a_row = 0;
            return;
        }
        self.counts[0].failed += 1;
        self.failures_in_a_row += 1;
        let all: u32 = self.counts.iter().map(|count| count.all).sum();
        let failed: u32 = self.counts.iter().map(|count| count.failed).sum();
        let share = f64::from(failed) / f64::from(all.max(1));
        let mostly = all >= self.patience.failures && share >= FAILURE_SHARE;
        if mostly || self.failures_in_a_row >= self.patience.failures {
            self.trip(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn tripped() -> Breaker {
        let mut breaker = Breaker::new(Patience::default(), Duration::ZERO);
        for _ in 0..10 {
            breaker.ended(Some(false), Duration::ZERO);
        }
        assert_eq!(breaker.state(), State::Tripped);
        breaker
    }

    #[test]
    fn nine_failures_in_a_row_do_not_trip_it_and_ten_do() {
        let mut breaker = Breaker::new(Patience::default(), Duration::ZERO);
        for _ in 0..9 {
            breaker.ended(Some(false), Duration::ZERO);
        }
        assert_eq!(breaker.pass(S), Pass::Go);
        breaker.ended(Some(false), S);
        assert_eq!(breaker.pass(S), Pass::NotBefore(31 * S));
    }

    #[test]
    fn seven_failures_of_ten_trip_it_and_six_do_not() {
        for (pattern, state) in [
            ("0001000101", State::Tripped),
            ("0011000101", State::Passing),
        ] {
            let mut breaker = Breaker::new(Patience::default(), Duration::ZERO);
            for outcome in pattern.bytes() {
                breaker.ended(Some(outcome == b'1'), S);
            }
            breaker.ended(Some(false), S);
            assert_eq!(breaker.state(), state, "{pattern}");
        }
    }

    #[test]
    fn old_failures_are_forgotten() {
        let mut breaker = Breaker::new(Patience::default(), Duration::ZERO);
        for _ in 0..9 {
            breaker.ended(Some(false), Duration::ZERO);
        }
        breaker.ended(Some(true), 200 * S);
        breaker.ended(Some(false), 200 * S);
        assert_eq!(breaker.state(), State::Passing);
    }

    #[test]
    fn one_probe_is_let_through_and_its_outcome_decides() {
        let mut breaker = tripped();
        assert_eq!(breaker.pass(29 * S), Pass::NotBefore(30 * S));
        assert_eq!(breaker.pass(30 * S), Pass::Go);
        assert_eq!(breaker.pass(30 * S), Pass::Wait);
        breaker.ended(Some(false), 31 * S);
        assert_eq!(
            breaker.pass(32 * S),
            Pass::NotBefore(91 * S),
            "the pause doubles"
        );
        assert_eq!(breaker.pass(91 * S), Pass::Go);
        breaker.ended(Some(true), 92 * S);
        assert_eq!(breaker.state(), State::Passing);
    }

    #[test]
    fn probes_are_never_further_apart_than_five_minutes() {
        let mut breaker = tripped();
        let mut now = 30 * S;
        for _ in 0..10 {
            assert_eq!(breaker.pass(now), Pass::Go);
            breaker.ended(Some(false), now);
            let Pass::NotBefore(next) = breaker.pass(now) else {
                panic!()
            };
            assert!(next - now <= 300 * S);
            now = next;
        }
    }

    #[test]
    fn the_first_to_wait_comes_back_for_the_probe_and_the_others_wait_longer_the_longer_it_is_down()
    {
        let mut breaker = tripped();
        assert_eq!(breaker.wait(S), Some(29 * S));
        assert_eq!(breaker.wait(S), Some(30 * S));
        breaker.pass(30 * S);
        breaker.ended(Some(false), 30 * S);
        assert_eq!(breaker.wait(80 * S), Some(10 * S));
        assert_eq!(breaker.wait(80 * S), Some(80 * S));
        assert_eq!(breaker.wait(89 * S), Some(89 * S));
    }

    #[test]
    fn one_that_was_found_tripped_begins_with_a_probe_and_not_with_ten_failures() {
        let mut breaker = Breaker::tripped(Patience::default(), 600 * S, S);
        assert_eq!(breaker.wait(S), None, "the probe is due");
        assert_eq!(breaker.pass(S), Pass::Go);
        assert_eq!(breaker.pass(S), Pass::Wait);
        breaker.ended(Some(false), S);
        assert_eq!(breaker.pass(2 * S), Pass::NotBefore(301 * S));
    }

    #[test]
    fn a_probe_can_be_hastened_and_passing_is_not_undone_by_it() {
        let mut breaker = tripped();
        breaker.hasten_probe(S);
        assert_eq!(breaker.pass(S), Pass::Go);
        breaker.hasten_probe(S);
        assert_eq!(breaker.pass(S), Pass::Wait);
        breaker.ended(Some(true), 2 * S);
        breaker.hasten_probe(2 * S);
        assert_eq!(breaker.state(), State::Passing);
    }

    #[test]
    fn an_endpoint_that_is_gone_trips_it_at_once() {
        let mut breaker = Breaker::new(Patience::default(), Duration::ZERO);
        breaker.trip(S);
        assert_eq!(breaker.pass(S), Pass::NotBefore(31 * S));
    }

    #[test]
    fn what_is_to_be_the_probe_waits_for_it_and_no_longer_however_long_the_endpoint_is_down() {
        let mut breaker = Breaker::tripped(Patience::default(), 3000 * S, S);
        assert_eq!(breaker.wait_of_probe(S), None);
        breaker.pass(S);
        assert_eq!(breaker.wait_of_probe(S), Some(300 * S));
        breaker.ended(Some(false), 2 * S);
        breaker.wait(3 * S);
        assert_eq!(breaker.wait_of_probe(3 * S), Some(299 * S));
        assert_eq!(breaker.wait_of_probe(302 * S), None);
    }

    #[test]
    fn a_pace_that_is_asked_for_is_no_failure() {
        let mut breaker = Breaker::new(Patience::default(), Duration::ZERO);
        for _ in 0..100 {
            breaker.ended(None, Duration::ZERO);
        }
        assert_eq!(breaker.state(), State::Passing);
    }

    #[test]
    fn another_patience_holds_for_a_breaker_that_has_begun_to_count() {
        let mut breaker = Breaker::new(Patience::default(), Duration::ZERO);
        for second in 0..2 {
            breaker.ended(Some(false), second * S);
        }
        assert_eq!(breaker.state(), State::Passing);
        breaker.be_patient(Patience {
            failures: 3,
            first_probe: Duration::from_secs(5),
        });
        breaker.ended(Some(false), 2 * S);
        assert_eq!(breaker.state(), State::Tripped);
        assert_eq!(breaker.probe_pause, Duration::from_secs(5));
    }
}
