//! Reads an error of the HTTP client down to its root, and says in plain words what is wrong and how to mend it.
//!
//! No message holds more of the URL than its host and port: a query string may be a secret.

use std::error::Error;
use std::fmt;
use std::io;
use std::iter;
use std::time::Duration;

use rustls::CertificateError;
use url::Url;

use super::super::guard::Blocked;
use super::super::verdict::{Failure, FailureKind};

/// Why a name gave no address that may be reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResolveError {
    #[error("all its addresses are refused")]
    Blocked(#[source] Blocked),
    #[error("the resolver did not answer within {0:?}")]
    TimedOut(Duration),
    #[error("{0}")]
    Failed(io::Error),
    #[error("it has no address")]
    NoAddress,
}

/// What was to be reached, for messages.
#[derive(Clone, Copy)]
pub(super) struct Reached<'a> {
    pub(super) url: &'a Url,
    pub(super) connect_timeout: Duration,
}

impl fmt::Display for Reached<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}:{}",
            self.host(),
            self.url.port_or_known_default().unwrap_or(0)
        )
    }
}

impl Reached<'_> {
    fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }
}

fn failure(kind: FailureKind, message: String) -> Failure {
    Failure { kind, message }
}

pub(super) fn deadline_passed(timeout: Duration) -> Failure {
    let message = format!(
        "no answer within {timeout:?}; make the receiver answer sooner, or raise timeout_seconds"
    );
    failure(FailureKind::Timeout, message)
}

pub(super) fn no_authorities(trouble: &str) -> Failure {
    let message = format!(
        "the certificate cannot be checked: {trouble}; install the package ca-certificates where Postrider runs, or set SSL_CERT_FILE"
    );
    failure(FailureKind::Tls, message)
}

