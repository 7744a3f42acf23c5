//! An event: what a producing system said, as far as routing needs to know it.
//!
//! The bytes themselves are not here; they stay in the record and go out untouched.

use serde_json::Value;

/// The four families of the webnet seed and their types, for samples, documentation and completion. Any other type is
/// routed just the same.
pub const KNOWN_TYPES: &[&str] = &[
    "job.created",
    "job.started",
    "job.completed",
    "job.failed",
    "device.created",
    "device.updated",
    "device.deleted",
    "device.status_changed",
    "config.backup_created",
    "config.changed",
    "config.deployed",
    "compliance.check_completed",
    "compliance.violation_detected",
];

/// A decoded source record.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Such as `job.failed`: not empty, at most 256 bytes, no control characters.
    pub event_type: String,
    /// The tenant as text; a number and the same number as text are one tenant. `None` when the event names none.
    pub customer: Option<String>,
    /// The parsed body, for filters.
    pub body: Value,
    /// The webhook that the event carries for itself, as its producer wrote it. Neither `body` nor what is left of the record has it.
    pub inline: Option<Value>,
}
