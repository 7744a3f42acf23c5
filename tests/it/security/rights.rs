//! The rights of deploy/ACLS.md are enough, each of them is needed, and `check` names the one that is missing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Doors;
use super::admin::{Operation, Right};
use crate::commands::Setting;
use crate::harness::{Cluster, Process, Receiver, Reply, Sent, eventually};

const PATIENCE: Duration = Duration::from_secs(60);

const READ: Operation = Operation::RD_KAFKA_ACL_OPERATION_READ;
const WRITE: Operation = Operation::RD_KAFKA_ACL_OPERATION_WRITE;
const DESCRIBE: Operation = Operation::RD_KAFKA_ACL_OPERATION_DESCRIBE;
const CONFIGS: Operation = Operation::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS;

/// The table of deploy/ACLS.md, for topics that are there.
pub fn everything(cluster: &Cluster) -> Vec<Right> {
    let own = [
        "subscriptions",
        "dispatch",
        "held",
        "dead-letters",
        "attempts",
        "replays",
    ];
    let delays = [
        "15s", "30s", "1m", "2m", "4m", "8m", "16m", "32m", "64m", "128m", "256m",
    ];
    let mut rights = Vec::new();
    let mut add = |kind, name: String, operations: &[Operation]| {
        for operation in operations {
            rights.push(Right {
                operation: *operation,
                kind,
                name: cluster.name(&name),
            });
        }
    };
    add("topic", "events.job".to_owned(), &[READ, CONFIGS]);
    for name in own {
        add(
            "topic",
            format!("postrider.{name}"),
            &[READ, WRITE, CONFIGS],
        );
    }
    for rung in delays {
        add(
            "topic",
            format!("postrider.delay.{rung}"),
            &[READ, WRITE, CONFIGS],
        );
    }
    for name in ["alerts", "audit"] {
        add("topic", format!("postrider.{name}"), &[WRITE, CONFIGS]);
    }
    for stage in ["route", "deliver", "release", "held", "replays"] {
        add("group", format!("postrider.{stage}"), &[READ]);
    }
    add("group", "postrider.none".to_owned(), &[DESCRIBE]);
    rights
}

#[test]
fn check_names_each_right_that_is_missing_and_the_command_that_grants_it() {
    let doors = Doors::open("rights");
    doors.cluster.create_topic("events.job", 1, &[]);
    let all = everything(&doors.cluster);
    let setting = Setting::of(&doors.config(doors.cluster.bootstrap(), &[], ""));
    assert_eq!(setting.run(&["topics", "apply"]).code, 0);
    let removed: Vec<&Right> = all
        .iter()
        .filter(|right| !right.name.contains("delay.") || right.name.ends_with(".1m"))
        .collect();
    assert_eq!(removed.len(), 2 + 6 * 3 + 3 + 2 * 2 + 5 + 1);
    let mut users = Vec::new();
    for (number, without) in removed.into_iter().enumerate() {
        let user = format!("without-{number}");
        doors.admin.add_user(&user, "scram-secret");
        let rest: Vec<Right> = all
            .iter()
            .filter(|right| *right != without)
            .cloned()
            .collect();
        doors.admin.grant(&format!("User:{user}"), &rest);
        let config = doors.by_scram(&user, "scram-secret");
        users.push((user, without, config));
    }
    std::thread::scope(|scope| {
        for some in users.chunks(users.len().div_ceil(4)) {
            scope.spawn(|| {
                some.iter()
                    .for_each(|(user, without, config)| assert_named(user, without, config))
            });
        }
    });
}

/// The check of a user who lacks one right tells that, its command, and nothing else.
fn assert_named(user: &str, without: &Right, config: &str) {
    let output = Setting::of(config).run(&["check"]);
    let told: Vec<&str> = output
        .stdout
        .lines()
        .filter(|line| !line.starts_with("ok"))
        .collect();
    let operation = match without.operation {
        READ => "Read",
        WRITE => "Write",
        DESCRIBE => "Describe",
        _ => "DescribeConfigs",
    };
    assert_eq!(told.len(), 1, "{without:?}: {}", output.stdout);
    assert_eq!(output.code, i32::from(operation != "DescribeConfigs"));
    let command = format!(
        "--add --allow-principal User:{user} --operation {operation} --{} {}",
        without.kind, without.name
    );
    assert!(told[0].ends_with(&command), "{without:?}: {}", told[0]);
}

#[test]
fn the_rights_of_the_table_are_enough_for_every_stage_and_command() {
    let doors = Doors::open("enough");
    doors.admin.add_user("just", "scram-secret");
    doors.admin.grant("User:just", &everything(&doors.cluster));
    doors.cluster.create_topic("events.job", 1, &[]);
    // Who may do everything makes the topics.
    let open = doors.config(doors.cluster.bootstrap(), &[], "");
    assert_eq!(Setting::of(&open).run(&["topics", "apply"]).code, 0);

    let broken = Arc::new(AtomicBool::new(true));
    let state = Arc::clone(&broken);
    let receiver = Receiver::start(move |_| {
        Reply::status(if state.load(Ordering::SeqCst) {
            500
        } else {
            200
        })
    });
    let config = doors.by_scram("just", "scram-secret");
    let setting = Setting::of(&config);
    let webhooks = setting.file(
        "webhooks.yaml",
        format!(
            "webhooks:\n  - {{id: wh_just, name: a, customer: 1, url: '{}', event_types: ['*'], max_retries: 1, retry_backoff: 1}}\n",
            receiver.url("/")
        )
        .as_bytes(),
    );
    let applied = setting.run(&["subscriptions", "apply", "-f", &webhooks]);
    assert_eq!(applied.code, 0, "{}", applied.stderr);
    let process = Process::start(&config);
    doors.cluster.produce(
        &doors.cluster.name("events.job"),
        &Sent::new(r#"{"event_type": "job.created", "customer": 1, "job": {}}"#),
    );
    // Routed, tried, released, tried again, and dead.
    receiver.wait_for(2, PATIENCE);
    let letters = eventually("the dead letter", PATIENCE, || {
        let letters = setting.json(&["dead-letters", "list"]);
        (letters["total"] == 1).then_some(letters)
    });
    assert_eq!(letters["by_reason"]["exhausted"], 1);
    broken.store(false, Ordering::SeqCst);
    let replayed = setting.run(&["dead-letters", "replay", "--yes"]);
    assert_eq!(replayed.code, 0, "{}{}", replayed.stdout, replayed.stderr);
    receiver.wait_for_accepted(1, PATIENCE);
    for command in [
        &["subscriptions", "list"][..],
        &["subscriptions", "pause", "wh_just"],
        &["subscriptions", "resume", "wh_just"],
        &["topics", "plan"],
        &["check"],
    ] {
        let output = setting.run(command);
        assert_eq!(
            output.code, 0,
            "{command:?}: {}{}",
            output.stdout, output.stderr
        );
    }
    let log = process.log();
    assert!(!log.to_lowercase().contains("authorization"), "{log}");
    assert!(process.terminate().0.success());
}
