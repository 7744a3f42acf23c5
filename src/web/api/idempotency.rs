//! `Idempotency-Key` on every POST: a client that repeats a request, because it did not hear the answer, is answered as the first time
//! and nothing is done twice.
//!
//! Answers are remembered for a day in the memory of one instance, the newest of them: that saves a client's retries from doubling
//! something, and is no promise across restarts or instances. A secret that an answer showed is not shown again (promise 7).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::auth::Caller;
use super::problem::Problem;
use super::{Api, body};

/// The header.
pub const HEADER: &str = "idempotency-key";
const REMEMBERED_FOR: Duration = Duration::from_secs(24 * 3_600);
const MOST_REMEMBERED: usize = 10_000;
/// Of all remembered answers together.
const MOST_BYTES: usize = 16 * 1024 * 1024;
/// A larger answer is not remembered, and its request may be repeated.
const LARGEST: usize = 64 * 1024;
const LONGEST_KEY: usize = 255;
/// Members of answers that are shown once.
const SECRETS: [&str; 2] = ["secret", "token"];

/// Answers a POST with a key once. Behind [`super::auth::check`], because keys are the caller's own.
pub async fn once(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST || !request.headers().contains_key(HEADER) {
        return next.run(request).await;
    }
    let answer = answer(api, request, next).await;
    answer.unwrap_or_else(IntoResponse::into_response)
}

async fn answer(api: Arc<Api>, request: Request, next: Next) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let key = key_of(&parts)?;
    let body = body::read(&parts.headers, body).await?;
    let digest = digest_of(&parts, &body);
    if let Some(answer) = api.remembered.begin(&key, digest, Instant::now())? {
        return Ok(answer.into_response());
    }
    // In a task of its own: it is the client that hangs up for whom the answer is remembered.
    let answered = Arc::clone(&api);
    let its_key = key.clone();
    let asked = tokio::spawn(async move {
        let response = next.run(Request::from_parts(parts, body.into())).await;
        let (response, answer) = Answer::of(response).await;
        answered.remembered.end(&its_key, answer);
        response
    });
    asked.await.map_err(|_| {
        // It panicked, and will not end.
        api.remembered.end(&key, None);
        Problem::fault()
    })
}

/// The key, told apart by who uses it.
fn key_of(parts: &Parts) -> Result<String, Problem> {
    let text = parts
        .headers
        .get(HEADER)
        .and_then(|value| value.to_str().ok())
        .filter(|text| (1..=LONGEST_KEY).contains(&text.len()));
    let text = text.ok_or_else(|| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            format!("Idempotency-Key must have 1 to {LONGEST_KEY} ASCII characters"),
        )
    })?;
    let caller = parts.extensions.get::<Caller>();
    let (scope, name) = caller.map_or_else(Default::default, |caller| {
        (caller.scope(), caller.name.clone())
    });
    Ok(format!("{scope}\n{name}\n{text}"))
}

/// What makes two requests the same: where they go, what they say, and the headers that say what they mean.
fn digest_of(parts: &Parts, body: &[u8]) -> [u8; 32] {
    let mut digest = Sha256::new();
    let mut add = |bytes: &[u8]| {
        digest.update(bytes.len().to_be_bytes());
        digest.update(bytes);
    };
    add(parts.uri.to_string().as_bytes());
    let is_meant = |name: &str| {
        name.starts_with("ce-") || name == header::CONTENT_TYPE || name == header::IF_MATCH
    };
    for (name, value) in &parts.headers {
        if is_meant(name.as_str()) {
            add(name.as_str().as_bytes());
            add(value.as_bytes());
        }
    }
    add(body);
    digest.finalize().into()
}

