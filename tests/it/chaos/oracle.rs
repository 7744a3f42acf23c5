//! What must be true of a run, told from three things only: what was acknowledged to the producer (A), what arrived at the
//! receivers (R), and what stands in the topics. Pure: whoever feeds it says when and where.
//!
//! The numbers of the invariants are those of tests/CHAOS.md.

pub mod ending;
mod pace;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

/// What the oracle must know of a webhook.
#[derive(Clone, Debug)]
pub struct Rule {
    pub id: String,
    pub max_attempts: u32,
    pub backoff_ms: u64,
    /// Requests in a second, burst, and requests at a time.
    pub limit: Option<(u32, u32, u32)>,
    /// Deleted in the course of the run: what was not routed before need not be.
    pub deleted: bool,
    /// Never disturbed, so that nothing excuses a silence.
    pub steady: bool,
}

/// A record's place: source (topic of the run), partition, offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub source: u8,
    pub partition: u16,
    pub offset: u64,
}

/// A delivery: webhook's number and event's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(u64);

impl Key {
    pub fn new(webhook: usize, place: Place) -> Self {
        Self(
            (webhook as u64) << 56
                | u64::from(place.source) << 48
                | u64::from(place.partition) << 36
                | place.offset,
        )
    }

    pub fn webhook(self) -> usize {
        (self.0 >> 56) as usize
    }

    pub fn place(self) -> Place {
        Place {
            source: (self.0 >> 48) as u8,
            partition: (self.0 >> 36) as u16 & 0xFFF,
            offset: self.0 & 0xF_FFFF_FFFF,
        }
    }
}

/// A request at a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    pub event: u32,
    pub webhook: u8,
    pub attempt: u8,
    /// 0 where there was no whole answer.
    pub status: u16,
    /// Which router process sent it.
    pub instance: u8,
    /// Milliseconds since the run began, when its head had arrived.
    pub at_ms: u32,
    /// How long it may have waited for this process before that.
    pub late_ms: u16,
    /// Seconds of `Retry-After` in the answer.
    pub retry_after: u8,
    /// Of the `webhook-id`, shortened.
    pub id: u32,
    /// The body was that of the event.
    pub whole: bool,
}

/// What a record of one of our topics is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Made from its event at this time; another time is another reading of the event.
    Dispatch {
        created_ms: i64,
    },
    Delay,
    Held,
    Letter {
        reason: String,
        attempts: u32,
    },
    /// An ending in the audit trail: `delivered`, `dead_lettered`, `dropped`.
    Ending(String),
    /// A line of the audit trail without an ending.
    Attempt,
}

/// What the topics tell of a delivery.
#[derive(Clone, Copy, Debug, Default)]
struct Trace {
    latest_ms: i64,
    at_latest: u16,
    dispatched: bool,
    dispatches: u16,
    created_ms: i64,
    routed_again: bool,
    delivered: u16,
    letters: u16,
    dropped: u16,
    said_dead: u16,
}

/// A record that must have a successor once its group has committed past it.
struct Open {
    offset: u64,
    key: Key,
    appended_ms: i64,
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub invariant: u8,
    pub text: String,
    pub event: Option<(u8, u32)>,
}

/// How many of a kind are kept with their text.
const KEPT: usize = 20;

#[derive(Default)]
pub struct Oracle {
    rules: Vec<Rule>,
    /// By event: its place and the webhooks that want it.
    pub acknowledged: HashMap<u32, (Place, u64, u32)>,
    places: HashMap<(u8, u16), BTreeMap<u64, u32>>,
    /// The first offset of a source partition whose routing has not been checked.
    routed: HashMap<(u8, u16), u64>,
    /// Events that were given to the producer, acknowledged or not.
    pub produced: u32,
    pub hits: Vec<Hit>,
    /// Successes by event and webhook: copies, and when the first came.
    pub accepted: HashMap<(u32, u8), (u16, u32)>,
    ids: HashMap<(u32, u8), u32>,
    /// The first failure of an attempt: when, and the `Retry-After` of the answer.
    failures: HashMap<(u32, u8, u8), (u32, u8)>,
    paces: HashMap<u8, pace::Pace>,
    traces: HashMap<Key, Trace>,
    open: HashMap<(String, i32), VecDeque<Open>>,
    /// Steps of the wall clock: from when, the offset in milliseconds.
    steps: Vec<(u32, i64)>,
    /// Instances that slept: who, from when, until when.
    slept: Vec<(u8, u32, u32)>,
    pub zombies: u64,
    pub unjudged: u64,
    pub longest_silence_ms: u32,
    /// The longest that requests have waited for the receivers.
    pub latest_ms: u16,
    pub checked: [u64; 10],
    pub failed: [u64; 10],
    pub violations: Vec<Violation>,
    pub steady_due: u64,
    pub steady_done: u64,
    pub last_success_ms: u32,
    reported: HashSet<(u8, u64)>,
}

