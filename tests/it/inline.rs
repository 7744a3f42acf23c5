//! Events that carry a webhook for themselves, as NetPulse's requests do: delivered, retried, dead-lettered and replayed like any other,
//! and nobody else sees what they carried (promise 7).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use postrider::app::Stages;
use serde_json::{Value, json};

use crate::api::{Client, ROOT, config};
use crate::harness::{Cluster, KEY, Receiver, Record, Reply, Router, Sent, config_text};

const SOON: Duration = Duration::from_secs(40);
const ON: &str = "intake.inline_webhooks = true\n";
/// In everything that must stay secret.
const LEAK: &str = "leak-of-";

fn produce(router: &Router<'_>, event: &Value) {
    let topic = router.cluster.name("events.job");
    router
        .cluster
        .produce(&topic, &Sent::new(event.to_string()));
}

fn event(n: usize, webhook: Value) -> Value {
    json!({"event_type": "job.completed", "customer": 1, "job": {"id": n, "result": "up"}, "webhook": webhook})
}

/// Every record of Postrider's own topics.
fn ours(cluster: &Cluster) -> Vec<(String, Record)> {
    let prefix = cluster.name("postrider.");
    let topics = cluster.all_topics().into_iter();
    topics
        .filter(|topic| topic.starts_with(&prefix))
        .flat_map(|topic| {
            let records = cluster.consume_all(&topic);
            records
                .into_iter()
                .map(move |record| (topic.clone(), record))
        })
        .collect()
}

#[test]
fn an_event_goes_to_the_webhook_that_it_carries_and_nobody_else_sees_that() {
    let cluster = Cluster::named("inline");
    let router = Router::start(&cluster, &["events.job"], ON);
    let (own, others) = (Receiver::accepting(), Receiver::accepting());
    router.subscribe("wh_all", &others.url("/all"), json!({}));
    // A filter that saw it could be used to guess it.
    let guess = json!({"filter": {"webhook": {"method": "PUT"}}});
    router.subscribe("wh_guess", &others.url("/guess"), guess);
    let url = own.url(&format!("/{LEAK}a-path"));
    produce(
        &router,
        &event(
            1,
            json!({
                "name": "basic", "url": url, "method": "PUT", "timeout": 5.0,
                "headers": {"X-Key": format!("{LEAK}a-header")},
                "cookies": {"session": format!("{LEAK}a-cookie")},
                "auth": ["user", format!("{LEAK}a-password")],
            }),
        ),
    );
    own.wait_for_accepted(1, SOON);
    // The same URL, other credentials, signed, and a body of ours. No subscription wants it.
    let mut second = event(
        2,
        json!({
            "url": url, "body": "event", "secret": format!("{LEAK}a-secret"),
            "auth": {"type": "bearer", "token": format!("{LEAK}a-token")},
        }),
    );
    second["customer"] = json!(2);
    produce(&router, &second);
    let mut requests = own.wait_for_accepted(2, SOON);
    requests.sort_by_key(|request| request.arrived);
    let [first, second] = &requests[..] else {
        panic!()
    };
    assert_eq!(first.method, "PUT");
    assert_eq!(first.header("x-key"), Some("leak-of-a-header"));
    assert_eq!(first.header("cookie"), Some("session=leak-of-a-cookie"));
    let basic = format!("Basic {}", STANDARD.encode("user:leak-of-a-password"));
    assert_eq!(first.header("authorization"), Some(basic.as_str()));
    assert_eq!(first.header("webhook-signature"), None);
    let body: Value = serde_json::from_slice(&first.body).unwrap();
    assert_eq!(body, json!({"id": "1", "result": "up"}));
    assert_eq!(second.method, "POST");
    assert_eq!(
        second.header("authorization"),
        Some("Bearer leak-of-a-token")
    );
    assert_eq!(second.header("x-key"), None);
    assert!(second.header("webhook-signature").is_some());
    let body: Value = serde_json::from_slice(&second.body).unwrap();
    let plain =
        json!({"event_type": "job.completed", "customer": 2, "job": {"id": 2, "result": "up"}});
    assert_eq!(body, plain);

    let seen = others.wait_for_accepted(1, SOON);
    router.wait_until_idle();
    assert_eq!(others.accepted().len(), 1, "wh_guess must match nothing");
    let body: Value = serde_json::from_slice(&seen[0].body).unwrap();
    assert_eq!(body["job"]["id"], 1);
    assert_eq!(body.get("webhook"), None);

    // A webhook that comes later gets what it missed, and not that either.
    router.subscribe("wh_late", &others.url("/late"), json!({}));
    let since = jiff::Timestamp::now() - jiff::SignedDuration::from_mins(5);
    let until = jiff::Timestamp::now() + jiff::SignedDuration::from_mins(1);
    let (since, until) = (since.to_string(), until.to_string());
    router.command(&[
        "dead-letters",
        "replay",
        "--never-delivered",
        "--webhook",
        "wh_late",
        "--since",
        &since,
        "--until",
        &until,
        "--yes",
    ]);
    let late = others.wait_for_accepted(2, SOON).pop().unwrap();
    assert!(!String::from_utf8_lossy(&late.body).contains(LEAK));

    // A hundred URLs are a hundred endpoints, and none of them has metrics of its own.
    for n in 0..100 {
        produce(
            &router,
            &event(n, json!({"url": own.url(&format!("/{n}"))})),
        );
    }
    own.wait_for_accepted(102, SOON);
    router.wait_until_idle();
    let paths: BTreeSet<String> = own.accepted().into_iter().map(|found| found.path).collect();
    assert_eq!(paths.len(), 101);
    assert!(!router.app().metrics().page().unwrap().contains("inline_"));
    for (topic, record) in ours(&cluster) {
        let text = record.whole();
        assert!(!text.contains(LEAK), "{topic}: {text}");
        let catalog = topic.ends_with("subscriptions");
        assert!(!(catalog && text.contains("inline")), "{text}");
    }
}

