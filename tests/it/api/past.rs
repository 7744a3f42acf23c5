//! Deliveries, dead letters and replays over HTTP: of a real router, with a history and without one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Client, ROOT, start};
use crate::harness::{Cluster, Receiver, Reply, Router, Sent, eventually};

const SOON: Duration = Duration::from_secs(30);
const MORE: &str = "outbound.breaker_failures = 1000\n";

/// A receiver that answers 500 until it is mended.
pub(super) fn broken() -> (Receiver, Arc<AtomicBool>) {
    let is_mended = Arc::new(AtomicBool::new(false));
    let mended = Arc::clone(&is_mended);
    let receiver = Receiver::start(move |request| {
        if mended.load(Ordering::Acquire) || request.path == "/good" {
            Reply::ok()
        } else {
            Reply::status(500).body("oops")
        }
    });
    (receiver, is_mended)
}

pub(super) fn emit(router: &Router<'_>, customer: u64, count: usize) {
    let all: Vec<Sent> = (0..count)
        .map(|n| {
            let event = json!({"event_type": "job.failed", "customer": customer, "n": n});
            Sent::new(event.to_string())
        })
        .collect();
    let topic = router.cluster.name("events.job");
    router.cluster.produce_all(&topic, &all);
}

pub(super) fn wait_for_total(client: &Client, path: &str, total: u64) -> Value {
    eventually(&format!("{total} of {path}"), SOON, || {
        let found = client.get(path).expect(200);
        (found["total"] == total).then_some(found)
    })
}

fn wait_for_state(client: &Client, id: &str, state: &str) -> Value {
    eventually(&format!("{id} to be {state}"), SOON * 2, || {
        let job = client.get(&format!("/replays/{id}/")).expect(200);
        (job["state"] == state).then_some(job)
    })
}

/// The rows of a list, and how many pages they are, forth and back.
fn all_pages(client: &Client, path: &str) -> (Vec<Value>, usize) {
    let walk = |from: Option<String>, direction: &str| {
        let (mut pages, mut cursor) = (Vec::new(), from);
        loop {
            let asked = cursor.map(|cursor| format!("&cursor={cursor}"));
            let page = client.get(&format!("{path}{}", asked.unwrap_or_default()));
            pages.push(page.expect(200));
            cursor = pages[pages.len() - 1][direction]
                .as_str()
                .map(str::to_owned);
            if cursor.is_none() {
                return pages;
            }
        }
    };
    let forth = walk(None, "next");
    let rows = |pages: &[Value]| -> Vec<Value> {
        let rows = pages
            .iter()
            .flat_map(|page| page["results"].as_array().unwrap());
        rows.cloned().collect()
    };
    if let Some(previous) = forth[forth.len() - 1]["previous"].as_str() {
        let mut back = walk(Some(previous.to_owned()), "previous");
        back.reverse();
        assert_eq!(rows(&back), rows(&forth[..forth.len() - 1]));
    }
    (rows(&forth), forth.len())
}

