//! Questions about deliveries: a page of them, one with its attempts, statistics. Each walks an index from its newest end, so a page
//! costs what it shows and not what there is.

use super::database::Row;
use super::query::{
    Begin, Conditions, Deliveries, DeliveryFilter, MOST_ROWS, ResponseTimes, Scope, Statistics,
    Told,
};
use super::rows::{AttemptRow, DeliveryRow, Status};
use super::{Fault, Store};

const COLUMNS: &str = "id, webhook, customer, event_type, source, created_at, updated_at, status, attempts, next_attempt_at, last_status, error_message, replay_id, reason";
/// Deliveries whose attempts the response times rest on.
const NEWEST: i64 = 1000;
/// Attempts of one delivery that are told; the API allows 21 a round, and replays add rounds.
const MOST_ATTEMPTS: i64 = 1000;

impl Store {
    /// A page of deliveries; at most 200.
    ///
    /// # Errors
    /// The database is away.
    pub fn deliveries(
        &self,
        scope: &Scope,
        filter: &DeliveryFilter,
        from: &Begin,
        limit: u32,
    ) -> Result<Deliveries, Fault> {
        let limit = limit.clamp(1, MOST_ROWS);
        let mut conditions = filtered(scope, filter);
        let beyond = match from {
            Begin::Newest => None,
            Begin::OlderThan(place) => Some(("<", place)),
            Begin::NewerThan(place) => Some((">", place)),
        };
        if let Some((comparison, place)) = beyond {
            let time = conditions.place(place.created_at_ms);
            let id = conditions.place(place.id.as_str());
            conditions.and_text(&format!("(created_at, id) {comparison} ({time}, {id})"));
        }
        let is_back = matches!(from, Begin::NewerThan(_));
        let order = if is_back { "ASC" } else { "DESC" };
        // One more than is shown tells whether there is another page that way.
        let most = conditions.place(limit + 1);
        let text = format!(
            "SELECT {COLUMNS} FROM postrider_deliveries{} ORDER BY created_at {order}, id {order} LIMIT {most}",
            conditions.text()
        );
        let mut rows = self
            .read(&text, &conditions.values)?
            .into_iter()
            .map(|mut row| delivery_of(&mut row))
            .collect::<Result<Vec<_>, _>>()?;
        let shown = usize::try_from(limit).unwrap_or(usize::MAX);
        let is_more = rows.len() > shown;
        rows.truncate(shown);
        if is_back {
            rows.reverse();
        }
        // The way that it came from, there is at least the place itself.
        Ok(Deliveries {
            rows,
            has_older: is_back || is_more,
            has_newer: match from {
                Begin::Newest => false,
                Begin::OlderThan(_) => true,
                Begin::NewerThan(_) => is_more,
            },
        })
    }

    /// One delivery with its attempts; `None` where there is none that may be seen.
    ///
    /// # Errors
    /// The database is away.
    pub fn delivery(&self, scope: &Scope, id: &str) -> Result<Option<Told>, Fault> {
        let mut conditions = Conditions::within(scope);
        conditions.and("id", "=", Some(id));
        let text = format!(
            "SELECT {COLUMNS}, first_attempts FROM postrider_deliveries{}",
            conditions.text()
        );
        let Some(mut row) = self.read(&text, &conditions.values)?.into_iter().next() else {
            return Ok(None);
        };
        let delivery = delivery_of(&mut row)?;
        let brief = row.optional_text()?.unwrap_or_default();
        let rows = self.read(
            "SELECT delivery_id, number, replay_id, started_at, duration_us, outcome, status, error_message, request_headers,
             response_headers, response_body FROM postrider_attempts WHERE delivery_id = $1
             ORDER BY started_at, topic_partition, topic_offset LIMIT $2",
            &[id.into(), MOST_ATTEMPTS.into()],
        )?;
        let mut attempts = AttemptRow::read_briefs(id, &brief);
        for row in rows {
            attempts.push(attempt_of(row)?);
        }
        attempts.sort_by_key(|attempt| attempt.started_at_ms);
        Ok(Some(Told { delivery, attempts }))
    }

