//! The replay engine: which dead letters an order means, and a job that sends them to `dispatch`, or marks them as discarded.
//!
//! Promise 1: a letter's bytes and id stay as they are, and a cursor is written only when all below it is acknowledged, so that a
//! stopped or killed job goes on where it was (`taken_up`). It works from the dead-letter topic and the jobs in the replays topic
//! alone; the command line and the API are its callers. [`Replaying::plan`] counts, [`Replaying::begin`] writes the job,
//! [`Replaying::run`] does it.

mod counts;
pub mod fleet;
mod missed;
mod plan;
mod run;
mod sent;
mod taken_up;
mod told;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use counts::{Counts, Left};
pub use missed::Origin;
pub use plan::{Order, Plan};
pub use run::{Asked, Halt};

use super::now_ms;
use super::topics::Topics;
use crate::intake::decode::Reading;
use crate::kafka::producer::Producer;
use crate::kafka::settings::Connection;
use crate::kafka::table;
use crate::metrics::Metrics;
use crate::record::{Outgoing, Source};
use crate::retry::replay::{Deed, Job, Jobs, Runner, State, Want, Wish};

/// Shorter than a job may be silent, so that one which waits for the broker gives up before it is taken for dead.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(12);
/// What the ids of jobs begin with; other records of the topic are cursors of drains.
const ID_PREFIX: &str = "rp_";
/// What stands before a job's id in the key of a wish about it.
const WISH_PREFIX: &str = "wish/";
/// What stands before a job's id in the key of a claim to go on with it.
const CLAIM_PREFIX: &str = "claim/";

/// Why an order cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Kafka(#[from] crate::kafka::Error),
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error(
        "the job {id} in {topic} cannot be read ({fault}); without it nobody can say what was replayed. Was it written by a newer version?"
    )]
    Unreadable {
        id: String,
        topic: Arc<str>,
        fault: serde_json::Error,
    },
    #[error("the job cannot be written: {0}")]
    Unwritable(serde_json::Error),
    #[error("there is no job {0}; look for its id in what the command printed when it began")]
    Unknown(String),
    #[error(
        "{0} is at work on the same dead letters; wait for its end, or stop it first (one that was killed counts as dead after 30 s)"
    )]
    Busy(String),
    #[error("{0} is finished; there is nothing to resume")]
    Finished(String),
    #[error(
        "{0} is a replay, and what was sent cannot be taken back; only a discard can be undone"
    )]
    NotADiscard(String),
    #[error("{0} is a discard; only a replay can be resumed")]
    NotAReplay(String),
    #[error("{0} was cancelled, which is for good; begin another replay")]
    Cancelled(String),
    #[error("{0} is worked on by the routers; `postrider replays resume {0}` tells them to go on")]
    OfTheFleet(String),
    #[error(
        "{0} is worked on by the command that began it: stop it there with Ctrl-C, and resume it with `postrider dead-letters replay --resume {0}`"
    )]
    OfACommand(String),
    #[error("{0} was taken back already")]
    Undone(String),
    #[error(
        "the dead letter {place} was not taken: {reason}. Raise max.message.bytes of the topic, then resume"
    )]
    Refused { place: Source, reason: String },
    #[error("`{field}`: {why}")]
    Order { field: &'static str, why: String },
    #[error(
        "the job paused for more than {0} s, because its process or the broker did, and another may have begun meanwhile"
    )]
    Slept(i64),
}

/// The dead letters of a cluster and what became of them.
pub struct Replaying {
    connection: Connection,
    producer: Producer,
    letters: Arc<str>,
    dispatch: Arc<str>,
    held: Arc<str>,
    replays: Arc<str>,
    /// How records that never were deliveries are read.
    reading: Reading,
    origin: Option<Arc<Origin>>,
}

impl Replaying {
    /// Opens the dead-letter topic of a cluster, or another one (`letters`).
    ///
    /// # Errors
    /// The client refuses its settings.
    pub fn open(
        connection: Connection,
        topics: &Topics,
        letters: Option<&str>,
    ) -> Result<Self, Error> {
        let producer = Producer::start(&connection.producer(), Arc::new(Metrics::new()?))?;
        let opened = Self::with(connection, producer, topics);
        Ok(opened.on(letters.unwrap_or(&topics.dead_letters)))
    }

    /// The dead-letter topic of a cluster, by a producer that is there already.
    pub fn with(connection: Connection, producer: Producer, topics: &Topics) -> Self {
        Self {
            connection,
            producer,
            letters: Arc::clone(&topics.dead_letters),
            dispatch: Arc::clone(&topics.dispatch),
            held: Arc::clone(&topics.held),
            replays: Arc::clone(&topics.replays),
            reading: Reading::default(),
            origin: None,
        }
    }

