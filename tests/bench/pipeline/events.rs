//! The events: their form, their topic, and how they get into it, all at once or paced.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use postrider::delivery::{DeadReason, Delivery};
use postrider::record::{Record as SourceRecord, SourceOffset};
use postrider::retry::dead_letter::of_delivery;
use postrider::subscription::{Customer, WebhookId};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, OwnedHeaders, ToBytes};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

/// Every event's size.
pub const EVENT_BYTES: usize = 1_024;
pub const PARTITIONS: i32 = 4;
/// Customers, so that 100 endpoints get an event each in turn.
pub const CUSTOMERS: u64 = 100;
const KEYS: u64 = 9_973;
/// The two numbers that the receiver looks at stand at fixed places, so that it need not parse.
const SEQUENCE_AT: std::ops::Range<usize> = 13..23;
const SENT_AT: std::ops::Range<usize> = 36..52;

pub fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    })
}

/// Sequence number and time of enqueue, Unix microseconds.
pub fn stamp_of(body: &[u8]) -> Option<(u64, u64)> {
    let number = |range: std::ops::Range<usize>| {
        std::str::from_utf8(body.get(range)?)
            .ok()?
            .parse::<u64>()
            .ok()
    };
    Some((number(SEQUENCE_AT)?, number(SENT_AT)?))
}

/// A device's event with a dozen and a half members and a list, filled up to [`EVENT_BYTES`] by its message.
fn event(sequence: u64, sent_us: u64) -> Vec<u8> {
    use std::io::Write;
    let customer = sequence % CUSTOMERS;
    let mut body = Vec::with_capacity(EVENT_BYTES);
    write!(
        body,
        r#"{{"sequence":"{sequence:010}","sent_us":"{sent_us:016}","event_type":"device.status_changed","event_timestamp":"2026-11-22T10:00:00.123456Z","customer":{customer},"device":{{"id":{sequence},"name":"core-router-ams-01","site":"ams","status":"down","previous_status":"up","vendor":"juniper","model":"MX204","address":"192.0.2.17","tags":["core","bgp","production"],"load":87.5,"uptime_seconds":8640123,"interfaces":[{{"name":"ge-0/0/0","up":true,"in_errors":17}},{{"name":"ge-0/0/1","up":false,"in_errors":0}},{{"name":"ge-0/0/2","up":true,"in_errors":4}}]}},"actor":{{"id":17,"name":"poller"}},"message":""#
    )
    .expect("a vector takes all");
    body.resize(EVENT_BYTES - 2, b'.');
    body.extend_from_slice(b"\"}");
    body
}

/// The broker as the benchmark sees it.
pub struct Cluster {
    pub bootstrap: String,
    admin: AdminClient<DefaultClientContext>,
    producer: ThreadedProducer<DefaultProducerContext>,
}

