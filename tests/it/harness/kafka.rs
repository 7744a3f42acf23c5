//! The Kafka side of a test: topics of its own, records in, records out, offsets looked at from outside.
//!
//! It uses plain librdkafka clients and none of Postrider's code, so what it reports is what any other Kafka client
//! would see.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::record::{Record, Sent};
use super::waiting::{block_on, eventually};

/// How long any single question to the broker may take before the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// The broker that `make test` brought up, `host:port`.
pub fn bootstrap() -> String {
    match std::env::var("KAFKA_BOOTSTRAP_SERVERS") {
        Ok(servers) if !servers.is_empty() => servers,
        _ => panic!(
            "KAFKA_BOOTSTRAP_SERVERS is not set: these tests need a real broker. Run `make test`, \
             or `tests/broker.sh run -- cargo test --test it`"
        ),
    }
}

/// A broker, and one test's own corner of it. Topics that begin with its prefix are deleted when it is dropped.
pub struct Cluster {
    bootstrap: String,
    prefix: String,
    admin: AdminClient<DefaultClientContext>,
    producer: ThreadedProducer<Acknowledgements>,
    askers: Mutex<BTreeMap<String, Arc<BaseConsumer>>>,
}

/// Something for every partition of some topics.
pub type ByPlace<T> = BTreeMap<(String, i32), T>;

fn by_place(list: &TopicPartitionList) -> impl Iterator<Item = ((String, i32), Offset)> {
    list.elements().into_iter().map(|element| {
        let place = (element.topic().to_owned(), element.partition());
        (place, element.offset())
    })
}

fn one_topic<T>(all: ByPlace<T>) -> BTreeMap<i32, T> {
    let of_topic = all.into_iter();
    of_topic
        .map(|((_, partition), value)| (partition, value))
        .collect()
}

impl Cluster {
    /// The shared broker. `test` only makes names readable; the prefix is unique anyway.
    pub fn named(test: &str) -> Self {
        Self::at(&bootstrap(), test)
    }

