//! The filter against its meaning written down naively, and against any JSON at all.

use std::cmp::Ordering;

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// The meaning written down a second time, straight from the JSON and without a thought for speed.
mod model {
    use super::*;

    pub fn holds(filter: &Value, value: Option<&Value>) -> bool {
        match filter {
            Value::Array(all) => all.iter().all(|one| holds(one, value)),
            Value::Object(keys) => {
                let names_fields = keys.keys().any(|key| !key.starts_with('$'));
                match value {
                    Some(Value::Array(elements)) if names_fields => {
                        elements.iter().any(|one| holds(filter, Some(one)))
                    }
                    Some(Value::Array(_)) => on_list(keys, value),
                    _ => keys
                        .iter()
                        .all(|(key, operand)| key_holds(key, operand, value)),
                }
            }
            scalar => {
                value.is_some_and(|value| flattened(value).into_iter().any(|one| same(one, scalar)))
            }
        }
    }

    fn on_list(keys: &serde_json::Map<String, Value>, value: Option<&Value>) -> bool {
        let comparison =
            |key: &str| matches!(key, "$eq" | "$gt" | "$gte" | "$lt" | "$lte" | "$startsWith");
        let together = |one: &Value| {
            keys.iter()
                .filter(|(key, _)| comparison(key))
                .all(|(key, operand)| compares(key, operand, one))
        };
        value.is_some_and(|value| flattened(value).into_iter().any(together))
            && keys
                .iter()
                .filter(|(key, _)| !comparison(key))
                .all(|(key, operand)| key_holds(key, operand, value))
    }

    fn key_holds(key: &str, operand: &Value, value: Option<&Value>) -> bool {
        let list = || operand.as_array().unwrap().iter();
        match key {
            "$and" => list().all(|one| holds(one, value)),
            "$or" => list().any(|one| holds(one, value)),
            "$not" => !holds(operand, value),
            "$exist" => operand.as_bool().unwrap() == value.is_some(),
            "$neq" => value
                .is_some_and(|value| !flattened(value).into_iter().any(|one| same(one, operand))),
            name if !name.starts_with('$') => {
                holds(operand, value.and_then(|value| value.get(name)))
            }
            comparison => value.is_some_and(|value| compares(comparison, operand, value)),
        }
    }

    fn compares(key: &str, operand: &Value, value: &Value) -> bool {
        let order = match (value, operand) {
            (Value::Number(left), Value::Number(right)) => {
                left.as_f64().partial_cmp(&right.as_f64())
            }
            (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
            _ => None,
        };
        match key {
            "$eq" => same(value, operand),
            "$gt" => order == Some(Ordering::Greater),
            "$gte" => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
            "$lt" => order == Some(Ordering::Less),
            "$lte" => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            "$startsWith" => value
                .as_str()
                .is_some_and(|value| value.starts_with(operand.as_str().unwrap())),
            other => unreachable!("{other}"),
        }
    }

    /// The value and, for a list, all that is in it.
    fn flattened(value: &Value) -> Vec<&Value> {
        let below = value.as_array().into_iter().flatten().flat_map(flattened);
        std::iter::once(value).chain(below).collect()
    }

    fn same(left: &Value, right: &Value) -> bool {
        match (left, right) {
            (Value::Number(left), Value::Number(right)) => left.as_f64() == right.as_f64(),
            (Value::Array(left), Value::Array(right)) => {
                left.len() == right.len()
                    && left
                        .iter()
                        .zip(right)
                        .all(|(left, right)| same(left, right))
            }
            _ => left == right,
        }
    }
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        (-2..3_i64).prop_map(Value::from),
        prop::sample::select(vec![-1.0, 0.5, 1.0, 2.0]).prop_map(Value::from),
        "[ab]{0,2}".prop_map(Value::from),
    ]
}

fn body() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            3 => prop::collection::btree_map("[xyz]", inner.clone(), 0..4).prop_map(|fields| json!(fields)),
            2 => prop::collection::vec(inner, 0..4).prop_map(Value::from),
        ]
    })
}

fn condition() -> impl Strategy<Value = Value> {
    let comparison = prop_oneof![
        (
            prop::sample::select(vec!["$gt", "$gte", "$lt", "$lte"]),
            -1..3_i64
        )
            .prop_map(|(key, at)| (key, json!(at))),
        (prop::sample::select(vec!["$eq", "$neq"]), scalar()),
        (Just("$startsWith"), "[ab]?".prop_map(Value::from)),
        (Just("$exist"), any::<bool>().prop_map(Value::from)),
    ];
    let comparisons = prop::collection::vec(comparison, 1..3).prop_map(|keys| {
        keys.into_iter()
            .map(|(key, operand)| (key.to_owned(), operand))
            .collect::<Value>()
    });
    prop_oneof![scalar(), comparisons].prop_recursive(4, 16, 3, |inner| {
        let list = prop::collection::vec(inner.clone(), 1..3);
        let fields = prop::collection::btree_map("[xyz]", inner.clone(), 1..3);
        prop_oneof![
            4 => fields.clone().prop_map(|fields| json!(fields)),
            1 => list.clone().prop_map(Value::from),
            1 => list.clone().prop_map(|all| json!({"$and": all})),
            1 => list.prop_map(|any| json!({"$or": any})),
            1 => inner.clone().prop_map(|inner| json!({"$not": inner})),
            1 => (fields, inner).prop_map(|(mut fields, inner)| { fields.insert("$not".to_owned(), inner); json!(fields) }),
        ]
    })
}

fn any_json() -> impl Strategy<Value = Value> {
    let key = prop_oneof![
        prop::sample::select(vec![
            "$eq",
            "$in",
            "$nin",
            "$gt",
            "$or",
            "$and",
            "$not",
            "$exist",
            "$startsWith",
            "$x",
            "a"
        ])
        .prop_map(str::to_owned),
        any::<String>(),
    ];
    let number = any::<f64>().prop_map(Value::from);
    prop_oneof![
        scalar(),
        number,
        any::<u64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from)
    ]
    .prop_recursive(5, 32, 4, move |inner| {
        prop_oneof![
            prop::collection::btree_map(key.clone(), inner.clone(), 0..4)
                .prop_map(|fields| json!(fields)),
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn the_filter_equals_its_meaning_written_down_naively(field in condition(), body in body()) {
        let source = json!({"x": field});
        let filter = Filter::parse(&source).unwrap();
        let body = json!({"x": body});
        prop_assert_eq!(filter.matches(&body), model::holds(&source, Some(&body)), "{} on {}", source, body);
        prop_assert_eq!(filter.explain(&body).is_match(), filter.matches(&body));
    }

    #[test]
    fn no_json_makes_the_parser_or_a_parsed_filter_fail(source in any_json(), body in any_json()) {
        match Filter::parse(&source) {
            Ok(filter) => prop_assert_eq!(filter.explain(&body).is_match(), filter.matches(&body)),
            Err(errors) => prop_assert!(!errors.is_empty()),
        }
    }

    #[test]
    fn numbers_keep_their_order_whatever_their_kind(left in any::<i64>(), right in any::<f64>()) {
        let (left, right) = (json!(left), json!(right.clamp(-1e19, 1e19)));
        let ordering = order(&left, &right).unwrap();
        prop_assert_eq!(order(&right, &left), Some(ordering.reverse()));
        prop_assert_eq!(equal(&left, &right), ordering == Ordering::Equal);
        let rough = left.as_f64().partial_cmp(&right.as_f64()).unwrap();
        prop_assert!(rough == Ordering::Equal || rough == ordering);
    }
}
