//! The TLS configuration of a server: its certificate, and the certificates of clients.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::crypto::{CryptoProvider, ring};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{Error, InconsistentKeys};

use crate::certificates::{Pem, TlsError};

/// The certificate and the TLS configuration of a server: versions 1.2 and 1.3, `http/1.1` in ALPN.
///
/// Clones share the certificate, so that a clone can [`reload`](Self::reload) it for a running server.
///
/// ```no_run
/// use tidewire::tls::TlsConfig;
/// use tidewire::{RequestContext, Server};
///
/// # async fn run() -> tidewire::Result<()> {
/// let mut server = Server::new();
/// server.get("/ping", |_ctx: RequestContext| async { Ok("pong") });
/// server.tls(TlsConfig::from_pem_files("fullchain.pem", "privkey.pem")?);
/// server.listen_until("0.0.0.0:443", tidewire::signals()).await
/// # }
/// ```
#[derive(Clone)]
pub struct TlsConfig {
    shared: Arc<Shared>,
    pub(super) handshake_timeout: Option<Duration>,
}

struct Shared {
    /// The configuration for new connections.
    current: RwLock<Arc<ServerConfig>>,
    /// The files or texts that it was made from; `None` if it came from rustls.
    material: Option<Material>,
}

#[derive(Clone, Debug)]
struct Material {
    chain: Pem,
    key: Pem,
    clients: Option<(ClientCertificates, Pem)>,
}

/// The treatment of a client that shows no certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ClientCertificates {
    /// It is served, and `RequestContext::peer_certificates` is empty.
    Optional,
    /// Its handshake fails.
    Required,
}

impl TlsConfig {
    /// Reads a certificate chain, the server's own certificate first, and its private key.
    ///
    /// Both may be in one file. The thread blocks while the files are read.
    ///
    /// # Errors
    ///
    /// [`TlsError`] if a file cannot be read, lacks a certificate or a key, or if the key does not belong to
    /// the certificate.
    pub fn from_pem_files(
        chain: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Self, TlsError> {
        let (chain, key) = (Pem::File(chain.into()), Pem::File(key.into()));
        Self::from_material(Material { chain, key, clients: None })
    }

    /// Takes a certificate chain and its private key as PEM text, like
    /// [`from_pem_files`](Self::from_pem_files).
    ///
    /// # Errors
    ///
    /// [`TlsError`] if a text lacks a certificate or a key, or if the key does not belong to the
    /// certificate.
    pub fn from_pem(chain: impl AsRef<[u8]>, key: impl AsRef<[u8]>) -> Result<Self, TlsError> {
        let chain = Pem::Text("certificate", chain.as_ref().into());
        let key = Pem::Text("private key", key.as_ref().into());
        Self::from_material(Material { chain, key, clients: None })
    }

    /// Uses a configuration of rustls unchanged, for features of rustls that this type does not offer.
    ///
    /// The server speaks HTTP/1.1, so `alpn_protocols` should be `http/1.1` or empty.
    #[must_use]
    pub fn from_rustls(config: Arc<ServerConfig>) -> Self {
        Self::new(config, None)
    }

    fn from_material(material: Material) -> Result<Self, TlsError> {
        Ok(Self::new(Arc::new(material.assemble()?), Some(material)))
    }

    fn new(current: Arc<ServerConfig>, material: Option<Material>) -> Self {
        Self {
            shared: Arc::new(Shared { current: RwLock::new(current), material }),
            handshake_timeout: Some(Duration::from_secs(10)),
        }
    }

    /// Asks clients for a certificate issued by one of `roots`, in PEM (mutual TLS).
    ///
    /// `RequestContext::peer_certificates` returns it to handlers. Clones made before do not change.
    ///
    /// # Errors
    ///
    /// [`TlsError`] if `roots` holds no certificate, or one that cannot be used.
    /// [`TlsError::Ready`] after [`from_rustls`](Self::from_rustls).
    pub fn client_certificates(
        self,
        mode: ClientCertificates,
        roots: impl AsRef<[u8]>,
    ) -> Result<Self, TlsError> {
        let roots = Pem::Text("client certificates' roots", roots.as_ref().into());
        self.with_clients(mode, roots)
    }

    /// Asks clients for a certificate, with roots from a file. [`reload`](Self::reload) reads the file again.
    /// Otherwise like [`client_certificates`](Self::client_certificates).
    ///
    /// # Errors
    ///
    /// Those of [`client_certificates`](Self::client_certificates), and [`TlsError::Unreadable`].
    pub fn client_certificates_file(
        self,
        mode: ClientCertificates,
        roots: impl AsRef<Path>,
    ) -> Result<Self, TlsError> {
        let roots = Pem::File(roots.as_ref().to_owned());
        self.with_clients(mode, roots)
    }

    fn with_clients(self, mode: ClientCertificates, roots: Pem) -> Result<Self, TlsError> {
        let mut material = self.shared.material.clone().ok_or(TlsError::Ready)?;
        material.clients = Some((mode, roots));
        Ok(Self { shared: Self::from_material(material)?.shared, ..self })
    }

    /// Longest time from a new connection to the end of its TLS handshake. Then it is dropped. Default 10 s;
    /// `None` for no limit.
    ///
    /// The number of handshakes under way is not limited. The threads of the executor limit how many are
    /// computed at a time, and a silent client costs no more than its socket.
    #[must_use]
    pub fn handshake_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.handshake_timeout = timeout.into();
        self
    }

