//! What a condition means when the event has a list.

use serde_json::json;

use super::*;

#[test]
fn a_list_matches_when_one_element_does() {
    check(
        json!({"tags": "a"}),
        &[json!({"tags": ["b", "a"]}), json!({"tags": [["a"]]})],
        &[json!({"tags": ["b"]}), json!({"tags": []})],
    );
    check(
        json!({"x": {"$gt": 1, "$lt": 3}}),
        &[json!({"x": [9, 2]})],
        &[json!({"x": [0, 9]})],
    );
    check(
        json!({"x": {"$and": [{"$gt": 1}, {"$lt": 3}]}}),
        &[json!({"x": [0, 9]})],
        &[json!({"x": [3, 9]})],
    );
    check(
        json!({"tags": ["a", "b"]}),
        &[json!({"tags": ["c", "b", "a"]})],
        &[json!({"tags": ["a"]}), json!({"tags": "a"})],
    );
    check(
        json!({"x": {"$eq": ["a"]}}),
        &[json!({"x": ["a"]}), json!({"x": [["a"]]})],
        &[json!({"x": ["a", "b"]}), json!({"x": "a"})],
    );
    check(json!({"x": {"$exist": true}}), &[json!({"x": []})], &[]);
}

#[test]
fn an_object_that_names_fields_describes_one_element() {
    check(
        json!({"items": {"sku": "a", "qty": {"$gt": 1}, "$not": {"sold": true}}}),
        &[
            json!({"items": [{"sku": "b"}, {"sku": "a", "qty": 2}]}),
            json!({"items": {"sku": "a", "qty": 2}}),
        ],
        &[
            json!({"items": [{"sku": "a", "qty": 1}, {"sku": "b", "qty": 2}]}),
            json!({"items": [{"sku": "a", "qty": 2, "sold": true}, {"sold": false}]}),
            json!({"items": []}),
        ],
    );
    check(
        json!({"items": {"note": {"$exist": false}}}),
        &[json!({"items": [{"note": 1}, {}]})],
        &[json!({"items": [{"note": 1}]}), json!({"items": []})],
    );
}

#[test]
fn negation_on_a_list_means_no_element() {
    check(
        json!({"x": {"$neq": "a"}}),
        &[json!({"x": ["b"]}), json!({"x": []})],
        &[json!({"x": ["b", "a"]}), json!({"x": [["a"]]})],
    );
    check(
        json!({"x": {"$nin": ["a", "c"]}}),
        &[json!({"x": ["b"]})],
        &[json!({"x": ["b", "a"]})],
    );
    check(
        json!({"x": {"$not": "a"}}),
        &[json!({"x": ["b"]})],
        &[json!({"x": ["b", "a"]})],
    );
    check(
        json!({"x": {"$gt": 1, "$neq": 5}}),
        &[json!({"x": [0, 2]})],
        &[json!({"x": [2, 5]})],
    );
    check(
        json!({"items": {"$not": {"sku": "a"}}}),
        &[json!({"items": [{"sku": "b"}]})],
        &[json!({"items": [{"sku": "b"}, {"sku": "a"}]})],
    );
}
