//! What died can be seen, sent in again exactly once, or put aside: by the real command, on the topic itself.

mod choosing;
mod fleet;
mod foreign;
mod missed;
mod replaying;

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Cluster, Receiver, Reply, Router, Sent, config_text, eventually};

const SOON: Duration = Duration::from_secs(30);
/// These tests want many failures at once; the breaker would let them wait instead.
const MORE: &str = "outbound.breaker_failures = 1000";

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
        let mut router = Router::start(cluster, &["events.job"], MORE);
        // A delivery that is replayed ends twice.
        router.leaves_work();
        let folder = tempfile::tempdir().unwrap();
        let text = config_text(cluster, &["events.job"], MORE);
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
        self.command_of("dead-letters", arguments)
    }

    /// What `postrider replays` answers.
    fn replays(&self, arguments: &[&str]) -> Value {
        let all = [arguments, &["--output", "json"]].concat();
        let output = self.command_of("replays", &all).output().unwrap();
        assert!(output.status.success(), "{all:?}: {}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// What `postrider replays` says where it refuses.
    fn fails(&self, arguments: &[&str]) -> String {
        let output = self.command_of("replays", arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        stderr(&output)
    }

    fn command_of(&self, word: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
        command
            .arg("--config")
            .arg(self.folder.path().join("postrider.toml"))
            .arg(word)
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
