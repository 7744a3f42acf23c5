//! Postrider carries Kafka events to webhooks: signed, paced to what each endpoint allows, retried for hours if need be,
//! dead-lettered and replayed, never lost.
//!
//! # The life of an event
//! A record arrives from a source topic ([`kafka`]); [`intake`] reads it; [`matching`] says which webhooks want it; for each of
//! them a [`delivery`] is written to `dispatch`, and only then is the record's offset free to be committed. The instance that owns
//! the webhook takes the delivery, and [`outbound`] sends one signed request. [`retry`] says what follows from the answer: done, a rung of the
//! delay ladder, or the dead-letter topic, from which a replay brings it back to `dispatch`. [`pipeline`] is the only
//! place that knows this order; [`app`] starts and stops it; [`web`] shows it.
//!
//! # Modules, in the order of the flow
//! | floor | modules |
//! |---|---|
//! | above all | [`app`], [`cli`] |
//! | the order | [`pipeline`] |
//! | stages | [`intake`] → [`matching`] → [`outbound`] → [`retry`]; [`history`]; [`web`] |
//! | nouns | [`event`], [`subscription`], [`delivery`], [`attempt`], [`record`], [`samples`], [`token`], [`json`]; [`config`], [`metrics`], [`traces`], [`kafka`]; [`failpoint`] |
//!
//! Imports point down, and stages never import each other (a test reads the sources and asserts it).

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

pub mod app;
pub mod attempt;
pub mod cli;
pub mod config;
pub mod delivery;
pub mod event;
pub mod failpoint;
pub mod history;
pub mod intake;
pub mod json;
pub mod kafka;
pub mod matching;
pub mod metrics;
pub mod outbound;
pub mod pipeline;
pub mod record;
pub mod retry;
pub mod samples;
pub mod subscription;
pub mod token;
pub mod traces;
pub mod web;
