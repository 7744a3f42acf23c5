//! Invariant 9: no webhook beyond its rate limit, whoever sends.

use std::collections::VecDeque;

use super::{Hit, Oracle, Rule};

/// What requests that are on their way may be bunched by (see `pace::most_in_a_second`).
const SECOND_MS: u32 = 900;

/// How a limited webhook was sent to.
#[derive(Default)]
pub(super) struct Pace {
    /// When, by which instance, and how late it may have been read.
    window: VecDeque<(u32, u8, u16)>,
    /// Of a bucket that is empty at first; below zero it was taken from on credit.
    tokens: f64,
    at_ms: u32,
}

impl Oracle {
    /// Limit and burst in any second, and what was in flight where there was a hand-over. And over any span: what a bucket that is empty at
    /// first gives, so that a new owner who begins with a full one is seen where it has been empty. On credit are the requests in
    /// flight at a hand-over and what is bunched on its way. What this process itself kept waiting counts for the time when it may have come.
    pub(super) fn judge_pace(&mut self, rule: &Rule, hit: &Hit) {
        let Some((limit, burst, at_once)) = rule.limit else {
            return;
        };
        self.checked[9] += 1;
        let pace = self.paces.entry(hit.webhook).or_default();
        pace.window
            .push_back((hit.at_ms, hit.instance, hit.late_ms));
        while pace
            .window
            .front()
            .is_some_and(|(at, ..)| at + SECOND_MS <= hit.at_ms)
        {
            pace.window.pop_front();
        }
        let handed_over = pace
            .window
            .iter()
            .any(|(_, instance, _)| *instance != hit.instance);
        let late_ms = pace.window.iter().map(|(.., late)| *late).max();
        let late_ms = u32::from(late_ms.unwrap_or(0));
        self.latest_ms = self.latest_ms.max(hit.late_ms);
        let waited = limit * late_ms / 1000;
        let most = limit + burst + waited + if handed_over { at_once } else { 0 };
        let count = pace.window.len();
        let waited_ms = hit.at_ms.saturating_sub(pace.at_ms);
        pace.at_ms = pace.at_ms.max(hit.at_ms);
        let gained = f64::from(waited_ms) / 1000.0 * f64::from(limit);
        pace.tokens = (pace.tokens + gained).min(f64::from(burst)) - 1.0;
        let missing = -pace.tokens;
        let credit = 1 + at_once + limit;
        let text = if count > most as usize {
            format!(
                "{count} requests to {} within {SECOND_MS} ms, {most} allowed (receivers up to {late_ms} ms late)",
                rule.id
            )
        } else if missing > f64::from(credit) {
            // Told once for what it is too much.
            pace.tokens = 0.0;
            format!(
                "{missing:.0} requests to {} more than a bucket that began empty gives, {credit} allowed",
                rule.id
            )
        } else {
            return;
        };
        self.violation(9, Some((hit.webhook, hit.event)), text);
    }
}
