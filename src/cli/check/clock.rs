//! This machine's clock against the cluster's: due times, signatures' timestamps and ages all rest on it.

use super::Line;
use crate::kafka::clock::ahead_ms;
use crate::kafka::settings::Connection;

const NAME: &str = "clock";
/// Receivers refuse signatures that are some minutes off, and a retry this late is seen.
const TOLERATED_MS: u64 = 60_000;

/// `table` is one of our compacted topics, in which the check leaves a tombstone of a key that nobody has.
pub(super) fn check(connection: &Connection, table: &str) -> Line {
    match ahead_ms(connection, table) {
        Ok(Some(ahead)) if ahead.unsigned_abs() > TOLERATED_MS => Line::wrong(
            NAME,
            format!(
                "this machine's clock is {} s {} the broker's",
                ahead.unsigned_abs() / 1_000,
                if ahead > 0 { "ahead of" } else { "behind" }
            ),
            "set the right one by NTP (chronyc tracking, timedatectl)",
        ),
        Ok(Some(_)) => Line::ok(NAME, "within a minute of the broker's"),
        Ok(None) => Line::warning(
            NAME,
            format!("cannot be compared: {table} is not set to LogAppendTime"),
            "`postrider topics plan` shows the command",
        ),
        Err(fault) => Line::warning(
            NAME,
            format!("cannot be compared: {fault}"),
            "it takes the right Write to that topic",
        ),
    }
}
