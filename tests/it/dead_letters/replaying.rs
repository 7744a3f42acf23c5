//! A replay sends each letter once, however often it is asked for, stopped or killed.

use std::collections::BTreeSet;
use std::process::{Child, Output};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::{Ground, SOON, ids, stderr};
use crate::harness::{Cluster, Sent, eventually};

#[test]
fn a_dead_letter_is_replayed_once_with_the_id_that_it_had() {
    let cluster = Cluster::named("replay-once");
    let ground = Ground::start(&cluster);
    ground.emit("job.failed", 5);
    ground.wait_for_letters(5);

    let listed = ground.list(&[]);
    assert_eq!(listed["total"], 5);
    assert_eq!(listed["by_reason"], json!({"exhausted": 5}));
    let line = &listed["results"][0];
    assert_eq!(line["webhook_id"], "wh_a");
    assert_eq!(line["event_type"], "job.failed");
    assert_eq!(
        (&line["attempts"], &line["last_status"]),
        (&json!(1), &json!(500))
    );
    assert_eq!(
        (&line["replays"], &line["fate"]),
        (&json!(0), &json!("waiting"))
    );
    let table = ground.run(&["list"]);
    assert!(table.contains("5 dead letters: exhausted 5"), "{table}");

    ground.mend();
    let counted = ground.json(&["replay", "--dry-run"]);
    assert_eq!(
        (&counted["total"], &counted["by_reason"]["exhausted"]),
        (&json!(5), &json!(5))
    );
    assert_eq!(ground.list(&[])["total"], 5, "a dry run changes nothing");
    assert_eq!(ground.accepted().len(), 0);

    let done = ground.replay(&[]);
    assert_eq!(
        (&done["state"], &done["done"]),
        (&json!("finished"), &json!(5))
    );
    ground.receiver.wait_for_accepted(5, SOON);
    ground.wait_until_idle();
    let accepted = ground.accepted();
    assert_eq!(
        accepted.keys().cloned().collect::<BTreeSet<_>>(),
        ids(&listed)
    );
    assert!(accepted.values().all(|count| *count == 1), "{accepted:?}");
    let first = &ground.receiver.accepted()[0];
    assert_eq!(first.header("x-webhook-attempt"), Some("1"));
    assert_eq!(ground.router.metric("postrider_replayed_total"), 5.0);

    let second = ground.replay(&[]);
    assert_eq!(
        (&second["total"], &second["done_before"]),
        (&json!(0), &json!(5))
    );
    ground.wait_until_idle();
    assert!(ground.accepted().values().all(|count| *count == 1));
    assert_eq!(ground.list(&[])["total"], 0);
    let all = ground.list(&["--all"]);
    assert_eq!(
        (&all["total"], &all["results"][0]["fate"]),
        (&json!(5), &json!("replayed"))
    );
    assert_eq!(all["results"][0]["job"], done["id"]);

    assert_eq!(ground.replay(&["--again", "--limit", "2"])["done"], 2);
    ground.receiver.wait_for_accepted(7, SOON);
    ground.wait_until_idle();
    assert_eq!(ground.accepted().values().sum::<usize>(), 7);
}

#[test]
fn a_letter_that_dies_again_waits_again_and_counts_its_replays() {
    let cluster = Cluster::named("replay-loop");
    let ground = Ground::start(&cluster);
    ground.emit("job.failed", 1);
    ground.wait_for_letters(1);
    ground.replay(&[]);
    ground.wait_for_letters(2);
    let listed = ground.list(&[]);
    assert_eq!(
        (&listed["total"], &listed["results"][0]["replays"]),
        (&json!(1), &json!(1))
    );
    ground.replay(&[]);
    ground.wait_for_letters(3);
    let listed = ground.list(&[]);
    assert_eq!(
        (&listed["total"], &listed["results"][0]["replays"]),
        (&json!(1), &json!(2))
    );

    let id = listed["results"][0]["delivery_id"].as_str().unwrap();
    let shown = ground.json(&["show", id]);
    assert_eq!(shown["place"], listed["results"][0]["place"]);
    assert_eq!(shown["died_before"].as_array().unwrap().len(), 2);
    assert_eq!(shown["headers"]["postrider-replay-count"], "2");
    ground.wait_until_idle();
}

#[test]
fn a_letter_that_went_round_too_often_stays_with_a_note_that_says_so() {
    let cluster = Cluster::named("replay-note");
    let ground = Ground::start(&cluster);
    ground.emit("job.failed", 1);
    ground.wait_for_letters(1);
    assert_eq!(ground.list(&[])["results"][0]["note"], Value::Null);
    // The same after four more rounds.
    let letter = ground.router.dead_letters().remove(0);
    let mut again = Sent::new(letter.payload.clone().unwrap()).key("wh_a");
    for (name, value) in &letter.headers {
        again = again.header(name, value.clone().unwrap_or_default());
    }
    let again = again.header("postrider-replay-count", "5");
    cluster.produce(&cluster.name("postrider.dead-letters"), &again);
    ground.wait_for_letters(2);
    let counts = ground.json(&["replay", "--dry-run"]);
    assert_eq!(
        (&counts["total"], &counts["replayed_too_often"]),
        (&json!(1), &json!(1)),
        "{counts}"
    );
    let note = "replayed 5 times, and died each time";
    let listed = ground.list(&[]);
    let lines = listed["results"].as_array().unwrap();
    let line = lines.iter().find(|line| line["replays"] == 5).unwrap();
    assert!(line["note"].as_str().unwrap().contains(note), "{line}");
    let shown = ground.run(&["show", line["place"].as_str().unwrap()]);
    assert!(shown.contains(note), "{shown}");
    let counts = ground.json(&["replay", "--dry-run", "--max-replays", "6"]);
    assert_eq!(counts["total"], 2, "{counts}");
}

