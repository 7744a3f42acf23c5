//! The API (`/api/v1`): webhooks, tokens and events over HTTP, with its document (`/api/v1/openapi.json`) and a page of it (`/docs`).
//!
//! In go requests, out come JSON and problem documents. Whoever asks is known by a token and confined to its customer
//! (promise 7). The API holds no facts: it asks what is [`Behind`] it, which `app` is, and is answered from the catalog and the topics.
//!
//! - `auth`: who asks, and what for; `problem`: refusals; `body`, `paging`, `etag`, `idempotency`: what all routes share
//! - `webhooks`, `tokens`, `events` (and matching), `deliveries` (and stats), `replays` (and dead letters, with their bodies in `order`):
//!   the routes, each with its document beside it; `past`: what the last two are answered from
//! - `schema`: the forms that the document shows; `openapi`: the document; `outgoing`: the request that receivers get

pub mod audit;
pub mod auth;
pub mod body;
mod deliveries;
pub mod etag;
pub mod events;
mod idempotency;
mod letters;
pub mod openapi;
mod order;
mod outgoing;
pub mod paging;
pub mod past;
pub mod problem;
pub mod replays;
pub mod schema;
pub mod tokens;
pub mod webhooks;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, Uri};
use axum::middleware::{from_fn_with_state, map_request};
use axum::response::IntoResponse;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use arc_swap::ArcSwap;

use crate::metrics::Metrics;
use crate::subscription::{Draft, Edit, Edited, FieldError, Subscription, WebhookId};
use crate::token::Token;
use problem::Problem;

/// What stands before every route.
pub const PREFIX: &str = "/api/v1";

/// What the API does not know by itself.
#[derive(Clone, Default)]
pub struct Settings {
    /// The tokens of the configuration, which a reload may change.
    pub tokens: Arc<ArcSwap<Vec<Token>>>,
    /// Whether a request without a token may do everything.
    pub allow_anonymous: bool,
    /// Webhooks that a customer may have.
    pub max_webhooks_per_customer: usize,
    /// What seals cursors; the same in all instances.
    pub cursor_key: Vec<u8>,
}

/// How a webhook stands, as far as this instance knows.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// `passing tripped probing paused disabled`.
    pub state: &'static str,
    /// When an attempt last succeeded.
    pub last_success_at: Option<Timestamp>,
    /// When an attempt last failed.
    pub last_failure_at: Option<Timestamp>,
    /// Deliveries that wait: put off, to be tried again, or held.
    pub pending: Option<u64>,
}

/// Asked for an edit, having seen how the webhook stands; asked again when another was faster.
pub type Editor<'a> = &'a mut (dyn FnMut(Option<&Subscription>) -> Result<Edit, Problem> + 'a);

/// What stands behind the API. What may take long says that it blocks; it is called on threads for that.
pub trait Behind: Send + Sync + 'static {
    /// All metrics.
    fn metrics(&self) -> &Metrics;

    /// The tokens that were made by the API.
    fn tokens(&self) -> Arc<Vec<Token>>;

    /// Writes a token, or deletes it. Blocks until this instance knows it.
    ///
    /// # Errors
    /// 503 when the cluster does not take it.
    fn put_token(&self, id: &str, token: Option<&Token>) -> Result<(), Problem>;

    /// The webhook of this id, of whatever customer.
    fn webhook(&self, id: &str) -> Option<Arc<Subscription>>;

    /// All webhooks of all customers, in no order.
    fn webhooks(&self) -> Vec<Arc<Subscription>>;

    /// The state of a webhook, as in [`Standing`].
    fn state(&self, webhook: &Subscription) -> &'static str;

    /// How webhooks stand, each in its place. Asks the history, so it blocks; what that cannot tell is `None`.
    fn standings(&self, webhooks: &[&Subscription]) -> Vec<Standing>;

    /// What keeps a webhook from being stored: patterns, filter, and the address that it sends to.
    fn faults(&self, draft: &Draft, url: Option<&str>) -> Vec<FieldError>;

    /// Changes a webhook. `conditional`: only if nobody changes it at the same time. Blocks until this instance knows it.
    ///
    /// # Errors
    /// The editor's own, or 503 when the cluster does not take it.
    fn change(
        &self,
        id: &WebhookId,
        conditional: bool,
        edit: Editor<'_>,
    ) -> Result<Edited, Problem>;

    /// Sends a sample event to a webhook; the answer is the delivery's id and its event's type. Blocks.
    ///
    /// # Errors
    /// 400 for a type that is none, 503 when the cluster does not take it.
    fn send_test(
        &self,
        webhook: &Subscription,
        event_type: Option<&str>,
    ) -> Result<(String, String), Problem>;

    /// Reads an event as the route stage would.
    ///
    /// # Errors
    /// Why it is none, each fault with its place.
    fn read_event(&self, event: &events::Submission) -> Result<events::Read, Vec<FieldError>>;

    /// Produces an event to its source topic. Blocks until it is durable.
    ///
    /// # Errors
    /// 400 where no source topic takes its type, 413 where the topic takes none so large, 503 when the cluster does not take it.
    fn produce(
        &self,
        event: &events::Submission,
        event_type: &str,
    ) -> Result<events::Placed, Problem>;

    /// What becomes of an event for one webhook.
    fn explain(&self, webhook: &Subscription, event: &events::Read) -> events::Explained;

    /// What became of deliveries.
    fn past(&self) -> &dyn past::Past;

    /// Writes an audit record, without waiting.
    fn audit(&self, key: &str, record: &serde_json::Value);
}

