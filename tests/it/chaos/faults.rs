//! Carries the schedule out: strikes, and makes good what lasts only for a while.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::JoinHandle;

use super::events::{DELETED, PAUSED};
use super::fleet::Fleet;
use super::oracle::Oracle;
use super::proxy::Proxy;
use super::receivers::{Receivers, Trouble};
use super::schedule::{Fault, Strike};
use crate::harness::{Cluster, OwnBroker, Router};

/// What will be made good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cure {
    Start,
    Thaw(u8, u32),
    Pass,
    Heal(usize),
    Letters(u32),
    Resume,
    Strike(Strike),
}

/// The ground that faults strike.
pub struct Ground<'a> {
    pub cluster: &'a Cluster,
    pub router: &'a Router<'a>,
    pub proxy: &'a Proxy,
    pub receivers: &'a Receivers,
    pub broker: Arc<OwnBroker>,
    pub fleet: Fleet,
    pub sources: Vec<String>,
    pub letters: String,
}

#[derive(Default)]
pub struct Faults {
    cures: BTreeMap<(u32, usize), Cure>,
    number: usize,
    stalled: u32,
    broker_is_down: Arc<AtomicBool>,
    restart: Option<JoinHandle<()>>,
    partitions: [usize; 2],
    hours: i64,
    most_hours: i64,
    paused: bool,
    pub struck: BTreeMap<String, u32>,
}

/// What the dead-letter topic has beside its size.
const LETTERS: [(&str, &str); 2] = [
    ("message.timestamp.type", "LogAppendTime"),
    ("cleanup.policy", "delete"),
];
const PARTITIONS: usize = 3;
const MOST_ROUTERS: usize = 4;

impl Faults {
    pub fn new(strikes: &[Strike]) -> Self {
        let mut faults = Self::default();
        faults.partitions = [PARTITIONS; 2];
        for strike in strikes {
            faults.later(strike.at_ms, Cure::Strike(*strike));
        }
        faults
    }

    fn later(&mut self, at_ms: u32, cure: Cure) {
        self.number += 1;
        self.cures.insert((at_ms, self.number), cure);
    }

    /// Whether the routers can reach a broker.
    pub fn can_reach(&self) -> bool {
        self.stalled == 0 && !self.broker_is_down.load(SeqCst)
    }

    pub fn broker_is_up(&self) -> bool {
        !self.broker_is_down.load(SeqCst)
    }

    /// Whether everything has struck and been made good.
    pub fn are_over(&self) -> bool {
        self.cures.is_empty() && self.broker_is_up()
    }

    /// Carries out what is due.
    pub fn turn(
        &mut self,
        now_ms: u32,
        ground: &mut Ground<'_>,
        oracle: &std::sync::Mutex<Oracle>,
    ) {
        while let Some(entry) = self
            .cures
            .first_entry()
            .filter(|entry| entry.key().0 <= now_ms)
        {
            let cure = entry.remove();
            // These ask the broker or the catalog, and are not what is tested: later.
            let asks = match cure {
                Cure::Letters(_) | Cure::Resume => true,
                Cure::Strike(strike) => {
                    matches!(
                        strike.fault,
                        Fault::SmallLetters(_)
                            | Fault::Partitions(_)
                            | Fault::Pause
                            | Fault::Delete
                            | Fault::BrokerKill
                    )
                }
                _ => false,
            };
            if asks && !self.can_reach() {
                self.later(now_ms + 300, cure);
                continue;
            }
            match cure {
                Cure::Strike(strike) => {
                    eprintln!("{:>8.1} s  {:?}", f64::from(now_ms) / 1000.0, strike.fault);
                    self.strike(strike, now_ms, ground, oracle);
                }
                cure => self.cure(cure, ground, oracle, now_ms),
            }
        }
        for _ in 0..ground.fleet.reap() {
            // As any supervisor would.
            self.later(now_ms + 1000, Cure::Start);
        }
    }

