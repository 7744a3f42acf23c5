//! What a body says about dead letters: which are meant, and how a replay is to go. Refusals name the field by its JSON pointer.

#![allow(
    dead_code,
    reason = "the inputs are forms for the document, not values"
)]

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::past::Selection;
use super::problem::Problem;
use crate::delivery::DeadReason;

/// Characters of a text.
const LONGEST_TEXT: usize = 2048;
/// Letters that may be chosen by `limit`: they are remembered while they are counted.
const MOST_CHOSEN: u32 = 100_000;

/// Which dead letters to replay, and how. Every field that is given must hold.
#[derive(Serialize, ToSchema)]
pub(super) struct ReplayInput {
    /// Of this webhook.
    webhook: Option<String>,
    /// Of this event type; a `*` at the end stands for any rest.
    #[schema(example = "job.*")]
    event_type: Option<String>,
    /// Died for this reason.
    #[schema(example = "exhausted")]
    reason: Option<String>,
    /// With this last HTTP status.
    #[schema(minimum = 100, maximum = 599, example = 503)]
    status: Option<u16>,
    /// Died at this time or later.
    #[schema(value_type = Option<String>, format = DateTime)]
    since: Option<String>,
    /// The same as `since`.
    #[schema(value_type = Option<String>, format = DateTime)]
    only_failed_since: Option<String>,
    /// Died before this time.
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<String>,
    /// Of this delivery.
    delivery: Option<String>,
    /// Only so many, those that died first.
    #[schema(minimum = 1, maximum = 100_000)]
    limit: Option<u32>,
    /// Letters per second; retry.held_drain_per_second when nothing is said. The webhooks' own limits hold as well.
    #[schema(minimum = 1, maximum = 1_000_000)]
    rate: Option<u32>,
    /// Another URL than the webhooks' own; needs the role admin.
    to: Option<String>,
    /// In this dead-letter topic of another program, such as Kafka Connect or Spring Kafka; needs a token of all customers.
    #[schema(example = "connect-dlq")]
    topic: Option<String>,
    /// Only what never was a delivery, into this topic as it once came; needs the role admin and a token of all customers.
    #[schema(example = "events.job")]
    into: Option<String>,
    /// Only what never was a delivery, to this webhook: an event each, whatever the webhook's event types and filter say; as `into`.
    to_webhook: Option<String>,
    /// Also those that were replayed or discarded before.
    again: Option<bool>,
    /// Leave letters that were replayed so often before; 5.
    #[schema(minimum = 1, maximum = 1_000_000)]
    max_replays: Option<u32>,
    /// Rather than dead letters, the events of the source topics that `webhook` wants now, that came from `since` on and before `until`, and of which no
    /// delivery to it is known. What is on its way to it, held or a dead letter is left, and counted.
    never_delivered: Option<bool>,
    /// Count only.
    dry_run: Option<bool>,
}

impl ReplayInput {
    pub(super) const FIELDS: &[&str] = &[
        "webhook",
        "event_type",
        "reason",
        "status",
        "since",
        "only_failed_since",
        "until",
        "delivery",
        "limit",
        "rate",
        "to",
        "topic",
        "into",
        "to_webhook",
        "again",
        "max_replays",
        "never_delivered",
        "dry_run",
    ];
}

/// Which dead letters to discard, and why. Every field that is given must hold.
#[derive(Serialize, ToSchema)]
pub(super) struct DiscardInput {
    /// Of this webhook.
    webhook: Option<String>,
    /// Of this event type; a `*` at the end stands for any rest.
    event_type: Option<String>,
    /// Died for this reason.
    reason: Option<String>,
    /// With this last HTTP status.
    #[schema(minimum = 100, maximum = 599)]
    status: Option<u16>,
    /// Died at this time or later.
    #[schema(value_type = Option<String>, format = DateTime)]
    since: Option<String>,
    /// Died before this time.
    #[schema(value_type = Option<String>, format = DateTime)]
    until: Option<String>,
    /// Of this delivery.
    delivery: Option<String>,
    /// Only so many, those that died first.
    #[schema(minimum = 1, maximum = 100_000)]
    limit: Option<u32>,
    /// Why, for whoever asks later. It may be left out of a dry run.
    #[schema(example = "the receiver was replaced and asked for none of these")]
    reason_text: Option<String>,
    /// Count only.
    dry_run: Option<bool>,
}

impl DiscardInput {
    pub(super) const FIELDS: &[&str] = &[
        "webhook",
        "event_type",
        "reason",
        "status",
        "since",
        "until",
        "delivery",
        "limit",
        "reason_text",
        "dry_run",
    ];
}

/// What cannot be meant: the field, and why.
pub(super) fn fault(selection: &Selection) -> Option<(&'static str, String)> {
    let pattern = selection.event_type.as_deref().unwrap_or_default();
    if pattern
        .find('*')
        .is_some_and(|place| place + 1 < pattern.len())
    {
        let why = "a `*` may only stand at the end, as in job.*";
        return Some(("event_type", why.to_owned()));
    }
    // `foreign` is what a letter has that another program wrote.
    let reason = selection
        .reason
        .as_deref()
        .filter(|word| *word != "foreign");
    let refused = reason.and_then(|word| word.parse::<DeadReason>().err());
    refused.map(|why| ("reason", why))
}

/// The members of a body.
pub(super) struct Fields<'a>(pub(super) &'a Map<String, Value>);

