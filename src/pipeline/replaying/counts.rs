//! What an order means, as numbers: how many letters, by what, and which are left where they are, so that whoever orders sees it before
//! anything is done. Memory is bounded whatever the topic holds (promise 6).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::retry::dead_letter::DeadLetter;

/// Different words of one kind that letters are counted by.
const MOST_WORDS: usize = 1000;
/// Letters that are left and named one by one.
const MOST_LEFT: usize = 20;

/// How many letters an order means.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub total: u64,
    pub by_reason: BTreeMap<String, u64>,
    /// Beyond `MOST_WORDS` the rest is one word.
    pub by_webhook: BTreeMap<String, u64>,
    pub by_event_type: BTreeMap<String, u64>,
    /// By the last answer's status; `none` where there was no answer.
    pub by_status: BTreeMap<String, u64>,
    /// By the day of death (UTC), such as `2026-11-22`; of a missed event, the day that it was written.
    #[serde(default)]
    pub by_day: BTreeMap<String, u64>,
    /// Meant, but never a delivery, or cut: a replay leaves them.
    pub not_replayable: u64,
    /// Meant, but replayed or discarded before.
    pub done_before: u64,
    /// Meant, but replayed too often before: a replay leaves them.
    pub replayed_too_often: u64,
    /// Of events that a webhook may have missed: those that are deliveries to it, on their way or held. They are left.
    #[serde(default)]
    pub on_their_way: u64,
    /// Of the same: those that are dead letters. They are left; a replay of dead letters sends them.
    #[serde(default)]
    pub dead_letters: u64,
    /// What must be known before this is believed, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The first of those that cannot go to the webhook that was named, and why; at most twenty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<Left>,
}

/// A letter that a replay leaves where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// `topic/partition/offset`.
    pub place: String,
    pub why: String,
}

/// What letters are counted by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Labels {
    reason: String,
    webhook: Option<String>,
    event_type: Option<String>,
    status: Option<u16>,
    /// Days after 1970-01-01.
    day: i64,
}

const DAY_MS: i64 = 86_400_000;

fn date(day: i64) -> String {
    let midnight = jiff::Timestamp::from_millisecond(day.saturating_mul(DAY_MS));
    midnight.map_or_else(
        |_| "none".to_owned(),
        |midnight| {
            midnight
                .to_zoned(jiff::tz::TimeZone::UTC)
                .date()
                .to_string()
        },
    )
}

impl Labels {
    pub(super) fn of(letter: &DeadLetter) -> Self {
        Self {
            reason: letter.reason.clone(),
            webhook: letter.webhook.clone(),
            event_type: letter.event_type.clone(),
            status: letter.last_status,
            day: letter.died_at_ms.div_euclid(DAY_MS),
        }
    }
}

/// Adds one. Only the first of a word needs a copy of it, and memory is bounded (promise 6): types are whatever producers write.
fn add(counts: &mut BTreeMap<String, u64>, word: &str) {
    let is_full = counts.len() >= MOST_WORDS;
    match counts.get_mut(word) {
        Some(count) => *count += 1,
        None if is_full => *counts.entry("(others)".to_owned()).or_default() += 1,
        None => {
            counts.insert(word.to_owned(), 1);
        }
    }
}

impl Counts {
    /// Counts a letter that cannot be sent; `why` is kept where there is something to say beyond that.
    pub(super) fn leave(&mut self, letter: &DeadLetter, why: Option<String>) {
        self.not_replayable += 1;
        if let Some(why) = why.filter(|_| self.left.len() < MOST_LEFT) {
            let place = letter.place.to_string();
            self.left.push(Left { place, why });
        }
    }

    /// Counts an event that a webhook missed.
    pub(super) fn count_missed(&mut self, webhook: &str, event_type: &str, at_ms: i64) {
        self.count(&Labels {
            reason: "never_delivered".to_owned(),
            webhook: Some(webhook.to_owned()),
            event_type: Some(event_type.to_owned()),
            status: None,
            day: at_ms.div_euclid(DAY_MS),
        });
    }

    pub(super) fn count(&mut self, labels: &Labels) {
        self.total += 1;
        add(&mut self.by_reason, &labels.reason);
        add(
            &mut self.by_webhook,
            labels.webhook.as_deref().unwrap_or("none"),
        );
        let event_type = labels.event_type.as_deref();
        add(&mut self.by_event_type, event_type.unwrap_or("none"));
        match labels.status {
            Some(status) => add(&mut self.by_status, &status.to_string()),
            None => add(&mut self.by_status, "none"),
        }
        add(&mut self.by_day, &date(labels.day));
    }
}
