//! What operators and orchestrators see: health, metrics, and a start that says what is missing.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::{
    Cluster, Process, Receiver, Reply, Router, config_text, eventually, get, run_to_its_end,
};

const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_router_tells_that_it_lives_whether_it_is_ready_and_what_it_counted() {
    let cluster = Cluster::named("health");
    let receiver = Receiver::accepting();
    let router = Router::start(&cluster, &["events.job"], "");
    router.subscribe("wh_a", &receiver.url("/"), json!({}));
    router.produce("events.job", 0..3);
    receiver.wait_for(3, SOON);
    router.wait_until_idle();
    let address = router.app().telemetry();

    assert_eq!(get(address, "/livez").0, 200);
    assert_eq!(get(address, "/readyz"), (200, "ready\n".to_owned()));
    let (status, verbose) = get(address, "/readyz?verbose");
    assert_eq!(status, 200);
    for part in [
        "running",
        "catalog: 1 webhooks",
        "producer",
        "route",
        "deliver",
        "release",
    ] {
        assert!(
            verbose.contains(&format!("[+] {part}")),
            "{part}: {verbose}"
        );
    }
    assert_eq!(get(address, "/else").0, 404);
    let (status, metrics) = get(address, "/metrics");
    assert_eq!(status, 200);
    let topic = cluster.name("events.job");
    for line in [
        format!("postrider_events_consumed_total{{topic=\"{topic}\"}} 3"),
        format!("postrider_events_matched_total{{topic=\"{topic}\"}} 3"),
        "postrider_deliveries_created_total 3".to_owned(),
        "postrider_attempts_total{outcome=\"success\"} 3".to_owned(),
        "postrider_deliveries_total{ending=\"delivered\"} 3".to_owned(),
        "postrider_webhook_attempts_total{outcome=\"success\",webhook=\"wh_a\"} 3".to_owned(),
        "postrider_attempt_duration_seconds_count 3".to_owned(),
        "postrider_end_to_end_seconds_count 3".to_owned(),
        "postrider_in_flight_requests 0".to_owned(),
        "postrider_ledger_open{stage=\"deliver\"} 0".to_owned(),
        format!(
            "postrider_build_info{{version=\"{}\"}} 1",
            env!("CARGO_PKG_VERSION")
        ),
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "no {line}\n{metrics}"
        );
    }
}

#[test]
fn while_it_drains_a_process_lives_is_not_ready_and_finishes_what_is_under_way() {
    let cluster = Cluster::named("draining");
    let receiver = Receiver::start(|_| Reply::ok().after(Duration::from_secs(3)));
    let router = Router::idle(&cluster, &["events.job"], "");
    router.subscribe("wh_a", &receiver.url("/"), json!({}));
    let process = Process::start(router.config_text());
    let address = process.telemetry();
    router.produce("events.job", 0..5);
    receiver.wait_for(5, SOON);

    process.signal(Signal::SIGTERM);

    let body = eventually("not to be ready", Duration::from_secs(2), || {
        let (status, body) = get(address, "/readyz");
        (status == 503).then_some(body)
    });
    assert!(body.contains("[-] running: stopping"), "{body}");
    assert_eq!(get(address, "/livez").0, 200);
    let (status, took) = process.terminate();
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(receiver.accepted().len(), 5);
}

#[test]
fn a_router_that_may_not_create_topics_names_those_that_are_missing_and_does_not_start() {
    let cluster = Cluster::named("no-topics");
    cluster.create_topic("events.job", 1, &[]);
    let config = config_text(&cluster, &["events.job"], "kafka.create_topics = false\n");
    let output = run_to_its_end(&config);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    for name in [
        "subscriptions",
        "dispatch",
        "delay.15s",
        "delay.256m",
        "held",
        "dead-letters",
        "attempts",
        "alerts",
        "audit",
        "replays",
    ] {
        let topic = cluster.name(&format!("postrider.{name}"));
        let command = said
            .lines()
            .find(|line| line.contains(&format!("--topic {topic} ")));
        let command = command.unwrap_or_else(|| panic!("no command for {topic}: {said}"));
        assert!(
            command.contains("kafka-topics") && command.contains("--create"),
            "{command}"
        );
    }
    assert!(said.contains("postrider topics apply"), "{said}");
    assert_eq!(cluster.topics(), [cluster.name("events.job")]);
}

#[test]
fn a_broker_that_does_not_answer_is_named_with_what_to_check() {
    let cluster = Cluster::named("no-broker");
    let config = config_text(
        &cluster,
        &["events.job"],
        "kafka.bootstrap_servers = \"127.0.0.1:1\"\n",
    );
    let output = run_to_its_end(&config);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("127.0.0.1:1") && said.contains("kafka.bootstrap_servers"),
        "{said}"
    );
}
