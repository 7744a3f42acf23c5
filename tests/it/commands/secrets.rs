//! The key of the catalog's secrets is changed while a router runs; an export carries secrets to another place, and shows none.

use std::time::Duration;

use postrider::subscription::Auth;
use postrider::subscription::seal::{SealingKey, from_record};
use serde_json::{Value, json};

use super::Setting;
use crate::api::{Client, ROOT, config};
use crate::harness::{Cluster, Process, Receiver, Router, Sent, config_text, get};

const SOON: Duration = Duration::from_secs(20);
const OLD: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const NEW: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const SECRETS: [&str; 4] = [
    "hidden-header",
    "hidden-cookie",
    "hidden-token",
    "hidden-signing",
];

fn keys(key: &str, old: &[&str]) -> String {
    format!("secrets.key = {key:?}\nsecrets.old_keys = {old:?}\n")
}

fn setting(cluster: &Cluster, keys: &str) -> Setting {
    Setting::of(&config_text(cluster, &["events.job"], keys))
}

fn secretive() -> Value {
    json!({
        "headers": {"X-Key": SECRETS[0]}, "cookies": {"session": SECRETS[1]},
        "auth": {"type": "bearer", "token": SECRETS[2]}, "secret": SECRETS[3]
    })
}

/// The ids of the keys in the last record of each webhook.
fn key_ids(cluster: &Cluster) -> Vec<String> {
    let mut last = std::collections::BTreeMap::new();
    for record in cluster.consume_all(&cluster.name("postrider.subscriptions")) {
        let value: Value = serde_json::from_str(&record.text()).unwrap_or_default();
        if let Some(id) = value["sealed"]["key_id"].as_str() {
            last.insert(value["id"].to_string(), id.to_owned());
        }
    }
    last.into_values().collect()
}

#[test]
fn the_key_is_changed_while_a_router_delivers_and_the_old_one_may_go() {
    let cluster = Cluster::named("rekey");
    let receiver = Receiver::accepting();
    // Written with the old key by a router that knows the new one already.
    let mut router = Router::start(&cluster, &["events.job"], &keys(OLD, &[NEW]));
    for id in ["wh_a", "wh_b"] {
        router.subscribe(id, &receiver.url("/"), secretive());
    }
    router.subscribe("wh_plain", &receiver.url("/plain"), json!({}));
    router.produce("events.job", 0..1);
    let before = receiver.wait_for(3, SOON);
    let old_ids = key_ids(&cluster);
    assert_eq!(old_ids.len(), 2);

    let only_new = setting(&cluster, &keys(NEW, &[]));
    let refused = only_new.run(&["secrets", "rekey"]);
    assert_eq!(refused.code, 1, "{}", refused.stdout);
    assert!(
        refused.stderr.contains("secrets.old_keys"),
        "{}",
        refused.stderr
    );
    assert_eq!(key_ids(&cluster), old_ids);

    let both = setting(&cluster, &keys(NEW, &[OLD]));
    let dry = both.json(&["secrets", "rekey", "--dry-run"]);
    assert_eq!(dry["rekeyed"], json!(["wh_a", "wh_b"]));
    assert_eq!(key_ids(&cluster), old_ids);
    let done = both.json(&["secrets", "rekey"]);
    assert_eq!(
        (&done["rekeyed"], &done["webhooks"]),
        (&json!(["wh_a", "wh_b"]), &json!(3))
    );
    let new_ids = key_ids(&cluster);
    assert_eq!(
        new_ids,
        vec![done["key_id"].as_str().unwrap().to_owned(); 2]
    );
    assert_ne!(new_ids, old_ids);
    let again = both.json(&["secrets", "rekey"]);
    assert_eq!(again["rekeyed"], json!([]));

    // The running router, and one that never had the old key, send the same.
    for round in 1..3 {
        router.produce("events.job", round..round + 1);
        let all = receiver.wait_for(3 * (round + 1), SOON);
        for request in all.iter().filter(|request| request.path == "/") {
            assert_eq!(request.header("x-key"), Some(SECRETS[0]));
            assert_eq!(
                request.header("cookie"),
                before
                    .iter()
                    .find(|one| one.path == "/")
                    .unwrap()
                    .header("cookie")
            );
            assert!(request.header("x-webhook-signature").is_some());
        }
        if round == 1 {
            assert_eq!(router.metric("postrider_catalog_errors_total"), 0.0);
            router.wait_until_idle();
            drop(router);
            router = Router::start_before_its_sources(&cluster, &["events.job"], &keys(NEW, &[]));
        }
    }
    let shown = only_new.json(&["subscriptions", "show", "wh_a"]);
    assert_eq!(shown["version"], 1);
}

