//! A real router in this process, on topics of its own, and what must be true when it goes: nothing open, every group at the
//! end of its topics, and one ending for every delivery.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::OnceLock;
use std::time::Duration;

use postrider::app::{self, App, Stages};
use postrider::config::Config;
use postrider::delivery::delivery_id;
use postrider::pipeline::catalog_topic::CatalogTopic;
use postrider::pipeline::topics::Topics;
use postrider::record::Source;
use postrider::subscription::{Subscription, WebhookId, read};
use serde_json::{Value, json};

use super::{Cluster, Record, Request, Sent, eventually};

/// 32 bytes of base64: the sealing key of all tests.
pub const KEY: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Router<'a> {
    pub cluster: &'a Cluster,
    pub config: Config,
    text: String,
    runtime: tokio::runtime::Runtime,
    apps: Vec<App>,
    catalog: OnceLock<CatalogTopic>,
    checks_endings: bool,
}

/// The configuration of a router on a test's own topics. `more` is TOML, dotted keys at the beginning of lines; what it sets
/// goes before what all tests have.
pub fn config_text(cluster: &Cluster, sources: &[&str], more: &str) -> String {
    let sources: Vec<String> = sources
        .iter()
        .map(|name| format!("{:?}", cluster.name(name)))
        .collect();
    let usual = [
        (
            "kafka.bootstrap_servers",
            format!("{:?}", cluster.bootstrap()),
        ),
        ("kafka.group_id", format!("{:?}", cluster.name("postrider"))),
        (
            "kafka.topic_prefix",
            format!("{:?}", cluster.name("postrider.")),
        ),
        ("kafka.replication_factor", "1".to_owned()),
        ("kafka.dispatch_partitions", "6".to_owned()),
        ("kafka.delay_partitions", "2".to_owned()),
        ("kafka.dead_letter_partitions", "2".to_owned()),
        ("kafka.held_partitions", "2".to_owned()),
        ("intake.topics", format!("[{}]", sources.join(", "))),
        ("intake.start", "\"earliest\"".to_owned()),
        ("outbound.allow_networks", "[\"127.0.0.0/8\"]".to_owned()),
        ("web.listen", "\"\"".to_owned()),
        ("web.telemetry_listen", "\"127.0.0.1:0\"".to_owned()),
        ("secrets.key", format!("{KEY:?}")),
        ("history.store", "\"none\"".to_owned()),
    ];
    let mut text: String = usual
        .iter()
        .filter(|(key, _)| !more.lines().any(|line| line.starts_with(key)))
        .map(|(key, value)| format!("{key} = {value}\n"))
        .collect();
    text.push_str(more);
    text
}

/// `RUST_LOG=postrider=info cargo test --test it NAME -- --nocapture` shows what the router says.
fn log_when_asked() {
    if std::env::var_os("RUST_LOG").is_some() {
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        let _ = tracing_subscriber::fmt().with_env_filter(filter).try_init();
    }
}

impl<'a> Router<'a> {
    /// Starts one instance that reads `sources` (made with three partitions where they are not there).
    pub fn start(cluster: &'a Cluster, sources: &[&str], more: &str) -> Self {
        let mut router = Self::configured(cluster, sources, more);
        router.add_instance(Stages::ALL);
        router
    }

    /// The same, with source topics that are not there yet.
    pub fn start_before_its_sources(cluster: &'a Cluster, sources: &[&str], more: &str) -> Self {
        let mut router = Self::of(cluster, sources, more);
        router.add_instance(Stages::ALL);
        router
    }

    /// No instance yet, but all topics: for webhooks that are to be there from the start, and for routers that run as
    /// processes of their own.
    pub fn idle(cluster: &'a Cluster, sources: &[&str], more: &str) -> Self {
        let router = Self::configured(cluster, sources, more);
        router.runtime.block_on(async {
            let (connection, plans) = app::planned(&router.config).await.unwrap();
            let failures = postrider::kafka::topics::create(&connection, &plans, 1).await;
            assert!(failures.unwrap().is_empty());
        });
        router
    }

    fn configured(cluster: &'a Cluster, sources: &[&str], more: &str) -> Self {
        let there = cluster.topics();
        for source in sources {
            if !there.contains(&cluster.name(source)) {
                cluster.create_topic(source, 3, &[]);
            }
        }
        Self::of(cluster, sources, more)
    }

    fn of(cluster: &'a Cluster, sources: &[&str], more: &str) -> Self {
        log_when_asked();
        let text = config_text(cluster, sources, more);
        let config = Config::from_text("test.toml", &text, &BTreeMap::new()).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        Self {
            cluster,
            config,
            text,
            runtime,
            apps: Vec::new(),
            catalog: OnceLock::new(),
            checks_endings: true,
        }
    }

