//! Named points at which a test can stop, delay or kill the process: the moments between two durable steps, where promises
//! 1 to 3 are decided. They exist only with the cargo feature `failpoints`; a release has neither the points nor their names.
//!
//! | point | reached | what a death there may cost |
//! |---|---|---|
//! | `deliver-after-2xx` | a receiver answered 2xx, and its ending is not yet produced | a copy of that delivery |
//! | `deliver-after-retry-written` | a delay topic has acknowledged a retry, and its record of `dispatch` is not yet settled | an attempt of that delivery is repeated |
//! | `route-between-deliveries` | an event's first delivery is handed to the producer, and the next one is not | a copy of the first |
//! | `route-in-revoke`, `deliver-in-revoke`, `release-in-revoke`, `held-in-revoke` | the work of revoked partitions has ended, and what is settled is not yet committed | copies of what was settled since the last commit |
//! | `missed-reads` | before each record that tells what became of the events that a webhook may have missed | nothing |
//! | `catalog-in-replay` | before each record of the catalog topic is taken in, also after the start | nothing |
//!
//! `FAILPOINTS='name=actions;name=actions'` in the environment says what happens there, in the language of the crate `fail`:
//! `4*off->return` dies at the fifth time, `sleep(200)` waits that many milliseconds each time. `return` is death: the process
//! aborts, on whatever thread it is. (`panic` would end a thread only.)

/// Ends the process at once: no destructor runs, nothing is flushed, no group is left, as with SIGKILL.
#[cfg(feature = "failpoints")]
pub fn die() -> ! {
    std::process::abort()
}
