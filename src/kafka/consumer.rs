//! The one thread that owns a Kafka consumer: it polls, keeps the books, commits and answers rebalances.
//!
//! It keeps promise 2 and the fence of promise 5. Order of a turn: settlements first (so that a commit is as far as it can
//! be), then rebalances, then commits, then records. A turn never waits for HTTP or for a stage: a stage that has no room
//! says so ([`Stage::admits`]) and reading stops while the turns go on.
//!
//! A revoke is answered in three steps: no work of the partition may begin, what is under way has a few seconds to end,
//! then the frontier is committed and the partition handed back. `pause`/`resume` are not used: they drop the prefetch and
//! can leave a partition silent (librdkafka 5343, 5591).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::Message;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tracing::{debug, error, info, warn};

use super::books::{BookSummary, Books, Place};
use super::membership::{Change, Membership};
use super::receipt::{Heartbeat, Receipt, Settlement};
use super::start::{self, Start};
use super::status::Status;
use super::{Error, bytes_of};
use crate::metrics::Metrics;
use crate::record::{Header, NextOffset, Record, SourceOffset};

/// How often the frontier is committed. It bounds what a killed process repeats.
const COMMIT_INTERVAL: Duration = Duration::from_millis(100);
/// How long a revoked partition's work that is under way may take to end before the partition is handed back.
const HAND_BACK_LIMIT: Duration = Duration::from_secs(3);
/// A frontier that stands still for so long while work is open is an error.
const STALL_LIMIT: Duration = Duration::from_secs(60);
const ASSIGN_PAUSE: Duration = Duration::from_millis(500);
const POLL_WAIT: Duration = Duration::from_millis(100);
const RECORDS_A_TURN: usize = 512;

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

    /// How long the stage can be left alone when there is nothing to read.
    fn patience(&self) -> Duration {
        POLL_WAIT
    }

    /// The process is stopping: nothing more is received; let go of what was received and not begun.
    fn stopping(&mut self) {}

    /// Work of some assignment may not begin any more: forget what was received and not begun.
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

struct Turns {
    stopping: Arc<AtomicBool>,
    status: Arc<Status>,
    settings: ReaderSettings,
    stage: Box<dyn Stage>,
    metrics: Arc<Metrics>,
    clock: Instant,
}

/// Why a consumer's life ended.
enum End {
    Stopped,
    /// The process slept for longer than the session timeout: begin again as a new member.
    Slept,
}

impl Turns {
    fn run(mut self) -> Result<(), Error> {
        loop {
            let (back, settlements) = mpsc::channel();
            let heartbeat = Arc::new(Heartbeat::new(self.settings.session_timeout));
            let membership = Membership::new(self.settings.stage, Arc::clone(&self.metrics));
            let consumer: BaseConsumer<Membership> =
                self.settings.client.create_with_context(membership)?;
            let topics: Vec<&str> = self.settings.topics.iter().map(String::as_str).collect();
            consumer.subscribe(&topics)?;
            let mut life = Life {
                consumer: Arc::new(consumer),
                books: Books::new(Arc::clone(&heartbeat), back),
                settlements,
                heartbeat,
                strands: Vec::new(),
                handing_back: None,
                commit_due: Duration::ZERO,
                stall_logged: false,
            };
            let end = life.live(&mut self)?;
            life.leave(&mut self);
            match end {
                End::Stopped => return Ok(()),
                End::Slept => warn!(
                    stage = self.settings.stage,
                    "the process slept for longer than the session timeout; joining the group anew"
                ),
            }
        }
    }

    fn now(&self) -> Duration {
        self.clock.elapsed()
    }
}

/// A partition that is read by itself.
struct Strand {
    place: Place,
    queue: PartitionQueue<Membership>,
}

struct HandBack {
    places: Vec<Place>,
    until: Duration,
}

/// One membership of the group, from subscribe to close.
struct Life {
    consumer: Arc<BaseConsumer<Membership>>,
    books: Books,
    settlements: Receiver<Settlement>,
    heartbeat: Arc<Heartbeat>,
    strands: Vec<Strand>,
    handing_back: Option<HandBack>,
    commit_due: Duration,
    stall_logged: bool,
}

impl Life {
    fn live(&mut self, turns: &mut Turns) -> Result<End, Error> {
        let mut stopping_since = None;
        loop {
            if !self.heartbeat.is_recent() {
                return Ok(End::Slept);
            }
            self.heartbeat.turn();
            self.take_settlements();
            self.answer_rebalance(turns)?;
            turns.stage.turn();
            self.commit(turns)?;
            self.report(turns);

            if turns.stopping.load(Ordering::Acquire) {
                // The stages end or park what is under way; when every receipt is back there is nothing to wait for.
                // The app bounds the whole and drops what it does not wait for.
                let since = *stopping_since.get_or_insert_with(|| {
                    turns.stage.stopping();
                    turns.now()
                });
                let waited = turns.now().saturating_sub(since);
                if self.books.outstanding() == 0 || waited > STALL_LIMIT {
                    return Ok(End::Stopped);
                }
                self.wait_for_settlement(Duration::from_millis(10));
                continue;
            }
            if self.handing_back.is_some() || !turns.stage.admits() {
                self.wait_for_settlement(Duration::from_millis(5));
                continue;
            }
            if turns.settings.split {
                self.read_strands(turns)?;
            } else {
                self.read(turns)?;
            }
        }
    }

