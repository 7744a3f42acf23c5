//! What the history costs: processor time a delivery with SQLite, and how long the newest page of one webhook takes among many.
//!
//! Promised (issue 5): at most 10 µs of CPU a delivery, and less than 20 ms a page of 50 among 10 million. `BENCH_DELIVERIES` (default
//! 1,000,000) says among how many.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a benchmark should fail loudly"
)]

use std::time::{Duration, Instant};

use postrider::delivery::delivery_id;
use postrider::history::query::{Begin, DeliveryFilter, Scope};
use postrider::history::rows::{AttemptRow, Change, DeliveryRow, Place, Status};
use postrider::history::{Store, store::Kind};
use postrider::record::Source;
use postrider::subscription::WebhookId;

/// As in the writer.
const BATCH: i64 = 20_000;
const WEBHOOKS: i64 = 1000;

fn change(number: i64) -> Change {
    // Nothing about the webhooks is in order.
    let hash = (number as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    let webhook = hash >> 96;
    // Every tenth delivery is of one busy webhook.
    let webhook = if number % 10 == 0 {
        0
    } else {
        webhook as i64 % WEBHOOKS
    };
    let customer = (webhook % 50).to_string();
    let webhook = WebhookId::new(&format!("wh_{webhook:06}")).unwrap();
    let source = Source {
        topic: "events.job".into(),
        partition: (number % 12) as i32,
        offset: number / 12,
    };
    let id = delivery_id(&source, &webhook);
    let at_ms = 1_700_000_000_000 + number / 2;
    let works = number % 50 != 7;
    Change {
        place: Place {
            topic: "postrider.attempts".into(),
            partition: (number % 4) as i32,
            offset: number / 4,
        },
        written_at_ms: Some(at_ms),
        attempt: Some(AttemptRow {
            delivery_id: id.clone(),
            number: 1,
            replay_id: None,
            started_at_ms: at_ms,
            duration_us: 12_345,
            outcome: if works { "success" } else { "server_error" }.to_owned(),
            status: Some(if works { 200 } else { 500 }),
            error_message: (!works).then(|| "the receiver answered 500".to_owned()),
            request_headers: None,
            response_headers: None,
            response_body: None,
        }),
        delivery: Some(DeliveryRow {
            id,
            webhook: webhook.as_str().to_owned(),
            customer: Some(customer),
            event_type: "job.failed".to_owned(),
            source: source.to_string(),
            created_at_ms: at_ms,
            updated_at_ms: at_ms + 12,
            status: if works {
                Status::Success
            } else {
                Status::Retrying
            },
            attempts: 1,
            next_attempt_at_ms: None,
            last_status: Some(200),
            error_message: None,
            replay_id: None,
            reason: None,
        }),
    }
}

/// Processor time of this process so far (Linux; elsewhere the clock's).
fn processor_time(started: Instant) -> Duration {
    let ticks = || -> Option<u64> {
        let text = std::fs::read_to_string("/proc/self/stat").ok()?;
        let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
        Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
    };
    // 100 ticks a second: USER_HZ, the same on every Linux.
    ticks().map_or_else(
        || started.elapsed(),
        |ticks| Duration::from_millis(ticks * 10),
    )
}

fn ask(store: &Store, name: &str, filter: &DeliveryFilter, scope: &Scope) {
    let mut times: Vec<Duration> = (0..20)
        .map(|_| {
            let started = Instant::now();
            let page = store.deliveries(scope, filter, &Begin::Newest, 50).unwrap();
            assert!(!page.rows.is_empty(), "{name}");
            started.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!(
        "page of 50, {name}: first to last of 20 {:.2} ms … {:.2} ms, median {:.2} ms",
        times[0].as_secs_f64() * 1e3,
        times[19].as_secs_f64() * 1e3,
        times[10].as_secs_f64() * 1e3
    );
}

fn main() {
    // `cargo test` runs benchmarks too, to see that they work.
    let only_tried = !std::env::args().any(|argument| argument == "--bench");
    let wanted = std::env::var("BENCH_DELIVERIES")
        .ok()
        .and_then(|text| text.parse().ok());
    let total: i64 = wanted.unwrap_or(if only_tried { 2000 } else { 1_000_000 });
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&Kind::Sqlite(folder.path().join("history.db")))
        .unwrap()
        .unwrap();
    let started = Instant::now();
    let (mut spent, mut since) = (Duration::ZERO, 0);
    for first in (0..total).step_by(BATCH as usize) {
        let batch: Vec<Change> = (first..total.min(first + BATCH)).map(change).collect();
        let before = processor_time(started);
        store.apply(&batch).unwrap();
        spent += processor_time(started) - before;
        since += batch.len();
        if since >= (total as usize / 4).max(1) {
            println!(
                "{:>9} deliveries: {:.1} µs of CPU each",
                first + BATCH,
                spent.as_secs_f64() * 1e6 / since as f64
            );
            (spent, since) = (Duration::ZERO, 0);
        }
    }
    println!(
        "{total} deliveries with their attempts in {:.1} s, {:.0} bytes each",
        started.elapsed().as_secs_f64(),
        store.bytes().unwrap() as f64 / total as f64
    );
    let busy = DeliveryFilter {
        webhook: Some("wh_000000".to_owned()),
        ..DeliveryFilter::default()
    };
    let retrying = DeliveryFilter {
        status: Some(Status::Retrying),
        webhook: Some("wh_000007".to_owned()),
        ..DeliveryFilter::default()
    };
    ask(&store, "a busy webhook", &busy, &Scope::All);
    ask(&store, "its retrying ones", &retrying, &Scope::All);
    ask(
        &store,
        "all of a customer",
        &DeliveryFilter::default(),
        &Scope::Customer("7".to_owned()),
    );
    let started = Instant::now();
    store.statistics(&Scope::All, &busy).unwrap();
    println!(
        "statistics of the busy webhook: {:.1} ms",
        started.elapsed().as_secs_f64() * 1e3
    );
}
