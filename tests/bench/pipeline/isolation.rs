//! What sick endpoints cost healthy ones (promise 4): the same load without and with sick ones, and again without, so that the
//! difference stands beside the noise of the machine.

use std::time::Duration;

use super::receiver::Tally;
use super::router::{Endpoint, Fleet, Setup};
use super::{Ground, WARM_UP};

/// As in the comparison with other carriers: what has not arrived so long after the last event is not in time.
const GRACE: Duration = Duration::from_secs(2);

struct Scenario {
    name: &'static str,
    endpoints: usize,
    /// Sick endpoints of each kind: hanging, answering 500, answering 429 (or limited).
    sick: [usize; 3],
    /// A limit that the third kind is given, requests a second.
    limit: Option<u32>,
    /// Whether every endpoint wants every event; else each wants those of its customer.
    every_event: bool,
    per_second: u32,
    time: Duration,
}

/// All scenarios, one after the other, `seconds` each way.
pub fn measure(ground: &mut Ground, seconds: u64, wanted: impl Fn(&str) -> bool) {
    let time = Duration::from_secs(seconds);
    let scenarios = [
        Scenario {
            name: "ten endpoints: 7 healthy, one hangs, one answers 500, one limited to 5/s",
            endpoints: 10,
            sick: [1, 1, 1],
            limit: Some(5),
            every_event: true,
            per_second: 200,
            time,
        },
        Scenario {
            name: "ten endpoints: 9 healthy, one hangs",
            endpoints: 10,
            sick: [1, 0, 0],
            limit: None,
            every_event: true,
            per_second: 200,
            time,
        },
        Scenario {
            name: "1000 endpoints: 1 % hang, 1 % answer 500, 1 % answer 429",
            endpoints: 1_000,
            sick: [10, 10, 10],
            limit: None,
            every_event: false,
            per_second: 100,
            time,
        },
    ];
    for scenario in scenarios.iter().filter(|scenario| wanted(scenario.name)) {
        println!(
            "\n{}; {} events/s for {seconds} s; the same {} healthy ones are counted each time",
            scenario.name,
            scenario.per_second,
            scenario.healthy()
        );
        for (name, sick) in [
            ("none sick", false),
            ("with sick", true),
            ("none sick", false),
        ] {
            scenario.run(ground, name, sick);
        }
    }
}

impl Scenario {
    fn healthy(&self) -> usize {
        self.endpoints - self.sick.iter().sum::<usize>()
    }

    /// The healthy come last, so that the sick are spread over the customers. Without sick ones the same endpoints are left
    /// out of the count, so that both ways count the same deliveries.
    fn endpoint(&self, number: usize, sick: bool) -> Endpoint {
        let [hanging, failing, limited] = self.sick;
        if number >= hanging + failing + limited {
            Endpoint::Healthy
        } else if !sick {
            Endpoint::Uncounted
        } else if number < hanging {
            Endpoint::Hanging
        } else if number < hanging + failing {
            Endpoint::Failing
        } else {
            self.limit.map_or(Endpoint::Refusing, Endpoint::Limited)
        }
    }

    /// Deliveries to healthy endpoints that events of these numbers cause.
    fn expected(&self, events: std::ops::Range<u64>) -> u64 {
        if self.every_event {
            return (events.end - events.start) * self.healthy() as u64;
        }
        let first = self.endpoints - self.healthy();
        let customers = super::events::CUSTOMERS;
        let wanting = |customer: u64| {
            (first..self.endpoints)
                .filter(|number| *number as u64 % customers == customer)
                .count() as u64
        };
        let per_customer: Vec<u64> = (0..customers).map(wanting).collect();
        events
            .map(|event| per_customer[(event % customers) as usize])
            .sum()
    }

    fn run(&self, ground: &mut Ground, name: &str, sick: bool) {
        let prefix = ground.new_prefix();
        let source = format!("{prefix}events");
        ground.cluster.create(&source);
        ground.receiver.reset();
        let kinds = (0..self.endpoints)
            .map(|number| self.endpoint(number, sick))
            .collect();
        let setup = Setup {
            endpoints: self.endpoints,
            attempts: false,
            log_level: "warn",
            rate_limit: None,
            kinds,
            every_event: self.every_event,
        };
        let bootstrap = ground.cluster.bootstrap.clone();
        let fleet = Fleet::prepare(&setup, &bootstrap, &source, &prefix, &ground.receiver);
        let process = fleet.start("");
        let warm = ground
            .cluster
            .pace(&source, 0, self.per_second, WARM_UP * 2);
        ground.wait_for(self.expected(0..warm));
        ground.receiver.reset();
        let before = process.processor_seconds();
        let end = ground
            .cluster
            .pace(&source, warm, self.per_second, self.time);
        std::thread::sleep(GRACE);
        let tally: Tally = ground.receiver.report();
        let wanted = self.expected(warm..end);
        println!(
            "  {name}: {}, {} repeated; {} requests to the others; {:.1} s of processor, peak {:.0} MiB",
            tally.in_time(wanted),
            tally.repeated,
            tally.others,
            process.processor_seconds() - before,
            process.peak_mebibytes(),
        );
        drop(process);
        ground.cluster.delete(&prefix);
    }
}
