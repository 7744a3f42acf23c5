//! The loops of an instance, each with the reader that feeds it.

use std::sync::Arc;
use std::time::Duration;

use super::Error;
use crate::config::{self, Config};
use crate::kafka::consumer::{Reader, ReaderSettings, Stage};
use crate::kafka::settings::Connection;
use crate::kafka::start::Start;
use crate::outbound::breaker::{LAST_PROBE, Patience};
use crate::outbound::budget::Budget;
use crate::outbound::limits::Limits;
use crate::outbound::notice::{KeepsUp, Recall, Report};
use crate::outbound::shard::Conclude;
use crate::outbound::{self, Outbound};
use crate::pipeline::Ways;
use crate::pipeline::deliver::Deliver;
use crate::pipeline::hold::{Cursors, Holding, Paces};
use crate::pipeline::release::Releasing;
use crate::pipeline::replaying::Replaying;
use crate::pipeline::replaying::fleet::Fleet;
use crate::pipeline::route::Route;

/// How long a group waits for a dead member. Short, because nothing of its partitions moves meanwhile.
pub(super) const SESSION_TIMEOUT: Duration = Duration::from_secs(6);

/// The loops of the program; an instance runs any set of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stages {
    pub route: bool,
    pub deliver: bool,
    pub release: bool,
}

impl Stages {
    /// Everything.
    pub const ALL: Self = Self {
        route: true,
        deliver: true,
        release: true,
    };
}

impl std::str::FromStr for Stages {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut stages = Self {
            route: false,
            deliver: false,
            release: false,
        };
        for word in text.split(',').map(str::trim) {
            match word {
                "route" => stages.route = true,
                "deliver" => stages.deliver = true,
                "release" => stages.release = true,
                other => {
                    return Err(format!(
                        "`{other}` is no stage; they are route, deliver, release"
                    ));
                }
            }
        }
        Ok(stages)
    }
}

/// The limits of the outbound stage that a configuration means.
pub(super) fn limits(config: &Config) -> Limits {
    let outbound = &config.outbound;
    Limits {
        max_in_flight: u32::try_from(outbound.max_in_flight).unwrap_or(u32::MAX),
        patience: Patience {
            failures: outbound.breaker_failures,
            first_probe: Duration::from_secs(outbound.breaker_probe_seconds),
        },
        disable_after: Duration::from_secs(outbound.disable_after_seconds),
    }
}

/// The paces of what is held that a configuration means.
pub(super) fn paces(config: &Config) -> Paces {
    let first_probe = Duration::from_secs(config.outbound.breaker_probe_seconds);
    Paces {
        per_second: config.retry.held_drain_per_second,
        probe_every: first_probe.saturating_mul(LAST_PROBE),
    }
}

/// Starts readers and keeps them.
pub(super) struct Starter<'a> {
    pub(super) config: &'a Config,
    pub(super) connection: &'a Connection,
    pub(super) ways: &'a Arc<Ways>,
    pub(super) readers: Vec<Reader>,
}

impl Starter<'_> {
    fn read(
        &mut self,
        name: &'static str,
        topics: Vec<String>,
        start: Start,
        split: bool,
        stage: Box<dyn Stage>,
    ) -> Result<(), Error> {
        let mut client =
            self.connection
                .consumer(&self.ways.group_of(name), SESSION_TIMEOUT, split);
        if name == "route" {
            // A regular expression of sources must not take in our own topics: each delivery would become an event.
            let prefix = self.config.kafka.topic_prefix.replace('.', "\\.");
            client.set("topic.blacklist", format!("^{prefix}.*"));
        }
        let instance = &self.config.kafka.instance_id;
        let settings = ReaderSettings {
            stage: name,
            instance_id: (!instance.is_empty()).then(|| format!("{instance}.{name}")),
            client,
            topics,
            start,
            split,
            keeps_place: !matches!(name, "held" | "replays"),
            session_timeout: SESSION_TIMEOUT,
        };
        let reader = Reader::start(settings, stage, Arc::clone(&self.ways.metrics))?;
        self.readers.push(reader);
        Ok(())
    }

    pub(super) fn route(&mut self) -> Result<(), Error> {
        let intake = &self.config.intake;
        let start = match intake.start {
            config::Start::Earliest => Start::Earliest,
            config::Start::Latest => Start::Latest,
        };
        let stage = Route {
            ways: Arc::clone(self.ways),
            reading: super::reading(self.config),
            max_open_events: intake.max_open_events,
        };
        self.read(
            "route",
            intake.topics.clone(),
            start,
            false,
            Box::new(stage),
        )
    }

    pub(super) fn release(&mut self) -> Result<(), Error> {
        let topics = self
            .ways
            .topics
            .delays()
            .map(|(_, name)| name.to_string())
            .collect();
        let stage = Releasing::new(Arc::clone(self.ways));
        self.read("release", topics, Start::Earliest, true, Box::new(stage))
    }

    pub(super) fn deliver(
        &mut self,
        cursors: Arc<Cursors>,
        budget: Arc<Budget>,
    ) -> Result<Arc<Outbound>, Error> {
        let outbound = &self.config.outbound;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let ways = Arc::clone(self.ways);
        let report: Report =
            Arc::new(move |webhook, notice, signs| ways.noticed(webhook, notice, signs));
        let ways = Arc::clone(self.ways);
        let recall: Recall = Arc::new(move |webhook| ways.recalled(webhook));
        let (ways, most) = (
            Arc::clone(self.ways),
            2 * self.config.intake.max_open_events,
        );
        let keeps_up: KeepsUp = Arc::new(move || ways.producer.waiting() < most);
        let settings = outbound::Settings {
            shards: if outbound.shards == 0 {
                cores.saturating_sub(1).max(1)
            } else {
                outbound.shards
            },
            limits: limits(self.config),
            report,
            recall,
            keeps_up,
            connect_timeout: Duration::from_secs(outbound.connect_timeout_seconds),
            response_body_bytes: outbound.response_body_bytes,
            success_details_per_second: self.config.history.success_details_per_second,
            allow_networks: outbound.allow_networks.clone(),
            labelled_webhooks: self.config.web.metrics_webhooks,
            tracer: self.ways.tracer.clone(),
        };
        let ways = Arc::clone(self.ways);
        let conclude: Conclude =
            Arc::new(move |submission, finish| ways.conclude(submission, finish));
        let running = Arc::new(Outbound::start(&settings, &conclude, &self.ways.metrics)?);
        let stage = Deliver {
            ways: Arc::clone(self.ways),
            outbound: Arc::clone(&running),
            budget,
        };
        let dispatch = vec![self.ways.topics.dispatch.to_string()];
        self.read("deliver", dispatch, Start::Earliest, false, Box::new(stage))?;
        let holding = Holding::start(Arc::clone(self.ways), cursors, self.connection.clone())?;
        let held = vec![self.ways.topics.held.to_string()];
        self.read("held", held, Start::Earliest, false, Box::new(holding))?;
        let replaying = Replaying::with(
            self.connection.clone(),
            self.ways.producer.clone(),
            &self.ways.topics,
        )
        .knowing(super::origin(self.config, Arc::clone(&self.ways.catalog)));
        let replays = vec![self.ways.topics.replays.to_string()];
        let fleet = Box::new(Fleet::new(replaying));
        self.read("replays", replays, Start::Earliest, false, fleet)?;
        Ok(running)
    }
}
