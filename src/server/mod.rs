//! The server: routes, and the sockets it listens on.
//!
//! Routing, middleware and state are tide's. What is ours is where requests come from: `listeners`
//! says on which sockets, `listener` is one of them, `accept` takes connections from each, `tls`
//! decrypts them, and `http/` turns them into requests. `route` is a path while it gets its endpoints, `bound`
//! a server that listens, `handle` what other tasks know of it, and `shutdown` its end.

mod accept;
mod bound;
mod capacity;
mod handle;
mod listener;
mod listeners;
mod route;
mod shutdown;
#[cfg(feature = "tls")]
mod tls;

use std::{fmt, io};

pub use self::bound::Bound;
#[cfg(feature = "testing")]
pub(crate) use self::bound::NO_EXECUTOR;
pub use self::handle::ServerHandle;
pub use self::listener::LocalAddr;
pub use self::listeners::Listeners;
pub use self::route::Route;
pub use self::shutdown::{ShutdownOptions, ShutdownReport};
#[cfg(feature = "tls")]
pub use self::tls::{ClientCertificates, TlsConfig};
use crate::context::RequestContext;
use crate::handler::Handler;
use crate::http::{App, ServerOptions};
use crate::runtime::ToSocketAddrs;
use crate::{ConnectionLimit, Result, handler};

/// HTTP and WebSocket routes behind one port.
///
/// A handler is an `async` closure over a [`RequestContext`](crate::RequestContext); whether it
/// answers with HTTP or goes on as a WebSocket connection is decided inside it.
///
/// ```no_run
/// use tidewire::{RequestContext, Server};
///
/// # async fn run() -> tidewire::Result<()> {
/// let mut server = Server::new();
/// server.get("/ping", |_ctx: RequestContext| async { Ok("pong") });
/// server.at("/assets").serve_dir("public/")?;
/// server.listen("127.0.0.1:8080").await
/// # }
/// ```
///
/// `serve_dir` is tide's, and loud: each request is a log record at level info, and each
/// file that is not there one at level warn, for everybody who asks. Where strangers do, keep tide's
/// target `tide::fs` out of the log, or let a proxy serve the files.
pub struct Server<State = ()> {
    app: App<State>,
    options: ServerOptions,
    limits: Vec<ConnectionLimit>,
    #[cfg(feature = "tls")]
    tls: Option<TlsConfig>,
}

impl Server {
    /// A server without routes and without shared state.
    #[must_use]
    pub fn new() -> Self {
        Self::with_state(())
    }
}

