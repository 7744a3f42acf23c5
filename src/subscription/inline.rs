//! A webhook that an event carries for itself (NetPulse's per-request webhook): read, named, and sealed into a header.
//!
//! It lives no longer than its delivery, which carries it from topic to topic. All of it is encrypted, the URL too, because URLs of this
//! kind often are the credentials; the delivery's id is the associated data, so that a header cannot be moved to another delivery (promise 7).

use jiff::Timestamp;
use serde_json::{Value, json};

use super::read::{self, pointer};
use super::seal::{self, SealError, Sealed, SealingKey};
use super::{Customer, FieldError, Subscription, WebhookId};

/// NetPulse's fields, and those of ours that make sense for a single delivery.
const FIELDS: [&str; 11] = [
    "name",
    "url",
    "method",
    "headers",
    "cookies",
    "auth",
    "timeout",
    "body",
    "secret",
    "max_retries",
    "retry_backoff",
];
/// Where faults are, in the event.
const PLACE: &str = "/webhook";
/// Bytes of the object. It stands in a header of every record of its delivery.
const LARGEST: usize = 16 * 1024;
/// NetPulse's, in seconds.
const DEFAULT_TIMEOUT: f64 = 5.0;

/// Reads what an event carries. It has NetPulse's defaults (`POST`, 5 s, a body of `{"id", "result"}`); whatever it does not name is as in
/// any other webhook, and it is signed only where it has a `secret`.
///
/// # Errors
/// Every fault that was found, with its JSON pointer in the event, as one text.
pub fn read(value: &Value) -> Result<Subscription, String> {
    check(value).map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        faults.join("; ")
    })
}

/// As [`read()`], with each fault for itself.
///
/// # Errors
/// Every fault that was found.
pub fn check(value: &Value) -> Result<Subscription, Vec<FieldError>> {
    let fail = |at: String, message: String| FieldError {
        pointer: at,
        message,
    };
    let Some(object) = value.as_object() else {
        let message = "the webhook of an event must be an object with a `url`, or null";
        return Err(vec![fail(PLACE.to_owned(), message.to_owned())]);
    };
    let mut object = object.clone();
    let mut faults = Vec::new();
    if value.to_string().len() > LARGEST {
        let message = format!("a webhook in an event may have at most {LARGEST} bytes");
        faults.push(fail(PLACE.to_owned(), message));
    }
    for name in object
        .keys()
        .filter(|name| !FIELDS.contains(&name.as_str()))
    {
        faults.push(fail(pointer(PLACE, name), read::unknown(name, &FIELDS)));
    }
    let kind = object.remove("name").unwrap_or_default();
    if !kind.is_null() && kind != "basic" {
        let message = "`name` is the kind of caller, and \"basic\" is the only one: leave it out";
        faults.push(fail(pointer(PLACE, "name"), message.to_owned()));
    }
    if object
        .get("secret")
        .is_some_and(|secret| secret == "generate")
    {
        let message = "nobody would learn a secret that is made here; write one, or leave it out";
        faults.push(fail(pointer(PLACE, "secret"), message.to_owned()));
    }
    if !faults.is_empty() {
        return Err(faults);
    }
    for (name, default) in [
        ("timeout", json!(DEFAULT_TIMEOUT)),
        ("body", json!("netpulse")),
        ("event_types", json!(["*"])),
    ] {
        let field = object.entry(name).or_insert(Value::Null);
        if field.is_null() {
            *field = default;
        }
    }
    let draft = read::read(&Value::Object(object), PLACE)?;
    Ok(draft.create(Timestamp::UNIX_EPOCH)?.subscription)
}

/// The id of an endpoint for a customer's events: the same URL always has the same one, so that its failures and its pace are counted
/// together. Keyed, because ids are seen by more people than URLs.
pub fn id_of(webhook: &Subscription, customer: Option<&Customer>, key: &SealingKey) -> WebhookId {
    let customer = customer.map_or("", Customer::as_str);
    WebhookId::of_inline(&key.tag(&[customer, webhook.url.as_str()]))
}

/// What a delivery's header holds.
///
/// # Errors
/// [`SealError::Failed`]: the system's random source failed.
pub fn to_header(
    value: &Value,
    webhook: &WebhookId,
    delivery_id: &str,
    key: &SealingKey,
) -> Result<String, SealError> {
    let sealed = seal::seal(value, delivery_id, key)
        .and_then(|sealed| serde_json::to_string(&sealed).map_err(|fault| fault.to_string()));
    sealed.map_err(|reason| SealError::Failed {
        webhook: webhook.clone(),
        reason,
    })
}

