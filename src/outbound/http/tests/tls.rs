//! TLS: what is wrong with a certificate is said, and `verify_ssl = false` sends all the same.

use std::io::{Read, Write};
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::{CertificateError, ServerConfig, ServerConnection, StreamOwned};

use super::super::failure::{Reached, untrusted};
use super::*;

/// For `localhost` and 127.0.0.1, signed by itself, valid until 2126; made for these tests and trusted nowhere.
const CERTIFICATE: &str = "\
MIIBmjCCAUGgAwIBAgIUHv8UEC7zO1m/FphAZ+dpBVLMiaswCgYIKoZIzj0EAwIwFDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2\
MTEyMjE5MDIwN1oYDzIxMjYxMDI5MTkwMjA3WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC\
AATAAskETtYSD7nCmWBEeg3GB/riphWfJannAExmpDYPaZREjfk0rgQleqwk9KKtXcOzMp86oP494LZ+0B7JMMV8o28wbTAdBgNV\
HQ4EFgQUwNGynlEDxHleYAGwVxfZX7bWQSIwHwYDVR0jBBgwFoAUwNGynlEDxHleYAGwVxfZX7bWQSIwDwYDVR0TAQH/BAUwAwEB\
/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZIzj0EAwIDRwAwRAIgc7RB+Lhk8nri7N8TDO4ENxqx+6+mY78RE/PL\
x3rhsJoCIEw2tjwgYHYjQe/9Js5iL5O2hPvrBFrsTg6bisIcz4bp";
const PRIVATE_KEY: &str = "\
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgu3E+HRR4nd1FwVbpTLbOmNQrMq9SAvk3CnjFhaCUj8ShRANCAATA\
AskETtYSD7nCmWBEeg3GB/riphWfJannAExmpDYPaZREjfk0rgQleqwk9KKtXcOzMp86oP494LZ+0B7JMMV8";

/// Serves connections on a thread of its own, for rustls alone knows no tokio.
fn tls_receiver() -> SocketAddr {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(
        STANDARD.decode(PRIVATE_KEY).unwrap(),
    ));
    let certificate = STANDARD.decode(CERTIFICATE).unwrap().into();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let session = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = StreamOwned::new(session, stream.unwrap());
            let mut piece = [0; 4096];
            if stream.read(&mut piece).is_ok() {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
                let _ = stream.flush();
            }
        }
    });
    address
}

#[tokio::test]
async fn a_self_signed_certificate_is_refused_and_accepted_when_it_is_not_to_be_checked() {
    let address = tls_receiver();
    let client = client();
    let url = format!("https://localhost:{}/", address.port());
    let sent = attempt(&client, &url, Duration::from_secs(5)).await;
    let message = failed(&sent, FailureKind::Tls);
    assert!(
        message.contains("unknown authority") || message.contains("ca-certificates"),
        "{message}"
    );
    assert_eq!(sent.verdict(0).outcome, Outcome::Tls);

    let mut unchecked = endpoint(&url, Duration::from_secs(5));
    unchecked.verify_ssl = false;
    let sent = client
        .send(&unchecked, HeaderMap::new(), Bytes::from_static(b"{}"))
        .await;
    assert_eq!(
        (sent.status, sent.body.as_ref()),
        (Some(200), b"ok".as_slice()),
        "{sent:?}"
    );
}

#[tokio::test]
async fn https_to_a_port_that_speaks_something_else_is_a_tls_failure() {
    let plain = Receiver::new(async |mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let _ = stream.read(&mut [0; 4096]).await;
    })
    .await;
    let closes = Receiver::new(async |mut stream| {
        let _ = stream.read(&mut [0; 4096]).await;
    })
    .await;
    let resets = Receiver::new(async |mut stream| {
        let _ = stream.read(&mut [0; 4096]).await;
        receiver::reset(stream);
    })
    .await;
    let client = client();
    for (receiver, words) in [
        (&plain, "does not speak TLS"),
        (&closes, "TLS handshake"),
        (&resets, "TLS handshake"),
    ] {
        let sent = attempt(
            &client,
            &format!("https://127.0.0.1:{}/", receiver.port()),
            Duration::from_secs(2),
        )
        .await;
        if client.certificate_trouble().is_none() {
            let message = failed(&sent, FailureKind::Tls);
            assert!(message.contains(words), "{message}");
        }
    }
}

#[tokio::test]
async fn a_stalled_handshake_is_given_up_in_time() {
    let stalls = Receiver::new(async |stream| {
        sleep(Duration::from_secs(60)).await;
        drop(stream);
    })
    .await;
    let mut endpoint = endpoint(
        &format!("https://127.0.0.1:{}/", stalls.port()),
        Duration::from_millis(300),
    );
    endpoint.verify_ssl = false;
    let sent = client()
        .send(&endpoint, HeaderMap::new(), Bytes::new())
        .await;
    failed(&sent, FailureKind::Timeout);
}

#[test]
fn every_fault_of_a_certificate_has_its_cure() {
    let url = Url::parse("https://hooks.example.com/?token=hidden").unwrap();
    let reached = Reached {
        url: &url,
        connect_timeout: Duration::from_secs(5),
    };
    let message = |reason| untrusted(&rustls::Error::InvalidCertificate(reason), reached);
    let at = |seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let expired_in_2026 = CertificateError::ExpiredContext {
        time: at(1_800_000_000),
        not_after: at(1_769_903_999),
    };
    for (reason, words) in [
        (CertificateError::Expired, "certificate expired; renew it"),
        (expired_in_2026, "expired on 2026-01-31; renew it"),
        (CertificateError::NotValidYet, "check the clocks"),
        (CertificateError::NotValidForName, "not hooks.example.com"),
        (CertificateError::UnknownIssuer, "send the whole chain"),
        (CertificateError::Revoked, "revoked"),
        (CertificateError::BadSignature, "certificate refused"),
    ] {
        let text = message(reason);
        assert!(
            text.contains(words) && text.contains("verify_ssl") && !text.contains("hidden"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn without_trusted_authorities_plain_http_still_works_and_https_says_what_to_install() {
    let receiver = Receiver::replying(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let mut client = client();
    client.checking = Err("No CA certificates were loaded from the system".to_owned());
    assert_eq!(
        attempt(&client, &receiver.url(), Duration::from_secs(2))
            .await
            .status,
        Some(200)
    );
    let sent = attempt(&client, "https://127.0.0.1:1/", Duration::from_secs(2)).await;
    assert!(failed(&sent, FailureKind::Tls).contains("install the package ca-certificates"));
}
