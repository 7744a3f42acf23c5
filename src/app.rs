//! Build, start, stop: `main`, the demo and the tests come in by this door.
//!
//! Starting verifies the topics, loads the catalog, and only then joins the groups; stopping stops the reading, ends or
//! parks what is under way, commits and leaves (graceful within [`STOP_LIMIT`]).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::config::{self, Config};
use crate::kafka::consumer::{Reader, ReaderSettings, Stage};
use crate::kafka::producer::Producer;
use crate::kafka::settings::Connection;
use crate::kafka::start::Start;
use crate::kafka::table::Follower;
use crate::kafka::topics::{self, Finding, Plan};
use crate::matching::catalog::Catalog;
use crate::metrics::Metrics;
use crate::outbound::breaker::{Patience, Standings};
use crate::outbound::budget::Budget;
use crate::outbound::shard::Conclude;
use crate::outbound::{self, Outbound};
use crate::pipeline::deliver::Deliver;
use crate::pipeline::hold::{Cursors, Holding};
use crate::pipeline::release::Releasing;
use crate::pipeline::route::Route;
use crate::pipeline::topics::{Sizes, Topics, plans};
use crate::pipeline::{Ways, followers};
use crate::subscription::seal::{InvalidKey, SealingKey};
use crate::web::{self, Check, Inside};

/// A graceful stop takes at most this.
pub const STOP_LIMIT: Duration = Duration::from_secs(20);
/// How old the answer to "which source topics are missing" may be.
const SOURCES_AGE: Duration = Duration::from_secs(10);
const LOAD_LIMIT: Duration = Duration::from_secs(60);
/// How long a group waits for a dead member. Short, because nothing of its partitions moves meanwhile.
const SESSION_TIMEOUT: Duration = Duration::from_secs(6);

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
        "the broker at {0} does not answer; check kafka.bootstrap_servers, the network and, where the cluster wants them, security.protocol and its keys in kafka.properties ({1})"
    )]
    Unreachable(String, String),
    #[error("the catalog could not be read within a minute; the broker is slow or away")]
    CatalogNotLoaded,
    #[error("could not start a thread: {0}")]
    Thread(#[from] std::io::Error),
    #[error("the producer met a fatal error and the process must begin anew")]
    ProducerFailed,
    #[error("a reader ended by itself")]
    ReaderEnded,
}

/// The loops of the program; an instance runs any set of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stages {
    pub route: bool,
    pub deliver: bool,
    pub release: bool,
}

impl Stages {
    /// Everything.
    pub const ALL: Self = Self {
        route: true,
        deliver: true,
        release: true,
    };
}

impl std::str::FromStr for Stages {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut stages = Self {
            route: false,
            deliver: false,
            release: false,
        };
        for word in text.split(',').map(str::trim) {
            match word {
                "route" => stages.route = true,
                "deliver" => stages.deliver = true,
                "release" => stages.release = true,
                other => {
                    return Err(format!(
                        "`{other}` is no stage; they are route, deliver, release"
                    ));
                }
            }
        }
        Ok(stages)
    }
}

/// The client settings that a configuration means.
pub fn connection(config: &Config) -> Connection {
    let kafka = &config.kafka;
    let copy = |properties: &config::Properties| {
        properties
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    };
    Connection {
        bootstrap_servers: kafka.bootstrap_servers.clone(),
        client_id: format!("postrider-{}", std::process::id()),
        properties: copy(&kafka.properties),
        consumer_properties: copy(&kafka.consumer),
        producer_properties: copy(&kafka.producer),
        message_bytes: 0,
    }
}

