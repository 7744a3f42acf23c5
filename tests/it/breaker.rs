//! An endpoint that is down: what waits for it is held and drained when it recovers, by whatever instance; one that is gone is disabled
//! (promises 1 and 4).

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use postrider::app::Stages;
use postrider::outbound::breaker::State;
use postrider::subscription::WebhookId;
use serde_json::{Value, json};

use crate::harness::{
    Cluster, Process, Receiver, Reply, Request, Router, assert_all_arrived, delivery_ids,
    eventually, get,
};
use crate::pace::most_in_a_second;

const PATIENCE: Duration = Duration::from_secs(60);
/// Trips after three failures, probes every second at first, holds after two.
pub const IMPATIENT: &str = "outbound.breaker_failures = 3\noutbound.breaker_probe_seconds = 1\nretry.hold_after_seconds = 2\n";

/// A receiver whose answer can be changed.
pub fn switched(status: u16) -> (Receiver, Arc<AtomicU16>) {
    let switch = Arc::new(AtomicU16::new(status));
    let answer = Arc::clone(&switch);
    let receiver = Receiver::start(move |_| Reply::status(answer.load(Ordering::SeqCst)));
    (receiver, switch)
}

fn state(router: &Router<'_>, id: &str) -> State {
    router.app().webhook_state(&WebhookId::new(id).unwrap())
}

/// What a running process tells of a metric.
fn told(process: &Process, line: &str) -> f64 {
    let (_, page) = get(process.telemetry(), "/metrics");
    page.lines()
        .find_map(|found| found.strip_prefix(line)?.trim().parse().ok())
        .unwrap_or(0.0)
}

/// The record of the state of `wh_a`, if there is one.
fn recorded(router: &Router<'_>) -> Option<Value> {
    let records = router.cluster.consume_all(&router.topics().subscriptions);
    let last = records
        .into_iter()
        .rfind(|record| record.key.as_deref() == Some(b"state/wh_a"))?;
    Some(serde_json::from_slice(&last.payload?).unwrap())
}

fn after(requests: &[Request], moment: Instant) -> Vec<Request> {
    let late = requests.iter().filter(|request| request.arrived > moment);
    late.cloned().collect()
}

#[test]
fn what_waits_for_a_dead_endpoint_is_held_and_drained_at_its_own_pace_when_it_recovers() {
    let cluster = Cluster::named("dead");
    let (receiver, switch) = switched(500);
    let router = Router::start(&cluster, &["events.job"], IMPATIENT);
    let limit = json!({"requests": 20, "per_seconds": 1, "burst": 5});
    let fields = json!({"max_retries": 20, "retry_backoff": 1, "rate_limit": limit});
    router.subscribe("wh_a", &receiver.url("/"), fields);
    let events = router.produce("events.job", 0..100);
    eventually("everything to be held", PATIENCE, || {
        (router.metric("postrider_held") >= 99.0).then_some(())
    });
    assert_ne!(state(&router, "wh_a"), State::Passing);
    assert_eq!(
        router.metric("postrider_webhook_state{state=\"passing\",webhook=\"wh_a\"}"),
        0.0
    );
    let condition = recorded(&router).unwrap();
    assert_eq!(condition["state"], "tripped");
    assert!(condition["failing_since_ms"].as_i64().unwrap() > 0);
    // It is probed though nothing new comes, and nobody but a probe spends an attempt.
    let attempts = receiver.requests().len();
    eventually("a probe", PATIENCE, || {
        (receiver.requests().len() > attempts).then_some(())
    });
    assert!(receiver.requests().len() < 20, "these are no probes");

    switch.store(200, Ordering::SeqCst);
    let recovered = Instant::now();
    receiver.wait_for_accepted(100, PATIENCE);
    let took = recovered.elapsed();
    let accepted = receiver.accepted();
    assert_eq!(
        assert_all_arrived(&accepted, &delivery_ids(&events, "wh_a")),
        0,
        "copies"
    );
    let most = most_in_a_second(&accepted);
    assert!(most <= 25, "{most} in a second");
    assert!(took < Duration::from_secs(30), "{took:?}");
    eventually("the recovery to be recorded", PATIENCE, || {
        (recorded(&router).unwrap()["state"] == "passing").then_some(())
    });
    assert_eq!(router.metric("postrider_held"), 0.0);
}

