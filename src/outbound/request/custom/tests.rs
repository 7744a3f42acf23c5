//! Nothing a webhook's owner writes can smuggle in a header, and every refusal names the field and the cure.

use super::super::tests::settings;
use super::super::{Endpoint, EndpointSettings};
use super::*;

fn refusal(settings: EndpointSettings<'_>) -> String {
    Endpoint::new(settings).unwrap_err().to_string()
}

#[test]
fn headers_of_the_connection_and_our_own_are_refused_in_any_case() {
    let names = [
        "Host",
        "HOST",
        "Content-Length",
        "Transfer-Encoding",
        "Connection",
        "Keep-Alive",
        "Proxy-Connection",
        "Proxy-Authorization",
        "Proxy-Authenticate",
        "TE",
        "Trailer",
        "Upgrade",
        "HTTP2-Settings",
        "Expect",
        "webhook-id",
        "Webhook-Signature",
        "webhook-anything",
        "X-Webhook-Signature",
        "x-webhook-event",
        "",
        " ",
        "a b",
        "a:b",
        "a\r\nb",
        "ä",
        "a\0",
        "(x)",
    ];
    for name in names {
        assert!(check_header(name, "x").is_err(), "{name:?} was let through");
    }
    for name in [
        "Authorization",
        "X-Forwarded-Host",
        "Accept",
        "Webhook",
        "x-webhooks",
        "Traceparent",
    ] {
        assert_eq!(check_header(name, "x"), Ok(()), "{name}");
    }
}

#[test]
fn values_that_could_end_a_header_are_refused_with_the_cure() {
    for (value, word) in [
        ("a\rb", "\\r"),
        ("a\nb", "\\n"),
        ("a\0b", "\\u{0}"),
        ("é", "encode"),
        ("a\x7f", "encode"),
    ] {
        let message = check_header("X-Team", value).unwrap_err();
        assert!(message.contains(word), "{message}");
        assert!(!message.contains(value), "the value must not be repeated");
    }
    assert_eq!(check_header("X-Team", ""), Ok(()));
    assert_eq!(check_header("X-Team", "tab\tand space"), Ok(()));
    assert!(check_header("X-Team", &"a".repeat(LONGEST_HEADER + 1)).is_err());
}

#[test]
fn cookies_that_could_become_two_are_refused() {
    for (name, value) in [
        ("", "x"),
        ("a b", "x"),
        ("a=b", "x"),
        ("a", "b; c=d"),
        ("a", "b,c"),
        ("a", "b\r\nX: y"),
        ("a", "ü"),
    ] {
        assert!(check_cookie(name, value).is_err(), "{name:?}={value:?}");
    }
    assert_eq!(check_cookie("session", "abc=="), Ok(()));
}

#[test]
fn a_refused_field_is_named_by_its_pointer() {
    let named = |settings| refusal(settings).split(':').next().unwrap().to_owned();
    assert_eq!(
        named(EndpointSettings {
            headers: vec![("a/b", "x")],
            ..settings()
        }),
        "/headers/a~1b"
    );
    assert_eq!(
        named(EndpointSettings {
            headers: vec![("X-A", "1"), ("x-a", "2")],
            ..settings()
        }),
        "/headers/x-a"
    );
    assert_eq!(
        named(EndpointSettings {
            cookies: vec![("a", ";")],
            ..settings()
        }),
        "/cookies/a"
    );
    assert_eq!(
        named(EndpointSettings {
            secrets: vec!["whsec_!"],
            ..settings()
        }),
        "/secret"
    );
    for (auth, pointer) in [
        (Auth::Bearer { token: "" }, "/auth/token"),
        (Auth::Bearer { token: "a\nb" }, "/auth/token"),
        (
            Auth::ApiKey {
                header: Some("Host"),
                token: "k",
            },
            "/auth/header",
        ),
        (
            Auth::Basic {
                username: "a:b",
                password: "",
            },
            "/auth/username",
        ),
        (
            Auth::Basic {
                username: "",
                password: "",
            },
            "/auth/username",
        ),
    ] {
        assert_eq!(named(EndpointSettings { auth, ..settings() }), pointer);
    }
    let twice = EndpointSettings {
        headers: vec![("Authorization", "x")],
        auth: Auth::Bearer { token: "t" },
        ..settings()
    };
    assert_eq!(named(twice), "/auth");
    let twice = EndpointSettings {
        headers: vec![("Cookie", "x=y")],
        cookies: vec![("a", "b")],
        ..settings()
    };
    assert_eq!(named(twice), "/cookies");
    let names: Vec<_> = (0..=MOST_HEADERS)
        .map(|number| format!("x-{number}"))
        .collect();
    let many = names.iter().map(|name| (name.as_str(), "1")).collect();
    assert_eq!(
        named(EndpointSettings {
            headers: many,
            ..settings()
        }),
        "/headers"
    );
}
