//! The client of a server in memory, which has no listening socket.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use futures::channel::oneshot;

use super::line::{End, Line};
use super::patience::{Caller, Patience};
use super::peer::Peer;
use super::request::TestRequest;
use super::upgrade::TestUpgrade;
use crate::connection::WebSocket;
use crate::error::{Error, Result};
use crate::http::Addrs;
use crate::instance::Metrics;
use crate::server::{
    BoundServer, Server, ServerHandle, ShutdownOptions, ShutdownReport, no_executor,
};
use crate::stream::Stream;

/// The address that the server reports as its own.
const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 80);

/// The first of the ports that systems give to clients.
const FIRST_PORT: u16 = 49_152;

/// A client of a [`Server`] that runs in memory, and a handle of that server.
///
/// The [chapter](super) explains its use. Clones are clients of the same server, and so are the results of
/// [`over`](Self::over), [`peer_addr`](Self::peer_addr) and [`patience`](Self::patience).
#[derive(Clone)]
pub struct TestClient {
    server: Arc<InMemory>,
    peer_addr: Option<SocketAddr>,
    line: Option<Line>,
    pub(super) patience: Patience,
}

/// A server in memory, with any type of state.
struct InMemory {
    serve: Box<dyn Fn(End, Addrs, oneshot::Sender<()>) + Send + Sync>,
    handle: ServerHandle,
    /// The number of ports given to connections.
    ports: AtomicU16,
}

impl TestClient {
    /// Starts `server` in memory, with its routes, state, middleware, options and connection limits.
    ///
    /// It is independent of the server that `server` may be bound to later. While the client lives, no more
    /// routes can be added to `server`. With the feature `tokio`, handlers run in the context of the tokio runtime that
    /// this is called in, as with [`Server::bind`].
    ///
    /// # Panics
    ///
    /// If [`Server::bind_to`] would fail: a value of the options is out of its range, or a connection
    /// limit is 0.
    #[track_caller]
    #[must_use]
    pub fn new<State>(server: &Server<State>) -> Self
    where
        State: Clone + Send + Sync + 'static,
    {
        let caller = Caller::here();
        let bound = server.unlisted().unwrap_or_else(|error| caller.fail(error));
        let (handle, bound) = (bound.handle(), Arc::new(bound));
        let serve = Box::new(move |end: End, addrs, served| {
            BoundServer::take_unlisted(&bound, |held| Stream::boxed(end.keep(held)), addrs, served);
        });
        Self {
            server: Arc::new(InMemory { serve, handle, ports: AtomicU16::new(0) }),
            peer_addr: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            line: None,
            patience: Patience(Some(Duration::from_secs(5))),
        }
    }

    /// Returns a client whose connections come from `addr`. Default: 127.0.0.1, with another port for each
    /// connection.
    ///
    /// Port 0 stands for another port for each connection. `None` is a client without an address, as on a Unix
    /// socket.
    #[must_use]
    pub fn peer_addr(&self, addr: impl Into<Option<SocketAddr>>) -> Self {
        Self { peer_addr: addr.into(), ..self.clone() }
    }

    /// Returns a client whose connections go over `line`, with the faults of that line. Default: each connection
    /// has a line of its own without faults.
    #[must_use]
    pub fn over(&self, line: &Line) -> Self {
        Self { line: Some(line.clone()), ..self.clone() }
    }

    /// Returns a client that waits at most `patience` for one event: an answer, a frame of a [`Peer`], the end of
    /// the last connection. Default 5 s; `None` for no limit.
    ///
    /// So a test fails instead of hanging. The limit does not hold for calls on a [`WebSocket`].
    #[must_use]
    pub fn patience(&self, patience: impl Into<Option<Duration>>) -> Self {
        Self { patience: Patience(patience.into()), ..self.clone() }
    }

    /// Creates a `GET` request for `path`, which may have a query.
    pub fn get(&self, path: &str) -> TestRequest {
        self.request("GET", path)
    }

    /// Creates a `HEAD` request.
    pub fn head(&self, path: &str) -> TestRequest {
        self.request("HEAD", path)
    }

    /// Creates a `POST` request.
    pub fn post(&self, path: &str) -> TestRequest {
        self.request("POST", path)
    }

    /// Creates a `PUT` request.
    pub fn put(&self, path: &str) -> TestRequest {
        self.request("PUT", path)
    }

    /// Creates a `PATCH` request.
    pub fn patch(&self, path: &str) -> TestRequest {
        self.request("PATCH", path)
    }

    /// Creates a `DELETE` request.
    pub fn delete(&self, path: &str) -> TestRequest {
        self.request("DELETE", path)
    }

    /// Creates a request with any method.
    pub fn request(&self, method: &str, path: &str) -> TestRequest {
        TestRequest::new(self.clone(), method, path)
    }

    /// Creates an opening handshake for `path`, which may have a query. Use it for a handshake that is refused,
    /// or one with headers, subprotocols or compression.
    pub fn websocket(&self, path: &str) -> TestUpgrade {
        TestUpgrade::new(self.clone(), path)
    }

    /// Opens a WebSocket connection.
    ///
    /// # Errors
    ///
    /// Those of [`TestUpgrade::connect`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the unfinished connection.
    pub async fn connect(&self, path: &str) -> Result<WebSocket> {
        self.websocket(path).connect().await
    }