    /// Reads the files again. All servers that have a clone of this use the new certificate for new
    /// connections. Earlier sessions cannot be resumed.
    ///
    /// The thread blocks while the files are read. A configuration that was not made from files does not
    /// change; use [`replace`](Self::replace) for it.
    ///
    /// # Errors
    ///
    /// Those of [`from_pem_files`](Self::from_pem_files). The old certificate then stays in use.
    pub fn reload(&self) -> Result<(), TlsError> {
        if let Some(material) = &self.shared.material {
            self.shared.set(Arc::new(material.assemble()?));
        }
        Ok(())
    }

    /// Takes over the certificate and the client verifier that `other` has now.
    pub fn replace(&self, other: &Self) {
        self.shared.set(other.current());
    }

    /// The configuration for a new connection.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.shared.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Shows no keys.
impl fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsConfig")
            .field("material", &self.shared.material)
            .field("handshake_timeout", &self.handshake_timeout)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn set(&self, config: Arc<ServerConfig>) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let replaced = std::mem::replace(&mut *current, config);
        drop(current);
        // Without the lock: values of the application are dropped with it.
        drop(replaced);
    }
}

impl Material {
    fn assemble(&self) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let certified = self.certified_key(&provider)?;
        let clients = self.client_verifier(&provider)?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Rustls)?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Clients keep their sessions (tickets): a server has many clients, and they come back all at once.
        config.ticketer = ring::Ticketer::new().map_err(TlsError::Rustls)?;
        Ok(config)
    }

    fn certified_key(&self, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let chain = self.chain.certificates()?;
        let key = provider
            .key_provider
            .load_private_key(self.key.private_key()?)
            .map_err(|error| TlsError::refused(&self.key, &error))?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            // Some keys do not reveal whether they match. The first handshake will show it.
            Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
            Err(Error::InconsistentKeys(_)) => {
                let (certificate, key) = (self.chain.to_string(), self.key.to_string());
                Err(TlsError::KeyMismatch { certificate, key })
            }
            Err(error) => Err(TlsError::refused(&self.chain, &error)),
        }
    }

    fn client_verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
        let Some((mode, pem)) = &self.clients else {
            return Ok(WebPkiClientVerifier::no_client_auth());
        };
        let roots = Arc::new(pem.root_store()?);
        let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
        let builder = match mode {
            ClientCertificates::Optional => builder.allow_unauthenticated(),
            ClientCertificates::Required => builder,
        };
        builder.build().map_err(|error| TlsError::refused(pem, &error))
    }
}
