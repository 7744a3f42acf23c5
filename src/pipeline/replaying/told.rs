//! What the topics tell of the events of a window: which of them became a delivery to one webhook, and what came of it.
//!
//! Promise 1: whatever was written to `dispatch` ends, so an event that stands there for the webhook was not missed, wherever it waits now. One byte is
//! kept for an event, and a window has its bound (promise 6).

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

use serde::Deserialize;

use super::missed::{Missing, SLACK_MS};
use super::{Error, Replaying};
use crate::delivery::headers as name;
use crate::kafka::table::{Span, scan};
use crate::record::{Record, Source, header_text};
use crate::retry::replay::Job;

/// What came of an event, as far as is known. What is further down says more and counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Course {
    /// No delivery is known.
    Nothing,
    /// There is a delivery: it is on its way, held, or has ended.
    Begun,
    /// Its webhook was deleted at that time; it is there again.
    Dropped,
    /// It is a dead letter.
    Dead,
    Delivered,
}

/// Of a record of the attempts topic, what tells how a delivery ended.
#[derive(Deserialize)]
struct Told<'a> {
    #[serde(borrow)]
    webhook_id: Cow<'a, str>,
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow)]
    ending: Option<Cow<'a, str>>,
}

/// One stretch's events: the first offset, and a byte for each from there.
struct Stretched {
    from: i64,
    courses: Vec<Course>,
}

/// What is known of all events of a job.
#[derive(Default)]
pub(super) struct Courses {
    /// By the number of the stretch.
    stretches: BTreeMap<i32, Stretched>,
    /// The number of a stretch, by topic and partition.
    numbers: HashMap<(String, i32), i32>,
}

impl Courses {
    /// Of the events of a job, nothing known yet.
    fn of(job: &Job) -> Self {
        let mut courses = Self::default();
        for (number, stretch) in &job.stretches {
            let Some((topic, span)) = job.span(*number) else {
                continue;
            };
            let events = usize::try_from(stretch.to - stretch.from).unwrap_or(0);
            let stretched = Stretched {
                from: stretch.from,
                courses: vec![Course::Nothing; events],
            };
            courses.stretches.insert(*number, stretched);
            courses.numbers.insert((topic, span.partition), *number);
        }
        courses
    }

    fn note(&mut self, source: &Source, course: Course) {
        let place = (source.topic.to_string(), source.partition);
        let number = self.numbers.get(&place);
        let Some(stretched) = number.and_then(|number| self.stretches.get_mut(number)) else {
            return;
        };
        let place = source.offset.checked_sub(stretched.from);
        let place = place.and_then(|place| usize::try_from(place).ok());
        if let Some(noted) = place.and_then(|place| stretched.courses.get_mut(place)) {
            *noted = (*noted).max(course);
        }
    }

    /// What came of the event of a stretch at an offset; `None` outside.
    pub(super) fn at(&self, number: i32, offset: i64) -> Option<Course> {
        let stretched = self.stretches.get(&number)?;
        let place = offset.checked_sub(stretched.from)?;
        let place = usize::try_from(place).ok()?;
        stretched.courses.get(place).copied()
    }
}

/// Asked at every record that is read whether to go on.
pub(super) type Beat<'a> = dyn FnMut() -> Result<ControlFlow<()>, Error> + 'a;

impl Replaying {
    /// Reads spans of a topic, as long as the beat goes on.
    pub(super) fn listen(
        &self,
        topic: &str,
        spans: &[Span],
        beat: &mut Beat<'_>,
        mut each: impl FnMut(&Record),
    ) -> Result<(), Error> {
        let mut ended = Ok(());
        scan(&self.connection, topic, spans, |record| {
            fail::fail_point!("missed-reads");
            each(&record);
            beat().unwrap_or_else(|fault| {
                ended = Err(fault);
                ControlFlow::Break(())
            })
        })?;
        ended
    }

    /// Reads what is known of the events of a job. It is read again whenever a job is taken up, so that what has begun meanwhile is not sent again.
    pub(super) fn missing(&self, job: &Job, beat: &mut Beat<'_>) -> Result<Missing, Error> {
        let origin = self.origin()?;
        let (webhook, entry) = self.wanting(&job.filter)?;
        let mut courses = Courses::of(job);
        // A delivery comes after its event, up to what their clocks differ.
        let since_ms = job.filter.since_ms.unwrap_or(0).saturating_sub(SLACK_MS);
        let id = webhook.id.as_str();
        let deliveries = [
            (&self.dispatch, Course::Begun),
            (&self.held, Course::Begun),
            (&self.letters, Course::Dead),
        ];
        for (topic, course) in deliveries {
            self.listen(topic, &self.since(topic, since_ms)?, beat, |record| {
                let is_its = header_text(&record.headers, name::WEBHOOK_ID) == Some(id);
                let source = header_text(&record.headers, name::SOURCE).filter(|_| is_its);
                if let Some(source) = source.and_then(|source| source.parse().ok()) {
                    courses.note(&source, course);
                }
            })?;
        }
        if let Some(attempts) = &origin.attempts {
            self.listen(attempts, &self.since(attempts, since_ms)?, beat, |record| {
                let bytes = record.payload.as_deref().unwrap_or_default();
                let told = serde_json::from_slice::<Told<'_>>(bytes).ok();
                let Some(told) = told.filter(|told| told.webhook_id == id) else {
                    return;
                };
                let course = match told.ending.as_deref() {
                    Some("delivered") => Course::Delivered,
                    Some("dropped") => Course::Dropped,
                    _ => Course::Begun,
                };
                if let Ok(source) = told.source.parse() {
                    courses.note(&source, course);
                }
            })?;
        }
        Ok(Missing {
            reading: origin.reading.clone(),
            filter: job.filter.clone(),
            webhook,
            entry,
            courses,
        })
    }
}
