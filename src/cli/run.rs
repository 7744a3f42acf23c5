//! `postrider run`: the router until SIGTERM or Ctrl-C.

use std::io::IsTerminal;

use clap::Args;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::{Answer, Context};
use crate::app::{App, Stages};
use crate::config::{Config, LogFormat};

#[derive(Args)]
pub(super) struct Run {
    /// Which loops to run, comma-separated
    #[arg(long, default_value = "route,deliver,release", value_parser = str::parse::<Stages>)]
    stages: Stages,
}

impl Run {
    pub(super) fn run(self, context: &Context) -> Answer {
        let config = context.config()?;
        log_to_stderr(&config);
        let runtime = super::runtime()?;
        runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let app = tokio::select! {
                app = App::start(&config, self.stages) => app?,
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
            };
            tell_systemd(NotifyState::Ready);
            // On this runtime, which serves the telemetry address too: when it turns no more, systemd restarts the process.
            if let Some(limit) = sd_notify::watchdog_enabled() {
                tokio::spawn(async move {
                    loop {
                        tell_systemd(NotifyState::Watchdog);
                        tokio::time::sleep(limit / 3).await;
                    }
                });
            }
            let failure = tokio::select! {
                failure = app.failed() => Some(failure),
                _ = terminate.recv() => None,
                _ = interrupt.recv() => None,
            };
            tell_systemd(NotifyState::Stopping);
            // The telemetry address goes on answering (503 while draining) until the end.
            tokio::task::spawn_blocking(move || app.stop()).await??;
            match failure {
                Some(failure) => Err(failure.into()),
                None => Ok(()),
            }
        })
    }
}

/// Says it to systemd where that started us (`Type=notify`, sd_notify(3)); nothing otherwise.
fn tell_systemd(state: NotifyState<'_>) {
    if let Err(fault) = sd_notify::notify(&[state]) {
        tracing::warn!(%fault, "systemd could not be told");
    }
}

/// Logs to stderr as the configuration says; `RUST_LOG` goes before it.
pub(super) fn log_to_stderr(config: &Config) {
    // rustls' verifier logs each bad certificate as an error of its own; the attempt's line says it already.
    let level = format!(
        "{},rustls_platform_verifier=off,librdkafka=error",
        config.log.level.as_str()
    );
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_writer(std::io::stderr);
    // A second subscriber (in tests that run several commands in one process) is refused, which does no harm.
    let _ = match config.log.format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Text => builder.with_target(false).try_init(),
    };
}
