//! The limits of an instance that may change while it runs: how much it sends at a time, and when an endpoint is given up.
//!
//! Part of promises 4 and 6: a change reaches every lane, and never stops what is under way.

use std::time::Duration;

use super::breaker::Patience;

/// See the module's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests at a time: of the whole instance, or of a shard after [`Limits::of_a_shard`].
    pub max_in_flight: u32,
    /// Of the breakers.
    pub patience: Patience,
    /// An endpoint without one success for so long is given up; zero: never.
    pub disable_after: Duration,
}

impl Limits {
    /// The part of one shard among so many.
    pub fn of_a_shard(self, count: usize) -> Self {
        let count = u32::try_from(count).unwrap_or(u32::MAX).max(1);
        Self {
            max_in_flight: self.max_in_flight.div_ceil(count).max(1),
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shards_together_may_send_what_the_instance_may_and_each_at_least_one() {
        let limits = |max_in_flight| Limits {
            max_in_flight,
            patience: Patience::default(),
            disable_after: Duration::ZERO,
        };
        assert_eq!(limits(100).of_a_shard(4).max_in_flight, 25);
        assert_eq!(limits(101).of_a_shard(4).max_in_flight, 26);
        assert_eq!(limits(1).of_a_shard(4).max_in_flight, 1);
        assert_eq!(limits(7).of_a_shard(0).max_in_flight, 7);
    }
}