impl<State: Clone + Send + Sync + 'static> Server<State> {
    /// A server without routes, whose handlers share `state`.
    ///
    /// Each request gets a clone, so anything large belongs in an [`Arc`](std::sync::Arc).
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
    /// The path may have parameters (`/users/:id`) and a wildcard (`/files/*path`). Other methods of it are
    /// answered with 405 and `Allow` (RFC 9110 §15.5.6), and `OPTIONS` with 204 and `Allow` (§9.3.7),
    /// unless they have handlers of their own.
    ///
    /// # Panics
    ///
    /// As [`at`](Self::at).
    #[track_caller]
    pub fn get(&mut self, path: &str, handler: impl Handler<State>) -> &mut Self {
        self.at(path).get(handler::endpoint(handler));
        self
    }

    /// Answers `POST path`.
    ///
    /// # Panics
    ///
    /// As [`at`](Self::at).
    #[track_caller]
    pub fn post(&mut self, path: &str, handler: impl Handler<State>) -> &mut Self {
        self.at(path).post(handler::endpoint(handler));
        self
    }

    /// Answers `PUT path`.
    ///
    /// # Panics
    ///
    /// As [`at`](Self::at).
    #[track_caller]
    pub fn put(&mut self, path: &str, handler: impl Handler<State>) -> &mut Self {
        self.at(path).put(handler::endpoint(handler));
        self
    }

    /// Answers `PATCH path`.
    ///
    /// # Panics
    ///
    /// As [`at`](Self::at).
    #[track_caller]
    pub fn patch(&mut self, path: &str, handler: impl Handler<State>) -> &mut Self {
        self.at(path).patch(handler::endpoint(handler));
        self
    }

    /// Answers `DELETE path`.
    ///
    /// # Panics
    ///
    /// As [`at`](Self::at).
    #[track_caller]
    pub fn delete(&mut self, path: &str, handler: impl Handler<State>) -> &mut Self {
        self.at(path).delete(handler::endpoint(handler));
        self
    }

    /// A path, for everything else a route can have: static files, tide endpoints, other methods,
    /// middleware of its own.
    ///
    /// Handlers of this crate become tide endpoints through [`endpoint`](crate::endpoint).
    ///
    /// # Panics
    ///
    /// If the path has more than one wildcard, as in `/a/*b/*c`: a request with many slashes could then
    /// keep the router busy for seconds. `serve_dir` and `nest` add a wildcard to their path.
    #[track_caller]
    pub fn at(&mut self, path: &str) -> Route<'_, State> {
        Route::new(self.app.at(path))
    }

    /// Runs `middleware` around every request that comes after it has been added.
    pub fn with(&mut self, middleware: impl tide::Middleware<State>) -> &mut Self {
        self.app.with(middleware);
        self
    }

    /// Serves everything below `path` with the routes, middleware and state of `server`, which sees
    /// the rest of the path. Its [`ServerOptions`] and connection limits are not used.
    ///
    /// Routes of this server that are for one method come before it: with `get("/*", …)` here, no `GET`
    /// gets there.
    ///
    /// # Panics
    ///
    /// If the path has a wildcard: nesting adds one, as [`at`](Self::at).
    #[track_caller]
    pub fn nest<Inner>(&mut self, path: &str, server: Server<Inner>) -> &mut Self
    where
        Inner: Clone + Send + Sync + 'static,
    {
        self.at(path).nest(server);
        self
    }

    /// Replaces the limits of the HTTP side.
    pub fn options(&mut self, options: ServerOptions) -> &mut Self {
        self.options = options;
        self
    }

    /// Speaks TLS on everything the server listens on: `https` and `wss`.
    ///
    /// Keep a clone of `config` to [`reload`](TlsConfig::reload) its certificate. A client that
    /// sends HTTP unencrypted is answered with a 400 that says so.
    #[cfg(feature = "tls")]
    pub fn tls(&mut self, config: TlsConfig) -> &mut Self {
        self.tls = Some(config);
        self
    }

    /// Will the server speak TLS?
    #[must_use]
    pub fn is_secure(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        false
    }

    /// Counts every WebSocket connection of this server among those of `limit`, besides the limits of
    /// its route. Several may be added, and all must admit. One of 0 is an error when the server is
    /// bound.
    pub fn connection_limit(&mut self, limit: &ConnectionLimit) -> &mut Self {
        self.limits.push(limit.clone());
        self
    }

    /// What the handlers share.
    #[must_use]
    pub fn state(&self) -> &State {
        self.app.state()
    }

    /// Answers one request without a socket, for tests of routes and middleware.
    ///
    /// # Errors
    ///
    /// None: what a handler fails with is made into a response. The type is tide's.
    pub async fn respond(
        &self,
        request: impl Into<tide::http::Request>,
    ) -> tide::Result<tide::http::Response> {
        Ok(self.app.respond(request.into(), false).await)
    }

    /// Starts to listen on `addr`: `"127.0.0.1:8080"`, `("localhost", 8080)`, a
    /// [`SocketAddr`](std::net::SocketAddr).
    ///
    /// Port 0 takes any free port; [`Bound::local_addr`] tells which. Clients can connect from now
    /// on, and are served once [`Bound::serve`] runs. [`bind_to`](Self::bind_to) listens on more
    /// than one address.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io) if the address cannot be found or is taken, with a message
    /// that names it, if a value of [`ServerOptions`] is out of its range, or a connection
    /// limit is 0.
    pub async fn bind(self, addr: impl ToSocketAddrs<Iter: Send>) -> Result<Bound<State>> {
        self.bind_to(Listeners::new().tcp(addr).await?)
    }

    /// Takes connections from all of `listeners`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io) if there is no listener, or if a value of [`ServerOptions`]
    /// or of the TLS configuration is out of its range.
    pub fn bind_to(self, listeners: Listeners) -> Result<Bound<State>> {
        self.check()?;
        let bound = Bound::new(self.app, self.options, self.limits, listeners.into_inner()?);
        #[cfg(feature = "tls")]
        let bound = bound.with_tls(self.tls)?;
        Ok(bound)
    }

    /// The server as [`bind_to`](Self::bind_to) makes it, without anything that listens, and unencrypted.
    #[cfg(feature = "testing")]
    pub(crate) fn unlisted(&self) -> Result<Bound<State>> {
        self.check()?;
        Ok(Bound::new(self.app.clone(), self.options.clone(), self.limits.clone(), Vec::new()))
    }

    fn check(&self) -> Result<()> {
        self.options.check()?;
        if self.limits.iter().any(ConnectionLimit::is_zero) {
            let error = "connection_limit is 0, which admits nobody";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error).into());
        }
        Ok(())
    }

    /// Listens on `addr` and serves: [`bind`](Self::bind) and [`Bound::serve`] in one.
    ///
    /// # Errors
    ///
    /// Those of [`bind`](Self::bind).
    pub async fn listen(self, addr: impl ToSocketAddrs<Iter: Send>) -> Result<()> {
        self.bind(addr).await?.serve().await
    }

    /// Listens on `addr` and serves in the background; returns when clients can connect.
    ///
    /// The server runs until it is [shut down](ServerHandle::shutdown), whatever becomes of the handle.
    ///
    /// ```
    /// use tidewire::{RequestContext, Server, ShutdownOptions};
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
    /// Those of [`bind`](Self::bind); [`Error::Io`](crate::Error::Io) if an executor that
    /// [`set_spawner`](crate::set_spawner) has brought does not run the server.
    pub async fn start(self, addr: impl ToSocketAddrs<Iter: Send>) -> Result<ServerHandle> {
        self.bind(addr).await?.start()
    }
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

/// A server of an app that tide has made. Its routes are not known: see [`Route::nest`].
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

/// A handler that answers with the [`Metrics`](crate::Metrics) of its server, as Prometheus reads
/// them. 404 in an app that listens through tide itself.
///
/// ```
/// # use tidewire::Server;
/// let mut server = Server::new();
/// server.get("/metrics", tidewire::metrics);
/// ```
///
/// # Errors
///
/// None. The type is that of handlers.
pub async fn metrics<State>(ctx: RequestContext<State>) -> tide::Result<tide::Response>
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
