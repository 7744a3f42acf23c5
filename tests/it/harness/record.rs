//! What goes into a topic and what comes out of it, as plain values that a test can compare byte for byte.

/// A record to produce. `Sent::new(payload)` and then whatever else it should have.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    pub partition: Option<i32>,
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Milliseconds since 1970; now when it is `None`.
    pub timestamp: Option<i64>,
}

impl Sent {
    pub fn new(payload: impl Into<Vec<u8>>) -> Self {
        Self {
            payload: Some(payload.into()),
            ..Self::default()
        }
    }

    /// A record with a null value.
    pub fn tombstone(key: impl Into<Vec<u8>>) -> Self {
        Self {
            key: Some(key.into()),
            ..Self::default()
        }
    }

    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.key = Some(key.into());
        self
    }

    pub fn header(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.headers.push((name.to_owned(), Some(value.into())));
        self
    }

    pub fn partition(mut self, partition: i32) -> Self {
        self.partition = Some(partition);
        self
    }

    pub fn timestamp(mut self, timestamp_ms: i64) -> Self {
        self.timestamp = Some(timestamp_ms);
        self
    }
}

/// A record as it stands in a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub payload: Option<Vec<u8>>,
    /// In order; a name may come more than once.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    /// The last header of this name, as text; `None` where there is none, or it is null or not UTF-8.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().rev().find(|(key, _)| key == name)?;
        std::str::from_utf8(value.as_deref()?).ok()
    }

    /// Key, payload, and names and values of headers, a line each: to look whether something is anywhere in it.
    pub fn whole(&self) -> String {
        let headers = self.headers.iter();
        let headers = headers.flat_map(|(name, value)| [Some(name.as_bytes()), value.as_deref()]);
        let parts = [self.key.as_deref(), self.payload.as_deref()];
        let parts = parts.into_iter().chain(headers).flatten();
        parts
            .map(|part| format!("{}\n", String::from_utf8_lossy(part)))
            .collect()
    }

    /// The payload as text, for assertions that print well.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.payload.as_deref().unwrap_or_default()).into_owned()
    }
}
