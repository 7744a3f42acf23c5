//! The index's promise: exactly the entries that a scan over all of them finds, each once, in order.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn filter(source: Value) -> Option<Filter> {
    Some(Filter::parse(&source).unwrap())
}

fn entry(event_types: &[&str], customer: Option<&str>, filter: Option<Filter>) -> Entry {
    let event_types = event_types
        .iter()
        .map(|pattern| (*pattern).to_owned())
        .collect();
    Entry {
        event_types,
        customer: customer.map(str::to_owned),
        filter,
    }
}

fn index(entries: &[Entry]) -> Index<usize> {
    Index::build(
        entries
            .iter()
            .cloned()
            .enumerate()
            .map(|(number, entry)| (entry, number)),
    )
}

fn wanting(
    index: &Index<usize>,
    event_type: &str,
    customer: Option<&str>,
    body: &Value,
) -> Vec<usize> {
    let mut found = Vec::new();
    index.wanting(event_type, customer, body, &mut found);
    found.into_iter().copied().collect()
}

fn scan(entries: &[Entry], event_type: &str, customer: Option<&str>, body: &Value) -> Vec<usize> {
    let wants = |entry: &Entry| entry.refusal(event_type, customer, body).is_none();
    entries
        .iter()
        .enumerate()
        .filter(|(_, entry)| wants(entry))
        .map(|(number, _)| number)
        .collect()
}

#[test]
fn an_empty_index_wants_nothing() {
    let index = Index::<usize>::default();
    assert!(index.is_empty());
    assert_eq!(
        wanting(&index, "job.failed", Some("7"), &json!({})),
        Vec::<usize>::new()
    );
}

#[test]
fn an_entry_is_found_once_however_many_of_its_patterns_match() {
    let index = index(&[
        entry(&["job.*", "job.failed", "*.failed", "*ail*"], None, None),
        entry(&["*", "job.failed"], None, None),
        entry(&["job.failed", "job.failed"], None, None),
        entry(&["device.*"], None, None),
    ]);
    assert_eq!(index.len(), 4);
    assert_eq!(wanting(&index, "job.failed", None, &json!({})), [0, 1, 2]);
}

#[test]
fn entries_come_in_the_order_in_which_they_were_given() {
    let index = index(&[
        entry(&["*"], Some("7"), filter(json!({"status": "down"}))),
        entry(&["job.*"], None, None),
        entry(&["*"], None, filter(json!({"load": {"$gt": 1}}))),
        entry(&["job.failed"], Some("7"), None),
        entry(
            &["*.failed"],
            None,
            filter(json!({"status": {"$in": ["up", "down"]}})),
        ),
    ]);
    let body = json!({"status": "down", "load": 2});
    assert_eq!(
        wanting(&index, "job.failed", Some("7"), &body),
        [0, 1, 2, 3, 4]
    );
    assert_eq!(wanting(&index, "job.failed", Some("8"), &body), [1, 2, 4]);
}

#[test]
fn a_customers_entry_sees_no_event_of_another_or_of_none() {
    let index = index(&[entry(&["*"], Some("7"), None), entry(&["*"], None, None)]);
    assert_eq!(wanting(&index, "job.failed", Some("7"), &json!({})), [0, 1]);
    assert_eq!(wanting(&index, "job.failed", Some("8"), &json!({})), [1]);
    assert_eq!(wanting(&index, "job.failed", None, &json!({})), [1]);
}

#[test]
fn what_was_found_before_stays() {
    let index = index(&[entry(&["*"], None, None)]);
    let before = 99;
    let mut found = vec![&before];
    index.wanting("job.failed", None, &json!({}), &mut found);
    assert_eq!(found, [&99, &0]);
}

#[test]
fn a_value_in_a_list_is_not_taken_for_the_whole_answer() {
    // The filed value is there, but in another element than the one the rest of the filter holds for.
    let index = index(&[entry(
        &["*"],
        None,
        filter(json!({"items": {"sku": "a", "qty": 2}})),
    )]);
    let apart = json!({"items": [{"sku": "a", "qty": 1}, {"sku": "b", "qty": 2}]});
    let together = json!({"items": [{"sku": "b", "qty": 1}, {"sku": "a", "qty": 2}]});
    assert!(wanting(&index, "x", None, &apart).is_empty());
    assert_eq!(wanting(&index, "x", None, &together), [0]);
}

