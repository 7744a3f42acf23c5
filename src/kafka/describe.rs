//! Questions of Kafka's admin interface that describe something, put to librdkafka itself: rdkafka has no safe form of them.
//!
//! The only unsafe code beside what reads the answers (`rights`, `topic_id`): what is asked with is freed, and outlives what
//! it is asked for.

#![allow(
    unsafe_code,
    reason = "librdkafka's admin interface for descriptions, which rdkafka does not wrap"
)]

use std::ffi::{CStr, CString, c_char};
use std::ptr::null_mut;
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::bindings as native;
use rdkafka::client::Client;
use rdkafka::types::RDKafkaRespErr as Code;

use super::Error;

/// Asks for the descriptions of topics, and for the rights to them, and reads each answer.
///
/// # Errors
/// The broker does not answer within `limit`. A topic that is not there is an answer.
pub(super) fn topics<C: ClientContext>(
    client: &Client<C>,
    names: &[&str],
    limit: Duration,
    mut read: impl FnMut(*const native::rd_kafka_TopicDescription_t),
) -> Result<(), Error> {
    if names.is_empty() {
        return Ok(());
    }
    let names = native_names(names);
    let mut pointers = pointers_to(&names);
    let question = |asked: &Asked<'_, C>| {
        // SAFETY: the names outlive the call, which copies them; the collection is destroyed after it; client, options and
        // queue are those of `asked`.
        unsafe {
            let topics = native::rd_kafka_TopicCollection_of_topic_names(
                pointers.as_mut_ptr(),
                pointers.len(),
            );
            native::rd_kafka_DescribeTopics(asked.client(), topics, asked.options, asked.queue);
            native::rd_kafka_TopicCollection_destroy(topics);
        }
    };
    let kind = native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
    let answer = Answer::to(client, kind, limit, question)?;
    // SAFETY: the event is of the kind that was asked for, lives as long as `answer`, and owns all that is read of it.
    unsafe {
        let result = native::rd_kafka_event_DescribeTopics_result(answer.event);
        let mut count = 0;
        let topics = native::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        for at in 0..count {
            read(*topics.add(at));
        }
    }
    Ok(())
}

/// A name with a zero in it, which no broker has, becomes an empty one, which no broker has either.
pub(super) fn native_names(names: &[&str]) -> Vec<CString> {
    let native = |name: &&str| CString::new(*name).unwrap_or_default();
    names.iter().map(native).collect()
}

pub(super) fn pointers_to(names: &[CString]) -> Vec<*const c_char> {
    names.iter().map(|name| name.as_ptr()).collect()
}

pub(super) fn text_of(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: librdkafka's texts end with a zero and live as long as what they were read from.
    unsafe { CStr::from_ptr(pointer) }
        .to_string_lossy()
        .into_owned()
}

/// What a question needs; freed when dropped, before the client that it borrows.
pub(super) struct Asked<'a, C: ClientContext> {
    pub(super) queue: *mut native::rd_kafka_queue_t,
    pub(super) options: *mut native::rd_kafka_AdminOptions_t,
    client: &'a Client<C>,
}

impl<'a, C: ClientContext> Asked<'a, C> {
    fn new(client: &'a Client<C>, kind: native::rd_kafka_admin_op_t, limit: Duration) -> Self {
        let handle = client.native_ptr();
        // SAFETY: the handle is that of a living client, which outlives what is made of it here. The setter of the operations
        // returns an error that must be freed (null: none); without them the answer is `Unknown`, so it is not looked at.
        let (queue, options) = unsafe {
            let options = native::rd_kafka_AdminOptions_new(handle, kind);
            let fault = native::rd_kafka_AdminOptions_set_include_authorized_operations(options, 1);
            native::rd_kafka_error_destroy(fault);
            native::rd_kafka_AdminOptions_set_request_timeout(
                options,
                milliseconds(limit),
                null_mut(),
                0,
            );
            (native::rd_kafka_queue_new(handle), options)
        };
        Self {
            queue,
            options,
            client,
        }
    }

    pub(super) fn client(&self) -> *mut native::rd_kafka_t {
        self.client.native_ptr()
    }
}

impl<C: ClientContext> Drop for Asked<'_, C> {
    fn drop(&mut self) {
        // SAFETY: both were made by `new` and are used by nobody else.
        unsafe {
            native::rd_kafka_AdminOptions_destroy(self.options);
            native::rd_kafka_queue_destroy(self.queue);
        }
    }
}

fn milliseconds(limit: Duration) -> i32 {
    i32::try_from(limit.as_millis()).unwrap_or(i32::MAX)
}

/// An event that holds the answer; freed when dropped, before what it was asked with.
pub(super) struct Answer<'a, C: ClientContext> {
    pub(super) event: *mut native::rd_kafka_event_t,
    _asked: Asked<'a, C>,
}

impl<'a, C: ClientContext> Answer<'a, C> {
    /// Puts a question and waits for its answer.
    ///
    /// # Errors
    /// The broker does not answer within `limit`.
    pub(super) fn to(
        client: &'a Client<C>,
        kind: native::rd_kafka_admin_op_t,
        limit: Duration,
        mut question: impl FnMut(&Asked<'a, C>),
    ) -> Result<Self, Error> {
        let asked = Asked::new(client, kind, limit);
        question(&asked);
        let limit = milliseconds(limit + Duration::from_secs(1));
        // SAFETY: the queue lives; the event is ours from here on.
        let event = unsafe { native::rd_kafka_queue_poll(asked.queue, limit) };
        if event.is_null() {
            return Err(Error::NoAnswer(
                "a description was not given in time".to_owned(),
            ));
        }
        let answer = Self {
            event,
            _asked: asked,
        };
        // SAFETY: the event lives, and so does its text.
        unsafe {
            if native::rd_kafka_event_error(event) != Code::RD_KAFKA_RESP_ERR_NO_ERROR {
                let why = text_of(native::rd_kafka_event_error_string(event));
                return Err(Error::NoAnswer(why));
            }
        }
        Ok(answer)
    }
}

impl<C: ClientContext> Drop for Answer<'_, C> {
    fn drop(&mut self) {
        // SAFETY: it came from `rd_kafka_queue_poll` and is freed once.
        unsafe { native::rd_kafka_event_destroy(self.event) };
    }
}
