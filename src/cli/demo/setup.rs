//! What the demo needs: the broker with its topics, the receivers, the catalog, the router.
//!
//! The order of the fields is the order in which they go; the broker is last, because everybody is its client.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use super::account::Account;
use super::books::Books;
use super::receivers::Receivers;
use super::screen::Screen;
use super::webhooks::webhooks;
use super::{replay, watch};
use crate::app::{self, App, Stages};
use crate::config::{Config, Environment};
use crate::kafka;
use crate::kafka::embedded::EmbeddedBroker;
use crate::kafka::producer::Producer;
use crate::kafka::settings::Connection;
use crate::kafka::table::Follower;
use crate::matching::catalog::entry_of;
use crate::metrics::Metrics;
use crate::pipeline::catalog_topic::CatalogTopic;
use crate::pipeline::topics::Topics;

const SOURCE_PARTITIONS: i32 = 2;

/// See the module's text.
pub(super) struct Setup {
    /// Of the demo's events and replays.
    pub(super) producer: Producer,
    pub(super) account: Arc<Account>,
    /// Whether the failing receiver fails now.
    pub(super) failing: Arc<AtomicBool>,
    pub(super) config: Config,
    connection: Connection,
    topics: Topics,
    _broker: EmbeddedBroker,
}

impl Setup {
    /// Builds everything but the router.
    pub(super) async fn build(screen: Screen) -> anyhow::Result<Self> {
        let broker = EmbeddedBroker::start()?;
        let config = config(&broker.bootstrap_servers()?)?;
        let topics = Topics::new(&config.kafka.topic_prefix);
        create_topics(&broker, &config, &topics)?;
        let connection = app::connection(&config);

        let receivers = Receivers::bind().await?;
        let webhooks = webhooks(|manner| receivers.address(manner), Timestamp::now())?;
        let catalog = CatalogTopic::open(connection.clone(), &topics, app::sealing_key(&config)?)?;
        for webhook in &webhooks {
            catalog.write(webhook)?;
        }
        let ours: HashSet<_> = webhooks.iter().map(|webhook| webhook.id.clone()).collect();
        let wants = |webhook| entry_of(webhook).0;
        let books = Books::new(
            webhooks
                .iter()
                .map(|webhook| (webhook.id.clone(), wants(webhook))),
        );
        let account = Arc::new(Account::new(screen, books, ours));
        let failing = Arc::new(AtomicBool::new(false));
        receivers.serve(&webhooks, &account, &failing);
        let producer = Producer::start(&connection.producer(), Arc::new(Metrics::new()?))?;
        Ok(Self {
            producer,
            account,
            failing,
            config,
            connection,
            topics,
            _broker: broker,
        })
    }

    /// Starts the router, and those who watch it.
    pub(super) async fn open(&self) -> anyhow::Result<(App, Vec<Follower>)> {
        let app = App::start_on(&self.config, Stages::ALL, self.connection.clone()).await?;
        let watching = watch::start(
            &self.connection,
            &self.topics,
            self.sources(),
            &app::reading(&self.config),
            &self.account,
        )?;
        Ok((app, watching))
    }

    /// The source topics.
    pub(super) fn sources(&self) -> &[String] {
        &self.config.intake.topics
    }

    /// See [`replay::replay`].
    pub(super) async fn replay(&self) -> anyhow::Result<()> {
        let (account, producer) = (Arc::clone(&self.account), self.producer.clone());
        let topics = self.topics.clone();
        let replaying = move || replay::replay(&account, &producer, &topics);
        Ok(tokio::task::spawn_blocking(replaying).await??)
    }

    /// See [`watch::unsettled`].
    pub(super) fn unsettled(&self) -> Result<HashSet<String>, kafka::Error> {
        let group = &self.config.kafka.group_id;
        watch::unsettled(
            &self.connection,
            &self.topics,
            self.sources(),
            group,
            &self.account,
        )
    }
}

/// The demo's own configuration: neither a file nor the environment changes it.
fn config(bootstrap_servers: &str) -> anyhow::Result<Config> {
    let mut key = [0_u8; 32];
    getrandom::fill(&mut key)
        .map_err(|fault| anyhow::anyhow!("no random bytes for a key: {fault}"))?;
    let key = STANDARD.encode(key);
    let text = format!(
        r#"
kafka.bootstrap_servers = "{bootstrap_servers}"
kafka.replication_factor = 1
kafka.dispatch_partitions = 6
kafka.delay_partitions = 1
kafka.dead_letter_partitions = 2
kafka.held_partitions = 1
# The embedded broker does not answer a waiting fetch when a record comes, but at its end.
kafka.consumer."fetch.wait.max.ms" = "10"
intake.start = "earliest"
outbound.allow_networks = ["127.0.0.0/8", "::1/128"]
# A demo is short: an endpoint that has recovered is found out soon.
outbound.breaker_probe_seconds = 1
web.telemetry_listen = "127.0.0.1:0"
secrets.key = "{key}"
# Nothing is to be left behind.
history.store = "none"
"#
    );
    Ok(Config::from_text(
        "the demo's configuration",
        &text,
        &Environment::new(),
    )?)
}

fn create_topics(
    broker: &EmbeddedBroker,
    config: &Config,
    topics: &Topics,
) -> Result<(), kafka::Error> {
    let kafka = &config.kafka;
    broker.create_topic(&topics.subscriptions, 1)?;
    broker.create_topic(&topics.dispatch, kafka.dispatch_partitions.into())?;
    for (_, delay) in topics.delays() {
        broker.create_topic(delay, kafka.delay_partitions.into())?;
    }
    broker.create_topic(&topics.held, kafka.held_partitions.into())?;
    broker.create_topic(&topics.dead_letters, kafka.dead_letter_partitions.into())?;
    broker.create_topic(&topics.attempts, kafka.dead_letter_partitions.into())?;
    broker.create_topic(&topics.alerts, 1)?;
    broker.create_topic(&topics.replays, 1)?;
    for source in &config.intake.topics {
        broker.create_topic(source, SOURCE_PARTITIONS)?;
    }
    Ok(())
}
