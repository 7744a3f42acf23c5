//! A span, and its form in OTLP's JSON: <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>. Pure.
//!
//! Ids are hex, 64-bit numbers are texts, enumerations are numbers, names are in lowerCamelCase.

use serde_json::{Value as Json, json};

use super::context::{Context, hex};
use super::names;

/// The role of a span; the numbers are OTLP's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Client = 3,
    Producer = 4,
    Consumer = 5,
}

/// What an attribute says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Text(String),
    Number(i64),
}

/// A name of [`names`], and what it says.
pub type Attribute = (&'static str, Value);

/// One thing that was done, from when to when. Times are Unix nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    pub context: Context,
    pub parent: Option<[u8; 8]>,
    pub kind: Kind,
    pub name: String,
    pub started: u64,
    pub ended: u64,
    pub attributes: Vec<Attribute>,
    /// What came before it without being its cause.
    pub link: Option<Context>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

impl Span {
    fn to_json(&self) -> Json {
        let mut value = json!({
            "traceId": hex(&self.context.trace),
            "spanId": hex(&self.context.span),
            "name": self.name,
            "kind": self.kind as i32,
            "startTimeUnixNano": self.started.to_string(),
            "endTimeUnixNano": self.ended.to_string(),
            "attributes": self.attributes.iter().map(attribute).collect::<Vec<_>>(),
        });
        if let Some(parent) = &self.parent {
            value["parentSpanId"] = hex(parent).into();
        }
        if let Some(link) = &self.link {
            let link = json!({ "traceId": hex(&link.trace), "spanId": hex(&link.span) });
            value["links"] = json!([link]);
        }
        if let Some(message) = &self.error {
            // STATUS_CODE_ERROR
            value["status"] = json!({ "code": 2, "message": message });
        }
        value
    }
}

fn attribute((name, value): &Attribute) -> Json {
    let value = match value {
        Value::Text(text) => json!({ "stringValue": text }),
        Value::Number(number) => json!({ "intValue": number.to_string() }),
    };
    json!({ "key": name, "value": value })
}

/// The body of one export.
pub fn request(spans: &[Span]) -> Json {
    let resource = [
        (names::SERVICE_NAME, Value::Text("postrider".to_owned())),
        (
            names::SERVICE_VERSION,
            Value::Text(env!("CARGO_PKG_VERSION").to_owned()),
        ),
    ];
    json!({ "resourceSpans": [{
        "resource": { "attributes": resource.iter().map(attribute).collect::<Vec<_>>() },
        "scopeSpans": [{
            "scope": { "name": "postrider", "version": env!("CARGO_PKG_VERSION") },
            "spans": spans.iter().map(Span::to_json).collect::<Vec<_>>(),
        }],
    }] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_has_the_form_that_otlp_prescribes_for_json() {
        let context = Context {
            trace: [0x0a; 16],
            span: [0xb0; 8],
            sampled: true,
        };
        let span = Span {
            context,
            parent: Some([1; 8]),
            kind: Kind::Client,
            name: "POST".to_owned(),
            started: 1_700_000_000_123_456_789,
            ended: 1_700_000_001_000_000_000,
            attributes: vec![
                ("server.port", Value::Number(443)),
                ("error.type", Value::Text("503".to_owned())),
            ],
            link: Some(Context {
                span: [2; 8],
                ..context
            }),
            error: Some("the receiver answered 503".to_owned()),
        };
        let trace = "0a".repeat(16);
        let json = request(&[span]);
        assert_eq!(
            json["resourceSpans"][0]["resource"]["attributes"][0],
            json!({ "key": "service.name", "value": { "stringValue": "postrider" } })
        );
        assert_eq!(
            json["resourceSpans"][0]["scopeSpans"][0]["spans"],
            json!([{
                "traceId": trace,
                "spanId": "b0b0b0b0b0b0b0b0",
                "parentSpanId": "0101010101010101",
                "name": "POST",
                "kind": 3,
                "startTimeUnixNano": "1700000000123456789",
                "endTimeUnixNano": "1700000001000000000",
                "attributes": [
                    { "key": "server.port", "value": { "intValue": "443" } },
                    { "key": "error.type", "value": { "stringValue": "503" } },
                ],
                "links": [{ "traceId": trace, "spanId": "0202020202020202" }],
                "status": { "code": 2, "message": "the receiver answered 503" },
            }])
        );
    }
}
