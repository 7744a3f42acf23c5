//! The id that tells a topic from one of the same name that was there before it (KIP-516).
//!
//! An offset means something in one topic only: a commit that outlived its topic would make the reader of the next one skip
//! records (promise 1). So the id stands beside each committed offset.

#![allow(unsafe_code, reason = "librdkafka's descriptions (`describe`)")]

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::bindings as native;
use rdkafka::client::Client;

use super::Error;
use super::describe::{self, text_of};

/// What the id begins with in the metadata of a commit, and what ends it.
const MARK: &str = "t1:";
const END: char = ' ';

/// As Kafka's tools write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TopicId(Arc<str>);

/// The ids of topics by name, without those that do not exist now or whose broker gives none (Kafka before 2.8).
///
/// # Errors
/// The broker does not answer within `limit`.
pub(super) fn of_topics<C: ClientContext>(
    client: &Client<C>,
    names: &[&str],
    limit: Duration,
) -> Result<HashMap<Arc<str>, TopicId>, Error> {
    let mut found = HashMap::new();
    describe::topics(client, names, limit, |topic| {
        // SAFETY: the description lives while this is called, and owns the id and the texts.
        unsafe {
            let id = native::rd_kafka_TopicDescription_topic_id(topic);
            let is_zero = id.is_null()
                || (native::rd_kafka_Uuid_most_significant_bits(id) == 0
                    && native::rd_kafka_Uuid_least_significant_bits(id) == 0);
            let fault = native::rd_kafka_TopicDescription_error(topic);
            let exists = native::rd_kafka_error_code(fault)
                == native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
            if exists && !is_zero {
                let name = text_of(native::rd_kafka_TopicDescription_name(topic));
                let text = text_of(native::rd_kafka_Uuid_base64str(id));
                found.insert(name.into(), TopicId(text.into()));
            }
        }
    })?;
    Ok(found)
}

/// The metadata of a commit: the topic's id, where it is known, and the note.
pub(super) fn to_metadata(id: Option<&TopicId>, note: &str) -> String {
    id.map_or_else(
        || note.to_owned(),
        |TopicId(id)| format!("{MARK}{id}{END}{note}"),
    )
}

/// Takes the metadata of a commit apart. What no `to_metadata` wrote is a note without an id.
pub(super) fn from_metadata(metadata: &str) -> (Option<TopicId>, &str) {
    metadata
        .strip_prefix(MARK)
        .and_then(|rest| rest.split_once(END))
        .map_or((None, metadata), |(id, note)| {
            (Some(TopicId(id.into())), note)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> TopicId {
        TopicId(text.into())
    }

    #[test]
    fn what_is_written_beside_a_commit_is_read_again() {
        for note in ["", "f1:AQI", "a note of somebody else"] {
            let with = to_metadata(Some(&id("Xk3_-w")), note);
            assert_eq!(from_metadata(&with), (Some(id("Xk3_-w")), note));
            assert_eq!(from_metadata(&to_metadata(None, note)), (None, note));
        }
    }

    #[test]
    fn metadata_of_another_form_is_a_note_without_an_id() {
        for text in ["t1:", "t1:abc", "t2:abc f1:AQI", " "] {
            assert_eq!(from_metadata(text), (None, text));
        }
    }
}
