//! No tenant sees another's data: every route of the document is called with another tenant's ids, and a route that this file does
//! not know fails the test. Roles, tokens, and wrong tokens.

use serde_json::{Value, json};

use super::{Client, ROOT, start};
use crate::harness::{Cluster, Router, Sent, eventually};

/// Words by which anything of tenant 2 is known again.
const FOREIGN: [&str; 3] = ["wh_two", "belongs-to-two", "two.example"];

fn webhook(id: &str, customer: u64) -> Value {
    let word = if customer == 1 { "one" } else { "two" };
    json!({
        "id": id, "name": format!("belongs-to-{word}"), "url": format!("https://{word}.example/in"),
        "event_types": [format!("belongs-to-{word}.*")], "tags": [format!("belongs-to-{word}")], "customer": customer,
        "secret": "s", "max_retries": 0, "timeout_seconds": 1,
    })
}

/// The body that a route needs to get as far as the id.
fn body_of(operation: &str) -> Option<Value> {
    let event = json!({"event_type": "job.failed", "customer": 1});
    Some(match operation {
        "create_webhook" => webhook("wh_two", 1),
        "update_webhook" => json!({"enabled": false}),
        "replace_webhook" => webhook("wh_two", 1),
        "bulk_delete_webhooks" => json!({"ids": ["wh_two"]}),
        "create_token" => json!({"name": "x", "role": "viewer"}),
        "send_event" | "match_event" => event,
        "create_replay" => json!({}),
        "discard_dead_letters" => json!({"reason_text": "x"}),
        _ => return None,
    })
}

/// What the route answers to tenant 1 when it is asked about tenant 2's things: its status.
fn status_of(operation: &str) -> u16 {
    match operation {
        "get_webhook" | "update_webhook" | "replace_webhook" | "delete_webhook"
        | "test_webhook" | "pause_webhook" | "resume_webhook" | "rotate_secret"
        | "revoke_token" | "get_delivery" | "retry_delivery" | "webhook_stats" | "get_replay"
        | "pause_replay" | "resume_replay" | "cancel_replay" | "undo_discard" => 404,
        // Nothing is meant, so nothing begins.
        "create_replay" | "discard_dead_letters" => 200,
        "list_deliveries" | "stats" | "list_dead_letters" | "list_replays" => 200,
        "list_webhooks"
        | "list_tags"
        | "list_event_types"
        | "list_tokens"
        | "match_event"
        | "bulk_delete_webhooks" => 200,
        // Whatever the id: see the_ids_of_other_tenants_cannot_be_tried_out.
        "create_webhook" => 400,
        "create_token" => 201,
        "send_event" => 202,
        other => panic!(
            "the route {other} is not covered: say what it answers about another tenant's things"
        ),
    }
}

fn operations(client: &Client) -> Vec<(String, String, String)> {
    let document = client.get("/openapi.json").expect(200);
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in ["get", "post", "put", "patch", "delete"] {
            if let Some(id) = item[method]["operationId"].as_str() {
                let path = path.strip_prefix("/api/v1").unwrap().to_owned();
                found.push((method.to_uppercase(), path, id.to_owned()));
            }
        }
    }
    found
}

fn ask(client: &Client, method: &str, path: &str, operation: &str, id: &str) -> super::Answer {
    let path = path.replace("{id}", id);
    match body_of(operation) {
        Some(body) => client.with(method, &path, &[], &body),
        None => client.send(method, &path, &[], None),
    }
}

/// Two dead letters of tenant 2, of which it has discarded one: a delivery's id and the discard's.
fn died(router: &Router<'_>) -> (String, String) {
    let event = json!({"event_type": "belongs-to-two.x", "customer": 2}).to_string();
    let topic = router.cluster.name("events.job");
    router
        .cluster
        .produce_all(&topic, &[Sent::new(event.clone()), Sent::new(event)]);
    let letters = router.wait_for_dead_letters(2);
    let two = Client::of(router, "prt_two");
    let discard = json!({"reason_text": "belongs-to-two", "limit": 1});
    let discard = two.post("/dead-letters/discard/", &discard).expect(202);
    assert_eq!(two.get("/dead-letters/").expect(200)["total"], 1);
    let replay = discard["replay"]["id"].as_str().unwrap().to_owned();
    let delivery = letters[0]
        .header("postrider-delivery-id")
        .unwrap()
        .to_owned();
    let path = format!("/webhook-deliveries/{delivery}/");
    eventually(
        "the history to know it",
        std::time::Duration::from_secs(20),
        || (two.get(&path).status == 200).then_some(()),
    );
    two.get(&format!("/replays/{replay}/")).expect(200);
    (delivery, replay)
}

