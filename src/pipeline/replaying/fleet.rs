//! Replay jobs that outlive their process: whichever router owns the replays topic works on them.
//!
//! Promise 1: what is owned is decided by the consumer group, how far a job has come by its record; a new owner goes on where the last one wrote and
//! does not repeat what was sent (`taken_up`). Wishes (pause, resume, cancel) are records of their own, so a job has one writer.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use super::super::now_ms;
use super::run::{Asked, Halt};
use super::{Error, ID_PREFIX, Replaying, WISH_PREFIX};
use crate::kafka::consumer::Stage;
use crate::kafka::receipt::{Assignment, Receipt};
use crate::record::Record;
use crate::retry::replay::{Duty, Job, State, Wish};

const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Jobs at work at a time; the others wait for their turn.
const AT_ONCE: usize = 4;
/// A job that could not go on because of the cluster is taken up again after this.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How long a stop waits for cursors to be written.
const HAND_BACK_WITHIN: Duration = Duration::from_secs(3);

struct Work {
    halt: Arc<Halt>,
    thread: JoinHandle<Result<Job, Error>>,
}

struct Known {
    job: Job,
    assignment: Arc<Assignment>,
    not_before: Instant,
    work: Option<Work>,
}

/// The stage on its reader's thread. Its group keeps no place: the topic is small, and every owner reads it whole.
pub struct Fleet {
    replaying: Arc<Replaying>,
    jobs: HashMap<String, Known>,
    wishes: HashMap<String, Wish>,
    looked_at: Instant,
    /// The process stops: nothing is taken up any more.
    is_stopping: bool,
}

impl Fleet {
    /// The engine's jobs, none known yet.
    pub fn new(replaying: Replaying) -> Self {
        Self {
            replaying: Arc::new(replaying),
            jobs: HashMap::new(),
            wishes: HashMap::new(),
            looked_at: Instant::now(),
            is_stopping: false,
        }
    }

    fn learn(&mut self, id: &str, payload: Option<&[u8]>, assignment: Arc<Assignment>) {
        let Some(bytes) = payload else {
            if let Some(Known {
                work: Some(work), ..
            }) = self.jobs.remove(id)
            {
                work.halt.ask(Asked::LetGo);
            }
            return;
        };
        let job: Job = match serde_json::from_slice(bytes) {
            Ok(job) => job,
            Err(fault) => {
                error!(replay = id, %fault, "a replay job cannot be read; it is left to a newer version");
                return;
            }
        };
        match self.jobs.get_mut(id) {
            None => {
                let known = Known {
                    job,
                    assignment,
                    not_before: Instant::now(),
                    work: None,
                };
                self.jobs.insert(id.to_owned(), known);
            }
            Some(known) => {
                if known.assignment.epoch != assignment.epoch {
                    known.assignment = assignment;
                }
                // What is at work here was written here; what is older than what is known comes late.
                if known.work.is_none() && job.updated_at_ms >= known.job.updated_at_ms {
                    known.job = job;
                }
            }
        }
    }

    fn look(&mut self) {
        let mut at_work = 0;
        for (id, known) in &mut self.jobs {
            let is_over = |work: &Work| work.thread.is_finished();
            if let Some(work) = known.work.take_if(|work| is_over(work)) {
                known.end(id, work);
            }
            let Some(work) = &known.work else { continue };
            at_work += 1;
            match known.job.duty(self.wishes.get(id).copied()) {
                Duty::End(State::Cancelled) => work.halt.ask(Asked::Cancel),
                Duty::End(_) => work.halt.ask(Asked::Stop),
                Duty::Work | Duty::Nothing => work.halt.ask(Asked::Nothing),
            }
        }
        if self.is_stopping {
            return;
        }
        let mut due: Vec<(&String, &mut Known)> = self
            .jobs
            .iter_mut()
            .filter(|(id, known)| {
                known.work.is_none()
                    && known.assignment.is_live()
                    && known.not_before <= Instant::now()
                    && known.job.duty(self.wishes.get(*id).copied()) != Duty::Nothing
            })
            .collect();
        due.sort_by_key(|(_, known)| known.job.created_at_ms);
        for (id, known) in due.into_iter().take(AT_ONCE.saturating_sub(at_work)) {
            known.begin(id, &self.replaying);
        }
    }
}

