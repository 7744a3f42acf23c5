//! The network between routers and broker, so that it can be bad: it passes everything, stalls, or cuts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering::SeqCst};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, tcp};
use tokio::sync::watch;

/// What passes now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Weather {
    stalled: bool,
    /// A connection of an earlier generation ends.
    generation: u64,
}

/// A TCP proxy on loopback; gone when dropped.
pub struct Proxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    target: Arc<AtomicU16>,
    /// Bytes passed on, to see that it is really in between.
    passed: Arc<AtomicU64>,
    _runtime: tokio::runtime::Runtime,
}

impl Proxy {
    /// One that leads nowhere yet: the broker must know the proxy's port before it starts.
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (weather, seen) = watch::channel(Weather {
            stalled: false,
            generation: 0,
        });
        let target = Arc::new(AtomicU16::new(0));
        let passed = Arc::new(AtomicU64::new(0));
        let (to, counted) = (target.clone(), passed.clone());
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let port = to.load(SeqCst);
                tokio::spawn(carry(client, port, seen.clone(), counted.clone()));
            }
        });
        Self {
            address,
            weather,
            target,
            passed,
            _runtime: runtime,
        }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn lead_to(&self, port: u16) {
        self.target.store(port, SeqCst);
    }

    /// Nothing passes in either direction, and nothing is closed.
    pub fn stall(&self, stalled: bool) {
        self.weather
            .send_modify(|weather| weather.stalled = stalled);
    }

    /// Every connection is reset; new ones pass.
    pub fn cut(&self) {
        self.weather.send_modify(|weather| weather.generation += 1);
    }

    pub fn passed_bytes(&self) -> u64 {
        self.passed.load(SeqCst)
    }
}

async fn carry(
    client: TcpStream,
    port: u16,
    weather: watch::Receiver<Weather>,
    passed: Arc<AtomicU64>,
) {
    let mut cut = weather.clone();
    let generation = cut.borrow().generation;
    let Ok(broker) = TcpStream::connect(("127.0.0.1", port)).await else {
        return;
    };
    let _ = (client.set_nodelay(true), broker.set_nodelay(true));
    // Closed with what is unread: that is a reset on the wire.
    let _ = (client.set_zero_linger(), broker.set_zero_linger());
    let (from_client, to_client) = client.into_split();
    let (from_broker, to_broker) = broker.into_split();
    tokio::select! {
        () = copy(from_client, to_broker, weather.clone(), &passed) => {}
        () = copy(from_broker, to_client, weather, &passed) => {}
        _ = cut.wait_for(|weather| weather.generation != generation) => {}
    }
}

async fn copy(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
    passed: &AtomicU64,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(count @ 1..) = from.read(&mut buffer).await else {
            return;
        };
        if weather.wait_for(|weather| !weather.stalled).await.is_err() {
            return;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
        passed.fetch_add(count as u64, SeqCst);
    }
}
