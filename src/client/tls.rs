//! The TLS configuration of a client: the certificates that it trusts, and its own.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::{fmt, io};

use rustls::client::danger::ServerCertVerifier;
use rustls::client::{ClientConfig, VerifierBuilderError, WantsClientCert, WebPkiServerVerifier};
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::{ConfigBuilder, Error};

use super::unverified::Unverified;
use crate::certificates::{Pem, TlsError};
use crate::error::ConnectError;
use crate::stream::{Stream, TlsStream};

/// The TLS configuration of a [`Client`](crate::Client) for `wss`: versions 1.2 and 1.3, `http/1.1` in ALPN.
///
/// By default a client trusts the certificates that the system trusts, and shows none of its own.
///
/// ```no_run
/// use tidewire::Client;
/// use tidewire::tls::ClientTls;
///
/// # async fn run() -> tidewire::Result<()> {
/// let tls = ClientTls::with_roots_file("our-ca.pem")?;
/// let ws = Client::new("wss://service.internal/ws").tls(tls).connect().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
    /// `None` for a ready configuration of rustls, which has a verifier of its own.
    verifier: Option<Arc<dyn ServerCertVerifier>>,
}

impl ClientTls {
    /// Trusts the certificates that the system trusts: by the system's verifier on Windows and Apple's systems,
    /// and by its root certificates elsewhere.
    ///
    /// # Errors
    ///
    /// [`TlsError::Rustls`] if no root certificates of the system can be read.
    pub fn platform() -> Result<Self, TlsError> {
        Self::trusting(&Roots::Platform)
    }

    /// Trusts the certificates that Mozilla trusts, from a list that is part of the program. For systems without
    /// a list of their own.
    ///
    /// # Errors
    ///
    /// [`TlsError::Rustls`] if rustls refuses the list.
    #[cfg(feature = "webpki-roots")]
    pub fn webpki() -> Result<Self, TlsError> {
        Self::trusting(&Roots::Webpki)
    }

    /// Trusts only certificates issued by one of `roots`, in PEM.
    ///
    /// # Errors
    ///
    /// [`TlsError`] if `roots` holds no certificate, or one that cannot be used.
    pub fn with_roots(roots: impl AsRef<[u8]>) -> Result<Self, TlsError> {
        Self::trusting(&Roots::Own(Pem::Text("roots", roots.as_ref().into())))
    }

    /// Trusts only certificates issued by one of the roots in a PEM file.
    ///
    /// # Errors
    ///
    /// Those of [`with_roots`](Self::with_roots), and [`TlsError::Unreadable`].
    pub fn with_roots_file(roots: impl Into<PathBuf>) -> Result<Self, TlsError> {
        Self::trusting(&Roots::Own(Pem::File(roots.into())))
    }

    /// Trusts any certificate. An attacker on the way to the server can then read and change all data.
    ///
    /// For tests, or for a device with a self-signed certificate.
    ///
    /// # Errors
    ///
    /// [`TlsError::Rustls`] if rustls fails.
    pub fn dangerously_unverified() -> Result<Self, TlsError> {
        Self::trusting(&Roots::Nobody)
    }

    /// Shows a certificate to servers that ask for one (mutual TLS).
    ///
    /// `chain` holds the client's own certificate first, and `key` its key, both in PEM.
    ///
    /// # Errors
    ///
    /// [`TlsError`] if a text lacks a certificate or a key, or if they do not belong together.
    /// [`TlsError::Ready`] after [`from_rustls`](Self::from_rustls).
    pub fn certificate(
        self,
        chain: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
    ) -> Result<Self, TlsError> {
        let chain = Pem::Text("client's certificate", chain.as_ref().into());
        self.with_identity(&chain, &Pem::Text("client's key", key.as_ref().into()))
    }

    /// Shows a certificate from files. Otherwise like [`certificate`](Self::certificate).
    ///
    /// # Errors
    ///
    /// Those of [`certificate`](Self::certificate), and [`TlsError::Unreadable`].
    pub fn certificate_files(
        self,
        chain: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Self, TlsError> {
        self.with_identity(&Pem::File(chain.into()), &Pem::File(key.into()))
    }

    fn with_identity(self, chain: &Pem, key: &Pem) -> Result<Self, TlsError> {
        let verifier = self.verifier.ok_or(TlsError::Ready)?;
        let (certificates, private_key) = (chain.certificates()?, key.private_key()?);
        let builder = builder(Arc::clone(&verifier))?;
        let config = builder.with_client_auth_cert(certificates, private_key);
        Ok(Self::new(config.map_err(|error| TlsError::refused(chain, &error))?, verifier))
    }

    /// Uses a configuration of rustls unchanged, for features of rustls that this type does not offer.
    ///
    /// The client speaks HTTP/1.1, so `alpn_protocols` should be `http/1.1` or empty.
    #[must_use]
    pub fn from_rustls(config: Arc<ClientConfig>) -> Self {
        Self { config, verifier: None }
    }

    fn trusting(roots: &Roots) -> Result<Self, TlsError> {
        let verifier = roots.verifier()?;
        Ok(Self::new(builder(Arc::clone(&verifier))?.with_no_client_auth(), verifier))
    }

    fn new(mut config: ClientConfig, verifier: Arc<dyn ServerCertVerifier>) -> Self {
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { config: Arc::new(config), verifier: Some(verifier) }
    }

    /// The default configuration. The system's certificates are read once.
    pub(super) fn shared() -> Result<Self, TlsError> {
        static PLATFORM: OnceLock<Result<ClientTls, TlsError>> = OnceLock::new();
        if let Some(shared) = PLATFORM.get() {
            return shared.clone();
        }
        // Not inside `get_or_init`: reading the certificates writes log records, and a logger may connect, too.
        let platform = Self::platform();
        PLATFORM.get_or_init(|| platform).clone()
    }

    /// Encrypts a stream to `host`.
    pub(super) async fn encrypt(&self, stream: Stream, host: &str) -> Result<Stream, ConnectError> {
        let failed =
            |error: io::Error| ConnectError::Tls { host: host.into(), error: error.into() };
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|error| failed(io::Error::other(error)))?;
        let tls = TlsStream::client(Arc::clone(&self.config), name, stream);
        let mut tls = Box::new(tls.map_err(failed)?);
        tls.handshake().await.map_err(failed)?;
        Ok(Stream::Tls(tls))
    }
}

/// Shows no keys.
impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").finish_non_exhaustive()
    }
}

/// The roots that are trusted.
enum Roots {
    Platform,
    #[cfg(feature = "webpki-roots")]
    Webpki,
    Own(Pem),
    Nobody,
}

impl Roots {
    fn verifier(&self) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let roots = match self {
            Self::Platform => {
                let verifier = rustls_platform_verifier::Verifier::new(provider);
                return Ok(Arc::new(verifier.map_err(TlsError::Rustls)?));
            }
            Self::Nobody => return Ok(Arc::new(Unverified::new(provider))),
            Self::Own(pem) => pem.root_store()?,
            #[cfg(feature = "webpki-roots")]
            Self::Webpki => webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect(),
        };
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        let other = |error: VerifierBuilderError| Error::General(error.to_string());
        Ok(builder.build().map_err(|error| TlsError::Rustls(other(error)))?)
    }
}

/// A configuration without the certificate of the client.
fn builder(
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, TlsError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Rustls)?;
    // rustls calls any verifier of one's own dangerous. This one follows the roots.
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier))
}
