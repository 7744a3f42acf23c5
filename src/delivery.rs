//! A delivery: one event for one webhook, on its way from `dispatch` to its ending, and its form as a Kafka record.
//!
//! The body is the producer's bytes, untouched, in every topic (design.md, "Where facts live"); everything that we add is in
//! headers named `postrider-*`, and the source record's own headers stay beside them. Promise 3: the id derives from the
//! source record and the webhook, so that a repetition carries the same id.

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::record::{Header, Outgoing, Record, Source, header, header_text};
use crate::subscription::{Customer, WebhookId};
use crate::traces::context::Context;

/// Header names of our records (contract.md, "Kafka").
pub mod headers {
    pub const DELIVERY_ID: &str = "postrider-delivery-id";
    pub const WEBHOOK_ID: &str = "postrider-webhook-id";
    pub const EVENT_TYPE: &str = "postrider-event-type";
    pub const ATTEMPT: &str = "postrider-attempt";
    pub const DUE: &str = "postrider-due";
    pub const REASON: &str = "postrider-reason";
    pub const LAST_STATUS: &str = "postrider-last-status";
    pub const FIRST_ATTEMPT_AT: &str = "postrider-first-attempt-at";
    pub const REPLAY_ID: &str = "postrider-replay-id";
    pub const REPLAY_COUNT: &str = "postrider-replay-count";
    pub const SOURCE: &str = "postrider-source";
    pub const SOURCE_KEY: &str = "postrider-source-key";
    pub const SOURCE_TIMESTAMP: &str = "postrider-source-timestamp";
    pub const CREATED_AT: &str = "postrider-created-at";
    pub const URL: &str = "postrider-url";
    /// The webhook that the event carried for itself, sealed; or why it cannot be used.
    pub const INLINE_WEBHOOK: &str = "postrider-inline-webhook";
    /// Whose the delivery is: the customer of its webhook when the delivery was made.
    pub const CUSTOMER: &str = "postrider-customer";
    /// W3C trace context of the span that wrote the delivery to `dispatch`; only where the trace is recorded.
    pub const TRACEPARENT: &str = "postrider-traceparent";
    /// The same of its last attempt.
    pub const ATTEMPT_TRACEPARENT: &str = "postrider-attempt-traceparent";

    /// Whether a header is one that we write and therefore never take over from a source record.
    pub fn is_ours(name: &str) -> bool {
        name.starts_with("postrider-") || name.starts_with("__dlq.errors.")
    }
}

/// Why a delivery waits on the ladder. It is written to `postrider-reason` for whoever looks into a delay topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// An attempt failed; the next one is due later.
    Retry,
    /// The webhook's rate limit or concurrency is used up; a slot is reserved.
    Paced,
    /// The endpoint asked for a pause (429 or 503 with `Retry-After`).
    Gated,
    /// The endpoint is down: nothing is sent but a probe, and no attempt is consumed.
    Tripped,
    /// The webhook is not in this instance's catalog (yet).
    Unknown,
    /// The endpoint has been down for long, and this delivery was taken out of the held topic to be the next probe.
    Probe,
}

impl Waiting {
    /// The word in the header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Paced => "paced",
            Self::Gated => "gated",
            Self::Tripped => "tripped",
            Self::Unknown => "unknown",
            Self::Probe => "probe",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [
            Self::Retry,
            Self::Paced,
            Self::Gated,
            Self::Tripped,
            Self::Unknown,
            Self::Probe,
        ]
        .into_iter()
        .find(|waiting| waiting.as_str() == text)
    }
}

/// Why a delivery, or a record, is in the dead-letter topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeadReason {
    /// All attempts are spent.
    Exhausted,
    /// The endpoint refused it with a status that no retry mends.
    Rejected,
    /// The source record is no event.
    Undecodable,
    /// It does not fit into a topic of ours.
    TooLarge,
    /// It waited for longer than the webhook's `max_age`.
    Expired,
    /// The endpoint's address may not be reached.
    BlockedAddress,
    /// The webhook's filter cannot be evaluated.
    FilterFailed,
    /// The webhook is disabled.
    Disabled,
}

