//! TLS to PostgreSQL, by rustls as for the receivers. It keeps the promise that a setting which demands protection gets it or is refused:
//! nothing falls back to plain text, and `verify-full` never takes a server that cannot prove who it is.
//!
//! The words are those of libpq (<https://www.postgresql.org/docs/current/libpq-ssl.html>): `disable`, `prefer` (what holds without a
//! word: encrypted where the server offers it, and not checked), `require` (encrypted, not checked), `verify-full` (the certificate and
//! the host's name are checked). With `sslrootcert` `require` is checked like `verify-full`. `channel_binding=require` is not supported.

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;

use super::Fault;

/// What a URL says of TLS.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Demands {
    pub(super) mode: SslMode,
    is_checked: bool,
    /// A file of PEM; without one the system's authorities are trusted.
    authorities: Option<String>,
}

impl Demands {
    /// The URL without `sslmode` and `sslrootcert`, of which tokio-postgres knows half, and what they say.
    pub(super) fn of(url: &str) -> Result<(String, Self), Fault> {
        let (base, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut mode, mut authorities, mut others) = (None, None, Vec::new());
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            // A plus is a plus in a URL of PostgreSQL, and a space in a form.
            let form = parameter.replace('+', "%2B");
            match url::form_urlencoded::parse(form.as_bytes()).next() {
                Some((name, value)) if name == "sslmode" => mode = Some(value.into_owned()),
                Some((name, value)) if name == "sslrootcert" => {
                    authorities = Some(value.into_owned()).filter(|file| file != "system");
                }
                _ => others.push(parameter),
            }
        }
        let (mode, is_checked) = match mode.as_deref() {
            Some("disable") => (SslMode::Disable, false),
            None | Some("prefer") => (SslMode::Prefer, false),
            Some("require") => (SslMode::Require, authorities.is_some()),
            Some("verify-full") => (SslMode::Require, true),
            Some(other) => {
                return Err(Fault::Setting(format!(
                    "sslmode={other} is not known; it may be disable, prefer, require or verify-full"
                )));
            }
        };
        if authorities.is_some() && !is_checked {
            return Err(Fault::Setting(
                "sslrootcert has no effect without a check; add sslmode=verify-full".to_owned(),
            ));
        }
        let mut rest = base.to_owned();
        if !others.is_empty() {
            rest.push('?');
            rest.push_str(&others.join("&"));
        }
        let demands = Self {
            mode,
            is_checked,
            authorities,
        };
        Ok((rest, demands))
    }

    fn roots(&self) -> Result<RootCertStore, Fault> {
        let mut roots = RootCertStore::empty();
        let Some(file) = &self.authorities else {
            // A system's store holds certificates that nothing can read; the others are what counts.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            return Ok(roots);
        };
        let unusable = |error: &dyn Error| {
            Fault::Setting(format!(
                "sslrootcert={file} cannot be used ({error}); name a file of certificates in PEM"
            ))
        };
        for certificate in CertificateDer::pem_file_iter(file).map_err(|error| unusable(&error))? {
            let certificate = certificate.map_err(|error| unusable(&error))?;
            roots.add(certificate).map_err(|error| unusable(&error))?;
        }
        if roots.is_empty() {
            return Err(Fault::Setting(format!(
                "sslrootcert={file} holds no certificate in PEM"
            )));
        }
        Ok(roots)
    }
}

/// What to say when the cause of a fault is that the server was not trusted.
pub(super) fn distrust(cause: &(dyn Error + 'static)) -> Option<String> {
    let inner = cause.downcast_ref::<io::Error>()?.get_ref()?;
    let rustls::Error::InvalidCertificate(why) = inner.downcast_ref::<rustls::Error>()? else {
        return None;
    };
    Some(format!(
        "the server's certificate is not trusted ({why}); name its authority by sslrootcert=FILE in history.store, and the host as the \
         certificate does"
    ))
}

/// Makes connections into TLS ones.
#[derive(Clone)]
pub(super) struct Tls(TlsConnector);

impl Tls {
    pub(super) fn new(demands: &Demands) -> Result<Self, Fault> {
        let provider = Arc::new(ring::default_provider());
        let versions = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| Fault::Setting(format!("TLS: {error}")))?;
        let config = if demands.is_checked {
            versions.with_root_certificates(demands.roots()?)
        } else {
            versions
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Unchecked(provider)))
        };
        Ok(Self(TlsConnector::from(Arc::new(
            config.with_no_client_auth(),
        ))))
    }
}

/// Takes whatever certificate comes, as libpq does without `verify-`: against those who listen, not against those who answer instead.
#[derive(Debug)]
struct Unchecked(Arc<CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// One connection about to be made.
pub(super) struct Connect {
    connector: TlsConnector,
    host: String,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for Tls {
    type Stream = Encrypted<S>;
    type TlsConnect = Connect;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<Connect> {
        Ok(Connect {
            connector: self.0.clone(),
            host: host.to_owned(),
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for Connect {
    type Stream = Encrypted<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Encrypted<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let name = ServerName::try_from(self.host).map_err(io::Error::other)?;
            self.connector.connect(name, stream).await.map(Encrypted)
        })
    }
}

/// A stream in TLS. It binds no channel, so that SCRAM is used without: who the server is, the certificate tells.
pub(super) struct Encrypted<S>(tokio_rustls::client::TlsStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Encrypted<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Encrypted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(task, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Encrypted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(task, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(task)
    }
}
