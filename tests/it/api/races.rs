//! Two instances write one webhook: none overwrites the other silently.

use std::sync::Barrier;
use std::time::Duration;

use postrider::app::Stages;
use serde_json::{Value, json};

use super::{Client, ROOT, start};
use crate::harness::{Cluster, eventually};

fn webhook(id: &str) -> Value {
    json!({"id": id, "name": id, "url": "https://example.com/in", "event_types": ["*"], "customer": 1})
}

#[test]
fn of_writers_with_one_etag_one_wins_and_the_others_change_nothing() {
    let cluster = Cluster::named("api-races");
    let mut router = start(&cluster, "");
    router.add_instance(Stages::ALL);
    let addresses: Vec<_> = router.apps().iter().map(|app| app.api().unwrap()).collect();
    Client::at(addresses[0], ROOT)
        .post("/webhooks/", &webhook("wh_a"))
        .expect(201);
    let mut lost = 0;
    for round in 0..10 {
        let etag = eventually(
            "both instances to know the same version",
            Duration::from_secs(5),
            || {
                let tags: Vec<String> = addresses
                    .iter()
                    .map(|address| {
                        Client::at(*address, ROOT)
                            .get("/webhooks/wh_a/")
                            .header("etag")
                            .to_owned()
                    })
                    .collect();
                (tags[0] == tags[1]).then(|| tags[0].clone())
            },
        );
        let start = Barrier::new(2);
        let answers: Vec<(u16, String)> = std::thread::scope(|scope| {
            let writers: Vec<_> = addresses
                .iter()
                .enumerate()
                .map(|(writer, address)| {
                    let (start, etag) = (&start, &etag);
                    scope.spawn(move || {
                        let client = Client::at(*address, ROOT);
                        let name = format!("round {round} writer {writer}");
                        let body = json!({"name": name});
                        start.wait();
                        let answer =
                            client.with("PATCH", "/webhooks/wh_a/", &[("if-match", etag)], &body);
                        (answer.status, name)
                    })
                })
                .collect();
            writers
                .into_iter()
                .map(|writer| writer.join().unwrap())
                .collect()
        });
        let mut statuses: Vec<u16> = answers.iter().map(|(status, _)| *status).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 412], "round {round}");
        lost += 1;
        let winner = &answers.iter().find(|(status, _)| *status == 200).unwrap().1;
        for address in &addresses {
            eventually(
                "the winner's change to stand everywhere",
                Duration::from_secs(5),
                || {
                    (Client::at(*address, ROOT).get("/webhooks/wh_a/").json()["name"] == **winner)
                        .then_some(())
                },
            );
        }
        // And to stay: what the loser wrote was put back before it was told so.
        let stored = router.catalog().read().unwrap();
        assert_eq!(&stored["wh_a"].name, winner);
    }
    assert_eq!(lost, 10);
}

#[test]
fn changes_of_different_fields_at_one_time_are_both_kept() {
    let cluster = Cluster::named("api-merges");
    let mut router = start(&cluster, "");
    router.add_instance(Stages::ALL);
    let addresses: Vec<_> = router.apps().iter().map(|app| app.api().unwrap()).collect();
    Client::at(addresses[0], ROOT)
        .post("/webhooks/", &webhook("wh_a"))
        .expect(201);
    router.wait_for_webhook("wh_a", |version| version == Some(1));
    for round in 0..10 {
        let name = format!("round {round}");
        let bodies = [json!({"name": name}), json!({"description": name})];
        let start = Barrier::new(2);
        std::thread::scope(|scope| {
            for (address, body) in addresses.iter().zip(&bodies) {
                let start = &start;
                scope.spawn(move || {
                    let client = Client::at(*address, ROOT);
                    start.wait();
                    client.patch("/webhooks/wh_a/", body).expect(200);
                });
            }
        });
        let stored = router.catalog().read().unwrap().remove("wh_a").unwrap();
        assert_eq!(
            (&stored.name, &stored.description),
            (&name, &name),
            "round {round}"
        );
    }
}

#[test]
fn a_stale_etag_is_refused_and_a_fresh_one_is_not() {
    let cluster = Cluster::named("api-etags");
    let router = start(&cluster, "");
    let client = Client::of(&router, ROOT);
    client.post("/webhooks/", &webhook("wh_a")).expect(201);
    let with = |method: &str, path: &str, tag: &str| {
        client.with(
            method,
            &format!("/webhooks/wh_a/{path}"),
            &[("if-match", tag)],
            &json!({"name": "n", "url": "https://example.com/in", "event_types": ["*"]}),
        )
    };
    assert_eq!(with("PATCH", "", "\"1\"").header("etag"), "\"2\"");
    for tag in ["\"1\"", "W/\"2\"", "2", "\"9\", \"1\""] {
        let stale = with("PATCH", "", tag);
        stale.problem(412);
        assert_eq!(stale.header("etag"), "\"2\"");
        with("PUT", "", tag).problem(412);
        with("DELETE", "", tag).problem(412);
        client
            .send("POST", "/webhooks/wh_a/pause/", &[("if-match", tag)], None)
            .problem(412);
    }
    with("PUT", "", "\"9\", \"2\"").expect(200);
    assert_eq!(with("DELETE", "", "*").status, 204);
}
