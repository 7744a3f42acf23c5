//! A record that is no event goes to the dead letters with its bytes, and the next one is read.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use crate::harness::{Cluster, Receiver, Record, Router, Sent};

const SOON: Duration = Duration::from_secs(40);

fn bad() -> Vec<(&'static str, Vec<u8>)> {
    let deep = [vec![b'['; 10_000], vec![b']'; 10_000]].concat();
    let deep_object = [
        br#"{"event_type":"job.failed","customer":1,"a":"#.to_vec(),
        br#"{"a":"#.repeat(10_000),
        b"1".to_vec(),
        vec![b'}'; 10_001],
    ]
    .concat();
    let long_type = format!(r#"{{"event_type":"{}","customer":1}}"#, "x".repeat(300));
    let mut bad: Vec<(&str, Vec<u8>)> = vec![
        ("empty", b"".to_vec()),
        (
            "invalid UTF-8",
            b"{\"event_type\":\"job.\xff\",\"customer\":1}".to_vec(),
        ),
        ("10,000 deep", deep),
        ("10,000 deep in a field", deep_object),
        ("a type too long", long_type.into_bytes()),
    ];
    let texts = [
        ("only white space", " \n"),
        ("not JSON", "job failed"),
        ("cut short", r#"{"event_type":"job.failed","customer":1"#),
        (
            "two values",
            r#"{"event_type":"job.failed","customer":1} {}"#,
        ),
        ("NaN", r#"{"event_type":"job.failed","customer":1,"n":NaN}"#),
        (
            "infinity",
            r#"{"event_type":"job.failed","customer":1,"n":-Infinity}"#,
        ),
        (
            "duplicate keys",
            r#"{"event_type":"job.failed","customer":1,"customer":2}"#,
        ),
        (
            "duplicate keys inside",
            r#"{"event_type":"job.failed","customer":1,"job":{"a":1,"a":2}}"#,
        ),
        ("an array", r#"[{"event_type":"job.failed"}]"#),
        ("text", r#""job.failed""#),
        ("null", "null"),
        ("no type", r#"{"customer":1,"job":{}}"#),
        ("an empty type", r#"{"event_type":"","customer":1}"#),
        (
            "a type that is a number",
            r#"{"event_type":5,"customer":1}"#,
        ),
        ("a type that is null", r#"{"event_type":null,"customer":1}"#),
        (
            "a type with a line break",
            r#"{"event_type":"job\nfailed","customer":1}"#,
        ),
        (
            "another type that is an object",
            r#"{"type":{},"customer":1}"#,
        ),
        (
            "a time that is a list",
            r#"{"event_type":"job.failed","event_timestamp":[],"customer":1}"#,
        ),
        (
            "a customer that is an object",
            r#"{"event_type":"job.failed","customer":{}}"#,
        ),
        (
            "a customer that is a boolean",
            r#"{"event_type":"job.failed","customer":true}"#,
        ),
        (
            "a customer that is empty",
            r#"{"event_type":"job.failed","customer":""}"#,
        ),
    ];
    bad.extend(texts.map(|(what, text)| (what, text.as_bytes().to_vec())));
    bad
}

fn place(record: &Record) -> (i32, i64) {
    let number = |name| record.header(name).unwrap().parse::<i64>().unwrap();
    let partition = i32::try_from(number("__dlq.errors.partition")).unwrap();
    (partition, number("__dlq.errors.offset"))
}

#[test]
fn what_is_no_event_is_kept_as_it_was_with_its_reason_and_reading_goes_on() {
    let cluster = Cluster::named("bad-events");
    let receiver = Receiver::accepting();
    let router = Router::start(&cluster, &["events.job"], "");
    router.subscribe("wh_a", &receiver.url("/"), json!({"customer": null}));
    let topic = cluster.name("events.job");
    let bad = bad();
    let mut sent: Vec<Sent> = Vec::new();
    for (n, (what, bytes)) in bad.iter().enumerate() {
        let partition = i32::try_from(n % 3).unwrap();
        let of_producer = Sent::new(bytes.clone())
            .key(format!("k{n}"))
            .header("what", *what);
        sent.push(of_producer.partition(partition));
        sent.push(Sent::tombstone("gone").partition(partition));
    }
    let placed = cluster.produce_all(&topic, &sent);
    // The last record of each partition: it is reached only when reading went on.
    let good = r#"{"event_type":"job.failed","customer":1}"#;
    let good = [0, 1, 2].map(|partition| Sent::new(good).partition(partition));
    cluster.produce_all(&topic, &good);

    let letters = router.wait_for_dead_letters(bad.len());
    receiver.wait_for(3, SOON);
    router.wait_until_idle();

    assert_eq!(letters.len(), bad.len());
    let by_place: BTreeMap<(i32, i64), &Record> = letters
        .iter()
        .map(|letter| (place(letter), letter))
        .collect();
    for (n, (what, bytes)) in bad.iter().enumerate() {
        let letter = by_place
            .get(&placed[2 * n])
            .unwrap_or_else(|| panic!("{what}: no letter"));
        assert_eq!(letter.payload.as_ref(), Some(bytes), "{what}");
        assert_eq!(letter.key, Some(format!("k{n}").into_bytes()), "{what}");
        assert_eq!(letter.header("what"), Some(*what));
        assert_eq!(
            letter.header("postrider-reason"),
            Some("undecodable"),
            "{what}"
        );
        assert_eq!(
            letter.header("__dlq.errors.topic"),
            Some(topic.as_str()),
            "{what}"
        );
        assert!(
            letter.header("__dlq.errors.message").unwrap().len() > 10,
            "{what}"
        );
    }
    assert_eq!(receiver.requests().len(), 3);
    let tombstones = format!("postrider_events_tombstones_total{{topic=\"{topic}\"}}");
    assert_eq!(router.metric(&tombstones), bad.len() as f64);
}

fn of_size(bytes: usize) -> String {
    let head = r#"{"event_type":"job.failed","customer":1,"x":""#;
    format!("{head}{}\"}}", "x".repeat(bytes - head.len() - 2))
}

#[test]
fn an_event_of_nine_hundred_kilobytes_is_delivered_whole() {
    let cluster = Cluster::named("large");
    let receiver = Receiver::accepting();
    let router = Router::start(&cluster, &["events.job"], "");
    router.subscribe("wh_a", &receiver.url("/"), json!({}));
    let body = of_size(900_000);
    cluster.produce(&cluster.name("events.job"), &Sent::new(body.clone()));
    let request = &receiver.wait_for(1, SOON)[0];
    assert!(
        request.body == body.as_bytes(),
        "{} bytes",
        request.body.len()
    );
}

#[test]
fn a_source_topic_that_comes_later_is_read_and_what_is_too_large_for_our_topics_ends_as_such() {
    let cluster = Cluster::named("too-large");
    let receiver = Receiver::accepting();
    cluster.create_topic("events.job", 3, &[]);
    let router = Router::start_before_its_sources(&cluster, &["events.job", "events.late"], "");
    router.subscribe("wh_a", &receiver.url("/"), json!({}));
    let topic = cluster.create_topic("events.late", 1, &[("max.message.bytes", "5000000")]);
    let (large, small) = (of_size(3_000_000), of_size(100));
    let sent = [&large, &small].map(|body| Sent::new(body.clone()));
    let placed = cluster.produce_all(&topic, &sent);

    let letter = &router.wait_for_dead_letters(1)[0];
    let request = &receiver.wait_for(1, SOON)[0];
    router.wait_until_idle();

    assert_eq!(request.body, small.as_bytes());
    assert_eq!(receiver.requests().len(), 1);
    assert_eq!(letter.header("postrider-reason"), Some("too_large"));
    assert_eq!(letter.header("postrider-webhook-id"), Some("wh_a"));
    assert_eq!(letter.header("postrider-full-bytes"), Some("3000000"));
    assert_eq!(place(letter), placed[0]);
    let kept = letter.payload.as_deref().unwrap();
    assert!(kept.len() > 10_000 && large.as_bytes().starts_with(kept));
}
