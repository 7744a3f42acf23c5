//! What users may see of a webhook: the contract's fields in the contract's order, with secrets masked (promise 7).

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::{Auth, BodyForm, Customer, MASK, Method, RateLimit, Subscription, WebhookId};

/// The public form of a [`Subscription`]. Serialized, it reads in the order of the contract's table.
#[derive(Debug, Clone, Serialize)]
pub struct View {
    pub(super) id: WebhookId,
    pub(super) customer: Option<serde_json::Value>,
    pub(super) name: String,
    pub(super) description: String,
    pub(super) tags: Vec<String>,
    pub(super) url: String,
    pub(super) method: Method,
    pub(super) body: BodyForm,
    pub(super) event_types: Vec<String>,
    pub(super) filter: Option<serde_json::Value>,
    pub(super) headers: BTreeMap<String, &'static str>,
    pub(super) cookies: BTreeMap<String, &'static str>,
    pub(super) auth: Auth,
    /// That there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<&'static str>,
    pub(super) enabled: bool,
    pub(super) paused: bool,
    pub(super) verify_ssl: bool,
    pub(super) timeout_seconds: serde_json::Number,
    pub(super) max_retries: u32,
    pub(super) retry_backoff: u64,
    pub(super) rate_limit: Option<RateLimit>,
    pub(super) max_concurrency: u32,
    pub(super) max_age_seconds: u64,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
    pub(super) version: u64,
}

impl View {
    /// The view of one webhook.
    pub fn of(subscription: &Subscription) -> Self {
        Self {
            id: subscription.id.clone(),
            customer: subscription.customer.as_ref().map(customer_json),
            name: subscription.name.clone(),
            description: subscription.description.clone(),
            tags: subscription.tags.clone(),
            url: subscription.url.to_string(),
            method: subscription.method,
            body: subscription.body,
            event_types: subscription.event_types.clone(),
            filter: subscription.filter.clone(),
            headers: masked(&subscription.headers),
            cookies: masked(&subscription.cookies),
            auth: masked_auth(&subscription.auth),
            secret: (!subscription.secrets.is_empty()).then_some(MASK),
            enabled: subscription.enabled,
            paused: subscription.paused,
            verify_ssl: subscription.verify_ssl,
            timeout_seconds: seconds(subscription.timeout.as_secs_f64()),
            max_retries: subscription.max_retries,
            retry_backoff: subscription.retry_backoff_seconds,
            rate_limit: subscription.rate_limit,
            max_concurrency: subscription.max_concurrency,
            max_age_seconds: subscription.max_age_seconds,
            created_at: subscription.created_at,
            updated_at: subscription.updated_at,
            version: subscription.version,
        }
    }
}

/// A customer that reads as a canonical integer is shown as a number, which is what its clients mostly sent.
fn customer_json(customer: &Customer) -> serde_json::Value {
    match customer.parse::<i64>() {
        Ok(number) if number.to_string() == customer.as_str() => number.into(),
        _ => customer.as_str().into(),
    }
}

fn masked(values: &BTreeMap<String, String>) -> BTreeMap<String, &'static str> {
    values.keys().map(|name| (name.clone(), MASK)).collect()
}

fn masked_auth(auth: &Auth) -> Auth {
    match auth {
        Auth::None => Auth::None,
        Auth::Bearer { .. } => Auth::Bearer {
            token: MASK.to_owned(),
        },
        Auth::ApiKey { header, .. } => Auth::ApiKey {
            token: MASK.to_owned(),
            header: header.clone(),
        },
        Auth::Basic { username, .. } => Auth::Basic {
            username: username.clone(),
            password: MASK.to_owned(),
        },
    }
}

/// 10 and not 10.0, as users write it.
fn seconds(value: f64) -> serde_json::Number {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole, and 0.5 to 300 by its check"
    )]
    let whole = value as u64;
    if value.fract() == 0.0 {
        whole.into()
    } else {
        serde_json::Number::from_f64(value).unwrap_or_else(|| whole.into())
    }
}
