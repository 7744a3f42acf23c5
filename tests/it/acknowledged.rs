//! What the producer says is durable is in its topic. Everything else rests on that (promises 1 and 2).

use std::collections::BTreeSet;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use postrider::kafka::producer::Producer;
use postrider::kafka::settings::Connection;
use postrider::metrics::Metrics;
use postrider::record::Outgoing;

use crate::harness::Cluster;

/// A topic that was made just now is where brokers lose idempotent records: its leader turns the first batch away, takes
/// the second, and calls the retry of the first a duplicate. About one topic in fifteen shows it on a machine that is busy.
#[test]
fn a_record_that_is_acknowledged_is_in_its_topic_even_when_the_topic_was_made_just_now() {
    const TOPICS: usize = 30;
    const RECORDS: usize = 48;
    let cluster = Cluster::named("acknowledged");
    let connection = Connection {
        bootstrap_servers: cluster.bootstrap().to_owned(),
        client_id: "test".to_owned(),
        // Several requests under way at a time, as under load.
        producer_properties: [("batch.num.messages", "1"), ("linger.ms", "0")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..Connection::default()
    };
    let metrics = Arc::new(Metrics::new().unwrap());
    let producer = Producer::start(&connection.producer(), metrics).unwrap();
    for number in 0..TOPICS {
        let topic = cluster.create_topic(&format!("new-{number}"), 8, &[]);
        let (acknowledge, acknowledged) = mpsc::channel();
        for record in 0..RECORDS {
            let acknowledge = acknowledge.clone();
            let outgoing = Outgoing {
                topic: topic.as_str().into(),
                key: Some(format!("{record}").into()),
                payload: Some("x".into()),
                headers: Vec::new(),
            };
            producer.send(
                &outgoing,
                Box::new(move |written| {
                    let _ = acknowledge.send(written.is_ok());
                }),
            );
        }
        for _ in 0..RECORDS {
            assert_eq!(acknowledged.recv_timeout(Duration::from_secs(30)), Ok(true));
        }
        let records = cluster.consume_all(&topic);
        let keys: BTreeSet<_> = records.into_iter().map(|record| record.key).collect();
        let lost = RECORDS - keys.len();
        assert_eq!(
            lost, 0,
            "{lost} records of {topic} were acknowledged and are not there"
        );
        cluster.delete_topic(&topic);
    }
}

/// A broker's limit is that of a batch: what would fit by itself is in its topic all the same.
#[test]
fn only_a_record_that_is_too_large_by_itself_is_refused() {
    const RECORDS: usize = 60;
    let cluster = Cluster::named("too-large");
    let connection = Connection {
        bootstrap_servers: cluster.bootstrap().to_owned(),
        client_id: "test".to_owned(),
        // All of them in one batch.
        producer_properties: [("linger.ms", "300")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        ..Connection::default()
    };
    let metrics = Arc::new(Metrics::new().unwrap());
    let producer = Producer::start(&connection.producer(), metrics).unwrap();
    let topic = cluster.create_topic("small", 1, &[("max.message.bytes", "2000")]);
    let (answer, answered) = mpsc::channel();
    for record in 0..RECORDS {
        let answer = answer.clone();
        // Bytes that no compression makes less; the last one is too large.
        let bytes = if record + 1 < RECORDS { 600 } else { 3000 };
        let mut payload = vec![0; bytes];
        getrandom::fill(&mut payload).unwrap();
        let outgoing = Outgoing {
            topic: topic.as_str().into(),
            key: Some(format!("{record}").into()),
            payload: Some(payload.into()),
            headers: Vec::new(),
        };
        producer.send(
            &outgoing,
            Box::new(move |written| {
                let _ = answer.send((record, written.map_err(|refused| refused.too_large)));
            }),
        );
    }
    for _ in 0..RECORDS {
        let (record, written) = answered.recv_timeout(Duration::from_secs(30)).unwrap();
        let is_last = record + 1 == RECORDS;
        assert_eq!(written.err(), is_last.then_some(true), "record {record}");
    }
    assert_eq!(cluster.consume_all(&topic).len(), RECORDS - 1);
    assert_eq!(producer.waiting(), 0);
    cluster.delete_topic(&topic);
}
