//! The producer of a run: paced, `acks=all`, and an event is in A only when Kafka has said so.

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};

use super::events::{Event, Load};
use super::oracle::{Oracle, Place};

struct Acknowledgements {
    seed: u64,
    load: Load,
    sources: Vec<String>,
    oracle: Arc<Mutex<Oracle>>,
    refused: Arc<AtomicU32>,
}

impl ClientContext for Acknowledgements {}

impl ProducerContext for Acknowledgements {
    /// The event's number and when it was produced.
    type DeliveryOpaque = Box<(u32, u32)>;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: Self::DeliveryOpaque) {
        let (number, produced_ms) = *opaque;
        let Ok(message) = result else {
            self.refused.fetch_add(1, SeqCst);
            return;
        };
        let source = self
            .sources
            .iter()
            .position(|source| source == message.topic())
            .unwrap_or(0);
        let place = Place {
            source: source as u8,
            partition: message.partition() as u16,
            offset: message.offset() as u64,
        };
        let wanted_by = Event::new(self.seed, number).wanted_by(self.load);
        let mut oracle = self.oracle.lock().unwrap_or_else(PoisonError::into_inner);
        oracle.acknowledged(number, place, wanted_by, produced_ms);
    }
}

pub struct Producer {
    producer: ThreadedProducer<Acknowledgements>,
    seed: u64,
    began: Instant,
    next: u32,
    refused: Arc<AtomicU32>,
}

impl Producer {
    pub fn new(
        bootstrap: &str,
        seed: u64,
        load: Load,
        began: Instant,
        sources: &[String],
        oracle: &Arc<Mutex<Oracle>>,
    ) -> Self {
        let refused = Arc::new(AtomicU32::new(0));
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", bootstrap)
            .set("acks", "all")
            .set("enable.idempotence", "true");
        // With more under way a topic that was made just now may lose the first (see `it::acknowledged`).
        config
            .set("max.in.flight.requests.per.connection", "1")
            .set("linger.ms", "5");
        config
            .set("topic.metadata.refresh.interval.ms", "3000")
            .set("reconnect.backoff.max.ms", "500");
        config
            .set("message.timeout.ms", "900000")
            .set("queue.buffering.max.messages", "0");
        config
            .set("queue.buffering.max.kbytes", "2000000")
            .set("partitioner", "murmur2_random");
        let context = Acknowledgements {
            seed,
            load,
            sources: sources.to_vec(),
            oracle: oracle.clone(),
            refused: refused.clone(),
        };
        Self {
            producer: config.create_with_context(context).unwrap(),
            seed,
            began,
            next: 0,
            refused,
        }
    }

    pub fn produced(&self) -> u32 {
        self.next
    }

    /// Produces up to event `until`, exclusive.
    pub fn produce_until(&mut self, until: u32, oracle: &Mutex<Oracle>) {
        if until <= self.next {
            return;
        }
        oracle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .produced = until;
        while self.next < until {
            let number = self.next;
            let event = Event::new(self.seed, number);
            let (key, body) = (format!("k{}", number % 5003), event.body());
            let topic = self.producer.context().sources[event.source()].clone();
            let produced_ms = self.began.elapsed().as_millis() as u32;
            let record = BaseRecord::with_opaque_to(&topic, Box::new((number, produced_ms)))
                .key(&key)
                .payload(&body);
            if self.producer.send(record).is_err() {
                return;
            }
            self.next += 1;
        }
    }

    /// Waits until everything is acknowledged; the answer is how many were refused.
    pub fn flush(&self) -> u32 {
        self.producer.flush(Duration::from_secs(120)).unwrap();
        self.refused.load(SeqCst)
    }
}
