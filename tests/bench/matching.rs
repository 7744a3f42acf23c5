//! What it costs to find the webhooks that want an event, among up to 100,000 of which 50 do.
//!
//! Holds the promise that the cost follows those that want the event: the figure is to stay within 5 µs beyond the
//! parse, and nearly the same at 1,000 webhooks and at 100,000.

use std::hint::black_box;

use criterion::{BatchSize, Criterion};
use postrider::matching::{Entry, Filter, Index};
use serde_json::{Value, json};

const CUSTOMER: &str = "customer-42";
const EVENT_TYPE: &str = "device.status_changed";
const WANTING: usize = 50;

/// An event of about 1 KB.
fn body() -> Value {
    let interfaces: Vec<Value> = (0..8)
        .map(|number| json!({"name": format!("ge-0/0/{number}"), "up": number % 3 != 0, "in_errors": number * 17}))
        .collect();
    json!({
        "event_type": EVENT_TYPE, "event_timestamp": "2026-11-22T10:00:00.123456Z", "customer": CUSTOMER,
        "device": {
            "id": 4711, "name": "core-router-ams-01", "site": "ams", "status": "down", "previous_status": "up",
            "vendor": "juniper", "model": "MX204", "os_version": "23.4R2-S3", "address": "192.0.2.17",
            "tags": ["core", "bgp", "production"], "load": 87.5, "uptime_seconds": 8_640_123, "interfaces": interfaces,
        },
        "actor": {"id": 17, "name": "poller", "kind": "system"},
        "message": "device did not answer three polls in a row",
    })
}

fn entry(event_type: &str, customer: Option<String>, filter: Value) -> Entry {
    let filter = (!filter.is_null())
        .then(|| Filter::parse(&filter).expect("the benchmark's filters are right"));
    Entry {
        event_types: vec![event_type.to_owned()],
        customer,
        filter,
    }
}

/// A webhook that wants the event, in one of seven forms.
fn wanting(number: usize) -> Entry {
    let ours = || Some(CUSTOMER.to_owned());
    match number % 7 {
        0 => entry(EVENT_TYPE, None, Value::Null),
        1 => entry("device.*", ours(), Value::Null),
        2 => entry("*", ours(), Value::Null),
        3 => entry(EVENT_TYPE, None, json!({"device": {"id": 4711}})),
        4 => entry(
            "device.*",
            ours(),
            json!({"device": {"site": "ams", "status": {"$in": ["down", "degraded"]}}}),
        ),
        5 => entry(
            EVENT_TYPE,
            ours(),
            json!({"device": {"id": {"$in": [4711, 4712]}, "load": {"$gt": 80}}}),
        ),
        _ => entry(
            "*",
            None,
            json!({"device": {"status": "down", "tags": "core", "site": {"$neq": "fra"}}}),
        ),
    }
}

/// A webhook that does not: of another customer, type, device, site or status.
fn other(number: usize) -> Entry {
    let theirs = || Some(format!("customer-{}", 1_000 + number % 5_000));
    let ours = || Some(CUSTOMER.to_owned());
    let types = [
        "job.failed",
        "job.*",
        "config.changed",
        "compliance.*",
        "device.created",
        "*.deleted",
    ];
    let another_type = types[number % types.len()];
    match number % 20 {
        0..=5 => entry(another_type, theirs(), Value::Null),
        6..=8 => entry("*", theirs(), json!({"device": {"status": "down"}})),
        9..=11 => entry(EVENT_TYPE, theirs(), json!({"device": {"id": number}})),
        12..=14 => entry(
            EVENT_TYPE,
            None,
            json!({"device": {"id": 10_000 + number, "status": "down"}}),
        ),
        15..=16 => entry(
            "device.*",
            None,
            json!({"device": {"site": format!("site-{number}"), "status": "down"}}),
        ),
        17 => entry(another_type, ours(), Value::Null),
        18 => entry(
            EVENT_TYPE,
            ours(),
            json!({"device": {"id": 10_000 + number}}),
        ),
        _ => entry(
            &format!("tenant-{number}.*"),
            None,
            json!({"load": {"$gt": number}}),
        ),
    }
}

/// `count` webhooks, [`WANTING`] of which want the event, spread evenly.
fn webhooks(count: usize) -> Vec<(Entry, usize)> {
    let every = count / WANTING;
    let one = |number| {
        if number % every == 0 {
            wanting(number / every)
        } else {
            other(number)
        }
    };
    (0..count).map(|number| (one(number), number)).collect()
}

fn matching(criterion: &mut Criterion) {
    let body = body();
    let bytes = body.to_string();
    let mut group = criterion.benchmark_group("matching");
    group.bench_function(format!("parse of {} bytes", bytes.len()), |bencher| {
        bencher.iter(|| serde_json::from_str::<Value>(black_box(&bytes)));
    });
    for count in [1_000, 10_000, 100_000] {
        let index = Index::build(webhooks(count));
        let mut found = Vec::new();
        index.wanting(EVENT_TYPE, Some(CUSTOMER), &body, &mut found);
        assert_eq!(found.len(), WANTING);
        group.bench_function(format!("{WANTING} of {count} want it"), |bencher| {
            bencher.iter(|| {
                found.clear();
                index.wanting(
                    black_box(EVENT_TYPE),
                    Some(CUSTOMER),
                    black_box(&body),
                    &mut found,
                );
                found.len()
            });
        });
    }
    group.sample_size(10);
    let entries = webhooks(100_000);
    group.bench_function("build of 100000", |bencher| {
        bencher.iter_batched(|| entries.clone(), Index::build, BatchSize::PerIteration);
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    matching(&mut criterion);
    criterion.final_summary();
}
