//! Reads all topics of the program as it goes on, and asks where its groups stand, past the proxy. What it finds it tells
//! the oracle.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;

use super::events::number_of_id;
use super::oracle::ending::Standing;
use super::oracle::{Key, Kind, Oracle, Place};

const ANSWER: Duration = Duration::from_secs(5);

/// The names of a run's topics and groups.
#[derive(Clone, Debug)]
pub struct Names {
    pub bootstrap: String,
    pub sources: Vec<String>,
    pub dispatch: String,
    pub delays: Vec<String>,
    pub held: String,
    pub letters: String,
    pub attempts: String,
    pub group: String,
}

impl Names {
    fn followed(&self) -> Vec<&str> {
        let one = [&self.dispatch, &self.held, &self.letters, &self.attempts];
        one.into_iter()
            .chain(&self.delays)
            .map(String::as_str)
            .collect()
    }

    /// Group and topics of each stage that commits.
    fn stages(&self) -> Vec<(String, Vec<&str>)> {
        let group = |stage: &str| format!("{}.{stage}", self.group);
        vec![
            (
                group("route"),
                self.sources.iter().map(String::as_str).collect(),
            ),
            (group("deliver"), vec![&self.dispatch]),
            (
                group("release"),
                self.delays.iter().map(String::as_str).collect(),
            ),
        ]
    }
}

type ByPlace = BTreeMap<(String, i32), i64>;

pub struct Follower {
    names: Names,
    oracle: Arc<Mutex<Oracle>>,
    positions: Arc<Mutex<HashMap<(String, i32), i64>>>,
    /// One for each group. Made anew when one does not answer: the broker may have been killed under it (CHAOS.md, "Known").
    askers: Mutex<Vec<BaseConsumer>>,
    end: Arc<AtomicBool>,
    reader: Arc<BaseConsumer>,
    thread: Option<JoinHandle<()>>,
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn consumer(bootstrap: &str, group: &str) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("group.id", group);
    config
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest");
    config
        .set("reconnect.backoff.max.ms", "500")
        .set("fetch.wait.max.ms", "100");
    config.create().unwrap()
}

fn askers_of(names: &Names) -> Vec<BaseConsumer> {
    let stages = names.stages();
    let groups = stages.iter();
    groups
        .map(|(group, _)| consumer(&names.bootstrap, group))
        .collect()
}