/// What every handler has.
pub struct Api {
    behind: Arc<dyn Behind>,
    settings: Settings,
    failures: auth::Failures,
    cursors: paging::Cursors,
    remembered: idempotency::Remembered,
    document: OnceLock<String>,
}

impl Api {
    /// An API on what is behind it.
    pub fn new(behind: Arc<dyn Behind>, settings: Settings) -> Self {
        Self {
            cursors: paging::Cursors::new(&settings.cursor_key),
            behind,
            settings,
            failures: auth::Failures::default(),
            remembered: idempotency::Remembered::default(),
            document: OnceLock::new(),
        }
    }

    /// Runs what blocks on a thread for that.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        ask: impl FnOnce(&Self) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let api = Arc::clone(self);
        let asked = tokio::task::spawn_blocking(move || ask(&api)).await;
        asked.unwrap_or_else(|_| Err(Problem::fault()))
    }
}

/// All routes, each with its document.
fn documented() -> OpenApiRouter<Arc<Api>> {
    let routes = OpenApiRouter::new()
        .merge(webhooks::routes())
        .merge(events::routes())
        .merge(tokens::routes())
        .merge(deliveries::routes())
        .merge(letters::routes())
        .merge(replays::routes());
    OpenApiRouter::with_openapi(openapi::frame()).nest(PREFIX, routes)
}

/// The document of the API.
pub fn document() -> OpenApi {
    openapi::finished(documented().into_openapi())
}

/// The API as one router: documented routes behind [`auth::check`], the document and its page before it.
pub fn router(api: Arc<Api>) -> Router {
    let (routes, document) = documented().split_for_parts();
    let document = openapi::finished(document);
    let _ = api.document.set(document.to_json().unwrap_or_default());
    let routes = routes
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(Arc::clone(&api), idempotency::once))
        .layer(from_fn_with_state(Arc::clone(&api), auth::check));
    let open = openapi::pages();
    let inner = open.merge(routes).with_state(api);
    // A layer runs after routing, so the slash is added before an inner router routes by it.
    Router::new()
        .fallback_service(inner)
        .layer(map_request(with_last_slash))
}

async fn nothing_here(uri: Uri) -> Problem {
    Problem::no_such("path", uri.path())
}

async fn wrong_method() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "this path does not take the method; the header Allow says which it takes",
    )
}

async fn with_last_slash(mut request: Request) -> Request {
    let uri = request.uri();
    if uri.path().starts_with(PREFIX) && !uri.path().ends_with('/') {
        let query = uri
            .query()
            .map(|query| format!("?{query}"))
            .unwrap_or_default();
        if let Ok(changed) = format!("{}/{query}", uri.path()).parse() {
            *request.uri_mut() = changed;
        }
    }
    request
}

/// A served API; it ends when this is dropped.
pub struct Served {
    /// Where.
    pub address: SocketAddr,
    _stop: oneshot::Sender<()>,
}

/// Binds the address and serves the API in the background.
///
/// # Errors
/// The address cannot be bound; the message of the operating system.
pub async fn serve(listen: SocketAddr, api: Arc<Api>) -> std::io::Result<Served> {
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel::<()>();
    let service = router(api).into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move {
        let ended = async move {
            let _ = stopped.await;
        };
        if let Err(fault) = axum::serve(listener, service)
            .with_graceful_shutdown(ended)
            .await
        {
            tracing::error!(%fault, "the API is served no more");
        }
    });
    Ok(Served {
        address,
        _stop: stop,
    })
}

/// An answer with a JSON body that no cache keeps.
fn json(status: StatusCode, body: &impl serde::Serialize) -> axum::response::Response {
    use axum::http::header;
    let body = serde_json::to_vec(body).unwrap_or_default();
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CACHE_CONTROL, "no-store"),
    ];
    (status, headers, body).into_response()
}
