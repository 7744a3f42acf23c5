//! The history of running routers: what it tells of each kind of ending, that a rebuild tells the same, and that its database may go away.

use std::time::Duration;

use postrider::app::Stages;
use postrider::history::query::{DeliveryFilter, Scope};
use postrider::history::rows::{Change, Status};
use postrider::subscription::Customer;
use serde_json::json;

use super::queries::{change, delivery};
use super::{Base, OwnServer, SOON, everything, on_both};
use crate::harness::{Cluster, Receiver, Router, delivery_ids, eventually, get};

on_both! {
    every_ending_is_told_and_a_rebuild_tells_the_same
    a_restart_goes_on_where_the_rows_end
    what_is_put_off_before_its_first_attempt_is_listed_as_pending
    a_running_router_forgets_what_is_older_than_its_retention
}

fn count(router: &Router<'_>, status: Option<Status>) -> u64 {
    let filter = DeliveryFilter {
        status,
        ..DeliveryFilter::default()
    };
    let store = router.app().history().unwrap();
    store.statistics(&Scope::All, &filter).unwrap().total
}

fn wait_for(router: &Router<'_>, status: Status, wanted: u64) {
    eventually(
        &format!("{wanted} deliveries to be {}", status.as_str()),
        SOON,
        || (count(router, Some(status)) == wanted).then_some(()),
    );
}

