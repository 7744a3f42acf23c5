//! `postrider sign` and `verify`: make or check the signatures of a body, for whoever writes a receiver.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use clap::Args;

use super::input::{self, Secret};
use super::{Answer, output, wrong_usage};

/// Both signatures as header lines, as a request carries them.
#[derive(Args)]
pub(super) struct Sign {
    /// The file with the body's exact bytes; `-` for stdin
    #[arg(long, value_name = "FILE", default_value = "-")]
    body: PathBuf,
    #[command(flatten)]
    secret: Secret,
    /// The webhook-id [default: a new one]
    #[arg(long, value_parser = webhook_id)]
    id: Option<String>,
    /// The webhook-timestamp, seconds since 1970 [default: now]
    #[arg(long, value_name = "SECONDS")]
    timestamp: Option<u64>,
}

impl Sign {
    pub(super) fn run(self) -> Answer {
        let key = self.secret.required_key()?;
        let body = input::read(&self.body)?;
        let id = self
            .id
            .unwrap_or_else(|| format!("msg_{}", uuid::Uuid::now_v7().simple()));
        let timestamp = self.timestamp.unwrap_or_else(now_seconds);
        output::print(&format!(
            "X-Webhook-Signature: {}\nwebhook-id: {id}\nwebhook-timestamp: {timestamp}\nwebhook-signature: {}\n",
            key.plain(&body),
            key.standard(&id, timestamp, &body),
        ))
    }
}

/// Whether a signature is that of a body: exit code 0 if so, 1 with the reason if not.
#[derive(Args)]
pub(super) struct Verify {
    /// The file with the body's exact bytes; `-` for stdin
    #[arg(long, value_name = "FILE", default_value = "-")]
    body: PathBuf,
    #[command(flatten)]
    secret: Secret,
    /// What arrived: `sha256=…` (X-Webhook-Signature) or `v1,…` (webhook-signature)
    #[arg(long, value_name = "TEXT")]
    signature: String,
    /// The webhook-id that arrived; `v1,…` needs it
    #[arg(long)]
    id: Option<String>,
    /// The webhook-timestamp that arrived; `v1,…` needs it
    #[arg(long, value_name = "SECONDS")]
    timestamp: Option<String>,
    /// Accept a webhook-timestamp more than five minutes from now, for a request that was kept
    #[arg(long)]
    any_age: bool,
}

impl Verify {
    pub(super) fn run(self) -> Answer {
        let signature = self.signature.trim();
        let is_plain = signature.starts_with("sha256=");
        if !is_plain && !signature.split(' ').any(|part| part.starts_with("v1,")) {
            bail!(
                "the signature has neither form; X-Webhook-Signature is `sha256=` and 64 hex digits, webhook-signature `v1,` and base64"
            );
        }
        let verdict = if is_plain {
            let key = self.secret.required_key()?;
            key.verify_plain(signature, &input::read(&self.body)?)
        } else {
            let (Some(id), Some(timestamp)) = (&self.id, &self.timestamp) else {
                wrong_usage(
                    "a signature `v1,…` is made over id, timestamp and body; give --id and --timestamp as they arrived",
                );
            };
            let key = self.secret.required_key()?;
            let now = match timestamp.parse() {
                Ok(seconds) if self.any_age => seconds,
                _ => now_seconds(),
            };
            key.verify_standard(id, timestamp, signature, &input::read(&self.body)?, now)
        };
        verdict.context("the signature is not valid")?;
        output::print("the signature is valid\n")
    }
}

pub(super) fn now_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// What is signed is `id.timestamp.body`, so a full stop in the id would let one signature stand for two messages.
fn webhook_id(text: &str) -> Result<String, String> {
    if text.is_empty() || text.contains('.') || !text.chars().all(|c| c.is_ascii_graphic()) {
        return Err(
            "write visible ASCII characters without a full stop, such as msg_2Lh9".to_owned(),
        );
    }
    Ok(text.to_owned())
}
