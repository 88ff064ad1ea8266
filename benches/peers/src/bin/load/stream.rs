//! A connection's bytes, plain or through TLS.
//!
//! Sockets do not block. rustls keeps what it has to say until it is told to write, so one
//! connection is as much work here as it must be: no tasks, no timers, no certificates checked.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, HandshakeKind};
use rustls::{SignatureScheme, version};

use crate::args::Args;

/// Room for all that one [`Stream::read`] can find: a TLS record of 16 KiB, and what is behind it.
pub(crate) const READ: usize = 32 << 10;

/// Opens streams to one server.
#[derive(Debug)]
pub(crate) struct Connector {
    addresses: Vec<SocketAddr>,
    tls: Option<Arc<ClientConfig>>,
}

impl Connector {
    pub(crate) fn new(args: &Args) -> io::Result<Self> {
        let tls = args.tls.then(full_handshakes).transpose().map_err(broken)?;
        Ok(Self { addresses: args.addresses.clone(), tls: tls.map(Arc::new) })
    }

    /// Connects and sends `first`, behind the TLS handshake if there is one.
    pub(crate) fn open(&self, number: usize, first: &[u8]) -> io::Result<Stream> {
        let address = self.addresses[number % self.addresses.len()];
        // On loopback this returns at once: the kernel completes it, not the server.
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        let session = self.tls.as_ref().map(|config| {
            let name = ServerName::from(address.ip());
            ClientConnection::new(Arc::clone(config), name).map(Box::new)
        });
        let mut stream = Stream { socket, session: session.transpose().map_err(broken)? };
        stream.write(first)?;
        stream.socket.set_nonblocking(true)?;
        Ok(stream)
    }
}

/// TLS 1.3 as a browser speaks it that has never been here.
fn full_handshakes() -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// A connection to the server under test.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: TcpStream,
    session: Option<Box<ClientConnection>>,
}

impl Stream {
    /// What an epoll looks at.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Is this the handshake that is measured: a full one without detours, for HTTP/1.1?
    pub(crate) fn check_handshake(&self) -> io::Result<()> {
        let Some(session) = &self.session else { return Ok(()) };
        let (kind, protocol) = (session.handshake_kind(), session.alpn_protocol());
        if kind == Some(HandshakeKind::Full) && protocol == Some(b"http/1.1") {
            return Ok(());
        }
        Err(io::Error::other(format!("a TLS handshake of kind {kind:?}, ALPN {protocol:?}")))
    }

    /// Writes all of `bytes`, which the socket has room for: nothing here has much to say.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(session) = &mut self.session else { return self.socket.write_all(bytes) };
        session.writer().write_all(bytes)?;
        flush(session, &mut self.socket)
    }

    /// Reads once from the socket into a buffer of [`READ`] bytes; 0 is the end of the TCP stream.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(session) = &mut self.session else { return self.socket.read(buffer) };
        if session.read_tls(&mut self.socket)? == 0 {
            return Ok(0);
        }
        session.process_new_packets().map_err(broken)?;
        flush(session, &mut self.socket)?;
        match session.reader().read(buffer) {
            // A close_notify: the end of TLS, and that of the TCP stream follows.
            Ok(0) => Err(ErrorKind::WouldBlock.into()),
            outcome => outcome,
        }
    }
}

fn flush(session: &mut ClientConnection, socket: &mut TcpStream) -> io::Result<()> {
    while session.wants_write() {
        session.write_tls(socket)?;
    }
    Ok(())
}

fn broken(error: Error) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

/// Believes every server, without looking: a load has no secrets, and the client's arithmetic is
/// not what is measured.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
