//! The receivers of all webhooks: one small HTTP/1.1 server on loopback, because what it must do wrong (a reset, half a
//! body) no HTTP library does on purpose.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::events::{Event, HOOKS, Nature, mixed};
use super::oracle::{Hit, Oracle};

/// What is wrong with a receiver for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    None = 0,
    ServerError = 1,
    Hangs = 2,
    /// 200 at once, and a byte of the body now and then.
    SlowBody = 3,
    /// The connection is reset when the request has been read.
    Reset = 4,
    /// 429 with `Retry-After: 2`.
    RateLimited = 5,
}

impl Trouble {
    pub const ALL: [Self; 5] = [
        Self::ServerError,
        Self::Hangs,
        Self::SlowBody,
        Self::Reset,
        Self::RateLimited,
    ];

    fn of(number: u8) -> Self {
        Self::ALL
            .into_iter()
            .find(|trouble| *trouble as u8 == number)
            .unwrap_or(Self::None)
    }
}

struct Desk {
    seed: u64,
    began: Instant,
    /// When the receivers' thread last showed that it runs, and how late it was.
    ticked_ms: AtomicU32,
    tick_late_ms: AtomicU32,
    oracle: Arc<Mutex<Oracle>>,
    troubles: [AtomicU8; HOOKS.len()],
}

/// How often the receivers' thread shows that it runs.
const TICK: Duration = Duration::from_millis(20);

impl Desk {
    fn now_ms(&self) -> u32 {
        self.began.elapsed().as_millis() as u32
    }

    fn beyond_tick(&self, now_ms: u32) -> u32 {
        now_ms.saturating_sub(self.ticked_ms.load(SeqCst) + TICK.as_millis() as u32)
    }

    fn tick(&self) {
        let now_ms = self.now_ms();
        self.tick_late_ms.store(self.beyond_tick(now_ms), SeqCst);
        self.ticked_ms.store(now_ms, SeqCst);
    }

    /// How long what is read now may have waited for this thread: on a busy machine it is others' turn, or the oracle is busy.
    fn late_ms(&self, now_ms: u32) -> u16 {
        let late = self.tick_late_ms.load(SeqCst).max(self.beyond_tick(now_ms));
        late.try_into().unwrap_or(u16::MAX)
    }
}

/// The server, on a thread of its own; gone when dropped.
pub struct Receivers {
    address: SocketAddr,
    desk: Arc<Desk>,
    _runtime: tokio::runtime::Runtime,
}

/// The port range of loopback addresses that routers send from: 127.0.1.1 is the first.
pub fn address_of(instance: u8) -> String {
    format!("127.0.1.{}", instance.max(1))
}

impl Receivers {
    pub fn start(seed: u64, began: Instant, oracle: Arc<Mutex<Oracle>>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let desk = Arc::new(Desk {
            seed,
            began,
            ticked_ms: AtomicU32::new(0),
            tick_late_ms: AtomicU32::new(0),
            oracle,
            troubles: [const { AtomicU8::new(0) }; HOOKS.len()],
        });
        let ticking = desk.clone();
        runtime.spawn(async move {
            loop {
                tokio::time::sleep(TICK).await;
                ticking.tick();
            }
        });
        let served = desk.clone();
        runtime.spawn(async move {
            loop {
                if let Ok((stream, peer)) = listener.accept().await {
                    tokio::spawn(serve(stream, peer, served.clone()));
                }
            }
        });
        Self {
            address,
            desk,
            _runtime: runtime,
        }
    }

    pub fn url(&self, webhook: usize) -> String {
        format!("http://{}/w/{webhook}", self.address)
    }

    pub fn trouble(&self, webhook: usize, trouble: Trouble) {
        self.desk.troubles[webhook].store(trouble as u8, SeqCst);
    }

    /// All receivers as they should be.
    pub fn heal(&self) {
        (0..HOOKS.len()).for_each(|webhook| self.trouble(webhook, Trouble::None));
    }
}

/// A request as it was read.
struct Request {
    webhook: usize,
    attempt: u8,
    id: u32,
    event: Option<u32>,
    whole: bool,
    at_ms: u32,
    late_ms: u16,
}

