//! What the thread of a reader does: it polls, keeps the books, commits and answers rebalances.
//!
//! It keeps promise 2 and the fence of promise 5. Order of a turn: settlements first (so that a commit is as far as it can
//! be), then rebalances, then commits, then records. A turn never waits for HTTP or for a stage: a stage that has no room
//! says so ([`Stage::admits`]) and reading stops while the turns go on.
//!
//! What a rebalance does is in `handover`. `pause`/`resume` are not used: they drop the prefetch and
//! can leave a partition silent (librdkafka 5343, 5591).
//!
//! [`Stage::admits`]: super::consumer::Stage::admits

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::{Message, Offset, TopicPartitionList};
use tracing::{error, warn};

use super::books::{BookSummary, Books, Place};
use super::consumer::{ReaderSettings, Stage};
use super::handover::{HandBack, Strand};
use super::ledger::Commit;
use super::membership::Membership;
use super::receipt::{Heartbeat, Settlement};
use super::renewal::Renewal;
use super::status::Status;
use super::topic_id;
use super::{Error, bytes_of};
use crate::metrics::Metrics;
use crate::record::{Header, Record, SourceOffset};

/// How often the frontier is committed. It bounds what a killed process repeats.
const COMMIT_INTERVAL: Duration = Duration::from_millis(100);
/// A stop waits so long for what is open.
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// For the LeaveGroup of a static member, whose sending librdkafka does not tell.
const LEAVE_WAIT: Duration = Duration::from_millis(200);
const RECORDS_A_TURN: usize = 512;

/// What outlives a membership: the stage, its settings, and who watches.
pub(super) struct Turns {
    pub(super) stopping: Arc<AtomicBool>,
    pub(super) status: Arc<Status>,
    pub(super) settings: ReaderSettings,
    pub(super) stage: Box<dyn Stage>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Instant,
}

/// Why a consumer's life ended.
enum End {
    Stopped,
    /// The process slept for longer than the session timeout: begin again as a new member.
    Slept,
    /// A partition's offsets did not rise: begin again at what is committed.
    Disordered,
    /// A topic was deleted and made anew: begin again with a client that does not know the old one.
    Renewed,
}

impl Turns {
    /// Runs until it is stopped or cannot go on.
    pub(super) fn run(mut self) -> Result<(), Error> {
        loop {
            let (back, settlements) = mpsc::channel();
            let heartbeat = Arc::new(Heartbeat::new(self.settings.session_timeout));
            let membership = Membership::new(self.settings.stage, Arc::clone(&self.metrics));
            let mut client = self.settings.client.clone();
            if let Some(instance_id) = &self.settings.instance_id {
                client.set("group.instance.id", instance_id);
            }
            let consumer: BaseConsumer<Membership> = client.create_with_context(membership)?;
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
                renewal: Renewal::default(),
            };
            let end = life.live(&mut self)?;
            life.leave(&mut self, &end);
            match end {
                End::Stopped => return Ok(()),
                End::Slept => warn!(
                    stage = self.settings.stage,
                    "the process slept for longer than the session timeout; joining the group anew"
                ),
                End::Disordered => warn!(
                    stage = self.settings.stage,
                    "a partition's offsets did not rise; reading again from what is committed"
                ),
                End::Renewed => warn!(
                    stage = self.settings.stage,
                    "a topic was deleted and made anew; joining the group anew"
                ),
            }
        }
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.elapsed()
    }
}

/// One membership of the group, from subscribe to close.
pub(super) struct Life {
    pub(super) consumer: Arc<BaseConsumer<Membership>>,
    pub(super) books: Books,
    pub(super) settlements: Receiver<Settlement>,
    pub(super) heartbeat: Arc<Heartbeat>,
    pub(super) strands: Vec<Strand>,
    pub(super) handing_back: Option<HandBack>,
    pub(super) commit_due: Duration,
    pub(super) stall_logged: bool,
    pub(super) renewal: Renewal,
}

