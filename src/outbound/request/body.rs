//! What stands in a request: the producer's bytes, or for receivers that were written for NetPulse what they expect.
//!
//! Part of promise 3: a body depends on the event and the delivery's id alone, so that every attempt sends and signs the same. Pure.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::subscription::BodyForm;

/// The body of a delivery's requests.
pub fn body_of(form: BodyForm, delivery_id: &str, event: &Bytes) -> Bytes {
    match form {
        BodyForm::Event => event.clone(),
        BodyForm::Netpulse => netpulse(delivery_id, event).into(),
    }
}

/// What is looked for, in the event and in what it is about.
#[derive(Default, Deserialize)]
struct Parts<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    error_message: Option<&'a RawValue>,
    #[serde(borrow)]
    job: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

impl<'a> Parts<'a> {
    /// Those of an object; a list would be read as one too, in the order of the fields.
    fn of(json: &'a str) -> Option<Self> {
        let is_object = json.trim_start().starts_with('{');
        is_object.then(|| serde_json::from_str(json).ok()).flatten()
    }

    fn error(&self) -> Option<&'a RawValue> {
        self.error.or(self.error_message)
    }
}

/// `{"id", "result"}`, both text: of `job` (webnet), of `data` (CloudEvents), of the event itself, the first that has one. An event without
/// an id has the delivery's; one without a result and an error is the result itself.
fn netpulse(delivery_id: &str, event: &[u8]) -> String {
    let text = String::from_utf8_lossy(event);
    let whole = Parts::of(&text).unwrap_or_default();
    let inner = [whole.job, whole.data].into_iter().flatten();
    let mut places: Vec<Parts<'_>> = inner.filter_map(|part| Parts::of(part.get())).collect();
    places.push(whole);
    let id = places.iter().find_map(|parts| parts.id);
    let result = places.iter().find_map(|parts| parts.result);
    let result = result.or_else(|| places.iter().find_map(Parts::error));
    let id = id.map_or_else(|| quoted(delivery_id), as_text);
    let result = result.map_or_else(|| quoted(&text), as_text);
    format!(r#"{{"id":{id},"result":{result}}}"#)
}

/// Text stays as it was written; anything else becomes the text of its JSON, so that a large number loses nothing.
fn as_text(value: &RawValue) -> String {
    let json = value.get();
    if json.starts_with('"') {
        json.to_owned()
    } else {
        quoted(json)
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn sent(event: &str) -> Value {
        let body = body_of(
            BodyForm::Netpulse,
            "dlv_1",
            &Bytes::copy_from_slice(event.as_bytes()),
        );
        serde_json::from_slice(&body).unwrap()
    }

    #[test]
    fn the_event_itself_goes_out_byte_for_byte_unless_another_form_is_asked_for() {
        let event = Bytes::from_static(b" {\"id\": 1.0 }\xff");
        assert_eq!(body_of(BodyForm::Event, "dlv_1", &event), event);
    }

    #[test]
    fn netpulse_receivers_get_id_and_result_as_text_wherever_the_event_has_them() {
        let config = "Interface GigabitEthernet1/0/1\n description Core Link";
        let expected = json!({"id": "job-uuid-here", "result": config});
        for event in [
            json!({"event": "job.completed", "job": {"id": "job-uuid-here", "result": config}}),
            json!({"id": "job-uuid-here", "result": config}),
            json!({"specversion": "1.0", "id": "another", "data": {"id": "job-uuid-here", "result": config}}),
            json!({"event": "job.completed", "job": {"id": "job-uuid-here", "error": null}, "result": config}),
        ] {
            assert_eq!(sent(&event.to_string()), expected, "{event}");
        }
    }

    #[test]
    fn the_result_of_a_failed_job_is_its_error() {
        let expected =
            json!({"id": "7", "result": "Connection timeout: Unable to connect to device"});
        for field in ["error", "error_message"] {
            let job = json!({"id": 7, "result": null, field: expected["result"]});
            assert_eq!(sent(&json!({"job": job}).to_string()), expected);
        }
    }

    #[test]
    fn what_is_no_text_becomes_the_text_of_its_json_and_numbers_lose_no_digit() {
        let event = r#"{"id": 123456789012345678901234567890, "result": {"up" : [1.50, "é\n"]}, "job": "x"}"#;
        assert_eq!(
            sent(event),
            json!({"id": "123456789012345678901234567890", "result": r#"{"up" : [1.50, "é\n"]}"#})
        );
    }

    #[test]
    fn an_event_without_them_is_the_result_under_the_deliverys_id() {
        for event in [
            r#"{"job": {"status": "failed"}}"#,
            "[1, 2, 3, 4, 5, 6]",
            "no JSON",
            "",
        ] {
            assert_eq!(sent(event), json!({"id": "dlv_1", "result": event}));
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_in_two_texts_go_out_and_the_same_each_time(event: Vec<u8>, id: String, text: String) {
            let of_text = Bytes::from(json!({"id": text, "result": event}).to_string());
            for event in [Bytes::from(event), of_text] {
                let body = body_of(BodyForm::Netpulse, &id, &event);
                let value: Value = serde_json::from_slice(&body).unwrap();
                prop_assert!(value["id"].is_string() && value["result"].is_string());
                prop_assert_eq!(value.as_object().unwrap().len(), 2);
                prop_assert_eq!(body, body_of(BodyForm::Netpulse, &id, &event));
            }
        }
    }
}
