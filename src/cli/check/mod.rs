//! `postrider check`: everything that would keep the router from its work, found before it runs. It changes nothing but that one
//! tombstone of a key that nobody has is written to the replays topic, whose stamp tells the broker's time.
//!
//! One line a check, `ok`, `warning` or `wrong`, what is so, and the cure. What cannot be asked because an earlier check failed is
//! left out.
//!
//! - `cluster`: the broker, topics, sources
//! - `rights`: what the cluster lets us do with topics and groups
//! - `clock`: against the broker's
//! - `store`: the place of the history
//! - `catalog`: the webhooks and the key of their secrets
//! - `machine`: the addresses to listen on, certificate authorities

mod catalog;
mod clock;
mod cluster;
mod machine;
mod rights;
mod store;

use anyhow::bail;
use clap::Args;
use serde::Serialize;

use super::output::{self, Output};
use super::{Answer, Context};
use crate::config::{Config, process_environment};

#[derive(Args)]
pub(super) struct Check {
    /// The form of the answer
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Warning,
    Wrong,
}

impl State {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Wrong => "wrong",
        }
    }
}

/// The outcome of one check.
#[derive(Debug, Serialize)]
struct Line {
    check: &'static str,
    state: State,
    /// What is so.
    detail: String,
    /// What to do about it; empty when nothing is to be done.
    cure: String,
}

impl Line {
    fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self::of(check, State::Ok, detail, "")
    }

    fn warning(check: &'static str, detail: impl Into<String>, cure: impl Into<String>) -> Self {
        Self::of(check, State::Warning, detail, cure)
    }

    fn wrong(check: &'static str, detail: impl Into<String>, cure: impl Into<String>) -> Self {
        Self::of(check, State::Wrong, detail, cure)
    }

    fn of(
        check: &'static str,
        state: State,
        detail: impl Into<String>,
        cure: impl Into<String>,
    ) -> Self {
        Self {
            check,
            state,
            detail: detail.into(),
            cure: cure.into(),
        }
    }
}

/// Where the outcomes go: to people at once, to programs at the end.
struct Report {
    form: Output,
    lines: Vec<Line>,
}

impl Report {
    fn tell(&mut self, line: Line) -> Answer {
        if self.form == Output::Table {
            let mut text = format!(
                "{:<9}{:<14}{}",
                line.state.as_str(),
                line.check,
                line.detail
            );
            if !line.cure.is_empty() {
                text.push_str("; ");
                text.push_str(&line.cure);
            }
            output::print(&format!("{}\n", output::escaped(&text)))?;
        }
        self.lines.push(line);
        Ok(())
    }

    fn end(self) -> Answer {
        if self.form == Output::Json {
            output::print_json(&self.lines)?;
        }
        let mut wrong: Vec<&str> = self
            .lines
            .iter()
            .filter(|line| line.state == State::Wrong)
            .map(|line| line.check)
            .collect();
        // Several lines of one check stand together.
        wrong.dedup();
        if wrong.is_empty() {
            return Ok(());
        }
        bail!("wrong: {}; see what is said of it above", wrong.join(", "))
    }
}

impl Check {
    pub(super) fn run(self, context: &Context) -> Answer {
        let mut report = Report {
            form: self.output,
            lines: Vec::new(),
        };
        let path = Config::path(context.path.as_deref(), &process_environment());
        let file = path.map_or_else(
            || "no file, defaults and environment".to_owned(),
            |path| path.display().to_string(),
        );
        match context.config() {
            Ok(config) => {
                report.tell(Line::ok("configuration", file))?;
                // A client of HTTP wants a runtime around it even where nothing is sent.
                super::runtime()?.block_on(async {
                    machine::check(&config, &mut report)?;
                    report.tell(store::check(&config).await)?;
                    cluster::check(&config, &mut report).await
                })?;
            }
            Err(fault) => {
                let text = format!("{fault:#}");
                // Several faults stand under a heading; here each has a line anyway.
                let one_each = text.lines().skip(usize::from(text.lines().count() > 1));
                for fault in one_each {
                    report.tell(Line::wrong("configuration", fault.trim(), ""))?;
                }
            }
        }
        report.end()
    }
}