#[test]
fn a_failed_delivery_is_found_told_whole_and_retried_with_its_own_id() {
    let cluster = Cluster::named("api-deliveries");
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("history.db");
    let more = format!("{MORE}history.store = \"sqlite:{}\"\n", store.display());
    let mut router = start(&cluster, &more);
    router.leaves_work();
    let (receiver, is_mended) = broken();
    let fields = json!({"customer": 1, "max_retries": 0, "event_types": ["job.*"], "headers": {"X-Key": "s3cret"}});
    router.subscribe("wh_bad", &receiver.url("/bad"), fields);
    let fields = json!({"customer": 1, "event_types": ["job.*"]});
    router.subscribe("wh_good", &receiver.url("/good"), fields);
    emit(&router, 1, 5);
    let one = Client::of(&router, "prt_one-operator");
    let stats = eventually("the figures", SOON, || {
        let stats = one.get("/webhooks/wh_bad/stats/").expect(200);
        (stats["failure"] == 5).then_some(stats)
    });
    assert_eq!(
        (&stats["total"], &stats["success"], &stats["success_rate"]),
        (&json!(5), &json!(0), &json!(0.0))
    );
    assert_eq!(stats["response_times"]["attempts"], 5);
    assert!(stats["last_triggered_at"].is_string());
    eventually("the others", SOON, || {
        let stats = one.get("/stats").expect(200);
        (stats["success"] == 5 && stats["total"] == 10).then_some(())
    });

    // How the webhooks stand, alone and in the list.
    let bad = one.get("/webhooks/wh_bad/").expect(200);
    let good = one.get("/webhooks/wh_good/").expect(200);
    assert_eq!(
        (&bad["last_success_at"], &good["last_failure_at"]),
        (&Value::Null, &Value::Null)
    );
    for at in [&bad["last_failure_at"], &good["last_success_at"]] {
        let at: jiff::Timestamp = at.as_str().unwrap().parse().unwrap();
        assert!((jiff::Timestamp::now() - at).get_seconds() < 60, "{at}");
    }
    assert_eq!((&bad["pending"], &good["pending"]), (&json!(0), &json!(0)));
    let listed = one.get("/webhooks/").expect(200);
    assert_eq!(listed["results"], json!([bad, good]));

    // webnet's example.
    let list = one
        .get("/webhook-deliveries/?webhook=wh_bad&status=failed")
        .expect(200);
    assert_eq!(list["results"].as_array().unwrap().len(), 5);
    assert_eq!(list["next"], Value::Null);
    let (rows, pages) = all_pages(&one, "/webhook-deliveries/?page_size=3");
    let ids: BTreeSet<&str> = rows.iter().map(|row| row["id"].as_str().unwrap()).collect();
    assert_eq!((ids.len(), rows.len(), pages), (10, 10, 4));
    let none = one
        .get("/webhook-deliveries/?since=2999-01-01T00:00:00Z")
        .expect(200);
    assert_eq!(none["results"], json!([]));

    // What worked is told whole, too, while it is little.
    let worked = one
        .get("/webhook-deliveries/?webhook=wh_good&status=success")
        .expect(200);
    let id = worked["results"][0]["id"].as_str().unwrap();
    let told = one.get(&format!("/webhook-deliveries/{id}/")).expect(200);
    let attempt = &told["tries"][0];
    assert_eq!(attempt["request_headers"]["webhook-id"], id, "{told}");
    assert!(attempt["response_headers"]["date"].is_string(), "{told}");

    let id = list["results"][0]["id"].as_str().unwrap();
    let told = one.get(&format!("/webhook-deliveries/{id}/")).expect(200);
    assert_eq!(told["status"], "failed");
    assert_eq!(told["reason"], "exhausted");
    let attempt = &told["tries"][0];
    assert_eq!(
        (&attempt["status"], &attempt["response_body"]),
        (&json!(500), &json!("oops"))
    );
    assert!(!told.to_string().contains("s3cret"));

    is_mended.store(true, Ordering::Release);
    let path = format!("/webhook-deliveries/{id}/retry/");
    Client::of(&router, "prt_one-viewer")
        .post(&path, &json!({}))
        .problem(403);
    Client::of(&router, "prt_two")
        .post(&path, &json!({}))
        .problem(404);
    let replay = one.send("POST", &path, &[], None).expect(202);
    assert_eq!(replay["total"], 1);
    wait_for_state(&one, replay["id"].as_str().unwrap(), "finished");
    let told = eventually("the retry to be told", SOON, || {
        let told = one.get(&format!("/webhook-deliveries/{id}/")).expect(200);
        (told["status"] == "success").then_some(told)
    });
    assert_eq!(told["tries"].as_array().unwrap().len(), 2);
    assert_eq!(told["replay_id"], replay["id"]);
    let sent = receiver.requests();
    let same = sent.iter().filter(|request| request.id() == Some(id));
    assert_eq!(same.count(), 2, "the id stays");
    let again = one.post(&path, &json!({})).problem(409);
    assert!(
        again["detail"]
            .as_str()
            .unwrap()
            .contains("nothing to retry")
    );
    one.post("/webhook-deliveries/dlv_none/retry/", &json!({}))
        .problem(404);
    one.get("/webhook-deliveries/dlv_none/").problem(404);
}

