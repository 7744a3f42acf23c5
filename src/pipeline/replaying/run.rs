//! A job at work: letters go to `dispatch` at its pace, and the cursor is written behind what is acknowledged.
//!
//! Promise 4: live traffic goes on beside it. The letters have a client of their own, so that none waits before a live record in a queue, and
//! its batches wait for more: what the brokers and consumers pay is by the batch.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use super::super::now_ms;
use super::missed::Missing;
use super::sent::Sent;
use super::taken_up::delivery_of;
use super::told::Beat;
use super::{ACKNOWLEDGED_WITHIN, Error, Replaying};
use crate::kafka::producer::Producer;
use crate::kafka::table::{Span, scan};
use crate::record::{Outgoing, Record};
use crate::retry::replay::{Job, Jobs, Runner, SILENT_AFTER_MS, State};

/// The cursor is written when so many letters are behind it, or it is so old.
const CURSOR_LETTERS: usize = 100;
const CURSOR_EVERY: Duration = Duration::from_secs(1);
/// Letters sent and not behind the written cursor: what the next owner looks for when this one is killed.
const MOST_SENT: usize = 2 * CURSOR_LETTERS;
/// A batch of one partition of `dispatch` waits so long for more letters.
const LINGER: Duration = Duration::from_millis(50);
/// A job that only reads says so often that it is alive.
const ALIVE_EVERY: Duration = Duration::from_secs(3);
/// A wait looks this often whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Letters that are due within this go together: to wake up for each costs whoever shares the machine more than an even pace gains.
const TOGETHER: Duration = Duration::from_millis(20);
/// What a slow broker missed of the pace may be made up for, up to so much.
const CATCH_UP: Duration = Duration::from_millis(200);

/// How a job at work is to end before its end. Shared by who runs it and who may stop it.
#[derive(Debug, Default)]
pub struct Halt(AtomicU8);

/// What is asked of a job at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Asked {
    /// To go on.
    Nothing = 0,
    /// To stop; it can be resumed.
    Stop = 1,
    /// To end for good.
    Cancel = 2,
    /// To write how far it came and leave the rest to the next owner.
    HandBack = 3,
    /// To write nothing more: another owns it.
    LetGo = 4,
}

impl Halt {
    /// Asks. What was asked before counts no more, unless it was asked to let go.
    pub fn ask(&self, asked: Asked) {
        let ask = |before: u8| (before != Asked::LetGo as u8).then_some(asked as u8);
        // Refused only when it was asked to let go.
        let _ = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, ask);
    }

    /// What is asked now.
    pub fn asked(&self) -> Asked {
        match self.0.load(Ordering::Acquire) {
            0 => Asked::Nothing,
            1 => Asked::Stop,
            2 => Asked::Cancel,
            3 => Asked::HandBack,
            _ => Asked::LetGo,
        }
    }

    fn is_asked(&self) -> bool {
        self.asked() != Asked::Nothing
    }
}

impl Replaying {
    /// Sends the letters of a job to `dispatch` until its end, or until `halt` is asked for. `told` hears whenever the cursor is written. The returned job is as it
    /// stands in the topic: finished, stopped, cancelled, or running where the next owner takes it up.
    ///
    /// # Errors
    /// [`Error::Kafka`], [`Error::Refused`], [`Error::Slept`]. What is written of the job then can be resumed.
    pub fn run(&self, job: Job, halt: &Halt, told: &mut dyn FnMut(&Job)) -> Result<Job, Error> {
        let mut others = self.jobs()?;
        others.0.retain(|other| other.id != job.id);
        let mut run = Run {
            replaying: self,
            others,
            missing: None,
            sent_before: HashSet::new(),
            pace: Pace::new(job.rate),
            producer: self.producer.patient(LINGER)?,
            sent: Sent::new(),
            written_at: Instant::now(),
            job,
            halt,
            told,
        };
        let result = run.through_all();
        let mut job = run.job;
        match result {
            Ok(()) => {
                let is_through = job
                    .stretches
                    .values()
                    .all(|stretch| stretch.next >= stretch.to);
                job.state = match halt.asked() {
                    _ if is_through => State::Finished,
                    Asked::LetGo | Asked::HandBack => return Ok(job),
                    Asked::Cancel => State::Cancelled,
                    Asked::Nothing | Asked::Stop => State::Stopped,
                };
                job.touch(now_ms());
                self.write(&job)?;
                Ok(job)
            }
            // Another may have taken it up by now: its record is theirs.
            Err(fault @ Error::Slept(_)) => Err(fault),
            // The fleet takes it up again by itself.
            Err(fault @ Error::Kafka(_)) if job.runner == Runner::Fleet => Err(fault),
            Err(fault) if halt.asked() == Asked::LetGo => Err(fault),
            Err(fault) => {
                job.state = State::Stopped;
                job.note = fault.to_string();
                job.touch(now_ms());
                // It can be resumed without this as well, only not at once.
                let _ = self.write(&job);
                Err(fault)
            }
        }
    }
}

