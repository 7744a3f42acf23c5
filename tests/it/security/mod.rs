//! Kafka with its doors shut: TLS, SASL, client certificates and rights, on a broker of the test's own.

mod admin;
mod doors;
mod rights;

use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};

use crate::harness::{Cluster, OwnBroker, config_text};
use admin::Admin;

/// The principal of [`Doors::certificate`].
const CERTIFICATE: &str = "User:CN=router";

/// A broker, its certificates, and the ways in.
struct Doors {
    folder: tempfile::TempDir,
    // Kept: dropping it kills the broker.
    _broker: OwnBroker,
    cluster: Cluster,
    admin: Admin,
    sasl: String,
    mtls: String,
}

impl Doors {
    fn open(test: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        certificates(folder.path());
        let (broker, [sasl, mtls]) = OwnBroker::secured(folder.path());
        let cluster = Cluster::at(broker.bootstrap(), test);
        let admin = Admin::at(broker.bootstrap());
        Self {
            folder,
            cluster,
            admin,
            sasl,
            mtls,
            _broker: broker,
        }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// A configuration for this test's topics that comes in by `address`, with these properties.
    fn config(&self, address: &str, properties: &[(&str, &str)], more: &str) -> String {
        let properties: String = properties
            .iter()
            .map(|(name, value)| format!("kafka.properties.{name:?} = {value:?}\n"))
            .collect();
        let more = format!("kafka.bootstrap_servers = {address:?}\n{properties}{more}");
        config_text(&self.cluster, &["events.job"], &more)
    }

    fn by_scram(&self, user: &str, password: &str) -> String {
        self.by_sasl("SCRAM-SHA-512", user, password, "ca.pem")
    }

    fn by_sasl(&self, mechanism: &str, user: &str, password: &str, authority: &str) -> String {
        let properties = [
            ("security.protocol", "SASL_SSL"),
            ("ssl.ca.location", &self.file(authority)),
            ("sasl.mechanism", mechanism),
            ("sasl.username", user),
            ("sasl.password", password),
        ];
        self.config(&self.sasl, &properties, "")
    }

    /// An unsecured JWS, which a broker takes that has no validator.
    fn by_token(&self, subject: &str) -> String {
        let properties = [
            ("security.protocol", "SASL_SSL"),
            ("ssl.ca.location", &self.file("ca.pem")),
            ("sasl.mechanism", "OAUTHBEARER"),
            ("enable.sasl.oauthbearer.unsecure.jwt", "true"),
            ("sasl.oauthbearer.config", &format!("principal={subject}")),
        ];
        self.config(&self.sasl, &properties, "")
    }

    fn by_certificate(&self) -> String {
        let properties = [
            ("security.protocol", "SSL"),
            ("ssl.ca.location", &self.file("ca.pem")),
            ("ssl.certificate.location", &self.file("router.pem")),
            ("ssl.key.location", &self.file("router.key")),
        ];
        self.config(&self.mtls, &properties, "")
    }
}

/// An authority, the broker's certificate, a client's, and an authority that nobody trusts.
fn certificates(folder: &Path) {
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "authority");
    let authority =
        CertifiedIssuer::self_signed(params.clone(), KeyPair::generate().unwrap()).unwrap();
    let stranger = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    write("ca.pem", &authority.pem());
    write("stranger.pem", &stranger.pem());

    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "broker");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().unwrap();
    let broker = params.signed_by(&key, &authority).unwrap();
    write(
        "server.pem",
        &format!("{}{}", key.serialize_pem(), broker.pem()),
    );

    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "router");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let client = params.signed_by(&key, &authority).unwrap();
    write("router.pem", &client.pem());
    write("router.key", &key.serialize_pem());
}
