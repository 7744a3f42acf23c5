//! `dead-letters list`: the newest that are meant, and how many there are by reason. Memory follows `--limit`, not the topic.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::super::output::{Output, escaped, print, print_json, same_time, table, time};
use super::super::remote::{Client, PAGE, Remote};
use super::super::{Answer, Context};
use super::selection::Selection;
use crate::retry::dead_letter::DeadLetter;
use crate::retry::replay::{Deed, Fate, Job};

const MESSAGE_CHARACTERS: usize = 60;

#[derive(Args)]
pub(super) struct List {
    #[command(flatten)]
    selection: Selection,
    /// Also those that were replayed or discarded
    #[arg(long)]
    all: bool,
    /// Show at most so many, the newest
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: usize,
    /// Another program's dead-letter topic; those of Kafka Connect and Spring are understood
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// A line of the list; its field names are what scripts hold on to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Line {
    /// `partition/offset`.
    place: String,
    topic: String,
    #[serde(skip)]
    died_at_ms: i64,
    died_at: String,
    reason: String,
    webhook_id: Option<String>,
    delivery_id: Option<String>,
    event_type: Option<String>,
    attempts: Option<u32>,
    last_status: Option<u16>,
    /// How often it had been replayed before it died: more than once is a loop.
    replays: u32,
    fate: String,
    /// That it goes round, where it does.
    #[serde(default)]
    note: Option<String>,
    /// The job that replayed or discarded it.
    job: Option<String>,
    replayable: bool,
    error_message: String,
}

