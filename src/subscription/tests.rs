//! Promises of the noun itself: identity, masks, and what a change of a webhook keeps.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn draft(value: &Value) -> Draft {
    read::read(value, "").unwrap_or_else(|errors| panic!("{errors:?}"))
}

fn full() -> Value {
    json!({
        "id": "wh_full", "customer": 7, "name": "full", "url": "https://example.com/hook?token=query-secret",
        "event_types": ["job.*"], "headers": {"X-Team": "header-secret"}, "cookies": {"session": "cookie-secret"},
        "auth": {"type": "bearer", "token": "bearer-secret"}, "secret": "signing-secret",
        "rate_limit": {"requests": 10}, "timeout_seconds": 2.5, "tags": ["a"], "filter": {"job": {"status": "failed"}},
    })
}

fn stored() -> Subscription {
    draft(&full()).create(at(100)).unwrap().subscription
}

#[test]
fn an_id_is_legal_in_headers_paths_and_labels_or_refused() {
    for legal in ["a", "wh_1", "A-b_9", &"x".repeat(64)] {
        assert_eq!(WebhookId::new(legal).unwrap().as_str(), legal);
    }
    for illegal in ["", "a b", "a/b", "ä", "a\n", "a.b", &"x".repeat(65)] {
        assert_eq!(
            WebhookId::new(illegal),
            Err(InvalidWebhookId),
            "{illegal:?}"
        );
        assert!(serde_json::from_value::<WebhookId>(json!(illegal)).is_err());
    }
}

#[test]
fn a_generated_id_is_new_each_time_and_legal() {
    let (first, second) = (WebhookId::generate(), WebhookId::generate());
    assert_ne!(first, second);
    assert!(first.starts_with("wh_"));
    assert_eq!(WebhookId::new(&first).unwrap(), first);
}

#[test]
fn a_derived_id_tells_customer_and_name_apart_and_stays_the_same() {
    let one = Customer::new("1");
    let id = WebhookId::derived(Some(&one), "x");
    assert_eq!(id, WebhookId::derived(Some(&one), "x"));
    assert_eq!(WebhookId::new(&id).unwrap(), id);
    for other in [
        WebhookId::derived(None, "x"),
        WebhookId::derived(Some(&one), "y"),
        WebhookId::derived(Some(&Customer::new("1 x")), ""),
        WebhookId::derived(None, "1:1 x"),
    ] {
        assert_ne!(id, other);
    }
    // Ids are stored: a change of the derivation would apply every file anew.
    assert_eq!(
        WebhookId::derived(None, "x").as_str(),
        "wh_bd032f452422b91003ed1938ceef00f8"
    );
}

#[test]
fn numbers_and_strings_of_one_customer_are_the_same() {
    let text = |value: Value| Customer::from_json(&value).map(|customer| customer.to_string());
    for one in [json!(1), json!("1"), json!(1.0), json!(1e0)] {
        assert_eq!(text(one).as_deref(), Some("1"));
    }
    assert_eq!(text(json!(-0.0)).as_deref(), Some("0"));
    assert_eq!(
        text(json!(u64::MAX)).as_deref(),
        Some("18446744073709551615")
    );
    assert_eq!(text(json!("01")).as_deref(), Some("01"));
    for none in [
        json!(null),
        json!(""),
        json!(true),
        json!([1]),
        json!({"id": 1}),
    ] {
        assert_eq!(text(none), None);
    }
}

#[test]
fn debug_prints_no_secret() {
    let mut secrets = vec![
        "query-secret",
        "header-secret",
        "cookie-secret",
        "bearer-secret",
        "signing-secret",
    ];
    let mut basic = full();
    basic["auth"] = json!(["user", "basic-secret"]);
    secrets.push("basic-secret");
    let change = draft(&basic);
    let printed = format!(
        "{change:?} {:?} {:?}",
        stored(),
        change.clone().create(at(1)).unwrap()
    );
    for secret in secrets {
        assert!(!printed.contains(secret), "{secret} in {printed}");
    }
    assert!(printed.contains("X-Team") && printed.contains("wh_full"));
}

#[test]
fn the_public_view_masks_values_and_never_shows_the_secret() {
    let view = stored().public_json();
    assert_eq!(view["headers"], json!({"X-Team": "***"}));
    assert_eq!(view["cookies"], json!({"session": "***"}));
    assert_eq!(view["auth"], json!({"type": "bearer", "token": "***"}));
    assert_eq!(view["customer"], json!(7));
    assert_eq!(view["timeout_seconds"], json!(2.5));
    assert_eq!(
        view["rate_limit"],
        json!({"requests": 10, "per_seconds": 1, "burst": 10})
    );
    assert_eq!(view["created_at"], json!("1970-01-01T00:01:40Z"));
    assert_eq!(view["version"], json!(1));
    assert_eq!(view["secret"], "***");
    assert!(!view.to_string().contains("signing-secret"));
    let plain = draft(&json!({"url": "http://a.example", "event_types": ["*"]}))
        .create(at(1))
        .unwrap();
    assert_eq!(
        plain.subscription.public_json()["timeout_seconds"].to_string(),
        "10"
    );
}

