//! `deliveries retry`: one that failed, sent once more by the routers, with its id.

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};

use super::super::dead_letters;
use super::super::output::{Output, escaped, print, print_json};
use super::super::remote::{Remote, segment};
use super::super::{Answer, Context};
use crate::pipeline::replaying::Order;
use crate::retry::replay::{Deed, LetterFilter, Runner};

#[derive(Args)]
pub(super) struct Retry {
    /// The delivery's id, `dlv_…`
    #[arg(value_name = "DELIVERY_ID")]
    id: String,
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl Retry {
    pub(super) fn run(self, context: &Context, remote: &Remote) -> Answer {
        let replay = match remote.client()? {
            Some(client) => {
                let path = format!("/webhook-deliveries/{}/retry/", segment(&self.id));
                client.post::<Value>(&path, &json!({}))?["id"].clone()
            }
            None => self.order(context)?.into(),
        };
        let replay = replay.as_str().unwrap_or_default();
        match self.output {
            Output::Json => print_json(&json!({"id": self.id, "replay_id": replay})),
            Output::Table => print(&format!(
                "{} is sent once more; see `postrider replays show {}`\n",
                escaped(&self.id),
                escaped(replay)
            )),
        }
    }

    fn order(&self, context: &Context) -> anyhow::Result<String> {
        let replaying = dead_letters::open(context, None)?;
        let plan = replaying.plan(Order {
            deed: Deed::Replay,
            filter: LetterFilter {
                delivery: Some(self.id.clone()),
                ..LetterFilter::default()
            },
            to: None,
            into: None,
            to_webhook: None,
            again: false,
            reason: String::new(),
            rate: None,
            limit: None,
            max_replays: None,
            runner: Runner::Fleet,
        })?;
        let counts = &plan.counts;
        if counts.total == 0 {
            let id = &self.id;
            if counts.done_before > 0 {
                bail!(
                    "{id} was sent once more, or discarded, after it failed; `postrider dead-letters list --all --delivery {id}` shows by what"
                );
            }
            if counts.not_replayable > 0 {
                bail!(
                    "the body of {id} was cut to fit into the dead-letter topic; send its event again"
                );
            }
            bail!(
                "there is no dead letter of {id}; only what failed can be retried, and `postrider explain {id}` says what became of it"
            );
        }
        Ok(replaying.begin(plan)?.id)
    }
}