    /// What became of deliveries that pass the filter. The counts walk an index of all of them: bound a webhook of many millions by
    /// `since_ms`.
    ///
    /// # Errors
    /// The database is away.
    pub fn statistics(&self, scope: &Scope, filter: &DeliveryFilter) -> Result<Statistics, Fault> {
        let mut found = Statistics {
            by_status: Status::ALL.map(|status| (status.as_str(), 0)).into(),
            ..Statistics::default()
        };
        // Without the table's rows: all are counted in one index, and those that are no success, which are few, in another.
        let conditions = filtered(scope, filter);
        let text = format!(
            "SELECT count(*), max(created_at) FROM postrider_deliveries{}",
            conditions.text()
        );
        if let Some(mut row) = self.read(&text, &conditions.values)?.into_iter().next() {
            found.total = u64::try_from(row.number()?).unwrap_or(0);
            found.last_triggered_at_ms = row.optional_number()?;
        }
        let mut conditions = filtered(scope, filter);
        conditions.and_text("status <> 'success'");
        let text = format!(
            "SELECT status, count(*) FROM postrider_deliveries{} GROUP BY status",
            conditions.text()
        );
        let mut others = 0;
        for mut row in self.read(&text, &conditions.values)? {
            let status: Status = row
                .text()?
                .parse()
                .map_err(|_| Fault::Row("an unknown status"))?;
            let count = u64::try_from(row.number()?).unwrap_or(0);
            others += count;
            found.by_status.insert(status.as_str(), count);
        }
        // Rows that came between the two questions may make it less than nothing.
        found.success = found.total.saturating_sub(others);
        found
            .by_status
            .insert(Status::Success.as_str(), found.success);
        found.failure = found
            .by_status
            .get(Status::Failed.as_str())
            .copied()
            .unwrap_or(0);
        let ended = found.success + found.failure;
        found.success_rate = (ended > 0).then(|| found.success as f64 / ended as f64);
        found.response_times = self.response_times(scope, filter)?;
        Ok(found)
    }

    fn response_times(
        &self,
        scope: &Scope,
        filter: &DeliveryFilter,
    ) -> Result<ResponseTimes, Fault> {
        let mut conditions = filtered(scope, filter);
        let most = conditions.place(NEWEST);
        let newest = format!(
            "SELECT id, first_attempts FROM postrider_deliveries{} ORDER BY created_at DESC LIMIT {most}",
            conditions.text()
        );
        let mut times = Vec::new();
        for mut row in self.read(&newest, &conditions.values)? {
            let id = row.text()?;
            let brief = row.optional_text()?.unwrap_or_default();
            let attempts = AttemptRow::read_briefs(&id, &brief);
            times.extend(attempts.into_iter().map(|attempt| attempt.duration_us));
        }
        // Only attempts that had an answer: a refused connection would make an endpoint look quick.
        let text = format!(
            "SELECT duration_us FROM ({newest}) newest
             JOIN postrider_attempts ON delivery_id = newest.id WHERE postrider_attempts.status IS NOT NULL"
        );
        for mut row in self.read(&text, &conditions.values)? {
            times.push(row.number()?);
        }
        times.sort_unstable();
        Ok(summary(&times))
    }
}

/// `times` are sorted microseconds.
fn summary(times: &[i64]) -> ResponseTimes {
    let at = |share: f64| {
        let rank = (share * times.len() as f64).ceil() as usize;
        let time = times.get(rank.saturating_sub(1)).copied().unwrap_or(0);
        time as f64 / 1000.0
    };
    let sum: i64 = times.iter().sum();
    ResponseTimes {
        attempts: times.len() as u64,
        average: sum as f64 / times.len().max(1) as f64 / 1000.0,
        p50: at(0.5),
        p95: at(0.95),
    }
}

fn filtered<'a>(scope: &'a Scope, filter: &'a DeliveryFilter) -> Conditions<'a> {
    // A webhook's rows are walked by its own index, which holds the customer too; that of the customer is hidden from the planner.
    let column = if filter.webhook.is_some() {
        "COALESCE(customer, '')"
    } else {
        "customer"
    };
    let mut conditions = Conditions::within_column(scope, column);
    conditions.and(column, "=", filter.customer.as_deref());
    conditions.and("webhook", "=", filter.webhook.as_deref());
    if let Some(status) = filter.status {
        // Written out, because an index holds only those that are no success, and a parameter could be one.
        conditions.and_text(&format!("status = '{}'", status.as_str()));
        if status != Status::Success {
            conditions.and_text("status <> 'success'");
        }
    }
    conditions.and("event_type", "=", filter.event_type.as_deref());
    conditions.and("created_at", ">=", filter.since_ms);
    conditions.and("created_at", "<", filter.until_ms);
    conditions
}

fn delivery_of(row: &mut Row) -> Result<DeliveryRow, Fault> {
    Ok(DeliveryRow {
        id: row.text()?,
        webhook: row.text()?,
        customer: row.optional_text()?,
        event_type: row.text()?,
        source: row.text()?,
        created_at_ms: row.number()?,
        updated_at_ms: row.number()?,
        status: row
            .text()?
            .parse()
            .map_err(|_| Fault::Row("an unknown status"))?,
        attempts: row.small()?.unwrap_or(0),
        next_attempt_at_ms: row.optional_number()?,
        last_status: row.small()?,
        error_message: row.optional_text()?,
        replay_id: row.optional_text()?,
        reason: row.optional_text()?,
    })
}

fn attempt_of(mut row: Row) -> Result<AttemptRow, Fault> {
    Ok(AttemptRow {
        delivery_id: row.text()?,
        number: row.small()?.unwrap_or(0),
        replay_id: row.optional_text()?,
        started_at_ms: row.number()?,
        duration_us: row.number()?,
        outcome: row.text()?,
        status: row.small()?,
        error_message: row.optional_text()?,
        request_headers: row.optional_text()?,
        response_headers: row.optional_text()?,
        response_body: row.optional_text()?,
    })
}
