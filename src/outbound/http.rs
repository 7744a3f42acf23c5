//! Sends one request and brings back what came of it, whatever the receiver does.
//!
//! Keeps promise 4 (one deadline covers everything from DNS to the last body byte; no body is read beyond a cap) and
//! promise 7 (addresses are checked where the connection is made, so a name that changes its address gains nothing).

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Body;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::redirect;
use tokio::time::{Instant, timeout_at};

use super::guard::{Blocked, Guard};
use super::request::Endpoint;
use super::verdict::{Failure, FailureKind, Verdict, judge_failure, judge_status};

mod failure;
mod names;
mod plain;

use failure::{Reached, ResolveError};
use names::Names;
use plain::PlainClient;

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
    /// For `verify_ssl = false`.
    trusting: reqwest::Client,
    /// For http without TLS.
    plain: PlainClient,
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
        let resolver = GuardedResolver {
            guard: Arc::clone(&guard),
            names: Arc::new(names),
        };
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
                .dns_resolver(Arc::new(resolver.clone()))
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
            plain: PlainClient::new(resolver, connect_timeout),
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
        let reached = Reached {
            url: &endpoint.url,
            connect_timeout: self.connect_timeout,
        };
        let method = endpoint.method.clone();
        if endpoint.url.scheme() == "http" {
            let answer = self.plain.send(method, &endpoint.url, headers, body);
            let answer = async { answer.await.map_err(|error| error.told(reached)) };
            return self.within(endpoint.timeout, started, answer).await;
        }
        let client = match &self.checking {
            Ok(client) if endpoint.verify_ssl => client,
            Err(trouble) if endpoint.verify_ssl => {
                return Sent::failed(failure::no_authorities(trouble), started.elapsed());
            }
            _ => &self.trusting,
        };
        let mut request = reqwest::Request::new(method, endpoint.url.clone());
        *request.headers_mut() = headers;
        *request.body_mut() = Some(body.into());
        let answer = async {
            let answer = client.execute(request).await;
            answer
                .map(hyper::Response::<reqwest::Body>::from)
                .map_err(|error| {
                    failure::classify(&error, error.is_connect(), error.is_timeout(), reached)
                })
        };
        self.within(endpoint.timeout, started, answer).await
    }

    /// Waits for the head of an answer, and reads what of its body there is time for.
    async fn within<B>(
        &self,
        timeout: Duration,
        started: Instant,
        answer: impl Future<Output = Result<hyper::Response<B>, Failure>>,
    ) -> Sent
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let deadline = started + timeout;
        match timeout_at(deadline, answer).await {
            Ok(Ok(response)) => self.read(response, started, deadline).await,
            Ok(Err(failure)) => Sent::failed(failure, started.elapsed()),
            Err(_) => Sent::failed(failure::deadline_passed(timeout), started.elapsed()),
        }
    }

    async fn read<B>(
        &self,
        response: hyper::Response<B>,
        started: Instant,
        deadline: Instant,
    ) -> Sent
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (head, mut incoming) = response.into_parts();
        let status = head.status.as_u16();
        let retry_after = head.headers.get_all(RETRY_AFTER).iter().cloned().collect();
        let headers = capped(head.headers);
        let expected = incoming.size_hint().exact();
        let expected = expected.and_then(|length| usize::try_from(length).ok());
        let expected = expected.unwrap_or(0);
        // Copied, not sliced: a slice would keep hyper's whole read buffer alive for as long as the history holds it.
        let mut body = Vec::with_capacity(expected.min(self.response_body_bytes));
        let until = deadline.min(Instant::now() + BODY_TIMEOUT);
        let truncated = loop {
            match timeout_at(until, incoming.frame()).await {
                Ok(Some(Ok(frame))) => {
                    // Trailers are nothing that anybody asks for.
                    let chunk = frame.into_data().unwrap_or_default();
                    let room = self.response_body_bytes - body.len();
                    body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
                    if chunk.len() > room {
                        break true;
                    }
                }
                Ok(None) => break false,
                Ok(Some(Err(_))) | Err(_) => break true,
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
#[derive(Clone)]
struct GuardedResolver {
    guard: Arc<Guard>,
    names: Arc<Names>,
}

impl GuardedResolver {
    /// The addresses of a name that may be reached; never none.
    async fn reachable(&self, name: &str) -> Result<Vec<SocketAddr>, ResolveError> {
        let found = self.names.look_up(name).await?;
        only_reachable(&self.guard, found.into_iter())
    }
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let resolver = self.clone();
        Box::pin(async move {
            let reachable = resolver.reachable(name.as_str()).await?;
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
