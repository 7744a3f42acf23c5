//! The topics that are needed are shown, created, and never changed.

use serde_json::Value;

use super::Setting;
use crate::harness::{Cluster, config_text};

fn states(list: &Value) -> Vec<(String, String)> {
    let list = list.as_array().unwrap().iter();
    list.map(|topic| {
        let text = |field: &str| topic[field].as_str().unwrap().to_owned();
        (text("topic"), text("state"))
    })
    .collect()
}

#[test]
fn what_is_missing_is_shown_and_then_created_once() {
    let cluster = Cluster::named("topics-apply");
    let setting = Setting::of(&config_text(&cluster, &["events.job"], ""));

    let planned = states(&setting.json(&["topics", "plan"]));
    assert_eq!(planned.len(), 19);
    assert!(planned.iter().all(|(_, state)| state == "missing"));
    let text = setting.run(&["topics", "plan"]);
    assert!(
        text.stdout.contains("19 of 19 topics are missing"),
        "{}",
        text.stdout
    );
    let commands = setting.run(&["topics", "plan", "--commands"]);
    assert_eq!(commands.stdout.lines().count(), 19);
    assert!(
        commands
            .stdout
            .lines()
            .all(|line| line.starts_with("kafka-topics.sh --bootstrap-server"))
    );
    assert_eq!(cluster.topics(), Vec::<String>::new());

    let created = setting.run(&["topics", "apply"]);
    assert_eq!(created.code, 0, "{}", created.stderr);
    assert!(
        created.stdout.ends_with("19 created, 0 were there\n"),
        "{}",
        created.stdout
    );
    let mut names: Vec<String> = planned.into_iter().map(|(topic, _)| topic).collect();
    names.sort();
    assert_eq!(cluster.topics(), names);

    let again = states(&setting.json(&["topics", "apply"]));
    assert_eq!(again.len(), 19);
    assert!(again.iter().all(|(_, state)| state == "good"), "{again:?}");
}

#[test]
fn a_topic_that_differs_is_left_alone_and_the_command_that_changes_it_is_shown() {
    let cluster = Cluster::named("topics-differ");
    let setting = Setting::of(&config_text(&cluster, &["events.job"], ""));
    let dispatch = cluster.create_topic("postrider.dispatch", 2, &[("retention.ms", "1000")]);

    let applied = setting.run(&["topics", "apply"]);
    assert_eq!(applied.code, 0, "{}", applied.stderr);
    for text in [
        "18 created, 1 were there".to_owned(),
        format!("{dispatch} is not as planned:"),
        "retention.ms is 1000, planned 604800000".to_owned(),
        "partitions is 2, planned 6".to_owned(),
        format!("--entity-name {dispatch} --add-config "),
        format!("--alter --topic {dispatch} --partitions 6"),
    ] {
        assert!(applied.stdout.contains(&text), "{text}: {}", applied.stdout);
    }
    let planned = setting.json(&["topics", "plan"]);
    let found = planned
        .as_array()
        .unwrap()
        .iter()
        .find(|topic| topic["topic"] == dispatch.as_str());
    let found = found.unwrap();
    assert_eq!(found["state"], "differs");
    let retention = found["differences"]
        .as_array()
        .unwrap()
        .iter()
        .find(|difference| difference["setting"] == "retention.ms");
    assert_eq!(retention.unwrap()["found"], "1000");
    assert_eq!(cluster.end_offsets(&dispatch).len(), 2);
}
