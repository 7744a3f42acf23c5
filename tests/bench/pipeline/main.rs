//! What a delivery costs from Kafka to the receiver, beside the least that any carrier pays (the floor), in the same run.
//!
//! On a real broker (`KAFKA_BOOTSTRAP_SERVERS`; `make bench` brings one up) with a cheap receiver, both on this machine, so that
//! deliveries a second are relative and the processor time of a delivery is the figure to use. It counts from the first
//! arrival to the last.
//!
//! | variable | what, and its default |
//! |---|---|
//! | `BENCH_EVENTS` | events to drain, 200000 |
//! | `BENCH_RUNS` | rounds; the cases take turns, 1 |
//! | `BENCH_ONLY` | only the cases whose name contains one of these words, separated by semicolons |
//! | `BENCH_LATENCY` | 0 leaves out the paced cases, 1 |
//! | `BENCH_MEMORY` | 1 measures memory with many deliveries waiting, 0; `BENCH_ONLY` chooses among the places, too |
//! | `BENCH_MEMORY_EVENTS` | how many, 1000000 |
//! | `BENCH_MEMORY_SECONDS` | how long each place is watched at most, 180 |
//! | `BENCH_ISOLATION` | 1 measures what sick endpoints cost healthy ones, 0; `BENCH_ONLY` chooses among the scenarios, too |
//! | `BENCH_ISOLATION_SECONDS` | seconds of each way, 60 |
//! | `BENCH_BACKLOG` | 1 measures what a backlog of one webhook costs 99 quiet ones, 0 |
//! | `BENCH_BACKLOG_EVENTS` | how long that backlog is, 1000000 |
//! | `BENCH_REPLAY` | 1 measures what a replay costs live traffic, 0 |
//! | `BENCH_REPLAY_EVENTS` | dead letters to replay, 1000000 |
//! | `BENCH_REPLAY_RATE` | of them in a second, 1000 as `retry.held_drain_per_second` has it |
//! | `BENCH_REPLAY_SECONDS` | seconds of each way, 60 |
//! | `BENCH_RECOVERY` | 1 measures kill -9 under load, 0 |
//! | `BENCH_RECOVERY_RATE` | events a second meanwhile, 2000 |
//! | `BENCH_ROUTER` | another binary, to compare |
//! | `BENCH_ROUTER_CONFIG` | more lines of configuration (TOML) |

mod backlog;
mod events;
mod floor;
mod isolation;
mod memory;
mod process;
mod receiver;
mod recovery;
mod replay;
mod report;
mod router;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use events::Cluster;
use floor::Floor;
use process::Process;
use receiver::Receiver;
use report::{Drain, Latency, Report};
use router::{Router, Setup};

const PACE_PER_SECOND: u32 = 2_000;
const WARM_UP: Duration = Duration::from_secs(5);
const PACED: Duration = Duration::from_secs(15);
const SAMPLE_EVERY: Duration = Duration::from_millis(20);
/// A case in which nothing arrives for so long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who carries.
enum Carrier {
    Floor { threads: usize },
    Router(Setup),
}

struct Case {
    name: &'static str,
    carrier: Carrier,
    /// Whether it is measured at an even pace, too.
    paced: bool,
}

fn cases() -> Vec<Case> {
    let floor = |name, threads| Case {
        name,
        carrier: Carrier::Floor { threads },
        paced: true,
    };
    let router = |name, endpoints, attempts, log_level, paced| Case {
        name,
        carrier: Carrier::Router(Setup {
            endpoints,
            attempts,
            log_level,
            rate_limit: None,
            kinds: Vec::new(),
            every_event: false,
        }),
        paced,
    };
    vec![
        floor("floor, one thread", 1),
        floor("floor, two threads", 2),
        router("router, one endpoint", 1, false, "warn", true),
        router("router, 100 endpoints", 100, false, "warn", false),
        router("router, one, attempts recorded", 1, true, "warn", false),
        router(
            "router, one, a log line an attempt",
            1,
            false,
            "info",
            false,
        ),
    ]
}

/// A carrier at work.
enum Running {
    Floor(Process),
    Router(Router),
}

