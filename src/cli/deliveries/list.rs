//! `deliveries list`: the newest that the flags mean. Memory follows `--limit`.

use clap::Args;
use serde::{Deserialize, Serialize};

use super::super::dead_letters::selection::{time, webhook};
use super::super::output::{Output, escaped, print, print_json, table, time as text_of};
use super::super::remote::{Client, PAGE, Remote};
use super::super::{Answer, Context};
use super::Line;
use crate::history::Scope;
use crate::history::query::{Begin, DeliveryFilter, MOST_ROWS};
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

#[derive(Deserialize)]
struct Page {
    next: Option<String>,
    results: Vec<Line>,
}

impl List {
    pub(super) fn run(self, context: &Context, remote: &Remote) -> Answer {
        let (results, is_more) = match remote.client()? {
            Some(client) => self.ask(&client)?,
            None => self.read(context)?,
        };
        match self.output {
            Output::Json => print_json(&Found { results }),
            Output::Table => print(&as_table(&results, is_more)),
        }
    }

    fn ask(&self, client: &Client) -> anyhow::Result<(Vec<Line>, bool)> {
        let mut asked: Vec<(&str, String)> = Vec::new();
        let status = self.status.map(|status| status.as_str().to_owned());
        for (name, value) in [
            ("webhook", self.webhook.clone()),
            ("customer", self.customer.clone()),
            ("status", status),
            ("event_type", self.event_type.clone()),
            ("since", self.since.map(text_of)),
            ("until", self.until.map(text_of)),
        ] {
            asked.extend(value.map(|value| (name, value)));
        }
        let mut results: Vec<Line> = Vec::new();
        let mut next: Option<String> = None;
        while results.len() < self.limit {
            let mut query = asked.clone();
            let left = (self.limit - results.len()).min(PAGE);
            query.push(("page_size", left.to_string()));
            query.extend(next.take().map(|cursor| ("cursor", cursor)));
            let page: Page = client.get("/webhook-deliveries/", &query)?;
            results.extend(page.results.into_iter().map(Line::with_our_times));
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        Ok((results, next.is_some()))
    }

    fn read(&self, context: &Context) -> anyhow::Result<(Vec<Line>, bool)> {
        let store = super::store(context)?;
        let filter = DeliveryFilter {
            customer: self.customer.clone(),
            webhook: self.webhook.clone(),
            status: self.status,
            event_type: self.event_type.clone(),
            since_ms: self.since,
            until_ms: self.until,
        };
        let mut results: Vec<Line> = Vec::new();
        let mut from = Some(Begin::Newest);
        while let Some(begin) = &from
            && results.len() < self.limit
        {
            let left = u32::try_from(self.limit - results.len()).unwrap_or(MOST_ROWS);
            let page = store.deliveries(&Scope::All, &filter, begin, left)?;
            from = page.next();
            results.extend(page.rows.into_iter().map(Line::from));
        }
        Ok((results, from.is_some()))
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
            escaped(&line.status),
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
