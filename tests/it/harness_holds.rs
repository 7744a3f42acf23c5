//! The test ground itself, tested: a harness that loses a byte would find faults where there are none, or none where
//! there are.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::harness::{Cluster, OwnBroker, Receiver, Reply, Sent, raw, read_request};

const SOON: Duration = Duration::from_secs(10);

/// One HTTP/1.1 exchange on a connection of its own, by hand: the answer as text, `None` when none came in time.
fn exchange(receiver: &str, request: &[u8], timeout: Duration) -> Option<String> {
    let mut stream = TcpStream::connect(receiver).unwrap();
    stream.set_read_timeout(Some(timeout)).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    (!answer.is_empty()).then(|| String::from_utf8_lossy(&answer).into_owned())
}

fn post(receiver: &Receiver, path: &str, id: &str, body: &[u8]) -> Option<String> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nwebhook-id: {id}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    exchange(
        &receiver.address().to_string(),
        &[head.as_bytes(), body].concat(),
        Duration::from_millis(1500),
    )
}

#[test]
fn what_is_produced_is_consumed_with_the_same_bytes_keys_and_headers() {
    let cluster = Cluster::named("same-bytes");
    // One of the records is older than any retention.
    let configs = [("max.message.bytes", "2000000"), ("retention.ms", "-1")];
    let topic = cluster.create_topic("events", 3, &configs);
    let every_byte: Vec<u8> = (0..=255).collect();
    let mut sent = vec![
        Sent::new(every_byte.clone())
            .key(every_byte.clone())
            .partition(2)
            .header("b", every_byte)
            .header("a", "1"),
        Sent::new("")
            .key("")
            .partition(1)
            .header("twice", "1")
            .header("twice", "2")
            .timestamp(1_700_000_000_123),
        Sent::tombstone("gone").partition(0),
        Sent::new(vec![b'x'; 1_500_000]).partition(0),
    ];
    sent[2].headers.push(("null".to_owned(), None));

    let placed = cluster.produce_all(&topic, &sent);
    let records = cluster.consume_all(&topic);

    assert_eq!(placed, [(2, 0), (1, 0), (0, 0), (0, 1)]);
    assert_eq!(records.len(), sent.len());
    for (sent, (partition, offset)) in sent.iter().zip(placed) {
        let record = records
            .iter()
            .find(|record| (record.partition, record.offset) == (partition, offset))
            .unwrap();
        assert_eq!(record.key, sent.key);
        assert_eq!(record.payload, sent.payload);
        assert_eq!(record.headers, sent.headers);
        assert!(
            sent.timestamp
                .is_none_or(|sent| record.timestamp == Some(sent))
        );
    }
    assert_eq!(records[2].header("twice"), Some("2"));
    assert_eq!(cluster.end_offsets(&topic), [(0, 2), (1, 1), (2, 1)].into());
}

#[test]
fn a_record_beyond_the_topics_limit_is_refused_and_the_test_told() {
    let cluster = Cluster::named("refused");
    let topic = cluster.create_topic("events", 1, &[]);
    let produced = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        cluster.produce(&topic, &Sent::new(vec![0; 2_000_000]));
    }));
    let message = *produced.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("MessageSizeTooLarge"), "{message}");
}

#[test]
fn an_empty_topic_is_read_to_its_end_and_a_group_without_commits_has_none() {
    let cluster = Cluster::named("empty");
    let topic = cluster.create_topic("events", 2, &[]);
    assert_eq!(cluster.consume_all(&topic), []);
    assert_eq!(
        cluster.committed(&cluster.name("group"), &topic),
        [(0, None), (1, None)].into()
    );
}

#[test]
fn a_commit_is_seen_from_outside() {
    use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
    use rdkafka::{ClientConfig, Offset, TopicPartitionList};
    let cluster = Cluster::named("commit");
    let topic = cluster.create_topic("events", 2, &[]);
    cluster.produce_all(
        &topic,
        &["a", "b", "c"].map(|payload| Sent::new(payload).partition(1)),
    );
    let group = cluster.name("group");
    let mut config = ClientConfig::new();
    let consumer: BaseConsumer = config
        .set("bootstrap.servers", cluster.bootstrap())
        .set("group.id", &group)
        .create()
        .unwrap();
    let mut next = TopicPartitionList::new();
    next.add_partition_offset(&topic, 1, Offset::Offset(2))
        .unwrap();
    consumer.commit(&next, CommitMode::Sync).unwrap();
    assert_eq!(
        cluster.committed(&group, &topic),
        [(0, None), (1, Some(2))].into()
    );
}

#[test]
fn a_cluster_takes_its_topics_with_it_and_no_others() {
    let (stays, goes) = (Cluster::named("corner"), Cluster::named("corner"));
    let topic = stays.create_topic("events", 1, &[]);
    goes.create_topic("events", 1, &[]);
    let prefix = goes.prefix().to_owned();
    drop(goes);
    assert_eq!(stays.topics(), [topic]);
    crate::harness::eventually("its topics are gone", SOON, || {
        (!stays
            .all_topics()
            .iter()
            .any(|topic| topic.starts_with(&prefix)))
        .then_some(())
    });
}

