//! What the last owner of a job sent and did not live to write behind its cursor.
//!
//! Promise 3: a replay sends each letter once more, also when its process is killed half-way. What it sent stands in `dispatch` under the
//! job's id, so whoever takes the job up looks for it there before it goes on.

use std::collections::HashSet;

use super::told::Beat;
use super::{Error, Replaying};
use crate::delivery::headers as name;
use crate::kafka::table::Span;
use crate::record::{Header, header_text};
use crate::retry::replay::Job;

/// An owner writes its cursor within a second of what it sends, or within half of this while the cluster hesitates; clocks differ by a little.
/// What it sent and is outside of this is sent twice, with the same id.
const REACH_MS: i64 = 120_000;

/// The delivery that the headers of a record name.
pub(super) fn delivery_of(headers: &[Header]) -> Option<&str> {
    header_text(headers, name::DELIVERY_ID)
}

impl Replaying {
    /// Which of these deliveries, the first behind the cursor of a job that is taken up, stand in `dispatch` already.
    pub(super) fn sent_already(
        &self,
        job: &Job,
        behind: &HashSet<String>,
        beat: &mut Beat<'_>,
    ) -> Result<HashSet<String>, Error> {
        let mut found = HashSet::new();
        if behind.is_empty() {
            return Ok(found);
        }
        let reached_ms = job.reached_at_ms.max(job.created_at_ms);
        let begin = self.since(&self.dispatch, reached_ms - REACH_MS)?;
        let end = self.since(&self.dispatch, reached_ms + REACH_MS)?;
        let spans: Vec<Span> = begin
            .iter()
            .zip(&end)
            .map(|(begin, end)| Span {
                to: end.from,
                ..*begin
            })
            .collect();
        self.listen(&self.dispatch, &spans, beat, |record| {
            if header_text(&record.headers, name::REPLAY_ID) == Some(&job.id) {
                let id = delivery_of(&record.headers).and_then(|id| behind.get(id));
                found.extend(id.cloned());
            }
        })?;
        Ok(found)
    }
}
