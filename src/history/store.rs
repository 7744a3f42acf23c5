//! The store: opened by its setting, written in batches, asked (in the files of queries), kept within its retention.
//!
//! A batch is one transaction of rows together with the positions behind them, so a crash repeats nothing and loses nothing.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Fault;
use super::database::{Database, Row, Statement, Value};
use super::postgres::Postgres;
use super::rows::{AttemptRow, Change, DeliveryRow};
use super::schema;
use super::sqlite::Sqlite;

/// Which store is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A file, which one instance keeps for itself.
    Sqlite(PathBuf),
    /// A URL with its password: never to be shown.
    Postgres(String),
    None,
}

impl std::str::FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" {
            return Ok(Self::None);
        }
        if let Some(path) = text.strip_prefix("sqlite:").filter(|path| !path.is_empty()) {
            return Ok(Self::Sqlite(path.into()));
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Postgres(text.to_owned()));
        }
        // The text is not repeated: it may hold a password.
        Err(
            "must be \"sqlite:PATH\", \"postgres://user:password@host/database\" or \"none\""
                .to_owned(),
        )
    }
}

/// The history's database, whichever it is.
pub struct Store {
    pub(super) database: Box<dyn Database>,
    name: &'static str,
    is_shared: bool,
    is_made: AtomicBool,
}

/// The next offset of each topic and partition.
pub type Positions = BTreeMap<(String, i32), i64>;

impl Store {
    /// The store of a setting; `None` where there is to be none. The database need not be reachable yet: its tables are made when it is
    /// first used.
    ///
    /// # Errors
    /// The setting cannot be meant, or SQLite's file cannot be opened.
    pub fn open(kind: &Kind) -> Result<Option<Self>, Fault> {
        let (database, name, is_shared): (Box<dyn Database>, _, _) = match kind {
            Kind::None => return Ok(None),
            Kind::Sqlite(path) => (Box::new(Sqlite::open(path)?), "SQLite", false),
            Kind::Postgres(url) => (Box::new(Postgres::new(url)?), "PostgreSQL", true),
        };
        Ok(Some(Self {
            database,
            name,
            is_shared,
            is_made: AtomicBool::new(false),
        }))
    }

    /// For messages.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether several instances write it together.
    pub fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Makes the tables where they are not there.
    ///
    /// # Errors
    /// The database is away, or holds a view of another form.
    pub fn prepare(&self) -> Result<(), Fault> {
        if self.is_made.load(Ordering::Acquire) {
            return Ok(());
        }
        self.database.define(schema::TABLES)?;
        let found = self.database.read("SELECT form FROM postrider_form", &[])?;
        match found
            .into_iter()
            .next()
            .map(|mut row| row.number())
            .transpose()?
        {
            Some(schema::FORM) => {}
            Some(found) => {
                return Err(Fault::Form {
                    found,
                    wanted: schema::FORM,
                });
            }
            None => {
                self.write(&[statement(
                    "INSERT INTO postrider_form (form) VALUES ($1)",
                    vec![schema::FORM.into()],
                )])?;
            }
        }
        self.is_made.store(true, Ordering::Release);
        Ok(())
    }

    fn write(&self, statements: &[Statement]) -> Result<u64, Fault> {
        self.database.write(statements)
    }

    pub(super) fn read(&self, text: &str, parameters: &[Value]) -> Result<Vec<Row>, Fault> {
        self.prepare()?;
        self.database.read(text, parameters)
    }

    /// Writes what records mean, and the places behind them, in one transaction. To write the same again changes nothing.
    ///
    /// # Errors
    /// Nothing was written; try again later.
    pub fn apply(&self, changes: &[Change]) -> Result<(), Fault> {
        self.prepare()?;
        let mut deliveries = Vec::with_capacity(changes.len());
        let mut rest = Vec::new();
        let mut positions: BTreeMap<(&str, i32), i64> = BTreeMap::new();
        let mut tried: BTreeMap<&str, Tried> = BTreeMap::new();
        for change in changes {
            let attempt = change.attempt.as_ref();
            if let (Some(attempt), Some(delivery)) = (attempt, &change.delivery) {
                tried.entry(&delivery.webhook).or_default().note(attempt);
            }
            let brief = attempt
                .filter(|_| change.delivery.is_some())
                .and_then(|attempt| attempt.brief(&change.place));
            if let Some(row) = attempt.filter(|_| brief.is_none()) {
                rest.push(statement(schema::ATTEMPT, attempt_values(row, change)));
            }
            if let Some(row) = &change.delivery {
                deliveries.push((row, brief));
            }
            let place = &change.place;
            let next = positions
                .entry((&place.topic, place.partition))
                .or_default();
            *next = (*next).max(place.offset + 1);
        }
        for ((topic, partition), next) in positions {
            let values = vec![topic.into(), i64::from(partition).into(), next.into()];
            rest.push(statement(schema::POSITION, values));
        }
        for (webhook, tried) in tried {
            let values = vec![
                webhook.into(),
                tried.success_ms.into(),
                tried.failure_ms.into(),
            ];
            rest.push(statement(schema::WEBHOOK, values));
        }
        // In the order of time, which is that of most trees and so the cheapest; and in one order, so that two instances do not wait for each
        // other's rows in a circle.
        deliveries.sort_by_key(|(row, _)| (row.created_at_ms, row.id.as_str()));
        let mut statements = Vec::with_capacity(deliveries.len() + rest.len());
        statements.extend(
            deliveries
                .into_iter()
                .map(|(row, brief)| statement(schema::DELIVERY, delivery_values(row, brief))),
        );
        rest.sort_by_key(|statement| statement.text.as_ptr());
        statements.append(&mut rest);
        self.write(&statements).map(|_| ())
    }

