//! The thread that sends spans: a batch a second, or sooner when it is full. What the collector does not take is tried twice more, then
//! dropped and counted; the queue before it is bounded, so that a collector that is away costs no memory (promise 6).

use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use tokio::sync::Notify;
use tokio::sync::mpsc::Receiver;
use tracing::{info, warn};

use super::Error;
use super::span::{Span, request};
use crate::metrics::Metrics;

const EVERY: Duration = Duration::from_secs(1);
const BATCH: usize = 512;
const PATIENCE: Duration = Duration::from_secs(10);
const TRIES: u32 = 3;
const LONGEST_ANSWER: usize = 64 * 1024;

/// Why a batch was not taken.
struct Refused {
    message: String,
    /// Whether it may be taken later, as OTLP has it.
    is_passing: bool,
}

pub(super) struct Export {
    http: reqwest::Client,
    endpoint: url::Url,
    metrics: Arc<Metrics>,
    is_failing: bool,
}

impl Export {
    pub(super) fn new(
        endpoint: url::Url,
        authorization: Option<&str>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(text) = authorization {
            let mut value = HeaderValue::from_str(text)?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        // Whoever comes second finds it there already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .default_headers(headers)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PATIENCE)
            .build()?;
        Ok(Self {
            http,
            endpoint,
            metrics,
            is_failing: false,
        })
    }

    /// Runs until nobody makes spans any more, or it is told to end: then it sends what is there, each batch once.
    pub(super) async fn run(mut self, mut spans: Receiver<Span>, ending: &Notify) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut is_ending = false;
        while !is_ending {
            let full = async {
                while batch.len() < BATCH {
                    let room = BATCH - batch.len();
                    if spans.recv_many(&mut batch, room).await == 0 {
                        return true;
                    }
                }
                false
            };
            is_ending = tokio::select! {
                biased;
                () = ending.notified() => true,
                ended = full => ended,
                () = tokio::time::sleep(EVERY) => false,
            };
            if !is_ending {
                tokio::select! {
                    biased;
                    () = ending.notified() => is_ending = true,
                    () = self.send(&batch, TRIES) => batch.clear(),
                }
            }
        }
        spans.close();
        loop {
            while batch.len() < BATCH
                && let Ok(span) = spans.try_recv()
            {
                batch.push(span);
            }
            if batch.is_empty() {
                return;
            }
            // A collector that is away is not waited for.
            let tries = u32::from(!self.is_failing);
            self.send(&batch, tries).await;
            batch.clear();
        }
    }

    async fn send(&mut self, batch: &[Span], tries: u32) {
        if batch.is_empty() {
            return;
        }
        let body = request(batch).to_string();
        for tried in 1..=tries {
            match self.post(body.clone()).await {
                Ok(rejected) => {
                    self.metrics.trace_spans_dropped.inc_by(rejected);
                    if std::mem::take(&mut self.is_failing) {
                        info!("traces are taken again");
                    }
                    return;
                }
                Err(refused) => {
                    if !std::mem::replace(&mut self.is_failing, true) {
                        warn!(
                            message = refused.message,
                            "traces are not taken; see traces.endpoint. Spans are dropped until they are"
                        );
                    }
                    if !refused.is_passing {
                        break;
                    }
                }
            }
            if tried < tries {
                tokio::time::sleep(EVERY * tried).await;
            }
        }
        self.metrics.trace_spans_dropped.inc_by(batch.len() as u64);
    }

    /// How many spans the collector did not take of a batch that it answered with success (OTLP's partial success).
    async fn post(&self, body: String) -> Result<u64, Refused> {
        let sent = self
            .http
            .post(self.endpoint.clone())
            .body(body)
            .send()
            .await;
        match sent {
            Ok(answer) if answer.status().is_success() => Ok(rejected(answer).await),
            Ok(answer) => Err(Refused {
                message: format!("the collector answered {}", answer.status()),
                is_passing: matches!(
                    answer.status(),
                    StatusCode::TOO_MANY_REQUESTS
                        | StatusCode::BAD_GATEWAY
                        | StatusCode::SERVICE_UNAVAILABLE
                        | StatusCode::GATEWAY_TIMEOUT
                ),
            }),
            Err(fault) => Err(Refused {
                message: fault.without_url().to_string(),
                is_passing: true,
            }),
        }
    }
}

/// An answer that cannot be read, or is too long to be one, rejects nothing.
async fn rejected(mut answer: reqwest::Response) -> u64 {
    let mut body = Vec::new();
    while let Ok(Some(part)) = answer.chunk().await {
        if body.len() + part.len() > LONGEST_ANSWER {
            return 0;
        }
        body.extend_from_slice(&part);
    }
    let answer: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let count = &answer["partialSuccess"]["rejectedSpans"];
    // Protobuf's JSON writes an int64 as text, and readers take both.
    count
        .as_u64()
        .or_else(|| count.as_str()?.parse().ok())
        .unwrap_or(0)
}
