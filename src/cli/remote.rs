//! Commands against the API of a running router rather than straight on Kafka: the same words and tables, seen as the token's customer sees
//! them (promise 7 is the API's to keep).

use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// An answer is read up to here.
const MOST_BYTES: usize = 16 * 1024 * 1024;
/// A list of dead letters reads their whole topic.
const PATIENCE: Duration = Duration::from_secs(120);
/// Rows that the API gives in a page.
pub(super) const PAGE: usize = 200;

/// Where the API is, if it is to be asked.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Remote {
    /// Ask the API of a router here, such as http://127.0.0.1:8080, rather than Kafka and the database
    #[arg(long, global = true, value_name = "URL", env = "POSTRIDER_API")]
    api: Option<String>,
    /// The token for the API; better in the environment, where no list of processes shows it
    #[arg(
        long,
        global = true,
        value_name = "TOKEN",
        env = "POSTRIDER_TOKEN",
        hide_env_values = true
    )]
    token: Option<String>,
}

/// Asks the API.
pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
    runtime: tokio::runtime::Runtime,
}

impl Remote {
    /// A client, if the API is to be asked.
    pub(super) fn client(&self) -> anyhow::Result<Option<Client>> {
        let Some(api) = &self.api else {
            return Ok(None);
        };
        let url: url::Url = api
            .parse()
            .with_context(|| format!("--api {api}: write a URL such as http://127.0.0.1:8080"))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            bail!("--api {api}: write a URL such as http://127.0.0.1:8080");
        }
        // The second of two commands in a process finds it there already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            // A token goes to nobody but who was named.
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PATIENCE)
            .build()?;
        let base = url.as_str().trim_end_matches('/');
        Ok(Some(Client {
            http,
            base: base.trim_end_matches("/api/v1").to_owned(),
            token: self.token.clone(),
            runtime: super::runtime()?,
        }))
    }
}

/// An id as a part of a path.
pub(super) fn segment(id: &str) -> String {
    url::form_urlencoded::byte_serialize(id.as_bytes())
        .collect::<String>()
        .replace('+', "%20")
}

impl Client {
    /// `path` begins after `/api/v1`.
    pub(super) fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> anyhow::Result<T> {
        let mut encoded = url::form_urlencoded::Serializer::new(String::new());
        encoded.extend_pairs(query);
        let query = encoded.finish();
        self.ask(Method::GET, &format!("{path}?{query}"), None)
    }

    /// Posts a JSON body.
    pub(super) fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> anyhow::Result<T> {
        self.ask(Method::POST, path, Some(body))
    }

    fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<T> {
        let url = format!("{}/api/v1{path}", self.base);
        let mut request = self.http.request(method, url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let (status, bytes) = self.runtime.block_on(async {
            let mut response = request.send().await.map_err(|fault| {
                // The causes say what; the URL, which may be long, is known.
                anyhow::Error::new(fault.without_url())
                    .context(format!("{} does not answer", self.base))
            })?;
            let mut bytes = Vec::new();
            while let Some(chunk) = response.chunk().await? {
                if bytes.len() + chunk.len() > MOST_BYTES {
                    bail!("{} answers with more than {MOST_BYTES} bytes", self.base);
                }
                bytes.extend_from_slice(&chunk);
            }
            Ok((response.status(), bytes))
        })?;
        if status.is_success() {
            return serde_json::from_slice(&bytes).with_context(|| {
                format!(
                    "{} answers what is not understood; is it a Postrider of this version?",
                    self.base
                )
            });
        }
        bail!("{}", refusal(status.as_u16(), &bytes, self.token.is_some()))
    }
}

/// What a problem document says, for people.
fn refusal(status: u16, bytes: &[u8], has_token: bool) -> String {
    let problem: Value = serde_json::from_slice(bytes).unwrap_or(Value::Null);
    let detail = problem["detail"].as_str();
    let mut text = match detail {
        Some(detail) => format!("the API refuses ({status}): {detail}"),
        None => format!("the API answers {status}; is it a Postrider?"),
    };
    for fault in problem["errors"].as_array().into_iter().flatten() {
        let place = fault["pointer"].as_str().or(fault["parameter"].as_str());
        let why = fault["detail"].as_str().unwrap_or_default();
        text.push_str(&format!("; {}: {why}", place.unwrap_or("body")));
    }
    if status == 401 && !has_token {
        text.push_str("; give --token, or POSTRIDER_TOKEN");
    }
    super::output::escaped(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_is_wrong_and_where() {
        let problem = br#"{"status":400,"detail":"the body has 1 fault; see `errors`","errors":[{"pointer":"/since","detail":"a time"}]}"#;
        assert_eq!(
            refusal(400, problem, true),
            "the API refuses (400): the body has 1 fault; see `errors`; /since: a time"
        );
        assert!(refusal(401, b"{}", false).contains("POSTRIDER_TOKEN"));
        assert!(refusal(502, b"<html>", true).contains("is it a Postrider?"));
    }

    #[test]
    fn no_id_leaves_its_place_in_the_path() {
        assert_eq!(segment("a/../b c?d"), "a%2F..%2Fb%20c%3Fd");
    }

    #[test]
    fn what_is_no_address_of_an_api_is_refused() {
        for api in ["nonsense", "ftp://host", "mailto:x"] {
            let remote = Remote {
                api: Some(api.to_owned()),
                token: None,
            };
            assert!(remote.client().is_err(), "{api}");
        }
    }
}