    fn strike(
        &mut self,
        strike: Strike,
        now_ms: u32,
        ground: &mut Ground<'_>,
        oracle: &std::sync::Mutex<Oracle>,
    ) {
        let chance = strike.chance;
        let good_ms = now_ms + strike.lasts_ms;
        let mut fault = strike.fault;
        match (fault, ground.fleet.staying()) {
            (Fault::Join, MOST_ROUTERS..) => fault = Fault::Leave,
            (Fault::Leave, ..=1) => fault = Fault::Join,
            _ => {}
        }
        *self.struck.entry(fault.kind()).or_default() += 1;
        match fault {
            Fault::Kill => {
                if ground.fleet.kill(chance).is_some() {
                    self.later(good_ms, Cure::Start);
                }
            }
            Fault::Terminate => {
                if ground.fleet.terminate(chance).is_some() {
                    self.later(good_ms, Cure::Start);
                }
            }
            Fault::Freeze => {
                if let Some(number) = ground.fleet.freeze(chance) {
                    self.later(good_ms, Cure::Thaw(number, now_ms));
                }
            }
            Fault::Join => drop(ground.fleet.add()),
            Fault::Leave => drop(ground.fleet.terminate(chance)),
            Fault::BrokerKill => {
                self.broker_is_down.store(true, SeqCst);
                let (broker, down) = (ground.broker.clone(), self.broker_is_down.clone());
                let pause = std::time::Duration::from_millis(u64::from(strike.lasts_ms));
                self.restart = Some(std::thread::spawn(move || {
                    broker.kill();
                    std::thread::sleep(pause);
                    broker.restart();
                    down.store(false, SeqCst);
                }));
            }
            Fault::Stall => {
                self.stalled += 1;
                ground.proxy.stall(true);
                self.later(good_ms, Cure::Pass);
            }
            Fault::Cut => ground.proxy.cut(),
            Fault::Receiver(webhook, trouble) => {
                ground.receivers.trouble(webhook, trouble);
                self.later(good_ms, Cure::Heal(webhook));
            }
            Fault::SmallLetters(bytes) => {
                let text = bytes.to_string();
                let [stamp, cleanup] = LETTERS;
                ground.cluster.set_configs(
                    &ground.letters,
                    &[stamp, cleanup, ("max.message.bytes", &text)],
                );
                self.later(good_ms, Cure::Letters(bytes));
            }
            Fault::Partitions(source) => {
                if self.partitions[source] < 12 {
                    self.partitions[source] += 1;
                    ground
                        .cluster
                        .grow(&ground.sources[source], self.partitions[source]);
                }
            }
            Fault::Clock(hours) => self.set_clock(hours, now_ms, ground, oracle),
            Fault::Pause => {
                self.paused = true;
                ground
                    .router
                    .change(PAUSED, |webhook| webhook.paused = true);
                self.later(good_ms, Cure::Resume);
            }
            Fault::Delete => ground.router.delete(DELETED),
        }
    }

    fn cure(
        &mut self,
        cure: Cure,
        ground: &mut Ground<'_>,
        oracle: &std::sync::Mutex<Oracle>,
        now_ms: u32,
    ) {
        match cure {
            Cure::Start => drop(ground.fleet.add()),
            Cure::Thaw(number, from_ms) => {
                oracle
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .slept(number, from_ms, now_ms);
                ground.fleet.thaw(number);
            }
            Cure::Pass => {
                self.stalled = self.stalled.saturating_sub(1);
                if self.stalled == 0 {
                    ground.proxy.stall(false);
                }
            }
            Cure::Heal(webhook) => ground.receivers.trouble(webhook, Trouble::None),
            Cure::Letters(bytes) => {
                let [stamp, cleanup] = LETTERS;
                ground.cluster.set_configs(
                    &ground.letters,
                    &[stamp, cleanup, ("max.message.bytes", "1300000")],
                );
                if bytes < 1000 {
                    // What could not be written at all stays open until its reader starts again: the operator's part.
                    for chance in 0..ground.fleet.staying() as u64 {
                        if ground.fleet.terminate(chance).is_some() {
                            self.later(now_ms + 500, Cure::Start);
                        }
                    }
                }
            }
            Cure::Resume => {
                self.paused = false;
                ground
                    .router
                    .change(PAUSED, |webhook| webhook.paused = false);
            }
            Cure::Strike(_) => {}
        }
    }

    fn set_clock(
        &mut self,
        hours: i64,
        now_ms: u32,
        ground: &mut Ground<'_>,
        oracle: &std::sync::Mutex<Oracle>,
    ) {
        let mut oracle = oracle
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        ground.fleet.set_clock(hours);
        oracle.clock_stepped(now_ms, hours * 3_600_000);
        self.hours = hours;
        self.most_hours = self.most_hours.max(hours);
    }

    /// The end of the disturbance: at least one router, and the clock where it was farthest, so that everything comes due.
    pub fn settle(
        &mut self,
        now_ms: u32,
        ground: &mut Ground<'_>,
        oracle: &std::sync::Mutex<Oracle>,
    ) {
        ground.receivers.heal();
        if self.hours != self.most_hours {
            self.set_clock(self.most_hours, now_ms, ground, oracle);
        }
        if ground.fleet.staying() == 0 {
            ground.fleet.add();
        }
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        let _ = self.restart.take().map(JoinHandle::join);
    }
}