    /// Opens a WebSocket connection on which the test sends and receives bytes and frames.
    ///
    /// # Errors
    ///
    /// Those of [`TestUpgrade::connect`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the unfinished connection.
    pub async fn peer(&self, path: &str) -> Result<Peer> {
        self.websocket(path).peer().await
    }

    /// Opens a connection and sends nothing. Use it for requests that no client should send, or for a client of
    /// another crate.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io) of the kind [`ConnectionRefused`](ErrorKind::ConnectionRefused) if the
    /// server has been shut down, or if no executor runs it: the executor of
    /// [`set_spawner`](crate::executor::set_spawner), or the tokio runtime of a server without
    /// [workers](crate::server::ServerOptions::workers), may have been that of another test.
    pub fn open(&self) -> Result<Peer> {
        let (end, line, _) = self.dial()?;
        Ok(Peer::new(Stream::boxed(end), line, self.patience))
    }

    /// Opens a connection. Returns its end, its line, and the fate of its task.
    pub(super) fn dial(&self) -> Result<(End, Line, Fate)> {
        if self.server.handle.is_shutting_down() {
            let error = "the server has been shut down";
            return Err(io::Error::new(ErrorKind::ConnectionRefused, error).into());
        }
        let line = self.line.clone().unwrap_or_default();
        let (client, server) = line.connect();
        let (tell, told) = oneshot::channel();
        (self.server.serve)(server, self.addrs(), tell);
        let mut fate = Fate(told);
        if fate.was_dropped() {
            let error = format!("{}: was its runtime that of another test?", no_executor());
            return Err(io::Error::new(ErrorKind::ConnectionRefused, error).into());
        }
        Ok((client, line, fate))
    }

    /// Replaces an error by one that names its reason, if that is an executor that is gone.
    pub(super) fn explain(&self, error: Error, mut fate: Fate) -> Error {
        if self.server.handle.is_shutting_down() || !fate.was_dropped() {
            return error;
        }
        let error = format!(
            "{} any more: was its runtime that of another test? ({error:#})",
            no_executor()
        );
        io::Error::new(ErrorKind::ConnectionAborted, error).into()
    }

    fn addrs(&self) -> Addrs {
        let Some(mut peer) = self.peer_addr else { return Addrs { peer: None, local: None } };
        if peer.port() == 0 {
            let number = self.server.ports.fetch_add(1, Ordering::Relaxed);
            peer.set_port(FIRST_PORT | number);
        }
        Addrs { peer: Some(peer), local: Some(LOCAL) }
    }

    /// Returns a snapshot of the server's counters.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.server.handle.metrics()
    }

    /// Returns a handle of the server, for code that needs one. The server has no listening address.
    #[must_use]
    pub fn handle(&self) -> ServerHandle {
        self.server.handle.clone()
    }

    /// Waits until the server is idle: no connection is open, and each handler has returned. Then all permits,
    /// rooms and places are free.
    ///
    /// # Panics
    ///
    /// If that takes longer than the [patience](Self::patience).
    #[track_caller]
    pub fn idle(&self) -> impl Future<Output = ()> + Send {
        self.down_to(0)
    }

    /// Waits until at most this many connections are left. A connection counts until its stream is closed and
    /// its handler has returned.
    ///
    /// # Panics
    ///
    /// If that takes longer than the [patience](Self::patience).
    #[track_caller]
    pub fn down_to(&self, connections: usize) -> impl Future<Output = ()> + Send {
        let caller = Caller::here();
        async move {
            let tasks = &self.server.handle.instance().tasks;
            let ended = async {
                tasks.down_to(connections).await;
                Ok(())
            };
            if let Err(error) = self.patience.wait("the server did not get that far", ended).await {
                let Metrics { open_http, open_websockets, .. } = self.metrics();
                let left = tasks.len();
                caller.fail(format!(
                    "{left} connections or handlers are left, and not {connections}: {error:#}\n  \
                     {open_http} speak HTTP, and {open_websockets} WebSocket"
                ));
            }
        }
    }

    /// Shuts the server down with the default options, and returns a report.
    ///
    /// A client that should answer the server's close frame has to run meanwhile: a [`WebSocket`] needs a call of
    /// [`recv`](WebSocket::recv), and a [`Peer`] an answer by the test. A client that was dropped before need not
    /// answer.
    ///
    /// The report also counts a connection that the test has closed before, if its handler has not returned yet.
    /// [`down_to`](Self::down_to) waits for that.
    ///
    /// # Cancel safety
    ///
    /// Safe: the shutdown begins with the first poll, and goes on in a task of its own.
    pub async fn shutdown(&self) -> ShutdownReport {
        self.shutdown_with(ShutdownOptions::default()).await
    }

    /// Shuts the server down with these options, and returns a report. See [`shutdown`](Self::shutdown).
    ///
    /// # Cancel safety
    ///
    /// Safe: the shutdown begins with the first poll, and goes on in a task of its own.
    pub async fn shutdown_with(&self, options: ShutdownOptions) -> ShutdownReport {
        self.server.handle.shutdown(options).await
    }
}

/// The fate of the server's task of a connection.
pub(super) struct Fate(oneshot::Receiver<()>);

impl Fate {
    /// Whether the task was dropped before its end.
    fn was_dropped(&mut self) -> bool {
        self.0.try_recv().is_err()
    }
}

impl fmt::Debug for TestClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestClient")
            .field("peer_addr", &self.peer_addr)
            .field("line", &self.line)
            .field("patience", &self.patience.0)
            .finish_non_exhaustive()
    }
}
