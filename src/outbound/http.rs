//! Sends one request and brings back what came of it, whatever the receiver does.
//!
//! Keeps promise 4 (one deadline covers everything from DNS to the last body byte; no body is read beyond a cap) and
//! promise 7 (addresses are checked where the connection is made, so a name that changes its address gains nothing).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::redirect;
use tokio::time::{Instant, timeout_at};

use super::guard::{Blocked, Guard};
use super::request::Endpoint;
use super::verdict::{Failure, FailureKind, Verdict, judge_failure, judge_status};

mod failure;
mod names;

use failure::{Reached, ResolveError};
use names::Names;

/// How long a resolver may take, where the limit for connecting is not sooner.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried. hyper divides the time for connecting among all it is given.
const MOST_ADDRESSES: usize = 8;
/// How long a body may take once the status, which decides, is there.
const BODY_TIMEOUT: Duration = Duration::from_secs(1);
/// Idle connections kept for one host: enough that a busy lane reuses all of its own.
const IDLE_CONNECTIONS: usize = 64;
/// How long an idle connection is kept. Most servers close theirs after 60 s or more.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// An HTTP/2 connection carries all requests to a host, so a dead one must be noticed soon.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Response headers that are kept: so many, and so many bytes.
const MOST_RESPONSE_HEADERS: usize = 64;
const MOST_RESPONSE_HEADER_BYTES: usize = 8192;

/// The process cannot make requests at all; it does not start.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client cannot be built: {0}")]
pub struct ClientError(String);

/// What came of one request: a status or a failure, never both, never neither.
#[derive(Debug)]
pub struct Sent {
    /// The status, as soon as the head of an answer was read.
    pub status: Option<u16>,
    /// Why there is none.
    pub failure: Option<Failure>,
    /// All `Retry-After` headers.
    pub retry_after: Vec<HeaderValue>,
    /// The response's headers, up to 64 of them and 8 KiB.
    pub headers: HeaderMap,
    /// The beginning of the response's body.
    pub body: Bytes,
    /// Whether the body went on, was cut off, or did not end in time.
    pub truncated: bool,
    /// From before DNS to after the last byte that was read.
    pub duration: Duration,
}

impl Sent {
    fn failed(failure: Failure, duration: Duration) -> Self {
        Self {
            status: None,
            failure: Some(failure),
            retry_after: Vec::new(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            truncated: false,
            duration,
        }
    }

    /// What it means for the delivery. `unix_seconds` is now.
    pub fn verdict(&self, unix_seconds: u64) -> Verdict {
        match (self.status, &self.failure) {
            (Some(status), _) => judge_status(
                status,
                self.retry_after.iter().map(HeaderValue::as_bytes),
                unix_seconds,
            ),
            (None, failure) => judge_failure(
                failure
                    .as_ref()
                    .map_or(FailureKind::Protocol, |failure| failure.kind),
            ),
        }
    }
}

/// An HTTP client. Cheap to clone; a clone shares the connections. A shard should have one of its own, for a
/// connection is served by the runtime that opened it.
#[derive(Clone)]
pub struct Client {
    guard: Arc<Guard>,
    /// For receivers whose certificate is checked. An error where this machine has no list of trusted authorities.
    checking: Result<reqwest::Client, String>,
    /// For `verify_ssl = false`, and for plain http.
    trusting: reqwest::Client,
    connect_timeout: Duration,
    response_body_bytes: usize,
}

impl Client {
    /// Builds a client that reaches what `guard` lets it, and keeps `response_body_bytes` of a response.
    ///
    /// # Errors
    /// [`ClientError`] where TLS cannot be set up at all.
    pub fn new(
        guard: Arc<Guard>,
        connect_timeout: Duration,
        response_body_bytes: usize,
    ) -> Result<Self, ClientError> {
        // The limit for connecting covers the lookup too; the resolver's must pass before it, or its fault is never told.
        let patience = RESOLVE_TIMEOUT.min(connect_timeout * 4 / 5);
        let names = Names::of_the_system(patience);
        Self::resolving_by(names, None, guard, connect_timeout, response_body_bytes)
    }

