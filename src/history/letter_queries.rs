//! Questions about dead letters: a page of them, and how many there are by reason.

use std::collections::BTreeMap;

use super::database::Row;
use super::query::{Conditions, LetterCursor, LetterFilter, Letters, MOST_ROWS, Page, Scope};
use super::rows::DeadLetterRow;
use super::{Fault, Store};

const COLUMNS: &str = "topic_partition, topic_offset, topic, delivery_id, webhook, customer, event_type, reason, message, attempts, last_status, died_at, replays, replayable";

impl Store {
    /// Dead letters, newest first, behind a cursor; at most 200. Whether one was replayed or discarded since is not known here.
    ///
    /// # Errors
    /// The database is away.
    pub fn dead_letters(
        &self,
        scope: &Scope,
        filter: &LetterFilter,
        after: Option<&LetterCursor>,
        limit: u32,
    ) -> Result<Letters, Fault> {
        let limit = limit.clamp(1, MOST_ROWS);
        let mut conditions = filtered(scope, filter);
        if let Some(after) = after {
            let time = conditions.place(after.died_at_ms);
            let partition = conditions.place(i64::from(after.partition));
            let offset = conditions.place(after.offset);
            conditions.and_text(&format!(
                "(died_at, topic_partition, topic_offset) < ({time}, {partition}, {offset})"
            ));
        }
        let most = conditions.place(limit + 1);
        let text = format!(
            "SELECT {COLUMNS} FROM postrider_dead_letters{} ORDER BY died_at DESC, topic_partition DESC, topic_offset DESC LIMIT {most}",
            conditions.text()
        );
        let mut rows = self
            .read(&text, &conditions.values)?
            .into_iter()
            .map(letter_of)
            .collect::<Result<Vec<_>, _>>()?;
        let shown = usize::try_from(limit).unwrap_or(usize::MAX);
        let is_more = rows.len() > shown;
        rows.truncate(shown);
        let next = rows.last().filter(|_| is_more).map(|last| LetterCursor {
            died_at_ms: last.died_at_ms,
            partition: last.partition,
            offset: last.offset,
        });
        Ok(Page { rows, next })
    }

    /// How many dead letters pass the filter, by reason.
    ///
    /// # Errors
    /// The database is away.
    pub fn dead_letter_counts(
        &self,
        scope: &Scope,
        filter: &LetterFilter,
    ) -> Result<BTreeMap<String, u64>, Fault> {
        let conditions = filtered(scope, filter);
        let text = format!(
            "SELECT reason, count(*) FROM postrider_dead_letters{} GROUP BY reason",
            conditions.text()
        );
        self.read(&text, &conditions.values)?
            .into_iter()
            .map(|mut row| Ok((row.text()?, u64::try_from(row.number()?).unwrap_or(0))))
            .collect()
    }
}

fn filtered(scope: &Scope, filter: &LetterFilter) -> Conditions {
    let mut conditions = Conditions::within(scope);
    conditions.and("customer", "=", filter.customer.as_deref());
    conditions.and("webhook", "=", filter.webhook.as_deref());
    conditions.and("reason", "=", filter.reason.as_deref());
    conditions.and("event_type", "=", filter.event_type.as_deref());
    conditions.and("last_status", "=", filter.last_status);
    conditions.and("died_at", ">=", filter.since_ms);
    conditions.and("died_at", "<", filter.until_ms);
    conditions
}

fn letter_of(mut row: Row) -> Result<DeadLetterRow, Fault> {
    Ok(DeadLetterRow {
        partition: row.small()?.ok_or(Fault::Row("a partition is missing"))?,
        offset: row.number()?,
        topic: row.text()?,
        delivery_id: row.optional_text()?,
        webhook: row.optional_text()?,
        customer: row.optional_text()?,
        event_type: row.optional_text()?,
        reason: row.text()?,
        message: row.text()?,
        attempts: row.small()?,
        last_status: row.small()?,
        died_at_ms: row.number()?,
        replays: row.small()?.unwrap_or(0),
        replayable: row.number()? != 0,
    })
}
