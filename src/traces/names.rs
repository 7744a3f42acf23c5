//! The names of spans and attributes, by OpenTelemetry's semantic conventions for messaging, Kafka and HTTP; this file is the only place that
//! knows them. Pure.
//!
//! <https://opentelemetry.io/docs/specs/semconv/messaging/kafka/>, <https://opentelemetry.io/docs/specs/semconv/http/http-spans/>.
//! What the conventions have no name for begins with `postrider.`. Promise 7: no body, no secret, and a URL without what may hold one.

use url::Url;

use super::span::{Attribute, Kind, Span, Value};
use crate::record::Record;

const SYSTEM: (&str, &str) = ("messaging.system", "kafka");
/// Of resources: who made the spans.
pub const SERVICE_NAME: &str = "service.name";
pub const SERVICE_VERSION: &str = "service.version";
const WEBHOOK: &str = "postrider.webhook.id";
const DELIVERY: &str = "postrider.delivery.id";
const ATTEMPT: &str = "postrider.attempt";
const STATUS: &str = "http.response.status_code";
const ERROR_TYPE: &str = "error.type";

fn text(name: &'static str, value: impl Into<String>) -> Attribute {
    (name, Value::Text(value.into()))
}

fn number(name: &'static str, value: impl Into<i64>) -> Attribute {
    (name, Value::Number(value.into()))
}

/// A source record is worked on: from its arrival until all its deliveries are handed to the producer.
pub fn process(span: &mut Span, record: &Record, group: &str) {
    span.kind = Kind::Consumer;
    span.name = format!("process {}", record.topic);
    span.attributes = vec![
        text(SYSTEM.0, SYSTEM.1),
        text("messaging.operation.type", "process"),
        text("messaging.operation.name", "process"),
        text("messaging.destination.name", &*record.topic),
        text(
            "messaging.destination.partition.id",
            record.partition.to_string(),
        ),
        number("messaging.kafka.offset", record.offset.0),
        text("messaging.consumer.group.name", group),
    ];
}

/// A delivery is written to a topic of ours: until Kafka has acknowledged it.
pub fn send(span: &mut Span, topic: &str, delivery: &str, webhook: &str) {
    span.kind = Kind::Producer;
    span.name = format!("send {topic}");
    span.attributes = vec![
        text(SYSTEM.0, SYSTEM.1),
        text("messaging.operation.type", "send"),
        text("messaging.operation.name", "send"),
        text("messaging.destination.name", topic),
        text("messaging.kafka.message.key", webhook),
        text(DELIVERY, delivery),
        text(WEBHOOK, webhook),
    ];
}

/// One HTTP request to a receiver. `number` is 1 for the first.
pub fn attempt(span: &mut Span, delivery: &str, webhook: &str, number_of_attempt: u32) {
    span.kind = Kind::Client;
    span.attributes = vec![
        text(DELIVERY, delivery),
        text(WEBHOOK, webhook),
        number(ATTEMPT, number_of_attempt),
    ];
    if number_of_attempt > 1 {
        let again = number("http.request.resend_count", number_of_attempt - 1);
        span.attributes.push(again);
    }
}

/// Where the request goes.
pub fn target(span: &mut Span, method: &str, url: &Url) {
    method.clone_into(&mut span.name);
    span.attributes.push(text("http.request.method", method));
    span.attributes.push(text("url.full", shown(url)));
    if let Some(host) = url.host_str() {
        span.attributes.push(text("server.address", host));
    }
    if let Some(port) = url.port_or_known_default() {
        span.attributes.push(number("server.port", port));
    }
}

/// What came of it: a status, and where it failed the status or our word for the failure.
pub fn answered(span: &mut Span, status: Option<u16>, outcome: &str, message: &str) {
    if let Some(status) = status {
        span.attributes.push(number(STATUS, status));
    }
    if !message.is_empty() {
        let status = status.map(|status| status.to_string());
        failed(span, status.as_deref().unwrap_or(outcome), message);
    }
}

/// It came to nothing; `kind` is one of few words.
pub fn failed(span: &mut Span, kind: &str, message: &str) {
    span.attributes.push(text(ERROR_TYPE, kind));
    span.error = Some(message.to_owned());
}

/// Without user, password, query and fragment: receivers put tokens there.
fn shown(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_query(None);
    shown.set_fragment(None);
    // They refuse only URLs that cannot have any.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_what_may_be_secret() {
        let url = Url::parse("https://user:pass@a.example:8443/in?token=1#part").unwrap();
        assert_eq!(shown(&url), "https://a.example:8443/in");
    }
}
