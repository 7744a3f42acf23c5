//! How much memory a million waiting deliveries take, wherever they wait (promise 6: none for those that wait).

use std::time::{Duration, Instant};

use super::Ground;
use super::router::{Endpoint, Fleet, Setup};

const LOOK_EVERY: Duration = Duration::from_secs(5);
const LIMITED_PER_SECOND: u32 = 100;

/// Where they wait, one after the other; each until all are there, or `limit` has passed.
pub fn measure(ground: &mut Ground, events: u64, limit: Duration, wanted: impl Fn(&str) -> bool) {
    let cases = [
        ("limited to 100/s", Endpoint::Limited(LIMITED_PER_SECOND)),
        ("answers 500: delay topics", Endpoint::Failing),
        ("paused: held", Endpoint::Paused),
    ];
    for (name, endpoint) in cases.into_iter().filter(|(name, _)| wanted(name)) {
        println!("\nmemory with {events} events for one endpoint, {name}");
        case(ground, events, limit, endpoint);
    }
}

fn case(ground: &mut Ground, events: u64, limit: Duration, endpoint: Endpoint) {
    let prefix = ground.new_prefix();
    let source = format!("{prefix}events");
    ground.cluster.create(&source);
    ground.cluster.fill(&source, events);
    ground.receiver.reset();
    let setup = Setup {
        endpoints: 1,
        attempts: false,
        log_level: "warn",
        rate_limit: None,
        kinds: vec![endpoint],
        every_event: false,
    };
    let bootstrap = ground.cluster.bootstrap.clone();
    let fleet = Fleet::prepare(&setup, &bootstrap, &source, &prefix, &ground.receiver);
    let mut process = fleet.start("");
    let began = Instant::now();
    let mut all_there = false;
    while began.elapsed() < limit && !all_there {
        std::thread::sleep(LOOK_EVERY);
        process.check();
        let written = |part: &str| ground.cluster.records(&format!("{prefix}postrider.{part}"));
        let (dispatched, delayed, held) = (written("dispatch"), written("delay."), written("held"));
        println!(
            "  after {:>3.0} s: {:>4.0} MiB, peak {:>4.0} MiB, {:>5.1} s of processor; written so far: {dispatched} to dispatch, {delayed} to delay topics, {held} to held; {} requests",
            began.elapsed().as_secs_f64(),
            process.mebibytes(),
            process.peak_mebibytes(),
            process.processor_seconds(),
            ground.receiver.count().others,
        );
        all_there = dispatched >= events && (delayed >= events || held >= events);
    }
    drop(process);
    ground.cluster.delete(&prefix);
}