async fn serve(stream: TcpStream, peer: SocketAddr, desk: Arc<Desk>) {
    let _ = stream.set_nodelay(true);
    let instance = match peer.ip() {
        IpAddr::V4(address) => address.octets()[3],
        IpAddr::V6(_) => 0,
    };
    let mut stream = BufReader::new(stream);
    while let Some(request) = read(&mut stream, &desk).await {
        if answer(&mut stream, &request, instance, &desk)
            .await
            .is_none()
        {
            return;
        }
    }
}

async fn read(stream: &mut BufReader<TcpStream>, desk: &Desk) -> Option<Request> {
    let mut line = String::new();
    stream
        .read_line(&mut line)
        .await
        .ok()
        .filter(|count| *count > 0)?;
    let path = line.split(' ').nth(1)?;
    let webhook: usize = path.strip_prefix("/w/")?.parse().ok()?;
    let (mut attempt, mut length, mut id) = (0, 0, 0);
    loop {
        line.clear();
        stream
            .read_line(&mut line)
            .await
            .ok()
            .filter(|count| *count > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "x-webhook-attempt" => attempt = value.parse().ok()?,
            "webhook-id" => {
                id = value.bytes().fold(0_u32, |sum, byte| {
                    sum.wrapping_mul(16_777_619) ^ u32::from(byte)
                })
            }
            _ => {}
        }
    }
    let at_ms = desk.now_ms();
    let late_ms = desk.late_ms(at_ms);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    let event = Event::number_in(&body);
    let whole = event.is_some_and(|number| Event::new(desk.seed, number).body() == body)
        && webhook < HOOKS.len();
    Some(Request {
        webhook: webhook.min(HOOKS.len() - 1),
        attempt,
        id,
        event,
        whole,
        at_ms,
        late_ms,
    })
}

/// `None` when the connection has ended.
async fn answer(
    stream: &mut BufReader<TcpStream>,
    request: &Request,
    instance: u8,
    desk: &Desk,
) -> Option<()> {
    let event = request.event.unwrap_or(u32::MAX);
    let said = |status: u16, retry_after: u8| {
        let hit = Hit {
            event,
            webhook: request.webhook as u8,
            attempt: request.attempt,
            status,
            instance,
            at_ms: request.at_ms,
            late_ms: request.late_ms,
            retry_after,
            id: request.id,
            whole: request.whole,
        };
        desk.oracle
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .hit(hit);
    };
    match Trouble::of(desk.troubles[request.webhook].load(SeqCst)) {
        Trouble::None => {}
        Trouble::ServerError => {
            said(503, 0);
            return plain(stream, 503, "").await;
        }
        Trouble::RateLimited => {
            said(429, 2);
            return plain(stream, 429, "retry-after: 2\r\n").await;
        }
        Trouble::Hangs => {
            said(0, 0);
            // Until the client goes away.
            let _ = stream.read_u8().await;
            return None;
        }
        Trouble::SlowBody => {
            // The status decides (`outbound::http`).
            said(200, 0);
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
                .await
                .ok()?;
            loop {
                tokio::time::sleep(Duration::from_millis(300)).await;
                stream.write_all(b"x").await.ok()?;
            }
        }
        Trouble::Reset => {
            said(0, 0);
            let _ = stream.get_ref().set_zero_linger();
            return None;
        }
    }
    let status = match HOOKS[request.webhook].nature {
        Nature::Good => 200,
        Nature::Slow(milliseconds) => {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            200
        }
        Nature::Fails if request.attempt == 1 && mixed(7, u64::from(event)).is_multiple_of(10) => {
            500
        }
        Nature::Fails => 200,
        Nature::Dead => 500,
        Nature::Refuses => 404,
    };
    // Before the answer: nobody may know of a success before the oracle does.
    said(status, 0);
    plain(stream, status, "").await
}

async fn plain(stream: &mut BufReader<TcpStream>, status: u16, headers: &str) -> Option<()> {
    let text = format!("HTTP/1.1 {status} X\r\n{headers}content-length: 0\r\n\r\n");
    stream.write_all(text.as_bytes()).await.ok()
}