impl Life {
    fn live(&mut self, turns: &mut Turns) -> Result<End, Error> {
        let mut stopping_since = None;
        loop {
            if !self.heartbeat.is_recent() {
                return Ok(End::Slept);
            }
            if self.books.is_disordered() {
                return Ok(End::Disordered);
            }
            if self.renewal.turn(&self.consumer, turns.now()) {
                return Ok(End::Renewed);
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
                if self.books.outstanding() == 0 || waited > STOP_LIMIT {
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
    fn leave(&mut self, turns: &mut Turns, end: &End) {
        self.books.close_all();
        turns.stage.fenced();
        self.take_settlements();
        // A frontier that came about out of order is not to be trusted.
        if !matches!(end, End::Disordered | End::Renewed)
            && let Err(failure) = self.commit_now(turns)
        {
            warn!(stage = turns.settings.stage, %failure, "the last commit failed; the records since the one before are read again");
        }
        self.books.revoke_all();
        self.strands.clear();
        self.consumer.context().close();
        if turns.settings.instance_id.is_some() && matches!(end, End::Stopped) {
            self.leave_as_static_member();
        }
        turns.status.set(BookSummary::default());
        // Dropping the consumer closes it; the group hears of it.
    }

    /// A static member's close leaves its partitions unread until the session timeout (KIP-345; librdkafka's
    /// `rd_kafka_cgrp_leave_maybe`). Who is told to stop may not come back, so it unsubscribes first, which does send
    /// the LeaveGroup, once the unassign has been served.
    fn leave_as_static_member(&mut self) {
        self.consumer.unsubscribe();
        let until = Instant::now() + LEAVE_WAIT;
        while Instant::now() < until {
            let _ = self.consumer.poll(Duration::from_millis(10));
        }
    }

    pub(super) fn take_settlements(&mut self) {
        while let Ok(settlement) = self.settlements.try_recv() {
            self.books.settle(settlement);
        }
    }

    fn wait_for_settlement(&mut self, limit: Duration) {
        if let Ok(settlement) = self.settlements.recv_timeout(limit) {
            self.books.settle(settlement);
        }
    }

    fn commit(&mut self, turns: &Turns) -> Result<(), Error> {
        for (place, commit) in self.consumer.context().confirmed_commits() {
            self.books.confirm_committed(&place, commit);
        }
        if turns.now() < self.commit_due || self.handing_back.is_some() {
            return Ok(());
        }
        self.commit_due = turns.now() + COMMIT_INTERVAL;
        let plan = self.commit_plan(turns);
        if !plan.is_empty() {
            self.consumer
                .commit(&self.list_of(&plan)?, CommitMode::Async)?;
        }
        Ok(())
    }

    pub(super) fn commit_now(&mut self, turns: &Turns) -> Result<(), Error> {
        let plan = self.commit_plan(turns);
        if plan.is_empty() {
            return Ok(());
        }
        if let Err(failure) = self
            .consumer
            .commit(&self.list_of(&plan)?, CommitMode::Sync)
        {
            let had_notes = !self.consumer.context().refuses_notes();
            self.consumer.context().learn(&failure);
            if had_notes && self.consumer.context().refuses_notes() {
                return self.commit_now(turns);
            }
            return Err(failure.into());
        }
        for (place, commit) in plan {
            self.books.confirm_committed(&place, commit);
        }
        Ok(())
    }

    fn commit_plan(&self, turns: &Turns) -> Vec<(Place, Commit)> {
        if !turns.settings.keeps_place {
            return Vec::new();
        }
        self.books
            .commit_plan(!self.consumer.context().refuses_notes())
    }

    /// A commit as librdkafka wants it.
    pub(super) fn list_of(&self, commits: &[(Place, Commit)]) -> Result<TopicPartitionList, Error> {
        let keeps_notes = !self.consumer.context().refuses_notes();
        let mut list = TopicPartitionList::with_capacity(commits.len());
        for ((topic, partition), commit) in commits {
            let mut element = list.add_partition(topic, *partition);
            element.set_offset(Offset::Offset(commit.offset.0))?;
            let id = self.renewal.ids().get(topic).filter(|_| keeps_notes);
            let metadata = topic_id::to_metadata(id, &commit.note);
            if !metadata.is_empty() {
                element.set_metadata(&metadata);
            }
        }
        Ok(list)
    }

    fn report(&mut self, turns: &Turns) {
        let now = turns.now();
        let summary = self.books.summary(now);
        turns.status.set(summary);
        let longest_open = |topic: &str| turns.stage.longest_open(topic);
        let overdue = self.books.overdue(now, longest_open);
        if let Some(((topic, partition), age)) = overdue.filter(|_| !self.stall_logged) {
            error!(
                stage = turns.settings.stage,
                topic = &**topic,
                partition,
                open = summary.open,
                oldest_seconds = age.as_secs(),
                "the ledger stands still: a record has been open for longer than anything it may wait for"
            );
        }
        self.stall_logged = overdue.is_some();
    }

    fn read(&mut self, turns: &mut Turns) -> Result<(), Error> {
        let mut wait = turns.stage.patience();
        for _ in 0..RECORDS_A_TURN {
            let Some(polled) = self.consumer.poll(wait) else {
                return Ok(());
            };
            wait = Duration::ZERO;
            match polled {
                Ok(message) => receive(&mut self.books, &self.heartbeat, turns, &message),
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
                        receive(&mut self.books, &self.heartbeat, turns, &message);
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
                receive(&mut self.books, &self.heartbeat, turns, &message);
                Ok(())
            }
            Some(Err(failure)) => tell(turns.settings.stage, failure),
        }
    }
}

fn receive(
    books: &mut Books,
    heartbeat: &Heartbeat,
    turns: &mut Turns,
    message: &BorrowedMessage<'_>,
) {
    // What was fetched before a sleep is somebody else's by now; the next turn joins anew.
    if !heartbeat.is_recent() {
        return;
    }
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

/// Tells of a consumer's error. Nearly all pass by themselves; a fatal one ends the process, which begins again.
fn tell(stage: &'static str, failure: KafkaError) -> Result<(), Error> {
    match failure {
        KafkaError::MessageConsumptionFatal(RDKafkaErrorCode::FencedInstanceId) => {
            Err(Error::Fenced(stage))
        }
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
