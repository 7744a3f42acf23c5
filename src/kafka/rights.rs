//! What the cluster lets us do (KIP-430: a description may list the operations that its asker has a right to), asked without
//! doing any of it. rdkafka has no safe form of these questions, so they are put to librdkafka here.

#![allow(
    unsafe_code,
    reason = "librdkafka's admin interface for descriptions, which rdkafka does not wrap"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::admin::AdminClient;
use rdkafka::bindings as native;
use rdkafka::client::DefaultClientContext;
use rdkafka::types::RDKafkaRespErr as Code;

use super::Error;
use super::describe::{self, Answer, Asked, native_names, pointers_to, text_of};
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
    let mut found = BTreeMap::new();
    let client: AdminClient<DefaultClientContext> = connection.admin().create()?;
    describe::topics(client.inner(), names, LIMIT, |topic| {
        let mut many = 0;
        // SAFETY: the description lives while this is called, and owns all that is read of it.
        unsafe {
            let operations =
                native::rd_kafka_TopicDescription_authorized_operations(topic, &raw mut many);
            let fault = native::rd_kafka_TopicDescription_error(topic);
            found.insert(
                text_of(native::rd_kafka_TopicDescription_name(topic)),
                rights_of(fault, operations, many),
            );
        }
    })?;
    Ok(found)
}

/// The rights to a consumer group, which need not exist.
///
/// # Errors
/// The broker does not answer.
pub fn to_group(connection: &Connection, group: &str) -> Result<Rights, Error> {
    let names = native_names(&[group]);
    let mut pointers = pointers_to(&names);
    let client: AdminClient<DefaultClientContext> = connection.admin().create()?;
    let question = |asked: &Asked<'_, DefaultClientContext>| {
        // SAFETY: the names outlive the call, which copies them; client, options and queue are those of `asked`.
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
    let answer = Answer::to(client.inner(), kind, LIMIT, question)?;
    // SAFETY: the event is of the kind that was asked for, lives as long as `answer`, and owns all that is read of it; the pointer is read only where the count says that there is one.
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
