//! What becomes of an event for one webhook, and the first reason where nothing does: the same matching as in the route stage, told
//! in words for people.

use serde::Serialize;

use super::catalog::entry_of;
use super::{Failure, Refusal};
use crate::event::Event;
use crate::subscription::Subscription;

/// What happens to the event for one webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// A delivery is made.
    Delivered,
    /// A delivery is made and waits for the webhook to be resumed.
    Held,
    /// Dead-lettered at once: the filter cannot be evaluated.
    FilterFailed,
    /// Nothing.
    NotWanted,
}

impl Fate {
    /// The word for it, in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Held => "held",
            Self::FilterFailed => "filter_failed",
            Self::NotWanted => "not_wanted",
        }
    }
}

/// A fate and its reason.
#[derive(Debug, PartialEq)]
pub struct Explained {
    /// What happens.
    pub fate: Fate,
    /// `disabled event_type customer filter`, for one that does not want it.
    pub refusal: Option<&'static str>,
    /// In words.
    pub reason: Option<String>,
    /// The first condition of the filter that fails.
    pub condition: Option<Failure>,
}

/// What becomes of an event for a webhook.
pub fn explain(webhook: &Subscription, event: &Event) -> Explained {
    let (entry, filter_fault) = entry_of(webhook);
    let refusal = entry.refusal(&event.event_type, event.customer.as_deref(), &event.body);
    let (fate, refusal, reason, condition) = match (webhook.enabled, refusal, filter_fault) {
        (false, _, _) => (
            Fate::NotWanted,
            Some("disabled"),
            Some("it is disabled".to_owned()),
            None,
        ),
        (true, Some(refusal), _) => {
            let sentence = sentence(&refusal, webhook, event);
            let (word, condition) = match refusal {
                Refusal::EventType => ("event_type", None),
                Refusal::Customer => ("customer", None),
                Refusal::Filter(failure) => ("filter", Some(failure)),
            };
            (Fate::NotWanted, Some(word), Some(sentence), condition)
        }
        (true, None, Some(fault)) => (
            Fate::FilterFailed,
            None,
            Some(format!(
                "its filter cannot be evaluated, its events are dead-lettered: {fault}"
            )),
            None,
        ),
        (true, None, None) if webhook.paused => (
            Fate::Held,
            None,
            Some("it is paused; the delivery waits until it is resumed".to_owned()),
            None,
        ),
        (true, None, None) => (Fate::Delivered, None, None, None),
    };
    Explained {
        fate,
        refusal,
        reason,
        condition,
    }
}

fn sentence(refusal: &Refusal, webhook: &Subscription, event: &Event) -> String {
    let wanted = webhook.customer.as_ref().map(ToString::to_string);
    match refusal {
        Refusal::EventType => format!("it wants {}", webhook.event_types.join(", ")),
        Refusal::Customer => {
            let wanted = wanted.unwrap_or_default();
            match &event.customer {
                Some(found) => {
                    format!("it is of customer {wanted}, the event of customer {found}")
                }
                None => format!("it is of customer {wanted}, the event of none"),
            }
        }
        Refusal::Filter(_) => refusal.to_string(),
    }
}