impl Known {
    fn begin(&mut self, id: &str, replaying: &Arc<Replaying>) {
        let halt = Arc::new(Halt::default());
        let (asked, replaying, id) = (Arc::clone(&halt), Arc::clone(replaying), id.to_owned());
        let spawned = std::thread::Builder::new()
            .name("replay".into())
            .spawn(move || work(&replaying, &id, &asked));
        match spawned {
            Ok(thread) => self.work = Some(Work { halt, thread }),
            Err(fault) => {
                warn!(%fault, "no thread for a replay; it is tried again");
                self.not_before = Instant::now() + AGAIN_AFTER;
            }
        }
    }

    fn end(&mut self, id: &str, work: Work) {
        match work.thread.join() {
            Ok(Ok(job)) => {
                info!(replay = id, state = ?job.state, done = job.done, total = job.total, "a replay was worked on");
                self.job = job;
            }
            Ok(Err(fault @ Error::Refused { .. })) => {
                error!(replay = id, %fault, "a replay stopped");
                // Its record, which says so, comes by the topic; until then it must not begin again.
                self.job.state = State::Stopped;
            }
            Ok(Err(fault)) => {
                warn!(replay = id, %fault, "a replay could not go on; it is taken up again");
                self.not_before = Instant::now() + AGAIN_AFTER;
            }
            Err(_) => {
                error!(
                    replay = id,
                    "a replay's thread ended in a panic; it is taken up again"
                );
                self.not_before = Instant::now() + AGAIN_AFTER;
            }
        }
    }
}

/// Works on a job from what the topic says now: what the stage knows may be older than another owner's last word.
fn work(replaying: &Replaying, id: &str, halt: &Halt) -> Result<Job, Error> {
    let (mut job, wish) = replaying.job_and_wish(id)?;
    match job.duty(wish) {
        Duty::Nothing => return Ok(job),
        Duty::End(state) => {
            job.state = state;
            job.touch(now_ms());
            replaying.write(&job)?;
            return Ok(job);
        }
        Duty::Work => {}
    }
    let replaying = replaying.on(&job.topic);
    job.take_up(now_ms());
    replaying.write(&job)?;
    info!(
        replay = id,
        done = job.done,
        total = job.total,
        "a replay is taken up"
    );
    replaying.run(job, halt, &mut |_| {})
}

impl Stage for Fleet {
    fn receive(&mut self, record: Record, receipt: Receipt) {
        let assignment = Arc::clone(receipt.assignment());
        receipt.settle();
        let key = record
            .key
            .as_deref()
            .and_then(|key| std::str::from_utf8(key).ok());
        let Some(key) = key else { return };
        let payload = record.payload.as_deref();
        if key.starts_with(ID_PREFIX) {
            self.learn(key, payload, assignment);
        } else if let Some(id) = key.strip_prefix(WISH_PREFIX) {
            match payload.map(serde_json::from_slice::<Wish>) {
                Some(Ok(wish)) => {
                    self.wishes.insert(id.to_owned(), wish);
                }
                Some(Err(fault)) => {
                    error!(replay = id, %fault, "a wish about a replay cannot be read")
                }
                None => {
                    self.wishes.remove(id);
                }
            }
        }
    }

    fn turn(&mut self) {
        if self.looked_at.elapsed() >= LOOK_EVERY {
            self.looked_at = Instant::now();
            self.look();
        }
    }

    fn stopping(&mut self) {
        self.is_stopping = true;
        for known in self.jobs.values() {
            if let Some(work) = &known.work {
                work.halt.ask(Asked::HandBack);
            }
        }
        let deadline = Instant::now() + HAND_BACK_WITHIN;
        let is_at_work = |known: &Known| {
            let work = known.work.as_ref();
            work.is_some_and(|work| !work.thread.is_finished())
        };
        while self.jobs.values().any(is_at_work) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn fenced(&mut self) {
        self.jobs.retain(|_, known| {
            if known.assignment.is_live() {
                return true;
            }
            if let Some(work) = &known.work {
                work.halt.ask(Asked::LetGo);
            }
            false
        });
    }
}
