//! Build, start, stop: `main`, the demo and the tests come in by this door.
//!
//! Starting verifies the topics, loads the catalog, and only then joins the groups; stopping stops the reading, ends or
//! parks what is under way, commits and leaves (graceful within [`STOP_LIMIT`]).
//!
//! - `stages`: the loops and their readers
//! - `prepare`: what a configuration means on a cluster: connection, topics, key
//! - `history`: what happened, written beside the loops
//! - `api`: what stands behind the API
//! - `health`: what is shown of a running instance
//! - `reload`: what of a changed configuration it takes over

mod api;
mod health;
mod history;
mod past;
mod prepare;
mod reload;
mod stages;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tracing::{info, warn};

use crate::config::Config;
use crate::kafka::consumer::Reader;
use crate::kafka::producer::Producer;
use crate::kafka::settings::Connection;
use crate::kafka::table::Follower;
use crate::matching::catalog::Catalog;
use crate::metrics::Metrics;
use crate::outbound::breaker::State;
use crate::outbound::budget::Budget;
use crate::outbound::{self, Outbound};
use crate::pipeline::alerts::Alerts;
use crate::pipeline::changes::{Changes, Written};
use crate::pipeline::conditions::Conditions;
use crate::pipeline::hold::Cursors;
use crate::pipeline::topics::Topics;
use crate::pipeline::{Ways, followers};
use crate::subscription::WebhookId;
use crate::subscription::seal::InvalidKey;
use crate::token::Token;
use crate::web::api::Served;
use crate::web::{self, Inside};
use health::{Running, Sources};
use history::History;
pub use history::open_store;
pub use prepare::{connection, origin, planned, reached, reading, sealing_key};
pub use stages::Stages;
use stages::Starter;

/// A graceful stop takes at most this.
pub const STOP_LIMIT: Duration = Duration::from_secs(20);
/// For the last spans, where the rest of the stop took all its time.
const LAST_TRACES: Duration = Duration::from_millis(500);
const LOAD_LIMIT: Duration = Duration::from_secs(60);

