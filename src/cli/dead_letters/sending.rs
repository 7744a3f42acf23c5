//! A replay at work in this process: its progress, and a first signal that stops it where it can be resumed.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::super::Answer;
use super::super::output::{Output, print, print_json};
use crate::pipeline::replaying::{Asked, Halt, Replaying};
use crate::retry::replay::{Job, State};

const SPEAK_EVERY: Duration = Duration::from_secs(5);

/// Works on a job until its end, or until somebody stops it.
pub(super) fn send(replaying: &Replaying, job: Job, output: Output) -> Answer {
    let halt = stop_on_signals()?;
    let id = job.id.clone();
    let how_to_resume = format!("go on with `postrider dead-letters replay --resume {id}`");
    eprintln!("{id} began; Ctrl-C stops it, and it can be resumed");
    let mut progress = Progress::new(&job);
    let result = replaying.run(job, &halt, &mut |job| progress.tell(job));
    progress.end();
    let job = match result {
        Ok(job) => job,
        Err(fault) => bail!("{fault}; {how_to_resume}"),
    };
    if output == Output::Json {
        print_json(&json!({
            "id": job.id,
            "state": job.state,
            "done": job.done,
            "total": job.total,
        }))?;
    }
    if job.state != State::Finished {
        bail!(
            "stopped after {} of {}; {how_to_resume}",
            job.done,
            super::letters(job.total)
        );
    }
    if output == Output::Table {
        print(&super::replayed(&super::letters(job.done), &job.id))?;
    }
    Ok(())
}

/// Set by the first Ctrl-C or SIGTERM; a second one ends the process at once.
fn stop_on_signals() -> anyhow::Result<Arc<Halt>> {
    let halt = Arc::new(Halt::default());
    let told = Arc::clone(&halt);
    let runtime = super::super::runtime()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        )
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = interrupt.recv() => {}
                        _ = terminate.recv() => {}
                    }
                    if told.asked() != Asked::Nothing {
                        std::process::exit(1);
                    }
                    told.ask(Asked::Stop);
                    eprintln!("stopping after this batch");
                }
            });
        })?;
    Ok(halt)
}

/// A bar on a terminal, a line now and then elsewhere.
struct Progress {
    bar: Option<ProgressBar>,
    spoke_at: Instant,
}

impl Progress {
    fn new(job: &Job) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(job.total).with_position(job.done);
            let style =
                ProgressStyle::with_template("{wide_bar} {pos}/{len}  {per_sec}  {eta} left");
            match style {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        Self {
            bar,
            spoke_at: Instant::now(),
        }
    }

    fn tell(&mut self, job: &Job) {
        if let Some(bar) = &self.bar {
            bar.set_position(job.done);
        } else if self.spoke_at.elapsed() >= SPEAK_EVERY {
            self.spoke_at = Instant::now();
            eprintln!("{} of {}", job.done, super::letters(job.total));
        }
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
