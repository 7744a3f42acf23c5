//! An instance that keeps a name (`kafka.instance_id`) has its partitions back at once when it was killed, gives them up when it is told
//! to stop, and is never two (promises 1 and 3).

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Cluster, Process, Receiver, Router, eventually, run_to_its_end};

const PATIENCE: Duration = Duration::from_secs(60);
const NAMED: &str = "kafka.instance_id = \"pod-0\"\n";

#[test]
fn a_named_instance_that_was_killed_goes_on_before_its_session_is_over() {
    let cluster = Cluster::named("named-killed");
    let receiver = Receiver::accepting();
    let router = Router::idle(&cluster, &["events.job"], NAMED);
    router.subscribe("wh_a", &receiver.url("/"), json!({}));
    let process = Process::start(router.config_text());
    router.produce("events.job", 0..10);
    receiver.wait_for_accepted(10, PATIENCE);
    router.wait_until_idle();

    // What the dead member's session would cost is 4.5 to 6 s, as its last heartbeat was up to 1.5 s ago.
    let killed = Instant::now();
    process.kill();
    let process = Process::start(router.config_text());
    router.produce("events.job", 10..20);
    receiver.wait_for_accepted(20, PATIENCE);
    let took = killed.elapsed();

    assert!(took < Duration::from_millis(4_500), "it took {took:?}");
    router.wait_until_idle();
    assert_eq!(process.terminate().0.code(), Some(0));
}

#[test]
fn a_named_instance_that_is_told_to_stop_leaves_its_groups() {
    let cluster = Cluster::named("named-stopped");
    let router = Router::idle(&cluster, &["events.job"], NAMED);
    let process = Process::start(router.config_text());
    let (status, took) = process.terminate();
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(4), "the sessions may have ended");
    for stage in ["route", "deliver", "release", "held"] {
        let group = format!("{}.{stage}", router.config.kafka.group_id);
        assert_eq!(cluster.members(&group), 0, "{group} was not left");
    }
}

#[test]
fn of_two_instances_with_one_name_the_older_ends_and_says_why() {
    let cluster = Cluster::named("named-twice");
    let router = Router::idle(&cluster, &["events.job"], NAMED);
    let config = router.config_text();
    std::thread::scope(|scope| {
        let older = scope.spawn(|| run_to_its_end(config));
        for stage in ["route", "deliver", "release", "held"] {
            let group = format!("{}.{stage}", router.config.kafka.group_id);
            eventually("the older to join", PATIENCE, || {
                (cluster.members(&group) == 1).then_some(())
            });
        }
        let newer = Process::start(config);
        let output = older.join().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("the same kafka.instance_id"), "{said}");
        assert_eq!(newer.terminate().0.code(), Some(0));
    });
}
