//! TLS handshakes on accepted connections.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;

use futures::AsyncReadExt;
use futures::future::{Either, select};

use super::TlsConfig;
use crate::escaped::Escaped;
use crate::http;
use crate::http::{Addrs, HttpServer, Refusal};
use crate::records::record;
use crate::runtime::Clock;
use crate::stream::{Stream, TlsStream};

/// First byte of a TLS record that belongs to a handshake (RFC 8446 §5.1).
const HANDSHAKE: u8 = 22;

/// The TLS side of a server, which makes the handshakes.
#[derive(Debug)]
pub(in crate::server) struct Acceptor {
    config: TlsConfig,
}

/// The reason why a TLS handshake failed.
enum Failure {
    /// The stream failed.
    Lost(io::Error),
    /// The client did not complete the handshake in time.
    TimedOut,
    /// The client does not speak TLS.
    NotEncrypted(Stream),
    /// rustls refused the handshake. The client has been sent an alert, and should be able to read it.
    Refused(io::Error, Stream),
}

/// Serves one connection, from its first byte until it ends or is upgraded.
pub(in crate::server) async fn serve<State: Clone + Send + Sync + 'static>(
    acceptor: Arc<Acceptor>,
    front: Arc<HttpServer<State>>,
    stream: Stream,
    addrs: Addrs,
) {
    // Boxed, so that its memory is free while the connection lives.
    let lease = Box::new(front.lease());
    let accepting = Box::pin(acceptor.accept(stream, front.clock()));
    let ended = select(front.shutting_down(), poll_fn(|cx| lease.poll_ended(cx)));
    let outcome = match select(accepting, ended).await {
        Either::Left((outcome, _)) => outcome,
        // The server shuts down, or the place is needed for another connection.
        Either::Right(_) => return,
    };
    lease.set_busy();
    drop(lease);
    match outcome {
        Ok(stream) => front.serve(stream, addrs).await,
        Err(failure) => failure.say_goodbye(addrs, front.clock()).await,
    }
}

impl Acceptor {
    /// Creates an acceptor that uses `config`.
    ///
    /// # Errors
    ///
    /// If the handshake timeout is 0, which no client could meet.
    pub(in crate::server) fn new(config: TlsConfig) -> io::Result<Self> {
        if config.handshake_timeout.is_some_and(|timeout| timeout.is_zero()) {
            let error = "handshake_timeout is 0, so no client could connect";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        Ok(Self { config })
    }

    async fn accept(&self, stream: Stream, clock: &Clock) -> Result<Stream, Failure> {
        let outcome = clock.timeout(self.config.handshake_timeout, self.handshake(stream)).await;
        outcome.unwrap_or(Err(Failure::TimedOut))
    }

    async fn handshake(&self, mut stream: Stream) -> Result<Stream, Failure> {
        let mut first = [0];
        stream.read_exact(&mut first).await.map_err(Failure::Lost)?;
        if first != [HANDSHAKE] {
            return Err(Failure::NotEncrypted(stream));
        }
        let tls = TlsStream::server(self.config.current(), first, stream);
        let mut tls = Box::new(tls.map_err(Failure::Lost)?);
        match tls.handshake().await {
            Ok(()) => Ok(Stream::Tls(tls)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(Failure::Refused(error, Stream::Tls(tls)))
            }
            Err(error) => Err(Failure::Lost(error)),
        }
    }
}

impl Failure {
    async fn say_goodbye(self, addrs: Addrs, clock: &Clock) {
        match self {
            Self::Lost(error) => {
                let error = Escaped(error);
                record!(debug, "TLS handshake failed", peer = addrs.peer, error = error);
            }
            Self::TimedOut => {
                record!(debug, "TLS handshake took too long", peer = addrs.peer);
            }
            Self::NotEncrypted(stream) => {
                record!(debug, "client does not speak TLS", peer = addrs.peer);
                http::close(stream, Some(Refusal::NotEncrypted), clock).await;
            }
            Self::Refused(error, stream) => {
                let error = Escaped(error);
                record!(debug, "TLS handshake failed", peer = addrs.peer, error = error);
                http::close(stream, None, clock).await;
            }
        }
    }
}
