//! What a webhook missed between two times: the events of the source topics that it wants and of which no delivery is known.
//!
//! Promise 1: what a webhook did not get because it was not there yet, or was disabled, is still in the source topics, and a job brings it in with the
//! delivery id that routing would have given (promise 3). What is under way, waits, or
//! has ended is not sent again: see `told`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::super::now_ms;
use super::plan::stretch;
use super::told::{Course, Courses};
use super::{Counts, Error, Order, Plan, Replaying};
use crate::delivery::Delivery;
use crate::event::Event;
use crate::intake::decode::{Decoded, Reading, decode};
use crate::kafka::table::{Span, narrow_to_time, scan, spans};
use crate::kafka::topics::describe;
use crate::matching::catalog::{Catalog, entry_of};
use crate::matching::index::Entry;
use crate::record::Record;
use crate::retry::replay::{Job, LetterFilter, Missed, Stretch};
use crate::subscription::Subscription;

/// Times of records are their producers', and clocks differ: so much more is read on either side, and each record's own time decides.
pub(super) const SLACK_MS: i64 = 10 * 60_000;
/// Events of a window; one byte of memory each.
const MOST_EVENTS: i64 = 50_000_000;
/// Where events come from, who wants them, and where it is told what became of them.
pub struct Origin {
    /// The source topics, as configured.
    pub sources: Vec<String>,
    /// How they are read.
    pub reading: Reading,
    pub catalog: Arc<Catalog>,
    /// The topic of attempts; `None` where none are written.
    pub attempts: Option<Arc<str>>,
}

fn refused(field: &'static str, why: impl Into<String>) -> Error {
    Error::Order {
        field,
        why: why.into(),
    }
}

fn time(milliseconds: i64) -> String {
    jiff::Timestamp::from_millisecond(milliseconds)
        .map_or_else(|_| milliseconds.to_string(), |time| time.to_string())
}

impl Missed {
    /// Topic and span of a stretch, which stands under its number in `span`.
    pub(super) fn place(&self, span: Span) -> (String, Span) {
        let place = usize::try_from(span.partition)
            .ok()
            .and_then(|number| self.places.get(number));
        let (topic, partition) = place.cloned().unwrap_or_default();
        (topic, Span { partition, ..span })
    }
}

/// Which events a webhook missed.
pub(super) struct Missing {
    pub(super) webhook: Arc<Subscription>,
    pub(super) entry: Entry,
    pub(super) reading: Reading,
    pub(super) filter: LetterFilter,
    pub(super) courses: Courses,
}

/// How an event stands.
enum Standing {
    Missed(Event),
    /// It is on its way, or held.
    Begun,
    /// It is a dead letter.
    Dead,
    /// Not wanted, out of the window, or delivered.
    Other,
}

impl Missing {
    fn standing(&self, number: i32, record: &mut Record) -> Standing {
        let at_ms = record.timestamp_ms.unwrap_or(0);
        let is_in = self.filter.since_ms.is_none_or(|since| at_ms >= since)
            && self.filter.until_ms.is_none_or(|until| at_ms < until);
        if !is_in {
            return Standing::Other;
        }
        let Some(course) = self.courses.at(number, record.offset.0) else {
            return Standing::Other;
        };
        if course == Course::Delivered {
            return Standing::Other;
        }
        let Decoded::Event(event) = decode(record, &self.reading) else {
            return Standing::Other;
        };
        if !self.filter.wants_type(&event.event_type) {
            return Standing::Other;
        }
        let refusal = self
            .entry
            .refusal(&event.event_type, event.customer.as_deref(), &event.body);
        if refusal.is_some() {
            return Standing::Other;
        }
        match course {
            Course::Nothing | Course::Dropped => Standing::Missed(event),
            Course::Begun => Standing::Begun,
            Course::Dead => Standing::Dead,
            Course::Delivered => Standing::Other,
        }
    }

