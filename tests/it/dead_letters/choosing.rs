//! Which letters are meant, what is shown of them, and putting some aside.

use serde_json::json;

use super::{Ground, SOON, stderr};
use crate::harness::{Cluster, Receiver, Sent};

#[test]
fn flags_choose_and_what_was_never_a_delivery_is_left_and_said() {
    let cluster = Cluster::named("replay-flags");
    let ground = Ground::start(&cluster);
    ground.subscribe("wh_b", "/b");
    ground.emit("job.failed", 2);
    ground.emit("job.done", 1);
    let (partition, offset) = cluster.produce(
        &cluster.name("events.job"),
        &Sent::new(b"\xff\x00{".to_vec()),
    );
    ground.wait_for_letters(7);

    let total = |more: &[&str]| ground.list(more)["total"].as_u64().unwrap();
    assert_eq!(total(&[]), 7);
    assert_eq!(total(&["--webhook", "wh_b"]), 3);
    assert_eq!(total(&["--reason", "rejected"]), 3);
    assert_eq!(total(&["--status", "500"]), 3);
    assert_eq!(total(&["--event-type", "job.d*"]), 2);
    assert_eq!(
        total(&["--event-type", "job.failed", "--webhook", "wh_a"]),
        2
    );
    assert_eq!(total(&["--since", "1h"]), 7);
    assert_eq!(total(&["--until", "1h"]), 0);
    assert_eq!(total(&["--since", "2100-01-01"]), 0);
    let one = ground.list(&["--webhook", "wh_b", "--limit", "1"]);
    assert_eq!(
        (&one["total"], one["results"].as_array().unwrap().len()),
        (&json!(3), 1)
    );

    let raw = &ground.list(&["--reason", "undecodable"])["results"][0];
    let shown = ground.json(&["show", raw["place"].as_str().unwrap()]);
    assert_eq!(shown["body_hex"], "ff007b");
    let source = format!("{}/{partition}/{offset}", cluster.name("events.job"));
    assert_eq!(shown["headers"]["postrider-source"], json!(source));
    let text = ground.run(&["show", raw["place"].as_str().unwrap()]);
    assert!(
        text.contains("ff 00 7b") && text.contains("cannot be replayed"),
        "{text}"
    );

    ground.mend();
    let counted = ground.json(&["replay", "--dry-run"]);
    assert_eq!(
        (&counted["total"], &counted["not_replayable"]),
        (&json!(6), &json!(1))
    );
    assert_eq!(
        ground.replay(&["--reason", "rejected", "--event-type", "job.failed"])["done"],
        2
    );
    ground.receiver.wait_for_accepted(2, SOON);
    assert_eq!(total(&[]), 5);
    assert_eq!(ground.replay(&["--limit", "2"])["done"], 2);
    assert_eq!(total(&[]), 3);
    let elsewhere = Receiver::accepting();
    assert_eq!(
        ground.replay(&["--to", &elsewhere.url("/other")])["done"],
        2
    );
    assert_eq!(elsewhere.wait_for_accepted(2, SOON)[0].path, "/other");
    ground.wait_until_idle();
    assert!(ground.accepted().values().all(|count| *count == 1));
    let left = ground.list(&[]);
    assert_eq!(
        left["by_reason"],
        json!({"undecodable": 1}),
        "never a delivery: it still waits"
    );
}

#[test]
fn a_discarded_letter_is_hidden_not_replayed_and_waits_again_when_that_is_taken_back() {
    let cluster = Cluster::named("discard");
    let ground = Ground::start(&cluster);
    ground.subscribe("wh_b", "/b");
    ground.emit("job.failed", 2);
    ground.wait_for_letters(4);
    ground.mend();

    let discard = [
        "discard",
        "--yes",
        "--webhook",
        "wh_b",
        "--reason-text",
        "a test",
    ];
    let done = ground.json(&discard);
    assert_eq!(done["done"], 2);
    assert_eq!(ground.list(&[])["total"], 2);
    let hidden = ground.list(&["--all", "--webhook", "wh_b"]);
    assert_eq!(hidden["results"][0]["fate"], "discarded");
    let shown = ground.json(&["show", hidden["results"][0]["place"].as_str().unwrap()]);
    assert_eq!(shown["discard_reason"], "a test");

    assert_eq!(ground.replay(&[])["done"], 2);
    assert_eq!(ground.list(&[])["total"], 0);
    ground.run(&["discard", "--undo", done["id"].as_str().unwrap()]);
    assert_eq!(ground.list(&[])["total"], 2);
    assert_eq!(ground.replay(&[])["done"], 2);
    ground.receiver.wait_for_accepted(4, SOON);
    ground.wait_until_idle();
    assert!(ground.accepted().values().all(|count| *count == 1));
    assert_eq!(ground.router.dead_letters().len(), 4, "nothing is deleted");
}

