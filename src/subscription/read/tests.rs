//! Every limit of the contract's table, every spelling that is accepted, and the message for what is not.

mod request;

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{Auth, DEFAULT_API_KEY_HEADER, Method, SecretChange};
use super::*;

/// The least that is a webhook, with more fields over it.
fn with(more: Value) -> Value {
    let mut value = json!({"url": "https://example.com/hook", "event_types": ["job.*"]});
    for (name, field) in more.as_object().unwrap() {
        value[name] = field.clone();
    }
    value
}

fn good(more: Value) -> Draft {
    read(&with(more.clone()), "").unwrap_or_else(|errors| panic!("{more}: {errors:?}"))
}

/// Expects exactly one fault and returns it as text.
fn fault(more: Value) -> String {
    let errors = read(&with(more.clone()), "").expect_err(&more.to_string());
    assert_eq!(errors.len(), 1, "{more}: {errors:?}");
    errors[0].to_string()
}

#[test]
fn what_is_left_out_has_the_contracts_defaults() {
    let draft = good(json!({}));
    let wanted = draft.wanted();
    assert!(!draft.has_given_id());
    assert!(wanted.id.starts_with("wh_"));
    assert_eq!(
        (
            wanted.customer.clone(),
            wanted.method,
            wanted.enabled,
            wanted.verify_ssl
        ),
        (None, Method::Post, true, true)
    );
    assert_eq!(wanted.timeout, Duration::from_secs(10));
    assert_eq!(
        (
            wanted.max_retries,
            wanted.retry_backoff_seconds,
            wanted.max_concurrency
        ),
        (3, 60, 16)
    );
    assert_eq!(
        (wanted.rate_limit, wanted.max_age_seconds, wanted.paused),
        (None, 259_200, false)
    );
    assert_eq!(
        (wanted.auth.clone(), draft.secret),
        (Auth::None, SecretChange::Keep)
    );
}

#[test]
fn the_example_of_webnet_is_read() {
    let draft = good(json!({
        "customer": 1, "name": "Slack Notifications", "secret": "your-secret-key", "enabled": true, "verify_ssl": true,
        "event_types": ["job.completed", "job.failed", "compliance.violation_detected"], "timeout_seconds": 10,
        "max_retries": 3, "retry_backoff": 60
    }));
    assert_eq!(draft.wanted().customer.as_deref(), Some("1"));
    assert_eq!(draft.wanted().event_types.len(), 3);
    assert_eq!(draft.secret, SecretChange::Set("your-secret-key".into()));
}

#[test]
fn the_spellings_of_netpulse_are_read() {
    let draft = good(json!({
        "name": "basic", "method": "put", "headers": {"Content-Type": "application/json", "Authorization": "Bearer t"},
        "cookies": {"a": "b c"}, "timeout": 0.5
    }));
    assert_eq!(draft.wanted().method, Method::Put);
    assert_eq!(draft.wanted().timeout, Duration::from_millis(500));
    let draft = good(json!({"auth": ["user", "pass"]}));
    assert_eq!(
        draft.wanted().auth,
        Auth::Basic {
            username: "user".into(),
            password: "pass".into()
        }
    );
}

#[test]
fn the_spellings_of_rag_are_read() {
    let rag = json!({
        "url": "https://example.com/x", "events": ["task_completed", "task_created"], "status": "inactive",
        "auth_type": "api_key", "auth_token": "k", "retry_enabled": true, "retry_count": 5, "timeout_seconds": 30,
    });
    let draft = read(&rag, "").unwrap();
    let wanted = draft.wanted();
    assert_eq!(wanted.event_types, ["task_completed", "task_created"]);
    assert_eq!((wanted.enabled, wanted.max_retries), (false, 5));
    assert_eq!(
        wanted.auth,
        Auth::ApiKey {
            token: "k".into(),
            header: DEFAULT_API_KEY_HEADER.into()
        }
    );
    assert_eq!(
        good(json!({"retry_enabled": false, "retry_count": 5}))
            .wanted()
            .max_retries,
        0
    );
    let basic = good(json!({"auth_type": "basic", "auth_username": "u", "auth_password": ""}));
    assert_eq!(
        basic.wanted().auth,
        Auth::Basic {
            username: "u".into(),
            password: String::new()
        }
    );
    assert_eq!(good(json!({"auth_type": "none"})).wanted().auth, Auth::None);
    for (status, enabled) in [("active", true), ("inactive", false), ("disabled", false)] {
        assert_eq!(good(json!({"status": status})).wanted().enabled, enabled);
    }
}

