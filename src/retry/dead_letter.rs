//! The last rung: the form of a dead letter, written and read.
//!
//! Promise 1: what cannot be delivered ends here with its reason, its bytes as they were, and everything that a replay needs. The
//! error headers have the names of KIP-1191 (`__dlq.errors.*`), so that any tool for Kafka's dead letters reads them.
//! Pure; the pipeline produces.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::delivery::{DeadReason, Delivery, headers as name};
use crate::record::{Header, Outgoing, Record, Source, header_text};
use crate::subscription::{Customer, WebhookId};

const ERRORS_TOPIC: &str = "__dlq.errors.topic";
const ERRORS_PARTITION: &str = "__dlq.errors.partition";
const ERRORS_OFFSET: &str = "__dlq.errors.offset";
const ERRORS_GROUP: &str = "__dlq.errors.group";
const ERRORS_COUNT: &str = "__dlq.errors.delivery.count";
const ERRORS_MESSAGE: &str = "__dlq.errors.message";
/// Set when the bytes did not fit: how many there were.
const FULL_BYTES: &str = "postrider-full-bytes";
/// What is kept of a body that does not fit.
const TRUNCATED_BYTES: usize = 64 * 1024;
const MESSAGE_CHARACTERS: usize = 1000;
/// A letter that was replayed so often, and died each time, is left by replays that do not say otherwise: something sends it round.
pub const MOST_REPLAYS: u32 = 5;

fn error_headers(
    list: &mut Vec<Header>,
    reason: DeadReason,
    message: &str,
    source: &Source,
    group: &str,
    attempts: u32,
) {
    let message: String = message
        .chars()
        .filter(|character| !character.is_control())
        .take(MESSAGE_CHARACTERS)
        .collect();
    list.retain(|header| header.name != name::REASON);
    list.push(Header::text(name::REASON, reason.as_str()));
    list.push(Header::text(ERRORS_TOPIC, source.topic.to_string()));
    list.push(Header::text(ERRORS_PARTITION, source.partition.to_string()));
    list.push(Header::text(ERRORS_OFFSET, source.offset.to_string()));
    list.push(Header::text(ERRORS_GROUP, group));
    list.push(Header::text(ERRORS_COUNT, attempts.to_string()));
    list.push(Header::text(ERRORS_MESSAGE, message));
}

/// The dead letter of a delivery.
pub fn of_delivery(
    delivery: &Delivery,
    reason: DeadReason,
    message: &str,
    topic: &Arc<str>,
    group: &str,
) -> Outgoing {
    let mut letter = delivery.to_record(topic, true);
    letter.headers.retain(|header| header.name != name::DUE);
    error_headers(
        &mut letter.headers,
        reason,
        message,
        &delivery.source,
        group,
        delivery.attempts,
    );
    letter
}

/// The dead letter of a delivery's record that its topic refused: it is too large, or malformed, which only size explains.
pub fn of_refused(record: Outgoing, message: &str, topic: &Arc<str>, group: &str) -> Outgoing {
    let mut letter = record;
    letter.topic = Arc::clone(topic);
    let source = header_text(&letter.headers, name::SOURCE).and_then(|text| text.parse().ok());
    let source: Source = source.unwrap_or_else(|| Source {
        topic: Arc::clone(topic),
        partition: -1,
        offset: -1,
    });
    let attempts = header_text(&letter.headers, name::ATTEMPT).and_then(|text| text.parse().ok());
    letter.headers.retain(|header| header.name != name::DUE);
    error_headers(
        &mut letter.headers,
        DeadReason::TooLarge,
        message,
        &source,
        group,
        attempts.unwrap_or(0),
    );
    letter
}

/// The dead letter of a record that is no event or no delivery: its key, value and headers as they were.
pub fn of_record(
    record: &Record,
    reason: DeadReason,
    message: &str,
    topic: &Arc<str>,
    group: &str,
) -> Outgoing {
    let mut headers: Vec<Header> = record.headers.clone();
    headers.retain(|header| header.name != name::SOURCE);
    headers.push(Header::text(name::SOURCE, record.source().to_string()));
    if let Some(timestamp_ms) = record.timestamp_ms {
        headers.push(Header::text(
            name::SOURCE_TIMESTAMP,
            timestamp_ms.to_string(),
        ));
    }
    error_headers(&mut headers, reason, message, &record.source(), group, 0);
    Outgoing {
        topic: Arc::clone(topic),
        key: record.key.clone(),
        payload: record.payload.clone(),
        headers,
    }
}

