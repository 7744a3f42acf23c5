//! The one producer: what is handed to it ends in a topic or is refused for good, and the caller hears which.
//!
//! Promises 1 and 2: nothing is skipped because a produce failed. librdkafka gives a record up after its
//! `message.timeout.ms`; here that is only a pause, the record is produced again until the broker takes it, and until then
//! nobody is told that it is durable. Only a record that no broker setting would ever take (it is too large, it is malformed) is refused. What a
//! broker calls too large is a batch, and librdkafka does not take batches apart: such a record is produced once more, alone. A fatal
//! error of the idempotent producer ends the process: what was not acknowledged is read again by the next one.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Headers, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, ClientContext, Message, Timestamp};
use tracing::{error, warn};

use super::clock::now_ms;
use super::turns::headers_of;
use super::{Error, bytes_of};
use crate::metrics::Metrics;
use crate::record::{Outgoing, Source};

const AGAIN_AFTER: Duration = Duration::from_secs(1);
const FULL_QUEUE_PAUSE: Duration = Duration::from_millis(2);

/// A record that no attempt will get into its topic.
#[derive(Debug, thiserror::Error)]
#[error("{topic} does not take the record: {reason}")]
pub struct Refused {
    pub topic: String,
    pub reason: String,
    /// It exceeds the topic's `max.message.bytes` (or the client's).
    pub too_large: bool,
    /// The record itself, for whoever has another place for it.
    pub record: Box<Outgoing>,
}

/// Called once, on a thread of the producer, when the record is durable or refused. It must not block. When the process
/// ends first it is dropped uncalled.
pub type OnWritten = Box<dyn FnOnce(Result<Source, Refused>) + Send + Sync>;

struct Pending(OnWritten);

struct Again {
    record: Outgoing,
    on_written: OnWritten,
    alone: bool,
}

/// What is known of the client beside its queue.
#[derive(Default)]
struct Known {
    fatal: AtomicBool,
    /// Records handed over and not acknowledged.
    waiting: AtomicUsize,
    ahead_ms: AtomicI64,
}

#[derive(Clone)]
struct Deliveries {
    again: Sender<Again>,
    known: Arc<Known>,
    metrics: Arc<Metrics>,
    /// Its client makes batches of one record.
    alone: bool,
}

impl ClientContext for Deliveries {
    fn error(&self, failure: KafkaError, reason: &str) {
        if failure.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            error!(reason, "the producer met a fatal error");
            self.known.fatal.store(true, Ordering::Release);
        } else {
            tracing::debug!(%failure, reason, "producer error");
        }
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<Pending>;

    fn delivery(&self, result: &DeliveryResult<'_>, pending: Box<Pending>) {
        match result {
            // The broker said that it has this sequence number already, and librdkafka takes that for a success without an
            // offset. It need not be one: where a broker knows nothing of the producer yet (the partition is new, or was
            // quiet for a day) it lets a sequence begin anywhere, so when a first batch is turned away because its leader
            // is not ready and the next one, under way too, is taken, the retry of the first is called a duplicate though
            // it was never written. A copy is allowed; a loss is not.
            Ok(message) if message.offset() < 0 => {
                warn!(
                    topic = message.topic(),
                    "a record was acknowledged without an offset, which does not prove that it is there; it is produced again"
                );
                self.produce_again(message, pending.0, self.alone);
            }
            Ok(message) => {
                self.known.waiting.fetch_sub(1, Ordering::AcqRel);
                if let Timestamp::LogAppendTime(appended_ms) = message.timestamp() {
                    self.known
                        .ahead_ms
                        .store(now_ms() - appended_ms, Ordering::Release);
                }
                (pending.0)(Ok(Source {
                    topic: message.topic().into(),
                    partition: message.partition(),
                    offset: message.offset(),
                }));
            }
            Err((failure, message)) => {
                self.metrics
                    .produce_errors
                    .with_label_values(&[message.topic()])
                    .inc();
                if let Some(too_large) = is_for_good(failure) {
                    if too_large && !self.alone {
                        self.produce_again(message, pending.0, true);
                        return;
                    }
                    self.known.waiting.fetch_sub(1, Ordering::AcqRel);
                    (pending.0)(Err(refusal(record_of(message), failure, too_large)));
                    return;
                }
                warn!(topic = message.topic(), %failure, "a produce failed; it is tried again");
                self.produce_again(message, pending.0, self.alone);
            }
        }
    }
}

impl Deliveries {
    fn produce_again(
        &self,
        message: &impl Message<Headers: Headers>,
        on_written: OnWritten,
        alone: bool,
    ) {
        // When nobody listens the process is ending, and the record is produced by the next one.
        let _ = self.again.send(Again {
            record: record_of(message),
            on_written,
            alone,
        });
    }
}