    /// The delivery of an event that was missed, by the job.
    pub(super) fn delivery(
        &self,
        number: i32,
        mut record: Record,
        job: &Job,
        now_ms: i64,
    ) -> Option<Delivery> {
        let Standing::Missed(event) = self.standing(number, &mut record) else {
            return None;
        };
        let webhook = &self.webhook;
        let customer = webhook.customer.as_ref();
        let mut delivery = Delivery::new(&record, &event.event_type, &webhook.id, customer, now_ms);
        delivery.replay_id = Some(job.id.clone());
        delivery.replay_count = 1;
        delivery.url = job.to.clone();
        Some(delivery)
    }
}

impl Replaying {
    pub(super) fn origin(&self) -> Result<&Origin, Error> {
        let origin = self.origin.as_deref();
        origin.ok_or_else(|| refused("never_delivered", "the source topics are not known here"))
    }

    /// The webhook whose missed events a filter means, and what it wants.
    pub(super) fn wanting(
        &self,
        filter: &LetterFilter,
    ) -> Result<(Arc<Subscription>, Entry), Error> {
        let catalog = self.origin()?.catalog.now();
        let Some(id) = &filter.webhook else {
            let why = "say which webhook missed events; `postrider subscriptions list` shows them";
            return Err(refused("webhook", why));
        };
        let Some(webhook) = catalog.get(id) else {
            return Err(refused("webhook", format!("there is no webhook {id}")));
        };
        if !webhook.enabled {
            let why = format!("{id} is disabled, and would get nothing; enable it first");
            return Err(refused("webhook", why));
        }
        match entry_of(webhook) {
            (entry, None) => Ok((Arc::clone(webhook), entry)),
            (_, Some(fault)) => {
                let why = format!("the filter of {id} cannot be evaluated; mend it first: {fault}");
                Err(refused("webhook", why))
            }
        }
    }

    /// The order's window: from `since`, to `until` or now, whatever is earlier.
    fn window(filter: &LetterFilter) -> Result<(i64, i64), Error> {
        let Some(since_ms) = filter.since_ms else {
            return Err(refused(
                "since",
                "say from which time on events were missed",
            ));
        };
        let Some(until_ms) = filter.until_ms else {
            return Err(refused("until", "say up to which time events were missed"));
        };
        let now_ms = now_ms();
        if until_ms <= since_ms {
            let why = format!("it must be later than `since`, {}", time(since_ms));
            return Err(refused("until", why));
        }
        if since_ms >= now_ms {
            return Err(refused(
                "since",
                "it is in the future; nothing was missed yet",
            ));
        }
        Ok((since_ms, until_ms.min(now_ms)))
    }

    /// Refuses a time of which a topic's records are gone.
    fn refuse_gone(&self, topic: &str, spans: &[Span], since_ms: i64) -> Result<(), Error> {
        // Where nothing was removed, the first offset is 0.
        let firsts: Vec<Span> = spans
            .iter()
            .filter(|span| span.from > 0 && span.from < span.to)
            .map(|span| Span {
                to: span.from.saturating_add(1),
                ..*span
            })
            .collect();
        let mut oldest_ms = i64::MIN;
        scan(&self.connection, topic, &firsts, |record| {
            oldest_ms = oldest_ms.max(record.timestamp_ms.unwrap_or(0));
            ControlFlow::Continue(())
        })?;
        if oldest_ms > since_ms {
            let why = format!(
                "{topic} is kept from {} on, by its retention; what was before is not known any more, so begin there or later",
                time(oldest_ms)
            );
            return Err(refused("since", why));
        }
        Ok(())
    }

    /// What a plan must say of a topic: which partitions are empty and were not always. What they held, and when, nobody can tell.
    fn emptied(topic: &str, spans: &[Span]) -> Option<String> {
        let partitions: Vec<String> = spans
            .iter()
            .filter(|span| span.from > 0 && span.from == span.to)
            .map(|span| span.partition.to_string())
            .collect();
        (!partitions.is_empty()).then(|| {
            format!(
                "{topic} has lost all records of its partitions {}, by its retention or a deletion; if some were of that time, they are not counted",
                partitions.join(", ")
            )
        })
    }

