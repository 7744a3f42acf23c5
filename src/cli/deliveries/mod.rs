//! `postrider deliveries`: what became of deliveries, asked of the history's database itself, so that it answers when the router is down; or of
//! the API.

mod list;
mod retry;
mod show;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::output::{same_time, time};
use super::remote::Remote;
use super::{Answer, Context};
use crate::app;
use crate::history::Store;
use crate::history::rows::DeliveryRow;

/// `postrider deliveries`.
#[derive(Args)]
pub(super) struct Deliveries {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lists deliveries, newest first
    List(list::List),
    /// Shows a delivery with every attempt
    Show(show::Show),
    /// Sends one that failed once more
    Retry(retry::Retry),
}

impl Deliveries {
    pub(super) fn run(self, context: &Context) -> Answer {
        match self.command {
            Command::List(list) => list.run(context, &self.remote),
            Command::Show(show) => show.run(context, &self.remote),
            Command::Retry(retry) => retry.run(context, &self.remote),
        }
    }
}

/// The configured store.
pub(super) fn store(context: &Context) -> anyhow::Result<Store> {
    app::open_store(&context.config()?)?.context(
        "there is no history: history.store is \"none\"; name a store there, and read the topics into it with `postrider history rebuild`",
    )
}

/// A delivery as JSON; its field names are the contract's.
#[derive(Serialize, Deserialize)]
struct Line {
    id: String,
    webhook: String,
    customer: Option<String>,
    event_type: String,
    status: String,
    attempts: u32,
    last_status: Option<u16>,
    created_at: String,
    updated_at: String,
    next_attempt_at: Option<String>,
    error_message: Option<String>,
    reason: Option<String>,
    replay_id: Option<String>,
    source: String,
}

impl From<DeliveryRow> for Line {
    fn from(row: DeliveryRow) -> Self {
        Self {
            id: row.id,
            webhook: row.webhook,
            customer: row.customer,
            event_type: row.event_type,
            status: row.status.as_str().to_owned(),
            attempts: row.attempts,
            last_status: row.last_status,
            created_at: time(row.created_at_ms),
            updated_at: time(row.updated_at_ms),
            next_attempt_at: row.next_attempt_at_ms.map(time),
            error_message: row.error_message,
            reason: row.reason,
            replay_id: row.replay_id,
            source: row.source,
        }
    }
}

impl Line {
    /// As it came from the API, with times as this command writes them.
    fn with_our_times(mut self) -> Self {
        self.created_at = same_time(&self.created_at);
        self.updated_at = same_time(&self.updated_at);
        self.next_attempt_at = self.next_attempt_at.as_deref().map(same_time);
        self
    }
}
