//! OpenTelemetry traces: spans go in, OTLP over HTTP in JSON comes out. Off unless `traces.endpoint` is set.
//!
//! A trace must never cost a delivery anything (promise 4): a span is put into a bounded queue or dropped and counted, and one thread sends
//! what is in it. Without OpenTelemetry's own crates, because this much of the protocol is small.
//!
//! - `context`: W3C trace context
//! - `span`: a span and its form on the wire
//! - `names`: what spans and attributes are called
//! - `export`: the thread that sends them

pub mod context;
mod export;
pub mod names;
pub mod span;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;
use tokio::sync::mpsc::{Sender, channel};

use crate::metrics::Metrics;
use context::Context;
use span::{Kind, Span};

/// Spans that wait to be sent, at most; about 8 MB (promise 6).
const QUEUE: usize = 8192;

/// Why there are no traces. The program does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("a client for traces.endpoint cannot be made: {0}")]
    Client(#[from] reqwest::Error),
    #[error("traces.authorization is no header's value: {0}")]
    Authorization(#[from] reqwest::header::InvalidHeaderValue),
    #[error("could not start the thread of the traces: {0}")]
    Thread(#[from] std::io::Error),
}

/// Makes spans and takes them when they end. Shared by the stages; the thread ends when the last of them has dropped it.
pub struct Tracer {
    queue: Sender<Span>,
    sample_ratio: f64,
    metrics: Arc<Metrics>,
    /// Tells the thread to send what there is, and end.
    ending: Arc<Notify>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Tracer {
    /// Starts the thread that sends to `endpoint`, with `authorization` where the collector wants to see it. `sample_ratio`, from 0 to 1, is the share of traces that are recorded of those that begin here.
    ///
    /// # Errors
    /// TLS or a thread cannot be had at all.
    pub fn start(
        endpoint: &url::Url,
        authorization: Option<&str>,
        sample_ratio: f64,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, Error> {
        let (queue, spans) = channel(QUEUE);
        let ending = Arc::new(Notify::new());
        let export = export::Export::new(endpoint.clone(), authorization, Arc::clone(metrics))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let told = Arc::clone(&ending);
        let thread = std::thread::Builder::new()
            .name("traces".to_owned())
            .spawn(move || runtime.block_on(export.run(spans, &told)))?;
        Ok(Self {
            queue,
            sample_ratio,
            metrics: Arc::clone(metrics),
            ending,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// The first span of ours in the trace of a `traceparent`, or in one that begins here. `None` when it is not to be recorded: the
    /// parent decides where there is one, the ratio otherwise.
    pub fn enter(&self, traceparent: Option<&str>) -> Option<Span> {
        match traceparent.and_then(Context::parse) {
            Some(parent) => parent.sampled.then(|| self.below(&parent)).flatten(),
            None => {
                let trace: [u8; 16] = random()?;
                is_sampled(&trace, self.sample_ratio)
                    .then(|| begin(trace, None))
                    .flatten()
            }
        }
    }

    /// A span below another. `None` when the machine gives no random numbers.
    pub fn below(&self, parent: &Context) -> Option<Span> {
        begin(parent.trace, Some(parent.span))
    }

    /// Ends a span and hands it over, or drops it when the queue is full.
    pub fn end(&self, mut span: Span) {
        span.ended = now();
        if self.queue.try_send(span).is_err() {
            self.metrics.trace_spans_dropped.inc();
        }
    }

    /// Sends what is in the queue, for at most until `deadline`.
    pub fn stop(&self, deadline: Instant) {
        self.ending.notify_one();
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(thread) = thread.take() else {
            return;
        };
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

fn begin(trace: [u8; 16], parent: Option<[u8; 8]>) -> Option<Span> {
    Some(Span {
        context: Context {
            trace,
            span: random()?,
            sampled: true,
        },
        parent,
        kind: Kind::Client,
        name: String::new(),
        started: now(),
        ended: 0,
        attributes: Vec::new(),
        link: None,
        error: None,
    })
}

/// Whether a trace that begins here is recorded: its last seven bytes, which are random, are below the ratio.
fn is_sampled(trace: &[u8; 16], ratio: f64) -> bool {
    let tail = trace
        .iter()
        .skip(9)
        .fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    (tail as f64) < ratio * (1_u64 << 56) as f64
}

/// Never all zero, which would be no id.
fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).ok()?;
    (bytes != [0; N]).then_some(bytes)
}

fn now() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_the_share_of_the_ratio_is_recorded_and_all_or_nothing_at_its_ends() {
        let count = |ratio| {
            let traces = (0..2000).map(|_| random().unwrap());
            traces.filter(|trace| is_sampled(trace, ratio)).count()
        };
        assert_eq!(count(0.0), 0);
        assert_eq!(count(1.0), 2000);
        let quarter = count(0.25);
        assert!((350..650).contains(&quarter), "{quarter}");
    }

    #[test]
    fn a_full_queue_drops_spans_and_counts_them() {
        let metrics = Arc::new(Metrics::new().unwrap());
        // Nobody answers there; and the thread has no time to take more than a batch or two meanwhile.
        let endpoint = "http://127.0.0.1:9/v1/traces".parse().unwrap();
        let tracer = Tracer::start(&endpoint, None, 1.0, &metrics).unwrap();
        let span = tracer.enter(None).unwrap();
        for _ in 0..3 * QUEUE {
            tracer.end(span.clone());
        }
        assert!(metrics.trace_spans_dropped.get() > 0);
        tracer.stop(Instant::now() + std::time::Duration::from_secs(10));
        assert_eq!(metrics.trace_spans_dropped.get(), 3 * QUEUE as u64);
    }

    #[test]
    fn the_parents_flag_decides_and_a_broken_parent_is_none() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let endpoint = "http://127.0.0.1:9/v1/traces".parse().unwrap();
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let always = Tracer::start(&endpoint, None, 1.0, &metrics).unwrap();
        let never = Tracer::start(&endpoint, None, 0.0, &metrics).unwrap();
        let span = never.enter(Some(parent)).unwrap();
        assert_eq!(span.parent, Context::parse(parent).map(|found| found.span));
        assert_eq!(always.enter(Some(&parent.replace("-01", "-00"))), None);
        assert_eq!(always.enter(Some("broken")).unwrap().parent, None);
        assert_eq!(never.enter(Some("broken")), None);
    }
}
