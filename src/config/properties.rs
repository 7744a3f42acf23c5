//! Tables of librdkafka properties. Anything may be set but what the promises rest on: commits go through the ledger
//! (promise 2), and what is produced must be acknowledged by all (promise 1).

use std::collections::BTreeMap;
use std::fmt;

use config::ValueKind;
use serde::{Serialize, Serializer};

use super::read::Section;
use super::secret::Secret;

/// Properties that are not for the operator, each with the reason.
const OWNED: [(&str, &str); 15] = [
    (
        "enable.auto.commit",
        "offsets are committed by the ledger, only when everything they caused is durable",
    ),
    (
        "enable.auto.offset.store",
        "offsets are committed by the ledger, only when everything they caused is durable",
    ),
    (
        "group.id",
        "each stage has its own group; set kafka.group_id, from which their names are made",
    ),
    (
        "group.instance.id",
        "each stage has its own; set kafka.instance_id, from which they are made",
    ),
    (
        "enable.idempotence",
        "it is always on, so that a retry of the client neither repeats nor reorders",
    ),
    (
        "acks",
        "it is always `all`: a delivery counts as safe only when every in-sync replica has it",
    ),
    (
        "request.required.acks",
        "it is always `all`: a delivery counts as safe only when every in-sync replica has it",
    ),
    (
        "partitioner",
        "it is always murmur2_random, so that Java tools agree on the partition of a key",
    ),
    (
        "partitioner_cb",
        "it is always murmur2_random, so that Java tools agree on the partition of a key",
    ),
    ("transactional.id", "no transactions are used"),
    ("bootstrap.servers", "set kafka.bootstrap_servers"),
    ("metadata.broker.list", "set kafka.bootstrap_servers"),
    ("auto.offset.reset", "set intake.start"),
    (
        "auto.commit.enable",
        "offsets are committed by the ledger, only when everything they caused is durable",
    ),
    (
        "enable.partition.eof",
        "the consumers of this program do not expect it",
    ),
];

/// Properties for librdkafka, by name. `Debug` and the serialized form mask what looks like a secret.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Properties(BTreeMap<String, String>);

impl Properties {
    /// Name and value of each.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The value of one.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Reads a table of them. A value may be text, number, true or false, `{ file = "…" }` or `{ env = "…" }`. In the
    /// environment, where a name can have no dot, `_` stands for it: `POSTRIDER__KAFKA__PROPERTIES__SASL_PASSWORD`.
    pub(super) fn read(section: &mut Section<'_, '_>, key: &'static str) -> Self {
        let Some(table) = section.take(key) else {
            return Self::default();
        };
        let ValueKind::Table(entries) = table.kind.clone() else {
            section.fail(
                key,
                table.origin(),
                "must be a table of librdkafka properties, such as { \"client.rack\" = \"a\" }",
            );
            return Self::default();
        };
        let mut entries: Vec<_> = entries.into_iter().collect();
        // Those of the environment last, so that they win over the file's.
        entries.sort_by_key(|(_, value)| value.origin().is_some());
        let mut properties = BTreeMap::new();
        for (name, value) in entries {
            let origin = value.origin().map(str::to_owned);
            let name = if origin.is_some() {
                name.replace('_', ".")
            } else {
                name
            };
            let place = format!("{key}.{name}");
            if let Some((_, reason)) = OWNED.iter().find(|(owned, _)| *owned == name) {
                section.fail(
                    &place,
                    origin.as_deref(),
                    format!("cannot be set: {reason}; remove it"),
                );
                continue;
            }
            let text = match &value.kind {
                ValueKind::String(text) => Ok(text.clone()),
                ValueKind::Boolean(boolean) => Ok(boolean.to_string()),
                ValueKind::I64(number) => Ok(number.to_string()),
                ValueKind::Float(number) => Ok(number.to_string()),
                // Without quotes TOML reads `sasl.password = "…"` as a table within a table.
                ValueKind::Table(inner) if !inner.contains_key("file") && !inner.contains_key("env") => {
                    Err("is a table; put the property's whole name in quotes: \"sasl.password\" = \"…\"".to_owned())
                }
                _ => Secret::read(&value, section.reader.environment)
                    .map(|secret| secret.expose().unwrap_or_default().to_owned()),
            };
            match text {
                Ok(text) => {
                    properties.insert(name, text);
                }
                Err(message) => section.fail(&place, origin.as_deref(), message),
            }
        }
        Self(properties)
    }

    fn masked(&self) -> impl Iterator<Item = (&str, &str)> {
        const SECRET: [&str; 5] = ["password", "secret", ".pem", "oauthbearer.config", "key"];
        self.iter().map(|(name, value)| {
            let secret =
                SECRET.iter().any(|part| name.contains(part)) && !name.ends_with(".location");
            (name, if secret { "***" } else { value })
        })
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.masked()).finish()
    }
}

impl Serialize for Properties {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.masked())
    }
}
