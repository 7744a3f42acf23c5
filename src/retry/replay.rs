//! Replays: which dead letters a command means, and which were sent in again already.
//!
//! A job is one compact record: its filter, the stretch of the topic that it covers, and how far it has come. Whether a letter was replayed is *derived*: it was when
//! some job's filter matches it, the job has passed its place, and no other had done it by then. So a second run of the same command sends
//! nothing twice, and a job that was stopped, or killed, goes on where it was. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::dead_letter::{DeadLetter, Target};
use crate::subscription::is_inline;

/// Which dead letters are meant; every field that is set must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterFilter {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    /// A type, or a pattern with `*` at its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The last HTTP status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Died at or after this time, Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<i64>,
    /// Died before this time, Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<i64>,
    /// One delivery, by its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<String>,
    /// Only letters of these webhooks: those that whoever asks may see. An empty set means none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhooks: Option<BTreeSet<String>>,
    /// Only letters of this customer. One that does not say whose it is passes: `webhooks`, which is set beside this, decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer: Option<String>,
}

impl LetterFilter {
    /// Whether a type is meant.
    pub fn wants_type(&self, found: &str) -> bool {
        match self.event_type.as_deref() {
            None => true,
            Some(wanted) => match wanted.strip_suffix('*') {
                Some(prefix) => found.starts_with(prefix),
                None => wanted == found,
            },
        }
    }

    /// Whether a letter is meant.
    pub fn matches(&self, letter: &DeadLetter) -> bool {
        fn holds<T: PartialEq>(wanted: Option<&T>, found: Option<&T>) -> bool {
            wanted.is_none() || wanted == found
        }
        let type_holds = match &letter.event_type {
            None => self.event_type.is_none(),
            Some(found) => self.wants_type(found),
        };
        let delivery = letter.delivery.as_ref().map(|delivery| &delivery.id);
        // A webhook that an event carried is in no catalog: whose the delivery is decides.
        let is_own_inline = self.customer.is_some()
            && self.customer == letter.customer
            && letter.webhook.as_deref().is_some_and(is_inline);
        let is_seen = is_own_inline
            || self.webhooks.as_ref().is_none_or(|seen| {
                let webhook = letter.webhook.as_ref();
                webhook.is_some_and(|webhook| seen.contains(webhook))
            });
        let is_theirs = match (&self.customer, &letter.customer) {
            (Some(wanted), Some(found)) => wanted == found,
            _ => true,
        };
        is_seen
            && is_theirs
            && type_holds
            && holds(self.webhook.as_ref(), letter.webhook.as_ref())
            && holds(self.reason.as_ref(), Some(&letter.reason))
            && holds(self.status.as_ref(), letter.last_status.as_ref())
            && holds(self.delivery.as_ref(), delivery)
            && self.since_ms.is_none_or(|since| letter.died_at_ms >= since)
            && self.until_ms.is_none_or(|until| letter.died_at_ms < until)
    }
}

impl LetterFilter {
    /// Whether it is plain that no letter is meant by both.
    pub fn excludes(&self, other: &Self) -> bool {
        fn differ<T: PartialEq>(one: Option<&T>, other: Option<&T>) -> bool {
            one.is_some() && other.is_some() && one != other
        }
        let is_left_out = |one: &Self, other: &Self| {
            let seen = one.webhooks.as_ref();
            seen.zip(other.webhook.as_ref())
                .is_some_and(|(seen, webhook)| !seen.contains(webhook) && !is_inline(webhook))
        };
        let seen = self.webhooks.as_ref().zip(other.webhooks.as_ref());
        let are_of_two = self.customer != other.customer;
        seen.is_some_and(|(mine, theirs)| are_of_two && mine.is_disjoint(theirs))
            || is_left_out(self, other)
            || is_left_out(other, self)
            || differ(self.webhook.as_ref(), other.webhook.as_ref())
            || differ(self.reason.as_ref(), other.reason.as_ref())
            || differ(self.status.as_ref(), other.status.as_ref())
            || differ(self.delivery.as_ref(), other.delivery.as_ref())
    }
}

/// What a job does with the letters that it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// Sends them in again.
    Replay,
    /// Marks them as done with; the records stay until their retention.
    Discard,
}

/// How far a job has come in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// The first offset that it covers.
    pub from: i64,
    /// One past the last that it covers.
    pub to: i64,
    /// Everything below is done.
    pub next: i64,
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Running,
    /// Stopped before its end; it can be resumed.
    Stopped,
    Finished,
    /// Given up before its end, for good.
    Cancelled,
}

