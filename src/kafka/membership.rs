//! What librdkafka tells a consumer: rebalances, acknowledged commits, statistics.
//!
//! The callbacks only report and never wait (waiting inside a callback stops the poll that it runs in); the consumer's
//! thread reads the reports and acts. Two cases are answered on the spot: a lost assignment, where there is nothing left
//! to hand back, and the close, where nobody polls afterwards.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, Statistics, TopicPartitionList};
use tracing::{debug, warn};

use super::books::Place;
use super::ledger::Commit;
use super::topic_id;
use crate::metrics::Metrics;
use crate::record::NextOffset;

/// What happened to the assignment.
#[derive(Debug)]
pub(super) enum Change {
    Assigned(Vec<Place>),
    /// To be handed back by `unassign`.
    Revoked(Vec<Place>),
    /// Gone already.
    Lost(Vec<Place>),
}

pub(super) struct Membership {
    stage: &'static str,
    metrics: Arc<Metrics>,
    changes: Mutex<VecDeque<Change>>,
    commits: Mutex<Vec<(Place, Commit)>>,
    /// The cluster keeps only shorter notes beside an offset.
    refuses_notes: AtomicBool,
    closing: AtomicBool,
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Membership {
    pub(super) fn new(stage: &'static str, metrics: Arc<Metrics>) -> Self {
        Self {
            stage,
            metrics,
            changes: Mutex::default(),
            commits: Mutex::default(),
            refuses_notes: AtomicBool::new(false),
            closing: AtomicBool::new(false),
        }
    }

    pub(super) fn next_change(&self) -> Option<Change> {
        hold(&self.changes).pop_front()
    }

    /// Returns a change that could not be answered yet.
    pub(super) fn put_back(&self, change: Change) {
        hold(&self.changes).push_front(change);
    }

    pub(super) fn confirmed_commits(&self) -> Vec<(Place, Commit)> {
        std::mem::take(&mut hold(&self.commits))
    }

    /// Whether commits must do without notes.
    pub(super) fn refuses_notes(&self) -> bool {
        self.refuses_notes.load(Ordering::Acquire)
    }

    /// Looks at why a commit failed.
    pub(super) fn learn(&self, failure: &KafkaError) {
        let code = failure.rdkafka_error_code();
        if code == Some(RDKafkaErrorCode::OffsetMetadataTooLarge)
            && !self.refuses_notes.swap(true, Ordering::AcqRel)
        {
            warn!(
                stage = self.stage,
                "the cluster keeps no notes of a kilobyte beside an offset; raise offset.metadata.max.bytes, or more is repeated after a crash"
            );
        }
    }

    /// From now on rebalances are answered on the spot.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }
}

fn places_of(list: &TopicPartitionList) -> Vec<Place> {
    list.elements()
        .iter()
        .map(|element| (Arc::from(element.topic()), element.partition()))
        .collect()
}

impl ClientContext for Membership {
    fn stats(&self, statistics: Statistics) {
        for (topic, of_topic) in &statistics.topics {
            let mut waiting = 0;
            for (partition, of_partition) in &of_topic.partitions {
                if *partition >= 0 && of_partition.consumer_lag >= 0 {
                    self.metrics
                        .consumer_lag
                        .with_label_values(&[self.stage, topic, &partition.to_string()])
                        .set(of_partition.consumer_lag);
                    waiting += of_partition.consumer_lag;
                }
            }
            if self.stage == "release"
                && let Some((_, rung)) = topic.rsplit_once('.')
            {
                self.metrics.delayed.with_label_values(&[rung]).set(waiting);
            }
        }
    }

    fn error(&self, error: rdkafka::error::KafkaError, reason: &str) {
        debug!(stage = self.stage, %error, reason, "client error");
    }
}

impl ConsumerContext for Membership {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        code: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        self.metrics
            .rebalances
            .with_label_values(&[self.stage])
            .inc();
        let places = places_of(list);
        if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            for (topic, partition) in &places {
                let partition = partition.to_string();
                let label: &[&str] = &[self.stage, topic, &partition];
                let _ = self.metrics.consumer_lag.remove_label_values(label);
            }
        }
        let closing = self.closing.load(Ordering::Acquire);
        let change = match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS if !closing => {
                Change::Assigned(places)
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS
                if !closing && !consumer.assignment_lost() =>
            {
                Change::Revoked(places)
            }
            _ => {
                if let Err(failure) = consumer.unassign() {
                    warn!(stage = self.stage, %failure, "could not give partitions back");
                }
                Change::Lost(places)
            }
        };
        hold(&self.changes).push_back(change);
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        if let Err(failure) = &result {
            debug!(stage = self.stage, %failure, "a commit failed; it is planned again");
            self.learn(failure);
            return;
        }
        let mut commits = hold(&self.commits);
        for element in offsets.elements() {
            match (element.offset(), element.error()) {
                (Offset::Offset(offset), Ok(())) => {
                    let (_, note) = topic_id::from_metadata(element.metadata());
                    commits.push((
                        (Arc::from(element.topic()), element.partition()),
                        Commit {
                            offset: NextOffset(offset),
                            note: note.to_owned(),
                        },
                    ));
                }
                (_, Err(failure)) => self.learn(&failure),
                (_, Ok(())) => {}
            }
        }
    }
}
