//! `postrider emit TYPE`: produces sample events into the topic that events of their type come from, to see a webhook at work.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};

use super::output::{self, Output};
use super::{Answer, Context, input};
use crate::app;
use crate::config::Config;
use crate::event::KNOWN_TYPES;
use crate::intake::decode::{Decoded, decode};
use crate::kafka::producer::Producer;
use crate::metrics::Metrics;
use crate::pipeline::now_ms;
use crate::record::{Header, Outgoing, Record, Source, SourceOffset};
use crate::samples;

const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(20);
/// Handed over before their acknowledgements are waited for.
const BATCH: u64 = 500;

#[derive(Args)]
pub(super) struct Emit {
    /// The event's type, such as job.failed [known: see --help]; any other gets a plain body
    #[arg(value_name = "TYPE", required_unless_present = "file", long_help = type_help())]
    event_type: Option<String>,
    /// Where to [default: the first topic of intake.topics whose last word is the type's first: events.job for job.failed]
    #[arg(long)]
    topic: Option<String>,
    /// The tenant, put where intake.customer_pointer says; empty for none
    #[arg(long, default_value = "1")]
    customer: String,
    /// Set a member of the event: job.status=error, /job/id=7; the value is JSON, or else text. May be repeated
    #[arg(long = "set", value_name = "PATH=VALUE", value_parser = input::pair)]
    members: Vec<(String, String)>,
    /// How many
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Send a file's bytes as they are instead of a made-up event; `-` for stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["members", "customer"])]
    file: Option<PathBuf>,
    /// The record's key; without one the records spread over the partitions
    #[arg(long, value_name = "TEXT")]
    key: Option<String>,
    /// A header of the record, such as traceparent=…; may be repeated
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = input::pair)]
    headers: Vec<(String, String)>,
    /// The form of the answer
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

fn type_help() -> String {
    format!(
        "The event's type. These look like real ones, any other gets a plain body:\n{}",
        KNOWN_TYPES.join("\n")
    )
}

impl Emit {
    pub(super) fn run(self, context: &Context) -> Answer {
        let config = context.config()?;
        let file = self.file.as_deref().map(input::read).transpose()?;
        let event_type = self.event_type(file.as_deref(), &config);
        let topic = match (&self.topic, &event_type) {
            (Some(topic), _) => topic.clone(),
            (None, Some(event_type)) => source_topic(event_type, &config.intake.topics)?,
            (None, None) => bail!("the file names no event type; give TYPE, or --topic TOPIC"),
        };
        if let (Some(event_type), None) = (&event_type, &file)
            && let Some(note) = note_on(event_type)
        {
            eprintln!("{note}");
        }
        let event_type = event_type.unwrap_or_default();
        let first = self.body(0, file.as_deref(), &event_type, &config)?;
        let producer = open(&config, &topic, first.len())?;
        let topic: Arc<str> = topic.into();
        let mut places = Vec::new();
        let mut sent = 0;
        while sent < self.count {
            let batch = BATCH.min(self.count - sent);
            let mut acknowledgements = Vec::new();
            for number in sent..sent + batch {
                let body = self.body(number, file.as_deref(), &event_type, &config)?;
                acknowledgements.push(send(&producer, self.record(&topic, body)));
            }
            sent += batch;
            for acknowledgement in acknowledgements {
                let place = acknowledged(&acknowledgement, &topic)?;
                match self.output {
                    Output::Table => output::print(&format!("{place}\n"))?,
                    Output::Json => places.push(json!({
                        "event_type": event_type,
                        "topic": place.topic.as_ref(),
                        "partition": place.partition,
                        "offset": place.offset,
                    })),
                }
            }
        }
        match self.output {
            Output::Table => Ok(()),
            Output::Json => output::print_json(&places),
        }
    }

    fn event_type(&self, file: Option<&[u8]>, config: &Config) -> Option<String> {
        if self.event_type.is_some() {
            return self.event_type.clone();
        }
        let mut record = Record {
            topic: "".into(),
            partition: 0,
            offset: SourceOffset(0),
            timestamp_ms: None,
            key: None,
            payload: file.map(Bytes::copy_from_slice),
            headers: self.record_headers(),
        };
        match decode(&mut record, &app::reading(config)) {
            Decoded::Event(event) => Some(event.event_type),
            Decoded::Tombstone | Decoded::Undecodable(_) => None,
        }
    }

