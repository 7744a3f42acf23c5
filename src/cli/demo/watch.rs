//! Reads the demo's topics beside the router, with readers of its own, and tells the account what is in them. So events and
//! webhooks of whoever takes part count like the demo's.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::account::Account;
use crate::intake::decode::{Decoded, Reading, decode};
use crate::kafka::settings::Connection;
use crate::kafka::table::{Change, Follower, Span, follow, scan, spans};
use crate::kafka::unread::unread;
use crate::kafka::{self};
use crate::pipeline::topics::Topics;
use crate::record::{Record, header_text};
use crate::retry::dead_letter::DeadLetter;
use crate::subscription::condition::CatalogKey;

/// Begins to watch. The followers end when they are dropped.
///
/// # Errors
/// A topic is missing.
pub(super) fn start(
    connection: &Connection,
    topics: &Topics,
    sources: &[String],
    reading: &Reading,
    account: &Arc<Account>,
) -> Result<Vec<Follower>, kafka::Error> {
    let mut followers = Vec::new();
    for source in sources {
        let (account, reading) = (Arc::clone(account), reading.clone());
        let topic = source.clone();
        followers.push(follow(connection, source, move |change| match change {
            Change::Put(mut record) => {
                // What is no event becomes a dead letter, and is told as one.
                if let Decoded::Event(event) = decode(&mut record, &reading) {
                    account.produced(record.source(), &event);
                }
            }
            Change::CaughtUp(instant) => account.told(&topic, instant),
        })?);
    }
    let told = Arc::clone(account);
    followers.push(follow_records(
        connection,
        &topics.attempts,
        move |record| {
            let payload = record.payload.unwrap_or_default();
            if let Ok(line) = serde_json::from_slice(&payload) {
                told.attempted(&line);
            }
        },
    )?);
    let told = Arc::clone(account);
    let dead_letters = follow_records(connection, &topics.dead_letters, move |record| {
        told.died(DeadLetter::from_record(record));
    })?;
    followers.push(dead_letters);
    let told = Arc::clone(account);
    followers.push(follow_records(
        connection,
        &topics.subscriptions,
        move |record| {
            if let Some(CatalogKey::Webhook(webhook)) = CatalogKey::parse(record.key.as_deref()) {
                told.catalog_record(&webhook, record.payload.is_none());
            }
        },
    )?);
    Ok(followers)
}

fn follow_records(
    connection: &Connection,
    topic: &str,
    mut each: impl FnMut(Record) + Send + 'static,
) -> Result<Follower, kafka::Error> {
    follow(connection, topic, move |change| {
        if let Change::Put(record) = change {
            each(record);
        }
    })
}

/// The ids of all deliveries that are in a topic and not settled, once the router has stopped: what is among them is not lost.
///
/// # Errors
/// The broker does not answer.
pub(super) fn unsettled(
    connection: &Connection,
    topics: &Topics,
    sources: &[String],
    group: &str,
    account: &Account,
) -> Result<HashSet<String>, kafka::Error> {
    let mut found = HashSet::new();
    for source in sources {
        let left = unread(connection, &format!("{group}.route"), source)?;
        read(connection, source, &left, |record| {
            found.extend(account.caused_by(&record.source()));
        })?;
    }
    let mut note = |record: Record| {
        let id = header_text(&record.headers, crate::delivery::headers::DELIVERY_ID);
        found.extend(id.map(str::to_owned));
    };
    let dispatch = &topics.dispatch;
    let left = unread(connection, &format!("{group}.deliver"), dispatch)?;
    read(connection, dispatch, &left, &mut note)?;
    for (_, delay) in topics.delays() {
        let left = unread(connection, &format!("{group}.release"), delay)?;
        read(connection, delay, &left, &mut note)?;
    }
    // Nobody commits in the topic of held deliveries.
    let all = spans(connection, &topics.held)?;
    read(connection, &topics.held, &all, &mut note)?;
    Ok(found)
}

fn read(
    connection: &Connection,
    topic: &str,
    spans: &[Span],
    mut each: impl FnMut(Record),
) -> Result<(), kafka::Error> {
    scan(connection, topic, spans, |record| {
        each(record);
        ControlFlow::Continue(())
    })
}
