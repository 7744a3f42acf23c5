//! The history of an instance: its store, the writer, and what feeds it. None of it is a condition of starting but that the setting
//! can be meant: a database that is away is waited for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Error;
use super::stages::SESSION_TIMEOUT;
use crate::config::Config;
use crate::history::{Fault, Store};
use crate::kafka::consumer::{Reader, ReaderSettings};
use crate::kafka::settings::Connection;
use crate::kafka::start::Start;
use crate::kafka::tail::{Tail, tail};
use crate::pipeline::Ways;
use crate::pipeline::history::{Reading, Writer, warn_when_empty};

/// The store of a configuration; `None` where there is to be none.
///
/// # Errors
/// SQLite's file cannot be opened, or the URL is none.
pub fn open_store(config: &Config) -> Result<Option<Store>, Fault> {
    let kind = config.history.store.expose().parse();
    Store::open(&kind.map_err(Fault::Setting)?)
}

/// What runs.
pub(super) struct History {
    pub(super) writer: Arc<Writer>,
    reader: Option<Reader>,
    tail: Option<Tail>,
}

impl History {
    pub(super) fn start(
        config: &Config,
        connection: &Connection,
        ways: &Arc<Ways>,
    ) -> Result<Option<Self>, Error> {
        let Some(store) = open_store(config)? else {
            return Ok(None);
        };
        let store = Arc::new(store);
        let metrics = Arc::clone(&ways.metrics);
        let days = config.history.retention_days;
        let writer = Arc::new(Writer::start(Arc::clone(&store), days, metrics)?);
        let reading = Reading::new(&ways.topics);
        if !store.is_shared() {
            // SQLite's file is there or the start fails; so its positions can be read now.
            let positions = store.positions()?;
            let topics = reading.topics();
            let feed = writer.feed(reading);
            let tail = tail(connection, &topics, &positions, feed)?;
            return Ok(Some(Self {
                writer,
                reader: None,
                tail: Some(tail),
            }));
        }
        let settings = ReaderSettings {
            stage: "history",
            client: connection.consumer(&ways.group_of("history"), SESSION_TIMEOUT, false),
            topics: reading.topics().map(|topic| topic.to_string()).into(),
            start: Start::Earliest,
            split: false,
            keeps_place: true,
            session_timeout: SESSION_TIMEOUT,
            // A view may wait for a dead member's partitions.
            instance_id: None,
        };
        let reader = Reader::start(settings, writer.stage(reading), Arc::clone(&ways.metrics))?;
        // The database may be away, and a start must not wait for it.
        std::thread::Builder::new()
            .name("history-look".into())
            .spawn(move || warn_when_empty(&store))?;
        Ok(Some(Self {
            writer,
            reader: Some(reader),
            tail: None,
        }))
    }

    /// Ends reading and writing; what waits for the store is read again after the next start.
    pub(super) fn stop(self, deadline: Instant) {
        if let Some(reader) = &self.reader {
            // First the reader, while the writer still settles what it has; but not for long: nothing is lost.
            reader.stop();
            let until = deadline.min(Instant::now() + Duration::from_secs(2));
            while !reader.is_finished() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        self.writer.stop();
        drop(self.tail);
    }
}