#[test]
fn numbers_are_filed_by_value_and_not_by_spelling() {
    let index = index(&[
        entry(&["*"], None, filter(json!({"id": 9007199254740993_u64}))),
        entry(&["*"], None, filter(json!({"id": 9007199254740992.0}))),
    ]);
    assert_eq!(
        wanting(&index, "x", None, &json!({"id": 9007199254740993_u64})),
        [0]
    );
    assert_eq!(
        wanting(&index, "x", None, &json!({"id": 9007199254740992_u64})),
        [1]
    );
}

#[test]
fn an_entry_is_filed_under_its_rarest_value() {
    let entries: Vec<Entry> = (0..100)
        .map(|number| {
            entry(
                &["*"],
                None,
                filter(json!({"a_status": "down", "id": {"$in": [number, -1 - number]}})),
            )
        })
        .collect();
    let index = index(&entries);
    assert!(index.filed_by_value.values().all(|filed| filed.len() == 1));
    assert_eq!(index.filed_by_value.len(), 200);
    assert_eq!(
        wanting(&index, "x", None, &json!({"a_status": "down", "id": 42})),
        [42]
    );
}

#[test]
fn a_refusal_says_what_does_not_match() {
    let entry = entry(
        &["job.*", "x"],
        Some("7"),
        filter(json!({"status": "down"})),
    );
    let refusal = |event_type, customer, status| {
        entry
            .refusal(event_type, customer, &json!({"status": status}))
            .map(|refusal| refusal.to_string())
    };
    assert_eq!(refusal("job.failed", Some("7"), "down"), None);
    assert_eq!(
        refusal("device.x", Some("7"), "down").unwrap(),
        "none of its event types matches"
    );
    assert_eq!(
        refusal("x", None, "down").unwrap(),
        "the event is not of its customer"
    );
    assert_eq!(
        refusal("x", Some("7"), "up").unwrap(),
        "its filter does not match: /status: wanted $eq \"down\", found \"up\""
    );
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!(null)),
        Just(json!(true)),
        (0..3_i64).prop_map(Value::from),
        Just(json!(1.0)),
        Just(json!(0.5)),
        "[ab]".prop_map(Value::from),
    ]
}

fn body() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            3 => prop::collection::btree_map("[xyz]", inner.clone(), 0..4).prop_map(|fields| json!(fields)),
            1 => prop::collection::vec(inner, 0..3).prop_map(Value::from),
        ]
    })
}

fn condition() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        4 => scalar(),
        1 => scalar().prop_map(|value| json!({"$neq": value})),
        2 => prop::collection::vec(scalar(), 1..4).prop_map(|values| json!({"$in": values})),
        1 => Just(json!({"$gt": 0})),
        1 => Just(json!({"$exist": false})),
        1 => prop::collection::vec(scalar(), 1..3).prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            6 => prop::collection::btree_map("[xyz]", inner.clone(), 1..3).prop_map(|fields| json!(fields)),
            1 => prop::collection::vec(inner.clone(), 1..3).prop_map(|all| json!({"$and": all})),
            1 => prop::collection::vec(inner.clone(), 1..3).prop_map(|any| json!({"$or": any})),
            1 => inner.clone().prop_map(|inner| json!({"$not": inner})),
            1 => (inner.clone(), inner).prop_map(|(left, right)| json!({"x": left, "$not": {"y": right}})),
        ]
    })
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let pattern = prop_oneof![
        Just("*".to_owned()),
        Just("**".to_owned()),
        "[ab]{1,2}",
        "[ab*.]{1,4}"
    ];
    let customer = prop::option::of("[78]");
    let filter =
        prop::option::weighted(0.8, prop::collection::btree_map("[xyz]", condition(), 0..3));
    let entry = (prop::collection::vec(pattern, 1..4), customer, filter).prop_map(
        |(event_types, customer, source)| Entry {
            event_types,
            customer,
            filter: source.map(|source| Filter::parse(&json!(source)).unwrap()),
        },
    );
    prop::collection::vec(entry, 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn the_index_equals_a_scan_over_all_entries(
        entries in entries(),
        events in prop::collection::vec(("[ab.]{0,4}", prop::option::of("[789]"), body()), 1..6),
    ) {
        let index = index(&entries);
        for (event_type, customer, body) in &events {
            let wanted = scan(&entries, event_type, customer.as_deref(), body);
            prop_assert_eq!(wanting(&index, event_type, customer.as_deref(), body), wanted);
        }
    }
}
