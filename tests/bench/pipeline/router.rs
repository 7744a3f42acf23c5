//! The router under measurement: the real binary, on topics of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use postrider::app;
use postrider::config::Config;
use postrider::kafka::topics;
use postrider::pipeline::catalog_topic::CatalogTopic;
use postrider::pipeline::topics::Topics;
use postrider::subscription::read;
use serde_json::json;

use super::events::CUSTOMERS;
use super::floor::IN_FLIGHT;
use super::process::Process;
use super::receiver::Receiver;

/// 32 bytes of base64: what seals the webhooks' secrets.
const KEY: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";

/// How a router is set up for a case.
pub struct Setup {
    pub endpoints: usize,
    pub attempts: bool,
    pub log_level: &'static str,
    /// Requests a second of each endpoint.
    pub rate_limit: Option<u32>,
    /// What each endpoint is; those beyond the list are healthy.
    pub kinds: Vec<Endpoint>,
    /// Whether every endpoint wants every event; else each of several wants those of its customer.
    pub every_event: bool,
}

/// How an endpoint behaves.
#[derive(Clone, Copy)]
pub enum Endpoint {
    Healthy,
    /// Healthy, and left out of the count.
    Uncounted,
    /// Takes the request and never answers.
    Hanging,
    /// Answers 500.
    Failing,
    /// Answers 429 with `Retry-After: 1`.
    Refusing,
    /// Healthy and not counted; its webhook is limited to so many requests a second.
    Limited(u32),
    /// The webhook is paused.
    Paused,
}

impl Endpoint {
    fn path(self) -> &'static str {
        match self {
            Self::Healthy => "in",
            Self::Uncounted | Self::Limited(_) | Self::Paused => "other",
            Self::Hanging => "hang",
            Self::Failing => "fail",
            Self::Refusing => "refuse",
        }
    }
}

/// A running router; its topics are deleted by whoever made the prefix.
pub struct Router {
    pub process: Process,
    _fleet: Fleet,
}

impl Router {
    /// Makes the topics and webhooks, then starts the binary.
    pub fn start(
        setup: &Setup,
        bootstrap: &str,
        source: &str,
        prefix: &str,
        receiver: &Receiver,
    ) -> Self {
        let fleet = Fleet::prepare(setup, bootstrap, source, prefix, receiver);
        Self {
            process: fleet.start(""),
            _fleet: fleet,
        }
    }
}

/// What any number of instances have in common.
pub struct Fleet {
    folder: tempfile::TempDir,
}

impl Fleet {
    /// Makes the topics and webhooks.
    pub fn prepare(
        setup: &Setup,
        bootstrap: &str,
        source: &str,
        prefix: &str,
        receiver: &Receiver,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let more = std::env::var("BENCH_ROUTER_CONFIG").unwrap_or_default();
        let text = format!(
            r#"
kafka.bootstrap_servers = "{bootstrap}"
kafka.group_id = "{prefix}postrider"
kafka.topic_prefix = "{prefix}postrider."
kafka.replication_factor = 1
intake.topics = ["{source}"]
intake.start = "earliest"
outbound.allow_networks = ["127.0.0.0/8"]
history.attempts = {}
history.store = "none"
web.telemetry_listen = "127.0.0.1:0"
secrets.key = "{KEY}"
log.level = "{}"
{more}
"#,
            setup.attempts, setup.log_level
        );
        let path = folder.path().join("postrider.toml");
        std::fs::write(&path, &text).expect("a file");
        let config = Config::from_text("the benchmark's configuration", &text, &BTreeMap::new())
            .expect("the benchmark's configuration is right");
        write_catalog(&config, setup, receiver);

        Self { folder }
    }

    /// The binary with the configuration, for what it is to do.
    pub fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command
            .arg("--config")
            .arg(self.folder.path().join("postrider.toml"))
            .stdin(Stdio::null());
        command
    }

    /// One more instance, under a name of its own (`kafka.instance_id`; empty: none).
    pub fn start(&self, instance_id: &str) -> Process {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .expect("a file");
        Process::start(
            self.command()
                .arg("run")
                .env("POSTRIDER__KAFKA__INSTANCE_ID", instance_id)
                .stdout(Stdio::null())
                .stderr(log),
        )
    }
}

/// The binary that was built with this benchmark, or another one to compare with.
fn binary() -> PathBuf {
    std::env::var_os("BENCH_ROUTER")
        .map_or_else(|| env!("CARGO_BIN_EXE_postrider").into(), PathBuf::from)
}

fn write_catalog(config: &Config, setup: &Setup, receiver: &Receiver) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let connection = runtime.block_on(async {
        let (connection, plans) = app::planned(config).await.expect("the broker answers");
        let failures = topics::create(&connection, &plans, 1)
            .await
            .expect("the broker creates topics");
        assert!(failures.is_empty(), "{failures:?}");
        connection
    });
    let catalog = CatalogTopic::open(
        connection,
        &Topics::new(&config.kafka.topic_prefix),
        app::sealing_key(config).expect("a key"),
    )
    .expect("the catalog");
    for number in 0..setup.endpoints {
        let kind = setup.kinds.get(number).copied();
        let kind = kind.unwrap_or(Endpoint::Healthy);
        let mut webhook = json!({
            "id": format!("wh_{number}"),
            "name": format!("endpoint {number}"),
            "url": format!("http://{}/{}", receiver.address(number), kind.path()),
            "event_types": ["device.*"],
            "customer": null,
            "max_concurrency": IN_FLIGHT,
            "secret": "generate",
        });
        if setup.endpoints > 1 && !setup.every_event {
            webhook["customer"] = json!(number as u64 % CUSTOMERS);
        }
        if matches!(kind, Endpoint::Paused) {
            webhook["paused"] = json!(true);
        }
        let limit = match kind {
            Endpoint::Limited(requests) => Some(requests),
            _ => setup.rate_limit,
        };
        if let Some(requests) = limit {
            webhook["rate_limit"] = json!({"requests": requests, "per_seconds": 1, "burst": 1});
        }
        let draft = read::read(&webhook, "").expect("the benchmark's webhooks are right");
        let webhook = draft
            .create(jiff::Timestamp::now())
            .expect("a webhook")
            .subscription;
        catalog.write(&webhook).expect("the catalog takes it");
    }
}
