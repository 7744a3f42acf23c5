//! A topic that was deleted and made anew under its name is read from its first record, whatever was read of the one before
//! (promise 1).

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{ClientConfig, TopicPartitionList};
use serde_json::{Value, json};

use crate::harness::{Cluster, Process, Receiver, Router};

const PATIENCE: Duration = Duration::from_secs(60);

/// What a running client has read of the old topic is as long as the new one: the lengths tell nothing.
#[test]
fn a_dispatch_topic_made_anew_under_a_running_router_is_read_whole() {
    let cluster = Cluster::named("renewed-dispatch");
    let receiver = Receiver::accepting();
    let router = Router::start(&cluster, &["events.job"], "");
    router.subscribe("wh_a", &receiver.url("/"), json!({}));
    router.produce("events.job", 0..20);
    receiver.wait_for_deliveries(20, PATIENCE);
    router.wait_until_idle();

    for round in 1..=2 {
        cluster.delete_topic(&router.topics().dispatch);
        cluster.create_topic("postrider.dispatch", 6, &[]);
        router.produce("events.job", round * 20..(round + 1) * 20);
        receiver.wait_for_deliveries((round + 1) * 20, PATIENCE);
        router.wait_until_idle();
    }
}

/// The broker forgets what was committed of a topic that is deleted, but a member that has not noticed may commit after that.
#[test]
fn a_commit_that_outlived_its_topic_is_not_believed() {
    let cluster = Cluster::named("renewed-source");
    let receiver = Receiver::accepting();
    let mut router = Router::idle(&cluster, &["events.job"], "");
    // A delivery's id is that of the place of its event, and the places of the new topic are those of the old one.
    router.leaves_work();
    router.subscribe("wh_a", &receiver.url("/"), json!({}));
    let process = Process::start(router.config_text());
    router.produce("events.job", 0..20);
    receiver.wait_for_accepted(20, PATIENCE);
    router.wait_until_idle();
    process.terminate();

    let topic = cluster.name("events.job");
    let member: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", cluster.bootstrap())
        .set(
            "group.id",
            format!("{}.route", router.config.kafka.group_id),
        )
        .create()
        .unwrap();
    let mut places = TopicPartitionList::new();
    places.add_partition_range(&topic, 0, 2);
    let committed = member.committed_offsets(places, PATIENCE).unwrap();
    cluster.delete_topic(&topic);
    cluster.create_topic("events.job", 3, &[]);
    router.produce("events.job", 20..60);
    member.commit(&committed, CommitMode::Sync).unwrap();
    drop(member);

    let process = Process::start(router.config_text());
    receiver.wait_for_accepted(60, PATIENCE);
    let mut numbers: Vec<u64> = receiver
        .accepted()
        .iter()
        .map(|request| {
            let event: Value = serde_json::from_slice(&request.body).unwrap();
            event["n"].as_u64().unwrap()
        })
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (0..60).collect::<Vec<u64>>());
    router.wait_until_idle();
    assert!(process.log().contains("made anew since it was read"));
    process.terminate();
}
