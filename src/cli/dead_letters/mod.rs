//! `postrider dead-letters`: what could not be delivered, shown from the topic itself, and sent in again or discarded.

mod discard;
mod list;
mod remote;
mod replay;
pub(super) mod selection;
mod sending;
mod show;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::audit::Audit;
use super::output::escaped;
use super::remote::Remote;
use super::{Answer, Context};
use crate::app;
use crate::config::Config;
use crate::pipeline::replaying::{Counts, Replaying};
use crate::pipeline::topics::Topics;
use crate::retry::replay::Job;

/// `postrider dead-letters`.
#[derive(Args)]
pub(super) struct DeadLetters {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lists dead letters, newest last, and counts them by reason
    List(list::List),
    /// Shows a dead letter whole: headers, body, and what became of it
    Show(show::Show),
    /// Sends dead letters in again, each with the delivery id that it had
    Replay(replay::Replay),
    /// Marks dead letters as done with; nothing is deleted
    Discard(discard::Discard),
}

impl DeadLetters {
    pub(super) fn run(self, context: &Context) -> Answer {
        match self.command {
            Command::List(list) => list.run(context, &self.remote),
            Command::Show(show) => {
                if self.remote.client()?.is_some() {
                    super::wrong_usage(
                        "a dead letter is shown whole from Kafka only; leave out --api (and POSTRIDER_API), or use `dead-letters list`",
                    );
                }
                show.run(context)
            }
            Command::Replay(replay) => replay.run(context, &self.remote),
            Command::Discard(discard) => discard.run(context, &self.remote),
        }
    }
}

/// The engine on the configured cluster, on its dead-letter topic or another one.
pub(super) fn open(context: &Context, letters: Option<&str>) -> anyhow::Result<Replaying> {
    let config = context.config()?;
    let (connection, _) = super::runtime()?.block_on(app::planned(&config))?;
    let topics = Topics::new(&config.kafka.topic_prefix);
    let replaying = Replaying::open(connection, &topics, letters)?;
    Ok(replaying.reading(app::reading(&config)))
}

/// Notes in the audit trail what was ordered.
fn note(replaying: &Replaying, config: &Config, action: &str, job: &Job) {
    let after = serde_json::to_value(job).unwrap_or_default();
    Audit::by(replaying.producer(), config).note(action, &job.id, Value::Null, after);
}

/// "1 letter", "2 letters".
fn letters(count: u64) -> String {
    format!("{count} dead letter{}", if count == 1 { "" } else { "s" })
}

/// What a replay that ran through says.
fn replayed(letters: &str, id: &str) -> String {
    format!("replayed {letters} as {}\n", escaped(id))
}

/// What a discard says.
fn discarded(letters: &str, id: &str) -> String {
    format!(
        "discarded {letters} as {id}; `postrider dead-letters discard --undo {id}` takes it back\n",
        id = escaped(id)
    )
}

/// Says what the numbers do not: which letters stay where they are and why, and what cannot be known.
pub(super) fn tell_left(counts: &Counts) {
    for warning in &counts.warnings {
        eprintln!("warning: {}", escaped(warning));
    }
    for left in &counts.left {
        eprintln!("left: {}: {}", escaped(&left.place), escaped(&left.why));
    }
    let named = u64::try_from(counts.left.len()).unwrap_or(u64::MAX);
    let more = counts.not_replayable.saturating_sub(named);
    if named > 0 && more > 0 {
        eprintln!("left: {more} more");
    }
}

/// What a dry run says.
fn counted(verb: &str, counts: &Counts) -> String {
    format!("to {verb}: {}\n{}", describe(counts), told_apart(counts))
}

/// How many letters are meant, by reason, and which are left out.
fn describe(counts: &Counts) -> String {
    let mut text = letters(counts.total);
    let mut by_reason: Vec<(&String, &u64)> = counts.by_reason.iter().collect();
    by_reason.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    if !by_reason.is_empty() {
        let words: Vec<String> = by_reason
            .iter()
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        text.push_str(&format!(" ({})", words.join(", ")));
    }
    // What is named one by one has its reason there.
    let impossible = if counts.left.is_empty() {
        "cannot be replayed (never a delivery, which --into or --to-webhook send, or cut to fit)"
    } else {
        "cannot be replayed"
    };
    for (count, why) in [
        (counts.not_replayable, impossible),
        (
            counts.replayed_too_often,
            "were replayed too often before (--max-replays)",
        ),
        (
            counts.dead_letters,
            "are dead letters of that webhook (replay them without --never-delivered)",
        ),
        (counts.on_their_way, "are on their way or held"),
        (counts.done_before, "were replayed or discarded before"),
    ] {
        if count > 0 {
            text.push_str(&format!("; {count} more {why}"));
        }
    }
    text
}

/// The same by what else they are, a line each: what a dry run adds.
fn told_apart(counts: &Counts) -> String {
    const MOST: usize = 12;
    let mut text = String::new();
    for (kind, by) in [
        ("webhook", &counts.by_webhook),
        ("event type", &counts.by_event_type),
        ("last status", &counts.by_status),
        ("day", &counts.by_day),
    ] {
        let mut words: Vec<(&String, &u64)> = by.iter().collect();
        if kind != "day" {
            words.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        }
        let shown = words.iter().take(MOST);
        let shown: Vec<String> = shown
            .map(|(word, count)| format!("{} {count}", escaped(word)))
            .collect();
        if shown.is_empty() {
            continue;
        }
        let more = words.len().saturating_sub(MOST);
        let more = if more > 0 {
            format!(", and {more} more")
        } else {
            String::new()
        };
        text.push_str(&format!("  by {kind}: {}{more}\n", shown.join(", ")));
    }
    text
}

/// Asks on the terminal.
fn confirmed(question: &str) -> anyhow::Result<bool> {
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(
        answer.trim().to_ascii_lowercase().as_str(),
        "y" | "yes"
    ))
}
