//! A secret of the configuration: written as text, or better as `{ file = "…" }` or `{ env = "…" }`. It is never printed,
//! neither by `Debug` nor serialized (promise 7).

use std::fmt;

use config::{Value, ValueKind};
use secrecy::{ExposeSecret, SecretString};
use serde::{Serialize, Serializer};

use super::Environment;

/// Where a secret was taken from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretSource {
    /// It stood in the configuration itself.
    Text,
    /// From this file.
    File(String),
    /// From this environment variable.
    Env(String),
}

/// A secret that may be absent, because the variable that should hold it is.
#[derive(Clone)]
pub struct Secret {
    source: SecretSource,
    value: Option<SecretString>,
}

impl Secret {
    /// The one of an environment variable, which may be missing or empty.
    pub fn from_variable(name: &str, environment: &Environment) -> Self {
        let value = environment
            .get(name)
            .map(|text| text.trim())
            .filter(|text| !text.is_empty());
        Self {
            source: SecretSource::Env(name.to_owned()),
            value: value.map(SecretString::from),
        }
    }

    /// Where it was taken from.
    pub fn source(&self) -> &SecretSource {
        &self.source
    }

    /// The secret itself. Whoever calls this answers for where it goes.
    pub fn expose(&self) -> Option<&str> {
        self.value.as_ref().map(ExposeSecret::expose_secret)
    }

    /// Reads one of the three forms; white space around it is dropped, as files end with a line break.
    ///
    /// # Errors
    /// A sentence that says what is wrong; it never repeats the secret.
    pub(super) fn read(value: &Value, environment: &Environment) -> Result<Self, String> {
        const FORMS: &str = "must be text, { file = \"path\" } or { env = \"NAME\" }";
        let (source, text) = match &value.kind {
            ValueKind::String(text) => (SecretSource::Text, text.clone()),
            ValueKind::Table(table) => match (table.len(), table.iter().next()) {
                (
                    1,
                    Some((
                        form,
                        Value {
                            kind: ValueKind::String(name),
                            ..
                        },
                    )),
                ) => match form.as_str() {
                    "file" => {
                        let text = std::fs::read_to_string(name)
                            .map_err(|error| format!("the file {name} cannot be read: {error}"))?;
                        (SecretSource::File(name.clone()), text)
                    }
                    "env" => {
                        let text = environment.get(name);
                        let text = text.ok_or_else(|| {
                            format!("the environment variable {name} is not set; set it")
                        })?;
                        (SecretSource::Env(name.clone()), text.clone())
                    }
                    _ => return Err(FORMS.to_owned()),
                },
                _ => return Err(FORMS.to_owned()),
            },
            _ => return Err(FORMS.to_owned()),
        };
        let text = text.trim();
        if text.is_empty() {
            return Err("the secret is empty; write it, or remove the key".to_owned());
        }
        Ok(Self {
            source,
            value: Some(SecretString::from(text)),
        })
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source && self.expose() == other.expose()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = if self.value.is_some() {
            "***"
        } else {
            "absent"
        };
        write!(formatter, "Secret({:?}, {value})", self.source)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.source {
            SecretSource::Text => serializer.serialize_str("***"),
            source => source.serialize(serializer),
        }
    }
}
