//! The audit trail: who changed what, when, from where, and how it stood before and after, without secrets (promise 7). One record
//! a change, in the topic `audit`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Api;
use super::auth::Caller;
use crate::subscription::Edited;

/// Notes that somebody changed a webhook; nothing where nothing changed.
pub fn webhook(api: &Api, caller: &Caller, action: &str, edited: &Edited) {
    let view = |webhook: &Option<std::sync::Arc<crate::subscription::Subscription>>| {
        webhook.as_ref().map(|webhook| webhook.public_json())
    };
    let Some(either) = edited.after.as_ref().or(edited.before.as_ref()) else {
        return;
    };
    if edited.before.is_some() && edited.before == edited.after {
        return;
    }
    let (before, after) = (view(&edited.before), view(&edited.after));
    note(api, caller, action, &either.id, before.into(), after.into());
}

/// A record of the trail, whoever the actor is.
pub fn record(action: &str, subject: &str, actor: &Value, before: Value, after: Value) -> Value {
    json!({
        "time": Timestamp::now(),
        "action": action,
        "subject": subject,
        "actor": actor,
        "before": before,
        "after": after,
    })
}

/// Notes that somebody did something.
pub fn note(api: &Api, caller: &Caller, action: &str, subject: &str, before: Value, after: Value) {
    let actor = json!({
        "token": caller.name,
        "role": caller.role,
        "customer": caller.customer,
        "address": caller.address,
    });
    let record = record(action, subject, &actor, before, after);
    tracing::info!(action, subject, token = caller.name, "changed by the API");
    api.behind.audit(subject, &record);
}