#[test]
fn without_a_history_lists_say_so_and_dead_letters_are_listed_and_replayed_all_the_same() {
    let cluster = Cluster::named("api-letters");
    let mut router = start(&cluster, MORE);
    router.leaves_work();
    let (receiver, is_mended) = broken();
    for (id, customer) in [("wh_one", 1), ("wh_two", 2)] {
        let fields = json!({"customer": customer, "max_retries": 0, "event_types": ["job.*"]});
        router.subscribe(id, &receiver.url("/bad"), fields);
    }
    // So many that a slow replay of them lasts for longer than what is asked of it meanwhile.
    emit(&router, 1, 40);
    emit(&router, 2, 3);
    router.wait_for_dead_letters(43);
    let root = Client::of(&router, ROOT);
    let one = Client::of(&router, "prt_one-operator");
    let two = Client::of(&router, "prt_two");
    for path in [
        "/webhook-deliveries/",
        "/webhook-deliveries/dlv_x/",
        "/webhooks/wh_one/stats/",
        "/stats/",
    ] {
        let problem = one.get(path).problem(503);
        assert!(
            problem["detail"]
                .as_str()
                .unwrap()
                .contains("history.store"),
            "{problem}"
        );
    }
    assert_eq!(root.get("/dead-letters/").expect(200)["total"], 43);
    let mine = wait_for_total(&one, "/dead-letters/?page_size=2", 40);
    assert_eq!(mine["by_reason"], json!({"exhausted": 40}));
    assert_eq!(mine["previous"], Value::Null);
    let (rows, pages) = all_pages(&one, "/dead-letters/?page_size=11");
    let places: BTreeSet<&str> = rows
        .iter()
        .map(|row| row["place"].as_str().unwrap())
        .collect();
    assert_eq!((rows.len(), places.len(), pages), (40, 40, 4));
    let second = one
        .get(&format!(
            "/dead-letters/?page_size=2&cursor={}",
            mine["next"].as_str().unwrap()
        ))
        .expect(200);
    let back = format!(
        "/dead-letters/?page_size=2&cursor={}",
        second["previous"].as_str().unwrap()
    );
    assert_eq!(one.get(&back).expect(200)["results"], mine["results"]);
    // A cursor is its tenant's.
    two.get(&back).problem(400);
    one.get("/dead-letters/?reason=tired").problem(400);

    let dry = one.post("/replays/", &json!({"dry_run": true})).expect(200);
    assert_eq!(dry["replay"], Value::Null);
    assert_eq!(dry["counts"]["total"], 40);
    assert_eq!(dry["counts"]["by_webhook"], json!({"wh_one": 40}));
    assert_eq!(dry["counts"]["by_status"], json!({"500": 40}));
    assert_eq!(dry["counts"]["by_event_type"], json!({"job.failed": 40}));
    // Two where midnight comes between.
    let days = dry["counts"]["by_day"].as_object().unwrap();
    assert_eq!(
        days.values()
            .map(|count| count.as_u64().unwrap())
            .sum::<u64>(),
        40
    );
    assert!(
        days.keys()
            .all(|day| day.parse::<jiff::civil::Date>().is_ok()),
        "{dry}"
    );
    for path in ["/webhooks/tags/", "/event-types/", "/webhooks/wh_one/"] {
        let problem = one.get(&format!("{path}?page_size=2")).problem(400);
        assert_eq!(problem["errors"][0]["parameter"], "page_size", "{path}");
    }

    // Put aside, taken back, for a reason.
    one.post("/dead-letters/discard/", &json!({"limit": 2}))
        .problem(400);
    let blank = json!({"limit": 2, "reason_text": "  "});
    one.post("/dead-letters/discard/", &blank).problem(400);
    let body = json!({"limit": 2, "reason_text": "not wanted"});
    let discard = one.post("/dead-letters/discard/", &body).expect(202);
    let discard = discard["replay"]["id"].as_str().unwrap();
    assert_eq!(one.get("/dead-letters/").expect(200)["total"], 38);
    assert_eq!(
        one.get("/dead-letters/?fate=discarded").expect(200)["total"],
        2
    );
    two.get(&format!("/replays/{discard}/")).problem(404);
    two.post(&format!("/replays/{discard}/undo/"), &json!({}))
        .problem(404);
    one.post(&format!("/replays/{discard}/pause/"), &json!({}))
        .problem(409);
    let undone = one
        .post(&format!("/replays/{discard}/undo/"), &json!({}))
        .expect(202);
    assert_eq!(undone["state"], "undone");
    one.post(&format!("/replays/{discard}/undo/"), &json!({}))
        .problem(409);
    assert_eq!(one.get("/dead-letters/").expect(200)["total"], 40);

    // A slow replay of one tenant is not in another's way, and obeys.
    is_mended.store(true, Ordering::Release);
    one.post("/replays/", &json!({"to": "https://elsewhere.example/"}))
        .problem(403);
    Client::of(&router, "prt_one")
        .post("/replays/", &json!({"to": "http://10.0.0.5/"}))
        .problem(400);
    let missed = |webhook: &str, since: &str| json!({"never_delivered": true, "webhook": webhook, "since": since, "until": "2021-01-01T00:00:00Z"});
    // Another tenant's webhook is as one that is not there.
    for (wrong, pointer) in [
        (missed("wh_two", "2020-01-01T00:00:00Z"), "/webhook"),
        (missed("wh_one", "2021-01-02T00:00:00Z"), "/until"),
        (
            json!({"never_delivered": true, "webhook": "wh_one"}),
            "/since",
        ),
    ] {
        let problem = one.post("/replays/", &wrong).problem(400);
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
    }
    let none = one.post("/replays/", &missed("wh_one", "2020-01-01T00:00:00Z"));
    assert_eq!(none.expect(200)["counts"]["total"], 0);
    let slow = one.post("/replays/", &json!({"rate": 1})).expect(202);
    let slow = slow["replay"]["id"].as_str().unwrap();
    let busy = one.post("/replays/", &json!({})).problem(409);
    assert!(busy["detail"].as_str().unwrap().contains(slow), "{busy}");
    let busy = root
        .post("/replays/", &json!({"webhook": "wh_one"}))
        .problem(409);
    assert!(busy["detail"].as_str().unwrap().contains(slow));
    let other = two
        .post("/replays/", &json!({"webhook": "wh_two"}))
        .expect(202);
    wait_for_state(&two, other["replay"]["id"].as_str().unwrap(), "finished");
    assert_eq!(two.get("/dead-letters/").expect(200)["total"], 0);
    for word in ["pause", "resume", "cancel"] {
        two.post(&format!("/replays/{slow}/{word}/"), &json!({}))
            .problem(404);
    }
    one.post(&format!("/replays/{slow}/pause/"), &json!({}))
        .expect(202);
    wait_for_state(&one, slow, "stopped");
    one.post(&format!("/replays/{slow}/resume"), &json!({}))
        .expect(202);
    wait_for_state(&one, slow, "running");
    one.post(&format!("/replays/{slow}/cancel/"), &json!({}))
        .expect(202);
    let cancelled = wait_for_state(&one, slow, "cancelled");
    let done = cancelled["done"].as_u64().unwrap();
    assert!(done < 40, "{cancelled}");
    wait_for_total(&one, "/dead-letters/", 40 - done);
    one.post(&format!("/replays/{slow}/resume/"), &json!({}))
        .problem(409);

    // One delivery by its id, without a history.
    let left = one.get("/dead-letters/").expect(200);
    let id = left["results"][0]["delivery_id"].as_str().unwrap();
    two.post(&format!("/webhook-deliveries/{id}/retry/"), &json!({}))
        .problem(404);
    one.post(&format!("/webhook-deliveries/{id}/retry/"), &json!({}))
        .expect(202);
    wait_for_total(&one, "/dead-letters/", 39 - done);
    one.post(&format!("/webhook-deliveries/{id}/retry/"), &json!({}))
        .problem(409);

    let jobs = one.get("/replays/").expect(200);
    let ids: BTreeSet<&str> = jobs["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|job| job["id"].as_str().unwrap())
        .collect();
    assert_eq!(ids.len(), 3);
    assert!(ids.contains(discard) && ids.contains(slow));
    assert!(!jobs.to_string().contains("wh_two"));
}

#[test]
fn what_died_too_often_is_left_and_counted() {
    let cluster = Cluster::named("api-loop");
    let mut router = start(&cluster, MORE);
    router.leaves_work();
    let (receiver, _) = broken();
    let fields = json!({"customer": 1, "max_retries": 0, "event_types": ["job.*"]});
    router.subscribe("wh_one", &receiver.url("/bad"), fields);
    emit(&router, 1, 1);
    let one = Client::of(&router, "prt_one");
    for died in 1..=3 {
        router.wait_for_dead_letters(died);
        wait_for_total(&one, "/dead-letters/", 1);
        let found = one.post("/replays/", &json!({"max_replays": 2}));
        if died < 3 {
            let id = found.expect(202)["replay"]["id"].clone();
            wait_for_state(&one, id.as_str().unwrap(), "finished");
        } else {
            let counts = found.expect(200)["counts"].clone();
            assert_eq!(
                (&counts["total"], &counts["replayed_too_often"]),
                (&json!(0), &json!(1))
            );
        }
    }
    let letter = one.get("/dead-letters/").expect(200)["results"][0].clone();
    assert_eq!(letter["replays"], 2);
    // Whoever asks for this one gets it.
    let path = format!(
        "/webhook-deliveries/{}/retry/",
        letter["delivery_id"].as_str().unwrap()
    );
    one.post(&path, &json!({})).expect(202);
    router.wait_for_dead_letters(4);
}

#[test]
fn the_letters_of_other_programs_go_to_a_webhook_or_a_source_topic_by_those_who_may() {
    let cluster = Cluster::named("api-foreign");
    let mut router = start(&cluster, MORE);
    router.leaves_work();
    let receiver = Receiver::accepting();
    // It wants none of them by itself.
    let fields = json!({"customer": 1, "event_types": ["device.*"]});
    router.subscribe("wh_a", &receiver.url("/a"), fields);
    let letters = cluster.create_topic("connect-dlq", 1, &[]);
    for body in [
        r#"{"event_type":"job.failed", "customer":1}"#,
        r#"{"event_type":"device.up","customer":2}"#,
        "avro",
    ] {
        let connect = Sent::new(body).header("__connect.errors.exception.message", "no");
        cluster.produce(&letters, &connect);
    }
    let root = Client::of(&router, ROOT);
    let list = format!("/dead-letters/?topic={letters}");
    let found = root.get(&list).expect(200);
    assert_eq!(
        (&found["total"], &found["by_reason"]["foreign"]),
        (&3.into(), &3.into())
    );
    assert_eq!(found["results"][0]["error_message"], "no");
    Client::of(&router, "prt_one").get(&list).expect(403);
    root.get("/dead-letters/?topic=nowhere").expect(400);

    let order = |more: Value| {
        let mut body = json!({"topic": letters});
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    };
    let to_webhook = order(json!({"to_webhook": "wh_a", "dry_run": true}));
    for token in ["prt_one", "prt_operator", "prt_one-operator"] {
        let refused = Client::of(&router, token).post("/replays/", &to_webhook);
        assert_eq!(refused.status, 403, "{token}: {refused:?}");
    }
    let source = cluster.name("events.job");
    let ours = cluster.name("postrider.dispatch");
    for (more, place) in [
        (json!({"to_webhook": "wh_none"}), "/to_webhook"),
        (json!({"to_webhook": "wh_a", "into": source}), "/to_webhook"),
        (json!({"into": "nowhere"}), "/into"),
        (json!({"into": ours}), "/into"),
        (json!({"into": letters}), "/into"),
        (json!({"topic": "nowhere"}), "/topic"),
        (json!({"to_webhook": 5}), "/to_webhook"),
    ] {
        let refused = root.post("/replays/", &order(more)).problem(400);
        assert_eq!(refused["errors"][0]["pointer"], place, "{refused}");
    }
    let dry = root.post("/replays/", &to_webhook).expect(200);
    assert_eq!(dry["counts"]["total"], 1, "{dry}");
    assert_eq!(dry["counts"]["left"].as_array().unwrap().len(), 2, "{dry}");

    let begun = root.post("/replays/", &order(json!({"to_webhook": "wh_a"})));
    let begun = begun.expect(202)["replay"].clone();
    let id = begun["id"].as_str().unwrap();
    let done = wait_for_state(&root, id, "finished");
    assert_eq!(
        (&done["done"], &done["to_webhook"]),
        (&1.into(), &"wh_a".into())
    );
    assert_eq!(done["topic"], letters);
    let arrived = receiver.wait_for_accepted(1, SOON).remove(0);
    assert_eq!(arrived.body, r#"{"event_type":"job.failed", "customer":1}"#);

    // Into a source topic they are events like any other.
    let all = json!({"customer": null, "event_types": ["device.*"]});
    router.subscribe("wh_all", &receiver.url("/all"), all);
    let begun = root.post("/replays/", &order(json!({"into": source, "again": true})));
    let begun = begun.expect(202)["replay"].clone();
    wait_for_state(&root, begun["id"].as_str().unwrap(), "finished");
    let arrived = receiver.wait_for_accepted(2, SOON).pop().unwrap();
    assert_eq!(arrived.path, "/all");
}
