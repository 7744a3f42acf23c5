//! `postrider subscriptions diff`: what `apply` would change, field by field, old and new, with secrets masked (promise 7).

use std::collections::BTreeMap;

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};

use super::Opened;
use super::file::{Action, Source, Step};
use crate::cli::Answer;
use crate::cli::output::{self, Output};
use crate::config::Config;
use crate::subscription::{MASK, Subscription};

#[derive(Args)]
pub(in crate::cli) struct Diff {
    #[command(flatten)]
    source: Source,
    /// End with exit code 1 where something differs
    #[arg(long)]
    exit_code: bool,
    /// The form of the answer
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// One field that changes; the values are for people and masked.
#[derive(Debug, PartialEq)]
struct Change {
    field: String,
    old: Value,
    new: Value,
}

impl Diff {
    pub(super) fn run(self, config: &Config) -> Answer {
        let opened = Opened::by(config)?;
        let plan = self.source.plan(config, &opened)?;
        let steps: Vec<(&Step, Vec<Change>)> = plan
            .steps
            .iter()
            .filter(|step| step.action != Action::Unchanged)
            .map(|step| (step, changes(step)))
            .collect();
        match self.output {
            Output::Json => output::print_json(&as_json(&steps))?,
            Output::Table => {
                let mut text: String = steps
                    .iter()
                    .map(|(step, changes)| shown(step, changes))
                    .collect();
                text.push_str(&format!(
                    "{} to create, {} to change, {} to delete, {} unchanged\n",
                    plan.count(Action::Create),
                    plan.count(Action::Change),
                    plan.count(Action::Prune),
                    plan.count(Action::Unchanged),
                ));
                if plan.kept > 0 {
                    text.push_str(&format!(
                        "{} not in the file and kept (--prune deletes them)\n",
                        plan.kept
                    ));
                }
                output::print(&text)?;
            }
        }
        if self.exit_code && !steps.is_empty() {
            bail!(
                "the catalog differs from the file in {} webhooks",
                steps.len()
            );
        }
        Ok(())
    }
}

fn action(step: &Step) -> (&'static str, &'static str) {
    match step.action {
        Action::Create => ("+", "create"),
        Action::Change => ("~", "change"),
        Action::Unchanged => ("=", "none"),
        Action::Prune => ("-", "delete"),
    }
}

fn shown(step: &Step, changes: &[Change]) -> String {
    let mut text = format!(
        "{} {}  {}\n",
        action(step).0,
        step.id,
        output::escaped(step.name())
    );
    for change in changes {
        text.push_str(&match step.action {
            Action::Create => format!("    {}: {}\n", change.field, change.new),
            _ => format!("    {}: {} -> {}\n", change.field, change.old, change.new),
        });
    }
    text
}

fn as_json(steps: &[(&Step, Vec<Change>)]) -> Vec<Value> {
    steps
        .iter()
        .map(|(step, changes)| {
            let fields: Vec<Value> = changes
                .iter()
                .map(|change| json!({"field": change.field, "old": change.old, "new": change.new}))
                .collect();
            json!({"id": step.id, "name": step.name(), "action": action(step).1, "fields": fields})
        })
        .collect()
}

/// A new webhook shows what differs from an empty one; a deleted one only its name.
fn changes(step: &Step) -> Vec<Change> {
    let Some(after) = &step.after else {
        return Vec::new();
    };
    let generated = step.generated_secret.is_some();
    match &step.before {
        Some(before) => step
            .fields
            .iter()
            .flat_map(|field| differences(field, Some(before), after, generated))
            .collect(),
        None => FIELDS
            .iter()
            .flat_map(|field| differences(field, None, after, generated))
            .filter(|change| !is_usual(&change.field, &change.new))
            .collect(),
    }
}

/// The fields that a new webhook is shown with, where they are not as usual; `show` has the rest.
const FIELDS: [&str; 14] = [
    "customer",
    "url",
    "method",
    "body",
    "event_types",
    "filter",
    "headers",
    "cookies",
    "auth",
    "secret",
    "enabled",
    "paused",
    "verify_ssl",
    "rate_limit",
];

fn is_usual(field: &str, value: &Value) -> bool {
    match (field, value) {
        (_, Value::Null) => true,
        ("enabled" | "verify_ssl", value) => *value == true,
        ("paused", value) => *value == false,
        ("method", value) => *value == "POST",
        ("body", value) => *value == "event",
        ("auth", value) => value["type"] == "none",
        _ => false,
    }
}

fn differences(
    field: &str,
    before: Option<&Subscription>,
    after: &Subscription,
    generated: bool,
) -> Vec<Change> {
    let change = |old: Value, new: Value| Change {
        field: field.to_owned(),
        old,
        new,
    };
    match field {
        "headers" => by_name(
            field,
            before.map(|webhook| &webhook.headers),
            &after.headers,
        ),
        "cookies" => by_name(
            field,
            before.map(|webhook| &webhook.cookies),
            &after.cookies,
        ),
        "secret" => {
            let old = before.is_some_and(|webhook| !webhook.secrets.is_empty());
            let new = match (after.secrets.is_empty(), generated, old) {
                (true, _, _) => Value::Null,
                (false, true, _) => "to be generated".into(),
                (false, false, true) => format!("{MASK} (another)").into(),
                (false, false, false) => MASK.into(),
            };
            vec![change(if old { MASK.into() } else { Value::Null }, new)]
        }
        _ => {
            let value = |webhook: &Subscription| masked(field, webhook);
            let old = before.map_or(Value::Null, value);
            let new = value(after);
            let new = if old == new && before.is_some() {
                // Only what the mask hides differs.
                format!("{} (another)", text_of(&new)).into()
            } else {
                new
            };
            vec![change(old, new)]
        }
    }
}

fn text_of(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn masked(field: &str, webhook: &Subscription) -> Value {
    if field == "url" {
        // A query may hold a token.
        let mut url = webhook.url.clone();
        if url.query().is_some() {
            url.set_query(Some(MASK));
        }
        return url.as_str().into();
    }
    let mut object = webhook.public_json();
    object.get_mut(field).map_or(Value::Null, std::mem::take)
}

fn by_name(
    field: &str,
    before: Option<&BTreeMap<String, String>>,
    after: &BTreeMap<String, String>,
) -> Vec<Change> {
    let none = BTreeMap::new();
    let before = before.unwrap_or(&none);
    let mask = |value: Option<&String>| value.map_or(Value::Null, |_| MASK.into());
    let mut names: Vec<&String> = before.keys().chain(after.keys()).collect();
    names.sort();
    names.dedup();
    names
        .into_iter()
        .filter(|name| before.get(*name) != after.get(*name))
        .map(|name| {
            let (old, new) = (before.get(name), after.get(name));
            Change {
                field: format!("{field}.{name}"),
                old: mask(old),
                new: if old.is_some() && new.is_some() {
                    format!("{MASK} (another)").into()
                } else {
                    mask(new)
                },
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::subscription::read::read;

    fn webhook(more: Value) -> Subscription {
        let mut object = json!({"id": "wh_a", "name": "n", "url": "https://example.com/in", "event_types": ["*"]});
        for (name, value) in more.as_object().unwrap() {
            object[name] = value.clone();
        }
        let draft = read(&object, "").unwrap();
        draft.create(Timestamp::UNIX_EPOCH).unwrap().subscription
    }

    fn changes_of(before: Value, after: Value) -> Vec<(String, String, String)> {
        let (before, after) = (webhook(before), webhook(after));
        let step = Step {
            id: after.id.clone(),
            action: Action::Change,
            fields: after.differing_fields(&before),
            before: Some(before),
            after: Some(after),
            generated_secret: None,
        };
        changes(&step)
            .into_iter()
            .map(|change| (change.field, change.old.to_string(), change.new.to_string()))
            .collect()
    }

    fn change(field: &str, old: &str, new: &str) -> (String, String, String) {
        (field.to_owned(), old.to_owned(), new.to_owned())
    }

    #[test]
    fn a_changed_field_shows_its_old_and_its_new_value() {
        assert_eq!(
            changes_of(
                json!({"max_retries": 3}),
                json!({"max_retries": 8, "tags": ["a"]})
            ),
            [
                change("tags", "[]", "[\"a\"]"),
                change("max_retries", "3", "8")
            ]
        );
    }

    #[test]
    fn no_secret_value_is_shown_and_that_it_changed_is() {
        let before = json!({
            "headers": {"X-Old": "hidden1", "X-Both": "hidden2"},
            "auth": {"type": "bearer", "token": "hidden3"},
            "secret": "hidden4",
            "url": "https://example.com/in?token=hidden5",
        });
        let after = json!({
            "headers": {"X-New": "hidden6", "X-Both": "hidden7"},
            "auth": {"type": "bearer", "token": "hidden8"},
            "secret": "hidden9",
            "url": "https://example.com/in?token=hidden0",
        });
        let found = changes_of(before, after);
        assert!(!format!("{found:?}").contains("hidden"), "{found:?}");
        let fields: Vec<&str> = found.iter().map(|(field, _, _)| field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "url",
                "headers.X-Both",
                "headers.X-New",
                "headers.X-Old",
                "auth",
                "secret"
            ]
        );
        assert_eq!(
            found[1],
            change("headers.X-Both", "\"***\"", "\"*** (another)\"")
        );
        assert_eq!(found[2], change("headers.X-New", "null", "\"***\""));
        assert_eq!(found[3], change("headers.X-Old", "\"***\"", "null"));
        assert!(found[0].2.contains("(another)"), "{found:?}");
        assert!(found[4].2.contains("(another)"), "{found:?}");
    }
}
