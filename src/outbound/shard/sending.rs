//! One attempt of a shard: the request, what it tells the lane, and the finish.

use std::rc::Rc;
use std::time::Duration;

use tracing::{info, warn};

use super::super::breaker::State;
use super::super::lane::Answer;
use super::super::limits::Limits;
use super::super::notice::Notice;
use super::super::request::{self, Endpoint};
use super::super::shown;
use super::{Finish, Shard, Submission, WebhookLane, unix};
use crate::attempt::{Attempt, Next, Outcome};
use crate::delivery::{DeadReason, Delivery};
use crate::traces::names;
use crate::traces::span::Span;

impl Shard {
    /// Makes the request of a submission and finishes it, whatever comes of it.
    pub(super) async fn attempt(
        self: Rc<Self>,
        mut submission: Submission,
        endpoint: Rc<Result<Endpoint, String>>,
        labelled: bool,
    ) {
        if let Some(lane) = self.lanes.borrow_mut().get_mut(&submission.webhook.id) {
            lane.lane.sent(self.now());
        }
        let started_at = unix();
        let started_at_ms = i64::try_from(started_at.as_millis()).unwrap_or(i64::MAX);
        let delivery = &mut submission.delivery;
        delivery.attempts = delivery.attempts.saturating_add(1);
        delivery.first_attempt_at_ms.get_or_insert(started_at_ms);
        let attempt = match endpoint.as_ref() {
            Ok(endpoint) => {
                let mut span = self.begin(delivery);
                let attempt = self
                    .request(endpoint, delivery, started_at, span.as_mut())
                    .await;
                self.end(span, delivery, &attempt);
                attempt
            }
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
        // A replay to another URL tells nothing of the webhook's endpoint.
        let is_elsewhere = submission.delivery.url.is_some();
        let answer = answer(&attempt, is_elsewhere);
        let mut back = Vec::new();
        if let Some(lane) = self.lanes.borrow_mut().get_mut(&id) {
            let now = self.now();
            let before = lane.lane.state();
            lane.lane.ended(answer, now);
            self.notice(lane, &submission, before, answer);
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

    /// The span of an attempt, below that which wrote the delivery to `dispatch` and linked to the attempt before it.
    fn begin(&self, delivery: &Delivery) -> Option<Span> {
        let tracer = self.settings.tracer.as_ref()?;
        let mut span = tracer.below(&delivery.traced.publish?)?;
        span.link = delivery.traced.attempt;
        let webhook = delivery.webhook.as_str();
        names::attempt(&mut span, &delivery.id, webhook, delivery.attempts);
        Some(span)
    }

    fn end(&self, span: Option<Span>, delivery: &mut Delivery, attempt: &Attempt) {
        let (Some(tracer), Some(mut span)) = (&self.settings.tracer, span) else {
            return;
        };
        let outcome = attempt.outcome.as_str();
        names::answered(&mut span, attempt.status, outcome, &attempt.message);
        delivery.traced.attempt = Some(span.context);
        tracer.end(span);
    }

    /// Keeps to other limits from now on, in lanes that are open too.
    pub(super) fn limit(self: &Rc<Self>, limits: Limits) {
        self.limits.set(limits);
        for lane in self.lanes.borrow_mut().values_mut() {
            lane.lane.be_patient(limits.patience);
        }
        self.feed_starved();
    }

    /// Enters what a request told of its endpoint, and reports what others must know.
    fn notice(
        &self,
        lane: &mut WebhookLane,
        submission: &Submission,
        before: State,
        answer: Answer,
    ) {
        let id = &submission.webhook.id;
        let after = lane.lane.state();
        if after != before {
            self.settings.standings.set(id, after);
        }
        // A failed probe only leads back to where it was.
        let transition = match (before, after) {
            (State::Passing, State::Tripped) if !answer.gone => {
                warn!(webhook = %id, "the endpoint fails: nothing but probes is sent until it recovers");
                Some(Notice::Tripped)
            }
            (State::Tripped | State::Probing, State::Passing) => {
                info!(webhook = %id, "the endpoint has recovered");
                Some(Notice::Recovered)
            }
            _ => None,
        };
        let now_ms = i64::try_from(unix().as_millis()).unwrap_or(i64::MAX);
        let limit = self.limits.get().disable_after;
        let is_passing = after == State::Passing;
        let told = answer.delivered.and_then(|delivered| {
            lane.signs
                .ended(delivered, transition, is_passing, limit, now_ms)
        });
        let notice = if answer.gone {
            Some(Notice::Gone)
        } else {
            told
        };
        lane.given_up |= matches!(notice, Some(Notice::Gone | Notice::GivenUp));
        if let Some(notice) = notice {
            (self.settings.report)(&submission.webhook, notice, &lane.signs);
        }
    }

    async fn request(
        &self,
        endpoint: &Endpoint,
        delivery: &Delivery,
        started_at: Duration,
        span: Option<&mut Span>,
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
        let body = request::body_of(endpoint.body, &delivery.id, &delivery.body);
        let below = span.map(|span| {
            names::target(span, endpoint.method.as_str(), &endpoint.url);
            span.context.to_string()
        });
        let of_attempt = request::Attempt {
            delivery_id: &delivery.id,
            event_type: &delivery.event_type,
            number,
            unix_seconds: started_at.as_secs(),
            traceparent: below.as_deref().or(delivery.traceparent()),
            tracestate: delivery.tracestate(),
            body: &body,
        };
        let headers = request::attempt_headers(endpoint, &of_attempt);
        let sent = self
            .settings
            .client
            .send(endpoint, headers, body.clone())
            .await;
        let verdict = sent.verdict(unix().as_secs());
        let message = match (&sent.failure, sent.status) {
            (Some(failure), _) => failure.message.clone(),
            (None, Some(status)) if verdict.outcome != Outcome::Success => {
                format!("the receiver answered {status}")
            }
            _ => String::new(),
        };
        let details = self.settings.details.as_ref();
        let is_told = verdict.outcome != Outcome::Success
            || details.is_some_and(|details| details.check().is_ok());
        let (request_headers, response_headers, response_body) = if is_told {
            // Made once more rather than copied before each request: these are the few.
            let asked = shown::of_request(&request::attempt_headers(endpoint, &of_attempt));
            (asked, shown::of_answer(&sent.headers), sent.body)
        } else {
            Default::default()
        };
        Attempt {
            number,
            outcome: verdict.outcome,
            next: verdict.next,
            status: sent.status,
            message,
            started_at_ms,
            duration: sent.duration,
            response_body,
            request_headers,
            response_headers,
        }
    }
}

fn answer(attempt: &Attempt, is_elsewhere: bool) -> Answer {
    let took = attempt.duration;
    if is_elsewhere {
        return Answer {
            took,
            ..Answer::default()
        };
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
    Answer {
        took,
        worked: worked(attempt),
        delivered: worked(attempt).map(|_| attempt.outcome == Outcome::Success),
        congested: matches!(attempt.outcome, Outcome::RateLimited | Outcome::Timeout)
            || attempt.status == Some(503),
        gate,
        gone: attempt.status == Some(410),
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
