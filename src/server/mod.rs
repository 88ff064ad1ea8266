//! The server: routes and handlers, the sockets that it listens on, its counters, and its end.

// Routing, middleware and state are tide's. The way of a request to them is ours: `listeners` is the set of
// sockets, `listener` is one of them, `accept` takes connections from each, `tls` decrypts them, and
// `http/` turns them into requests. `route` is a path that gets its endpoints, `bound` a server that listens,
// `handle` the handle for other tasks, and `shutdown` the end of a server.

mod accept;
mod bound;
mod capacity;
mod handle;
mod listener;
mod listeners;
mod route;
mod shutdown;
#[cfg(feature = "tls")]
pub(crate) mod tls;

use std::{fmt, io};

pub use self::bound::BoundServer;
#[cfg(feature = "testing")]
pub(crate) use self::bound::no_executor;
pub use self::handle::ServerHandle;
pub use self::listener::LocalAddr;
pub use self::listeners::Listeners;
pub use self::route::Route;
#[cfg(feature = "tls")]
pub(crate) use self::tls::TlsConfig;
use crate::admission::ConnectionLimit;
use crate::context::RequestContext;
use crate::error::Result;
pub use crate::files::Files;
use crate::handler::endpoint_of;
pub use crate::handler::{Handler, IntoResponse, Json, endpoint, fallible};
use crate::http::App;
pub use crate::http::ServerOptions;
pub use crate::instance::{Metrics, ShutdownOptions, ShutdownReport, WorkerMetrics};
use crate::reject::{HandlerError, HandlerResult, Reject};
#[cfg(feature = "testing")]
use crate::runtime::Clock;
pub use crate::runtime::Signals;
use crate::runtime::ToSocketAddrs;

/// A server for HTTP and WebSocket routes behind one port.
///
/// A handler is an `async` closure that takes a [`RequestContext`]. It decides
/// whether to answer with HTTP or to go on as a WebSocket connection.
///
/// ```no_run
/// use tidewire::{RequestContext, Server};
///
/// # async fn run() -> tidewire::Result<()> {
/// let mut server = Server::new();
/// server.get("/ping", |_ctx: RequestContext| async { Ok("pong") });
/// server.at("/assets").serve_dir("public/")?;
/// server.listen_until("127.0.0.1:8080", tidewire::signals()).await
/// # }
/// ```
///
/// [`serve_dir`](Route::serve_dir) sends the files of a folder; [`Files`] has its options and its rules.
pub struct Server<State = ()> {
    app: App<State>,
    options: ServerOptions,
    limits: Vec<ConnectionLimit>,
    #[cfg(feature = "tls")]
    tls: Option<TlsConfig>,
}

impl Server {
    /// Creates a server without routes and without shared state.
    #[must_use]
    pub fn new() -> Self {
        Self::with_state(())
    }
}