    /// Where reading goes on, of every partition of which something was written.
    ///
    /// # Errors
    /// The database is away.
    pub fn positions(&self) -> Result<Positions, Fault> {
        let rows = self.read(
            "SELECT topic, topic_partition, next_offset FROM postrider_positions",
            &[],
        )?;
        rows.into_iter()
            .map(|mut row| {
                let topic = row.text()?;
                let partition = row.small()?.ok_or(Fault::Row("a partition is missing"))?;
                Ok(((topic, partition), row.number()?))
            })
            .collect()
    }

    /// Deletes the whole view, of whatever form.
    ///
    /// # Errors
    /// The database is away.
    pub fn clear(&self) -> Result<(), Fault> {
        self.is_made.store(false, Ordering::Release);
        self.database.define(schema::DROP)?;
        self.database.compact()?;
        self.prepare()
    }

    /// Retention: deletes some of what is older than `before_ms` (Unix milliseconds), at most `most` deliveries; the
    /// answer is whether there may be more.
    ///
    /// # Errors
    /// The database is away.
    pub fn forget(&self, before_ms: i64, most: u32) -> Result<bool, Fault> {
        self.prepare()?;
        let forgotten = self.write(
            &schema::forget().map(|text| statement(text, vec![before_ms.into(), most.into()])),
        )?;
        self.write(&[statement(schema::FORGET_WEBHOOKS, vec![before_ms.into()])])?;
        if forgotten > 0 {
            self.database.compact()?;
        }
        Ok(forgotten >= u64::from(most))
    }

    /// What the view takes on disk.
    ///
    /// # Errors
    /// The database is away.
    pub fn bytes(&self) -> Result<i64, Fault> {
        self.prepare()?;
        self.database.bytes()
    }
}

/// When attempts of a webhook in one batch last ended so; Unix milliseconds.
#[derive(Default)]
struct Tried {
    success_ms: Option<i64>,
    failure_ms: Option<i64>,
}

impl Tried {
    fn note(&mut self, attempt: &AttemptRow) {
        let ended_ms = attempt.started_at_ms + attempt.duration_us / 1000;
        let last = if attempt.outcome == "success" {
            &mut self.success_ms
        } else {
            &mut self.failure_ms
        };
        *last = (*last).max(Some(ended_ms));
    }
}

fn statement(text: impl Into<Cow<'static, str>>, parameters: Vec<Value<'_>>) -> Statement<'_> {
    Statement {
        text: text.into(),
        parameters,
    }
}

fn delivery_values(row: &DeliveryRow, brief: Option<String>) -> Vec<Value<'_>> {
    vec![
        row.id.as_str().into(),
        row.webhook.as_str().into(),
        row.customer.as_deref().into(),
        row.event_type.as_str().into(),
        row.source.as_str().into(),
        row.created_at_ms.into(),
        row.version().into(),
        row.updated_at_ms.into(),
        row.status.as_str().into(),
        row.attempts.into(),
        row.next_attempt_at_ms.into(),
        row.last_status.into(),
        row.error_message.as_deref().into(),
        row.replay_id.as_deref().into(),
        row.reason.as_deref().into(),
        brief.into(),
    ]
}

fn attempt_values<'a>(row: &'a AttemptRow, change: &Change) -> Vec<Value<'a>> {
    vec![
        row.delivery_id.as_str().into(),
        i64::from(change.place.partition).into(),
        change.place.offset.into(),
        row.number.into(),
        row.replay_id.as_deref().into(),
        row.started_at_ms.into(),
        row.duration_us.into(),
        row.outcome.as_str().into(),
        row.status.into(),
        row.error_message.as_deref().into(),
        row.request_headers.as_deref().into(),
        row.response_headers.as_deref().into(),
        row.response_body.as_deref().into(),
    ]
}