#[test]
fn the_ids_of_other_tenants_cannot_be_tried_out() {
    let cluster = Cluster::named("api-ids");
    let router = start(&cluster, "history.store = \"none\"\n");
    let root = Client::of(&router, ROOT);
    root.post("/webhooks/", &webhook("wh_two", 2)).expect(201);
    let one = Client::of(&router, "prt_one");
    let answer = |id: &str| {
        let mut answer = one.post("/webhooks/", &webhook(id, 1)).problem(400);
        assert_eq!(answer["errors"][0]["pointer"], "/id", "{answer}");
        // Everything but what is another one at each request.
        answer.as_object_mut().unwrap().remove("instance");
        answer
    };
    assert_eq!(answer("wh_two"), answer("wh_none"));
    let mut nameless = webhook("", 1);
    nameless["id"] = Value::Null;
    let made = one.post("/webhooks/", &nameless).expect(201);
    assert_eq!(answer(made["id"].as_str().unwrap()), answer("wh_two"));
    // Who sees all of them may name one, and learns that it is taken.
    root.post("/webhooks/", &webhook("wh_two", 1)).problem(409);
    assert_eq!(root.get("/webhooks/wh_two/").expect(200)["customer"], 2);
}

#[test]
fn no_route_of_the_document_shows_or_changes_another_tenants_things() {
    let cluster = Cluster::named("api-tenants");
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("history.db");
    let more = format!(
        "history.store = \"sqlite:{}\"\noutbound.breaker_failures = 1000\n",
        store.display()
    );
    let mut router = start(&cluster, &more);
    router.leaves_work();
    let root = Client::of(&router, ROOT);
    root.post("/webhooks/", &webhook("wh_one", 1)).expect(201);
    let stored = root.post("/webhooks/", &webhook("wh_two", 2)).expect(201);
    let token = json!({"name": "belongs-to-two", "role": "viewer", "customer": 2});
    let token = root.post("/tokens/", &token).expect(201);

    let (delivery, replay) = died(&router);

    let one = Client::of(&router, "prt_one");
    let operations = operations(&root);
    for (method, path, operation) in &operations {
        let id = if path.contains("tokens") {
            token["id"].as_str().unwrap()
        } else if path.contains("deliveries") {
            &delivery
        } else if path.contains("replays") {
            &replay
        } else {
            "wh_two"
        };
        let answer = ask(&one, method, path, operation, id);
        assert_eq!(
            answer.status,
            status_of(operation),
            "{method} {path}: {answer:?}"
        );
        // What was asked for may be repeated in a refusal; anything else may not.
        let text = if answer.status == 404 || operation == "bulk_delete_webhooks" {
            answer.text.replace("wh_two", "")
        } else {
            answer.text.clone()
        };
        for word in FOREIGN {
            // Nor does a count betray it.
            assert!(!text.contains("\"total\":2"), "{method} {path}: {text}");
            assert!(!text.contains(word), "{method} {path} says {word}: {text}");
        }
    }
    assert!(
        operations.len() >= 31,
        "only {} routes were found",
        operations.len()
    );
    // What was delivered to it meanwhile is no change of it.
    let settings = |mut webhook: serde_json::Value| {
        for moving in ["last_success_at", "last_failure_at", "pending"] {
            webhook[moving].take();
        }
        webhook
    };
    assert_eq!(
        settings(root.get("/webhooks/wh_two/").expect(200)),
        settings(stored)
    );
    let tokens = root.get("/tokens/").expect(200);
    assert!(tokens.to_string().contains("belongs-to-two"));
    // One's own is seen by the same routes, so that they do not merely answer nothing.
    let own = one.get("/webhooks/").expect(200);
    assert_eq!(own["results"][0]["id"], "wh_one");
    one.get("/webhooks/wh_one/").expect(200);
    // Nobody writes into another's tenancy, nor out of it.
    one.post("/webhooks/", &webhook("wh_x", 2)).problem(400);
    one.patch("/webhooks/wh_one/", &json!({"customer": 2}))
        .problem(400);
    one.patch("/webhooks/wh_one/", &json!({"customer": null}))
        .expect(200);
    assert_eq!(root.get("/webhooks/wh_one/").expect(200)["customer"], 1);
    one.post(
        "/tokens/",
        &json!({"name": "x", "role": "admin", "customer": 2}),
    )
    .problem(400);
    one.post(
        "/events/",
        &json!({"event_type": "job.failed", "customer": 2}),
    )
    .problem(400);
    one.post("/events/", &json!({"event_type": "job.failed"}))
        .problem(400);
}