/// The same letter with its body cut, for a topic that does not take it whole. The source's place stays in its headers, where the whole can be read.
pub fn truncated(letter: &Outgoing) -> Outgoing {
    let mut cut = letter.clone();
    if let Some(payload) = &letter.payload {
        cut.payload = Some(payload.slice(..payload.len().min(TRUNCATED_BYTES)));
        cut.headers
            .push(Header::text(FULL_BYTES, payload.len().to_string()));
    }
    // Headers can be what is too large: only ours are kept then.
    if cut
        .headers
        .iter()
        .map(|header| header.value.as_ref().map_or(0, Bytes::len))
        .sum::<usize>()
        > TRUNCATED_BYTES
    {
        cut.headers.retain(|header| name::is_ours(&header.name));
    }
    if cut
        .key
        .as_ref()
        .is_some_and(|key| key.len() > TRUNCATED_BYTES)
    {
        cut.key = None;
    }
    cut
}

/// What the decoder of events reads in a record that never was a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heading {
    pub event_type: String,
    pub customer: Option<String>,
    /// The record's value, without what only a webhook of the event's own may see.
    pub payload: Option<Bytes>,
}

/// The webhook that a replay sends records to which never were deliveries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    pub webhook: String,
    /// Only events of this customer may go to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer: Option<String>,
}

/// A dead letter as it was read.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Where it stands in the dead-letter topic.
    pub place: Source,
    pub reason: String,
    pub message: String,
    pub webhook: Option<String>,
    /// The customer of its webhook when it died, where that was written.
    pub customer: Option<String>,
    pub event_type: Option<String>,
    pub attempts: Option<u32>,
    pub last_status: Option<u16>,
    /// When it was written, Unix milliseconds.
    pub died_at_ms: i64,
    pub replay_count: u32,
    /// Set when the body was cut: it cannot be replayed.
    pub full_bytes: Option<u64>,
    /// The delivery, unless the record never was one.
    pub delivery: Option<Delivery>,
    /// What the record is as an event where it never was a delivery, or why it is none. This stage does not know how events are read: see
    /// [`DeadLetter::read_as`].
    pub event: Result<Heading, String>,
    pub record: Record,
}

/// The first of these headers that has a text.
fn first_text<'a>(list: &'a [Header], names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|name| header_text(list, name))
}

impl DeadLetter {
    /// Reads a record of a dead-letter topic. It never fails: what cannot be read is left out. The headers of Kafka Connect
    /// (`__connect.errors.*`) and Spring (`kafka_dlt-*`) are understood where ours are missing.
    pub fn from_record(record: Record) -> Self {
        let list = &record.headers;
        let text = |names: &[&str]| first_text(list, names).map(str::to_owned);
        Self {
            place: record.source(),
            reason: text(&[name::REASON]).unwrap_or_else(|| "foreign".to_owned()),
            message: text(&[
                ERRORS_MESSAGE,
                "__connect.errors.exception.message",
                "kafka_dlt-exception-message",
            ])
            .unwrap_or_default(),
            webhook: text(&[name::WEBHOOK_ID]),
            customer: text(&[name::CUSTOMER]),
            event_type: text(&[name::EVENT_TYPE]),
            attempts: header_text(list, ERRORS_COUNT).and_then(|text| text.parse().ok()),
            last_status: header_text(list, name::LAST_STATUS).and_then(|text| text.parse().ok()),
            died_at_ms: record.timestamp_ms.unwrap_or(0),
            replay_count: header_text(list, name::REPLAY_COUNT)
                .and_then(|text| text.parse().ok())
                .unwrap_or(0),
            full_bytes: header_text(list, FULL_BYTES).and_then(|text| text.parse().ok()),
            delivery: Delivery::from_record(&record).ok(),
            event: Err("it has not been read as an event".to_owned()),
            record,
        }
    }

    /// What whoever looks at it should know: that it goes round.
    pub fn note(&self) -> Option<String> {
        (self.replay_count >= MOST_REPLAYS).then(|| {
            let count = self.replay_count;
            format!(
                "replayed {count} times, and died each time; a replay leaves it unless its max_replays is more than {count}"
            )
        })
    }

    /// Whether a replay can send it: it is a delivery, and whole.
    pub fn is_replayable(&self) -> bool {
        self.delivery.is_some() && self.full_bytes.is_none()
    }

    /// Whether it is a whole record that never became a delivery, so that it can go into a topic again.
    pub fn is_whole_record(&self) -> bool {
        self.delivery.is_none() && self.full_bytes.is_none()
    }

    /// Whether a replay can send it: into a topic, to a webhook that it never was a delivery to, or else as the delivery that it is.
    ///
    /// # Errors
    /// It cannot; why, where there is something to say beyond that.
    pub fn can_go(&self, into_topic: bool, target: Option<&Target>) -> Result<(), Option<String>> {
        let is_possible = match target {
            _ if into_topic => self.is_whole_record(),
            Some(target) => return self.heading_for(target).map(|_| ()).map_err(Some),
            None => self.is_replayable(),
        };
        is_possible.then_some(()).ok_or(None)
    }

