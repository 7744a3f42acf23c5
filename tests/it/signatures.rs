//! Receivers accept our signatures with the code that they have: the examples of the webnet documents, and the Standard
//! Webhooks library.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use standardwebhooks::Webhook;

use crate::harness::{Cluster, Receiver, Request, Router, Sent};

const SOON: Duration = Duration::from_secs(20);
const BODY: &str = "{ \"event_type\":\"job.failed\", \"customer\":1,\n\"name\":\"Z\u{fc}rich \u{1f4a5}\", \"n\":1.0e2 }";

/// The example of the webnet documents, as it stands there, and a line to call it.
const PYTHON: &str = r#"
import hmac
import hashlib

def verify_signature(payload_bytes, signature, secret):
    """Verify webhook signature."""
    expected = hmac.new(
        secret.encode(),
        payload_bytes,
        hashlib.sha256
    ).hexdigest()
    return hmac.compare_digest(f"sha256={expected}", signature)

import sys
print(verify_signature(sys.stdin.buffer.read(), sys.argv[1], sys.argv[2]))
"#;

/// The same for Node.js.
const NODE: &str = r#"
const crypto = require('crypto');

function verifySignature(payload, signature, secret) {
  const expected = crypto
    .createHmac('sha256', secret)
    .update(payload)
    .digest('hex');
  return crypto.timingSafeEqual(
    Buffer.from(`sha256=${expected}`),
    Buffer.from(signature)
  );
}

const [signature, secret] = process.argv.slice(1);
console.log(verifySignature(require('fs').readFileSync(0), signature, secret));
"#;

/// A secret in the form of Standard Webhooks.
fn secret_of(byte: &[u8]) -> String {
    format!("whsec_{}", STANDARD.encode(byte.repeat(32)))
}

/// What the script says of a body; `None` where its language is not installed.
fn verdict(
    language: &str,
    option: &str,
    script: &str,
    body: &[u8],
    more: [&str; 2],
) -> Option<String> {
    let mut child = Command::new(language)
        .args([option, script])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .ok()?;
    child.stdin.take().unwrap().write_all(body).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{language}: {}", output.status);
    Some(
        String::from_utf8(output.stdout)
            .unwrap()
            .trim()
            .to_lowercase(),
    )
}

fn assert_the_webnet_examples_accept(request: &Request, secret: &str) {
    let signature = request.header("x-webhook-signature").unwrap();
    let node_is_installed = Command::new("node").arg("--version").output().is_ok();
    for (language, option, script, required) in [
        ("python3", "-c", PYTHON, true),
        ("node", "-e", NODE, node_is_installed),
    ] {
        let ask =
            |body: &[u8], secret| verdict(language, option, script, body, [signature, secret]);
        let accepted = ask(&request.body, secret);
        if !required && accepted.is_none() {
            continue;
        }
        assert_eq!(accepted.as_deref(), Some("true"), "{language}");
        assert_eq!(ask(b"{}", secret).as_deref(), Some("false"), "{language}");
        let other = format!("{secret}x");
        assert_eq!(
            ask(&request.body, &other).as_deref(),
            Some("false"),
            "{language}"
        );
    }
}

fn standard_accepts(webhook: &Webhook, request: &Request) -> bool {
    let accepted = webhook.verify(&request.body, &request.headers).is_ok();
    assert!(
        webhook.verify(b"{}", &request.headers).is_err(),
        "it must look at the body"
    );
    accepted
}