struct Run<'a> {
    replaying: &'a Replaying,
    others: Jobs,
    /// What the job's webhook missed, where that is what the job sends.
    missing: Option<Missing>,
    /// Deliveries behind the cursor that the last owner sent.
    sent_before: HashSet<String>,
    job: Job,
    pace: Pace,
    producer: Producer,
    sent: Sent,
    /// When the cursor was last written.
    written_at: Instant,
    halt: &'a Halt,
    told: &'a mut dyn FnMut(&Job),
}

impl Run<'_> {
    fn through_all(&mut self) -> Result<(), Error> {
        if self.job.missed.is_some() {
            self.missing = Some(self.with_beat(Replaying::missing)?);
        } else if self.job.into.is_none() && !self.job.resumptions.is_empty() {
            let behind = self.first_behind_the_cursor()?;
            self.sent_before =
                self.with_beat(|replaying, job, beat| replaying.sent_already(job, &behind, beat))?;
        }
        for span in self.spans_left() {
            let mut goes_on = Ok(true);
            let replaying = self.replaying;
            let key = span.partition;
            let (topic, span) = match &self.job.missed {
                None => (replaying.letters.to_string(), span),
                Some(missed) => missed.place(span),
            };
            scan(&replaying.connection, &topic, &[span], |record| {
                goes_on = self.step(key, record);
                match goes_on {
                    Ok(true) => ControlFlow::Continue(()),
                    _ => ControlFlow::Break(()),
                }
            })?;
            if !goes_on? {
                return Ok(());
            }
            self.settle(key, span.to)?;
        }
        Ok(())
    }

    fn spans_left(&self) -> Vec<Span> {
        let stretches = self.job.stretches.iter();
        stretches
            .map(|(partition, stretch)| Span {
                partition: *partition,
                from: stretch.next,
                to: stretch.to,
            })
            .filter(|span| span.from < span.to)
            .collect()
    }

    /// Reads what may take long, and tells meanwhile and afterwards that the job is at work.
    fn with_beat<T>(
        &mut self,
        read: impl FnOnce(&Replaying, &Job, &mut Beat<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let (replaying, as_it_was) = (self.replaying, self.job.clone());
        let mut told = Instant::now();
        let read = read(replaying, &as_it_was, &mut || self.beat(&mut told))?;
        if self.halt.asked() != Asked::LetGo {
            self.stay_alive()?;
        }
        Ok(read)
    }

    fn beat(&mut self, told: &mut Instant) -> Result<ControlFlow<()>, Error> {
        if self.halt.is_asked() {
            return Ok(ControlFlow::Break(()));
        }
        if told.elapsed() >= ALIVE_EVERY {
            *told = Instant::now();
            self.stay_alive()?;
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The deliveries that the last owner may have sent and not written down. Only one stretch is worked on at a time.
    fn first_behind_the_cursor(&mut self) -> Result<HashSet<String>, Error> {
        let mut behind = HashSet::new();
        let mut went = Ok(());
        let mut told = Instant::now();
        let replaying = self.replaying;
        let spans = self.spans_left();
        let span = spans.get(..1).unwrap_or_default();
        scan(&replaying.connection, &replaying.letters, span, |record| {
            if let Some(outgoing) = self.wanted(record.partition, record) {
                behind.extend(delivery_of(&outgoing.headers).map(str::to_owned));
            }
            match self.beat(&mut told) {
                Ok(ControlFlow::Continue(())) if behind.len() < MOST_SENT => {
                    ControlFlow::Continue(())
                }
                Ok(_) => ControlFlow::Break(()),
                Err(fault) => {
                    went = Err(fault);
                    ControlFlow::Break(())
                }
            }
        })?;
        went.map(|()| behind)
    }

    /// Tells that the job is at work; without that another would take it for dead.
    fn stay_alive(&mut self) -> Result<(), Error> {
        self.refuse_having_slept()?;
        self.job.touch(now_ms());
        self.replaying.write(&self.job)
    }

    fn refuse_having_slept(&self) -> Result<(), Error> {
        let silent_ms = now_ms().saturating_sub(self.job.updated_at_ms);
        if silent_ms > SILENT_AFTER_MS / 2 {
            return Err(Error::Slept(silent_ms / 1000));
        }
        Ok(())
    }

    /// Deals with one record of a stretch; `false` when the job is to stop.
    fn step(&mut self, key: i32, record: Record) -> Result<bool, Error> {
        let (place, offset) = (record.source(), record.offset.0);
        if self.halt.is_asked() {
            self.settle(key, offset)?;
            return Ok(false);
        }
        let Some(outgoing) = self.wanted(key, record) else {
            if self.written_at.elapsed() >= CURSOR_EVERY {
                self.settle(key, offset.saturating_add(1))?;
            }
            return Ok(true);
        };
        let is_old = self.pace.next > self.written_at + CURSOR_EVERY;
        if is_old || self.sent.count() >= MOST_SENT {
            self.settle(key, offset)?;
        }
        let id = delivery_of(&outgoing.headers).unwrap_or_default();
        if self.sent_before.remove(id) {
            self.sent.add_written(place);
            return Ok(true);
        }
        if !self.pace.wait(self.halt) {
            self.settle(key, offset)?;
            return Ok(false);
        }
        self.refuse_having_slept()?;
        let on_written = self.sent.add(place);
        self.producer.send(&outgoing, on_written);
        if self.sent.written() >= CURSOR_LETTERS {
            self.write_cursor(key, offset.saturating_add(1))?;
        }
        Ok(true)
    }

    /// What to send, unless the letter is not meant, done already, or nothing that can be sent.
    fn wanted(&self, key: i32, record: Record) -> Option<Outgoing> {
        if let Some(missing) = &self.missing {
            let delivery = missing.delivery(key, record, &self.job, now_ms())?;
            return Some(delivery.to_record(&self.replaying.dispatch, true));
        }
        let letter = self.replaying.letter(record);
        let is_meant = self.job.filter.matches(&letter)
            && !self.job.is_too_often(letter.replay_count)
            && (self.job.again || self.others.doer(&letter).is_none());
        if !is_meant {
            return None;
        }
        if let Some(topic) = &self.job.into {
            return letter.to_topic(topic);
        }
        let id = &self.job.id;
        let delivery = match &self.job.to_webhook {
            Some(target) => letter.to_webhook(target, id, now_ms())?,
            None => letter.to_replay(id, self.job.to.as_deref(), now_ms())?,
        };
        Some(delivery.to_record(&self.replaying.dispatch, true))
    }

    /// Waits until all that was sent is in `dispatch`, then writes that everything below `next` is done.
    fn settle(&mut self, key: i32, next: i64) -> Result<(), Error> {
        let until = Instant::now() + ACKNOWLEDGED_WITHIN;
        // Nothing waits for more letters any longer.
        self.producer.flush(ACKNOWLEDGED_WITHIN);
        self.sent.wait(until)?;
        self.write_cursor(key, next)
    }

    /// Writes how far it came: to `next`, or to the first letter that is not acknowledged.
    fn write_cursor(&mut self, key: i32, next: i64) -> Result<(), Error> {
        let (written, left) = self.sent.forget_written();
        self.job.done += written as u64;
        let reached = left.map_or(next, |place| place.offset);
        self.job.reach(key, reached, now_ms());
        if self.halt.asked() == Asked::LetGo {
            return Ok(());
        }
        self.replaying.write(&self.job)?;
        (self.told)(&self.job);
        self.written_at = Instant::now();
        match self.sent.refused() {
            None => Ok(()),
            Some((place, reason)) => Err(Error::Refused {
                place: place.clone(),
                reason: reason.to_owned(),
            }),
        }
    }
}

/// So many letters a second.
struct Pace {
    interval: Duration,
    next: Instant,
}

impl Pace {
    fn new(rate: Option<u32>) -> Self {
        Self {
            interval: rate.map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate.max(1)),
            next: Instant::now(),
        }
    }

    /// Waits for the next letter's moment; `false` when a halt was asked for first.
    fn wait(&mut self, halt: &Halt) -> bool {
        loop {
            if halt.is_asked() {
                return false;
            }
            let left = self.next.saturating_duration_since(Instant::now());
            if left <= TOGETHER {
                break;
            }
            std::thread::sleep(left.min(LOOK_EVERY));
        }
        let earliest = Instant::now().checked_sub(CATCH_UP).unwrap_or(self.next);
        self.next = self.next.max(earliest) + self.interval;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_kept_and_a_stop_ends_the_wait() {
        let halt = Halt::default();
        let mut pace = Pace::new(Some(50));
        let began = Instant::now();
        assert!((0..11).all(|_| pace.wait(&halt)));
        assert!(began.elapsed() + TOGETHER >= Duration::from_millis(199));

        let mut slow = Pace::new(Some(1));
        assert!(slow.wait(&halt));
        halt.ask(Asked::Stop);
        assert!(!slow.wait(&halt));
    }

    #[test]
    fn no_rate_is_no_wait() {
        let mut pace = Pace::new(None);
        let began = Instant::now();
        assert!((0..1000).all(|_| pace.wait(&Halt::default())));
        assert!(began.elapsed() < Duration::from_secs(1));
    }

    #[test]
    fn a_job_that_is_another_owners_is_not_taken_back_by_a_later_wish() {
        let halt = Halt::default();
        halt.ask(Asked::Stop);
        halt.ask(Asked::Nothing);
        assert!(!halt.is_asked());
        halt.ask(Asked::LetGo);
        halt.ask(Asked::Stop);
        assert_eq!(halt.asked(), Asked::LetGo);
    }
}
