//! One delivery is one row, found by its id, with every attempt, of which the first stands in the row.

use postrider::history::query::{DeliveryFilter, Scope};
use postrider::history::rows::{AttemptRow, Change, Status};

use super::queries::{change, delivery};
use super::{Base, everything, on_both};

on_both! {
    an_event_that_was_routed_twice_is_one_delivery
    a_delivery_is_found_by_its_id_whenever_it_was_made
    first_attempts_are_told_as_they_were_in_whatever_order_they_come
}

fn an_event_that_was_routed_twice_is_one_delivery(base: &Base) {
    let store = base.store();
    let mut before = delivery(1, Status::Retrying);
    before.created_at_ms = 1000;
    let mut behind = delivery(1, Status::Success);
    behind.created_at_ms = 3_601_000;
    behind.updated_at_ms = 3_601_012;
    store
        .apply(&[change(0, before.clone()), change(1, behind.clone())])
        .unwrap();
    let found = everything(&store);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].delivery.status, Status::Success);
    assert_eq!(found[0].delivery.created_at_ms, before.created_at_ms);
    // Later records tell of it with either time.
    behind.updated_at_ms += 1;
    behind.replay_id = Some("rpl_1".to_owned());
    store.apply(&[change(2, behind)]).unwrap();
    let found = everything(&store);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].delivery.replay_id.as_deref(), Some("rpl_1"));
}

fn a_delivery_is_found_by_its_id_whenever_it_was_made(base: &Base) {
    let store = base.store();
    let times = [
        0,
        1,
        1 << 16,
        86_400_000,
        1_700_000_000_000,
        1_700_000_300_000,
        1 << 41,
    ];
    let rows: Vec<Change> = (0..)
        .zip(times)
        .map(|(number, time)| {
            let mut row = delivery(number, Status::Success);
            row.created_at_ms = time;
            // As ours are, and one that is not.
            if number > 0 {
                row.id = format!("dlv_{:032x}", u128::MAX / (number as u128 + 1));
            }
            change(number, row)
        })
        .collect();
    store.apply(&rows).unwrap();
    for row in rows.iter().filter_map(|change| change.delivery.as_ref()) {
        let told = store.delivery(&Scope::All, &row.id).unwrap().unwrap();
        assert_eq!(told.delivery, *row);
        assert_eq!(told.attempts.len(), 1);
    }
    // The same beginning is not the same id.
    let other = format!("{}0", &rows[2].delivery.as_ref().unwrap().id[..35]);
    assert_eq!(store.delivery(&Scope::All, &other).unwrap(), None);
}

fn first_attempts_are_told_as_they_were_in_whatever_order_they_come(base: &Base) {
    let store = base.store();
    // A process died between the answer and its record's acknowledgement: the receiver was asked twice.
    let mut first = change(3, delivery(1, Status::Success));
    let mut second = change(4, delivery(1, Status::Success));
    let started = |change: &mut Change, at_ms: i64, outcome: &str| {
        let attempt = change.attempt.as_mut().unwrap();
        attempt.started_at_ms = at_ms;
        attempt.outcome = outcome.to_owned();
    };
    started(&mut first, 1500, "success");
    started(&mut second, 1600, "client_error");
    let mut failed = change(5, delivery(2, Status::Retrying));
    let attempt = failed.attempt.as_mut().unwrap();
    attempt.status = None;
    attempt.outcome = "timeout".to_owned();
    attempt.error_message = Some("no answer in 30 s; raise timeout_seconds".to_owned());
    let changes = [first, second, failed];
    let expected: Vec<AttemptRow> = changes
        .iter()
        .filter_map(|change| change.attempt.clone())
        .collect();
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        store.clear().unwrap();
        for _ in 0..2 {
            for place in order {
                store.apply(std::slice::from_ref(&changes[place])).unwrap();
            }
        }
        let told = store.delivery(&Scope::All, "dlv_0001").unwrap().unwrap();
        assert_eq!(told.attempts, expected[..2]);
        let told = store.delivery(&Scope::All, "dlv_0002").unwrap().unwrap();
        assert_eq!(told.attempts, expected[2..]);
        let told = store
            .statistics(&Scope::All, &DeliveryFilter::default())
            .unwrap();
        // Only answers have a time.
        assert_eq!(told.response_times.attempts, 2);
    }
}