#[test]
fn what_a_receiver_gets_is_accepted_by_the_webnet_examples_and_by_standard_webhooks() {
    let cluster = Cluster::named("signatures");
    let receiver = Receiver::accepting();
    let router = Router::idle(&cluster, &["events.job"], "");
    let text = "your-secret-key-of-some-length";
    let standard = secret_of(b"a");
    router.subscribe("wh_text", &receiver.url("/text"), json!({"secret": text}));
    router.subscribe(
        "wh_standard",
        &receiver.url("/standard"),
        json!({"secret": standard}),
    );
    router.subscribe("wh_unsigned", &receiver.url("/unsigned"), json!({}));
    let mut router = router;
    router.add_instance(postrider::app::Stages::ALL);
    cluster.produce(&cluster.name("events.job"), &Sent::new(BODY));

    let requests = receiver.wait_for(3, SOON);
    let at = |path: &str| {
        requests
            .iter()
            .find(|request| request.path == path)
            .unwrap()
    };

    assert_the_webnet_examples_accept(at("/text"), text);
    assert_the_webnet_examples_accept(at("/standard"), &standard);
    let from_text = Webhook::from_bytes(text.as_bytes().to_vec()).unwrap();
    let from_standard = Webhook::new(&standard).unwrap();
    assert!(standard_accepts(&from_text, at("/text")));
    assert!(standard_accepts(&from_standard, at("/standard")));
    assert!(!standard_accepts(&from_standard, at("/text")));
    assert_eq!(at("/unsigned").header("x-webhook-signature"), None);
    assert_eq!(at("/unsigned").header("webhook-signature"), None);
    assert!(at("/unsigned").id().is_some());
}

#[test]
fn while_a_secret_is_rotated_both_the_old_and_the_new_one_verify() {
    let cluster = Cluster::named("rotation");
    let receiver = Receiver::accepting();
    let router = Router::start(&cluster, &["events.job"], "");
    let (old, new) = (secret_of(b"b"), secret_of(b"c"));
    router.subscribe("wh_a", &receiver.url("/"), json!({"secret": old}));
    router.change("wh_a", |webhook| {
        webhook.rotate_secret(new.clone(), jiff::Timestamp::now());
    });
    cluster.produce(&cluster.name("events.job"), &Sent::new(BODY));

    let request = &receiver.wait_for(1, SOON)[0];
    for secret in [&old, &new] {
        assert!(standard_accepts(&Webhook::new(secret).unwrap(), request));
    }
    let third = Webhook::new(&secret_of(b"d")).unwrap();
    assert!(!standard_accepts(&third, request));
    assert_the_webnet_examples_accept(request, &new);
}

#[test]
fn a_netpulse_receiver_gets_id_and_result_signed_as_they_arrive_and_the_same_in_every_attempt() {
    let cluster = Cluster::named("netpulse");
    let receiver = Receiver::answering(500);
    let plain = Receiver::accepting();
    let router = Router::start(&cluster, &["events.job"], "");
    let secret = secret_of(b"n");
    let fields = json!({"body": "netpulse", "method": "PUT", "secret": secret, "timeout": 5.0, "max_retries": 1, "retry_backoff": 1});
    router.subscribe("wh_netpulse", &receiver.url("/callback"), fields);
    router.subscribe("wh_plain", &plain.url("/"), json!({}));
    let event = "{ \"event_type\":\"job.completed\", \"customer\":1,\n \"job\": {\"id\": \"job-uuid-here\", \"result\": \"Z\u{fc}rich\\n up\"} }";
    cluster.produce(&cluster.name("events.job"), &Sent::new(event));

    let letter = &router.wait_for_dead_letters(1)[0];

    let requests = receiver.requests();
    assert_eq!(requests.len(), 2);
    for request in &requests {
        assert_eq!(request.method, "PUT");
        assert_eq!(
            String::from_utf8_lossy(&request.body),
            "{\"id\":\"job-uuid-here\",\"result\":\"Z\u{fc}rich\\n up\"}"
        );
        assert!(standard_accepts(&Webhook::new(&secret).unwrap(), request));
        assert_the_webnet_examples_accept(request, &secret);
    }
    // Only what is sent has that form: the topics and everybody else have the producer's bytes.
    assert_eq!(letter.text(), event);
    assert_eq!(plain.wait_for(1, SOON)[0].body, event);
}
