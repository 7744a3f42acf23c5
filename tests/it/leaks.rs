//! No secret is shown twice (promise 7): after everything that can happen to a webhook with secrets, they are looked for in everything
//! that Postrider wrote or said.

use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::api::{Client, ROOT, config};
use crate::harness::{
    Cluster, Process, Receiver, Record, Reply, Sent, config_text, eventually, get,
};

const SOON: Duration = Duration::from_secs(40);
const SECRETS: [&str; 6] = [
    "leak-of-a-header",
    "leak-of-a-cookie",
    "leak-of-a-bearer-token",
    "leak-of-a-password",
    "leak-of-a-signing-secret",
    "leak-of-another-secret",
];
/// A part of a URL that may be one: whoever may read webhooks sees it, logs and history do not.
const QUERY: &str = "leak-of-a-query";

/// A text in which nothing may be found, and what it is called.
struct Place {
    name: String,
    text: String,
    knows_urls: bool,
}

fn place(name: impl Into<String>, text: impl Into<String>, knows_urls: bool) -> Place {
    Place {
        name: name.into(),
        text: text.into(),
        knows_urls,
    }
}

fn postrider(config: &Path, arguments: &[&str]) -> String {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_postrider"))
        .arg("--config")
        .arg(config)
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

#[test]
fn no_secret_is_in_a_log_a_topic_the_history_an_answer_or_an_export() {
    let cluster = Cluster::named("leaks");
    let source = cluster.create_topic("events.job", 1, &[]);
    let folder = tempfile::tempdir().unwrap();
    let text = config(&format!(
        "history.store = \"sqlite:{}\"\nlog.level = \"trace\"\noutbound.allow_networks = [\"127.0.0.0/8\"]\n",
        folder.path().join("history.db").display()
    ));
    let text = config_text(&cluster, &["events.job"], &text);
    let file = folder.path().join("postrider.toml");
    std::fs::write(&file, &text).unwrap();
    let mut process = Process::spawn(&text, "");
    process.wait_until_ready();
    let address = eventually("the API's address", SOON, || {
        let log = process.log();
        log.split("api=")
            .nth(1)?
            .split_whitespace()
            .next()?
            .parse()
            .ok()
    });
    let client = Client::at(address, ROOT);
    let good = Receiver::accepting();
    let bad = Receiver::start(|_| Reply::status(500).body("no"));
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/", listener.local_addr().unwrap())
    };

    let mut places = Vec::new();
    let urls = [good.url("/"), bad.url("/"), closed];
    for (id, url) in ["wh_good", "wh_bad", "wh_closed"].iter().zip(&urls) {
        let auth = match *id {
            "wh_bad" => json!({"type": "basic", "username": "u", "password": SECRETS[3]}),
            _ => json!({"type": "bearer", "token": SECRETS[2]}),
        };
        let body = json!({
            "id": id, "name": id, "url": format!("{url}?token={QUERY}"), "event_types": ["job.*"], "auth": auth,
            "headers": {"X-Key": SECRETS[0]}, "cookies": {"session": SECRETS[1]}, "secret": SECRETS[4],
            "max_retries": 1, "retry_backoff": 1
        });
        let made = client.post("/webhooks/", &body);
        assert_eq!(made.status, 201, "{made:?}");
        places.push(place("answer to a create", made.text, true));
        let wrong = json!({"id": id, "url": format!("ftp://{QUERY}"), "event_types": [], "auth": {"type": SECRETS[2]}, "headers": {"Host": SECRETS[0], "X": format!("{}\n", SECRETS[0])}, "secret": [SECRETS[4]], "cookies": {"a;": SECRETS[1]}});
        let refused = client.post("/webhooks/", &wrong);
        assert_eq!(refused.status, 400, "{refused:?}");
        places.push(place("refusal", refused.text, true));
    }
    let event = r#"{"event_type": "job.failed", "customer": 1, "job": {"id": 1}}"#;
    cluster.produce(&source, &Sent::new(event));
    cluster.produce(&source, &Sent::new("not JSON"));
    good.wait_for(1, SOON);
    let letters = cluster.name("postrider.dead-letters");
    eventually(
        "two exhausted deliveries and an undecodable record",
        SOON,
        || (cluster.consume_all(&letters).len() == 3).then_some(()),
    );
    let rotated = client.post(
        "/webhooks/wh_good/rotate-secret/",
        &json!({"secret": SECRETS[5]}),
    );
    assert_eq!(rotated.status, 200, "{rotated:?}");
    for (method, path) in [
        ("PATCH", "/webhooks/wh_bad/"),
        ("POST", "/webhooks/wh_bad/pause/"),
        ("POST", "/webhooks/wh_bad/test/"),
        ("GET", "/webhooks/"),
        ("GET", "/webhooks/wh_good/"),
        ("GET", "/tokens/"),
        ("POST", "/match/"),
    ] {
        let body = match path {
            "/match/" => serde_json::from_str(event).unwrap(),
            "/webhooks/wh_bad/" => json!({"headers": {"X-Key": "***", "X-Other": SECRETS[0]}}),
            _ => json!({}),
        };
        let answer = match method {
            "GET" => client.get(path),
            _ => client.with(method, path, &[], &body),
        };
        assert!(answer.status < 300, "{method} {path}: {answer:?}");
        places.push(place(format!("{method} {path}"), answer.text, true));
    }
    for arguments in [
        &["subscriptions", "list"][..],
        &["subscriptions", "show", "wh_good"],
        &["subscriptions", "export"],
        &["dead-letters", "list", "--output", "json"],
        &["deliveries", "list", "--output", "json"],
        &["check"],
    ] {
        let said = postrider(&file, arguments);
        assert!(said.len() > 20, "{arguments:?}: {said}");
        let knows_urls = arguments[0] == "subscriptions" && arguments[1] != "list";
        places.push(place(arguments.join(" "), said, knows_urls));
    }
    let (status, metrics) = get(process.telemetry(), "/metrics");
    assert_eq!(status, 200);
    places.push(place("metrics", metrics, false));
    let log = process.log();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "{log}");
    let (status, _) = process.terminate();
    assert!(status.success());
    places.push(place("log", log, false));
    let mut databases = 0;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.display().to_string();
        if name.contains("history.db") {
            databases += 1;
            let bytes = std::fs::read(&path).unwrap();
            places.push(place(name, String::from_utf8_lossy(&bytes), false));
        }
    }
    assert!(databases >= 1);
    let mut topics = 0;
    for topic in cluster.topics() {
        let records = cluster.consume_all(&topic);
        if records.is_empty() || topic == source {
            continue;
        }
        topics += 1;
        let knows_urls = topic.ends_with("subscriptions") || topic.ends_with("audit");
        let text: String = records.iter().map(Record::whole).collect();
        places.push(place(topic, text, knows_urls));
    }
    assert!(topics >= 4, "{topics}");

    for Place {
        name,
        text,
        knows_urls,
    } in &places
    {
        for secret in SECRETS.iter().chain((!knows_urls).then_some(&QUERY)) {
            let hexadecimal: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
            for form in [(*secret).to_owned(), STANDARD.encode(secret), hexadecimal] {
                if let Some(at) = text.find(&form) {
                    let around = text
                        .get(at.saturating_sub(200)..at + 60)
                        .unwrap_or_default();
                    panic!("{secret} is in {name}: …{around}…");
                }
            }
        }
    }
}