/// Who works on a job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Runner {
    /// The process that began it.
    #[default]
    Command,
    /// Whichever router owns the replays topic; when it dies, the next.
    Fleet,
}

/// What somebody wants of a job that the fleet works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Want {
    Run,
    Pause,
    Cancel,
}

/// A wish about a job. It has a record of its own, so that a job's record has one writer: who works on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    pub want: Want,
    /// Unix milliseconds.
    pub at_ms: i64,
}

/// What a router that owns the replays topic has to do about a job now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    Nothing,
    /// Take it up, or go on with it.
    Work,
    /// Write that it is stopped or cancelled.
    End(State),
}

/// That a job was taken up again after a stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumption {
    /// Unix milliseconds.
    pub at_ms: i64,
    /// Where it went on, by partition.
    pub from: BTreeMap<i32, i64>,
}

/// That a job does not work on dead letters: it sends the events between two times (its filter's) that its filter's webhook wants and did not get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    /// Topic and partition that each stretch covers; a stretch's number is the place in this list.
    pub places: Vec<(String, i32)>,
}

/// A job, as it stands in the replays topic under its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    pub id: String,
    /// The dead-letter topic that it works on.
    pub topic: String,
    pub deed: Deed,
    pub filter: LetterFilter,
    /// Replayed to this URL rather than the webhook's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Records that are no deliveries, written to this topic as they once came: what another program, or an undecodable event, left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub into: Option<String>,
    /// Records that are no deliveries, made deliveries to this webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_webhook: Option<Target>,
    /// From the source topics rather than the dead letters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<Missed>,
    /// Also what an earlier job has done already.
    #[serde(default)]
    pub again: bool,
    /// Why, for a discard.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Letters sent in per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
    /// Letters that were replayed so often before stay as they are: something sends them round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_replays: Option<u32>,
    #[serde(default)]
    pub runner: Runner,
    /// Why it stopped, when that was not asked for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    pub state: State,
    pub created_at_ms: i64,
    /// When this record was written. A running job writes it at least every [`SILENT_AFTER_MS`] / 2.
    pub updated_at_ms: i64,
    /// When how far it came was last written, Unix milliseconds; 0 before.
    #[serde(default)]
    pub reached_at_ms: i64,
    /// In order of time; a job that ran through has none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resumptions: Vec<Resumption>,
    /// When a discard was taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undone_at_ms: Option<i64>,
    /// By partition of the dead-letter topic.
    pub stretches: BTreeMap<i32, Stretch>,
    /// Letters sent in, or discarded.
    pub done: u64,
    /// Letters in all, as counted before it began.
    pub total: u64,
}

/// A running job that has written nothing for longer has died with its process.
pub const SILENT_AFTER_MS: i64 = 30_000;

impl Job {
    /// Whether a process is at work on it, or will be: what the fleet runs is taken up again whoever dies.
    pub fn is_alive(&self, now_ms: i64) -> bool {
        self.state == State::Running
            && (self.runner == Runner::Fleet
                || now_ms.saturating_sub(self.updated_at_ms) < SILENT_AFTER_MS)
    }

    /// What the owner of the replays topic has to do about it.
    pub fn duty(&self, wish: Option<Wish>) -> Duty {
        let want = wish.map_or(Want::Run, |wish| wish.want);
        match (self.runner, self.state, want) {
            (Runner::Command, ..) | (_, State::Finished | State::Cancelled, _) => Duty::Nothing,
            (_, _, Want::Cancel) => Duty::End(State::Cancelled),
            (_, State::Running, Want::Run) => Duty::Work,
            (_, State::Running, Want::Pause) => Duty::End(State::Stopped),
            (_, State::Stopped, Want::Pause) => Duty::Nothing,
            // What stopped by itself, for a reason that stands in its note, waits until somebody asks again.
            (_, State::Stopped, Want::Run) => match wish {
                Some(wish) if wish.at_ms >= self.updated_at_ms => Duty::Work,
                _ => Duty::Nothing,
            },
        }
    }

    /// Notes a change. Later records of a job have later times, even where a clock steps back.
    pub fn touch(&mut self, now_ms: i64) {
        self.updated_at_ms = now_ms.max(self.updated_at_ms.saturating_add(1));
    }

