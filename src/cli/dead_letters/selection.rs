//! Which dead letters a command means: the flags that list, replay and discard share.

use clap::Args;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, SpanRelativeTo, Timestamp};

use crate::delivery::DeadReason;
use crate::retry::replay::LetterFilter;
use crate::subscription::WebhookId;

/// Every flag that is given must hold.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Selection {
    /// Of this webhook
    #[arg(long, value_name = "ID", value_parser = webhook)]
    webhook: Option<String>,
    /// Of this event type; a `*` at the end stands for any rest
    #[arg(long, value_name = "TYPE", value_parser = event_type)]
    event_type: Option<String>,
    /// That died for this reason
    #[arg(long, value_parser = reason)]
    reason: Option<String>,
    /// With this last HTTP status
    #[arg(long, value_parser = clap::value_parser!(u16).range(100..600))]
    status: Option<u16>,
    /// That died at or after this time: RFC 3339, a date, or an age such as 2h, 30m, 7d
    #[arg(long, value_name = "TIME", value_parser = time, visible_alias = "only-failed-since")]
    since: Option<i64>,
    /// That died before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<i64>,
    /// Of this delivery
    #[arg(long, value_name = "DELIVERY_ID")]
    delivery: Option<String>,
}

impl Selection {
    /// Whether no flag was given, so that every letter is meant.
    pub(super) fn is_everything(&self) -> bool {
        *self == Self::default()
    }

    /// The same in the API's words.
    pub(super) fn members(&self) -> Vec<(&'static str, serde_json::Value)> {
        let time = |moment: Option<i64>| moment.map(super::super::output::time);
        let all: [(&str, serde_json::Value); 7] = [
            ("webhook", self.webhook.clone().into()),
            ("event_type", self.event_type.clone().into()),
            ("reason", self.reason.clone().into()),
            ("status", self.status.into()),
            ("since", time(self.since).into()),
            ("until", time(self.until).into()),
            ("delivery", self.delivery.clone().into()),
        ];
        all.into_iter()
            .filter(|(_, value)| !value.is_null())
            .collect()
    }

    pub(super) fn filter(self) -> LetterFilter {
        LetterFilter {
            webhook: self.webhook,
            event_type: self.event_type,
            reason: self.reason,
            status: self.status,
            since_ms: self.since,
            until_ms: self.until,
            delivery: self.delivery,
            webhooks: None,
            customer: None,
        }
    }
}

pub(in crate::cli) fn webhook(text: &str) -> Result<String, String> {
    match WebhookId::new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(
            "a webhook id has 1 to 64 characters of A-Z a-z 0-9 _ -; `postrider subscriptions list` shows them"
                .to_owned(),
        ),
    }
}

fn event_type(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("name a type such as job.failed, or job.*".to_owned());
    }
    match text.find('*') {
        Some(place) if place + 1 < text.len() => {
            Err("a `*` may only stand at the end, as in job.*".to_owned())
        }
        _ => Ok(text.to_owned()),
    }
}

fn reason(text: &str) -> Result<String, String> {
    // `foreign` is what a letter has that another program wrote.
    if text != "foreign" {
        text.parse::<DeadReason>()?;
    }
    Ok(text.to_owned())
}

/// A moment as Unix milliseconds.
pub(in crate::cli) fn time(text: &str) -> Result<i64, String> {
    time_at(text, Timestamp::now())
}

fn time_at(text: &str, now: Timestamp) -> Result<i64, String> {
    if let Ok(moment) = text.parse::<Timestamp>() {
        return Ok(moment.as_millisecond());
    }
    if let Ok(date) = text.parse::<Date>() {
        let midnight = date.to_zoned(TimeZone::UTC);
        return midnight
            .map(|zoned| zoned.timestamp().as_millisecond())
            .map_err(|fault| fault.to_string());
    }
    let age = text
        .parse::<Span>()
        .ok()
        .and_then(|span| span.to_duration(SpanRelativeTo::days_are_24_hours()).ok())
        .and_then(|age| now.checked_sub(age.abs()).ok());
    age.map(Timestamp::as_millisecond).ok_or_else(|| {
        "write a time such as 2026-03-01T12:00:00Z, a date (midnight UTC), or an age such as 2h, 30m or 7d"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let now = Timestamp::from_millisecond(1_700_000_000_000).unwrap();
        let hour = 3_600_000;
        for (text, wanted) in [
            ("2023-11-14T22:13:20Z", 1_700_000_000_000),
            ("2023-11-14T23:13:20+01:00", 1_700_000_000_000),
            ("2023-11-14", 1_699_920_000_000),
            ("2h", 1_700_000_000_000 - 2 * hour),
            ("30m ago", 1_700_000_000_000 - hour / 2),
            ("7d", 1_700_000_000_000 - 7 * 24 * hour),
            ("1w", 1_700_000_000_000 - 7 * 24 * hour),
        ] {
            assert_eq!(time_at(text, now), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn a_flag_that_makes_no_sense_says_how_to_write_it() {
        for text in ["", "yesterday", "2023-13-01", "7", "-"] {
            assert!(time(text).unwrap_err().contains("2h"), "{text}");
        }
        assert!(event_type("*.failed").unwrap_err().contains("job.*"));
        assert!(event_type("").is_err());
        assert!(reason("tired").unwrap_err().contains("exhausted"));
        assert!(webhook("a b").unwrap_err().contains("characters"));
    }

    #[test]
    fn no_flag_means_everything() {
        assert!(Selection::default().is_everything());
        let some = Selection {
            status: Some(500),
            ..Selection::default()
        };
        assert!(!some.is_everything());
    }
}
