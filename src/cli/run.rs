//! `postrider run`: the router until SIGTERM or Ctrl-C; SIGHUP has it read its configuration again.

use clap::Args;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};

use super::logging::{self, Switch};
use super::{Answer, Context};
use crate::app::{App, Stages};
use crate::config::Config;

#[derive(Args)]
pub(super) struct Run {
    /// Which loops to run, comma-separated
    #[arg(long, default_value = "route,deliver,release", value_parser = str::parse::<Stages>)]
    stages: Stages,
}

impl Run {
    pub(super) fn run(self, context: &Context) -> Answer {
        let config = context.config()?;
        let log = logging::to_stderr(&config);
        let runtime = super::runtime()?;
        runtime.block_on(async {
            let mut terminate = signal(SignalKind::terminate())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            // From the beginning, because a process that does not expect it dies of it.
            let mut hangup = signal(SignalKind::hangup())?;
            let app = tokio::select! {
                app = App::start(&config, self.stages) => app?,
                _ = terminate.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
            };
            tell_systemd(&[NotifyState::Ready]);
            // On this runtime, which serves the telemetry address too: when it turns no more, systemd restarts the process.
            if let Some(limit) = sd_notify::watchdog_enabled() {
                tokio::spawn(async move {
                    loop {
                        tell_systemd(&[NotifyState::Watchdog]);
                        tokio::time::sleep(limit / 3).await;
                    }
                });
            }
            let mut running = config;
            let failure = loop {
                tokio::select! {
                    failure = app.failed() => break Some(failure),
                    _ = terminate.recv() => break None,
                    _ = interrupt.recv() => break None,
                    _ = hangup.recv() => reload(context, &app, &log, &mut running),
                }
            };
            tell_systemd(&[NotifyState::Stopping]);
            // The telemetry address goes on answering (503 while draining) until the end.
            tokio::task::spawn_blocking(move || app.stop()).await??;
            match failure {
                Some(failure) => Err(failure.into()),
                None => Ok(()),
            }
        })
    }
}

/// Reads the configuration again and takes over what a running instance can. A faulty one changes nothing.
fn reload(context: &Context, app: &App, log: &Switch, running: &mut Config) {
    // systemd wants the time with it (sd_notify(3)).
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell_systemd(&[NotifyState::Reloading, now]);
    }
    match context.config() {
        Ok(wanted) => {
            let before = running.clone();
            running.adopt(&wanted);
            app.reload(running);
            // First, so that its own line is not lost where less is logged from now on: it is a warning when something is left.
            let changed = before.differences(running).join(", ");
            tracing::info!(changed, "the configuration was read again");
            if !log.set(&running.log.level) {
                tracing::warn!(
                    "RUST_LOG is set and goes before log.level, which a reload does not change then"
                );
            }
            let left = running.differences(&wanted).join(", ");
            if !left.is_empty() {
                tracing::warn!(
                    keys = left,
                    "the configuration has changes that need a restart; until then the old values hold"
                );
            }
        }
        Err(fault) => {
            tracing::error!("nothing was reloaded, the configuration from before holds: {fault:#}");
        }
    }
    tell_systemd(&[NotifyState::Ready]);
}

/// Says it to systemd where that started us (`Type=notify`, sd_notify(3)); nothing otherwise.
fn tell_systemd(states: &[NotifyState<'_>]) {
    if let Err(fault) = sd_notify::notify(states) {
        tracing::warn!(%fault, "systemd could not be told");
    }
}