    /// Some other broker, such as [`OwnBroker`](super::OwnBroker).
    pub fn at(bootstrap: &str, test: &str) -> Self {
        let unique = uuid::Uuid::now_v7().simple().to_string();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap);
        // A broker that is down is often what the test is about.
        config.set("reconnect.backoff.max.ms", "500");
        let admin = config.create().expect("an admin client");
        config.set("acks", "all").set("enable.idempotence", "true");
        // With more than one request under way a topic that was made just now may lose the first (see `acknowledged`).
        config.set("max.in.flight.requests.per.connection", "1");
        config
            .set("partitioner", "murmur2_random")
            .set("linger.ms", "2");
        config
            .set("queue.buffering.max.messages", "0")
            .set("queue.buffering.max.kbytes", "2000000");
        config.set("message.max.bytes", "20000000");
        let producer = config
            .create_with_context(Acknowledgements)
            .expect("a producer");
        Self {
            bootstrap: bootstrap.to_owned(),
            prefix: format!("{test}-{}.", &unique[20..]),
            admin,
            producer,
            askers: Mutex::default(),
        }
    }

    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Ends in a full stop: also good as Postrider's `kafka.topic_prefix`.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The full name of this test's topic or group `name`.
    pub fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Creates this test's topic `name` and returns its full name, which every other method wants.
    pub fn create_topic(&self, name: &str, partitions: i32, configs: &[(&str, &str)]) -> String {
        let topic = self.name(name);
        let new = configs.iter().fold(
            NewTopic::new(&topic, partitions, TopicReplication::Fixed(1)),
            |new, (key, value)| new.set(key, value),
        );
        let created =
            block_on(self.admin.create_topics([&new], &patient())).expect("create_topics");
        for result in created {
            result.unwrap_or_else(|(topic, code)| panic!("could not create topic {topic}: {code}"));
        }
        eventually(&format!("{topic} has leaders"), PATIENCE, || {
            (self.partitions(&topic).len() == partitions as usize).then_some(())
        });
        topic
    }

    /// Deletes a topic; that it is not there is fine.
    pub fn delete_topic(&self, topic: &str) {
        for result in
            block_on(self.admin.delete_topics(&[topic], &patient())).expect("delete_topics")
        {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
                Err((topic, code)) => panic!("could not delete topic {topic}: {code}"),
            }
        }
    }

    /// Removes all records of a topic, as its retention would.
    pub fn delete_records(&self, topic: &str) {
        let mut list = TopicPartitionList::new();
        for partition in self.end_offsets(topic).into_keys() {
            list.add_partition_offset(topic, partition, Offset::End)
                .expect("a partition");
        }
        block_on(self.admin.delete_records(&list, &patient())).expect("delete_records");
    }

    /// Gives a topic these settings and the defaults for all others.
    pub fn set_configs(&self, topic: &str, configs: &[(&str, &str)]) {
        let of_topic = AlterConfig::new(ResourceSpecifier::Topic(topic));
        let config = configs
            .iter()
            .fold(of_topic, |config, (key, value)| config.set(key, value));
        for result in
            block_on(self.admin.alter_configs([&config], &patient())).expect("alter_configs")
        {
            result.unwrap_or_else(|(topic, code)| panic!("could not configure {topic:?}: {code}"));
        }
    }

    /// Makes a topic grow to so many partitions.
    pub fn grow(&self, topic: &str, partitions: usize) {
        let new = NewPartitions::new(topic, partitions);
        for result in
            block_on(self.admin.create_partitions([&new], &patient())).expect("create_partitions")
        {
            result.unwrap_or_else(|(topic, code)| panic!("{topic} does not grow: {code}"));
        }
    }

    /// All topics that begin with this test's prefix, in order.
    pub fn topics(&self) -> Vec<String> {
        self.all_topics()
            .into_iter()
            .filter(|name| name.starts_with(&self.prefix))
            .collect()
    }

    /// Every topic of the broker, in order.
    pub fn all_topics(&self) -> Vec<String> {
        let metadata = self
            .admin
            .inner()
            .fetch_metadata(None, PATIENCE)
            .expect("metadata");
        let mut names: Vec<_> = metadata
            .topics()
            .iter()
            .map(|topic| topic.name().to_owned())
            .collect();
        names.sort();
        names
    }

    /// Produces one record and waits for its acknowledgement: partition and offset.
    pub fn produce(&self, topic: &str, sent: &Sent) -> (i32, i64) {
        self.produce_all(topic, std::slice::from_ref(sent))
            .remove(0)
    }

    /// Produces all of them, waiting at the end only; partition and offset of each, in the order given.
    pub fn produce_all(&self, topic: &str, all: &[Sent]) -> Vec<(i32, i64)> {
        let (acknowledge, acknowledged) = mpsc::channel();
        for (index, sent) in all.iter().enumerate() {
            let headers = sent
                .headers
                .iter()
                .fold(OwnedHeaders::new(), |headers, (key, value)| {
                    headers.insert(Header {
                        key,
                        value: value.as_deref(),
                    })
                });
            let mut record = BaseRecord::<[u8], [u8], _>::with_opaque_to(
                topic,
                Box::new((index, acknowledge.clone())),
            );
            record.key = sent.key.as_deref();
            record.payload = sent.payload.as_deref();
            record.partition = sent.partition;
            record.timestamp = sent.timestamp;
            record.headers = (!sent.headers.is_empty()).then_some(headers);
            self.producer
                .send(record)
                .unwrap_or_else(|(error, _)| panic!("could not produce to {topic}: {error}"));
        }
        self.producer
            .flush(PATIENCE)
            .unwrap_or_else(|error| panic!("not acknowledged by {topic}: {error}"));
        let mut placed = vec![(-1, -1); all.len()];
        for _ in all {
            let (index, result) = acknowledged
                .recv_timeout(PATIENCE)
                .expect("one acknowledgement a record");
            placed[index] = result
                .unwrap_or_else(|error| panic!("record {index} was refused by {topic}: {error}"));
        }
        placed
    }

    /// Every record from the beginning up to the high watermark at the time of the call; by partition, then offset.
    /// Needs no group. Uncommitted and aborted transactions are left out.
    pub fn consume_all(&self, topic: &str) -> Vec<Record> {
        let consumer = self.consumer(&self.name("consume-all"));
        // By partition: the offset before which everything is wanted.
        let mut wanted: BTreeMap<i32, i64> = self
            .watermarks(&consumer, topic)
            .into_iter()
            .filter(|(_, (low, high))| low < high)
            .map(|(partition, (_, high))| (partition, high))
            .collect();
        let mut assignment = TopicPartitionList::new();
        for partition in wanted.keys() {
            assignment
                .add_partition_offset(topic, *partition, Offset::Beginning)
                .expect("an assignment");
        }
        consumer.assign(&assignment).expect("assign");
        let mut records = Vec::new();
        let started = Instant::now();
        while !wanted.is_empty() {
            assert!(
                started.elapsed() < 2 * PATIENCE,
                "{topic} could not be read to its end: {wanted:?} missing"
            );
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    let Some(end) = wanted.get(&message.partition()).copied() else {
                        continue;
                    };
                    if message.offset() < end {
                        records.push(record(&message));
                    }
                    if message.offset() + 1 >= end {
                        wanted.remove(&message.partition());
                    }
                }
                // The last offsets may hold no record: transaction markers, or what compaction took.
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(wanted.remove(&partition)),
                // librdkafka reports a broker that is away here, and tries again by itself.
                Some(Err(_)) | None => {}
            }
        }
        records.sort_by_key(|record| (record.partition, record.offset));
        records
    }

    /// Reads the topic again and again until `enough` says so, and returns what it holds then.
    pub fn consume_until(
        &self,
        topic: &str,
        timeout: Duration,
        enough: impl Fn(&[Record]) -> bool,
    ) -> Vec<Record> {
        let started = Instant::now();
        loop {
            let records = self.consume_all(topic);
            if enough(&records) {
                return records;
            }
            assert!(
                started.elapsed() < timeout,
                "{topic} does not hold within {timeout:?} what was waited for; it has {} records, the last of them {:?}",
                records.len(),
                records.last()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// What a group has committed of a topic, by partition: the next offset it would read. `None` where nothing was.
    pub fn committed(&self, group: &str, topic: &str) -> BTreeMap<i32, Option<i64>> {
        one_topic(self.committed_of(group, &[topic]))
    }

    /// The same of several topics, in one question.
    pub fn committed_of(&self, group: &str, topics: &[&str]) -> ByPlace<Option<i64>> {
        let asked = self.places(topics, Offset::Invalid);
        let committed = self.asker(group, |asker| {
            asker
                .committed_offsets(asked, PATIENCE)
                .expect("committed offsets")
        });
        by_place(&committed)
            .map(|(place, offset)| (place, offset.to_raw().filter(|raw| *raw >= 0)))
            .collect()
    }

    /// The high watermark of every partition: the offset the next record will have.
    pub fn end_offsets(&self, topic: &str) -> BTreeMap<i32, i64> {
        one_topic(self.ends_of(&[topic]))
    }

    /// The same of several topics, in one question.
    pub fn ends_of(&self, topics: &[&str]) -> ByPlace<i64> {
        // As a time this is "the end" (ListOffsets' LATEST).
        let asked = self.places(topics, Offset::End);
        let ends = self.asker(&self.name("ends"), |asker| {
            asker.offsets_for_times(asked, PATIENCE).expect("ends")
        });
        by_place(&ends)
            .map(|(place, offset)| (place, offset.to_raw().expect("an end")))
            .collect()
    }

    /// How many members a group has now.
    pub fn members(&self, group: &str) -> usize {
        let groups = self
            .admin
            .inner()
            .fetch_group_list(Some(group), PATIENCE)
            .expect("the group");
        groups
            .groups()
            .iter()
            .map(|group| group.members().len())
            .sum()
    }

    fn places(&self, topics: &[&str], offset: Offset) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for topic in topics {
            let partitions = self.partitions(topic);
            assert!(!partitions.is_empty(), "there is no topic {topic}");
            for partition in partitions {
                list.add_partition_offset(topic, partition, offset)
                    .expect("a place");
            }
        }
        list
    }

    /// A client for questions about a group, kept: to make one costs more than the question.
    fn asker<T>(&self, group: &str, ask: impl FnOnce(&BaseConsumer) -> T) -> T {
        let mut askers = self.askers.lock().expect("no test panics with it");
        let asker = askers
            .entry(group.to_owned())
            .or_insert_with(|| Arc::new(self.consumer(group)))
            .clone();
        drop(askers);
        ask(&asker)
    }

    /// A client that joins no group: it has a group's name only to ask for its commits.
    fn consumer(&self, group: &str) -> BaseConsumer {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.bootstrap)
            .set("group.id", group);
        config
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false");
        config
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "20");
        config
            .set("reconnect.backoff.max.ms", "500")
            .set("fetch.message.max.bytes", "20000000");
        config.create().expect("a consumer")
    }

    fn watermarks(&self, consumer: &BaseConsumer, topic: &str) -> BTreeMap<i32, (i64, i64)> {
        let partitions = self.partitions(topic);
        assert!(!partitions.is_empty(), "there is no topic {topic}");
        // A topic that was made just now is shown before its leaders lead.
        let of = |partition| {
            eventually("the watermarks", PATIENCE, || {
                consumer.fetch_watermarks(topic, partition, PATIENCE).ok()
            })
        };
        partitions
            .into_iter()
            .map(|partition| (partition, of(partition)))
            .collect()
    }

    /// Those with a leader, so that they can be written and read.
    fn partitions(&self, topic: &str) -> Vec<i32> {
        let metadata = self
            .admin
            .inner()
            .fetch_metadata(Some(topic), PATIENCE)
            .expect("metadata");
        let partitions = metadata
            .topics()
            .iter()
            .flat_map(|topic| topic.partitions());
        partitions
            .filter(|partition| partition.leader() >= 0)
            .map(|partition| partition.id())
            .collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The broker may be dead, by design of the test: ask once, briefly, and do not mind.
        let Ok(metadata) = self
            .admin
            .inner()
            .fetch_metadata(None, Duration::from_secs(2))
        else {
            return;
        };
        let names = metadata.topics().iter().map(|topic| topic.name());
        let ours: Vec<&str> = names
            .filter(|name| name.starts_with(&self.prefix))
            .collect();
        if !ours.is_empty() {
            let _ = block_on(self.admin.delete_topics(&ours, &patient()));
        }
    }
}

