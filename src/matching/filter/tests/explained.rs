//! What people are told when an event does not meet a filter.

use serde_json::json;

use super::*;

#[test]
fn an_explanation_names_the_first_condition_that_failed() {
    let explain =
        |filter: Value, body: Value| Filter::parse(&filter).unwrap().explain(&body).to_string();
    let cases = [
        (
            json!({"job": {"status": {"$in": ["failed"]}}}),
            json!({"job": {"status": "ok"}}),
            "/job/status: wanted $in [\"failed\"], found \"ok\"",
        ),
        (
            json!({"job": {"status": "failed"}}),
            json!({}),
            "/job/status: wanted $eq \"failed\", found nothing",
        ),
        (
            json!({"a": 1, "b": {"$gt": 2, "$lt": 9}}),
            json!({"a": 1, "b": 9}),
            "/b: wanted $lt 9, found 9",
        ),
        (
            json!({"x": {"$gt": 1, "$lt": 3}}),
            json!({"x": [0, 9]}),
            "/x: wanted $and [{\"$gt\":1,\"$lt\":3}], found [0,9]",
        ),
        (
            json!({"i": {"a": 1}}),
            json!({"i": [{"a": 2}]}),
            "/i/0/a: wanted $eq 1, found 2",
        ),
        (
            json!({"i": {"a": 1}}),
            json!({"i": []}),
            "/i: wanted $and [{\"a\":{\"$eq\":1}}], found []",
        ),
        (
            json!({"$or": [{"a": 1}, {"b": 2}]}),
            json!({}),
            "the body: wanted $or [{\"a\":{\"$eq\":1}},{\"b\":{\"$eq\":2}}], found {}",
        ),
        (
            json!({"x": {"$not": {"$endsWith": "z"}}}),
            json!({"x": "z"}),
            "/x: wanted $not {\"$endsWith\":\"z\"}, found \"z\"",
        ),
        (
            json!({"x": {"$and": [1, {"$exist": false}]}}),
            json!({"x": 1}),
            "/x: wanted $exist false, found 1",
        ),
        (
            json!({"a/b~": {"$nin": [1, 2.5]}}),
            json!({"a/b~": 1}),
            "/a~1b~0: wanted $nin [1,2.5], found 1",
        ),
        (json!({"a": 1}), json!({"a": 1}), "matches"),
    ];
    for (filter, body, wanted) in cases {
        assert_eq!(explain(filter, body), wanted);
    }
    assert!(
        explain(json!({"a": 1}), json!({"a": "é".repeat(10_000)}))
            .chars()
            .count()
            < 200
    );
}

#[test]
fn an_explanation_is_json_for_the_api() {
    let explanation = Filter::parse(&json!({"a": {"$exist": true}}))
        .unwrap()
        .explain(&json!({}));
    let wanted = json!({"result": "fails", "path": "/a", "operator": "$exist", "wanted": true});
    assert_eq!(serde_json::to_value(explanation).unwrap(), wanted);
}
