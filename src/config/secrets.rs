//! The section `[secrets]`: the key of the catalog's secrets, and those before it, which are kept until `postrider secrets rekey`
//! has written everything anew (promise 7).

use config::{Value, ValueKind};
use serde::Serialize;

use super::Environment;
use super::read::{Reader, Section};
use super::secret::Secret;

/// The variable that holds the key of the catalog's secrets unless `secrets.key` says otherwise.
const KEY_VARIABLE: &str = "POSTRIDER_SECRET_KEY";
const WITHOUT_KEY: &str =
    "old keys only open what was encrypted before; give secrets.key the new key too";

/// What encrypts the secrets of webhooks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Secrets {
    /// 32 bytes in base64. Absent where the default variable is: then webhooks with secrets are refused.
    pub key: Secret,
    /// Keys that were in its place before, in the same form: what they encrypted can still be read.
    pub old_keys: Vec<Secret>,
}

impl Default for Secrets {
    fn default() -> Self {
        Self {
            key: Secret::from_variable(KEY_VARIABLE, &Environment::new()),
            old_keys: Vec::new(),
        }
    }
}

impl Secrets {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let environment = reader.environment;
        let mut key = Secret::from_variable(KEY_VARIABLE, environment);
        let mut section = reader.section("secrets");
        if let Some(value) = section.take("key") {
            match Secret::read(&value, environment) {
                Ok(secret) => key = secret,
                // The example file names it too, and there it may be missing as it may by default.
                Err(_) if names_default(&value) => {}
                Err(message) => section.fail("key", value.origin(), message),
            }
        }
        let old_keys = match section.take("old_keys") {
            None => Vec::new(),
            Some(value) => old_keys(&mut section, value),
        };
        if !old_keys.is_empty() && key.expose().is_none() {
            section.fail("old_keys", None, WITHOUT_KEY);
        }
        section.finish();
        Self { key, old_keys }
    }
}

fn old_keys(section: &mut Section<'_, '_>, value: Value) -> Vec<Secret> {
    let origin = value.origin().map(str::to_owned);
    let entries = match value.kind {
        ValueKind::Array(entries) => entries,
        // A variable has no lists.
        ValueKind::String(text) if origin.is_some() => text
            .split(',')
            .filter(|entry| !entry.trim().is_empty())
            .map(|entry| Value::new(None, ValueKind::String(entry.to_owned())))
            .collect(),
        _ => {
            let message = "must be a list such as [{ env = \"OLD_KEY\" }]";
            section.fail("old_keys", origin.as_deref(), message);
            return Vec::new();
        }
    };
    let mut keys = Vec::with_capacity(entries.len());
    for (position, entry) in entries.iter().enumerate() {
        match Secret::read(entry, section.reader.environment) {
            Ok(key) => keys.push(key),
            Err(message) => section.fail(
                "old_keys",
                origin.as_deref(),
                format!("entry {}: {message}", position + 1),
            ),
        }
    }
    keys
}

fn names_default(value: &Value) -> bool {
    let ValueKind::Table(table) = &value.kind else {
        return false;
    };
    let is_default = |name: &config::Value| matches!(&name.kind, ValueKind::String(name) if name == KEY_VARIABLE);
    table.len() == 1 && table.get("env").is_some_and(is_default)
}
