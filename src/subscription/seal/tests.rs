//! What is sealed comes back as it was, to the holder of the key alone.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::subscription::read::read;

fn key(byte: u8) -> SealingKey {
    SealingKey::from_base64(&STANDARD.encode([byte; 32])).unwrap()
}

fn webhook(more: Value) -> Subscription {
    let mut value = json!({
        "id": "wh_1", "customer": "acme", "name": "n", "description": "d", "tags": ["t"], "url": "https://example.com/hook",
        "event_types": ["job.*", "*"], "filter": {"job": {"status": "failed"}}, "timeout_seconds": 0.5, "method": "PUT",
        "rate_limit": {"requests": 10}, "paused": true
    });
    for (name, field) in more.as_object().unwrap() {
        value[name] = field.clone();
    }
    let now = "2026-01-02T03:04:05.678Z".parse::<Timestamp>().unwrap();
    read(&value, "").unwrap().create(now).unwrap().subscription
}

fn secretive() -> Subscription {
    webhook(json!({
        "headers": {"X-Team": "header-secret"}, "cookies": {"session": "cookie-secret"},
        "auth": ["user", "basic-secret"], "secret": "signing-secret"
    }))
}

#[test]
fn a_record_gives_the_same_webhook_back() {
    for webhook in [
        secretive(),
        webhook(json!({})),
        webhook(json!({"auth": {"type": "api_key", "token": "t"}})),
    ] {
        let record = to_record(&webhook, Some(&key(1))).unwrap();
        assert_eq!(from_record(&record, Some(&key(1))).unwrap(), webhook);
    }
}

#[test]
fn a_record_shows_no_secret_and_has_rfc_3339_times() {
    let record = String::from_utf8(to_record(&secretive(), Some(&key(1))).unwrap()).unwrap();
    for secret in [
        "X-Team",
        "header-secret",
        "cookie-secret",
        "basic-secret",
        "signing-secret",
    ] {
        assert!(
            !record.contains(secret) && !record.contains(&STANDARD.encode(secret)),
            "{secret}"
        );
    }
    let value: Value = serde_json::from_str(&record).unwrap();
    assert_eq!(value["created_at"], json!("2026-01-02T03:04:05.678Z"));
    assert_eq!(value["sealed"]["key_id"], json!(key(1).id()));
    assert_eq!(key(1).id().len(), 8);
}

#[test]
fn the_same_webhook_is_never_sealed_alike() {
    assert_ne!(
        to_record(&secretive(), Some(&key(1))),
        to_record(&secretive(), Some(&key(1)))
    );
}

#[test]
fn without_secrets_no_key_is_needed() {
    let webhook = webhook(json!({}));
    assert_eq!(
        from_record(&to_record(&webhook, None).unwrap(), None).unwrap(),
        webhook
    );
}

#[test]
fn a_missing_key_is_refused_with_the_way_to_make_one() {
    let error = to_record(&secretive(), None).unwrap_err();
    assert!(matches!(error, SealError::NoKeyToSeal { .. }));
    let message = error.to_string();
    assert!(
        message.contains("wh_1") && message.contains("head -c 32 /dev/urandom | base64"),
        "{message}"
    );
    assert!(message.contains("POSTRIDER_SECRET_KEY"));

    let record = to_record(&secretive(), Some(&key(1))).unwrap();
    let error = from_record(&record, None).unwrap_err();
    assert!(error.to_string().contains(key(1).id()), "{error}");
}

#[test]
fn another_key_is_refused_and_both_are_named() {
    let record = to_record(&secretive(), Some(&key(1))).unwrap();
    let error = from_record(&record, Some(&key(2))).unwrap_err();
    let (wanted, given) = (key(1).id().to_owned(), key(2).id().to_owned());
    assert_eq!(
        error,
        SealError::WrongKey {
            webhook: secretive().id,
            wanted,
            given
        }
    );
}

#[test]
fn a_changed_blob_is_refused() {
    let record: Value =
        serde_json::from_slice(&to_record(&secretive(), Some(&key(1))).unwrap()).unwrap();
    let mut changed = 0;
    for part in ["nonce", "ciphertext"] {
        let bytes = STANDARD
            .decode(record["sealed"][part].as_str().unwrap())
            .unwrap();
        for position in 0..bytes.len() {
            let mut other = bytes.clone();
            other[position] ^= 1;
            let mut record = record.clone();
            record["sealed"][part] = json!(STANDARD.encode(&other));
            let error = from_record(record.to_string().as_bytes(), Some(&key(1))).unwrap_err();
            assert!(matches!(error, SealError::Tampered { .. }));
            changed += 1;
        }
        for text in ["", "AAAA", "not base64"] {
            let mut record = record.clone();
            record["sealed"][part] = json!(text);
            let error = from_record(record.to_string().as_bytes(), Some(&key(1))).unwrap_err();
            assert!(matches!(error, SealError::Tampered { .. }));
        }
    }
    assert!(changed > 100);
}

#[test]
fn a_blob_in_another_webhooks_record_is_refused() {
    let mut record: Value =
        serde_json::from_slice(&to_record(&secretive(), Some(&key(1))).unwrap()).unwrap();
    record["id"] = json!("wh_2");
    let error = from_record(record.to_string().as_bytes(), Some(&key(1))).unwrap_err();
    assert_eq!(
        error,
        SealError::Tampered {
            webhook: WebhookId::new("wh_2").unwrap()
        }
    );
}

#[test]
fn a_record_of_a_later_version_is_refused_and_not_half_read() {
    assert_eq!(
        from_record(br#"{"form": 2, "what": "ever"}"#, None),
        Err(SealError::LaterForm(2))
    );
}

#[test]
fn what_is_no_record_is_refused() {
    let whole = to_record(&secretive(), Some(&key(1))).unwrap();
    for bytes in [
        &b""[..],
        b"null",
        b"{}",
        b"\xff",
        b"[]",
        br#"{"form": 1}"#,
        &whole[..whole.len() - 1],
    ] {
        assert!(matches!(
            from_record(bytes, Some(&key(1))),
            Err(SealError::Unreadable(_))
        ));
    }
    for seconds in [json!(-1.0), json!(1e300)] {
        let mut record: Value = serde_json::from_slice(&whole).unwrap();
        record["timeout_seconds"] = seconds;
        assert!(matches!(
            from_record(record.to_string().as_bytes(), Some(&key(1))),
            Err(SealError::Unreadable(_))
        ));
    }
}

#[test]
fn a_key_of_the_wrong_form_is_refused_without_repeating_it() {
    assert_eq!(
        SealingKey::from_base64("hidden!").unwrap_err(),
        InvalidKey::NotBase64
    );
    assert_eq!(
        SealingKey::from_base64("").unwrap_err(),
        InvalidKey::WrongLength(0)
    );
    assert_eq!(
        SealingKey::from_base64(&STANDARD.encode([0; 31])).unwrap_err(),
        InvalidKey::WrongLength(31)
    );
    assert!(InvalidKey::NotBase64.to_string().contains("head -c 32"));
    let text = STANDARD.encode([1; 32]);
    assert_eq!(
        SealingKey::from_base64(&format!(" {text}\n")).unwrap().id(),
        key(1).id()
    );
    assert!(!format!("{:?}", key(1)).contains(&text));
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(from_record(&bytes, None).is_err());
    }
}
