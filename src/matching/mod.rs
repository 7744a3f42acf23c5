//! Which webhooks want this event: the second step of an event's way.
//!
//! In goes an event (its type, its customer, its parsed body), out come the entries that want it, each once, in the
//! order in which they were given. Keeps the promise that nothing is skipped because an expression failed: a pattern
//! or a filter is checked when it is read ([`check_pattern`], [`Filter::parse`]), and after that it cannot fail.
//!
//! - [`glob`]: event types and patterns of them, `job.failed`, `job.*`, `*`
//! - [`filter`]: conditions on the body, `{"job": {"status": {"$in": ["failed"]}}}`
//! - [`index`]: many webhooks at once, at a cost that follows the number that want the event
//!
//! - [`catalog`]: the live set of webhooks and its index
//!
//! - [`explain`](mod@explain): why a webhook wants an event or does not, in words
//!
//! All but the catalog is pure: no clock, no network, no Kafka.

pub mod catalog;
pub mod explain;
pub mod filter;
pub mod glob;
pub mod index;

pub use filter::{Explanation, Failure, Filter, FilterError};
pub use glob::{Glob, PatternError, check_pattern};
pub use index::{Entry, Index, Refusal};
