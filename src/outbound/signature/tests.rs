//! Signatures against known answers, and against the `standardwebhooks` crate as an oracle, both ways.

use super::*;
use proptest::prelude::*;
use reqwest::header::HeaderMap;
use std::time::{SystemTime, UNIX_EPOCH};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const BODY: &[u8] = br#"{"test": 2432232314}"#;

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

#[test]
fn the_plain_signature_is_the_known_answer_of_hmac_sha256() {
    // RFC 4231 test case 2 (key "Jefe").
    let key = SigningKey::new("Jefe").unwrap();
    assert_eq!(
        key.plain(b"what do ya want for nothing?"),
        "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    );
}

#[test]
fn the_standard_signature_is_the_one_of_the_standard_webhooks_specification() {
    let key = SigningKey::new(SECRET).unwrap();
    assert_eq!(
        key.standard(ID, 1614265330, BODY),
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    );
}

#[test]
fn the_plain_key_is_the_secret_as_it_stands_and_the_standard_key_is_its_decoded_rest() {
    let encoded = SigningKey::new("whsec_SmVmZQ==").unwrap();
    let text = SigningKey::new("Jefe").unwrap();
    assert_eq!(encoded.standard("a", 1, b"b"), text.standard("a", 1, b"b"));
    assert_ne!(encoded.plain(b"b"), text.plain(b"b"));
}

proptest! {
    #[test]
    fn what_we_sign_the_standardwebhooks_crate_accepts_and_the_other_way_round(
        secret in prop::collection::vec(any::<u8>(), 1..80), id in "[a-z0-9_-]{1,40}", body in "\\PC{0,300}"
    ) {
        let text = format!("{SECRET_PREFIX}{}", STANDARD.encode(&secret));
        let ours = SigningKey::new(&text).unwrap();
        let theirs = standardwebhooks::Webhook::new(&text).unwrap();
        let seconds = now();
        let mut headers = HeaderMap::new();
        headers.insert("webhook-id", id.parse().unwrap());
        headers.insert("webhook-timestamp", seconds.into());
        headers.insert("webhook-signature", ours.standard(&id, seconds, body.as_bytes()).parse().unwrap());
        prop_assert!(theirs.verify(body.as_bytes(), &headers).is_ok());
        let signed = theirs.sign(&id, seconds as i64, body.as_bytes()).unwrap();
        prop_assert_eq!(ours.verify_standard(&id, &seconds.to_string(), &signed, body.as_bytes(), seconds), Ok(()));
    }

    #[test]
    fn any_header_text_is_refused_without_a_panic(header in "\\PC{0,100}", timestamp in "\\PC{0,25}") {
        let key = SigningKey::new(SECRET).unwrap();
        prop_assert!(key.verify_plain(&header, BODY).is_err());
        prop_assert!(key.verify_standard(ID, &timestamp, &header, BODY, 1614265330).is_err());
    }

    #[test]
    fn a_signature_of_another_body_is_refused(body in prop::collection::vec(any::<u8>(), 1..200), at in any::<prop::sample::Index>()) {
        let key = SigningKey::new(SECRET).unwrap();
        let mut changed = body.clone();
        changed[at.index(body.len())] ^= 1;
        prop_assert_eq!(key.verify_plain(&key.plain(&body), &body), Ok(()));
        prop_assert_eq!(key.verify_plain(&key.plain(&body), &changed), Err(SignatureRefused::Mismatch));
    }
}

#[test]
fn every_truncated_signature_is_refused() {
    let key = SigningKey::new(SECRET).unwrap();
    let plain = key.plain(BODY);
    let standard = key.standard(ID, 100, BODY);
    for length in 0..plain.len() {
        assert!(
            key.verify_plain(&plain[..length], BODY).is_err(),
            "plain cut to {length}"
        );
    }
    for length in 0..standard.len() {
        assert!(
            key.verify_standard(ID, "100", &standard[..length], BODY, 100)
                .is_err(),
            "standard cut to {length}"
        );
    }
    assert!(key.verify_plain(&format!("{plain}00"), BODY).is_err());
}

#[test]
fn a_timestamp_is_accepted_up_to_300_seconds_either_way() {
    let key = SigningKey::new(SECRET).unwrap();
    let signature = key.standard(ID, 1000, BODY);
    let check = |now| key.verify_standard(ID, "1000", &signature, BODY, now);
    assert_eq!(check(1300), Ok(()));
    assert_eq!(check(1301), Err(SignatureRefused::TooOld(301)));
    assert_eq!(check(700), Ok(()));
    assert_eq!(check(699), Err(SignatureRefused::TooNew(301)));
}

#[test]
fn one_good_signature_in_a_list_is_enough_and_unknown_versions_are_skipped() {
    let key = SigningKey::new(SECRET).unwrap();
    let other = SigningKey::new("another secret")
        .unwrap()
        .standard(ID, 5, BODY);
    let list = format!("v1a,AAAA {other} v1,??? {}", key.standard(ID, 5, BODY));
    assert_eq!(key.verify_standard(ID, "5", &list, BODY, 5), Ok(()));
    assert_eq!(
        key.verify_standard(ID, "5", &other, BODY, 5),
        Err(SignatureRefused::Mismatch)
    );
    assert_eq!(
        key.verify_standard(ID, "5", "v1a,AAAA", BODY, 5),
        Err(SignatureRefused::Malformed("v1,<base64>"))
    );
}

#[test]
fn an_upper_case_hex_signature_is_the_same_signature() {
    let key = SigningKey::new(SECRET).unwrap();
    let upper = key.plain(BODY).to_uppercase().replace("SHA256", "sha256");
    assert_eq!(key.verify_plain(&upper, BODY), Ok(()));
}

#[test]
fn a_generated_secret_has_32_bytes_and_no_twin() {
    let (first, second) = (generate_secret().unwrap(), generate_secret().unwrap());
    assert_ne!(first, second);
    assert_eq!(
        STANDARD
            .decode(first.strip_prefix(SECRET_PREFIX).unwrap())
            .unwrap()
            .len(),
        32
    );
    assert!(SigningKey::new(&first).is_ok());
}

#[test]
fn an_unusable_secret_is_refused_with_its_reason() {
    assert_eq!(SigningKey::new("").unwrap_err(), SecretError::Empty);
    assert_eq!(SigningKey::new("whsec_").unwrap_err(), SecretError::Empty);
    assert_eq!(
        SigningKey::new("whsec_not base64!").unwrap_err(),
        SecretError::NotBase64
    );
    assert!(
        SigningKey::new("whsec_SmVmZQ").is_ok(),
        "padding may be missing"
    );
}

#[test]
fn a_key_does_not_show_its_secret_when_printed() {
    assert_eq!(
        format!("{:?}", SigningKey::new("Jefe").unwrap()),
        "SigningKey(secret)"
    );
}
