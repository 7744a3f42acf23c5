//! Events over HTTP reach their webhooks as any event, and what would become of one is told without sending it.

use std::time::Duration;

use serde_json::json;

use super::{Client, ROOT, start};
use crate::harness::{Cluster, Receiver};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn an_event_over_http_is_durable_before_its_answer_and_arrives_byte_for_byte() {
    let cluster = Cluster::named("api-events");
    let receiver = Receiver::accepting();
    let router = start(&cluster, "");
    router.subscribe("wh_a", &receiver.url("/in"), json!({}));
    let client = Client::of(&router, "prt_one-operator");
    // Spaces and order are the producer's.
    let body = br#"{ "event_type":"job.failed",  "customer":1, "job":{"id":123} }"#.to_vec();
    let placed = client
        .send(
            "POST",
            "/events/",
            &[("content-type", "application/json")],
            Some(body.clone()),
        )
        .expect(202);
    assert_eq!(placed["topic"], cluster.name("events.job"));
    assert!(placed["offset"].as_i64().unwrap() >= 0);
    let request = receiver.wait_for(1, SOON).remove(0);
    assert_eq!(request.body.to_vec(), body);
    assert_eq!(request.header("x-webhook-event"), Some("job.failed"));

    // CloudEvents, structured and binary.
    let structured = json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "device.updated", "data": {"customer": 1}});
    client
        .send(
            "POST",
            "/events",
            &[("content-type", "application/cloudevents+json")],
            Some(structured.to_string().into_bytes()),
        )
        .expect(202);
    receiver.wait_for(2, SOON);
    let headers = [
        ("content-type", "application/json"),
        ("ce-type", "device.deleted"),
        ("ce-id", "2"),
        ("ce-source", "/s"),
        ("ce-specversion", "1.0"),
    ];
    client
        .send(
            "POST",
            "/events/",
            &headers,
            Some(br#"{"customer":1}"#.to_vec()),
        )
        .expect(202);
    let request = receiver.wait_for(3, SOON).remove(2);
    assert_eq!(request.header("x-webhook-event"), Some("device.deleted"));
}

#[test]
fn a_repetition_under_one_idempotency_key_is_one_event() {
    let cluster = Cluster::named("api-idempotency");
    let receiver = Receiver::accepting();
    let router = start(&cluster, "");
    router.subscribe("wh_a", &receiver.url("/in"), json!({}));
    let client = Client::of(&router, ROOT);
    let key = [("idempotency-key", "a1")];
    let event = json!({"event_type": "job.failed", "customer": 1});
    let first = client.with("POST", "/events/", &key, &event).expect(202);
    let again = client.with("POST", "/events/", &key, &event).expect(202);
    assert_eq!(first, again);
    let other = json!({"event_type": "job.failed", "customer": 2});
    client.with("POST", "/events/", &key, &other).problem(409);
    let fresh = client
        .with("POST", "/events/", &[("idempotency-key", "a2")], &event)
        .expect(202);
    assert_ne!(first, fresh);
    client
        .with("POST", "/events/", &[("idempotency-key", "")], &event)
        .problem(400);
    // The headers of a CloudEvent are the event, too.
    let cloud = |kind: &str| {
        let headers = [("idempotency-key", "a3"), ("ce-type", kind)];
        client.with("POST", "/events/", &headers, &json!({"customer": 1}))
    };
    cloud("job.created").expect(202);
    cloud("job.created").expect(202);
    cloud("job.started").problem(409);
    receiver.wait_for(3, SOON);
    router.wait_until_idle();
    assert_eq!(receiver.requests().len(), 3);
}

