//! What became of a delivery. Every fact is in a topic, so the topics are read: all of those that a delivery passes, from their first
//! record (or from `--since`) to the end that they have now.

use std::io::IsTerminal;
use std::ops::ControlFlow;
use std::sync::Arc;

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};

use super::story::{Step, Story};
use crate::app;
use crate::cli::Answer;
use crate::cli::output::{self, Output};
use crate::config::Config;
use crate::kafka::settings::Connection;
use crate::kafka::table::{Span, narrow_to_time, scan, spans};
use crate::pipeline::now_ms;
use crate::pipeline::topics::Topics;

pub(super) fn explain(
    id: &str,
    since: Option<jiff::Timestamp>,
    output: Output,
    config: &Config,
) -> Answer {
    if !is_delivery_id(id) {
        bail!(
            "`{id}` is no delivery id; one is dlv_ and 32 hex digits, as receivers see it in the header webhook-id"
        );
    }
    let topics = Topics::new(&config.kafka.topic_prefix);
    let (connection, cluster) = app::reached(config)?;
    let delays = topics.delays().map(|(_, name)| name);
    let names: Vec<&Arc<str>> = [
        &topics.attempts,
        &topics.dispatch,
        &topics.held,
        &topics.dead_letters,
    ]
    .into_iter()
    .chain(delays)
    .filter(|name| cluster.topics.contains_key(name.as_ref()))
    .collect();
    if names.is_empty() {
        bail!(
            "no topic of Postrider begins with `{}` here; check kafka.topic_prefix, or make them with `postrider topics apply`",
            config.kafka.topic_prefix
        );
    }
    let steps = steps(id, &names, since, &connection, &topics)?;
    let now_ms = now_ms();
    let Some(story) = Story::of(id, steps, now_ms) else {
        let since = since.map_or(String::new(), |time| format!(" since {time}"));
        bail!(
            "nothing tells of {id} in the {} topics of {}*{since}; it is another cluster's, or the topics' retention has passed",
            names.len(),
            config.kafka.topic_prefix
        );
    };
    match output {
        Output::Json => output::print_json(&story),
        Output::Table => output::print(&text(&story, now_ms)),
    }
}

fn is_delivery_id(text: &str) -> bool {
    text.strip_prefix("dlv_")
        .is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn steps(
    id: &str,
    names: &[&Arc<str>],
    since: Option<jiff::Timestamp>,
    connection: &Connection,
    topics: &Topics,
) -> anyhow::Result<Vec<Step>> {
    let mut parts: Vec<(&str, Vec<Span>)> = Vec::new();
    for name in names {
        let mut stretch = spans(connection, name)?;
        if let Some(since) = since {
            narrow_to_time(connection, name, &mut stretch, since.as_millisecond())?;
        }
        parts.push((name, stretch));
    }
    let total: u64 = parts
        .iter()
        .flat_map(|(_, stretch)| stretch)
        .map(|span| span.to.saturating_sub(span.from).max(0).unsigned_abs())
        .sum();
    let progress = progress(total);
    let mut steps = Vec::new();
    for (name, stretch) in parts {
        progress.set_message(name.to_owned());
        scan(connection, name, &stretch, |record| {
            progress.inc(1);
            steps.extend(Step::read(record, id, topics));
            ControlFlow::Continue(())
        })?;
    }
    progress.finish_and_clear();
    Ok(steps)
}

/// On a terminal a bar; otherwise nothing, the answer says it all.
fn progress(total: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} records {msg}") {
        bar.set_style(style);
    }
    bar
}

fn text(story: &Story, now_ms: i64) -> String {
    let shown = |text: &Option<String>| output::escaped(text.as_deref().unwrap_or("unknown"));
    let mut text = format!(
        "{}: {} for {}, from {}\n\n",
        story.delivery_id,
        shown(&story.event_type),
        shown(&story.webhook_id),
        shown(&story.source),
    );
    let mut table = output::table(&["at", "what", "told by"]);
    for step in &story.steps {
        table.add_row([step.at.clone(), step.sentence(), step.place.clone()]);
    }
    text.push_str(&format!(
        "{}\n\n{}\n",
        table.trim_fmt(),
        story.conclusion(now_ms)
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_looks_like_a_delivery_id_is_searched_for() {
        assert!(is_delivery_id("dlv_0123456789abcdef0123456789abcdef"));
        for text in [
            "",
            "dlv_",
            "0123456789abcdef0123456789abcdef",
            "dlv_0123456789abcdef0123456789abcdeg",
            "wh_1",
        ] {
            assert!(!is_delivery_id(text), "{text}");
        }
    }
}
