//! The server: routes, and the socket it listens on.
//!
//! Routing, middleware and state are tide's. What is ours is where requests come from: `accept.rs`
//! takes connections from the kernel, `http/` turns them into requests.

mod accept;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::Result;
use crate::handler::{self, Handler};
use crate::http::{Addrs, Front, ServerOptions};
use crate::runtime::{self, TcpListener, TcpStream, ToSocketAddrs};
use crate::stream::Stream;

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
pub struct Server<State = ()> {
    app: tide::Server<State>,
    options: ServerOptions,
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
    /// Each request gets a clone, so anything large belongs in an [`Arc`].
    #[must_use]
    pub fn with_state(state: State) -> Self {
        Self { app: tide::Server::with_state(state), options: ServerOptions::default() }
    }

    /// Answers `GET path`, and `HEAD path` without the body.
    ///
    /// The path may have parameters (`/users/:id`) and end with a wildcard (`/files/*path`).
    pub fn get(&mut self, path: &str, handler: impl Handler<State>) -> &mut Self {
        self.app.at(path).get(handler::endpoint(handler));
        self
    }

    /// Answers `POST path`.
    pub fn post(&mut self, path: &str, handler: impl Handler<State>) -> &mut Self {
        self.app.at(path).post(handler::endpoint(handler));
        self
    }

    /// Answers `PUT path`.
    pub fn put(&mut self, path: &str, handler: impl Handler<State>) -> &mut Self {
        self.app.at(path).put(handler::endpoint(handler));
        self
    }

    /// Answers `PATCH path`.
    pub fn patch(&mut self, path: &str, handler: impl Handler<State>) -> &mut Self {
        self.app.at(path).patch(handler::endpoint(handler));
        self
    }

    /// Answers `DELETE path`.
    pub fn delete(&mut self, path: &str, handler: impl Handler<State>) -> &mut Self {
        self.app.at(path).delete(handler::endpoint(handler));
        self
    }

    /// tide's view of a path, for everything else a route can have: static files, tide endpoints,
    /// other methods, middleware of its own.
    ///
    /// Handlers of this crate become tide endpoints through [`endpoint`](crate::endpoint).
    pub fn at(&mut self, path: &str) -> tide::Route<'_, State> {
        self.app.at(path)
    }

    /// Runs `middleware` around every request that comes after it has been added.
    pub fn with(&mut self, middleware: impl tide::Middleware<State>) -> &mut Self {
        self.app.with(middleware);
        self
    }

    /// Serves everything below `path` with the routes, middleware and state of `server`, which sees
    /// the rest of the path. Its [`ServerOptions`] are not used.
    pub fn nest<Inner>(&mut self, path: &str, server: Server<Inner>) -> &mut Self
    where
        Inner: Clone + Send + Sync + 'static,
    {
        self.app.at(path).nest(server.app);
        self
    }

    /// Replaces the limits of the HTTP side.
    pub fn options(&mut self, options: ServerOptions) -> &mut Self {
        self.options = options;
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
        self.app.respond(request).await
    }

    /// Starts to listen on `addr`: `"127.0.0.1:8080"`, `("localhost", 8080)`, a [`SocketAddr`].
    ///
    /// Port 0 takes any free port; [`Bound::local_addr`] tells which. Clients can connect from now
    /// on, and are served once [`Bound::serve`] runs.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io) if the address cannot be found or is taken, with a message
    /// that names it, or if a value of [`ServerOptions`] is out of its range.
    pub async fn bind(self, addr: impl ToSocketAddrs<Iter: Send>) -> Result<Bound<State>> {
        self.options.check()?;
        let listener = listen_on(&runtime::resolve(addr).await?)?;
        let local_addr = listener.local_addr()?;
        let front = Arc::new(Front::new(self.app, self.options));
        Ok(Bound { listener, local_addr, front })
    }

    /// Listens on `addr` and serves: [`bind`](Self::bind) and [`Bound::serve`] in one.
    ///
    /// # Errors
    ///
    /// Those of [`bind`](Self::bind).
    pub async fn listen(self, addr: impl ToSocketAddrs<Iter: Send>) -> Result<()> {
        self.bind(addr).await?.serve().await
    }
}

impl Default for Server {
    fn default() -> Self {
        Self::new()
    }
}

impl<State> fmt::Debug for Server<State> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("options", &self.options).finish_non_exhaustive()
    }
}

/// A server that listens and waits to be run.
pub struct Bound<State = ()> {
    listener: TcpListener,
    local_addr: SocketAddr,
    front: Arc<Front<State>>,
}

impl<State: Clone + Send + Sync + 'static> Bound<State> {
    /// Where the server listens, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Serves connections for as long as the future is polled.
    ///
    /// Dropping it closes the listening socket; connections that were accepted live on.
    ///
    /// # Errors
    ///
    /// None so far: failures to accept are waited out.
    pub async fn serve(self) -> Result<()> {
        accept::accept_from(&self.listener, |stream, peer| {
            let local = self.local_addr_of(&stream);
            let front = Arc::clone(&self.front);
            runtime::spawn(front.serve(Stream::Tcp(stream), Addrs { peer, local }));
        })
        .await
    }

    fn local_addr_of(&self, stream: &TcpStream) -> SocketAddr {
        if !self.local_addr.ip().is_unspecified() {
            return self.local_addr;
        }
        // A wildcard address does not say where this client connected to.
        stream.local_addr().unwrap_or(self.local_addr)
    }
}

impl<State> fmt::Debug for Bound<State> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bound").field("local_addr", &self.local_addr).finish_non_exhaustive()
    }
}

/// Listens on the first address that can be had.
fn listen_on(addrs: &[SocketAddr]) -> io::Result<TcpListener> {
    let mut failure = io::Error::new(io::ErrorKind::InvalidInput, "no address to listen on");
    for addr in addrs {
        match TcpListener::bind(*addr) {
            Ok(listener) => return Ok(listener),
            Err(error) => {
                let message = format!("cannot listen on {addr}: {error}");
                failure = io::Error::new(error.kind(), message);
            }
        }
    }
    Err(failure)
}
