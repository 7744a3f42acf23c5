//! How webhooks stand, asked for a whole page of them by one statement.

use std::collections::BTreeMap;

use super::query::Conditions;
use super::{Fault, Scope, Store};

/// What waits for a webhook is counted up to this.
const MOST_PENDING: i64 = 100_000;

/// How a webhook stands. Times are Unix milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recent {
    /// When an attempt last succeeded.
    pub last_success_at_ms: Option<i64>,
    /// When an attempt last failed.
    pub last_failure_at_ms: Option<i64>,
    /// Deliveries that wait: put off, to be tried again, or held. 100,000 stands for that many or more.
    pub pending: u64,
}

impl Store {
    /// How these webhooks stand, by their ids. Whoever asks must have seen that they are the asking tenant's: ids are one tenant's alone.
    ///
    /// # Errors
    /// The database is away.
    pub fn recent(&self, webhooks: &[&str]) -> Result<BTreeMap<String, Recent>, Fault> {
        if webhooks.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut asked = Conditions::within(&Scope::All);
        let places: Vec<String> = webhooks
            .iter()
            .map(|webhook| format!("(CAST({} AS TEXT))", asked.place(*webhook)))
            .collect();
        // `status <> 'success'` again, because only then the index of the unsuccessful is used.
        let text = format!(
            "WITH asked (webhook) AS (VALUES {})
             SELECT asked.webhook, known.last_success_at, known.last_failure_at,
             (SELECT count(*) FROM (SELECT 1 FROM postrider_deliveries AS delivery WHERE delivery.webhook = asked.webhook
              AND delivery.status <> 'success' AND delivery.status IN ('pending', 'retrying', 'held') LIMIT {MOST_PENDING}) AS waiting)
             FROM asked LEFT JOIN postrider_webhooks AS known ON known.webhook = asked.webhook",
            places.join(", ")
        );
        self.read(&text, &asked.values)?
            .into_iter()
            .map(|mut row| {
                let webhook = row.text()?;
                let recent = Recent {
                    last_success_at_ms: row.optional_number()?,
                    last_failure_at_ms: row.optional_number()?,
                    pending: u64::try_from(row.number()?).unwrap_or(0),
                };
                Ok((webhook, recent))
            })
            .collect()
    }
}
