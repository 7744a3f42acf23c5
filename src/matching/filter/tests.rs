//! The filter's promises: what each operator means, for values and for fields that are not there.

mod explained;
mod lists;
mod properties;
mod refused;

use serde_json::json;

use super::*;

fn matches(filter: Value, body: Value) -> bool {
    let filter = Filter::parse(&filter).unwrap_or_else(|errors| panic!("{errors:?}"));
    let holds = filter.matches(&body);
    assert_eq!(
        filter.explain(&body).is_match(),
        holds,
        "the explanation disagrees"
    );
    holds
}

/// Each row: a filter, bodies that meet it, bodies that do not.
#[track_caller]
fn check(filter: Value, yes: &[Value], no: &[Value]) {
    for (bodies, wanted) in [(yes, true), (no, false)] {
        for body in bodies {
            assert_eq!(
                matches(filter.clone(), body.clone()),
                wanted,
                "{filter} on {body}"
            );
        }
    }
}

#[test]
fn all_keys_of_an_object_must_hold() {
    check(
        json!({"job": {"status": {"$in": ["failed", "error"]}}, "site": "ams"}),
        &[json!({"job": {"status": "failed", "id": 1}, "site": "ams"})],
        &[
            json!({"job": {"status": "ok"}, "site": "ams"}),
            json!({"job": {"status": "failed"}}),
            json!({}),
            json!(null),
        ],
    );
}

#[test]
fn the_empty_filter_matches_every_event() {
    check(
        json!({}),
        &[json!({}), json!(null), json!([1]), json!("x")],
        &[],
    );
}

#[test]
fn a_name_with_dots_is_one_name() {
    check(
        json!({"a.b": 1}),
        &[json!({"a.b": 1})],
        &[json!({"a": {"b": 1}})],
    );
}

#[test]
fn equality_is_that_of_json_with_numbers_by_value() {
    check(
        json!({"x": 1}),
        &[json!({"x": 1}), json!({"x": 1.0})],
        &[json!({"x": "1"}), json!({"x": true}), json!({})],
    );
    check(
        json!({"x": 0}),
        &[json!({"x": -0.0})],
        &[json!({"x": null}), json!({"x": false}), json!({"x": ""})],
    );
    check(
        json!({"x": null}),
        &[json!({"x": null})],
        &[json!({}), json!({"x": false})],
    );
    check(
        json!({"x": {"$eq": {"a": [1, {"b": 2}]}}}),
        &[json!({"x": {"a": [1.0, {"b": 2}]}})],
        &[
            json!({"x": {"a": [1, {"b": 2}], "c": 3}}),
            json!({"x": {"a": [{"b": 2}, 1]}}),
        ],
    );
}

#[test]
fn order_is_that_of_numbers_or_of_texts_and_never_across() {
    check(
        json!({"x": {"$gt": 5}}),
        &[json!({"x": 5.5}), json!({"x": 6})],
        &[json!({"x": 5}), json!({"x": "six"})],
    );
    check(
        json!({"x": {"$gte": 5}}),
        &[json!({"x": 5.0})],
        &[json!({"x": 4.9}), json!({"x": null}), json!({})],
    );
    check(
        json!({"x": {"$lt": 5}}),
        &[json!({"x": -1})],
        &[json!({"x": 5}), json!({"x": true}), json!({"x": {}})],
    );
    check(
        json!({"x": {"$lte": 5}}),
        &[json!({"x": 5})],
        &[json!({"x": 5.000001})],
    );
    check(
        json!({"at": {"$gte": "2026-01-01T00:00:00Z", "$lt": "2027"}}),
        &[json!({"at": "2026-11-22T10:00:00Z"})],
        &[
            json!({"at": "2025-12-31T23:59:59Z"}),
            json!({"at": "2027-01-01T00:00:00Z"}),
            json!({"at": 2026}),
        ],
    );
}

#[test]
fn sixty_four_bit_integers_are_compared_without_loss() {
    check(
        json!({"x": {"$gt": 9007199254740992_u64}}),
        &[json!({"x": 9007199254740993_u64})],
        &[json!({"x": 9007199254740992.0})],
    );
    check(
        json!({"x": u64::MAX}),
        &[json!({"x": u64::MAX})],
        &[json!({"x": u64::MAX - 1}), json!({"x": u64::MAX as f64})],
    );
    check(
        json!({"x": {"$lt": u64::MAX as f64}}),
        &[json!({"x": u64::MAX})],
        &[json!({"x": 1e300})],
    );
    check(
        json!({"x": {"$lt": 0}}),
        &[
            json!({"x": i64::MIN}),
            json!({"x": -0.5}),
            json!({"x": -1e300}),
        ],
        &[json!({"x": u64::MAX})],
    );
}

