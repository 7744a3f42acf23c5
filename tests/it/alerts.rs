//! What an operator is told: a webhook that is given up says so and why, and nobody is told the same a hundred times.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::breaker::{IMPATIENT, switched};
use crate::harness::{Cluster, Receiver, Router, eventually};

const PATIENCE: Duration = Duration::from_secs(60);

fn alerts(router: &Router<'_>) -> Vec<Value> {
    let records = router.cluster.consume_all(&router.topics().alerts);
    records
        .into_iter()
        .map(|record| {
            let value: Value = serde_json::from_slice(&record.payload.unwrap()).unwrap();
            let key = String::from_utf8(record.key.unwrap()).unwrap();
            assert_eq!(value["webhook_id"], key);
            value
        })
        .collect()
}

fn wait_for(router: &Router<'_>, kind: &str) -> Value {
    eventually(kind, PATIENCE, || {
        alerts(router)
            .into_iter()
            .find(|alert| alert["kind"] == kind)
    })
}

/// The reasons of all dead letters, counted.
fn count(router: &Router<'_>, reason: &str) -> usize {
    let letters = router.dead_letters();
    letters
        .iter()
        .filter(|letter| letter.header("postrider-reason") == Some(reason))
        .count()
}

#[test]
fn an_endpoint_that_answers_410_is_disabled_and_what_waits_for_it_says_why() {
    let cluster = Cluster::named("gone");
    let receiver = Receiver::answering(410);
    let router = Router::start(&cluster, &["events.job"], IMPATIENT);
    let limit = json!({"requests": 1, "per_seconds": 1, "burst": 1});
    router.subscribe("wh_a", &receiver.url("/"), json!({"rate_limit": limit}));
    router.produce("events.job", 0..20);
    let letters = router.wait_for_dead_letters(20);
    router.wait_until_idle();
    let requests = receiver.requests().len();
    assert!(
        requests <= 3,
        "{requests} requests to an endpoint that is gone"
    );
    assert_eq!(count(&router, "disabled"), 20 - requests);
    let message = letters
        .iter()
        .filter(|letter| letter.header("postrider-reason") == Some("disabled"))
        .find_map(|letter| letter.header("__dlq.errors.message"));
    assert!(message.unwrap().contains("410"), "{message:?}");

    let webhook = router.catalog().read().unwrap().remove("wh_a").unwrap();
    assert_eq!((webhook.enabled, webhook.version), (false, 2));
    let alert = wait_for(&router, "disabled");
    assert_eq!(
        (&alert["name"], &alert["customer"]),
        (&json!("wh_a"), &json!("1"))
    );
    assert!(
        alert["message"].as_str().unwrap().contains("410"),
        "{alert}"
    );
    assert_eq!(alerts(&router).len(), 1);
    let state = "postrider_webhook_state{state=\"disabled\",webhook=\"wh_a\"}";
    router.app().metrics().webhook_state.reset();
    let page = crate::harness::get(router.app().telemetry(), "/metrics").1;
    assert!(page.contains(&format!("{state} 1")), "{page}");
}

#[test]
fn an_endpoint_that_fails_for_long_without_one_success_is_disabled_and_can_be_enabled_again() {
    let cluster = Cluster::named("given-up");
    let (receiver, switch) = switched(503);
    let more = format!("{IMPATIENT}outbound.disable_after_seconds = 6\n");
    let mut router = Router::start(&cluster, &["events.job"], &more);
    let fields = json!({"max_retries": 20, "retry_backoff": 1});
    router.subscribe("wh_a", &receiver.url("/"), fields);
    router.produce("events.job", 0..10);
    // How long it has failed is remembered over a restart.
    eventually("it to be tripped", PATIENCE, || {
        alerts(&router).first().map(|_| ())
    });
    router.restart();
    let alert = wait_for(&router, "disabled");
    assert!(
        alert["message"]
            .as_str()
            .unwrap()
            .contains("no request succeeded"),
        "{alert}"
    );
    let (_, conditions) = router.catalog().read_with_conditions().unwrap();
    let since_ms = conditions["wh_a"].failing_since_ms.unwrap();
    let first = receiver.requests()[0].arrived_at;
    let first_ms = first.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let late_ms = since_ms - i64::try_from(first_ms.as_millis()).unwrap();
    assert!(
        late_ms < 1000,
        "it counts from {late_ms} ms after the first failure"
    );
    router.wait_for_dead_letters(10);
    router.wait_until_idle();
    assert_eq!(count(&router, "disabled"), 10);

    switch.store(200, Ordering::SeqCst);
    router.change("wh_a", |webhook| webhook.enabled = true);
    router.produce("events.job", 10..20);
    receiver.wait_for_accepted(10, Duration::from_secs(10));
}

#[test]
fn a_webhook_that_was_changed_meanwhile_is_not_disabled_for_what_it_was() {
    let cluster = Cluster::named("not-gone");
    let receiver =
        Receiver::start(|_| crate::harness::Reply::status(410).after(Duration::from_secs(2)));
    let mended = Receiver::accepting();
    let router = Router::start(&cluster, &["events.job"], IMPATIENT);
    router.subscribe("wh_a", &receiver.url("/"), json!({}));
    router.produce("events.job", 0..1);
    receiver.wait_for(1, PATIENCE);
    let url = mended.url("/").parse::<url::Url>().unwrap();
    router.change("wh_a", |webhook| webhook.url = url);
    router.wait_for_dead_letters(1);
    router.produce("events.job", 1..11);
    mended.wait_for_accepted(10, PATIENCE);
    let webhook = router.catalog().read().unwrap().remove("wh_a").unwrap();
    assert_eq!((webhook.enabled, webhook.version), (true, 2));
    assert_eq!(alerts(&router), Vec::<Value>::new());
}

#[test]
fn an_operator_is_told_once_that_a_webhook_trips_recovers_and_loses_deliveries() {
    let cluster = Cluster::named("alerts");
    let (receiver, switch) = switched(500);
    let router = Router::start(&cluster, &["events.job"], IMPATIENT);
    let fields = json!({"max_retries": 0, "retry_backoff": 1});
    router.subscribe("wh_a", &receiver.url("/"), fields);
    for round in 0..2 {
        switch.store(500, Ordering::SeqCst);
        let begin = receiver.requests().len();
        router.produce("events.job", round * 10..round * 10 + 10);
        receiver.wait_for(begin + 3, PATIENCE);
        switch.store(200, Ordering::SeqCst);
        eventually("it to recover", PATIENCE, || {
            let done = router.metric("postrider_deliveries_total{ending=\"delivered\"}")
                + router.metric("postrider_deliveries_total{ending=\"dead_lettered\"}");
            (done >= (round * 10 + 10) as f64).then_some(())
        });
    }
    router.wait_until_idle();
    let lost = count(&router, "exhausted");
    assert!(lost >= 6, "{lost}");
    let mut kinds: Vec<String> = alerts(&router)
        .iter()
        .map(|alert| {
            assert_eq!(alert["count"], 1);
            alert["kind"].as_str().unwrap().to_owned()
        })
        .collect();
    kinds.sort();
    assert_eq!(kinds, ["exhausted", "recovered", "tripped"]);
}
