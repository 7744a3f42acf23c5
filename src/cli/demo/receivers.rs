//! The demo's receivers: real HTTP servers on loopback that check signatures as a careful receiver would.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use jiff::Timestamp;
use serde_json::Value;
use tokio::net::TcpListener;

use super::account::{Account, Request};
use super::webhooks::Manner;
use crate::outbound::signature::SigningKey;
use crate::subscription::{Subscription, WebhookId};

/// How long the slow one takes.
const SLOW: Duration = Duration::from_millis(1_500);

/// Receivers that have an address and do not listen to anybody yet.
pub(super) struct Receivers {
    bound: BTreeMap<Manner, (TcpListener, SocketAddr)>,
}

struct Desk {
    manner: Manner,
    account: Arc<Account>,
    keys: Arc<HashMap<WebhookId, SigningKey>>,
    failing: Arc<AtomicBool>,
}

impl Receivers {
    /// Gives each a free port of loopback.
    pub(super) async fn bind() -> std::io::Result<Self> {
        let mut bound = BTreeMap::new();
        for manner in Manner::ALL {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
            let address = listener.local_addr()?;
            bound.insert(manner, (listener, address));
        }
        Ok(Self { bound })
    }

    /// Where a receiver is, `host:port`.
    pub(super) fn address(&self, manner: Manner) -> String {
        self.bound
            .get(&manner)
            .map_or_else(String::new, |(_, address)| address.to_string())
    }

    /// Serves in the background, until the runtime ends. `failing` says whether the failing one fails now.
    pub(super) fn serve(
        self,
        webhooks: &[Subscription],
        account: &Arc<Account>,
        failing: &Arc<AtomicBool>,
    ) {
        let keys = webhooks.iter().filter_map(|webhook| {
            let secret = webhook.secrets.first()?;
            Some((webhook.id.clone(), SigningKey::new(secret).ok()?))
        });
        let keys = Arc::new(keys.collect());
        for (manner, (listener, _)) in self.bound {
            let desk = Desk {
                manner,
                account: Arc::clone(account),
                keys: Arc::clone(&keys),
                failing: Arc::clone(failing),
            };
            let router = Router::new().fallback(receive).with_state(Arc::new(desk));
            tokio::spawn(async move {
                if let Err(fault) = axum::serve(listener, router).await {
                    tracing::error!(%fault, "a receiver of the demo is served no more");
                }
            });
        }
    }
}

async fn receive(
    State(desk): State<Arc<Desk>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let arrived_at = Timestamp::now();
    let Ok(webhook) = WebhookId::new(uri.path().trim_start_matches('/')) else {
        return StatusCode::NOT_FOUND;
    };
    let text = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let request = Request {
        id: text("webhook-id"),
        webhook: &webhook,
        event_type: text("x-webhook-event"),
        attempt: text("x-webhook-attempt").parse().unwrap_or(1),
        since_event: since_event(&body, arrived_at),
    };
    if let Err(why) = verify(&desk, &webhook, &text, &body, arrived_at) {
        desk.account.unverified(&request, &why);
        return StatusCode::UNAUTHORIZED;
    }
    desk.account.arrived(&request);
    match desk.manner {
        Manner::Failing if desk.failing.load(Ordering::Acquire) => {
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        // When the client goes away meanwhile, the server drops this future and nothing was accepted.
        Manner::Slow => tokio::time::sleep(SLOW).await,
        Manner::Good | Manner::Failing | Manner::Limited => {}
    }
    desk.account.accepted(&request);
    StatusCode::OK
}

/// Both forms of the signature; why not, in words.
fn verify<'a>(
    desk: &Desk,
    webhook: &WebhookId,
    header: &impl Fn(&str) -> &'a str,
    body: &[u8],
    now: Timestamp,
) -> Result<(), String> {
    let key = desk
        .keys
        .get(webhook)
        .ok_or_else(|| "no webhook of the demo".to_owned())?;
    let now_seconds = u64::try_from(now.as_second()).unwrap_or(0);
    let plain = key.verify_plain(header("x-webhook-signature"), body);
    let standard = key.verify_standard(
        header("webhook-id"),
        header("webhook-timestamp"),
        header("webhook-signature"),
        body,
        now_seconds,
    );
    plain.and(standard).map_err(|refused| refused.to_string())
}

/// How long ago the event happened, if it says when.
fn since_event(body: &[u8], now: Timestamp) -> Option<Duration> {
    let event: Value = serde_json::from_slice(body).ok()?;
    let at: Timestamp = event.get("event_timestamp")?.as_str()?.parse().ok()?;
    Duration::try_from(now.duration_since(at)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_of_an_event_is_told_only_where_it_is_known() {
        let now: Timestamp = "2026-01-01T00:00:01.500Z".parse().unwrap();
        let age = |body: &str| since_event(body.as_bytes(), now);
        let one = r#"{"event_timestamp":"2026-01-01T00:00:00.250Z"}"#;
        assert_eq!(age(one), Some(Duration::from_millis(1_250)));
        let future = r#"{"event_timestamp":"2026-01-01T00:00:02Z"}"#;
        for body in ["", "[]", "{}", r#"{"event_timestamp":7}"#, future] {
            assert_eq!(age(body), None, "{body}");
        }
    }
}