impl DeadReason {
    /// All reasons, in the contract's order.
    pub const ALL: [Self; 8] = [
        Self::Exhausted,
        Self::Rejected,
        Self::Undecodable,
        Self::TooLarge,
        Self::Expired,
        Self::BlockedAddress,
        Self::FilterFailed,
        Self::Disabled,
    ];

    /// The contract's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::Rejected => "rejected",
            Self::Undecodable => "undecodable",
            Self::TooLarge => "too_large",
            Self::Expired => "expired",
            Self::BlockedAddress => "blocked_address",
            Self::FilterFailed => "filter_failed",
            Self::Disabled => "disabled",
        }
    }
}

impl std::str::FromStr for DeadReason {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|reason| reason.as_str() == text)
            .ok_or_else(|| {
                let known: Vec<&str> = Self::ALL.iter().map(|reason| reason.as_str()).collect();
                format!(
                    "`{text}` is no reason of a dead letter; they are {}",
                    known.join(", ")
                )
            })
    }
}

/// How a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Delivered,
    DeadLettered,
    /// Its webhook was deleted.
    Dropped,
}

impl Ending {
    /// The metric's label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::DeadLettered => "dead_lettered",
            Self::Dropped => "dropped",
        }
    }
}

/// Offsets of a partition whose deliveries' ids begin alike, as a power of two.
const NEIGHBOURS: u32 = 10;

/// The id of the delivery of one source record to one webhook: `dlv_`, 32 bits of SHA-256 of where about the record stands, and 96 bits
/// of SHA-256 of its place and the webhook, in hex. Neighbours in the log begin alike, so that a database's tree of ids is written where
/// it was just written, and an id still tells nobody how much is going on. It contains no `.`, as Standard Webhooks demands of a
/// `webhook-id`.
pub fn delivery_id(source: &Source, webhook: &WebhookId) -> String {
    let mut place = Sha256::new();
    place.update(source.topic.as_bytes());
    place.update([0]);
    place.update(source.partition.to_be_bytes());
    let about = place
        .clone()
        .chain_update((source.offset >> NEIGHBOURS).to_be_bytes());
    let exactly = place
        .chain_update(source.offset.to_be_bytes())
        .chain_update(webhook.as_str().as_bytes());
    let mut id = String::with_capacity(36);
    id.push_str("dlv_");
    let (about, exactly) = (about.finalize(), exactly.finalize());
    for byte in about.iter().take(4).chain(exactly.iter().take(12)) {
        for nibble in [byte >> 4, byte & 15] {
            id.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
    }
    id
}

/// What a delivery carries of its trace from topic to topic. Empty where the trace is not recorded; the source's own `traceparent` stays
/// beside it, untouched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traced {
    /// The span that wrote it to `dispatch`: the parent of its attempts.
    pub publish: Option<Context>,
    /// The span of its last attempt, which the next one is linked to.
    pub attempt: Option<Context>,
}

/// See the module's text. Times are Unix milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    pub id: String,
    pub webhook: WebhookId,
    /// Whose it is, and who may see it (promise 7): the customer of its webhook when it was made, and not that of the event, because
    /// the answers of a webhook of all customers are its owner's. It stays so whatever the catalog says later. Without one, only those
    /// who may see everything see it.
    pub customer: Option<Customer>,
    pub event_type: String,
    /// Attempts made so far, which consumed the webhook's retries.
    pub attempts: u32,
    /// Not to be attempted before.
    pub due_ms: Option<i64>,
    pub waiting: Option<Waiting>,
    pub last_status: Option<u16>,
    pub first_attempt_at_ms: Option<i64>,
    pub replay_id: Option<String>,
    /// How often it was replayed; more than once is a loop to look at.
    pub replay_count: u32,
    /// Another URL than the webhook's, set by a replay.
    pub url: Option<String>,
    /// The webhook that the event carried for itself, sealed, where it goes to that; or why that cannot be used (`subscription::inline`).
    pub inline: Option<String>,
    pub traced: Traced,
    pub source: Source,
    pub source_timestamp_ms: Option<i64>,
    /// When the delivery was made, for its age.
    pub created_at_ms: i64,
    pub source_key: Option<Bytes>,
    /// The source record's own headers.
    pub source_headers: Vec<Header>,
    pub body: Bytes,
}

