//! Hostile receivers, one after another through one client: each has its outcome, costs bounded time and bytes, and
//! leaves the client healthy. Byte-wise heads, resets, HTTP/0.9, redirects and TLS have their tests beside this file.

use std::cell::Cell;
use std::io::{Read, Write};

use super::*;

/// What a receiver may push into a connection before it is closed on it: mostly the socket buffers of the kernel.
const MOST_PUSHED: usize = 16 << 20;
const TIMEOUT: Duration = Duration::from_millis(700);

struct Hostile {
    name: &'static str,
    /// Sent once.
    head: String,
    /// Sent again and again until the connection is closed, with this pause between.
    again: Option<(Vec<u8>, Duration)>,
    outcome: Outcome,
}

fn hostile(
    name: &'static str,
    head: impl Into<String>,
    again: Option<(&[u8], u64)>,
    outcome: Outcome,
) -> Hostile {
    Hostile {
        name,
        head: head.into(),
        again: again.map(|(piece, pause)| (piece.to_vec(), Duration::from_millis(pause))),
        outcome,
    }
}

fn all() -> Vec<Hostile> {
    use Outcome::{Protocol, Success, Timeout};
    let ok = "HTTP/1.1 200 OK\r\n";
    let gzip = "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n\r\n";
    let headers = b"a: b\r\n".repeat(10_000);
    let early = b"HTTP/1.1 103 Early Hints\r\n\r\n".as_slice();
    vec![
        hostile("no headers", format!("{ok}\r\n"), None, Success),
        hostile("a slow head", ok, Some((b"x", 10_000)), Timeout),
        hostile(
            "a slow body",
            format!("{ok}\r\n"),
            Some((b"x", 10_000)),
            Success,
        ),
        hostile(
            "an endless body",
            format!("{ok}\r\n"),
            Some((&[b'x'; 65_536], 0)),
            Success,
        ),
        hostile("a gzip bomb", gzip, Some((&[0; 65_536], 0)), Success),
        hostile("endless 1xx, slow", "", Some((early, 20)), Timeout),
        hostile("endless 1xx", "", Some((early, 0)), Timeout),
        hostile(
            "100,000 headers",
            format!("{ok}{}\r\n", "a: b\r\n".repeat(100_000)),
            None,
            Protocol,
        ),
        hostile(
            "a header of 1 MB",
            format!("{ok}a: {}\r\n\r\n", "b".repeat(1 << 20)),
            None,
            Protocol,
        ),
        hostile(
            "endless headers",
            ok,
            Some((headers.as_slice(), 0)),
            Protocol,
        ),
        hostile(
            "a length too small",
            format!("{ok}content-length: 1\r\n\r\nabcdef"),
            None,
            Success,
        ),
        hostile(
            "a length too large",
            format!("{ok}content-length: 99\r\n\r\nabc"),
            None,
            Success,
        ),
        hostile(
            "two lengths",
            format!("{ok}content-length: 1\r\ncontent-length: 2\r\n\r\nab"),
            None,
            Protocol,
        ),
        hostile(
            "a negative length",
            format!("{ok}content-length: -1\r\n\r\nab"),
            None,
            Protocol,
        ),
    ]
}

#[tokio::test]
async fn every_hostile_receiver_has_its_outcome_in_bounded_time_and_bytes_and_harms_nobody() {
    let good = Receiver::replying(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let client = client();
    let mut wrong = Vec::new();
    for Hostile {
        name,
        head,
        again,
        outcome,
    } in all()
    {
        let pushed = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&pushed);
        let receiver = Receiver::new(move |mut stream| {
            let (head, again, counter) = (head.clone(), again.clone(), Arc::clone(&counter));
            async move {
                let request = read_request(&mut stream).await.unwrap_or_default();
                let request = String::from_utf8_lossy(&request).to_lowercase();
                // Whoever asks for compression gets bombs.
                assert!(!request.contains("accept-encoding"), "{request}");
                let _ = stream.write_all(head.as_bytes()).await;
                let Some((piece, pause)) = again else {
                    let _ = stream.shutdown().await;
                    return;
                };
                while stream.write_all(&piece).await.is_ok() {
                    counter.fetch_add(piece.len(), Ordering::SeqCst);
                    sleep(pause).await;
                }
            }
        })
        .await;
        let sent = attempt(&client, &receiver.url(), TIMEOUT).await;
        if sent.verdict(0).outcome != outcome {
            wrong.push(format!("{name}: expected {outcome:?}: {sent:?}"));
        }
        let after = attempt(&client, &good.url(), TIMEOUT).await;
        assert_eq!(after.status, Some(200), "after {name}: {after:?}");
        let bytes = pushed.load(Ordering::SeqCst);
        assert!(bytes < MOST_PUSHED, "{name}: {bytes} bytes were taken");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Sent from a thread of its own, as fast as the wire takes it. Counted in turns of the runtime, not in time: what is taken between two turns of
/// others is what they wait for.
#[tokio::test]
async fn endless_1xx_on_a_fast_line_let_others_have_their_turns_and_end_with_the_attempt() {
    /// Twice the read buffer of plain http.
    const MOST_A_TURN: usize = 128 << 10;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let pushed = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&pushed);
    let flood = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]);
        let many = b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1000);
        while stream.write_all(&many).is_ok() {
            counter.fetch_add(many.len(), Ordering::SeqCst);
        }
    });
    let client = client();
    let (turns, is_over) = (Cell::new(0), Cell::new(false));
    let others = async {
        while !is_over.get() {
            turns.set(turns.get() + 1);
            tokio::task::yield_now().await;
        }
    };
    let attempted = async {
        let sent = attempt(&client, &url, TIMEOUT).await;
        is_over.set(true);
        sent
    };
    let (sent, ()) = tokio::join!(attempted, others);
    failed(&sent, FailureKind::Timeout);
    // The connection is closed, which ends the flood.
    tokio::task::spawn_blocking(|| flood.join().unwrap())
        .await
        .unwrap();
    let (pushed, turns) = (pushed.load(Ordering::SeqCst), turns.get());
    assert!(
        pushed <= MOST_PUSHED + turns * MOST_A_TURN,
        "{pushed} bytes in {turns} turns"
    );
}
