//! The section `[history]`: where what happened is kept, and for how long. The URL of a database holds a password, so it is shown
//! without it, as any secret is.

use serde::{Serialize, Serializer};

use super::read::Reader;
use super::secret::Secret;

/// What is remembered.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct History {
    /// Whether every attempt is written to the attempts topic.
    pub attempts: bool,
    /// Successes in a second of which headers and the answer's body are kept, too, as of all failures.
    pub success_details_per_second: u32,
    /// Where the view is.
    pub store: StoreSetting,
    /// Days for which the view keeps deliveries and dead letters, counted from when they were made.
    pub retention_days: u16,
}

/// `sqlite:PATH`, `postgres://…` or `none`.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreSetting(String);

impl StoreSetting {
    /// The whole text, password and all.
    pub fn expose(&self) -> &str {
        &self.0
    }

    fn shown(&self) -> &str {
        match self.0.split_once("://") {
            Some((scheme, _)) if scheme.starts_with("postgres") => "postgres://…",
            _ => &self.0,
        }
    }
}

impl std::fmt::Debug for StoreSetting {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:?}", self.shown())
    }
}

impl Serialize for StoreSetting {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.shown())
    }
}

impl Default for History {
    fn default() -> Self {
        Self {
            attempts: true,
            success_details_per_second: 20,
            store: StoreSetting("sqlite:postrider.db".to_owned()),
            retention_days: 30,
        }
    }
}

impl History {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let default = Self::default();
        let environment = reader.environment;
        let mut section = reader.section("history");
        let attempts = section.boolean("attempts", default.attempts);
        let mut store = default.store;
        if let Some(value) = section.take("store") {
            let read = Secret::read(&value, environment);
            let read = read.map_err(|message| message.replace("the secret", "the store"));
            let read = read.and_then(|secret| {
                let text = secret.expose().unwrap_or_default().trim().to_owned();
                text.parse::<crate::history::store::Kind>().map(|_| text)
            });
            match read {
                Ok(text) => store = StoreSetting(text),
                Err(message) => section.fail("store", value.origin(), message),
            }
        }
        let history = Self {
            attempts,
            success_details_per_second: section.whole(
                "success_details_per_second",
                default.success_details_per_second,
                0..=1_000_000,
                "successes",
            ),
            store,
            retention_days: section.whole(
                "retention_days",
                default.retention_days,
                1..=3650,
                "days",
            ),
        };
        section.finish();
        history
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, Environment};

    #[test]
    fn the_password_of_a_database_is_never_shown() {
        let text = "[history]\nstore = \"postgres://user:s3cret@host/history\"";
        let config = Config::from_text("file", text, &Environment::new()).unwrap();
        assert_eq!(
            config.history.store.expose(),
            "postgres://user:s3cret@host/history"
        );
        assert!(!format!("{config:?}").contains("s3cret"));
        assert!(!serde_json::to_string(&config).unwrap().contains("s3cret"));
    }

    #[test]
    fn a_store_that_is_none_is_refused_without_repeating_a_password() {
        for text in ["mysql://u:s3cret@h/d", "sqlite:", "postrider.db"] {
            let text = format!("[history]\nstore = {text:?}");
            let fault = Config::from_text("file", &text, &Environment::new()).unwrap_err();
            let fault = fault.to_string();
            assert!(fault.contains("must be \"sqlite:PATH\""), "{fault}");
            assert!(!fault.contains("s3cret"), "{fault}");
        }
        let fault = Config::from_text("file", "[history]\nstore = \"\"", &Environment::new());
        let fault = fault.unwrap_err().to_string();
        assert!(
            fault.contains("history.store (file): the store is empty"),
            "{fault}"
        );
    }
}
