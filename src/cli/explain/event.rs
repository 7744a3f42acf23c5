//! Which webhooks want an event, and the first reason of each that does not: the same decoding and matching as in the route stage.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{anyhow, bail};
use bytes::Bytes;
use serde::Serialize;
use serde_json::json;

use super::Explain;
use crate::app;
use crate::cli::output::{self, Output, escaped, table};
use crate::cli::{Answer, input};
use crate::config::Config;
use crate::delivery::DeadReason;
use crate::event::Event;
use crate::intake::decode::{Decoded, decode};
use crate::matching::Failure;
use crate::matching::explain::{self, Fate};
use crate::pipeline::catalog_topic::CatalogTopic;
use crate::pipeline::topics::Topics;
use crate::record::{Header, Record, SourceOffset};
use crate::subscription::{Subscription, file, inline};

/// Webhooks that do not want the event and are shown one by one; more are counted.
const SHOWN: usize = 50;

/// A fate for people.
fn word(fate: Fate) -> &'static str {
    match fate {
        Fate::Delivered => "delivered",
        Fate::Held => "held",
        Fate::FilterFailed => "filter failed",
        Fate::NotWanted => "not wanted",
    }
}

#[derive(Debug, PartialEq, Serialize)]
struct Row {
    webhook_id: String,
    name: String,
    customer: Option<String>,
    fate: Fate,
    /// `disabled event_type customer filter`, for those that do not want it.
    refusal: Option<&'static str>,
    /// In words.
    reason: Option<String>,
    /// The first condition of the filter that fails.
    condition: Option<Failure>,
}

pub(super) fn explain(arguments: &Explain, path: &Path, config: &Config) -> Answer {
    let mut record = Record {
        topic: "".into(),
        partition: 0,
        offset: SourceOffset(0),
        timestamp_ms: None,
        key: None,
        payload: Some(Bytes::from(input::read(path)?)),
        headers: arguments
            .headers
            .iter()
            .map(|(name, value)| Header::text(name.clone(), value.as_str()))
            .collect(),
    };
    let event = match decode(&mut record, &app::reading(config)) {
        Decoded::Event(event) => event,
        Decoded::Tombstone => bail!("there is no event"),
        Decoded::Undecodable(reason) => return undecodable(&reason, arguments.output),
    };
    let mut webhooks = match &arguments.subscriptions {
        Some(file) => from_file(file)?,
        None => from_topic(config)?,
    };
    if let Some(wanted) = &arguments.webhook {
        let known: Vec<String> = webhooks.iter().map(|found| found.id.to_string()).collect();
        webhooks.retain(|webhook| webhook.id.as_str() == wanted);
        if webhooks.is_empty() {
            bail!("there is no webhook {wanted}{}", nearest(wanted, &known));
        }
    }
    let mut rows: Vec<Row> = webhooks
        .iter()
        .map(|webhook| row(webhook, &event))
        .collect();
    rows.sort_by(|one, other| (one.fate, &one.webhook_id).cmp(&(other.fate, &other.webhook_id)));
    match arguments.output {
        Output::Json => output::print_json(&json!({
            "decodable": true,
            "event": {"event_type": event.event_type, "customer": event.customer},
            "inline_webhook": event.inline.as_ref().map(|carried| match inline::read(carried) {
                Ok(_) => json!({"fate": Fate::Delivered.as_str()}),
                Err(why) => json!({"fate": DeadReason::Rejected.as_str(), "reason": why}),
            }),
            "webhooks": rows,
        })),
        Output::Table => output::print(&text(&event, &rows, arguments.all, config)),
    }
}

fn undecodable(reason: &str, output: Output) -> Answer {
    match output {
        Output::Json => output::print_json(&json!({
            "decodable": false, "reason": reason, "webhooks": [],
        })),
        Output::Table => output::print(&format!(
            "this is no event: {}\nno webhook gets it; it goes to the dead letters with the reason undecodable\n",
            escaped(reason)
        )),
    }
}

fn from_topic(config: &Config) -> anyhow::Result<Vec<Subscription>> {
    let topics = Topics::new(&config.kafka.topic_prefix);
    let (connection, _) = app::reached(config)?;
    let catalog = CatalogTopic::open(connection, &topics, app::sealing_key(config)?)?;
    Ok(catalog.read()?.into_values().collect())
}

fn from_file(path: &Path) -> anyhow::Result<Vec<Subscription>> {
    let text = String::from_utf8(input::read(path)?)
        .map_err(|_| anyhow!("{} is not UTF-8 text", path.display()))?;
    let environment = |name: &str| std::env::var(name).ok();
    let drafts =
        file::load(&path.display().to_string(), &text, &environment).map_err(|faults| {
            let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
            anyhow!("{}", lines.join("\n"))
        })?;
    Ok(drafts.iter().map(|draft| draft.wanted().clone()).collect())
}

fn row(webhook: &Subscription, event: &Event) -> Row {
    let explained = explain::explain(webhook, event);
    Row {
        webhook_id: webhook.id.to_string(),
        name: webhook.name.clone(),
        customer: webhook.customer.as_ref().map(ToString::to_string),
        fate: explained.fate,
        refusal: explained.refusal,
        reason: explained.reason,
        condition: explained.condition,
    }
}