/// A copy that a rebalance leaves room for is sent within this time of the first.
const UNDER_WAY_MS: u32 = 100;
/// The longest a request takes before it is given up: a backward step in between moves its due time.
const LONGEST_REQUEST_MS: u32 = 12_000;
/// The longest silence while there is work and a way to do it.
pub const LONGEST_SILENCE_MS: u32 = 30_000;
/// What a zombie may have had in the sockets when it was stopped.
const ZOMBIE_REQUESTS: u64 = 16;

impl Oracle {
    pub fn new(rules: Vec<Rule>) -> Self {
        Self {
            rules,
            steps: vec![(0, 0)],
            ..Self::default()
        }
    }

    pub fn violation(&mut self, invariant: u8, event: Option<(u8, u32)>, text: String) {
        self.failed[usize::from(invariant)] += 1;
        if self
            .violations
            .iter()
            .filter(|found| found.invariant == invariant)
            .count()
            < KEPT
        {
            self.violations.push(Violation {
                invariant,
                text,
                event,
            });
        }
    }

    /// An event of A.
    pub fn acknowledged(&mut self, event: u32, place: Place, wanted_by: u64, at_ms: u32) {
        self.acknowledged.insert(event, (place, wanted_by, at_ms));
        self.places
            .entry((place.source, place.partition))
            .or_default()
            .insert(place.offset, event);
        let steady = self
            .rules
            .iter()
            .enumerate()
            .filter(|(number, rule)| rule.steady && wanted_by >> number & 1 == 1);
        self.steady_due += steady.count() as u64;
    }

    pub fn event_at(&self, place: Place) -> Option<u32> {
        self.places
            .get(&(place.source, place.partition))?
            .get(&place.offset)
            .copied()
    }

    /// The wall clock of all routers is now so far from the true time.
    pub fn clock_stepped(&mut self, at_ms: u32, offset_ms: i64) {
        self.steps.push((at_ms, offset_ms));
    }

    /// An instance was stopped for longer than its session and goes on at `until_ms`.
    pub fn slept(&mut self, instance: u8, from_ms: u32, until_ms: u32) {
        self.slept.push((instance, from_ms, until_ms));
    }

    /// The offsets that were in force in a span.
    fn offsets(&self, from_ms: u32, to_ms: u32) -> impl Iterator<Item = i64> {
        let first = self
            .steps
            .iter()
            .rposition(|(at, _)| *at <= from_ms)
            .unwrap_or(0);
        self.steps[first..]
            .iter()
            .enumerate()
            .filter(move |(n, (at, _))| *n == 0 || *at <= to_ms)
            .map(|(_, step)| step.1)
    }

    /// A request of R, told when it has been answered.
    pub fn hit(&mut self, hit: Hit) {
        let key = (hit.event, hit.webhook);
        let rule = self.rules[usize::from(hit.webhook)].clone();
        self.checked[2] += 1;
        if !hit.whole || hit.event >= self.produced {
            self.violation(
                2,
                Some((hit.webhook, hit.event)),
                format!("a request that is no event of this run: {hit:?}"),
            );
        }
        if *self.ids.entry(key).or_insert(hit.id) != hit.id {
            self.violation(
                2,
                Some((hit.webhook, hit.event)),
                format!("another webhook-id for the same delivery: {hit:?}"),
            );
        }
        self.judge_due(&rule, &hit);
        self.judge_pace(&rule, &hit);
        if (200..300).contains(&hit.status) {
            self.judge_zombie(&hit);
            let first = self.accepted.entry(key).or_insert((0, hit.at_ms));
            first.0 += 1;
            if first.0 == 1 && rule.steady {
                self.steady_done += 1;
            }
            self.last_success_ms = self.last_success_ms.max(hit.at_ms);
        } else {
            let failure = self
                .failures
                .entry((hit.event, hit.webhook, hit.attempt))
                .or_insert((hit.at_ms, hit.retry_after));
            if hit.at_ms < failure.0 {
                *failure = (hit.at_ms, hit.retry_after);
            }
        }
        self.hits.push(hit);
    }

