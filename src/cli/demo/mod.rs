//! `postrider demo`: the main job in one process, with nothing to install: an embedded broker, a producer, four receivers
//! and the router, all real but the broker.
//!
//! It says what happens while it happens, and at the end judges promise 1 by what the receivers really got.

mod account;
mod books;
mod breakers;
mod invitation;
mod producer;
mod receivers;
mod replay;
mod screen;
mod setup;
mod summary;
mod watch;
mod webhooks;

use std::collections::HashSet;
use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::MissedTickBehavior;
use tracing_subscriber::EnvFilter;

use super::Answer;
use crate::app::App;
use breakers::Breakers;
use producer::Events;
use screen::{Screen, Sign};
use setup::Setup;

/// Three events a second.
const EVENT_EVERY: Duration = Duration::from_millis(333);
const LOOK_EVERY: Duration = Duration::from_millis(250);
const STATUS_EVERY: Duration = Duration::from_secs(5);
/// The failing receiver fails for this part of the run, and for no longer than this, since its webhooks' retries must outlast it.
const FAILING_PART: f64 = 0.4;
const FAILS_AT_MOST: Duration = Duration::from_secs(12);
/// In a run without an end it fails again this often.
const FAILS_AGAIN_AFTER: Duration = Duration::from_secs(90);
/// Between the recovery of a receiver and the replay of what died meanwhile.
const REPLAY_AFTER: Duration = Duration::from_millis(1_500);
const READY_WITHIN: Duration = Duration::from_secs(30);
/// The longest pause before a retry is 16 s.
const SETTLE_WITHIN: Duration = Duration::from_secs(25);

#[derive(Args)]
pub(super) struct Demo {
    /// Produce for so long, let everything end, sum up [default: until Ctrl-C]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: Option<u64>,
    /// Show the router's own log, on stderr
    #[arg(long)]
    verbose: bool,
}

impl Demo {
    pub(super) fn run(self) -> Answer {
        log_to_stderr(self.verbose);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        runtime.block_on(self.perform())
    }

    async fn perform(&self) -> Answer {
        let mut interrupt = Interrupt::listen()?;
        let screen = Screen::new();
        screen.plain("Starting a broker, four receivers and the router in this process …");
        let setup = Setup::build(screen).await?;
        let (app, _watching) = setup.open().await?;
        tokio::select! {
            ready = ready(&app) => ready?,
            () = interrupt.wait() => return stop(app).await,
        }
        let invitation = invitation::text(&setup.config, app.telemetry(), self.seconds);
        setup.account.screen.plain(invitation);

        let mut breakers = Breakers::new(&app, &setup.account);
        let produced = tokio::select! {
            produced = self.produce(&setup) => produced,
            never = breakers.watch() => match never {},
            () = interrupt.wait() => Ok(()),
            failure = app.failed() => Err(failure.into()),
        };
        setup.failing.store(false, Ordering::Release);
        if produced.is_ok() {
            setup.account.screen.line(
                Sign::Notice,
                "no more events; everything that is under way may end (Ctrl-C: at once)",
            );
            tokio::select! {
                settled = settle(&setup) => settled?,
                never = breakers.watch() => match never {},
                () = interrupt.wait() => {}
            }
        }
        stop(app).await?;
        produced?;
        sum_up(&setup)
    }

    /// Produces until the time is over.
    async fn produce(&self, setup: &Setup) -> Answer {
        let length = self.seconds.map(Duration::from_secs);
        let fails_for = fails_for(length);
        let start = Instant::now();
        let mut events = Events::new(setup.producer.clone(), Arc::clone(&setup.account));
        let mut event_turn = interval(EVENT_EVERY);
        let mut look_turn = interval(LOOK_EVERY);
        let mut status_turn = interval(STATUS_EVERY);
        status_turn.tick().await;
        let mut recovered_at: Option<Instant> = None;
        loop {
            tokio::select! {
                _ = event_turn.tick() => events.produce(),
                _ = status_turn.tick() => setup.account.say_status(),
                _ = look_turn.tick() => {
                    let fails = is_failing(start.elapsed(), fails_for);
                    if setup.failing.swap(fails, Ordering::AcqRel) != fails {
                        let what = if fails { "answers 503 from now on" } else { "has recovered" };
                        let text = format!("the receiver of wh_failing and wh_impatient {what}");
                        setup.account.screen.line(Sign::Notice, text);
                        recovered_at = (!fails).then(Instant::now);
                    }
                    let is_well = recovered_at.is_some_and(|at| at.elapsed() >= REPLAY_AFTER);
                    if is_well && setup.account.has_letters() {
                        setup.replay().await?;
                    }
                }
            }
            let is_over = length.is_some_and(|length| start.elapsed() >= length);
            if is_over || setup.account.screen.is_gone() {
                return Ok(());
            }
        }
    }
}

