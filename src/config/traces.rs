//! The section `[traces]`: where OpenTelemetry spans go. Without an endpoint there are none, and they cost nothing.

use config::{Value, ValueKind};
use serde::Serialize;
use url::Url;

use super::Environment;
use super::read::{Reader, Section};
use super::secret::Secret;

/// What is traced.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Traces {
    /// A collector's address for OTLP over HTTP; `None`: no traces.
    pub endpoint: Option<Url>,
    /// The share of traces that are recorded of those that begin here, 0 to 1. Where an event has a `traceparent`, its flag decides.
    pub sample_ratio: f64,
    /// The value of the header `Authorization` that the collector wants.
    pub authorization: Option<Secret>,
}

impl Default for Traces {
    fn default() -> Self {
        Self {
            endpoint: None,
            sample_ratio: 1.0,
            authorization: None,
        }
    }
}

impl Traces {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let default = Self::default();
        let environment = reader.environment;
        let mut section = reader.section("traces");
        let traces = Self {
            endpoint: section.parsed("endpoint", default.endpoint, endpoint),
            sample_ratio: share(&mut section, "sample_ratio", default.sample_ratio),
            authorization: authorization(&mut section, environment),
        };
        section.finish();
        traces
    }
}

fn endpoint(text: &str) -> Result<Option<Url>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    // The value is not repeated: it may hold a password.
    let wrong = "must be the URL of a collector for OTLP over HTTP, without a user or password, such as \
                 http://localhost:4318/v1/traces, or \"\" for none";
    Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"))
        .filter(|url| url.username().is_empty() && url.password().is_none())
        .map(Some)
        .ok_or_else(|| wrong.to_owned())
}

fn authorization(section: &mut Section<'_, '_>, environment: &Environment) -> Option<Secret> {
    let value: Value = section.take("authorization")?;
    if matches!(&value.kind, ValueKind::String(text) if text.is_empty()) {
        return None;
    }
    let is_header = |text: &str| text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let read = Secret::read(&value, environment).and_then(|secret| {
        let wrong =
            "must be a header's value in visible ASCII, such as \"Bearer …\", or \"\" for none";
        let good = secret.expose().is_some_and(is_header);
        good.then_some(secret).ok_or_else(|| wrong.to_owned())
    });
    match read {
        Ok(secret) => Some(secret),
        Err(message) => {
            section.fail("authorization", value.origin(), message);
            None
        }
    }
}

fn share(section: &mut Section<'_, '_>, key: &'static str, default: f64) -> f64 {
    let Some(value) = section.take(key) else {
        return default;
    };
    let number = match (&value.kind, value.origin()) {
        (ValueKind::Float(number), _) => Some(*number),
        (ValueKind::I64(number), _) => Some(*number as f64),
        (ValueKind::String(text), Some(_)) => text.trim().parse().ok(),
        _ => None,
    };
    let number = number.filter(|number| (0.0..=1.0).contains(number));
    number.unwrap_or_else(|| {
        let message = format!(
            "must be a number from 0 to 1, without quotes, such as 0.1 for a tenth (default {default}); it is {}",
            value
        );
        section.fail(key, value.origin(), message);
        default
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Environment};

    fn read(text: &str) -> Result<Config, String> {
        let read = Config::from_text("test.toml", text, &Environment::new());
        read.map_err(|fault| fault.to_string())
    }

    #[test]
    fn traces_are_off_until_an_endpoint_is_named() {
        assert_eq!(read("").unwrap().traces.endpoint, None);
        let text = "[traces]\nendpoint = \"http://localhost:4318/v1/traces\"\nsample_ratio = 0.25";
        let traces = read(text).unwrap().traces;
        assert_eq!(
            traces.endpoint.unwrap().as_str(),
            "http://localhost:4318/v1/traces"
        );
        assert_eq!(traces.sample_ratio, 0.25);
        assert_eq!(
            read("traces.sample_ratio = 1").unwrap().traces.sample_ratio,
            1.0
        );
        let variable = ("POSTRIDER__TRACES__SAMPLE_RATIO", "0.5");
        let environment = Environment::from([(variable.0.to_owned(), variable.1.to_owned())]);
        let config = Config::from_text("test.toml", "", &environment).unwrap();
        assert_eq!(config.traces.sample_ratio, 0.5);
    }

    #[test]
    fn what_the_collector_wants_to_see_is_never_shown() {
        let text = "traces.authorization = \"Bearer s3cret\"";
        let config = read(text).unwrap();
        let authorization = config.traces.authorization.as_ref().unwrap();
        assert_eq!(authorization.expose(), Some("Bearer s3cret"));
        assert!(!format!("{config:?}").contains("s3cret"));
        assert!(!serde_json::to_string(&config).unwrap().contains("s3cret"));
        assert_eq!(
            read("traces.authorization = \"\"").unwrap(),
            read("").unwrap()
        );
        let fault = read("traces.authorization = \"Bearer é s3cret\"").unwrap_err();
        assert!(fault.contains("traces.authorization"), "{fault}");
        assert!(!fault.contains("s3cret"), "{fault}");
    }

    #[test]
    fn what_is_no_share_and_no_address_is_refused_with_the_cure() {
        for value in ["-0.1", "1.5", "2", "nan", "true"] {
            let fault = read(&format!("traces.sample_ratio = {value}")).unwrap_err();
            assert!(fault.contains("traces.sample_ratio"), "{value}: {fault}");
            assert!(fault.contains("from 0 to 1"), "{value}: {fault}");
        }
        for value in [
            "localhost:4318",
            "grpc://a:4317",
            "a",
            "http://u:pass@a/v1/traces",
        ] {
            let fault = read(&format!("traces.endpoint = {value:?}")).unwrap_err();
            assert!(fault.contains("http://localhost:4318/v1/traces"), "{fault}");
            assert!(!fault.contains("pass@"), "{fault}");
        }
    }
}
