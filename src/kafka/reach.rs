//! The first question to a cluster, with an end and with the reason when there is no answer.
//!
//! librdkafka tries for ever and tells its reasons (refused, unknown host, a certificate that does not hold) only to a callback; a
//! person who waits at a terminal needs both an end and the reason.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;

use super::Error;
use super::settings::Connection;

/// A broker that answers at all does so well within this, a restarting one mostly too.
const LIMIT: Duration = Duration::from_secs(8);
const ONE_QUESTION: Duration = Duration::from_secs(2);

/// The client's last reason.
#[derive(Default)]
struct Reason(Mutex<Option<(RDKafkaErrorCode, String)>>);

impl Reason {
    fn last(&self) -> Option<(RDKafkaErrorCode, String)> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone()
    }
}

impl ClientContext for Reason {
    fn error(&self, failure: KafkaError, reason: &str) {
        let Some(code) = failure.rdkafka_error_code() else {
            return;
        };
        // That all are down says less than why the last one is.
        if code != RDKafkaErrorCode::AllBrokersDown {
            let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            *last = Some((code, reason.to_owned()));
        }
    }
}

impl ConsumerContext for Reason {}

/// The cluster's metadata, of all topics that may be seen.
///
/// # Errors
/// [`Error::NoAnswer`] with the client's reason after some seconds, at once when the credentials are refused;
/// [`Error::Settings`] when there can be no client.
pub(super) fn metadata(connection: &Connection) -> Result<Metadata, Error> {
    let client: BaseConsumer<Reason> = connection
        .admin()
        // A broker that wants TLS only closes the connection, and the client tells why that may be.
        .set("log.connection.close", "true")
        // It is told once, as an error, and not in the log too.
        .set_log_level(RDKafkaLogLevel::Emerg)
        .create_with_context(Reason::default())
        .map_err(|failure| settings_fault(connection, failure))?;
    let deadline = Instant::now() + LIMIT;
    loop {
        let failure = match client.fetch_metadata(None, ONE_QUESTION) {
            Ok(metadata) => return Ok(metadata),
            Err(failure) => failure,
        };
        // The reasons come by the client's queue.
        while client.poll(Duration::ZERO).is_some() {}
        let reason = client.context().last();
        let final_answer = reason
            .as_ref()
            .is_some_and(|(code, _)| *code == RDKafkaErrorCode::Authentication);
        let left = deadline.saturating_duration_since(Instant::now());
        if final_answer || left.is_zero() {
            let why = reason.map_or_else(|| failure.to_string(), |(_, reason)| reason);
            return Err(match shut(&why) {
                Some((what, cure)) => Error::Shut {
                    servers: connection.bootstrap_servers.clone(),
                    what,
                    cure,
                    why,
                },
                None => Error::NoAnswer(why),
            });
        }
        // A refused connection comes back at once.
        std::thread::sleep(left.min(Duration::from_millis(200)));
    }
}

/// What a broker that is there but does not let us in means, and the cure, by librdkafka's and OpenSSL's words for it.
fn shut(reason: &str) -> Option<(&'static str, &'static str)> {
    const SHUT: [(&[&str], &str, &str); 6] = [
        (
            &["Unsupported SASL mechanism"],
            "it does not have this SASL mechanism",
            "set sasl.mechanism in kafka.properties to one that it has",
        ),
        (
            &["SASL authentication error", "Authentication failed"],
            "the user or the password is refused",
            "check sasl.username and sasl.password in kafka.properties",
        ),
        (
            &["certificate verify failed"],
            "its certificate is signed by nobody that is trusted, or made out to another name",
            "name the cluster's authority in ssl.ca.location in kafka.properties, and the broker as its certificate does",
        ),
        (
            // Alerts of TLS (RFC 8446, 6.2): 42, 46, 48, 116.
            &[
                "alert bad certificate",
                "alert certificate unknown",
                "unknown ca",
                "certificate required",
            ],
            "it wants a client certificate, or does not trust ours",
            "set ssl.certificate.location and ssl.key.location in kafka.properties to one that the cluster's authority has signed",
        ),
        (
            // The second where the client gives no reason: of a broker that is not there it does.
            &["incorrect security.protocol", "BrokerTransportFailure"],
            "it closes the connection, as one that wants TLS does",
            "set security.protocol in kafka.properties as the cluster's listener has it: SSL or SASL_SSL",
        ),
        (
            &["SSL handshake failed", "wrong version number"],
            "it does not speak TLS as we do",
            "set security.protocol in kafka.properties as the cluster's listener has it",
        ),
    ];
    SHUT.iter()
        .find(|(words, _, _)| words.iter().any(|word| reason.contains(word)))
        .map(|(_, what, cure)| (*what, *cure))
}

/// What librdkafka says of its settings, without their values, which may be secrets. Of a file that cannot be read it names
/// neither the path nor the reason, so files are looked at here.
fn settings_fault(connection: &Connection, failure: KafkaError) -> Error {
    let (reason, name) = match failure {
        KafkaError::ClientConfig(_, reason, name, _) => (reason, name),
        KafkaError::ClientCreation(reason) => (reason, String::new()),
        other => return other.into(),
    };
    let files = [
        &connection.properties,
        &connection.consumer_properties,
        &connection.producer_properties,
    ]
    .into_iter()
    .flatten()
    .filter(|(property, _)| property.ends_with(".location"));
    for (property, path) in files {
        if let Err(fault) = std::fs::metadata(path).and_then(|_| std::fs::File::open(path)) {
            return Error::Settings(format!("{property}: {path} cannot be read: {fault}"));
        }
        if reason.contains(property.as_str()) {
            return Error::Settings(format!(
                "{property}: {path} is not what it should be: {reason}"
            ));
        }
    }
    if name.is_empty() {
        Error::Settings(reason)
    } else {
        Error::Settings(format!("{name}: {reason}"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn refused(properties: &[(&str, &str)]) -> String {
        let connection = Connection {
            bootstrap_servers: "127.0.0.1:1".to_owned(),
            properties: properties
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect::<BTreeMap<_, _>>(),
            ..Connection::default()
        };
        match metadata(&connection) {
            Err(Error::Settings(reason)) => reason,
            other => panic!("{:?}", other.err()),
        }
    }

    #[test]
    fn a_tls_file_that_cannot_be_read_is_named_with_its_property() {
        let missing = refused(&[
            ("security.protocol", "ssl"),
            ("ssl.ca.location", "/no/such/ca.pem"),
        ]);
        assert!(
            missing.starts_with("ssl.ca.location: /no/such/ca.pem cannot be read: No such file"),
            "{missing}"
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, "no certificate").unwrap();
        let path = path.to_str().unwrap();
        let wrong = refused(&[("security.protocol", "ssl"), ("ssl.ca.location", path)]);
        assert!(
            wrong.starts_with(&format!("ssl.ca.location: {path} is not what it should be")),
            "{wrong}"
        );
    }

    #[test]
    fn a_property_that_is_none_is_named_without_its_value() {
        let unknown = refused(&[("sasl.pasword", "hidden")]);
        assert!(unknown.contains("sasl.pasword"), "{unknown}");
        assert!(!unknown.contains("hidden"), "{unknown}");
    }
}