impl Delivery {
    /// The first delivery of a source record to a webhook.
    pub fn new(
        record: &Record,
        event_type: &str,
        webhook: &WebhookId,
        customer: Option<&Customer>,
        now_ms: i64,
    ) -> Self {
        let source = record.source();
        Self {
            id: delivery_id(&source, webhook),
            webhook: webhook.clone(),
            customer: customer.cloned(),
            event_type: event_type.to_owned(),
            attempts: 0,
            due_ms: None,
            waiting: None,
            last_status: None,
            first_attempt_at_ms: None,
            replay_id: None,
            replay_count: 0,
            url: None,
            inline: None,
            traced: Traced::default(),
            source,
            source_timestamp_ms: record.timestamp_ms,
            created_at_ms: now_ms,
            source_key: record.key.clone(),
            source_headers: record
                .headers
                .iter()
                .filter(|header| !headers::is_ours(&header.name))
                .cloned()
                .collect(),
            body: record.payload.clone().unwrap_or_default(),
        }
    }

    /// The W3C trace context of the event, if its record had one.
    pub fn traceparent(&self) -> Option<&str> {
        header_text(&self.source_headers, "traceparent")
    }

    /// What the systems of the trace have added to its context, if its record had that.
    pub fn tracestate(&self) -> Option<&str> {
        header_text(&self.source_headers, "tracestate")
    }

    /// The record of this delivery for one of our topics. The key is the webhook's id (`keyed_by_webhook`), so that one
    /// instance owns a webhook, or the delivery's own, which spreads.
    pub fn to_record(&self, topic: &Arc<str>, keyed_by_webhook: bool) -> Outgoing {
        let key = if keyed_by_webhook {
            Bytes::copy_from_slice(self.webhook.as_str().as_bytes())
        } else {
            Bytes::copy_from_slice(self.id.as_bytes())
        };
        Outgoing {
            topic: Arc::clone(topic),
            key: Some(key),
            payload: Some(self.body.clone()),
            headers: self.wire_headers(),
        }
    }

