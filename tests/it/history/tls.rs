//! PostgreSQL by TLS: a real server that takes nothing else, with certificates made here.

use std::path::Path;

use postrider::history::Store;
use postrider::history::query::{Begin, DeliveryFilter, Scope};
use postrider::history::rows::Status;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};

use super::OwnServer;
use super::queries::{change, delivery};

/// An authority, the certificate it gave to `localhost`, and an authority that has nothing to do with it.
fn certificates(folder: &Path) {
    let write = |name: &str, text: String| std::fs::write(folder.join(name), text).unwrap();
    let authority = |name: &str| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    };
    let ours = authority("authority");
    write("ca.pem", ours.pem());
    write("stranger.pem", authority("stranger").pem());
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().unwrap();
    write("server.pem", params.signed_by(&key, &ours).unwrap().pem());
    write("server.key", key.serialize_pem());
}

fn open(url: &str) -> Result<Store, String> {
    Store::open(&url.parse()?)
        .map_err(|fault| fault.to_string())?
        .ok_or_else(|| "no store".to_owned())
}

/// Whether the history works there; otherwise what it says.
fn try_at(url: &str) -> Result<(), String> {
    let store = open(url)?;
    store
        .apply(&[change(0, delivery(1, Status::Success))])
        .map_err(|fault| fault.to_string())?;
    let page = store
        .deliveries(&Scope::All, &DeliveryFilter::default(), &Begin::Newest, 10)
        .map_err(|fault| fault.to_string())?;
    assert_eq!(page.rows.len(), 1);
    Ok(())
}

#[test]
fn a_server_that_takes_only_tls_is_reached_and_checked_as_the_url_demands() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path());
    let server = OwnServer::start_with_tls(folder.path());
    let by_name = server.url.replace("127.0.0.1", "localhost") + "?hostaddr=127.0.0.1&sslmode=";
    let file = |name: &str| format!("&sslrootcert={}/{name}", folder.path().display());

    let refusal = try_at(&format!("{by_name}disable")).unwrap_err();
    assert!(refusal.contains("no encryption"), "{refusal}");
    try_at(&format!("{by_name}require")).unwrap();
    try_at(&server.url).unwrap();
    try_at(&format!("{by_name}verify-full{}", file("ca.pem"))).unwrap();
    try_at(&format!("{by_name}require{}", file("ca.pem"))).unwrap();

    for checked in ["verify-full", "require"] {
        let stranger = try_at(&format!("{by_name}{checked}{}", file("stranger.pem"))).unwrap_err();
        assert!(stranger.contains("not trusted"), "{checked}: {stranger}");
        assert!(stranger.contains("sslrootcert"), "{checked}: {stranger}");
    }
    // The system does not know an authority that was made a moment ago.
    let unknown = try_at(&format!("{by_name}verify-full")).unwrap_err();
    assert!(unknown.contains("not trusted"), "{unknown}");
    // The certificate is for localhost, not for its address.
    let by_address = format!("{}?sslmode=verify-full{}", server.url, file("ca.pem"));
    let other = try_at(&by_address).unwrap_err();
    assert!(other.contains("not trusted"), "{other}");
}

#[test]
fn a_server_without_tls_is_not_used_where_tls_is_required() {
    let server = OwnServer::start();
    for demand in ["require", "verify-full"] {
        let refusal = try_at(&format!("{}?sslmode={demand}", server.url)).unwrap_err();
        assert!(refusal.contains("TLS"), "{demand}: {refusal}");
    }
    try_at(&server.url).unwrap();
}

#[test]
fn what_a_url_says_of_tls_and_cannot_be_meant_is_refused_when_it_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("empty.pem"), "nothing").unwrap();
    let empty = folder.path().join("empty.pem");
    let refused = |query: &str| {
        open(&format!("postgres://localhost/database?{query}"))
            .err()
            .unwrap_or_else(|| panic!("{query} is taken"))
    };
    let mode = refused("sslmode=verify-ca");
    assert!(mode.contains("verify-full"), "{mode}");
    let unused = refused("sslmode=prefer&sslrootcert=/ca.pem");
    assert!(unused.contains("sslmode=verify-full"), "{unused}");
    let away = refused("sslmode=verify-full&sslrootcert=/not/there.pem");
    assert!(away.contains("/not/there.pem"), "{away}");
    let nothing = refused(&format!(
        "sslmode=verify-full&sslrootcert={}",
        empty.display()
    ));
    assert!(nothing.contains("no certificate"), "{nothing}");
}
