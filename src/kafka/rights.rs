//! What the cluster lets us do (KIP-430: a description may list the operations that its asker has a right to), asked without
//! doing any of it. rdkafka has no safe form of these questions, so they are put to librdkafka here.

#![allow(
    unsafe_code,
    reason = "librdkafka's admin interface for descriptions, which rdkafka does not wrap"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString, c_char};
use std::ptr::null_mut;
use std::time::Duration;

use rdkafka::admin::AdminClient;
use rdkafka::bindings as native;
use rdkafka::client::DefaultClientContext;
use rdkafka::types::RDKafkaRespErr as Code;

use super::Error;
use super::settings::Connection;

const LIMIT: Duration = Duration::from_secs(10);

/// An operation of Kafka's access control, as far as this program needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Read,
    Write,
    Create,
    Describe,
    DescribeConfigs,
}

impl Operation {
    /// The name that Kafka's own tools have for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "Read",
            Self::Write => "Write",
            Self::Create => "Create",
            Self::Describe => "Describe",
            Self::DescribeConfigs => "DescribeConfigs",
        }
    }

    fn of(native: native::rd_kafka_AclOperation_t) -> Option<Self> {
        use native::rd_kafka_AclOperation_t as Native;
        match native {
            Native::RD_KAFKA_ACL_OPERATION_READ => Some(Self::Read),
            Native::RD_KAFKA_ACL_OPERATION_WRITE => Some(Self::Write),
            Native::RD_KAFKA_ACL_OPERATION_CREATE => Some(Self::Create),
            Native::RD_KAFKA_ACL_OPERATION_DESCRIBE => Some(Self::Describe),
            Native::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS => Some(Self::DescribeConfigs),
            _ => None,
        }
    }
}

/// What one topic or group said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rights {
    /// The operations that are allowed.
    Known(BTreeSet<Operation>),
    /// It does not exist, or cannot be asked now: the reason.
    Unknown(String),
}

impl Rights {
    /// Whether the cluster says that the operation is refused. What is not known is not refused.
    pub fn refuses(&self, operation: Operation) -> bool {
        matches!(self, Self::Known(operations) if !operations.contains(&operation))
    }
}

