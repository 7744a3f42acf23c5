//! The story of one delivery: records of our topics become steps, steps in order become an account and a state. Pure.
//!
//! Times are those at which the broker appended the records, so that one clock orders them all.

use serde::Serialize;
use serde_json::Value;

use crate::cli::output;
use crate::delivery::headers as name;
use crate::pipeline::topics::Topics;
use crate::record::{Record, header_text};
use crate::retry::dead_letter::DeadLetter;

/// An attempt's record and what followed from it are written at the same moment, to two topics.
const SAME_MOMENT_MS: i64 = 1_000;

/// What a record tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum What {
    /// It is in `dispatch`.
    Dispatched,
    /// A request was made.
    Attempted,
    /// It ended without a request.
    Ended,
    /// It was put on the delay ladder.
    Waits,
    /// Its webhook is paused.
    Held,
    DeadLettered,
}

/// One record of the story.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Step {
    /// RFC 3339.
    pub at: String,
    #[serde(skip)]
    pub at_ms: i64,
    pub what: What,
    /// `topic/partition/offset`.
    pub place: String,
    /// Attempts made until then.
    pub attempt: Option<u64>,
    pub outcome: Option<String>,
    pub status: Option<u64>,
    pub duration_seconds: Option<f64>,
    pub ending: Option<String>,
    /// Why it waits or died, in the contract's words.
    pub reason: Option<String>,
    pub message: Option<String>,
    /// When the next attempt is due, RFC 3339.
    pub due: Option<String>,
    #[serde(skip)]
    pub due_ms: Option<i64>,
    pub replay_id: Option<String>,
    #[serde(skip)]
    webhook_id: Option<String>,
    #[serde(skip)]
    event_type: Option<String>,
    #[serde(skip)]
    source: Option<String>,
}

impl Step {
    /// What a record tells of the delivery; `None` if it is about another.
    pub(super) fn read(record: Record, id: &str, topics: &Topics) -> Option<Self> {
        if record.topic == topics.attempts {
            return Self::of_attempt(&record, id);
        }
        let list = &record.headers;
        if header_text(list, name::DELIVERY_ID) != Some(id) {
            return None;
        }
        let text = |name: &str| header_text(list, name).map(str::to_owned);
        let what = if record.topic == topics.dispatch {
            What::Dispatched
        } else if record.topic == topics.held {
            What::Held
        } else if record.topic == topics.dead_letters {
            What::DeadLettered
        } else {
            What::Waits
        };
        let due_ms = match what {
            What::Waits => text(name::DUE).and_then(|text| text.parse().ok()),
            _ => None,
        };
        let mut step = Self {
            attempt: text(name::ATTEMPT).and_then(|text| text.parse().ok()),
            replay_id: text(name::REPLAY_ID),
            webhook_id: text(name::WEBHOOK_ID),
            event_type: text(name::EVENT_TYPE),
            source: text(name::SOURCE),
            due: due_ms.map(output::time),
            due_ms,
            ..Self::bare(&record, what)
        };
        match what {
            What::Waits => step.reason = text(name::REASON),
            What::DeadLettered => {
                let letter = DeadLetter::from_record(record);
                step.status = letter.last_status.map(u64::from);
                step.message = Some(letter.message).filter(|message| !message.is_empty());
                step.reason = Some(letter.reason);
            }
            _ => {}
        }
        Some(step)
    }

    fn of_attempt(record: &Record, id: &str) -> Option<Self> {
        if record.key.as_deref() != Some(id.as_bytes()) {
            return None;
        }
        let value: Value = serde_json::from_slice(record.payload.as_deref()?).ok()?;
        let text = |name: &str| {
            let found = value.get(name).and_then(Value::as_str);
            found.filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let outcome = text("outcome");
        let what = if outcome.is_some() {
            What::Attempted
        } else {
            What::Ended
        };
        let due_ms = value.get("due_ms").and_then(Value::as_i64);
        Some(Self {
            attempt: value.get("attempt").and_then(Value::as_u64),
            outcome,
            status: value.get("status").and_then(Value::as_u64),
            duration_seconds: value.get("duration_seconds").and_then(Value::as_f64),
            ending: text("ending"),
            reason: text("reason"),
            message: text("error_message"),
            due: due_ms.map(output::time),
            due_ms,
            replay_id: text("replay_id"),
            webhook_id: text("webhook_id"),
            event_type: text("event_type"),
            source: text("source"),
            ..Self::bare(record, what)
        })
    }

    fn bare(record: &Record, what: What) -> Self {
        let at_ms = record.timestamp_ms.unwrap_or(0);
        Self {
            at: output::time(at_ms),
            at_ms,
            what,
            place: record.source().to_string(),
            attempt: None,
            outcome: None,
            status: None,
            duration_seconds: None,
            ending: None,
            reason: None,
            message: None,
            due: None,
            due_ms: None,
            replay_id: None,
            webhook_id: None,
            event_type: None,
            source: None,
        }
    }

    /// The step in words.
    pub(super) fn sentence(&self) -> String {
        let attempt = self.attempt.unwrap_or(0);
        let mut text = match self.what {
            What::Dispatched => {
                let replay = self.replay_id.as_ref();
                let replay = replay.map_or(String::new(), |id| format!(" (replay {id})"));
                format!("queued for attempt {}{replay}", attempt + 1)
            }
            What::Attempted => {
                let outcome = self.outcome.as_deref().unwrap_or_default();
                let mut text = format!("attempt {attempt}: {outcome}");
                if let Some(status) = self.status {
                    text.push_str(&format!(", status {status}"));
                }
                if let Some(seconds) = self.duration_seconds {
                    text.push_str(&format!(", {seconds:.3} s"));
                }
                text
            }
            What::Ended => self.ending.clone().unwrap_or_else(|| "ended".to_owned()),
            What::Waits => {
                let why = match self.reason.as_deref() {
                    Some("retry") => "for its next attempt",
                    Some("paced") => "for the webhook's rate limit or concurrency",
                    Some("gated") => "because the endpoint asked for a pause",
                    Some("probe") => "to be the next probe of its endpoint, which is down",
                    Some("tripped") => "because its endpoint is down; no attempt is consumed",
                    Some("unknown") => "because its webhook was not in the catalog",
                    _ => "for its time",
                };
                let due = self.due.as_deref().unwrap_or("an unknown time");
                format!("waits {why}, due {due}")
            }
            What::Held => "held, because its webhook is paused".to_owned(),
            What::DeadLettered => format!(
                "dead-lettered: {}",
                self.reason.as_deref().unwrap_or("unknown")
            ),
        };
        if let Some(message) = &self.message {
            text.push_str(&format!(": {message}"));
        }
        output::escaped(&text)
    }
}

/// Where a delivery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    Delivered,
    DeadLettered,
    Dropped,
    /// On the ladder until its time.
    Waiting,
    /// On the ladder for longer than that.
    Overdue,
    /// In `dispatch` or in a lane.
    Dispatched,
    Held,
}

