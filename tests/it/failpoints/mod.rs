//! The process dies at each of the moments between two durable steps, under load, and is started again: nothing is lost, what
//! repeats has the same id and was in flight, and what was committed had been earned (promises 1 to 3).
//!
//! `crashes` kills at any moment; here the moment is chosen (the table is in `src/failpoint.rs`).

mod moment;

use std::collections::BTreeSet;
use std::time::Duration;

use nix::sys::signal::Signal;
use postrider::record::Source;
use serde_json::{Value, json};

use crate::harness::{
    Cluster, Process, Receiver, Reply, Request, Router, assert_all_arrived, delivery_ids,
    eventually, get,
};

use moment::{Moment, each, ids_of};

const PATIENCE: Duration = Duration::from_secs(120);
fn number(request: &Request) -> u64 {
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    body["n"].as_u64().unwrap()
}

/// Slow enough that there is a backlog when the end comes.
fn slow_receiver() -> Receiver {
    Receiver::start(|_| Reply::ok().after(Duration::from_millis(20)))
}

/// A fifth of the events, and when they are committed in part the rest: so that there is something to lose on both sides.
fn produce_in_two(router: &Router<'_>, events: usize) -> Vec<Source> {
    let mut places = router.produce("events.job", 0..events / 5);
    let group = format!("{}.deliver", router.config.kafka.group_id);
    eventually("some commits", PATIENCE, || {
        let committed = router.cluster.committed(&group, &router.topics().dispatch);
        (committed.into_values().flatten().sum::<i64>() > 100).then_some(())
    });
    places.extend(router.produce("events.job", events / 5..events));
    places
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
    let events = produce_in_two(&router, EVENTS);
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
    let events = produce_in_two(&router, EVENTS);
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

#[test]
fn an_instance_that_learns_of_a_webhook_late_does_not_take_it_for_deleted() {
    const WEBHOOKS: usize = 8;
    const EVENTS: usize = 60;
    let cluster = Cluster::named("point-late");
    let receiver = Receiver::accepting();
    let mut router = Router::idle(&cluster, &["events.job"], "");
    router.leaves_work();
    // Each record of the catalog takes it a second, so that it is behind the other one for eight.
    let late = Process::start_with(router.config_text(), "catalog-in-replay=sleep(1000)");
    let prompt = Process::start(router.config_text());
    let names: Vec<String> = (0..WEBHOOKS).map(|n| format!("wh_{n}")).collect();
    for name in &names {
        router.subscribe(name, &receiver.url("/"), json!({}));
    }
    let webhooks = |process: &Process| {
        let page = get(process.telemetry(), "/metrics").1;
        page.contains(&format!("postrider_webhooks {WEBHOOKS}\n"))
    };
    eventually("the prompt one to know the webhooks", PATIENCE, || {
        webhooks(&prompt).then_some(())
    });
    assert!(!webhooks(&late), "it was not late");
    router.produce("events.job", 0..EVENTS);

    // What the late one routed was for no webhook yet; what the prompt one did is for all, and partly the late one's to send.
    router.wait_until_idle();
    let topics = router.topics();
    let dispatched = moment::places(&cluster, &[&topics.dispatch]);
    let delays: Vec<&str> = topics.delays().map(|(_, name)| &**name).collect();
    let waited = moment::places(&cluster, &delays);
    assert!(!dispatched.is_empty() && dispatched.len().is_multiple_of(WEBHOOKS));
    let ids: Vec<String> = dispatched.into_keys().collect();
    assert_eq!(assert_all_arrived(&receiver.accepted(), &ids), 0, "copies");
    assert!(!waited.is_empty(), "none came to an instance that was late");
    for process in [late, prompt] {
        assert_eq!(process.terminate().0.code(), Some(0));
    }
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
    let mut folders = vec![root.join("pipeline"), root.join("kafka")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
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
    assert_eq!(found.len(), 9, "{found:?}");
    assert_eq!(found, table);
}