    fn body(
        &self,
        number: u64,
        file: Option<&[u8]>,
        event_type: &str,
        config: &Config,
    ) -> anyhow::Result<Bytes> {
        if let Some(file) = file {
            return Ok(Bytes::copy_from_slice(file));
        }
        let now_ms = now_ms();
        let now = jiff::Timestamp::from_millisecond(now_ms)?;
        // So that a second run does not repeat the first one's ids.
        let sequence = now_ms.unsigned_abs() / 1000 % 1_000_000 + number;
        let mut event = samples::sample(event_type, sequence, Value::Null, now);
        let pointer = &config.intake.customer_pointer;
        if !self.customer.is_empty() && !pointer.is_empty() {
            // A number stays one; `true` is a name like any other.
            let customer = match serde_json::from_str::<serde_json::Number>(&self.customer) {
                Ok(_) => self.customer.clone(),
                Err(_) => Value::from(self.customer.as_str()).to_string(),
            };
            samples::set(&mut event, pointer, &customer)
                .map_err(|fault| anyhow!("intake.customer_pointer: {fault}"))?;
        }
        for (path, value) in &self.members {
            samples::set(&mut event, path, value).map_err(|fault| anyhow!("--set: {fault}"))?;
        }
        Ok(event.to_string().into())
    }

    fn record_headers(&self) -> Vec<Header> {
        self.headers
            .iter()
            .map(|(name, value)| Header::text(name.clone(), value.as_str()))
            .collect()
    }

    fn record(&self, topic: &Arc<str>, body: Bytes) -> Outgoing {
        Outgoing {
            topic: Arc::clone(topic),
            key: self.key.clone().map(Bytes::from),
            payload: Some(body),
            headers: self.record_headers(),
        }
    }
}

type Acknowledgement = mpsc::Receiver<Result<Source, String>>;

fn send(producer: &Producer, record: Outgoing) -> Acknowledgement {
    let (written, acknowledgement) = mpsc::channel();
    producer.send(
        &record,
        Box::new(move |result| {
            let _ = written.send(result.map_err(|refused| refused.to_string()));
        }),
    );
    acknowledgement
}

fn acknowledged(acknowledgement: &Acknowledgement, topic: &str) -> anyhow::Result<Source> {
    match acknowledgement.recv_timeout(ACKNOWLEDGED_WITHIN) {
        Ok(Ok(place)) => Ok(place),
        Ok(Err(refused)) => bail!("{refused}"),
        Err(_) => bail!(
            "{topic} did not acknowledge the event within {} s; it may be there all the same",
            ACKNOWLEDGED_WITHIN.as_secs()
        ),
    }
}

/// A producer, once the topic is known to be there: source topics belong to their producers, so none is created by accident.
fn open(config: &Config, topic: &str, bytes: usize) -> anyhow::Result<Producer> {
    let servers = &config.kafka.bootstrap_servers;
    let (mut connection, cluster) = app::reached(config)?;
    if !cluster.topics.contains_key(topic) {
        bail!(
            "there is no topic {topic}; name another with --topic, or have it made: kafka-topics.sh --bootstrap-server {servers} --create --topic {topic}"
        );
    }
    // The broker says what is too large, not this client.
    connection.message_bytes = 1_000_000.max(bytes.saturating_add(64 * 1024));
    Producer::start(&connection.producer(), Arc::new(Metrics::new()?))
        .context("the producer does not start")
}

/// The first configured topic whose last word is the type's first.
fn source_topic(event_type: &str, configured: &[String]) -> anyhow::Result<String> {
    let family = samples::family(event_type);
    if let Some(name) = samples::source_topic(event_type, configured) {
        return Ok(name.to_owned());
    }
    bail!(
        "no topic of intake.topics ends in `{family}` ({}); name one with --topic",
        configured.join(", ")
    )
}

/// What to say of a type that may be a slip of the pen.
fn note_on(event_type: &str) -> Option<String> {
    if KNOWN_TYPES.contains(&event_type) {
        return None;
    }
    let nearest = KNOWN_TYPES
        .iter()
        .map(|known| (strsim::jaro_winkler(known, event_type), known))
        .filter(|(likeness, _)| *likeness > 0.85)
        .max_by(|(one, _), (other, _)| one.total_cmp(other));
    let nearest = nearest.map_or(String::new(), |(_, known)| {
        format!("; did you mean {known}?")
    });
    Some(format!(
        "{event_type} is none of the known types, its event has a plain body{nearest}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_goes_to_the_first_topic_whose_last_word_is_its_first() {
        let topics = ["^events\\.job", "events.job", "shop.job", "net-device"].map(str::to_owned);
        assert_eq!(source_topic("job.failed", &topics).unwrap(), "events.job");
        assert_eq!(source_topic("device.x", &topics).unwrap(), "net-device");
        assert_eq!(source_topic("job_done", &topics).unwrap(), "events.job");
        let refusal = source_topic("order.paid", &topics).unwrap_err().to_string();
        assert!(refusal.contains("--topic"), "{refusal}");
    }

    #[test]
    fn a_slip_of_the_pen_is_told_with_the_nearest_known_type() {
        assert_eq!(note_on("job.failed"), None);
        assert!(
            note_on("job.fialed")
                .unwrap()
                .contains("did you mean job.failed?")
        );
        assert!(!note_on("zzz").unwrap().contains("did you mean"));
    }
}
