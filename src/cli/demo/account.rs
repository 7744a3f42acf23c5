//! The live account: receivers, the producer and the watched topics tell it what happened; it keeps the books and says it.
//!
//! Shared by their threads; one lock, held only for the bookkeeping.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::books::{Acceptance, Books, Tally};
use super::screen::{Screen, Sign};
use crate::event::Event;
use crate::record::Source;
use crate::retry::dead_letter::DeadLetter;
use crate::subscription::WebhookId;

/// A line of the attempts topic, as far as it is told. Its webhook is not checked to be one.
#[derive(Deserialize)]
pub(super) struct AttemptLine {
    delivery_id: String,
    webhook_id: String,
    event_type: String,
    attempt: u32,
    started_at_ms: i64,
    #[serde(default)]
    status: Option<u16>,
    #[serde(default)]
    error_message: String,
    #[serde(default)]
    ending: Option<String>,
    #[serde(default)]
    due_ms: Option<i64>,
}

/// A request as a receiver of the demo got it.
pub(super) struct Request<'a> {
    pub id: &'a str,
    pub webhook: &'a WebhookId,
    pub event_type: &'a str,
    pub attempt: u32,
    /// From the event's own time to the receiver, where the event tells it.
    pub since_event: Option<Duration>,
}

/// See the module's text.
pub(super) struct Account {
    pub(super) screen: Screen,
    state: Mutex<State>,
}

struct State {
    books: Books,
    /// The demo's own webhooks; others are told of by the attempts topic alone.
    ours: HashSet<WebhookId>,
    /// Dead letters that have not been looked at for a replay.
    letters: Vec<DeadLetter>,
    /// By source topic: everything in it at this instant has been told.
    told_until: BTreeMap<String, Instant>,
    /// Catalog records by webhook.
    versions: HashMap<String, u32>,
    unverified: u64,
}

impl Account {
    pub(super) fn new(screen: Screen, books: Books, ours: HashSet<WebhookId>) -> Self {
        Self {
            screen,
            state: Mutex::new(State {
                books,
                ours,
                letters: Vec::new(),
                told_until: BTreeMap::new(),
                versions: HashMap::new(),
                unverified: 0,
            }),
        }
    }

    /// The account goes on after a panic of one of those who tell it things.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The demo's own webhooks.
    pub(super) fn ours(&self) -> Vec<WebhookId> {
        self.state().ours.iter().cloned().collect()
    }

    /// An event is in a source topic.
    pub(super) fn produced(&self, source: Source, event: &Event) {
        self.state().books.produced(source, event);
    }

    /// Everything that was in a source topic at `instant` has been told.
    pub(super) fn told(&self, topic: &str, instant: Instant) {
        self.state().told_until.insert(topic.to_owned(), instant);
    }

    /// Whether everything of so many source topics has been told that was in them at `instant`.
    pub(super) fn is_told(&self, topics: usize, instant: Instant) -> bool {
        let state = self.state();
        state.told_until.len() >= topics && state.told_until.values().all(|until| *until >= instant)
    }

    /// A request came to a receiver of the demo.
    pub(super) fn arrived(&self, request: &Request<'_>) {
        let mut state = self.state();
        state
            .books
            .arrived(request.id, request.webhook, request.attempt);
    }

    /// A receiver refused a request because its signature is wrong; a defect.
    pub(super) fn unverified(&self, request: &Request<'_>, why: &str) {
        self.state().unverified += 1;
        let text = told(request.webhook, request.event_type, why);
        self.screen.line(Sign::Dead, text);
    }

    /// Requests whose signature was wrong.
    pub(super) fn unverified_requests(&self) -> u64 {
        self.state().unverified
    }

    /// A receiver of the demo answers 2xx.
    pub(super) fn accepted(&self, request: &Request<'_>) {
        let acceptance = self.state().books.accepted(request.id, request.webhook);
        let mut text = match request.since_event {
            Some(since) => format!("{:>6} ms", since.as_millis()),
            None => format!("{:>9}", ""),
        };
        if request.attempt > 1 {
            text.push_str(&format!(", attempt {}", request.attempt));
        }
        match acceptance {
            Acceptance::First => {}
            Acceptance::AfterReplay => text.push_str(", replayed"),
            Acceptance::Repeated => text.push_str(", a copy of one that it had"),
        }
        let text = told(request.webhook, request.event_type, &text);
        self.screen.line(Sign::Delivered, text);
    }

