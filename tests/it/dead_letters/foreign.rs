//! What Kafka Connect and Spring Kafka gave up on goes straight to a webhook: each event once, by the same id whoever sends it, and what is
//! no event stays where it is and is named.

use serde_json::{Value, json};

use super::{Ground, SOON, stderr};
use crate::harness::{Cluster, Record, Sent, eventually};

fn event(customer: u32, n: u32) -> String {
    // The spaces and the 1.0 would not survive a parser.
    format!(r#"{{"event_type":"task.done", "customer":{customer},  "n":{n}, "load":1.0}}"#)
}

/// As Kafka Connect writes it with `errors.deadletterqueue.context.headers.enable` (KIP-298).
fn connect(body: impl Into<Vec<u8>>) -> Sent {
    Sent::new(body)
        .header("own", "kept")
        .header("__connect.errors.topic", "orders")
        .header("__connect.errors.partition", "3")
        .header("__connect.errors.offset", "1234")
        .header("__connect.errors.connector.name", "sink")
        .header("__connect.errors.task.id", "0")
        .header("__connect.errors.stage", "VALUE_CONVERTER")
        .header("__connect.errors.exception.message", "a converter failed")
}

/// As Spring's `DeadLetterPublishingRecoverer` writes it; its numbers are bytes, not text.
fn spring(body: impl Into<Vec<u8>>) -> Sent {
    Sent::new(body)
        .header("kafka_dlt-original-topic", "orders")
        .header("kafka_dlt-original-partition", "\0\0\0\u{1}")
        .header("kafka_dlt-exception-fqcn", "java.lang.IllegalState")
        .header("kafka_dlt-exception-message", "a listener threw")
}

fn dispatched(cluster: &Cluster) -> Vec<Record> {
    cluster.consume_all(&cluster.name("postrider.dispatch"))
}

#[test]
fn the_letters_of_connect_and_spring_arrive_at_the_webhook_that_is_named_and_what_is_no_event_is_named_and_stays()
 {
    let cluster = Cluster::named("foreign-webhook");
    let ground = Ground::start(&cluster);
    ground.mend();
    ground.router.subscribe(
        "wh_seven",
        &ground.receiver.url("/seven"),
        json!({"event_types": ["device.*"], "customer": 7}),
    );
    let topic = cluster.create_topic("connect-dlq", 1, &[]);
    cluster.produce_all(
        &topic,
        &[
            connect(event(7, 0)),
            spring(event(7, 1)),
            connect(b"\x00\x01avro".to_vec()),
            spring(event(8, 3)),
            connect(json!({"customer": 7, "n": 4}).to_string()),
        ],
    );
    let to = ["--topic", topic.as_str(), "--to-webhook", "wh_seven"];

    let dry = ground.output(&[&["replay", "--dry-run", "--output", "json"], &to[..]].concat());
    let said = stderr(&dry);
    let counts: Value = serde_json::from_slice(&dry.stdout).unwrap();
    assert_eq!(
        (&counts["total"], &counts["not_replayable"]),
        (&json!(2), &json!(3)),
        "{counts}"
    );
    assert_eq!(counts["by_event_type"]["task.done"], 2, "{counts}");
    for (offset, why) in [
        (2, "not JSON"),
        (3, "of its own customer only"),
        (4, "names no type"),
    ] {
        let line = format!("left: {topic}/0/{offset}: ");
        let line = said.lines().find(|found| found.starts_with(&line));
        assert!(
            line.is_some_and(|line| line.contains(why)),
            "{offset}: {said}"
        );
    }
    assert_eq!(dispatched(&cluster).len(), 0, "a dry run sends nothing");

    let done = ground.replay(&to);
    assert_eq!(
        (&done["done"], &done["total"]),
        (&json!(2), &json!(2)),
        "{done}"
    );
    ground.receiver.wait_for_accepted(2, SOON);
    for n in [0, 1] {
        let accepted = ground.receiver.accepted();
        let request = accepted
            .iter()
            .find(|request| request.body == event(7, n).into_bytes());
        let request = request.unwrap_or_else(|| panic!("{n} did not arrive as it was"));
        assert_eq!(request.path, "/seven");
        assert_eq!(request.header("x-webhook-event"), Some("task.done"));
    }
    for record in dispatched(&cluster) {
        let is_theirs = |name: &str| name.starts_with("__connect") || name.starts_with("kafka_dlt");
        assert!(!record.headers.iter().any(|header| is_theirs(&header.0)));
    }
    let again = ground.replay(&to);
    assert_eq!(
        (&again["total"], &again["done_before"]),
        (&json!(0), &json!(2)),
        "{again}"
    );

    // The same ids however often, so that a receiver can drop the copies.
    let more = ground.replay(&[&to[..], &["--again", "--limit", "1", "--rate", "5"]].concat());
    assert_eq!(more["done"], 1, "{more}");
    ground.receiver.wait_for_accepted(3, SOON);
    ground.wait_until_idle();
    let mut times: Vec<usize> = ground.accepted().into_values().collect();
    times.sort_unstable();
    assert_eq!(times, [1, 2], "one of two ids came twice");

    let listed = ground.list(&["--topic", &topic, "--all"]);
    let fates: Vec<&str> = listed["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["fate"].as_str().unwrap())
        .collect();
    assert_eq!(
        fates,
        ["replayed", "replayed", "waiting", "waiting", "waiting"]
    );
    assert_eq!(
        cluster.consume_all(&topic).len(),
        5,
        "nothing is taken out of the topic"
    );
}

#[test]
fn the_routers_send_letters_of_other_programs_to_a_webhook_too() {
    let cluster = Cluster::named("foreign-fleet");
    let ground = Ground::start(&cluster);
    ground.mend();
    let topic = cluster.create_topic("spring.DLT", 2, &[]);
    let letters: Vec<Sent> = (0..30).map(|n| spring(event(1, n))).collect();
    cluster.produce_all(&topic, &letters);
    let job = ground.replay(&["--topic", &topic, "--to-webhook", "wh_a", "--detach"]);
    let id = job["id"].as_str().unwrap().to_owned();
    eventually("the replay to finish", SOON, || {
        let job = ground.replays(&["show", &id]);
        (job["state"] == "finished" && job["done"] == 30).then_some(())
    });
    ground.receiver.wait_for_accepted(30, SOON);
    ground.wait_until_idle();
    let accepted = ground.accepted();
    assert_eq!(accepted.len(), 30);
    assert!(accepted.values().all(|count| *count == 1), "{accepted:?}");
}

#[test]
fn an_order_for_another_programs_letters_says_what_is_wrong_and_sends_nothing() {
    let cluster = Cluster::named("foreign-wrong");
    let ground = Ground::start(&cluster);
    ground.subscribe("wh_off", "/off");
    ground
        .router
        .change("wh_off", |webhook| webhook.enabled = false);
    let topic = cluster.create_topic("connect-dlq", 1, &[]);
    cluster.produce(&topic, &connect(event(1, 0)));
    let source = cluster.name("events.job");
    for (arguments, code, word) in [
        (
            vec!["--topic", &topic, "--to-webhook", "wh_none"],
            1,
            "--to-webhook: there is no webhook wh_none",
        ),
        (
            vec!["--topic", &topic, "--to-webhook", "wh_off"],
            1,
            "enable it first",
        ),
        (
            vec!["--topic", &topic, "--to-webhook", "a b"],
            2,
            "characters",
        ),
        (
            vec![
                "--topic",
                &topic,
                "--to-webhook",
                "wh_a",
                "--to-topic",
                &source,
            ],
            2,
            "cannot be used with",
        ),
        (
            vec![
                "--topic",
                &topic,
                "--to-webhook",
                "wh_a",
                "--to",
                "http://a.example/",
            ],
            2,
            "cannot be used with",
        ),
        (
            vec!["--topic", "no-such-topic", "--to-webhook", "wh_a"],
            1,
            "no-such-topic",
        ),
        (
            vec!["--topic", "no such topic", "--to-webhook", "wh_a"],
            1,
            "no such topic",
        ),
    ] {
        let output = ground.output(&[&["replay", "--yes"], &arguments[..]].concat());
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(word), "{arguments:?}: {said}");
    }
    assert_eq!(dispatched(&cluster).len(), 0);
}
