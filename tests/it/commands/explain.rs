//! `explain` says what is so: of an event what the router does with it, of a delivery what became of it.

use std::time::Duration;

use serde_json::{Value, json};

use super::Setting;
use crate::harness::{Cluster, KEY, Receiver, Reply, Router, Sent, config_text, eventually};

const SECRET: &str = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0";
const SOON: Duration = Duration::from_secs(20);

const EVENT: &[u8] = br#"{"event_type":"job.failed","customer":1,"job":{"status":"failed"}}"#;

const WEBHOOKS: &str = r#"
webhooks:
  - {id: wh_wants, name: Wants, customer: 1, url: "https://a.example/", event_types: ["job.*"]}
  - {id: wh_paused, name: Paused, url: "https://a.example/", event_types: ["*"], paused: true}
  - {id: wh_type, name: Type, url: "https://a.example/", event_types: [device.created]}
  - {id: wh_customer, name: Customer, customer: 2, url: "https://a.example/", event_types: ["*"]}
  - {id: wh_filter, name: Filter, url: "https://a.example/", event_types: ["*"], filter: {job: {status: success}}}
  - {id: wh_off, name: Off, url: "https://a.example/", event_types: ["*"], enabled: false}
"#;

#[test]
fn explain_says_of_every_webhook_in_a_file_why_it_gets_an_event_or_not() {
    let setting = Setting::of("");
    let event = setting.file("event.json", EVENT);
    let webhooks = setting.file("webhooks.yaml", WEBHOOKS.as_bytes());
    let arguments = ["explain", "--event", &event, "--subscriptions", &webhooks];
    let told = setting.json(&arguments);
    assert_eq!(
        told["event"],
        json!({"event_type": "job.failed", "customer": "1"})
    );
    let fates: Vec<(&str, &str, Option<&str>)> = told["webhooks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let text = |name: &str| row[name].as_str();
            (
                text("webhook_id").unwrap(),
                text("fate").unwrap(),
                text("refusal"),
            )
        })
        .collect();
    assert_eq!(
        fates,
        [
            ("wh_wants", "delivered", None),
            ("wh_paused", "held", None),
            ("wh_customer", "not_wanted", Some("customer")),
            ("wh_filter", "not_wanted", Some("filter")),
            ("wh_off", "not_wanted", Some("disabled")),
            ("wh_type", "not_wanted", Some("event_type")),
        ]
    );
    let filter = &told["webhooks"][3]["condition"];
    assert_eq!(filter["path"], "/job/status");
    assert_eq!(
        (&filter["wanted"], &filter["found"]),
        (&json!("success"), &json!("failed"))
    );

    let text = setting.run(&arguments).stdout;
    assert!(text.contains("2 of 6 webhooks want it"), "{text}");
    assert!(text.contains("it wants device.created"), "{text}");

    let garbage = setting.file("garbage.json", b"{\"customer\":1,\"customer\":2}");
    let undecodable = setting.run(&["explain", "--event", &garbage, "--subscriptions", &webhooks]);
    assert!(
        undecodable.stdout.contains("stands twice"),
        "{}",
        undecodable.stdout
    );

    let wrong = setting.file(
        "wrong.yaml",
        b"webhooks:\n  - {name: x, url: nowhere, event_types: [a]}\n",
    );
    let cases: &[(&[&str], i32, &str)] = &[
        (&["explain"], 2, "DELIVERY_ID"),
        (&["explain", "dlv_1", "--event", &event], 2, "--event"),
        (&["explain", "dlv_1"], 1, "no delivery id"),
        (
            &["explain", "--event", &event, "--subscriptions", &wrong],
            1,
            "wrong.yaml:2:",
        ),
        (
            &[
                "explain",
                "--event",
                &event,
                "--subscriptions",
                &webhooks,
                "--webhook",
                "wh_want",
            ],
            1,
            "did you mean wh_wants?",
        ),
        (
            &["explain", "dlv_1", "--since", "yesterday"],
            2,
            "30m or 2h",
        ),
    ];
    for (arguments, code, said) in cases {
        let refused = setting.run(arguments);
        assert_eq!(refused.code, *code, "{arguments:?}: {}", refused.stderr);
        assert!(
            refused.stderr.contains(said),
            "{arguments:?}: {}",
            refused.stderr
        );
    }
}

