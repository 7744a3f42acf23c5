//! Plain HTTP/1.1, without TLS: hyper's client under our own hand, because reqwest's cannot be held to small steps.
//!
//! Keeps promise 4. A receiver may send interim answers (1xx, RFC 9110 15.2) without end, as fast as the wire takes them. hyper reads and skips them
//! within one turn of its task for as long as there is something to read: up to 128 times 408 KiB, which held up all other webhooks
//! of the shard for one to four seconds. Here its buffer is small, and each interim answer is charged to the task's budget, so that it gives way after
//! a buffer's worth. Under TLS a read is a record of 16 KiB, so there reqwest will do.

use std::error::Error;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use tower_service::Service;

use super::super::verdict::Failure;
use super::failure::{self, Reached, ResolveError};
use super::{GuardedResolver, IDLE_CONNECTIONS, IDLE_TIMEOUT};

/// Bytes that are read ahead: no head of an answer may be longer.
const BUFFER_BYTES: usize = 64 * 1024;

type AnyError = Box<dyn Error + Send + Sync>;

/// Why a request has no answer. The chain below it is hyper's.
#[derive(Debug, thiserror::Error)]
pub(super) enum PlainError {
    #[error("the URL cannot be sent")]
    Url(#[source] hyper::http::Error),
    #[error("the request failed")]
    Client(#[source] legacy::Error),
}

impl PlainError {
    /// What it means.
    pub(super) fn told(&self, reached: Reached<'_>) -> Failure {
        let connecting = matches!(self, Self::Client(error) if error.is_connect());
        let late = failure::find::<ConnectTimedOut>(self).is_some()
            || failure::root_io_kind(self) == Some(io::ErrorKind::TimedOut);
        failure::classify(self, connecting, late, reached)
    }
}

/// No connection was made in time.
#[derive(Debug, thiserror::Error)]
#[error("no connection within {0:?}")]
pub(super) struct ConnectTimedOut(Duration);

/// See the module's text. Cheap to clone; a clone shares the connections.
#[derive(Clone)]
pub(super) struct PlainClient(legacy::Client<Connector, Full<Bytes>>);

impl PlainClient {
    pub(super) fn new(resolver: GuardedResolver, connect_timeout: Duration) -> Self {
        let mut connector = HttpConnector::new_with_resolver(resolver);
        connector.set_nodelay(true);
        // Among several addresses the time is divided, as reqwest does.
        connector.set_connect_timeout(Some(connect_timeout));
        let client = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .http1_max_buf_size(BUFFER_BYTES)
            .build(Connector {
                connector,
                connect_timeout,
            });
        Self(client)
    }

    /// Makes a request; the answer is there with its head.
    pub(super) async fn send(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<hyper::Response<Incoming>, PlainError> {
        let mut request = hyper::Request::builder()
            .method(method)
            .uri(url.as_str())
            .body(Full::new(body))
            .map_err(PlainError::Url)?;
        *request.headers_mut() = headers;
        // As reqwest does where TLS is.
        let accept = request.headers_mut().entry(ACCEPT);
        accept.or_insert(HeaderValue::from_static("*/*"));
        hyper::ext::on_informational(&mut request, |_| charge());
        self.0.request(request).await.map_err(PlainError::Client)
    }
}

/// Takes one from what the running task may do before it gives way; with nothing left its next read waits for its next turn.
fn charge() {
    let mut nobody = Context::from_waker(Waker::noop());
    if let Poll::Ready(charged) = tokio::task::coop::poll_proceed(&mut nobody) {
        charged.made_progress();
    }
}

impl Service<Name> for GuardedResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = ResolveError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ResolveError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ResolveError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let resolver = self.clone();
        Box::pin(async move { Ok(resolver.reachable(name.as_str()).await?.into_iter()) })
    }
}

/// hyper's connector, with one limit for the lookup and the connecting.
#[derive(Clone)]
struct Connector {
    connector: HttpConnector<GuardedResolver>,
    connect_timeout: Duration,
}

impl Service<hyper::Uri> for Connector {
    type Response = <HttpConnector<GuardedResolver> as Service<hyper::Uri>>::Response;
    type Error = AnyError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, AnyError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), AnyError>> {
        self.connector.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, target: hyper::Uri) -> Self::Future {
        let limit = self.connect_timeout;
        let connecting = self.connector.call(target);
        Box::pin(async move {
            match tokio::time::timeout(limit, connecting).await {
                Ok(connected) => connected.map_err(Into::into),
                Err(_) => Err(ConnectTimedOut(limit).into()),
            }
        })
    }
}