#[test]
fn no_route_is_served_without_a_token_nor_beyond_its_role() {
    let cluster = Cluster::named("api-roles");
    let mut router = start(&cluster, "");
    router.leaves_work();
    let root = Client::of(&router, ROOT);
    let nobody = Client::of(&router, "");
    let viewer = Client::of(&router, "prt_viewer");
    let operator = Client::of(&router, "prt_operator");
    let mut seen = 0;
    for (method, path, operation) in operations(&nobody) {
        let refused = ask(&nobody, &method, &path, &operation, "wh_none");
        refused.problem(401);
        assert!(
            refused.header("www-authenticate").starts_with("Bearer"),
            "{path}"
        );
        let reads = matches!(
            operation.as_str(),
            "get_webhook"
                | "list_webhooks"
                | "list_tags"
                | "list_event_types"
                | "match_event"
                | "list_deliveries"
                | "get_delivery"
                | "webhook_stats"
                | "stats"
                | "list_dead_letters"
                | "list_replays"
                | "get_replay"
        );
        let operates = matches!(
            operation.as_str(),
            "test_webhook"
                | "pause_webhook"
                | "resume_webhook"
                | "send_event"
                | "retry_delivery"
                | "create_replay"
                | "discard_dead_letters"
                | "pause_replay"
                | "resume_replay"
                | "cancel_replay"
                | "undo_discard"
        );
        let by_viewer = ask(&viewer, &method, &path, &operation, "wh_none").status;
        let by_operator = ask(&operator, &method, &path, &operation, "wh_none").status;
        assert_eq!(by_viewer == 403, !reads, "{operation}: {by_viewer}");
        assert_eq!(
            by_operator == 403,
            !(reads || operates),
            "{operation}: {by_operator}"
        );
        seen += 1;
    }
    assert!(seen >= 31);
    assert_eq!(root.get("/webhooks/").expect(200)["results"], json!([]));
}

#[test]
fn a_token_is_shown_once_works_and_is_revoked() {
    let cluster = Cluster::named("api-tokens");
    let mut router = start(&cluster, "");
    router.add_instance(postrider::app::Stages::ALL);
    let root = Client::of(&router, ROOT);
    let body = json!({"name": "ci", "role": "viewer", "customer": 1});
    let made = root.post("/tokens/", &body).expect(201);
    let text = made["token"].as_str().unwrap().to_owned();
    assert!(text.starts_with("prt_"));
    Client::of(&router, &text).get("/webhooks/").expect(200);
    let other = Client::at(router.apps()[1].api().unwrap(), &text);
    eventually(
        "the other instance to know the token",
        std::time::Duration::from_secs(5),
        || (other.get("/webhooks/").status == 200).then_some(()),
    );
    let list = root.get("/tokens/");
    assert!(!list.text.contains(&text));
    assert_eq!(list.expect(200)["results"][0]["id"], made["id"]);
    // Neither the topic nor the audit trail has it.
    for topic in [&router.topics().subscriptions, &router.topics().audit] {
        let records = cluster.consume_all(topic);
        assert!(!records.is_empty());
        for record in records {
            let bytes = record.payload.unwrap_or_default();
            assert!(!String::from_utf8_lossy(&bytes).contains(&text));
        }
    }
    let path = format!("/tokens/{}/", made["id"].as_str().unwrap());
    assert_eq!(root.delete(&path).status, 204);
    Client::of(&router, &text).get("/webhooks/").problem(401);
    root.delete(&path).problem(404);

    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(2);
    let body = json!({"name": "short", "role": "viewer", "expires_at": soon});
    let short = root.post("/tokens/", &body).expect(201)["token"]
        .as_str()
        .unwrap()
        .to_owned();
    let short = Client::of(&router, &short);
    short.get("/webhooks/").expect(200);
    std::thread::sleep(std::time::Duration::from_millis(2_100));
    let expired = short.get("/webhooks/").problem(401);
    assert!(expired["detail"].as_str().unwrap().contains("expired"));
    for wrong in [
        json!({"role": "viewer"}),
        json!({"name": "x", "role": "root"}),
        json!({"name": "x", "role": "viewer", "expires_at": "2001-01-01T00:00:00Z"}),
        json!({"name": "x", "role": "viewer", "custmer": 1}),
    ] {
        root.post("/tokens/", &wrong).problem(400);
    }
}