    /// Takes what the decoder of events said about the record.
    pub fn read_as(&mut self, event: Result<Heading, String>) {
        if let (None, Ok(heading)) = (&self.event_type, &event) {
            self.event_type = Some(heading.event_type.clone());
        }
        self.event = event;
    }

    /// The record's headers as they once were: without what its death added.
    fn former_headers(&self) -> Vec<Header> {
        let mut headers = self.record.headers.clone();
        headers.retain(|header| {
            !name::is_ours(&header.name)
                && !header.name.starts_with("__connect.errors.")
                && !header.name.starts_with("kafka_dlt-")
        });
        headers
    }

    /// The record as it once came, for a topic: without what its death added to its headers.
    pub fn to_topic(&self, topic: &str) -> Option<Outgoing> {
        if !self.is_whole_record() {
            return None;
        }
        Some(Outgoing {
            topic: topic.into(),
            key: self.record.key.clone(),
            payload: self.record.payload.clone(),
            headers: self.former_headers(),
        })
    }

    /// What the record is as an event, if it may go to a webhook that it never was a delivery to.
    ///
    /// # Errors
    /// Why it may not, for people.
    pub fn heading_for(&self, target: &Target) -> Result<&Heading, String> {
        if let Some(delivery) = &self.delivery {
            return Err(format!(
                "it is a delivery to {}; replay it without --to-webhook",
                delivery.webhook.as_str()
            ));
        }
        if self.full_bytes.is_some() {
            return Err("its body was cut to fit".to_owned());
        }
        let heading = self.event.as_ref().map_err(Clone::clone)?;
        // Whoever orders it may choose another webhook than events would find, but not another customer's (promise 7).
        if target.customer.is_some() && target.customer != heading.customer {
            return Err(format!(
                "{} gets events of its own customer only, and this is of {}",
                target.webhook,
                heading.customer.as_deref().map_or("none", |_| "another")
            ));
        }
        Ok(heading)
    }

    /// The delivery of a record that never was one: its id derives from where the letter stands, so that it is the same whenever it is sent
    /// (promise 3).
    pub fn to_webhook(&self, target: &Target, replay_id: &str, now_ms: i64) -> Option<Delivery> {
        let heading = self.heading_for(target).ok()?;
        let former = Record {
            headers: self.former_headers(),
            payload: heading.payload.clone(),
            ..self.record.clone()
        };
        let webhook = WebhookId::new(&target.webhook).ok()?;
        let customer = target.customer.as_deref().map(Customer::new);
        let mut delivery = Delivery::new(
            &former,
            &heading.event_type,
            &webhook,
            customer.as_ref(),
            now_ms,
        );
        delivery.replay_id = Some(replay_id.to_owned());
        delivery.replay_count = self.replay_count.saturating_add(1);
        Some(delivery)
    }

