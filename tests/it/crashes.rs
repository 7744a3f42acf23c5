//! A process may die or be told to go in the middle: nothing is lost, and what repeats has the same id (promises 1 to 3).

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::{
    Cluster, Process, Receiver, Reply, Request, Router, Sent, assert_all_arrived, delivery_ids,
    eventually,
};

const EVENTS: usize = 1000;
const PATIENCE: Duration = Duration::from_secs(60);

fn number(request: &Request) -> u64 {
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    body["n"].as_u64().unwrap()
}

/// A little slow, and every tenth event fails at first, so that some wait on the ladder when the end comes.
fn receiver() -> Receiver {
    Receiver::start(|request| {
        if number(request).is_multiple_of(10) && request.header("x-webhook-attempt") == Some("1") {
            Reply::status(500)
        } else {
            Reply::ok().after(Duration::from_millis(20))
        }
    })
}

#[test]
fn a_process_that_is_killed_in_the_middle_loses_nothing_and_repeats_with_the_same_id() {
    let cluster = Cluster::named("killed");
    let receiver = receiver();
    let mut router = Router::idle(&cluster, &["events.job"], "");
    // A repetition has a line of its own in the audit trail.
    router.leaves_work();
    router.subscribe("wh_a", &receiver.url("/"), json!({"retry_backoff": 2}));
    let process = Process::start(router.config_text());
    let events = router.produce("events.job", 0..EVENTS);
    receiver.wait_for_accepted(EVENTS / 3, PATIENCE);
    process.kill();
    let before = receiver.accepted().len();
    assert!(before < EVENTS - 100, "it was through already: {before}");
    let group = format!("{}.deliver", router.config.kafka.group_id);
    let committed = cluster.committed(&group, &router.topics().dispatch);
    let settled: i64 = committed.into_values().flatten().sum();
    assert!(settled > 0, "nothing was committed");

    let process = Process::start(router.config_text());
    let ids = delivery_ids(&events, "wh_a");
    receiver.wait_for_deliveries(ids.len(), PATIENCE);
    router.wait_until_idle();
    let copies = assert_all_arrived(&receiver.accepted(), &ids);
    // What was given back to the ladder is still open in `dispatch` where something before it was.
    let open = EVENTS - usize::try_from(settled).unwrap();
    assert!(
        copies <= open,
        "{copies} copies, though only {open} were open"
    );
    let endings = router.endings();
    assert_eq!(endings.len(), EVENTS);
    for (delivery, endings) in endings {
        assert!(
            !endings.is_empty() && endings.iter().all(|ending| ending == "delivered"),
            "{delivery:?}: {endings:?}"
        );
    }
    assert_eq!(process.terminate().0.code(), Some(0));
}

#[test]
fn a_process_that_is_told_to_go_leaves_at_once_and_the_next_one_goes_on_without_a_copy() {
    let cluster = Cluster::named("restart");
    let receiver = receiver();
    let router = Router::idle(&cluster, &["events.job"], "");
    router.subscribe("wh_a", &receiver.url("/"), json!({"retry_backoff": 2}));
    let process = Process::start(router.config_text());
    let events = router.produce("events.job", 0..EVENTS);
    receiver.wait_for_accepted(EVENTS / 3, PATIENCE);

    let (status, took) = process.terminate();

    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(20), "it took {took:?}");
    let before = receiver.accepted().len();
    assert!(before < EVENTS - 100, "it was through already: {before}");
    for stage in ["route", "deliver", "release", "held", "replays"] {
        let group = format!("{}.{stage}", router.config.kafka.group_id);
        assert_eq!(cluster.members(&group), 0, "{group} was not left");
    }
    let process = Process::start(router.config_text());
    receiver.wait_for_accepted(EVENTS, PATIENCE);
    router.assert_every_delivery_has_one_ending();
    let ids = delivery_ids(&events, "wh_a");
    assert_eq!(assert_all_arrived(&receiver.accepted(), &ids), 0, "copies");
    assert_eq!(receiver.requests().len(), EVENTS + EVENTS / 10);
    process.signal(Signal::SIGINT);
    assert_eq!(process.terminate().0.code(), Some(0));
}

/// One partition has a webhook that is slow and one that is fast. The commit cannot pass the slow one's record; what is done behind it is
/// noted beside the commit.
#[test]
fn what_was_delivered_behind_an_unfinished_record_is_not_repeated_after_a_kill() {
    const FAST: usize = 300;
    let cluster = Cluster::named("behind");
    let slow = Receiver::start(|_| Reply::ok().after(Duration::from_secs(8)));
    let fast = Receiver::start(|_| Reply::ok());
    let mut router = Router::idle(
        &cluster,
        &["events.job", "events.device"],
        "kafka.dispatch_partitions = 1\n",
    );
    router.leaves_work();
    let types = |kind: &str| json!({"event_types": [kind], "timeout_seconds": 30});
    router.subscribe("wh_slow", &slow.url("/"), types("device.*"));
    router.subscribe("wh_fast", &fast.url("/"), types("job.*"));
    let process = Process::start(router.config_text());
    let device = json!({"event_type": "device.updated", "customer": 1}).to_string();
    cluster.produce(&cluster.name("events.device"), &Sent::new(device));
    eventually("the slow one to be asked", PATIENCE, || {
        (slow.requests().len() == 1).then_some(())
    });
    router.produce("events.job", 0..FAST);
    fast.wait_for_accepted(FAST, PATIENCE);
    // Ten times the pause between commits.
    std::thread::sleep(Duration::from_secs(1));
    process.kill();
    let group = format!("{}.deliver", router.config.kafka.group_id);
    let committed = cluster.committed(&group, &router.topics().dispatch);
    assert_eq!(
        committed.into_values().flatten().sum::<i64>(),
        0,
        "the commit passed an unfinished record"
    );

    let process = Process::start(router.config_text());
    slow.wait_for_accepted(1, PATIENCE);
    router.wait_until_idle();
    assert_eq!(fast.accepted().len(), FAST, "what was done is done once");
    assert_eq!(slow.requests().len(), 2);
    assert_eq!(process.terminate().0.code(), Some(0));
}