#[test]
fn a_stopped_replay_is_resumed_and_sends_no_letter_twice() {
    let cluster = Cluster::named("replay-stop");
    let ground = Ground::start(&cluster);
    ground.subscribe("wh_b", "/b");
    ground.emit("job.failed", 30);
    ground.wait_for_letters(60);
    ground.mend();

    let child = ground
        .command(&["replay", "--yes", "--rate", "20"])
        .spawn()
        .unwrap();
    ground.receiver.wait_for_accepted(10, SOON);
    let busy = ground.output(&["replay", "--yes"]);
    assert_eq!(busy.status.code(), Some(1));
    assert!(
        stderr(&busy).contains("is at work on the same dead letters"),
        "{}",
        stderr(&busy)
    );
    let output = interrupt(child);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    let id = said
        .split("--resume ")
        .nth(1)
        .unwrap()
        .split('`')
        .next()
        .unwrap();
    ground.wait_until_idle();
    let sent = ground.accepted().len();
    assert!(
        (10..60).contains(&sent),
        "{sent} of 60 were sent before the stop"
    );
    assert_eq!(ground.list(&[])["total"], 60 - sent);

    assert_eq!(
        ground.replay(&["--webhook", "wh_a", "--limit", "3"])["done"],
        3
    );
    let resumed = ground.json(&["replay", "--resume", id, "--rate", "1000"]);
    assert_eq!(
        (&resumed["state"], &resumed["done"]),
        (&json!("finished"), &json!(57))
    );
    ground.receiver.wait_for_accepted(60, SOON);
    ground.wait_until_idle();
    let accepted = ground.accepted();
    assert_eq!(accepted.len(), 60);
    assert!(accepted.values().all(|count| *count == 1), "{accepted:?}");
    assert_eq!(ground.list(&[])["total"], 0);

    let again = ground.output(&["replay", "--resume", id]);
    assert!(stderr(&again).contains("is finished"), "{}", stderr(&again));
}

#[test]
fn of_two_resumes_at_once_not_both_run() {
    let cluster = Cluster::named("replay-twice");
    let ground = Ground::start(&cluster);
    ground.emit("job.failed", 40);
    ground.wait_for_letters(40);
    ground.mend();
    let child = ground
        .command(&["replay", "--yes", "--rate", "10"])
        .spawn()
        .unwrap();
    ground.receiver.wait_for_accepted(5, SOON);
    let said = stderr(&interrupt(child));
    let id = said.split_whitespace().find(|word| word.starts_with("rp_"));
    let resume = ["replay", "--resume", id.unwrap(), "--rate", "10"];
    let both = [0, 1].map(|_| ground.command(&resume).spawn().unwrap());
    let both = both.map(|child| child.wait_with_output().unwrap());
    let won = both.iter().filter(|output| output.status.success()).count();
    assert!(won <= 1, "both ran");
    for output in both.iter().filter(|output| !output.status.success()) {
        assert!(stderr(output).contains("is at work"), "{}", stderr(output));
    }
    if won == 0 {
        // Each has seen the other's claim; then it is as after a kill.
        eventually("the job to be resumed", SOON * 2, || {
            std::thread::sleep(Duration::from_secs(2));
            let output = ground.output(&resume);
            output.status.success().then_some(())
        });
    }
    ground.receiver.wait_for_accepted(40, SOON);
    ground.wait_until_idle();
    assert!(ground.accepted().values().all(|count| *count == 1));
    assert_eq!(ground.list(&[])["total"], 0);
}

#[test]
fn a_killed_replay_is_resumed_and_sends_each_letter_once() {
    let cluster = Cluster::named("replay-kill");
    let ground = Ground::start(&cluster);
    ground.emit("job.failed", 60);
    ground.wait_for_letters(60);
    ground.mend();

    let mut child = ground
        .command(&["replay", "--yes", "--rate", "20"])
        .spawn()
        .unwrap();
    ground.receiver.wait_for_accepted(30, SOON);
    child.kill().unwrap();
    let said = stderr(&child.wait_with_output().unwrap());
    let id = said
        .split_whitespace()
        .find(|word| word.starts_with("rp_"))
        .unwrap();
    // Nobody can tell a killed job from a slow one at once.
    let early = ground.output(&["replay", "--resume", id]);
    assert!(stderr(&early).contains("is at work"), "{}", stderr(&early));
    eventually("the killed job to count as dead", SOON * 2, || {
        std::thread::sleep(Duration::from_secs(2));
        let output = ground.output(&["replay", "--resume", id]);
        output.status.success().then_some(())
    });
    eventually("60 deliveries", SOON, || {
        (ground.accepted().len() == 60).then_some(())
    });
    ground.wait_until_idle();
    assert!(ground.accepted().values().all(|count| *count == 1));
    assert_eq!(ground.list(&[])["total"], 0);
}

#[test]
fn a_rate_is_kept() {
    let cluster = Cluster::named("replay-rate");
    let ground = Ground::start(&cluster);
    ground.emit("job.failed", 30);
    ground.wait_for_letters(30);
    ground.mend();
    let began = Instant::now();
    assert_eq!(ground.replay(&["--rate", "10"])["done"], 30);
    assert!(
        began.elapsed() >= Duration::from_millis(2900),
        "{:?}",
        began.elapsed()
    );
    ground.receiver.wait_for_accepted(30, SOON);
    ground.wait_until_idle();
}

/// Ctrl-C, as a terminal sends it.
fn interrupt(child: Child) -> Output {
    kill(
        Pid::from_raw(child.id().try_into().unwrap()),
        Signal::SIGINT,
    )
    .unwrap();
    child.wait_with_output().unwrap()
}
