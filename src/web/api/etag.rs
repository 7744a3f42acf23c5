//! Versions as entity tags (RFC 9110 8.8.3, 13.1): so that nobody overwrites what they have not seen.

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::problem::Problem;
use crate::subscription::Subscription;

/// The tag of a webhook: its version.
pub fn of(webhook: &Subscription) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{}\"", webhook.version))
        .unwrap_or(HeaderValue::from_static("\"0\""))
}

/// What `If-Match` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IfMatch {
    /// Nothing: the last write wins.
    Absent,
    /// `*`: whatever there is.
    Any,
    /// One of these tags; a weak one never matches.
    Tags(Vec<String>),
}

impl IfMatch {
    /// Reads the header.
    pub fn read(headers: &HeaderMap) -> Self {
        let tags: Vec<String> = tags(headers, &header::IF_MATCH);
        if !headers.contains_key(header::IF_MATCH) {
            Self::Absent
        } else if tags.iter().any(|tag| tag == "*") {
            Self::Any
        } else {
            Self::Tags(tags)
        }
    }

    /// Whether a change must not meet another one.
    pub fn is_conditional(&self) -> bool {
        matches!(self, Self::Tags(_))
    }

    /// Whether the change may be made.
    ///
    /// # Errors
    /// 412 with the tag that the webhook has.
    pub fn check(&self, webhook: &Subscription) -> Result<(), Problem> {
        let now = of(webhook);
        match self {
            Self::Tags(tags) if !tags.iter().any(|tag| tag.as_bytes() == now.as_bytes()) => {
                let detail = format!(
                    "the webhook has version {} and not the one of If-Match: another changed it; read it again",
                    webhook.version
                );
                Err(Problem::new(StatusCode::PRECONDITION_FAILED, detail)
                    .with(header::ETAG, now.to_str().unwrap_or_default()))
            }
            _ => Ok(()),
        }
    }
}

/// Whether `If-None-Match` names the webhook as it is: then its reader has it already.
pub fn is_known(headers: &HeaderMap, webhook: &Subscription) -> bool {
    let now = of(webhook);
    tags(headers, &header::IF_NONE_MATCH)
        .iter()
        .any(|tag| tag == "*" || tag.trim_start_matches("W/").as_bytes() == now.as_bytes())
}

fn tags(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(','))
        .map(|tag| tag.trim().to_owned())
        .filter(|tag| !tag.is_empty())
        .collect()
}