fn interval(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

fn fails_for(length: Option<Duration>) -> Duration {
    length.map_or(FAILS_AT_MOST, |length| {
        length.mul_f64(FAILING_PART).min(FAILS_AT_MOST)
    })
}

/// Whether the failing receiver fails, this long after the start.
fn is_failing(elapsed: Duration, fails_for: Duration) -> bool {
    let in_turn = elapsed.as_secs_f64() % FAILS_AGAIN_AFTER.as_secs_f64();
    in_turn < fails_for.as_secs_f64()
}

/// Waits until the groups are joined.
async fn ready(app: &App) -> Answer {
    let start = Instant::now();
    while !app.is_ready() {
        if start.elapsed() > READY_WITHIN {
            bail!(
                "the router was not ready within {} s; run it again with --verbose to see why",
                READY_WITHIN.as_secs()
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Waits until every delivery has an ending and every dead letter was replayed, for a bounded time.
async fn settle(setup: &Setup) -> Answer {
    let start = Instant::now();
    // Events of others that came before this count too.
    while start.elapsed() < SETTLE_WITHIN {
        if setup.account.has_letters() {
            setup.replay().await?;
        }
        let is_told = setup.account.is_told(setup.sources().len(), start);
        let is_quiet = setup.producer.waiting() == 0 && setup.account.is_settled();
        if is_told && is_quiet && !setup.account.has_letters() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn stop(app: App) -> Answer {
    Ok(tokio::task::spawn_blocking(move || app.stop()).await??)
}

fn sum_up(setup: &Setup) -> Answer {
    let account = &setup.account;
    let in_topics = if account.is_settled() {
        HashSet::new()
    } else {
        setup
            .unsettled()
            .context("what waits could not be read from the topics")?
    };
    let tally = account.tally(&in_topics);
    let screen = &account.screen;
    screen.plain(format_args!("\n{}", summary::table(&tally)));
    screen.plain(
        "produced: events in the source topics; wanted: deliveries that follow from them; the rest by what receivers got",
    );
    for webhook in &tally.changed {
        screen.plain(format_args!(
            "{webhook} was changed during the demo; nothing of it counts as lost"
        ));
    }
    let unverified = account.unverified_requests();
    if unverified > 0 {
        bail!("requests with a wrong signature: {unverified}; this is a defect, please report it");
    }
    if tally.all.lost > 0 {
        bail!(
            "deliveries lost: {}; this is a defect, please report it with the output of --verbose",
            tally.all.lost
        );
    }
    Ok(())
}

/// Ctrl-C or SIGTERM.
struct Interrupt {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupt {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Warnings of the router only, and nothing of the embedded broker, which would drown the account; `RUST_LOG` goes before it.
fn log_to_stderr(verbose: bool) {
    let level = if verbose {
        "info,librdkafka=error"
    } else {
        // The account tells of breakers itself.
        "warn,postrider::outbound::shard=error,librdkafka=off,rdkafka=off"
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(false)
        .try_init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failing_receiver_recovers_within_every_run() {
        for seconds in [1, 20, 60, 86_400] {
            let length = Duration::from_secs(seconds);
            let fails_for = fails_for(Some(length));
            assert!(is_failing(Duration::ZERO, fails_for));
            assert!(!is_failing(
                length.min(FAILS_AGAIN_AFTER).mul_f64(0.9),
                fails_for
            ));
        }
        assert!(!is_failing(FAILS_AT_MOST, fails_for(None)));
    }

    #[test]
    fn the_retries_of_the_demo_outlast_its_failure() {
        // 1 + 2 + 4 + 8 + 16 s of wh_failing.
        assert!(FAILS_AT_MOST < Duration::from_secs(31));
        assert!(SETTLE_WITHIN > Duration::from_secs(16 + 2));
    }
}
