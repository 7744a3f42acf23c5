//! `postrider secrets`: the key of the catalog's secrets is changed without a pause (promise 7). First the new key is put into
//! `secrets.old_keys` of all instances, so that they can read what it seals; then it becomes `secrets.key` and the key before goes into
//! `old_keys`; then `rekey`; then the old one may go.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::audit::Audit;
use super::output::{self, Output};
use super::{Answer, Context};
use crate::app;
use crate::config::Config;
use crate::kafka::producer::Producer;
use crate::metrics::Metrics;
use crate::pipeline::rekey::rekey;
use crate::pipeline::topics::Topics;

#[derive(Subcommand)]
pub(super) enum Secrets {
    /// Encrypts the secrets of all webhooks anew, with secrets.key; those that secrets.old_keys encrypted may run on meanwhile
    Rekey(Rekey),
}

#[derive(Args)]
pub(super) struct Rekey {
    /// Only says which webhooks it would be
    #[arg(long)]
    dry_run: bool,
    /// The form of the answer
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

impl Secrets {
    pub(super) fn run(self, context: &Context) -> Answer {
        let Self::Rekey(rekey) = self;
        rekey.run(&context.config()?)
    }
}

impl Rekey {
    fn run(self, config: &Config) -> Answer {
        let key = app::sealing_key(config)?
            .context("there is no key to encrypt with: give secrets.key the new key, and secrets.old_keys those before it")?;
        let (connection, cluster) = app::reached(config)?;
        let topic = Topics::new(&config.kafka.topic_prefix).subscriptions;
        if !cluster.topics.contains_key(&*topic) {
            bail!("the topic {topic} does not exist; is kafka.topic_prefix another one?");
        }
        let producer = Producer::start(&connection.producer(), Arc::new(Metrics::new()?))?;
        let audit = Audit::by(&producer, config);
        let done = rekey(&connection, &topic, &key, self.dry_run)?;
        let after = json!({"key_id": key.id()});
        for id in done.written.iter().filter(|_| !self.dry_run) {
            audit.note("webhook.rekey", id, Value::Null, after.clone());
        }
        match self.output {
            Output::Table => {
                let verb = if self.dry_run { "would be" } else { "are" };
                let mut text = format!(
                    "{} of {} webhooks {verb} encrypted anew, with the key {}\n",
                    done.written.len(),
                    done.webhooks,
                    key.id()
                );
                for id in &done.written {
                    text.push_str(&format!("  {id}\n"));
                }
                output::print(&text)?;
            }
            Output::Json => {
                let unopened = done.unopened.iter();
                let unopened: Vec<Value> = unopened
                    .map(|(id, fault)| json!({"id": id, "fault": fault.to_string()}))
                    .collect();
                output::print_json(&json!({
                    "dry_run": self.dry_run,
                    "key_id": key.id(),
                    "webhooks": done.webhooks,
                    "rekeyed": done.written,
                    "unopened": unopened,
                }))?;
            }
        }
        match done.unopened.as_slice() {
            [] => Ok(()),
            [(_, fault)] => bail!("{fault}"),
            [(_, fault), more @ ..] => bail!("{fault} ({} more cannot be opened)", more.len()),
        }
    }
}
