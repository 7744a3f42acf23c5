//! Whether a webhook may enter the catalog: what the nouns cannot check by themselves, because it takes the stages.
//!
//! Whoever writes to the catalog asks here first, so that no filter fails later (promise 1) and no private address is
//! reached by accident (promise 7).

use crate::matching::{Filter, check_pattern};
use crate::outbound::guard::{Guard, UrlRefused};
use crate::subscription::{Draft, FieldError, read::pointer};

/// Everything that is wrong with a webhook; empty when it may enter. `url` is the text as it was written, where it is known:
/// it can hold what its parsed form has lost.
pub fn faults(draft: &Draft, url: Option<&str>, guard: &Guard) -> Vec<FieldError> {
    let wanted = draft.wanted();
    let at = |path: &[&str]| {
        let parent = draft.pointer().to_owned();
        path.iter()
            .fold(parent, |parent, name| pointer(&parent, name))
    };
    let mut faults = Vec::new();
    let mut fail = |pointer: String, message: String| faults.push(FieldError { pointer, message });
    for (position, pattern) in wanted.event_types.iter().enumerate() {
        if let Err(fault) = check_pattern(pattern) {
            fail(
                at(&["event_types", &position.to_string()]),
                fault.to_string(),
            );
        }
    }
    if let Some(Err(errors)) = wanted.filter.as_ref().map(Filter::parse) {
        for error in errors {
            fail(
                format!("{}{}", at(&["filter"]), error.pointer),
                error.message,
            );
        }
    }
    let target = match url {
        Some(text) => guard.parse_url(text).map(|_| ()),
        None => guard.check_url(&wanted.url),
    };
    if let Err(refused) = target {
        let message = match refused {
            // Its text begins with the word already.
            UrlRefused::LocalName(_) | UrlRefused::Blocked(_) => refused.to_string(),
            other => format!("refused: {other}"),
        };
        fail(at(&["url"]), message);
    }
    faults
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::subscription::read::read;

    fn faults_of(fields: Value, url: &str, allow: &str) -> Vec<(String, String)> {
        let mut object = json!({"name": "n", "url": "https://example.com/", "event_types": ["*"]});
        for (name, value) in fields.as_object().unwrap() {
            object[name] = value.clone();
        }
        object["url"] = url.into();
        let networks = allow.split_whitespace().map(|text| text.parse().unwrap());
        let guard = Guard::new(networks.collect());
        let draft = read(&object, "/webhooks/3").unwrap();
        faults(&draft, Some(url), &guard)
            .into_iter()
            .map(|fault| (fault.pointer, fault.message))
            .collect()
    }

    #[test]
    fn a_webhook_that_can_be_matched_and_reached_may_enter() {
        let filter = json!({"filter": {"job": {"status": {"$in": ["failed"]}}}});
        assert_eq!(faults_of(filter, "https://example.com/in?x=1", ""), []);
    }

    #[test]
    fn a_private_address_enters_only_where_the_operator_names_it() {
        for url in [
            "http://10.1.2.3/in",
            "http://0x7f.1/",
            "http://localhost:9000/",
            "http://[::ffff:192.168.0.1]/",
        ] {
            let found = faults_of(json!({}), url, "");
            assert_eq!(found.len(), 1, "{url}");
            assert_eq!(found[0].0, "/webhooks/3/url");
            assert!(found[0].1.contains("outbound.allow_networks"), "{found:?}");
            let networks = "10.0.0.0/8 127.0.0.0/8 192.168.0.0/16";
            assert_eq!(faults_of(json!({}), url, networks), [], "{url}");
        }
    }

    #[test]
    fn a_url_that_programs_read_differently_is_refused() {
        let found = faults_of(json!({}), "https://example.com\\@10.0.0.1/", "");
        assert!(found[0].1.contains("backslash"), "{found:?}");
    }

    #[test]
    fn every_fault_is_told_with_its_place() {
        let fields = json!({"filter": {"job": {"status": {"$im": ["failed"]}}}});
        let found = faults_of(fields, "http://10.0.0.1/", "");
        let places: Vec<&str> = found.iter().map(|(pointer, _)| pointer.as_str()).collect();
        assert_eq!(
            places,
            ["/webhooks/3/filter/job/status/$im", "/webhooks/3/url"]
        );
    }
}
