//! The configuration: a file and the environment become one checked [`Config`], with a section per stage, so that the
//! rest of the program never meets a value that is out of range (promise 6: memory is bounded by these figures).
//!
//! Where the same key is given twice, the environment (`POSTRIDER__SECTION__KEY`) wins over the file. Every fault is
//! found at once and names its key, its source and its cure; a key that is not known is a fault.

mod checks;
mod history;
mod kafka;
mod log;
mod properties;
mod read;
mod reload;
mod secret;
mod secrets;
mod sections;
mod traces;
mod web;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use history::History;
pub use kafka::Kafka;
pub use log::{Level, Levels, Log, LogFormat, Stage};
pub use properties::Properties;
pub use secret::{Secret, SecretSource};
pub use secrets::Secrets;
pub use sections::{Intake, Outbound, Retry, Start};
pub use traces::Traces;
pub use web::Web;

/// The environment's variables, as a value, so that tests need not change the process's own.
pub type Environment = BTreeMap<String, String>;

/// The variable that names the file where the command line does not.
pub const PATH_VARIABLE: &str = "POSTRIDER_CONFIG";
/// The file that is read, if it exists, where nothing names one.
pub const DEFAULT_PATH: &str = "config/postrider.toml";

/// Everything that can be set. `Config::default()` is the contract's defaults.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Config {
    /// The cluster, and our topics in it.
    pub kafka: Kafka,
    /// What is read.
    pub intake: Intake,
    /// What is sent, and how much at a time.
    pub outbound: Outbound,
    /// What happens to what could not be sent.
    pub retry: Retry,
    /// What is remembered.
    pub history: History,
    /// What is served.
    pub web: Web,
    /// What encrypts the secrets of webhooks.
    pub secrets: Secrets,
    /// What is said.
    pub log: Log,
    /// What is traced.
    pub traces: Traces,
}

/// Why there is no configuration. The program says it and ends.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration file {} cannot be read: {source}; check the path and its permissions", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{file} is not TOML: {message}")]
    Syntax {
        /// The file.
        file: String,
        /// Line, column and what was expected.
        message: String,
    },
    /// Values are wrong; the list is never empty.
    #[error("the configuration is wrong:{}", Lines(.0))]
    Invalid(Vec<Problem>),
}

/// A fault of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `section.key`.
    pub key: String,
    /// The file or the environment variable that gave it.
    pub origin: String,
    /// What is wrong and how to mend it.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} ({}): {}",
            self.key, self.origin, self.message
        )
    }
}

struct Lines<'a>(&'a [Problem]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|problem| write!(formatter, "\n  {problem}"))
    }
}

impl Config {
    /// The file that [`Config::load`] reads: `given`, else that of [`PATH_VARIABLE`], else [`DEFAULT_PATH`] if it exists.
    pub fn path(given: Option<&Path>, environment: &Environment) -> Option<PathBuf> {
        let named = environment
            .get(PATH_VARIABLE)
            .filter(|path| !path.is_empty())
            .map(Path::new);
        let default = Some(Path::new(DEFAULT_PATH)).filter(|path| path.exists());
        given.or(named).or(default).map(Path::to_owned)
    }

    /// Reads the file at `path` (else at [`PATH_VARIABLE`], else at [`DEFAULT_PATH`] if that exists, else no file) and
    /// puts the environment over it.
    ///
    /// # Errors
    /// [`ConfigError`]: the file cannot be read, is not TOML, or values are wrong.
    pub fn load(path: Option<&Path>, environment: &Environment) -> Result<Self, ConfigError> {
        let Some(path) = Self::path(path, environment) else {
            return Self::from_text("no file", "", environment);
        };
        let text = std::fs::read_to_string(&path).map_err(|source| ConfigError::Unreadable {
            path: path.clone(),
            source,
        })?;
        Self::from_text(&path.display().to_string(), &text, environment)
    }

    /// The same for the text of a file; `file` is its name for messages.
    ///
    /// # Errors
    /// [`ConfigError::Syntax`] and [`ConfigError::Invalid`].
    pub fn from_text(
        file: &str,
        text: &str,
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        let mut reader = read::Reader::new(file, text, environment)?;
        let config = Self {
            kafka: Kafka::read(&mut reader),
            intake: Intake::read(&mut reader),
            outbound: Outbound::read(&mut reader),
            retry: Retry::read(&mut reader),
            history: History::read(&mut reader),
            web: Web::read(&mut reader),
            secrets: Secrets::read(&mut reader),
            log: Log::read(&mut reader),
            traces: Traces::read(&mut reader),
        };
        config.check_together(&mut reader);
        reader.finish()?;
        Ok(config)
    }

    /// What no section can see by itself.
    fn check_together(&self, reader: &mut read::Reader<'_>) {
        // To route our own deliveries as events would multiply them without end.
        let ours = |topic: &&String| topic.starts_with(&self.kafka.topic_prefix);
        for topic in self.intake.topics.iter().filter(ours) {
            let message = format!(
                "{topic} begins with kafka.topic_prefix, and our own topics cannot be sources; name the topics of your \
                 producers"
            );
            reader.fail("intake.topics", None, message);
        }
        if self.intake.inline_webhooks && self.secrets.key.expose().is_none() {
            let message = "needs secrets.key, because the webhooks that events carry are encrypted in our topics; make a key \
                           with: head -c 32 /dev/urandom | base64";
            reader.fail("intake.inline_webhooks", None, message);
        }
    }
}

/// The process's environment; variables that are not UTF-8 are left out.
pub fn process_environment() -> Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}
