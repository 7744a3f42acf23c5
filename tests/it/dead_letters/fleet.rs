//! A replay that the routers work on outlives any of them, and obeys.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::{Ground, MORE, SOON, stderr};
use crate::harness::{Cluster, Process, config_text, eventually};

const LETTERS: usize = 120;
const EVENTS: usize = LETTERS;

/// Dead letters, a replay of them by the routers, and its id.
fn begin(ground: &Ground, rate: &str) -> String {
    ground.emit("job.failed", EVENTS);
    ground.wait_for_letters(LETTERS);
    ground.mend();
    let job = ground.json(&["replay", "--yes", "--detach", "--rate", rate]);
    assert_eq!(
        (&job["runner"], &job["total"]),
        (&json!("fleet"), &json!(LETTERS))
    );
    job["id"].as_str().unwrap().to_owned()
}

fn wait_for_state(ground: &Ground, id: &str, state: &str) -> serde_json::Value {
    eventually(&format!("{id} to be {state}"), SOON * 2, || {
        let job = ground.replays(&["show", id]);
        (job["state"] == state).then_some(job)
    })
}

#[test]
fn a_detached_replay_is_done_by_the_routers_and_sends_each_letter_once() {
    let cluster = Cluster::named("fleet-replay");
    let ground = Ground::start(&cluster);
    let id = begin(&ground, "40");
    let busy = ground.output(&["replay", "--yes"]);
    assert!(stderr(&busy).contains("is at work"), "{}", stderr(&busy));
    let job = wait_for_state(&ground, &id, "finished");
    assert_eq!(job["done"], LETTERS);
    ground.receiver.wait_for_accepted(LETTERS, SOON);
    ground.wait_until_idle();
    assert!(ground.accepted().values().all(|count| *count == 1));
    assert_eq!(ground.list(&[])["total"], 0);
    let late = ground.fails(&["pause", &id]);
    assert!(late.contains("is finished"), "{late}");
    let unknown = ground.fails(&["cancel", "rp_none"]);
    assert!(unknown.contains("there is no job rp_none"), "{unknown}");
}

#[test]
fn a_detached_replay_pauses_resumes_and_is_cancelled_when_told() {
    let cluster = Cluster::named("fleet-wishes");
    let ground = Ground::start(&cluster);
    let id = begin(&ground, "12");
    ground.receiver.wait_for_accepted(20, SOON);
    ground.replays(&["pause", &id]);
    wait_for_state(&ground, &id, "stopped");
    ground.wait_until_idle();
    let sent = ground.accepted().len();
    assert!((20..LETTERS).contains(&sent), "{sent}");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(
        ground.accepted().len(),
        sent,
        "a paused replay sends nothing"
    );

    ground.replays(&["resume", &id]);
    ground.receiver.wait_for_accepted(sent + 10, SOON);
    ground.replays(&["cancel", &id]);
    let job = wait_for_state(&ground, &id, "cancelled");
    ground.wait_until_idle();
    let sent = ground.accepted();
    assert_eq!(job["done"], sent.len());
    assert!(sent.values().all(|count| *count == 1), "{sent:?}");
    assert_eq!(ground.list(&[])["total"], LETTERS - sent.len());
    let late = ground.fails(&["resume", &id]);
    assert!(late.contains("was cancelled"), "{late}");
}

#[test]
fn a_detached_replay_goes_on_elsewhere_when_its_router_is_killed() {
    let cluster = Cluster::named("fleet-kill");
    let mut ground = Ground::start(&cluster);
    ground.emit("job.failed", EVENTS);
    ground.wait_for_letters(LETTERS);
    ground.mend();
    // From here on only processes, so that one can be killed.
    let text = config_text(&cluster, &["events.job"], MORE);
    ground.router.stop_instance();
    let mut routers = vec![Process::start(&text), Process::start(&text)];
    let job = ground.json(&["replay", "--yes", "--detach", "--rate", "20"]);
    let id = job["id"].as_str().unwrap().to_owned();
    ground.receiver.wait_for_accepted(40, SOON);
    let taken_up = |router: &Process| router.log().contains("a replay is taken up");
    let owner = routers.iter().position(taken_up).unwrap();
    routers.remove(owner).kill();
    let job = wait_for_state(&ground, &id, "finished");
    eventually("every letter to arrive", SOON, || {
        (ground.accepted().len() == LETTERS).then_some(())
    });
    // A delivery that was under way at the kill is attempted again as well: what the replay itself sent stands in dispatch.
    let mut sent: BTreeMap<String, usize> = BTreeMap::new();
    for record in cluster.consume_all(&cluster.name("postrider.dispatch")) {
        if record.header("postrider-replay-id") == Some(&id) {
            let delivery = record.header("postrider-delivery-id").unwrap();
            *sent.entry(delivery.to_owned()).or_default() += 1;
        }
    }
    assert_eq!(sent.len(), LETTERS);
    assert!(sent.values().all(|count| *count == 1), "{sent:?}");
    assert_eq!(
        job["resumptions"].as_array().map(Vec::len),
        Some(1),
        "{job}"
    );
    assert_eq!(ground.list(&[])["total"], 0);
}
