//! What can be asked, and by whom. Times are Unix milliseconds.

use std::collections::BTreeMap;

use super::database::Value;
use super::rows::{AttemptRow, DeliveryRow, Status};

/// Rows of one page at most.
pub const MOST_ROWS: u32 = 200;

/// Whose data may be seen. Every question takes one, so that none can forget it (promise 7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everybody's: for unscoped administrators.
    All,
    /// This customer's only; what belongs to no customer is not theirs.
    Customer(String),
}

/// Which deliveries. A field that is `None` lets everything pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeliveryFilter {
    /// For those who may see all: one customer of them.
    pub customer: Option<String>,
    pub webhook: Option<String>,
    pub status: Option<Status>,
    pub event_type: Option<String>,
    /// Made at this time or later.
    pub since_ms: Option<i64>,
    /// Made before this time.
    pub until_ms: Option<i64>,
}

/// A place in the list of deliveries: that of one which is or was there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub created_at_ms: i64,
    pub id: String,
}

/// Where a page of deliveries lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At the beginning of the list.
    Newest,
    /// Behind a place.
    OlderThan(Cursor),
    /// Right before a place.
    NewerThan(Cursor),
}

/// A page of deliveries, newest first.
#[derive(Clone, Debug, PartialEq)]
pub struct Deliveries {
    pub rows: Vec<DeliveryRow>,
    /// Whether there is a page behind it.
    pub has_older: bool,
    /// Whether there is a page before it.
    pub has_newer: bool,
}

impl Deliveries {
    /// Where the next page lies, if there is one.
    pub fn next(&self) -> Option<Begin> {
        let last = self.rows.last().filter(|_| self.has_older)?;
        Some(Begin::OlderThan(Cursor {
            created_at_ms: last.created_at_ms,
            id: last.id.clone(),
        }))
    }
}

/// One delivery with all that is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    pub delivery: DeliveryRow,
    /// Oldest first; those of replays too.
    pub attempts: Vec<AttemptRow>,
}

/// Times of answers in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ResponseTimes {
    /// How many attempts these figures rest on: those of the newest 1,000 deliveries at most.
    pub attempts: u64,
    pub average: f64,
    pub p50: f64,
    pub p95: f64,
}

/// What became of deliveries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Statistics {
    pub total: u64,
    pub success: u64,
    /// Dead-lettered.
    pub failure: u64,
    /// Successes among those that ended in success or failure, 0 to 1; `None` where none did.
    pub success_rate: Option<f64>,
    /// When a delivery was last made.
    pub last_triggered_at_ms: Option<i64>,
    pub by_status: BTreeMap<&'static str, u64>,
    pub response_times: ResponseTimes,
}

/// Conditions while they are gathered; every one is its column, its comparison and its value.
pub(super) struct Conditions<'a> {
    text: String,
    pub(super) values: Vec<Value<'a>>,
}

impl<'a> Conditions<'a> {
    /// Begins with the scope, which no caller can leave out.
    pub(super) fn within(scope: &'a Scope) -> Self {
        Self::within_column(scope, "customer")
    }

    /// The same where the customer is not simply its column. No customer is the empty text.
    pub(super) fn within_column(scope: &'a Scope, column: &'static str) -> Self {
        let mut conditions = Self {
            text: String::new(),
            values: Vec::new(),
        };
        if let Scope::Customer(customer) = scope {
            conditions.and(column, "=", Some(customer.as_str()));
        }
        conditions
    }

    pub(super) fn and(
        &mut self,
        column: &'static str,
        comparison: &'static str,
        value: Option<impl Into<Value<'a>>>,
    ) {
        if let Some(value) = value {
            let place = self.place(value);
            self.and_text(&format!("{column} {comparison} {place}"));
        }
    }

    pub(super) fn and_text(&mut self, condition: &str) {
        let joint = if self.text.is_empty() {
            " WHERE "
        } else {
            " AND "
        };
        self.text.push_str(joint);
        self.text.push_str(condition);
    }

    /// Adds a value; the answer is how a statement names it.
    pub(super) fn place(&mut self, value: impl Into<Value<'a>>) -> String {
        self.values.push(value.into());
        format!("${}", self.values.len())
    }

    /// ` WHERE …`, or nothing.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}