fn patient() -> AdminOptions {
    AdminOptions::new()
        .operation_timeout(Some(PATIENCE))
        .request_timeout(Some(PATIENCE))
}

fn record(message: &impl Message<Headers: Headers>) -> Record {
    let headers = message
        .headers()
        .map(|headers| headers.iter().collect::<Vec<_>>())
        .unwrap_or_default();
    Record {
        partition: message.partition(),
        offset: message.offset(),
        timestamp: message.timestamp().to_millis(),
        key: message.key().map(<[u8]>::to_vec),
        payload: message.payload().map(<[u8]>::to_vec),
        headers: headers
            .into_iter()
            .map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec)))
            .collect(),
    }
}

/// Index of the record, and where its fate is to be told.
type Acknowledge = (usize, mpsc::Sender<(usize, Result<(i32, i64), KafkaError>)>);

struct Acknowledgements;

impl ClientContext for Acknowledgements {}

impl ProducerContext for Acknowledgements {
    type DeliveryOpaque = Box<Acknowledge>;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: Self::DeliveryOpaque) {
        let (index, acknowledge) = *opaque;
        let placed = result
            .as_ref()
            .map(|message| (message.partition(), message.offset()));
        // Nobody waits any more when the test has failed already.
        let _ = acknowledge.send((index, placed.map_err(|(error, _)| error.clone())));
    }
}