#[test]
fn a_receiver_logs_what_it_got_and_answers_as_its_script_says() {
    let receiver = Receiver::start(|request| match (request.path.as_str(), request.repeat) {
        ("/flaky", 0) => Reply::status(503).header("retry-after", "7").body("later"),
        ("/slow", _) => Reply::ok().after(Duration::from_millis(300)),
        ("/silent", _) => Reply::hang(),
        _ => Reply::status(204),
    });
    let before = Instant::now();

    let first = post(&receiver, "/flaky", "msg_1", b"{\"n\": 1.0}").unwrap();
    let second = post(&receiver, "/flaky", "msg_1", b"\0\xff").unwrap();
    let slow = post(&receiver, "/slow", "msg_2", &vec![b'x'; 3_000_000]).unwrap();
    let silent = post(&receiver, "/silent", "msg_3", b"");

    assert!(
        first.starts_with("HTTP/1.1 503")
            && first.contains("retry-after: 7")
            && first.ends_with("later"),
        "{first}"
    );
    assert!(second.starts_with("HTTP/1.1 204"), "{second}");
    assert!(slow.starts_with("HTTP/1.1 200"), "{slow}");
    assert_eq!(silent, None);
    let requests = receiver.wait_for(4, SOON);
    let seen: Vec<_> = requests
        .iter()
        .map(|request| (request.index, request.repeat, request.replied))
        .collect();
    assert_eq!(
        seen,
        [
            (0, 0, Some(503)),
            (1, 1, Some(204)),
            (2, 0, Some(200)),
            (3, 0, None)
        ]
    );
    assert_eq!(requests[0].body, &b"{\"n\": 1.0}"[..]);
    assert_eq!(requests[1].body, &b"\0\xff"[..]);
    assert_eq!(requests[2].body.len(), 3_000_000);
    assert_eq!(requests[0].method, "POST");
    assert_eq!(requests[0].id(), Some("msg_1"));
    assert!(requests[0].arrived >= before && requests[1].arrived > requests[0].arrived);
    assert_eq!(receiver.accepted().len(), 2);
    assert_eq!(receiver.wait_for_accepted(2, SOON)[1].path, "/slow");
}

#[test]
fn a_receiver_that_waits_in_vain_tells_what_it_got() {
    let receiver = Receiver::answering(500);
    post(&receiver, "/only?one=1", "msg_1", b"");
    let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        receiver.wait_for(2, Duration::from_millis(100));
    }));
    let message = *waited.unwrap_err().downcast::<String>().unwrap();
    assert!(
        message.contains("2 requests")
            && message.contains("/only?one=1")
            && message.contains("500"),
        "{message}"
    );
}

#[test]
fn a_receiver_that_is_dropped_is_gone_even_in_the_middle_of_a_reply() {
    let receiver = Receiver::start(|_| Reply::hang());
    let address = receiver.address();
    let waiting = std::thread::spawn({
        let address = address.to_string();
        move || exchange(&address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", SOON)
    });
    receiver.wait_for(1, SOON);
    let started = Instant::now();
    drop(receiver);
    assert_eq!(waiting.join().unwrap(), None);
    assert!(started.elapsed() < Duration::from_secs(2));
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_raw_receiver_says_what_it_likes_and_ends_when_dropped() {
    let receiver = raw(|mut stream| {
        let request = read_request(&mut stream);
        let _ = stream.write_all(format!("HTTP/1.1 {} half", request.len()).as_bytes());
    });
    let request = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc";
    let answer = exchange(&receiver.address().to_string(), request, SOON).unwrap();
    assert_eq!(answer, format!("HTTP/1.1 {} half", request.len()));
    assert_eq!(receiver.connections(), 1);

    let silent = raw(|mut stream| drop(stream.read_to_end(&mut Vec::new())));
    let address = silent.address();
    let mut client = TcpStream::connect(address).unwrap();
    crate::harness::eventually("it was accepted", SOON, || {
        (silent.connections() == 1).then_some(())
    });
    drop(silent);
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn a_broker_that_is_killed_or_stopped_comes_back_with_the_same_data_on_the_same_address() {
    let broker = OwnBroker::start();
    let cluster = Cluster::at(broker.bootstrap(), "comes-back");
    let topic = cluster.create_topic("events", 2, &[]);
    cluster.produce_all(
        &topic,
        &["a", "b", "c"].map(|payload| Sent::new(payload).key(payload)),
    );
    let before = cluster.consume_all(&topic);
    assert_eq!(before.len(), 3);

    broker.kill();
    assert!(
        TcpStream::connect(broker.bootstrap()).is_err(),
        "it was killed"
    );
    broker.restart();
    assert_eq!(cluster.consume_all(&topic), before);

    broker.stop();
    assert!(
        TcpStream::connect(broker.bootstrap()).is_err(),
        "it was stopped"
    );
    broker.restart();
    cluster.produce(&topic, &Sent::new("d"));
    assert_eq!(cluster.consume_all(&topic).len(), 4);
}