impl<State: Clone + Send + Sync + 'static> Server<State> {
    /// Creates a server without routes, whose handlers share `state`.
    ///
    /// Each request gets a clone of it, so put large values into an [`Arc`](std::sync::Arc).
    #[must_use]
    pub fn with_state(state: State) -> Self {
        Self::of(App::with_state(state))
    }

    fn of(app: App<State>) -> Self {
        Self {
            app,
            options: ServerOptions::default(),
            limits: Vec::new(),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// Answers `GET path`, and `HEAD path` without the body.
    ///
    /// The path may have parameters (`/users/:id`) and a wildcard (`/files/*path`). `OPTIONS` is answered
    /// with 204 and `Allow` (RFC 9110 §9.3.7), and any other method with 405 and `Allow` (§15.5.6), unless
    /// they have handlers of their own.
    ///
    /// # Panics
    ///
    /// If the path has more than one wildcard: see [`at`](Self::at).
    #[track_caller]
    pub fn get(&mut self, path: &str, handler: impl Handler<State>) -> &mut Self {
        self.at(path).get(endpoint_of(&format!("GET {path}"), handler));
        self
    }

    /// Answers `POST path`.
    ///
    /// # Panics
    ///
    /// If the path has more than one wildcard: see [`at`](Self::at).
    #[track_caller]
    pub fn post(&mut self, path: &str, handler: impl Handler<State>) -> &mut Self {
        self.at(path).post(endpoint_of(&format!("POST {path}"), handler));
        self
    }

    /// Answers `PUT path`.
    ///
    /// # Panics
    ///
    /// If the path has more than one wildcard: see [`at`](Self::at).
    #[track_caller]
    pub fn put(&mut self, path: &str, handler: impl Handler<State>) -> &mut Self {
        self.at(path).put(endpoint_of(&format!("PUT {path}"), handler));
        self
    }

    /// Answers `PATCH path`.
    ///
    /// # Panics
    ///
    /// If the path has more than one wildcard: see [`at`](Self::at).
    #[track_caller]
    pub fn patch(&mut self, path: &str, handler: impl Handler<State>) -> &mut Self {
        self.at(path).patch(endpoint_of(&format!("PATCH {path}"), handler));
        self
    }

    /// Answers `DELETE path`.
    ///
    /// # Panics
    ///
    /// If the path has more than one wildcard: see [`at`](Self::at).
    #[track_caller]
    pub fn delete(&mut self, path: &str, handler: impl Handler<State>) -> &mut Self {
        self.at(path).delete(endpoint_of(&format!("DELETE {path}"), handler));
        self
    }

    /// Returns the route of a path, for all that the methods above cannot add: [static files](Route::serve_dir),
    /// tide endpoints, other methods, middleware of its own.
    ///
    /// [`endpoint`] turns a handler of this crate into a tide endpoint.
    ///
    /// # Panics
    ///
    /// If the path has more than one wildcard, as in `/a/*b/*c`: a request with many slashes could then
    /// keep the router busy for seconds. `serve_dir`, `files` and `nest` add a wildcard to their path.
    #[track_caller]
    pub fn at(&mut self, path: &str) -> Route<'_, State> {
        Route::new(self.app.at(path))
    }

    /// Runs `middleware` around every request that arrives after this call.
    pub fn with(&mut self, middleware: impl tide::Middleware<State>) -> &mut Self {
        self.app.with(middleware);
        self
    }

    /// Serves all paths below `path` with the routes, middleware and state of `server`, which sees the rest
    /// of the path. Its [`ServerOptions`] and connection limits are not used.
    ///
    /// Routes of this server for one method take precedence: with `get("/*", …)` here, no `GET` reaches the
    /// nested server.
    ///
    /// # Panics
    ///
    /// If the path has a wildcard: nesting adds one, and [`at`](Self::at) allows one only.
    #[track_caller]
    pub fn nest<Inner>(&mut self, path: &str, server: Server<Inner>) -> &mut Self
    where
        Inner: Clone + Send + Sync + 'static,
    {
        self.at(path).nest(server);
        self
    }

    /// Says what the client is told of the application's own errors, in place of what was said before.
    ///
    /// `judge` gets the error of every handler of this server, whose route may have been added before or after, unless
    /// it has an answer already: see [`HandlerError`]. `None` leaves it at 500, or 1011. It is called in the
    /// handler's task and must not block. One that panics is a handler that panics. An error of which it makes a 4xx, or a
    /// close code other than 1011, is no failure in [the log](crate::guide::logs), but a refusal at level debug.
    ///
    /// ```
    /// use tidewire::{Reject, Server};
    /// # let mut server = Server::new();
    /// server.on_error(|error| {
    ///     let missing = error.find::<std::io::Error>()?.kind() == std::io::ErrorKind::NotFound;
    ///     missing.then(|| Reject::status(404, "there is no such thing"))
    /// });
    /// ```
    pub fn on_error(
        &mut self,
        judge: impl Fn(&HandlerError) -> Option<Reject> + Send + Sync + 'static,
    ) -> &mut Self {
        self.app.judge().set(judge);
        self
    }

    /// Writes an access log: a record of level info and target `tidewire::access` for each request that is answered, and one
    /// for each WebSocket connection that has ended.
    ///
    /// The message is `request` or `WebSocket`, and the rest stands in fields:
    ///
    /// | field | of a request | of a WebSocket connection |
    /// | --- | --- | --- |
    /// | `method`, `path` | without the query | the same; a path is cut after 200 bytes |
    /// | `status` | that of the response; 101 for an upgrade | – |
    /// | `code` | – | the close code, as [`CloseInfo::reported_code`](crate::CloseInfo::reported_code) |
    /// | `bytes` | of the body, as far as they were sent | – |
    /// | `bytes_in`, `bytes_out` | – | on the wire, compressed and with headers |
    /// | `messages_in`, `messages_out` | – | as in [`ConnectionStats`](crate::websocket::ConnectionStats) |
    /// | `elapsed_ms` | from the head of the request to the last byte of the response | from the 101 on |
    /// | `peer` | the address; none on a Unix socket | the same |
    /// | `connection` | its number, as of [`WebSocket::id`](crate::WebSocket::id) | the same |
    ///
    /// No record has a query, a header or a cookie. It is no middleware of tide, since requests would take the longer way
    /// through tide then. A request that is no HTTP, or whose client does not wait for the answer, has no record here;
    /// those of level debug tell of it.
    ///
    /// ```
    /// let mut server = tidewire::Server::new();
    /// server.access_log();
    /// ```
    pub fn access_log(&mut self) -> &mut Self {
        self.app.log_access();
        self
    }

    /// Sets the options of the HTTP side, in place of those set before.
    pub fn options(&mut self, options: ServerOptions) -> &mut Self {
        self.options = options;
        self
    }

    /// Encrypts all connections with TLS: `https` and `wss`.
    ///
    /// Keep a clone of `config` to [`reload`](TlsConfig::reload) its certificate. A client that sends
    /// unencrypted HTTP is answered with a 400 that says so.
    #[cfg(feature = "tls")]
    pub fn tls(&mut self, config: TlsConfig) -> &mut Self {
        self.tls = Some(config);
        self
    }

    /// Whether the server encrypts its connections with TLS.
    #[must_use]
    pub fn is_secure(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        false
    }

    /// Counts every WebSocket connection of this server towards `limit`, besides the limits of its route.
    ///
    /// If several limits are added, a connection needs a permit of each. A limit of 0 is an error when the
    /// server is bound. With a limit [for each key](ConnectionLimit::per_key), every handler that upgrades has to say the
    /// key.
    pub fn connection_limit(&mut self, limit: &ConnectionLimit) -> &mut Self {
        self.limits.push(limit.clone());
        self
    }

    /// The state that the handlers share.
    #[must_use]
    pub fn state(&self) -> &State {
        self.app.state()
    }

    /// Answers one request without a socket, for tests of routes and middleware.
    ///
    /// # Errors
    ///
    /// None: the error of a handler becomes a response. The return type is tide's.
    pub async fn respond(
        &self,
        request: impl Into<tide::http::Request>,
    ) -> tide::Result<tide::http::Response> {
        Ok(self.app.respond(request.into(), false).await)
    }

    /// Starts to listen on `addr`: `"127.0.0.1:8080"`, `("localhost", 8080)`, a
    /// [`SocketAddr`](std::net::SocketAddr).
    ///
    /// Port 0 takes any free port, which [`BoundServer::local_addr`] returns. Clients can connect from now on,
    /// and are served once [`BoundServer::serve`] runs. [`bind_to`](Self::bind_to) listens on more than one
    /// address.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io) if the address cannot be found or is taken (the message names it),
    /// if a value of [`ServerOptions`] is out of its range, if a connection limit is 0, if `TIDEWIRE_WORKERS` is
    /// no number, or if the threads of the [workers](ServerOptions::workers) cannot be started.
    pub async fn bind(self, addr: impl ToSocketAddrs<Iter: Send>) -> Result<BoundServer<State>> {
        self.bind_to(Listeners::new().tcp(addr).await?)
    }

    /// Binds the server to all of `listeners`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io) if there is no listener, if a value of [`ServerOptions`]
    /// or of the TLS configuration is out of its range, if `TIDEWIRE_WORKERS` is no number, or if the threads of the
    /// [workers](ServerOptions::workers) cannot be started.
    pub fn bind_to(self, listeners: Listeners) -> Result<BoundServer<State>> {
        let workers = self.check()?;
        let listeners = listeners.into_inner()?;
        let bound = BoundServer::new(self.app, self.options, self.limits, listeners, workers)?;
        #[cfg(feature = "tls")]
        let bound = bound.with_tls(self.tls)?;
        Ok(bound)
    }

    /// The same server as of [`bind_to`](Self::bind_to), but without listeners and without TLS.
    #[cfg(feature = "testing")]
    pub(crate) fn unlisted(&self, clock: &Clock) -> Result<BoundServer<State>> {
        // One is enough for a test, whose figures are the same on each machine then.
        let workers = self.check()?.min(1);
        let (app, limits) = (self.app.clone(), self.limits.clone());
        let mut options = self.options.clone();
        options.clock.inherit(clock);
        BoundServer::new(app, options, limits, Vec::new(), workers)
    }

    /// Checks the options, and returns the number of workers.
    fn check(&self) -> Result<usize> {
        self.options.check()?;
        if self.limits.iter().any(ConnectionLimit::is_zero) {
            let error = "connection_limit is 0, so no connection could be opened";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error).into());
        }
        Ok(self.options.worker_count()?)
    }

    /// Listens on `addr` and serves: [`bind`](Self::bind) and [`BoundServer::serve`] in one.
    ///
    /// # Errors
    ///
    /// Those of [`bind`](Self::bind).
    pub async fn listen(self, addr: impl ToSocketAddrs<Iter: Send>) -> Result<()> {
        self.bind(addr).await?.serve().await
    }

    /// Listens on `addr` and serves until `end` resolves, then shuts down in order: [`bind`](Self::bind) and
    /// [`BoundServer::serve_until`] in one.
    ///
    /// ```no_run
    /// # async fn run(server: tidewire::Server) -> tidewire::Result<()> {
    /// // Until SIGINT or SIGTERM.
    /// server.listen_until("127.0.0.1:8080", tidewire::signals()).await
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`bind`](Self::bind).
    ///
    /// # Cancel safety
    ///
    /// As [`BoundServer::serve_until`].
    pub async fn listen_until(
        self,
        addr: impl ToSocketAddrs<Iter: Send>,
        end: impl Future<Output: Into<ShutdownOptions>>,
    ) -> Result<()> {
        self.bind(addr).await?.serve_until(end).await?;
        Ok(())
    }

    /// Listens on `addr` and serves in the background. Returns when clients can connect.
    ///
    /// The server runs until it is [shut down](ServerHandle::shutdown), also if the handle is dropped.
    ///
    /// ```
    /// use tidewire::server::ShutdownOptions;
    /// use tidewire::{RequestContext, Server};
    ///
    /// # async_std::task::block_on(async {
    /// let mut server = Server::new();
    /// server.get("/ping", |_ctx: RequestContext| async { Ok("pong") });
    /// let handle = server.start("127.0.0.1:0").await?;
    /// println!("serving on http://{}", handle.local_addr());
    /// handle.shutdown(ShutdownOptions::default()).await;
    /// # Ok::<(), tidewire::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`bind`](Self::bind), and [`Error::Io`](crate::Error::Io) if the executor that
    /// [`set_spawner`](crate::executor::set_spawner) has set does not run the server.
    pub async fn start(self, addr: impl ToSocketAddrs<Iter: Send>) -> Result<ServerHandle> {
        self.bind(addr).await?.start()
    }
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