/// The webhook of a delivery's header.
///
/// # Errors
/// [`SealError::NoKeyToOpen`] and [`SealError::WrongKey`], which another configuration mends. Everything else stays as it is:
/// [`SealError::Unreadable`] repeats what is there in place of a webhook, which is why the event's was refused.
pub fn from_header(
    text: &str,
    webhook: &WebhookId,
    customer: Option<&Customer>,
    delivery_id: &str,
    key: Option<&SealingKey>,
) -> Result<Subscription, SealError> {
    let sealed: Sealed =
        serde_json::from_str(text).map_err(|_| SealError::Unreadable(text.to_owned()))?;
    let value: Value = seal::open(&sealed, delivery_id, webhook, key)?;
    let found = read(&value).map_err(SealError::Unreadable)?;
    Ok(Subscription {
        id: webhook.clone(),
        customer: customer.cloned(),
        ..found
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    use super::super::{Auth, BodyForm, Method};
    use super::*;

    fn key(byte: u8) -> SealingKey {
        SealingKey::from_base64(&STANDARD.encode([byte; 32])).unwrap()
    }

    fn fault(value: Value) -> String {
        read(&value).unwrap_err()
    }

    #[test]
    fn the_example_of_netpulse_is_read_with_its_defaults() {
        let webhook = read(&json!({
            "name": "basic",
            "url": "http://monitor.example.com/callback",
            "auth": ["user", "word"],
            "cookies": {"a": "b"},
        }))
        .unwrap();
        assert_eq!(webhook.method, Method::Post);
        assert_eq!(webhook.timeout, Duration::from_secs(5));
        assert_eq!(webhook.body, BodyForm::Netpulse);
        assert_eq!(webhook.secrets, Vec::<String>::new());
        assert!(matches!(webhook.auth, Auth::Basic { .. }));
        let other =
            json!({"url": "http://a.example/", "timeout": 120, "body": "event", "secret": "s"});
        let other = read(&other).unwrap();
        assert_eq!(other.timeout, Duration::from_secs(120));
        assert_eq!(other.body, BodyForm::Event);
        assert_eq!(other.secrets, ["s"]);
        let nulls =
            json!({"url": "http://a.example/", "headers": null, "auth": null, "timeout": null});
        assert_eq!(read(&nulls).unwrap().timeout, Duration::from_secs(5));
    }

    #[test]
    fn what_is_no_webhook_is_refused_with_its_place() {
        for (value, place) in [
            (
                json!("http://a.example"),
                "/webhook: the webhook of an event must be an object",
            ),
            (json!({}), "/webhook/url: "),
            (json!({"url": "ftp://a"}), "/webhook/url: "),
            (
                json!({"url": "http://a.example", "name": "custom"}),
                "/webhook/name: ",
            ),
            (
                json!({"url": "http://a.example", "timeout": 0.1}),
                "/webhook/timeout: ",
            ),
            (
                json!({"url": "http://a.example", "metod": "PUT"}),
                "did you mean `method`?",
            ),
            (
                json!({"url": "http://a.example", "rate_limit": {}}),
                "/webhook/rate_limit: there is no field",
            ),
            (
                json!({"url": "http://a.example", "event_types": ["a"]}),
                "/webhook/event_types: ",
            ),
            (
                json!({"url": "http://a.example", "secret": "generate"}),
                "/webhook/secret: ",
            ),
            (
                json!({"url": "http://a.example", "headers": {"a": "***"}}),
                "/webhook/headers/a: ",
            ),
            (
                json!({"url": "http://a.example", "headers": {"a": "b\r\nc"}}),
                "/webhook/headers/a: ",
            ),
            (
                json!({"url": "http://a.example", "headers": {"a": "b".repeat(LARGEST)}}),
                "at most 16384 bytes",
            ),
        ] {
            let found = fault(value);
            assert!(found.contains(place), "{found}");
        }
    }

    #[test]
    fn one_url_has_one_id_for_a_customer_and_the_id_does_not_tell_it() {
        let webhook = |url: &str| read(&json!({"url": url})).unwrap();
        let (one, two) = (webhook("http://a.example/1"), webhook("http://a.example/2"));
        let (alice, bob) = (Customer::new("alice"), Customer::new("bob"));
        let id = id_of(&one, Some(&alice), &key(1));
        assert!(id.is_inline());
        assert_eq!(id, id_of(&one, Some(&alice), &key(1)));
        for other in [
            id_of(&two, Some(&alice), &key(1)),
            id_of(&one, Some(&bob), &key(1)),
            id_of(&one, None, &key(1)),
            id_of(&one, Some(&alice), &key(2)),
        ] {
            assert_ne!(id, other);
        }
    }

    #[test]
    fn a_header_opens_with_its_key_and_its_delivery_alone() {
        let value = json!({"url": "http://a.example/token", "auth": ["user", "word"]});
        let id = id_of(&read(&value).unwrap(), None, &key(1));
        let text = to_header(&value, &id, "dlv_1", &key(1)).unwrap();
        assert!(!text.contains("token") && !text.contains("word"));
        let open =
            |delivery: &str, key: Option<&SealingKey>| from_header(&text, &id, None, delivery, key);
        let opened = open("dlv_1", Some(&key(1))).unwrap();
        assert_eq!(opened.url.as_str(), "http://a.example/token");
        assert_eq!(opened.id, id);
        let rotated = key(2).with_old(vec![key(1)]);
        assert!(open("dlv_1", Some(&rotated)).is_ok());
        assert!(matches!(
            open("dlv_1", None),
            Err(SealError::NoKeyToOpen { .. })
        ));
        assert!(matches!(
            open("dlv_1", Some(&key(2))),
            Err(SealError::WrongKey { .. })
        ));
        assert!(matches!(
            open("dlv_2", Some(&key(1))),
            Err(SealError::Tampered { .. })
        ));
        let refused = from_header("/webhook/url: bad", &id, None, "dlv_1", Some(&key(1)));
        assert_eq!(
            refused,
            Err(SealError::Unreadable("/webhook/url: bad".to_owned()))
        );
    }
}
