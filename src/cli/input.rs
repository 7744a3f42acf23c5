//! What several commands take: bytes from a file or stdin, a signing secret, `name=value`.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;

use crate::outbound::signature::SigningKey;

const SECRET_VARIABLE: &str = "POSTRIDER_WEBHOOK_SECRET";

/// The bytes of a file, or of stdin for `-`.
pub(super) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin()
            .lock()
            .read_to_end(&mut bytes)
            .context("stdin cannot be read")?;
        return Ok(bytes);
    }
    std::fs::read(path).with_context(|| {
        format!(
            "{} cannot be read; check the name and its rights",
            path.display()
        )
    })
}

/// `NAME=VALUE`, split at the first `=`.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".to_owned()),
    }
}

/// Where a signing secret comes from.
#[derive(Args)]
pub(super) struct Secret {
    /// The webhook's signing secret; others on the machine can see it in the list of processes [else: --secret-file, else
    /// the environment's POSTRIDER_WEBHOOK_SECRET]
    #[arg(long, value_name = "TEXT")]
    secret: Option<String>,
    /// A file with the secret; a line break at its end is not part of it
    #[arg(long, value_name = "FILE", conflicts_with = "secret")]
    secret_file: Option<PathBuf>,
}

impl Secret {
    /// The key, if there is a secret anywhere.
    pub(super) fn key(&self) -> anyhow::Result<Option<SigningKey>> {
        let text = match (&self.secret, &self.secret_file) {
            (Some(secret), _) => secret.clone(),
            (None, Some(path)) => {
                let text = String::from_utf8(read(path)?)
                    .ok()
                    .with_context(|| format!("{} is not text", path.display()))?;
                let text = text.strip_suffix('\n').unwrap_or(&text);
                text.strip_suffix('\r').unwrap_or(text).to_owned()
            }
            (None, None) => match std::env::var(SECRET_VARIABLE) {
                Ok(secret) if !secret.is_empty() => secret,
                _ => return Ok(None),
            },
        };
        Ok(Some(SigningKey::new(&text)?))
    }

    /// The key, for commands that do nothing without one.
    pub(super) fn required_key(&self) -> anyhow::Result<SigningKey> {
        match self.key()? {
            Some(key) => Ok(key),
            None => bail!(
                "there is no secret; give --secret-file FILE or --secret TEXT, or set {SECRET_VARIABLE}"
            ),
        }
    }
}
