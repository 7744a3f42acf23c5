//! What is judged when everything is over: no loss, one ending each, topics at their ends, copies within bounds.

use super::{Key, Oracle};

/// What the run promised of copies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Copies {
    /// Nothing disturbed it.
    None,
    /// A share of the deliveries, below this.
    Below(f64),
}

/// Where a group stood at the end, and where the topic ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub place: String,
    pub committed: Option<i64>,
    pub end: i64,
}

/// The sums of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sums {
    pub events: u64,
    /// Events × wanting webhooks.
    pub deliveries: u64,
    pub requests: u64,
    pub accepted: u64,
    pub copies: u64,
    /// Copies by what was repeated: the reading of an event, a record of ours, or only the request.
    pub routed_again: u64,
    pub written_again: u64,
    pub letters: u64,
    pub dropped: u64,
    pub not_routed: u64,
    /// Ending records beyond the first of a delivery.
    pub doubled: u64,
    pub p50_ms: u32,
    pub p99_ms: u32,
}

impl Sums {
    pub fn copies_share(&self) -> f64 {
        self.copies as f64 / self.accepted.max(1) as f64
    }
}

impl Oracle {
    /// Whether a delivery has ended in some way that is proved outside the audit trail.
    pub fn has_ended(&self, event: u32, webhook: u8) -> bool {
        let Some((place, ..)) = self.acknowledged.get(&event) else {
            return false;
        };
        let trace = self
            .traces
            .get(&Key::new(usize::from(webhook), *place))
            .copied()
            .unwrap_or_default();
        self.accepted.contains_key(&(event, webhook)) || trace.letters > 0 || trace.dropped > 0
    }

    /// How many deliveries of acknowledged events have not ended. Those of a deleted webhook count once they were dispatched.
    pub fn unfinished(&self) -> u64 {
        self.all_wanted()
            .filter(|(event, webhook)| {
                !self.has_ended(*event, *webhook) && !self.is_excused(*event, *webhook)
            })
            .count() as u64
    }

    fn all_wanted(&self) -> impl Iterator<Item = (u32, u8)> {
        self.acknowledged
            .iter()
            .flat_map(|(event, (_, wanted_by, _))| {
                (0..64_u8)
                    .filter(move |webhook| wanted_by >> webhook & 1 == 1)
                    .map(move |webhook| (*event, webhook))
            })
    }

    fn is_excused(&self, event: u32, webhook: u8) -> bool {
        let place = self.acknowledged[&event].0;
        let key = Key::new(usize::from(webhook), place);
        self.rules[usize::from(webhook)].deleted
            && !self.traces.get(&key).is_some_and(|trace| trace.dispatched)
    }

    /// Judges the whole run. Every record of every topic has been told.
    pub fn conclude(&mut self, copies: Copies, standings: &[Standing]) -> Sums {
        let mut sums = Sums {
            events: self.acknowledged.len() as u64,
            requests: self.hits.len() as u64,
            ..Sums::default()
        };
        let mut waits = Vec::new();
        let mut wanted: Vec<(u32, u8)> = self.all_wanted().collect();
        wanted.sort_unstable();
        for (event, webhook) in wanted {
            sums.deliveries += 1;
            self.checked[1] += 1;
            let (place, _, produced_ms) = self.acknowledged[&event];
            let trace = self
                .traces
                .get(&Key::new(usize::from(webhook), place))
                .copied()
                .unwrap_or_default();
            let id = self.rules[usize::from(webhook)].id.clone();
            let accepted = self.accepted.get(&(event, webhook)).copied();
            if let Some((count, first_ms)) = accepted {
                sums.accepted += 1;
                let copies = u64::from(count) - 1;
                sums.copies += copies;
                if trace.routed_again {
                    sums.routed_again += copies;
                } else if trace.dispatches > 1 {
                    sums.written_again += copies;
                }
                if self.rules[usize::from(webhook)].limit.is_none() {
                    waits.push(first_ms.saturating_sub(produced_ms));
                }
            }
            sums.letters += u64::from(trace.letters > 0);
            sums.dropped += u64::from(trace.dropped > 0);
            if accepted.is_none() && trace.letters == 0 && trace.dropped == 0 {
                if self.is_excused(event, webhook) {
                    sums.not_routed += 1;
                } else {
                    self.violation(
                        1,
                        Some((webhook, event)),
                        format!("lost: event {event} ({place:?}) for {id} has no ending"),
                    );
                }
                continue;
            }
            let endings =
                u64::from(trace.delivered) + u64::from(trace.letters) + u64::from(trace.dropped);
            sums.doubled += endings.saturating_sub(1);
            if endings == 0 {
                self.violation(
                    1,
                    Some((webhook, event)),
                    format!(
                        "event {event} ({place:?}) for {id} arrived, and no ending is recorded"
                    ),
                );
            }
            if trace.said_dead > 0 && trace.letters == 0 {
                self.violation(1, Some((webhook, event)), format!("event {event} ({place:?}) for {id} is called dead-lettered, and there is no letter"));
            }
        }
        self.judge_outsiders();
        self.judge_copies(copies, &sums);
        for standing in standings {
            self.checked[5] += 1;
            // A topic without a record needs no commit.
            if standing.end > 0 && standing.committed != Some(standing.end) {
                self.violation(5, None, format!("{standing:?}: not at the end"));
            }
        }
        waits.sort_unstable();
        let part = |share: f64| {
            waits
                .get((waits.len() as f64 * share) as usize)
                .copied()
                .unwrap_or(0)
        };
        (sums.p50_ms, sums.p99_ms) = (part(0.5), part(0.99));
        sums
    }

    /// 2: requests and records of what nobody produced, or nobody wanted.
    fn judge_outsiders(&mut self) {
        let requests = self.accepted.keys().copied().chain(
            self.failures
                .keys()
                .map(|(event, webhook, _)| (*event, *webhook)),
        );
        let mut outside: Vec<_> = requests
            .filter(|(event, webhook)| {
                self.acknowledged
                    .get(event)
                    .is_some_and(|(_, wanted_by, _)| wanted_by >> webhook & 1 == 0)
            })
            .collect();
        outside.sort_unstable();
        for (event, webhook) in outside {
            let id = self.rules[usize::from(webhook)].id.clone();
            self.violation(
                2,
                Some((webhook, event)),
                format!("event {event} went to {id}, which does not want it"),
            );
        }
        let mut nowhere: Vec<Key> = self
            .traces
            .keys()
            .copied()
            .filter(|key| self.event_at(key.place()).is_none())
            .collect();
        nowhere.sort_unstable();
        self.checked[2] += self.traces.len() as u64;
        for key in nowhere {
            let id = self.rules[key.webhook()].id.clone();
            self.violation(
                2,
                None,
                format!(
                    "a delivery to {id} of {:?}, where nothing was produced",
                    key.place()
                ),
            );
        }
    }

    /// 6: copies.
    fn judge_copies(&mut self, copies: Copies, sums: &Sums) {
        self.checked[6] += sums.accepted;
        let (most, doubled) = match copies {
            Copies::None => (0, 0),
            Copies::Below(share) => (
                (sums.accepted as f64 * share) as u64,
                (sums.deliveries as f64 * share) as u64,
            ),
        };
        if sums.copies > most {
            self.violation(
                6,
                None,
                format!(
                    "{} copies of {} deliveries, {most} allowed",
                    sums.copies, sums.accepted
                ),
            );
        }
        if sums.doubled > doubled {
            self.violation(
                6,
                None,
                format!(
                    "{} second endings of {} deliveries, {doubled} allowed",
                    sums.doubled, sums.deliveries
                ),
            );
        }
    }
}
