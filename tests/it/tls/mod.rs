//! TLS on real sockets: the client is rustls itself, blocking, so that a test says which bytes leave in
//! which record.
//!
//! What a peer of a WebSocket sees is in `connection/wire`, which runs through TLS as well.

mod config;
mod ends;
mod handshake;
mod mutual;
mod reload;
mod stream;

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tidewire::tls::TlsConfig;
use tidewire::tls::rustls::pki_types::pem::PemObject;
use tidewire::tls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tidewire::tls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tidewire::upgrade::UpgradeOptions;
use tidewire::{RequestContext, Server};

use crate::support::tcp::{Tcp, echo_server};

/// The client's end of an encrypted connection.
pub(crate) type Client = Tcp<StreamOwned<ClientConnection, TcpStream>>;

/// An authority that issues certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(1);
        let mut params = CertificateParams::new([]).unwrap();
        let name = format!("authority {}", NUMBER.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(crate) fn issue(&self, name: &str) -> Identity {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap().pem();
        Identity { certificate, key: key.serialize_pem() }
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }
}

impl Identity {
    pub(crate) fn config(&self) -> TlsConfig {
        TlsConfig::from_pem(&self.certificate, &self.key).unwrap()
    }

    fn der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()
    }
}

/// The authority of all servers that are not about certificates.
pub(crate) fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(Authority::new)
}

/// What such a server answers with.
pub(crate) fn server_config() -> TlsConfig {
    static CONFIG: OnceLock<TlsConfig> = OnceLock::new();
    let config = CONFIG.get_or_init(|| authority().issue("localhost").config());
    config.clone()
}

/// A client that trusts `authority`, and shows a certificate if it has one.
fn client_config(authority: &Authority, shows: Option<&Identity>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(authority.0.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    match shows {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![identity.der()], key).unwrap()
        }
    }
}

fn trusting() -> ClientConfig {
    client_config(authority(), None)
}

/// Connects to a server of [`server_config`].
pub(crate) fn connect(addr: SocketAddr) -> Client {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    let config = CONFIG.get_or_init(|| Arc::new(trusting()));
    connect_with(addr, Arc::clone(config)).unwrap()
}

/// Connects, to the end of the handshake as the client sees it.
fn connect_with(addr: SocketAddr, config: impl Into<Arc<ClientConfig>>) -> std::io::Result<Client> {
    let mut tcp = Tcp::connect(addr).socket;
    let name = ServerName::try_from("localhost").unwrap();
    let mut connection = ClientConnection::new(config.into(), name).unwrap();
    while connection.is_handshaking() {
        connection.complete_io(&mut tcp)?;
    }
    Ok(Tcp { socket: StreamOwned::new(connection, tcp) })
}

/// A server with an echo at `/`, encrypted.
pub(crate) fn encrypted_echo(options: impl Into<UpgradeOptions>) -> Server {
    let options = options.into();
    let mut server = echo_server(options);
    server.tls(server_config());
    server
}

/// A server that answers `/` with the URL and what it knows of its client, encrypted.
fn mirror(config: TlsConfig) -> Server {
    let mut server = Server::new();
    server.get("/", |ctx: RequestContext| async move {
        let shown: Vec<_> = ctx.peer_certificates().map(<[u8]>::len).collect();
        Ok(format!("{} {} {shown:?}", ctx.request().url(), ctx.is_secure()))
    });
    server.tls(config);
    server
}

/// The body of the answer to a request for `/`, after which the server ends the stream.
fn body(client: &mut Client) -> std::io::Result<String> {
    use std::io::{Read, Write};
    let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    client.socket.write_all(request)?;
    let mut answer = String::new();
    client.socket.read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").unwrap_or_default().1.to_owned())
}