fn every_ending_is_told_and_a_rebuild_tells_the_same(base: &Base) {
    let cluster = Cluster::named("history");
    let good = Receiver::answering(200);
    let bad = Receiver::answering(500);
    let mut router = Router::start(&cluster, &["events.job"], &base.config());
    router.subscribe("wh_good", &good.url("/"), json!({"customer": 1}));
    let fields = json!({"max_retries": 1, "retry_backoff": 1, "headers": {"X-Key": "s3cret"}});
    router.subscribe("wh_bad", &bad.url("/"), fields);
    router.subscribe("wh_paused", &good.url("/"), json!({}));
    router.change("wh_paused", |webhook| webhook.paused = true);
    router.subscribe("wh_slow", &bad.url("/"), json!({"retry_backoff": 3600}));
    let events = router.produce("events.job", 0..3);
    wait_for(&router, Status::Success, 3);
    wait_for(&router, Status::Failed, 3);
    wait_for(&router, Status::Held, 3);
    wait_for(&router, Status::Retrying, 3);

    let store = router.app().history().unwrap();
    let failed = delivery_ids(&events, "wh_bad").remove(0);
    let theirs = Scope::Customer("2".to_owned());
    assert_eq!(store.delivery(&theirs, &failed).unwrap(), None);
    let mine = Scope::Customer("1".to_owned());
    let told = store.delivery(&mine, &failed).unwrap().unwrap();
    assert_eq!(told.delivery.reason.as_deref(), Some("exhausted"));
    assert_eq!(told.delivery.last_status, Some(500));
    assert_eq!(told.attempts.len(), 2);
    let headers = told.attempts[0].request_headers.clone().unwrap();
    assert!(headers.contains(r#""x-key":"***""#), "{headers}");
    assert!(!headers.contains("s3cret"), "{headers}");
    assert!(headers.contains(&failed), "{headers}");
    let retrying = delivery_ids(&events, "wh_slow").remove(0);
    let told = store.delivery(&mine, &retrying).unwrap().unwrap();
    assert!(told.delivery.next_attempt_at_ms > Some(told.delivery.updated_at_ms + 3_000_000));
    // Whose a held delivery is, too; and it stays theirs when its webhook changes hands.
    let held = delivery_ids(&events, "wh_paused").remove(0);
    assert!(store.delivery(&mine, &held).unwrap().is_some());

    router.change("wh_paused", |webhook| {
        webhook.customer = Some(Customer::new("2"));
    });
    let live = everything(store);
    assert_eq!(live.len(), 12);
    let said = router.command(&["history", "rebuild"]);
    assert!(said.contains("made anew from"), "{said}");
    assert_eq!(everything(store), live);
    assert!(store.delivery(&mine, &held).unwrap().is_some());
    assert_eq!(store.delivery(&theirs, &held).unwrap(), None);

    let list = router.command(&[
        "deliveries",
        "list",
        "--status",
        "failed",
        "--output",
        "json",
    ]);
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list["results"].as_array().unwrap().len(), 3);
    let shown = router.command(&["deliveries", "show", &failed]);
    assert!(
        shown.contains("attempt 2 at") && shown.contains("server_error 500"),
        "{shown}"
    );
    router.leaves_work();
}

fn a_restart_goes_on_where_the_rows_end(base: &Base) {
    let cluster = Cluster::named("history-restart");
    let receiver = Receiver::answering(200);
    let mut router = Router::start(&cluster, &["events.job"], &base.config());
    router.subscribe("wh_a", &receiver.url("/"), json!({}));
    router.produce("events.job", 0..20);
    wait_for(&router, Status::Success, 20);
    router.restart();
    router.produce("events.job", 20..40);
    wait_for(&router, Status::Success, 40);
    let page = router.app().metrics().page().unwrap();
    let written: u64 = page
        .lines()
        .find_map(|line| line.strip_prefix("postrider_history_records_total "))
        .unwrap()
        .parse()
        .unwrap();
    // What the first instance wrote is not read once more, but for what a group had not committed.
    assert!(
        (20..30).contains(&written),
        "{written} records were written"
    );
    router.assert_every_delivery_has_one_ending();
}

fn what_is_put_off_before_its_first_attempt_is_listed_as_pending(base: &Base) {
    let cluster = Cluster::named("history-pending");
    let receiver = Receiver::answering(200);
    let mut router = Router::start(&cluster, &["events.job"], &base.config());
    let fields = json!({"rate_limit": {"requests": 1, "per_seconds": 3600, "burst": 1}});
    router.subscribe("wh_slow", &receiver.url("/"), fields);
    let events = router.produce("events.job", 0..4);
    // A lane begins with an empty bucket: the first of them waits for an hour, too.
    wait_for(&router, Status::Pending, 4);
    let store = router.app().history().unwrap();
    let pending: Vec<_> = delivery_ids(&events, "wh_slow")
        .into_iter()
        .filter_map(|id| {
            store
                .delivery(&Scope::Customer("1".to_owned()), &id)
                .unwrap()
        })
        .filter(|told| told.delivery.status == Status::Pending)
        .collect();
    assert_eq!(pending.len(), 4);
    for told in pending {
        assert!(told.attempts.is_empty());
        assert!(told.delivery.next_attempt_at_ms > Some(told.delivery.created_at_ms));
        let message = told.delivery.error_message.unwrap();
        assert!(message.contains("rate limit"), "{message}");
    }
    router.leaves_work();
}

fn a_running_router_forgets_what_is_older_than_its_retention(base: &Base) {
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let days_ago = |days: i64| now_ms - days * 86_400_000;
    let store = base.store();
    let rows: Vec<Change> = (0..1300)
        .map(|number| {
            // More than a batch of retention, and a few that are young enough.
            let days = if number < 1290 { 31 } else { 29 };
            let mut row = delivery(number, Status::Success);
            row.created_at_ms = days_ago(days);
            change(number, row)
        })
        .collect();
    store.apply(&rows).unwrap();
    drop(store);
    let cluster = Cluster::named("history-retention");
    let receiver = Receiver::answering(200);
    let config = format!("{}history.retention_days = 30\n", base.config());
    let router = Router::start(&cluster, &["events.job"], &config);
    router.subscribe("wh_a", &receiver.url("/"), json!({}));
    router.produce("events.job", 0..5);
    wait_for(&router, Status::Success, 15);
    assert!(router.metric("postrider_history_bytes") > 0.0);
    router.assert_every_delivery_has_one_ending();
}

#[test]
fn two_instances_share_one_postgresql_and_its_partitions() {
    let base = Base::postgres();
    let cluster = Cluster::named("history-two");
    let receiver = Receiver::answering(200);
    let mut router = Router::start(&cluster, &["events.job"], &base.config());
    router.add_instance(Stages::ALL);
    router.subscribe("wh_a", &receiver.url("/"), json!({}));
    eventually("both to read the history's topics", SOON, || {
        (cluster.members(&cluster.name("postrider.history")) == 2).then_some(())
    });
    router.produce("events.job", 0..100);
    wait_for(&router, Status::Success, 100);
    let written: f64 = router.metric("postrider_history_records_total");
    assert!((100.0..150.0).contains(&written), "{written}");
    // One goes, and the other takes its partitions.
    router.stop_instance();
    router.produce("events.job", 100..150);
    wait_for(&router, Status::Success, 150);
}

#[test]
fn deliveries_go_on_while_postgresql_is_away_and_the_history_catches_up() {
    let server = OwnServer::start();
    let cluster = Cluster::named("history-away");
    let receiver = Receiver::answering(200);
    let store = format!("history.store = {:?}\n", server.url);
    let router = Router::start(&cluster, &["events.job"], &store);
    router.subscribe("wh_a", &receiver.url("/"), json!({}));
    router.produce("events.job", 0..10);
    wait_for(&router, Status::Success, 10);
    server.stop();
    router.produce("events.job", 10..60);
    receiver.wait_for(60, SOON);
    let address = router.app().telemetry();
    eventually("the lag to be told", SOON, || {
        let (status, text) = get(address, "/readyz?verbose");
        assert_eq!(status, 200, "{text}");
        text.contains("behind and tried again").then_some(())
    });
    assert!(router.app().is_ready());
    let error = router
        .app()
        .history()
        .unwrap()
        .statistics(&Scope::All, &DeliveryFilter::default());
    assert!(error.unwrap_err().to_string().contains("PostgreSQL"));
    server.restart();
    wait_for(&router, Status::Success, 60);
    eventually("the lag to be over", Duration::from_secs(15), || {
        let (_, text) = get(address, "/readyz?verbose");
        (!text.contains("tried again")).then_some(())
    });
}

#[test]
fn deliveries_go_on_while_sqlite_is_locked_and_the_history_catches_up() {
    let base = Base::sqlite();
    let cluster = Cluster::named("history-locked");
    let receiver = Receiver::answering(200);
    let router = Router::start(&cluster, &["events.job"], &base.config());
    router.subscribe("wh_a", &receiver.url("/"), json!({}));
    let (_, path) = base.sqlite.as_ref().unwrap();
    let other = rusqlite::Connection::open(path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    router.produce("events.job", 0..20);
    receiver.wait_for(20, SOON);
    assert_eq!(count(&router, None), 0);
    eventually("the failure to be counted", SOON, || {
        (router.metric("postrider_history_errors_total") > 0.0).then_some(())
    });
    other.execute_batch("ROLLBACK").unwrap();
    wait_for(&router, Status::Success, 20);
}