impl Follower {
    pub fn start(names: Names, oracle: Arc<Mutex<Oracle>>) -> Self {
        let reader = Arc::new(consumer(&names.bootstrap, "chaos.follower"));
        let mut list = TopicPartitionList::new();
        for topic in names.followed() {
            for partition in partitions(&reader, topic).unwrap() {
                list.add_partition_offset(topic, partition, Offset::Beginning)
                    .unwrap();
            }
        }
        reader.assign(&list).unwrap();
        let askers = Mutex::new(askers_of(&names));
        let end = Arc::new(AtomicBool::new(false));
        let positions = Arc::new(Mutex::new(HashMap::new()));
        let told = Telling {
            names: names.clone(),
            oracle: oracle.clone(),
            positions: positions.clone(),
        };
        let (ended, consumer) = (end.clone(), reader.clone());
        let thread = std::thread::spawn(move || {
            while !ended.load(SeqCst) {
                if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
                    told.tell(&message);
                }
            }
        });
        Self {
            names,
            oracle,
            positions,
            askers,
            end,
            reader,
            thread: Some(thread),
        }
    }

    /// The dispatch topic is to be deleted: no longer read.
    pub fn leave_dispatch(&self) {
        let mut list = TopicPartitionList::new();
        for partition in partitions(&self.reader, &self.names.dispatch).unwrap() {
            list.add_partition(&self.names.dispatch, partition);
        }
        self.reader.incremental_unassign(&list).unwrap();
        hold(&self.positions).retain(|(topic, _), _| *topic != self.names.dispatch);
    }

    /// 4: what was committed, then everything that was there by then, then the oracle. `None`: the broker did not answer.
    pub fn audit(&self) -> Option<()> {
        let committed: Vec<ByPlace> = self.committed()?;
        let ends = self.ends(&self.names.followed())?;
        let since = Instant::now();
        while !self.has_read(&ends) {
            if since.elapsed() > Duration::from_secs(30) {
                return None;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut oracle = hold(&self.oracle);
        for ((topic, partition), next) in committed
            .into_iter()
            .flatten()
            .filter(|(_, next)| *next > 0)
        {
            match self
                .names
                .sources
                .iter()
                .position(|source| *source == topic)
            {
                Some(source) => {
                    oracle.committed_source(source as u8, partition as u16, next as u64)
                }
                None => oracle.committed(&topic, partition, next as u64),
            }
        }
        Some(())
    }

    fn has_read(&self, ends: &ByPlace) -> bool {
        let positions = hold(&self.positions);
        ends.iter()
            .all(|(place, end)| *end == 0 || positions.get(place).is_some_and(|at| at >= end))
    }

    /// By stage, −1 where nothing is committed.
    fn committed(&self) -> Option<Vec<ByPlace>> {
        let stages = self.names.stages();
        let of_stage = |(asker, (_, topics)): (&BaseConsumer, &(String, Vec<&str>))| {
            let list = places(asker, topics, Offset::Invalid)?;
            Some(by_place(&asker.committed_offsets(list, ANSWER).ok()?))
        };
        self.ask(|askers| askers.iter().zip(&stages).map(of_stage).collect())
    }

    fn ends(&self, topics: &[&str]) -> Option<ByPlace> {
        self.ask(|askers| {
            let asker = askers.first()?;
            let list = places(asker, topics, Offset::End)?;
            Some(by_place(&asker.offsets_for_times(list, ANSWER).ok()?))
        })
    }

    fn ask<T>(&self, question: impl FnOnce(&[BaseConsumer]) -> Option<T>) -> Option<T> {
        let mut askers = hold(&self.askers);
        let answer = question(&askers);
        if answer.is_none() {
            *askers = askers_of(&self.names);
        }
        answer
    }

    /// 5: every partition that a group reads, with its commit and its end; `None` where the broker did not answer.
    pub fn standings(&self) -> Option<Vec<Standing>> {
        let topics: Vec<&str> = self
            .names
            .stages()
            .into_iter()
            .flat_map(|(_, topics)| topics)
            .collect::<Vec<_>>();
        let committed: ByPlace = self.committed()?.into_iter().flatten().collect();
        let ends = self.ends(&topics)?;
        Some(
            ends.into_iter()
                .map(|(place, end)| Standing {
                    committed: committed.get(&place).copied().filter(|offset| *offset >= 0),
                    place: format!("{}/{}", place.0, place.1),
                    end,
                })
                .collect(),
        )
    }

    /// Waits until every record that is there now has been told.
    pub fn catch_up(&self, topics_gone: &[&str]) -> bool {
        let topics: Vec<&str> = self
            .names
            .followed()
            .into_iter()
            .filter(|topic| !topics_gone.contains(topic))
            .collect();
        let since = Instant::now();
        while since.elapsed() < Duration::from_secs(60) {
            if self.ends(&topics).is_some_and(|ends| self.has_read(&ends)) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        false
    }

    /// The records of some deliveries, told again from the beginning, for people.
    pub fn history(&self, keys: &[Key]) -> Vec<String> {
        let reader = consumer(&self.names.bootstrap, "chaos.history");
        let mut list = TopicPartitionList::new();
        for topic in self.names.followed() {
            for partition in partitions(&reader, topic).unwrap_or_default() {
                let _ = list.add_partition_offset(topic, partition, Offset::Beginning);
            }
        }
        let _ = reader.assign(&list);
        let mut lines = Vec::new();
        let mut idle = 0;
        while idle < 20 {
            let Some(Ok(message)) = reader.poll(Duration::from_millis(100)) else {
                idle += 1;
                continue;
            };
            idle = 0;
            if let Some((key, kind)) =
                read(&self.names, &message).filter(|(key, _)| keys.contains(key))
            {
                lines.push(format!(
                    "{:?} {} {:?}: {}/{}/{} appended {:?} {kind:?} {}",
                    key.place(),
                    key.webhook(),
                    key,
                    message.topic(),
                    message.partition(),
                    message.offset(),
                    message.timestamp().to_millis(),
                    ["postrider-attempt", "postrider-due", "postrider-reason"]
                        .map(|name| format!("{name}={}", header(&message, name).unwrap_or("-")))
                        .join(" "),
                ));
            }
        }
        lines.sort();
        lines
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.end.store(true, SeqCst);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

struct Telling {
    names: Names,
    oracle: Arc<Mutex<Oracle>>,
    positions: Arc<Mutex<HashMap<(String, i32), i64>>>,
}

impl Telling {
    fn tell(&self, message: &BorrowedMessage<'_>) {
        let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
        match read(&self.names, message) {
            Some((key, kind)) => {
                let appended_ms = message.timestamp().to_millis().unwrap_or(0);
                hold(&self.oracle).record(topic, partition, offset as u64, appended_ms, key, &kind);
            }
            None => hold(&self.oracle).violation(
                2,
                None,
                format!("{topic}/{partition}/{offset} is no record of this run"),
            ),
        }
        hold(&self.positions).insert((topic.to_owned(), partition), offset + 1);
    }
}

fn header<'a>(message: &'a BorrowedMessage<'_>, name: &str) -> Option<&'a str> {
    let found = message
        .headers()?
        .iter()
        .filter(|header| header.key == name)
        .last()?;
    std::str::from_utf8(found.value?).ok()
}

fn read(names: &Names, message: &BorrowedMessage<'_>) -> Option<(Key, Kind)> {
    if message.topic() == names.attempts {
        let value: Value = serde_json::from_slice(message.payload()?).ok()?;
        let key = key_of(
            names,
            value["webhook_id"].as_str()?,
            value["source"].as_str()?,
        )?;
        let kind = value["ending"]
            .as_str()
            .map_or(Kind::Attempt, |ending| Kind::Ending(ending.to_owned()));
        return Some((key, kind));
    }
    let key = key_of(
        names,
        header(message, "postrider-webhook-id")?,
        header(message, "postrider-source")?,
    )?;
    let kind = if message.topic() == names.dispatch {
        Kind::Dispatch {
            created_ms: header(message, "postrider-created-at")?.parse().ok()?,
        }
    } else if message.topic() == names.held {
        Kind::Held
    } else if message.topic() == names.letters {
        let attempts = header(message, "postrider-attempt")?.parse().ok()?;
        Kind::Letter {
            reason: header(message, "postrider-reason")?.to_owned(),
            attempts,
        }
    } else {
        Kind::Delay
    };
    Some((key, kind))
}

fn key_of(names: &Names, webhook: &str, source: &str) -> Option<Key> {
    let mut parts = source.split('/');
    let topic = parts.next()?;
    let place = Place {
        source: names.sources.iter().position(|known| known == topic)? as u8,
        partition: parts.next()?.parse().ok()?,
        offset: parts.next()?.parse().ok()?,
    };
    Some(Key::new(number_of_id(webhook)?, place))
}

fn partitions(asker: &BaseConsumer, topic: &str) -> Option<Vec<i32>> {
    let metadata = asker.fetch_metadata(Some(topic), ANSWER).ok()?;
    let found = metadata.topics().first()?.partitions();
    Some(
        found
            .iter()
            .filter(|partition| partition.leader() >= 0)
            .map(|partition| partition.id())
            .collect(),
    )
}

fn places(asker: &BaseConsumer, topics: &[&str], offset: Offset) -> Option<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for topic in topics {
        for partition in partitions(asker, topic)? {
            list.add_partition_offset(topic, partition, offset).ok()?;
        }
    }
    Some(list)
}

fn by_place(list: &TopicPartitionList) -> ByPlace {
    let entry = |(place, offset): ((String, i32), Offset)| (place, offset.to_raw().unwrap_or(-1));
    list.elements()
        .iter()
        .map(|element| {
            (
                (element.topic().to_owned(), element.partition()),
                element.offset(),
            )
        })
        .map(entry)
        .collect()
}
