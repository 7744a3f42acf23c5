//! The demo shows the main job with nothing installed, and judges itself by what its receivers got.
//!
//! The real binary; the broker is inside it, so these tests need none of their own.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use postrider::kafka::producer::Producer;
use postrider::kafka::settings::Connection;
use postrider::metrics::Metrics;
use postrider::record::Outgoing;

/// From the start to the first delivery; a busy machine gets more than the few seconds that it takes.
const SOON: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(60);

struct Demo {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
    stderr: ChildStderr,
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_postrider"))
            .arg("demo")
            .args(arguments)
            .env_remove("RUST_LOG")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        Self {
            child,
            lines,
            seen: Vec::new(),
            stderr,
        }
    }

    /// Reads on until a line says so, and returns it.
    fn wait_for(&mut self, what: &str, limit: Duration, is_it: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("not within {limit:?}: {what}\n{}", self.seen.join("\n"));
            };
            self.seen.push(line.clone());
            if is_it(&line) {
                return line;
            }
        }
    }

    fn interrupt(&self) {
        let id = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(id, Signal::SIGINT).unwrap();
    }

    /// Waits for its end; its exit code and everything that it said. Nothing is wrong, so nothing is said on stderr.
    fn end(self) -> (Option<i32>, String) {
        let (code, said, errors) = self.end_with_errors();
        assert_eq!(errors, "", "{said}");
        (code, said)
    }

    fn end_with_errors(mut self) -> (Option<i32>, String, String) {
        let deadline = Instant::now() + PATIENCE;
        while let Ok(line) = self
            .lines
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            self.seen.push(line);
        }
        assert!(
            Instant::now() < deadline,
            "it does not end:\n{}",
            self.seen.join("\n")
        );
        let code = self.child.wait().unwrap().code();
        let mut errors = String::new();
        self.stderr.read_to_string(&mut errors).unwrap();
        (code, self.seen.join("\n"), errors)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines_of(stdout: ChildStdout) -> Receiver<String> {
    let (tell, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if tell.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// The column "all" of the summary, by row.
fn summary(said: &str) -> HashMap<&str, usize> {
    let table = said.lines().skip_while(|line| !line.contains(" all "));
    let figures: HashMap<&str, usize> = table
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?, words.next()?.parse().ok()?))
        })
        .collect();
    assert!(figures.len() >= 7, "{said}");
    figures
}

#[test]
fn the_demo_delivers_retries_buries_and_replays_and_loses_nothing() {
    let mut demo = Demo::start(&["--seconds", "12"]);
    demo.wait_for("the first delivery", SOON, |line| {
        line.contains("✓ wh_good")
    });
    let (code, said) = demo.end();

    assert_eq!(code, Some(0), "{said}");
    let figures = summary(&said);
    assert!(figures["produced"] >= 20, "{said}");
    assert!(figures["wanted"] > figures["produced"], "{said}");
    assert_eq!(figures["delivered"], figures["wanted"], "{said}");
    assert!(figures["retried"] > 0, "{said}");
    assert!(figures["dead-lettered"] > 0, "{said}");
    assert_eq!(figures["replayed"], figures["dead-lettered"], "{said}");
    assert_eq!(figures["lost"], 0, "{said}");
    for rare in ["waiting", "repeated", "others"] {
        assert_eq!(figures.get(rare), None, "{said}");
    }
    for webhook in [
        "wh_good",
        "wh_slow",
        "wh_failing",
        "wh_impatient",
        "wh_limited",
    ] {
        let made = said.matches(&format!("✓ {webhook} ")).count();
        assert!(made > 0, "{webhook} got nothing\n{said}");
    }
    for sign in ["↻ wh_failing", "✗ wh_impatient", "↺ ", ", replayed"] {
        assert!(said.contains(sign), "{sign}\n{said}");
    }
    assert!(!said.contains('\x1b'), "colours are for terminals");
}

#[test]
fn the_demo_ends_on_ctrl_c_with_everything_delivered() {
    let mut demo = Demo::start(&[]);
    // In the middle of the failure: what is retried and what is dead must end too.
    demo.wait_for("a dead letter", SOON, |line| {
        line.contains("✗ wh_impatient")
    });
    demo.interrupt();
    let (code, said) = demo.end();
    assert_eq!(code, Some(0), "{said}");
    let figures = summary(&said);
    assert_eq!(figures["delivered"], figures["wanted"], "{said}");
    assert_eq!(figures["replayed"], figures["dead-lettered"], "{said}");
    assert_eq!(figures["lost"], 0, "{said}");
}

#[test]
fn a_second_ctrl_c_ends_the_demo_at_once_and_what_waits_is_found_in_the_topics() {
    let mut demo = Demo::start(&[]);
    demo.wait_for("a third attempt", SOON, |line| {
        line.contains("↻ wh_failing") && line.contains("attempt 3")
    });
    demo.interrupt();
    demo.wait_for("the end of producing", SOON, |line| {
        line.contains("no more events")
    });
    demo.interrupt();
    let (code, said) = demo.end();
    assert_eq!(code, Some(0), "{said}");
    let figures = summary(&said);
    assert!(figures["waiting"] > 0, "{said}");
    // What had died by then stays where it is, unless it was on its way again.
    let dead = figures["dead-lettered"] - figures["replayed"];
    assert_eq!(
        figures["delivered"] + figures["waiting"] + dead,
        figures["wanted"],
        "{said}"
    );
    assert_eq!(figures["lost"], 0, "{said}");
}

#[test]
fn events_of_whoever_takes_part_are_delivered_and_counted() {
    let mut demo = Demo::start(&["--seconds", "5"]);
    let export = demo.wait_for("the address", SOON, |line| line.contains("BOOTSTRAP"));
    let (_, address) = export.split_once('=').unwrap();
    let connection = Connection {
        bootstrap_servers: address.to_owned(),
        client_id: "guest".to_owned(),
        ..Connection::default()
    };
    let metrics = Arc::new(Metrics::new().unwrap());
    let producer = Producer::start(&connection.producer(), metrics).unwrap();
    let put = |value: &'static str| {
        let record = Outgoing {
            topic: "events.job".into(),
            key: None,
            payload: Some(value.into()),
            headers: Vec::new(),
        };
        producer.write(&record, SOON).unwrap();
    };
    put(r#"{"event_type":"job.of_a_guest","customer":9}"#);
    put("no event");
    demo.wait_for("the guest's event", SOON, |line| {
        line.contains("✓ wh_good") && line.contains("job.of_a_guest")
    });
    drop(producer);
    let (code, said, errors) = demo.end_with_errors();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("dead letter: undecodable"), "{said}");
    assert!(errors.contains("a record is no event"), "{errors}");
    assert_eq!(summary(&said)["lost"], 0, "{said}");
}

#[test]
fn a_time_that_is_none_is_wrong_usage() {
    for seconds in ["0", "-1", "x", "86401"] {
        let end = Command::new(env!("CARGO_BIN_EXE_postrider"))
            .args(["demo", "--seconds", seconds])
            .output()
            .unwrap();
        assert_eq!(end.status.code(), Some(2), "{seconds}");
    }
}