#[test]
fn deliveries_wait_for_the_key_of_their_webhook_and_the_instance_is_not_ready() {
    let cluster = Cluster::named("locked");
    let receiver = Receiver::accepting();
    let mut router = Router::start(&cluster, &["events.job"], &keys(OLD, &[]));
    router.subscribe("wh_a", &receiver.url("/a"), secretive());
    router.subscribe("wh_plain", &receiver.url("/plain"), json!({}));
    router.leaves_work();
    drop(router);

    // Not a harness's router, which would wait until it is ready.
    let text = config_text(&cluster, &["events.job"], &config(&keys(NEW, &[])));
    let mut wrong = Process::spawn(&text, "");
    wrong.wait_for_address();
    let events: Vec<Sent> = (0..3)
        .map(|n| {
            Sent::new(format!(
                r#"{{"event_type":"job.failed","customer":1,"n":{n}}}"#
            ))
        })
        .collect();
    cluster.produce_all(&cluster.name("events.job"), &events);
    // The others get theirs meanwhile.
    receiver.wait_for(3, SOON);
    let (status, said) = get(wrong.telemetry(), "/readyz?verbose");
    assert_eq!(status, 503, "{said}");
    assert!(said.contains("1 that cannot be opened"), "{said}");
    // Longer than a deleted webhook is asked for.
    std::thread::sleep(Duration::from_secs(20));
    assert_eq!(receiver.requests().len(), 3);
    let log = wrong.log();
    assert!(log.contains("deliveries to the webhook wait"), "{log}");
    // Nor is it taken for one that there is not.
    let api = log.lines().find_map(|line| line.split_once(" api="));
    let api = api.unwrap().1.split_whitespace().next().unwrap();
    let client = Client::at(api.parse().unwrap(), ROOT);
    let again = json!({"id": "wh_a", "url": "https://example.com/", "event_types": ["*"]});
    client.post("/webhooks/", &again).problem(409);
    wrong.terminate();

    let right = Router::start_before_its_sources(&cluster, &["events.job"], &keys(NEW, &[OLD]));
    let all = receiver.wait_for(6, SOON * 2);
    let secret = all.iter().filter(|request| request.path == "/a");
    assert_eq!(
        secret
            .filter(|request| request.header("x-key") == Some(SECRETS[0]))
            .count(),
        3
    );
    right.wait_until_idle();
    assert!(right.dead_letters().is_empty());
}

#[test]
fn an_export_carries_secrets_to_whoever_has_the_key_and_shows_none() {
    let cluster = Cluster::named("carried");
    let from = setting(&cluster, &keys(OLD, &[]));
    assert_eq!(from.run(&["topics", "apply"]).code, 0);
    let mut webhook = secretive();
    for (name, value) in [
        ("id", json!("wh_a")),
        ("url", json!("https://example.com/")),
        ("event_types", json!(["*"])),
        ("description", json!("$${NOT_A_VARIABLE}")),
    ] {
        webhook[name] = value;
    }
    let file = from.file(
        "in.json",
        json!({"webhooks": [webhook]}).to_string().as_bytes(),
    );
    let applied = from.run(&["subscriptions", "apply", "-f", &file]);
    assert_eq!(applied.code, 0, "{}", applied.stderr);

    let key = from.file("key", format!("{NEW}\n").as_bytes());
    let export = |arguments: &[&str]| {
        let output = from.run(&[&["subscriptions", "export"], arguments].concat());
        assert_eq!(output.code, 0, "{}", output.stderr);
        for secret in SECRETS.iter().chain(&[NEW, OLD]) {
            assert!(!output.stdout.contains(secret), "{}", output.stdout);
        }
        output.stdout
    };
    assert!(!export(&[]).contains("sealed"));
    let sealed = export(&["--with-secrets", "--to-key", &key]);
    assert!(sealed.contains("sealed"), "{sealed}");

    let other = Cluster::named("carried-to");
    let to = setting(&other, &keys(NEW, &[]));
    assert_eq!(to.run(&["topics", "apply"]).code, 0);
    let file = to.file("out.yaml", sealed.as_bytes());
    let applied = to.run(&["subscriptions", "apply", "-f", &file]);
    assert_eq!(applied.code, 0, "{}", applied.stderr);
    // What is stored there is what was stored here: one more export from there changes nothing here.
    let back = to.run(&[
        "subscriptions",
        "export",
        "--with-secrets",
        "--to-key",
        &key,
    ]);
    let opens_both = setting(&cluster, &keys(OLD, &[NEW]));
    let back = opens_both.file("back.yaml", back.stdout.as_bytes());
    let diff = opens_both.json(&["subscriptions", "diff", "-f", &back]);
    assert_eq!(diff, json!([]));
    let stored = other.consume_all(&other.name("postrider.subscriptions"));
    let key = SealingKey::from_base64(NEW).unwrap();
    let webhook = from_record(stored[0].text().as_bytes(), Some(&key)).unwrap();
    assert_eq!(webhook.headers["X-Key"], SECRETS[0]);
    assert_eq!(webhook.cookies["session"], SECRETS[1]);
    assert_eq!(
        webhook.auth,
        Auth::Bearer {
            token: SECRETS[2].to_owned()
        }
    );
    assert_eq!(webhook.secrets, [SECRETS[3]]);
    assert_eq!(webhook.description, "${NOT_A_VARIABLE}");

    let other_webhook = sealed.replace("id: wh_a", "id: wh_other");
    let other_form = sealed.replace("nonce:", "nuance:");
    for (at, key, text, part) in [
        (&cluster, OLD, &sealed, "put that one into secrets.old_keys"),
        (&other, NEW, &other_webhook, "belongs to another webhook"),
        (&other, NEW, &other_form, "key_id, nonce and ciphertext"),
    ] {
        let setting = setting(at, &keys(key, &[]));
        let file = setting.file("bad.yaml", text.as_bytes());
        let output = setting.run(&["subscriptions", "diff", "-f", &file]);
        assert_eq!(output.code, 1, "{part}");
        assert!(output.stderr.contains(part), "{part}: {}", output.stderr);
    }
    for (arguments, code, part) in [
        (&["--with-secrets"][..], 2, "--to-key"),
        (&["--to-key", "x"], 2, "--with-secrets"),
        (
            &["--with-secrets", "--to-key", "/nowhere"],
            1,
            "neither an environment variable",
        ),
        (
            &["--with-secrets", "--to-key", &file],
            1,
            "the secret key is not base64",
        ),
    ] {
        let output = from.run(&[&["subscriptions", "export"], arguments].concat());
        assert_eq!(output.code, code, "{}", output.stderr);
        assert!(output.stderr.contains(part), "{part}: {}", output.stderr);
    }
}
