//! The table that a run ends with.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::follower::Follower;
use super::oracle::ending::Sums;
use super::oracle::{Key, Oracle};

/// What each number promises, in short; the whole text is in tests/CHAOS.md.
pub const INVARIANTS: [&str; 9] = [
    "every delivery ends, nothing is lost",
    "nothing that was not produced or not wanted",
    "a dead letter has spent its attempts or has a reason",
    "no commit above what is unfinished",
    "at the end committed = end everywhere, delay topics empty",
    "copies within bounds",
    "no attempt before it is due",
    "no 30 s without progress",
    "rate limits hold across instances",
];

pub struct Report<'a> {
    pub seed: u64,
    pub minutes: f64,
    pub oracle: &'a Oracle,
    pub sums: Sums,
    pub struck: &'a BTreeMap<String, u32>,
    pub ended_by_themselves: &'a [String],
    pub did_not_leave: u32,
    pub proxied_bytes: u64,
}

impl Report<'_> {
    pub fn text(&self) -> String {
        let mut text = String::new();
        let sums = &self.sums;
        let faults: u32 = self.struck.values().sum();
        let _ = writeln!(
            text,
            "# Chaos, seed {}: {} events, {:.1} minutes, {faults} faults\n",
            self.seed, sums.events, self.minutes
        );
        let _ = writeln!(text, "| fault | times |\n|---|---:|");
        for (kind, times) in self.struck {
            let _ = writeln!(text, "| {kind} | {times} |");
        }
        let rows = [
            ("A: acknowledged events", sums.events.to_string()),
            (
                "deliveries: events × wanting webhooks",
                sums.deliveries.to_string(),
            ),
            ("R: requests at the receivers", sums.requests.to_string()),
            ("delivered (2xx)", sums.accepted.to_string()),
            ("D: dead-lettered", sums.letters.to_string()),
            ("H: held at the end", "0 (all resumed)".to_owned()),
            ("X: dropped with their webhook", sums.dropped.to_string()),
            (
                "routed after their webhook was deleted",
                sums.not_routed.to_string(),
            ),
            (
                "copies",
                format!("{} ({:.2} %)", sums.copies, 100.0 * sums.copies_share()),
            ),
            (
                "of these: event read again / record written again / only sent again",
                format!(
                    "{} / {} / {}",
                    sums.routed_again,
                    sums.written_again,
                    sums.copies - sums.routed_again - sums.written_again
                ),
            ),
            ("second ending records", sums.doubled.to_string()),
            (
                "end to end p50 / p99",
                format!("{} / {} ms", sums.p50_ms, sums.p99_ms),
            ),
            (
                "longest silence with work and a way",
                format!("{} ms", self.oracle.longest_silence_ms),
            ),
            (
                "longest that requests waited for the receivers",
                format!("{} ms", self.oracle.latest_ms),
            ),
            ("requests of zombies", self.oracle.zombies.to_string()),
            (
                "routers that ended by themselves",
                self.ended_by_themselves.len().to_string(),
            ),
            (
                "routers killed because SIGTERM took 40 s",
                self.did_not_leave.to_string(),
            ),
            (
                "through the proxy",
                format!("{} MB", self.proxied_bytes / 1_000_000),
            ),
        ];
        let _ = writeln!(text, "\n| what | |\n|---|---:|");
        for (what, value) in rows {
            let _ = writeln!(text, "| {what} | {value} |");
        }
        let _ = writeln!(text, "\ncopies by ten seconds: {}", self.copies_by_time());
        let _ = writeln!(
            text,
            "\n| | invariant | checked | violations |\n|---:|---|---:|---:|"
        );
        for (index, invariant) in INVARIANTS.iter().enumerate() {
            let number = index + 1;
            let _ = writeln!(
                text,
                "| {number} | {invariant} | {} | {} |",
                self.oracle.checked[number], self.oracle.failed[number]
            );
        }
        text
    }

    /// `second: copies`, for the seconds that had any: to be laid beside the faults.
    fn copies_by_time(&self) -> String {
        let mut seen = std::collections::HashSet::new();
        let mut by_time: BTreeMap<u32, u32> = BTreeMap::new();
        for hit in self.oracle.hits.iter().filter(|hit| hit.status == 200) {
            if !seen.insert((hit.event, hit.webhook)) {
                *by_time.entry(hit.at_ms / 10_000 * 10).or_default() += 1;
            }
        }
        let parts: Vec<String> = by_time
            .iter()
            .map(|(second, copies)| format!("{second} s: {copies}"))
            .collect();
        if parts.is_empty() {
            "none".to_owned()
        } else {
            parts.join(", ")
        }
    }
}

/// The first violations with all that is known of their deliveries.
pub fn violations(oracle: &Oracle, follower: &Follower) -> String {
    let mut text = "\n## Violations\n".to_owned();
    for violation in &oracle.violations {
        text.push_str(&format!("- {}: {}\n", violation.invariant, violation.text));
    }
    let mut seen = BTreeMap::new();
    let of_deliveries: Vec<(u8, u32)> = oracle
        .violations
        .iter()
        .filter_map(|violation| Some((violation.invariant, violation.event?)))
        .filter(|(invariant, _)| {
            *seen
                .entry(*invariant)
                .and_modify(|count| *count += 1)
                .or_insert(1)
                <= 5
        })
        .map(|(_, event)| event)
        .collect();
    text.push_str("\n## Requests of these deliveries\n");
    for hit in oracle
        .hits
        .iter()
        .filter(|hit| of_deliveries.contains(&(hit.webhook, hit.event)))
    {
        text.push_str(&format!("- {hit:?}\n"));
    }
    let keys: Vec<Key> = of_deliveries
        .iter()
        .filter_map(|(webhook, event)| {
            Some(Key::new(
                usize::from(*webhook),
                oracle.acknowledged.get(event)?.0,
            ))
        })
        .collect();
    text.push_str("\n## Records of these deliveries (source place, webhook's number, record)\n");
    for line in follower.history(&keys) {
        text.push_str(&format!("- {line}\n"));
    }
    text
}