/// Why the program does not start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Kafka(#[from] crate::kafka::Error),
    #[error(transparent)]
    Outbound(#[from] outbound::Error),
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("secrets.key: {0}")]
    Key(#[from] InvalidKey),
    #[error("secrets.old_keys: {0}")]
    OldKey(InvalidKey),
    #[error("{0}")]
    Topics(String),
    #[error(
        "web.telemetry_listen: cannot listen on {address}: {fault}; free the port or name another"
    )]
    Listen {
        address: SocketAddr,
        fault: std::io::Error,
    },
    #[error(
        "web.listen: cannot listen on {address}: {fault}; free the port, name another, or write \"\" to serve no API"
    )]
    ListenForApi {
        address: SocketAddr,
        fault: std::io::Error,
    },
    #[error(
        "the broker at {0} does not answer; check kafka.bootstrap_servers, the network and, where the cluster wants them, security.protocol and its keys in kafka.properties ({1})"
    )]
    Unreachable(String, String),
    #[error("the catalog could not be read within a minute; the broker is slow or away")]
    CatalogNotLoaded,
    #[error("could not start a thread: {0}")]
    Thread(#[from] std::io::Error),
    #[error(transparent)]
    History(#[from] crate::history::Fault),
    #[error(transparent)]
    Traces(#[from] crate::traces::Error),
    #[error("the producer met a fatal error and the process must begin anew")]
    ProducerFailed,
    #[error("a reader ended by itself")]
    ReaderEnded,
}

/// A running router.
pub struct App {
    inside: Arc<Running>,
    outbound: Option<Arc<Outbound>>,
    /// Shared with the deliver stage's reader.
    budget: Arc<Budget>,
    readers: Vec<Reader>,
    history: Option<History>,
    /// Ended when dropped.
    _followers: Vec<Follower>,
    telemetry: SocketAddr,
    /// Ends when dropped; `None` where it is not served.
    api: Option<Served>,
    /// Those of the configuration, shared with the API.
    tokens: Arc<ArcSwap<Vec<Token>>>,
}

impl App {
    /// Starts the stages. When it returns the catalog is loaded and the groups are being joined.
    ///
    /// # Errors
    /// See [`Error`]; nothing is left running.
    pub async fn start(config: &Config, stages: Stages) -> Result<Self, Error> {
        let (connection, plans) = planned(config).await?;
        prepare::prepare_topics(config, &connection, plans).await?;
        Self::start_on(config, stages, connection).await
    }

    /// The same on a cluster whose topics are known to be there (the embedded broker of the demo has no admin protocol).
    ///
    /// # Errors
    /// As [`App::start`].
    pub async fn start_on(
        config: &Config,
        stages: Stages,
        connection: Connection,
    ) -> Result<Self, Error> {
        let metrics = Arc::new(Metrics::new()?);
        let topics = Topics::new(&config.kafka.topic_prefix);
        let catalog = Arc::new(Catalog::default());
        let cursors = Arc::new(Cursors::default());
        let key = sealing_key(config)?;
        let hold_after = Duration::from_secs(config.retry.hold_after_seconds);
        let conditions = Arc::new(Conditions::new(hold_after));
        let written = Arc::new(Written::default());
        let followers = vec![
            followers::catalog(
                &connection,
                &topics.subscriptions,
                key.clone(),
                Arc::clone(&catalog),
                Arc::clone(&conditions),
                Arc::clone(&metrics),
                Arc::clone(&written),
            )?,
            followers::cursors(&connection, &topics.replays, Arc::clone(&cursors))?,
        ];
        let ways = Arc::new(Ways {
            producer: Producer::start(&connection.producer(), Arc::clone(&metrics))?,
            topics,
            catalog: Arc::clone(&catalog),
            conditions,
            paces: ArcSwap::from_pointee(stages::paces(config)),
            alerts: Alerts::default(),
            key: key.clone(),
            metrics: Arc::clone(&metrics),
            tracer: prepare::tracer(config, &metrics)?,
            group: config.kafka.group_id.clone(),
            record_attempts: config.history.attempts,
        });
        let deadline = Instant::now() + LOAD_LIMIT;
        while !(catalog.is_loaded() && cursors.is_loaded()) {
            if Instant::now() > deadline {
                return Err(Error::CatalogNotLoaded);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }

        let mut starter = Starter {
            config,
            connection: &connection,
            ways: &ways,
            readers: Vec::new(),
        };
        let budget = Budget::new(config.outbound.memory_bytes);
        let outbound = if stages.deliver {
            Some(starter.deliver(cursors, Arc::clone(&budget))?)
        } else {
            None
        };
        if stages.release {
            starter.release()?;
        }
        if stages.route {
            starter.route()?;
        }
        let readers = starter.readers;
        let history = History::start(config, &connection, &ways)?;
        let inside = Arc::new(Running {
            ways,
            history: history.as_ref().map(|history| Arc::clone(&history.writer)),
            labelled_webhooks: config.web.metrics_webhooks,
            sources: Sources::new(config, &connection),
            statuses: readers
                .iter()
                .map(|reader| Arc::clone(reader.status()))
                .collect(),
            standings: outbound
                .as_ref()
                .map(|outbound| Arc::clone(outbound.standings())),
            draining: AtomicBool::new(false),
        });
        let listen = config.web.telemetry_listen;
        let telemetry = web::serve(listen, Arc::clone(&inside) as Arc<dyn Inside>)
            .await
            .map_err(|fault| Error::Listen {
                address: listen,
                fault,
            })?;
        let changes = Changes {
            ways: Arc::clone(&inside.ways),
            written,
            key,
        };
        let tokens = Arc::new(ArcSwap::from_pointee(config.web.tokens.clone()));
        let api = api::serve(config, &connection, &inside, changes, Arc::clone(&tokens)).await?;
        info!(%telemetry, webhooks = catalog.now().len(), "started");
        Ok(Self {
            inside,
            outbound,
            budget,
            readers,
            history,
            _followers: followers,
            telemetry,
            api,
            tokens,
        })
    }

    /// Where `/metrics`, `/livez` and `/readyz` are served.
    pub fn telemetry(&self) -> SocketAddr {
        self.telemetry
    }

    /// Where the API is served, if it is.
    pub fn api(&self) -> Option<SocketAddr> {
        self.api.as_ref().map(|served| served.address)
    }

    /// All metrics of this instance.
    pub fn metrics(&self) -> &Metrics {
        &self.inside.ways.metrics
    }

    /// What can be asked about the past, where there is a store.
    pub fn history(&self) -> Option<&Arc<crate::history::Store>> {
        self.history.as_ref().map(|history| history.writer.store())
    }

    /// The version of a webhook in this instance's catalog.
    pub fn webhook_version(&self, id: &str) -> Option<u64> {
        self.inside
            .ways
            .catalog
            .now()
            .get(id)
            .map(|webhook| webhook.version)
    }

    /// Whether every condition of readiness is met.
    pub fn is_ready(&self) -> bool {
        self.inside.checks().iter().all(|check| check.passes)
    }

    /// What the breaker of a webhook lets pass in this instance.
    pub fn webhook_state(&self, id: &WebhookId) -> State {
        let standings = self.inside.standings.as_ref();
        standings.map_or(State::Passing, |standings| standings.get(id))
    }

    /// Records that are read and not settled, in all stages.
    pub fn open(&self) -> usize {
        self.inside
            .statuses
            .iter()
            .map(|status| status.summary().open)
            .sum()
    }

    /// Waits until the router cannot go on; it never ends well by itself.
    pub async fn failed(&self) -> Error {
        loop {
            if self.inside.ways.producer.has_failed() {
                return Error::ProducerFailed;
            }
            if self.readers.iter().any(Reader::is_finished) {
                return Error::ReaderEnded;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Stops gracefully: reading ends, what waits goes back to its topic, requests under way end, offsets are committed,
    /// the groups are left. It blocks for at most [`STOP_LIMIT`]; what is left then is read again by the next owner.
    ///
    /// # Errors
    /// A reader had failed before.
    pub fn stop(mut self) -> Result<(), Error> {
        let deadline = Instant::now() + STOP_LIMIT;
        self.inside.draining.store(true, Ordering::Release);
        drop(self.api.take());
        for reader in &self.readers {
            reader.stop();
        }
        if let Some(history) = self.history.take() {
            history.stop(deadline);
        }
        let mut result = Ok(());
        for reader in self.readers.drain(..) {
            while !reader.is_finished() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            if reader.is_finished() {
                result = result.and(reader.join());
            } else {
                warn!(
                    stage = reader.status().stage,
                    "did not end in time; what was under way is read again"
                );
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if !self
            .inside
            .ways
            .producer
            .flush(left.max(Duration::from_millis(500)))
        {
            warn!(
                "some records were not acknowledged in time; they are produced again by the next owner"
            );
        }
        if let Some(outbound) = self.outbound.take().and_then(Arc::into_inner) {
            outbound.stop(deadline.saturating_duration_since(Instant::now()));
        }
        if let Some(tracer) = &self.inside.ways.tracer {
            tracer.stop(deadline.max(Instant::now() + LAST_TRACES));
        }
        info!("stopped");
        result.map_err(Error::Kafka)
    }
}