    /// 7: not before it is due, by the routers' own clock.
    fn judge_due(&mut self, rule: &Rule, hit: &Hit) {
        if hit.attempt < 2 {
            return;
        }
        let Some((failed_ms, retry_after)) = self
            .failures
            .get(&(hit.event, hit.webhook, hit.attempt - 1))
            .copied()
        else {
            // Its request never came, or not whole: no connection, say.
            self.unjudged += 1;
            return;
        };
        self.checked[7] += 1;
        let pause =
            (rule.backoff_ms << (hit.attempt - 2).min(14)).max(u64::from(retry_after) * 1000);
        let from = self
            .offsets(failed_ms, failed_ms + LONGEST_REQUEST_MS)
            .min()
            .unwrap_or(0);
        let to = self
            .offsets(hit.at_ms.saturating_sub(LONGEST_REQUEST_MS), hit.at_ms)
            .max()
            .unwrap_or(0);
        let waited = i64::from(hit.at_ms) + to - i64::from(failed_ms) - from;
        // A millisecond on each side is cut off.
        if waited + 2 < pause as i64 {
            self.violation(
                7,
                Some((hit.webhook, hit.event)),
                format!("sent {waited} ms after the last failure, due after {pause} ms: {hit:?}"),
            );
        }
    }

    /// One that slept beyond its session has lost its partitions: what another has delivered meanwhile it must not send.
    fn judge_zombie(&mut self, hit: &Hit) {
        let Some((_, from, until)) = self
            .slept
            .iter()
            .rev()
            .find(|(who, ..)| *who == hit.instance)
            .copied()
        else {
            return;
        };
        if hit.at_ms < until + UNDER_WAY_MS || hit.at_ms > until + 5000 {
            return;
        }
        let earlier = self
            .accepted
            .get(&(hit.event, hit.webhook))
            .is_some_and(|(_, at)| *at > from && *at < until);
        if earlier {
            self.zombies += 1;
            if self.zombies > ZOMBIE_REQUESTS * self.slept.len() as u64 {
                self.violation(
                    6,
                    Some((hit.webhook, hit.event)),
                    format!("a zombie went on with what others had done: {hit:?}"),
                );
            }
        }
    }

    /// A record of one of our topics, in the order of its partition.
    pub fn record(
        &mut self,
        topic: &str,
        partition: i32,
        offset: u64,
        appended_ms: i64,
        key: Key,
        kind: &Kind,
    ) {
        let trace = self.traces.entry(key).or_default();
        match kind {
            Kind::Dispatch { created_ms } => {
                trace.dispatched = true;
                trace.dispatches = trace.dispatches.saturating_add(1);
                if trace.created_ms == 0 {
                    trace.created_ms = *created_ms;
                }
                trace.routed_again |= trace.created_ms != *created_ms;
            }
            Kind::Delay | Kind::Held => {}
            Kind::Letter { .. } => trace.letters += 1,
            Kind::Ending(word) => match word.as_str() {
                "delivered" => trace.delivered += 1,
                "dropped" => trace.dropped += 1,
                _ => trace.said_dead += 1,
            },
            Kind::Attempt => return,
        }
        match appended_ms.cmp(&trace.latest_ms) {
            std::cmp::Ordering::Greater => (trace.latest_ms, trace.at_latest) = (appended_ms, 1),
            std::cmp::Ordering::Equal => trace.at_latest += 1,
            std::cmp::Ordering::Less => {}
        }
        if matches!(kind, Kind::Dispatch { .. } | Kind::Delay) {
            let open = Open {
                offset,
                key,
                appended_ms,
            };
            self.open
                .entry((topic.to_owned(), partition))
                .or_default()
                .push_back(open);
        }
        if let Kind::Letter { reason, attempts } = kind {
            self.judge_letter(key, reason, *attempts);
        }
        // 1, all the while: who says delivered has a receiver that says so.
        if *kind == Kind::Ending("delivered".into()) {
            self.checked[1] += 1;
            let event = self.event_at(key.place());
            if event.is_some_and(|event| !self.accepted.contains_key(&(event, key.webhook() as u8)))
            {
                let event = event.map(|event| (key.webhook() as u8, event));
                self.violation(
                    1,
                    event,
                    format!(
                        "called delivered, and no receiver took it: {key:?} {:?}",
                        key.place()
                    ),
                );
            }
        }
    }

