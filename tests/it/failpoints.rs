//! The process dies at each of the moments between two durable steps, under load, and is started again: nothing is lost, what
//! repeats has the same id and was in flight, and what was committed had been earned (promises 1 to 3).
//!
//! `crashes` kills at any moment; here the moment is chosen (the table is in `src/failpoint.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nix::sys::signal::Signal;
use postrider::record::Source;
use serde_json::{Value, json};

use crate::harness::{
    Cluster, Process, Receiver, Reply, Request, Router, assert_all_arrived, delivery_ids,
};

const PATIENCE: Duration = Duration::from_secs(120);
const DELIVERY: &str = "postrider-delivery-id";

type Place = (String, i32);

/// What Kafka and the receiver had at a death.
struct Moment {
    /// Of the groups of all stages. Asked first: what is found in the topics afterwards can only be more.
    committed: BTreeMap<Place, i64>,
    /// Records of `dispatch` and of the delay topics, by delivery.
    dispatched: Places,
    delayed: Places,
    buried: BTreeSet<String>,
    accepted: BTreeSet<String>,
    /// Deliveries whose ending is recorded.
    ended: BTreeSet<String>,
}

/// The places of records in some topics, by delivery.
type Places = BTreeMap<String, Vec<Source>>;

fn places(cluster: &Cluster, topics: &[&str]) -> Places {
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

fn each(places: &Places) -> impl Iterator<Item = (&String, &Source)> {
    places
        .iter()
        .flat_map(|(id, places)| places.iter().map(move |place| (id, place)))
}

impl Moment {
    fn of(router: &Router<'_>, receiver: &Receiver) -> Self {
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

    fn is_committed(&self, record: &Source) -> bool {
        let place = (record.topic.to_string(), record.partition);
        let at = self.committed.get(&place);
        at.is_some_and(|at| record.offset < *at)
    }

    /// Deliveries of which some record in our topics is not committed: those a successor may repeat.
    fn open(&self) -> BTreeSet<&String> {
        each(&self.dispatched)
            .chain(each(&self.delayed))
            .filter(|(_, record)| !self.is_committed(record))
            .map(|(id, _)| id)
            .collect()
    }

    /// Every committed record has what it caused, in a topic or at the receiver; the answer is how many were looked at.
    fn assert_commits_were_earned(&self, events: &[Source], webhooks: &[&str]) -> usize {
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
    fn assert_only_the_open_were_repeated(&self, router: &Router<'_>, accepted: &[Request]) {
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

fn ids_of(requests: &[Request]) -> BTreeMap<String, usize> {
    let mut times = BTreeMap::new();
    for request in requests {
        *times.entry(request.id().unwrap().to_owned()).or_default() += 1;
    }
    times
}

fn number(request: &Request) -> u64 {
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    body["n"].as_u64().unwrap()
}

/// Slow enough that there is a backlog when the end comes.
fn slow_receiver() -> Receiver {
    Receiver::start(|_| Reply::ok().after(Duration::from_millis(20)))
}

/// The rest after a death: all arrives, every delivery ended well, and the successor leaves in an orderly way.
fn assert_all_ended(router: &Router<'_>, receiver: &Receiver, ids: &[String], moment: &Moment) {
    receiver.wait_for_deliveries(ids.len(), PATIENCE);
    router.wait_until_idle();
    let accepted = receiver.accepted();
    assert_all_arrived(&accepted, ids);
    moment.assert_only_the_open_were_repeated(router, &accepted);
    let endings = router.endings();
    assert_eq!(endings.len(), ids.len());
    for (delivery, endings) in endings {
        assert!(
            !endings.is_empty() && endings.iter().all(|ending| ending == "delivered"),
            "{delivery:?}: {endings:?}"
        );
    }
}

#[test]
fn a_death_between_a_2xx_and_its_ending_repeats_the_delivery_with_the_same_id() {
    const EVENTS: usize = 1000;
    let cluster = Cluster::named("point-2xx");
    let receiver = slow_receiver();
    let mut router = Router::idle(&cluster, &["events.job"], "");
    router.leaves_work();
    router.subscribe("wh_a", &receiver.url("/"), json!({}));
    let process = Process::start_with(router.config_text(), "deliver-after-2xx=400*off->return");
    let events = router.produce("events.job", 0..EVENTS);
    process.wait_for_death();

    let moment = Moment::of(&router, &receiver);
    let unrecorded: Vec<&String> = moment.accepted.difference(&moment.ended).collect();
    assert!(!unrecorded.is_empty(), "it did not die after a 2xx");
    let open = moment.open();
    for id in &unrecorded {
        assert!(open.contains(id), "{id} was committed before it ended");
    }
    let earned = moment.assert_commits_were_earned(&events, &["wh_a"]);
    assert!(earned > 100, "only {earned} records were committed");

    let process = Process::start(router.config_text());
    let ids = delivery_ids(&events, "wh_a");
    assert_all_ended(&router, &receiver, &ids, &moment);
    let times = ids_of(&receiver.accepted());
    for id in unrecorded {
        assert_eq!(times[id], 2, "{id} was not repeated");
    }
    assert_eq!(process.terminate().0.code(), Some(0));
}

#[test]
fn a_death_between_a_retry_and_its_settling_loses_neither() {
    const EVENTS: usize = 1000;
    let cluster = Cluster::named("point-retry");
    let receiver = Receiver::start(|request| {
        if number(request).is_multiple_of(4) && request.header("x-webhook-attempt") == Some("1") {
            Reply::status(500)
        } else {
            Reply::ok().after(Duration::from_millis(20))
        }
    });
    let mut router = Router::idle(&cluster, &["events.job"], "");
    router.leaves_work();
    router.subscribe("wh_a", &receiver.url("/"), json!({"retry_backoff": 2}));
    let process = Process::start_with(
        router.config_text(),
        "deliver-after-retry-written=80*off->return",
    );
    let events = router.produce("events.job", 0..EVENTS);
    process.wait_for_death();

    let moment = Moment::of(&router, &receiver);
    let written_and_open = each(&moment.dispatched)
        .filter(|(id, record)| moment.delayed.contains_key(*id) && !moment.is_committed(record))
        .count();
    assert!(written_and_open > 0, "it did not die after a retry's write");
    let earned = moment.assert_commits_were_earned(&events, &["wh_a"]);
    assert!(earned > 100, "only {earned} records were committed");

    let process = Process::start(router.config_text());
    assert_all_ended(&router, &receiver, &delivery_ids(&events, "wh_a"), &moment);
    assert_eq!(process.terminate().0.code(), Some(0));
}

#[test]
fn a_death_in_the_middle_of_a_fan_out_leaves_no_webhook_out() {
    const WEBHOOKS: [&str; 4] = ["wh_a", "wh_b", "wh_c", "wh_d"];
    const EVENTS: usize = 600;
    let cluster = Cluster::named("point-fan-out");
    let receiver = slow_receiver();
    let mut router = Router::idle(&cluster, &["events.job"], "");
    router.leaves_work();
    for webhook in WEBHOOKS {
        router.subscribe(webhook, &receiver.url("/"), json!({}));
    }
    // Three times an event. The pause lets the first part of the event that dies reach its topic.
    let process = Process::start_with(
        router.config_text(),
        "route-between-deliveries=1200*off->1*sleep(500)->return",
    );
    let mut events = router.produce("events.job", 0..EVENTS / 2);
    receiver.wait_for_accepted(WEBHOOKS.len() * EVENTS / 4, PATIENCE);
    events.extend(router.produce("events.job", EVENTS / 2..EVENTS));
    process.wait_for_death();

    let moment = Moment::of(&router, &receiver);
    let parts = |event: &&Source| {
        let ids = WEBHOOKS.map(|webhook| delivery_ids(std::slice::from_ref(*event), webhook));
        let ids = ids.iter().flatten();
        ids.filter(|id| moment.dispatched.contains_key(*id)).count()
    };
    let halves: Vec<&Source> = events
        .iter()
        .filter(|event| (1..WEBHOOKS.len()).contains(&parts(event)))
        .collect();
    assert!(
        !halves.is_empty(),
        "no event was left with half its fan-out"
    );
    for half in halves {
        assert!(
            !moment.is_committed(half),
            "{half} is committed with half its deliveries"
        );
    }
    let earned = moment.assert_commits_were_earned(&events, &WEBHOOKS);
    assert!(earned > 100, "only {earned} records were committed");

    let process = Process::start(router.config_text());
    let ids: Vec<String> = WEBHOOKS
        .iter()
        .flat_map(|webhook| delivery_ids(&events, webhook))
        .collect();
    assert_all_ended(&router, &receiver, &ids, &moment);
    assert_eq!(process.terminate().0.code(), Some(0));
}

#[test]
fn a_death_while_deliveries_are_handed_back_repeats_only_what_was_not_committed() {
    die_inside_a_revoke("deliver");
}

#[test]
fn a_death_while_sources_are_handed_back_repeats_only_what_was_not_committed() {
    die_inside_a_revoke("route");
}

#[test]
fn a_death_while_what_waits_is_handed_back_repeats_only_what_was_not_committed() {
    die_inside_a_revoke("release");
}

fn die_inside_a_revoke(stage: &str) {
    const WEBHOOKS: [&str; 4] = ["wh_a", "wh_b", "wh_c", "wh_d"];
    const EVENTS: usize = 500;
    let cluster = Cluster::named(&format!("point-revoke-{stage}"));
    let receiver = Receiver::start(|request| {
        if number(request).is_multiple_of(10) && request.header("x-webhook-attempt") == Some("1") {
            Reply::status(500)
        } else {
            Reply::ok().after(Duration::from_millis(20))
        }
    });
    let mut router = Router::idle(&cluster, &["events.job"], "");
    router.leaves_work();
    for webhook in WEBHOOKS {
        let fields = json!({"retry_backoff": 2, "max_concurrency": 6});
        router.subscribe(webhook, &receiver.url("/"), fields);
    }
    let dying = Process::start_with(router.config_text(), &format!("{stage}-in-revoke=return"));
    let events = router.produce("events.job", 0..EVENTS);
    receiver.wait_for_accepted(WEBHOOKS.len() * EVENTS / 4, PATIENCE);
    // The one that comes takes partitions away from the one that is there.
    let mut successor = Process::spawn(router.config_text(), "");
    dying.wait_for_death();

    let moment = Moment::of(&router, &receiver);
    let arrived = moment.accepted.len();
    assert!(arrived < WEBHOOKS.len() * EVENTS, "too late to matter");
    let earned = moment.assert_commits_were_earned(&events, &WEBHOOKS);
    assert!(earned > 100, "only {earned} records were committed");

    successor.wait_until_ready();
    let third = Process::start(router.config_text());
    let ids: Vec<String> = WEBHOOKS
        .iter()
        .flat_map(|webhook| delivery_ids(&events, webhook))
        .collect();
    assert_all_ended(&router, &receiver, &ids, &moment);
    assert_eq!(successor.terminate().0.code(), Some(0));
    assert_eq!(third.terminate().0.code(), Some(0));
}

#[test]
fn a_death_while_the_catalog_is_replayed_sends_nothing_and_drops_nothing() {
    const EVENTS: usize = 600;
    const OTHERS: usize = 40;
    let cluster = Cluster::named("point-catalog");
    let receiver = slow_receiver();
    let mut router = Router::idle(&cluster, &["events.job"], "");
    router.leaves_work();
    for other in 0..OTHERS {
        let fields = json!({"event_types": ["config.changed"]});
        router.subscribe(&format!("wh_other_{other}"), &receiver.url("/"), fields);
    }
    // The last one told: while the catalog is replayed, the deliveries that wait are for a webhook that is not known.
    router.subscribe("wh_a", &receiver.url("/"), json!({}));
    // Under load, at a change of the catalog.
    let process = Process::start_with(
        router.config_text(),
        &format!("catalog-in-replay={}*off->return", OTHERS + 1),
    );
    let events = router.produce("events.job", 0..EVENTS);
    receiver.wait_for_accepted(EVENTS / 4, PATIENCE);
    router.change("wh_a", |webhook| webhook.max_concurrency = 12);
    process.wait_for_death();
    let moment = Moment::of(&router, &receiver);
    assert!(moment.accepted.len() < EVENTS, "too late to matter");
    moment.assert_commits_were_earned(&events, &["wh_a"]);
    let requests = receiver.requests().len();

    // Half-way through the replay at the next start, twice.
    for _ in 0..2 {
        Process::spawn(router.config_text(), "catalog-in-replay=20*off->return").wait_for_death();
        let again = Moment::of(&router, &receiver);
        assert_eq!(again.committed, moment.committed, "something was committed");
        assert_eq!(receiver.requests().len(), requests, "something was sent");
    }

    // A replay that takes its time: nothing is read before it is through.
    let mut process = Process::spawn(router.config_text(), "catalog-in-replay=42*sleep(50)->off");
    process.wait_until_ready();
    assert_all_ended(&router, &receiver, &delivery_ids(&events, "wh_a"), &moment);
    process.signal(Signal::SIGTERM);
    assert_eq!(process.terminate().0.code(), Some(0));
}

/// `name` of every `fail_point!("name"` in a text; the stage's name is put in where there is `{}`.
fn points_in(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for part in text.split("fail_point!(").skip(1) {
        let name = part.split('"').nth(1).unwrap();
        match name.strip_prefix("{}") {
            None => found.extend([name.to_owned()]),
            Some(rest) => found.extend(
                ["route", "deliver", "release", "held"].map(|stage| format!("{stage}{rest}")),
            ),
        }
    }
    found
}

#[test]
fn every_fail_point_is_in_the_table_and_every_one_of_the_table_is_somewhere() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeSet::new();
    for folder in ["pipeline", "kafka"] {
        for entry in std::fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                found.extend(points_in(&std::fs::read_to_string(path).unwrap()));
            }
        }
    }
    let table: BTreeSet<String> = std::fs::read_to_string(root.join("failpoint.rs"))
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix("//! | `"))
        .flat_map(|row| row.split('|').next().unwrap().split('`').step_by(2))
        .filter(|name| !name.trim().is_empty() && name.trim() != ",")
        .map(str::to_owned)
        .collect();
    assert_eq!(found.len(), 8, "{found:?}");
    assert_eq!(found, table);
}
