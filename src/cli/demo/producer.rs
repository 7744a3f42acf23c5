//! The demo's producing system: events of all four families, a few a second, and now and then many at once.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::account::Account;
use super::screen::Sign;
use crate::event::{Event, KNOWN_TYPES};
use crate::kafka::producer::Producer;
use crate::record::Outgoing;
use crate::samples;

/// Events between one burst and the next.
const BURST_EVERY: u64 = 40;
/// Events of a burst: more than the limited webhook takes at once.
const BURST: u64 = 6;
const BURST_TYPE: &str = "device.status_changed";
const CUSTOMERS: u64 = 2;
/// Steps through the known types so that families alternate; it shares no factor with their number.
const STRIDE: u64 = 5;

/// Produces the next event each time it is told to.
pub(super) struct Events {
    producer: Producer,
    account: Arc<Account>,
    sequence: u64,
}

impl Events {
    pub(super) fn new(producer: Producer, account: Arc<Account>) -> Self {
        Self {
            producer,
            account,
            sequence: 0,
        }
    }

    /// One more event, of the next type; at times a burst of them.
    pub(super) fn produce(&mut self) {
        self.send(type_at(self.sequence));
        if self.sequence % BURST_EVERY == BURST_EVERY / 2 {
            self.account.screen.line(
                Sign::Notice,
                format_args!("a site loses its uplink: {BURST} x {BURST_TYPE} at once"),
            );
            for _ in 0..BURST {
                self.send(BURST_TYPE);
            }
        }
    }

    fn send(&mut self, event_type: &str) {
        self.sequence += 1;
        let customer = 1 + self.sequence % CUSTOMERS;
        let body = samples::sample(event_type, self.sequence, customer, Timestamp::now());
        let record = Outgoing {
            topic: format!("events.{}", samples::family(event_type)).into(),
            key: Some(Bytes::from(customer.to_string())),
            payload: Some(body.to_string().into()),
            headers: Vec::new(),
        };
        let event = Event {
            event_type: event_type.to_owned(),
            customer: Some(customer.to_string()),
            body,
            inline: None,
        };
        let account = Arc::clone(&self.account);
        let done = Box::new(move |written: Result<_, _>| match written {
            Ok(source) => account.produced(source, &event),
            Err(refused) => account.screen.line(
                Sign::Notice,
                format_args!("an event was refused: {refused}"),
            ),
        });
        self.producer.send(&record, done);
    }
}

fn type_at(sequence: u64) -> &'static str {
    let count = u64::try_from(KNOWN_TYPES.len()).unwrap_or(1);
    let place = usize::try_from(sequence.wrapping_mul(STRIDE) % count).unwrap_or(0);
    KNOWN_TYPES.get(place).copied().unwrap_or(BURST_TYPE)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_known_type_has_its_turn() {
        let count = KNOWN_TYPES.len();
        let types: HashSet<&str> = (0..count as u64).map(type_at).collect();
        assert_eq!(types.len(), count);
    }
}
