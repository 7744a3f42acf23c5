//! One trace tells the way of an event, from the producer's span to the receiver's, and tracing never costs a delivery anything.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Cluster, Receiver, Reply, Router, Sent, eventually};

const SOON: Duration = Duration::from_secs(40);
const BODY: &str = r#"{"event_type": "job.failed", "customer": 1}"#;
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const UNSAMPLED: &str = "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

fn traced(collector: &Receiver, ratio: f64) -> String {
    let endpoint = collector.url("/v1/traces");
    format!(
        "traces.endpoint = {endpoint:?}\ntraces.sample_ratio = {ratio}\ntraces.authorization = \"Bearer collector\"\n"
    )
}

/// Every span that a collector got, in order of their beginnings.
fn spans(collector: &Receiver) -> Vec<Value> {
    let mut spans = Vec::new();
    for request in collector.requests() {
        assert_eq!(request.path, "/v1/traces");
        assert_eq!(request.header("content-type"), Some("application/json"));
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        for resource in body["resourceSpans"].as_array().unwrap() {
            for scope in resource["scopeSpans"].as_array().unwrap() {
                spans.extend(scope["spans"].as_array().unwrap().iter().cloned());
            }
        }
    }
    spans.sort_by_key(|span| time(span, "startTimeUnixNano"));
    spans
}

fn time(span: &Value, name: &str) -> u64 {
    span[name].as_str().unwrap().parse().unwrap()
}

fn wait_for_spans(collector: &Receiver, count: usize) -> Vec<Value> {
    eventually("the spans", SOON, || {
        Some(spans(collector)).filter(|spans| spans.len() >= count)
    })
}

/// The value of an attribute: text, or a number in a text.
fn attribute<'a>(span: &'a Value, name: &str) -> &'a str {
    let attributes = span["attributes"].as_array().unwrap();
    let found = attributes
        .iter()
        .find(|attribute| attribute["key"] == name)
        .unwrap_or_else(|| panic!("no {name} in {span}"));
    let value = found["value"].as_object().unwrap();
    value.values().next().unwrap().as_str().unwrap()
}

/// The `traceparent` that names a span.
fn naming(span: &Value) -> String {
    let id = |name: &str| span[name].as_str().unwrap();
    format!("00-{}-{}-01", id("traceId"), id("spanId"))
}

#[test]
fn one_trace_tells_of_the_event_its_delivery_and_every_attempt() {
    let cluster = Cluster::named("traces");
    let collector = Receiver::accepting();
    let receiver = Receiver::start(|request| match request.repeat {
        0 => Reply::status(503),
        _ => Reply::ok(),
    });
    // A parent's flag decides, not the ratio.
    let router = Router::start(&cluster, &["events.job"], &traced(&collector, 0.0));
    let url = format!("{}?token=hidden", receiver.url("/in"));
    router.subscribe("wh_a", &url, json!({"retry_backoff": 1}));
    let topic = cluster.name("events.job");
    let sent = Sent::new(BODY)
        .header("traceparent", SAMPLED)
        .header("tracestate", "vendor=1");
    let (partition, offset) = cluster.produce(&topic, &sent);

    receiver.wait_for_accepted(1, SOON);
    let spans = wait_for_spans(&collector, 4);

    assert_eq!(spans.len(), 4, "{spans:#?}");
    let [process, send, first, second] = &spans[..] else {
        panic!()
    };
    for span in &spans {
        assert_eq!(span["traceId"], TRACE);
        assert!(time(span, "startTimeUnixNano") <= time(span, "endTimeUnixNano"));
    }
    assert_eq!(process["name"], format!("process {topic}"));
    assert_eq!(
        (&process["kind"], &process["parentSpanId"]),
        (&json!(5), &json!("b7ad6b7169203331"))
    );
    assert_eq!(attribute(process, "messaging.system"), "kafka");
    assert_eq!(attribute(process, "messaging.destination.name"), topic);
    assert_eq!(
        attribute(process, "messaging.destination.partition.id"),
        partition.to_string()
    );
    assert_eq!(
        attribute(process, "messaging.kafka.offset"),
        offset.to_string()
    );
    let dispatch = cluster.name("postrider.dispatch");
    assert_eq!(send["name"], format!("send {dispatch}"));
    assert_eq!(
        (&send["kind"], &send["parentSpanId"]),
        (&json!(4), &process["spanId"])
    );

    let requests = receiver.requests();
    assert_eq!(requests.len(), 2);
    for (number, attempt) in [first, second].into_iter().enumerate() {
        assert_eq!(attempt["name"], "POST");
        assert_eq!(
            (&attempt["kind"], &attempt["parentSpanId"]),
            (&json!(3), &send["spanId"])
        );
        assert_eq!(
            attribute(attempt, "postrider.attempt"),
            (number + 1).to_string()
        );
        assert_eq!(attribute(attempt, "postrider.webhook.id"), "wh_a");
        assert_eq!(
            attribute(attempt, "postrider.delivery.id"),
            requests[number].id().unwrap()
        );
        assert_eq!(attribute(attempt, "url.full"), receiver.url("/in"));
        assert_eq!(attribute(attempt, "server.address"), "127.0.0.1");
        assert_eq!(
            requests[number].header("traceparent"),
            Some(&*naming(attempt))
        );
        assert_eq!(requests[number].header("tracestate"), Some("vendor=1"));
    }
    assert_eq!(attribute(first, "http.response.status_code"), "503");
    assert_eq!(attribute(first, "error.type"), "503");
    assert_eq!(first["status"]["code"], 2);
    assert_eq!(first.get("links"), None);
    assert_eq!(attribute(second, "http.response.status_code"), "200");
    assert_eq!(second.get("status"), None);
    assert_eq!(
        second["links"],
        json!([{"traceId": TRACE, "spanId": first["spanId"]}])
    );
    let told = collector.requests();
    assert!(
        told.iter()
            .all(|request| !String::from_utf8_lossy(&request.body).contains("hidden"))
    );
    for request in &told {
        assert_eq!(request.header("authorization"), Some("Bearer collector"));
    }
    router.wait_until_idle();
    for record in cluster.consume_all(&dispatch) {
        assert_eq!(record.header("traceparent"), Some(SAMPLED));
    }
}

