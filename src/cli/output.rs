//! What commands print: tables for people, JSON for programs, bodies so that a terminal is safe from them.

use std::io::Write;

use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde::Serialize;
use serde::de::IgnoredAny;

use super::Answer;

/// The form of a command's results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}

/// Prints text to stdout. A reader that went away (`| head`) is an error, not a panic as it would be with `print!`.
pub(super) fn print(text: &str) -> Answer {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()?;
    Ok(())
}

/// Prints a value as JSON with line breaks.
pub(super) fn print_json(value: &impl Serialize) -> Answer {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// A table without lines, as wide as its contents, so that `grep` and `awk` work on it.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.iter().map(|name| name.to_uppercase()));
    table
}

/// A time (Unix milliseconds) in RFC 3339, UTC.
pub(super) fn time(milliseconds: i64) -> String {
    jiff::Timestamp::from_millisecond(milliseconds).map_or_else(
        |_| format!("{milliseconds} ms"),
        |time| time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
    )
}

/// A time in RFC 3339 as [`time`] writes it.
pub(super) fn same_time(text: &str) -> String {
    let parsed = text.parse::<jiff::Timestamp>();
    parsed.map_or_else(|_| escaped(text), |moment| time(moment.as_millisecond()))
}

/// A body for a terminal: JSON with line breaks, its members and numbers as they were written; other text as it is; else how
/// many bytes. Control characters, which could steer the terminal, are shown as escapes.
pub(super) fn body(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "(no body)".to_owned();
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        let first: String = bytes
            .iter()
            .take(32)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        return format!("({} bytes that are not text: {first}…)", bytes.len());
    };
    if serde_json::from_str::<IgnoredAny>(text).is_ok() {
        indented(text)
    } else {
        escaped(text)
    }
}

/// Text in which control characters other than line breaks are shown as escapes.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        push_safe(&mut safe, character);
    }
    safe
}

fn push_safe(text: &mut String, character: char) {
    if character.is_control() && character != '\n' {
        text.extend(character.escape_unicode());
    } else {
        text.push(character);
    }
}

/// Valid JSON with new white space between its tokens, and nothing else changed: a parser would lose `1.0` and the order.
fn indented(json: &str) -> String {
    let mut text = String::with_capacity(json.len() * 2);
    let mut depth: usize = 0;
    let mut in_string = false;
    let mut after_backslash = false;
    let mut after_opening = false;
    let line = |text: &mut String, depth: usize| {
        text.push('\n');
        text.extend(std::iter::repeat_n("  ", depth));
    };
    for character in json.chars() {
        if in_string {
            push_safe(&mut text, character);
            in_string = after_backslash || character != '"';
            after_backslash = character == '\\' && !after_backslash;
            continue;
        }
        match character {
            ' ' | '\t' | '\r' | '\n' => continue,
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                if !after_opening {
                    line(&mut text, depth);
                }
            }
            _ if after_opening => line(&mut text, depth),
            _ => {}
        }
        text.push(character);
        after_opening = false;
        match character {
            '{' | '[' => {
                depth += 1;
                after_opening = true;
            }
            ',' => line(&mut text, depth),
            ':' => text.push(' '),
            '"' => in_string = true,
            _ => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_body_is_indented_and_otherwise_as_it_was_written() {
        let shown = body(
            b"{ \"z\":1.0e2,\"a\":[ ],\"s\":\"x,{\\\"}\\\\\",\n\"o\":{\"k\":[1,true]},\"e\":{}}",
        );
        let wanted = "{\n  \"z\": 1.0e2,\n  \"a\": [],\n  \"s\": \"x,{\\\"}\\\\\",\n  \"o\": {\n    \"k\": [\n      1,\n      true\n    ]\n  },\n  \"e\": {}\n}";
        assert_eq!(shown, wanted);
    }

    #[test]
    fn no_body_can_steer_the_terminal() {
        for bytes in [
            &b"\x1b[2Jtext"[..],
            "\"\u{9b}2J\"".as_bytes(),
            b"\xff\x1b[2J",
            b"a\rb",
        ] {
            let shown = body(bytes);
            assert!(!shown.chars().any(char::is_control), "{shown:?}");
        }
        assert_eq!(body(b""), "(no body)");
    }

    #[test]
    fn a_time_is_said_in_utc() {
        assert_eq!(time(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        assert_eq!(time(i64::MAX), format!("{} ms", i64::MAX));
    }
}
