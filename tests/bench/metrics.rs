//! What the page of metrics costs with as many labelled webhooks as there may be by default (`web.metrics_webhooks`).
//!
//! Holds the aim that a scrape with 10,000 webhooks in the catalog takes less than 50 ms of processor time; those beyond the
//! labelled ones are not on the page.

use criterion::Criterion;
use postrider::attempt::Outcome;
use postrider::metrics::Metrics;

const LABELLED: usize = 1_000;

fn filled() -> Metrics {
    let metrics = Metrics::new().expect("the metrics");
    for number in 0..LABELLED {
        let id = format!("wh_0198a3f2c4d17e8b9a6f0123456{number:05}");
        for outcome in Outcome::ALL {
            metrics
                .webhook_attempts
                .with_label_values(&[id.as_str(), outcome.as_str()])
                .inc();
        }
        metrics.webhook_pending.with_label_values(&[&id]).set(1);
        metrics
            .webhook_oldest_pending
            .with_label_values(&[&id])
            .set(1.5);
        metrics
            .webhook_state
            .with_label_values(&[id.as_str(), "passing"])
            .set(1);
    }
    metrics
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args().sample_size(20);
    let metrics = filled();
    criterion.bench_function("metrics/page, 1000 labelled webhooks", |bencher| {
        bencher.iter(|| metrics.page().expect("a page"));
    });
    criterion.final_summary();
}