fn nearest(wanted: &str, known: &[String]) -> String {
    let likeness = |name: &String| strsim::jaro_winkler(name, wanted);
    known
        .iter()
        .filter(|name| likeness(name) > 0.8)
        .max_by(|one, other| likeness(one).total_cmp(&likeness(other)))
        .map_or(
            "; `postrider subscriptions list` shows them".to_owned(),
            |name| format!("; did you mean {name}?"),
        )
}

fn text(event: &Event, rows: &[Row], all: bool, config: &Config) -> String {
    let customer = match &event.customer {
        Some(customer) => format!("customer {customer}"),
        None => format!(
            "no customer ({} is not in it)",
            config.intake.customer_pointer
        ),
    };
    let mut text = format!("{}, {}\n", event.event_type, customer);
    let count = |fate: Fate| rows.iter().filter(|row| row.fate == fate).count();
    text.push_str(&format!(
        "{} of {} webhooks want it\n",
        rows.len() - count(Fate::NotWanted),
        rows.len()
    ));
    match event.inline.as_ref().map(inline::read) {
        None => {}
        Some(Ok(_)) => text.push_str("it goes to the webhook that it carries too\n"),
        Some(Err(why)) => text.push_str(&format!(
            "the webhook that it carries cannot be used, so for that it becomes a dead letter: {}\n",
            escaped(&why)
        )),
    }
    let mut rest: BTreeMap<&str, usize> = BTreeMap::new();
    let mut shown = table(&["webhook", "name", "event is", "why"]);
    let mut left = SHOWN;
    for row in rows {
        if row.fate == Fate::NotWanted && !all {
            if left == 0 {
                *rest.entry(row.refusal.unwrap_or_default()).or_default() += 1;
                continue;
            }
            left -= 1;
        }
        shown.add_row([
            row.webhook_id.clone(),
            escaped(&row.name),
            word(row.fate).to_owned(),
            escaped(row.reason.as_deref().unwrap_or_default()),
        ]);
    }
    if !rows.is_empty() {
        text.push_str(&format!("\n{}\n", shown.trim_fmt()));
    }
    if !rest.is_empty() {
        let parts: Vec<String> = rest
            .iter()
            .map(|(word, count)| format!("{count} by {word}"))
            .collect();
        text.push_str(&format!(
            "and {} more that do not want it ({}); --all shows them\n",
            rest.values().sum::<usize>(),
            parts.join(", ")
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::subscription::read;

    fn webhook(fields: Value) -> Subscription {
        let mut object =
            json!({"id": "wh_a", "url": "https://example.com/", "event_types": ["job.*"]});
        for (name, value) in fields.as_object().unwrap() {
            object[name] = value.clone();
        }
        let draft = read::read(&object, "").unwrap();
        draft.create(jiff::Timestamp::now()).unwrap().subscription
    }

    fn event() -> Event {
        Event {
            event_type: "job.failed".to_owned(),
            customer: Some("1".to_owned()),
            body: json!({"job": {"status": "failed"}}),
            inline: None,
        }
    }

    #[test]
    fn each_webhook_gets_its_fate_and_the_first_reason() {
        for (fields, fate, refusal, said) in [
            (json!({}), Fate::Delivered, None, ""),
            (json!({"customer": 1}), Fate::Delivered, None, ""),
            (json!({"paused": true}), Fate::Held, None, "paused"),
            (
                json!({"enabled": false, "customer": 2}),
                Fate::NotWanted,
                Some("disabled"),
                "disabled",
            ),
            (
                json!({"event_types": ["device.*", "job"]}),
                Fate::NotWanted,
                Some("event_type"),
                "it wants device.*, job",
            ),
            (
                json!({"customer": 2}),
                Fate::NotWanted,
                Some("customer"),
                "of customer 2, the event of customer 1",
            ),
            (
                json!({"filter": {"job": {"status": "success"}}}),
                Fate::NotWanted,
                Some("filter"),
                "/job/status",
            ),
            (
                json!({"filter": {"job": {"$no": 1}}}),
                Fate::FilterFailed,
                None,
                "cannot be evaluated",
            ),
        ] {
            let found = row(&webhook(fields), &event());
            assert_eq!((found.fate, found.refusal), (fate, refusal));
            assert!(found.reason.unwrap_or_default().contains(said));
        }
    }

    #[test]
    fn many_that_do_not_want_it_are_counted_rather_than_shown() {
        let mut rows = vec![row(&webhook(json!({})), &event())];
        for _ in 0..SHOWN + 7 {
            rows.push(row(&webhook(json!({"customer": 2})), &event()));
        }
        let config = Config::default();
        let short = text(&event(), &rows, false, &config);
        assert!(short.contains("1 of 58 webhooks want it"), "{short}");
        assert!(short.contains("and 7 more"), "{short}");
        assert!(!text(&event(), &rows, true, &config).contains("more that"));
    }

    #[test]
    fn an_unknown_webhook_is_told_with_the_nearest_known_one() {
        let known = ["wh_cmdb".to_owned(), "wh_tickets".to_owned()];
        assert_eq!(nearest("wh_cmbd", &known), "; did you mean wh_cmdb?");
        assert!(nearest("x", &known).contains("subscriptions list"));
    }
}
