//! A run from its first event to its report.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Plan;
use super::events::{DELETED, HOOKS, Load, Nature, SOURCES};
use super::faults::{Faults, Ground};
use super::fleet::Fleet;
use super::follower::{Follower, Names};
use super::oracle::{Oracle, Rule};
use super::producer::Producer;
use super::proxy::Proxy;
use super::receivers::Receivers;
use super::report::{self, INVARIANTS, Report};
use super::schedule;
use crate::harness::{Cluster, OwnBroker, Router};

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn number(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}={text} is no number"))
    })
}

/// What the routers log; an outage that is intended would fill it.
fn log_level() -> String {
    std::env::var("CHAOS_LOG").unwrap_or_else(|_| "warn".into())
}
/// Events after the dispatch topic was made anew.
const EPILOGUE: u32 = 200;

fn rules(load: Load) -> Vec<Rule> {
    HOOKS
        .iter()
        .map(|hook| Rule {
            id: hook.id.to_owned(),
            max_attempts: hook.max_retries + 1,
            backoff_ms: 1000,
            limit: hook
                .limit_at(load)
                .map(|(requests, burst)| (requests, burst, 4)),
            deleted: hook.id == DELETED,
            steady: hook.nature == Nature::Good
                && !hook.disturbed
                && hook.limit_at(load).is_none()
                && hook.id.starts_with("wh_jobs"),
        })
        .collect()
}

