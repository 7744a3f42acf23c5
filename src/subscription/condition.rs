//! The condition of a webhook's endpoint, as all instances and a restart remember it: a compacted record beside the webhook's own,
//! under the key `state/<webhook id>`.
//!
//! Promise 4 outlives its process: a new owner of a dead endpoint's lane sends it one probe, not ten deliveries. It is written on transitions
//! only, never for a delivery. Pure.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Subscription, WebhookId};

const KEY_PREFIX: &str = "state/";

/// What the breaker of a webhook's owner came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointState {
    /// It answers, or fails too seldom to matter.
    Passing,
    /// It fails: nothing but probes is sent.
    Tripped,
    /// It was given up: the webhook was disabled by the program.
    Disabled,
}

/// The record. Times are Unix milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    pub state: EndpointState,
    /// When it came into this state.
    pub since_ms: i64,
    /// The first failure since which nothing succeeded.
    #[serde(default)]
    pub failing_since_ms: Option<i64>,
    #[serde(default)]
    pub last_success_at_ms: Option<i64>,
    #[serde(default)]
    pub last_failure_at_ms: Option<i64>,
    /// Why, for people.
    #[serde(default)]
    pub reason: String,
    /// The URL that it is about, as [`endpoint_digest`]: what was learnt of one endpoint says nothing of the next.
    #[serde(default)]
    pub endpoint: String,
}

impl Condition {
    /// Whether it is about this webhook as it is now: the same URL, and disabled only as long as nobody has enabled it again.
    pub fn applies_to(&self, webhook: &Subscription) -> bool {
        let is_disabled = self.state == EndpointState::Disabled;
        self.endpoint == endpoint_digest(webhook) && is_disabled != webhook.enabled
    }

    /// The value of its record.
    pub fn to_json(&self) -> Vec<u8> {
        // Text and numbers always have a JSON form.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// 64 bits of the SHA-256 of a webhook's URL in hex: tells URLs apart, and repeats no token that stands in one.
pub fn endpoint_digest(webhook: &Subscription) -> String {
    let digest = Sha256::digest(webhook.url.as_str());
    let first = digest.iter().take(8);
    let number = first.fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    format!("{number:016x}")
}

/// The key of a webhook's condition.
pub fn condition_key(id: &WebhookId) -> String {
    format!("{KEY_PREFIX}{id}")
}

/// What a key of the catalog topic names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogKey {
    Webhook(WebhookId),
    Condition(WebhookId),
    /// A record of another kind (`word/…`), which whoever reads webhooks passes over.
    Other,
}

impl CatalogKey {
    /// Reads a key; `None` for one that no version of this program writes.
    pub fn parse(key: Option<&[u8]>) -> Option<Self> {
        let text = std::str::from_utf8(key?).ok()?;
        let Some((word, rest)) = text.split_once('/') else {
            return WebhookId::new(text).ok().map(Self::Webhook);
        };
        if text.starts_with(KEY_PREFIX) {
            return WebhookId::new(rest).ok().map(Self::Condition);
        }
        let is_word = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
        (is_word && !rest.is_empty()).then_some(Self::Other)
    }
}

/// The contract's word for how a webhook stands: `passing tripped probing paused disabled`. `condition` is that of this webhook as it is now.
pub fn state_word(webhook: &Subscription, condition: Option<&Condition>) -> &'static str {
    match (webhook.enabled, webhook.paused) {
        (false, _) => "disabled",
        (true, true) => "paused",
        (true, false) => match condition {
            Some(condition) if condition.state == EndpointState::Tripped => "tripped",
            _ => "passing",
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::subscription::read::read;

    fn webhook() -> Subscription {
        let object = json!({"id": "wh_a", "name": "n", "url": "https://example.com/?token=x", "event_types": ["*"]});
        let draft = read(&object, "").unwrap();
        draft
            .create(jiff::Timestamp::UNIX_EPOCH)
            .unwrap()
            .subscription
    }

    fn condition(state: EndpointState) -> Condition {
        Condition {
            state,
            since_ms: 5,
            failing_since_ms: Some(3),
            last_success_at_ms: None,
            last_failure_at_ms: Some(4),
            reason: "it fails".to_owned(),
            endpoint: endpoint_digest(&webhook()),
        }
    }

    #[test]
    fn what_was_learnt_of_one_url_says_nothing_of_the_next() {
        let mut webhook = webhook();
        assert!(condition(EndpointState::Tripped).applies_to(&webhook));
        webhook.url = "https://example.com/?token=y".parse().unwrap();
        assert!(!condition(EndpointState::Tripped).applies_to(&webhook));
    }

    #[test]
    fn a_webhook_that_is_enabled_again_is_not_called_disabled() {
        let mut webhook = webhook();
        webhook.enabled = false;
        assert!(condition(EndpointState::Disabled).applies_to(&webhook));
        assert!(!condition(EndpointState::Tripped).applies_to(&webhook));
        webhook.enabled = true;
        assert!(!condition(EndpointState::Disabled).applies_to(&webhook));
    }

    #[test]
    fn a_record_reads_as_it_was_written_and_holds_no_url() {
        let written = condition(EndpointState::Tripped);
        let text = String::from_utf8(written.to_json()).unwrap();
        assert!(
            text.contains(r#""state":"tripped""#) && !text.contains("example"),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Condition>(&text).unwrap(), written);
        let older = r#"{"state":"passing","since_ms":1}"#;
        assert!(serde_json::from_str::<Condition>(older).is_ok());
    }

    #[test]
    fn keys_of_other_kinds_are_told_from_keys_of_no_kind() {
        let id = |text| WebhookId::new(text).unwrap();
        let parsed = |text: &str| CatalogKey::parse(Some(text.as_bytes()));
        assert_eq!(parsed("wh_a"), Some(CatalogKey::Webhook(id("wh_a"))));
        assert_eq!(
            parsed(&condition_key(&id("wh_a"))),
            Some(CatalogKey::Condition(id("wh_a")))
        );
        assert_eq!(parsed("token/abc"), Some(CatalogKey::Other));
        for wrong in [
            "",
            "/",
            "a b",
            "state/",
            "state/a b",
            "Token/x",
            "token/",
            "1/x",
        ] {
            assert_eq!(parsed(wrong), None, "{wrong:?}");
        }
        assert_eq!(CatalogKey::parse(None), None);
        assert_eq!(CatalogKey::parse(Some(&[0xff])), None);
    }

    #[test]
    fn the_state_of_a_webhook_is_a_word_of_the_contract() {
        let mut webhook = webhook();
        let tripped = condition(EndpointState::Tripped);
        assert_eq!(state_word(&webhook, None), "passing");
        assert_eq!(state_word(&webhook, Some(&tripped)), "tripped");
        webhook.paused = true;
        assert_eq!(state_word(&webhook, Some(&tripped)), "paused");
        webhook.enabled = false;
        assert_eq!(state_word(&webhook, Some(&tripped)), "disabled");
    }
}