fn failures(router: &Router<'_>, reason: &str) -> f64 {
    router.metric(&format!(
        "postrider_authentication_failures_total{{reason=\"{reason}\"}}"
    ))
}

#[test]
fn wrong_tokens_are_counted_and_slowed_down() {
    let cluster = Cluster::named("api-wrong");
    let router = start(&cluster, "");
    let wrong = Client::of(&router, "prt_guess");
    let mut answers: Vec<u16> = (0..40).map(|_| wrong.get("/webhooks/").status).collect();
    answers.dedup();
    assert_eq!(answers[..2], [401, 429]);
    let limited = wrong.get("/webhooks/");
    limited.problem(429);
    assert!(limited.header("retry-after").parse::<u64>().unwrap() >= 1);
    assert!(failures(&router, "wrong") >= 20.0);
    assert!(failures(&router, "limited") >= 10.0);
    std::thread::sleep(std::time::Duration::from_secs(4));
    Client::of(&router, ROOT).get("/webhooks/").expect(200);
}

#[test]
fn without_a_token_the_api_is_not_served_unless_this_machine_alone_may_ask() {
    let cluster = Cluster::named("api-anonymous");
    let none = Router::start(&cluster, &["events.job"], "web.listen = \"127.0.0.1:0\"\n");
    assert_eq!(none.app().api(), None);
    let open = "web.listen = \"127.0.0.1:0\"\nweb.allow_anonymous = true\n";
    let open = Router::start(&cluster, &["events.job"], open);
    let anyone = Client::of(&open, "");
    anyone.get("/webhooks/").expect(200);
    anyone
        .send("GET", "/webhooks/", &[("host", "evil.example")], None)
        .problem(401);
    anyone
        .send(
            "POST",
            "/webhooks/x/pause/",
            &[("sec-fetch-site", "cross-site")],
            None,
        )
        .problem(401);
    Client::of(&open, "prt_wrong")
        .get("/webhooks/")
        .problem(401);
}

#[test]
fn every_change_is_in_the_audit_trail_without_secrets() {
    let cluster = Cluster::named("api-audit");
    let router = start(&cluster, "");
    let one = Client::of(&router, "prt_one");
    let mut body = webhook("wh_one", 1);
    body["secret"] = "hidden-secret".into();
    body["headers"] = json!({"X-Key": "hidden-header"});
    body["id"] = Value::Null;
    let made = one.post("/webhooks/", &body).expect(201);
    let path = format!("/webhooks/{}/", made["id"].as_str().unwrap());
    one.patch(&path, &json!({"enabled": false})).expect(200);
    // Nothing changes, so nothing is noted.
    one.patch(&path, &json!({"enabled": false})).expect(200);
    one.delete(&path);
    let records = cluster.consume_until(
        &router.topics().audit,
        std::time::Duration::from_secs(20),
        |records| records.len() >= 3,
    );
    let notes: Vec<Value> = records
        .iter()
        .map(|record| {
            let bytes = record.payload.clone().unwrap();
            assert!(!String::from_utf8_lossy(&bytes).contains("hidden"));
            serde_json::from_slice(&bytes).unwrap()
        })
        .collect();
    let actions: Vec<&str> = notes
        .iter()
        .map(|note| note["action"].as_str().unwrap())
        .collect();
    assert_eq!(
        actions,
        ["webhook.create", "webhook.update", "webhook.delete"]
    );
    assert_eq!(notes[1]["actor"]["token"], "one");
    assert_eq!(
        (
            &notes[1]["before"]["enabled"],
            &notes[1]["after"]["enabled"]
        ),
        (&json!(true), &json!(false))
    );
    assert_eq!(notes[2]["after"], Value::Null);
}