fn record_of(message: &impl Message<Headers: Headers>) -> Outgoing {
    Outgoing {
        topic: message.topic().into(),
        key: message.key().map(bytes_of),
        payload: message.payload().map(bytes_of),
        headers: headers_of(message),
    }
}

/// Whether no repetition would help; then, whether the record is too large (else it is malformed).
fn is_for_good(failure: &KafkaError) -> Option<bool> {
    match failure.rdkafka_error_code()? {
        RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize => Some(true),
        RDKafkaErrorCode::InvalidRecord | RDKafkaErrorCode::InvalidArgument => Some(false),
        _ => None,
    }
}

fn refusal(record: Outgoing, failure: &KafkaError, too_large: bool) -> Refused {
    Refused {
        topic: record.topic.to_string(),
        reason: failure.to_string(),
        too_large,
        record: Box::new(record),
    }
}

/// Cheap to clone; all clones are one producer.
#[derive(Clone)]
pub struct Producer {
    queue: Queue,
    again: Sender<Again>,
}

/// librdkafka's queues, and what is known of them.
#[derive(Clone)]
struct Queue {
    clients: Arc<Clients>,
    known: Arc<Known>,
}

struct Clients {
    usual: ThreadedProducer<Deliveries>,
    /// For records whose batch was too large; made when there is a first, of what stands beside it.
    alone: OnceLock<Result<ThreadedProducer<Deliveries>, KafkaError>>,
    settings: ClientConfig,
    deliveries: Deliveries,
}

impl Clients {
    fn alone(&self) -> Result<&ThreadedProducer<Deliveries>, &KafkaError> {
        let made = || {
            let mut singly = self.settings.clone();
            singly.set("batch.num.messages", "1");
            singly.create_with_context(Deliveries {
                alone: true,
                ..self.deliveries.clone()
            })
        };
        self.alone.get_or_init(made).as_ref()
    }
}

impl Producer {
    /// Connects in the background; a broker that cannot be reached shows in metrics and in what is never acknowledged.
    pub fn start(settings: &ClientConfig, metrics: Arc<Metrics>) -> Result<Self, Error> {
        let (again, to_repeat) = mpsc::channel();
        let known = Arc::new(Known::default());
        let deliveries = Deliveries {
            again: again.clone(),
            known: Arc::clone(&known),
            metrics,
            alone: false,
        };
        let clients = Clients {
            usual: settings.create_with_context(deliveries.clone())?,
            alone: OnceLock::new(),
            settings: settings.clone(),
            deliveries,
        };
        let queue = Queue {
            clients: Arc::new(clients),
            known: Arc::clone(&known),
        };
        // The thread must not keep the clients alive, nor itself: it ends when the last sender is gone with the clients.
        let weak = Arc::downgrade(&queue.clients);
        let revive = move || {
            Some(Queue {
                clients: weak.upgrade()?,
                known: Arc::clone(&known),
            })
        };
        std::thread::Builder::new()
            .name("produce-again".into())
            .spawn(move || repeat(&to_repeat, revive))
            .map_err(Error::Thread)?;
        Ok(Self { queue, again })
    }

    /// Another client with the same settings but for its batches, which wait at least so long for more records. Its queue is its own.
    ///
    /// # Errors
    /// As [`Producer::start`].
    pub fn patient(&self, linger: Duration) -> Result<Self, Error> {
        let Clients {
            settings,
            deliveries,
            ..
        } = &*self.queue.clients;
        let set: Option<f64> = settings.get("linger.ms").and_then(|text| text.parse().ok());
        let linger_ms = set.unwrap_or(0.0).max(linger.as_millis() as f64);
        let mut settings = settings.clone();
        settings.set("linger.ms", linger_ms.to_string());
        Self::start(&settings, Arc::clone(&deliveries.metrics))
    }

    /// Hands over a record. Waits while the client's queue is full (the broker is slow or away), which is the
    /// back-pressure of last resort.
    ///
    /// Not from within an [`OnWritten`], whose thread is the one that empties the queue: see [`Producer::send_later`].
    pub fn send(&self, record: &Outgoing, on_written: OnWritten) {
        self.queue.known.waiting.fetch_add(1, Ordering::AcqRel);
        self.queue.enqueue(record, on_written, false);
    }

    /// Hands over a record without ever waiting; it is produced within about a second.
    pub fn send_later(&self, record: Outgoing, on_written: OnWritten) {
        self.queue.known.waiting.fetch_add(1, Ordering::AcqRel);
        let _ = self.again.send(Again {
            record,
            on_written,
            alone: false,
        });
    }

