//! One Kafka record, free of any Kafka client: what the consumer hands in and what the producer takes.
//!
//! It exists so that the stages can speak of records without touching rdkafka (only `kafka/` does), and so that a body
//! travels from topic to topic without being copied or changed: `payload` is shared, never rewritten.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// The offset of a record that was read. The offset to *commit* is another type, [`NextOffset`], because the two differ
/// by one and mixing them loses or repeats a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceOffset(pub i64);

/// The offset that a consumer group commits: the first one that has not been settled yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextOffset(pub i64);

impl SourceOffset {
    /// The offset to commit once this record and everything before it are settled.
    pub fn next(self) -> NextOffset {
        NextOffset(self.0.saturating_add(1))
    }
}

/// A record header. Kafka allows a header without a value and several headers of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub name: Cow<'static, str>,
    pub value: Option<Bytes>,
}

impl Header {
    /// A header with a text value.
    pub fn text(name: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            value: Some(Bytes::from(value.into())),
        }
    }

    /// The value as UTF-8 text; `None` when there is no value or it is not UTF-8.
    pub fn as_text(&self) -> Option<&str> {
        self.value
            .as_deref()
            .and_then(|value| std::str::from_utf8(value).ok())
    }
}

/// The last header of this name, as Kafka tools read duplicates.
pub fn header<'a>(headers: &'a [Header], name: &str) -> Option<&'a Header> {
    headers.iter().rev().find(|header| header.name == name)
}

/// The text of the last header of this name.
pub fn header_text<'a>(headers: &'a [Header], name: &str) -> Option<&'a str> {
    header(headers, name).and_then(Header::as_text)
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub topic: Arc<str>,
    pub partition: i32,
    pub offset: SourceOffset,
    /// Unix milliseconds: the broker's append time in our own topics, the producer's time in most source topics.
    pub timestamp_ms: Option<i64>,
    pub key: Option<Bytes>,
    /// `None` is a tombstone.
    pub payload: Option<Bytes>,
    pub headers: Vec<Header>,
}

impl Record {
    /// Where the record stands.
    pub fn source(&self) -> Source {
        Source {
            topic: Arc::clone(&self.topic),
            partition: self.partition,
            offset: self.offset.0,
        }
    }

    /// What holding the record in memory costs, in bytes, roughly.
    pub fn cost_bytes(&self) -> usize {
        const OVERHEAD_BYTES: usize = 1536;
        self.payload.as_ref().map_or(0, Bytes::len)
            + self.key.as_ref().map_or(0, Bytes::len)
            + self
                .headers
                .iter()
                .map(|header| header.name.len() + header.value.as_ref().map_or(0, Bytes::len) + 48)
                .sum::<usize>()
            + OVERHEAD_BYTES
    }
}

/// A record to be written.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub topic: Arc<str>,
    pub key: Option<Bytes>,
    pub payload: Option<Bytes>,
    pub headers: Vec<Header>,
}

/// The place of a record: `topic/partition/offset` in its text form. A topic name cannot contain a slash.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Source {
    pub topic: Arc<str>,
    pub partition: i32,
    pub offset: i64,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

impl std::str::FromStr for Source {
    type Err = NotASource;

    fn from_str(text: &str) -> Result<Self, NotASource> {
        let refused = || NotASource(text.chars().take(80).collect());
        let mut parts = text.split('/');
        let (Some(topic), Some(partition), Some(offset), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(refused());
        };
        if topic.is_empty() {
            return Err(refused());
        }
        Ok(Self {
            topic: topic.into(),
            partition: partition.parse().map_err(|_| refused())?,
            offset: offset.parse().map_err(|_| refused())?,
        })
    }
}

/// A text that does not name a record's place.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a record's place; write topic/partition/offset, such as events.job/0/42")]
pub struct NotASource(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_reads_back_what_it_writes() {
        let source: Source = "events.job/3/42".parse().unwrap();
        assert_eq!(source.topic.as_ref(), "events.job");
        assert_eq!((source.partition, source.offset), (3, 42));
        assert_eq!(source.to_string(), "events.job/3/42");
    }

    #[test]
    fn a_text_that_names_no_place_is_refused() {
        for text in ["", "a", "a/b/c", "/0/1", "a/0", "a/0/1/2", "a/0/x"] {
            assert!(text.parse::<Source>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_last_of_several_headers_counts() {
        let headers = [Header::text("a", "1"), Header::text("a", "2")];
        assert_eq!(header_text(&headers, "a"), Some("2"));
        assert_eq!(header_text(&headers, "b"), None);
    }
}
