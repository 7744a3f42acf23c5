//! The program itself, as a process: for what only a process can do, such as to be killed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::eventually;

const PATIENCE: Duration = Duration::from_secs(60);

/// A running `postrider run`; killed when dropped.
pub struct Process {
    child: Child,
    log: Arc<Mutex<Vec<String>>>,
    telemetry: SocketAddr,
    folder: tempfile::TempDir,
}

fn command(config: &str) -> (Command, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("postrider.toml");
    std::fs::write(&path, config).unwrap();
    // Another build of the program can be put to the same tests: `tests/mutants.sh` does.
    let program =
        std::env::var_os("POSTRIDER_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_postrider").into());
    let mut command = Command::new(program);
    command
        .arg("run")
        .arg("--config")
        .arg(path)
        .current_dir(folder.path())
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    (command, folder)
}

/// Runs the program with a configuration that it is expected to refuse.
pub fn run_to_its_end(config: &str) -> Output {
    let (mut command, _folder) = command(config);
    command.output().unwrap()
}

impl Process {
    /// Starts it and waits until it says that it is ready.
    pub fn start(config: &str) -> Self {
        Self::start_with(config, "")
    }

    /// The same with fail points set, as in `FAILPOINTS` (see `src/failpoint.rs`).
    pub fn start_with(config: &str, failpoints: &str) -> Self {
        let mut process = Self::spawn(config, failpoints);
        process.wait_until_ready();
        process
    }

    /// Starts it, and waits for nothing.
    pub fn spawn(config: &str, failpoints: &str) -> Self {
        Self::spawn_in(config, &[("FAILPOINTS", failpoints)])
    }

    /// The same with these variables in its environment.
    pub fn spawn_in(config: &str, variables: &[(&str, &str)]) -> Self {
        let (mut command, folder) = command(config);
        command.envs(variables.iter().copied());
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let lines = log.clone();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                lines.lock().unwrap().push(line);
            }
        });
        Self {
            child,
            log,
            telemetry: SocketAddr::from(([127, 0, 0, 1], 0)),
            folder,
        }
    }

    /// Waits until it says where its health and metrics are.
    pub fn wait_for_address(&mut self) {
        self.telemetry = eventually("the process to tell its address", PATIENCE, || {
            self.assert_alive();
            let log = self.log.lock().unwrap();
            let said = log.iter().find_map(|line| line.split_once("telemetry="))?;
            said.1.split_whitespace().next()?.parse().ok()
        });
    }

    pub fn wait_until_ready(&mut self) {
        self.wait_for_address();
        eventually("the process to be ready", PATIENCE, || {
            self.assert_alive();
            (get(self.telemetry, "/readyz").0 == 200).then_some(())
        });
    }

    /// Waits for the death that a fail point brings.
    pub fn wait_for_death(mut self) {
        let status = eventually("the process to die at its fail point", PATIENCE, || {
            self.child.try_wait().unwrap()
        });
        assert_eq!(
            status.signal(),
            Some(Signal::SIGABRT as i32),
            "it ended in another way: {status}\n{}",
            self.log()
        );
    }

    fn assert_alive(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("postrider ended with {status}:\n{}", self.log());
        }
    }

    /// Where its health and metrics are.
    pub fn telemetry(&self) -> SocketAddr {
        self.telemetry
    }

    /// What it wrote to stderr so far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Writes another configuration in the place of its own, and has it read it.
    pub fn reload(&self, config: &str) {
        std::fs::write(self.folder.path().join("postrider.toml"), config).unwrap();
        self.signal(Signal::SIGHUP);
    }

    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).unwrap();
        kill(Pid::from_raw(id), signal).unwrap();
    }

    /// SIGKILL: it is gone when this returns.
    pub fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "it had ended before: {status}");
    }

    /// SIGTERM: how it ended, and after how long.
    pub fn terminate(mut self) -> (ExitStatus, Duration) {
        let asked = Instant::now();
        self.signal(Signal::SIGTERM);
        let status = eventually("the process to end", PATIENCE, || {
            self.child.try_wait().unwrap()
        });
        (status, asked.elapsed())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the process said:\n{}", self.log());
        }
    }
}

/// A GET by hand: status and body; 0 and the fault where there was no answer.
pub fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let exchange = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(
            format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes(),
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    match exchange() {
        Err(fault) => (0, fault.to_string()),
        Ok(answer) => {
            let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
            let status = head
                .split(' ')
                .nth(1)
                .and_then(|status| status.parse().ok());
            (status.unwrap_or(0), body.to_owned())
        }
    }
}
