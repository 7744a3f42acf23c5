//! What a webhook missed, because it was not there or was disabled, is brought in from the source topics: that, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};

use super::{Ground, MORE, SOON, stderr};
use crate::harness::{Cluster, Process, Sent, config_text, eventually};

/// The arguments that ask for what a webhook missed since some minutes ago.
fn missed(webhook: &str) -> Vec<String> {
    let since = Timestamp::now().checked_sub(5.minutes()).unwrap();
    let until = Timestamp::now().checked_add(1.minute()).unwrap();
    ["--never-delivered", "--webhook", webhook, "--since"]
        .into_iter()
        .map(str::to_owned)
        .chain([since.to_string(), "--until".to_owned(), until.to_string()])
        .collect()
}

fn replay(ground: &Ground, webhook: &str, more: &[&str]) -> Value {
    let arguments = missed(webhook);
    let mut all: Vec<&str> = arguments.iter().map(String::as_str).collect();
    all.extend(more);
    ground.replay(&all)
}

/// The `n` and the event types of what was accepted on a path.
fn bodies(ground: &Ground, path: &str) -> Vec<String> {
    let accepted = ground.receiver.accepted();
    let on_path = accepted.iter().filter(|request| request.path == path);
    let mut bodies: Vec<String> = on_path
        .map(|request| String::from_utf8_lossy(&request.body).into_owned())
        .collect();
    bodies.sort();
    bodies
}

#[test]
fn exactly_the_events_that_a_webhook_missed_arrive_and_only_once() {
    let cluster = Cluster::named("missed");
    let ground = Ground::start(&cluster);
    ground.mend();
    ground.emit("job.done", 6);
    ground.receiver.wait_for_accepted(6, SOON);
    ground
        .router
        .change("wh_a", |webhook| webhook.enabled = false);
    ground.emit("job.failed", 5);
    ground.emit("device.up", 3);
    ground.wait_until_idle();
    ground
        .router
        .change("wh_a", |webhook| webhook.enabled = true);
    ground.subscribe("wh_late", "/late");
    ground.wait_until_idle();
    assert_eq!(ground.receiver.accepted().len(), 6);

    let dry = replay(&ground, "wh_a", &["--dry-run"]);
    assert_eq!(dry["total"], 5, "{dry}");
    assert_eq!(dry["by_event_type"]["job.failed"], 5, "{dry}");
    let done = replay(&ground, "wh_a", &[]);
    assert_eq!((&done["done"], &done["total"]), (&5.into(), &5.into()));
    ground.receiver.wait_for_accepted(11, SOON);
    let late = replay(&ground, "wh_late", &["--event-type", "job.*"]);
    assert_eq!(late["done"], 11, "{late}");
    ground.receiver.wait_for_accepted(22, SOON);
    ground.wait_until_idle();
    assert_eq!(bodies(&ground, "/late"), bodies(&ground, "/a"));
    assert_eq!(bodies(&ground, "/a").len(), 11);
    assert!(ground.accepted().values().all(|count| *count == 1));
    for webhook in ["wh_a", "wh_late"] {
        assert_eq!(replay(&ground, webhook, &[])["total"], 0, "{webhook}");
    }
}

#[test]
fn a_replay_of_what_was_missed_goes_on_elsewhere_when_its_router_is_killed() {
    const EVENTS: usize = 120;
    let cluster = Cluster::named("missed-kill");
    let mut ground = Ground::start(&cluster);
    ground.mend();
    ground
        .router
        .change("wh_a", |webhook| webhook.enabled = false);
    ground.emit("job.failed", EVENTS);
    ground.wait_until_idle();
    ground
        .router
        .change("wh_a", |webhook| webhook.enabled = true);
    let text = config_text(&cluster, &["events.job"], MORE);
    ground.router.stop_instance();
    let mut routers = vec![Process::start(&text), Process::start(&text)];
    let job = replay(&ground, "wh_a", &["--detach", "--rate", "20"]);
    assert_eq!(job["total"], EVENTS, "{job}");
    let id = job["id"].as_str().unwrap().to_owned();
    ground.receiver.wait_for_accepted(40, SOON);
    let taken_up = |router: &Process| router.log().contains("a replay is taken up");
    let owner = routers.iter().position(taken_up).unwrap();
    routers.remove(owner).kill();
    eventually("the replay to finish", SOON * 2, || {
        let job = ground.replays(&["show", &id]);
        (job["state"] == "finished").then_some(())
    });
    eventually("every event to arrive", SOON, || {
        (ground.accepted().len() == EVENTS).then_some(())
    });
    let mut sent: BTreeMap<String, usize> = BTreeMap::new();
    for record in cluster.consume_all(&cluster.name("postrider.dispatch")) {
        let delivery = record.header("postrider-delivery-id").unwrap();
        *sent.entry(delivery.to_owned()).or_default() += 1;
    }
    assert_eq!(sent.len(), EVENTS);
    assert!(sent.values().all(|count| *count <= 2), "{sent:?}");
    let twice = sent.values().filter(|count| **count > 1).count();
    assert!(
        twice <= 21,
        "{twice}: more than a batch of a second at 20/s"
    );
}

