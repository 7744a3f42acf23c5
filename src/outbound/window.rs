//! How many requests of a lane may be in flight: as many as the endpoint bears, found by trying (promise 4: a slow endpoint is not
//! crushed, and cannot use up the requests of the instance).
//!
//! Additive increase, multiplicative decrease, as TCP does it (RFC 5681): one more for every answer until the first sign of congestion,
//! then one more for every window's worth of answers; half on a timeout, a 429 or a 503, at most once for what was under way together.
//! Pure: `now` is an offset on the shard's clock.

use std::time::Duration;

/// Requests in flight that a lane begins with. One that answers gets up to its `max_concurrency` within a few requests; many that do not
/// answer cannot use up the requests of the whole instance.
const FIRST: u32 = 4;

/// See the module's text.
#[derive(Debug)]
pub struct Window {
    size: u32,
    max: u32,
    /// Answers towards the next one more; `None` while it grows with every answer.
    answers: Option<u32>,
    halved_at: Option<Duration>,
}

impl Window {
    /// For an endpoint that nothing is known of. `max` is at least 1.
    pub fn new(max: u32) -> Self {
        Self {
            size: max.clamp(1, FIRST),
            max: max.max(1),
            answers: None,
            halved_at: None,
        }
    }

    /// Requests that may be in flight; at least 1.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// Takes over another upper bound.
    pub fn limit(&mut self, max: u32) {
        self.max = max.max(1);
        self.size = self.size.min(self.max);
    }

    /// A request was answered.
    pub fn answered(&mut self) {
        let grows = match &mut self.answers {
            None => true,
            Some(answers) => {
                *answers += 1;
                *answers >= self.size
            }
        };
        if grows {
            self.answers = self.answers.map(|_| 0);
            self.size = (self.size + 1).min(self.max);
        }
    }

    /// A request that took so long ended with a sign of congestion. What was sent before the last halving tells nothing new.
    pub fn congested(&mut self, took: Duration, now: Duration) {
        let began = now.saturating_sub(took);
        if self.halved_at.is_some_and(|halved_at| began < halved_at) {
            return;
        }
        self.size = (self.size / 2).max(1);
        self.answers = Some(0);
        self.halved_at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn an_endpoint_that_answers_gets_all_that_it_may_within_a_few_requests() {
        let mut window = Window::new(16);
        assert_eq!(window.size(), 4);
        for _ in 0..12 {
            window.answered();
        }
        assert_eq!(window.size(), 16);
        window.answered();
        assert_eq!(window.size(), 16);
    }

    #[test]
    fn requests_that_fail_together_halve_it_once() {
        let mut window = Window::new(16);
        for _ in 0..12 {
            window.answered();
        }
        for _ in 0..16 {
            window.congested(10 * S, 10 * S);
        }
        assert_eq!(window.size(), 8);
        window.congested(S, 10 * S + S / 2);
        assert_eq!(window.size(), 8, "sent before the halving");
        window.congested(S, 11 * S);
        assert_eq!(window.size(), 4, "sent after it");
    }

    #[test]
    fn after_congestion_it_grows_by_one_for_a_windows_worth_of_answers() {
        let mut window = Window::new(64);
        for _ in 0..12 {
            window.answered();
        }
        window.congested(S, S);
        let mut sizes = Vec::new();
        for _ in 0..8 + 9 + 10 {
            window.answered();
            sizes.push(window.size());
        }
        assert_eq!((sizes[6], sizes[7]), (8, 9));
        assert_eq!((sizes[15], sizes[16]), (9, 10));
        assert_eq!(sizes[26], 11);
    }

    /// An endpoint that bears `bears` requests at a time: what comes above that runs into its timeout. The answer is how many did.
    fn rounds(bears: u32, max: u32, rounds: u64) -> (u32, u32) {
        let mut window = Window::new(max);
        let (mut sent, mut too_many) = (0, 0);
        for round in 1..=rounds {
            let now = S * u32::try_from(round).unwrap();
            let size = window.size();
            sent += size;
            for _ in 0..size.min(bears) {
                window.answered();
            }
            for _ in bears..size {
                too_many += 1;
                window.congested(S, now);
            }
        }
        (sent, too_many)
    }

    proptest! {
        #[test]
        fn a_slow_endpoint_is_kept_busy_and_not_crushed(bears in 2_u32..64, max in 1_u32..=256) {
            let (sent, too_many) = rounds(bears, max, 500);
            let could = 500 * bears.min(max);
            // The first look for the limit may double what is borne once; after that it is touched by one or two at a time.
            prop_assert!(too_many <= could / 4 + 2 * bears, "{too_many} of {sent}");
            prop_assert!(sent >= could / 2, "{sent} of {could}");
        }

        #[test]
        fn it_is_never_less_than_one_nor_more_than_allowed(max in 0_u32..300, signs in proptest::collection::vec((any::<bool>(), 0_u64..20), 0..300)) {
            let mut window = Window::new(max);
            for (number, (works, took)) in (0_u32..).zip(signs) {
                if works {
                    window.answered();
                } else {
                    window.congested(Duration::from_secs(took), S * number);
                }
                prop_assert!((1..=max.max(1)).contains(&window.size()));
            }
        }
    }
}
