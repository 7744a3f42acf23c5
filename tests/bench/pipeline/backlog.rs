//! What a backlog of one webhook costs the others (promise 4): 99 quiet endpoints, without it, beside it, and without it again, so that
//! the difference stands beside the noise of the machine.

use std::time::{Duration, Instant};

use super::events::CUSTOMERS;
use super::receiver::Tally;
use super::router::{Endpoint, Fleet, Setup};
use super::{Ground, WARM_UP};

/// Of the webhook with the backlog, deliveries a second: so few that the backlog stays.
const LIMITED_PER_SECOND: u32 = 100;
/// Events a second for the quiet ones together.
const QUIET_PER_SECOND: u32 = 200;
const LOOK_EVERY: Duration = Duration::from_secs(5);
const GRACE: Duration = Duration::from_secs(2);

/// `events` wait for one endpoint; each way is measured for `seconds`. `limit` is for the backlog to be routed and put off.
pub fn measure(ground: &mut Ground, events: u64, seconds: u64, limit: Duration) {
    println!(
        "\n99 quiet endpoints at {QUIET_PER_SECOND} events/s for {seconds} s, beside one that has a backlog of {events} and is limited to {LIMITED_PER_SECOND}/s"
    );
    for (name, backlog) in [("no backlog", 0), ("backlog", events), ("no backlog", 0)] {
        run(ground, name, backlog, Duration::from_secs(seconds), limit);
    }
}

fn run(ground: &mut Ground, name: &str, backlog: u64, time: Duration, limit: Duration) {
    let prefix = ground.new_prefix();
    let source = format!("{prefix}events");
    ground.cluster.create(&source);
    ground.receiver.reset();
    let endpoints = usize::try_from(CUSTOMERS).unwrap_or(100);
    let mut kinds = vec![Endpoint::Healthy; endpoints];
    kinds[0] = Endpoint::Limited(LIMITED_PER_SECOND);
    let setup = Setup {
        endpoints,
        attempts: false,
        log_level: "warn",
        rate_limit: None,
        kinds,
        every_event: false,
    };
    let bootstrap = ground.cluster.bootstrap.clone();
    let fleet = Fleet::prepare(&setup, &bootstrap, &source, &prefix, &ground.receiver);
    let mut process = fleet.start("");
    if backlog > 0 {
        let began = Instant::now();
        ground.cluster.fill_for_first_customer(&source, backlog);
        let written = |part: &str| ground.cluster.records(&format!("{prefix}postrider.{part}"));
        while began.elapsed() < limit && written("delay.") < backlog * 99 / 100 {
            std::thread::sleep(LOOK_EVERY);
            process.check();
        }
        println!(
            "  after {:.0} s {} have been routed and {} put off; {:.0} MiB",
            began.elapsed().as_secs_f64(),
            written("dispatch"),
            written("delay."),
            process.mebibytes(),
        );
    }
    let quiet =
        |events: std::ops::Range<u64>| events.filter(|event| event % CUSTOMERS != 0).count() as u64;
    let warm = ground
        .cluster
        .pace(&source, 0, QUIET_PER_SECOND, WARM_UP * 2);
    ground.wait_for(quiet(0..warm));
    ground.receiver.reset();
    let before = process.processor_seconds();
    let end = ground.cluster.pace(&source, warm, QUIET_PER_SECOND, time);
    std::thread::sleep(GRACE);
    let tally: Tally = ground.receiver.report();
    let wanted = quiet(warm..end);
    println!(
        "  {name}: {}; {:.1} s of processor, {:.0} MiB, peak {:.0} MiB",
        tally.in_time(wanted),
        process.processor_seconds() - before,
        process.mebibytes(),
        process.peak_mebibytes(),
    );
    drop(process);
    ground.cluster.delete(&prefix);
}