#[test]
fn membership_is_in_a_list_or_in_a_text() {
    check(
        json!({"x": {"$in": [1, "a", null]}}),
        &[json!({"x": 1.0}), json!({"x": null})],
        &[json!({"x": "b"}), json!({})],
    );
    check(
        json!({"x": {"$nin": [1, "a"]}}),
        &[json!({"x": 2}), json!({"x": {}})],
        &[json!({"x": "a"}), json!({})],
    );
    check(
        json!({"x": {"$in": "ell"}}),
        &[json!({"x": "hello"}), json!({"x": ["ell"]})],
        &[
            json!({"x": "help"}),
            json!({"x": ["hello"]}),
            json!({"x": 1}),
        ],
    );
    check(
        json!({"x": {"$nin": "ell"}}),
        &[json!({"x": "help"}), json!({"x": 1})],
        &[json!({"x": "hello"}), json!({})],
    );
}

#[test]
fn texts_begin_and_end() {
    check(
        json!({"x": {"$startsWith": "ab"}}),
        &[json!({"x": "abc"})],
        &[json!({"x": "cab"}), json!({"x": 1})],
    );
    check(
        json!({"x": {"$endsWith": ["bc", "é"]}}),
        &[json!({"x": "abc"}), json!({"x": "café"})],
        &[json!({"x": "ab"})],
    );
}

#[test]
fn a_field_that_is_not_there_meets_only_exist_false_and_not() {
    let missing = [
        json!({}),
        json!({"job": {}}),
        json!({"job": "x"}),
        json!({"job": null}),
    ];
    for operator in [
        json!({"$neq": 1}),
        json!({"$nin": [1]}),
        json!({"$nin": "a"}),
        json!({"$exist": true}),
        json!({"$lt": 9}),
    ] {
        check(json!({"job": {"id": operator}}), &[], &missing);
    }
    check(
        json!({"job": {"id": {"$exist": false}}}),
        &missing,
        &[json!({"job": {"id": null}})],
    );
    check(
        json!({"job": {"id": {"$not": 1}}}),
        &missing,
        &[json!({"job": {"id": 1}})],
    );
}

#[test]
fn conditions_are_combined_at_every_level() {
    check(
        json!({"$or": [{"a": 1}, {"b": {"$or": [{"$lt": 0}, {"$gt": 10}]}}], "$not": {"c": true}}),
        &[
            json!({"a": 1}),
            json!({"b": -1}),
            json!({"b": 11, "c": false}),
        ],
        &[json!({"b": 5}), json!({"a": 1, "c": true}), json!({})],
    );
    check(
        json!({"$and": [{"a": 1}, {"a": {"$exist": true}}]}),
        &[json!({"a": 1})],
        &[json!({"a": 2})],
    );
    check(
        json!({"a": {"$or": [1, 5]}}),
        &[json!({"a": 5})],
        &[json!({"a": 2})],
    );
}

/// A table of Hookdeck's own tests for the syntax, those whose meaning we share.
#[test]
fn hookdecks_examples_mean_the_same_here() {
    let cases = [
        (json!({"type": "created"}), json!({"type": "created"}), true),
        (
            json!({"type": {"something": "created"}}),
            json!({"type": 1}),
            false,
        ),
        (
            json!({"items": [{"inventory": 9}, {"inventory": 11}]}),
            json!({"items": {"inventory": {"$lte": 10}}}),
            true,
        ),
        (
            json!({"items": [{"inventory": 12}, {"inventory": 11}]}),
            json!({"items": {"inventory": {"$lte": 10}}}),
            false,
        ),
        (
            json!({"tags": ["test", "other", "more"]}),
            json!({"tags": ["test", "other"]}),
            true,
        ),
        (
            json!({"tags": ["test", "other", "more"]}),
            json!({"tags": ["test", "whatever"]}),
            false,
        ),
        (
            json!({"tags": ["test", "other", "more"]}),
            json!({"tags": {"$eq": ["test", "other"]}}),
            false,
        ),
        (
            json!({"exist": null}),
            json!({"exist": {"$neq": null}}),
            false,
        ),
        (
            json!({"test": "some-text"}),
            json!({"test": {"$startsWith": ["some", "else"]}}),
            true,
        ),
        (
            json!({"test": "some-text"}),
            json!({"test": {"$nin": "some"}}),
            false,
        ),
        (
            json!({"tags": ["test", "something"]}),
            json!({"tags": {"$nin": "test"}}),
            false,
        ),
        (
            json!({"test": {"test3": "else"}}),
            json!({"test": {"test2": {"$exist": false}}}),
            true,
        ),
        (
            json!({"test": {"a": "else", "b": "not"}}),
            json!({"test": {"a": {"$exist": true, "$or": ["else", "not"]}}, "$and": [{"test": {"b": "not"}}]}),
            true,
        ),
    ];
    for (body, filter, wanted) in cases {
        assert_eq!(
            matches(filter.clone(), body.clone()),
            wanted,
            "{filter} on {body}"
        );
    }
}
