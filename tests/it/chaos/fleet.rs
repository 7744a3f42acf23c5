//! The routers of a run: the real binary as child processes, with a wall clock and an address of their own (`clock.c`).

use std::fs::File;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::receivers::address_of;

/// A router's process.
pub struct Instance {
    pub number: u8,
    child: Child,
    pub frozen: bool,
    /// SIGTERM was sent; it may end.
    leaving: Option<Instant>,
}

/// All of them; killed when dropped.
pub struct Fleet {
    binary: PathBuf,
    folder: PathBuf,
    shim: PathBuf,
    clock: File,
    instances: Vec<Instance>,
    started: u32,
    /// What ended that nobody had asked to end.
    pub ended_by_themselves: Vec<String>,
    /// SIGTERM was not obeyed in time.
    pub did_not_leave: u32,
}

/// How long a router may take to leave before it is killed; more than the program allows itself.
const LEAVES_WITHIN: Duration = Duration::from_secs(40);

impl Fleet {
    /// `folder` gets the configuration and the logs.
    pub fn new(config: &str, folder: &Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("postrider.toml"), config).unwrap();
        let shim = folder.join("clock.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/chaos/clock.c");
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O2", "-o"])
            .arg(&shim)
            .args([source, "-ldl", "-lpthread"])
            .output()
            .unwrap();
        assert!(
            compiled.status.success(),
            "clock.c: {}",
            String::from_utf8_lossy(&compiled.stderr)
        );
        let clock = folder.join("clock");
        std::fs::write(&clock, 0_i64.to_ne_bytes()).unwrap();
        let binary = std::env::var_os("POSTRIDER_BIN")
            .map_or_else(|| env!("CARGO_BIN_EXE_postrider").into(), PathBuf::from);
        Self {
            binary: std::path::absolute(binary).unwrap(),
            folder: folder.to_owned(),
            shim,
            clock: File::options().write(true).open(clock).unwrap(),
            instances: Vec::new(),
            started: 0,
            ended_by_themselves: Vec::new(),
            did_not_leave: 0,
        }
    }

    /// Starts one more; must be called on the thread that lives as long as the fleet. The answer is its number.
    pub fn add(&mut self) -> u8 {
        self.started += 1;
        let number = ((self.started - 1) % 250 + 1) as u8;
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join(format!("router-{}.log", self.started)))
            .unwrap();
        let child = Command::new(&self.binary)
            .arg("run")
            .arg("--config")
            .arg(self.folder.join("postrider.toml"))
            .current_dir(&self.folder)
            .env_remove("RUST_LOG")
            .env("LD_PRELOAD", &self.shim)
            .env("POSTRIDER_CHAOS_CLOCK", self.folder.join("clock"))
            .env("POSTRIDER_CHAOS_ADDRESS", address_of(number))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.instances.push(Instance {
            number,
            child,
            frozen: false,
            leaving: None,
        });
        number
    }

    /// The wall clock of all routers, present and future.
    pub fn set_clock(&mut self, offset: i64) {
        self.clock.rewind().unwrap();
        self.clock
            .write_all(&(offset * 3_600_000_000_000).to_ne_bytes())
            .unwrap();
    }

    /// Those that are neither frozen nor leaving.
    pub fn working(&self) -> usize {
        self.instances
            .iter()
            .filter(|instance| !instance.frozen && instance.leaving.is_none())
            .count()
    }

    /// Those that will be there when all is good again.
    pub fn staying(&self) -> usize {
        self.instances
            .iter()
            .filter(|instance| instance.leaving.is_none())
            .count()
    }

    fn pick(&mut self, chance: u64) -> Option<&mut Instance> {
        let mut able: Vec<&mut Instance> = self
            .instances
            .iter_mut()
            .filter(|instance| !instance.frozen && instance.leaving.is_none())
            .collect();
        let index = chance as usize % able.len().max(1);
        (index < able.len()).then(|| able.swap_remove(index))
    }

    /// SIGKILL.
    pub fn kill(&mut self, chance: u64) -> Option<u8> {
        let number = self.pick(chance)?.number;
        let index = self
            .instances
            .iter()
            .position(|instance| instance.number == number)?;
        let mut instance = self.instances.remove(index);
        let _ = instance.child.kill();
        let _ = instance.child.wait();
        Some(number)
    }

    /// SIGTERM; it ends by itself.
    pub fn terminate(&mut self, chance: u64) -> Option<u8> {
        let instance = self.pick(chance)?;
        instance.leaving = Some(Instant::now());
        signal(&instance.child, Signal::SIGTERM);
        Some(instance.number)
    }

    pub fn freeze(&mut self, chance: u64) -> Option<u8> {
        let instance = self.pick(chance)?;
        instance.frozen = true;
        signal(&instance.child, Signal::SIGSTOP);
        Some(instance.number)
    }

    pub fn thaw(&mut self, number: u8) {
        if let Some(instance) = self
            .instances
            .iter_mut()
            .find(|instance| instance.number == number)
        {
            instance.frozen = false;
            signal(&instance.child, Signal::SIGCONT);
        }
    }

    /// Buries those that have ended. The answer is how many nobody had asked to.
    pub fn reap(&mut self) -> usize {
        let mut unasked = 0;
        let (log, late) = (&mut self.ended_by_themselves, &mut self.did_not_leave);
        self.instances
            .retain_mut(|instance| match instance.child.try_wait().unwrap() {
                None => {
                    if instance
                        .leaving
                        .is_some_and(|asked| asked.elapsed() > LEAVES_WITHIN)
                    {
                        *late += 1;
                        instance.leaving = None;
                        let _ = instance.child.kill();
                        let _ = instance.child.wait();
                        return false;
                    }
                    true
                }
                Some(status) => {
                    if instance.leaving.is_none() || !status.success() {
                        log.push(format!("router {} ended with {status}", instance.number));
                    }
                    unasked += usize::from(instance.leaving.is_none());
                    false
                }
            });
        unasked
    }
}

fn signal(child: &Child, signal: Signal) {
    let id = i32::try_from(child.id()).unwrap();
    let _ = kill(Pid::from_raw(id), signal);
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for instance in &mut self.instances {
            let _ = instance.child.kill();
            let _ = instance.child.wait();
        }
    }
}
