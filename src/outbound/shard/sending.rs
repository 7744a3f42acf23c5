//! One attempt of a shard: the request, what it tells the lane, and the finish.

use std::rc::Rc;
use std::time::Duration;

use tracing::{info, warn};

use super::super::breaker::State;
use super::super::request::{self, Endpoint};
use super::super::shown;
use super::{Finish, Shard, Submission, unix};
use crate::attempt::{Attempt, Next, Outcome};
use crate::delivery::{DeadReason, Delivery};
use crate::subscription::WebhookId;

impl Shard {
    /// Makes the request of a submission and finishes it, whatever comes of it.
    pub(super) async fn attempt(
        self: Rc<Self>,
        mut submission: Submission,
        endpoint: Rc<Result<Endpoint, String>>,
        labelled: bool,
    ) {
        let started_at = unix();
        let started_at_ms = i64::try_from(started_at.as_millis()).unwrap_or(i64::MAX);
        let delivery = &mut submission.delivery;
        delivery.attempts = delivery.attempts.saturating_add(1);
        delivery.first_attempt_at_ms.get_or_insert(started_at_ms);
        let attempt = match endpoint.as_ref() {
            Ok(endpoint) => self.request(endpoint, delivery, started_at).await,
            Err(fault) => unsendable(delivery.attempts, started_at_ms, fault.clone()),
        };
        delivery.last_status = attempt.status;

        self.in_flight.set(self.in_flight.get().saturating_sub(1));
        let metrics = &self.settings.metrics;
        metrics.in_flight_requests.dec();
        let outcome = attempt.outcome.as_str();
        metrics.attempts.with_label_values(&[outcome]).inc();
        metrics
            .attempt_duration
            .observe(attempt.duration.as_secs_f64());
        let id = submission.webhook.id.clone();
        if labelled {
            metrics
                .webhook_attempts
                .with_label_values(&[id.as_str(), outcome])
                .inc();
        }
        let gate = match (attempt.outcome, attempt.next) {
            (Outcome::RateLimited, Next::Retry { not_before }) => Some(not_before),
            (
                _,
                Next::Retry {
                    not_before: Some(pause),
                },
            ) => Some(Some(pause)),
            _ => None,
        };
        let mut back = Vec::new();
        if let Some(lane) = self.lanes.borrow_mut().get_mut(&id) {
            let now = self.now();
            let before = lane.lane.state();
            lane.lane
                .ended(attempt.duration, worked(&attempt), gate, now);
            let after = lane.lane.state();
            if after != before {
                self.change_state(&id, before, after);
            }
            if lane.lane.state() == State::Tripped {
                back = lane.lane.sweep(now);
            }
        }
        self.finish(submission, Finish::Attempted(attempt));
        for (submission, pause, waiting) in back {
            self.put_off(submission, pause, waiting);
        }
        self.pump(&id);
        self.feed_starved();
    }

    fn change_state(&self, id: &WebhookId, before: State, after: State) {
        self.settings.standings.set(id, after);
        // A failed probe only leads back to where it was.
        match (before, after) {
            (State::Passing, State::Tripped) => {
                warn!(webhook = %id, "the endpoint fails: nothing but probes is sent until it recovers");
            }
            (_, State::Passing) => info!(webhook = %id, "the endpoint has recovered"),
            _ => {}
        }
    }

    async fn request(
        &self,
        endpoint: &Endpoint,
        delivery: &Delivery,
        started_at: Duration,
    ) -> Attempt {
        let number = delivery.attempts;
        let started_at_ms = i64::try_from(started_at.as_millis()).unwrap_or(i64::MAX);
        let elsewhere;
        let endpoint = match &delivery.url {
            None => endpoint,
            Some(url) => match endpoint.at(url) {
                Ok(other) => {
                    elsewhere = other;
                    &elsewhere
                }
                Err(fault) => return unsendable(number, started_at_ms, fault.to_string()),
            },
        };
        let of_attempt = request::Attempt {
            delivery_id: &delivery.id,
            event_type: &delivery.event_type,
            number,
            unix_seconds: started_at.as_secs(),
            traceparent: delivery.traceparent(),
            body: &delivery.body,
        };
        let headers = request::attempt_headers(endpoint, &of_attempt);
        let sent = self
            .settings
            .client
            .send(endpoint, headers, delivery.body.clone())
            .await;
        let verdict = sent.verdict(unix().as_secs());
        let message = match (&sent.failure, sent.status) {
            (Some(failure), _) => failure.message.clone(),
            (None, Some(status)) if verdict.outcome != Outcome::Success => {
                format!("the receiver answered {status}")
            }
            _ => String::new(),
        };
        let (request_headers, response_headers) = if verdict.outcome == Outcome::Success {
            Default::default()
        } else {
            // Made once more rather than copied before each request: failures are the few.
            let asked = shown::of_request(&request::attempt_headers(endpoint, &of_attempt));
            (asked, shown::of_answer(&sent.headers))
        };
        Attempt {
            number,
            outcome: verdict.outcome,
            next: verdict.next,
            status: sent.status,
            message,
            started_at_ms,
            duration: sent.duration,
            response_body: sent.body,
            request_headers,
            response_headers,
        }
    }
}

/// What an attempt tells of the endpoint: a refusal (400, 404 …) shows that it is there, a 429 and a blocked address say nothing.
fn worked(attempt: &Attempt) -> Option<bool> {
    match (attempt.outcome, attempt.next) {
        (Outcome::RateLimited | Outcome::Blocked, _) => None,
        (_, Next::Retry { .. }) => Some(false),
        (_, Next::Delivered | Next::Reject(_)) => Some(true),
    }
}

/// A webhook that cannot be sent at all, because a record of the catalog was written by something else than our checks.
fn unsendable(number: u32, started_at_ms: i64, message: String) -> Attempt {
    warn!(message, "a webhook cannot be sent");
    Attempt {
        number,
        outcome: Outcome::Protocol,
        next: Next::Reject(DeadReason::Rejected),
        status: None,
        message,
        started_at_ms,
        duration: Duration::ZERO,
        response_body: bytes::Bytes::new(),
        request_headers: Vec::new(),
        response_headers: Vec::new(),
    }
}