#[test]
fn what_the_producer_does_not_record_is_not_recorded_and_its_context_goes_on() {
    let cluster = Cluster::named("traces-unsampled");
    let (collector, receiver) = (Receiver::accepting(), Receiver::accepting());
    let router = Router::start(&cluster, &["events.job"], &traced(&collector, 1.0));
    router.subscribe("wh_a", &receiver.url("/"), json!({}));
    let topic = cluster.name("events.job");

    cluster.produce(&topic, &Sent::new(BODY).header("traceparent", UNSAMPLED));
    let requests = receiver.wait_for(1, SOON);
    assert_eq!(requests[0].header("traceparent"), Some(UNSAMPLED));
    // One without a parent, which the ratio has recorded: when its spans are there, those before it would be.
    cluster.produce(&topic, &Sent::new(BODY));
    let requests = receiver.wait_for(2, SOON);
    let spans = wait_for_spans(&collector, 3);

    assert_eq!(spans.len(), 3, "{spans:#?}");
    assert_eq!(spans[0].get("parentSpanId"), None);
    assert_eq!(requests[1].header("traceparent"), Some(&*naming(&spans[2])));
    router.wait_until_idle();
}

#[test]
fn spans_that_the_collector_rejects_of_a_batch_are_counted() {
    let cluster = Cluster::named("traces-rejected");
    let answer = r#"{"partialSuccess": {"rejectedSpans": "2", "errorMessage": "too old"}}"#;
    let collector = Receiver::start(move |_| Reply::ok().body(answer));
    let receiver = Receiver::accepting();
    let router = Router::start(&cluster, &["events.job"], &traced(&collector, 1.0));
    router.subscribe("wh_a", &receiver.url("/"), json!({}));

    router.produce("events.job", 0..1);

    let dropped = &router.app().metrics().trace_spans_dropped;
    eventually("the rejected spans to be counted", SOON, || {
        (dropped.get() == 2 * collector.requests().len() as u64 && dropped.get() > 0).then_some(())
    });
    router.wait_until_idle();
}

#[test]
fn deliveries_go_on_while_the_collector_is_away_and_what_is_dropped_is_counted() {
    let cluster = Cluster::named("traces-away");
    let collector = Receiver::answering(400);
    let receiver = Receiver::accepting();
    let router = Router::start(&cluster, &["events.job"], &traced(&collector, 1.0));
    router.subscribe("wh_a", &receiver.url("/"), json!({}));

    router.produce("events.job", 0..20);

    receiver.wait_for_accepted(20, SOON);
    let dropped = &router.app().metrics().trace_spans_dropped;
    eventually("60 spans to be counted", SOON, || {
        (dropped.get() == 60).then_some(())
    });
    drop(collector);
    router.produce("events.job", 20..40);
    receiver.wait_for_accepted(40, SOON);
    eventually("120 spans to be counted", SOON, || {
        (dropped.get() == 120).then_some(())
    });
    router.wait_until_idle();
}
