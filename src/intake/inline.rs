//! The webhook that an event carries for itself, as NetPulse's requests do, and its removal from the event.
//!
//! Promise 7: it has credentials. It is taken out before anybody else reads the event: a filter that saw it could be used to guess
//! them, and other webhooks, dead letters and history would repeat them. The other members keep the text that their producer
//! gave them (numbers, order, what is nested); only the white space between them is lost.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::json;

/// The member of an event, or of the `data` of a structured CloudEvent.
const MEMBER: &str = "webhook";

/// An event in two parts.
pub(super) struct Cut {
    /// The event without it.
    pub rest: String,
    found: Vec<String>,
}

impl Cut {
    /// What was taken out; `None` for a `null`, which is how NetPulse writes that there is none.
    ///
    /// # Errors
    /// It stands there twice, or it names a key twice: two readers could take two for it.
    pub fn webhook(&self) -> Result<Option<Value>, String> {
        match self.found.as_slice() {
            [] => Ok(None),
            [only] => match json::parse(only.as_bytes()) {
                Ok(value) => Ok(Some(value).filter(|value| !value.is_null())),
                Err(fault) => Err(format!("/{MEMBER}: {fault}")),
            },
            _ => Err(format!("the event has the member `{MEMBER}` twice")),
        }
    }
}

/// Whether a parsed event has one.
pub(super) fn is_in(body: &Value) -> bool {
    let data = body.get("specversion").and(body.get("data"));
    body.get(MEMBER).or_else(|| data?.get(MEMBER)).is_some()
}

/// Takes it out; `None` where the bytes are no JSON object.
pub(super) fn cut(payload: &[u8]) -> Option<Cut> {
    let members: Members<'_> = serde_json::from_slice(payload).ok()?;
    let mut found = Vec::new();
    let rest = members.without(&mut found, true)?;
    Some(Cut { rest, found })
}

/// The members of an object as they are written, each also where it stands there twice.
struct Members<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl Members<'_> {
    fn without(&self, found: &mut Vec<String>, is_whole: bool) -> Option<String> {
        let mut named = Vec::with_capacity(self.0.len());
        for (key, value) in &self.0 {
            // A key can be written in several ways: "webhook".
            named.push((serde_json::from_str::<String>(key.get()).ok()?, key, value));
        }
        let is_cloud_event = is_whole && named.iter().any(|(name, ..)| name == "specversion");
        let mut rest = String::from("{");
        for (name, key, value) in named {
            if name == MEMBER {
                found.push(value.get().to_owned());
                continue;
            }
            let inner = if name == "data" && is_cloud_event {
                let inner: Option<Members<'_>> = serde_json::from_str(value.get()).ok();
                inner.and_then(|inner| inner.without(found, false))
            } else {
                None
            };
            if rest.len() > 1 {
                rest.push(',');
            }
            rest.push_str(key.get());
            rest.push(':');
            rest.push_str(inner.as_deref().unwrap_or(value.get()));
        }
        rest.push('}');
        Some(rest)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;

        impl<'de> Visitor<'de> for Each {
            type Value = Vec<(&'de RawValue, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(Each).map(Members)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn parts(text: &str) -> (String, Result<Option<Value>, String>) {
        let cut = cut(text.as_bytes()).unwrap();
        let webhook = cut.webhook();
        (cut.rest, webhook)
    }

    #[test]
    fn the_others_keep_their_text() {
        let (rest, webhook) = parts(
            "{ \"b\": 1.50, \"webhook\": {\"url\": \"http://a\"},\n \"a\": {\"webhook\": [1,  2]},\"\\u0061b\":1e400 }",
        );
        assert_eq!(
            rest,
            r#"{"b":1.50,"a":{"webhook": [1,  2]},"\u0061b":1e400}"#
        );
        assert_eq!(webhook, Ok(Some(json!({"url": "http://a"}))));
    }

    #[test]
    fn no_spelling_of_the_key_hides_it() {
        for key in ["webhook", r"web\u0068ook", r"\u0077ebhook"] {
            let (rest, webhook) = parts(&format!(r#"{{"{key}":{{"auth":["a","b"]}},"x":1}}"#));
            assert_eq!(rest, r#"{"x":1}"#, "{key}");
            assert_eq!(webhook, Ok(Some(json!({"auth": ["a", "b"]}))), "{key}");
        }
    }

    #[test]
    fn it_is_looked_for_in_the_data_of_a_cloud_event_and_nowhere_else() {
        let (rest, webhook) =
            parts(r#"{"data":{"x":1,"webhook":{},"data":{"webhook":2}},"specversion":"1.0"}"#);
        assert_eq!(
            rest,
            r#"{"data":{"x":1,"data":{"webhook":2}},"specversion":"1.0"}"#
        );
        assert_eq!(webhook, Ok(Some(json!({}))));
        let plain = r#"{"data":{"webhook":{}}}"#;
        assert_eq!(parts(plain), (plain.to_owned(), Ok(None)));
        for (text, is_there) in [
            (r#"{"data":{"webhook":{}},"specversion":"1.0"}"#, true),
            (r#"{"webhook":null}"#, true),
            (plain, false),
            ("[]", false),
        ] {
            let body: Value = serde_json::from_str(text).unwrap();
            assert_eq!(is_in(&body), is_there, "{text}");
        }
    }

    #[test]
    fn a_null_is_none_and_two_are_refused() {
        assert_eq!(parts(r#"{"webhook":null}"#), ("{}".to_owned(), Ok(None)));
        let (rest, webhook) = parts(r#"{"webhook":{"url":"a"},"x":1,"webhook":{"url":"b"}}"#);
        assert_eq!(rest, r#"{"x":1}"#);
        assert!(webhook.unwrap_err().contains("twice"));
        let (_, webhook) = parts(r#"{"webhook":{"url":"a","url":"b"}}"#);
        assert!(webhook.unwrap_err().contains("stands twice"));
    }

    proptest! {
        #[test]
        fn what_is_left_is_the_same_event(
            before in prop::collection::btree_map("[a-g]{1,3}", any::<i32>(), 0..4),
            after in prop::collection::btree_map("[h-z]{1,3}", ".*", 0..4),
            secret in "[A-Z]{12}",
        ) {
            let mut wanted = serde_json::Map::new();
            let mut members = Vec::new();
            for (key, value) in &before {
                wanted.insert(key.clone(), json!(value));
                members.push(format!("{}: {}", json!(key), json!(value)));
            }
            members.push(format!("\"webhook\" : {{\"secret\": \"{secret}\"}}"));
            for (key, value) in &after {
                wanted.insert(key.clone(), json!(value));
                members.push(format!("{} :{}", json!(key), json!(value)));
            }
            let text = format!(" {{ {} }} ", members.join(" , "));
            let (rest, webhook) = parts(&text);
            prop_assert!(!rest.contains(&secret));
            prop_assert_eq!(serde_json::from_str::<Value>(&rest).unwrap(), Value::Object(wanted));
            prop_assert_eq!(webhook, Ok(Some(json!({"secret": secret}))));
        }

        #[test]
        fn no_bytes_make_it_panic(payload in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = cut(&payload);
        }
    }
}