    /// Counts what a webhook missed.
    ///
    /// # Errors
    /// [`Error::Order`] names the field that is wrong; else as [`Replaying::plan`].
    pub fn plan_missed(&self, mut order: Order) -> Result<Plan, Error> {
        let origin = self.origin()?;
        let Some(attempts) = &origin.attempts else {
            let why = "with history.attempts = false nothing tells what was delivered";
            return Err(refused("never_delivered", why));
        };
        let (webhook, _) = self.wanting(&order.filter)?;
        let (since_ms, until_ms) = Self::window(&order.filter)?;
        order.filter.until_ms = Some(until_ms);
        if let Some(pattern) = origin.sources.iter().find(|name| name.starts_with('^')) {
            let why = format!("intake.topics has the pattern {pattern}; name the topics there");
            return Err(refused("never_delivered", why));
        }
        let cluster = describe(&self.connection)?;
        let mut places = Vec::new();
        let mut warnings = Vec::new();
        let mut stretches: BTreeMap<i32, Stretch> = BTreeMap::new();
        let mut events: i64 = 0;
        let there = |name: &&String| cluster.topics.contains_key(*name);
        for topic in origin.sources.iter().filter(there) {
            let mut whole = spans(&self.connection, topic)?;
            self.refuse_gone(topic, &whole, since_ms)?;
            warnings.extend(Self::emptied(topic, &whole));
            let mut after = whole.clone();
            let earliest = since_ms.max(1);
            narrow_to_time(&self.connection, topic, &mut whole, earliest)?;
            let latest = until_ms.saturating_add(SLACK_MS);
            narrow_to_time(&self.connection, topic, &mut after, latest)?;
            for (begin, end) in whole.iter().zip(&after) {
                let span = Span {
                    to: end.from,
                    ..*begin
                };
                if span.from >= span.to {
                    continue;
                }
                events = events.saturating_add(span.to - span.from);
                let number = i32::try_from(places.len()).unwrap_or(i32::MAX);
                places.push((topic.clone(), span.partition));
                stretches.insert(number, stretch(span));
            }
        }
        if events > MOST_EVENTS {
            let why = format!(
                "{events} events are too many to look through at once, of {MOST_EVENTS}; take a shorter time"
            );
            return Err(refused("until", why));
        }
        self.refuse_gone(attempts, &spans(&self.connection, attempts)?, since_ms)?;
        let mut plan = self.planned(order, Counts::default(), stretches);
        plan.job.missed = Some(Missed { places });
        plan.counts.warnings = warnings;
        let missing = self.missing(&plan.job, &mut || Ok(ControlFlow::Continue(())))?;
        for number in plan.job.stretches.keys() {
            let Some((topic, span)) = plan.job.span(*number) else {
                continue;
            };
            scan(&self.connection, &topic, &[span], |mut record| {
                let at_ms = record.timestamp_ms.unwrap_or(0);
                match missing.standing(*number, &mut record) {
                    Standing::Missed(event) => {
                        plan.counts
                            .count_missed(webhook.id.as_str(), &event.event_type, at_ms);
                    }
                    Standing::Begun => plan.counts.on_their_way += 1,
                    Standing::Dead => plan.counts.dead_letters += 1,
                    Standing::Other => {}
                }
                ControlFlow::Continue(())
            })?;
        }
        plan.job.total = plan.counts.total;
        Ok(plan)
    }
}

impl Job {
    /// Topic and whole span of a stretch of a job for missed events.
    pub(super) fn span(&self, number: i32) -> Option<(String, Span)> {
        let stretch = self.stretches.get(&number)?;
        let numbered = Span {
            partition: number,
            from: stretch.from,
            to: stretch.to,
        };
        Some(self.missed.as_ref()?.place(numbered))
    }
}
