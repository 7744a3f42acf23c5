//! Dead letters and the jobs on them, as the API shows them: read from their topics, so that they are there without a history.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::window::Window;
use super::{Known, conflict, time, unavailable};
use crate::pipeline::replaying::{self, Error, Replaying};
use crate::retry::dead_letter;
use crate::retry::replay::{Deed, Fate, Job, LetterFilter, Runner, State, Want};
use crate::web::api::paging::From;
use crate::web::api::past::{
    Counts, DeadLetter, Left, LetterPlace, Letters, Order, Ordered, Replay, Selection, Tenant, Wish,
};
use crate::web::api::problem::Problem;

/// The API and the command leave the same letters; the API's stage does not know the other.
const _: () = assert!(crate::web::api::replays::MOST_REPLAYS == dead_letter::MOST_REPLAYS);
/// Readings of the dead-letter topic at a time: each is a consumer of its own, and reads the whole topic.
const MOST_READINGS: usize = 4;

/// One reading; ended when dropped.
struct Reading<'a>(&'a AtomicUsize);

impl<'a> Reading<'a> {
    fn begin(readings: &'a AtomicUsize) -> Result<Self, Problem> {
        let reading = Self(readings);
        if readings.fetch_add(1, Ordering::AcqRel) >= MOST_READINGS {
            return Err(Problem::unavailable(format!(
                "the dead letters are being read for {MOST_READINGS} others; ask again in a few seconds"
            )));
        }
        Ok(reading)
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Whether a job is the tenant's to see.
pub(super) fn is_of(tenant: &Tenant, job: &Job) -> bool {
    let customer = tenant.0.as_deref();
    customer.is_none() || job.filter.customer.as_deref() == customer
}

/// A job in the API's words.
pub(super) fn replay(job: Job) -> Replay {
    let state = match (job.state, job.undone_at_ms) {
        (_, Some(_)) => "undone",
        (State::Running, _) => "running",
        (State::Stopped, _) => "stopped",
        (State::Finished, _) => "finished",
        (State::Cancelled, _) => "cancelled",
    };
    let deed = match job.deed {
        Deed::Replay => "replay",
        Deed::Discard => "discard",
    };
    let by = match job.runner {
        Runner::Command => "command",
        Runner::Fleet => "routers",
    };
    let text = |text: String| (!text.is_empty()).then_some(text);
    let filter = job.filter;
    // What was given; how the job is confined is nobody's concern.
    let shown = serde_json::json!({
        "webhook": filter.webhook, "event_type": filter.event_type, "reason": filter.reason, "status": filter.status,
        "since": filter.since_ms.map(time), "until": filter.until_ms.map(time), "delivery": filter.delivery,
        "never_delivered": job.missed.as_ref().map(|_| true),
    });
    let shown = match shown {
        serde_json::Value::Object(mut members) => {
            members.retain(|_, value| !value.is_null());
            members.into()
        }
        other => other,
    };
    Replay {
        id: job.id,
        deed: deed.to_owned(),
        by: by.to_owned(),
        state: state.to_owned(),
        done: job.done,
        total: job.total,
        rate: job.rate,
        to: job.to,
        topic: job.topic.to_string(),
        into: job.into,
        to_webhook: job.to_webhook.map(|target| target.webhook),
        filter: shown,
        reason_text: text(job.reason),
        note: text(job.note),
        created_at: time(job.created_at_ms),
        updated_at: time(job.updated_at_ms),
    }
}

fn letter(letter: &dead_letter::DeadLetter, fate: Fate, job: Option<&Job>) -> DeadLetter {
    DeadLetter {
        place: format!("{}/{}", letter.place.partition, letter.place.offset),
        topic: letter.place.topic.to_string(),
        died_at: time(letter.died_at_ms),
        reason: letter.reason.clone(),
        webhook_id: letter.webhook.clone(),
        delivery_id: letter.delivery.as_ref().map(|delivery| delivery.id.clone()),
        event_type: letter.event_type.clone(),
        attempts: letter.attempts,
        last_status: letter.last_status,
        replays: letter.replay_count,
        fate: fate.as_str().to_owned(),
        job: job.map(|job| job.id.clone()),
        replayable: letter.is_replayable(),
        note: letter.note(),
        error_message: letter.message.clone(),
    }
}

impl Known {
    /// What a selection means for a tenant.
    fn filter(&self, tenant: &Tenant, selection: &Selection) -> LetterFilter {
        let customer = tenant.0.as_ref();
        let own = customer.map(|customer| {
            let all = self.running.ways.catalog.now();
            let own = all.all().filter(|webhook| {
                webhook.customer.as_ref() == Some(customer)
                    && selection
                        .webhook
                        .as_deref()
                        .is_none_or(|wanted| wanted == &*webhook.id)
            });
            own.map(|webhook| webhook.id.to_string())
                .collect::<BTreeSet<String>>()
        });
        LetterFilter {
            webhook: selection.webhook.clone(),
            event_type: selection.event_type.clone(),
            reason: selection.reason.clone(),
            status: selection.status,
            since_ms: selection.since_ms,
            until_ms: selection.until_ms,
            delivery: selection.delivery.clone(),
            webhooks: own,
            customer: customer.map(|customer| customer.to_string()),
        }
    }

    pub(super) fn read_letters(
        &self,
        tenant: &Tenant,
        selection: &Selection,
        fate: Option<&str>,
        from: From<LetterPlace>,
        size: usize,
    ) -> Result<Letters, Problem> {
        let _reading = Reading::begin(&self.readings)?;
        let foreign = self.foreign(selection.topic.as_deref(), |why| {
            Problem::of_parameter("topic", why)
        })?;
        let mut window = Window::new(from, size);
        let mut total = 0;
        let mut by_reason: BTreeMap<String, u64> = BTreeMap::new();
        let visited = foreign.as_ref().unwrap_or(&self.replaying).letters(
            &self.filter(tenant, selection),
            |found, job| {
                let is = match job.map(|job| job.deed) {
                    None => Fate::Waiting,
                    Some(Deed::Replay) => Fate::Replayed,
                    Some(Deed::Discard) => Fate::Discarded,
                };
                if fate.is_none_or(|wanted| wanted == is.as_str()) {
                    total += 1;
                    *by_reason.entry(found.reason.clone()).or_default() += 1;
                    let place = (found.died_at_ms, found.place.partition, found.place.offset);
                    window.offer(place, || {
                        // Whoever may not see a job is not told its id.
                        letter(&found, is, job.filter(|job| is_of(tenant, job)))
                    });
                }
                ControlFlow::Continue(())
            },
        );
        visited.map_err(|fault| unavailable(&fault))?;
        Ok(window.into_letters(total, by_reason))
    }

    /// The dead letters of another program's topic, if one is named.
    fn foreign(
        &self,
        topic: Option<&str>,
        refused: impl FnOnce(String) -> Problem,
    ) -> Result<Option<Replaying>, Problem> {
        let Some(topic) = topic else { return Ok(None) };
        if !self.has_topic(topic)? {
            return Err(refused(format!("there is no topic {topic}")));
        }
        Ok(Some(self.replaying.on(topic)))
    }

    fn has_topic(&self, topic: &str) -> Result<bool, Problem> {
        let is_there = self.replaying.has_topic(topic);
        is_there.map_err(|fault| unavailable(&fault))
    }

    /// Into our own topics nothing is written but what we made.
    fn must_be_a_source(&self, topic: &str) -> Result<(), Problem> {
        let refused = |why: String| Problem::at("/into", format!("`into`: {why}"));
        if self.running.ways.topics.are_ours(topic) {
            return Err(refused(format!(
                "{topic} is one of our own topics; name a source topic"
            )));
        }
        if self.has_topic(topic)? {
            return Ok(());
        }
        Err(refused(format!(
            "there is no topic {topic}; a source topic belongs to its producers, so have it made"
        )))
    }

    pub(super) fn carry_out(&self, tenant: &Tenant, order: &Order) -> Result<Ordered, Problem> {
        let _reading = Reading::begin(&self.readings)?;
        let to = match &order.to {
            Some(text) => {
                let url = self.guard.parse_url(text);
                Some(url.map_err(|refused| Problem::at("/to", format!("`to`: {refused}")))?)
            }
            None => None,
        };
        if order.never_delivered {
            self.must_be_seen(tenant, &order.selection)?;
        }
        let foreign = self.foreign(order.selection.topic.as_deref(), |why| {
            Problem::at("/topic", format!("`topic`: {why}"))
        })?;
        let replaying = foreign.as_ref().unwrap_or(&self.replaying);
        if let Some(topic) = &order.into {
            self.must_be_a_source(topic)?;
        }
        let target = order.to_webhook.as_deref();
        let target = target.map(|id| replaying.target(id)).transpose();
        let wanted = replaying::Order {
            deed: match order.discard {
                Some(_) => Deed::Discard,
                None => Deed::Replay,
            },
            filter: self.filter(tenant, &order.selection),
            to,
            into: order.into.clone(),
            to_webhook: target.map_err(|fault| self.refused(tenant, fault))?,
            again: order.again,
            reason: order.discard.clone().unwrap_or_default(),
            rate: order.discard.is_none().then_some(
                order
                    .rate
                    .unwrap_or_else(|| self.running.ways.paces.load().per_second),
            ),
            limit: order.limit,
            max_replays: order.max_replays,
            // A discard is done with its record; the routers must not take it for a replay.
            runner: match order.discard {
                Some(_) => Runner::Command,
                None => Runner::Fleet,
            },
        };
        let planned = if order.never_delivered {
            replaying.plan_missed(wanted)
        } else {
            replaying.plan(wanted)
        };
        let plan = planned.map_err(|fault| self.refused(tenant, fault))?;
        let found = &plan.counts;
        let counts = Counts {
            total: found.total,
            by_reason: found.by_reason.clone(),
            by_webhook: found.by_webhook.clone(),
            by_event_type: found.by_event_type.clone(),
            by_status: found.by_status.clone(),
            by_day: found.by_day.clone(),
            not_replayable: found.not_replayable,
            done_before: found.done_before,
            replayed_too_often: found.replayed_too_often,
            on_their_way: found.on_their_way,
            dead_letters: found.dead_letters,
            warnings: found.warnings.clone(),
            left: found
                .left
                .iter()
                .map(|left| Left {
                    place: left.place.clone(),
                    why: left.why.clone(),
                })
                .collect(),
        };
        if order.dry_run || found.total == 0 {
            return Ok(Ordered {
                counts,
                replay: None,
            });
        }
        let begun = replaying.begin(plan);
        let job = begun.map_err(|fault| self.refused(tenant, fault))?;
        Ok(Ordered {
            counts,
            replay: Some(replay(job)),
        })
    }

    /// Another tenant's webhook is as one that is not there (promise 7).
    fn must_be_seen(&self, tenant: &Tenant, selection: &Selection) -> Result<(), Problem> {
        let Some((customer, id)) = tenant.0.as_ref().zip(selection.webhook.as_deref()) else {
            return Ok(());
        };
        let catalog = self.running.ways.catalog.now();
        let webhook = catalog.get(id);
        if webhook.is_some_and(|webhook| webhook.customer.as_ref() == Some(customer)) {
            return Ok(());
        }
        let detail = format!("`webhook`: there is no webhook {id}");
        Err(Problem::at("/webhook", detail))
    }

    pub(super) fn tell(&self, tenant: &Tenant, id: &str, wish: Wish) -> Result<Replay, Problem> {
        let job = self
            .replaying
            .job(id)
            .map_err(|fault| self.refused(tenant, fault))?;
        if !is_of(tenant, &job) {
            return Err(Problem::no_such("replay", id));
        }
        if job.deed == Deed::Discard && wish != Wish::Undo {
            return Err(conflict(format!(
                "{id} is a discard, which is done; POST /replays/{id}/undo/ takes it back"
            )));
        }
        let told = match wish {
            Wish::Undo => self.replaying.undo(id),
            Wish::Pause => self.replaying.wish(id, Want::Pause),
            Wish::Resume => self.replaying.wish(id, Want::Run),
            Wish::Cancel => self.replaying.wish(id, Want::Cancel),
        };
        told.map(replay)
            .map_err(|fault| self.refused(tenant, fault))
    }

    /// A refusal in the API's words. It names no job of another tenant.
    fn refused(&self, tenant: &Tenant, fault: Error) -> Problem {
        match fault {
            Error::Unknown(id) => Problem::no_such("replay", &id),
            Error::Busy(id) => {
                let is_seen = match self.replaying.job(&id) {
                    Ok(job) => is_of(tenant, &job),
                    Err(_) => false,
                };
                let name = if is_seen {
                    id.as_str()
                } else {
                    "another replay"
                };
                conflict(format!(
                    "{name} is at work on the same dead letters; wait for its end, or cancel it"
                ))
            }
            Error::OfACommand(id) => conflict(format!(
                "{id} is worked on by the command that began it; stop and resume it there"
            )),
            Error::Order { field, why } => {
                Problem::at(&format!("/{field}"), format!("`{field}`: {why}"))
            }
            Error::Finished(id) => conflict(format!("{id} has finished")),
            Error::Cancelled(id) => conflict(format!(
                "{id} was cancelled, which is for good; begin another"
            )),
            Error::NotADiscard(id) => conflict(format!(
                "{id} is a replay, and what was sent cannot be taken back"
            )),
            Error::Undone(id) => conflict(format!("{id} was taken back already")),
            other => unavailable(&other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_read_the_topic_at_a_time() {
        let readings = AtomicUsize::new(0);
        let mut open: Vec<Reading<'_>> = (0..MOST_READINGS)
            .map(|_| Reading::begin(&readings).unwrap())
            .collect();
        assert!(Reading::begin(&readings).is_err());
        open.pop();
        assert!(Reading::begin(&readings).is_ok());
    }
}
