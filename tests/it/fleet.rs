//! Any number of instances share the work, come and go, and keep the limits of one (promise 5).

use std::time::{Duration, Instant};

use postrider::app::Stages;
use serde_json::json;

use crate::harness::{Cluster, Receiver, Reply, Request, Router, assert_all_arrived, delivery_ids};
use crate::pace::most_in_a_second;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn an_instance_that_comes_and_one_that_goes_under_load_lose_and_repeat_nothing() {
    const EVENTS: usize = 1000;
    let cluster = Cluster::named("fleet");
    let names: Vec<String> = (0..8).map(|n| format!("wh_{n}")).collect();
    let receiver = Receiver::start(|_| Reply::ok().after(Duration::from_millis(50)));
    let mut router = Router::idle(&cluster, &["events.job"], "");
    for name in &names {
        // About eight seconds for each, alone.
        router.subscribe(name, &receiver.url("/"), json!({"max_concurrency": 6}));
    }
    router.add_instance(Stages::ALL);
    let events = router.produce("events.job", 0..EVENTS);
    receiver.wait_for(names.len() * EVENTS / 10, PATIENCE);
    router.add_instance(Stages::ALL);
    assert!(
        receiver.accepted().len() < names.len() * EVENTS / 2,
        "too late to matter"
    );
    receiver.wait_for(names.len() * EVENTS * 6 / 10, PATIENCE);
    let shares: Vec<u64> = router
        .apps()
        .iter()
        .map(|app| app.metrics().attempts.with_label_values(&["success"]).get())
        .collect();
    assert!(
        shares.iter().all(|share| *share > 0),
        "not shared: {shares:?}"
    );
    assert!(
        receiver.accepted().len() < names.len() * EVENTS - 100,
        "too late to matter"
    );
    router.stop_instance();

    let accepted = receiver.wait_for_accepted(names.len() * EVENTS, PATIENCE);
    router.wait_until_idle();
    let ids: Vec<String> = names
        .iter()
        .flat_map(|name| delivery_ids(&events, name))
        .collect();
    assert_eq!(accepted.len(), receiver.requests().len());
    assert_eq!(assert_all_arrived(&accepted, &ids), 0, "copies");
}

#[test]
fn a_rate_limit_holds_while_its_webhook_moves_between_instances() {
    const EVENTS: usize = 300;
    let cluster = Cluster::named("fleet-pace");
    let receiver = Receiver::accepting();
    let mut router = Router::idle(&cluster, &["events.job"], "");
    let limit = json!({"requests": 20, "per_seconds": 1, "burst": 5});
    router.subscribe("wh_a", &receiver.url("/"), json!({"rate_limit": limit}));
    router.add_instance(Stages::ALL);
    let events = router.produce("events.job", 0..EVENTS);
    receiver.wait_for(60, PATIENCE);
    router.add_instance(Stages::ALL);
    receiver.wait_for(150, PATIENCE);
    router.stop_instance();
    let requests = receiver.wait_for(EVENTS, PATIENCE);
    router.wait_until_idle();
    assert!(
        most_in_a_second(&requests) <= 25,
        "{}",
        most_in_a_second(&requests)
    );
    assert_eq!(
        assert_all_arrived(&requests, &delivery_ids(&events, "wh_a")),
        0,
        "copies"
    );
}

/// Whether a bucket that holds `burst` and gets `a_second` could have let these through, `slack` of them aside.
fn fit_a_bucket(requests: &[Request], a_second: f64, burst: f64, slack: f64) -> bool {
    let mut arrivals: Vec<Instant> = requests.iter().map(|request| request.arrived).collect();
    arrivals.sort();
    let mut tokens = burst + slack;
    let mut before = arrivals[0];
    arrivals.into_iter().all(|arrived| {
        tokens = (tokens + a_second * (arrived - before).as_secs_f64()).min(burst + slack) - 1.0;
        before = arrived;
        tokens >= 0.0
    })
}

#[test]
fn a_change_of_owner_adds_no_second_burst() {
    const EVENTS: usize = 360;
    let cluster = Cluster::named("fleet-burst");
    let receiver = Receiver::accepting();
    let mut router = Router::idle(&cluster, &["events.job"], "");
    let names: Vec<String> = (0..6).map(|n| format!("wh_{n}")).collect();
    for name in &names {
        // A bucket of five seconds, so that a second one would show beside what a short hand-over saves up.
        let limit = json!({"requests": 20, "per_seconds": 1, "burst": 100});
        let url = receiver.url(&format!("/{name}"));
        router.subscribe(name, &url, json!({"rate_limit": limit}));
    }
    router.add_instance(Stages::ALL);
    router.produce("events.job", 0..EVENTS / 3);
    // Some of them change hands when the second comes, the others when the first goes; and each time there is much to send.
    receiver.wait_for(names.len() * 40, PATIENCE);
    router.add_instance(Stages::ALL);
    router.produce("events.job", EVENTS / 3..EVENTS * 2 / 3);
    receiver.wait_for(names.len() * EVENTS / 3, PATIENCE);
    router.stop_instance();
    router.produce("events.job", EVENTS * 2 / 3..EVENTS);
    let requests = receiver.wait_for(names.len() * EVENTS, PATIENCE);
    router.wait_until_idle();
    for name in &names {
        let of_webhook: Vec<Request> = requests
            .iter()
            .filter(|request| request.path == format!("/{name}"))
            .cloned()
            .collect();
        assert_eq!(of_webhook.len(), EVENTS);
        assert!(
            fit_a_bucket(&of_webhook, 20.0, 100.0, 5.0),
            "more came to {name} than one bucket lets through"
        );
    }
}
