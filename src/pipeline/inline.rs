//! The delivery of an event to the webhook that it carries for itself: made by the first loop, and its webhook found again by the second.
//!
//! Its webhook is in no catalog. It travels sealed in a header of the delivery, from topic to topic and into the dead letters, so that
//! it is delivered to and replayed like any other (promises 1 and 7), also where no event may carry one any more.

use std::sync::Arc;

use serde_json::Value;

use super::Ways;
use crate::delivery::Delivery;
use crate::event::Event;
use crate::record::Record;
use crate::subscription::inline;
use crate::subscription::seal::SealError;
use crate::subscription::{Customer, Subscription, WebhookId};

/// Why the webhook of a delivery is not there.
pub(super) enum Absent {
    /// This instance has not the key; another configuration has.
    Sealed(SealError),
    /// It never can be used; why, for whoever wrote the event.
    Refused(String),
}

impl Ways {
    /// The delivery of an event to the webhook that it carries.
    ///
    /// # Errors
    /// The webhook cannot be used, and why; the delivery says so too, so that it is a dead letter however often it is replayed.
    pub(super) fn inline_delivery(
        &self,
        record: &Record,
        event: &Event,
        webhook: &Value,
        now_ms: i64,
    ) -> (Delivery, Result<(), String>) {
        let customer = event.customer.as_deref().map(Customer::new);
        let mut delivery = Delivery::new(
            record,
            &event.event_type,
            // Its id must not depend on the key: a record that is read again after a rotation has the same deliveries (promise 3).
            &WebhookId::inline(),
            customer.as_ref(),
            now_ms,
        );
        let sealed = self.seal_inline(&delivery, webhook);
        let outcome = match sealed {
            Ok((id, sealed)) => {
                delivery.webhook = id;
                delivery.inline = Some(sealed);
                Ok(())
            }
            Err(why) => {
                delivery.inline = Some(why.clone());
                Err(why)
            }
        };
        (delivery, outcome)
    }

    fn seal_inline(
        &self,
        delivery: &Delivery,
        webhook: &Value,
    ) -> Result<(WebhookId, String), String> {
        let read = inline::read(webhook)?;
        let key = self.key.as_ref().ok_or("there is no secrets.key")?;
        let id = inline::id_of(&read, delivery.customer.as_ref(), key);
        let sealed = inline::to_header(webhook, &id, &delivery.id, key);
        Ok((id, sealed.map_err(|fault| fault.to_string())?))
    }

    /// The webhook that a delivery carries.
    pub(super) fn inline_webhook(
        &self,
        delivery: &Delivery,
        carried: &str,
    ) -> Result<Arc<Subscription>, Absent> {
        let customer = delivery.customer.as_ref();
        let key = self.key.as_ref();
        match inline::from_header(carried, &delivery.webhook, customer, &delivery.id, key) {
            Ok(webhook) => Ok(Arc::new(webhook)),
            Err(fault @ (SealError::NoKeyToOpen { .. } | SealError::WrongKey { .. })) => {
                Err(Absent::Sealed(fault))
            }
            Err(SealError::Unreadable(why)) => Err(Absent::Refused(why)),
            Err(fault) => Err(Absent::Refused(fault.to_string())),
        }
    }
}
