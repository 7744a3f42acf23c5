//! What the demo says, line by line: coloured on a terminal unless `NO_COLOR` is set (<https://no-color.org>).

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// What a line is about: its sign and its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    Delivered,
    Retried,
    Dead,
    Replayed,
    /// Something happens in the demo itself.
    Notice,
    /// How things stand.
    Status,
}

impl Sign {
    const fn symbol(self) -> &'static str {
        match self {
            Self::Delivered => "✓",
            Self::Retried => "↻",
            Self::Dead => "✗",
            Self::Replayed => "↺",
            Self::Notice => "!",
            Self::Status => "·",
        }
    }

    /// The number of an ANSI colour, SGR.
    const fn colour(self) -> &'static str {
        match self {
            Self::Delivered => "32",
            Self::Retried => "33",
            Self::Dead => "31",
            Self::Replayed => "36",
            Self::Notice => "1",
            Self::Status => "2",
        }
    }
}

/// See the module's text.
pub(super) struct Screen {
    start: Instant,
    coloured: bool,
    /// Set when whoever read our lines has gone away (`| head`).
    gone: AtomicBool,
}

impl Screen {
    pub(super) fn new() -> Self {
        let forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            start: Instant::now(),
            coloured: std::io::stdout().is_terminal() && !forbidden,
            gone: AtomicBool::new(false),
        }
    }

    /// Text as it is.
    pub(super) fn plain(&self, text: impl Display) {
        let mut stdout = std::io::stdout().lock();
        let written = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
        if written.is_err() {
            self.gone.store(true, Ordering::Release);
        }
    }

    /// A line with the seconds since the start and its sign.
    pub(super) fn line(&self, sign: Sign, text: impl Display) {
        let seconds = self.start.elapsed().as_secs_f64();
        let line = format!("{} {text}", sign.symbol());
        if self.coloured {
            self.plain(format_args!(
                "{seconds:6.1} s  \x1b[{}m{line}\x1b[0m",
                sign.colour()
            ));
        } else {
            self.plain(format_args!("{seconds:6.1} s  {line}"));
        }
    }

    /// Whether nobody reads what is written.
    pub(super) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }
}
