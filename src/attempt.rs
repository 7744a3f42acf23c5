//! An attempt: what one HTTP request came to. What the receiver did wrong is a value here, never an error of ours.

use std::time::Duration;

use bytes::Bytes;

use crate::delivery::DeadReason;

/// What happened, in the words of the metric `postrider_attempts_total{outcome}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// 2xx.
    Success,
    /// 3xx; never followed.
    Redirect,
    /// 4xx but 429.
    ClientError,
    /// 5xx, and anything else that is no status.
    ServerError,
    /// 429.
    RateLimited,
    /// The deadline passed.
    Timeout,
    /// The name could not be resolved.
    Dns,
    /// No connection.
    Connect,
    /// The certificate or the handshake failed.
    Tls,
    /// The address may not be reached.
    Blocked,
    /// What came back was not HTTP, or broke off.
    Protocol,
}

impl Outcome {
    /// All outcomes, in the contract's order.
    pub const ALL: [Self; 11] = [
        Self::Success,
        Self::Redirect,
        Self::ClientError,
        Self::ServerError,
        Self::RateLimited,
        Self::Timeout,
        Self::Dns,
        Self::Connect,
        Self::Tls,
        Self::Blocked,
        Self::Protocol,
    ];

    /// The metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Redirect => "redirect",
            Self::ClientError => "client_error",
            Self::ServerError => "server_error",
            Self::RateLimited => "rate_limited",
            Self::Timeout => "timeout",
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Blocked => "blocked",
            Self::Protocol => "protocol",
        }
    }
}

/// What follows from an outcome, before the webhook's number of retries is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The receiver has it.
    Delivered,
    /// Try again, not before this pause if the receiver asked for one (`Retry-After`).
    Retry { not_before: Option<Duration> },
    /// No retry would mend it.
    Reject(DeadReason),
}

/// One finished attempt.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// 1 for the first.
    pub number: u32,
    pub outcome: Outcome,
    pub next: Next,
    pub status: Option<u16>,
    /// In plain words, with the cure where there is one; empty for a success.
    pub message: String,
    /// Unix milliseconds.
    pub started_at_ms: i64,
    pub duration: Duration,
    /// At most `outbound.response_body_bytes` of the response; of successes only so many are told in a second, and the others have none.
    pub response_body: Bytes,
    /// The request's headers with secrets masked, and the response's, where there is a body to tell.
    pub request_headers: Vec<(String, String)>,
    pub response_headers: Vec<(String, String)>,
}