    /// Commits what is settled and leaves the group, so that others take over at once.
    fn leave(&mut self, turns: &mut Turns) {
        self.books.close_all();
        turns.stage.fenced();
        self.take_settlements();
        if let Err(failure) = self.commit_now(turns) {
            warn!(stage = turns.settings.stage, %failure, "the last commit failed; the records since the one before are read again");
        }
        self.books.revoke_all();
        self.strands.clear();
        self.consumer.context().close();
        turns.status.set(BookSummary::default());
        // Dropping the consumer closes it; the group hears of it.
    }

    fn take_settlements(&mut self) {
        while let Ok(settlement) = self.settlements.try_recv() {
            self.books.settle(settlement);
        }
    }

    fn wait_for_settlement(&mut self, limit: Duration) {
        if let Ok(settlement) = self.settlements.recv_timeout(limit) {
            self.books.settle(settlement);
        }
    }

    fn answer_rebalance(&mut self, turns: &mut Turns) -> Result<(), Error> {
        while let Some(change) = self.consumer.context().next_change() {
            match change {
                Change::Assigned(places) => {
                    if let Err(failure) = self.assigned(&places, turns) {
                        warn!(stage = turns.settings.stage, %failure, "could not begin with the assigned partitions; trying again");
                        self.consumer.context().put_back(Change::Assigned(places));
                        std::thread::sleep(ASSIGN_PAUSE);
                        return Ok(());
                    }
                }
                Change::Revoked(places) => {
                    debug!(
                        stage = turns.settings.stage,
                        ?places,
                        "partitions are taken back"
                    );
                    for place in &places {
                        self.books.close(place);
                    }
                    turns.stage.fenced();
                    let until = turns.now() + HAND_BACK_LIMIT;
                    self.handing_back = Some(HandBack { places, until });
                }
                Change::Lost(places) => {
                    warn!(
                        stage = turns.settings.stage,
                        ?places,
                        "partitions are lost to another member"
                    );
                    self.drop_places(&places);
                    turns.stage.fenced();
                }
            }
        }
        let Some(hand_back) = &self.handing_back else {
            return Ok(());
        };
        if self.books.outstanding() > 0 && turns.now() < hand_back.until {
            return Ok(());
        }
        self.take_settlements();
        if let Err(failure) = self.commit_now(turns) {
            warn!(stage = turns.settings.stage, %failure, "the commit before a hand-over failed; the next owner repeats some records");
        }
        if let Some(hand_back) = self.handing_back.take() {
            self.drop_places(&hand_back.places);
        }
        self.consumer.unassign()?;
        Ok(())
    }

    fn drop_places(&mut self, places: &[Place]) {
        for place in places {
            self.books.revoke(place);
        }
        self.strands
            .retain(|strand| !places.contains(&strand.place));
    }

    fn assigned(&mut self, places: &[Place], turns: &mut Turns) -> Result<(), Error> {
        let settings = &turns.settings;
        let starts =
            start::positions(&self.consumer, places, settings.start, settings.keeps_place)?;
        let mut assignment = TopicPartitionList::new();
        for position in &starts {
            let (topic, partition) = &position.place;
            assignment.add_partition_offset(
                topic,
                *partition,
                Offset::Offset(position.offset.0),
            )?;
            self.books
                .assign(position.place.clone(), position.committed);
        }
        // Before fetching begins: a batch that went to the main queue could be read after a later one of the partition's
        // own queue, and the books would take it for a repetition. librdkafka leaves a queue that is split alone when it
        // starts to fetch (RD_KAFKA_Q_F_FWD_APP in rdkafka_partition.c).
        if settings.split {
            self.strands = starts
                .iter()
                .filter_map(|position| {
                    let queue = self
                        .consumer
                        .split_partition_queue(&position.place.0, position.place.1)?;
                    Some(Strand {
                        place: position.place.clone(),
                        queue,
                    })
                })
                .collect();
        }
        self.consumer.assign(&assignment)?;
        // A start that was never committed is committed now: otherwise a group that begins at the end, and dies before
        // its first record, would begin at a later end and skip what came between.
        let fresh: Vec<(Place, NextOffset)> = starts
            .iter()
            .filter(|position| position.committed.is_none())
            .map(|position| (position.place.clone(), position.offset))
            .collect();
        if !fresh.is_empty() && turns.settings.keeps_place {
            self.consumer.commit(&list_of(&fresh)?, CommitMode::Async)?;
        }
        info!(
            stage = turns.settings.stage,
            partitions = places.len(),
            "assigned"
        );
        turns.status.joined();
        Ok(())
    }

