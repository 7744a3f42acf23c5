//! The audit trail of commands that change something straight on Kafka: the API's records, with whoever ran the command on which machine
//! in place of a token.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::config::Config;
use crate::kafka::producer::Producer;
use crate::pipeline::topics::Topics;
use crate::record::Outgoing;
use crate::subscription::Subscription;
use crate::web::api::audit::record;

const WITHIN: Duration = Duration::from_secs(5);

/// An open audit topic.
pub(super) struct Audit {
    producer: Producer,
    topic: Arc<str>,
    actor: Value,
}

impl Audit {
    /// By the producer of who changes something.
    pub(super) fn by(producer: &Producer, config: &Config) -> Self {
        Self {
            producer: producer.clone(),
            topic: Topics::new(&config.kafka.topic_prefix).audit,
            actor: json!({"command": true, "user": user(), "host": host()}),
        }
    }

    /// Notes what was done. Where it cannot be noted the change stands, and the command says so.
    pub(super) fn note(&self, action: &str, subject: &str, before: Value, after: Value) {
        let record = record(action, subject, &self.actor, before, after);
        let record = Outgoing {
            topic: Arc::clone(&self.topic),
            key: Some(Bytes::copy_from_slice(subject.as_bytes())),
            payload: Some(record.to_string().into()),
            headers: Vec::new(),
        };
        if let Err(fault) = self.producer.write(&record, WITHIN) {
            eprintln!("warning: {action} of {subject} is done and not in the audit trail: {fault}");
        }
    }

    /// Notes how a webhook was changed.
    pub(super) fn webhook(
        &self,
        action: &str,
        subject: &str,
        before: Option<&Subscription>,
        after: Option<&Subscription>,
    ) {
        let view =
            |webhook: Option<&Subscription>| webhook.map_or(Value::Null, Subscription::public_json);
        self.note(action, subject, view(before), view(after));
    }
}

fn user() -> Option<String> {
    ["SUDO_USER", "USER", "LOGNAME", "USERNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok())
}

fn host() -> Option<String> {
    // Linux; elsewhere the shell may tell.
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname");
    name.or_else(|_| std::env::var("HOSTNAME"))
        .ok()
        .map(|name| name.trim().to_owned())
}