#[test]
fn a_customer_is_shown_as_a_number_only_where_nothing_is_lost() {
    for (written, shown) in [
        (json!("7"), json!(7)),
        (json!("007"), json!("007")),
        (json!("acme"), json!("acme")),
    ] {
        let mut value = full();
        value["customer"] = written;
        assert_eq!(
            draft(&value)
                .create(at(1))
                .unwrap()
                .subscription
                .public_json()["customer"],
            shown
        );
    }
}

#[test]
fn what_was_given_out_can_be_applied_again_and_changes_nothing() {
    let stored = stored();
    let again = draft(&stored.public_json())
        .update(&stored, at(200))
        .unwrap();
    assert_eq!(again.subscription, stored);
    assert!(again.changed.is_empty() && again.generated_secret.is_none());
}

#[test]
fn a_change_keeps_id_creation_secret_and_pause_and_counts_the_version() {
    let mut stored = stored();
    stored.paused = true;
    let mut value = full();
    value["name"] = json!("renamed");
    value.as_object_mut().unwrap().remove("secret");
    value["id"] = json!("wh_other");
    let changed = draft(&value).update(&stored, at(200)).unwrap();
    assert_eq!(changed.changed, ["name"]);
    let new = changed.subscription;
    assert_eq!(
        (new.id.as_str(), new.created_at, new.updated_at, new.version),
        ("wh_full", at(100), at(200), 2)
    );
    assert_eq!(new.secrets, stored.secrets);
    assert!(new.paused);
}

#[test]
fn a_mask_without_a_stored_value_is_refused() {
    let masked = stored().public_json();
    let errors = draft(&masked).create(at(1)).unwrap_err();
    let pointers: Vec<&str> = errors.iter().map(|error| error.pointer.as_str()).collect();
    assert_eq!(
        pointers,
        ["/headers/X-Team", "/cookies/session", "/auth/token"]
    );
    assert!(errors[0].message.contains("write the value itself"));

    let mut value = masked;
    value["auth"] = json!({"type": "basic", "username": "u", "password": "***"});
    let errors = draft(&value).update(&stored(), at(1)).unwrap_err();
    assert_eq!(errors[0].pointer, "/auth/password");
}

#[test]
fn stored_credentials_do_not_follow_the_url_to_another_server() {
    let mut masked = stored().public_json();
    masked["url"] = json!("https://example.com/another/path");
    assert_eq!(
        draft(&masked).update(&stored(), at(2)).unwrap().changed,
        ["url"]
    );
    for elsewhere in [
        "https://evil.example/hook",
        "http://example.com/hook",
        "https://example.com:8443/hook",
    ] {
        masked["url"] = json!(elsewhere);
        let errors = draft(&masked).update(&stored(), at(2)).unwrap_err();
        assert_eq!(errors.len(), 3, "{elsewhere}");
        assert!(errors[0].message.contains("another server"));
    }
}

#[test]
fn a_secret_is_kept_removed_replaced_or_made_as_asked() {
    let mut stored = stored();
    stored.rotate_secret("newer".to_owned(), at(150));
    stored.rotate_secret("newest".to_owned(), at(160));
    assert_eq!(stored.secrets, ["newest", "newer"]);
    assert_eq!(stored.version, 3);
    let with = |secret: Value| {
        let mut value = full();
        value["secret"] = secret;
        draft(&value).update(&stored, at(200)).unwrap()
    };
    assert_eq!(
        with(json!("newest")).subscription.secrets,
        ["newest", "newer"]
    );
    assert_eq!(with(json!("other")).subscription.secrets, ["other"]);
    assert_eq!(with(json!(null)).subscription.secrets, Vec::<String>::new());
    // Applying a file that says "generate" twice must not change the secret.
    assert_eq!(with(json!("generate")).changed, Vec::<&str>::new());
}

#[test]
fn a_generated_secret_is_shown_once_and_has_the_standard_form() {
    use base64::Engine;
    use secrecy::ExposeSecret;
    let mut value = full();
    value["secret"] = json!("generate");
    let made = draft(&value).create(at(1)).unwrap();
    let secret = made.generated_secret.unwrap();
    assert_eq!(made.subscription.secrets, [secret.expose_secret()]);
    let encoded = secret.expose_secret().strip_prefix("whsec_").unwrap();
    assert_eq!(
        base64::engine::general_purpose::STANDARD
            .decode(encoded)
            .unwrap()
            .len(),
        32
    );
    assert_ne!(
        draft(&value).create(at(1)).unwrap().subscription.secrets,
        made.subscription.secrets
    );
}

#[test]
fn a_webhook_is_another_version_when_it_is_paused_or_resumed_and_the_same_when_it_was_so_before() {
    let mut webhook = stored();
    webhook.set_paused(true, at(150));
    assert_eq!((webhook.paused, webhook.version), (true, 2));
    assert_eq!(webhook.updated_at, at(150));
    webhook.set_paused(true, at(160));
    assert_eq!((webhook.version, webhook.updated_at), (2, at(150)));
    webhook.set_paused(false, at(170));
    assert_eq!((webhook.paused, webhook.version), (false, 3));
}
