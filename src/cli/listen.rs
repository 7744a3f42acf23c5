//! `postrider listen`: a receiver for development. It prints what arrives, verifies signatures, and answers what it is told to, so that
//! the other side's behaviour (retries, `Retry-After`, slowness) can be seen on one's own machine.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header, request::Parts};
use axum::response::{IntoResponse, Response};
use clap::Args;
use serde_json::{Map, Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

use super::input::Secret;
use super::output::{self, Output, body, escaped};
use super::sign::now_seconds;
use super::{Answer, runtime};
use crate::outbound::signature::SigningKey;
use crate::pipeline::now_ms;

/// A body that is larger is answered with 413.
const BODY_BYTES: usize = 32 * 1024 * 1024;

#[derive(Args)]
pub(super) struct Listen {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9000")]
    address: SocketAddr,
    #[command(flatten)]
    secret: Secret,
    /// The status of every answer, or of the first N with --fail-first [default: 200, with --fail-first 503]
    #[arg(long, value_name = "CODE", value_parser = status)]
    status: Option<StatusCode>,
    /// Answer only after so long
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    delay: Option<Duration>,
    /// Let the first N requests fail, then answer 200
    #[arg(long, value_name = "N")]
    fail_first: Option<u64>,
    /// Send Retry-After with every answer that is not 2xx
    #[arg(long, value_name = "SECONDS")]
    retry_after: Option<u32>,
    /// End after N requests
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print all headers, credentials too
    #[arg(long)]
    all_headers: bool,
    /// One line a request: no headers, no body
    #[arg(long)]
    quiet: bool,
    /// `json`: one object a line
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl Listen {
    pub(super) fn run(self) -> Answer {
        let key = self.secret.key()?;
        runtime()?.block_on(async move {
            let address = self.address;
            let socket = tokio::net::TcpListener::bind(address)
                .await
                .with_context(|| {
                    format!(
                        "cannot listen on {address}; free the port, or name another with --address"
                    )
                })?;
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            // To stderr, so that stdout holds nothing but requests.
            eprintln!("listening on http://{}", socket.local_addr()?);
            if key.is_none() && self.output == Output::Table {
                eprintln!(
                    "signatures are not checked; give --secret-file or set POSTRIDER_WEBHOOK_SECRET"
                );
            }
            let listener = Arc::new(Listener {
                arguments: self,
                key,
                arrived: AtomicU64::new(0),
                enough: Notify::new(),
            });
            let routes = Router::new()
                .fallback(receive)
                .with_state(Arc::clone(&listener));
            // Answers that are under way are finished when the last request has come, and not on a signal.
            let served = axum::serve(socket, routes).with_graceful_shutdown({
                let listener = Arc::clone(&listener);
                async move { listener.enough.notified().await }
            });
            tokio::select! {
                served = async { served.await } => served?,
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            eprintln!("{} requests", listener.arrived.load(Ordering::Acquire));
            Ok(())
        })
    }
}

struct Listener {
    arguments: Listen,
    key: Option<SigningKey>,
    arrived: AtomicU64,
    /// Told when the last request has come, or nobody reads what is printed.
    enough: Notify,
}

async fn receive(State(listener): State<Arc<Listener>>, request: Request) -> Response {
    let (head, stream) = request.into_parts();
    let Ok(body) = to_bytes(stream, BODY_BYTES).await else {
        eprintln!(
            "{} {}: the body broke off or is larger than {BODY_BYTES} bytes",
            head.method, head.uri
        );
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let arguments = &listener.arguments;
    let number = listener.arrived.fetch_add(1, Ordering::AcqRel) + 1;
    if arguments.count.is_some_and(|count| number > count) {
        listener.arrived.fetch_sub(1, Ordering::AcqRel);
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let status = arguments.answer_to(number);
    let arrival = Arrival {
        number,
        head: &head,
        body: &body,
        verdict: listener
            .key
            .as_ref()
            .map(|key| Verdict::of(key, &head.headers, &body, now_seconds())),
        status,
    };
    let text = match arguments.output {
        Output::Json => format!("{}\n", arrival.json(arguments.all_headers)),
        Output::Table => arrival.text(arguments),
    };
    let is_read = output::print(&text).is_ok();
    if let Some(delay) = arguments.delay {
        tokio::time::sleep(delay).await;
    }
    if arguments.count == Some(number) || !is_read {
        listener.enough.notify_one();
    }
    let mut response = status.into_response();
    if let Some(seconds) = arguments.retry_after
        && !status.is_success()
    {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

impl Listen {
    fn answer_to(&self, number: u64) -> StatusCode {
        match self.fail_first {
            Some(failing) if number <= failing => {
                self.status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
            }
            Some(_) => StatusCode::OK,
            None => self.status.unwrap_or(StatusCode::OK),
        }
    }
}

/// What the signatures of a request are worth.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// All that are there are good.
    Valid,
    /// There is none.
    Missing,
    /// Which header is not good, and why.
    Invalid(String),
}

impl Verdict {
    fn of(key: &SigningKey, headers: &HeaderMap, body: &[u8], now_seconds: u64) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let plain = headers.get("x-webhook-signature").map(|_| {
            key.verify_plain(text("x-webhook-signature").unwrap_or_default(), body)
                .map_err(|refused| format!("X-Webhook-Signature: {refused}"))
        });
        let standard = headers.get("webhook-signature").map(|_| {
            let [id, timestamp, signatures] =
                ["webhook-id", "webhook-timestamp", "webhook-signature"]
                    .map(|name| text(name).unwrap_or_default());
            key.verify_standard(id, timestamp, signatures, body, now_seconds)
                .map_err(|refused| format!("webhook-signature: {refused}"))
        });
        let results: Vec<Result<(), String>> = [plain, standard].into_iter().flatten().collect();
        if results.is_empty() {
            return Self::Missing;
        }
        let faults: Vec<String> = results.into_iter().filter_map(Result::err).collect();
        if faults.is_empty() {
            Self::Valid
        } else {
            Self::Invalid(faults.join("; "))
        }
    }
}

struct Arrival<'a> {
    number: u64,
    head: &'a Parts,
    body: &'a Bytes,
    /// `None` where there is no secret to check with.
    verdict: Option<Verdict>,
    status: StatusCode,
}

impl Arrival<'_> {
    fn header(&self, name: &str) -> Option<String> {
        self.head.headers.get(name).map(shown)
    }

    fn headers(&self, all: bool) -> impl Iterator<Item = (&str, String)> {
        let headers = self.head.headers.iter();
        headers
            .map(|(name, value)| (name.as_str(), shown(value)))
            .filter(move |(name, _)| all || is_of_interest(name))
    }

    fn text(&self, arguments: &Listen) -> String {
        let mut text = format!(
            "{} #{} {} {}",
            output::time(now_ms()),
            self.number,
            self.head.method,
            escaped(&self.head.uri.to_string()),
        );
        // Writing to a String cannot fail.
        if let Some(event_type) = self.header("x-webhook-event") {
            let _ = write!(text, "  {event_type}");
        }
        if let Some(attempt) = self.header("x-webhook-attempt") {
            let _ = write!(text, "  attempt {attempt}");
        }
        let _ = write!(text, "  {} bytes", self.body.len());
        if let Some(verdict) = &self.verdict {
            let _ = match verdict {
                Verdict::Valid => write!(text, "  signature valid"),
                Verdict::Missing => write!(text, "  NOT SIGNED"),
                Verdict::Invalid(why) => write!(text, "  signature INVALID ({why})"),
            };
        }
        let _ = writeln!(text, "  -> {}", self.status.as_u16());
        if arguments.quiet {
            return text;
        }
        for (name, value) in self.headers(arguments.all_headers) {
            let _ = writeln!(text, "  {name}: {value}");
        }
        for line in body(self.body).lines() {
            let _ = writeln!(text, "    {line}");
        }
        text
    }

    fn json(&self, all_headers: bool) -> Value {
        let mut headers = Map::new();
        for (name, value) in self.headers(all_headers) {
            headers
                .entry(name)
                .and_modify(|earlier| *earlier = format!("{}, {value}", shown_json(earlier)).into())
                .or_insert_with(|| value.clone().into());
        }
        let (signature, message) = match &self.verdict {
            None => (None, None),
            Some(Verdict::Valid) => (Some("valid"), None),
            Some(Verdict::Missing) => (Some("missing"), None),
            Some(Verdict::Invalid(why)) => (Some("invalid"), Some(why)),
        };
        json!({
            "number": self.number,
            "at": output::time(now_ms()),
            "method": self.head.method.as_str(),
            "path": self.head.uri.to_string(),
            "headers": headers,
            "body": String::from_utf8_lossy(self.body),
            "signature": signature,
            "signature_message": message,
            "status": self.status.as_u16(),
        })
    }
}

fn shown(value: &header::HeaderValue) -> String {
    escaped(&String::from_utf8_lossy(value.as_bytes()))
}

fn shown_json(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn is_of_interest(name: &str) -> bool {
    name.starts_with("webhook-")
        || name.starts_with("x-webhook-")
        || ["content-type", "user-agent", "traceparent"].contains(&name)
}

fn status(text: &str) -> Result<StatusCode, String> {
    text.parse::<u16>()
        .ok()
        .filter(|code| (200..=599).contains(code))
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or_else(|| "write a status from 200 to 599".to_owned())
}

fn seconds(text: &str) -> Result<Duration, String> {
    text.parse::<f64>()
        .ok()
        .filter(|seconds| (0.0..=86_400.0).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "write a number of seconds from 0 to 86400, such as 1.5".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, String)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| {
                (
                    header::HeaderName::from_static(name),
                    value.parse().unwrap(),
                )
            })
            .collect()
    }

    #[test]
    fn a_request_is_valid_only_if_every_signature_in_it_is() {
        let key = SigningKey::new("whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQ=").unwrap();
        let body = b"{}";
        let good = vec![
            ("x-webhook-signature", key.plain(body)),
            ("webhook-id", "dlv_1".to_owned()),
            ("webhook-timestamp", "1000".to_owned()),
            ("webhook-signature", key.standard("dlv_1", 1000, body)),
        ];
        let verdict =
            |list: &[(&'static str, String)], now| Verdict::of(&key, &headers(list), body, now);
        assert_eq!(verdict(&good, 1010), Verdict::Valid);
        assert_eq!(verdict(&good[..1], 1010), Verdict::Valid);
        assert_eq!(verdict(&good[1..], 1010), Verdict::Valid);
        assert_eq!(verdict(&[], 1010), Verdict::Missing);
        let mut bad = good.clone();
        bad[0].1 = key.plain(b"{ }");
        let mut other_id = good.clone();
        other_id[1].1 = "dlv_2".to_owned();
        for (list, now, said) in [
            (&bad[..], 1010, "X-Webhook-Signature"),
            (&other_id[..], 1010, "webhook-signature"),
            (&good[..], 2000, "in the past"),
            (&good[3..], 1010, "webhook-timestamp"),
        ] {
            match verdict(list, now) {
                Verdict::Invalid(why) => assert!(why.contains(said), "{why}"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn wrong_numbers_are_refused() {
        for text in ["", "0", "99", "100", "600", "-200", "x"] {
            assert!(status(text).is_err(), "{text}");
        }
        for text in ["", "-1", "NaN", "inf", "1e9", "x"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
