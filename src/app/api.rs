//! What stands behind the API: the catalog, the topics and the stages, asked in the API's words.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::http::StatusCode;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tracing::{error, info};

use super::past::{Known, time};
use super::{Error, Running};
use crate::config::Config;
use crate::event::Event;
use crate::intake::decode::{Decoded, Reading, decode};
use crate::kafka::settings::Connection;
use crate::kafka::{self, topics};
use crate::matching::explain::Fate;
use crate::metrics::Metrics;
use crate::outbound::guard::Guard;
use crate::pipeline::changes::{Changes, Fault, Written};
use crate::pipeline::replaying::Replaying;
use crate::pipeline::{admission, now_ms, test_event};
use crate::record::{Header, Outgoing, Record, SourceOffset};
use crate::samples;
use crate::subscription::{Draft, Edited, FieldError, Subscription, WebhookId, inline};
use crate::token::Token;
use crate::web::api::events::{Explained, Placed, Read, Submission};
use crate::web::api::past::Past;
use crate::web::api::problem::Problem;
use crate::web::api::{self, Api, Behind, Editor, Served, Settings, Standing};

const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(20);

/// A reason of the decoder's; those that concern one member begin with its pointer.
fn no_event(why: &str) -> FieldError {
    let first = why.split([' ', ':']).next().unwrap_or_default();
    let is_place = first.starts_with('/');
    FieldError {
        pointer: if is_place {
            first.to_owned()
        } else {
            String::new()
        },
        message: format!("this is no event: {why}"),
    }
}

/// Serves the API where the configuration wants it, and says why where it does not.
pub(super) async fn serve(
    config: &Config,
    connection: &Connection,
    running: &Arc<Running>,
    changes: Changes,
    tokens: Arc<ArcSwap<Vec<Token>>>,
) -> Result<Option<Served>, Error> {
    let web = &config.web;
    let Some(listen) = web.listen else {
        return Ok(None);
    };
    if web.tokens.is_empty() && changes.written.tokens().is_empty() && !web.allow_anonymous {
        info!(
            "the API is not served, because there is no token: make one with `postrider token new`, or set web.allow_anonymous = true for this machine alone"
        );
        return Ok(None);
    }
    let settings = Settings {
        tokens,
        allow_anonymous: web.allow_anonymous,
        max_webhooks_per_customer: web.max_webhooks_per_customer,
        cursor_key: cursor_key(config),
    };
    let behind = Stood {
        running: Arc::clone(running),
        past: Known {
            running: Arc::clone(running),
            replaying: Replaying::with(
                connection.clone(),
                running.ways.producer.clone(),
                &running.ways.topics,
            )
            .knowing(super::origin(config, Arc::clone(&running.ways.catalog))),
            guard: Guard::new(config.outbound.allow_networks.clone()),
            readings: AtomicUsize::new(0),
        },
        guard: Guard::new(config.outbound.allow_networks.clone()),
        reading: super::reading(config),
        sources: config.intake.topics.clone(),
        connection: connection.clone(),
        changes,
    };
    let api = Arc::new(Api::new(Arc::new(behind), settings));
    let served = api::serve(listen, api).await;
    let served = served.map_err(|fault| Error::ListenForApi {
        address: listen,
        fault,
    })?;
    info!(api = %served.address, anonymous = web.allow_anonymous, "the API is served");
    Ok(Some(served))
}

/// From what all instances of one configuration have, and nobody else.
fn cursor_key(config: &Config) -> Vec<u8> {
    let mut digest = Sha256::new();
    digest.update(b"postrider cursors");
    digest.update(config.secrets.key.expose().unwrap_or_default());
    for token in &config.web.tokens {
        digest.update(token.sha256.as_bytes());
    }
    if config.secrets.key.expose().is_none() && config.web.tokens.is_empty() {
        let mut random = [0; 32];
        // Without it a cursor could be forged, which shows nobody more than the list does.
        let _ = getrandom::fill(&mut random);
        digest.update(random);
    }
    digest.finalize().to_vec()
}

