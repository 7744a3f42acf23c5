//! The catalog is live: what is written to it holds everywhere within two seconds, without a restart.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Cluster, Receiver, Router, Sent, delivery_ids, eventually};

const SOON: Duration = Duration::from_secs(20);
const LIVE: Duration = Duration::from_secs(2);

#[test]
fn a_new_a_changed_and_a_deleted_webhook_are_live_within_two_seconds() {
    let cluster = Cluster::named("live");
    let (first, second) = (Receiver::accepting(), Receiver::accepting());
    // Nothing waits for the instance: what it knows after two seconds counts.
    let mut other = Router::start(&cluster, &["events.job"], "");
    other.leaves_work();
    let writer = Router::idle(&cluster, &["events.job"], "");

    writer.subscribe("wh_a", &first.url("/"), json!({}));
    std::thread::sleep(LIVE);
    writer.produce("events.job", 0..10);
    first.wait_for(10, SOON);

    let url = second.url("/").parse::<url::Url>().unwrap();
    writer.change("wh_a", |webhook| webhook.url = url);
    std::thread::sleep(LIVE);
    writer.produce("events.job", 10..20);
    second.wait_for(10, SOON);

    writer.delete("wh_a");
    std::thread::sleep(LIVE);
    writer.produce("events.job", 20..30);
    other.wait_until_idle();
    assert_eq!((first.requests().len(), second.requests().len()), (10, 10));
}

#[test]
fn a_retry_goes_to_the_url_that_the_webhook_has_then() {
    let cluster = Cluster::named("moved");
    let (broken, mended) = (Receiver::answering(500), Receiver::accepting());
    let router = Router::start(&cluster, &["events.job"], "");
    router.subscribe("wh_a", &broken.url("/"), json!({"retry_backoff": 2}));
    router.produce("events.job", 0..1);
    broken.wait_for(1, SOON);
    let url = mended.url("/").parse::<url::Url>().unwrap();
    router.change("wh_a", |webhook| webhook.url = url);
    let request = &mended.wait_for(1, SOON)[0];
    assert_eq!(request.header("x-webhook-attempt"), Some("2"));
    assert_eq!(broken.requests().len(), 1);
}

#[test]
fn records_of_other_kinds_are_passed_over_and_the_state_of_a_deleted_webhook_goes_with_it() {
    let cluster = Cluster::named("kinds");
    let receiver = Receiver::answering(410);
    let router = Router::start(&cluster, &["events.job"], "");
    router.subscribe("wh_a", &receiver.url("/"), json!({}));
    let topic = router.topics().subscriptions;
    cluster.produce(&topic, &Sent::new("{}").key("token/abc"));
    router.produce("events.job", 0..1);
    router.wait_for_webhook("wh_a", |version| version == Some(2));
    assert_eq!(router.metric("postrider_catalog_errors_total"), 0.0);
    assert_eq!(router.catalog().read().unwrap().len(), 1);
    let (_, conditions) = router.catalog().read_with_conditions().unwrap();
    assert_eq!(
        conditions["wh_a"].reason,
        "the endpoint answered 410: it is gone"
    );

    cluster.produce(&topic, &Sent::new("{}").key("no id"));
    cluster.produce(&topic, &Sent::new("{").key("state/wh_a"));
    eventually("two errors", SOON, || {
        (router.metric("postrider_catalog_errors_total") == 2.0).then_some(())
    });
    router.delete("wh_a");
    let states = cluster.consume_all(&topic);
    let last = states
        .iter()
        .rfind(|record| record.key.as_deref() == Some(b"state/wh_a"));
    assert_eq!(last.unwrap().payload, None);
}

#[test]
fn what_waits_for_a_deleted_webhook_ends_as_dropped() {
    let cluster = Cluster::named("dropped");
    let receiver = Receiver::answering(500);
    let router = Router::start(&cluster, &["events.job"], "");
    router.subscribe("wh_a", &receiver.url("/"), json!({"retry_backoff": 3}));
    let events = router.produce("events.job", 0..3);
    receiver.wait_for(3, SOON);
    router.delete("wh_a");
    router.wait_until_idle();
    let endings = router.endings();
    for id in delivery_ids(&events, "wh_a") {
        assert_eq!(endings[&(id, String::new())], ["dropped"]);
    }
    assert_eq!(receiver.requests().len(), 3);
    assert_eq!(
        router.metric("postrider_deliveries_total{ending=\"dropped\"}"),
        3.0
    );
}