#[test]
fn explain_tells_the_story_of_a_delivery_from_the_topics() {
    let cluster = Cluster::named("explain");
    let failing = Receiver::start(|request| {
        if request.index == 0 {
            Reply::status(503)
        } else {
            Reply::ok()
        }
    });
    let refusing = Receiver::start(|_| Reply::status(404));
    let mut router = Router::start(&cluster, &["events.job"], "");
    router.leaves_work();
    router.subscribe(
        "wh_again",
        &failing.url("/"),
        json!({"retry_backoff": 1, "secret": SECRET}),
    );
    router.subscribe(
        "wh_later",
        &failing.url("/"),
        json!({"event_types": ["job.slow"], "retry_backoff": 600}),
    );
    router.subscribe("wh_refuses", &refusing.url("/"), json!({}));
    router.subscribe("wh_paused", &refusing.url("/"), json!({"paused": true}));
    let setting = Setting::of(&config_text(&cluster, &["events.job"], ""));

    // The catalog is asked as the router asks it; secrets need the key.
    let event = setting.file("event.json", EVENT);
    let asked = setting.json(&["explain", "--event", &event]);
    assert_eq!(asked["webhooks"].as_array().unwrap().len(), 4);
    let without_key =
        config_text(&cluster, &["events.job"], "").replace(&format!("secrets.key = \"{KEY}\""), "");
    let refused = Setting::of(&without_key).run(&["explain", "--event", &event]);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("POSTRIDER_SECRET_KEY"),
        "{}",
        refused.stderr
    );

    let topic = cluster.name("events.job");
    let (partition, offset) = cluster.produce(&topic, &Sent::new(EVENT));
    let id = |webhook: &str| {
        let source = format!("{topic}/{partition}/{offset}").parse().unwrap();
        postrider::delivery::delivery_id(
            &source,
            &postrider::subscription::WebhookId::new(webhook).unwrap(),
        )
    };
    let story = |webhook: &str, state: &str| {
        let id = id(webhook);
        eventually(&format!("{webhook} to be {state}"), SOON, || {
            let output = setting.run(&["explain", &id, "--output", "json"]);
            let told: Value = serde_json::from_str(&output.stdout).ok()?;
            (told["state"] == state).then_some(told)
        })
    };
    let whats = |told: &Value| -> Vec<String> {
        let steps = told["steps"].as_array().unwrap();
        steps
            .iter()
            .map(|step| step["what"].as_str().unwrap().to_owned())
            .collect()
    };

    let told = story("wh_again", "delivered");
    let told_whats = whats(&told);
    assert_eq!(told_whats[..3], ["dispatched", "attempted", "waits"]);
    assert_eq!(told_whats.last().unwrap(), "attempted");
    assert_eq!(told["steps"][1]["status"], 503);
    assert_eq!(told["source"], format!("{topic}/{partition}/{offset}"));
    assert_eq!(told["next_attempt_at"], Value::Null);

    let told = story("wh_refuses", "dead_lettered");
    assert_eq!(whats(&told), ["dispatched", "attempted", "dead_lettered"]);
    assert_eq!(told["steps"][2]["reason"], "rejected");

    assert_eq!(whats(&story("wh_paused", "held")), ["dispatched", "held"]);

    let text = setting
        .run(&["explain", &id("wh_again"), "--since", "10m"])
        .stdout;
    assert!(
        text.contains("attempt 1: server_error, status 503"),
        "{text}"
    );
    assert!(text.ends_with("\ndelivered\n"), "{text}");

    let unknown = setting.run(&["explain", "dlv_00000000000000000000000000000000"]);
    assert_eq!(unknown.code, 1);
    assert!(
        unknown.stderr.contains("nothing tells of"),
        "{}",
        unknown.stderr
    );
}

#[test]
fn explain_names_the_time_of_the_next_attempt() {
    let cluster = Cluster::named("explain-waiting");
    let failing = Receiver::start(|_| Reply::status(500));
    let mut router = Router::start(&cluster, &["events.job"], "");
    router.leaves_work();
    router.subscribe("wh_later", &failing.url("/"), json!({"retry_backoff": 600}));
    let topic = cluster.name("events.job");
    cluster.produce(&topic, &Sent::new(EVENT));
    let id = failing.wait_for(1, SOON)[0].id().unwrap().to_owned();
    let setting = Setting::of(&config_text(&cluster, &["events.job"], ""));
    let told = eventually("the delivery to wait", SOON, || {
        let output = setting.run(&["explain", &id, "--output", "json"]);
        let told: Value = serde_json::from_str(&output.stdout).ok()?;
        (told["state"] == "waiting").then_some(told)
    });
    let due: jiff::Timestamp = told["next_attempt_at"].as_str().unwrap().parse().unwrap();
    let pause = due.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((570..=620).contains(&pause), "{pause}");
}