struct Stood {
    running: Arc<Running>,
    past: Known,
    changes: Changes,
    guard: Guard,
    connection: Connection,
    reading: Reading,
    sources: Vec<String>,
}

impl Stood {
    fn written(&self) -> &Written {
        &self.changes.written
    }

    /// The record that the route stage would read.
    fn record(event: &Submission) -> Record {
        Record {
            topic: "".into(),
            partition: 0,
            offset: SourceOffset(0),
            timestamp_ms: None,
            key: None,
            payload: Some(event.body.clone()),
            headers: event
                .headers
                .iter()
                .map(|(name, value)| Header::text(name.clone(), value.clone()))
                .collect(),
        }
    }
}

fn problem<E>(fault: Fault<E>, refused: impl Fn(E) -> Problem) -> Problem {
    match fault {
        Fault::Refused(own) => refused(own),
        Fault::Sealed(fault) => Problem::new(StatusCode::CONFLICT, fault.to_string()),
        Fault::NotSeen(why) => Problem::unavailable(why),
        busy @ Fault::Busy => Problem::new(StatusCode::CONFLICT, format!("{busy}")),
    }
}

impl Behind for Stood {
    fn metrics(&self) -> &Metrics {
        &self.running.ways.metrics
    }

    fn tokens(&self) -> Arc<Vec<Token>> {
        self.written().tokens()
    }

    fn put_token(&self, id: &str, token: Option<&Token>) -> Result<(), Problem> {
        let put = self.changes.put_token(id, token);
        put.map_err(|fault| problem(fault, |()| Problem::unavailable("it was refused")))
    }

    fn webhook(&self, id: &str) -> Option<Arc<Subscription>> {
        self.running.ways.catalog.now().get(id).cloned()
    }

    fn webhooks(&self) -> Vec<Arc<Subscription>> {
        self.running.ways.catalog.now().all().cloned().collect()
    }

