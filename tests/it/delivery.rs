//! An event reaches exactly the webhooks that want it, its bytes untouched.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Cluster, Receiver, Router, Sent};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn an_event_reaches_exactly_the_webhooks_that_want_it_with_its_bytes_untouched() {
    let cluster = Cluster::named("delivery");
    let wanting = Receiver::accepting();
    let other = Receiver::accepting();
    let router = Router::start(&cluster, &["events.job"], "");
    router.subscribe(
        "wh_wants",
        &wanting.url("/in"),
        json!({"event_types": ["job.*"]}),
    );
    router.subscribe(
        "wh_type",
        &other.url("/type"),
        json!({"event_types": ["device.*"]}),
    );
    router.subscribe(
        "wh_customer",
        &other.url("/customer"),
        json!({"customer": 2}),
    );
    router.subscribe(
        "wh_filter",
        &other.url("/filter"),
        json!({"filter": {"job": {"status": "success"}}}),
    );

    let body = b"{ \"event_type\":\"job.failed\",\"customer\":1,\n\"job\":{\"status\":\"failed\",\"n\":1.0e2}, \"u\":\"\\u00e9\"}";
    let (partition, offset) = cluster.produce(
        &cluster.name("events.job"),
        &Sent::new(body).key("k").header(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
    );

    let request = &wanting.wait_for(1, SOON)[0];
    assert_eq!(request.body, body.as_slice());
    assert_eq!(request.method, "POST");
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.header("x-webhook-event"), Some("job.failed"));
    assert_eq!(request.header("x-webhook-attempt"), Some("1"));
    assert!(
        request
            .header("user-agent")
            .unwrap()
            .starts_with("Postrider/")
    );
    assert_eq!(
        request.header("traceparent"),
        Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    );
    let source = format!("{}/{partition}/{offset}", cluster.name("events.job"));
    let id = postrider::delivery::delivery_id(
        &source.parse().unwrap(),
        &postrider::subscription::WebhookId::new("wh_wants").unwrap(),
    );
    assert_eq!(request.header("webhook-id"), Some(id.as_str()));

    router.wait_until_idle();
    assert_eq!(wanting.requests().len(), 1);
    assert_eq!(other.requests().len(), 0);
}
