//! The headers of a request and its answer as the history may show them (promise 7: no secret is shown twice). What a webhook adds itself may
//! be a secret whatever its name, so only names that never carry one keep their value.

use reqwest::header::HeaderMap;

/// What stands for a secret.
const MASK: &str = "***";
/// Kept of one value, in characters.
const VALUE_CHARACTERS: usize = 512;

/// The request's: ours and the event's trace keep their value.
const REQUEST: [&str; 9] = [
    "content-type",
    "user-agent",
    "webhook-id",
    "webhook-timestamp",
    "x-webhook-event",
    "x-webhook-attempt",
    "traceparent",
    "tracestate",
    "accept",
];
/// The answer's that are masked.
const ANSWER: [&str; 4] = [
    "set-cookie",
    "set-cookie2",
    "authorization",
    "proxy-authorization",
];

/// The headers of a request; what could be a secret is masked.
pub(super) fn of_request(headers: &HeaderMap) -> Vec<(String, String)> {
    shown(headers, |name| REQUEST.contains(&name))
}

/// The headers of an answer.
pub(super) fn of_answer(headers: &HeaderMap) -> Vec<(String, String)> {
    shown(headers, |name| !ANSWER.contains(&name))
}

fn shown(headers: &HeaderMap, is_public: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    let one = |name: &str, value: &[u8]| {
        let text = if is_public(name) {
            String::from_utf8_lossy(value)
                .chars()
                .take(VALUE_CHARACTERS)
                .collect()
        } else {
            MASK.to_owned()
        };
        (name.to_owned(), text)
    };
    headers
        .iter()
        .map(|(name, value)| one(name.as_str(), value.as_bytes()))
        .collect()
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn a_header_of_the_webhook_itself_is_never_shown() {
        let shown = of_request(&headers(&[
            ("authorization", "Bearer a"),
            ("cookie", "b"),
            ("x-anything", "c"),
            ("x-webhook-signature", "sha256=d"),
            ("webhook-id", "dlv_1"),
        ]));
        assert_eq!(shown.len(), 5);
        for (name, value) in shown {
            assert_eq!(
                value,
                if name == "webhook-id" { "dlv_1" } else { MASK },
                "{name}"
            );
        }
    }

    #[test]
    fn an_answer_is_shown_without_its_cookies() {
        let shown = of_answer(&headers(&[("set-cookie", "a"), ("server", "nginx")]));
        assert!(shown.contains(&("server".to_owned(), "nginx".to_owned())));
        assert!(shown.contains(&("set-cookie".to_owned(), MASK.to_owned())));
    }
}
