//! What may not or need not be delivered ends too, with its reason, and without a request.

use std::time::Duration;

use postrider::subscription::Customer;
use serde_json::json;

use crate::harness::{Cluster, Receiver, Record, Router, Sent, raw, read_request};

const SOON: Duration = Duration::from_secs(30);

fn reasons(letters: &[Record]) -> Vec<(&str, &str)> {
    let mut reasons: Vec<_> = letters
        .iter()
        .map(|letter| {
            let text = |name| letter.header(name).unwrap_or_default();
            (text("postrider-webhook-id"), text("postrider-reason"))
        })
        .collect();
    reasons.sort_unstable();
    reasons
}

#[test]
fn an_address_outside_the_global_internet_is_never_connected_to() {
    let cluster = Cluster::named("blocked");
    let receiver = raw(|mut stream| drop(read_request(&mut stream)));
    let router = Router::start(&cluster, &["events.job"], "outbound.allow_networks = []");
    let port = receiver.address().port();
    for (name, url) in [
        ("wh_literal", format!("http://127.0.0.1:{port}/")),
        ("wh_name", format!("http://localhost:{port}/")),
        ("wh_number", format!("http://2130706433:{port}/")),
        ("wh_mapped", format!("http://[::ffff:127.0.0.1]:{port}/")),
        ("wh_private", "http://10.0.0.1/".to_owned()),
        ("wh_metadata", "http://169.254.169.254/".to_owned()),
    ] {
        router.subscribe(name, &url, json!({"timeout_seconds": 5}));
    }
    router.produce("events.job", 0..1);
    let letters = router.wait_for_dead_letters(6);
    let expected = [
        "wh_literal",
        "wh_mapped",
        "wh_metadata",
        "wh_name",
        "wh_number",
        "wh_private",
    ]
    .map(|name| (name, "blocked_address"));
    assert_eq!(reasons(&letters), expected);
    assert_eq!(receiver.connections(), 0);
    assert!(
        router
            .attempts()
            .iter()
            .all(|attempt| attempt["outcome"] == "blocked")
    );
}

#[test]
fn what_waits_for_a_webhook_that_is_disabled_ends_so_and_new_events_are_not_for_it() {
    let cluster = Cluster::named("disabled");
    let receiver = Receiver::answering(500);
    let router = Router::start(&cluster, &["events.job"], "");
    router.subscribe("wh_a", &receiver.url("/"), json!({"retry_backoff": 2}));
    router.produce("events.job", 0..2);
    receiver.wait_for(2, SOON);
    router.change("wh_a", |webhook| webhook.enabled = false);
    router.produce("events.job", 2..5);
    let letters = router.wait_for_dead_letters(2);
    router.wait_until_idle();
    assert_eq!(reasons(&letters), [("wh_a", "disabled"); 2]);
    assert_eq!(receiver.requests().len(), 2);
    let unmatched = format!(
        "postrider_events_unmatched_total{{topic=\"{}\"}}",
        cluster.name("events.job")
    );
    assert_eq!(router.metric(&unmatched), 3.0);
    assert_eq!(router.dead_letters().len(), 2);
}

#[test]
fn a_delivery_that_is_older_than_its_webhook_wants_ends_as_expired() {
    let cluster = Cluster::named("expired");
    let receiver = Receiver::answering(500);
    let router = Router::start(&cluster, &["events.job"], "");
    let fields = json!({"retry_backoff": 4, "max_retries": 20});
    router.subscribe("wh_a", &receiver.url("/"), fields);
    // Less than a file may ask for, so that the test need not last a minute.
    router.change("wh_a", |webhook| webhook.max_age_seconds = 2);
    router.produce("events.job", 0..1);
    let letters = router.wait_for_dead_letters(1);
    assert_eq!(reasons(&letters), [("wh_a", "expired")]);
    assert_eq!(receiver.requests().len(), 1);
}

#[test]
fn nobody_gets_what_was_made_for_the_customer_that_a_webhook_was_of_before() {
    let cluster = Cluster::named("moved");
    let receiver = Receiver::answering(500);
    let router = Router::start(&cluster, &["events.job"], "");
    let fields = json!({"customer": 1, "retry_backoff": 3});
    router.subscribe("wh_a", &receiver.url("/"), fields);
    let event = br#"{"event_type": "job.failed", "customer": 1}"#.to_vec();
    cluster.produce(&cluster.name("events.job"), &Sent::new(event));
    receiver.wait_for(1, SOON);
    router.change("wh_a", |webhook| {
        webhook.customer = Some(Customer::new("2"))
    });
    let letters = router.wait_for_dead_letters(1);
    assert_eq!(reasons(&letters), [("wh_a", "rejected")]);
    let why = letters[0].header("__dlq.errors.message").unwrap();
    assert!(why.contains("another customer"), "{why}");
    router.wait_until_idle();
    assert_eq!(receiver.requests().len(), 1);
}
