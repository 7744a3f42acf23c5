//! `deliveries show`: one delivery with all its attempts.

use anyhow::Context as _;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::output::{Output, body, escaped, print, print_json, same_time, time};
use super::super::remote::{Remote, segment};
use super::super::{Answer, Context};
use super::Line;
use crate::history::Scope;
use crate::history::rows::AttemptRow;

#[derive(Args)]
pub(super) struct Show {
    /// The delivery's id, `dlv_…`
    #[arg(value_name = "DELIVERY_ID")]
    id: String,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Serialize, Deserialize)]
struct Found {
    #[serde(flatten)]
    delivery: Line,
    tries: Vec<Try>,
}

/// An attempt as JSON.
#[derive(Serialize, Deserialize)]
struct Try {
    number: u32,
    started_at: String,
    duration_ms: f64,
    outcome: String,
    status: Option<u16>,
    error_message: Option<String>,
    request_headers: Value,
    response_headers: Value,
    response_body: Option<String>,
    replay_id: Option<String>,
}

impl From<AttemptRow> for Try {
    fn from(row: AttemptRow) -> Self {
        let object = |text: Option<String>| {
            text.and_then(|text| serde_json::from_str(&text).ok())
                .unwrap_or(Value::Null)
        };
        Self {
            number: row.number,
            started_at: time(row.started_at_ms),
            duration_ms: row.duration_us as f64 / 1000.0,
            outcome: row.outcome,
            status: row.status,
            error_message: row.error_message,
            request_headers: object(row.request_headers),
            response_headers: object(row.response_headers),
            response_body: row.response_body,
            replay_id: row.replay_id,
        }
    }
}

impl Show {
    pub(super) fn run(self, context: &Context, remote: &Remote) -> Answer {
        let found = match remote.client()? {
            Some(client) => {
                let path = format!("/webhook-deliveries/{}/", segment(&self.id));
                let mut found: Found = client.get(&path, &[])?;
                found.delivery = found.delivery.with_our_times();
                for each in &mut found.tries {
                    each.started_at = same_time(&each.started_at);
                }
                found
            }
            None => self.read(context)?,
        };
        match self.output {
            Output::Json => print_json(&found),
            Output::Table => print(&as_text(&found)),
        }
    }

    fn read(&self, context: &Context) -> anyhow::Result<Found> {
        let told = super::store(context)?
            .delivery(&Scope::All, &self.id)?
            .with_context(|| {
                format!(
                    "the history has no delivery {}; it begins with the first attempt, and `postrider explain {}` asks the topics",
                    self.id, self.id
                )
            })?;
        Ok(Found {
            delivery: told.delivery.into(),
            tries: told.attempts.into_iter().map(Try::from).collect(),
        })
    }
}

fn as_text(found: &Found) -> String {
    let line = &found.delivery;
    let mut text = format!(
        "{}\nwebhook     {}\nevent       {} from {}\nstatus      {}\ncreated at  {}\nupdated at  {}\n",
        escaped(&line.id),
        escaped(&line.webhook),
        escaped(&line.event_type),
        escaped(&line.source),
        escaped(&line.status),
        line.created_at,
        line.updated_at
    );
    if let Some(next) = &line.next_attempt_at {
        text.push_str(&format!("next        {next}\n"));
    }
    if let Some(message) = &line.error_message {
        text.push_str(&format!("message     {}\n", escaped(message)));
    }
    for each in &found.tries {
        let status = each
            .status
            .map_or_else(String::new, |status| format!(" {status}"));
        text.push_str(&format!(
            "\nattempt {} at {}: {}{status} in {:.1} ms\n",
            each.number,
            each.started_at,
            escaped(&each.outcome),
            each.duration_ms
        ));
        if let Some(message) = &each.error_message {
            text.push_str(&format!("  {}\n", escaped(message)));
        }
        for (mark, headers) in [(">", &each.request_headers), ("<", &each.response_headers)] {
            for (name, value) in headers.as_object().into_iter().flatten() {
                let value = value.as_str().unwrap_or_default();
                text.push_str(&format!("  {mark} {}: {}\n", escaped(name), escaped(value)));
            }
        }
        if let Some(bytes) = &each.response_body {
            text.push_str(&format!("{}\n", body(bytes.as_bytes())));
        }
    }
    text
}
