//! A receiver that costs next to nothing: HTTP/1.1 with keep-alive by hand, 200 at once, counting what arrives at `/in`. Other
//! paths are sick endpoints, or healthy ones that are not counted (`Endpoint` in `router.rs`).
//!
//! It is a process of its own, so that its processor time is not the router's. Its parent asks for the tally over stdin.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::events;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const FAILED: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n";
const REFUSED: &[u8] =
    b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";
const HEAD_END: &[u8] = b"\r\n\r\n";
const LENGTH_NAME: &[u8] = b"content-length:";

/// What has arrived since the last reset. Times are Unix microseconds.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Tally {
    /// Different events of each endpoint; repetitions are beside it.
    pub distinct: u64,
    pub repeated: u64,
    pub first_us: u64,
    pub last_us: u64,
    /// From enqueue to arrival, microseconds; 0 in a short count.
    pub p50_us: u64,
    pub p99_us: u64,
    pub p999_us: u64,
    pub worst_us: u64,
    /// Requests to paths that are not counted.
    pub others: u64,
}

impl Tally {
    /// How many of the deliveries that were wanted arrived in time, and how long they took.
    pub fn in_time(&self, wanted: u64) -> String {
        format!(
            "{:.2} % in time ({} of {wanted}), p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms, worst {:.0} ms",
            100.0 * self.distinct as f64 / wanted as f64,
            self.distinct,
            self.p50_us as f64 / 1e3,
            self.p99_us as f64 / 1e3,
            self.p999_us as f64 / 1e3,
            self.worst_us as f64 / 1e3,
        )
    }
}

#[derive(Default)]
struct Arrivals {
    tally: Tally,
    /// By endpoint, a bit an event.
    seen: HashMap<IpAddr, Vec<u64>>,
    latencies_us: Vec<u32>,
}

impl Arrivals {
    fn add(&mut self, endpoint: IpAddr, body: &[u8]) {
        let now = events::unix_us();
        let Some((sequence, sent_us)) = events::stamp_of(body) else {
            return;
        };
        let (word, bit) = ((sequence / 64) as usize, 1 << (sequence % 64));
        let seen = self.seen.entry(endpoint).or_default();
        if seen.len() <= word {
            seen.resize(word + 1, 0);
        }
        if seen[word] & bit != 0 {
            self.tally.repeated += 1;
            return;
        }
        seen[word] |= bit;
        if self.tally.distinct == 0 {
            self.tally.first_us = now;
        }
        self.tally.distinct += 1;
        self.tally.last_us = now;
        self.latencies_us
            .push(u32::try_from(now.saturating_sub(sent_us)).unwrap_or(u32::MAX));
    }

    fn report(&self) -> Tally {
        let mut sorted = self.latencies_us.clone();
        sorted.sort_unstable();
        let at = |share: f64| {
            let index = (sorted.len() as f64 * share) as usize;
            let found = sorted.get(index.min(sorted.len().saturating_sub(1)));
            found.map_or(0, |us| u64::from(*us))
        };
        Tally {
            p50_us: at(0.50),
            p99_us: at(0.99),
            p999_us: at(0.999),
            worst_us: at(1.0),
            ..self.tally.clone()
        }
    }
}

/// The child's main: prints its port, then answers `count`, `report` and `reset`, a line each, until stdin ends.
pub fn run() {
    let arrivals = Arc::new(Mutex::new(Arrivals::default()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    // Every address of 127/8 is this machine: a hundred endpoints are a hundred hosts with pools of their own.
    let listener = runtime
        .block_on(TcpListener::bind("0.0.0.0:0"))
        .expect("a port");
    println!("{}", listener.local_addr().expect("a port").port());
    let shared = Arc::clone(&arrivals);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            let mut arrivals = shared.lock().expect("arrivals");
            let answer = match line.as_deref() {
                Ok("count") => arrivals.tally.clone(),
                Ok("report") => arrivals.report(),
                Ok("reset") => {
                    *arrivals = Arrivals::default();
                    Tally::default()
                }
                _ => break,
            };
            drop(arrivals);
            println!("{}", serde_json::to_string(&answer).expect("a tally"));
        }
        std::process::exit(0);
    });
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::task::spawn_local(serve(stream, Arc::clone(&arrivals)));
        }
    });
}

async fn serve(mut stream: TcpStream, arrivals: Arc<Mutex<Arrivals>>) {
    let _ = stream.set_nodelay(true);
    let Ok(endpoint) = stream.local_addr().map(|address| address.ip()) else {
        return;
    };
    let mut buffer = Vec::with_capacity(16_384);
    loop {
        let request = loop {
            if let Some(request) = whole_request(&buffer) {
                break request;
            }
            match stream.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        };
        let answer = {
            let mut arrivals = arrivals.lock().expect("arrivals");
            let path = buffer.split(|byte| *byte == b' ').nth(1);
            let answer = match path {
                Some(b"/in") => {
                    arrivals.add(endpoint, &buffer[request.clone()]);
                    Some(ANSWER)
                }
                Some(b"/hang") => None,
                Some(b"/fail") => Some(FAILED),
                Some(b"/refuse") => Some(REFUSED),
                _ => Some(ANSWER),
            };
            if path != Some(b"/in") {
                arrivals.tally.others += 1;
            }
            answer
        };
        buffer.drain(..request.end);
        let Some(answer) = answer else {
            // Until the client gives up.
            while matches!(stream.read_buf(&mut buffer).await, Ok(1..)) {}
            return;
        };
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}

/// Where the body is, once all of it is there.
fn whole_request(buffer: &[u8]) -> Option<std::ops::Range<usize>> {
    let head_end = find(buffer, HEAD_END)?;
    let begin = head_end + HEAD_END.len();
    let length = buffer[..head_end]
        .split(|byte| *byte == b'\n')
        .find(|line| {
            line.get(..LENGTH_NAME.len())
                .is_some_and(|name| name.eq_ignore_ascii_case(LENGTH_NAME))
        })
        .and_then(|line| std::str::from_utf8(&line[LENGTH_NAME.len()..]).ok())
        .and_then(|text| text.trim().parse::<usize>().ok())
        .unwrap_or(0);
    (buffer.len() >= begin + length).then_some(begin..begin + length)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// The receiver as its parent has it; ends with it.
pub struct Receiver {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    pub port: u16,
}

impl Receiver {
    pub fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .arg("receiver")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the receiver");
        let questions = child.stdin.take().expect("stdin");
        let mut answers = BufReader::new(child.stdout.take().expect("stdout"));
        let mut line = String::new();
        answers.read_line(&mut line).expect("a port");
        Self {
            child,
            questions,
            answers,
            port: line.trim().parse().expect("a port"),
        }
    }

    /// The address of an endpoint; each number is a host of its own.
    pub fn address(&self, number: usize) -> SocketAddr {
        let number = u32::try_from(number).expect("few endpoints");
        SocketAddr::from((std::net::Ipv4Addr::from(0x7f00_0101 + number), self.port))
    }

    fn ask(&mut self, question: &str) -> Tally {
        writeln!(self.questions, "{question}").expect("the receiver listens");
        let mut line = String::new();
        self.answers
            .read_line(&mut line)
            .expect("the receiver answers");
        serde_json::from_str(&line).expect("a tally")
    }

    /// Cheap: without latencies.
    pub fn count(&mut self) -> Tally {
        self.ask("count")
    }

    pub fn report(&mut self) -> Tally {
        self.ask("report")
    }

    pub fn reset(&mut self) {
        self.ask("reset");
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