#[test]
fn a_key_keeps_every_post_from_doing_something_twice_and_shows_no_secret_again() {
    let cluster = Cluster::named("api-once");
    let router = start(&cluster, "");
    let client = Client::of(&router, ROOT);
    let key = [("idempotency-key", "k")];
    let webhook =
        json!({"url": "https://example.com/", "event_types": ["*"], "secret": "generate"});
    let made = client.with("POST", "/webhooks/", &key, &webhook);
    let again = client.with("POST", "/webhooks", &key, &webhook);
    let (first, second) = (made.expect(201), again.expect(201));
    assert_eq!(first["id"], second["id"]);
    assert_eq!(made.header("location"), again.header("location"));
    assert!(first["secret"].as_str().unwrap().starts_with("whsec_"));
    assert_eq!(second["secret"], "***");
    assert_eq!(
        client.get("/webhooks/").expect(200)["results"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    // The same key elsewhere, or of somebody else, is another matter.
    let token = json!({"name": "ci", "role": "viewer"});
    client.with("POST", "/tokens/", &key, &token).problem(409);
    let one = Client::of(&router, "prt_one");
    one.with("POST", "/tokens/", &key, &token).expect(201);
    let kept = one.with("POST", "/tokens/", &key, &token).expect(201);
    assert_eq!(kept["token"], "***");
    let mine = one.get("/tokens/").expect(200);
    assert_eq!(mine["results"].as_array().unwrap().len(), 1, "{mine}");
    // What was refused did nothing, so its key is free.
    let key = [("idempotency-key", "r")];
    let wrong = json!({"url": "ftp://example.com/", "event_types": ["*"]});
    client.with("POST", "/webhooks/", &key, &wrong).problem(400);
    client
        .with("POST", "/webhooks/", &key, &webhook)
        .expect(201);
}

#[test]
fn an_event_that_its_topic_does_not_take_is_too_large_and_not_tried_again() {
    let cluster = Cluster::named("api-large");
    let router = start(&cluster, "");
    cluster.set_configs(
        &cluster.name("events.job"),
        &[("max.message.bytes", "20000")],
    );
    let client = Client::of(&router, ROOT);
    let event = json!({"event_type": "job.failed", "text": "x".repeat(30_000)});
    let problem = client.post("/events/", &event).problem(413);
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("max.message.bytes"), "{detail}");
}

#[test]
fn what_is_no_event_is_refused_with_its_reason() {
    let cluster = Cluster::named("api-no-events");
    let router = start(&cluster, "");
    let client = Client::of(&router, ROOT);
    for (body, place, said) in [
        (json!({"job": 1}), "", "names no type"),
        (json!([]), "", "not a JSON object"),
        (
            json!({"event_type": "order.paid"}),
            "/event_type",
            "intake.topics",
        ),
        (
            json!({"event_type": "job.failed", "customer": {}}),
            "/customer",
            "neither a number nor text",
        ),
        (
            json!({"event_type": "job.failed", "customer": 1e20}),
            "/customer",
            "write it as text",
        ),
        (json!({"event_type": 5}), "/event_type", "not text"),
    ] {
        let problem = client.post("/events/", &body).problem(400);
        assert_eq!(problem["errors"][0]["pointer"], place, "{problem}");
        assert!(
            problem["errors"][0]["detail"]
                .as_str()
                .unwrap()
                .contains(said),
            "{problem}"
        );
    }
    let raw = |media: &str, body: &[u8]| {
        client.send(
            "POST",
            "/events/",
            &[("content-type", media)],
            Some(body.to_vec()),
        )
    };
    raw("application/json", b"{").problem(400);
    let twice = raw(
        "application/json",
        br#"{"event_type":"job.failed","event_type":"a.b"}"#,
    );
    let fault = &twice.problem(400)["errors"][0];
    assert!(fault["line"] == 1 && fault["column"].is_number(), "{fault}");
    let other = json!({"event_type": "job.failed", "customer": 2});
    let refused = Client::of(&router, "prt_one").post("/events/", &other);
    assert_eq!(refused.problem(400)["errors"][0]["pointer"], "/customer");
    raw("text/plain", b"{}").problem(415);
    raw("application/cloudevents-batch+json", b"[]").problem(415);
    raw("application/json", &vec![b'1'; 1_048_577]).problem(413);
}

#[test]
fn each_webhook_is_told_to_match_or_the_first_condition_that_fails() {
    let cluster = Cluster::named("api-match");
    let router = start(&cluster, "");
    let client = Client::of(&router, "prt_one-viewer");
    let url = "https://example.com/in";
    router.subscribe("wh_all", url, json!({}));
    router.subscribe(
        "wh_filter",
        url,
        json!({"filter": {"job": {"status": {"$in": ["done"]}}}}),
    );
    router.subscribe("wh_type", url, json!({"event_types": ["device.*"]}));
    router.subscribe("wh_other", url, json!({"customer": 2}));
    let event = json!({"event_type": "job.failed", "customer": 1, "job": {"status": "failed"}});
    let told = client.post("/match/", &event).expect(200);
    assert_eq!(
        (&told["matches"], &told["customer"]),
        (&json!(1), &json!("1"))
    );
    let webhooks = told["webhooks"].as_array().unwrap();
    assert_eq!(webhooks.len(), 3, "{told}");
    assert_eq!(
        (&webhooks[0]["webhook"], &webhooks[0]["fate"]),
        (&json!("wh_all"), &json!("delivered"))
    );
    assert_eq!(
        (&webhooks[1]["webhook"], &webhooks[1]["refusal"]),
        (&json!("wh_filter"), &json!("filter"))
    );
    assert!(
        webhooks[1]["condition"].to_string().contains("/job/status"),
        "{told}"
    );
    assert_eq!(webhooks[2]["refusal"], "event_type");
    // 1, 1.0 and 1e0 are one customer.
    let event = br#"{"event_type": "job.failed", "customer": 1.0}"#.to_vec();
    let json = [("content-type", "application/json")];
    let told = client
        .send("POST", "/match/", &json, Some(event))
        .expect(200);
    assert_eq!(
        (&told["customer"], &told["matches"]),
        (&json!("1"), &json!(1))
    );
    let types = client.get("/event-types/").expect(200);
    assert!(
        types["results"]
            .as_array()
            .unwrap()
            .iter()
            .any(|row| row["event_type"] == "device.*" && row["webhooks"] == 1)
    );
}

#[test]
fn the_document_is_complete_and_its_page_needs_nothing_else() {
    let cluster = Cluster::named("api-document");
    let router = start(&cluster, "");
    let nobody = Client::of(&router, "");
    let document = nobody.get("/openapi.json").expect(200);
    assert_eq!(document["openapi"], "3.1.0");
    let mut operations = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        assert!(
            path.starts_with("/api/v1/") && path.ends_with('/'),
            "{path}"
        );
        for (method, operation) in item.as_object().unwrap() {
            operations += 1;
            let summary = operation["summary"]
                .as_str()
                .or(operation["description"].as_str());
            assert!(
                summary.is_some_and(|text| !text.is_empty()),
                "{method} {path}"
            );
            for status in ["401", "429", "500"] {
                assert!(
                    operation["responses"][status].is_object(),
                    "{method} {path} {status}"
                );
            }
        }
    }
    assert!(operations >= 18, "{operations}");
    // Nothing is referred to that is not there.
    let text = document.to_string();
    for name in text
        .split("#/components/schemas/")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
    {
        assert!(
            document["components"]["schemas"][name].is_object(),
            "{name}"
        );
    }
    // What is shown has just the documented fields.
    let client = Client::of(&router, ROOT);
    let shown = client
        .post(
            "/webhooks/",
            &json!({"url": "https://example.com/", "event_types": ["*"]}),
        )
        .expect(201);
    // No history is kept here.
    assert!(shown["pending"].is_null() && shown["last_success_at"].is_null());
    let documented = document["components"]["schemas"]["Webhook"]["properties"]
        .as_object()
        .unwrap();
    let mut names: Vec<&String> = documented.keys().filter(|name| *name != "secret").collect();
    let mut found: Vec<&String> = shown.as_object().unwrap().keys().collect();
    names.sort();
    found.sort();
    assert_eq!(names, found);

    let address = router.app().api().unwrap();
    let (status, page) = crate::harness::get(address, "/docs/");
    assert_eq!(status, 200);
    assert!(!page.contains("https://"), "{page}");
    let (status, script) = crate::harness::get(address, "/docs/swagger-initializer.js");
    assert!(
        status == 200 && script.contains("/api/v1/openapi.json"),
        "{script}"
    );
}