impl Running {
    fn process(&mut self) -> &mut Process {
        match self {
            Self::Floor(process) => process,
            Self::Router(router) => &mut router.process,
        }
    }
}

struct Ground {
    cluster: Cluster,
    receiver: Receiver,
    /// Of all topics and groups of this run.
    prefix: String,
    used: u32,
}

impl Ground {
    fn new_prefix(&mut self) -> String {
        self.used += 1;
        format!("{}{}.", self.prefix, self.used)
    }

    fn start(&self, carrier: &Carrier, source: &str, prefix: &str) -> Running {
        let bootstrap = &self.cluster.bootstrap;
        match carrier {
            Carrier::Floor { threads } => {
                let floor = Floor {
                    bootstrap: bootstrap.clone(),
                    topic: source.to_owned(),
                    group: format!("{prefix}floor"),
                    url: format!("http://{}/in", self.receiver.address(0)),
                    threads: *threads,
                };
                let program = std::env::current_exe().expect("this program");
                Running::Floor(Process::start(
                    Command::new(program)
                        .args(floor.arguments())
                        .stdin(Stdio::null()),
                ))
            }
            Carrier::Router(setup) => Running::Router(Router::start(
                setup,
                bootstrap,
                source,
                prefix,
                &self.receiver,
            )),
        }
    }

    /// Waits until so many different events have arrived, and samples the carrier's processor time meanwhile.
    fn wait(&mut self, running: &mut Running, wanted: u64) -> Vec<(u64, f64)> {
        let mut samples = Vec::new();
        let (mut before, mut moved) = (0, Instant::now());
        loop {
            running.process().check();
            samples.push((events::unix_us(), running.process().processor_seconds()));
            let arrived = self.receiver.count().distinct;
            if arrived >= wanted {
                return samples;
            }
            if arrived > before {
                (before, moved) = (arrived, Instant::now());
            }
            assert!(
                moved.elapsed() < PATIENCE,
                "{arrived} of {wanted} events arrived, and then none for {} s",
                PATIENCE.as_secs()
            );
            std::thread::sleep(SAMPLE_EVERY);
        }
    }

    /// Waits until so many different events have arrived since the last reset, whoever carries them.
    fn wait_for(&mut self, wanted: u64) {
        let began = Instant::now();
        loop {
            let arrived = self.receiver.count().distinct;
            if arrived >= wanted {
                return;
            }
            assert!(
                began.elapsed() < PATIENCE,
                "{arrived} of {wanted} events arrived"
            );
            std::thread::sleep(SAMPLE_EVERY);
        }
    }

    /// Everything is in the topic; the carrier starts fresh.
    fn drain(&mut self, carrier: &Carrier, source: &str, count: u64) -> Drain {
        let prefix = self.new_prefix();
        self.receiver.reset();
        let mut running = self.start(carrier, source, &prefix);
        let samples = self.wait(&mut running, count);
        let process = running.process();
        let end = (events::unix_us(), process.processor_seconds());
        let tally = self.receiver.report();
        let at = |us: u64| {
            let after = samples.iter().find(|(sampled, _)| *sampled >= us);
            after.map_or(end.1, |(_, seconds)| *seconds)
        };
        let seconds = (tally.last_us - tally.first_us) as f64 / 1e6;
        let drain = Drain {
            per_second: count as f64 / seconds,
            processor_us: (at(tally.last_us) - at(tally.first_us)) * 1e6 / count as f64,
            peak_mebibytes: process.peak_mebibytes(),
            repeated: tally.repeated,
        };
        drop(running);
        self.cluster.delete(&prefix);
        drain
    }

