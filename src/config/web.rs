//! The section `[web]`: what is served, where, and to whom. A token stands there only as its hash (promise 7), and an API
//! without tokens is only for the machine that it runs on.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use config::{Value, ValueKind};
use serde::Serialize;

use super::read::{Reader, Section};
use crate::subscription::Customer;
use crate::token::{Role, Token, TokenHash};

/// What is served.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Web {
    /// Where the API and its pages are served; `None`: nowhere.
    pub listen: Option<SocketAddr>,
    /// Who may use the API, beside the tokens that were made by it.
    pub tokens: Vec<Token>,
    /// Whether who gives no token may do everything. Only where `listen` is a loopback address.
    pub allow_anonymous: bool,
    /// Webhooks that a customer may have.
    pub max_webhooks_per_customer: usize,
    /// Where `/metrics`, `/livez` and `/readyz` are served.
    pub telemetry_listen: SocketAddr,
    /// Webhooks with metrics of their own, the busiest.
    pub metrics_webhooks: usize,
}

impl Default for Web {
    fn default() -> Self {
        Self {
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 8080))),
            tokens: Vec::new(),
            allow_anonymous: false,
            max_webhooks_per_customer: 1_000,
            telemetry_listen: SocketAddr::from(([127, 0, 0, 1], 8081)),
            metrics_webhooks: 1_000,
        }
    }
}

impl Web {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let default = Self::default();
        let mut section = reader.section("web");
        let address = |text: &str, example: &str| {
            text.parse().map_err(|_| {
                format!("must be an IP address and a port, such as {example}; it is {text:?}")
            })
        };
        let web = Self {
            listen: section.parsed("listen", default.listen, |text| match text {
                "" => Ok(None),
                text => address(text, "127.0.0.1:8080 or [::]:8080, or \"\" for none").map(Some),
            }),
            tokens: tokens(&mut section),
            allow_anonymous: section.boolean("allow_anonymous", default.allow_anonymous),
            max_webhooks_per_customer: section.whole(
                "max_webhooks_per_customer",
                default.max_webhooks_per_customer,
                1..=1_000_000,
                "webhooks",
            ),
            telemetry_listen: section.parsed(
                "telemetry_listen",
                default.telemetry_listen,
                |text| address(text, "127.0.0.1:8081 or [::]:8081"),
            ),
            metrics_webhooks: section.whole(
                "metrics_webhooks",
                default.metrics_webhooks,
                0..=100_000,
                "webhooks",
            ),
        };
        let elsewhere = |listen: SocketAddr| !listen.ip().is_loopback();
        if web.allow_anonymous && web.listen.is_some_and(elsewhere) {
            section.fail(
                "allow_anonymous",
                None,
                "lets everybody do everything, so web.listen must be a loopback address such as 127.0.0.1:8080; change \
                 that, or make a token with `postrider token new`",
            );
        }
        section.finish();
        web
    }
}

const FORM: &str = "{ name = \"ci\", sha256 = \"…\", role = \"viewer|operator|admin\", customer = \"…\" } as `postrider token new` prints it";

/// In the file a list of tables; in the environment `name:role:sha256` or `name:role:sha256:customer`, separated by commas.
fn tokens(section: &mut Section<'_, '_>) -> Vec<Token> {
    let Some(value) = section.take("tokens") else {
        return Vec::new();
    };
    let entries: Vec<Result<Token, String>> = match (&value.kind, value.origin()) {
        (ValueKind::Array(entries), _) => entries.iter().map(from_table).collect(),
        (ValueKind::String(text), Some(_)) => text
            .split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .map(from_text)
            .collect(),
        _ => vec![Err(format!("must be a list of {FORM}"))],
    };
    let mut tokens = Vec::new();
    let mut names = BTreeSet::new();
    for (position, entry) in entries.into_iter().enumerate() {
        match entry {
            Ok(token) if !names.insert(token.name.clone()) => {
                let message = format!("two tokens are named {:?}; rename one", token.name);
                section.fail("tokens", value.origin(), message);
            }
            Ok(token) => tokens.push(token),
            Err(message) => {
                let message = format!("entry {}: {message}", position + 1);
                section.fail("tokens", value.origin(), message);
            }
        }
    }
    tokens
}

fn from_table(value: &Value) -> Result<Token, String> {
    const KEYS: [&str; 4] = ["name", "sha256", "role", "customer"];
    let ValueKind::Table(table) = &value.kind else {
        return Err(format!("must be {FORM}"));
    };
    if let Some(other) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(format!(
            "there is no key {other:?}; known are {}",
            KEYS.join(", ")
        ));
    }
    let text = |key: &str| match table.get(key).map(|value| &value.kind) {
        None => Ok(None),
        Some(ValueKind::String(text)) => Ok(Some(text.trim().to_owned())),
        Some(ValueKind::I64(number)) if key == "customer" => Ok(Some(number.to_string())),
        Some(_) => Err(format!("`{key}` must be text in quotes")),
    };
    let needed = |key: &str| text(key)?.ok_or_else(|| format!("`{key}` is missing; write {FORM}"));
    token(
        &needed("name")?,
        &needed("role")?,
        &needed("sha256")?,
        text("customer")?,
    )
}

fn from_text(entry: &str) -> Result<Token, String> {
    let mut parts = entry.splitn(4, ':').map(str::trim);
    let (Some(name), Some(role), Some(sha256)) = (parts.next(), parts.next(), parts.next()) else {
        return Err("must be name:role:sha256 or name:role:sha256:customer".to_owned());
    };
    token(name, role, sha256, parts.next().map(str::to_owned))
}

fn token(name: &str, role: &str, sha256: &str, customer: Option<String>) -> Result<Token, String> {
    if name.is_empty() || name.chars().count() > 100 || name.contains(char::is_control) {
        return Err("`name` must have 1 to 100 characters".to_owned());
    }
    if customer.as_deref() == Some("") {
        // Left empty by mistake it would see every customer.
        return Err(
            "`customer` is empty; leave it out for a token that sees all customers".to_owned(),
        );
    }
    Ok(Token {
        id: name.to_owned(),
        name: name.to_owned(),
        sha256: TokenHash::from_hex(sha256).ok_or(
            "`sha256` must be the 64 hexadecimal digits that `postrider token new` prints, not the token itself",
        )?,
        role: Role::from_word(role)
            .ok_or_else(|| format!("`role` must be viewer, operator or admin; it is {role:?}"))?,
        customer: customer.as_deref().map(Customer::new),
        created_at: None,
        expires_at: None,
    })
}