/// The class and the message of an error that came instead of an answer: `connecting` while there was no connection yet, `late` because a limit of time passed.
pub(super) fn classify(
    error: &(dyn Error + 'static),
    connecting: bool,
    late: bool,
    reached: Reached<'_>,
) -> Failure {
    if let Some(resolve_error) = find::<ResolveError>(error) {
        return unresolved(resolve_error, reached);
    }
    if let Some(tls_error) = find::<rustls::Error>(error) {
        return failure(FailureKind::Tls, untrusted(tls_error, reached));
    }
    let io_kind = root_io_kind(error);
    if late && connecting {
        let cause = if reached.url.scheme() == "https" {
            "the host is down, a firewall drops the packets, or the TLS handshake stalls"
        } else {
            "the host is down, or a firewall drops the packets"
        };
        let message = format!(
            "no connection to {reached} within {:?}; {cause} (outbound.connect_timeout_seconds)",
            reached.connect_timeout
        );
        return failure(FailureKind::Timeout, message);
    }
    if late {
        return failure(
            FailureKind::Timeout,
            format!("the connection to {reached} went silent"),
        );
    }
    if connecting {
        return unconnected(error, io_kind, reached);
    }
    failure(FailureKind::Protocol, unanswered(error, io_kind, reached))
}

fn unresolved(error: &ResolveError, reached: Reached<'_>) -> Failure {
    match error {
        ResolveError::Blocked(Blocked {
            address,
            range_name,
        }) => {
            let message = format!(
                "refused: {} resolves to {address}, {range_name}; add it to outbound.allow_networks if it may be reached",
                reached.host()
            );
            failure(FailureKind::Blocked, message)
        }
        other => {
            let message = format!(
                "the name {} could not be resolved: {other}; check the host in the URL",
                reached.host()
            );
            failure(FailureKind::Dns, message)
        }
    }
}

fn unconnected(
    error: &(dyn Error + 'static),
    io_kind: Option<io::ErrorKind>,
    reached: Reached<'_>,
) -> Failure {
    match io_kind {
        Some(io::ErrorKind::ConnectionRefused) => {
            let message = format!(
                "connection refused: nothing listens at {reached}; start the receiver, or check the port"
            );
            failure(FailureKind::Connect, message)
        }
        // TCP was up when these happened, so it was the handshake.
        Some(
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe,
        ) if reached.url.scheme() == "https" => {
            let message = format!(
                "{reached} closed the connection during the TLS handshake; does it speak https?"
            );
            failure(FailureKind::Tls, message)
        }
        _ => failure(
            FailureKind::Connect,
            format!("no connection to {reached}: {}", innermost(error)),
        ),
    }
}

fn unanswered(
    error: &(dyn Error + 'static),
    io_kind: Option<io::ErrorKind>,
    reached: Reached<'_>,
) -> String {
    match io_kind {
        Some(
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof,
        ) => {
            format!("{reached} closed the connection without an answer")
        }
        // hyper's own words, such as "connection closed before message completed" or "invalid HTTP version parsed".
        _ => format!("{reached} gave no valid HTTP answer: {}", innermost(error)),
    }
}

pub(super) fn untrusted(error: &rustls::Error, reached: Reached<'_>) -> String {
    use CertificateError as Certificate;
    let host = reached.host();
    match error {
        rustls::Error::InvalidCertificate(reason) => {
            let what = match reason {
                Certificate::Expired => "certificate expired; renew it at the receiver".to_owned(),
                Certificate::ExpiredContext { not_after, .. } => format!(
                    "certificate expired on {}; renew it at the receiver",
                    day_of(not_after.as_secs())
                ),
                Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => {
                    "certificate not valid yet; check the clocks of both machines".to_owned()
                }
                Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => {
                    format!(
                        "certificate is for another name; use the name it was issued for, not {host}"
                    )
                }
                Certificate::UnknownIssuer => unknown_issuer(),
                // What `openssl req -x509` makes when nothing else is said; rustls has no variant for it.
                Certificate::Other(cause) if format!("{cause:?}").contains("CaUsedAsEndEntity") => {
                    unknown_issuer()
                }
                Certificate::Revoked => {
                    "certificate was revoked; replace it at the receiver".to_owned()
                }
                // An authority that was made anew under its old name, for one.
                Certificate::BadSignature => "certificate refused: it was signed with another key than that of the authority it names; send the chain that belongs to it".to_owned(),
                other => format!("certificate refused ({other})"),
            };
            format!("{what} (verify_ssl = false sends without this check)")
        }
        rustls::Error::InvalidMessage(_) => {
            format!("{reached} does not speak TLS; use http, or another port")
        }
        rustls::Error::AlertReceived(alert) => {
            format!("{reached} refused the TLS handshake ({alert:?})")
        }
        rustls::Error::PeerIncompatible(_) => {
            format!("{reached} and Postrider share no TLS version or cipher; TLS 1.2 is the least")
        }
        other => format!("TLS with {reached} failed: {other}"),
    }
}

/// The day of a Unix time, such as 2026-01-31 (UTC).
fn day_of(unix_seconds: u64) -> String {
    let seconds = i64::try_from(unix_seconds).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or_else(
        |_| "an unknown day".to_owned(),
        |time| time.strftime("%Y-%m-%d").to_string(),
    )
}

fn unknown_issuer() -> String {
    "certificate signed by itself or by an unknown authority; send the whole chain, or add the authority to this machine".to_owned()
}

/// The first error of a type in the chain.
pub(super) fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    chain(error).find_map(|each| each.downcast_ref())
}

/// The kind of the deepest I/O error: those above it are mere wrappers, of kind `Other`.
pub(super) fn root_io_kind(error: &(dyn Error + 'static)) -> Option<io::ErrorKind> {
    chain(error)
        .filter_map(|each| each.downcast_ref())
        .last()
        .map(io::Error::kind)
}

/// The words of the root of an error. Never those of reqwest's own error, which may repeat the URL.
pub(super) fn innermost(error: &(dyn Error + 'static)) -> String {
    let root = chain(error).skip(1).last();
    root.map_or_else(
        || "the request could not be made".to_owned(),
        ToString::to_string,
    )
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |each| below(*each))
}

/// An `io::Error` that wraps another error does not name it as its source (its `source` is already the wrapped one's),
/// so it is opened with `get_ref`.
fn below<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    let wrapped = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref);
    wrapped
        .map(|inner| inner as &(dyn Error + 'static))
        .or_else(|| error.source())
}