#[test]
fn the_document_tells_the_request_that_a_receiver_gets() {
    let cluster = Cluster::named("api-outgoing");
    let receiver = Receiver::accepting();
    let router = start(&cluster, "");
    router.subscribe("wh_a", &receiver.url("/in"), json!({"secret": "s3cret"}));
    let client = Client::of(&router, ROOT);
    let document = client.get("/openapi.json").expect(200);
    let told = &document["webhooks"]["delivery"]["post"];
    // No token of ours goes to a receiver.
    assert_eq!(told["security"], json!([{}]), "{told}");
    for answer in ["2XX", "3XX", "400", "410", "429", "503", "default"] {
        assert!(told["responses"][answer].is_object(), "{answer}");
    }
    let content = &told["requestBody"]["content"]["application/json"];
    let body = content["example"].to_string().into_bytes();
    let json = [("content-type", "application/json")];
    client
        .send("POST", "/events/", &json, Some(body))
        .expect(202);
    let request = receiver.wait_for(1, SOON).remove(0);
    let parameters = told["parameters"].as_array().unwrap();
    let name = |parameter: &serde_json::Value| parameter["name"].as_str().unwrap().to_owned();
    for parameter in parameters {
        let is_sent = request.header(&name(parameter)).is_some();
        assert!(is_sent || parameter["required"] == false, "{parameter}");
    }
    // What HTTP itself needs is nobody's promise.
    let own = ["host", "accept", "content-type", "content-length"];
    for sent in request.headers.keys().map(|sent| sent.as_str()) {
        let is_told = parameters.iter().any(|parameter| name(parameter) == sent);
        assert!(
            is_told || own.contains(&sent),
            "{sent} is sent and not in the document"
        );
    }
}
