//! `emit` sends real events to where their type belongs, and nothing where something is wrong.

use serde_json::Value;

use super::Setting;
use crate::harness::{Cluster, config_text};

#[test]
fn emit_puts_events_where_their_type_belongs_and_they_are_events() {
    let cluster = Cluster::named("emit");
    let job = cluster.create_topic("events.job", 2, &[]);
    let device = cluster.create_topic("events.device", 1, &[]);
    let more = "intake.customer_pointer = \"/tenant/id\"";
    let setting = Setting::of(&config_text(
        &cluster,
        &["events.job", "events.device"],
        more,
    ));

    let places = setting.json(&[
        "emit",
        "job.failed",
        "--count",
        "3",
        "--customer",
        "acme",
        "--key",
        "k",
        "--set",
        "job.status=error",
        "--header",
        "traceparent=00-1",
    ]);
    assert_eq!(places.as_array().unwrap().len(), 3);
    let records = cluster.consume_all(&job);
    assert_eq!(records.len(), 3);
    for (record, place) in records.iter().zip(places.as_array().unwrap()) {
        assert_eq!(place["topic"], job);
        assert_eq!(place["partition"], record.partition);
        assert_eq!(place["offset"], record.offset);
        let event: Value = serde_json::from_str(&record.text()).unwrap();
        assert_eq!(event["event_type"], "job.failed");
        assert_eq!(event["tenant"]["id"], "acme");
        assert_eq!(event["job"]["status"], "error");
        assert_eq!(record.key.as_deref(), Some(&b"k"[..]));
        assert_eq!(record.header("traceparent"), Some("00-1"));
    }
    assert_ne!(records[0].payload, records[1].payload);

    let bytes = b"{ \"type\":\"device.created\",  \"n\":1.0 }\n";
    let file = setting.file("event.json", bytes);
    let sent = setting.run(&["emit", "--file", &file]);
    assert_eq!(sent.stdout, format!("{device}/0/0\n"), "{}", sent.stderr);
    assert_eq!(
        cluster.consume_all(&device)[0].payload.as_deref(),
        Some(&bytes[..])
    );

    let slip = setting.run(&["emit", "job.fialed"]);
    assert_eq!(slip.code, 0);
    assert!(
        slip.stderr.contains("did you mean job.failed?"),
        "{}",
        slip.stderr
    );
}

#[test]
fn emit_says_what_is_wrong_and_sends_nothing() {
    let cluster = Cluster::named("emit-refused");
    let job = cluster.create_topic("events.job", 1, &[]);
    let setting = Setting::of(&config_text(&cluster, &["events.job", "events.device"], ""));
    let garbage = setting.file("garbage", b"\xff");
    let cases: &[(&[&str], i32, &str)] = &[
        (&["emit", "order.paid"], 1, "--topic"),
        (&["emit", "device.created"], 1, "there is no topic"),
        (
            &["emit", "job.failed", "--set", "event_type.x=1"],
            1,
            "/event_type is",
        ),
        (&["emit", "job.failed", "--set", "x"], 2, "NAME=VALUE"),
        (&["emit", "job.failed", "--count", "0"], 2, "--count"),
        (&["emit"], 2, "TYPE"),
        (&["emit", "--file", &garbage], 1, "names no event type"),
        (
            &["emit", "job.failed", "--file", "/no/such/file"],
            1,
            "/no/such/file",
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
    assert_eq!(cluster.consume_all(&job).len(), 0);
}
