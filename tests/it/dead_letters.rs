//! What died can be seen, sent in again exactly once, or put aside: by the real command, on the topic itself.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::{Cluster, Receiver, Reply, Router, Sent, config_text, eventually};

const SOON: Duration = Duration::from_secs(30);

/// A router whose webhooks' receiver can be mended, and the command beside it.
struct Ground<'a> {
    router: Router<'a>,
    receiver: Receiver,
    is_mended: Arc<AtomicBool>,
    folder: tempfile::TempDir,
}

impl<'a> Ground<'a> {
    /// `/a` answers 500 and `/b` 400 until it is mended.
    fn start(cluster: &'a Cluster) -> Self {
        let is_mended = Arc::new(AtomicBool::new(false));
        let mended = Arc::clone(&is_mended);
        let receiver = Receiver::start(move |request| {
            if mended.load(Ordering::Acquire) {
                Reply::ok()
            } else if request.path == "/b" {
                Reply::status(400).body("no")
            } else {
                Reply::status(500)
            }
        });
        let mut router = Router::start(cluster, &["events.job"], "");
        // A delivery that is replayed ends twice.
        router.leaves_work();
        let folder = tempfile::tempdir().unwrap();
        let text = config_text(cluster, &["events.job"], "");
        std::fs::write(folder.path().join("postrider.toml"), text).unwrap();
        let ground = Self {
            router,
            receiver,
            is_mended,
            folder,
        };
        ground.subscribe("wh_a", "/a");
        ground
    }

    fn subscribe(&self, id: &str, path: &str) {
        // The breaker must not come between: these tests want many failures.
        self.router.subscribe(
            id,
            &self.receiver.url(path),
            json!({"max_retries": 0, "event_types": ["job.*"]}),
        );
    }

    fn mend(&self) {
        self.is_mended.store(true, Ordering::Release);
    }

    fn emit(&self, event_type: &str, count: usize) {
        let topic = self.router.cluster.name("events.job");
        let all: Vec<Sent> = (0..count)
            .map(|n| {
                Sent::new(json!({"event_type": event_type, "customer": 1, "n": n}).to_string())
            })
            .collect();
        self.router.cluster.produce_all(&topic, &all);
    }

    fn wait_for_letters(&self, count: usize) {
        eventually("the dead letters", SOON, || {
            (self.router.dead_letters().len() == count).then_some(())
        });
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
        command
            .arg("--config")
            .arg(self.folder.path().join("postrider.toml"))
            .arg("dead-letters")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Stdout of a command that works.
    fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            stderr(&output)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.run(&[arguments, &["--output", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|fault| panic!("{fault}: {text}"))
    }

    fn list(&self, more: &[&str]) -> Value {
        self.json(&[&["list"], more].concat())
    }

    fn replay(&self, more: &[&str]) -> Value {
        self.json(&[&["replay", "--yes"], more].concat())
    }

    /// How often each delivery was accepted.
    fn accepted(&self) -> BTreeMap<String, usize> {
        let mut accepted = BTreeMap::new();
        for request in self.receiver.accepted() {
            *accepted
                .entry(request.id().unwrap().to_owned())
                .or_default() += 1;
        }
        accepted
    }

    /// Everything in `dispatch` has been attempted.
    fn wait_until_idle(&self) {
        self.router.wait_until_idle();
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn ids(list: &Value) -> BTreeSet<String> {
    let results = list["results"].as_array().unwrap().iter();
    results
        .map(|line| line["delivery_id"].as_str().unwrap().to_owned())
        .collect()
}

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

/// Ctrl-C, as a terminal sends it.
fn interrupt(child: Child) -> Output {
    kill(
        Pid::from_raw(child.id().try_into().unwrap()),
        Signal::SIGINT,
    )
    .unwrap();
    child.wait_with_output().unwrap()
}
