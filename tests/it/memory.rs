//! Memory is bounded by configuration, never by how much waits (promise 6).

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Cluster, Receiver, Reply, Router, Sent, assert_all_arrived, delivery_ids};
use postrider::record::Source;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn at_the_byte_budget_reading_waits_and_lag_grows_and_nothing_else_breaks() {
    const EVENTS: usize = 60;
    const BODY: usize = 100_000;
    const BUDGET: usize = 1_048_576;
    let cluster = Cluster::named("budget");
    // Slow, but nothing comes so late that the lane gives it back: the budget is what bounds it.
    let receiver = Receiver::start(|_| Reply::ok().after(Duration::from_millis(100)));
    let more = format!("outbound.memory_bytes = {BUDGET}\n");
    let router = Router::start(&cluster, &["events.job"], &more);
    router.subscribe("wh_a", &receiver.url("/"), json!({"max_concurrency": 1}));
    let padding = "x".repeat(BODY);
    let sent: Vec<Sent> = (0..EVENTS)
        .map(|n| {
            let body =
                json!({"event_type": "job.failed", "customer": 1, "n": n, "padding": padding});
            Sent::new(body.to_string()).key(format!("k{n}"))
        })
        .collect();
    let topic = cluster.name("events.job");
    let places = cluster.produce_all(&topic, &sent);

    let group = format!("{}.deliver", router.config.kafka.group_id);
    let dispatch = router.topics().dispatch;
    let (mut most_open, mut most_lag) = (0, 0);
    let began = Instant::now();
    while receiver.accepted().len() < EVENTS {
        assert!(began.elapsed() < PATIENCE, "it does not go on");
        let ends: i64 = cluster.end_offsets(&dispatch).into_values().sum();
        let committed = cluster.committed(&group, &dispatch);
        let settled: i64 = committed.into_values().flatten().sum();
        most_lag = most_lag.max(ends - settled);
        let of_deliver = "postrider_ledger_open{stage=\"deliver\"}";
        let page = crate::harness::get(router.app().telemetry(), "/metrics").1;
        let open = page.lines().find_map(|line| line.strip_prefix(of_deliver));
        let open: usize = open.map_or(0, |open| open.trim().parse().unwrap());
        most_open = most_open.max(open);
        std::thread::sleep(Duration::from_millis(50));
    }
    // One record may be taken in when there is room for a byte.
    assert!(most_open <= BUDGET / BODY + 2, "{most_open} in memory");
    assert!(most_open >= 5, "{most_open}: it was never full");
    assert!(most_lag >= 30, "{most_lag}: nothing had to wait");
    let events: Vec<Source> = places
        .into_iter()
        .map(|(partition, offset)| Source {
            topic: topic.as_str().into(),
            partition,
            offset,
        })
        .collect();
    let ids = delivery_ids(&events, "wh_a");
    assert_eq!(assert_all_arrived(&receiver.accepted(), &ids), 0, "copies");
}
