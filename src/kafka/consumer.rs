//! A reader: a thread of its own that feeds a stage with the records of its topics. What the thread does is in `turns`.
//!
//! In: topics, a group, and the stage's code. Out: records, each with a receipt, and a [`Status`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;

use super::Error;
use super::receipt::Receipt;
use super::start::Start;
use super::status::Status;
use super::turns::Turns;
use crate::metrics::Metrics;
use crate::record::Record;

pub(super) const POLL_WAIT: Duration = Duration::from_millis(100);

/// What happens to a record: the code of a stage, called on the consumer's thread. It must not block.
pub trait Stage: Send + 'static {
    /// A record that is now this stage's duty; the receipt settles it.
    fn receive(&mut self, record: Record, receipt: Receipt);

    /// Whether there is room for more. While it answers `false` nothing is read.
    fn admits(&mut self) -> bool {
        true
    }

    /// Called once a turn, also when nothing is read.
    fn turn(&mut self) {}

    /// Whether this partition may be read now. Asked only when [`ReaderSettings::split`] is set.
    fn wants(&mut self, _topic: &str, _partition: i32) -> bool {
        true
    }

    /// How long a record of this topic may stay open; one that does for longer is told of as an error.
    fn longest_open(&self, _topic: &str) -> Duration {
        Duration::from_secs(60)
    }

    /// How long the stage can be left alone when there is nothing to read.
    fn patience(&self) -> Duration {
        POLL_WAIT
    }

    /// The process is stopping: nothing more is received; let go of what was received and not begun.
    fn stopping(&mut self) {}

    /// Some assignment is not live any more: what was received for it and not begun is put back into its topic and settled where it
    /// is being handed back, and forgotten where it is lost (see [`Standing`](super::receipt::Standing)).
    fn fenced(&mut self) {}
}

/// What a reader needs to know.
pub struct ReaderSettings {
    /// The stage's name in metrics and logs.
    pub stage: &'static str,
    /// Group, brokers and all other client properties.
    pub client: ClientConfig,
    /// Topic names, or regular expressions that begin with `^`.
    pub topics: Vec<String>,
    /// Where a partition without a committed offset begins.
    pub start: Start,
    /// Read each partition by itself and only when the stage wants it (the delay topics).
    pub split: bool,
    /// The name that this member keeps across restarts (`group.instance.id`, KIP-345): who comes back with it has its
    /// partitions at once, and who still holds it is fenced.
    pub instance_id: Option<String>,
    /// Commit and continue where the group was. Without it every assignment begins at [`ReaderSettings::start`].
    pub keeps_place: bool,
    /// The group's session timeout: how long a process may sleep and still be the owner.
    pub session_timeout: Duration,
}

/// A running reader. Dropping it does not stop it; see [`Reader::stop`].
pub struct Reader {
    stopping: Arc<AtomicBool>,
    status: Arc<Status>,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

impl Reader {
    /// Starts the thread. The broker need not be reachable; [`Status`] tells when partitions are assigned.
    pub fn start(
        settings: ReaderSettings,
        stage: Box<dyn Stage>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Error> {
        let stopping = Arc::new(AtomicBool::new(false));
        let status = Arc::new(Status::new(settings.stage));
        let turns = Turns {
            stopping: Arc::clone(&stopping),
            status: Arc::clone(&status),
            settings,
            stage,
            metrics,
            clock: Instant::now(),
        };
        let thread = std::thread::Builder::new()
            .name(format!("{}-reader", turns.settings.stage))
            .spawn(move || turns.run())
            .map_err(Error::Thread)?;
        Ok(Self {
            stopping,
            status,
            thread: Some(thread),
        })
    }

    /// What the reader tells of itself.
    pub fn status(&self) -> &Arc<Status> {
        &self.status
    }

    /// Asks the thread to stop reading, settle what comes back, commit and leave the group.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Waits for the thread's end.
    pub fn join(mut self) -> Result<(), Error> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(Error::Panicked),
            None => Ok(()),
        }
    }

    /// Whether the thread has ended, as it does only when it was stopped or cannot go on.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }
}