    fn commit(&mut self, turns: &Turns) -> Result<(), Error> {
        for (place, offset) in self.consumer.context().confirmed_commits() {
            self.books.confirm_committed(&place, offset);
        }
        if turns.now() < self.commit_due || self.handing_back.is_some() {
            return Ok(());
        }
        self.commit_due = turns.now() + COMMIT_INTERVAL;
        let plan = self.books.commit_plan();
        if !plan.is_empty() && turns.settings.keeps_place {
            self.consumer.commit(&list_of(&plan)?, CommitMode::Async)?;
        }
        Ok(())
    }

    fn commit_now(&mut self, turns: &Turns) -> Result<(), Error> {
        let plan = self.books.commit_plan();
        if !plan.is_empty() && turns.settings.keeps_place {
            self.consumer.commit(&list_of(&plan)?, CommitMode::Sync)?;
            for (place, offset) in plan {
                self.books.confirm_committed(&place, offset);
            }
        }
        Ok(())
    }

    fn report(&mut self, turns: &Turns) {
        let summary = self.books.summary(turns.now());
        turns.status.set(summary);
        if summary.open > 0 && summary.oldest > STALL_LIMIT {
            if !self.stall_logged {
                error!(
                    stage = turns.settings.stage,
                    open = summary.open,
                    oldest_seconds = summary.oldest.as_secs(),
                    "the ledger stands still: a record has been open for more than a minute"
                );
                self.stall_logged = true;
            }
        } else {
            self.stall_logged = false;
        }
    }

    fn read(&mut self, turns: &mut Turns) -> Result<(), Error> {
        let mut wait = turns.stage.patience();
        for _ in 0..RECORDS_A_TURN {
            let Some(polled) = self.consumer.poll(wait) else {
                return Ok(());
            };
            wait = Duration::ZERO;
            match polled {
                Ok(message) => receive(&mut self.books, turns, &message),
                Err(failure) => return tell(turns.settings.stage, failure),
            }
            if !turns.stage.admits() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn read_strands(&mut self, turns: &mut Turns) -> Result<(), Error> {
        let mut read = 0;
        for strand in &self.strands {
            while read < RECORDS_A_TURN && turns.stage.wants(&strand.place.0, strand.place.1) {
                match strand.queue.poll(Duration::ZERO) {
                    None => break,
                    Some(Ok(message)) => {
                        receive(&mut self.books, turns, &message);
                        read += 1;
                    }
                    Some(Err(failure)) => tell(turns.settings.stage, failure)?,
                }
            }
        }
        // The main queue serves rebalances and errors, and must be polled whatever the strands do.
        let wait = if read > 0 {
            Duration::ZERO
        } else {
            turns.stage.patience()
        };
        match self.consumer.poll(wait) {
            None => Ok(()),
            Some(Ok(message)) => {
                receive(&mut self.books, turns, &message);
                Ok(())
            }
            Some(Err(failure)) => tell(turns.settings.stage, failure),
        }
    }
}

fn receive(books: &mut Books, turns: &mut Turns, message: &BorrowedMessage<'_>) {
    let offset = SourceOffset(message.offset());
    let opened = books.open(
        message.topic(),
        message.partition(),
        offset,
        turns.clock.elapsed(),
    );
    let Some((receipt, topic)) = opened else {
        return;
    };
    let record = Record {
        topic,
        partition: message.partition(),
        offset,
        timestamp_ms: message.timestamp().to_millis(),
        key: message.key().map(bytes_of),
        payload: message.payload().map(bytes_of),
        headers: headers_of(message),
    };
    turns.stage.receive(record, receipt);
}

/// The headers of a message, in their order.
pub(super) fn headers_of<M: Message>(message: &M) -> Vec<Header> {
    message.headers().map_or_else(Vec::new, |headers| {
        headers
            .iter()
            .map(|header| Header {
                name: header.key.to_owned().into(),
                value: header.value.map(bytes_of),
            })
            .collect()
    })
}

fn list_of(offsets: &[(Place, NextOffset)]) -> Result<TopicPartitionList, Error> {
    let mut list = TopicPartitionList::new();
    for ((topic, partition), offset) in offsets {
        list.add_partition_offset(topic, *partition, Offset::Offset(offset.0))?;
    }
    Ok(list)
}

/// Tells of a consumer's error. Nearly all pass by themselves; a fatal one ends the process, which begins again.
fn tell(stage: &'static str, failure: KafkaError) -> Result<(), Error> {
    match failure {
        KafkaError::MessageConsumptionFatal(_) => Err(Error::Client(failure)),
        KafkaError::MessageConsumption(
            RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic,
        ) => {
            warn!(
                stage,
                "a topic to read does not exist (yet); waiting for it"
            );
            Ok(())
        }
        other => {
            warn!(stage, failure = %other, "the consumer met an error and goes on");
            Ok(())
        }
    }
}
