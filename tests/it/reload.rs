//! A running instance reads its configuration again on SIGHUP: what can change does, what cannot is named, and a faulty file changes
//! nothing.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use postrider::token::TokenHash;
use serde_json::json;

use crate::api::Client;
use crate::harness::{Cluster, Process, Receiver, Reply, Sent, config_text, eventually};

const SOON: Duration = Duration::from_secs(40);

/// The configuration of a cluster with the API and one token, whose text is its name.
fn config(cluster: &Cluster, token: &str, more: &str) -> String {
    let sha256 = TokenHash::of(token).to_hex();
    let more = format!(
        "web.listen = \"127.0.0.1:0\"\nweb.tokens = [{{ name = {token:?}, role = \"admin\", sha256 = {sha256:?} }}]\n{more}"
    );
    config_text(cluster, &["events.job"], &more)
}

fn client(process: &Process, token: &str) -> Client {
    let address = eventually("the API's address", SOON, || {
        let log = process.log();
        log.split("api=")
            .nth(1)?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    });
    Client::at(address, token)
}

fn wait_for_line(process: &Process, part: &str) -> String {
    eventually(part, SOON, || {
        let log = process.log();
        log.lines()
            .find(|line| line.contains(part))
            .map(str::to_owned)
    })
}

fn subscribe(client: &Client, id: &str, url: &str) {
    let webhook = json!({"id": id, "name": id, "url": url, "event_types": ["job.*"], "max_retries": 0, "timeout_seconds": 60});
    assert_eq!(client.post("/webhooks/", &webhook).status, 201);
}

const EVENT: &str = r#"{"event_type": "job.failed", "customer": 1, "job": {"id": 1}}"#;

#[test]
fn what_can_change_does_on_sighup_and_what_cannot_is_named() {
    let cluster = Cluster::named("reload");
    let source = cluster.create_topic("events.job", 1, &[]);
    let first = "outbound.breaker_failures = 1000\noutbound.breaker_probe_seconds = 3600\n";
    let mut process = Process::spawn(&config(&cluster, "prt_a", first), "");
    process.wait_until_ready();
    let (old, new) = (client(&process, "prt_a"), client(&process, "prt_b"));
    let (good, bad) = (Receiver::accepting(), Receiver::answering(500));
    subscribe(&old, "wh_good", &good.url("/"));
    subscribe(&old, "wh_bad", &bad.url("/"));
    cluster.produce(&source, &Sent::new(EVENT));
    good.wait_for(1, SOON);
    bad.wait_for(1, SOON);
    let attempts = |process: &Process| process.log().matches("outcome=\"success\"").count();
    eventually("the line of an attempt", SOON, || {
        (attempts(&process) == 1).then_some(())
    });
    assert_eq!(new.get("/webhooks/").status, 401);

    let more = "outbound.breaker_failures = 1\noutbound.breaker_probe_seconds = 3600\nlog.level = \"info,outbound=warn\"\nweb.metrics_webhooks = 7\nkafka.instance_id = \"other\"\n";
    process.reload(&config(&cluster, "prt_b", more));

    let line = wait_for_line(&process, "was read again");
    assert!(
        line.contains("log.level, outbound.breaker_failures, web.tokens"),
        "{line}"
    );
    let line = wait_for_line(&process, "need a restart");
    assert!(
        line.contains("keys=\"kafka.instance_id, web.metrics_webhooks\""),
        "{line}"
    );
    assert_eq!(new.get("/webhooks/").status, 200);
    assert_eq!(old.get("/webhooks/").status, 401);
    cluster.produce(&source, &Sent::new(EVENT));
    good.wait_for(2, SOON);
    bad.wait_for(2, SOON);
    // A warning of the same stage: it comes in spite of the level, and shows that the attempts before it would have been said.
    wait_for_line(&process, "the endpoint fails");
    assert_eq!(attempts(&process), 1, "{}", process.log());

    process.reload("retry.held_drain_per_second = \"fast\"");

    let log = eventually("the fault of the file", SOON, || {
        Some(process.log()).filter(|log| log.contains("nothing was reloaded"))
    });
    for part in [
        "retry.held_drain_per_second",
        "postrider.toml",
        "must be a whole number of deliveries",
    ] {
        assert!(log.contains(part), "{part}: {log}");
    }
    assert_eq!(new.get("/webhooks/").status, 200);
    let (status, _) = process.terminate();
    assert!(status.success());
}

#[test]
fn another_limit_of_requests_holds_for_the_lanes_that_are_open() {
    let cluster = Cluster::named("reload-limits");
    let source = cluster.create_topic("events.job", 1, &[]);
    let limited = |most| format!("outbound.shards = 1\noutbound.max_in_flight = {most}\n");
    let mut process = Process::spawn(&config(&cluster, "prt_a", &limited(1)), "");
    process.wait_until_ready();
    let receiver = Receiver::start(|_| Reply::hang());
    let client = client(&process, "prt_a");
    for id in ["wh_a", "wh_b", "wh_c"] {
        subscribe(&client, id, &receiver.url("/"));
    }
    cluster.produce(&source, &Sent::new(EVENT));
    receiver.wait_for(1, SOON);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(receiver.requests().len(), 1);

    process.reload(&config(&cluster, "prt_a", &limited(2)));

    receiver.wait_for(2, SOON);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(receiver.requests().len(), 2);
}

#[test]
fn systemd_is_told_that_a_reload_began_and_ended() {
    let cluster = Cluster::named("reload-systemd");
    cluster.create_topic("events.job", 1, &[]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let said = || {
        let mut bytes = [0; 500];
        let length = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..length]).trim().to_owned()
    };
    let text = config(&cluster, "prt_a", "");
    let process = Process::spawn_in(&text, &[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    assert_eq!(said(), "READY=1");
    for text in [text.as_str(), "not = a = file"] {
        process.reload(text);
        let began = said();
        assert!(began.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{began}");
        assert_eq!(said(), "READY=1");
    }
    drop(process);
}