/// The topics that a configuration needs, and the connection with the record size that follows from its source topics.
///
/// # Errors
/// The broker does not answer.
pub async fn planned(config: &Config) -> Result<(Connection, Vec<Plan>), Error> {
    let mut connection = connection(config);
    let cluster = topics::describe(&connection).map_err(|fault| {
        Error::Unreachable(config.kafka.bootstrap_servers.clone(), fault.to_string())
    })?;
    let sources: Vec<&str> = config
        .intake
        .topics
        .iter()
        .map(String::as_str)
        .filter(|name| cluster.topics.contains_key(*name))
        .collect();
    let message_bytes = topics::message_bytes(&connection, &sources).await;
    connection.message_bytes = message_bytes;
    let sizes = Sizes {
        dispatch_partitions: config.kafka.dispatch_partitions.into(),
        delay_partitions: config.kafka.delay_partitions.into(),
        dead_letter_partitions: config.kafka.dead_letter_partitions.into(),
        held_partitions: config.kafka.held_partitions.into(),
        dead_letter_retention_days: config.retry.dead_letter_retention_days.into(),
        message_bytes,
        replication: topics::replication(&connection, config.kafka.replication_factor.into())?,
    };
    Ok((
        connection,
        plans(&Topics::new(&config.kafka.topic_prefix), &sizes),
    ))
}

/// The key that seals secrets, if there is one.
///
/// # Errors
/// It is no key.
pub fn sealing_key(config: &Config) -> Result<Option<SealingKey>, Error> {
    Ok(config
        .secrets
        .key
        .expose()
        .map(SealingKey::from_base64)
        .transpose()?)
}

/// A running router.
pub struct App {
    inside: Arc<Running>,
    outbound: Option<Arc<Outbound>>,
    readers: Vec<Reader>,
    /// Ended when dropped.
    _followers: Vec<Follower>,
    telemetry: SocketAddr,
}

struct Running {
    ways: Arc<Ways>,
    /// Webhooks that may have metrics of their own.
    labelled_webhooks: usize,
    sources: Sources,
    statuses: Vec<Arc<crate::kafka::Status>>,
    standings: Option<Arc<Standings>>,
    draining: AtomicBool,
}

