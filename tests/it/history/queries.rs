//! What is asked of a store that was written by hand: order, pages, filters, confinement, statistics, retention, repetition.

use postrider::history::query::{Begin, Cursor, DeliveryFilter, Scope};
use postrider::history::rows::{AttemptRow, Change, DeliveryRow, Place, Status};
use postrider::history::webhook_queries::Recent;

use super::{Base, everything, on_both};

on_both! {
    a_later_record_decides_in_whatever_order_they_come
    pages_hold_every_delivery_once_and_newest_first
    nobody_sees_another_customers_rows_whatever_is_asked
    filters_are_all_held_to
    statistics_count_what_became_of_deliveries
    what_is_older_than_the_retention_goes_and_nothing_else
    positions_are_written_with_their_rows
    hostile_texts_are_stored_and_found_as_they_are
    when_a_webhook_last_succeeded_and_failed_and_what_waits_for_it_is_known_in_whatever_order_records_come
}

pub(super) fn delivery(number: i64, status: Status) -> DeliveryRow {
    DeliveryRow {
        id: format!("dlv_{number:04}"),
        webhook: "wh_a".to_owned(),
        customer: Some("1".to_owned()),
        event_type: "job.failed".to_owned(),
        source: format!("events.job/0/{number}"),
        created_at_ms: 1000 + number,
        updated_at_ms: 2000 + number,
        status,
        attempts: 1,
        next_attempt_at_ms: None,
        last_status: Some(200),
        error_message: None,
        replay_id: None,
        reason: None,
    }
}

pub(super) fn change(offset: i64, delivery: DeliveryRow) -> Change {
    Change {
        place: Place {
            topic: "attempts".into(),
            partition: 0,
            offset,
        },
        written_at_ms: None,
        attempt: Some(AttemptRow {
            delivery_id: delivery.id.clone(),
            number: delivery.attempts,
            replay_id: None,
            started_at_ms: delivery.updated_at_ms,
            duration_us: 1000 * (offset + 1),
            outcome: "success".to_owned(),
            status: Some(200),
            error_message: None,
            request_headers: None,
            response_headers: None,
            response_body: None,
        }),
        delivery: Some(delivery),
    }
}

fn a_later_record_decides_in_whatever_order_they_come(base: &Base) {
    let store = base.store();
    let mut first = delivery(1, Status::Retrying);
    first.error_message = Some("the receiver answered 500".to_owned());
    first.next_attempt_at_ms = Some(9000);
    let mut second = delivery(1, Status::Success);
    (second.updated_at_ms, second.attempts) = (7000, 2);
    let changes = [change(0, first), change(1, second.clone())];
    store.apply(&changes).unwrap();
    let forwards = everything(&store);
    assert_eq!(forwards[0].delivery, second);
    assert_eq!(forwards[0].attempts.len(), 2);
    // Again, and the other way round: nothing changes.
    store.apply(&changes).unwrap();
    assert_eq!(everything(&store), forwards);
    store.clear().unwrap();
    for change in changes.iter().rev() {
        store.apply(std::slice::from_ref(change)).unwrap();
    }
    assert_eq!(everything(&store), forwards);
}

fn pages_hold_every_delivery_once_and_newest_first(base: &Base) {
    let store = base.store();
    let rows: Vec<Change> = (0..23)
        .map(|number| {
            let mut row = delivery(number, Status::Success);
            // Several of one millisecond, so that a page can end between them.
            row.created_at_ms = 1000 + number / 5;
            change(number, row)
        })
        .collect();
    store.apply(&rows).unwrap();
    let filter = DeliveryFilter {
        webhook: Some("wh_a".to_owned()),
        ..DeliveryFilter::default()
    };
    let mut pages = Vec::new();
    let mut next = Some(Begin::Newest);
    while let Some(from) = next {
        let page = store.deliveries(&Scope::All, &filter, &from, 4).unwrap();
        assert_eq!(page.has_newer, from != Begin::Newest);
        next = page.next();
        pages.push(page.rows);
    }
    let expected: Vec<String> = (0..23)
        .rev()
        .map(|number| format!("dlv_{number:04}"))
        .collect();
    let seen: Vec<&str> = pages.iter().flatten().map(|row| row.id.as_str()).collect();
    assert_eq!(seen, expected);
    // And back: the page before each but the first is the one that it came from.
    for pair in pages.windows(2) {
        let place = Cursor {
            created_at_ms: pair[1][0].created_at_ms,
            id: pair[1][0].id.clone(),
        };
        let page = store.deliveries(&Scope::All, &filter, &Begin::NewerThan(place), 4);
        let page = page.unwrap();
        assert_eq!(page.rows, pair[0]);
        assert_eq!(
            (page.has_newer, page.has_older),
            (pair[0] != pages[0], true)
        );
    }
    // However much is asked for, a page is bounded.
    assert_eq!(
        store
            .deliveries(&Scope::All, &filter, &Begin::Newest, u32::MAX)
            .unwrap()
            .rows
            .len(),
        23
    );
}

