//! `postrider replays`: the replay jobs, and what the routers are to do with theirs.

use clap::{Args, Subcommand};

use serde::Deserialize;
use serde_json::{Value, json};

use super::output::{Output, escaped, print, print_json, table};
use super::remote::{Client, Remote, segment};
use super::{Answer, Context};
use crate::app;
use crate::pipeline::replaying::Replaying;
use crate::pipeline::topics::Topics;
use crate::retry::replay::{Deed, Job, Runner, State, Want};

/// `postrider replays`.
#[derive(Args)]
pub(super) struct Replays {
    #[command(flatten)]
    remote: Remote,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lists replays and discards, newest last
    List(Listing),
    /// Shows one
    Show(One),
    /// Tells the routers to stop working on it for now
    Pause(One),
    /// Tells the routers to go on with it
    Resume(One),
    /// Tells the routers to end it for good
    Cancel(One),
}

#[derive(Args)]
struct Listing {
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Args)]
struct One {
    /// Its id, rp_…
    #[arg(value_name = "REPLAY_ID")]
    id: String,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl Replays {
    pub(super) fn run(self, context: &Context) -> Answer {
        if let Some(client) = self.remote.client()? {
            return self.ask(&client);
        }
        let config = context.config()?;
        let (connection, _) = super::runtime()?.block_on(app::planned(&config))?;
        let topics = Topics::new(&config.kafka.topic_prefix);
        let replaying = Replaying::open(connection, &topics, None)?;
        let (one, want) = match self.command {
            Command::List(listing) => {
                let mut jobs = replaying.jobs()?.0;
                jobs.sort_by_key(|job| job.created_at_ms);
                return show(&jobs, listing.output);
            }
            Command::Show(one) => {
                let job = replaying.job(&one.id)?;
                return match one.output {
                    Output::Json => print_json(&job),
                    Output::Table => show(&[job], Output::Table),
                };
            }
            Command::Pause(one) => (one, Want::Pause),
            Command::Resume(one) => (one, Want::Run),
            Command::Cancel(one) => (one, Want::Cancel),
        };
        let job = replaying.wish(&one.id, want)?;
        match one.output {
            Output::Json => print_json(&job),
            Output::Table => {
                let word = match want {
                    Want::Run => "resumed",
                    Want::Pause => "paused",
                    Want::Cancel => "cancelled",
                };
                print(&format!(
                    "{}: the routers were told; it is {word} after its batch\n",
                    job.id
                ))
            }
        }
    }
}

/// A replay as the API shows it.
#[derive(Deserialize)]
struct Shown {
    id: String,
    deed: String,
    by: String,
    state: String,
    done: u64,
    total: u64,
    reason_text: Option<String>,
    note: Option<String>,
}

impl Replays {
    fn ask(self, client: &Client) -> Answer {
        let (one, word) = match self.command {
            Command::List(listing) => {
                let mut all: Vec<Value> = Vec::new();
                let mut query = vec![("page_size", "200".to_owned())];
                loop {
                    let page: Value = client.get("/replays/", &query)?;
                    all.extend(page["results"].as_array().into_iter().flatten().cloned());
                    match page["next"].as_str() {
                        Some(next) => {
                            query.truncate(1);
                            query.push(("cursor", next.to_owned()));
                        }
                        None => break,
                    }
                }
                all.reverse();
                return match listing.output {
                    Output::Json => print_json(&all),
                    Output::Table => print_shown(all),
                };
            }
            Command::Show(one) => {
                let job: Value = client.get(&format!("/replays/{}/", segment(&one.id)), &[])?;
                return match one.output {
                    Output::Json => print_json(&job),
                    Output::Table => print_shown(vec![job]),
                };
            }
            Command::Pause(one) => (one, "pause"),
            Command::Resume(one) => (one, "resume"),
            Command::Cancel(one) => (one, "cancel"),
        };
        let path = format!("/replays/{}/{word}/", segment(&one.id));
        let job: Value = client.post(&path, &json!({}))?;
        match one.output {
            Output::Json => print_json(&job),
            Output::Table => print(&format!(
                "{}: the routers were told to {word} it after its batch\n",
                escaped(&one.id)
            )),
        }
    }
}

fn print_shown(jobs: Vec<Value>) -> Answer {
    let mut table = table(&["id", "deed", "by", "state", "done", "note"]);
    for job in jobs {
        let job: Shown = serde_json::from_value(job)?;
        table.add_row(vec![
            escaped(&job.id),
            escaped(&job.deed),
            escaped(&job.by),
            escaped(&job.state),
            format!("{} of {}", job.done, job.total),
            escaped(&job.note.or(job.reason_text).unwrap_or_default()),
        ]);
    }
    print(&format!("{table}\n"))
}

/// The word for a state.
fn state(job: &Job) -> &'static str {
    match (job.state, job.undone_at_ms) {
        (_, Some(_)) => "undone",
        (State::Running, _) => "running",
        (State::Stopped, _) => "stopped",
        (State::Finished, _) => "finished",
        (State::Cancelled, _) => "cancelled",
    }
}

fn show(jobs: &[Job], output: Output) -> Answer {
    if output == Output::Json {
        return print_json(&jobs);
    }
    let mut table = table(&["id", "deed", "by", "state", "done", "note"]);
    for job in jobs {
        let deed = match job.deed {
            Deed::Replay => "replay",
            Deed::Discard => "discard",
        };
        let runner = match job.runner {
            Runner::Command => "command",
            Runner::Fleet => "routers",
        };
        let note = if job.note.is_empty() {
            &job.reason
        } else {
            &job.note
        };
        table.add_row(vec![
            job.id.clone(),
            deed.to_owned(),
            runner.to_owned(),
            state(job).to_owned(),
            format!("{} of {}", job.done, job.total),
            note.clone(),
        ]);
    }
    print(&format!("{table}\n"))
}