#[test]
fn one_that_fails_is_tried_again_and_dies_and_is_replayed_with_its_credentials() {
    let cluster = Cluster::named("inline-fails");
    let mut router = Router::start(&cluster, &["events.job"], ON);
    // What is replayed ends twice.
    router.leaves_work();
    let is_mended = Arc::new(AtomicBool::new(false));
    let mended = Arc::clone(&is_mended);
    let own = Receiver::start(move |_| {
        if mended.load(Ordering::Acquire) {
            Reply::ok()
        } else {
            Reply::status(500)
        }
    });
    let others = Receiver::accepting();
    router.subscribe("wh_all", &others.url("/all"), json!({}));
    let patience = json!({"max_retries": 1, "retry_backoff": 1, "headers": {"X-Key": "right"}});
    let mut webhook = patience.clone();
    webhook["url"] = own.url("/").into();
    produce(&router, &event(1, webhook));
    let letters = router.wait_for_dead_letters(1);
    let died = &letters[0];
    assert_eq!(died.header("postrider-reason"), Some("exhausted"));
    let requests = own.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[0].id(), requests[1].id());
    assert!(!died.whole().contains("right"));

    // Three that never can be delivered; whoever else wants the events gets them.
    let mut private = patience.clone();
    private["url"] = "http://10.0.0.5/".into();
    for webhook in [
        json!({"url": "ftp://a.example"}),
        json!("http://a.example"),
        private,
    ] {
        produce(&router, &event(2, webhook));
    }
    others.wait_for_accepted(4, SOON);
    let why = |letter: &Record| {
        let header = |name: &str| letter.header(name).unwrap_or_default().to_owned();
        (header("postrider-reason"), header("__dlq.errors.message"))
    };
    let mut reasons: Vec<_> = router.wait_for_dead_letters(4).iter().map(why).collect();
    reasons.sort();
    let expected = [
        ("blocked_address", "10.0.0.5"),
        ("exhausted", "500"),
        ("rejected", "/webhook/url: "),
        ("rejected", "/webhook: "),
    ];
    for ((reason, message), (wanted, part)) in reasons.iter().zip(expected) {
        assert!(reason == wanted && message.contains(part), "{reasons:?}");
    }

    // A replay sends the first one as it was; those that cannot be read are dead letters again, and not lost.
    is_mended.store(true, Ordering::Release);
    router.command(&["dead-letters", "replay", "--yes"]);
    let arrived = own.wait_for_accepted(1, SOON).pop().unwrap();
    assert_eq!(arrived.id(), requests[0].id());
    assert_eq!(arrived.header("x-key"), Some("right"));
    let again = router.wait_for_dead_letters(7);
    let rejected = |letter: &&Record| letter.header("postrider-reason") == Some("rejected");
    assert_eq!(again.iter().filter(rejected).count(), 4);
    let shown = router.command(&["dead-letters", "list"]);
    assert!(!shown.contains("right"), "{shown}");
}

