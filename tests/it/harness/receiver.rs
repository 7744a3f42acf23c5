//! A receiver of webhooks: a real HTTP/1.1 server on loopback that does as its script says and remembers what it got.
//!
//! What really arrived is the only proof of a delivery; the application's own counters are not asked.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, Response};
use tokio::sync::oneshot;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    /// How many requests came before it.
    pub index: usize,
    /// How many requests with the same `webhook-id` came before it; 0 where there is no such header.
    pub repeat: usize,
    /// When its head had arrived.
    pub arrived: Instant,
    /// The same by the clock on the wall.
    pub arrived_at: SystemTime,
    /// The client's end; two requests with the same one came over one connection.
    pub peer: SocketAddr,
    pub method: String,
    /// With the query.
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// `None` as long as there has been no reply: it is being delayed, or it hangs, or the client went away first.
    pub replied: Option<u16>,
}

impl Request {
    /// The first header of this name, where it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The `webhook-id`: the delivery's stable name.
    pub fn id(&self) -> Option<&str> {
        self.header("webhook-id")
    }

    /// Whether it was answered with a 2xx.
    pub fn accepted(&self) -> bool {
        self.replied
            .is_some_and(|status| (200..300).contains(&status))
    }
}

/// What a script answers.
#[derive(Clone, Debug)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Bytes,
    delay: Duration,
    hang: bool,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Bytes::new(),
            delay: Duration::ZERO,
            hang: false,
        }
    }

    pub fn ok() -> Self {
        Self::status(200)
    }

    /// No reply at all, for as long as the client waits.
    pub fn hang() -> Self {
        Self {
            hang: true,
            ..Self::ok()
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Only after so long.
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

/// The server. It has a thread of its own, and is gone, connections and all, when dropped.
pub struct Receiver {
    address: SocketAddr,
    log: Arc<Log>,
    /// Dropping it ends the server's thread.
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Receiver {
    /// One that does as `script` says. The script sees the request, and by `index` and `repeat` what came before.
    pub fn start(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let log = Arc::new(Log {
            requests: Mutex::default(),
            repeats: Mutex::default(),
            changed: Condvar::new(),
        });
        let desk = Arc::new(Desk {
            script: Box::new(script),
            log: log.clone(),
        });
        let (end, ended) = oneshot::channel();
        let (bound, address) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
                    .await
                    .expect("a port on loopback");
                bound
                    .send(listener.local_addr().expect("its address"))
                    .expect("who started it waits");
                let router = Router::new().fallback(receive).with_state(desk);
                let service = router.into_make_service_with_connect_info::<SocketAddr>();
                tokio::select! {
                    _ = ended => {}
                    _ = axum::serve(listener, service) => {}
                }
            });
        });
        let address = address.recv().expect("the receiver's thread is listening");
        Self {
            address,
            log,
            end: Some(end),
            thread: Some(thread),
        }
    }

    /// One that answers 200 to everything, at once.
    pub fn accepting() -> Self {
        Self::start(|_| Reply::ok())
    }

    /// One that answers this status to everything.
    pub fn answering(status: u16) -> Self {
        Self::start(move |_| Reply::status(status))
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `path` begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Everything that arrived, in order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        self.log.lock().clone()
    }

    /// Those that were answered with a 2xx.
    pub fn accepted(&self) -> Vec<Request> {
        self.log
            .lock()
            .iter()
            .filter(|request| request.accepted())
            .cloned()
            .collect()
    }

    /// Waits until `n` requests have arrived, and returns all there are. Panics, telling what came, if they do not.
    pub fn wait_for(&self, n: usize, timeout: Duration) -> Vec<Request> {
        self.wait_until(&format!("{n} requests"), timeout, |requests| {
            requests.len() >= n
        })
    }

    /// Waits until `n` requests have been answered with a 2xx, and returns those.
    pub fn wait_for_accepted(&self, n: usize, timeout: Duration) -> Vec<Request> {
        let enough = |requests: &[Request]| {
            requests.iter().filter(|request| request.accepted()).count() >= n
        };
        let requests = self.wait_until(&format!("{n} accepted requests"), timeout, enough);
        requests.into_iter().filter(Request::accepted).collect()
    }

    /// Waits until `n` different deliveries (`webhook-id`s) have been answered with a 2xx.
    pub fn wait_for_deliveries(&self, n: usize, timeout: Duration) {
        self.wait_until(&format!("{n} deliveries"), timeout, |requests| {
            let accepted = requests.iter().filter(|request| request.accepted());
            accepted.map(Request::id).collect::<HashSet<_>>().len() >= n
        });
    }

    /// Waits until `enough` says so of the requests, and returns them all.
    pub fn wait_until(
        &self,
        what: &str,
        timeout: Duration,
        enough: impl Fn(&[Request]) -> bool,
    ) -> Vec<Request> {
        let requests = self.log.lock();
        let (requests, waited) = self
            .log
            .changed
            .wait_timeout_while(requests, timeout, |requests| !enough(requests))
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if waited.timed_out() {
            let replied: Vec<_> = requests
                .iter()
                .map(|request| (&request.path, request.replied))
                .collect();
            let last = &replied[replied.len().saturating_sub(10)..];
            panic!(
                "not within {timeout:?}: {what}; there were {} requests, the last of them {last:?}",
                replied.len()
            );
        }
        requests.clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            eprintln!("a receiver's thread had panicked: its output is above");
        }
    }
}

struct Log {
    requests: Mutex<Vec<Request>>,
    /// How many requests there were of each `webhook-id`.
    repeats: Mutex<HashMap<String, usize>>,
    /// A request came, or was replied to.
    changed: Condvar,
}

impl Log {
    /// A script that panics must not take the evidence with it.
    fn lock(&self) -> MutexGuard<'_, Vec<Request>> {
        self.requests
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn arrived(&self, mut request: Request) -> Request {
        let mut requests = self.lock();
        request.index = requests.len();
        if let Some(id) = request.id() {
            let mut repeats = self
                .repeats
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            let count = repeats.entry(id.to_owned()).or_default();
            request.repeat = *count;
            *count += 1;
        }
        requests.push(request.clone());
        self.changed.notify_all();
        request
    }

    fn replied(&self, index: usize, status: u16) {
        self.lock()[index].replied = Some(status);
        self.changed.notify_all();
    }
}

struct Desk {
    script: Box<dyn Fn(&Request) -> Reply + Send + Sync>,
    log: Arc<Log>,
}

async fn receive(
    State(desk): State<Arc<Desk>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: axum::extract::Request,
) -> Response<Body> {
    let (arrived, arrived_at) = (Instant::now(), SystemTime::now());
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, usize::MAX).await else {
        // The client went away in the middle of its body. Nobody reads this.
        return Response::default();
    };
    let request = desk.log.arrived(Request {
        index: 0,
        repeat: 0,
        arrived,
        arrived_at,
        peer,
        method: head.method.to_string(),
        path: head.uri.to_string(),
        headers: head.headers,
        body,
        replied: None,
    });
    let reply = (desk.script)(&request);
    if reply.hang {
        return std::future::pending().await;
    }
    if !reply.delay.is_zero() {
        // When the client goes away meanwhile the server drops this future, and `replied` stays empty: as it was.
        tokio::time::sleep(reply.delay).await;
    }
    let headers = reply.headers.iter();
    let response = headers.fold(
        Response::builder().status(reply.status),
        |response, (name, value)| response.header(name, value),
    );
    let response = response
        .body(Body::from(reply.body))
        .expect("the script's status and headers are HTTP");
    desk.log.replied(request.index, reply.status);
    response
}
