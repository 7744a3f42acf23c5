//! `postrider history rebuild`: deletes the view and reads the topics again. It may run beside routers: what they write
//! meanwhile is the same.

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::sync::Arc;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use super::{Answer, Context};
use crate::app;
use crate::history::Store;
use crate::kafka::table::{scan, spans};
use crate::pipeline::history::Reading;
use crate::pipeline::topics::Topics;

/// Records of one transaction.
const BATCH: usize = 2000;

/// `postrider history`.
#[derive(Args)]
pub(super) struct History {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Deletes the history and reads it again from the topics, as far as they go back
    Rebuild,
}

impl History {
    pub(super) fn run(self, context: &Context) -> Answer {
        let Command::Rebuild = self.command;
        let config = context.config()?;
        let store = super::deliveries::store(context)?;
        let (connection, _) = super::runtime()?.block_on(app::planned(&config))?;
        let topics = Topics::new(&config.kafka.topic_prefix);
        let reading = Reading::new(&topics);
        let mut work = Vec::new();
        for topic in reading.topics() {
            let spans = spans(&connection, &topic)?;
            work.push((topic, spans));
        }
        let total = work
            .iter()
            .flat_map(|(_, spans)| spans)
            .map(|span| span.to.saturating_sub(span.from).unsigned_abs())
            .sum();
        store.clear()?;
        let bar = progress(total);
        let mut count = 0_u64;
        for (topic, spans) in work {
            count += read(&connection, &store, &reading, &topic, &spans, &bar)?;
        }
        bar.finish_and_clear();
        super::output::print(&format!(
            "the history in {} is made anew from {count} records\n",
            store.name()
        ))
    }
}

fn read(
    connection: &crate::kafka::settings::Connection,
    store: &Store,
    reading: &Reading,
    topic: &Arc<str>,
    spans: &[crate::kafka::table::Span],
    bar: &ProgressBar,
) -> anyhow::Result<u64> {
    let mut batch = Vec::with_capacity(BATCH);
    let mut count = 0;
    let mut fault = None;
    scan(connection, topic, spans, |record| {
        batch.push(reading.change(record));
        count += 1;
        if batch.len() >= BATCH {
            bar.inc(batch.len() as u64);
            if let Err(found) = store.apply(&batch) {
                fault = Some(found);
                return ControlFlow::Break(());
            }
            batch.clear();
        }
        ControlFlow::Continue(())
    })?;
    if let Some(fault) = fault {
        return Err(fault.into());
    }
    store.apply(&batch)?;
    bar.inc(batch.len() as u64);
    Ok(count)
}

fn progress(total: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        eprintln!("reading {total} records");
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total);
    if let Ok(style) = ProgressStyle::with_template(
        "{bar:30} {human_pos} of {human_len} records, {per_sec}, {eta} left",
    ) {
        bar.set_style(style);
    }
    bar
}
