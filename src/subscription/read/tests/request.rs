//! What may stand in a request, and that nothing else gets there: URL, headers, cookies, credentials, secret.

use serde_json::json;

use super::{fault, good};
use crate::subscription::SecretChange;

#[test]
fn urls_that_must_not_be_reached_so_are_refused() {
    let long = format!("https://example.com/{}", "x".repeat(2_048));
    let cases = [
        (json!(null), "missing"),
        (json!(7), "must be text"),
        (json!("example.com/hook"), "write it in full"),
        (json!("/hook"), "write it in full"),
        (json!("https://"), "write it in full"),
        (
            json!("ftp://example.com"),
            "must begin with https:// or http://",
        ),
        (
            json!("file:///etc/passwd"),
            "must begin with https:// or http://",
        ),
        (
            json!("https://user:hidden@example.com"),
            "put them into `auth`",
        ),
        (json!("https://user@example.com"), "put them into `auth`"),
        (json!("https://exa mple.com/"), "percent-encoded"),
        (json!("https://example.com/\r\nHost: b"), "percent-encoded"),
        (json!(long), "at most 2048"),
        (
            json!(format!("https://example.com/{}", "ä".repeat(1_000))),
            "at most 2048",
        ),
    ];
    for (url, part) in cases {
        let fault = fault(json!({"url": url}));
        assert!(
            fault.starts_with("/url: ") && fault.contains(part),
            "{fault}"
        );
        assert!(!fault.contains("hidden"));
    }
    good(json!({"url": format!("https://example.com/{}", "x".repeat(2_028))}));
}

#[test]
fn headers_that_could_break_or_forge_a_request_are_refused() {
    let names = [
        "Host",
        "content-length",
        "Transfer-Encoding",
        "CONNECTION",
        "TE",
        "webhook-id",
        "Webhook-Signature",
        "X-Webhook-Signature",
        "",
        "a b",
        "a:b",
        "a\r\nb",
        "ä",
        "a\u{0}",
    ];
    for name in names {
        let fault = fault(json!({"headers": {name: "hidden"}}));
        assert!(
            fault.starts_with("/headers/") && !fault.contains("hidden"),
            "{fault}"
        );
    }
    for value in [
        "hidden\r\nX: y",
        "hidden\n",
        "hidden\r",
        "hidden\u{0}",
        "hidden\u{7}",
        "hiddenä",
        " hidden",
    ] {
        let fault = fault(json!({"headers": {"X-A": value}}));
        assert!(
            fault.starts_with("/headers/X-A: the value ") && !fault.contains("hidden"),
            "{fault}"
        );
    }
    assert!(fault(json!({"headers": {"X-A": 5}})).contains("put it in quotes"));
    assert!(fault(json!({"headers": ["X-A"]})).contains("must be an object"));
    assert!(fault(json!({"headers": {"X-A": "1", "x-a": "2"}})).contains("are the same header"));
    good(json!({"headers": {"X-A": "tab\tand space", "Content-Type": "text/plain", "X-B": ""}}));
}

#[test]
fn cookies_that_could_break_a_request_are_refused() {
    for (name, value) in [
        ("a b", "x"),
        ("", "x"),
        ("a;b", "x"),
        ("a", "x;y"),
        ("a", "x\r\ny"),
        ("a", "\u{0}"),
    ] {
        assert!(fault(json!({"cookies": {name: value}})).starts_with("/cookies/"));
    }
    assert!(
        fault(json!({"cookies": {"a": "b"}, "headers": {"cookie": "a=c"}}))
            .contains("written twice")
    );
}

#[test]
fn credentials_that_say_too_little_or_too_much_are_refused() {
    let cases = [
        (
            json!({"auth": {"token": "hidden"}}),
            "/auth/type: say which kind",
        ),
        (json!({"auth": {"type": "digest"}}), "/auth/type: the kind"),
        (json!({"auth": {"type": 1}}), "/auth/type: the kind"),
        (
            json!({"auth": {"type": "bearer"}}),
            "/auth/token: the token is missing",
        ),
        (
            json!({"auth": {"type": "bearer", "token": ""}}),
            "/auth/token: it is empty",
        ),
        (
            json!({"auth": {"type": "bearer", "token": 12_345}}),
            "/auth/token: the token must be text",
        ),
        (
            json!({"auth": {"type": "bearer", "token": "hidden\r\nX: y"}}),
            "/auth/token: it may have",
        ),
        (
            json!({"auth": {"type": "bearer", "token": "hiddenä"}}),
            "/auth/token: a token must be ASCII",
        ),
        (
            json!({"auth": {"type": "bearer", "token": "t", "username": "hidden"}}),
            "/auth/username: this does not belong",
        ),
        (
            json!({"auth": {"type": "none", "token": "hidden"}}),
            "/auth/token: this does not belong",
        ),
        (
            json!({"auth": {"type": "api_key", "token": "t", "header": "Host"}}),
            "/auth/header: Host is set",
        ),
        (
            json!({"auth": {"type": "basic", "username": "a:b", "password": "hidden"}}),
            "/auth/username: a user name",
        ),
        (
            json!({"auth": {"type": "basic", "username": "a"}}),
            "/auth/password: the password is missing",
        ),
        (json!({"auth": ["hidden"]}), "/auth: `auth` as a list"),
        (
            json!({"auth": ["u", "hidden", "x"]}),
            "/auth: `auth` as a list",
        ),
        (json!({"auth": ["u", 5]}), "/auth: `auth` as a list"),
        (json!({"auth": "hidden"}), "/auth: `auth` must be an object"),
        (
            json!({"auth_token": "hidden"}),
            "/auth_type: say which kind",
        ),
        (
            json!({"auth_type": "bearer"}),
            "/auth_token: the token is missing",
        ),
        (
            json!({"auth_type": "bearer", "auth_token": "t", "headers": {"authorization": "hidden"}}),
            "/headers/authorization: ",
        ),
        (
            json!({"auth": {"type": "api_key", "token": "t"}, "headers": {"x-api-key": "hidden"}}),
            "/headers/x-api-key: ",
        ),
    ];
    for (value, part) in cases {
        let fault = fault(value);
        assert!(
            fault.starts_with(part) && !fault.contains("hidden"),
            "{fault}"
        );
    }
}

#[test]
fn a_secret_has_its_forms_and_no_others() {
    assert_eq!(good(json!({"secret": null})).secret, SecretChange::Remove);
    assert_eq!(
        good(json!({"secret": "generate"})).secret,
        SecretChange::Generate
    );
    assert_eq!(good(json!({"secret": "***"})).secret, SecretChange::Stored);
    good(json!({"secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}));
    for wrong in [
        json!(""),
        json!("whsec_not!base64"),
        json!("whsec_"),
        json!("a\nb"),
        json!(5),
        json!("x".repeat(513)),
    ] {
        assert!(fault(json!({"secret": wrong})).starts_with("/secret: `"));
    }
}