    /// Hands over a record and waits until it is durable: for commands, not for the pipeline.
    ///
    /// # Errors
    /// It was refused, or not acknowledged within the limit (it may be durable all the same).
    pub fn write(&self, record: &Outgoing, limit: Duration) -> Result<Source, Error> {
        let (written, answer) = mpsc::channel();
        self.send(
            record,
            Box::new(move |result| {
                let _ = written.send(result);
            }),
        );
        match answer.recv_timeout(limit) {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(refused)) if refused.too_large => Err(Error::TooLarge(refused.to_string())),
            Ok(Err(refused)) => Err(Error::NoAnswer(refused.to_string())),
            Err(_) => Err(Error::NoAnswer(format!(
                "{} did not acknowledge a record within {} s",
                record.topic,
                limit.as_secs()
            ))),
        }
    }

    /// Whether the producer can never work again; the process must end and be started anew.
    pub fn has_failed(&self) -> bool {
        self.queue.known.fatal.load(Ordering::Acquire)
    }

    /// Records handed over and not acknowledged.
    pub fn waiting(&self) -> usize {
        self.queue.known.waiting.load(Ordering::Acquire)
    }

    /// By how many milliseconds this machine's clock was ahead of a broker's when the latest record was acknowledged (below zero: behind),
    /// and how long the acknowledgement took. Zero before the first, and where topics are not set to LogAppendTime (KIP-32).
    pub fn clock_ahead_ms(&self) -> i64 {
        self.queue.known.ahead_ms.load(Ordering::Acquire)
    }

    /// Waits until all that was handed over is acknowledged, or the limit is over; `false` then.
    pub fn flush(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let _ = self.queue.clients.usual.flush(limit);
        if let Some(Ok(alone)) = self.queue.clients.alone.get() {
            let _ = alone.flush(until.saturating_duration_since(Instant::now()));
        }
        self.waiting() == 0
    }

    /// Whether the broker answers.
    pub fn reaches_broker(&self, limit: Duration) -> Result<(), Error> {
        self.queue
            .clients
            .usual
            .client()
            .fetch_metadata(None, limit)?;
        Ok(())
    }
}

impl Queue {
    fn enqueue(&self, record: &Outgoing, on_written: OnWritten, alone: bool) {
        let client = if alone {
            match self.clients.alone() {
                Ok(client) => client,
                Err(failure) => {
                    self.known.waiting.fetch_sub(1, Ordering::AcqRel);
                    return on_written(Err(refusal(record.clone(), failure, true)));
                }
            }
        } else {
            &self.clients.usual
        };
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for header in &record.headers {
            headers = headers.insert(rdkafka::message::Header {
                key: &header.name,
                value: header.value.as_deref(),
            });
        }
        let mut message: BaseRecord<'_, [u8], [u8], Box<Pending>> =
            BaseRecord::with_opaque_to(&record.topic, Box::new(Pending(on_written)))
                .headers(headers);
        if let Some(key) = &record.key {
            message = message.key(key);
        }
        if let Some(payload) = &record.payload {
            message = message.payload(payload);
        }
        loop {
            match client.send(message) {
                Ok(()) => return,
                Err((failure, back)) => {
                    if let Some(too_large) = is_for_good(&failure) {
                        self.known.waiting.fetch_sub(1, Ordering::AcqRel);
                        let refused = refusal(record.clone(), &failure, too_large);
                        (back.delivery_opaque.0)(Err(refused));
                        return;
                    }
                    match failure.rdkafka_error_code() {
                        Some(RDKafkaErrorCode::QueueFull) => std::thread::sleep(FULL_QUEUE_PAUSE),
                        Some(RDKafkaErrorCode::Fatal) => {
                            // The app sees the flag and ends; the duty stays open and is read again.
                            self.known.fatal.store(true, Ordering::Release);
                            return;
                        }
                        _ => {
                            warn!(topic = %record.topic, %failure, "a produce failed; it is tried again");
                            std::thread::sleep(AGAIN_AFTER);
                        }
                    }
                    message = back;
                }
            }
        }
    }
}

fn repeat(to_repeat: &Receiver<Again>, queue: impl Fn() -> Option<Queue>) {
    while let Ok(again) = to_repeat.recv() {
        std::thread::sleep(AGAIN_AFTER);
        let mut batch = vec![again];
        while let Ok(more) = to_repeat.try_recv() {
            batch.push(more);
        }
        let Some(queue) = queue() else { return };
        for again in batch {
            queue.enqueue(&again.record, again.on_written, again.alone);
        }
    }
}