    /// Tests have names and an `authority` of their own; without one, those of this machine are trusted.
    fn resolving_by(
        names: Names,
        authority: Option<reqwest::Certificate>,
        guard: Arc<Guard>,
        connect_timeout: Duration,
        response_body_bytes: usize,
    ) -> Result<Self, ClientError> {
        // Fails when a provider is installed already, which is what is wanted.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let resolver = Arc::new(GuardedResolver {
            guard: Arc::clone(&guard),
            names: Arc::new(names),
        });
        let builder = || {
            let builder = reqwest::Client::builder();
            let builder = match authority.clone() {
                Some(authority) => builder.tls_certs_only([authority]),
                None => builder,
            };
            builder
                .redirect(redirect::Policy::none())
                // An attempt is one request; whoever counts attempts decides about another.
                .retry(reqwest::retry::never())
                .no_proxy()
                .referer(false)
                .dns_resolver(Arc::clone(&resolver))
                .connect_timeout(connect_timeout)
                .pool_max_idle_per_host(IDLE_CONNECTIONS)
                .pool_idle_timeout(IDLE_TIMEOUT)
                .http2_keep_alive_interval(PING_INTERVAL)
                .http2_keep_alive_timeout(PING_TIMEOUT)
                .tcp_nodelay(true)
        };
        let trusting = builder().tls_danger_accept_invalid_certs(true).build();
        Ok(Self {
            guard,
            checking: builder()
                .build()
                .map_err(|error| failure::innermost(&error)),
            trusting: trusting.map_err(|error| ClientError(failure::innermost(&error)))?,
            connect_timeout,
            response_body_bytes,
        })
    }

    /// Why no receiver's certificate can be checked on this machine, if so. Worth a warning at the start.
    pub fn certificate_trouble(&self) -> Option<&str> {
        self.checking.as_ref().err().map(String::as_str)
    }

    /// Makes one attempt. Always returns, at the latest when the endpoint's timeout is over.
    ///
    /// The status decides: what happens to the body after it (cut off, endless, slow) is no failure. At most the cap
    /// is read, for at most a second; a connection with an unread rest is closed.
    pub async fn send(&self, endpoint: &Endpoint, headers: HeaderMap, body: Bytes) -> Sent {
        let started = Instant::now();
        // hyper connects to a literal address without asking the resolver, so the URL itself is checked here.
        if let Err(refused) = self.guard.check_url(&endpoint.url) {
            let failure = Failure {
                kind: FailureKind::Blocked,
                message: refused.to_string(),
            };
            return Sent::failed(failure, started.elapsed());
        }
        let client = match &self.checking {
            Ok(client) if endpoint.verify_ssl => client,
            Err(trouble) if endpoint.verify_ssl && endpoint.url.scheme() == "https" => {
                return Sent::failed(failure::no_authorities(trouble), started.elapsed());
            }
            _ => &self.trusting,
        };
        let mut request = reqwest::Request::new(endpoint.method.clone(), endpoint.url.clone());
        *request.headers_mut() = headers;
        *request.body_mut() = Some(body.into());
        let deadline = started + endpoint.timeout;
        match timeout_at(deadline, client.execute(request)).await {
            Ok(Ok(response)) => self.read(response, started, deadline).await,
            Ok(Err(error)) => {
                let reached = Reached {
                    url: &endpoint.url,
                    connect_timeout: self.connect_timeout,
                };
                Sent::failed(failure::classify(&error, reached), started.elapsed())
            }
            Err(_) => Sent::failed(
                failure::deadline_passed(endpoint.timeout),
                started.elapsed(),
            ),
        }
    }

    async fn read(
        &self,
        mut response: reqwest::Response,
        started: Instant,
        deadline: Instant,
    ) -> Sent {
        let status = response.status().as_u16();
        let retry_after = response
            .headers()
            .get_all(RETRY_AFTER)
            .iter()
            .cloned()
            .collect();
        let headers = capped(std::mem::take(response.headers_mut()));
        let expected = response
            .content_length()
            .and_then(|length| usize::try_from(length).ok())
            .unwrap_or(0);
        // Copied, not sliced: a slice would keep hyper's whole read buffer alive for as long as the history holds it.
        let mut body = Vec::with_capacity(expected.min(self.response_body_bytes));
        let until = deadline.min(Instant::now() + BODY_TIMEOUT);
        let truncated = loop {
            match timeout_at(until, response.chunk()).await {
                Ok(Ok(Some(chunk))) => {
                    let room = self.response_body_bytes - body.len();
                    body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
                    if chunk.len() > room {
                        break true;
                    }
                }
                Ok(Ok(None)) => break false,
                Ok(Err(_)) | Err(_) => break true,
            }
        };
        let duration = started.elapsed();
        Sent {
            status: Some(status),
            failure: None,
            retry_after,
            headers,
            body: body.into(),
            truncated,
            duration,
        }
    }
}

/// Keeps the first headers that fit. Nearly always all of them, and then nothing is copied.
fn capped(headers: HeaderMap) -> HeaderMap {
    let mut bytes = 0;
    let kept = headers
        .iter()
        .take(MOST_RESPONSE_HEADERS)
        .take_while(|(name, value)| {
            bytes += name.as_str().len() + value.len();
            bytes <= MOST_RESPONSE_HEADER_BYTES
        });
    let count = kept.count();
    if count == headers.len() {
        return headers;
    }
    let mut fewer = HeaderMap::with_capacity(count);
    for (name, value) in headers.iter().take(count) {
        fewer.append(name.clone(), value.clone());
    }
    fewer
}

/// Asks the system, and lets through only the addresses that may be reached.
struct GuardedResolver {
    guard: Arc<Guard>,
    names: Arc<Names>,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = Arc::clone(&self.guard);
        let names = Arc::clone(&self.names);
        Box::pin(async move {
            let found = names.look_up(name.as_str()).await?.into_iter();
            let reachable = only_reachable(&guard, found)?;
            Ok(Box::new(reachable.into_iter()) as Addrs)
        })
    }
}

/// A name with public and private addresses is reached at its public ones only.
fn only_reachable(
    guard: &Guard,
    found: impl Iterator<Item = SocketAddr>,
) -> Result<Vec<SocketAddr>, ResolveError> {
    let mut first_blocked: Option<Blocked> = None;
    let mut reachable = Vec::new();
    for address in found {
        match guard.check(address.ip()) {
            Ok(()) => reachable.push(address),
            Err(blocked) => {
                first_blocked.get_or_insert(blocked);
            }
        }
        if reachable.len() == MOST_ADDRESSES {
            break;
        }
    }
    match first_blocked {
        _ if !reachable.is_empty() => Ok(reachable),
        Some(blocked) => Err(ResolveError::Blocked(blocked)),
        None => Err(ResolveError::NoAddress),
    }
}

#[cfg(test)]
mod tests;
