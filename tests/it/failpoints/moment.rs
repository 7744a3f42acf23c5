//! What Kafka and the receiver had at the moment of a death, and what must be true of it: every committed record had been
//! earned, and nothing but what was open is repeated.

use std::collections::{BTreeMap, BTreeSet};

use postrider::record::Source;

use crate::harness::{Cluster, Receiver, Request, Router, delivery_ids};

const DELIVERY: &str = "postrider-delivery-id";

pub type Place = (String, i32);

/// What Kafka and the receiver had at a death.
pub struct Moment {
    /// Of the groups of all stages. Asked first: what is found in the topics afterwards can only be more.
    pub committed: BTreeMap<Place, i64>,
    /// Records of `dispatch` and of the delay topics, by delivery.
    pub dispatched: Places,
    pub delayed: Places,
    pub buried: BTreeSet<String>,
    pub accepted: BTreeSet<String>,
    /// Deliveries whose ending is recorded.
    pub ended: BTreeSet<String>,
}

/// The places of records in some topics, by delivery.
pub type Places = BTreeMap<String, Vec<Source>>;

pub fn places(cluster: &Cluster, topics: &[&str]) -> Places {
    let mut found = Places::new();
    for topic in topics {
        for record in cluster.consume_all(topic) {
            let id = record.header(DELIVERY).unwrap().to_owned();
            found.entry(id).or_default().push(Source {
                topic: (*topic).into(),
                partition: record.partition,
                offset: record.offset,
            });
        }
    }
    found
}

pub fn each(places: &Places) -> impl Iterator<Item = (&String, &Source)> {
    places
        .iter()
        .flat_map(|(id, places)| places.iter().map(move |place| (id, place)))
}

impl Moment {
    pub fn of(router: &Router<'_>, receiver: &Receiver) -> Self {
        let cluster = router.cluster;
        let topics = router.topics();
        let delays: Vec<&str> = topics.delays().map(|(_, name)| &**name).collect();
        let sources: Vec<&str> = router.config.intake.topics.iter().map(|t| &**t).collect();
        let mut committed = BTreeMap::new();
        for (stage, of_stage) in [
            ("route", &sources[..]),
            ("deliver", &[&*topics.dispatch][..]),
            ("release", &delays[..]),
        ] {
            let group = format!("{}.{stage}", router.config.kafka.group_id);
            for ((topic, partition), at) in cluster.committed_of(&group, of_stage) {
                committed.insert((topic, partition), at.unwrap_or(0));
            }
        }
        let ended = router.attempts();
        let ended = ended.iter().filter(|attempt| attempt["ending"].is_string());
        Self {
            committed,
            dispatched: places(cluster, &[&topics.dispatch]),
            delayed: places(cluster, &delays),
            buried: places(cluster, &[&topics.dead_letters])
                .into_keys()
                .collect(),
            accepted: ids_of(&receiver.accepted()).into_keys().collect(),
            ended: ended
                .map(|attempt| attempt["delivery_id"].as_str().unwrap().to_owned())
                .collect(),
        }
    }

    pub fn is_committed(&self, record: &Source) -> bool {
        let place = (record.topic.to_string(), record.partition);
        let at = self.committed.get(&place);
        at.is_some_and(|at| record.offset < *at)
    }

    /// Deliveries of which some record in our topics is not committed: those a successor may repeat.
    pub fn open(&self) -> BTreeSet<&String> {
        each(&self.dispatched)
            .chain(each(&self.delayed))
            .filter(|(_, record)| !self.is_committed(record))
            .map(|(id, _)| id)
            .collect()
    }

    /// Every committed record has what it caused, in a topic or at the receiver; the answer is how many were looked at.
    pub fn assert_commits_were_earned(&self, events: &[Source], webhooks: &[&str]) -> usize {
        let mut seen = 0;
        for event in events {
            if !self.is_committed(event) {
                continue;
            }
            seen += 1;
            for webhook in webhooks {
                let id = &delivery_ids(std::slice::from_ref(event), webhook)[0];
                assert!(
                    self.dispatched.contains_key(id),
                    "{event} is committed, and its delivery {id} to {webhook} is nowhere"
                );
            }
        }
        let times = |places: &Places, id| places.get(id).map_or(0, Vec::len);
        for (id, record) in each(&self.dispatched) {
            if self.is_committed(record) {
                seen += 1;
                assert!(
                    self.accepted.contains(id)
                        || self.delayed.contains_key(id)
                        || self.buried.contains(id)
                        || times(&self.dispatched, id) > 1,
                    "{id} is committed at {record}, and it neither ended nor waits"
                );
            }
        }
        for (id, record) in each(&self.delayed) {
            if self.is_committed(record) {
                seen += 1;
                assert!(
                    times(&self.dispatched, id) > 1 || times(&self.delayed, id) > 1,
                    "{id} is committed at {record}, and is nowhere else"
                );
            }
        }
        seen
    }

    /// What was repeated was in flight at this moment: its record in one of our topics was open, or its event was.
    pub fn assert_only_the_open_were_repeated(&self, router: &Router<'_>, accepted: &[Request]) {
        let open = self.open();
        let unrouted: BTreeSet<String> = router
            .cluster
            .consume_all(&router.topics().dispatch)
            .into_iter()
            .filter(|record| {
                let event: Source = record.header("postrider-source").unwrap().parse().unwrap();
                !self.is_committed(&event)
            })
            .map(|record| record.header(DELIVERY).unwrap().to_owned())
            .collect();
        for (id, times) in ids_of(accepted) {
            assert!(
                times == 1 || open.contains(&id) || unrouted.contains(&id),
                "{id} arrived {times} times, though it was settled and committed at the death"
            );
        }
    }
}

pub fn ids_of(requests: &[Request]) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    for request in requests {
        *times.entry(request.id().unwrap().to_owned()).or_default() += 1;
    }
    times
}
