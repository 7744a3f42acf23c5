//! Reads the fields that take one of a few words.

use super::super::{BodyForm, Method};
use super::fields::{Fields, shown};

pub(super) fn method(fields: &mut Fields<'_>) -> Method {
    let Some(value) = fields.get("method") else {
        return Method::default();
    };
    let text = value.as_str().unwrap_or_default();
    Method::ALL
        .into_iter()
        .find(|method| method.as_str().eq_ignore_ascii_case(text))
        .unwrap_or_else(|| {
            fields.fail(
                &["method"],
                format!(
                    "`method` must be POST, PUT, PATCH, GET or DELETE; it is {}",
                    shown(value)
                ),
            );
            Method::default()
        })
}

pub(super) fn body(fields: &mut Fields<'_>) -> BodyForm {
    let Some(value) = fields.get("body") else {
        return BodyForm::default();
    };
    match value.as_str() {
        Some("event") => BodyForm::Event,
        Some("netpulse") => BodyForm::Netpulse,
        _ => {
            let message = format!(
                "`body` must be \"event\" (the event as it was produced) or \"netpulse\" (its id and result); it is {}",
                shown(value)
            );
            fields.fail(&["body"], message);
            BodyForm::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::super::{BodyForm, FieldError, Subscription, seal};
    use super::super::{Draft, read};

    fn with(body: Value) -> Result<Draft, Vec<FieldError>> {
        let webhook = json!({"url": "https://example.com/", "event_types": ["*"], "body": body});
        read(&webhook, "/webhooks/0")
    }

    fn stored(body: Value) -> Subscription {
        let created = with(body).unwrap().create(jiff::Timestamp::UNIX_EPOCH);
        created.unwrap().subscription
    }

    #[test]
    fn the_event_itself_is_sent_unless_netpulses_form_is_asked_for() {
        for (given, expected) in [
            (Value::Null, BodyForm::Event),
            (json!("event"), BodyForm::Event),
            (json!("netpulse"), BodyForm::Netpulse),
        ] {
            assert_eq!(with(given).unwrap().wanted().body, expected);
        }
    }

    #[test]
    fn another_body_is_refused_with_the_two_that_there_are() {
        for body in [
            json!("NETPULSE"),
            json!(""),
            json!(1),
            json!({"id": "$.id"}),
        ] {
            let faults = with(body).unwrap_err();
            let [fault] = faults.as_slice() else {
                panic!("{faults:?}")
            };
            assert_eq!(fault.pointer, "/webhooks/0/body");
            assert!(fault.message.contains("netpulse") && fault.message.contains("event"));
        }
    }

    #[test]
    fn a_body_is_kept_shown_and_told_when_it_changes_and_a_record_without_one_sends_the_event() {
        let netpulse = stored(json!("netpulse"));
        let record = seal::to_record(&netpulse, None).unwrap();
        let again = seal::from_record(&record, None).unwrap();
        assert_eq!(again.body, BodyForm::Netpulse);
        assert_eq!(again.public_json()["body"], "netpulse");
        let event = stored(Value::Null);
        assert!(again.differing_fields(&event).contains(&"body"));
        let record = seal::to_record(&event, None).unwrap();
        let members: Value = serde_json::from_slice(&record).unwrap();
        assert!(members.get("body").is_none());
        let again = seal::from_record(&record, None).unwrap();
        assert_eq!(again.body, BodyForm::Event);
    }
}
