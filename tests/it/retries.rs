//! What failed is tried again when it is due and never before, what can never succeed is not, and when all attempts are spent
//! the delivery is in the dead-letter topic with everything that is known of it.

use std::collections::BTreeMap;
use std::time::Duration;

use postrider::app::Stages;
use serde_json::json;

use crate::harness::{Cluster, Receiver, Reply, Request, Router, Sent, delivery_ids};

const SOON: Duration = Duration::from_secs(30);
/// What a machine that is busy may add.
const SLACK: Duration = Duration::from_secs(3);

fn gaps(requests: &[Request]) -> Vec<Duration> {
    requests
        .windows(2)
        .map(|pair| pair[1].arrived - pair[0].arrived)
        .collect()
}

/// What the script says of the first request is answered to it, and 200 to its repetitions.
fn failing_once(first: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Receiver {
    Receiver::start(move |request| {
        if request.repeat == 0 {
            first(request)
        } else {
            Reply::ok()
        }
    })
}

#[test]
fn a_500_is_retried_at_its_due_times_and_ends_in_the_dead_letters_with_every_header() {
    let cluster = Cluster::named("exhausted");
    let receiver = Receiver::answering(500);
    let router = Router::start(&cluster, &["events.job"], "");
    router.subscribe(
        "wh_a",
        &receiver.url("/in"),
        json!({"max_retries": 3, "retry_backoff": 1}),
    );
    let topic = cluster.name("events.job");
    let body = "{ \"event_type\":\"job.failed\",\"customer\":1,\n\"n\":1.0e2 }";
    let sent = Sent::new(body)
        .key("source-key")
        .header("x-from-producer", "kept")
        .header(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
        .timestamp(1_700_000_000_123);
    let (partition, offset) = cluster.produce(&topic, &sent);

    let letter = &router.wait_for_dead_letters(1)[0];

    let requests = receiver.requests();
    let numbers: Vec<_> = requests
        .iter()
        .map(|r| r.header("x-webhook-attempt").unwrap())
        .collect();
    assert_eq!(numbers, ["1", "2", "3", "4"]);
    for (gap, due) in gaps(&requests)
        .into_iter()
        .zip([1, 2, 4].map(Duration::from_secs))
    {
        assert!(
            gap >= due,
            "early: {gap:?} after the one before, due after {due:?}"
        );
        assert!(
            gap <= due.mul_f64(1.1) + SLACK,
            "late: {gap:?}, due after {due:?}"
        );
    }
    let id = requests[0].id().unwrap();
    assert!(
        requests
            .iter()
            .all(|r| r.id() == Some(id) && r.body == body.as_bytes())
    );

    assert_eq!(letter.text(), body);
    assert_eq!(letter.key.as_deref(), Some(b"wh_a".as_slice()));
    let source = format!("{topic}/{partition}/{offset}");
    let group = format!("{}.deliver", router.config.kafka.group_id);
    for (name, value) in [
        ("postrider-delivery-id", id),
        ("postrider-webhook-id", "wh_a"),
        ("postrider-event-type", "job.failed"),
        ("postrider-attempt", "4"),
        ("postrider-reason", "exhausted"),
        ("postrider-last-status", "500"),
        ("postrider-source", &source),
        ("__dlq.errors.topic", &topic),
        ("__dlq.errors.partition", &partition.to_string()),
        ("__dlq.errors.offset", &offset.to_string()),
        ("__dlq.errors.group", &group),
        ("__dlq.errors.delivery.count", "4"),
        ("postrider-source-key", "source-key"),
        ("postrider-source-timestamp", "1700000000123"),
        ("x-from-producer", "kept"),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
    ] {
        assert_eq!(letter.header(name), Some(value), "{name}");
    }
    assert!(
        letter
            .header("__dlq.errors.message")
            .unwrap()
            .contains("500")
    );
    assert_eq!(letter.header("postrider-due"), None);
    let first: u128 = letter
        .header("postrider-first-attempt-at")
        .unwrap()
        .parse()
        .unwrap();
    let arrived = requests[0]
        .arrived_at
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis();
    assert!(
        first <= arrived && arrived - first < 2_000,
        "{first} {arrived}"
    );

    let trail = router.attempts();
    let numbers: Vec<_> = trail
        .iter()
        .map(|attempt| attempt["attempt"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    assert!(
        trail
            .iter()
            .all(|a| a["outcome"] == "server_error" && a["status"] == 500)
    );
    assert_eq!(trail[3]["ending"], "dead_lettered");
}

#[test]
fn a_status_that_no_retry_mends_is_rejected_at_once_and_every_other_is_tried_again() {
    const REJECTED: [u16; 8] = [400, 401, 403, 404, 405, 410, 413, 422];
    const RETRIED: [u16; 9] = [302, 408, 425, 429, 500, 502, 503, 504, 599];
    let cluster = Cluster::named("statuses");
    let elsewhere = Receiver::accepting();
    let target = elsewhere.url("/redirected");
    let receiver = failing_once(move |request| {
        Reply::status(request.path[1..].parse().unwrap()).header("location", &target)
    });
    let mut router = Router::idle(&cluster, &["events.job"], "");
    for status in REJECTED.iter().chain(&RETRIED) {
        router.subscribe(
            &format!("wh_{status}"),
            &receiver.url(&format!("/{status}")),
            json!({"retry_backoff": 1}),
        );
    }
    router.add_instance(Stages::ALL);
    router.produce("events.job", 0..1);

    let letters = router.wait_for_dead_letters(REJECTED.len());
    receiver.wait_for_accepted(RETRIED.len(), SOON);
    router.wait_until_idle();

    let mut seen: BTreeMap<u16, usize> = BTreeMap::new();
    for request in receiver.requests() {
        *seen.entry(request.path[1..].parse().unwrap()).or_default() += 1;
    }
    let wanted = REJECTED
        .map(|s| (s, 1))
        .into_iter()
        .chain(RETRIED.map(|s| (s, 2)));
    assert_eq!(seen, wanted.collect());
    assert_eq!(elsewhere.requests().len(), 0, "a redirect was followed");
    let mut statuses: Vec<u16> = letters
        .iter()
        .inspect(|letter| assert_eq!(letter.header("postrider-reason"), Some("rejected")))
        .map(|letter| {
            letter
                .header("postrider-last-status")
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, REJECTED);
}

#[test]
fn a_retry_after_is_waited_for_even_when_the_backoff_is_shorter() {
    let cluster = Cluster::named("retry-after");
    let receiver = failing_once(|request| {
        Reply::status(request.path[1..].parse().unwrap()).header("retry-after", "3")
    });
    let mut router = Router::idle(&cluster, &["events.job"], "");
    for status in ["429", "503"] {
        router.subscribe(
            &format!("wh_{status}"),
            &receiver.url(&format!("/{status}")),
            json!({"retry_backoff": 1}),
        );
    }
    router.add_instance(Stages::ALL);
    router.produce("events.job", 0..1);
    let requests = receiver.wait_for(4, SOON);
    for path in ["/429", "/503"] {
        let of_path: Vec<_> = requests
            .iter()
            .filter(|r| r.path == path)
            .cloned()
            .collect();
        let gap = gaps(&of_path)[0];
        assert!(
            gap >= Duration::from_secs(3),
            "{path}: early, after {gap:?}"
        );
        assert!(
            gap <= Duration::from_secs(3) + SLACK,
            "{path}: late, after {gap:?}"
        );
    }
}

#[test]
fn a_receiver_that_cannot_be_reached_or_says_nothing_is_tried_again_until_all_attempts_are_spent() {
    let cluster = Cluster::named("unreachable");
    let silent = Receiver::start(|_| Reply::hang());
    let gone = Receiver::accepting();
    let nobody = gone.url("/");
    drop(gone);
    let mut router = Router::idle(&cluster, &["events.job"], "");
    let fields = json!({"max_retries": 1, "retry_backoff": 1, "timeout_seconds": 0.5});
    router.subscribe("wh_silent", &silent.url("/"), fields.clone());
    router.subscribe("wh_nobody", &nobody, fields);
    router.add_instance(Stages::ALL);
    let events = router.produce("events.job", 0..1);

    let letters = router.wait_for_dead_letters(2);

    assert_eq!(silent.requests().len(), 2);
    for letter in &letters {
        assert_eq!(letter.header("postrider-reason"), Some("exhausted"));
        assert_eq!(letter.header("postrider-last-status"), None);
    }
    let outcomes = |webhook| {
        let id = &delivery_ids(&events, webhook)[0];
        let trail = router.attempts();
        let of_delivery = trail
            .iter()
            .filter(|attempt| attempt["delivery_id"] == id.as_str());
        of_delivery
            .map(|attempt| attempt["outcome"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(outcomes("wh_silent"), ["timeout", "timeout"]);
    assert_eq!(outcomes("wh_nobody"), ["connect", "connect"]);
}
