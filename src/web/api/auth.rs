//! Who asks: a bearer token (RFC 6750) becomes a [`Caller`] with a role and, mostly, a customer, to whose data everything that
//! follows is confined (promise 7).
//!
//! Every request to the API passes [`check`] before it is routed, and each handler names the role that it needs by its
//! argument ([`Viewer`], [`Operator`], [`Admin`]), so that neither can be forgotten.
//!
//! An address with too many wrong tokens is refused unheard for a while. Behind a proxy that is the proxy's address: limit
//! there, and keep wrong tokens from it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;

use super::Api;
use super::problem::Problem;
use crate::subscription::{Customer, Subscription};
use crate::token::{Role, Token, TokenHash};

/// Wrong tokens that an address may send at once.
const FAILURES: f64 = 20.0;
/// And one more in so long.
const FORGIVEN_AFTER: Duration = Duration::from_secs(3);
/// Addresses that are remembered.
const MOST_ADDRESSES: usize = 10_000;

/// Who asks.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The token's name, or `anonymous`.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The one customer that it sees; `None` sees all.
    pub customer: Option<Customer>,
    /// From where.
    pub address: Option<IpAddr>,
}

impl Caller {
    /// Whether a webhook is the caller's to see.
    pub fn sees(&self, webhook: &Subscription) -> bool {
        self.customer.is_none() || webhook.customer == self.customer
    }

    /// A text that differs between tenants, for cursors and remembered answers.
    pub fn scope(&self) -> String {
        match &self.customer {
            Some(customer) => format!("customer {customer}"),
            None => "all".to_owned(),
        }
    }
}

/// Failed authentications by address: a bucket for each that fills again with time.
#[derive(Default)]
pub struct Failures(Mutex<HashMap<IpAddr, (f64, Instant)>>);

impl Failures {
    /// Seconds until the address is heard again, if it is not now.
    pub fn refused(&self, address: IpAddr, now: Instant) -> Option<u64> {
        let buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = left(buckets.get(&network(address)), now);
        (left < 1.0).then(|| {
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "0 to 3"
            )]
            let seconds = ((1.0 - left) * FORGIVEN_AFTER.as_secs_f64()).ceil() as u64;
            seconds.max(1)
        })
    }

    /// Notes a wrong token.
    pub fn note(&self, address: IpAddr, now: Instant) {
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let address = network(address);
        if buckets.len() >= MOST_ADDRESSES && !buckets.contains_key(&address) {
            buckets.retain(|_, bucket| left(Some(bucket), now) < FAILURES);
            if buckets.len() >= MOST_ADDRESSES {
                // Memory is bounded (promise 6); an attack from so many addresses is not this table's to end.
                buckets.clear();
            }
        }
        let left = left(buckets.get(&address), now);
        buckets.insert(address, ((left - 1.0).max(0.0), now));
    }
}

fn left(bucket: Option<&(f64, Instant)>, now: Instant) -> f64 {
    bucket.map_or(FAILURES, |(left, since)| {
        let elapsed = now.saturating_duration_since(*since).as_secs_f64();
        (left + elapsed / FORGIVEN_AFTER.as_secs_f64()).min(FAILURES)
    })
}

/// IPv6 by /64, which is what one customer of a provider has at least.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from(u128::from(v6) >> 64 << 64).into(),
        v4 => v4,
    }
}

/// Lets a request through with its [`Caller`], or answers 401 or 429.
pub async fn check(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let address = peer.map(|peer| peer.0.ip());
    match authenticate(&api, request.headers(), address) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => problem.into_response(),
    }
}

fn authenticate(
    api: &Api,
    headers: &HeaderMap,
    address: Option<IpAddr>,
) -> Result<Caller, Problem> {
    let failures = &api.behind.metrics().authentication_failures;
    let now = Instant::now();
    let Some(given) = headers.get(header::AUTHORIZATION) else {
        if api.settings.allow_anonymous {
            return anonymous(headers, address);
        }
        failures.with_label_values(&["missing"]).inc();
        return Err(unauthorized(
            "send Authorization: Bearer <token>; `postrider token new` makes one",
            false,
        ));
    };
    if let Some(seconds) = address.and_then(|address| api.failures.refused(address, now)) {
        failures.with_label_values(&["limited"]).inc();
        let detail = format!("too many wrong tokens came from this address; wait {seconds} s");
        return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, detail)
            .with(header::RETRY_AFTER, &seconds.to_string()));
    }
    let text = given.to_str().unwrap_or_default();
    let token = text
        .split_once(' ')
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| TokenHash::of(token.trim()));
    let made = api.behind.tokens();
    let configured = api.settings.tokens.load();
    let found = token.and_then(|hash| find(&hash, configured.iter().chain(made.iter())));
    match found {
        Some(token) if token.is_live(Timestamp::now()) => Ok(Caller {
            name: token.name,
            role: token.role,
            customer: token.customer,
            address,
        }),
        found => {
            if let Some(address) = address {
                api.failures.note(address, now);
            }
            let (reason, detail) = match found {
                Some(_) => ("expired", "the token has expired; have a new one made"),
                None => (
                    "wrong",
                    "the token is not known, or was revoked; have a new one made",
                ),
            };
            failures.with_label_values(&[reason]).inc();
            Err(unauthorized(detail, true))
        }
    }
}