    /// Events come at an even pace; after a warm-up the time from enqueue to arrival is taken.
    fn pace(&mut self, carrier: &Carrier) -> Latency {
        let prefix = self.new_prefix();
        let source = format!("{prefix}events");
        self.cluster.create(&source);
        self.receiver.reset();
        let mut running = self.start(carrier, &source, &prefix);
        // The first of them wait for the carrier to start.
        let warm = self.cluster.pace(&source, 0, PACE_PER_SECOND, WARM_UP);
        self.wait(&mut running, warm);
        let next = self
            .cluster
            .pace(&source, warm, PACE_PER_SECOND, Duration::from_secs(1));
        self.wait(&mut running, next);
        self.receiver.reset();
        let before = running.process().processor_seconds();
        let end = self.cluster.pace(&source, next, PACE_PER_SECOND, PACED);
        self.wait(&mut running, end - next);
        let spent = running.process().processor_seconds() - before;
        let tally = self.receiver.report();
        drop(running);
        self.cluster.delete(&prefix);
        Latency {
            p50_ms: tally.p50_us as f64 / 1e3,
            p99_ms: tally.p99_us as f64 / 1e3,
            worst_ms: tally.worst_us as f64 / 1e3,
            processor_us: spent * 1e6 / (end - next) as f64,
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        self.cluster.delete(&self.prefix);
    }
}

fn number(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Err(_) => default,
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name} must be a whole number; it is {text:?}")),
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("receiver") => return receiver::run(),
        Some("floor") => return Floor::of_arguments(&arguments[1..]).run(),
        _ => {}
    }
    let Ok(bootstrap) = std::env::var("KAFKA_BOOTSTRAP_SERVERS") else {
        eprintln!("pipeline: KAFKA_BOOTSTRAP_SERVERS is not set; `make bench` brings a broker up");
        std::process::exit(2);
    };
    let count = number("BENCH_EVENTS", 200_000);
    let runs = number("BENCH_RUNS", 1);
    let only = std::env::var("BENCH_ONLY").unwrap_or_default();
    let wanted = |name: &str| only.is_empty() || only.split(';').any(|word| name.contains(word));
    let cases: Vec<Case> = cases()
        .into_iter()
        .filter(|case| wanted(case.name))
        .collect();

    let mut ground = Ground {
        cluster: Cluster::at(&bootstrap),
        receiver: Receiver::start(),
        prefix: format!("bench-{}.", events::unix_us()),
        used: 0,
    };
    let source = format!("{}events", ground.prefix);
    let mut report = Report::new(cases.iter().map(|case| case.name));
    if !cases.is_empty() {
        ground.cluster.create(&source);
        ground.cluster.fill(&source, count);
    }
    for run in 1..=runs {
        for (index, case) in cases.iter().enumerate() {
            let drain = ground.drain(&case.carrier, &source, count);
            println!("round {run}: {}: {drain}", case.name);
            report.add_drain(index, drain);
        }
        for (index, case) in cases.iter().enumerate() {
            if case.paced && number("BENCH_LATENCY", 1) > 0 {
                let latency = ground.pace(&case.carrier);
                println!(
                    "round {run}: {} at {PACE_PER_SECOND}/s: {latency}",
                    case.name
                );
                report.add_latency(index, latency);
            }
        }
    }
    report.print(count);
    if number("BENCH_MEMORY", 0) > 0 {
        let events = number("BENCH_MEMORY_EVENTS", 1_000_000);
        let limit = Duration::from_secs(number("BENCH_MEMORY_SECONDS", 180));
        memory::measure(&mut ground, events, limit, wanted);
    }
    if number("BENCH_ISOLATION", 0) > 0 {
        for _ in 0..runs {
            isolation::measure(&mut ground, number("BENCH_ISOLATION_SECONDS", 60), wanted);
        }
    }
    if number("BENCH_BACKLOG", 0) > 0 {
        let events = number("BENCH_BACKLOG_EVENTS", 1_000_000);
        let limit = Duration::from_secs(600);
        backlog::measure(&mut ground, events, 60, limit);
    }
    if number("BENCH_REPLAY", 0) > 0 {
        let replay = replay::Replay {
            letters: number("BENCH_REPLAY_EVENTS", 1_000_000),
            per_second: number("BENCH_REPLAY_RATE", 1_000),
            time: Duration::from_secs(number("BENCH_REPLAY_SECONDS", 60)),
        };
        for _ in 0..runs {
            replay.measure(&mut ground);
        }
    }
    if number("BENCH_RECOVERY", 0) > 0 {
        let rate = number("BENCH_RECOVERY_RATE", 2_000);
        for _ in 0..runs {
            recovery::measure(&mut ground, rate);
        }
    }
}