    fn state(&self, webhook: &Subscription) -> &'static str {
        self.running.state(webhook)
    }

    fn standings(&self, webhooks: &[&Subscription]) -> Vec<Standing> {
        let recent = self.past.recent(webhooks);
        let standing = |webhook: &&Subscription| {
            let recent = recent.get(webhook.id.as_str());
            // An id may have been another tenant's before.
            let own = |at: &Timestamp| *at >= webhook.created_at;
            let told = |at_ms: Option<i64>| at_ms.map(time).filter(own);
            Standing {
                state: self.running.state(webhook),
                last_success_at: recent.and_then(|recent| told(recent.last_success_at_ms)),
                last_failure_at: recent.and_then(|recent| told(recent.last_failure_at_ms)),
                pending: recent.map(|recent| recent.pending),
            }
        };
        webhooks.iter().map(standing).collect()
    }

    fn faults(&self, draft: &Draft, url: Option<&str>) -> Vec<FieldError> {
        admission::faults(draft, url, &self.guard)
    }

    fn change(
        &self,
        id: &WebhookId,
        conditional: bool,
        edit: Editor<'_>,
    ) -> Result<Edited, Problem> {
        if self.running.ways.catalog.now().locked().contains_key(id) {
            // To write it anew would lose the secrets that nobody here can read.
            let detail = format!(
                "there is a webhook {id} that this instance cannot open; its log says why, `postrider check` what to do"
            );
            return Err(Problem::new(StatusCode::CONFLICT, detail));
        }
        let changed = self.changes.change(id, conditional, edit);
        changed.map_err(|fault| problem(fault, |own| own))
    }

    fn send_test(
        &self,
        webhook: &Subscription,
        event_type: Option<&str>,
    ) -> Result<(String, String), Problem> {
        let made = test_event::delivery(
            webhook,
            event_type,
            &self.reading.customer_pointer,
            now_ms(),
        );
        let delivery = made.map_err(|why| Problem::at("/event_type", why))?;
        let record = delivery.to_record(&self.running.ways.topics.dispatch, true);
        let written = self
            .running
            .ways
            .producer
            .write(&record, ACKNOWLEDGED_WITHIN);
        written.map_err(|fault| Problem::unavailable(fault.to_string()))?;
        Ok((delivery.id.to_string(), delivery.event_type.to_string()))
    }

    fn read_event(&self, event: &Submission) -> Result<Read, Vec<FieldError>> {
        match decode(&mut Self::record(event), &self.reading) {
            Decoded::Event(Event {
                event_type,
                customer,
                body,
                inline: carried,
            }) => {
                carried.as_ref().map(inline::check).transpose()?;
                Ok(Read {
                    event_type,
                    customer,
                    body,
                    customer_pointer: self.reading.customer_pointer.clone(),
                    carries_webhook: carried.is_some(),
                })
            }
            Decoded::Tombstone => Err(vec![no_event("it is empty")]),
            Decoded::Undecodable(why) => Err(vec![no_event(&why)]),
        }
    }

    fn produce(&self, event: &Submission, event_type: &str) -> Result<Placed, Problem> {
        let family = samples::family(event_type);
        let found = samples::source_topic(event_type, &self.sources).ok_or_else(|| {
            let detail = format!(
                "no source topic takes {event_type}: none of intake.topics ends in `{family}` ({})",
                self.sources.join(", ")
            );
            Problem::at("/event_type", detail)
        })?;
        let cluster = topics::describe(&self.connection)
            .map_err(|fault| Problem::unavailable(fault.to_string()))?;
        if !cluster.topics.contains_key(found) {
            return Err(Problem::unavailable(format!(
                "the source topic {found} does not exist; it belongs to its producers, so have it made"
            )));
        }
        let record = Outgoing {
            topic: found.into(),
            key: None,
            payload: Some(event.body.clone()),
            headers: Self::record(event).headers,
        };
        let written = self
            .running
            .ways
            .producer
            .write(&record, ACKNOWLEDGED_WITHIN);
        let place = written.map_err(|fault| match fault {
            kafka::Error::TooLarge(why) => {
                let cure = "send less, or raise max.message.bytes of the topic";
                Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("{why}; {cure}"))
            }
            fault => Problem::unavailable(fault.to_string()),
        })?;
        Ok(Placed {
            event_type: event_type.to_owned(),
            topic: place.topic.to_string(),
            partition: place.partition,
            offset: place.offset,
        })
    }

    fn explain(&self, webhook: &Subscription, event: &Read) -> Explained {
        let event = Event {
            event_type: event.event_type.clone(),
            customer: event.customer.clone(),
            body: event.body.clone(),
            inline: None,
        };
        let verdict = crate::matching::explain::explain(webhook, &event);
        Explained {
            webhook: webhook.id.to_string(),
            name: webhook.name.clone(),
            matches: verdict.fate != Fate::NotWanted,
            fate: verdict.fate.as_str().to_owned(),
            refusal: verdict.refusal.map(str::to_owned),
            reason: verdict.reason,
            condition: verdict
                .condition
                .and_then(|condition| serde_json::to_value(condition).ok()),
        }
    }

    fn past(&self) -> &dyn Past {
        &self.past
    }

    fn audit(&self, key: &str, record: &serde_json::Value) {
        let outgoing = Outgoing {
            topic: Arc::clone(&self.running.ways.topics.audit),
            key: Some(bytes::Bytes::copy_from_slice(key.as_bytes())),
            payload: Some(record.to_string().into()),
            headers: Vec::new(),
        };
        self.running.ways.producer.send(
            &outgoing,
            Box::new(|written| {
                if let Err(refused) = written {
                    error!(%refused, "an audit record was not written");
                }
            }),
        );
    }
}