    /// 3: dead letters have a reason, and the exhausted are exhausted.
    fn judge_letter(&mut self, key: Key, reason: &str, attempts: u32) {
        const REASONS: [&str; 8] = [
            "exhausted",
            "rejected",
            "undecodable",
            "too_large",
            "expired",
            "blocked_address",
            "filter_failed",
            "disabled",
        ];
        self.checked[3] += 1;
        let max = self.rules[key.webhook()].max_attempts;
        if !REASONS.contains(&reason) || (reason == "exhausted" && attempts != max) {
            let event = self
                .event_at(key.place())
                .map(|event| (key.webhook() as u8, event));
            self.violation(
                3,
                event,
                format!(
                    "a dead letter of {key:?}: reason `{reason}`, {attempts} attempts of {max}"
                ),
            );
        }
    }

    /// A group has committed `next` of a topic of ours; every record that was there by then has been told.
    pub fn committed(&mut self, topic: &str, partition: i32, next: u64) {
        let Some(open) = self.open.get_mut(&(topic.to_owned(), partition)) else {
            return;
        };
        let mut lost = Vec::new();
        while open.front().is_some_and(|open| open.offset < next) {
            let Some(open) = open.pop_front() else { break };
            self.checked[4] += 1;
            let trace = self.traces.get(&open.key).copied().unwrap_or_default();
            if trace.latest_ms < open.appended_ms
                || (trace.latest_ms == open.appended_ms && trace.at_latest < 2)
            {
                lost.push(open);
            }
        }
        for open in lost {
            let event = self
                .event_at(open.key.place())
                .map(|event| (open.key.webhook() as u8, event));
            self.violation(4, event, format!("{topic}/{partition}/{} is below the commit {next} and nothing followed from it: {:?}", open.offset, open.key.place()));
        }
    }

    /// The route group has committed `next` of a source partition; every record that was there by then has been told.
    pub fn committed_source(&mut self, source: u8, partition: u16, next: u64) {
        let mut at = self.routed.get(&(source, partition)).copied().unwrap_or(0);
        while at < next {
            let place = Place {
                source,
                partition,
                offset: at,
            };
            // Its acknowledgement is under way: next time.
            let Some(event) = self.event_at(place) else {
                break;
            };
            let wanted_by = self.acknowledged[&event].1;
            for webhook in (0..self.rules.len()).filter(|webhook| wanted_by >> webhook & 1 == 1) {
                self.checked[4] += 1;
                let dispatched = self
                    .traces
                    .get(&Key::new(webhook, place))
                    .is_some_and(|trace| trace.dispatched);
                if !dispatched && !self.rules[webhook].deleted {
                    let text = format!(
                        "{place:?} is below the commit {next} and was never dispatched to {}",
                        self.rules[webhook].id
                    );
                    self.violation(4, Some((webhook as u8, event)), text);
                }
            }
            at += 1;
        }
        self.routed.insert((source, partition), at);
    }

    /// 8: `since_ms` is the last moment at which something stood in the way, or there was nothing to do.
    pub fn silence(&mut self, now_ms: u32, since_ms: u32) {
        self.checked[8] += 1;
        let silence = now_ms.saturating_sub(since_ms.max(self.last_success_ms));
        self.longest_silence_ms = self.longest_silence_ms.max(silence);
        let number = u64::from(since_ms.max(self.last_success_ms));
        if silence > LONGEST_SILENCE_MS && self.reported.insert((8, number)) {
            self.violation(
                8,
                None,
                format!("nothing was delivered for {silence} ms until {now_ms} ms"),
            );
        }
    }
}