#[test]
fn one_whose_key_is_not_here_waits_for_the_key() {
    const OTHER: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let cluster = Cluster::named("inline-key");
    let own = Receiver::accepting();
    {
        let mut router = Router::idle(&cluster, &["events.job"], ON);
        router.leaves_work();
        router.add_instance(Stages {
            route: true,
            deliver: false,
            release: false,
        });
        produce(&router, &event(1, json!({"url": own.url("/")})));
        let dispatch = cluster.name("postrider.dispatch");
        cluster.consume_until(&dispatch, SOON, |records| !records.is_empty());
    }
    let other = format!("secrets.key = {OTHER:?}\n");
    {
        let mut router = Router::start(&cluster, &["events.job"], &other);
        router.leaves_work();
        let topics = router.topics();
        let delays = topics.delays().map(|(_, name)| name.to_string());
        let delays: Vec<String> = delays.collect();
        crate::harness::eventually("the delivery to wait", SOON, || {
            let waits = |topic: &String| !cluster.consume_all(topic).is_empty();
            delays.iter().any(waits).then_some(())
        });
    }
    assert_eq!(own.requests().len(), 0);
    // Opened by the key that was, though no event may carry a webhook any more.
    let both = format!("secrets.key = {OTHER:?}\nsecrets.old_keys = [{KEY:?}]\n");
    let _router = Router::start(&cluster, &["events.job"], &both);
    own.wait_for_accepted(1, SOON);
}

#[test]
fn where_it_is_off_it_is_data() {
    let cluster = Cluster::named("inline-off");
    let router = Router::start(&cluster, &["events.job"], "");
    let (own, others) = (Receiver::accepting(), Receiver::accepting());
    let filter = json!({"filter": {"webhook": {"method": "PUT"}}});
    router.subscribe("wh_all", &others.url("/all"), filter);
    let event = event(1, json!({"url": own.url("/"), "method": "PUT"}));
    produce(&router, &event);
    let seen = others.wait_for_accepted(1, SOON);
    assert_eq!(seen[0].body, event.to_string().as_bytes());
    router.wait_until_idle();
    assert_eq!(own.requests().len(), 0);
}

#[test]
fn the_api_and_the_command_line_say_what_is_wrong_with_one() {
    let cluster = Cluster::named("inline-api");
    let router = Router::start(&cluster, &["events.job"], &config(ON));
    let own = Receiver::accepting();
    let client = Client::of(&router, ROOT);
    let guess = json!({
        "id": "wh_guess", "url": own.url("/guess"), "event_types": ["*"], "filter": {"webhook": {"url": own.url("/own")}},
    });
    client.post("/webhooks/", &guess).expect(201);
    let bad = event(1, json!({"url": own.url("/own"), "metod": "PUT"}));
    for route in ["/events/", "/match/"] {
        let refused = client.post(route, &bad);
        assert_eq!(refused.status, 400, "{refused:?}");
        assert!(refused.text.contains("/webhook/metod"), "{refused:?}");
    }
    let good = event(1, json!({"url": own.url("/own"), "method": "PUT"}));
    let matched = client.post("/match/", &good).expect(200);
    assert!(
        !matched.to_string().contains(r#""matches":true"#),
        "{matched}"
    );
    // It is as good as writing a webhook.
    let refused = Client::of(&router, "prt_operator").post("/events/", &good);
    assert_eq!(refused.status, 403, "{refused:?}");
    client.post("/events/", &good).expect(202);
    let arrived = own.wait_for_accepted(1, SOON);
    assert_eq!(arrived[0].path, "/own");
    // What went wrong with one is its customer's to see, and nobody else's.
    produce(&router, &bad);
    router.wait_for_dead_letters(1);
    for (token, total) in [("prt_one", 1), ("prt_two", 0), (ROOT, 1)] {
        let letters = Client::of(&router, token).get("/dead-letters/").expect(200);
        assert_eq!(letters["total"], total, "{token}: {letters}");
    }
    // Such ids are not for webhooks of the catalog.
    for id in ["inline", "inline_1"] {
        let mine = json!({"id": id, "url": own.url("/"), "event_types": ["*"]});
        let refused = client.post("/webhooks/", &mine);
        assert_eq!(refused.status, 400, "{refused:?}");
    }
    let folder = tempfile::tempdir().unwrap();
    for (event, said) in [
        (&good, "goes to the webhook that it carries"),
        (&bad, "/webhook/metod"),
    ] {
        let file = folder.path().join("event.json");
        std::fs::write(&file, event.to_string()).unwrap();
        let text = router.command(&["explain", "--event", file.to_str().unwrap()]);
        assert!(text.contains(said), "{text}");
    }
    // Nobody can open one without a key, so it is not begun.
    let text = config_text(&cluster, &["events.job"], ON);
    let text = text.replace(&format!("secrets.key = {KEY:?}\n"), "");
    let fault = postrider::config::Config::from_text("a.toml", &text, &Default::default());
    assert!(fault.unwrap_err().to_string().contains("secrets.key"));
}
