//! One router, a dozen receivers that do what none should, and a good one beside them: each bad one ends as it should, in its dead
//! letters or delivered, and the good one never notices (promises 1 and 4).

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{
    Cluster, RawReceiver, Receiver, Router, assert_all_arrived, delivery_ids, eventually, raw,
    read_request,
};

/// How long a good event may take. It takes milliseconds; this is for a machine that does much else.
const PROMPT: Duration = Duration::from_secs(15);
const PATIENCE: Duration = Duration::from_secs(60);
const BATCHES: usize = 5;
const BATCH: usize = 2;

struct Hostile {
    webhook: &'static str,
    url: String,
    /// Of each of its attempts.
    outcome: &'static str,
    /// The reason of each dead letter, or none where all is delivered.
    reason: Option<&'static str>,
    /// Kept: dropping it closes its port.
    _receiver: Option<RawReceiver>,
}

/// Writes until the other end closes.
fn endlessly(stream: &mut TcpStream, piece: &[u8], pause: Duration) {
    while stream.write_all(piece).is_ok() {
        std::thread::sleep(pause);
    }
}

fn hostile(
    webhook: &'static str,
    outcome: &'static str,
    reason: Option<&'static str>,
    behave: impl Fn(&mut TcpStream) + Send + Sync + 'static,
) -> Hostile {
    let receiver = raw(move |mut stream| {
        if !read_request(&mut stream).is_empty() {
            behave(&mut stream);
        }
    });
    Hostile {
        webhook,
        url: receiver.url("/"),
        outcome,
        reason,
        _receiver: Some(receiver),
    }
}

fn nowhere(
    webhook: &'static str,
    url: &str,
    outcome: &'static str,
    reason: &'static str,
) -> Hostile {
    Hostile {
        webhook,
        url: url.to_owned(),
        outcome,
        reason: Some(reason),
        _receiver: None,
    }
}

fn all() -> Vec<Hostile> {
    let spent = Some("exhausted");
    let says = |webhook, outcome, reason, answer: Vec<u8>| {
        hostile(webhook, outcome, reason, move |stream| {
            let _ = stream.write_all(&answer);
        })
    };
    let floods = |webhook, outcome, reason, head: &'static [u8], piece: Vec<u8>, pause| {
        hostile(webhook, outcome, reason, move |stream| {
            let _ = stream.write_all(head);
            endlessly(stream, &piece, Duration::from_millis(pause));
        })
    };
    let ok = b"HTTP/1.1 200 OK\r\n".as_slice();
    let body = b"HTTP/1.1 200 OK\r\n\r\n".as_slice();
    let gzip = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n".as_slice();
    let early = b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec();
    let header = [ok, b"a: ", &[b'b'; 1 << 20], b"\r\n\r\n"].concat();
    let inside =
        b"HTTP/1.1 307 Go\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let later =
        b"HTTP/1.1 503 Later\r\nretry-after: -1\r\nretry-after: soon\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let absent = b"HTTP/1.1 404 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    // Nobody asks there: the first bytes are the beginning of a handshake.
    let silent = raw(|stream| {
        std::thread::sleep(PROMPT);
        drop(stream);
    });
    let handshake = Hostile {
        webhook: "wh_handshake",
        url: silent.url("/").replace("http:", "https:"),
        outcome: "timeout",
        reason: spent,
        _receiver: Some(silent),
    };
    vec![
        floods("wh_slow_head", "timeout", spent, ok, b"x".to_vec(), 100),
        floods("wh_early", "timeout", spent, b"", early.repeat(1000), 0),
        floods(
            "wh_headers",
            "protocol",
            spent,
            ok,
            b"a: b\r\n".repeat(1000),
            0,
        ),
        floods("wh_body", "success", None, body, vec![b'x'; 65_536], 0),
        floods("wh_bomb", "success", None, gzip, vec![0; 65_536], 0),
        floods("wh_slow_body", "success", None, body, b"x".to_vec(), 100),
        says("wh_header", "protocol", spent, header),
        says(
            "wh_banner",
            "protocol",
            spent,
            b"SSH-2.0-OpenSSH_9.6\r\n".to_vec(),
        ),
        says("wh_closes", "protocol", spent, Vec::new()),
        says("wh_inside", "redirect", spent, inside.to_vec()),
        says("wh_later", "server_error", spent, later.to_vec()),
        says(
            "wh_absent",
            "client_error",
            Some("rejected"),
            absent.to_vec(),
        ),
        handshake,
        nowhere(
            "wh_blocked",
            "http://10.0.0.1/",
            "blocked",
            "blocked_address",
        ),
        nowhere("wh_nowhere", "http://nowhere.invalid/", "dns", "exhausted"),
    ]
}