/// The rights to topics, by name; of one that may not even be described they are none.
///
/// # Errors
/// The broker does not answer.
pub fn to_topics(
    connection: &Connection,
    names: &[&str],
) -> Result<BTreeMap<String, Rights>, Error> {
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let names = native_names(names);
    let mut pointers = pointers_to(&names);
    let question = |asked: &Asked| {
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
    let answer = Answer::to(connection, kind, question)?;
    let mut found = BTreeMap::new();
    // SAFETY: the event is of the kind that was asked for, lives as long as `answer`, and owns all that is read of it.
    unsafe {
        let result = native::rd_kafka_event_DescribeTopics_result(answer.event);
        let mut count = 0;
        let topics = native::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        for at in 0..count {
            let topic = *topics.add(at);
            let mut many = 0;
            let operations =
                native::rd_kafka_TopicDescription_authorized_operations(topic, &raw mut many);
            let fault = native::rd_kafka_TopicDescription_error(topic);
            found.insert(
                text_of(native::rd_kafka_TopicDescription_name(topic)),
                rights_of(fault, operations, many),
            );
        }
    }
    Ok(found)
}

/// The rights to a consumer group, which need not exist.
///
/// # Errors
/// The broker does not answer.
pub fn to_group(connection: &Connection, group: &str) -> Result<Rights, Error> {
    let names = native_names(&[group]);
    let mut pointers = pointers_to(&names);
    let question = |asked: &Asked| {
        // SAFETY: as in `to_topics`.
        unsafe {
            native::rd_kafka_DescribeConsumerGroups(
                asked.client(),
                pointers.as_mut_ptr(),
                pointers.len(),
                asked.options,
                asked.queue,
            );
        }
    };
    let kind = native::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS;
    let answer = Answer::to(connection, kind, question)?;
    // SAFETY: as in `to_topics`; the pointer is read only where the count says that there is one.
    unsafe {
        let result = native::rd_kafka_event_DescribeConsumerGroups_result(answer.event);
        let mut count = 0;
        let groups = native::rd_kafka_DescribeConsumerGroups_result_groups(result, &raw mut count);
        if count == 0 {
            return Ok(Rights::Unknown("it was not described".to_owned()));
        }
        let group = *groups;
        let mut many = 0;
        let operations =
            native::rd_kafka_ConsumerGroupDescription_authorized_operations(group, &raw mut many);
        let fault = native::rd_kafka_ConsumerGroupDescription_error(group);
        Ok(rights_of(fault, operations, many))
    }
}

/// # Safety
/// `fault` is null or an error of librdkafka, `operations` null or an array of `count`.
unsafe fn rights_of(
    fault: *const native::rd_kafka_error_t,
    operations: *const native::rd_kafka_AclOperation_t,
    count: usize,
) -> Rights {
    // SAFETY: the caller's promise; librdkafka takes a null error for none.
    let code = unsafe { native::rd_kafka_error_code(fault) };
    match code {
        Code::RD_KAFKA_RESP_ERR_NO_ERROR => {}
        Code::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED
        | Code::RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED => {
            return Rights::Known(BTreeSet::new());
        }
        _ => {
            // SAFETY: there is an error, and its text lives as long as it.
            return Rights::Unknown(text_of(unsafe { native::rd_kafka_error_string(fault) }));
        }
    }
    if operations.is_null() {
        return Rights::Unknown("the broker is older than KIP-430 (2.3)".to_owned());
    }
    // SAFETY: the caller's promise.
    let operations = unsafe { std::slice::from_raw_parts(operations, count) };
    Rights::Known(
        operations
            .iter()
            .copied()
            .filter_map(Operation::of)
            .collect(),
    )
}

/// A name with a zero in it, which no broker has, becomes an empty one, which no broker has either.
fn native_names(names: &[&str]) -> Vec<CString> {
    let native = |name: &&str| CString::new(*name).unwrap_or_default();
    names.iter().map(native).collect()
}

fn pointers_to(names: &[CString]) -> Vec<*const c_char> {
    names.iter().map(|name| name.as_ptr()).collect()
}

fn text_of(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: librdkafka's texts end with a zero and live as long as what they were read from.
    unsafe { CStr::from_ptr(pointer) }
        .to_string_lossy()
        .into_owned()
}

/// What a question needs; freed when dropped, the client after all that is of it.
struct Asked {
    queue: *mut native::rd_kafka_queue_t,
    options: *mut native::rd_kafka_AdminOptions_t,
    client: AdminClient<DefaultClientContext>,
}

impl Asked {
    fn new(connection: &Connection, kind: native::rd_kafka_admin_op_t) -> Result<Self, Error> {
        let client: AdminClient<DefaultClientContext> = connection.admin().create()?;
        let handle = client.inner().native_ptr();
        let limit = i32::try_from(LIMIT.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the handle is that of a living client, which outlives what is made of it here. The setter of the operations
        // returns an error that must be freed (null: none); without them the answer is `Unknown`, so it is not looked at.
        let (queue, options) = unsafe {
            let options = native::rd_kafka_AdminOptions_new(handle, kind);
            let fault = native::rd_kafka_AdminOptions_set_include_authorized_operations(options, 1);
            native::rd_kafka_error_destroy(fault);
            native::rd_kafka_AdminOptions_set_request_timeout(options, limit, null_mut(), 0);
            (native::rd_kafka_queue_new(handle), options)
        };
        Ok(Self {
            queue,
            options,
            client,
        })
    }

    fn client(&self) -> *mut native::rd_kafka_t {
        self.client.inner().native_ptr()
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        // SAFETY: both were made by `new` and are used by nobody else.
        unsafe {
            native::rd_kafka_AdminOptions_destroy(self.options);
            native::rd_kafka_queue_destroy(self.queue);
        }
    }
}

/// An event that holds the answer; freed when dropped, before the client.
struct Answer {
    event: *mut native::rd_kafka_event_t,
    _asked: Asked,
}

impl Answer {
    fn to(
        connection: &Connection,
        kind: native::rd_kafka_admin_op_t,
        mut question: impl FnMut(&Asked),
    ) -> Result<Self, Error> {
        let asked = Asked::new(connection, kind)?;
        question(&asked);
        let limit = i32::try_from(LIMIT.as_millis() + 1_000).unwrap_or(i32::MAX);
        // SAFETY: the queue lives; the event is ours from here on.
        let event = unsafe { native::rd_kafka_queue_poll(asked.queue, limit) };
        if event.is_null() {
            return Err(Error::NoAnswer(
                "the rights were not told in time".to_owned(),
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

impl Drop for Answer {
    fn drop(&mut self) {
        // SAFETY: it came from `rd_kafka_queue_poll` and is freed once.
        unsafe { native::rd_kafka_event_destroy(self.event) };
    }
}
