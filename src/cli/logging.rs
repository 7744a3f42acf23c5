//! The log of `postrider run`: to stderr, as the configuration says, and changed while it runs.

use std::io::IsTerminal;

use tracing_subscriber::layer::{Layered, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use crate::config::{Config, Levels, LogFormat};

/// The variable that goes before `log.level`, in tracing's own form.
const VARIABLE: &str = EnvFilter::DEFAULT_ENV;

/// Changes the level of a log that is being written.
pub(super) struct Switch(reload::Handle<EnvFilter, Registry>);

impl Switch {
    /// Writes what these levels let pass from now on. `false`: `RUST_LOG` is set and goes before them.
    pub(super) fn set(&self, levels: &Levels) -> bool {
        if from_variable().is_some() {
            return false;
        }
        // It fails only when the subscriber is gone, and with it the log.
        self.0.reload(EnvFilter::new(levels.directives())).is_ok()
    }
}

fn from_variable() -> Option<EnvFilter> {
    std::env::var_os(VARIABLE)?;
    EnvFilter::try_from_default_env().ok()
}

/// Logs to stderr as the configuration says; `RUST_LOG` goes before it.
pub(super) fn to_stderr(config: &Config) -> Switch {
    let filter = from_variable().unwrap_or_else(|| EnvFilter::new(config.log.level.directives()));
    let (filter, handle) = reload::Layer::new(filter);
    let lines = fmt::layer()
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_writer(std::io::stderr);
    let registry: Layered<_, Registry> = tracing_subscriber::registry().with(filter);
    // A second subscriber (in tests that run several commands in one process) is refused, which does no harm.
    let _ = match config.log.format {
        LogFormat::Json => registry.with(lines.json()).try_init(),
        LogFormat::Text => registry.with(lines.with_target(false)).try_init(),
    };
    Switch(handle)
}