impl App {
    /// Starts the stages. When it returns the catalog is loaded and the groups are being joined.
    ///
    /// # Errors
    /// See [`Error`]; nothing is left running.
    pub async fn start(config: &Config, stages: Stages) -> Result<Self, Error> {
        let (connection, plans) = planned(config).await?;
        prepare_topics(config, &connection, plans).await?;
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
        let followers = vec![
            followers::catalog(
                &connection,
                &topics.subscriptions,
                key,
                Arc::clone(&catalog),
                Arc::clone(&metrics),
            )?,
            followers::cursors(&connection, &topics.replays, Arc::clone(&cursors))?,
        ];
        let ways = Arc::new(Ways {
            producer: Producer::start(&connection.producer(), Arc::clone(&metrics))?,
            topics,
            catalog: Arc::clone(&catalog),
            metrics: Arc::clone(&metrics),
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
        let outbound = if stages.deliver {
            Some(starter.deliver(cursors)?)
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
        let inside = Arc::new(Running {
            ways,
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
        info!(%telemetry, webhooks = catalog.now().len(), "started");
        Ok(Self {
            inside,
            outbound,
            readers,
            _followers: followers,
            telemetry,
        })
    }

    /// Where `/metrics`, `/livez` and `/readyz` are served.
    pub fn telemetry(&self) -> SocketAddr {
        self.telemetry
    }

    /// All metrics of this instance.
    pub fn metrics(&self) -> &Metrics {
        &self.inside.ways.metrics
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
        for reader in &self.readers {
            reader.stop();
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
        info!("stopped");
        result.map_err(Error::Kafka)
    }
}

struct Starter<'a> {
    config: &'a Config,
    connection: &'a Connection,
    ways: &'a Arc<Ways>,
    readers: Vec<Reader>,
}

impl Starter<'_> {
    fn read(
        &mut self,
        name: &'static str,
        topics: Vec<String>,
        start: Start,
        split: bool,
        stage: Box<dyn Stage>,
    ) -> Result<(), Error> {
        let mut client = self
            .connection
            .consumer(&self.ways.group_of(name), SESSION_TIMEOUT);
        if name == "route" {
            // A regular expression of sources must not take in our own topics: each delivery would become an event.
            let prefix = self.config.kafka.topic_prefix.replace('.', "\\.");
            client.set("topic.blacklist", format!("^{prefix}.*"));
        }
        let settings = ReaderSettings {
            stage: name,
            client,
            topics,
            start,
            split,
            keeps_place: name != "held",
            session_timeout: SESSION_TIMEOUT,
        };
        let reader = Reader::start(settings, stage, Arc::clone(&self.ways.metrics))?;
        self.readers.push(reader);
        Ok(())
    }

    fn route(&mut self) -> Result<(), Error> {
        let intake = &self.config.intake;
        let start = match intake.start {
            config::Start::Earliest => Start::Earliest,
            config::Start::Latest => Start::Latest,
        };
        let stage = Route {
            ways: Arc::clone(self.ways),
            customer_pointer: intake.customer_pointer.clone(),
            max_open_events: intake.max_open_events,
        };
        self.read(
            "route",
            intake.topics.clone(),
            start,
            false,
            Box::new(stage),
        )
    }

    fn release(&mut self) -> Result<(), Error> {
        let topics = self
            .ways
            .topics
            .delays()
            .map(|(_, name)| name.to_string())
            .collect();
        let stage = Releasing::new(Arc::clone(self.ways));
        self.read("release", topics, Start::Earliest, true, Box::new(stage))
    }

    fn deliver(&mut self, cursors: Arc<Cursors>) -> Result<Arc<Outbound>, Error> {
        let outbound = &self.config.outbound;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let settings = outbound::Settings {
            shards: if outbound.shards == 0 {
                cores.saturating_sub(1).max(1)
            } else {
                outbound.shards
            },
            max_in_flight: u32::try_from(outbound.max_in_flight).unwrap_or(u32::MAX),
            patience: Patience {
                failures: outbound.breaker_failures,
                first_probe: Duration::from_secs(outbound.breaker_probe_seconds),
            },
            connect_timeout: Duration::from_secs(outbound.connect_timeout_seconds),
            response_body_bytes: outbound.response_body_bytes,
            allow_networks: outbound.allow_networks.clone(),
            labelled_webhooks: self.config.web.metrics_webhooks,
        };
        let ways = Arc::clone(self.ways);
        let conclude: Conclude =
            Arc::new(move |submission, finish| ways.conclude(submission, finish));
        let running = Arc::new(Outbound::start(&settings, &conclude, &self.ways.metrics)?);
        let stage = Deliver {
            ways: Arc::clone(self.ways),
            outbound: Arc::clone(&running),
            budget: Budget::new(outbound.memory_bytes),
        };
        let dispatch = vec![self.ways.topics.dispatch.to_string()];
        self.read("deliver", dispatch, Start::Earliest, false, Box::new(stage))?;
        let pace = self.config.retry.held_drain_per_second;
        let holding = Holding::start(
            Arc::clone(self.ways),
            cursors,
            self.connection.clone(),
            pace,
        )?;
        let held = vec![self.ways.topics.held.to_string()];
        self.read("held", held, Start::Earliest, false, Box::new(holding))?;
        Ok(running)
    }
}

/// The source topics, of which some may not exist yet.
struct Sources {
    connection: Connection,
    names: Vec<String>,
    missing: Mutex<(Option<Instant>, Vec<String>)>,
}

impl Sources {
    fn new(config: &Config, connection: &Connection) -> Self {
        let topics = config.intake.topics.iter();
        Self {
            connection: connection.clone(),
            names: topics
                .filter(|name| !name.starts_with('^'))
                .cloned()
                .collect(),
            missing: Mutex::default(),
        }
    }

    /// Those that do not exist, as of a few seconds ago.
    fn missing(&self) -> Vec<String> {
        let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        if missing.0.is_none_or(|asked| asked.elapsed() > SOURCES_AGE)
            && let Ok(cluster) = topics::describe(&self.connection)
        {
            let absent = self
                .names
                .iter()
                .filter(|name| !cluster.topics.contains_key(*name));
            *missing = (Some(Instant::now()), absent.cloned().collect());
        }
        missing.1.clone()
    }
}

impl Inside for Running {
    fn checks(&self) -> Vec<Check> {
        let check = |name: &str, passes: bool, detail: String| Check {
            name: name.to_owned(),
            passes,
            detail,
        };
        let draining = self.draining.load(Ordering::Acquire);
        let broker = self.ways.producer.reaches_broker(Duration::from_secs(2));
        let mut checks = vec![
            check(
                "running",
                !draining,
                if draining { "stopping" } else { "yes" }.to_owned(),
            ),
            check(
                "catalog",
                self.ways.catalog.is_loaded(),
                format!("{} webhooks", self.ways.catalog.now().len()),
            ),
            check(
                "producer",
                broker.is_ok() && !self.ways.producer.has_failed(),
                broker.map_or_else(
                    |fault| fault.to_string(),
                    |()| format!("{} records unacknowledged", self.ways.producer.waiting()),
                ),
            ),
        ];
        let missing = self.sources.missing();
        for status in &self.statuses {
            let summary = status.summary();
            checks.push(check(
                status.stage,
                status.has_joined(),
                format!(
                    "{} partitions, {} open, oldest {:.1} s",
                    summary.partitions,
                    summary.open,
                    summary.oldest.as_secs_f64()
                ),
            ));
        }
        if !missing.is_empty() {
            // Not a fault of this instance: the topics belong to their producers and are waited for.
            checks.push(check(
                "sources",
                true,
                format!("missing: {}", missing.join(", ")),
            ));
        }
        checks
    }

    fn refresh(&self) {
        let missing = i64::try_from(self.sources.missing().len()).unwrap_or(i64::MAX);
        self.ways.metrics.source_topics_missing.set(missing);
        let states = &self.ways.metrics.webhook_state;
        states.reset();
        for webhook in self.ways.catalog.now().all().take(self.labelled_webhooks) {
            let state = match (webhook.enabled, webhook.paused) {
                (false, _) => "disabled",
                (true, true) => "paused",
                (true, false) => self
                    .standings
                    .as_ref()
                    .map_or("passing", |standings| standings.get(&webhook.id).as_str()),
            };
            states
                .with_label_values(&[webhook.id.as_str(), state])
                .set(1);
        }
        for status in &self.statuses {
            let summary = status.summary();
            let label: &[&str] = &[status.stage];
            let metrics = &self.ways.metrics;
            metrics
                .ledger_open
                .with_label_values(label)
                .set(i64::try_from(summary.open).unwrap_or(i64::MAX));
            metrics
                .ledger_oldest
                .with_label_values(label)
                .set(summary.oldest.as_secs_f64());
            metrics
                .assigned_partitions
                .with_label_values(label)
                .set(i64::try_from(summary.partitions).unwrap_or(i64::MAX));
        }
    }

    fn metrics(&self) -> &Metrics {
        &self.ways.metrics
    }
}

/// Makes sure that every topic is there, or says which are missing and how to make them.
async fn prepare_topics(
    config: &Config,
    connection: &Connection,
    plans: Vec<Plan>,
) -> Result<(), Error> {
    let found = topics::verify(connection, &plans).await?;
    for (plan, finding) in &found {
        if let Finding::Differs(differences) = finding {
            for (setting, wanted, found) in differences {
                warn!(
                    topic = plan.name,
                    setting, wanted, found, "a topic is not set as planned"
                );
            }
        }
    }
    let missing: Vec<Plan> = found
        .into_iter()
        .filter(|(_, finding)| *finding == Finding::Missing)
        .map(|(plan, _)| plan)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let replication = i32::from(config.kafka.replication_factor);
    let failures = if config.kafka.create_topics {
        info!(count = missing.len(), "creating topics");
        topics::create(connection, &missing, replication).await?
    } else {
        Vec::new()
    };
    if config.kafka.create_topics && failures.is_empty() {
        return Ok(());
    }
    let replication = topics::replication(connection, replication)?;
    let mut text = String::from("topics are missing");
    for (name, why) in &failures {
        text.push_str(&format!("\n  {name}: not created: {why}"));
    }
    text.push_str(
        "\ncreate them with `postrider topics apply`, or have somebody with the rights run:",
    );
    for plan in &missing {
        text.push_str(&format!(
            "\n  {}",
            topics::command(plan, &config.kafka.bootstrap_servers, replication)
        ));
    }
    Err(Error::Topics(text))
}
