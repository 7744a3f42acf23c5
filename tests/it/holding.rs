//! An event for a paused webhook is held, and delivered once when the webhook is resumed.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Cluster, Receiver, Router, assert_all_arrived, delivery_ids, eventually};

const SOON: Duration = Duration::from_secs(30);

#[test]
fn events_of_paused_webhooks_are_held_over_a_restart_and_delivered_once_on_resume() {
    let cluster = Cluster::named("paused");
    let names = ["wh_a", "wh_b", "wh_c", "wh_active"];
    let receivers = names.map(|_| Receiver::accepting());
    let mut router = Router::start(&cluster, &["events.job"], "");
    for (name, receiver) in names.iter().zip(&receivers) {
        let paused = *name != "wh_active";
        router.subscribe(name, &receiver.url("/"), json!({"paused": paused}));
    }
    let counts = || {
        receivers
            .each_ref()
            .map(|receiver| receiver.requests().len())
    };
    let mut events = router.produce("events.job", 0..50);
    receivers[3].wait_for(50, SOON);
    router.wait_until_idle();
    assert_eq!(counts(), [0, 0, 0, 50]);

    router.change("wh_a", |webhook| webhook.paused = false);
    receivers[0].wait_for(50, SOON);
    router.restart();
    events.extend(router.produce("events.job", 50..80));
    receivers[3].wait_for(80, SOON);
    receivers[0].wait_for(80, SOON);
    router.wait_until_idle();
    assert_eq!(counts(), [80, 0, 0, 80]);

    router.change("wh_b", |webhook| webhook.paused = false);
    receivers[1].wait_for(80, SOON);
    router.change("wh_b", |webhook| webhook.paused = true);
    events.extend(router.produce("events.job", 80..90));
    receivers[3].wait_for(90, SOON);
    router.wait_until_idle();
    assert_eq!(counts(), [90, 80, 0, 90]);

    for name in ["wh_b", "wh_c"] {
        router.change(name, |webhook| webhook.paused = false);
    }
    for receiver in &receivers {
        receiver.wait_for(90, SOON);
    }
    router.restart();
    router.wait_until_idle();
    for (name, receiver) in names.iter().zip(&receivers) {
        let ids = delivery_ids(&events, name);
        assert_eq!(
            assert_all_arrived(&receiver.accepted(), &ids),
            0,
            "copies for {name}"
        );
    }
}

#[test]
fn a_retry_of_a_webhook_that_is_paused_meanwhile_is_held_too() {
    let cluster = Cluster::named("paused-retry");
    let receiver = Receiver::start(|request| {
        crate::harness::Reply::status(if request.repeat == 0 { 500 } else { 200 })
    });
    let router = Router::start(&cluster, &["events.job"], "");
    router.subscribe("wh_a", &receiver.url("/"), json!({"retry_backoff": 2}));
    router.produce("events.job", 0..5);
    receiver.wait_for(5, SOON);
    router.change("wh_a", |webhook| webhook.paused = true);
    router.wait_until_idle();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(receiver.requests().len(), 5);
    router.change("wh_a", |webhook| webhook.paused = false);
    let accepted = receiver.wait_for_accepted(5, SOON);
    assert!(
        accepted
            .iter()
            .all(|r| r.header("x-webhook-attempt") == Some("2"))
    );
}

#[test]
fn what_is_held_for_a_webhook_that_is_deleted_ends_as_dropped() {
    let cluster = Cluster::named("held-dropped");
    let receiver = Receiver::accepting();
    let router = Router::start(&cluster, &["events.job"], "");
    router.subscribe("wh_a", &receiver.url("/"), json!({"paused": true}));
    let events = router.produce("events.job", 0..5);
    eventually("all to be held", SOON, || {
        (router.metric("postrider_held") >= 5.0).then_some(())
    });
    router.delete("wh_a");
    eventually("all to be dropped", 2 * SOON, || {
        let dropped = router.metric("postrider_deliveries_total{ending=\"dropped\"}");
        (dropped >= 5.0).then_some(())
    });
    router.wait_until_idle();
    let endings = router.endings();
    for id in delivery_ids(&events, "wh_a") {
        assert_eq!(endings[&(id, String::new())], ["dropped"]);
    }
    assert_eq!(receiver.requests().len(), 0);
}

#[test]
fn a_webhook_with_a_slow_limit_does_not_keep_the_drains_of_others_waiting() {
    let cluster = Cluster::named("slow-drain");
    let (slow, fast) = (Receiver::accepting(), Receiver::accepting());
    let mut router = Router::start(&cluster, &["events.job"], "kafka.held_partitions = 1\n");
    router.leaves_work();
    let limit = json!({"requests": 1, "per_seconds": 2, "burst": 1});
    let fields = json!({"paused": true, "rate_limit": limit});
    router.subscribe("wh_slow", &slow.url("/"), fields);
    router.subscribe("wh_fast", &fast.url("/"), json!({"paused": true}));
    router.produce("events.job", 0..200);
    eventually("all to be held", SOON, || {
        (router.metric("postrider_held") >= 400.0).then_some(())
    });
    router.change("wh_slow", |webhook| webhook.paused = false);
    slow.wait_for(1, SOON);
    router.change("wh_fast", |webhook| webhook.paused = false);
    fast.wait_for_accepted(200, Duration::from_secs(10));
    assert!(slow.requests().len() < 20);
    assert!(router.metric("postrider_held") > 150.0, "held by now");
}
