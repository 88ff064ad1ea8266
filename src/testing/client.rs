//! The client of a server in memory, which has no listening socket.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::channel::oneshot;

use super::cookies::Jar;
use super::in_memory::{InMemory, told};
use super::line::{End, Line};
use super::patience::{Caller, Patience};
use super::peer::Peer;
use super::request::TestRequest;
use super::socket::TestSocket;
use super::upgrade::TestUpgrade;
use crate::connection::Shared;
use crate::error::{Error, Result};
use crate::http::Addrs;
use crate::instance::{HandlerFailure, Metrics};
use crate::runtime::Clock;
use crate::server::{Server, ServerHandle, ShutdownOptions, ShutdownReport, no_executor};
use crate::stream::Stream;

/// The address that the server reports as its own.
const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 80);

/// A client of a [`Server`] that runs in memory, and a handle of that server.
///
/// The [chapter](super) explains its use. Clones are clients of the same server, and so are the results of
/// [`over`](Self::over), [`peer_addr`](Self::peer_addr), [`patience`](Self::patience) and [`cookies`](Self::cookies).
///
/// # Handlers that fail
///
/// A handler that panics, or returns an error that is the application's own, fails the test: with the next request or
/// connection, or when the last clone of the client is dropped. So a test cannot pass over a 500 or a close with 1011.
/// A test that is about the failure asks for it, with [`expect_failure`](Self::expect_failure) or
/// [`failures`](Self::failures).
///
/// Errors that refuse the client are no failures: a [`Reject`](crate::Reject) of 4xx or 503, a message that is not the
/// expected JSON, a handshake error. Neither are those of a connection that the client has ended or broken. A panic in a
/// middleware counts; a 5xx response of a middleware, and a panic in a task that a handler has spawned, do not.
#[derive(Clone)]
pub struct TestClient {
    server: Arc<InMemory>,
    peer_addr: Option<SocketAddr>,
    line: Option<Line>,
    pub(super) patience: Patience,
    /// `None` for a client that keeps no cookies.
    jar: Option<Jar>,
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
        Self {
            server: Arc::new(InMemory::new(server, Caller::here())),
            peer_addr: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            line: None,
            patience: Patience(Some(Duration::from_secs(5))),
            jar: Some(Jar::default()),
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

    /// Returns a client that waits at most `patience` for one event: an answer, a message of a [`TestSocket`], a frame of
    /// a [`Peer`], the end of the last connection. Default 5 s; `None` for no limit.
    ///
    /// So a test fails instead of hanging. The time is that of the system: [`advance`](Self::advance) does not move it.
    #[must_use]
    pub fn patience(&self, patience: impl Into<Option<Duration>>) -> Self {
        Self { patience: Patience(patience.into()), ..self.clone() }
    }

    /// Returns a client with a cookie jar of its own, which is empty: another visitor. With `false`, one that keeps no
    /// cookies. Default: a jar, which clones share.
    ///
    /// The jar keeps the cookies of all responses, of those to opening handshakes too, and adds them to later requests and
    /// handshakes, by the rules of RFC 6265 §5 for `Path`, `Max-Age` and `Expires`. Their time is that which
    /// [`advance`](Self::advance) moves. `Secure` cookies are sent, as browsers do for localhost, and `Domain`, `HttpOnly`
    /// and `SameSite` have no effect. A request that sets the header `Cookie` itself sends that alone.
    #[must_use]
    pub fn cookies(&self, is_kept: bool) -> Self {
        Self { jar: is_kept.then(Jar::default), ..self.clone() }
    }

    /// The value of the first cookie of this name in the jar, on whichever path.
    #[must_use]
    pub fn cookie(&self, name: &str) -> Option<String> {
        self.jar.as_ref()?.value(name, &self.clock())
    }

    /// Creates a `GET` request for `path`, which may have a query.
    #[track_caller]
    pub fn get(&self, path: &str) -> TestRequest {
        self.request("GET", path)
    }

    /// Creates a `HEAD` request.
    #[track_caller]
    pub fn head(&self, path: &str) -> TestRequest {
        self.request("HEAD", path)
    }

    /// Creates a `POST` request.
    #[track_caller]
    pub fn post(&self, path: &str) -> TestRequest {
        self.request("POST", path)
    }

    /// Creates a `PUT` request.
    #[track_caller]
    pub fn put(&self, path: &str) -> TestRequest {
        self.request("PUT", path)
    }

    /// Creates a `PATCH` request.
    #[track_caller]
    pub fn patch(&self, path: &str) -> TestRequest {
        self.request("PATCH", path)
    }

    /// Creates a `DELETE` request.
    #[track_caller]
    pub fn delete(&self, path: &str) -> TestRequest {
        self.request("DELETE", path)
    }

    /// Creates a request with any method.
    #[track_caller]
    pub fn request(&self, method: &str, path: &str) -> TestRequest {
        TestRequest::new(self.clone(), method, path)
    }

    /// Creates an opening handshake for `path`, which may have a query. Use it for a handshake that is refused,
    /// or one with headers, subprotocols or compression.
    #[track_caller]
    pub fn websocket(&self, path: &str) -> TestUpgrade {
        TestUpgrade::new(self.clone(), path)
    }

    /// Opens a WebSocket connection.
    ///
    /// # Errors
    ///
    /// Those of [`TestUpgrade::connect`].
    ///
    /// # Panics
    ///
    /// If a handler has failed before: see [above](Self#handlers-that-fail).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the unfinished connection.
    #[track_caller]
    pub fn connect(&self, path: &str) -> impl Future<Output = Result<TestSocket>> + Send + use<> {
        self.websocket(path).connect()
    }

    /// Opens a WebSocket connection on which the test sends and receives bytes and frames.
    ///
    /// # Errors
    ///
    /// Those of [`TestUpgrade::connect`].
    ///
    /// # Panics
    ///
    /// As [`connect`](Self::connect).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the unfinished connection.
    #[track_caller]
    pub fn peer(&self, path: &str) -> impl Future<Output = Result<Peer>> + Send + use<> {
        self.websocket(path).peer()
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
    ///
    /// # Panics
    ///
    /// As [`connect`](Self::connect).
    #[track_caller]
    pub fn open(&self) -> Result<Peer> {
        let (end, line, _) = self.dial(Caller::here())?;
        Ok(Peer::new(Stream::boxed(end), line, self.patience))
    }

    /// Opens a connection. Returns its end, its line, and the fate of its task.
    pub(super) fn dial(&self, caller: Caller) -> Result<(End, Line, Fate)> {
        let failures = self.server.instance().failures.take();
        if !failures.is_empty() {
            caller.fail(told(&failures));
        }
        if self.server.handle.is_shutting_down() {
            let error = "the server has been shut down";
            return Err(io::Error::new(ErrorKind::ConnectionRefused, error).into());
        }
        let line = self.line.clone().unwrap_or_default();
        let (client, server) = line.connect(&self.server.traffic);
        let (tell, told) = oneshot::channel();
        self.server.serve(server, self.addrs(), tell);
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
            peer.set_port(self.server.next_port());
        }
        Addrs { peer: Some(peer), local: Some(LOCAL) }
    }

    /// Turns the time of the server and of its clients' sockets forward by `by`, and returns when all that has come due has
    /// been done: the server is at rest.
    ///
    /// What comes due comes in order, one deadline after another, with time for everyone to react. An hour has its 144
    /// heartbeats, and the sockets of the test answer them, if nothing else uses them meanwhile, and if no more than
    /// [`read_ahead_size`](crate::WebSocketOptions::read_ahead_size) waits in them to be received. A [`Peer`] answers
    /// nothing: it is given up in time.
    ///
    /// This moves the timers of this crate: heartbeats, [`expire_at`](crate::WebSocket::expire_at), `idle_timeout`,
    /// `max_lifetime`, `message_timeout`, `send_timeout`, `close_timeout` and rate limits of connections; the deadlines for
    /// handshakes, heads, bodies and idle connections of HTTP; the grace of a shutdown; the age of cookies. It does not move
    ///
    /// - what the application waits for: `tokio::time`, `async_std::task::sleep`, `smol::Timer`;
    /// - what it reads: `Instant::now`, `SystemTime::now`. An instant for `expire_at` is as far away as it is for these;
    /// - a server or a connection with a [`ManualClock`](super::ManualClock) of its own, which follows that;
    /// - clients that handlers open, and the pauses of a backplane;
    /// - the [patience](Self::patience).
    ///
    /// Between two calls the time goes on as that of the system.
    ///
    /// A handler that waits for something outside of the server counts as at rest: a database, a thread, another runtime.
    /// So does, without workers, a task that a handler has spawned. A shutdown sets its timers when it comes to that, maybe
    /// after this.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidewire::testing::TestClient;
    /// use tidewire::{RequestContext, Server, WebSocketOptions};
    ///
    /// # async_std::task::block_on(async {
    /// let mut server = Server::new();
    /// server.get("/ws", |mut ctx: RequestContext| async move {
    ///     let options = WebSocketOptions::default().idle_timeout(Duration::from_secs(3600));
    ///     let mut ws = ctx.upgrade_to_websocket(options).await?;
    ///     while ws.recv().await?.is_some() {}
    ///     Ok(())
    /// });
    /// let client = TestClient::new(&server);
    /// let mut ws = client.connect("/ws").await?;
    /// client.advance(Duration::from_secs(3599)).await;
    /// ws.expect_silence().await;
    /// client.advance(Duration::from_secs(1)).await;
    /// assert_eq!(ws.expect_close(1001).await.reason, "idle timeout");
    /// # Ok::<(), tidewire::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Panics
    ///
    /// If the server does not come to rest within the [patience](Self::patience) after one of the deadlines.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the time where it is, between now and then.
    #[track_caller]
    pub fn advance(&self, by: Duration) -> impl Future<Output = ()> + Send {
        self.advance_for(Caller::here(), by)
    }

    /// Takes the handlers that have failed and were not asked about yet, oldest first, once the server is at rest. They do
    /// not fail the test then.
    ///
    /// # Panics
    ///
    /// If the server does not come to rest within the [patience](Self::patience).
    #[track_caller]
    pub fn failures(&self) -> impl Future<Output = Vec<HandlerFailure>> + Send {
        let caller = Caller::here();
        async move {
            self.at_rest(caller).await;
            self.server.instance().failures.take()
        }
    }

    /// Waits for a handler to fail, and takes the first failure whose [text](HandlerFailure#impl-Display-for-HandlerFailure)
    /// contains `part`: `GET /lots/:id failed: the database is gone`. It does not fail the test then.
    ///
    /// # Panics
    ///
    /// If there is none within the [patience](Self::patience).
    #[track_caller]
    pub fn expect_failure(&self, part: &str) -> impl Future<Output = HandlerFailure> + Send {
        let caller = Caller::here();
        async move {
            let failing = self.server.instance().failures.next_like(part);
            self.patiently(caller, format!("no handler has failed with {part:?}"), failing).await
        }
    }

    /// Handlers that fail do not fail the test from here on, for this client and all of the same server. Then
    /// [`failures`](Self::failures) is empty.
    #[must_use]
    pub fn allow_failures(self) -> Self {
        self.server.instance().failures.watch(false);
        self
    }

    pub(super) async fn advance_for(&self, caller: Caller, by: Duration) {
        self.server.advance(by, || self.at_rest(caller)).await;
    }

    /// Waits until the server is at rest, or fails the test.
    pub(super) async fn at_rest(&self, caller: Caller) {
        self.patiently(caller, "the server did not come to rest", self.server.at_rest()).await;
    }

    /// Waits for `future`, or fails the test: the message is `what` and the time.
    pub(super) async fn patiently<T>(
        &self,
        caller: Caller,
        what: impl fmt::Display,
        future: impl Future<Output = T>,
    ) -> T {
        let patience = self.patience.0;
        let outcome = Clock::default().timeout(patience, Box::pin(future)).await;
        outcome.unwrap_or_else(|| {
            let patience = patience.unwrap_or_default();
            caller.fail(format!("{what} within {patience:?}\n{}", self.report()))
        })
    }

    /// What the server did meanwhile, for a test that fails.
    pub(super) fn report(&self) -> String {
        let failures = self.server.instance().failures.take();
        let Metrics { open_http, open_websockets, .. } = self.metrics();
        let failed = match &*failures {
            [] => "no handler has failed".to_owned(),
            failures => {
                let lines: Vec<_> = failures.iter().map(|it| format!("\n    {it}")).collect();
                format!("these handlers have failed:{}", lines.concat())
            }
        };
        format!(
            "  the server has {open_http} connections of HTTP and {open_websockets} of WebSocket; {failed}"
        )
    }

    /// The clock of the server and of the client's sockets.
    pub(super) fn clock(&self) -> Clock {
        self.server.clock()
    }

    /// The number of reads and writes so far.
    pub(super) fn traffic(&self) -> u64 {
        self.server.traffic.load(Ordering::SeqCst)
    }

    /// Has a socket do its part while the server comes to rest.
    pub(super) fn attend(&self, socket: &Arc<Shared>) {
        self.server.attend(socket);
    }

    /// The header `Cookie` for a request.
    pub(super) fn cookies_for(&self, path: &str) -> Option<String> {
        self.jar.as_ref()?.header(path, &self.clock())
    }

    /// Keeps the cookies of a response to a request for `path`.
    pub(super) fn keep_cookies<'a>(
        &self,
        path: &str,
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) {
        if let Some(jar) = &self.jar {
            jar.keep(path, headers, &self.clock());
        }
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
    /// A client that should answer the server's close frame has to run meanwhile: a [`TestSocket`] needs a call of
    /// [`recv`](TestSocket::recv), and a [`Peer`] an answer by the test. A client that was dropped before need not
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
