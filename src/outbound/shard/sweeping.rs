//! What a shard looks at every second: lanes that have waited long enough or are idle, and the gauges of their webhooks (promise 6).

use std::rc::Rc;
use std::time::Duration;

use super::super::breaker::State;
use super::{Shard, WebhookLane, unix};
use crate::attempt::Outcome;
use crate::subscription::WebhookId;

/// A lane without work is forgotten after this; its rate limit would be full again by then or is made anew from the
/// assignment's beginning.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

impl Shard {
    pub(super) fn sweep(self: &Rc<Self>) {
        let now = self.now();
        let mut back = Vec::new();
        // Giving back is writing too: while Kafka does not keep up, what waits waits here.
        let gives_back = (self.settings.keeps_up)();
        self.lanes.borrow_mut().retain(|id, lane| {
            if gives_back {
                back.extend(lane.lane.sweep(now));
            }
            let idle = now.saturating_sub(lane.used_at) >= IDLE_LIMIT;
            let is_tripped = lane.lane.state() != State::Passing;
            let keep = lane.lane.pending() > 0
                || if id.is_inline() {
                    // They may be as many as there are events: only one that is down is worth remembering, and not for long.
                    is_tripped && !idle
                } else {
                    // While it fails it is remembered, or a lane made anew would begin with ten more failures.
                    let fails = is_tripped || lane.signs.failing_since_ms.is_some();
                    !idle || (fails && lane.assignment.is_live())
                };
            if lane.labelled {
                self.show(id, lane, keep);
            }
            if !keep {
                self.settings.standings.set(id, State::Passing);
            }
            keep
        });
        for (submission, pause, waiting) in back {
            self.put_off(submission, pause, waiting);
        }
    }

    /// Brings the gauges of a webhook up to now, or takes all its metrics away with its lane.
    fn show(&self, id: &WebhookId, lane: &WebhookLane, keep: bool) {
        let metrics = &self.settings.metrics;
        let label: &[&str] = &[id.as_str()];
        if keep {
            let pending = i64::try_from(lane.lane.pending()).unwrap_or(i64::MAX);
            metrics
                .webhook_pending
                .with_label_values(label)
                .set(pending);
            let unix_ms = i64::try_from(unix().as_millis()).unwrap_or(i64::MAX);
            let age_ms = lane.lane.oldest().map_or(0, |oldest| {
                unix_ms.saturating_sub(oldest.delivery.created_at_ms)
            });
            metrics
                .webhook_oldest_pending
                .with_label_values(label)
                .set(age_ms.max(0) as f64 / 1000.0);
            return;
        }
        let _ = metrics.webhook_pending.remove_label_values(label);
        let _ = metrics.webhook_oldest_pending.remove_label_values(label);
        for outcome in Outcome::ALL {
            let label: &[&str] = &[id.as_str(), outcome.as_str()];
            let _ = metrics.webhook_attempts.remove_label_values(label);
        }
        self.labelled.set(self.labelled.get().saturating_sub(1));
    }
}
