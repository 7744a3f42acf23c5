//! What is written: the rows that a record of our topics means. Times are Unix milliseconds. Pure.

/// The contract's word for where a delivery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// Not attempted yet. Told only of a delivery that was put off before its first attempt (its webhook's pace, a closed gate, a tripped
    /// breaker): of one that still stands in `dispatch` nothing is written, and it is not listed until its first attempt.
    Pending,
    /// An attempt failed, and another is due.
    Retrying,
    /// Kept for its paused webhook.
    Held,
    /// In the dead-letter topic.
    Failed,
    /// Its webhook was deleted.
    Dropped,
    /// The receiver has it.
    Success,
}

impl Status {
    /// All, in the contract's order.
    pub const ALL: [Self; 6] = [
        Self::Pending,
        Self::Retrying,
        Self::Success,
        Self::Failed,
        Self::Held,
        Self::Dropped,
    ];

    /// The contract's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Retrying => "retrying",
            Self::Held => "held",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
            Self::Success => "success",
        }
    }

    /// Which of two records of one millisecond counts: the later in a delivery's life.
    fn rank(self) -> i64 {
        match self {
            Self::Pending => 0,
            Self::Retrying => 1,
            Self::Held => 2,
            Self::Failed => 3,
            Self::Dropped => 4,
            Self::Success => 5,
        }
    }
}

impl std::str::FromStr for Status {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| {
                let known: Vec<&str> = Self::ALL.iter().map(|status| status.as_str()).collect();
                format!(
                    "`{text}` is no status of a delivery; they are {}",
                    known.join(", ")
                )
            })
    }
}

/// A delivery as one record tells of it.
#[derive(Clone, Debug, PartialEq)]
pub struct DeliveryRow {
    pub id: String,
    pub webhook: String,
    pub customer: Option<String>,
    pub event_type: String,
    /// `topic/partition/offset` of the event.
    pub source: String,
    pub created_at_ms: i64,
    pub updated_at_ms: i64,
    pub status: Status,
    /// Attempts made so far (since the last replay).
    pub attempts: u32,
    pub next_attempt_at_ms: Option<i64>,
    pub last_status: Option<u16>,
    /// In plain words, with the cure.
    pub error_message: Option<String>,
    pub replay_id: Option<String>,
    /// Why it was dead-lettered.
    pub reason: Option<String>,
}

impl DeliveryRow {
    /// Orders what records tell of one delivery.
    pub fn version(&self) -> i64 {
        self.updated_at_ms
            .saturating_mul(8)
            .saturating_add(self.status.rank())
    }
}

/// An attempt.
#[derive(Clone, Debug, PartialEq)]
pub struct AttemptRow {
    pub delivery_id: String,
    /// 1 for the first.
    pub number: u32,
    pub replay_id: Option<String>,
    pub started_at_ms: i64,
    pub duration_us: i64,
    /// The word of the metric `postrider_attempts_total{outcome}`.
    pub outcome: String,
    pub status: Option<u16>,
    pub error_message: Option<String>,
    /// JSON objects of text, secrets masked; only of attempts that failed.
    pub request_headers: Option<String>,
    pub response_headers: Option<String>,
    pub response_body: Option<String>,
}

impl AttemptRow {
    /// The attempt in few words, where there is nothing to tell of it but time and status and it is the first: it is kept in the row of its
    /// delivery then. `topic_partition` and `topic_offset` tell it from others.
    pub(super) fn brief(&self, place: &Place) -> Option<String> {
        let is_plain = self.number == 1
            && self.replay_id.is_none()
            && self.error_message.is_none()
            && self.request_headers.is_none()
            && self.response_headers.is_none()
            && self.response_body.is_none();
        let status = self.status?;
        is_plain.then(|| {
            format!(
                ";{}:{}:{}:{}:{}:{status}.",
                place.partition, place.offset, self.started_at_ms, self.duration_us, self.outcome
            )
        })
    }

    /// The attempts that a row of a delivery holds.
    pub(super) fn read_briefs(delivery_id: &str, text: &str) -> Vec<Self> {
        let read = |brief: &str| {
            let mut fields = brief.trim_end_matches('.').splitn(6, ':').skip(2);
            Some(Self {
                delivery_id: delivery_id.to_owned(),
                number: 1,
                replay_id: None,
                started_at_ms: fields.next()?.parse().ok()?,
                duration_us: fields.next()?.parse().ok()?,
                outcome: fields.next()?.to_owned(),
                status: fields.next()?.parse().ok(),
                error_message: None,
                request_headers: None,
                response_headers: None,
                response_body: None,
            })
        };
        text.split(';').filter_map(read).collect()
    }
}

/// Where a record stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub topic: std::sync::Arc<str>,
    pub partition: i32,
    pub offset: i64,
}

/// What one record means for the view; nothing of it may be there, as for a record that cannot be read.
#[derive(Clone, Debug)]
pub struct Change {
    pub place: Place,
    /// When the record was written, for the lag.
    pub written_at_ms: Option<i64>,
    pub delivery: Option<DeliveryRow>,
    pub attempt: Option<AttemptRow>,
}

impl Change {
    /// About what it takes in memory, in bytes.
    pub fn cost_bytes(&self) -> usize {
        let told = self.attempt.iter().flat_map(|attempt| {
            [
                &attempt.request_headers,
                &attempt.response_headers,
                &attempt.response_body,
            ]
        });
        512 + told.flatten().map(String::len).sum::<usize>()
    }
}
