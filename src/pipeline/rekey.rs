//! The catalog's secrets written anew with the key of now, while routers run and people change webhooks (promise 7).
//!
//! A record is sealed anew as it stands, version and times too, so that nobody's `ETag` ends and no router sees a change. Between reading a
//! record and writing it again somebody may have changed the webhook; the log shows it, since each of our records names the offset
//! of the one that it was made of. If that is no longer what stood there, ours was too late: it counts for nothing, and
//! what it overwrote is written once more. Until then, a few milliseconds, routers see the older state.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::catalog_topic::Error;
use crate::kafka::producer::Producer;
use crate::kafka::settings::Connection;
use crate::kafka::table;
use crate::metrics::Metrics;
use crate::record::{Header, Outgoing, Record, header_text};
use crate::subscription::WebhookId;
use crate::subscription::condition::CatalogKey;
use crate::subscription::seal::{self, SealError, SealingKey};

/// On a record that was sealed anew: the offset of the one that it was made of.
const MADE_OF: &str = "postrider-rekeyed-from";
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(20);
/// Times that the topic is read until nothing is left to write; each after the first only mends what others changed meanwhile.
const ROUNDS: usize = 5;

/// What became of the catalog.
#[derive(Debug, Default)]
pub struct Rekeyed {
    /// Webhooks in the catalog.
    pub webhooks: usize,
    /// Those whose secrets were sealed with another key, and are now sealed with the one of now.
    pub written: Vec<WebhookId>,
    /// Those that no key opens. They stay as they are.
    pub unopened: Vec<(WebhookId, SealError)>,
}

/// A webhook as the log has it.
struct State {
    offset: i64,
    payload: Option<Bytes>,
    /// A record that was made of an older state stands after it in the log.
    overwritten: bool,
}

/// Every webhook's last state that somebody meant, from the records in the order of the log.
#[derive(Default)]
struct Log(BTreeMap<WebhookId, State>);

impl Log {
    fn take(&mut self, record: &Record) {
        let Some(CatalogKey::Webhook(id)) = CatalogKey::parse(record.key.as_deref()) else {
            return;
        };
        let made_of =
            header_text(&record.headers, MADE_OF).and_then(|text| text.parse::<i64>().ok());
        // Where compaction has taken what it was made of, nothing else stood between.
        if let (Some(made_of), Some(state)) = (made_of, self.0.get_mut(&id))
            && state.offset != made_of
        {
            state.overwritten = true;
            return;
        }
        let state = State {
            offset: record.offset.0,
            payload: record.payload.clone(),
            overwritten: false,
        };
        self.0.insert(id, state);
    }

    /// What is to be written, each with the offset that it is made of; and what cannot be.
    #[allow(clippy::type_complexity, reason = "a list of what and of why not")]
    fn plan(
        &self,
        key: &SealingKey,
    ) -> (
        Vec<(WebhookId, i64, Option<Vec<u8>>)>,
        Vec<(WebhookId, SealError)>,
    ) {
        let (mut written, mut unopened) = (Vec::new(), Vec::new());
        for (id, state) in &self.0 {
            let Some(payload) = &state.payload else {
                if state.overwritten {
                    written.push((id.clone(), state.offset, None));
                }
                continue;
            };
            let is_ours = seal::key_id_of(payload).is_none_or(|sealed_by| sealed_by == key.id());
            let again = || seal::to_record(&seal::from_record(payload, Some(key))?, Some(key));
            match (is_ours, state.overwritten) {
                (true, false) => {}
                (true, true) => written.push((id.clone(), state.offset, Some(payload.to_vec()))),
                (false, _) => match again() {
                    Ok(value) => written.push((id.clone(), state.offset, Some(value))),
                    Err(fault) => unopened.push((id.clone(), fault)),
                },
            }
        }
        (written, unopened)
    }
}

