//! Replays: which dead letters a command means, and which were sent in again already.
//!
//! A job is one compact record: its filter, the stretch of the topic that it covers, and how far it has come. Whether a letter was replayed is *derived*: it was when
//! some job's filter matches it and the job has passed its place. So a second run of the same command sends nothing twice, and a job that was
//! stopped, or killed, goes on where it was. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::dead_letter::DeadLetter;

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
}

impl LetterFilter {
    /// Whether a letter is meant.
    pub fn matches(&self, letter: &DeadLetter) -> bool {
        fn holds<T: PartialEq>(wanted: Option<&T>, found: Option<&T>) -> bool {
            wanted.is_none() || wanted == found
        }
        let type_holds = match (&self.event_type, &letter.event_type) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(wanted), Some(found)) => match wanted.strip_suffix('*') {
                Some(prefix) => found.starts_with(prefix),
                None => wanted == found,
            },
        };
        let delivery = letter.delivery.as_ref().map(|delivery| &delivery.id);
        type_holds
            && holds(self.webhook.as_ref(), letter.webhook.as_ref())
            && holds(self.reason.as_ref(), Some(&letter.reason))
            && holds(self.status.as_ref(), letter.last_status.as_ref())
            && holds(self.delivery.as_ref(), delivery)
            && self.since_ms.is_none_or(|since| letter.died_at_ms >= since)
            && self.until_ms.is_none_or(|until| letter.died_at_ms < until)
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
}

/// A job, as it stands in the replays topic under its id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    pub id: String,
    pub deed: Deed,
    pub filter: LetterFilter,
    /// Replayed to this URL rather than the webhook's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Also what an earlier job has done already.
    #[serde(default)]
    pub again: bool,
    /// Why, for a discard.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    pub state: State,
    pub created_at_ms: i64,
    /// By partition of the dead-letter topic.
    pub stretches: BTreeMap<i32, Stretch>,
    /// Letters sent in, or discarded.
    pub done: u64,
}

impl Job {
    /// Whether this job has dealt with a letter.
    pub fn has_done(&self, letter: &DeadLetter) -> bool {
        let offset = letter.place.offset;
        self.stretches
            .get(&letter.place.partition)
            .is_some_and(|stretch| stretch.from <= offset && offset < stretch.next)
            && self.filter.matches(letter)
    }
}

/// What has been done with a letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Waiting,
    Replayed,
    Discarded,
}

/// All jobs that the topic tells of.
#[derive(Clone, Debug, Default)]
pub struct Jobs(pub Vec<Job>);

impl Jobs {
    /// What has been done with a letter, by the newest job that dealt with it.
    pub fn fate(&self, letter: &DeadLetter) -> Fate {
        let newest = self
            .0
            .iter()
            .filter(|job| job.has_done(letter))
            .max_by_key(|job| job.created_at_ms);
        match newest.map(|job| job.deed) {
            None => Fate::Waiting,
            Some(Deed::Replay) => Fate::Replayed,
            Some(Deed::Discard) => Fate::Discarded,
        }
    }

    /// The job of this id.
    pub fn get(&self, id: &str) -> Option<&Job> {
        self.0.iter().find(|job| job.id == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Header, Record, SourceOffset};

    fn letter(offset: i64, reason: &str) -> DeadLetter {
        DeadLetter::from_record(Record {
            topic: "postrider.dead-letters".into(),
            partition: 0,
            offset: SourceOffset(offset),
            timestamp_ms: Some(offset * 10),
            key: None,
            payload: None,
            headers: vec![
                Header::text("postrider-reason", reason.to_owned()),
                Header::text("postrider-event-type", "job.failed"),
                Header::text("postrider-webhook-id", "wh_a"),
                Header::text("postrider-last-status", "500"),
            ],
        })
    }

    fn job(filter: LetterFilter, next: i64) -> Job {
        Job {
            id: "rp_1".to_owned(),
            deed: Deed::Replay,
            filter,
            to: None,
            again: false,
            reason: String::new(),
            state: State::Running,
            created_at_ms: 1,
            stretches: BTreeMap::from([(
                0,
                Stretch {
                    from: 0,
                    to: 100,
                    next,
                },
            )]),
            done: 0,
        }
    }

    #[test]
    fn a_letter_that_a_job_has_passed_is_replayed_and_the_next_one_waits() {
        let jobs = Jobs(vec![job(LetterFilter::default(), 5)]);
        assert_eq!(jobs.fate(&letter(4, "exhausted")), Fate::Replayed);
        assert_eq!(jobs.fate(&letter(5, "exhausted")), Fate::Waiting);
    }

    #[test]
    fn a_letter_that_a_job_did_not_mean_still_waits() {
        let filter = LetterFilter {
            reason: Some("rejected".to_owned()),
            ..LetterFilter::default()
        };
        let jobs = Jobs(vec![job(filter, 100)]);
        assert_eq!(jobs.fate(&letter(4, "exhausted")), Fate::Waiting);
        assert_eq!(jobs.fate(&letter(4, "rejected")), Fate::Replayed);
    }

    #[test]
    fn every_field_of_a_filter_counts() {
        let letter = letter(4, "exhausted");
        let fits = |filter: LetterFilter| filter.matches(&letter);
        let none = LetterFilter::default;
        assert!(fits(none()));
        assert!(fits(LetterFilter {
            event_type: Some("job.*".into()),
            ..none()
        }));
        assert!(!fits(LetterFilter {
            event_type: Some("device.*".into()),
            ..none()
        }));
        assert!(fits(LetterFilter {
            webhook: Some("wh_a".into()),
            status: Some(500),
            ..none()
        }));
        assert!(!fits(LetterFilter {
            webhook: Some("wh_b".into()),
            ..none()
        }));
        assert!(!fits(LetterFilter {
            status: Some(404),
            ..none()
        }));
        assert!(fits(LetterFilter {
            since_ms: Some(40),
            until_ms: Some(41),
            ..none()
        }));
        assert!(!fits(LetterFilter {
            since_ms: Some(41),
            ..none()
        }));
        assert!(!fits(LetterFilter {
            until_ms: Some(40),
            ..none()
        }));
        assert!(!fits(LetterFilter {
            delivery: Some("dlv_x".into()),
            ..none()
        }));
    }

    #[test]
    fn a_job_survives_its_record() {
        let job = job(LetterFilter::default(), 5);
        let text = serde_json::to_string(&job).unwrap();
        assert_eq!(serde_json::from_str::<Job>(&text).unwrap(), job);
    }
}