impl Cluster {
    pub fn at(bootstrap: &str) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap);
        let admin = config.create().expect("an admin client");
        config
            // Not idempotent: on a new topic an idempotent first batch can be acknowledged without being written (see
            // `kafka/producer.rs`), and the benchmark would wait for it for ever.
            .set("enable.idempotence", "false")
            .set("linger.ms", "5")
            .set("queue.buffering.max.kbytes", "65536");
        Self {
            bootstrap: bootstrap.to_owned(),
            admin,
            producer: config.create().expect("a producer"),
        }
    }

    pub fn create(&self, topic: &str) {
        let new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1));
        for result in block_on(self.admin.create_topics([&new], &AdminOptions::new()))
            .expect("the broker creates topics")
        {
            result.expect("the broker creates the topic");
        }
    }

    /// Deletes every topic whose name begins so. Deleting is the broker's work in the background and would be measured
    /// with the next case, so this waits a little.
    pub fn delete(&self, prefix: &str) {
        let metadata = self
            .admin
            .inner()
            .fetch_metadata(None, Duration::from_secs(20))
            .expect("metadata");
        let names: Vec<&str> = metadata
            .topics()
            .iter()
            .map(|topic| topic.name())
            .filter(|name| name.starts_with(prefix))
            .collect();
        if !names.is_empty() {
            let _ = block_on(self.admin.delete_topics(&names, &AdminOptions::new()));
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// Records ever written to the topics whose name begins so.
    pub fn records(&self, prefix: &str) -> u64 {
        let client = self.admin.inner();
        let limit = Duration::from_secs(20);
        let metadata = client.fetch_metadata(None, limit).expect("metadata");
        let mut records = 0;
        for topic in metadata.topics() {
            if !topic.name().starts_with(prefix) {
                continue;
            }
            for partition in topic.partitions() {
                let (_, end) = client
                    .fetch_watermarks(topic.name(), partition.id(), limit)
                    .expect("the broker knows the end");
                records += u64::try_from(end).unwrap_or(0);
            }
        }
        records
    }

    fn produce(&self, topic: &str, sequence: u64) {
        let key = format!("device-{}", sequence % KEYS);
        let body = event(sequence, unix_us());
        self.send(BaseRecord::to(topic).key(&key[..]).payload(&body[..]));
    }

    fn send<K: ToBytes + ?Sized>(&self, mut record: BaseRecord<'_, K, [u8]>) {
        while let Err((failure, back)) = self.producer.send(record) {
            assert_eq!(
                failure.rdkafka_error_code(),
                Some(RDKafkaErrorCode::QueueFull),
                "{failure}"
            );
            std::thread::sleep(Duration::from_millis(1));
            record = back;
        }
    }

    /// Puts `count` events into a topic.
    pub fn fill(&self, topic: &str, count: u64) {
        for sequence in 0..count {
            self.produce(topic, sequence);
        }
        self.producer
            .flush(Duration::from_secs(60))
            .expect("the broker takes the events");
    }

    /// Puts `count` events of the customer 0 into a topic.
    pub fn fill_for_first_customer(&self, topic: &str, count: u64) {
        for number in 0..count {
            self.produce(topic, number * CUSTOMERS);
        }
        self.producer
            .flush(Duration::from_secs(60))
            .expect("the broker takes the events");
    }

    /// Puts `count` dead letters into the dead-letter topic, of the deliveries to so many webhooks in turn, as the router writes them.
    pub fn fill_with_letters(&self, topic: &str, count: u64, webhooks: u64) {
        let letters: Arc<str> = topic.into();
        for number in 0..count {
            let webhook = number % webhooks;
            let id = WebhookId::new(&format!("wh_{webhook}")).expect("an id");
            // Not the numbers of live events.
            let body = event(number * CUSTOMERS + webhook, unix_us());
            let source = SourceRecord {
                topic: "events.before".into(),
                partition: 0,
                offset: SourceOffset(i64::try_from(number).expect("few letters")),
                timestamp_ms: None,
                key: None,
                payload: Some(body.into()),
                headers: Vec::new(),
            };
            // As the webhooks of `router.rs` are.
            let customer = Customer::new(&webhook.to_string());
            let kind = "device.status_changed";
            let mut delivery = Delivery::new(&source, kind, &id, Some(&customer), 1);
            delivery.attempts = 4;
            delivery.last_status = Some(503);
            let letter = of_delivery(
                &delivery,
                DeadReason::Exhausted,
                "status 503",
                &letters,
                "bench",
            );
            let mut headers = OwnedHeaders::new_with_capacity(letter.headers.len());
            for header in &letter.headers {
                headers = headers.insert(Header {
                    key: &header.name,
                    value: header.value.as_deref(),
                });
            }
            let key = letter.key.unwrap_or_default();
            let body = letter.payload.unwrap_or_default();
            self.send(
                BaseRecord::to(topic)
                    .key(&key[..])
                    .payload(&body[..])
                    .headers(headers),
            );
        }
        self.producer
            .flush(Duration::from_secs(60))
            .expect("the broker takes the letters");
    }

    /// Puts events into a topic at an even pace, numbered from `first`; gives the number after the last.
    pub fn pace(&self, topic: &str, first: u64, per_second: u32, time: Duration) -> u64 {
        let interval = Duration::from_secs(1) / per_second;
        let started = Instant::now();
        let mut sent = 0_u32;
        while started.elapsed() < time {
            while interval * sent <= started.elapsed() {
                self.produce(topic, first + u64::from(sent));
                sent += 1;
            }
            std::thread::sleep(interval);
        }
        self.producer
            .flush(Duration::from_secs(60))
            .expect("the broker takes the events");
        first + u64::from(sent)
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(future)
}
