//! The README's tour works as shown: every command runs, and says what the page says it says.
//!
//! Promise kept: what a newcomer is told to type does what the page shows. One bash, a broker of its own, the built program.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::harness::{Cluster, OwnBroker};

/// How long one command of the tour may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the shell says when a command has ended, before its exit code.
const ENDED: &str = "\u{1}ended ";

/// One command of a page, and what it says there.
#[derive(Debug, PartialEq)]
struct Step {
    /// Line of the page, from 1.
    line: usize,
    command: String,
    output: Vec<String>,
}

/// The commands of a section's `console` blocks: `$ ` begins one, `> ` goes on with it, everything else is output.
fn steps(page: &str, section: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let (mut here, mut block, mut typed) = (false, false, false);
    for (number, text) in page.lines().enumerate() {
        match text {
            "```console" => block = here,
            "```" => block = false,
            _ if text.starts_with("## ") => here = text == section,
            _ if !block => {}
            _ => {
                if let Some(command) = text.strip_prefix("$ ") {
                    typed = true;
                    steps.push(Step {
                        line: number + 1,
                        command: command.to_owned(),
                        output: Vec::new(),
                    });
                    continue;
                }
                let step = steps.last_mut().expect("a block begins with a command");
                match text.strip_prefix("> ") {
                    Some(more) if typed => {
                        step.command.push('\n');
                        step.command.push_str(more);
                    }
                    _ => {
                        typed = false;
                        step.output.push(text.to_owned());
                    }
                }
            }
        }
    }
    steps
}

/// Whether an output is the one shown, in which a line `…` stands for any lines. Blanks at the end of a line, which tables
/// have, do not count.
fn are_as_shown(shown: &[String], said: &[String]) -> bool {
    match (shown, said) {
        ([], rest) => rest.is_empty(),
        ([any, more @ ..], rest) if any == "…" => {
            (0..=rest.len()).any(|skipped| are_as_shown(more, &rest[skipped..]))
        }
        (_, []) => false,
        ([first, shown @ ..], [line, said @ ..]) => {
            is_as_shown(first.trim_end(), line.trim_end()) && are_as_shown(shown, said)
        }
    }
}

/// Whether a line is the one shown, in which `…` stands for anything.
fn is_as_shown(shown: &str, said: &str) -> bool {
    let mut parts = shown.split('…');
    let Some(mut left) = said.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let mut rest: Vec<&str> = parts.collect();
    let Some(last) = rest.pop() else {
        return left.is_empty();
    };
    for part in rest {
        let Some(place) = left.find(part) else {
            return false;
        };
        left = &left[place + part.len()..];
    }
    left.ends_with(last)
}

/// Bash in a folder of its own, in a process group of its own, which is killed with it.
struct Shell {
    bash: Child,
    lines: Receiver<String>,
    folder: tempfile::TempDir,
}

impl Shell {
    fn start(telemetry: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_postrider"));
        let path = format!(
            "{}:{}",
            program.parent().unwrap().display(),
            std::env::var("PATH").unwrap()
        );
        let mut bash = Command::new("bash")
            .args(["--noprofile", "--norc"])
            .current_dir(folder.path())
            .env("PATH", path)
            .env("POSTRIDER__WEB__LISTEN", "")
            .env("POSTRIDER__WEB__TELEMETRY_LISTEN", telemetry)
            .env_remove("RUST_LOG")
            .env_remove("POSTRIDER_CONFIG")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(bash.stdout.take().unwrap());
        let (tell, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    return;
                }
            }
        });
        Self {
            bash,
            lines,
            folder,
        }
    }

    /// Runs a command in this shell; its exit code and what it said, on both streams.
    fn run(&mut self, command: &str) -> (String, Vec<String>) {
        // From a file, so that the command cannot read what the shell is told next.
        let file = self.folder.path().join(".step");
        std::fs::write(&file, format!("{command}\n")).unwrap();
        let input = self.bash.stdin.as_mut().unwrap();
        writeln!(
            input,
            "source ./.step </dev/null 2>&1; printf '\\001ended %s\\n' $?"
        )
        .unwrap();
        let mut said = Vec::new();
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| {
                panic!("does not end within {PATIENCE:?}: {command}\n{said:#?}")
            });
            match line.strip_prefix(ENDED) {
                Some(code) => return (code.to_owned(), said),
                None => said.push(line),
            }
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let group = Pid::from_raw(i32::try_from(self.bash.id()).unwrap());
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.bash.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn every_command_of_the_tour_says_what_the_readme_shows() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let broker = OwnBroker::start();
    let cluster = Cluster::at(broker.bootstrap(), "tour");
    let topic = cluster.create_topic("events.job", 4, &[]);
    // Other tests and other people use the page's ports.
    let telemetry = format!("127.0.0.1:{}", free_port());
    let here = page
        .replace("localhost:9092", broker.bootstrap())
        .replace("events.job", &topic)
        .replace("127.0.0.1:9000", &format!("127.0.0.1:{}", free_port()))
        .replace("127.0.0.1:8081", &telemetry);

    let steps = steps(&here, "## Five-minute tour");
    assert!(steps.len() >= 10, "{steps:#?}");
    let mut shell = Shell::start(&telemetry);
    for step in &steps {
        let (code, said) = shell.run(&step.command);
        let as_shown = are_as_shown(&step.output, &said);
        let log = std::fs::read_to_string(shell.folder.path().join("router.log"));
        assert!(
            code == "0" && as_shown,
            "README.md:{}: {}\nexit code {code}, says\n{}\nand not as shown\n{}\nthe router's log:\n{}",
            step.line,
            step.command,
            said.join("\n"),
            step.output.join("\n"),
            log.unwrap_or_default(),
        );
    }
}

#[test]
fn a_console_block_is_commands_with_their_continued_lines_and_their_output() {
    let page = "## A\n```console\n$ no\n```\n## B\n```console\n$ cat <<END\n> a\n> END\na\n> b\n$ true\n```\n```\n$ no\n```\n## C\n";
    let step = |line, command: &str, output: &[&str]| Step {
        line,
        command: command.to_owned(),
        output: output.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(
        steps(page, "## B"),
        [
            step(7, "cat <<END\na\nEND", &["a", "> b"]),
            step(12, "true", &[])
        ]
    );
}

#[test]
fn an_output_that_differs_from_what_is_shown_is_seen() {
    for (shown, said) in [
        ("a…c", "abc"),
        ("a…", "a"),
        ("…", ""),
        ("a…b…c", "a1b2c"),
        ("a", "a"),
    ] {
        assert!(is_as_shown(shown, said), "{shown} {said}");
    }
    for (shown, said) in [
        ("a…c", "abd"),
        ("a", "ab"),
        ("ab", "a"),
        ("a…b…c", "ac"),
        ("a…a", "a"),
    ] {
        assert!(!is_as_shown(shown, said), "{shown} {said}");
    }
}
