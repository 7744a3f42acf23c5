//! A receiver without HTTP: what a test writes to the socket is what goes out. For those who answer half a header, one
//! byte a second, or nothing at all.

use std::io::{ErrorKind, Read};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// Listens on a loopback port and hands every connection to `behave`, each on a thread of its own. When `behave` returns
/// the connection is closed.
pub fn raw(behave: impl Fn(TcpStream) + Send + Sync + 'static) -> RawReceiver {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
    let address = listener.local_addr().expect("its address");
    let connections = Arc::new(Mutex::new(Connections::default()));
    let seen = connections.clone();
    let behave = Arc::new(behave);
    let acceptor = std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { continue };
            let mut seen = seen.lock().expect("no thread panics with it");
            if seen.ended {
                return;
            }
            seen.open
                .push(stream.try_clone().expect("a second handle on a socket"));
            drop(seen);
            let behave = behave.clone();
            std::thread::spawn(move || {
                // The second handle, kept for dropping, would hold the connection open.
                let last = stream.try_clone();
                behave(stream);
                let _ = last.map(|stream| stream.shutdown(Shutdown::Both));
            });
        }
    });
    RawReceiver {
        address,
        connections,
        acceptor: Some(acceptor),
    }
}

/// The one that [`raw`] started. Dropped, it stops listening and shuts every connection, so that whoever reads or writes
/// on one gets an error and ends.
pub struct RawReceiver {
    address: SocketAddr,
    connections: Arc<Mutex<Connections>>,
    acceptor: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Connections {
    open: Vec<TcpStream>,
    ended: bool,
}

impl RawReceiver {
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How many connections there have been, closed ones included.
    pub fn connections(&self) -> usize {
        self.connections
            .lock()
            .expect("no thread panics with it")
            .open
            .len()
    }
}

impl Drop for RawReceiver {
    fn drop(&mut self) {
        if let Ok(mut connections) = self.connections.lock() {
            connections.ended = true;
            for stream in &connections.open {
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        // `incoming` blocks; one more connection wakes it, and it sees that all is over.
        let woken = TcpStream::connect(self.address).is_ok();
        if let (true, Some(acceptor)) = (woken, self.acceptor.take()) {
            let _ = acceptor.join();
        }
    }
}

/// Reads one request, head and as much body as its `Content-Length` says. Empty or cut short when the client went away.
pub fn read_request(stream: &mut TcpStream) -> Vec<u8> {
    let mut request = Vec::new();
    let mut chunk = [0; 4096];
    while wanted(&request).is_none_or(|length| request.len() < length) {
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(read) => request.extend_from_slice(&chunk[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    request
}

/// How long the request is, head and body, once the head is complete.
fn wanted(request: &[u8]) -> Option<usize> {
    let head = request
        .windows(4)
        .position(|window| window == b"\r\n\r\n")?
        + 4;
    let text = String::from_utf8_lossy(&request[..head]).to_ascii_lowercase();
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    Some(head + length.unwrap_or(0))
}