#[test]
fn hostile_receivers_end_as_they_should_and_a_good_one_beside_them_never_notices() {
    let cluster = Cluster::named("hostile");
    let good = Receiver::accepting();
    // All on one thread, and no breaker that would spare anybody anything.
    let more = "outbound.shards = 1\noutbound.breaker_failures = 100000\n";
    let router = Router::start(&cluster, &["events.job"], more);
    let hostile = all();
    for Hostile { webhook, url, .. } in &hostile {
        let fields = json!({"max_retries": 1, "retry_backoff": 1, "timeout_seconds": 0.5, "max_concurrency": 4});
        router.subscribe(webhook, url, fields);
    }
    router.subscribe("wh_good", &good.url("/"), json!({}));

    let mut events = Vec::new();
    for batch in 0..BATCHES {
        events.extend(router.produce("events.job", batch * BATCH..(batch + 1) * BATCH));
        good.wait_for_accepted(events.len(), PROMPT);
    }
    let ids = delivery_ids(&events, "wh_good");
    assert_eq!(assert_all_arrived(&good.accepted(), &ids), 0, "copies");

    let lost = hostile.iter().filter(|each| each.reason.is_some()).count();
    eventually("the dead letters", PATIENCE, || {
        (router.dead_letters().len() >= lost * events.len()).then_some(())
    });
    router.assert_every_delivery_has_one_ending();
    let letters = router.dead_letters();
    let trail = router.attempts();
    for each in &hostile {
        let reasons: Vec<_> = letters
            .iter()
            .filter(|letter| letter.header("postrider-webhook-id") == Some(each.webhook))
            .map(|letter| letter.header("postrider-reason").unwrap_or_default())
            .collect();
        let expected: Vec<&str> = each
            .reason
            .map_or(vec![], |reason| vec![reason; events.len()]);
        assert_eq!(reasons, expected, "{}", each.webhook);
        assert_eq!(
            outcomes(&trail, &delivery_ids(&events, each.webhook)),
            BTreeSet::from([each.outcome]),
            "{}",
            each.webhook
        );
    }
    // It still does what it is for.
    let late = router.produce("events.job", 1000..1001);
    good.wait_for_accepted(events.len() + late.len(), PROMPT);
    let after = lost * (events.len() + late.len());
    eventually("the last dead letters", PATIENCE, || {
        (router.dead_letters().len() >= after).then_some(())
    });
}

/// The outcomes of all attempts at these deliveries.
fn outcomes<'a>(trail: &'a [Value], ids: &[String]) -> BTreeSet<&'a str> {
    let by_delivery: BTreeMap<&str, Vec<&str>> =
        trail.iter().fold(BTreeMap::new(), |mut all, attempt| {
            let text = |name: &str| attempt[name].as_str().unwrap_or_default();
            all.entry(text("delivery_id"))
                .or_default()
                .push(text("outcome"));
            all
        });
    let all = ids.iter().filter_map(|id| by_delivery.get(id.as_str()));
    // A line without an outcome tells of a delivery that was put off, not of an attempt.
    all.flatten()
        .copied()
        .filter(|outcome| !outcome.is_empty())
        .collect()
}
