//! `check` finds what would keep the router from its work, names the cure, and changes nothing.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Output, Setting};
use crate::harness::{Cluster, config_text};

fn check(setting: &Setting) -> (Output, Vec<Value>) {
    let output = setting.run(&["check", "--output", "json"]);
    let lines = serde_json::from_str(&output.stdout).unwrap();
    (output, lines)
}

fn line<'a>(lines: &'a [Value], check: &str) -> (&'a str, &'a str) {
    let found = lines.iter().find(|line| line["check"] == check);
    let found = found.unwrap_or_else(|| panic!("no line on {check}: {lines:?}"));
    (
        found["state"].as_str().unwrap(),
        found["detail"].as_str().unwrap(),
    )
}

#[test]
fn a_cluster_in_order_passes_and_a_new_one_gets_warnings_but_no_topics() {
    let cluster = Cluster::named("check");
    let setting = Setting::of(&config_text(&cluster, &["events.job"], ""));

    let (output, lines) = check(&setting);
    assert_eq!(output.code, 0, "{}", output.stderr);
    assert_eq!(line(&lines, "topics").0, "warning");
    assert!(line(&lines, "topics").1.starts_with("19 of 19 are missing"));
    assert_eq!(line(&lines, "sources").0, "warning");
    assert!(
        line(&lines, "sources")
            .1
            .contains(&cluster.name("events.job"))
    );
    assert_eq!(cluster.topics(), Vec::<String>::new());

    cluster.create_topic("events.job", 1, &[]);
    assert_eq!(setting.run(&["topics", "apply"]).code, 0);
    let (output, lines) = check(&setting);
    assert_eq!(output.code, 0, "{}", output.stderr);
    let checks: Vec<&str> = lines
        .iter()
        .map(|line| line["check"].as_str().unwrap())
        .collect();
    assert_eq!(
        checks,
        [
            "configuration",
            "telemetry",
            "certificates",
            "broker",
            "topics",
            "sources",
            "rights",
            "key",
            "catalog"
        ]
    );
    let states = lines.iter().filter(|line| line["state"] == "ok").count();
    assert_eq!(states, checks.len(), "{lines:?}");
    let text = setting.run(&["check"]).stdout;
    assert_eq!(text.lines().count(), checks.len());
    assert!(text.lines().all(|line| line.starts_with("ok ")), "{text}");
}

#[test]
fn a_missing_topic_that_may_not_be_created_is_wrong() {
    let cluster = Cluster::named("check-topics");
    let text = config_text(&cluster, &["events.job"], "kafka.create_topics = false");
    let (output, lines) = check(&Setting::of(&text));
    assert_eq!(output.code, 1);
    assert_eq!(line(&lines, "topics").0, "wrong");
}

#[test]
fn a_key_that_does_not_open_the_catalog_is_wrong() {
    let cluster = Cluster::named("check-key");
    let text = config_text(&cluster, &["events.job"], "");
    let setting = Setting::of(&text);
    assert_eq!(setting.run(&["topics", "apply"]).code, 0);
    let file = setting.file(
        "webhooks.yaml",
        b"webhooks:\n  - {name: a, url: 'https://example.com/', event_types: ['*'], secret: generate}\n",
    );
    assert_eq!(
        setting.run(&["subscriptions", "apply", "-f", &file]).code,
        0
    );
    assert_eq!(line(&check(&setting).1, "catalog").0, "ok");

    let key_line = text
        .lines()
        .find(|line| line.starts_with("secrets.key"))
        .unwrap();
    let without = Setting::of(&text.replace(key_line, ""));
    let (output, lines) = check(&without);
    assert_eq!(output.code, 1);
    assert_eq!(line(&lines, "key").0, "warning");
    assert_eq!(line(&lines, "catalog").0, "wrong");
    assert!(line(&lines, "catalog").1.contains("POSTRIDER_SECRET_KEY"));

    let other = "secrets.key = \"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\"";
    let (output, lines) = check(&Setting::of(&text.replace(key_line, other)));
    assert_eq!(output.code, 1);
    assert!(
        line(&lines, "catalog").1.contains("the key given is"),
        "{lines:?}"
    );

    let no_key = Setting::of(&text.replace(key_line, "secrets.key = \"abc\""));
    assert_eq!(line(&check(&no_key).1, "key").0, "wrong");
}

#[test]
fn a_telemetry_address_in_use_by_a_stranger_is_wrong() {
    let cluster = Cluster::named("check-telemetry");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let text = config_text(&cluster, &["events.job"], "").replace(
        "web.telemetry_listen = \"127.0.0.1:0\"",
        &format!("web.telemetry_listen = \"{}\"", taken.local_addr().unwrap()),
    );
    let (output, lines) = check(&Setting::of(&text));
    assert_eq!(output.code, 1);
    assert_eq!(line(&lines, "telemetry").0, "wrong");
    assert!(
        output.stderr.contains("wrong: telemetry"),
        "{}",
        output.stderr
    );
}

#[test]
fn an_unreachable_broker_is_one_clear_line_within_ten_seconds() {
    let setting = Setting::of(
        "kafka.bootstrap_servers = \"127.0.0.1:1\"\nweb.telemetry_listen = \"127.0.0.1:0\"\n",
    );
    let asked = Instant::now();
    let output = setting.run(&["check"]);
    assert!(
        asked.elapsed() < Duration::from_secs(11),
        "{:?}",
        asked.elapsed()
    );
    assert_eq!(output.code, 1);
    let lines: Vec<&str> = output
        .stdout
        .lines()
        .filter(|line| line.starts_with("wrong"))
        .collect();
    assert_eq!(lines.len(), 1, "{}", output.stdout);
    assert!(
        lines[0].contains("127.0.0.1:1 does not answer"),
        "{}",
        lines[0]
    );
    assert!(lines[0].contains("Connection refused"), "{}", lines[0]);
    assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
}

#[test]
fn a_tls_file_that_is_not_there_and_an_unknown_key_get_one_message_each() {
    let tls = "[kafka.properties]\n\"security.protocol\" = \"ssl\"\n\"ssl.ca.location\" = \"/no/such/ca.pem\"\n";
    for arguments in [
        &["check"][..],
        &["topics", "plan"],
        &["subscriptions", "list"],
    ] {
        let output = Setting::of(tls).run(arguments);
        assert_eq!(output.code, 1);
        let said = format!("{}{}", output.stdout, output.stderr);
        assert!(
            said.contains("ssl.ca.location: /no/such/ca.pem cannot be read"),
            "{arguments:?}: {said}"
        );
    }
    let output = Setting::of("[kafka]\nbootstrap_server = \"a:1\"\n").run(&["check"]);
    assert_eq!(output.code, 1);
    assert!(
        output.stdout.starts_with("wrong    configuration"),
        "{}",
        output.stdout
    );
    assert!(
        output.stdout.contains("did you mean `bootstrap_servers`?"),
        "{}",
        output.stdout
    );
}
