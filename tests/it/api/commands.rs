//! The command line against the API says what it says straight on Kafka and the database, and no more than its token may see.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::past::{broken, emit, wait_for_total};
use super::{Client, ROOT, start};
use crate::harness::{Cluster, Router, eventually};

const SOON: Duration = Duration::from_secs(30);

/// The real command, with `--api` and a token, or with the router's configuration.
struct Commands {
    file: std::path::PathBuf,
    api: String,
    _folder: tempfile::TempDir,
}

impl Commands {
    fn of(router: &Router<'_>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("postrider.toml");
        std::fs::write(&file, router.config_text()).unwrap();
        Self {
            file,
            api: format!("http://{}", router.app().api().unwrap()),
            _folder: folder,
        }
    }

    fn output(&self, token: Option<&str>, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
        match token {
            Some(token) => command
                .args(["--config", "/nonexistent"])
                .args(arguments)
                .args(["--api", &self.api])
                .env("POSTRIDER_TOKEN", token),
            None => command.arg("--config").arg(&self.file).args(arguments),
        };
        command.stdin(Stdio::null()).output().unwrap()
    }

    fn text(&self, token: Option<&str>, arguments: &[&str]) -> String {
        let output = self.output(token, arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, token: Option<&str>, arguments: &[&str]) -> Value {
        let text = self.text(token, &[arguments, &["--output", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|fault| panic!("{fault}: {text}"))
    }

    fn refusal(&self, token: &str, arguments: &[&str]) -> String {
        let output = self.output(Some(token), arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

#[test]
fn the_same_words_and_tables_by_the_api_and_without_it() {
    let cluster = Cluster::named("api-commands");
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("history.db");
    let more = format!(
        "history.store = \"sqlite:{}\"\noutbound.breaker_failures = 1000\n",
        store.display()
    );
    let mut router = start(&cluster, &more);
    router.leaves_work();
    let (receiver, is_mended) = broken();
    for (id, customer) in [("wh_one", 1), ("wh_two", 2)] {
        let fields = json!({"customer": customer, "max_retries": 0, "event_types": ["job.*"]});
        router.subscribe(id, &receiver.url("/bad"), fields);
    }
    emit(&router, 1, 5);
    emit(&router, 2, 2);
    router.wait_for_dead_letters(7);
    let root = Client::of(&router, ROOT);
    wait_for_total(&root, "/stats/", 7);
    let commands = Commands::of(&router);
    for arguments in [
        &["dead-letters", "list"][..],
        &["dead-letters", "list", "--limit", "3"],
        &["dead-letters", "list", "--webhook", "wh_two", "--all"],
        &["deliveries", "list"],
        &["deliveries", "list", "--limit", "2"],
        &["deliveries", "list", "--status", "failed", "--since", "1h"],
    ] {
        let straight = commands.text(None, arguments);
        assert!(straight.lines().count() > 2, "{arguments:?}: {straight}");
        assert_eq!(
            commands.text(Some(ROOT), arguments),
            straight,
            "{arguments:?}"
        );
        assert_eq!(
            commands.json(Some(ROOT), arguments),
            commands.json(None, arguments)
        );
    }
    let letters = commands.json(Some("prt_one"), &["dead-letters", "list"]);
    assert_eq!(letters["total"], 5);
    let id = letters["results"][0]["delivery_id"].as_str().unwrap();
    let show = ["deliveries", "show", id];
    assert_eq!(commands.text(Some(ROOT), &show), commands.text(None, &show));
    let refused = commands.refusal("prt_two", &show);
    assert!(
        refused.contains("(404)") && refused.lines().count() == 1,
        "{refused}"
    );
    let refused = commands.refusal("prt_wrong", &show);
    assert!(refused.contains("(401)"), "{refused}");

    // Put aside and taken back; one retried; the rest replayed.
    let why = "--reason-text=old";
    let discard = commands.json(Some("prt_two"), &["dead-letters", "discard", "--yes", why]);
    assert_eq!(
        (&discard["total"], &discard["state"]),
        (&json!(2), &json!("finished"))
    );
    let undo = discard["id"].as_str().unwrap();
    let undo = ["dead-letters", "discard", "--undo", undo];
    assert_eq!(commands.json(Some("prt_two"), &undo)["undone"], 2);
    is_mended.store(true, std::sync::atomic::Ordering::Release);
    let retry = ["deliveries", "retry", id];
    let said = commands.text(Some("prt_one-operator"), &retry);
    assert!(said.contains("rp_"), "{said}");
    eventually("the retry", SOON, || {
        let letters = commands.json(Some("prt_one"), &["dead-letters", "list"]);
        (letters["total"] == 4).then_some(())
    });
    let straight = letters["results"][1]["delivery_id"].as_str().unwrap();
    commands.text(None, &["deliveries", "retry", straight]);
    eventually("the other retry", SOON, || {
        let letters = commands.json(Some("prt_one"), &["dead-letters", "list"]);
        (letters["total"] == 3).then_some(())
    });
    let dry = commands.json(Some("prt_one"), &["dead-letters", "replay", "--dry-run"]);
    assert_eq!(dry["total"], 3);
    let replay = commands.json(Some("prt_one"), &["dead-letters", "replay", "--yes"]);
    assert_eq!(
        (&replay["state"], &replay["done"]),
        (&json!("finished"), &json!(3))
    );
    let jobs = commands.json(Some("prt_one"), &["replays", "list"]);
    let last = jobs.as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["id"], replay["id"]);
    let id = replay["id"].as_str().unwrap();
    let table = commands.text(Some("prt_one"), &["replays", "show", id]);
    assert_eq!(table, commands.text(None, &["replays", "show", id]));
    let refused = commands.refusal("prt_one", &["replays", "pause", id]);
    assert!(refused.contains("has finished"), "{refused}");
}