fn nobody_sees_another_customers_rows_whatever_is_asked(base: &Base) {
    let store = base.store();
    let mut theirs = delivery(2, Status::Failed);
    theirs.customer = Some("2".to_owned());
    let mut nobodys = delivery(3, Status::Failed);
    nobodys.customer = None;
    store
        .apply(&[
            change(0, delivery(1, Status::Failed)),
            change(1, theirs),
            change(2, nobodys),
        ])
        .unwrap();
    let mine = Scope::Customer("1".to_owned());
    let ask_for_theirs = DeliveryFilter {
        customer: Some("2".to_owned()),
        ..DeliveryFilter::default()
    };
    let all = DeliveryFilter::default();
    let ids = |scope: &Scope, filter: &DeliveryFilter| -> Vec<String> {
        let page = store.deliveries(scope, filter, &Begin::Newest, 10).unwrap();
        page.rows.into_iter().map(|row| row.id).collect()
    };
    assert_eq!(ids(&mine, &all), ["dlv_0001"]);
    assert_eq!(ids(&mine, &ask_for_theirs), Vec::<String>::new());
    assert_eq!(ids(&Scope::All, &ask_for_theirs), ["dlv_0002"]);
    assert!(store.delivery(&mine, "dlv_0001").unwrap().is_some());
    for id in ["dlv_0002", "dlv_0003"] {
        assert!(store.delivery(&mine, id).unwrap().is_none());
        assert!(store.delivery(&Scope::All, id).unwrap().is_some());
    }
    assert_eq!(store.statistics(&mine, &all).unwrap().total, 1);
    assert_eq!(
        store
            .statistics(&mine, &all)
            .unwrap()
            .response_times
            .attempts,
        1
    );
}

fn filters_are_all_held_to(base: &Base) {
    let store = base.store();
    let mut other = delivery(2, Status::Failed);
    other.webhook = "wh_b".to_owned();
    let mut typed = delivery(3, Status::Failed);
    typed.event_type = "job.created".to_owned();
    store
        .apply(&[
            change(0, delivery(1, Status::Failed)),
            change(1, other),
            change(2, typed),
            change(3, delivery(4, Status::Success)),
        ])
        .unwrap();
    let count = |change: &dyn Fn(&mut DeliveryFilter)| {
        let mut filter = DeliveryFilter::default();
        change(&mut filter);
        let page = store
            .deliveries(&Scope::All, &filter, &Begin::Newest, 10)
            .unwrap();
        assert_eq!(
            page.rows.len() as u64,
            store.statistics(&Scope::All, &filter).unwrap().total
        );
        page.rows.len()
    };
    assert_eq!(count(&|_| {}), 4);
    assert_eq!(count(&|filter| filter.webhook = Some("wh_b".into())), 1);
    assert_eq!(count(&|filter| filter.status = Some(Status::Failed)), 3);
    assert_eq!(count(&|filter| filter.status = Some(Status::Success)), 1);
    assert_eq!(count(&|filter| filter.status = Some(Status::Pending)), 0);
    assert_eq!(
        count(&|filter| filter.event_type = Some("job.created".into())),
        1
    );
    assert_eq!(count(&|filter| filter.since_ms = Some(1003)), 2);
    assert_eq!(count(&|filter| filter.until_ms = Some(1003)), 2);
}

fn statistics_count_what_became_of_deliveries(base: &Base) {
    let store = base.store();
    let rows: Vec<Change> = (0..20)
        .map(|number| {
            let status = match number {
                0..15 => Status::Success,
                15..18 => Status::Failed,
                _ => Status::Retrying,
            };
            change(number, delivery(number, status))
        })
        .collect();
    store.apply(&rows).unwrap();
    let told = store
        .statistics(&Scope::All, &DeliveryFilter::default())
        .unwrap();
    assert_eq!((told.total, told.success, told.failure), (20, 15, 3));
    assert_eq!(told.by_status["retrying"], 2);
    assert_eq!(told.by_status["held"], 0);
    assert!((told.success_rate.unwrap() - 15.0 / 18.0).abs() < 1e-9);
    assert_eq!(told.last_triggered_at_ms, Some(1019));
    // Durations are 1, 2 … 20 ms.
    let times = told.response_times;
    assert_eq!((times.attempts, times.p50, times.p95), (20, 10.0, 19.0));
    assert!((times.average - 10.5).abs() < 1e-9);
}