/// An answer as it may be given again.
#[derive(Clone, Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    /// The answer as it is, and what is to be remembered of it: nothing of a refusal, which changed nothing.
    async fn of(response: Response) -> (Response, Option<Self>) {
        let size = response.body().size_hint().exact();
        let is_small = size.is_some_and(|size| size <= LARGEST as u64);
        if !response.status().is_success() || !is_small {
            return (response, None);
        }
        let (parts, body) = response.into_parts();
        let Ok(bytes) = to_bytes(body, LARGEST).await else {
            return (Problem::fault().into_response(), None);
        };
        let answer = Self {
            status: parts.status,
            headers: parts.headers.clone(),
            body: without_secrets(&bytes),
        };
        (Response::from_parts(parts, Body::from(bytes)), Some(answer))
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

fn without_secrets(bytes: &Bytes) -> Bytes {
    let Ok(Value::Object(mut members)) = serde_json::from_slice::<Value>(bytes) else {
        return bytes.clone();
    };
    let mut has_some = false;
    for name in SECRETS {
        if let Some(secret) = members.get_mut(name).filter(|secret| secret.is_string()) {
            *secret = "***".into();
            has_some = true;
        }
    }
    if has_some {
        Value::Object(members).to_string().into()
    } else {
        bytes.clone()
    }
}

/// The answers that were given. Shared by all requests.
#[derive(Default)]
pub struct Remembered(Mutex<Answers>);

#[derive(Default)]
struct Answers {
    by_key: HashMap<String, Known>,
    /// In the order in which they came.
    keys: VecDeque<String>,
    bytes: usize,
}

struct Known {
    request: [u8; 32],
    since: Instant,
    /// `None` while the request is under way.
    answer: Option<Answer>,
}

impl Answers {
    fn forget(&mut self, key: &str) {
        if let Some(known) = self.by_key.remove(key) {
            self.bytes -= known.answer.map_or(0, |answer| answer.body.len());
        }
    }
}

impl Remembered {
    /// The answer that was given under this key; `None`: go on, and then [`Remembered::end`] it.
    fn begin(&self, key: &str, request: [u8; 32], now: Instant) -> Result<Option<Answer>, Problem> {
        let conflict = |detail: &str| Err(Problem::new(StatusCode::CONFLICT, detail));
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match answers.by_key.get(key) {
            Some(known) if now.duration_since(known.since) >= REMEMBERED_FOR => {
                answers.forget(key);
            }
            Some(known) if known.request != request => {
                return conflict(
                    "this Idempotency-Key was used with another request; take a new key",
                );
            }
            Some(Known { answer: None, .. }) => {
                return conflict(
                    "the request of this Idempotency-Key is under way; wait for its answer",
                );
            }
            Some(known) => return Ok(known.answer.clone()),
            None => answers.keys.push_back(key.to_owned()),
        }
        let known = Known {
            request,
            since: now,
            answer: None,
        };
        answers.by_key.insert(key.to_owned(), known);
        while answers.keys.len() > MOST_REMEMBERED || answers.bytes > MOST_BYTES {
            let Some(oldest) = answers.keys.pop_front() else {
                break;
            };
            answers.forget(&oldest);
        }
        Ok(None)
    }

    /// Keeps the answer; where there is none, the key may be used again.
    fn end(&self, key: &str, answer: Option<Answer>) {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = answer.as_ref().map_or(0, |answer| answer.body.len());
        match (answer, answers.by_key.get_mut(key)) {
            (Some(answer), Some(known)) => {
                known.answer = Some(answer);
                answers.bytes += bytes;
            }
            _ => {
                answers.forget(key);
                answers.keys.retain(|known| known != key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(bytes: usize) -> Answer {
        Answer {
            status: StatusCode::ACCEPTED,
            headers: HeaderMap::new(),
            body: vec![b' '; bytes].into(),
        }
    }

    #[test]
    fn a_key_is_answered_once_more_for_a_day_and_never_for_another_request() {
        let remembered = Remembered::default();
        let now = Instant::now();
        let begin = |request: u8, now| remembered.begin("k", [request; 32], now);
        assert!(begin(1, now).unwrap().is_none());
        assert_eq!(begin(1, now).unwrap_err().status(), StatusCode::CONFLICT);
        remembered.end("k", Some(answer(7)));
        assert_eq!(begin(1, now).unwrap().unwrap().body.len(), 7);
        assert!(begin(2, now).is_err());
        assert!(begin(2, now + REMEMBERED_FOR).unwrap().is_none());
    }

    #[test]
    fn a_key_whose_request_did_nothing_may_be_used_again() {
        let remembered = Remembered::default();
        let now = Instant::now();
        assert!(remembered.begin("k", [1; 32], now).unwrap().is_none());
        remembered.end("k", None);
        assert!(remembered.begin("k", [1; 32], now).unwrap().is_none());
    }

    #[test]
    fn only_the_newest_answers_are_remembered_and_so_many_bytes() {
        let remembered = Remembered::default();
        let now = Instant::now();
        for n in 0..MOST_REMEMBERED + 10 {
            remembered.begin(&format!("{n}"), [1; 32], now).unwrap();
        }
        {
            let answers = remembered.0.lock().unwrap();
            let kept = (answers.by_key.len(), answers.keys.len());
            assert_eq!(kept, (MOST_REMEMBERED, MOST_REMEMBERED));
        }
        for n in 0..1000 {
            let key = format!("large {n}");
            assert!(remembered.begin(&key, [1; 32], now).unwrap().is_none());
            remembered.end(&key, Some(answer(LARGEST)));
        }
        let answers = remembered.0.lock().unwrap();
        assert!(answers.bytes <= MOST_BYTES + LARGEST, "{}", answers.bytes);
        let bytes = answers
            .by_key
            .values()
            .filter_map(|known| known.answer.as_ref());
        assert_eq!(
            bytes.map(|answer| answer.body.len()).sum::<usize>(),
            answers.bytes
        );
    }

    #[test]
    fn a_secret_is_not_kept_and_the_rest_is() {
        let kept = without_secrets(&Bytes::from_static(br#"{"id":"wh_a","secret":"whsec_x"}"#));
        assert_eq!(kept, r#"{"id":"wh_a","secret":"***"}"#);
        for text in [r#"{"secret": null}"#, "[1]", ""] {
            assert_eq!(without_secrets(&Bytes::from(text)), text);
        }
    }
}