impl Line {
    pub(super) fn new(letter: &DeadLetter, job: Option<&Job>) -> Self {
        let fate = match job.map(|job| job.deed) {
            None => Fate::Waiting,
            Some(Deed::Replay) => Fate::Replayed,
            Some(Deed::Discard) => Fate::Discarded,
        };
        Self {
            place: format!("{}/{}", letter.place.partition, letter.place.offset),
            topic: letter.place.topic.to_string(),
            died_at_ms: letter.died_at_ms,
            died_at: time(letter.died_at_ms),
            reason: letter.reason.clone(),
            webhook_id: letter.webhook.clone(),
            delivery_id: letter.delivery.as_ref().map(|delivery| delivery.id.clone()),
            event_type: letter.event_type.clone(),
            attempts: letter.attempts,
            last_status: letter.last_status,
            replays: letter.replay_count,
            fate: fate.as_str().to_owned(),
            note: letter.note(),
            job: job.map(|job| job.id.clone()),
            replayable: letter.is_replayable(),
            error_message: letter.message.clone(),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Found {
    results: Vec<Line>,
    total: u64,
    by_reason: BTreeMap<String, u64>,
    /// Of a page of the API.
    #[serde(default, skip_serializing)]
    next: Option<String>,
}

/// The newest lines of each partition as they come, which is in order of offset.
struct Newest {
    limit: usize,
    by_partition: BTreeMap<i32, VecDeque<Line>>,
}

impl Newest {
    fn keep(&mut self, partition: i32, line: Line) {
        let lines = self.by_partition.entry(partition).or_default();
        lines.push_back(line);
        if lines.len() > self.limit {
            lines.pop_front();
        }
    }

    fn into_lines(self) -> Vec<Line> {
        let mut lines: Vec<Line> = self.by_partition.into_values().flatten().collect();
        lines.sort_by_key(|line| line.died_at_ms);
        let surplus = lines.len().saturating_sub(self.limit);
        lines.split_off(surplus)
    }
}

impl List {
    pub(super) fn run(self, context: &Context, remote: &Remote) -> Answer {
        let found = match remote.client()? {
            Some(client) => self.ask(&client)?,
            None => self.read(context)?,
        };
        match self.output {
            Output::Json => print_json(&found),
            Output::Table => print(&as_table(&found, self.all)),
        }
    }

    fn read(&self, context: &Context) -> anyhow::Result<Found> {
        let replaying = super::open(context, self.topic.as_deref())?;
        let mut newest = Newest {
            limit: self.limit,
            by_partition: BTreeMap::new(),
        };
        let mut total = 0;
        let mut by_reason: BTreeMap<String, u64> = BTreeMap::new();
        replaying.letters(&self.selection.clone().filter(), |letter, job| {
            if self.all || job.is_none() {
                total += 1;
                *by_reason.entry(letter.reason.clone()).or_default() += 1;
                newest.keep(letter.place.partition, Line::new(&letter, job));
            }
            ControlFlow::Continue(())
        })?;
        Ok(Found {
            results: newest.into_lines(),
            total,
            by_reason,
            next: None,
        })
    }

    fn ask(&self, client: &Client) -> anyhow::Result<Found> {
        let mut asked: Vec<(&str, String)> = Vec::new();
        asked.extend(self.topic.clone().map(|topic| ("topic", topic)));
        for (name, value) in self.selection.members() {
            let text = value.as_str().map(str::to_owned);
            asked.push((name, text.unwrap_or_else(|| value.to_string())));
        }
        if self.all {
            asked.push(("fate", "all".to_owned()));
        }
        let page = |size: usize, cursor: Option<String>| -> anyhow::Result<Found> {
            let mut query = asked.clone();
            query.push(("page_size", size.clamp(1, PAGE).to_string()));
            query.extend(cursor.map(|cursor| ("cursor", cursor)));
            client.get("/dead-letters/", &query)
        };
        let mut found = page(self.limit, None)?;
        while found.results.len() < self.limit {
            let Some(cursor) = found.next.take() else {
                break;
            };
            let more = page(self.limit - found.results.len(), Some(cursor))?;
            found.results.extend(more.results);
            found.next = more.next;
        }
        found.results.truncate(self.limit);
        // The API begins with the newest, this list ends with it.
        found.results.reverse();
        for line in &mut found.results {
            line.died_at = same_time(&line.died_at);
        }
        Ok(found)
    }
}

fn as_table(found: &Found, all: bool) -> String {
    if found.total == 0 {
        let hint = if all {
            ""
        } else {
            "; --all also shows those that were replayed or discarded"
        };
        return format!("no dead letters{hint}\n");
    }
    let mut rows = table(&[
        "place",
        "died at",
        "reason",
        "webhook",
        "event type",
        "attempts",
        "status",
        "replays",
        "fate",
        "message",
    ]);
    let or_dash = |text: Option<String>| escaped(&text.unwrap_or_else(|| "-".to_owned()));
    for line in &found.results {
        let message: String = line
            .error_message
            .chars()
            .take(MESSAGE_CHARACTERS)
            .collect();
        rows.add_row([
            line.place.clone(),
            line.died_at.clone(),
            escaped(&line.reason),
            or_dash(line.webhook_id.clone()),
            or_dash(line.event_type.clone()),
            or_dash(line.attempts.map(|attempts| attempts.to_string())),
            or_dash(line.last_status.map(|status| status.to_string())),
            line.replays.to_string(),
            escaped(&line.fate),
            escaped(&message),
        ]);
    }
    let reasons: Vec<String> = found
        .by_reason
        .iter()
        .map(|(reason, count)| format!("{} {count}", escaped(reason)))
        .collect();
    let shown = found.results.len();
    let note = if u64::try_from(shown).is_ok_and(|shown| shown < found.total) {
        format!("; the newest {shown} are shown, --limit shows more")
    } else {
        String::new()
    };
    format!(
        "{rows}\n\n{}: {}{note}\n",
        super::letters(found.total),
        reasons.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Record, SourceOffset};

    fn line(partition: i32, offset: i64, died_at_ms: i64) -> Line {
        let letter = DeadLetter::from_record(Record {
            topic: "dead".into(),
            partition,
            offset: SourceOffset(offset),
            timestamp_ms: Some(died_at_ms),
            key: None,
            payload: None,
            headers: Vec::new(),
        });
        Line::new(&letter, None)
    }

    #[test]
    fn the_newest_over_all_partitions_are_shown_oldest_first() {
        let mut newest = Newest {
            limit: 2,
            by_partition: BTreeMap::new(),
        };
        for (partition, offset, died_at_ms) in [(0, 0, 1), (0, 1, 5), (1, 0, 2), (1, 1, 4)] {
            newest.keep(partition, line(partition, offset, died_at_ms));
        }
        let places: Vec<String> = newest
            .into_lines()
            .into_iter()
            .map(|line| line.place)
            .collect();
        assert_eq!(places, ["1/1", "0/1"]);
    }

    #[test]
    fn a_list_says_what_is_left_out_and_no_letter_can_steer_the_terminal() {
        let mut shown = line(0, 1, 5);
        shown.error_message = "\u{1b}[2J".to_owned();
        let found = Found {
            results: vec![shown],
            total: 3,
            by_reason: BTreeMap::from([("foreign".to_owned(), 3)]),
            next: None,
        };
        let text = as_table(&found, false);
        assert!(
            text.contains("3 dead letters: foreign 3; the newest 1 are shown"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'));
    }
}