#[test]
fn a_drain_goes_on_where_it_was_when_its_instance_is_killed() {
    const EVENTS: usize = 300;
    let cluster = Cluster::named("killed-drain");
    let (receiver, switch) = switched(500);
    let more = format!("{IMPATIENT}retry.held_drain_per_second = 30\n");
    let mut router = Router::idle(&cluster, &["events.job"], &more);
    // A repetition has a line of its own in the audit trail.
    router.leaves_work();
    let fields = json!({"max_retries": 20, "retry_backoff": 1});
    router.subscribe("wh_a", &receiver.url("/"), fields);
    let process = Process::start(router.config_text());
    let events = router.produce("events.job", 0..EVENTS);
    let mostly_held =
        |process: &Process| (told(process, "postrider_held") >= (EVENTS - 2) as f64).then_some(());
    eventually("everything to be held", PATIENCE, || mostly_held(&process));
    switch.store(200, Ordering::SeqCst);
    receiver.wait_for_accepted(EVENTS / 4, PATIENCE);
    process.kill();
    let before = receiver.accepted().len();
    assert!(before < EVENTS - 100, "it was through already: {before}");

    let _process = Process::start(router.config_text());
    let ids = delivery_ids(&events, "wh_a");
    receiver.wait_for_deliveries(ids.len(), PATIENCE);
    router.wait_until_idle();
    let copies = assert_all_arrived(&receiver.accepted(), &ids);
    // A batch is two seconds' worth; as much may have been on its way through `dispatch`.
    assert!(copies <= 120, "{copies} copies");
}

#[test]
fn a_new_owner_of_a_dead_endpoint_sends_a_probe_and_not_ten_deliveries() {
    let cluster = Cluster::named("new-owner");
    let (receiver, _switch) = switched(500);
    // It trips after ten failures; the first probe would be due after five seconds.
    let more = "outbound.breaker_probe_seconds = 5\n";
    let mut router = Router::idle(&cluster, &["events.job"], more);
    router.leaves_work();
    let fields = json!({"max_retries": 20, "retry_backoff": 1});
    router.subscribe("wh_a", &receiver.url("/"), fields);
    let process = Process::start(router.config_text());
    router.produce("events.job", 0..40);
    eventually("it to be recorded as tripped", PATIENCE, || {
        (recorded(&router)?["state"] == "tripped").then_some(())
    });
    process.kill();

    let killed = Instant::now();
    let _process = Process::start(router.config_text());
    router.produce("events.job", 40..80);
    let first = eventually("a probe of the new owner", PATIENCE, || {
        after(&receiver.requests(), killed).first().cloned()
    });
    std::thread::sleep(Duration::from_secs(4));
    let sent = after(&receiver.requests(), killed);
    let soon = sent
        .iter()
        .filter(|request| request.arrived < first.arrived + Duration::from_secs(4));
    assert_eq!(soon.count(), 1, "more than the probe");
}

#[test]
fn a_webhook_that_is_paused_while_its_endpoint_is_down_is_not_probed_and_recovers_when_resumed() {
    let cluster = Cluster::named("paused-dead");
    let (receiver, switch) = switched(500);
    let router = Router::start(&cluster, &["events.job"], IMPATIENT);
    let fields = json!({"max_retries": 20, "retry_backoff": 1});
    router.subscribe("wh_a", &receiver.url("/"), fields);
    let events = router.produce("events.job", 0..20);
    eventually("everything to be held", PATIENCE, || {
        (router.metric("postrider_held") >= 19.0).then_some(())
    });
    router.change("wh_a", |webhook| webhook.paused = true);
    router.wait_until_idle();
    eventually("everything to be held", PATIENCE, || {
        (router.metric("postrider_held") >= 20.0).then_some(())
    });
    switch.store(200, Ordering::SeqCst);
    let before = receiver.requests().len();
    let held = router.topics().held;
    let ends = cluster.end_offsets(&held);
    std::thread::sleep(Duration::from_secs(12));
    assert_eq!(receiver.requests().len(), before, "it was paused");
    // A probe would have come back to where it was.
    assert_eq!(cluster.end_offsets(&held), ends, "it was probed");
    router.change("wh_a", |webhook| webhook.paused = false);
    let accepted = receiver.wait_for_accepted(20, PATIENCE);
    let ids = delivery_ids(&events, "wh_a");
    assert_eq!(assert_all_arrived(&accepted, &ids), 0, "copies");
}

