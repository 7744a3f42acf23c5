//! The API of a real router, asked over HTTP as its users would.
//!
//! - `webhooks`: the seed's examples and what can go wrong with a webhook
//! - `tenants`: every route of the document with another tenant's ids; roles; tokens
//! - `races`: two instances that write one webhook
//! - `events`: events and matching over HTTP
//! - `commands`: the command line with `--api`
//! - `past`: deliveries, dead letters and replays

mod commands;
mod events;
mod past;
mod races;
mod tenants;
mod webhooks;

use std::net::SocketAddr;

use postrider::token::TokenHash;
use serde_json::Value;

use crate::harness::{Cluster, Router};

/// A token for everything.
pub const ROOT: &str = "prt_root";

/// Name, role and customer of the tokens that all these tests have; a token's text is `prt_` and its name.
const TOKENS: [(&str, &str, &str); 7] = [
    ("root", "admin", ""),
    ("viewer", "viewer", ""),
    ("operator", "operator", ""),
    ("one", "admin", "1"),
    ("one-viewer", "viewer", "1"),
    ("one-operator", "operator", "1"),
    ("two", "admin", "2"),
];

/// The configuration that serves the API with these tokens.
pub fn config(more: &str) -> String {
    let entries: Vec<String> = TOKENS
        .iter()
        .map(|(name, role, customer)| {
            let sha256 = TokenHash::of(&format!("prt_{name}")).to_hex();
            let customer = match *customer {
                "" => String::new(),
                customer => format!(", customer = {customer:?}"),
            };
            format!("{{ name = {name:?}, role = {role:?}, sha256 = {sha256:?}{customer} }}")
        })
        .collect();
    format!(
        "web.listen = \"127.0.0.1:0\"\nweb.tokens = [{}]\n{more}",
        entries.join(", ")
    )
}

/// A router with its API.
pub fn start<'a>(cluster: &'a Cluster, more: &str) -> Router<'a> {
    Router::start(cluster, &["events.job", "events.device"], &config(more))
}

/// An answer of the API.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|fault| panic!("{fault}: {self:?}"))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// Asserts the status and gives the body.
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        if self.text.is_empty() {
            Value::Null
        } else {
            self.json()
        }
    }

    /// Asserts a problem document of this status and gives it.
    pub fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{self:?}"
        );
        let problem = self.json();
        assert_eq!(problem["status"], status);
        assert!(
            problem["detail"]
                .as_str()
                .is_some_and(|detail| !detail.is_empty()),
            "{problem}"
        );
        assert!(problem["errors"].is_array(), "{problem}");
        problem
    }
}

/// Asks with a token.
pub struct Client {
    address: SocketAddr,
    token: Option<String>,
    http: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

#[allow(
    clippy::disallowed_methods,
    reason = "it asks the router under test, whose answers are short"
)]
impl Client {
    pub fn of(router: &Router<'_>, token: &str) -> Self {
        Self::at(router.app().api().unwrap(), token)
    }

    pub fn at(address: SocketAddr, token: &str) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        Self {
            address,
            token: (!token.is_empty()).then(|| token.to_owned()),
            http: reqwest::Client::new(),
            runtime: runtime.unwrap(),
        }
    }

    /// Sends a request as it stands; `path` begins after `/api/v1`.
    pub fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Vec<u8>>,
    ) -> Answer {
        let url = format!("http://{}/api/v1{path}", self.address);
        let mut request = self.http.request(method.parse().unwrap(), url);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        self.runtime.block_on(async {
            let response = request.send().await.unwrap();
            Answer {
                status: response.status().as_u16(),
                headers: response.headers().clone(),
                text: response.text().await.unwrap(),
            }
        })
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], None)
    }

    pub fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], None)
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.with("POST", path, &[], body)
    }

    pub fn patch(&self, path: &str, body: &Value) -> Answer {
        self.with("PATCH", path, &[], body)
    }

    /// With a JSON body, and more headers.
    pub fn with(&self, method: &str, path: &str, more: &[(&str, &str)], body: &Value) -> Answer {
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(more);
        self.send(method, path, &headers, Some(body.to_string().into_bytes()))
    }
}