#[test]
fn each_kind_of_credentials_is_read() {
    assert_eq!(
        good(json!({"auth": {"type": "bearer", "token": "t"}}))
            .wanted()
            .auth,
        Auth::Bearer { token: "t".into() }
    );
    let key = Auth::ApiKey {
        token: "t".into(),
        header: "X-Key".into(),
    };
    assert_eq!(
        good(json!({"auth": {"type": "api_key", "token": "t", "header": "X-Key"}}))
            .wanted()
            .auth,
        key
    );
    let user = Auth::Basic {
        username: "u".into(),
        password: "p".into(),
    };
    assert_eq!(
        good(json!({"auth": {"type": "basic", "username": "u", "password": "p"}}))
            .wanted()
            .auth,
        user
    );
    assert_eq!(good(json!({"auth": null})).wanted().auth, Auth::None);
}

#[test]
fn limits_hold_on_both_sides() {
    let cases = [
        (
            "timeout_seconds",
            vec![json!(0.5), json!(300)],
            vec![json!(0.49), json!(300.1), json!("10s"), json!(-1)],
        ),
        (
            "timeout",
            vec![json!(0.5), json!(120)],
            vec![json!(0.4), json!(121)],
        ),
        (
            "max_retries",
            vec![json!(0), json!(20)],
            vec![json!(21), json!(-1), json!(1.5), json!("3")],
        ),
        ("retry_count", vec![json!(0), json!(20)], vec![json!(21)]),
        (
            "retry_backoff",
            vec![json!(1), json!(3600)],
            vec![json!(0), json!(3601)],
        ),
        (
            "max_concurrency",
            vec![json!(1), json!(256)],
            vec![json!(0), json!(257)],
        ),
        (
            "max_age_seconds",
            vec![json!(60), json!(2_592_000)],
            vec![json!(59), json!(2_592_001)],
        ),
        (
            "name",
            vec![json!("x".repeat(200))],
            vec![json!("x".repeat(201)), json!("a\u{0}b"), json!(1)],
        ),
        (
            "tags",
            vec![json!([]), json!(["a", "b"])],
            vec![json!("a"), json!([""]), json!([1]), json!(["x".repeat(65)])],
        ),
        (
            "customer",
            vec![json!(1), json!("a"), json!(null)],
            vec![json!(""), json!(true), json!(" a"), json!([1])],
        ),
        (
            "method",
            vec![json!("PATCH"), json!("delete")],
            vec![json!("HEAD"), json!(1)],
        ),
        ("enabled", vec![json!(false)], vec![json!("yes"), json!(1)]),
        ("paused", vec![json!(true)], vec![json!("true")]),
        ("verify_ssl", vec![json!(false)], vec![json!(0)]),
        (
            "id",
            vec![json!("wh_1")],
            vec![json!("a b"), json!(1), json!("")],
        ),
        (
            "filter",
            vec![json!({}), json!({"a": {"$eq": 1}})],
            vec![json!([]), json!("x"), json!({"a": "x".repeat(17_000)})],
        ),
        ("status", vec![json!("active")], vec![json!("on"), json!(1)]),
    ];
    let mut seen = 0;
    for (field, legal, illegal) in cases {
        for value in legal {
            good(json!({field: value}));
            seen += 1;
        }
        for value in illegal {
            let fault = fault(json!({field: value}));
            assert!(fault.starts_with(&format!("/{field}")), "{fault}");
            seen += 1;
        }
    }
    assert_eq!(seen, 71);
}

#[test]
fn every_fault_is_found_at_once_with_its_place() {
    let value = json!({
        "id": "a b", "event_types": [], "timeout_seconds": "10s", "headers": {"Host": "x", "A/b~": "y"},
        "rate_limit": {"requests": 0, "bursts": 3}, "max_retry": 3
    });
    let errors = read(&value, "/webhooks/4").unwrap_err();
    let mut pointers: Vec<&str> = errors.iter().map(|error| error.pointer.as_str()).collect();
    pointers.sort_unstable();
    let wanted = [
        "/webhooks/4/event_types",
        "/webhooks/4/headers/A~1b~0",
        "/webhooks/4/headers/Host",
        "/webhooks/4/id",
        "/webhooks/4/max_retry",
        "/webhooks/4/rate_limit/bursts",
        "/webhooks/4/rate_limit/requests",
        "/webhooks/4/timeout_seconds",
        "/webhooks/4/url",
    ];
    assert_eq!(pointers, wanted);
}

