//! The integration tests: the real application, a real broker, real sockets. `make test` brings the broker up.
//!
//! One binary, because every further one links everything again. Tests run side by side on one broker, so each keeps to
//! topics and groups of its own ([`harness::Cluster::named`]).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy excuses the body of a test, not the harness it calls; both should fail loudly"
)]

mod acknowledged;
mod alerts;
mod api;
mod bad_events;
mod breaker;
mod catalog;
mod chaos;
mod commands;
mod crashes;
mod dashboards;
mod dead_letters;
mod delivery;
mod demo;
mod endings;
#[cfg(feature = "failpoints")]
mod failpoints;
mod fleet;
mod floors;
mod fuzz;
mod harness;
mod harness_holds;
mod health;
mod history;
mod holding;
mod hostile;
mod inline;
mod leaks;
mod memory;
mod pace;
mod reload;
mod renewed_topics;
mod retries;
mod security;
mod signatures;
mod static_members;
mod tour;
mod traces;
