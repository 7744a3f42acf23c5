//! What a lane notices of its endpoint that others must know: said once for each transition, to whoever keeps it (promise 4 across
//! instances and restarts). Pure.

use std::sync::Arc;
use std::time::Duration;

use crate::subscription::Subscription;

/// A streak of failures is told once it is so long, so that an endpoint that fails now and then costs no record each time.
const WORTH_TELLING: Duration = Duration::from_secs(60);

/// So many failures prove that an endpoint fails, though its breaker lets everything pass: one that answers 404 is there.
const MANY: u32 = 10;

/// What was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The breaker tripped.
    Tripped,
    /// A probe succeeded.
    Recovered,
    /// Nothing has succeeded for a while, though the breaker still lets everything pass.
    Failing,
    /// The first success after [`Notice::Failing`].
    Steady,
    /// The endpoint answered 410.
    Gone,
    /// Nothing has succeeded for longer than anybody waits.
    GivenUp,
}

/// What is known of an endpoint. Times are Unix milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signs {
    /// The first failure since which nothing succeeded.
    pub failing_since_ms: Option<i64>,
    pub last_success_at_ms: Option<i64>,
    pub last_failure_at_ms: Option<i64>,
    /// For how long the breaker had been tripped when this was remembered; `None`: it was not.
    pub tripped_for: Option<Duration>,
    /// Whether the streak of failures has been told.
    pub told: bool,
    /// Failures in the streak, of those seen here.
    pub failures: u32,
}

/// Takes every notice. Called on the shard's thread; it must not block for long.
pub type Report = Arc<dyn Fn(&Subscription, Notice, &Signs) + Send + Sync>;
/// What is remembered of a webhook's endpoint from before the lane was opened.
pub type Recall = Arc<dyn Fn(&Subscription) -> Signs + Send + Sync>;
/// Asked before every request: whether what becomes of requests is written down as fast as they are made. What is not written down is
/// repeated when the session is lost or the process dies, so that this bounds how much.
pub type KeepsUp = Arc<dyn Fn() -> bool + Send + Sync>;

impl Signs {
    /// Takes in the end of a request: whether it was delivered or failed. `transition` is the breaker's, `is_passing` its state afterwards; `give_up_after` of zero means never.
    pub fn ended(
        &mut self,
        delivered: bool,
        transition: Option<Notice>,
        is_passing: bool,
        give_up_after: Duration,
        now_ms: i64,
    ) -> Option<Notice> {
        if delivered {
            self.failures = 0;
            self.last_success_at_ms = Some(now_ms);
            self.failing_since_ms = None;
            // What was under way when the breaker tripped does not make it pass.
            if is_passing && std::mem::take(&mut self.told) {
                return transition.or(Some(Notice::Steady));
            }
            return transition;
        }
        self.last_failure_at_ms = Some(now_ms);
        self.failures = self.failures.saturating_add(1);
        let since_ms = *self.failing_since_ms.get_or_insert(now_ms);
        let failing = now_ms.saturating_sub(since_ms).max(0).unsigned_abs();
        let failing = Duration::from_millis(failing);
        // Two failures, one today and one five days ago, prove nothing.
        let is_proved = !is_passing || self.failures >= MANY;
        if is_proved && !give_up_after.is_zero() && failing >= give_up_after {
            return Some(Notice::GivenUp);
        }
        if transition.is_some() {
            self.told = true;
            return transition;
        }
        if !self.told && failing >= WORTH_TELLING {
            self.told = true;
            return Some(Notice::Failing);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEVER: Duration = Duration::ZERO;

    #[test]
    fn a_streak_of_failures_is_told_once_and_its_end_too() {
        let mut signs = Signs::default();
        assert_eq!(signs.ended(false, None, true, NEVER, 1_000), None);
        assert_eq!(signs.ended(false, None, true, NEVER, 60_999), None);
        assert_eq!(
            signs.ended(false, None, true, NEVER, 61_000),
            Some(Notice::Failing)
        );
        assert_eq!(signs.ended(false, None, true, NEVER, 62_000), None);
        assert_eq!(signs.failing_since_ms, Some(1_000));
        assert_eq!(
            signs.ended(true, None, true, NEVER, 63_000),
            Some(Notice::Steady)
        );
        assert_eq!(signs.ended(true, None, true, NEVER, 64_000), None);
        assert_eq!(signs.failing_since_ms, None);
    }

    #[test]
    fn a_late_answer_does_not_call_a_tripped_endpoint_steady() {
        let mut signs = Signs::default();
        signs.ended(false, Some(Notice::Tripped), false, NEVER, 0);
        assert_eq!(signs.ended(true, None, false, NEVER, 1), None);
        assert_eq!(signs.ended(false, None, false, NEVER, 100_000), None);
        let recovered = signs.ended(true, Some(Notice::Recovered), true, NEVER, 100_001);
        assert_eq!(recovered, Some(Notice::Recovered));
        assert_eq!(signs.ended(true, None, true, NEVER, 100_002), None);
    }

    #[test]
    fn a_short_streak_costs_no_record() {
        let mut signs = Signs::default();
        for now in 0..1_000 {
            assert_eq!(
                signs.ended(now % 2 == 0, None, true, NEVER, now * 1_000),
                None
            );
        }
    }

    #[test]
    fn an_endpoint_is_given_up_only_when_it_plainly_fails_and_has_failed_for_the_whole_time() {
        let five_days = Duration::from_secs(432_000);
        let late = 432_000_000;
        let mut signs = Signs::default();
        signs.ended(false, Some(Notice::Tripped), false, five_days, 0);
        assert_eq!(signs.ended(false, None, false, five_days, late - 1), None);
        assert_eq!(
            signs.ended(false, None, true, five_days, late),
            None,
            "not tripped"
        );
        assert_eq!(signs.clone().ended(false, None, false, NEVER, late), None);
        let mut refusing = signs.clone();
        let told: Vec<_> = (3..10)
            .map(|_| refusing.ended(false, None, true, five_days, late))
            .collect();
        assert_eq!(told.last(), Some(&Some(Notice::GivenUp)));
        assert_eq!(told[..6], [None; 6], "too few to prove anything");
        assert_eq!(
            signs.ended(false, None, false, five_days, late),
            Some(Notice::GivenUp)
        );
        signs.ended(true, Some(Notice::Recovered), true, five_days, late + 1);
        assert_eq!(signs.ended(false, None, false, five_days, late + 2), None);
    }
}