#[test]
fn what_is_held_or_a_dead_letter_is_no_missed_event_and_the_plan_says_how_many_there_are() {
    let cluster = Cluster::named("missed-held");
    let ground = Ground::start(&cluster);
    ground
        .router
        .change("wh_a", |webhook| webhook.enabled = false);
    ground.emit("job.failed", 4);
    ground.wait_until_idle();
    ground
        .router
        .change("wh_a", |webhook| webhook.enabled = true);
    ground.emit("job.failed", 3);
    ground.wait_for_letters(3);
    ground.wait_until_idle();
    ground
        .router
        .change("wh_a", |webhook| webhook.paused = true);
    ground.emit("job.failed", 2);
    eventually("two to be held", SOON, || {
        let held = cluster.consume_all(&cluster.name("postrider.held"));
        (held.len() == 2).then_some(())
    });

    let dry = replay(&ground, "wh_a", &["--dry-run"]);
    assert_eq!(
        (&dry["total"], &dry["dead_letters"], &dry["on_their_way"]),
        (&4.into(), &3.into(), &2.into()),
        "{dry}"
    );
    let arguments = missed("wh_a");
    let mut all = vec!["replay", "--dry-run"];
    all.extend(arguments.iter().map(String::as_str));
    let said = ground.run(&all);
    assert!(said.contains("3 more are dead letters"), "{said}");
    assert!(said.contains("2 more are on their way or held"), "{said}");

    ground.mend();
    ground
        .router
        .change("wh_a", |webhook| webhook.paused = false);
    assert_eq!(replay(&ground, "wh_a", &[])["done"], 4);
    ground.receiver.wait_for_accepted(6, SOON);
    assert_eq!(ground.replay(&["--webhook", "wh_a"])["done"], 3);
    ground.receiver.wait_for_accepted(9, SOON);
    ground.wait_until_idle();
    assert_eq!(ground.accepted().len(), 9);
    assert!(ground.accepted().values().all(|count| *count == 1));
}

#[test]
fn a_time_whose_events_are_removed_is_refused_or_the_plan_says_so() {
    let cluster = Cluster::named("missed-gone");
    let ground = Ground::start(&cluster);
    ground.mend();
    ground
        .router
        .change("wh_a", |webhook| webhook.enabled = false);
    ground.emit("job.failed", 20);
    ground.wait_until_idle();
    ground
        .router
        .change("wh_a", |webhook| webhook.enabled = true);
    let source = cluster.name("events.job");
    let arguments = missed("wh_a");
    let mut all = vec!["replay", "--dry-run"];
    all.extend(arguments.iter().map(String::as_str));
    assert!(!stderr(&ground.output(&all)).contains("warning"));

    cluster.delete_records(&source);
    let output = ground.output(&all);
    let said = stderr(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("warning: "), "{said}");
    assert!(said.contains("has lost all records"), "{said}");

    // One in each partition: without keys all may land in one that never lost anything.
    let event = json!({"event_type": "job.failed", "customer": 1}).to_string();
    for partition in cluster.end_offsets(&source).into_keys() {
        let sent = Sent::new(event.clone());
        let partition = Some(partition);
        cluster.produce(&source, &Sent { partition, ..sent });
    }
    let output = ground.output(&all);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains("--since: "), "{said}");
    assert!(said.contains("begin there or later"), "{said}");
    ground.wait_until_idle();
}

#[test]
fn a_replay_that_reads_for_long_what_is_known_says_meanwhile_that_it_is_alive() {
    let cluster = Cluster::named("missed-alive");
    let mut ground = Ground::start(&cluster);
    ground.mend();
    ground.emit("job.done", 10);
    ground.receiver.wait_for_accepted(10, SOON);
    ground.wait_until_idle();
    ground.subscribe("wh_late", "/late");
    let text = config_text(&cluster, &["events.job"], MORE);
    ground.router.stop_instance();
    // Ten records of dispatch and ten of attempts.
    let router = Process::start_with(&text, "missed-reads=sleep(600)");
    let job = replay(&ground, "wh_late", &["--detach"]);
    let id = job["id"].as_str().unwrap().to_owned();
    let mut seen = BTreeSet::new();
    eventually("the replay to finish", SOON * 2, || {
        let job = ground.replays(&["show", &id]);
        if job["done"] == 0 {
            seen.insert(job["updated_at_ms"].to_string());
        }
        (job["state"] == "finished").then_some(())
    });
    // Begun, taken up, and at least twice while it read.
    assert!(seen.len() >= 4, "{seen:?}");
    ground.receiver.wait_for_accepted(20, SOON);
    drop(router);
}

#[test]
fn an_order_for_what_was_missed_says_which_flag_is_wrong() {
    let cluster = Cluster::named("missed-bad");
    let ground = Ground::start(&cluster);
    ground.subscribe("wh_off", "/off");
    ground
        .router
        .change("wh_off", |webhook| webhook.enabled = false);
    let (early, late) = ("2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z");
    let mut seen = BTreeSet::new();
    for (arguments, code, word) in [
        (vec!["--since", early, "--until", late], 2, "--webhook"),
        (vec!["--webhook", "wh_a", "--until", late], 2, "--since"),
        (vec!["--webhook", "wh_a", "--since", early], 2, "--until"),
        (
            vec!["--webhook", "wh_a", "--since", late, "--until", early],
            1,
            "--until: it must be later",
        ),
        (
            vec![
                "--webhook",
                "wh_a",
                "--since",
                "2999-01-01",
                "--until",
                "2999-01-02",
            ],
            1,
            "--since: it is in the future",
        ),
        (
            vec!["--webhook", "wh_none", "--since", early, "--until", late],
            1,
            "--webhook: there is no webhook wh_none",
        ),
        (
            vec!["--webhook", "wh_off", "--since", early, "--until", late],
            1,
            "enable it first",
        ),
        (
            vec![
                "--webhook",
                "wh_a",
                "--since",
                early,
                "--until",
                late,
                "--status",
                "500",
            ],
            2,
            "--status",
        ),
    ] {
        let all = [&["replay", "--yes", "--never-delivered"], &arguments[..]].concat();
        let output = ground.output(&all);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{all:?}: {said}");
        assert!(said.contains(word), "{all:?}: {said}");
        seen.insert(word);
    }
    assert_eq!(seen.len(), 8);
}