    /// A line of the attempts topic.
    pub(super) fn attempted(&self, line: &AttemptLine) {
        let Ok(webhook) = WebhookId::new(&line.webhook_id) else {
            return;
        };
        let is_ours = self.state().ours.contains(&webhook);
        match (line.ending.as_deref(), line.due_ms) {
            (None, Some(due_ms)) => {
                let why = match line.status {
                    Some(status) => format!("answered {status}"),
                    None => line.error_message.clone(),
                };
                let seconds = due_ms.saturating_sub(line.started_at_ms).max(0) as f64 / 1000.0;
                let text = format!("{why}, attempt {}; again in {seconds:.1} s", line.attempt);
                let text = told(&webhook, &line.event_type, &text);
                self.screen.line(Sign::Retried, text);
            }
            // Our own receivers have said it themselves.
            (Some("delivered"), _) if !is_ours => {
                let text = told(&webhook, &line.event_type, "your webhook took it");
                self.screen.line(Sign::Delivered, text);
            }
            (Some("dropped"), _) => {
                self.state().books.dropped(&line.delivery_id, &webhook);
                let text = told(
                    &webhook,
                    &line.event_type,
                    "dropped, its webhook was deleted",
                );
                self.screen.line(Sign::Dead, text);
            }
            _ => {}
        }
    }

    /// A record of the dead-letter topic.
    pub(super) fn died(&self, letter: DeadLetter) {
        let mut text = format!("dead letter: {}", letter.reason);
        if let Some(attempts) = letter.attempts.filter(|attempts| *attempts > 0) {
            text.push_str(&format!(" after {attempts} attempts"));
        }
        if !letter.message.is_empty() {
            text.push_str(&format!(" ({})", letter.message));
        }
        match &letter.delivery {
            Some(delivery) => {
                let text = told(&delivery.webhook, &delivery.event_type, &text);
                self.screen.line(Sign::Dead, text);
                let mut state = self.state();
                state.books.died(&delivery.id, &delivery.webhook);
                state.letters.push(letter);
            }
            None => self
                .screen
                .line(Sign::Dead, format_args!("{} {text}", letter.place)),
        }
    }

    /// The dead letters that are worth a replay and were not given out yet; they count as replayed now.
    pub(super) fn take_letters(&self) -> Vec<DeadLetter> {
        let mut state = self.state();
        let letters = std::mem::take(&mut state.letters);
        letters
            .into_iter()
            .filter(|letter| {
                letter.delivery.as_ref().is_some_and(|delivery| {
                    let wanted = state.books.may_replay(&delivery.id);
                    if wanted {
                        state.books.replayed(&delivery.id);
                    }
                    wanted
                })
            })
            .collect()
    }

    /// Whether a dead letter waits for a replay.
    pub(super) fn has_letters(&self) -> bool {
        let state = self.state();
        state.letters.iter().any(|letter| {
            let delivery = letter.delivery.as_ref();
            delivery.is_some_and(|delivery| state.books.may_replay(&delivery.id))
        })
    }

    /// A record of the catalog. The demo writes every webhook once; a second record is somebody else's.
    pub(super) fn catalog_record(&self, webhook: &str, is_deleted: bool) {
        let mut state = self.state();
        let versions = state.versions.entry(webhook.to_owned()).or_default();
        *versions += 1;
        if *versions < 2 && state.ours.contains(webhook) {
            return;
        }
        let is_ours = state.ours.contains(webhook);
        if is_ours {
            state.books.changed(webhook);
        }
        drop(state);
        let what = match (is_ours, is_deleted) {
            (true, _) => "was changed by you; it is not judged any more",
            (false, true) => "is gone from the catalog",
            (false, false) => "is in the catalog, a webhook of yours",
        };
        self.screen
            .line(Sign::Notice, format_args!("{webhook} {what}"));
    }

    /// Says how things stand.
    pub(super) fn say_status(&self) {
        let state = self.state();
        let tally = state.books.tally(&HashSet::new());
        let open: Vec<String> = state
            .books
            .open()
            .iter()
            .map(|(webhook, count)| format!("{webhook} {count}"))
            .collect();
        drop(state);
        let waiting = if open.is_empty() {
            "nothing waits".to_owned()
        } else {
            format!("waiting: {}", open.join(", "))
        };
        let all = tally.all;
        self.screen.line(
            Sign::Status,
            format_args!(
                "{} events, {} of {} deliveries made, {} dead letters, {} replayed; {waiting}",
                tally.events, all.delivered, all.wanted, all.dead_lettered, all.replayed
            ),
        );
    }

    /// Whether every delivery has an ending.
    pub(super) fn is_settled(&self) -> bool {
        self.state().books.is_settled()
    }

    /// The deliveries that an event caused.
    pub(super) fn caused_by(&self, source: &Source) -> Vec<String> {
        self.state().books.caused_by(source).to_vec()
    }

    /// The figures; see [`Books::tally`].
    pub(super) fn tally(&self, in_topics: &HashSet<String>) -> Tally {
        self.state().books.tally(in_topics)
    }
}

/// A line about a delivery. Event types come from outside; control characters in them were refused at intake.
fn told(webhook: &WebhookId, event_type: &str, what: &str) -> String {
    format!("{:<14} {event_type:<29} {what}", webhook.as_str())
}