#[test]
fn an_unknown_field_is_refused_with_the_nearest_known_one() {
    assert_eq!(
        fault(json!({"verify_tls": true})),
        "/verify_tls: there is no field \"verify_tls\"; did you mean `verify_ssl`?"
    );
    assert!(fault(json!({"event_type": ["a"]})).contains("`event_types`"));
    assert!(fault(json!({"payload": "x"})).contains("there is no field \"payload\""));
    assert!(fault(json!({"zzzzzzzz": 1})).contains("Known are: id, customer"));
    assert!(
        fault(json!({"rate_limit": {"requests": 1, "per_second": 1}})).contains("`per_seconds`")
    );
    assert!(
        fault(json!({"auth": {"type": "bearer", "token": "t", "tokn": "t"}})).contains("`token`")
    );
}

#[test]
fn read_only_fields_are_ignored() {
    let read_only = json!({
        "created_at": "x", "updated_at": 1, "version": [], "state": "passing", "last_success_at": null,
        "last_failure_at": null, "pending": 3
    });
    assert_eq!(read_only.as_object().unwrap().len(), READ_ONLY.len());
    good(read_only);
}

#[test]
fn two_spellings_of_one_thing_are_refused() {
    for both in [
        json!({"timeout": 1, "timeout_seconds": 1}),
        json!({"events": ["a"]}),
        json!({"enabled": true, "status": "active"}),
        json!({"max_retries": 1, "retry_count": 1}),
        json!({"auth": {"type": "none"}, "auth_type": "none"}),
    ] {
        assert!(fault(both).contains("write only one of them"));
    }
}

#[test]
fn a_rate_limit_has_its_defaults_and_bounds() {
    let limit = good(json!({"rate_limit": {"requests": 10}}))
        .wanted()
        .rate_limit
        .unwrap();
    assert_eq!(
        (limit.requests, limit.per_seconds, limit.burst),
        (10, 1, 10)
    );
    let limit = good(json!({"rate_limit": {"requests": 1, "per_seconds": 60, "burst": 5}}))
        .wanted()
        .rate_limit
        .unwrap();
    assert_eq!((limit.requests, limit.per_seconds, limit.burst), (1, 60, 5));
    for wrong in [
        json!({}),
        json!({"requests": 0}),
        json!({"requests": 1, "burst": 0}),
        json!({"requests": 1, "per_seconds": 0.5}),
        json!(10),
    ] {
        assert!(fault(json!({"rate_limit": wrong})).starts_with("/rate_limit"));
    }
}

#[test]
fn event_types_are_at_least_one_and_have_no_spaces() {
    for wrong in [
        json!("job.*"),
        json!([]),
        json!([""]),
        json!(["a b"]),
        json!([1]),
        json!(["a\n"]),
        json!(["x".repeat(257)]),
    ] {
        assert!(fault(json!({"event_types": wrong})).starts_with("/event_types"));
    }
    let second = fault(json!({"event_types": ["ok", "a b"]}));
    assert_eq!(
        second,
        "/event_types/1: an event type has no spaces; this is the text \"a b\""
    );
}

#[test]
fn what_is_no_object_is_refused() {
    for value in [json!(null), json!([]), json!("x"), json!(1)] {
        let errors = read(&value, "/webhooks/0").unwrap_err();
        assert_eq!(errors[0].pointer, "/webhooks/0");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(".{0,6}", inner, 0..4)
                .prop_map(|map| map.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn no_value_of_any_field_panics_and_a_fault_always_has_its_field(
        fields in prop::collection::hash_map(prop::sample::select(FIELDS.to_vec()), any_json(), 1..4),
    ) {
        let more: Value = fields.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        if let Err(errors) = read(&with(more), "/w") {
            prop_assert!(!errors.is_empty());
            for error in errors {
                prop_assert!(FIELDS.iter().any(|name| error.pointer.starts_with(&format!("/w/{name}"))), "{}", error);
            }
        }
    }

    #[test]
    fn headers_that_are_let_through_cannot_end_a_line(name in ".{0,8}", value in ".{0,16}") {
        if checks::check_header_name(&name).is_ok() && checks::check_header_value(&value).is_ok() {
            let line = format!("{name}: {value}");
            prop_assert!(line.is_ascii() && !line.contains(['\r', '\n', '\0']));
        }
    }
}
