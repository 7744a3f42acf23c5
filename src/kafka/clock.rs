//! How far this machine's clock is from the cluster's. Kafka has no question for the time, but a broker stamps what is appended to
//! a topic with LogAppendTime (KIP-32), and says the stamp in its acknowledgement.

use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Message, Timestamp};

use super::Error;
use super::settings::Connection;

const LIMIT: Duration = Duration::from_secs(10);
/// No table has such a key.
const KEY: &str = "check";

struct Stamp(Sender<Result<Timestamp, KafkaError>>);

impl ClientContext for Stamp {}

impl ProducerContext for Stamp {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let stamp = match result {
            Ok(message) => Ok(message.timestamp()),
            Err((failure, _)) => Err(failure.clone()),
        };
        // Nobody listens any more once time is up.
        let _ = self.0.send(stamp);
    }
}

/// By how many milliseconds this clock is ahead of the clock of the broker that leads partition 0 of `table` (below zero: behind).
/// `None` where the broker sets no stamp, because the topic is not set to LogAppendTime.
///
/// It writes one tombstone of a key that is in no table, so `table` must be a compacted topic, of which compaction removes it.
/// Only what the way there and back cannot explain counts as a difference.
///
/// # Errors
/// The broker did not take the record in time: no right to write, or no answer.
pub fn ahead_ms(connection: &Connection, table: &str) -> Result<Option<i64>, Error> {
    let (sender, receiver) = channel();
    let mut settings = connection.producer();
    settings.set("message.timeout.ms", LIMIT.as_millis().to_string());
    let producer: ThreadedProducer<Stamp> = settings.create_with_context(Stamp(sender))?;
    let before = now_ms();
    producer
        .send(BaseRecord::<str, [u8]>::to(table).key(KEY).partition(0))
        .map_err(|(failure, _)| failure)?;
    let silence = || Error::NoAnswer(format!("{table} acknowledged nothing in time"));
    let stamp = receiver
        .recv_timeout(LIMIT + Duration::from_secs(1))
        .map_err(|_| silence())??;
    let Timestamp::LogAppendTime(broker_ms) = stamp else {
        return Ok(None);
    };
    Ok(Some(difference(before, broker_ms, now_ms())))
}

/// The broker's time lies between the two of ours where the clocks agree.
fn difference(before_ms: i64, broker_ms: i64, after_ms: i64) -> i64 {
    if broker_ms < before_ms {
        before_ms - broker_ms
    } else if broker_ms > after_ms {
        after_ms - broker_ms
    } else {
        0
    }
}

/// The time of this machine in Unix milliseconds.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::difference;

    #[test]
    fn only_what_the_way_there_and_back_cannot_explain_is_a_difference() {
        assert_eq!(difference(1_000, 1_500, 3_000), 0);
        assert_eq!(difference(100_000, 10_000, 101_000), 90_000);
        assert_eq!(difference(10_000, 100_000, 11_000), -89_000);
    }
}
