//! webnet's curl examples as they stand, with a token added; and every way in which a webhook can be wrong.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Client, ROOT, start};
use crate::harness::{Cluster, Receiver};

const SOON: Duration = Duration::from_secs(20);

fn slack(more: Value) -> Value {
    let mut webhook = json!({
        "customer": 1,
        "name": "Slack Notifications",
        "url": "https://hooks.slack.com/services/YOUR/WEBHOOK/URL",
        "event_types": ["job.completed", "job.failed", "compliance.violation_detected"],
        "secret": "your-secret-key",
        "enabled": true,
        "verify_ssl": true,
        "timeout_seconds": 10,
        "max_retries": 3,
        "retry_backoff": 60,
    });
    for (name, value) in more.as_object().unwrap() {
        webhook[name] = value.clone();
    }
    webhook
}

#[test]
fn the_examples_of_webnet_run_as_they_stand() {
    let cluster = Cluster::named("api-webnet");
    let router = start(&cluster, "");
    let client = Client::of(&router, ROOT);

    let created = client.post("/webhooks/", &slack(json!({})));
    let webhook = created.expect(201);
    let id = webhook["id"].as_str().unwrap();
    assert_eq!(created.header("etag"), "\"1\"");
    assert_eq!(
        created.header("location"),
        format!("/api/v1/webhooks/{id}/")
    );
    assert_eq!(
        (&webhook["customer"], &webhook["retry_backoff"]),
        (&json!(1), &json!(60))
    );
    assert_eq!(webhook["state"], "passing");
    assert!(!created.text.contains("your-secret-key"));

    // A read after one's own write sees it, in the list too, with and without the last slash.
    for path in ["/webhooks/", "/webhooks"] {
        let list = client.get(path).expect(200);
        assert_eq!(list["results"], json!([webhook]), "{path}");
        assert_eq!(
            (&list["next"], &list["previous"]),
            (&Value::Null, &Value::Null)
        );
    }
    assert_eq!(client.get(&format!("/webhooks/{id}")).expect(200), webhook);

    let patched = client.patch(&format!("/webhooks/{id}/"), &json!({"enabled": false}));
    let now = patched.expect(200);
    assert_eq!(
        (&now["enabled"], &now["state"]),
        (&json!(false), &json!("disabled"))
    );
    assert_eq!(patched.header("etag"), "\"2\"");
    assert_eq!(
        router.catalog().read().unwrap()[id].secrets,
        ["your-secret-key"]
    );

    assert_eq!(client.delete(&format!("/webhooks/{id}/")).status, 204);
    client.get(&format!("/webhooks/{id}/")).problem(404);
    // The second example has no Content-Type.
    let example = json!({
        "name": "Slack Alerts",
        "url": "https://hooks.slack.com/services/YOUR/WEBHOOK/URL",
        "event_types": ["job.failed", "compliance.violation_detected"],
        "enabled": true,
    });
    let raw = client.send(
        "POST",
        "/webhooks/",
        &[],
        Some(example.to_string().into_bytes()),
    );
    assert_eq!(raw.expect(201)["customer"], Value::Null);
}

#[test]
fn a_test_a_pause_and_a_resume_do_what_they_say() {
    let cluster = Cluster::named("api-actions");
    let receiver = Receiver::accepting();
    let router = start(&cluster, "");
    let client = Client::of(&router, ROOT);
    let body = slack(json!({"id": "wh_a", "url": receiver.url("/in")}));
    client.post("/webhooks/", &body).expect(201);

    let sent = client
        .send("POST", "/webhooks/wh_a/test/", &[], None)
        .expect(202);
    let request = &receiver.wait_for(1, SOON)[0];
    assert_eq!(request.id(), sent["delivery_id"].as_str());
    assert_eq!(sent["event_type"], "job.completed");

    let paused = client
        .send("POST", "/webhooks/wh_a/pause/", &[], None)
        .expect(200);
    assert_eq!(
        (&paused["paused"], &paused["state"]),
        (&json!(true), &json!("paused"))
    );
    // A second time changes nothing.
    let again = client.send("POST", "/webhooks/wh_a/pause/", &[], None);
    assert_eq!(again.expect(200)["version"], paused["version"]);
    let other = json!({"event_type": "job.failed"});
    client.post("/webhooks/wh_a/test/", &other).expect(202);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(receiver.requests().len(), 1);
    client
        .send("POST", "/webhooks/wh_a/resume/", &[], None)
        .expect(200);
    receiver.wait_for(2, SOON);
}