    /// Notes how far it came.
    pub fn reach(&mut self, partition: i32, next: i64, now_ms: i64) {
        self.touch(now_ms);
        self.reached_at_ms = self.updated_at_ms;
        if let Some(stretch) = self.stretches.get_mut(&partition) {
            stretch.next = stretch.next.max(next);
        }
    }

    /// Takes it up where it stands: for the first time, or again.
    pub fn take_up(&mut self, now_ms: i64) {
        let was_worked_on = self.updated_at_ms > self.created_at_ms;
        self.state = State::Running;
        self.note.clear();
        self.touch(now_ms);
        if was_worked_on {
            self.resumptions.push(Resumption {
                at_ms: self.updated_at_ms,
                from: self
                    .stretches
                    .iter()
                    .map(|(partition, stretch)| (*partition, stretch.next))
                    .collect(),
            });
        }
    }

    /// Whether a letter that was replayed so often before is left.
    pub fn is_too_often(&self, replays: u32) -> bool {
        self.max_replays.is_some_and(|most| replays >= most)
    }

    /// Whether both may come to the same letter yet.
    pub fn overlaps(&self, other: &Self) -> bool {
        if self.missed.is_some() || other.missed.is_some() {
            let is_same = self.missed.is_some() && other.missed.is_some();
            return is_same && !self.filter.excludes(&other.filter);
        }
        self.topic == other.topic
            && !self.filter.excludes(&other.filter)
            && self.stretches.iter().any(|(partition, mine)| {
                other
                    .stretches
                    .get(partition)
                    .is_some_and(|theirs| mine.next < theirs.to && theirs.next < mine.to)
            })
    }

    /// When the run began that passed this letter (Unix milliseconds); `None` when the job does not mean it, cannot do its deed to it,
    /// or has not come to it.
    fn passed_at_ms(&self, letter: &DeadLetter) -> Option<i64> {
        if self.missed.is_some() {
            return None;
        }
        let place = &letter.place;
        let stretch = self.stretches.get(&place.partition)?;
        let is_passed = stretch.from <= place.offset && place.offset < stretch.next;
        let is_meant = *self.topic == *place.topic && self.filter.matches(letter);
        let can_go = letter
            .can_go(self.into.is_some(), self.to_webhook.as_ref())
            .is_ok();
        let is_possible =
            self.deed == Deed::Discard || (can_go && !self.is_too_often(letter.replay_count));
        (is_passed && is_meant && is_possible).then(|| {
            let run = self.resumptions.iter().rev().find(|resumption| {
                resumption
                    .from
                    .get(&place.partition)
                    .is_some_and(|from| *from <= place.offset)
            });
            run.map_or(self.created_at_ms, |run| run.at_ms)
        })
    }

    /// Whether what it did counted at a time.
    fn counts_at(&self, time_ms: i64) -> bool {
        self.undone_at_ms.is_none_or(|undone| undone > time_ms)
    }
}

/// What has been done with a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Waiting,
    Replayed,
    Discarded,
}

impl Fate {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Replayed => "replayed",
            Self::Discarded => "discarded",
        }
    }
}

/// All jobs that the topic tells of.
#[derive(Clone, Debug, Default)]
pub struct Jobs(pub Vec<Job>);

impl Jobs {
    /// What has been done with a letter.
    pub fn fate(&self, letter: &DeadLetter) -> Fate {
        match self.doer(letter).map(|job| job.deed) {
            None => Fate::Waiting,
            Some(Deed::Replay) => Fate::Replayed,
            Some(Deed::Discard) => Fate::Discarded,
        }
    }

    /// The newest job that did something with a letter. A job that passed a letter which another had done before did nothing to it, so that
    /// taking that other one back makes the letter wait again.
    pub fn doer(&self, letter: &DeadLetter) -> Option<&Job> {
        let mut passes: Vec<(i64, &Job)> = self
            .0
            .iter()
            .filter_map(|job| Some((job.passed_at_ms(letter)?, job)))
            .collect();
        passes.sort_by_key(|(at_ms, job)| (*at_ms, &job.id));
        let mut doers: Vec<&Job> = Vec::new();
        for (at_ms, job) in passes {
            if job.again || !doers.iter().any(|doer| doer.counts_at(at_ms)) {
                doers.push(job);
            }
        }
        doers
            .into_iter()
            .rev()
            .find(|job| job.undone_at_ms.is_none())
    }

    /// The job of this id.
    pub fn get(&self, id: &str) -> Option<&Job> {
        self.0.iter().find(|job| job.id == id)
    }
}

#[cfg(test)]
mod tests;