    /// The configuration as a file would have it.
    pub fn config_text(&self) -> &str {
        &self.text
    }

    /// Runs the binary on this configuration; its standard output.
    pub fn command(&self, arguments: &[&str]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("postrider.toml");
        std::fs::write(&file, &self.text).unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_postrider"))
            .arg("--config")
            .arg(&file)
            .args(arguments)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// One more instance in the same groups.
    pub fn add_instance(&mut self, stages: Stages) {
        let app = self
            .runtime
            .block_on(App::start(&self.config, stages))
            .unwrap();
        self.apps.push(app);
        eventually("the instances to be ready", PATIENCE, || {
            self.apps.iter().all(App::is_ready).then_some(())
        });
    }

    /// Stops the oldest instance gracefully.
    pub fn stop_instance(&mut self) {
        self.apps.remove(0).stop().unwrap();
    }

    /// Stops all instances and starts one.
    pub fn restart(&mut self) {
        while !self.apps.is_empty() {
            self.stop_instance();
        }
        self.add_instance(Stages::ALL);
    }

    pub fn app(&self) -> &App {
        &self.apps[0]
    }

    pub fn apps(&self) -> &[App] {
        &self.apps
    }

    /// The checks of the end are about deliveries that ended; a test that leaves some waiting says so.
    pub fn leaves_work(&mut self) {
        self.checks_endings = false;
    }

    pub fn topics(&self) -> Topics {
        Topics::new(&self.config.kafka.topic_prefix)
    }

    pub fn catalog(&self) -> &CatalogTopic {
        self.catalog.get_or_init(|| {
            let key = app::sealing_key(&self.config).unwrap();
            CatalogTopic::open(app::connection(&self.config), &self.topics(), key).unwrap()
        })
    }

    /// Writes a webhook and waits until the instances know it.
    pub fn subscribe(&self, id: &str, url: &str, fields: Value) {
        let mut object =
            json!({"id": id, "name": id, "url": url, "event_types": ["*"], "customer": 1});
        for (name, value) in fields.as_object().unwrap() {
            object[name] = value.clone();
        }
        let draft = read::read(&object, "").unwrap();
        let webhook = draft.create(jiff::Timestamp::now()).unwrap().subscription;
        self.catalog().write(&webhook).unwrap();
        self.wait_for_webhook(id, |found| found.is_some());
    }

    /// Writes a webhook with some of it changed, and waits until the instances know it.
    pub fn change(&self, id: &str, change: impl FnOnce(&mut Subscription)) {
        let mut webhook = self.catalog().read().unwrap().remove(id).unwrap();
        webhook.version += 1;
        change(&mut webhook);
        let version = webhook.version;
        self.catalog().write(&webhook).unwrap();
        self.wait_for_webhook(id, |found| found == Some(version));
    }

    /// Deletes a webhook and waits until the instances know it.
    pub fn delete(&self, id: &str) {
        self.catalog().delete(&WebhookId::new(id).unwrap()).unwrap();
        self.wait_for_webhook(id, |found| found.is_none());
    }

    /// Waits until every instance sees a webhook (its version) as wanted.
    pub fn wait_for_webhook(&self, id: &str, wanted: impl Fn(Option<u64>) -> bool) {
        eventually(
            "a catalog change to be live",
            Duration::from_secs(10),
            || {
                self.apps
                    .iter()
                    .all(|app| wanted(app.webhook_version(id)))
                    .then_some(())
            },
        );
    }

    /// Produces events of customer 1 that are numbered in `/n`, keys spread over the partitions. The answer is their places.
    pub fn produce(&self, source: &str, numbers: Range<usize>) -> Vec<Source> {
        let sent: Vec<Sent> = numbers
            .map(|n| {
                Sent::new(format!(
                    r#"{{"event_type":"job.failed","customer":1,"n":{n}}}"#
                ))
                .key(format!("k{n}"))
            })
            .collect();
        let topic = self.cluster.name(source);
        let placed = self.cluster.produce_all(&topic, &sent);
        placed
            .into_iter()
            .map(|(partition, offset)| Source {
                topic: topic.as_str().into(),
                partition,
                offset,
            })
            .collect()
    }

    /// A metric's line without its value, summed over the instances.
    pub fn metric(&self, line: &str) -> f64 {
        self.apps
            .iter()
            .map(|app| {
                let page = app.metrics().page().unwrap();
                page.lines()
                    .find_map(|found| found.strip_prefix(line)?.trim().parse::<f64>().ok())
                    .unwrap_or(0.0)
            })
            .sum()
    }

    pub fn dead_letters(&self) -> Vec<Record> {
        self.cluster.consume_all(&self.topics().dead_letters)
    }

    /// Waits for so many dead letters, and returns them all.
    pub fn wait_for_dead_letters(&self, n: usize) -> Vec<Record> {
        self.cluster
            .consume_until(&self.topics().dead_letters, PATIENCE, |letters| {
                letters.len() >= n
            })
    }

    /// The audit trail, record by record.
    pub fn attempts(&self) -> Vec<Value> {
        let records = self.cluster.consume_all(&self.topics().attempts);
        records
            .into_iter()
            .map(|record| serde_json::from_slice(&record.payload.unwrap()).unwrap())
            .collect()
    }

    /// How each delivery ended, by delivery and replay: what the audit trail says, and the dead letters themselves.
    pub fn endings(&self) -> BTreeMap<(String, String), Vec<String>> {
        let mut endings: BTreeMap<_, Vec<String>> = BTreeMap::new();
        for value in self.attempts() {
            let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
            let of_delivery = endings
                .entry((text("delivery_id"), text("replay_id")))
                .or_default();
            // A dead letter is its own proof.
            let ending = text("ending");
            if !ending.is_empty() && ending != "dead_lettered" {
                of_delivery.push(ending);
            }
        }
        for letter in self.dead_letters() {
            let text = |name: &str| letter.header(name).unwrap_or_default().to_owned();
            let delivery = text("postrider-delivery-id");
            if !delivery.is_empty() {
                endings
                    .entry((delivery, text("postrider-replay-id")))
                    .or_default()
                    .push(text("postrider-reason"));
            }
        }
        endings
    }

    /// Waits until nothing is open and every group is at the end of its topics.
    pub fn wait_until_idle(&self) {
        let group = &self.config.kafka.group_id;
        let topics = self.topics();
        let sources: Vec<&str> = self.config.intake.topics.iter().map(|t| &**t).collect();
        let delays: Vec<&str> = topics.delays().map(|(_, name)| &**name).collect();
        let stages = [
            ("route", sources),
            ("deliver", vec![&*topics.dispatch]),
            ("release", delays),
        ];
        let all: Vec<&str> = stages.iter().flat_map(|(_, of)| of.clone()).collect();
        eventually(
            "every group to be at the end of its topics",
            PATIENCE,
            || {
                let ends = self.cluster.ends_of(&all);
                let reached = stages.iter().all(|(stage, of_stage)| {
                    let group = format!("{group}.{stage}");
                    let committed = self.cluster.committed_of(&group, of_stage);
                    committed
                        .iter()
                        .all(|(place, at)| ends[place] == 0 || *at == Some(ends[place]))
                });
                // One stage writes what another reads: only an end that stood still was the end.
                (reached
                    && self.apps.iter().all(|app| app.open() == 0)
                    && self.cluster.ends_of(&all) == ends)
                    .then_some(())
            },
        );
    }

    /// Waits until the router is idle, and asserts that each delivery has one ending.
    pub fn assert_every_delivery_has_one_ending(&self) {
        self.wait_until_idle();
        for (delivery, endings) in self.endings() {
            assert_eq!(
                endings.len(),
                1,
                "delivery {delivery:?} has the endings {endings:?}"
            );
        }
    }
}

impl Drop for Router<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        if self.checks_endings {
            self.assert_every_delivery_has_one_ending();
        }
        while !self.apps.is_empty() {
            self.stop_instance();
        }
    }
}

/// The ids of the deliveries of these events to a webhook, in order of the events.
pub fn delivery_ids(events: &[Source], webhook: &str) -> Vec<String> {
    let webhook = WebhookId::new(webhook).unwrap();
    events
        .iter()
        .map(|event| delivery_id(event, &webhook))
        .collect()
}

/// Asserts that these deliveries, and no others, were accepted by a receiver; the answer is how many copies there were.
pub fn assert_all_arrived(accepted: &[Request], ids: &[String]) -> usize {
    let mut copies: BTreeMap<&str, usize> = BTreeMap::new();
    for request in accepted {
        *copies.entry(request.id().unwrap_or_default()).or_default() += 1;
    }
    let missing: Vec<&String> = ids
        .iter()
        .filter(|id| !copies.contains_key(id.as_str()))
        .collect();
    assert!(
        missing.is_empty(),
        "{} of {} never arrived, such as {:?}",
        missing.len(),
        ids.len(),
        missing[0]
    );
    assert_eq!(copies.len(), ids.len(), "there were others too");
    accepted.len() - copies.len()
}