#[test]
fn both_secrets_sign_until_the_old_one_ends() {
    let cluster = Cluster::named("api-rotate");
    let receiver = Receiver::accepting();
    let router = start(&cluster, "");
    let client = Client::of(&router, ROOT);
    let body = slack(json!({"id": "wh_a", "url": receiver.url("/in")}));
    client.post("/webhooks/", &body).expect(201);

    let rotated = client
        .send("POST", "/webhooks/wh_a/rotate-secret/", &[], None)
        .expect(200);
    assert!(rotated["secret"].as_str().unwrap().starts_with("whsec_"));
    assert!(rotated["old_secret_expires_at"].is_string());
    client
        .send("POST", "/webhooks/wh_a/test/", &[], None)
        .expect(202);
    let signatures = |n: usize| {
        let request = receiver.wait_for(n, SOON).remove(n - 1);
        request
            .header("webhook-signature")
            .unwrap()
            .split(' ')
            .count()
    };
    assert_eq!(signatures(1), 2);

    // Its time is over: nothing is written for that, the signing itself knows.
    router.change("wh_a", |webhook| {
        webhook.old_secret_expires_at = Some(jiff::Timestamp::now())
    });
    client
        .send("POST", "/webhooks/wh_a/test/", &[], None)
        .expect(202);
    assert_eq!(signatures(2), 1);

    let none = client.post(
        "/webhooks/wh_a/rotate-secret/",
        &json!({"overlap_hours": 0, "secret": "new"}),
    );
    assert_eq!(
        none.expect(200),
        json!({"secret": "new", "old_secret_expires_at": null})
    );
    assert_eq!(router.catalog().read().unwrap()["wh_a"].secrets, ["new"]);
    client
        .post(
            "/webhooks/wh_a/rotate-secret/",
            &json!({"overlap_hours": -1}),
        )
        .problem(400);
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_its_cure() {
    let cluster = Cluster::named("api-problems");
    let router = start(&cluster, "outbound.allow_networks = []\n");
    let client = Client::of(&router, ROOT);
    for (change, pointer, said) in [
        (json!({"url": "ftp://example.com/"}), "/url", "https://"),
        (json!({"url": null}), "/url", "missing"),
        (json!({"event_types": []}), "/event_types", "at least one"),
        (json!({"timeout_seconds": 0}), "/timeout_seconds", "0.5"),
        (
            json!({"headers": {"Host": "x"}}),
            "/headers/Host",
            "connection",
        ),
        (
            json!({"evnt_types": ["*"]}),
            "/evnt_types",
            "did you mean `event_types`",
        ),
        (
            json!({"filter": {"job": {"$im": 1}}}),
            "/filter/job/$im",
            "$in",
        ),
        (json!({"secret": 7}), "/secret", "text"),
        (json!({"secret": "***"}), "/secret", "no secret is stored"),
        (
            json!({"headers": {"Expect": "100-continue"}}),
            "/headers/Expect",
            "connection",
        ),
        (
            json!({"filter": {"job": {"$regex": "a"}}}),
            "/filter/job/$regex",
            "there is no `$regex`",
        ),
        (json!({"id": "tags"}), "/id", "path of the API"),
        (json!({"customer": 1e20}), "/customer", "as text"),
    ] {
        let problem = client.post("/webhooks/", &slack(change)).problem(400);
        let found = problem["errors"]
            .as_array()
            .unwrap()
            .iter()
            .find(|error| error["pointer"] == pointer);
        let detail = found.unwrap_or_else(|| panic!("{pointer}: {problem}"))["detail"]
            .as_str()
            .unwrap();
        assert!(detail.contains(said), "{problem}");
    }
    // No spelling of a private address enters.
    for url in [
        "http://127.0.0.1/",
        "http://localhost/",
        "http://0x7f.1/",
        "http://2130706433/",
        "http://[::1]/",
        "http://[::ffff:10.0.0.1]/",
        "http://169.254.169.254/latest",
        "http://[64:ff9b::a00:1]/",
        "http://0/",
    ] {
        let problem = client
            .post("/webhooks/", &slack(json!({"url": url})))
            .problem(400);
        assert_eq!(problem["errors"][0]["pointer"], "/url", "{url}");
        assert!(
            problem["errors"][0]["detail"]
                .as_str()
                .unwrap()
                .starts_with("refused"),
            "{problem}"
        );
    }
    let typed = |media: &str, body: &[u8]| {
        client.send(
            "POST",
            "/webhooks/",
            &[("content-type", media)],
            Some(body.to_vec()),
        )
    };
    let problem = typed("application/json", b"{\n  \"name\": oops}").problem(400);
    assert_eq!(
        (
            &problem["errors"][0]["line"],
            &problem["errors"][0]["column"]
        ),
        (&json!(2), &json!(11))
    );
    typed("application/json", b"").problem(400);
    let twice = typed("application/json", br#"{"filter": {"a": 1, "a": 2}}"#).problem(400);
    assert!(
        twice["detail"].as_str().unwrap().contains("stands twice"),
        "{twice}"
    );
    typed("application/json", b"[]").problem(400);
    typed("application/json", b"\xff").problem(400);
    typed("text/xml", b"<a/>").problem(415);
    typed("application/json", &vec![b' '; 1_048_577]).problem(413);
    client.send("PUT", "/webhooks/", &[], None).problem(405);
    client.get("/webhoks/").problem(404);
    assert_eq!(
        client.get("/webhooks/?page_siz=3").problem(400)["errors"][0]["parameter"],
        "page_siz"
    );
    for query in [
        "page_size=0",
        "page_size=201",
        "page_size=x",
        "enabled=perhaps",
        "state=odd",
        "cursor=AAAA",
        "enabled=true&enabled=true",
    ] {
        client.get(&format!("/webhooks/?{query}")).problem(400);
    }
    assert_eq!(client.get("/webhooks/").expect(200)["results"], json!([]));
}

#[test]
fn a_list_is_walked_by_cursors_that_cannot_be_changed() {
    let cluster = Cluster::named("api-pages");
    let router = start(&cluster, "web.max_webhooks_per_customer = 5\n");
    let client = Client::of(&router, ROOT);
    for n in 0..5 {
        let tags = json!({"id": format!("wh_{n}"), "tags": [format!("t{}", n % 2)]});
        client.post("/webhooks/", &slack(tags)).expect(201);
    }
    let full = client.post("/webhooks/", &slack(json!({}))).problem(409);
    assert!(
        full["detail"]
            .as_str()
            .unwrap()
            .contains("max_webhooks_per_customer"),
        "{full}"
    );
    client
        .post("/webhooks/", &slack(json!({"id": "wh_1", "customer": 2})))
        .problem(409);
    // Nor does a change of hands bring one more.
    let other = slack(json!({"id": "wh_other", "customer": 2}));
    client.post("/webhooks/", &other).expect(201);
    let moved = json!({"customer": 1});
    client.patch("/webhooks/wh_other/", &moved).problem(409);
    assert_eq!(client.delete("/webhooks/wh_other/").status, 204);

    let mut seen = Vec::new();
    let mut path = "/webhooks/?page_size=2".to_owned();
    loop {
        let page = client.get(&path).expect(200);
        seen.extend(
            page["results"]
                .as_array()
                .unwrap()
                .iter()
                .map(|row| row["id"].clone()),
        );
        let Some(next) = page["next"].as_str() else {
            break;
        };
        path = format!("/webhooks/?page_size=2&cursor={next}");
    }
    assert_eq!(seen, ["wh_0", "wh_1", "wh_2", "wh_3", "wh_4"]);
    // Of another list: a filter that was not there, and a tenant's.
    client.get(&format!("{path}&enabled=true")).problem(400);
    Client::of(&router, "prt_one").get(&path).problem(400);

    let tags = client.get("/webhooks/tags/").expect(200);
    assert_eq!(
        tags["results"],
        json!([{"tag": "t0", "webhooks": 3}, {"tag": "t1", "webhooks": 2}])
    );
    let found = client.get("/webhooks/?tag=t1").expect(200);
    assert_eq!(found["results"].as_array().unwrap().len(), 2);

    let ids = json!({"ids": ["wh_0", "wh_1", "wh_x"], "dry_run": true});
    let dry = client.post("/webhooks/bulk-delete/", &ids).expect(200);
    assert_eq!(
        dry,
        json!({"dry_run": true, "deleted": ["wh_0", "wh_1"], "not_found": ["wh_x"], "failed": []})
    );
    assert_eq!(
        client.get("/webhooks/").expect(200)["results"]
            .as_array()
            .unwrap()
            .len(),
        5
    );
    client
        .post(
            "/webhooks/bulk-delete/",
            &json!({"ids": ["wh_0", "wh_1", "wh_x"]}),
        )
        .expect(200);
    assert_eq!(
        client.get("/webhooks/").expect(200)["results"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    client
        .post("/webhooks/bulk-delete/", &json!({"ids": []}))
        .problem(400);
}

#[test]
fn a_change_keeps_what_it_does_not_name_and_carries_no_secret_elsewhere() {
    let cluster = Cluster::named("api-change");
    let router = start(&cluster, "");
    let client = Client::of(&router, ROOT);
    let more = json!({"id": "wh_a", "headers": {"X-Key": "hidden"}, "auth": ["me", "hidden"]});
    let created = client.post("/webhooks/", &slack(more));
    assert!(!created.text.contains("hidden"));
    let stored = || router.catalog().read().unwrap().remove("wh_a").unwrap();

    // RAG's and NetPulse's words, over the fields they stand for.
    let change = json!({"status": "inactive", "timeout": 5, "events": ["job.*"]});
    let changed = client.patch("/webhooks/wh_a/", &change).expect(200);
    assert_eq!(changed["enabled"], false);
    assert_eq!(
        (&changed["timeout_seconds"], &changed["event_types"]),
        (&json!(5), &json!(["job.*"]))
    );
    assert_eq!(stored().headers["X-Key"], "hidden");

    // What was shown can be sent back as it is.
    let shown = client.get("/webhooks/wh_a/").expect(200);
    let same = client
        .with("PUT", "/webhooks/wh_a/", &[], &shown)
        .expect(200);
    assert_eq!(same["version"], shown["version"]);
    assert_eq!(stored().headers["X-Key"], "hidden");
    assert_eq!(stored().secrets, ["your-secret-key"]);

    let moved = client
        .patch("/webhooks/wh_a/", &json!({"url": "https://evil.example/"}))
        .problem(400);
    assert!(moved.to_string().contains("/headers/X-Key"), "{moved}");
    client
        .patch("/webhooks/wh_a/", &json!({"id": "wh_b"}))
        .problem(400);
    let known = client.send(
        "GET",
        "/webhooks/wh_a/",
        &[("if-none-match", "\"2\"")],
        None,
    );
    assert_eq!(known.status, 304);
}
