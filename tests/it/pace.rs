//! A limit is a limit, and is used; one bad endpoint is nobody else's problem (promises 4 and 5).

use std::time::{Duration, Instant};

use postrider::app::Stages;
use serde_json::json;

use crate::harness::{Cluster, Receiver, Reply, Request, Router, assert_all_arrived, delivery_ids};

const PATIENCE: Duration = Duration::from_secs(60);

/// The most requests that arrived in any second. A request may be on its way for a moment on a busy machine, so that two
/// that were a second apart arrive a little closer: a tenth of the second is left to that.
pub fn most_in_a_second(requests: &[Request]) -> usize {
    let arrivals: Vec<Instant> = requests.iter().map(|request| request.arrived).collect();
    let within = |start: &Instant| {
        let end = *start + Duration::from_millis(900);
        arrivals
            .iter()
            .filter(|at| *at >= start && **at < end)
            .count()
    };
    arrivals.iter().map(within).max().unwrap_or(0)
}

#[test]
fn a_rate_limit_holds_in_every_second_and_is_used_up_while_there_is_a_backlog() {
    const EVENTS: usize = 300;
    let cluster = Cluster::named("pace");
    let receiver = Receiver::accepting();
    let mut router = Router::idle(&cluster, &["events.job"], "");
    let limit = json!({"requests": 20, "per_seconds": 1, "burst": 5});
    router.subscribe("wh_a", &receiver.url("/"), json!({"rate_limit": limit}));
    let events = router.produce("events.job", 0..EVENTS);
    router.add_instance(Stages::ALL);

    let requests = receiver.wait_for(EVENTS, PATIENCE);

    assert!(
        most_in_a_second(&requests) <= 25,
        "{}",
        most_in_a_second(&requests)
    );
    let took = requests[EVENTS - 1].arrived - requests[0].arrived;
    let pace = (EVENTS - 1) as f64 / took.as_secs_f64();
    assert!(
        pace >= 0.95 * 20.0,
        "only {pace:.1} a second of the 20 that are allowed"
    );
    assert_eq!(
        assert_all_arrived(&requests, &delivery_ids(&events, "wh_a")),
        0
    );
}

#[test]
fn an_endpoint_that_hangs_does_not_delay_another() {
    const EVENTS: usize = 300;
    let cluster = Cluster::named("hanging");
    let hanging = Receiver::start(|_| Reply::hang());
    let healthy = Receiver::accepting();
    let mut router = Router::start(&cluster, &["events.job"], "");
    // The hanging one would need a minute to be through.
    router.leaves_work();
    router.subscribe(
        "wh_hanging",
        &hanging.url("/"),
        json!({"timeout_seconds": 15}),
    );
    router.subscribe("wh_healthy", &healthy.url("/"), json!({}));
    router.produce("events.job", 0..EVENTS);
    hanging.wait_for(16, PATIENCE);

    // Now that it hangs: new events, and what is left of the old ones.
    let produced = Instant::now();
    router.produce("events.job", EVENTS..2 * EVENTS);
    let requests = healthy.wait_for(2 * EVENTS, PATIENCE);

    let took = requests[2 * EVENTS - 1].arrived - produced;
    assert!(
        took < Duration::from_secs(6),
        "the last one came after {took:?}"
    );
    assert!(hanging.accepted().is_empty());
    // Or the stop would wait for the requests under way.
    drop(hanging);
}