pub(super) fn run(plan: &Plan) {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/chaos"))
        .join(plan.name)
        .join(std::env::var("CHAOS_FOLDER").unwrap_or_default());
    let _ = std::fs::remove_dir_all(&folder);
    let proxy = Proxy::start();
    let (broker, port) = OwnBroker::behind(proxy.port());
    proxy.lead_to(port);
    let cluster = Cluster::at(broker.bootstrap(), plan.name);
    let config = format!(
        "kafka.bootstrap_servers = \"127.0.0.1:{}\"\noutbound.breaker_probe_seconds = 1\nlog.level = \"{}\"\n",
        proxy.port(),
        log_level()
    );
    let mut router = Router::idle(&cluster, &SOURCES, &config);
    router.leaves_work();
    let began = Instant::now();
    let now_ms = || began.elapsed().as_millis() as u32;
    let load = Load {
        events: plan.events,
        per_second: f64::from(plan.events) / plan.span.as_secs_f64(),
    };
    let oracle = Arc::new(Mutex::new(Oracle::new(rules(load))));
    let receivers = Receivers::start(plan.seed, began, oracle.clone());
    for (webhook, hook) in HOOKS.iter().enumerate() {
        router.subscribe(hook.id, &receivers.url(webhook), hook.fields(load));
    }
    let names = names(&router, broker.bootstrap());
    let follower = Arc::new(Follower::start(names.clone(), oracle.clone()));
    let mut producer = Producer::new(
        broker.bootstrap(),
        plan.seed,
        load,
        began,
        &names.sources,
        &oracle,
    );
    let mut ground = Ground {
        cluster: &cluster,
        router: &router,
        proxy: &proxy,
        receivers: &receivers,
        broker: Arc::new(broker),
        fleet: Fleet::new(router.config_text(), &folder),
        sources: names.sources.clone(),
        letters: names.letters.clone(),
    };
    for _ in 0..plan.routers {
        ground.fleet.add();
    }
    let span_ms = plan.span.as_millis() as u32;
    let strikes = schedule::schedule(plan.seed, span_ms, plan.faults);
    eprintln!(
        "chaos: seed {}, {} events over {:?}, {} faults; logs in {}",
        plan.seed,
        plan.events,
        plan.span,
        plan.faults,
        folder.display()
    );
    for strike in &strikes {
        eprintln!(
            "  at {:>7.1} s for {:>5} ms: {:?}",
            f64::from(strike.at_ms) / 1000.0,
            strike.lasts_ms,
            strike.fault
        );
    }
    let start_ms = now_ms();
    let mut faults = Faults::new(
        &strikes
            .iter()
            .map(|strike| schedule::Strike {
                at_ms: strike.at_ms + start_ms,
                ..*strike
            })
            .collect::<Vec<_>>(),
    );
    let auditor = Auditor::start(&follower);
    let mut since_ms = now_ms();
    let mut ended_ms = None;
    loop {
        let now = now_ms();
        let due = u64::from(plan.events) * u64::from(now - start_ms) / u64::from(span_ms);
        producer.produce_until(due.min(u64::from(plan.events)) as u32, &oracle);
        faults.turn(now, &mut ground, &oracle);
        auditor.may_ask(faults.broker_is_up());
        {
            let mut oracle = hold(&oracle);
            if !faults.can_reach()
                || ground.fleet.working() == 0
                || oracle.steady_done >= oracle.steady_due
            {
                since_ms = now;
            }
            oracle.silence(now, since_ms);
        }
        if producer.produced() == plan.events && now - start_ms >= span_ms && faults.are_over() {
            let ended = *ended_ms.get_or_insert_with(|| {
                faults.settle(now, &mut ground, &oracle);
                eprintln!(
                    "{:>8.1} s  all produced, all faults made good",
                    f64::from(now) / 1000.0
                );
                now
            });
            if now.is_multiple_of(10) && is_over(&oracle, &follower) {
                break;
            }
            if now - ended > plan.patience.as_millis() as u32 {
                eprintln!(
                    "{:>8.1} s  it does not end: {}",
                    f64::from(now) / 1000.0,
                    what_is_left(&oracle, &follower)
                );
                break;
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = std::fs::write(folder.join("broker.log"), ground.broker.log());
    assert_eq!(producer.flush(), 0, "Kafka refused events of the harness");
    auditor.finish();
    follower.audit();
    let renewals = number("CHAOS_RENEW", u64::from(plan.renewals)) as u32;
    if renewals > 0 {
        follower.leave_dispatch();
    }
    for round in 1..=renewals {
        if hold(&oracle).failed.iter().sum::<u64>() > 0 || !is_over(&oracle, &follower) {
            break;
        }
        let events = plan.events + round * EPILOGUE;
        renew_dispatch(&names, &mut producer, &oracle, &cluster, events);
        let since = Instant::now();
        while since.elapsed() < plan.patience && !is_over(&oracle, &follower) {
            std::thread::sleep(Duration::from_millis(200));
        }
        *faults
            .struck
            .entry("dispatch topic deleted and made anew".into())
            .or_default() += 1;
    }
    conclude(
        plan, &folder, &oracle, &follower, &faults, &ground, &names, began,
    );
}

fn names(router: &Router<'_>, bootstrap: &str) -> Names {
    let topics = router.topics();
    Names {
        bootstrap: bootstrap.to_owned(),
        sources: router.config.intake.topics.clone(),
        dispatch: topics.dispatch.to_string(),
        delays: topics.delays().map(|(_, name)| name.to_string()).collect(),
        held: topics.held.to_string(),
        letters: topics.dead_letters.to_string(),
        attempts: topics.attempts.to_string(),
        group: router.config.kafka.group_id.clone(),
    }
}

/// Whether everything has ended and every group stands at the end of its topics.
fn is_over(oracle: &Mutex<Oracle>, follower: &Follower) -> bool {
    if hold(oracle).unfinished() > 0 {
        return false;
    }
    let at_the_end = || {
        let standings = follower.standings()?;
        let reached = standings
            .iter()
            .all(|standing| standing.end == 0 || standing.committed == Some(standing.end));
        reached.then_some(standings)
    };
    // One stage writes what another reads: only an end that stands still is the end.
    at_the_end().is_some_and(|standings| {
        std::thread::sleep(Duration::from_secs(1));
        at_the_end() == Some(standings)
    })
}

/// What keeps a run from ending.
fn what_is_left(oracle: &Mutex<Oracle>, follower: &Follower) -> String {
    let behind: Vec<_> = follower
        .standings()
        .unwrap_or_default()
        .into_iter()
        .filter(|standing| standing.end > 0 && standing.committed != Some(standing.end))
        .collect();
    format!(
        "{} deliveries have not ended; not at their ends: {behind:?}",
        hold(oracle).unfinished()
    )
}

/// A fault of its own kind, when nothing is in dispatch that an operator's hand would take: it is deleted and made anew, and
/// the routers, which are not restarted, go on.
fn renew_dispatch(
    names: &Names,
    producer: &mut Producer,
    oracle: &Mutex<Oracle>,
    cluster: &Cluster,
    events: u32,
) {
    eprintln!("           the dispatch topic is deleted and made anew");
    cluster.delete_topic(&names.dispatch);
    let configs = [
        ("message.timestamp.type", "LogAppendTime"),
        ("max.message.bytes", "1300000"),
    ];
    cluster.create_topic("postrider.dispatch", 6, &configs);
    producer.produce_until(events, oracle);
    producer.flush();
}

#[allow(clippy::too_many_arguments, reason = "everything that a run has")]
fn conclude(
    plan: &Plan,
    folder: &std::path::Path,
    oracle: &Mutex<Oracle>,
    follower: &Follower,
    faults: &Faults,
    ground: &Ground<'_>,
    names: &Names,
    began: Instant,
) {
    assert!(
        follower.catch_up(&[names.dispatch.as_str()]),
        "the topics cannot be read to their ends"
    );
    let standings = follower.standings().expect("the broker answers");
    let mut oracle = hold(oracle);
    let sums = oracle.conclude(plan.copies, &standings);
    let report = Report {
        seed: plan.seed,
        minutes: began.elapsed().as_secs_f64() / 60.0,
        oracle: &oracle,
        sums,
        struck: &faults.struck,
        ended_by_themselves: &ground.fleet.ended_by_themselves,
        did_not_leave: ground.fleet.did_not_leave,
        proxied_bytes: ground.proxy.passed_bytes(),
    };
    let mut text = report.text();
    for line in &ground.fleet.ended_by_themselves {
        text.push_str(&format!("\n- {line}"));
    }
    assert!(
        ground.proxy.passed_bytes() > 0,
        "the routers go past the proxy"
    );
    if !oracle.violations.is_empty() {
        text.push_str(&report::violations(&oracle, follower));
    }
    std::fs::write(folder.join("report.md"), &text).unwrap();
    eprintln!("{text}");
    let broken: Vec<String> = (1..10)
        .filter(|number| oracle.failed[*number] > 0)
        .map(|number| format!("{number} ({})", INVARIANTS[number - 1]))
        .collect();
    assert!(
        broken.is_empty(),
        "seed {}: broken: {}; the report and the routers' logs are in {}",
        plan.seed,
        broken.join(", "),
        folder.display()
    );
}

/// Looks at commits now and then, on a thread of its own.
struct Auditor {
    end: Arc<AtomicBool>,
    may_ask: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Auditor {
    fn start(follower: &Arc<Follower>) -> Self {
        let (end, may_ask) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(true)),
        );
        let (ended, may, follower) = (end.clone(), may_ask.clone(), follower.clone());
        let thread = std::thread::spawn(move || {
            while !ended.load(SeqCst) {
                std::thread::sleep(Duration::from_secs(2));
                if may.load(SeqCst) {
                    follower.audit();
                }
            }
        });
        Self {
            end,
            may_ask,
            thread,
        }
    }

    fn may_ask(&self, may: bool) {
        self.may_ask.store(may, SeqCst);
    }

    fn finish(self) {
        self.end.store(true, SeqCst);
        self.thread.join().unwrap();
    }
}
