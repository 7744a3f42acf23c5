//! Replays and discards by the API: counted there, asked here, worked on by the routers.

use std::time::Duration;

use anyhow::bail;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::Answer;
use super::super::output::{Output, escaped, print, print_json};
use super::super::remote::{Client, segment};
use crate::pipeline::replaying::Counts;

const LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Deserialize)]
struct Ordered {
    counts: Counts,
    replay: Option<Value>,
}

/// What is to be ordered.
pub(super) struct Order {
    /// `/replays/` or `/dead-letters/discard/`.
    pub(super) path: &'static str,
    pub(super) body: Map<String, Value>,
    pub(super) dry_run: bool,
    /// Ask on the terminal before it begins.
    pub(super) must_ask: bool,
    /// Stay until it has ended.
    pub(super) follow: bool,
    pub(super) output: Output,
}

impl Order {
    /// Counts, asks, begins, and follows.
    pub(super) fn carry_out(mut self, client: &Client) -> Answer {
        let verb = if self.path == "/replays/" {
            "replay"
        } else {
            "discard"
        };
        self.body.insert("dry_run".to_owned(), true.into());
        let counted: Ordered = client.post(self.path, &self.body.clone().into())?;
        super::tell_left(&counted.counts);
        let text = format!("to {verb}: {}", super::describe(&counted.counts));
        if self.dry_run || counted.counts.total == 0 {
            return match self.output {
                Output::Json => print_json(&counted.counts),
                Output::Table => print(&format!("{text}\n{}", super::told_apart(&counted.counts))),
            };
        }
        eprintln!("{text}");
        if self.must_ask && !super::confirmed(&format!("To {verb} them?"))? {
            return print("nothing was done\n");
        }
        self.body.insert("dry_run".to_owned(), false.into());
        let begun: Ordered = client.post(self.path, &self.body.clone().into())?;
        let Some(mut replay) = begun.replay else {
            return print("nothing was left to do\n");
        };
        let id = replay["id"].as_str().unwrap_or_default().to_owned();
        let mut said = None;
        while self.follow && replay["state"] == "running" {
            let done = replay["done"].clone();
            if said.as_ref() != Some(&done) {
                eprintln!("{} of {} ({})", done, replay["total"], escaped(&id));
                said = Some(done);
            }
            std::thread::sleep(LOOK_EVERY);
            replay = client.get(&format!("/replays/{}/", segment(&id)), &[])?;
        }
        let letters = super::letters(replay["done"].as_u64().unwrap_or(0));
        match self.output {
            Output::Json => print_json(&replay)?,
            Output::Table if verb == "discard" => print(&super::discarded(&letters, &id))?,
            Output::Table if replay["state"] == "finished" => {
                print(&super::replayed(&letters, &id))?;
            }
            Output::Table => print(&format!(
                "{}: {}, {} of {}\n",
                escaped(&id),
                escaped(replay["state"].as_str().unwrap_or_default()),
                replay["done"],
                replay["total"]
            ))?,
        }
        if self.follow && replay["state"] != "finished" {
            let note = replay["note"].as_str().unwrap_or("somebody told it to");
            bail!("{} did not finish: {}", escaped(&id), escaped(note));
        }
        Ok(())
    }
}

/// Takes a discard back.
pub(super) fn undo(client: &Client, id: &str, output: Output) -> Answer {
    let job: Value = client.post(&format!("/replays/{}/undo/", segment(id)), &json!({}))?;
    match output {
        Output::Json => print_json(&json!({"id": job["id"], "undone": job["done"]})),
        Output::Table => print(&format!(
            "{} was taken back; {} wait again\n",
            escaped(id),
            super::letters(job["done"].as_u64().unwrap_or(0))
        )),
    }
}