/// Writes anew what another key sealed. `dry_run`: only says what that would be.
///
/// # Errors
/// The topic cannot be read or written, or others change webhooks faster than this mends.
pub fn rekey(
    connection: &Connection,
    topic: &Arc<str>,
    key: &SealingKey,
    dry_run: bool,
) -> Result<Rekeyed, Error> {
    let producer = Producer::start(&connection.producer(), Arc::new(Metrics::new()?))?;
    let mut done = Rekeyed::default();
    for _ in 0..ROUNDS {
        let mut log = Log::default();
        table::scan(
            connection,
            topic,
            &table::spans(connection, topic)?,
            |record| {
                log.take(&record);
                ControlFlow::Continue(())
            },
        )?;
        let (planned, unopened) = log.plan(key);
        let live = log.0.values().filter(|state| state.payload.is_some());
        done.webhooks = live.count();
        done.unopened = unopened;
        let is_done = planned.is_empty() || dry_run;
        for (id, made_of, value) in planned {
            if !dry_run {
                let record = Outgoing {
                    topic: Arc::clone(topic),
                    key: Some(Bytes::copy_from_slice(id.as_bytes())),
                    payload: value.map(Bytes::from),
                    headers: vec![Header::text(MADE_OF, made_of.to_string())],
                };
                producer.write(&record, ACKNOWLEDGED_WITHIN)?;
            }
            if !done.written.contains(&id) {
                done.written.push(id);
            }
        }
        if is_done {
            return Ok(done);
        }
    }
    let advice = "others change webhooks all the time; run `postrider secrets rekey` once more";
    Err(crate::kafka::Error::NoAnswer(advice.to_owned()).into())
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use serde_json::json;

    use super::*;
    use crate::record::SourceOffset;
    use crate::subscription::{Subscription, read::read};

    fn key(byte: u8) -> SealingKey {
        let text = base64::engine::general_purpose::STANDARD.encode([byte; 32]);
        SealingKey::from_base64(&text).unwrap()
    }

    fn webhook(secret: &str) -> Subscription {
        let value = json!({"id": "wh_1", "url": "https://example.com/", "event_types": ["*"], "secret": secret});
        let draft = read(&value, "").unwrap();
        draft
            .create(jiff::Timestamp::UNIX_EPOCH)
            .unwrap()
            .subscription
    }

    fn sealed(secret: &str, key: &SealingKey) -> Option<Vec<u8>> {
        Some(seal::to_record(&webhook(secret), Some(key)).unwrap())
    }

    /// The records of one webhook: value, and what it was made of.
    fn log(records: &[(Option<Vec<u8>>, Option<i64>)]) -> Log {
        let mut log = Log::default();
        for (offset, (value, made_of)) in records.iter().enumerate() {
            let header = made_of.map(|offset| Header::text(MADE_OF, offset.to_string()));
            log.take(&Record {
                topic: "catalog".into(),
                partition: 0,
                offset: SourceOffset(i64::try_from(offset).unwrap()),
                timestamp_ms: None,
                key: Some(Bytes::from("wh_1")),
                payload: value.clone().map(Bytes::from),
                headers: header.into_iter().collect(),
            });
        }
        log
    }

    /// What is written: the offset that it is made of, and its secret under the new key.
    fn plan(log: &Log) -> Vec<(i64, Option<String>)> {
        let (planned, unopened) = log.plan(&key(2).with_old(vec![key(1)]));
        assert!(unopened.is_empty(), "{unopened:?}");
        let secret = |value: Vec<u8>| {
            let webhook = seal::from_record(&value, Some(&key(2))).unwrap();
            webhook.secrets.into_iter().next().unwrap()
        };
        planned
            .into_iter()
            .map(|(_, made_of, value)| (made_of, value.map(secret)))
            .collect()
    }

    #[test]
    fn what_an_old_key_sealed_is_written_once_with_the_new_one() {
        let before = (sealed("a", &key(1)), None);
        assert_eq!(
            plan(&log(std::slice::from_ref(&before))),
            [(0, Some("a".to_owned()))]
        );
        assert_eq!(plan(&log(&[before, (sealed("a", &key(2)), Some(0))])), []);
        assert_eq!(plan(&log(&[(sealed("a", &key(2)), None)])), []);
        assert_eq!(plan(&log(&[(None, None)])), []);
    }

    #[test]
    fn a_change_that_came_between_reading_and_writing_is_put_back() {
        let (before, late) = (
            (sealed("a", &key(1)), None),
            (sealed("a", &key(2)), Some(0)),
        );
        for changed_by in [key(1), key(2)] {
            let changed = (sealed("b", &changed_by), None);
            let found = [before.clone(), changed, late.clone()];
            assert_eq!(plan(&log(&found)), [(1, Some("b".to_owned()))]);
            let mended = (sealed("b", &key(2)), Some(1));
            assert_eq!(plan(&log(&[&found[..], &[mended]].concat())), []);
        }
        // Deleted meanwhile: it stays deleted.
        let deleted = [before, (None, None), late];
        assert_eq!(plan(&log(&deleted)), [(1, None)]);
        assert_eq!(plan(&log(&[&deleted[..], &[(None, Some(1))]].concat())), []);
    }

    #[test]
    fn a_record_that_no_key_opens_is_told_and_left() {
        let log = log(&[(sealed("a", &key(3)), None)]);
        let (planned, unopened) = log.plan(&key(2).with_old(vec![key(1)]));
        assert!(planned.is_empty());
        assert!(
            matches!(&unopened[..], [(_, SealError::WrongKey { .. })]),
            "{unopened:?}"
        );
    }
}
