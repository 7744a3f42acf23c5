//! The third loop: what waits in the delay topics comes back to `dispatch` when it is due.

use std::sync::Arc;
use std::time::Duration;

use super::{Ways, now_ms};
use crate::delivery::Delivery;
use crate::kafka::consumer::Stage;
use crate::kafka::receipt::{Receipt, Standing};
use crate::record::Record;
use crate::retry::ladder::{RUNGS, rung_of_topic};
use crate::retry::release::{Arrival, Release, Step};

const STAGE: &str = "release";
/// Bytes of records that wait out their last mile in memory.
const NEAR_BYTES: usize = 16 * 1024 * 1024;
/// How often the ages are shown.
const SHOW: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(20);
/// A record that leaves its topic so much later than its residency has been forgotten.
const LATE: Duration = Duration::from_secs(60);
/// What may be on its way to a topic at a time.
const OPEN_RECORDS: usize = 20_000;

struct Due {
    delivery: Delivery,
    receipt: Receipt,
}

/// The stage on its reader's thread.
pub struct Releasing {
    ways: Arc<Ways>,
    release: Release<Due>,
    steps: Vec<Step<Due>>,
    shown_ms: i64,
}

impl Releasing {
    /// With nothing in hand.
    pub fn new(ways: Arc<Ways>) -> Self {
        Self {
            ways,
            release: Release::new(NEAR_BYTES),
            steps: Vec::new(),
            shown_ms: 0,
        }
    }

    /// How long the head of each rung has been there; what no metric of Kafka's client tells.
    fn show(&mut self) {
        let now_ms = now_ms();
        let brokers_ms = now_ms - self.ways.producer.clock_ahead_ms();
        if now_ms.saturating_sub(self.shown_ms).unsigned_abs() < SHOW.as_millis() as u64 {
            return;
        }
        self.shown_ms = now_ms;
        let gauge = &self.ways.metrics.delayed_oldest;
        gauge.reset();
        for (rung, since_ms) in self.release.oldest() {
            let seconds = brokers_ms.saturating_sub(since_ms).max(0) as f64 / 1000.0;
            gauge.with_label_values(&[rung.name]).set(seconds);
        }
    }

    fn act(&mut self) {
        let ahead_ms = self.ways.producer.clock_ahead_ms();
        self.release.due(now_ms(), ahead_ms, &mut self.steps);
        for step in self.steps.drain(..) {
            match step {
                Step::Dispatch(due) => {
                    let topic = &self.ways.topics.dispatch;
                    self.ways
                        .put(&due.delivery, topic, true, STAGE, due.receipt.split(1));
                }
                Step::Move(rung, due) => {
                    let topic = self.ways.topics.delay(rung);
                    self.ways
                        .put(&due.delivery, topic, false, STAGE, due.receipt.split(1));
                }
            }
        }
    }
}

impl Stage for Releasing {
    fn receive(&mut self, record: Record, receipt: Receipt) {
        let rung =
            rung_of_topic(&record.topic, &self.ways.topics.delay_prefix).unwrap_or(&RUNGS[0]);
        match Delivery::from_record(&record) {
            Ok(delivery) => {
                let bytes = record.cost_bytes();
                self.release.arrive(Arrival {
                    partition: record.partition,
                    rung,
                    appended_ms: record.timestamp_ms.unwrap_or_else(now_ms),
                    due_ms: delivery.due_ms.unwrap_or(0),
                    bytes,
                    topic: record.topic,
                    item: Due { delivery, receipt },
                });
                self.act();
            }
            Err(fault) => {
                self.ways
                    .bury_undecodable(&record, &fault.to_string(), STAGE, receipt);
            }
        }
    }

    /// The head of a partition is open until its residency is over; then it may wait for its last mile.
    fn longest_open(&self, topic: &str) -> Duration {
        let rung = rung_of_topic(topic, &self.ways.topics.delay_prefix).unwrap_or(&RUNGS[0]);
        rung.residency + LATE
    }

    fn wants(&mut self, topic: &str, partition: i32) -> bool {
        self.ways.producer.waiting() < OPEN_RECORDS && self.release.wants(topic, partition)
    }

    fn turn(&mut self) {
        self.act();
        self.show();
    }

    fn patience(&self) -> Duration {
        let ahead_ms = self.ways.producer.clock_ahead_ms();
        let Some(next_ms) = self.release.next_ms(ahead_ms) else {
            return TICK;
        };
        let wait_ms = next_ms.saturating_sub(now_ms()).clamp(0, 20);
        Duration::from_millis(wait_ms.unsigned_abs())
    }

    fn stopping(&mut self) {
        self.release.give_back(now_ms(), |_| true, &mut self.steps);
        self.act();
    }

    fn fenced(&mut self) {
        let handed_back = |due: &Due| due.receipt.assignment().standing() == Standing::HandingBack;
        self.release
            .give_back(now_ms(), handed_back, &mut self.steps);
        self.release
            .retain(|due| due.receipt.assignment().is_live());
        self.act();
    }
}