/// Makes a server of an app of tide. The app's routes are not known: see [`Route::nest`].
impl<State: Clone + Send + Sync + 'static> From<tide::Server<State>> for Server<State> {
    fn from(app: tide::Server<State>) -> Self {
        Self::of(app.into())
    }
}

impl<State> fmt::Debug for Server<State> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("options", &self.options).finish_non_exhaustive()
    }
}

/// A handler that answers with the [`Metrics`] of its server, in the text format of
/// Prometheus. It answers 404 in an app that listens through tide itself.
///
/// ```
/// # use tidewire::Server;
/// let mut server = Server::new();
/// server.get("/metrics", tidewire::server::metrics);
/// ```
///
/// # Errors
///
/// None. The return type is that of handlers.
#[expect(clippy::unused_async, reason = "a handler is `async`")]
pub async fn metrics<State>(ctx: RequestContext<State>) -> HandlerResult<tide::Response>
where
    State: Clone + Send + Sync + 'static,
{
    let Some(metrics) = ctx.metrics() else {
        return Ok(tide::Response::new(tide::StatusCode::NotFound));
    };
    let response = tide::Response::builder(tide::StatusCode::Ok)
        .header("content-type", "text/plain; version=0.0.4; charset=utf-8")
        .body(metrics.to_prometheus());
    Ok(response.build())
}
