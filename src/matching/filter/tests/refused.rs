//! Every filter that is not accepted, and what its author is told.

use serde_json::json;

use super::*;

fn errors(filter: &Value) -> Vec<String> {
    Filter::parse(filter)
        .unwrap_err()
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn an_unknown_operator_is_refused_with_the_nearest_known_one() {
    let cases = [
        ("$exists", "`$exist`"),
        ("$ne", "`$neq`"),
        ("$notin", "`$nin`"),
        ("$startswith", "`$startsWith`"),
        ("$GTE", "`$gte`"),
        ("$nor", "`$not`"),
        ("$elemMatch", "there are $eq $neq"),
        ("$", "`$"),
    ];
    for (operator, wanted) in cases {
        let errors = errors(&json!({"job": {"status": {operator: 1}}}));
        assert_eq!(errors.len(), 1, "{errors:?}");
        let message = &errors[0];
        assert!(
            message.starts_with(&format!(
                "/job/status/{operator}: unknown operator `{operator}`"
            )),
            "{message}"
        );
        assert!(message.contains(wanted), "{message}");
    }
    let regex = errors(&json!({"job": {"$regex": "a+"}})).remove(0);
    assert!(
        regex.starts_with("/job/$regex: there is no `$regex`"),
        "{regex}"
    );
}

#[test]
fn every_wrong_operand_gets_its_message_and_its_place() {
    let cases = [
        (json!(null), "the filter: must be an object such as"),
        (json!([{"a": 1}]), "the filter: must be an object such as"),
        (json!({"a": {}}), "/a: is an empty condition"),
        (json!({"a": []}), "/a: is an empty list"),
        (
            json!({"a": {"$gt": true}}),
            "/a/$gt: must be a number or a text, not true or false",
        ),
        (
            json!({"a": {"$lt": [1]}}),
            "/a/$lt: must be a number or a text, not a list",
        ),
        (
            json!({"a": {"$in": 5}}),
            "/a/$in: must be a list of values, or a text to look for, not a number",
        ),
        (json!({"a": {"$in": []}}), "/a/$in: is an empty list"),
        (
            json!({"a": {"$nin": [1, {}]}}),
            "/a/$nin/1: must be a text, a number, true, false or null, not an object",
        ),
        (
            json!({"a": {"$startsWith": 5}}),
            "/a/$startsWith: must be a text or a list of texts, not a number",
        ),
        (
            json!({"a": {"$endsWith": ["x", null]}}),
            "/a/$endsWith/1: must be a text, not null",
        ),
        (
            json!({"a": {"$endsWith": []}}),
            "/a/$endsWith: is an empty list",
        ),
        (
            json!({"a": {"$exist": "yes"}}),
            "/a/$exist: must be true (the field is there) or false (it is not), not a text",
        ),
        (
            json!({"$or": {"a": 1}}),
            "/$or: must be a list of conditions, not an object",
        ),
        (json!({"$and": []}), "/$and: is an empty list"),
        (
            json!({"$and": [{"a": 1}, {}]}),
            "/$and/1: is an empty condition",
        ),
        (
            json!({"a/b": {"$not": {}}}),
            "/a~1b/$not: is an empty condition",
        ),
    ];
    for (filter, wanted) in cases {
        let errors = errors(&filter);
        assert_eq!(errors.len(), 1, "{filter}: {errors:?}");
        assert!(errors[0].starts_with(wanted), "{filter}: {}", errors[0]);
    }
}

#[test]
fn all_faults_are_told_at_once() {
    let errors = errors(&json!({"a": {"$gt": null, "$is": 1}, "b": {"$in": [[], {}]}}));
    assert_eq!(errors.len(), 4, "{errors:?}");
}

#[test]
fn a_filter_that_is_too_deep_too_large_or_too_long_is_refused() {
    let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!({"a": inner}));
    assert!(Filter::parse(&nested(16)).is_ok());
    let deep = errors(&nested(17));
    assert_eq!(
        deep,
        [format!(
            "{}: nested deeper than 16 levels; flatten it, for instance with `$and`",
            "/a".repeat(16)
        )]
    );
    assert_eq!(errors(&nested(1_000)).len(), 1);
    assert!(errors(&json!({"a": {"$eq": nested(15)}}))[0].contains("nested deeper than 16 levels"));

    let text = |bytes: usize| json!({"a": "x".repeat(bytes - 8)});
    assert!(Filter::parse(&text(16 * 1024)).is_ok());
    assert!(
        errors(&text(16 * 1024 + 1))[0]
            .starts_with("the filter: 16385 bytes as compact JSON; 16384 are allowed")
    );

    let many = |count: usize| json!({"$or": vec![json!({"a": 1}); count - 1]});
    assert!(Filter::parse(&many(256)).is_ok());
    assert!(errors(&many(257))[0].starts_with("the filter: 257 conditions; 256 are allowed"));
    assert!(Filter::parse(&json!({"a": {"$in": (0..2_000).collect::<Vec<_>>()}})).is_ok());
}