    /// The same on another dead-letter topic.
    pub fn on(&self, letters: &str) -> Self {
        Self {
            connection: self.connection.clone(),
            producer: self.producer.clone(),
            letters: Arc::from(letters),
            dispatch: Arc::clone(&self.dispatch),
            held: Arc::clone(&self.held),
            replays: Arc::clone(&self.replays),
            reading: self.reading.clone(),
            origin: self.origin.clone(),
        }
    }

    /// The same where it is known which events there were and who wants them, which only jobs for missed events need.
    pub fn knowing(mut self, origin: Origin) -> Self {
        self.reading = origin.reading.clone();
        self.origin = Some(Arc::new(origin));
        self
    }

    /// The same where it is known how events are read, which tells what other programs' letters are as events.
    pub fn reading(mut self, reading: Reading) -> Self {
        self.reading = reading;
        self
    }

    /// What it writes orders by.
    pub fn producer(&self) -> &Producer {
        &self.producer
    }

    /// All jobs.
    ///
    /// # Errors
    /// [`Error::Kafka`] and [`Error::Unreadable`].
    pub fn jobs(&self) -> Result<Jobs, Error> {
        let mut jobs = Vec::new();
        for (key, record) in table::latest(&self.connection, &self.replays)? {
            if !key.starts_with(ID_PREFIX.as_bytes()) {
                continue;
            }
            let bytes = record.payload.unwrap_or_default();
            jobs.push(
                serde_json::from_slice(&bytes).map_err(|fault| Error::Unreadable {
                    id: String::from_utf8_lossy(&key).into_owned(),
                    topic: Arc::clone(&self.replays),
                    fault,
                })?,
            );
        }
        Ok(Jobs(jobs))
    }

    /// Writes the job of a plan, so that it can be resumed from here on. A discard is done with that.
    ///
    /// # Errors
    /// [`Error::Busy`]: another job is at work on the same letters; nothing was begun.
    pub fn begin(&self, plan: Plan) -> Result<Job, Error> {
        let mut job = plan.job;
        self.refuse_beside(&job, |_| true)?;
        job.created_at_ms = now_ms();
        job.updated_at_ms = job.created_at_ms;
        self.write(&job)?;
        // Two commands may have begun at the same moment, and neither seen the other: each has written by now, and the later one yields.
        let mine = (job.created_at_ms, job.id.clone());
        let is_earlier = |other: &Job| (other.created_at_ms, other.id.clone()) < mine;
        if let Err(busy) = self.refuse_beside(&job, is_earlier) {
            self.put(&job.id, None)?;
            return Err(busy);
        }
        if job.deed == Deed::Discard {
            for stretch in job.stretches.values_mut() {
                stretch.next = stretch.to;
            }
            job.done = job.total;
            job.state = State::Finished;
            self.write(&job)?;
        }
        Ok(job)
    }

    /// Takes up a job that was stopped or killed.
    ///
    /// # Errors
    /// [`Error::Unknown`], [`Error::Finished`], [`Error::Busy`] (it, or another on the same letters, is running).
    pub fn resume(&self, id: &str) -> Result<Job, Error> {
        let mut job = self.job(id)?;
        if job.deed != Deed::Replay {
            return Err(Error::NotAReplay(job.id));
        }
        if job.state == State::Finished {
            return Err(Error::Finished(job.id));
        }
        if job.runner == Runner::Fleet {
            return Err(Error::OfTheFleet(job.id));
        }
        if job.state == State::Cancelled {
            return Err(Error::Cancelled(job.id));
        }
        if job.is_alive(now_ms()) {
            return Err(Error::Busy(job.id));
        }
        self.refuse_beside(&job, |_| true)?;
        // Two may resume at the same moment. Whoever still finds its claim after it wrote the job is alone: a later claim was written after
        // the job, and its writer finds the job at work.
        let key = format!("{CLAIM_PREFIX}{id}");
        let mine = Bytes::from(uuid::Uuid::now_v7().simple().to_string());
        self.put(&key, Some(mine.clone()))?;
        if !self.holds(&key, &mine)? || self.job(id)?.is_alive(now_ms()) {
            return Err(Error::Busy(job.id));
        }
        job.take_up(now_ms());
        self.write(&job)?;
        if !self.holds(&key, &mine)? {
            return Err(Error::Busy(job.id));
        }
        Ok(job)
    }

