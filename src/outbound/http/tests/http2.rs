//! Receivers that speak HTTP/2 as nobody should, frame by frame. A client that offers `h2` in the handshake has one
//! connection for all requests to a host, so what one stream suffers must not be what all suffer for ever.

use tokio_rustls::server::TlsStream;

use super::certificates::{Authority, HOST, url_of};
use super::*;

const TIMEOUT: Duration = Duration::from_millis(1500);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:status: 200`, from the static table of HPACK.
const STATUS_200: &[u8] = &[0x88];
/// `:status: 103`, spelt out.
const STATUS_103: &[u8] = b"\x08\x03103";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

fn reset(stream: u32, reason: u8) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &[0, 0, 0, reason])
}

fn goaway(last: u32, reason: u8) -> Vec<u8> {
    let mut payload = last.to_be_bytes().to_vec();
    payload.extend([0, 0, 0, reason]);
    frame(GOAWAY, 0, 0, &payload)
}

struct Session(TlsStream<TcpStream>);

impl Session {
    /// What a server says first.
    async fn open(mut stream: TlsStream<TcpStream>, settings: &[u8]) -> Option<Self> {
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.ok()?;
        assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let mut session = Self(stream);
        let first = frame(SETTINGS, 0, 0, settings);
        session.write(&first).await.then_some(session)
    }

    async fn write(&mut self, bytes: &[u8]) -> bool {
        self.0.write_all(bytes).await.is_ok() && self.0.flush().await.is_ok()
    }

    /// The stream of the next request, once its head is there; all of it where `whole`.
    async fn request(&mut self, whole: bool) -> Option<u32> {
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).await.ok()?;
            let [a, b, c, kind, flags, stream @ ..] = head;
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            self.0.read_exact(&mut vec![0; length]).await.ok()?;
            match kind {
                SETTINGS if flags & ACK == 0 => {
                    self.write(&frame(SETTINGS, ACK, 0, &[])).await;
                }
                HEADERS if !whole => return Some(u32::from_be_bytes(stream)),
                HEADERS | DATA if flags & END_STREAM != 0 => {
                    return Some(u32::from_be_bytes(stream));
                }
                _ => {}
            }
        }
    }
}

/// What it does once it has a request on a stream: sends something, sends something again and again, and whether it
/// closes then.
struct Hostile {
    name: &'static str,
    once: fn(u32) -> Vec<u8>,
    again: Option<fn(u32) -> Vec<u8>>,
    closes: bool,
    outcome: Outcome,
}

fn nothing(_: u32) -> Vec<u8> {
    Vec::new()
}

fn all() -> Vec<Hostile> {
    use Outcome::{Protocol, Success, Timeout};
    let once = |name, once, closes, outcome| Hostile {
        name,
        once,
        again: None,
        closes,
        outcome,
    };
    let flood = |name, first, again, outcome| Hostile {
        name,
        once: first,
        again: Some(again),
        closes: false,
        outcome,
    };
    vec![
        once(
            "an answer",
            |id| frame(HEADERS, END_HEADERS | END_STREAM, id, STATUS_200),
            false,
            Success,
        ),
        once("silence", nothing, false, Timeout),
        once("an end without a word", nothing, true, Protocol),
        once("GOAWAY before an answer", |_| goaway(0, 0), true, Protocol),
        once(
            "GOAWAY before an answer, and no end",
            |_| goaway(0, 0),
            false,
            Protocol,
        ),
        once(
            "GOAWAY that lets the stream go on, and no answer",
            |id| goaway(id, 0),
            false,
            Timeout,
        ),
        once(
            "GOAWAY in the middle of a body",
            |id| {
                let mut bytes = frame(HEADERS, END_HEADERS, id, STATUS_200);
                bytes.extend(frame(DATA, 0, id, b"begun"));
                bytes.extend(goaway(id, 11));
                bytes
            },
            true,
            Success,
        ),
        once("a refused stream", |id| reset(id, 7), false, Protocol),
        once("a cancelled stream", |id| reset(id, 8), false, Protocol),
        once(
            "a reset in the middle of a body",
            |id| {
                let mut bytes = frame(HEADERS, END_HEADERS, id, STATUS_200);
                bytes.extend(frame(DATA, 0, id, b"begun"));
                bytes.extend(reset(id, 2));
                bytes
            },
            false,
            Success,
        ),
        once(
            "HTTP/1.1 after all",
            |_| b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_vec(),
            false,
            Protocol,
        ),
        once(
            "a promise that nobody asked for",
            |id| {
                let mut payload = 2_u32.to_be_bytes().to_vec();
                payload.extend(b"\x82\x86\x84\x01\x01a");
                frame(PUSH_PROMISE, END_HEADERS, id, &payload)
            },
            false,
            Protocol,
        ),
        once(
            "a window that overflows",
            |_| frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
            false,
            Protocol,
        ),
        once(
            "a head of 1 MB",
            |id| {
                // A literal of 16,000 bytes, again and again.
                let mut field = b"\x00\x01a\x7f\x81\x7c".to_vec();
                field.extend(vec![b'x'; 16_000]);
                let mut bytes = frame(HEADERS, 0, id, STATUS_200);
                for _ in 0..64 {
                    bytes.extend(frame(CONTINUATION, 0, id, &field));
                }
                bytes.extend(frame(CONTINUATION, END_HEADERS, id, &[]));
                bytes
            },
            false,
            Protocol,
        ),
        flood(
            "endless CONTINUATION",
            |id| frame(HEADERS, 0, id, STATUS_200),
            |id| frame(CONTINUATION, 0, id, &[]),
            Protocol,
        ),
        flood("endless resets", nothing, |id| reset(id, 8), Protocol),
        flood(
            "endless resets of streams that never were",
            nothing,
            |id| reset(id + 2, 8),
            Protocol,
        ),
        flood(
            "endless SETTINGS",
            nothing,
            |_| frame(SETTINGS, 0, 0, &[]),
            Timeout,
        ),
        flood(
            "endless PING",
            nothing,
            |_| frame(PING, 0, 0, b"12345678"),
            Timeout,
        ),
        flood(
            "endless 1xx",
            nothing,
            |id| frame(HEADERS, END_HEADERS, id, STATUS_103),
            Timeout,
        ),
        flood(
            "endless empty DATA",
            |id| frame(HEADERS, END_HEADERS, id, STATUS_200),
            |id| frame(DATA, 0, id, &[]),
            Success,
        ),
        flood(
            "an endless body",
            |id| frame(HEADERS, END_HEADERS, id, STATUS_200),
            |id| frame(DATA, 0, id, &[b'x'; 16_384]),
            Success,
        ),
    ]
}

/// Serves one connection; the answer to a request is what `hostile` does. The count is of requests.
async fn serve(stream: TlsStream<TcpStream>, hostile: &Hostile, requests: &AtomicUsize) {
    let Some(mut session) = Session::open(stream, &[]).await else {
        return;
    };
    while let Some(id) = session.request(true).await {
        requests.fetch_add(1, Ordering::SeqCst);
        if !session.write(&(hostile.once)(id)).await {
            return;
        }
        if hostile.closes {
            let _ = session.0.shutdown().await;
            return;
        }
        if let Some(again) = hostile.again {
            let many = again(id).repeat(100);
            while session.write(&many).await {
                tokio::task::yield_now().await;
            }
            return;
        }
    }
}

#[tokio::test]
async fn every_hostile_receiver_of_http2_has_its_outcome_in_time_and_harms_nobody() {
    let authority = Authority::new("authority");
    let client = authority.client(Duration::from_secs(5));
    let good = Receiver::replying(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let mut wrong = Vec::new();
    for hostile in all() {
        let (name, outcome) = (hostile.name, hostile.outcome);
        let is_flood = hostile.again.is_some();
        let requests = Arc::new(AtomicUsize::new(0));
        let (hostile, counter) = (Arc::new(hostile), Arc::clone(&requests));
        let receiver = authority
            .identity(HOST, 2020, 2120)
            .receiver("h2", move |session| {
                let (hostile, counter) = (Arc::clone(&hostile), Arc::clone(&counter));
                Box::pin(async move { serve(session, &hostile, &counter).await })
            })
            .await;
        for number in 1..=2 {
            let sent = attempt(&client, &url_of(&receiver), TIMEOUT).await;
            // A second request on a connection that is being flooded is not read by this receiver.
            let reached = sent.verdict(0).outcome;
            let is_lost = number == 2 && is_flood && reached == Outcome::Timeout;
            if reached != outcome && !is_lost {
                wrong.push(format!("{name}, {number}: expected {outcome:?}: {sent:?}"));
            }
            // One attempt is one request, whatever the client thinks of a second.
            let seen = requests.load(Ordering::SeqCst);
            if seen > number {
                wrong.push(format!("{name}: {seen} requests in {number} attempts"));
            }
        }
        // What goes on, goes on beside it.
        let after = attempt(&client, &good.url(), Duration::from_secs(10)).await;
        assert_eq!(after.status, Some(200), "after {name}: {after:?}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn a_receiver_that_never_opens_its_window_is_given_up_at_the_deadline() {
    let authority = Authority::new("authority");
    let client = authority.client(Duration::from_secs(5));
    let receiver = authority
        .identity(HOST, 2020, 2120)
        .receiver("h2", |stream| {
            Box::pin(async move {
                // SETTINGS_INITIAL_WINDOW_SIZE = 0
                let Some(mut session) = Session::open(stream, &[0, 4, 0, 0, 0, 0]).await else {
                    return;
                };
                while session.request(false).await.is_some() {}
            })
        })
        .await;
    // A large body, so that it cannot have gone out before the settings were read.
    let sent = client
        .send(
            &endpoint(&url_of(&receiver), TIMEOUT),
            HeaderMap::new(),
            vec![b'x'; 1 << 20].into(),
        )
        .await;
    failed(&sent, FailureKind::Timeout);
}

#[tokio::test]
async fn http2_from_a_receiver_that_was_asked_in_http1_is_a_protocol_failure() {
    let receiver = Receiver::new(async |mut stream| {
        let _ = read_request(&mut stream).await;
        let _ = stream.write_all(&frame(SETTINGS, 0, 0, &[])).await;
        let _ = stream.write_all(&goaway(0, 1)).await;
        sleep(Duration::from_secs(60)).await;
    })
    .await;
    let sent = attempt(&client(), &receiver.url(), TIMEOUT).await;
    failed(&sent, FailureKind::Protocol);
}
