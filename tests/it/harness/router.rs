//! A real router in this process, on topics of its own, and what must be true when it goes: nothing open, every group at the
//! end of its topics, and one ending for every delivery.

use std::collections::BTreeMap;
use std::time::Duration;

use postrider::app::{self, App, Stages};
use postrider::config::Config;
use postrider::pipeline::catalog_topic::CatalogTopic;
use postrider::pipeline::topics::Topics;
use postrider::subscription::read;
use serde_json::{Value, json};

use super::{Cluster, Record, eventually};

/// 32 bytes of base64: the sealing key of all tests.
pub const KEY: &str = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
const PATIENCE: Duration = Duration::from_secs(40);

pub struct Router<'a> {
    pub cluster: &'a Cluster,
    pub config: Config,
    runtime: tokio::runtime::Runtime,
    apps: Vec<App>,
    checks_endings: bool,
}

/// The configuration of a router on a test's own topics. `more` is TOML that comes after.
pub fn config_text(cluster: &Cluster, sources: &[&str], more: &str) -> String {
    let sources: Vec<String> = sources
        .iter()
        .map(|name| format!("{:?}", cluster.name(name)))
        .collect();
    format!(
        r#"
kafka.bootstrap_servers = "{}"
kafka.group_id = "{}postrider"
kafka.topic_prefix = "{}postrider."
kafka.replication_factor = 1
kafka.dispatch_partitions = 6
kafka.delay_partitions = 2
kafka.dead_letter_partitions = 2
kafka.held_partitions = 2
intake.topics = [{}]
intake.start = "earliest"
outbound.allow_networks = ["127.0.0.0/8"]
web.telemetry_listen = "127.0.0.1:0"
secrets.key = "{KEY}"
{more}
"#,
        cluster.bootstrap(),
        cluster.prefix(),
        cluster.prefix(),
        sources.join(", "),
    )
}

impl<'a> Router<'a> {
    /// Starts one instance that reads `sources` (made with three partitions where they are not there).
    pub fn start(cluster: &'a Cluster, sources: &[&str], more: &str) -> Self {
        for source in sources {
            if !cluster.topics().contains(&cluster.name(source)) {
                cluster.create_topic(source, 3, &[]);
            }
        }
        let text = config_text(cluster, sources, more);
        let config = Config::from_text("test.toml", &text, &BTreeMap::new()).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let mut router = Self {
            cluster,
            config,
            runtime,
            apps: Vec::new(),
            checks_endings: true,
        };
        router.add_instance(Stages::ALL);
        router
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

    /// The checks of the end are about deliveries that ended; a test that leaves some waiting says so.
    pub fn leaves_work(&mut self) {
        self.checks_endings = false;
    }

    pub fn topics(&self) -> Topics {
        Topics::new(&self.config.kafka.topic_prefix)
    }

    pub fn catalog(&self) -> CatalogTopic {
        let connection = app::connection(&self.config);
        CatalogTopic::open(
            connection,
            &self.topics(),
            app::sealing_key(&self.config).unwrap(),
        )
        .unwrap()
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

    /// Changes a webhook by merging fields into it.
    pub fn change(
        &self,
        id: &str,
        change: impl FnOnce(&mut postrider::subscription::Subscription),
    ) {
        let catalog = self.catalog();
        let mut webhook = catalog.read().unwrap().remove(id).unwrap();
        webhook.version += 1;
        change(&mut webhook);
        let version = webhook.version;
        catalog.write(&webhook).unwrap();
        self.wait_for_webhook(id, |found| found == Some(version));
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

    /// Endings in the audit trail, by delivery.
    pub fn endings(&self) -> BTreeMap<String, Vec<String>> {
        let mut endings: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for record in self.cluster.consume_all(&self.topics().attempts) {
            let value: Value = serde_json::from_slice(&record.payload.unwrap()).unwrap();
            let of_delivery = endings
                .entry(value["delivery_id"].as_str().unwrap().to_owned())
                .or_default();
            if let Some(ending) = value["ending"].as_str() {
                of_delivery.push(ending.to_owned());
            }
        }
        endings
    }

    /// Waits until nothing is open and every group is at the end of its topics.
    pub fn wait_until_idle(&self) {
        let group = &self.config.kafka.group_id;
        let mut stages: Vec<(String, String)> = self
            .config
            .intake
            .topics
            .iter()
            .map(|topic| ("route".to_owned(), topic.clone()))
            .collect();
        let topics = self.topics();
        stages.push(("deliver".to_owned(), topics.dispatch.to_string()));
        for (_, name) in topics.delays() {
            stages.push(("release".to_owned(), name.to_string()));
        }
        eventually(
            "every group to be at the end of its topics",
            PATIENCE,
            || {
                let behind = stages.iter().any(|(stage, topic)| {
                    let committed = self.cluster.committed(&format!("{group}.{stage}"), topic);
                    self.cluster
                        .end_offsets(topic)
                        .into_iter()
                        .any(|(partition, end)| {
                            end > 0 && committed.get(&partition).copied().flatten() != Some(end)
                        })
                });
                (!behind && self.apps.iter().all(|app| app.open() == 0)).then_some(())
            },
        );
    }
}

impl Drop for Router<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() || self.apps.is_empty() {
            return;
        }
        if self.checks_endings {
            self.wait_until_idle();
            for (delivery, endings) in self.endings() {
                assert_eq!(
                    endings.len(),
                    1,
                    "delivery {delivery} has the endings {endings:?}"
                );
            }
        }
        while !self.apps.is_empty() {
            self.stop_instance();
        }
    }
}