#[test]
fn every_wrong_call_says_how_to_mend_it() {
    let cluster = Cluster::named("replay-wrong");
    let ground = Ground::start(&cluster);
    for (arguments, code, word) in [
        (vec!["replay"], 2, "--yes"),
        (vec!["discard", "--yes"], 2, "--reason-text"),
        (vec!["list", "--since", "yesterday"], 2, "2h"),
        (vec!["list", "--reason", "tired"], 2, "exhausted"),
        (vec!["list", "--event-type", "*.failed"], 2, "job.*"),
        (vec!["show", "a/b"], 2, "partition/offset"),
        (vec!["show", "0/42"], 1, "list --all"),
        (vec!["show", "dlv_none"], 1, "retention"),
        (vec!["list", "--topic", "no-such-topic"], 1, "no-such-topic"),
        (vec!["replay", "--yes", "--rate", "0"], 2, "rate"),
        (
            vec!["replay", "--yes", "--to", "http://10.0.0.1/"],
            1,
            "outbound.allow_networks",
        ),
        (
            vec!["replay", "--yes", "--to", "ftp://a.example/"],
            1,
            "use http or https",
        ),
        (vec!["replay", "--resume", "rp_none"], 1, "no job rp_none"),
        (
            vec!["replay", "--resume", "rp_none", "--limit", "1"],
            2,
            "--limit",
        ),
        (vec!["discard", "--undo", "rp_none"], 1, "no job rp_none"),
    ] {
        let output = ground.output(&arguments);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert!(
            stderr(&output).contains(word),
            "{arguments:?}: {}",
            stderr(&output)
        );
    }
    let empty = ground.run(&["list"]);
    assert!(empty.contains("no dead letters"), "{empty}");
}

#[test]
fn the_dead_letters_of_another_program_are_listed() {
    let cluster = Cluster::named("foreign");
    let ground = Ground::start(&cluster);
    let topic = cluster.create_topic("connect.dlq", 1, &[]);
    let foreign =
        Sent::new("{\"a\":1.0}").header("__connect.errors.exception.message", "a converter failed");
    cluster.produce(&topic, &foreign);
    let listed = ground.list(&["--topic", &topic]);
    assert_eq!(listed["results"][0]["reason"], "foreign");
    assert_eq!(listed["results"][0]["error_message"], "a converter failed");
    assert_eq!(listed["results"][0]["replayable"], false);
    let shown = ground.run(&["show", &format!("{topic}/0/0")]);
    assert!(shown.contains("\"a\": 1.0"), "{shown}");
}

#[test]
fn letters_of_other_programs_go_into_a_source_topic_as_they_once_came() {
    let cluster = Cluster::named("foreign-into");
    let ground = Ground::start(&cluster);
    ground.mend();
    let topic = cluster.create_topic("other.dlq", 1, &[]);
    let event = |n: u32| json!({"event_type": "job.failed", "customer": 1, "n": n}).to_string();
    let connect = Sent::new(event(1))
        .header("own", "1")
        .header("__connect.errors.exception.message", "a converter failed");
    let spring = Sent::new(event(2))
        .header("own", "2")
        .header("kafka_dlt-exception-message", "a listener threw");
    cluster.produce_all(&topic, &[connect, spring]);
    let source = cluster.name("events.job");
    let from = ["--dead-topic", topic.as_str(), "--into"];
    let missing = ground.output(&[&["replay", "--yes"], &from[..], &["no-such-topic"]].concat());
    assert!(stderr(&missing).contains("there is no topic no-such-topic"));
    let into = [&from[..], &[source.as_str()]].concat();
    let replayed = ground.replay(&into);
    assert_eq!(
        (&replayed["done"], &replayed["total"]),
        (&json!(2), &json!(2))
    );
    ground.receiver.wait_for_accepted(2, SOON);
    let mut records = cluster.consume_all(&source);
    records.sort_by_key(|record| record.header("own").map(str::to_owned));
    assert_eq!(records.len(), 2);
    for (record, n) in records.iter().zip(1..) {
        assert_eq!(record.payload.as_deref(), Some(event(n).as_bytes()));
        assert_eq!(record.header("own"), Some(&*n.to_string()));
        assert_eq!(record.header("__connect.errors.exception.message"), None);
        assert_eq!(record.header("kafka_dlt-exception-message"), None);
    }
    assert_eq!(ground.replay(&into)["done_before"], 2);
    ground.wait_until_idle();
}
