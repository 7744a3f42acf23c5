//! Stage 6, what can be seen from outside: the API ([`api`]), and metrics and health on the telemetry address.
//!
//! `/livez` says that the process works and never asks Kafka (a broker's trouble must not make an orchestrator kill routers);
//! `/readyz` says whether it can do its duty now.

pub mod api;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// One condition of readiness.
#[derive(Clone, Debug)]
pub struct Check {
    pub name: String,
    pub passes: bool,
    /// What is so, in a few words.
    pub detail: String,
}

/// What the windows look at.
pub trait Inside: Send + Sync + 'static {
    /// All conditions of readiness, as they are now. It may ask the broker and block for a second.
    fn checks(&self) -> Vec<Check>;

    /// Brings gauges that are read rather than counted up to now.
    fn refresh(&self);

    fn metrics(&self) -> &Metrics;
}

/// Binds the telemetry address and serves it in the background. The answer is the address, which matters for port 0.
///
/// # Errors
/// The address cannot be bound; the message of the operating system.
pub async fn serve(listen: SocketAddr, inside: Arc<dyn Inside>) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    let routes = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(inside);
    tokio::spawn(async move {
        if let Err(fault) = axum::serve(listener, routes).await {
            tracing::error!(%fault, "the telemetry address is served no more");
        }
    });
    Ok(address)
}

async fn ready(State(inside): State<Arc<dyn Inside>>, RawQuery(query): RawQuery) -> Response {
    let verbose = query.is_some_and(|query| {
        query
            .split('&')
            .any(|part| part == "verbose" || part.starts_with("verbose="))
    });
    let checks = tokio::task::spawn_blocking(move || inside.checks())
        .await
        .unwrap_or_default();
    let passes = !checks.is_empty() && checks.iter().all(|check| check.passes);
    let status = if passes {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let mut text = String::new();
    for check in checks.iter().filter(|check| verbose || !check.passes) {
        let mark = if check.passes { '+' } else { '-' };
        text.push_str(&format!("[{mark}] {}: {}\n", check.name, check.detail));
    }
    text.push_str(if passes { "ready\n" } else { "not ready\n" });
    (status, text).into_response()
}

async fn metrics(State(inside): State<Arc<dyn Inside>>) -> Response {
    let page = tokio::task::spawn_blocking(move || {
        inside.refresh();
        inside.metrics().page()
    });
    let page = page
        .await
        .unwrap_or_else(|fault| Err(prometheus::Error::Msg(fault.to_string())));
    match page {
        Ok(page) => (
            [(
                header::CONTENT_TYPE,
                "text/plain; version=0.0.4; charset=utf-8",
            )],
            page,
        )
            .into_response(),
        Err(fault) => (StatusCode::INTERNAL_SERVER_ERROR, fault.to_string()).into_response(),
    }
}
