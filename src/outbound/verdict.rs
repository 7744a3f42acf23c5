//! Turns what came back of an attempt into one outcome, and into what becomes of the delivery.
//!
//! Part of promise 1: every answer and every failure has exactly one verdict, and only a 2xx is a delivery.
//! Pure: the time is a parameter.

use std::time::{Duration, UNIX_EPOCH};

use crate::attempt::{Next, Outcome};
use crate::delivery::DeadReason;

/// The shortest wait a `Retry-After` can ask for.
pub const SHORTEST_RETRY_AFTER: Duration = Duration::from_secs(1);
/// The longest wait a `Retry-After` can ask for: a receiver may not park a delivery for ever.
pub const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Why no status came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// The deadline, or the limit for connecting, passed.
    Timeout,
    /// The host name gave no address.
    Dns,
    /// No connection.
    Connect,
    /// No trusted TLS session.
    Tls,
    /// Our own guard refused the address.
    Blocked,
    /// Something that is not an HTTP answer, or none at all.
    Protocol,
}

/// A failure of an attempt, for people: what is wrong and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Its class.
    pub kind: FailureKind,
    /// One line. Holds no secret and no query string.
    pub message: String,
}

/// The judgement of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// How it ended.
    pub outcome: Outcome,
    /// What follows.
    pub next: Next,
}

/// Judges an HTTP status. `retry_after` are the values of all `Retry-After` headers, `unix_seconds` is now.
pub fn judge_status<'a>(
    status: u16,
    retry_after: impl IntoIterator<Item = &'a [u8]>,
    unix_seconds: u64,
) -> Verdict {
    let outcome = match status {
        200..=299 => Outcome::Success,
        300..=399 => Outcome::Redirect,
        429 => Outcome::RateLimited,
        400..=499 => Outcome::ClientError,
        500..=599 => Outcome::ServerError,
        _ => Outcome::Protocol,
    };
    let next = match status {
        200..=299 => Next::Delivered,
        400 | 401 | 403 | 404 | 405 | 410 | 413 | 422 => Next::Reject(DeadReason::Rejected),
        429 | 503 => Next::Retry {
            not_before: longest_wait(retry_after, unix_seconds),
        },
        _ => Next::Retry { not_before: None },
    };
    Verdict { outcome, next }
}

/// Judges an attempt that got no status.
pub const fn judge_failure(kind: FailureKind) -> Verdict {
    let outcome = match kind {
        FailureKind::Timeout => Outcome::Timeout,
        FailureKind::Dns => Outcome::Dns,
        FailureKind::Connect => Outcome::Connect,
        FailureKind::Tls => Outcome::Tls,
        FailureKind::Blocked => Outcome::Blocked,
        FailureKind::Protocol => Outcome::Protocol,
    };
    let next = match kind {
        FailureKind::Blocked => Next::Reject(DeadReason::BlockedAddress),
        _ => Next::Retry { not_before: None },
    };
    Verdict { outcome, next }
}

/// Several headers are a fault of the receiver; the longest wait is the one that breaks none of them.
fn longest_wait<'a>(
    values: impl IntoIterator<Item = &'a [u8]>,
    unix_seconds: u64,
) -> Option<Duration> {
    values
        .into_iter()
        .filter_map(|value| wait(value, unix_seconds))
        .max()
}

/// RFC 9110 section 10.2.3: a whole number of seconds, or an HTTP date. Anything else counts as absent.
fn wait(value: &[u8], unix_seconds: u64) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?.trim();
    let seconds = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a u64 holds is still a number, and means "very long".
        text.parse().unwrap_or(u64::MAX)
    } else {
        let date = httpdate::parse_http_date(text).ok()?;
        date.duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs())
            .saturating_sub(unix_seconds)
    };
    Some(Duration::from_secs(seconds).clamp(SHORTEST_RETRY_AFTER, LONGEST_RETRY_AFTER))
}

#[cfg(test)]
mod tests;
