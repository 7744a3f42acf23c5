//! What a kill -9 under load costs: three in half a minute, each process started again at once, with one instance and with
//! three, with and without a name that lasts (`kafka.instance_id`).

use std::time::{Duration, Instant};

use super::process::Process;
use super::router::{Fleet, Setup};
use super::{Ground, WARM_UP};

const WATCHED: Duration = Duration::from_secs(30);
const KILLS: u32 = 3;
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// The backlog is gone when no more is missing than arrives in this part of a second.
const LEFT_OF_A_SECOND: u64 = 4;

/// All ways, one after the other.
pub fn measure(ground: &mut Ground, rate: u64) {
    println!(
        "\n{KILLS} kill -9 in {} s at {rate}/s, restarted at once",
        WATCHED.as_secs()
    );
    for (instances, named) in [(1, false), (1, true), (3, false), (3, true)] {
        case(ground, rate, instances, named);
    }
}

fn case(ground: &mut Ground, rate: u64, instances: usize, named: bool) {
    let prefix = ground.new_prefix();
    let source = format!("{prefix}events");
    ground.cluster.create(&source);
    ground.receiver.reset();
    let setup = Setup {
        endpoints: 100,
        attempts: false,
        log_level: "warn",
        rate_limit: None,
        kinds: Vec::new(),
        every_event: false,
    };
    let bootstrap = ground.cluster.bootstrap.clone();
    let fleet = Fleet::prepare(&setup, &bootstrap, &source, &prefix, &ground.receiver);
    let name = |number: usize| {
        if named {
            format!("bench-{number}")
        } else {
            String::new()
        }
    };
    let start = |number: usize| fleet.start(&name(number));
    let mut running: Vec<Process> = (0..instances).map(start).collect();

    let pace = u32::try_from(rate).expect("a rate");
    let warm = ground.cluster.pace(&source, 0, pace, WARM_UP);
    ground.wait_for(warm);
    let settled = ground.cluster.pace(&source, warm, pace, WARM_UP);
    ground.wait_for(settled);
    ground.receiver.reset();

    let Ground {
        cluster, receiver, ..
    } = ground;
    let (mut firsts, mut gones) = (Vec::new(), Vec::new());
    let end = std::thread::scope(|scope| {
        let began = Instant::now();
        let cluster = &*cluster;
        let source = source.as_str();
        let pacing = scope.spawn(move || cluster.pace(source, settled, pace, WATCHED));
        for kill in 0..KILLS {
            let at = WATCHED / KILLS * kill + Duration::from_secs(1);
            std::thread::sleep(at.saturating_sub(began.elapsed()));
            let victim = kill as usize % instances;
            let killed = Instant::now();
            running.remove(victim).kill();
            running.insert(victim, start(victim));
            let before = receiver.count();
            let (mut first, mut gone) = (None, None);
            while killed.elapsed() < WATCHED / KILLS - Duration::from_secs(1) && gone.is_none() {
                std::thread::sleep(LOOK_EVERY);
                let now = receiver.count();
                if first.is_none() && now.distinct > before.distinct {
                    first = Some(killed.elapsed());
                }
                let sent = (began.elapsed().as_secs_f64() * rate as f64) as u64;
                if first.is_some() && now.distinct + rate / LEFT_OF_A_SECOND >= sent {
                    gone = Some(killed.elapsed());
                }
            }
            firsts.push(first.map_or(f64::NAN, |time| time.as_secs_f64()));
            gones.push(gone.map_or(f64::NAN, |time| time.as_secs_f64()));
        }
        pacing.join().expect("the producer goes on")
    });
    ground.wait_for(end - settled);
    // What is sent twice may come a little later than the rest.
    std::thread::sleep(Duration::from_secs(1));
    let tally = ground.receiver.report();
    println!(
        "  {instances} {}: first delivery after {firsts:.2?} s, backlog gone after {gones:.2?} s, lateness p50 {:.0} ms, p99 {:.0} ms, worst {:.0} ms, repeated {:.2} %",
        if named { "named" } else { "nameless" },
        tally.p50_us as f64 / 1e3,
        tally.p99_us as f64 / 1e3,
        tally.worst_us as f64 / 1e3,
        100.0 * tally.repeated as f64 / tally.distinct as f64,
    );
    drop(running);
    ground.cluster.delete(&prefix);
}
