//! A job at work: batch by batch, and the cursor written behind each.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use super::super::now_ms;
use super::missed::Missing;
use super::{ACKNOWLEDGED_WITHIN, Error, Replaying};
use crate::kafka::table::{Span, scan};
use crate::record::{Outgoing, Record, Source};
use crate::retry::replay::{Job, Jobs, Runner, SILENT_AFTER_MS, State};

const BATCH_LETTERS: usize = 100;
const BATCH_TIME: Duration = Duration::from_secs(1);
/// A job that only reads says so often that it is alive.
const ALIVE_EVERY: Duration = Duration::from_secs(3);
/// A wait looks this often whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Letters that are due within this go together: to wake up for each costs whoever shares the machine more than an even pace gains.
const TOGETHER: Duration = Duration::from_millis(20);
/// What a slow batch missed of the pace may be made up for, up to so much.
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

/// What a letter's produce came to: its place in the dead-letter topic, and why it was refused.
type Answer = (Source, Option<String>);

impl Replaying {
    /// Sends the letters of a job to `dispatch` until its end, or until `halt` is asked for. `told` hears of every batch. The returned job is as it
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
            pace: Pace::new(job.rate),
            batch: Batch::new(),
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
    job: Job,
    pace: Pace,
    batch: Batch,
    halt: &'a Halt,
    told: &'a mut dyn FnMut(&Job),
}

impl Run<'_> {
    fn through_all(&mut self) -> Result<(), Error> {
        if self.job.missed.is_some() {
            self.missing = Some(self.read_what_is_known()?);
            if self.halt.asked() == Asked::LetGo {
                return Ok(());
            }
            self.stay_alive()?;
        }
        let spans: Vec<Span> = self
            .job
            .stretches
            .iter()
            .map(|(partition, stretch)| Span {
                partition: *partition,
                from: stretch.next,
                to: stretch.to,
            })
            .filter(|span| span.from < span.to)
            .collect();
        for span in spans {
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

    /// Reads what became of the events so far, which may take long.
    fn read_what_is_known(&mut self) -> Result<Missing, Error> {
        let (replaying, halt, as_it_was) = (self.replaying, self.halt, self.job.clone());
        let mut told = Instant::now();
        replaying.missing(&as_it_was, &mut || {
            if halt.is_asked() {
                return Ok(ControlFlow::Break(()));
            }
            if told.elapsed() >= ALIVE_EVERY {
                told = Instant::now();
                self.stay_alive()?;
            }
            Ok(ControlFlow::Continue(()))
        })
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
            if self.batch.began.elapsed() >= BATCH_TIME {
                self.settle(key, offset.saturating_add(1))?;
            }
            return Ok(true);
        };
        if self.batch.sent >= BATCH_LETTERS || self.pace.next > self.batch.began + BATCH_TIME {
            self.settle(key, offset)?;
        }
        if !self.pace.wait(self.halt) {
            self.settle(key, offset)?;
            return Ok(false);
        }
        self.refuse_having_slept()?;
        let answers = self.batch.to_answer.clone();
        self.replaying.producer.send(
            &outgoing,
            Box::new(move |written| {
                let refusal = written.err().map(|refused| refused.to_string());
                // Nobody listens any more when the job has given up.
                let _ = answers.send((place, refusal));
            }),
        );
        self.batch.sent += 1;
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

    /// Waits until the batch is in `dispatch`, then writes that everything below `next` is done.
    fn settle(&mut self, key: i32, next: i64) -> Result<(), Error> {
        let mut refused: Option<(Source, String)> = None;
        for (place, refusal) in self.batch.answers()? {
            match refusal {
                None => self.job.done += 1,
                Some(reason) => {
                    if refused.as_ref().is_none_or(|(first, _)| place < *first) {
                        refused = Some((place, reason));
                    }
                }
            }
        }
        let reached = refused.as_ref().map_or(next, |(place, _)| place.offset);
        if let Some(stretch) = self.job.stretches.get_mut(&key) {
            stretch.next = stretch.next.max(reached);
        }
        if self.halt.asked() == Asked::LetGo {
            return Ok(());
        }
        self.job.touch(now_ms());
        self.replaying.write(&self.job)?;
        (self.told)(&self.job);
        self.batch = Batch::new();
        match refused {
            Some((place, reason)) => Err(Error::Refused { place, reason }),
            None => Ok(()),
        }
    }
}

/// Letters that were handed to the producer since the cursor was written.
struct Batch {
    began: Instant,
    sent: usize,
    to_answer: Sender<Answer>,
    answer: Receiver<Answer>,
}

impl Batch {
    fn new() -> Self {
        let (to_answer, answer) = mpsc::channel();
        Self {
            began: Instant::now(),
            sent: 0,
            to_answer,
            answer,
        }
    }

    fn answers(&self) -> Result<Vec<Answer>, Error> {
        let deadline = Instant::now() + ACKNOWLEDGED_WITHIN;
        (0..self.sent)
            .map(|_| {
                let left = deadline.saturating_duration_since(Instant::now());
                self.answer.recv_timeout(left).map_err(|_| {
                    Error::Kafka(crate::kafka::Error::NoAnswer(format!(
                        "the broker did not acknowledge a batch within {} s; its letters may be sent once more on resume",
                        ACKNOWLEDGED_WITHIN.as_secs()
                    )))
                })
            })
            .collect()
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
