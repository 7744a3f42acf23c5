//! Stage 3: one delivery → one signed request → one outcome.
//!
//! In: [`Submission`]s, each a delivery with its webhook and the duty to settle it. Out, for every one of them and exactly once: a
//! [`Finish`](shard::Finish). What follows from it (retry, dead letter) is decided above; nothing here writes to Kafka.
//!
//! - [`shard`]: the thread that owns lanes and connections
//! - [`lane`]: queue, concurrency ([`window`]), [`limiter`], [`breaker`] and gate of one webhook; [`budget`]: the bytes of all;
//!   [`limits`]: what may change in a running instance
//! - [`notice`]: what a lane learns of its endpoint that others must know
//! - [`request`], [`signature`]: the headers of one attempt
//! - [`http`], [`guard`]: the request and where it may go
//! - [`verdict`]: what the answer means

pub mod breaker;
pub mod budget;
pub mod guard;
pub mod http;
pub mod lane;
pub mod limiter;
pub mod limits;
pub mod notice;
pub mod request;
pub mod shard;
mod shown;
pub mod signature;
pub mod verdict;
pub mod window;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use governor::{Quota, RateLimiter};
use ipnet::IpNet;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tracing::warn;

use crate::metrics::Metrics;
use crate::traces::Tracer;
use breaker::Standings;
use guard::Guard;
use http::Client;
use limits::Limits;
use notice::{KeepsUp, Recall, Report};
use shard::{Conclude, Order, ShardSettings, Submission};

/// Our own faults: the process does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Client(#[from] http::ClientError),
    #[error("could not start a shard: {0}")]
    Thread(#[from] std::io::Error),
}

/// What all shards need to know.
pub struct Settings {
    /// Threads that send; at least one.
    pub shards: usize,
    /// Of the whole instance.
    pub limits: Limits,
    pub report: Report,
    pub recall: Recall,
    pub keeps_up: KeepsUp,
    pub connect_timeout: Duration,
    /// Kept of a response.
    pub response_body_bytes: usize,
    /// Successes in a second of all shards that are told with headers and body.
    pub success_details_per_second: u32,
    /// Networks outside the global Internet that may be reached.
    pub allow_networks: Vec<IpNet>,
    /// Webhooks that may have metrics of their own.
    pub labelled_webhooks: usize,
    /// `None` where nothing is traced.
    pub tracer: Option<Arc<Tracer>>,
}

/// The running shards.
pub struct Outbound {
    standings: Arc<Standings>,
    shards: Vec<UnboundedSender<Order>>,
    threads: std::sync::Mutex<Vec<JoinHandle<()>>>,
}

impl Outbound {
    /// Starts the threads. `conclude` is called for every submission, once.
    ///
    /// # Errors
    /// TLS or a thread cannot be had at all.
    pub fn start(
        settings: &Settings,
        conclude: &Conclude,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, Error> {
        let count = settings.shards.max(1);
        let standings = Arc::new(Standings::default());
        let details = NonZeroU32::new(settings.success_details_per_second)
            .map(|most| Arc::new(RateLimiter::direct(Quota::per_second(most))));
        let mut shards = Vec::with_capacity(count);
        let mut threads = Vec::with_capacity(count);
        for number in 0..count {
            let guard = Arc::new(Guard::new(settings.allow_networks.clone()));
            let client = Client::new(
                guard,
                settings.connect_timeout,
                settings.response_body_bytes,
            )?;
            if number == 0
                && let Some(trouble) = client.certificate_trouble()
            {
                warn!(
                    trouble,
                    "no receiver's certificate can be checked on this machine; install its list of authorities (ca-certificates)"
                );
            }
            let settings = ShardSettings {
                client,
                limits: settings.limits.of_a_shard(count),
                report: Arc::clone(&settings.report),
                recall: Arc::clone(&settings.recall),
                keeps_up: Arc::clone(&settings.keeps_up),
                labelled_webhooks: settings.labelled_webhooks.div_ceil(count),
                standings: Arc::clone(&standings),
                conclude: Arc::clone(conclude),
                metrics: Arc::clone(metrics),
                tracer: settings.tracer.clone(),
                details: details.clone(),
            };
            #[expect(
                clippy::disallowed_methods,
                reason = "what is in it is bounded by the budget, which every submission is charged to before it is sent"
            )]
            let (orders, inbox) = unbounded_channel();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let thread = std::thread::Builder::new()
                .name(format!("shard-{number}"))
                .spawn(move || {
                    let local = tokio::task::LocalSet::new();
                    local.block_on(&runtime, shard::run(settings, inbox));
                })?;
            shards.push(orders);
            threads.push(thread);
        }
        Ok(Self {
            standings,
            shards,
            threads: std::sync::Mutex::new(threads),
        })
    }

    /// The states of the webhooks' breakers.
    pub fn standings(&self) -> &Arc<Standings> {
        &self.standings
    }

    /// Hands over a delivery. It is bounded by the caller's budget, not here.
    pub fn submit(&self, submission: Submission) {
        let mut hasher = DefaultHasher::new();
        submission.webhook.id.hash(&mut hasher);
        let count = self.shards.len().max(1) as u64;
        let number = usize::try_from(hasher.finish() % count).unwrap_or(0);
        if let Some(shard) = self.shards.get(number) {
            // A shard that is gone has dropped its inbox: the receipt is dropped with the order and the record read again.
            let _ = shard.send(Order::Submit(Box::new(submission)));
        }
    }

    /// Some assignment is not live any more: what waits for it is put back or forgotten.
    pub fn fence(&self) {
        self.order(|| Order::Fence);
    }

    /// Everything that waits is given back, now and from now on; requests under way go on.
    pub fn park(&self) {
        self.order(|| Order::Park);
    }

    /// New limits of the whole instance. What is under way goes on.
    pub fn limit(&self, limits: Limits) {
        let limits = limits.of_a_shard(self.shards.len());
        self.order(|| Order::Limit(limits));
    }

    fn order(&self, order: impl Fn() -> Order) {
        for shard in &self.shards {
            let _ = shard.send(order());
        }
    }

    /// Ends the shards when their last request has ended, at the latest after `limit`; `false` when requests were left.
    pub fn stop(mut self, limit: Duration) -> bool {
        self.shards.clear();
        let threads = std::mem::take(
            self.threads
                .get_mut()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        );
        let deadline = std::time::Instant::now() + limit;
        while std::time::Instant::now() < deadline {
            if threads.iter().all(JoinHandle::is_finished) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }
}
