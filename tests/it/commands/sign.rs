//! What `sign` makes, `verify` accepts, and nothing else.

use super::{header, run};

const SECRET: &str = "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0";

#[test]
fn what_sign_makes_verify_accepts_and_the_standard_webhooks_library_too() {
    let body = b"{\"a\":1}\n";
    let signed = run(&["sign", "--secret", SECRET], body);
    assert_eq!(signed.code, 0, "{}", signed.stderr);
    let [plain, id, timestamp, standard] = [
        "X-Webhook-Signature",
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
    ]
    .map(|name| header(&signed.stdout, name));

    let library = standardwebhooks::Webhook::new(SECRET).unwrap();
    let mut headers = axum::http::HeaderMap::new();
    for (name, value) in [
        ("webhook-id", id),
        ("webhook-timestamp", timestamp),
        ("webhook-signature", standard),
    ] {
        headers.insert(name, value.parse().unwrap());
    }
    library.verify(body, &headers).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let secret_file = folder.path().join("secret");
    std::fs::write(&secret_file, format!("{SECRET}\n")).unwrap();
    let secret_file = secret_file.to_str().unwrap();
    let with_plain = ["verify", "--secret-file", secret_file, "--signature", plain];
    let with_standard = [
        &["verify", "--secret-file", secret_file, "--signature"],
        &[standard, "--id", id, "--timestamp", timestamp][..],
    ]
    .concat();
    for arguments in [&with_plain[..], &with_standard] {
        let good = run(arguments, body);
        assert_eq!(
            (good.code, good.stdout.as_str()),
            (0, "the signature is valid\n"),
            "{}",
            good.stderr
        );
        let changed = run(arguments, b"{\"a\":2}\n");
        assert_eq!((changed.code, changed.stdout.as_str()), (1, ""));
        assert!(
            changed.stderr.contains("does not match"),
            "{}",
            changed.stderr
        );
    }
}

#[test]
fn a_signature_that_cannot_be_checked_is_refused_with_what_is_missing() {
    let old = run(
        &[
            "sign",
            "--secret",
            "s",
            "--id",
            "msg_1",
            "--timestamp",
            "1700000000",
        ],
        b"x",
    );
    let signature = header(&old.stdout, "webhook-signature");
    let kept = [
        &[
            "verify",
            "--secret",
            "s",
            "--signature",
            signature,
            "--id",
            "msg_1",
        ],
        &["--timestamp", "1700000000"][..],
    ]
    .concat();
    let any_age = [&kept[..], &["--any-age"]].concat();
    assert_eq!(run(&any_age, b"x").code, 0);
    let cases: &[(&[&str], i32, &str)] = &[
        (&kept, 1, "in the past"),
        (
            &["verify", "--secret", "s", "--signature", signature],
            2,
            "--id and --timestamp",
        ),
        (
            &["verify", "--secret", "s", "--signature", "abc"],
            1,
            "neither form",
        ),
        (
            &["verify", "--secret", "s", "--signature", "sha256=ab"],
            1,
            "64 hex digits",
        ),
        (
            &["verify", "--signature", "sha256=ab"],
            1,
            "POSTRIDER_WEBHOOK_SECRET",
        ),
        (&["verify", "--secret", "s"], 2, "--signature"),
        (&["sign", "--secret", "whsec_*"], 1, "not base64"),
        (&["sign", "--secret", "s", "--id", "a.b"], 2, "full stop"),
        (
            &["sign", "--secret", "s", "--body", "/no/such/file"],
            1,
            "/no/such/file",
        ),
        (
            &["sign", "--secret-file", "/no/such/file"],
            1,
            "/no/such/file",
        ),
    ];
    for (arguments, code, said) in cases {
        let refused = run(arguments, b"x");
        assert_eq!(refused.code, *code, "{arguments:?}: {}", refused.stderr);
        assert!(
            refused.stderr.contains(said),
            "{arguments:?}: {}",
            refused.stderr
        );
        assert_eq!(refused.stdout, "");
    }
}