fn what_is_older_than_the_retention_goes_and_nothing_else(base: &Base) {
    let store = base.store();
    let rows: Vec<Change> = (0..10)
        .map(|number| change(number, delivery(number, Status::Success)))
        .collect();
    store.apply(&rows).unwrap();
    // In small batches: each says whether there may be more.
    assert!(store.forget(1005, 3).unwrap());
    assert!(!store.forget(1005, 3).unwrap());
    let deliveries = everything(&store);
    assert_eq!(deliveries.len(), 5);
    assert!(
        deliveries
            .iter()
            .all(|told| told.delivery.created_at_ms >= 1005 && told.attempts.len() == 1)
    );
    assert!(!store.forget(5002, 100).unwrap());
    assert!(everything(&store).is_empty());
    assert!(store.bytes().unwrap() > 0);
}

fn positions_are_written_with_their_rows(base: &Base) {
    let store = base.store();
    assert!(store.positions().unwrap().is_empty());
    let mut held = change(9, delivery(3, Status::Held));
    (held.place.topic, held.place.partition) = ("held".into(), 3);
    store
        .apply(&[
            change(7, delivery(1, Status::Success)),
            change(4, delivery(2, Status::Success)),
            held,
        ])
        .unwrap();
    let positions = base.store().positions().unwrap();
    assert_eq!(positions[&("attempts".to_owned(), 0)], 8);
    assert_eq!(positions[&("held".to_owned(), 3)], 10);
    store.clear().unwrap();
    assert!(store.positions().unwrap().is_empty());
    assert!(everything(&store).is_empty());
}

fn hostile_texts_are_stored_and_found_as_they_are(base: &Base) {
    let store = base.store();
    let mut row = delivery(1, Status::Failed);
    row.event_type = "a'; DROP TABLE postrider_deliveries; --".to_owned();
    row.error_message = Some("NUL \0 and \u{1f980} and \"quotes\"".to_owned());
    row.id = "dlv_%".to_owned();
    store.apply(&[change(0, row.clone())]).unwrap();
    let filter = DeliveryFilter {
        event_type: Some(row.event_type.clone()),
        ..DeliveryFilter::default()
    };
    let page = store
        .deliveries(&Scope::All, &filter, &Begin::Newest, 10)
        .unwrap();
    assert_eq!(page.rows[0].event_type, row.event_type);
    let message = page.rows[0].error_message.clone().unwrap();
    assert_eq!(message, "NUL \u{fffd} and \u{1f980} and \"quotes\"");
    assert!(store.delivery(&Scope::All, "dlv_%").unwrap().is_some());
    assert!(
        store
            .delivery(&Scope::All, "' OR 1=1 --")
            .unwrap()
            .is_none()
    );
    let theirs = Scope::Customer("1' OR '1'='1".to_owned());
    assert!(store.delivery(&theirs, "dlv_%").unwrap().is_none());
}

fn when_a_webhook_last_succeeded_and_failed_and_what_waits_for_it_is_known_in_whatever_order_records_come(
    base: &Base,
) {
    let store = base.store();
    let of = |number: i64, status: Status, outcome: &str| {
        let mut change = change(number, delivery(number, status));
        let attempt = change.attempt.as_mut().unwrap();
        (attempt.outcome, attempt.duration_us) = (outcome.to_owned(), 500_000);
        change
    };
    let changes = [
        of(0, Status::Success, "success"),
        of(1, Status::Success, "success"),
        of(2, Status::Retrying, "timeout"),
        of(3, Status::Failed, "server_error"),
        of(4, Status::Held, "server_error"),
    ];
    let expected = Recent {
        last_success_at_ms: Some(2501),
        last_failure_at_ms: Some(2504),
        pending: 2,
    };
    let found = || store.recent(&["wh_a", "wh_none", "wh_'; --"]).unwrap();
    store.apply(&changes).unwrap();
    assert_eq!(found()["wh_a"], expected);
    assert_eq!(found()["wh_none"], Recent::default());
    assert_eq!(found().len(), 3);
    assert!(store.recent(&[]).unwrap().is_empty());
    store.clear().unwrap();
    assert_eq!(found()["wh_a"], Recent::default());
    for change in changes.iter().rev() {
        store.apply(std::slice::from_ref(change)).unwrap();
    }
    assert_eq!(found()["wh_a"], expected);
    // Retention takes it when nothing was tried since.
    store.forget(2504, 100).unwrap();
    assert_eq!(found()["wh_a"].last_failure_at_ms, Some(2504));
    store.forget(2505, 100).unwrap();
    assert_eq!(found()["wh_a"], Recent::default());
}