impl Fields<'_> {
    fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// A text that is not empty.
    pub(super) fn text(&self, name: &str) -> Result<Option<String>, Problem> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text))
                if (1..=LONGEST_TEXT).contains(&text.chars().count())
                    && !text.contains(char::is_control)
                    && !text.trim().is_empty() =>
            {
                Ok(Some(text.clone()))
            }
            Some(_) => Err(Problem::at(
                &format!("/{name}"),
                format!("`{name}` must be text of 1 to {LONGEST_TEXT} characters"),
            )),
        }
    }

    /// A whole number in a range.
    pub(super) fn number(&self, name: &str, least: u32, most: u32) -> Result<Option<u32>, Problem> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let number = value
            .as_u64()
            .and_then(|number| u32::try_from(number).ok())
            .filter(|number| (least..=most).contains(number));
        number.map(Some).ok_or_else(|| {
            let detail = format!("`{name}` must be a whole number from {least} to {most}");
            Problem::at(&format!("/{name}"), detail)
        })
    }

    /// Refuses these fields beside `never_delivered`.
    pub(super) fn never_delivered(&self) -> Result<bool, Problem> {
        let is = self.boolean("never_delivered")?;
        let letters_only = [
            "reason",
            "status",
            "delivery",
            "limit",
            "again",
            "topic",
            "into",
            "to_webhook",
        ];
        match letters_only.iter().find(|name| self.get(name).is_some()) {
            Some(name) if is => Err(Problem::at(
                &format!("/{name}"),
                format!("`{name}` is of dead letters; leave it out beside `never_delivered`"),
            )),
            _ => Ok(is),
        }
    }

    /// The one place that letters are to go to, of those that exclude each other.
    pub(super) fn one_place(&self) -> Result<(), Problem> {
        let places = ["to", "into", "to_webhook"].into_iter();
        let mut given = places.filter(|name| self.get(name).is_some());
        match (given.next(), given.next()) {
            (Some(one), Some(other)) => Err(Problem::at(
                &format!("/{other}"),
                format!("letters go to one place; leave out `{one}` or `{other}`"),
            )),
            _ => Ok(()),
        }
    }

    /// `limit`.
    pub(super) fn limit(&self) -> Result<Option<usize>, Problem> {
        let limit = self.number("limit", 1, MOST_CHOSEN)?;
        Ok(limit.and_then(|limit| usize::try_from(limit).ok()))
    }

    /// True or false; false where it is not said.
    pub(super) fn boolean(&self, name: &str) -> Result<bool, Problem> {
        match self.get(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(Problem::at(
                &format!("/{name}"),
                format!("`{name}` must be true or false"),
            )),
        }
    }

    /// A time as Unix milliseconds.
    fn time(&self, name: &str) -> Result<Option<i64>, Problem> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let time = value
            .as_str()
            .and_then(|text| text.parse::<jiff::Timestamp>().ok());
        time.map(|time| Some(time.as_millisecond())).ok_or_else(|| {
            let detail = format!("`{name}` must be a time such as 2026-03-01T12:00:00Z");
            Problem::at(&format!("/{name}"), detail)
        })
    }

    /// Which letters are meant.
    pub(super) fn selection(&self) -> Result<Selection, Problem> {
        let status = self.number("status", 100, 599)?;
        let selection = Selection {
            webhook: self.text("webhook")?,
            event_type: self.text("event_type")?,
            reason: self.text("reason")?,
            status: status.and_then(|status| u16::try_from(status).ok()),
            since_ms: self.time("since")?.max(self.time("only_failed_since")?),
            until_ms: self.time("until")?,
            delivery: self.text("delivery")?,
            topic: self.text("topic")?,
        };
        match fault(&selection) {
            Some((name, why)) => Err(Problem::at(&format!("/{name}"), why)),
            None => Ok(selection),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pointer(body: Value) -> Option<String> {
        let members = body.as_object().cloned().unwrap_or_default();
        let fields = Fields(&members);
        let read = fields
            .selection()
            .map(|_| ())
            .and_then(|()| fields.limit().map(|_| ()))
            .and_then(|()| fields.boolean("again").map(|_| ()))
            .and_then(|()| fields.never_delivered().map(|_| ()))
            .and_then(|()| fields.one_place());
        read.err()
            .and_then(|problem| problem.errors.first()?.pointer.clone())
    }

    #[test]
    fn each_wrong_field_is_named_by_its_pointer() {
        for (body, wanted) in [
            (json!({"webhook": 5}), "/webhook"),
            (json!({"event_type": "*.failed"}), "/event_type"),
            (json!({"event_type": ""}), "/event_type"),
            (json!({"reason": "tired"}), "/reason"),
            (json!({"status": 99}), "/status"),
            (json!({"status": 4.5}), "/status"),
            (json!({"since": "yesterday"}), "/since"),
            (json!({"until": 5}), "/until"),
            (json!({"only_failed_since": "2h"}), "/only_failed_since"),
            (json!({"delivery": "a\nb"}), "/delivery"),
            (json!({"limit": 0}), "/limit"),
            (json!({"limit": 100_001}), "/limit"),
            (json!({"again": "yes"}), "/again"),
            (json!({"never_delivered": 1}), "/never_delivered"),
            (json!({"never_delivered": true, "status": 500}), "/status"),
            (json!({"never_delivered": true, "again": true}), "/again"),
            (json!({"never_delivered": true, "topic": "a"}), "/topic"),
            (json!({"into": "a", "to_webhook": "b"}), "/to_webhook"),
        ] {
            assert_eq!(pointer(body.clone()).as_deref(), Some(wanted), "{body}");
        }
        for body in [
            json!({}),
            json!({"webhook": null, "limit": null}),
            json!({"event_type": "job.*", "reason": "foreign", "status": 503, "since": "2026-03-01T12:00:00Z"}),
        ] {
            assert_eq!(pointer(body.clone()), None, "{body}");
        }
    }
}
