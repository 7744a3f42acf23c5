//! `dead-letters show`: one dead letter, whole.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};

use super::super::output::{Output, body, escaped, print, print_json};
use super::super::{Answer, Context};
use super::list::Line;
use crate::delivery::headers::INLINE_WEBHOOK;
use crate::pipeline::replaying::Replaying;
use crate::record::{Header, Source};
use crate::retry::dead_letter::DeadLetter;
use crate::retry::replay::{Deed, Job, LetterFilter};

#[derive(Args)]
pub(super) struct Show {
    /// `partition/offset` as the list shows it, `topic/partition/offset`, or a delivery id
    #[arg(value_name = "PLACE|DELIVERY_ID")]
    letter: String,
    /// Another program's dead-letter topic
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

struct Shown {
    letter: DeadLetter,
    job: Option<Job>,
    /// Where the same delivery died before.
    earlier: Vec<String>,
}

enum Wanted {
    Place {
        topic: Option<String>,
        partition: i32,
        offset: i64,
    },
    Delivery(String),
}

impl Wanted {
    fn read(text: &str) -> Option<Self> {
        if !text.contains('/') {
            return Some(Self::Delivery(text.to_owned()));
        }
        if let Ok(Source {
            topic,
            partition,
            offset,
        }) = text.parse()
        {
            return Some(Self::Place {
                topic: Some(topic.to_string()),
                partition,
                offset,
            });
        }
        let (partition, offset) = text.split_once('/')?;
        Some(Self::Place {
            topic: None,
            partition: partition.parse().ok()?,
            offset: offset.parse().ok()?,
        })
    }
}

impl Show {
    pub(super) fn run(self, context: &Context) -> Answer {
        let Some(wanted) = Wanted::read(&self.letter) else {
            super::super::wrong_usage(
                "name a dead letter by partition/offset (0/42), topic/partition/offset, or its delivery id (dlv_…)",
            );
        };
        let shown = match wanted {
            Wanted::Delivery(id) => newest_of(&super::open(context, self.topic.as_deref())?, id)?,
            Wanted::Place {
                topic,
                partition,
                offset,
            } => {
                let replaying = super::open(context, topic.as_deref().or(self.topic.as_deref()))?;
                let letter = replaying.letter_at(partition, offset)?.with_context(|| {
                    format!(
                        "there is no dead letter at {}, or no longer; `postrider dead-letters list --all` shows what there is",
                        self.letter
                    )
                })?;
                Shown {
                    job: replaying.jobs()?.doer(&letter).cloned(),
                    letter,
                    earlier: Vec::new(),
                }
            }
        };
        match self.output {
            Output::Json => print_json(&as_json(&shown)?),
            Output::Table => print(&as_text(&shown)),
        }
    }
}

fn newest_of(replaying: &Replaying, id: String) -> anyhow::Result<Shown> {
    let mut shown: Option<Shown> = None;
    let filter = LetterFilter {
        delivery: Some(id.clone()),
        ..LetterFilter::default()
    };
    replaying.letters(&filter, |letter, job| {
        let mut earlier = shown.take().map_or_else(Vec::new, |before| {
            let mut earlier = before.earlier;
            earlier.push(before.letter.place.to_string());
            earlier
        });
        shown = Some(Shown {
            letter,
            job: job.cloned(),
            earlier: std::mem::take(&mut earlier),
        });
        ControlFlow::Continue(())
    })?;
    match shown {
        Some(shown) => Ok(shown),
        None => bail!(
            "no dead letter of the delivery {id} is in the topic; it may have been delivered, wait on the ladder, or be older than the retention"
        ),
    }
}

fn header_text(header: &Header) -> String {
    match (&header.value, header.as_text()) {
        (None, _) => "(no value)".to_owned(),
        (Some(_), Some(text)) if header.name == INLINE_WEBHOOK && text.starts_with('{') => {
            "(encrypted)".to_owned()
        }
        (Some(_), Some(text)) => escaped(text).replace('\n', "\\n"),
        (Some(value), None) => format!("0x{}", hex(value)),
    }
}

fn as_text(shown: &Shown) -> String {
    let letter = &shown.letter;
    let line = serde_json::to_value(Line::new(letter, shown.job.as_ref())).unwrap_or_default();
    let mut text = String::new();
    let mut field = |name: &str, value: String| {
        text.push_str(&format!("{:<14} {value}\n", format!("{name}:")));
    };
    field("place", letter.place.to_string());
    for name in [
        "died_at",
        "reason",
        "error_message",
        "webhook_id",
        "delivery_id",
        "event_type",
        "attempts",
        "last_status",
        "replays",
        "note",
    ] {
        match &line[name] {
            Value::Null => {}
            Value::String(value) if value.is_empty() => {}
            Value::String(value) => field(&name.replace('_', " "), escaped(value)),
            value => field(&name.replace('_', " "), value.to_string()),
        }
    }
    if let Some(delivery) = &letter.delivery {
        field("source", escaped(&delivery.source.to_string()));
    }
    field("fate", fate(shown));
    if !shown.earlier.is_empty() {
        field("died before", shown.earlier.join(", "));
    }
    if let Some(full_bytes) = letter.full_bytes {
        field(
            "cut",
            format!("the body had {full_bytes} bytes; it stands whole at its source"),
        );
    }
    text.push_str("\nheaders\n");
    for header in &letter.record.headers {
        text.push_str(&format!(
            "  {}: {}\n",
            escaped(&header.name),
            header_text(header)
        ));
    }
    let bytes = letter.record.payload.as_deref().unwrap_or_default();
    let shown_body = if std::str::from_utf8(bytes).is_ok() {
        body(bytes)
    } else {
        dump(bytes)
    };
    text.push_str(&format!(
        "\nbody ({} bytes)\n{}\n",
        bytes.len(),
        shown_body.trim_end()
    ));
    text
}

fn fate(shown: &Shown) -> String {
    match &shown.job {
        None if shown.letter.is_replayable() => "waiting; it can be replayed".to_owned(),
        None => "waiting; it cannot be replayed as a delivery (never one, which --into or --to-webhook send, or cut to fit)".to_owned(),
        Some(job) if job.deed == Deed::Replay => format!("replayed by {}", job.id),
        Some(job) => format!("discarded by {}: {}", job.id, escaped(&job.reason)),
    }
}

fn as_json(shown: &Shown) -> anyhow::Result<Value> {
    let letter = &shown.letter;
    let mut value = serde_json::to_value(Line::new(letter, shown.job.as_ref()))?;
    let mut headers: BTreeMap<&str, Value> = BTreeMap::new();
    for header in &letter.record.headers {
        headers.insert(
            &header.name,
            json!(
                header
                    .as_text()
                    .map_or_else(|| header_text(header), str::to_owned)
            ),
        );
    }
    let bytes = letter.record.payload.as_deref().unwrap_or_default();
    value["headers"] = json!(headers);
    value["source"] = json!(
        letter
            .delivery
            .as_ref()
            .map(|delivery| delivery.source.to_string())
    );
    value["died_before"] = json!(shown.earlier);
    value["discard_reason"] = json!(
        shown
            .job
            .as_ref()
            .filter(|job| job.deed == Deed::Discard)
            .map(|job| &job.reason)
    );
    value["full_bytes"] = json!(letter.full_bytes);
    // A text, not the JSON within: numbers and the order of members stay as the producer wrote them.
    match std::str::from_utf8(bytes) {
        Ok(text) => value["body"] = json!(text),
        Err(_) => value["body_hex"] = json!(hex(bytes)),
    }
    Ok(value)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Sixteen bytes a line: place, hex, and what is printable.
fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (index, line) in bytes.chunks(16).enumerate() {
        let pairs: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let printable: String = line
            .iter()
            .map(|byte| match byte {
                b' '..=b'~' => char::from(*byte),
                _ => '.',
            })
            .collect();
        text.push_str(&format!(
            "{:08x}  {:<47}  {printable}\n",
            index * 16,
            pairs.join(" ")
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_named_by_place_or_by_delivery() {
        assert!(matches!(
            Wanted::read("1/42"),
            Some(Wanted::Place {
                topic: None,
                partition: 1,
                offset: 42
            })
        ));
        assert!(matches!(
            Wanted::read("postrider.dead-letters/1/42"),
            Some(Wanted::Place {
                topic: Some(_),
                partition: 1,
                offset: 42
            })
        ));
        assert!(matches!(Wanted::read("dlv_ab"), Some(Wanted::Delivery(_))));
        for text in ["1/", "/", "a/b", "1/2/3/4"] {
            assert!(Wanted::read(text).is_none(), "{text}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_hex() {
        assert_eq!(
            dump(b"\xff\x00raw\x1b"),
            format!("00000000  {:<47}  ..raw.\n", "ff 00 72 61 77 1b")
        );
    }
}
