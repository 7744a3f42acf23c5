//! What a replay costs live traffic (promise 4): 99 endpoints at an even pace, without it, beside it, and without it again, so that the
//! difference stands beside the noise of the machine. The router that carries the live traffic works on the replay, too.

use std::process::Command;
use std::time::{Duration, Instant};

use super::events::CUSTOMERS;
use super::receiver::Tally;
use super::router::{Endpoint, Fleet, Setup};
use super::{Ground, WARM_UP};

/// Events a second for the live endpoints together.
const LIVE_PER_SECOND: u32 = 200;
const GRACE: Duration = Duration::from_secs(2);
/// The router has a replay so long after it was ordered, at most.
const BEGUN_WITHIN: Duration = Duration::from_secs(60);

/// Whose letters are replayed.
#[derive(Clone, Copy, PartialEq)]
enum Of {
    Nobody,
    /// Of one webhook, which has no live traffic of the 99.
    One,
    /// Of all, each by the lane that its live traffic takes, to a URL that is not counted.
    All,
}

/// How a replay goes.
pub struct Replay {
    /// Dead letters.
    pub letters: u64,
    /// Of them, sent in a second.
    pub per_second: u64,
    /// How long each way is watched.
    pub time: Duration,
}

impl Replay {
    /// All ways, one after the other, and the ratios.
    pub fn measure(&self, ground: &mut Ground) {
        println!(
            "\n99 endpoints at {LIVE_PER_SECOND} events/s for {} s, beside a replay of {} dead letters at {}/s",
            self.time.as_secs(),
            self.letters,
            self.per_second
        );
        let before = self.run(ground, "no replay", Of::Nobody);
        let one = self.run(ground, "a replay of one webhook's letters", Of::One);
        let all = self.run(ground, "a replay of all webhooks' letters", Of::All);
        let after = self.run(ground, "no replay", Of::Nobody);
        let without = (before + after) / 2.0;
        println!(
            "  p99 beside a replay ÷ p99 without: {:.2} (one webhook), {:.2} (all); {:.2} and {:.2} of the two without, which is the noise",
            one / without,
            all / without,
            before / without,
            after / without
        );
    }

    /// The live traffic's p99, in microseconds.
    fn run(&self, ground: &mut Ground, name: &str, of: Of) -> f64 {
        let prefix = ground.new_prefix();
        let source = format!("{prefix}events");
        ground.cluster.create(&source);
        ground.receiver.reset();
        let endpoints = usize::try_from(CUSTOMERS).unwrap_or(100);
        let mut kinds = vec![Endpoint::Healthy; endpoints];
        kinds[0] = Endpoint::Uncounted;
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
        let letters = format!("{prefix}postrider.dead-letters");
        match of {
            Of::Nobody => {}
            Of::One => ground.cluster.fill_with_letters(&letters, self.letters, 1),
            Of::All => {
                ground
                    .cluster
                    .fill_with_letters(&letters, self.letters, CUSTOMERS);
            }
        }
        let mut process = fleet.start("");
        let live = |events: std::ops::Range<u64>| {
            events.filter(|event| event % CUSTOMERS != 0).count() as u64
        };
        let warm = ground
            .cluster
            .pace(&source, 0, LIVE_PER_SECOND, WARM_UP * 2);
        ground.wait_for(live(0..warm));
        let first = if of == Of::Nobody {
            0
        } else {
            self.order(&fleet, ground, of)
        };
        process.check();
        ground.receiver.reset();
        let before = process.processor_seconds();
        let began = Instant::now();
        let end = ground
            .cluster
            .pace(&source, warm, LIVE_PER_SECOND, self.time);
        let watched = began.elapsed().as_secs_f64();
        // The endpoint that is not counted has its part of the live traffic.
        let own = (end - warm) - live(warm..end);
        let replayed = ground.receiver.count().others.saturating_sub(own);
        std::thread::sleep(GRACE);
        process.check();
        let tally: Tally = ground.receiver.report();
        let wanted = live(warm..end);
        println!(
            "  {name}: {}; {:.1} s of processor, peak {:.0} MiB",
            tally.in_time(wanted),
            process.processor_seconds() - before,
            process.peak_mebibytes(),
        );
        if of != Of::Nobody {
            let rest = self.letters.saturating_sub(first + replayed);
            println!(
                "    {:.0} letters/s arrived meanwhile; {}",
                replayed as f64 / watched,
                if rest == 0 {
                    "the replay ended before the measurement did: take more letters".to_owned()
                } else {
                    format!("{rest} were left when it ended")
                }
            );
        }
        drop(process);
        ground.cluster.delete(&prefix);
        tally.p99_us as f64
    }

    /// Has the router replay everything; gives how many have arrived when it is at work.
    fn order(&self, fleet: &Fleet, ground: &mut Ground, of: Of) -> u64 {
        let before = ground.receiver.count().others;
        let mut command: Command = fleet.command();
        let rate = self.per_second.to_string();
        command.args([
            "dead-letters",
            "replay",
            "--yes",
            "--detach",
            "--rate",
            &rate,
        ]);
        if of == Of::All {
            let url = format!("http://{}/other", ground.receiver.address(0));
            command.args(["--to", &url]);
        }
        let began = Instant::now();
        let output = command.output().expect("the command starts");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        println!(
            "  {} letters were counted in {:.1} s",
            self.letters,
            began.elapsed().as_secs_f64()
        );
        let ordered = Instant::now();
        loop {
            let arrived = ground.receiver.count().others - before;
            if arrived > 0 {
                return arrived;
            }
            assert!(ordered.elapsed() < BEGUN_WITHIN, "the replay did not begin");
            std::thread::sleep(super::SAMPLE_EVERY);
        }
    }
}