/// All are compared, so that the time does not tell which was near.
fn find<'a>(hash: &TokenHash, tokens: impl Iterator<Item = &'a Token>) -> Option<Token> {
    tokens.fold(None, |found, token| {
        if token.sha256.is(hash) {
            Some(token.clone())
        } else {
            found
        }
    })
}

/// Only for whoever works on this machine: not for a web page that its browser shows (DNS rebinding, cross-site requests).
fn anonymous(headers: &HeaderMap, address: Option<IpAddr>) -> Result<Caller, Problem> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST.as_str()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, port)| {
        if port.bytes().all(|byte| byte.is_ascii_digit()) {
            name
        } else {
            host
        }
    });
    let literal = name
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    let is_local = name.is_empty()
        || name.eq_ignore_ascii_case("localhost")
        || literal.is_ok_and(|address| address.is_loopback());
    if !is_local || text("sec-fetch-site") == Some("cross-site") {
        return Err(unauthorized(
            "without a token only this machine itself is answered",
            false,
        ));
    }
    Ok(Caller {
        name: "anonymous".to_owned(),
        role: Role::Admin,
        customer: None,
        address,
    })
}

fn unauthorized(detail: &str, had_token: bool) -> Problem {
    let challenge = if had_token {
        "Bearer realm=\"postrider\", error=\"invalid_token\""
    } else {
        "Bearer realm=\"postrider\""
    };
    Problem::new(StatusCode::UNAUTHORIZED, detail).with(header::WWW_AUTHENTICATE, challenge)
}

async fn caller(parts: &mut Parts, needed: Role) -> Result<Caller, Problem> {
    let caller = parts.extensions.get::<Caller>().cloned();
    let caller = caller.ok_or_else(|| unauthorized("send Authorization: Bearer <token>", false))?;
    caller.must_be(needed)?;
    Ok(caller)
}

impl Caller {
    /// Holds a caller to a role.
    ///
    /// # Errors
    /// 403: the token's role is less.
    pub(super) fn must_be(&self, needed: Role) -> Result<(), Problem> {
        if self.role >= needed {
            return Ok(());
        }
        let detail = format!(
            "the token {:?} is of a {}; this needs a token of the role {needed}",
            self.name, self.role
        );
        Err(Problem::new(StatusCode::FORBIDDEN, detail))
    }
}

macro_rules! roles {
    ($($(#[doc = $text:literal])+ $name:ident = $role:expr;)*) => {$(
        $(#[doc = $text])+
        pub struct $name(pub Caller);

        impl FromRequestParts<Arc<Api>> for $name {
            type Rejection = Problem;

            async fn from_request_parts(parts: &mut Parts, _: &Arc<Api>) -> Result<Self, Problem> {
                caller(parts, $role).await.map(Self)
            }
        }
    )*};
}

roles! {
    /// A caller who may read.
    Viewer = Role::Viewer;
    /// A caller who may send, retry, replay, pause and resume.
    Operator = Role::Operator;
    /// A caller who may write webhooks and tokens.
    Admin = Role::Admin;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_with_too_many_wrong_tokens_waits_and_others_do_not() {
        let failures = Failures::default();
        let (one, other): (IpAddr, IpAddr) =
            ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let now = Instant::now();
        for _ in 0..20 {
            assert_eq!(failures.refused(one, now), None);
            failures.note(one, now);
        }
        assert_eq!(failures.refused(one, now), Some(3));
        assert_eq!(failures.refused(other, now), None);
        assert_eq!(failures.refused(one, now + FORGIVEN_AFTER), None);
    }

    #[test]
    fn addresses_of_one_network_are_one_and_the_table_is_bounded() {
        let failures = Failures::default();
        let now = Instant::now();
        for n in 0..20_u16 {
            failures.note(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, n, 0, 0, n).into(), now);
        }
        let same = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 9, 9, 9, 9).into();
        assert!(failures.refused(same, now).is_some());
        for n in 0..20_000_u32 {
            failures.note(IpAddr::V4((n + 0x0100_0000).into()), now);
        }
        assert!(failures.0.lock().unwrap().len() <= MOST_ADDRESSES);
    }

    #[test]
    fn anonymous_is_only_whoever_names_this_machine() {
        let ask = |host: &str, site: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            if let Some(site) = site {
                headers.insert("sec-fetch-site", site.parse().unwrap());
            }
            anonymous(&headers, None).is_ok()
        };
        for host in [
            "localhost:8080",
            "127.0.0.1:8080",
            "[::1]:8080",
            "LOCALHOST",
        ] {
            assert!(ask(host, None), "{host}");
        }
        for host in ["evil.example:8080", "127.0.0.1.evil.example", "10.0.0.1"] {
            assert!(!ask(host, None), "{host}");
        }
        assert!(!ask("localhost:8080", Some("cross-site")));
    }
}