    /// The source's headers, then ours; only those that say something.
    pub fn wire_headers(&self) -> Vec<Header> {
        use headers as name;
        let mut list = Vec::with_capacity(self.source_headers.len() + 10);
        list.extend(self.source_headers.iter().cloned());
        list.push(Header::text(name::DELIVERY_ID, self.id.as_str()));
        list.push(Header::text(name::WEBHOOK_ID, self.webhook.as_str()));
        list.push(Header::text(name::EVENT_TYPE, self.event_type.as_str()));
        list.push(Header::text(name::ATTEMPT, self.attempts.to_string()));
        list.push(Header::text(name::SOURCE, self.source.to_string()));
        list.push(Header::text(
            name::CREATED_AT,
            self.created_at_ms.to_string(),
        ));
        let mut optional = |name: &'static str, value: Option<String>| {
            if let Some(value) = value {
                list.push(Header::text(name, value));
            }
        };
        optional(
            name::SOURCE_TIMESTAMP,
            self.source_timestamp_ms.map(|ms| ms.to_string()),
        );
        optional(name::DUE, self.due_ms.map(|ms| ms.to_string()));
        optional(
            name::REASON,
            self.waiting.map(|waiting| waiting.as_str().to_owned()),
        );
        optional(
            name::LAST_STATUS,
            self.last_status.map(|status| status.to_string()),
        );
        optional(
            name::FIRST_ATTEMPT_AT,
            self.first_attempt_at_ms.map(|ms| ms.to_string()),
        );
        optional(name::REPLAY_ID, self.replay_id.clone());
        optional(
            name::REPLAY_COUNT,
            (self.replay_count > 0).then(|| self.replay_count.to_string()),
        );
        optional(name::URL, self.url.clone());
        optional(name::INLINE_WEBHOOK, self.inline.clone());
        let context = |context: Option<Context>| context.map(|context| context.to_string());
        optional(name::TRACEPARENT, context(self.traced.publish));
        optional(name::ATTEMPT_TRACEPARENT, context(self.traced.attempt));
        optional(
            name::CUSTOMER,
            self.customer
                .as_ref()
                .map(|customer| customer.as_str().to_owned()),
        );
        if let Some(key) = &self.source_key {
            list.push(Header {
                name: name::SOURCE_KEY.into(),
                value: Some(key.clone()),
            });
        }
        list
    }

    /// Reads a delivery from a record of one of our topics.
    ///
    /// # Errors
    /// The record was not written by this program, or was damaged: which header is missing or wrong. The caller
    /// dead-letters it as undecodable.
    pub fn from_record(record: &Record) -> Result<Self, NotADelivery> {
        use headers as name;
        let list = &record.headers;
        let text = |name: &'static str| header_text(list, name).ok_or(NotADelivery(name));
        let context = |name| header_text(list, name).and_then(Context::parse);
        let webhook = text(name::WEBHOOK_ID)?;
        Ok(Self {
            id: text(name::DELIVERY_ID)?.to_owned(),
            webhook: WebhookId::new(webhook).map_err(|_| NotADelivery(name::WEBHOOK_ID))?,
            customer: header_text(list, name::CUSTOMER).map(Customer::new),
            event_type: text(name::EVENT_TYPE)?.to_owned(),
            attempts: number(list, name::ATTEMPT)?.unwrap_or(0),
            due_ms: number(list, name::DUE)?,
            waiting: header_text(list, name::REASON).and_then(Waiting::parse),
            last_status: number(list, name::LAST_STATUS)?,
            first_attempt_at_ms: number(list, name::FIRST_ATTEMPT_AT)?,
            replay_id: header_text(list, name::REPLAY_ID).map(str::to_owned),
            replay_count: number(list, name::REPLAY_COUNT)?.unwrap_or(0),
            url: header_text(list, name::URL).map(str::to_owned),
            inline: header_text(list, name::INLINE_WEBHOOK).map(str::to_owned),
            traced: Traced {
                publish: context(name::TRACEPARENT),
                attempt: context(name::ATTEMPT_TRACEPARENT),
            },
            source: text(name::SOURCE)?
                .parse()
                .map_err(|_| NotADelivery(name::SOURCE))?,
            source_timestamp_ms: number(list, name::SOURCE_TIMESTAMP)?,
            created_at_ms: number(list, name::CREATED_AT)?
                .or(record.timestamp_ms)
                .unwrap_or(0),
            source_key: header(list, name::SOURCE_KEY).and_then(|header| header.value.clone()),
            source_headers: list
                .iter()
                .filter(|header| !headers::is_ours(&header.name))
                .cloned()
                .collect(),
            body: record.payload.clone().unwrap_or_default(),
        })
    }
}

fn number<T: std::str::FromStr>(
    list: &[Header],
    name: &'static str,
) -> Result<Option<T>, NotADelivery> {
    match header(list, name) {
        None => Ok(None),
        Some(found) => found
            .as_text()
            .and_then(|text| text.parse().ok())
            .map(Some)
            .ok_or(NotADelivery(name)),
    }
}

