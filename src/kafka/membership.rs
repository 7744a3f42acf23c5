//! What librdkafka tells a consumer: rebalances, acknowledged commits, statistics.
//!
//! The callbacks only report and never wait (waiting inside a callback stops the poll that it runs in); the consumer's
//! thread reads the reports and acts. Two cases are answered on the spot: a lost assignment, where there is nothing left
//! to hand back, and the close, where nobody polls afterwards.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, Statistics, TopicPartitionList};
use tracing::{debug, warn};

use super::beyond::{self, Frontier};
use super::books::Place;
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
    commits: Mutex<Vec<(Place, Frontier)>>,
    closing: AtomicBool,
    /// How much a commit may say of what is finished beyond it, in bytes.
    beyond_bytes: AtomicUsize,
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
            closing: AtomicBool::new(false),
            beyond_bytes: AtomicUsize::new(beyond::LIMIT_BYTES),
        }
    }

    pub(super) fn next_change(&self) -> Option<Change> {
        hold(&self.changes).pop_front()
    }

    /// Returns a change that could not be answered yet.
    pub(super) fn put_back(&self, change: Change) {
        hold(&self.changes).push_front(change);
    }

    pub(super) fn confirmed_commits(&self) -> Vec<(Place, Frontier)> {
        std::mem::take(&mut hold(&self.commits))
    }

    pub(super) fn beyond_bytes(&self) -> usize {
        self.beyond_bytes.load(Ordering::Acquire)
    }

    /// Enters why a commit failed. The answer is whether it will not fail so again.
    pub(super) fn commit_failed(&self, code: Option<RDKafkaErrorCode>) -> bool {
        let too_large = code == Some(RDKafkaErrorCode::OffsetMetadataTooLarge);
        if too_large && self.beyond_bytes.swap(0, Ordering::AcqRel) > 0 {
            warn!(
                stage = self.stage,
                "the broker takes less than {} bytes with a commit (offset.metadata.max.bytes): after a kill more deliveries are repeated",
                beyond::LIMIT_BYTES
            );
        }
        too_large
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
            self.commit_failed(failure.rdkafka_error_code());
            return;
        }
        let mut commits = hold(&self.commits);
        for element in offsets.elements() {
            match (element.offset(), element.error()) {
                (Offset::Offset(offset), Ok(())) => {
                    let frontier = Frontier {
                        offset: NextOffset(offset),
                        beyond: element.metadata().to_owned(),
                    };
                    commits.push(((Arc::from(element.topic()), element.partition()), frontier));
                }
                (_, Err(failure)) => {
                    self.commit_failed(failure.rdkafka_error_code());
                }
                _ => {}
            }
        }
    }
}
