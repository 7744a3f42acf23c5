//! `deliveries list`: the newest that the flags mean. Memory follows `--limit`.

use clap::Args;
use serde::Serialize;

use super::super::dead_letters::selection::{time, webhook};
use super::super::output::{Output, escaped, print, print_json, table};
use super::super::{Answer, Context};
use super::Line;
use crate::history::Scope;
use crate::history::query::{DeliveryFilter, MOST_ROWS};
use crate::history::rows::Status;

const MESSAGE_CHARACTERS: usize = 60;

#[derive(Args)]
pub(super) struct List {
    /// Of this webhook
    #[arg(long, value_name = "ID", value_parser = webhook)]
    webhook: Option<String>,
    /// Of this customer
    #[arg(long)]
    customer: Option<String>,
    /// In this status: pending retrying success failed held dropped
    #[arg(long)]
    status: Option<Status>,
    /// Of this event type
    #[arg(long, value_name = "TYPE")]
    event_type: Option<String>,
    /// Made at or after this time: RFC 3339, a date, or an age such as 2h, 30m, 7d
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<i64>,
    /// Made before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<i64>,
    /// Show at most so many
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Serialize)]
struct Found {
    results: Vec<Line>,
}

impl List {
    pub(super) fn run(self, context: &Context) -> Answer {
        let store = super::store(context)?;
        let filter = DeliveryFilter {
            customer: self.customer,
            webhook: self.webhook,
            status: self.status,
            event_type: self.event_type,
            since_ms: self.since,
            until_ms: self.until,
        };
        let mut results: Vec<Line> = Vec::new();
        let mut after = None;
        let mut is_more = false;
        while results.len() < self.limit {
            let left = u32::try_from(self.limit - results.len()).unwrap_or(MOST_ROWS);
            let page = store.deliveries(&Scope::All, &filter, after.as_ref(), left)?;
            results.extend(page.rows.into_iter().map(Line::from));
            is_more = page.next.is_some();
            after = page.next;
            if !is_more {
                break;
            }
        }
        match self.output {
            Output::Json => print_json(&Found { results }),
            Output::Table => print(&as_table(&results, is_more)),
        }
    }
}

fn as_table(lines: &[Line], is_more: bool) -> String {
    if lines.is_empty() {
        return "no deliveries\n".to_owned();
    }
    let mut rows = table(&[
        "id",
        "created at",
        "webhook",
        "event type",
        "status",
        "attempts",
        "answer",
        "next",
        "message",
    ]);
    for line in lines {
        let message: String = line
            .error_message
            .iter()
            .flat_map(|message| message.chars())
            .take(MESSAGE_CHARACTERS)
            .collect();
        let answer = line.last_status.map(|status| status.to_string());
        rows.add_row([
            escaped(&line.id),
            line.created_at.clone(),
            escaped(&line.webhook),
            escaped(&line.event_type),
            line.status.to_owned(),
            line.attempts.to_string(),
            answer.unwrap_or_else(|| "-".to_owned()),
            line.next_attempt_at
                .clone()
                .unwrap_or_else(|| "-".to_owned()),
            escaped(&message),
        ]);
    }
    let note = if is_more {
        "\nthere are more; --limit shows them\n"
    } else {
        ""
    };
    format!("{rows}\n{note}")
}