    fn holds(&self, key: &str, claim: &Bytes) -> Result<bool, Error> {
        let mut latest = table::latest(&self.connection, &self.replays)?;
        let found = latest.remove(key.as_bytes());
        Ok(found.and_then(|record| record.payload).as_ref() == Some(claim))
    }

    /// Tells the routers what is wanted of a job of theirs: it is done within a batch.
    ///
    /// # Errors
    /// [`Error::Unknown`], [`Error::OfACommand`], [`Error::Finished`], [`Error::Cancelled`].
    pub fn wish(&self, id: &str, want: Want) -> Result<Job, Error> {
        let job = self.job(id)?;
        match (job.runner, job.state) {
            (Runner::Command, _) => return Err(Error::OfACommand(job.id)),
            (_, State::Finished) => return Err(Error::Finished(job.id)),
            (_, State::Cancelled) => return Err(Error::Cancelled(job.id)),
            _ => {}
        }
        if want == Want::Run && job.state == State::Stopped {
            self.refuse_beside(&job, |_| true)?;
        }
        // Never older than what the job's own record says, whatever this machine's clock thinks.
        let at_ms = now_ms().max(job.updated_at_ms);
        let value = serde_json::to_vec(&Wish { want, at_ms }).map_err(Error::Unwritable)?;
        self.put(&format!("{WISH_PREFIX}{id}"), Some(value.into()))?;
        Ok(job)
    }

    /// Takes a discard back: its letters wait again.
    ///
    /// The job's record stays and says when: a replay that passed over its letters meanwhile has not sent them, and that must be known.
    ///
    /// # Errors
    /// [`Error::Unknown`], [`Error::NotADiscard`], [`Error::Undone`].
    pub fn undo(&self, id: &str) -> Result<Job, Error> {
        let mut job = self.job(id)?;
        if job.deed != Deed::Discard {
            return Err(Error::NotADiscard(job.id));
        }
        if job.undone_at_ms.is_some() {
            return Err(Error::Undone(job.id));
        }
        job.updated_at_ms = now_ms();
        job.undone_at_ms = Some(job.updated_at_ms);
        self.write(&job)?;
        Ok(job)
    }

    /// Whether the cluster has a topic.
    ///
    /// # Errors
    /// [`Error::Kafka`].
    pub fn has_topic(&self, name: &str) -> Result<bool, Error> {
        let cluster = crate::kafka::topics::describe(&self.connection)?;
        Ok(cluster.topics.contains_key(name))
    }

    /// The job of an id.
    ///
    /// # Errors
    /// [`Error::Unknown`], and as [`Replaying::jobs`].
    pub fn job(&self, id: &str) -> Result<Job, Error> {
        let jobs = self.jobs()?;
        jobs.get(id)
            .cloned()
            .ok_or_else(|| Error::Unknown(id.to_owned()))
    }

    /// A job and the last wish about it, both as the topic says now.
    fn job_and_wish(&self, id: &str) -> Result<(Job, Option<Wish>), Error> {
        let mut latest = table::latest(&self.connection, &self.replays)?;
        let mut payload = |key: &str| {
            latest
                .remove(key.as_bytes())
                .and_then(|record| record.payload)
        };
        let job = payload(id).ok_or_else(|| Error::Unknown(id.to_owned()))?;
        let job = serde_json::from_slice(&job).map_err(|fault| Error::Unreadable {
            id: id.to_owned(),
            topic: Arc::clone(&self.replays),
            fault,
        })?;
        let wish = payload(&format!("{WISH_PREFIX}{id}"));
        Ok((
            job,
            wish.and_then(|wish| serde_json::from_slice(&wish).ok()),
        ))
    }

    fn refuse_beside(&self, job: &Job, concerns: impl Fn(&Job) -> bool) -> Result<(), Error> {
        let now = now_ms();
        let jobs = self.jobs()?.0;
        let other = jobs.into_iter().find(|other| {
            other.id != job.id && other.is_alive(now) && other.overlaps(job) && concerns(other)
        });
        other.map_or(Ok(()), |other| Err(Error::Busy(other.id)))
    }

    fn write(&self, job: &Job) -> Result<(), Error> {
        let value = serde_json::to_vec(job).map_err(Error::Unwritable)?;
        self.put(&job.id, Some(value.into()))
    }

    fn put(&self, id: &str, payload: Option<Bytes>) -> Result<(), Error> {
        let record = Outgoing {
            topic: Arc::clone(&self.replays),
            key: Some(Bytes::copy_from_slice(id.as_bytes())),
            payload,
            headers: Vec::new(),
        };
        self.producer.write(&record, ACKNOWLEDGED_WITHIN)?;
        Ok(())
    }
}
