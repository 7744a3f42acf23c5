//! Certificates that are wrong in one way each, shown in a real handshake to a client that trusts their authority.

use std::pin::Pin;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::*;

pub const HOST: &str = "hooks.example";

/// A certificate with its key, as a receiver has them.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
}

/// An authority of the test's own.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate for a name, from the first day of one year to the last of another.
    pub fn identity(&self, name: &str, from: i32, to: i32) -> Identity {
        let key = KeyPair::generate().unwrap();
        let certificate = params(name, from, to).signed_by(&key, &self.0).unwrap();
        let chain = vec![certificate.der().clone()];
        Identity { chain, key }
    }

    /// A client that trusts this authority alone, and reaches [`HOST`] on loopback.
    pub fn client(&self, connect_timeout: Duration) -> Client {
        let authority = reqwest::Certificate::from_der(self.0.der()).unwrap();
        let guard = Guard::new(vec!["127.0.0.0/8".parse().unwrap()]);
        let names = Names::asking(Duration::from_secs(5), |_| {
            Ok(vec![(Ipv4Addr::LOCALHOST, 0).into()])
        });
        Client::resolving_by(
            names,
            Some(authority),
            Arc::new(guard),
            connect_timeout,
            CAP,
        )
        .unwrap()
    }
}

fn params(name: &str, from: i32, to: i32) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(to, 12, 31);
    params
}

/// Nobody vouches for it but itself; as an authority too, as `openssl req -x509` makes it.
fn self_signed(is_ca: IsCa) -> Identity {
    let key = KeyPair::generate().unwrap();
    let mut params = params(HOST, 2020, 2120);
    params.is_ca = is_ca;
    let chain = vec![params.self_signed(&key).unwrap().der().clone()];
    Identity { chain, key }
}

type Session = TlsStream<TcpStream>;
type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Identity {
    /// A receiver that shows this certificate, speaks one protocol (`h2`, `http/1.1`) and does what a test wants with
    /// every session.
    pub async fn receiver(
        self,
        protocol: &str,
        serve: impl Fn(Session) -> Serving + Send + Sync + 'static,
    ) -> Receiver {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(self.chain, key)
            .unwrap();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let serve = Arc::new(serve);
        Receiver::new(move |stream| {
            let (acceptor, serve) = (acceptor.clone(), Arc::clone(&serve));
            async move {
                if let Ok(session) = acceptor.accept(stream).await {
                    serve(session).await;
                }
            }
        })
        .await
    }
}

pub fn url_of(receiver: &Receiver) -> String {
    format!("https://{HOST}:{}/", receiver.port())
}

async fn says_ok(identity: Identity) -> Receiver {
    let serve = |mut session: Session| -> Serving {
        Box::pin(async move {
            if session.read(&mut [0; 4096]).await.is_ok() {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                let _ = session.write_all(answer).await;
                let _ = session.shutdown().await;
            }
        })
    };
    identity.receiver("http/1.1", serve).await
}

#[tokio::test]
async fn each_fault_of_a_certificate_is_told_and_nothing_is_sent_unless_it_is_not_to_be_checked() {
    let authority = Authority::new("authority");
    let stranger = Authority::new("stranger");
    let namesake = Authority::new("authority");
    let client = authority.client(Duration::from_secs(5));
    let cases = [
        ("good", authority.identity(HOST, 2020, 2120), ""),
        (
            "expired",
            authority.identity(HOST, 2019, 2020),
            "certificate expired on 2020-12-31; renew it at the receiver",
        ),
        (
            "not yet valid",
            authority.identity(HOST, 2119, 2120),
            "certificate not valid yet; check the clocks of both machines",
        ),
        (
            "of another host",
            authority.identity("other.example", 2020, 2120),
            "certificate is for another name; use the name it was issued for, not hooks.example",
        ),
        (
            "of an authority that nobody trusts",
            stranger.identity(HOST, 2020, 2120),
            "certificate signed by itself or by an unknown authority; send the whole chain",
        ),
        (
            "of another authority of the same name",
            namesake.identity(HOST, 2020, 2120),
            "certificate refused: it was signed with another key than that of the authority it names",
        ),
        (
            "signed by itself",
            self_signed(IsCa::NoCa),
            "certificate signed by itself or by an unknown authority; send the whole chain",
        ),
        (
            "signed by itself as an authority",
            self_signed(IsCa::Ca(BasicConstraints::Unconstrained)),
            "certificate signed by itself or by an unknown authority; send the whole chain",
        ),
    ];
    for (name, identity, words) in cases {
        let receiver = says_ok(identity).await;
        let url = url_of(&receiver);
        let sent = attempt(&client, &url, Duration::from_secs(10)).await;
        if words.is_empty() {
            assert_eq!(sent.status, Some(200), "{name}: {sent:?}");
        } else {
            let message = failed(&sent, FailureKind::Tls);
            assert!(message.starts_with(words), "{name}: {message}");
            assert!(message.contains("verify_ssl = false"), "{name}: {message}");
            assert_eq!(sent.verdict(0).outcome, Outcome::Tls);
            assert_eq!(sent.verdict(0).next, Next::Retry { not_before: None });
        }
        let mut unchecked = endpoint(&url, Duration::from_secs(10));
        unchecked.verify_ssl = false;
        let sent = client
            .send(&unchecked, HeaderMap::new(), Bytes::from_static(b"{}"))
            .await;
        assert_eq!(sent.status, Some(200), "{name}: {sent:?}");
    }
}

#[tokio::test]
async fn a_handshake_that_stalls_is_given_up_at_the_limit_for_connecting_and_the_message_says_so() {
    let authority = Authority::new("authority");
    let client = authority.client(Duration::from_millis(300));
    // Nothing; the beginning of a record that never ends; and one byte of it at a time.
    for (beginning, drip) in [
        (b"".as_slice(), false),
        (b"\x16\x03\x03\x40\x00\x02\x00", false),
        (b"\x16\x03\x03\x40\x00\x02\x00", true),
    ] {
        let receiver = Receiver::new(move |mut stream| async move {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(beginning).await;
            while drip && stream.write_all(b"x").await.is_ok() {
                sleep(Duration::from_millis(20)).await;
            }
            sleep(Duration::from_secs(60)).await;
        })
        .await;
        let url = url_of(&receiver);
        let sent = attempt(&client, &url, Duration::from_secs(10)).await;
        let message = failed(&sent, FailureKind::Timeout);
        assert!(
            message.contains("TLS handshake stalls"),
            "{message}: {sent:?}"
        );
        assert!(sent.duration < Duration::from_secs(5));
    }
}