#[test]
fn whoever_changes_the_webhook_of_a_dead_endpoint_need_not_wait_for_the_next_probe() {
    let cluster = Cluster::named("hastened");
    let (receiver, switch) = switched(500);
    let more = "outbound.breaker_failures = 3\nretry.hold_after_seconds = 2\n";
    let router = Router::start(&cluster, &["events.job"], more);
    let fields = json!({"max_retries": 20, "retry_backoff": 1});
    router.subscribe("wh_a", &receiver.url("/"), fields);
    let events = router.produce("events.job", 0..20);
    eventually("it to be recorded as tripped", PATIENCE, || {
        (recorded(&router)?["state"] == "tripped").then_some(())
    });
    std::thread::sleep(Duration::from_secs(3));
    // The first probe is due after half a minute; what comes now is held.
    let later = router.produce("events.job", 20..25);
    eventually("something to be held", PATIENCE, || {
        (router.metric("postrider_held") >= 1.0).then_some(())
    });
    switch.store(200, Ordering::SeqCst);
    router.change("wh_a", |webhook| webhook.timeout *= 2);
    // One of them is on its way to be the next probe at the old time.
    receiver.wait_for_accepted(4, Duration::from_secs(8));
    let accepted = receiver.wait_for_accepted(25, PATIENCE);
    let ids = delivery_ids(&[events, later].concat(), "wh_a");
    assert_eq!(assert_all_arrived(&accepted, &ids), 0, "copies");
}

#[test]
fn every_instance_knows_which_endpoints_are_down_whoever_owns_them() {
    let cluster = Cluster::named("dead-fleet");
    let (receiver, switch) = switched(500);
    let mut router = Router::start(&cluster, &["events.job"], IMPATIENT);
    router.add_instance(Stages::ALL);
    let names: Vec<String> = (0..6).map(|n| format!("wh_{n}")).collect();
    for name in &names {
        let fields = json!({"max_retries": 20, "retry_backoff": 1});
        router.subscribe(name, &receiver.url(&format!("/{name}")), fields);
    }
    let events = router.produce("events.job", 0..20);
    eventually("nearly everything to be held", PATIENCE, || {
        (router.metric("postrider_held") >= 110.0).then_some(())
    });
    for app in router.apps() {
        let (_, page) = get(app.telemetry(), "/metrics");
        for name in &names {
            let state = format!("state=\"passing\",webhook=\"{name}\"}} 1");
            assert!(!page.contains(&state), "{name} passes for one of them");
        }
    }
    switch.store(200, Ordering::SeqCst);
    let accepted = receiver.wait_for_accepted(120, PATIENCE);
    let ids: Vec<String> = names
        .iter()
        .flat_map(|name| delivery_ids(&events, name))
        .collect();
    assert_eq!(assert_all_arrived(&accepted, &ids), 0, "copies");
}

#[test]
fn deliveries_that_are_too_old_do_not_stand_in_for_the_probe() {
    let cluster = Cluster::named("dead-old");
    let (receiver, _switch) = switched(500);
    let router = Router::start(&cluster, &["events.job"], IMPATIENT);
    let fields = json!({"max_retries": 20, "retry_backoff": 1});
    router.subscribe("wh_a", &receiver.url("/"), fields);
    router.produce("events.job", 0..40);
    eventually("nearly everything to be held", PATIENCE, || {
        (router.metric("postrider_held") >= 36.0).then_some(())
    });
    // None of them would be sent any more: one for each probe would take minutes to get to one that would.
    router.change("wh_a", |webhook| webhook.max_age_seconds = 1);
    eventually("them to end", Duration::from_secs(9), || {
        let expired = router.metric("postrider_dead_letters_total{reason=\"expired\"}");
        (expired >= 36.0).then_some(())
    });
}

#[test]
fn another_url_is_tried_at_once_though_the_old_one_is_down() {
    let cluster = Cluster::named("mended-url");
    let (broken, _switch) = switched(500);
    let mended = Receiver::accepting();
    // The next probe of the old one is half a minute away.
    let more = "outbound.breaker_failures = 3\n";
    let router = Router::start(&cluster, &["events.job"], more);
    let fields = json!({"max_retries": 20, "retry_backoff": 1});
    router.subscribe("wh_a", &broken.url("/"), fields);
    let events = router.produce("events.job", 0..20);
    eventually("it to be recorded as tripped", PATIENCE, || {
        (recorded(&router)?["state"] == "tripped").then_some(())
    });
    let url = mended.url("/").parse::<url::Url>().unwrap();
    router.change("wh_a", |webhook| webhook.url = url);
    // More than a probe: nothing is known of the new one.
    let later = router.produce("events.job", 20..40);
    mended.wait_for_accepted(20, Duration::from_secs(5));
    let accepted = mended.wait_for_accepted(40, PATIENCE);
    let ids = delivery_ids(&[events, later].concat(), "wh_a");
    assert_eq!(assert_all_arrived(&accepted, &ids), 0, "copies");
}
