//! The commands but `run`: the real binary, as it is typed.

mod check;
mod emit;
mod explain;
mod listen;
mod machine;
mod sign;
mod subscriptions;
mod topics;

use std::io::Write;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

struct Output {
    code: i32,
    stdout: String,
    stderr: String,
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
    command
        .args(arguments)
        .env_remove("POSTRIDER_CONFIG")
        .env_remove("POSTRIDER_WEBHOOK_SECRET")
        // No configuration file of this repository is picked up by accident.
        .current_dir(std::env::temp_dir())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn finish(mut child: Child, stdin: &[u8]) -> Output {
    // A command that ends without reading leaves a broken pipe, which is no fault of the test.
    let _ = child.stdin.take().unwrap().write_all(stdin);
    let output = child.wait_with_output().unwrap();
    Output {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn run(arguments: &[&str], stdin: &[u8]) -> Output {
    finish(command(arguments).spawn().unwrap(), stdin)
}

fn header<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().trim_start_matches(':').trim()
}

/// A folder with a configuration for this test's corner of the broker.
struct Setting {
    folder: tempfile::TempDir,
}

impl Setting {
    fn of(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("postrider.toml"), text).unwrap();
        Self { folder }
    }

    fn file(&self, name: &str, contents: &[u8]) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, contents).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let config = self.folder.path().join("postrider.toml");
        run(
            &[&["--config", config.to_str().unwrap()], arguments].concat(),
            b"",
        )
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--output", "json"]].concat());
        assert_eq!(output.code, 0, "{}", output.stderr);
        serde_json::from_str(&output.stdout).unwrap()
    }
}
