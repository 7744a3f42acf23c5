//! The test ground. In go a broker's address and scripts for receivers; out come what was produced, what was received,
//! and answers to "has it happened yet". All but `router` and `process` knows nothing of Postrider, so that it
//! cannot share its mistakes.
//!
//! Everything blocks and has threads of its own: it works in a plain `#[test]` and in a multi-threaded tokio test alike.
//! Everything ends when it is dropped.

#![allow(
    dead_code,
    unused_imports,
    reason = "a harness offers more than the tests of one day use"
)]

mod broker;
mod hostile;
mod kafka;
mod process;
mod receiver;
mod record;
mod router;
mod waiting;

pub use broker::OwnBroker;
pub use hostile::{RawReceiver, raw, read_request};
pub use kafka::{Cluster, bootstrap};
pub use process::{Process, get, run_to_its_end};
pub use receiver::{Receiver, Reply, Request};
pub use record::{Record, Sent};
pub use router::{KEY, Router, assert_all_arrived, config_text, delivery_ids};
pub use waiting::eventually;