/// All that the topics tell of a delivery.
#[derive(Debug, Serialize)]
pub(super) struct Story {
    pub delivery_id: String,
    pub webhook_id: Option<String>,
    pub event_type: Option<String>,
    /// `topic/partition/offset` of the event.
    pub source: Option<String>,
    pub state: State,
    /// RFC 3339, where it waits for it.
    pub next_attempt_at: Option<String>,
    pub steps: Vec<Step>,
    #[serde(skip)]
    due_ms: Option<i64>,
}

impl Story {
    /// Orders the steps; `None` if there is none.
    pub(super) fn of(id: &str, mut steps: Vec<Step>, now_ms: i64) -> Option<Self> {
        // The places break ties, so that one story is always told the same way.
        steps.sort_by(|one, other| {
            (one.at_ms, one.what, &one.place).cmp(&(other.at_ms, other.what, &other.place))
        });
        put_causes_first(&mut steps);
        let last = steps.last()?;
        let due_ms = last.due_ms;
        let waiting = match due_ms {
            Some(due_ms) if due_ms < now_ms => State::Overdue,
            _ => State::Waiting,
        };
        let state = match (last.what, last.ending.as_deref()) {
            (What::Dispatched, _) => State::Dispatched,
            (What::Held, _) => State::Held,
            (What::DeadLettered, _) | (_, Some("dead_lettered")) => State::DeadLettered,
            (_, Some("delivered")) => State::Delivered,
            (_, Some(_)) | (What::Ended, None) => State::Dropped,
            (What::Waits | What::Attempted, None) => waiting,
        };
        let is_waiting = matches!(state, State::Waiting | State::Overdue);
        fn first(steps: &[Step], field: impl Fn(&Step) -> &Option<String>) -> Option<String> {
            steps.iter().find_map(|step| field(step).clone())
        }
        Some(Self {
            delivery_id: id.to_owned(),
            webhook_id: first(&steps, |step| &step.webhook_id),
            event_type: first(&steps, |step| &step.event_type),
            source: first(&steps, |step| &step.source),
            state,
            next_attempt_at: due_ms.filter(|_| is_waiting).map(output::time),
            due_ms: due_ms.filter(|_| is_waiting),
            steps,
        })
    }

    /// The state in words, with what to look at where it has not ended.
    pub(super) fn conclusion(&self, now_ms: i64) -> String {
        let webhook = self.webhook_id.as_deref().unwrap_or("ID");
        let due = self.due_ms.unwrap_or(now_ms);
        let seconds = due.abs_diff(now_ms).div_ceil(1000);
        let at = self.next_attempt_at.as_deref().unwrap_or_default();
        match self.state {
            State::Delivered => "delivered".to_owned(),
            State::DeadLettered => format!(
                "dead-lettered; send it in again with `postrider dead-letters replay --delivery {}`",
                self.delivery_id
            ),
            State::Dropped => "dropped; its webhook was deleted".to_owned(),
            State::Waiting => format!("waiting; its next attempt is due {at}, in {seconds} s"),
            State::Overdue => format!(
                "overdue; its next attempt was due {at}, {seconds} s ago: a second or two is usual, more means that no instance runs the release stage or that it lags"
            ),
            State::Dispatched => "in dispatch: being attempted, or waiting for the instance that owns its webhook (none runs the deliver stage, or it lags)".to_owned(),
            State::Held => format!("held; `postrider subscriptions resume {webhook}` lets it go on"),
        }
    }
}

/// What follows from an attempt may be appended a moment before the attempt's own record; told is the attempt first.
fn put_causes_first(steps: &mut [Step]) {
    for index in 1..steps.len() {
        let mut at = index;
        while at > 0 {
            let (Some(earlier), Some(later)) = (steps.get(at - 1), steps.get(at)) else {
                break;
            };
            let is_effect = matches!(earlier.what, What::Waits | What::DeadLettered)
                && later.what == What::Attempted
                && earlier.attempt == later.attempt
                && later.at_ms - earlier.at_ms <= SAME_MOMENT_MS;
            if !is_effect {
                break;
            }
            steps.swap(at - 1, at);
            at -= 1;
        }
    }
}

#[cfg(test)]
mod tests;
