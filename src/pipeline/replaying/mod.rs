//! The replay engine: which dead letters an order means, and a job that sends them to `dispatch`, or marks them as discarded.
//!
//! Promise 1: a letter's bytes and id stay as they are, and a cursor is written only when all below it is acknowledged, so that a
//! stopped or killed job goes on where it was; a kill repeats at most one batch. It works from the dead-letter topic and the jobs in the replays topic
//! alone; the command line and the API are its callers. [`Replaying::plan`] counts, [`Replaying::begin`] writes the job,
//! [`Replaying::run`] does it.

mod plan;
mod run;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use plan::{Counts, Order, Plan};

use super::now_ms;
use super::topics::Topics;
use crate::kafka::producer::Producer;
use crate::kafka::settings::Connection;
use crate::kafka::table;
use crate::metrics::Metrics;
use crate::record::{Outgoing, Source};
use crate::retry::replay::{Deed, Job, Jobs, Resumption, State};

/// Shorter than a job may be silent, so that one which waits for the broker gives up before it is taken for dead.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(12);
/// What the ids of jobs begin with; other records of the topic are cursors of drains.
const ID_PREFIX: &str = "rp_";

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
    #[error("{0} was taken back already")]
    Undone(String),
    #[error(
        "the dead letter {place} was not taken: {reason}. Raise max.message.bytes of the topic, then resume"
    )]
    Refused { place: Source, reason: String },
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
    replays: Arc<str>,
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
        Ok(Self {
            connection,
            producer,
            letters: letters.map_or_else(|| Arc::clone(&topics.dead_letters), Arc::from),
            dispatch: Arc::clone(&topics.dispatch),
            replays: Arc::clone(&topics.replays),
        })
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
        if job.is_alive(now_ms()) {
            return Err(Error::Busy(job.id));
        }
        self.refuse_beside(&job, |_| true)?;
        job.state = State::Running;
        job.updated_at_ms = now_ms();
        job.resumptions.push(Resumption {
            at_ms: job.updated_at_ms,
            from: job
                .stretches
                .iter()
                .map(|(partition, stretch)| (*partition, stretch.next))
                .collect(),
        });
        self.write(&job)?;
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