/// A record that is no delivery; the header that is missing or wrong.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the record is no delivery: its header {0} is missing or wrong")]
pub struct NotADelivery(pub &'static str);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::SourceOffset;

    fn source_record(headers: Vec<Header>, body: Vec<u8>) -> Record {
        Record {
            topic: "events.job".into(),
            partition: 2,
            offset: SourceOffset(40),
            timestamp_ms: Some(1_700_000_000_000),
            key: Some(Bytes::from_static(b"\x00key")),
            payload: Some(body.into()),
            headers,
        }
    }

    fn read_back(delivery: &Delivery) -> Delivery {
        let written = delivery.to_record(&"postrider.dispatch".into(), true);
        Delivery::from_record(&Record {
            topic: written.topic,
            partition: 0,
            offset: SourceOffset(0),
            timestamp_ms: Some(1),
            key: written.key,
            payload: written.payload,
            headers: written.headers,
        })
        .unwrap()
    }

    #[test]
    fn the_id_is_stable_and_differs_by_record_and_webhook() {
        let source: Source = "events.job/2/40".parse().unwrap();
        let one = WebhookId::new("wh_one").unwrap();
        let two = WebhookId::new("wh_two").unwrap();
        let id = delivery_id(&source, &one);
        assert_eq!(id, delivery_id(&source, &one));
        assert_ne!(id, delivery_id(&source, &two));
        assert_ne!(id, delivery_id(&"events.job/2/41".parse().unwrap(), &one));
        assert_eq!(id.len(), 36);
        assert!(!id.contains('.'));
    }

    #[test]
    fn ids_of_neighbours_begin_alike_and_no_two_are_the_same() {
        let ids = |offsets: std::ops::Range<i64>| {
            offsets.flat_map(|offset| {
                let source: Source = format!("events.job/2/{offset}").parse().unwrap();
                ["wh_one", "wh_two"].map(|id| delivery_id(&source, &WebhookId::new(id).unwrap()))
            })
        };
        let all: std::collections::BTreeSet<String> = ids(0..4096).collect();
        assert_eq!(all.len(), 2 * 4096);
        let beginnings = |offsets| {
            let beginnings = ids(offsets).map(|id| id[..12].to_owned());
            beginnings.collect::<std::collections::BTreeSet<_>>().len()
        };
        assert_eq!(beginnings(0..1024), 1);
        assert_eq!(beginnings(0..4096), 4);
    }

    #[test]
    fn a_source_record_cannot_forge_our_headers() {
        let forged = vec![
            Header::text("postrider-attempt", "99"),
            Header::text("postrider-customer", "7"),
            Header::text("kept", "1"),
        ];
        let webhook = WebhookId::new("wh_one").unwrap();
        let delivery = Delivery::new(&source_record(forged, vec![]), "a", &webhook, None, 5);
        assert_eq!(delivery.source_headers, vec![Header::text("kept", "1")]);
        assert_eq!(read_back(&delivery).attempts, 0);
        assert_eq!(read_back(&delivery).customer, None);
    }

    #[test]
    fn a_record_that_is_no_delivery_names_the_header() {
        let record = source_record(vec![], vec![]);
        assert_eq!(
            Delivery::from_record(&record),
            Err(NotADelivery(headers::WEBHOOK_ID))
        );
    }

    proptest! {
        #[test]
        fn a_delivery_survives_every_topic(
            attempts in 0u32..20,
            due in prop::option::of(0i64..i64::MAX),
            status in prop::option::of(100u16..600),
            body in prop::collection::vec(any::<u8>(), 0..64),
            replays in 0u32..3,
            owner in prop::option::of("[a-zé0-9 ]{1,20}"),
        ) {
            let webhook = WebhookId::new("wh_one").unwrap();
            let owner = owner.as_deref().map(Customer::new);
            let record = source_record(vec![Header::text("traceparent", "00-1-2-01")], body);
            let mut delivery = Delivery::new(&record, "job.failed", &webhook, owner.as_ref(), 5);
            delivery.attempts = attempts;
            delivery.due_ms = due;
            delivery.last_status = status;
            delivery.replay_count = replays;
            delivery.waiting = due.map(|_| Waiting::Paced);
            prop_assert_eq!(read_back(&delivery), delivery);
        }
    }
}
