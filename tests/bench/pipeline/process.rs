//! A process under measurement: its processor time, its memory, its end.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The unit of times in /proc: 100 on every Linux that Rust runs on (USER_HZ, proc(5)).
const TICKS_PER_SECOND: f64 = 100.0;
const STOP_LIMIT: Duration = Duration::from_secs(25);

pub struct Process {
    child: Child,
}

impl Process {
    pub fn start(command: &mut Command) -> Self {
        Self {
            child: command.spawn().expect("the process starts"),
        }
    }

    /// User and system time of all its threads, in seconds.
    pub fn processor_seconds(&self) -> f64 {
        let path = format!("/proc/{}/stat", self.child.id());
        let text = std::fs::read_to_string(path).expect("/proc, as on Linux");
        // The name before the last bracket may contain anything; after it come the fields from the third on.
        let (_, fields) = text.rsplit_once(") ").expect("a stat line");
        let mut times = fields.split(' ').skip(11);
        let mut next = || -> f64 {
            let field = times.next().expect("a time");
            field.parse().expect("a number")
        };
        (next() + next()) / TICKS_PER_SECOND
    }

    fn memory(&self, field: &str) -> f64 {
        let path = format!("/proc/{}/status", self.child.id());
        let text = std::fs::read_to_string(path).expect("/proc, as on Linux");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(field))
            .expect("a memory field");
        let kibibytes: f64 = line
            .trim_start_matches(':')
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .expect("a number");
        kibibytes / 1024.0
    }

    /// The most memory it ever had, MiB.
    pub fn peak_mebibytes(&self) -> f64 {
        self.memory("VmHWM")
    }

    /// What it has now, MiB.
    pub fn mebibytes(&self) -> f64 {
        self.memory("VmRSS")
    }

    /// Panics when it has ended by itself, for then there is nothing to wait for.
    pub fn check(&mut self) {
        if let Some(status) = self.child.try_wait().expect("a child") {
            panic!("the process under measurement ended by itself: {status}");
        }
    }
}

impl Process {
    /// SIGKILL: it is gone when this returns.
    pub fn kill(mut self) {
        self.child.kill().expect("a child");
        self.child.wait().expect("a child");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let pid = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"));
        let _ = kill(pid, Signal::SIGTERM);
        let asked = Instant::now();
        while asked.elapsed() < STOP_LIMIT {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