    /// The delivery that a replay sends: the same id, no attempt made, the replay's id, one more replay.
    pub fn to_replay(&self, replay_id: &str, url: Option<&str>, now_ms: i64) -> Option<Delivery> {
        if !self.is_replayable() {
            return None;
        }
        let mut delivery = self.delivery.clone()?;
        delivery.attempts = 0;
        delivery.due_ms = None;
        delivery.waiting = None;
        delivery.last_status = None;
        delivery.first_attempt_at_ms = None;
        delivery.replay_id = Some(replay_id.to_owned());
        delivery.replay_count = self.replay_count.saturating_add(1);
        delivery.url = url.map(str::to_owned);
        // Its age counts from the replay, or it would expire at once.
        delivery.created_at_ms = now_ms;
        Some(delivery)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::SourceOffset;

    fn source_record() -> Record {
        Record {
            topic: "events.job".into(),
            partition: 1,
            offset: SourceOffset(9),
            timestamp_ms: Some(3),
            key: Some(Bytes::from_static(b"k")),
            payload: Some(Bytes::from_static(b"\xff\x00raw")),
            headers: vec![Header::text("x", "y")],
        }
    }

    fn as_record(letter: Outgoing) -> Record {
        Record {
            topic: letter.topic,
            partition: 0,
            offset: SourceOffset(4),
            timestamp_ms: Some(77),
            key: letter.key,
            payload: letter.payload,
            headers: letter.headers,
        }
    }

    #[test]
    fn an_exhausted_delivery_keeps_bytes_and_says_everything() {
        let webhook = WebhookId::new("wh_a").unwrap();
        let mut delivery = Delivery::new(&source_record(), "job.failed", &webhook, None, 5);
        delivery.attempts = 4;
        delivery.last_status = Some(500);
        delivery.due_ms = Some(99);
        let letter = of_delivery(
            &delivery,
            DeadReason::Exhausted,
            "status 500\r\n",
            &"dl".into(),
            "postrider.deliver",
        );
        let text = |name: &str| header_text(&letter.headers, name).map(str::to_owned);
        assert_eq!(text("__dlq.errors.topic").as_deref(), Some("events.job"));
        assert_eq!(text("__dlq.errors.partition").as_deref(), Some("1"));
        assert_eq!(text("__dlq.errors.offset").as_deref(), Some("9"));
        assert_eq!(
            text("__dlq.errors.group").as_deref(),
            Some("postrider.deliver")
        );
        assert_eq!(text("__dlq.errors.delivery.count").as_deref(), Some("4"));
        assert_eq!(text("__dlq.errors.message").as_deref(), Some("status 500"));
        assert_eq!(text("postrider-reason").as_deref(), Some("exhausted"));
        assert_eq!(text("postrider-due"), None);
        assert_eq!(letter.payload, source_record().payload);

        let read = DeadLetter::from_record(as_record(letter));
        assert_eq!(read.reason, "exhausted");
        assert_eq!(read.died_at_ms, 77);
        let again = read.to_replay("rp_1", None, 100).unwrap();
        assert_eq!(again.id, delivery.id);
        assert_eq!((again.attempts, again.replay_count), (0, 1));
        assert_eq!(again.replay_id.as_deref(), Some("rp_1"));
        assert_eq!(again.body, delivery.body);
    }

    #[test]
    fn an_undecodable_record_keeps_its_raw_bytes_key_and_headers() {
        let letter = of_record(
            &source_record(),
            DeadReason::Undecodable,
            "not JSON",
            &"dl".into(),
            "g",
        );
        assert_eq!(letter.payload, source_record().payload);
        assert_eq!(letter.key, source_record().key);
        assert_eq!(header_text(&letter.headers, "x"), Some("y"));
        assert_eq!(
            header_text(&letter.headers, "postrider-source"),
            Some("events.job/1/9")
        );
        let read = DeadLetter::from_record(as_record(letter));
        assert_eq!(read.reason, "undecodable");
        assert!(read.to_replay("rp", None, 0).is_none());
    }

    #[test]
    fn a_letter_that_does_not_fit_is_cut_and_says_so() {
        let mut record = source_record();
        record.payload = Some(Bytes::from(vec![1; 100_000]));
        let letter = truncated(&of_record(
            &record,
            DeadReason::TooLarge,
            "",
            &"dl".into(),
            "g",
        ));
        assert_eq!(
            letter.payload.as_ref().map(Bytes::len),
            Some(TRUNCATED_BYTES)
        );
        let read = DeadLetter::from_record(as_record(letter));
        assert_eq!(read.full_bytes, Some(100_000));
    }

    #[test]
    fn the_letters_of_connect_and_spring_are_understood() {
        for header in [
            "__connect.errors.exception.message",
            "kafka_dlt-exception-message",
        ] {
            let mut record = source_record();
            record.headers = vec![Header::text(header, "boom")];
            let read = DeadLetter::from_record(record);
            assert_eq!(
                (read.reason.as_str(), read.message.as_str()),
                ("foreign", "boom")
            );
        }
    }

    #[test]
    fn a_record_of_another_program_becomes_the_same_delivery_each_time_and_keeps_nothing_of_its_death()
     {
        let mut record = source_record();
        record
            .headers
            .push(Header::text("__connect.errors.topic", "t"));
        record
            .headers
            .push(Header::text("kafka_dlt-original-offset", "7"));
        let mut letter = DeadLetter::from_record(record);
        let target = Target {
            webhook: "wh_a".to_owned(),
            customer: Some("7".to_owned()),
        };
        assert!(letter.heading_for(&target).is_err(), "not read yet");
        let event = |customer: Option<&str>| Heading {
            event_type: "job.failed".to_owned(),
            customer: customer.map(str::to_owned),
            payload: source_record().payload,
        };
        letter.read_as(Ok(event(Some("7"))));
        assert_eq!(letter.event_type.as_deref(), Some("job.failed"));
        let one = letter.to_webhook(&target, "rp_1", 5).unwrap();
        let two = letter.to_webhook(&target, "rp_2", 6).unwrap();
        assert_eq!(one.id, two.id);
        assert_eq!(one.source.to_string(), "events.job/1/9");
        assert_eq!(one.source_headers, vec![Header::text("x", "y")]);
        assert_eq!(one.body, source_record().payload.unwrap());
        assert_eq!(one.customer, Some(Customer::new("7")));

        for other in [Some("8"), None] {
            letter.read_as(Ok(event(other)));
            assert!(letter.to_webhook(&target, "rp_1", 5).is_none(), "{other:?}");
        }
        let of_all = Target {
            customer: None,
            ..target
        };
        assert!(letter.to_webhook(&of_all, "rp_1", 5).is_some());
        letter.read_as(Err("no JSON".to_owned()));
        assert_eq!(letter.heading_for(&of_all), Err("no JSON".to_owned()));
    }
}
