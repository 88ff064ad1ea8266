//! WebSocket handlers in an application of [axum] 0.8, on its routes and its port.
//!
//! [`WebSocketUpgrade`] is an extractor. It makes the opening handshake with all rules and options of this crate, and runs
//! the handler on a [`WebSocket`]: the loop, deflate, heartbeats and rooms are those of a `Server`.
//!
//! ```
//! use axum::Router;
//! use axum::response::Response;
//! use axum::routing::any;
//! use tidewire::axum::WebSocketUpgrade;
//! use tidewire::{WebSocket, WebSocketOptions};
//!
//! async fn echo(upgrade: WebSocketUpgrade) -> Response {
//!     let options = WebSocketOptions::default();
//!     upgrade.run(options, |mut ws: WebSocket| async move {
//!         while let Some(message) = ws.recv().await? {
//!             ws.send(message).await?;
//!         }
//!         Ok(())
//!     })
//!     .await
//! }
//!
//! let app: Router = Router::new().route("/ws", any(echo));
//! # let _ = app;
//! ```
//!
//! What is around a connection in a `Server` is in [`Connections`] here. An application that has one adds it as an
//! extension, and the extractor finds it: `Router::layer(Extension(connections.clone()))`. Then
//! [`metrics`](Connections::metrics) count what happens, all connections together have a bound on their
//! [memory](Connections::with_message_memory), and [`shutdown`](Connections::shutdown) closes them, which axum's own
//! graceful shutdown does not: for axum an upgraded connection is over. `examples/axum.rs` shows all of it.
//!
//! Metrics for Prometheus are `connections.metrics().to_prometheus()`. For the end of the program, `tokio::signal` or another
//! future of yours goes into axum's `with_graceful_shutdown`, and [`shutdown`](Connections::shutdown) follows it. A test serves
//! the application on port 0, and connects with [`connect`](crate::connect); the test kit is for a `Server`.
//!
//! Connections are tasks of the tokio runtime that the request is served on. The feature brings neither tide nor
//! async-std.
//!
//! [axum]: https://docs.rs/axum/0.8

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ::axum::extract::{ConnectInfo, FromRequestParts, OptionalFromRequestParts};
use ::axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, Method, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio_util::compat::TokioAsyncReadCompatExt;

use crate::connection::WebSocket;
use crate::options::UpgradeOptions;
use crate::proto::handshake::{HandshakeError, HeaderLines};
use crate::reject::HandlerResult;
use crate::runtime;
use crate::runtime::Clock;
use crate::upgrade::{Admitted, Connections, Upgrade};

/// A request that may become a WebSocket connection: an extractor, which never fails.
///
/// The handshake is checked by [`run`](Self::run), since the options decide about it: pages of other hosts are refused
/// unless [`UpgradeOptions`] allow them. `Option<WebSocketUpgrade>` is `None` for a request that does not ask for a
/// WebSocket, for routes that have a page as well.
///
/// The address of the client is that of axum's `ConnectInfo<SocketAddr>`, if the application is served with it
/// (`into_make_service_with_connect_info`). Without it no address is known, and a
/// [limit for each address](crate::limits::ConnectionLimit::per_address) counts all clients as one.
#[must_use = "the client waits for the response"]
pub struct WebSocketUpgrade {
    method: Method,
    version: Version,
    headers: HeaderMap,
    path: Box<str>,
    /// `None` if the HTTP server cannot give the stream away.
    stream: Option<OnUpgrade>,
    peer_addr: Option<SocketAddr>,
    client_ip: Option<IpAddr>,
    is_secure: bool,
    connections: Connections,
}

impl WebSocketUpgrade {
    /// Counts the connection among these, instead of those of the extension. Without either, it belongs to a set of its own,
    /// which nothing closes.
    pub fn connections(mut self, connections: &Connections) -> Self {
        self.connections = connections.clone();
        self
    }

    /// Says which address the client has, for a [`ConnectionLimit`](crate::limits::ConnectionLimit) for each address. By
    /// default it is that of the peer; behind a proxy that you trust, it is the one that the proxy reports.
    pub fn client_ip(mut self, address: IpAddr) -> Self {
        self.client_ip = Some(address);
        self
    }

    /// Says that the client speaks TLS, to this program or to a proxy in front of it. A page of the same host must then have
    /// come over TLS as well to connect: its `Origin` must be `https` (RFC 6455 §10.2).
    ///
    /// Default: not known, and either will do.
    pub fn over_tls(mut self) -> Self {
        self.is_secure = true;
        self
    }

    /// The subprotocols that the client offers, in its order of preference (RFC 6455 §4.1), for
    /// [`UpgradeOptions::subprotocol`].
    #[must_use]
    pub fn offered_subprotocols(&self) -> Vec<&str> {
        self.headers.list("sec-websocket-protocol").collect()
    }

    /// Answers the request: with 101, after which `handler` runs on the connection in a task of its own; or with the reason
    /// why not. It waits only if a [limit](UpgradeOptions::limit) lets requests wait.
    ///
    /// The connection is closed with 1000 when the handler returns `Ok`; after `Err` as the [`Reject`](crate::Reject) among
    /// its causes says, with 1007 if a message was not the expected JSON, and else, as after a panic, with 1011. Errors
    /// convert by `?`.
    ///
    /// What the closure shares with others is cloned before it, as `State` and `Arc` are.
    ///
    /// # Answers
    ///
    /// 101; else [`HandshakeError::response`]: 400, 403, 405, 426 for a request that is not a valid opening handshake or
    /// comes from a page that may not connect, 503 for a limit and during a shutdown, 500 if the HTTP server does not give its
    /// stream away or there is no tokio runtime.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives all permits back, and no connection comes about.
    pub async fn run<F, Fut, T>(self, options: impl Into<UpgradeOptions>, handler: F) -> Response
    where
        F: FnOnce(WebSocket) -> Fut + Send + 'static,
        Fut: Future<Output = HandlerResult<T>> + Send + 'static,
        T: 'static,
    {
        let options = options.into();
        let checked = self.check(&options);
        let told = (Some(&*self.path), self.peer_addr);
        let admitted = match self.connections.admit_told(checked, &options, told).await {
            Ok(admitted) => admitted,
            Err(error) => return refuse(error),
        };
        // It was checked that there is one.
        let Some(stream) = self.stream else { return refuse(HandshakeError::StreamMissing) };
        let response = admitted.response().map(|()| ::axum::body::Body::empty());
        let timeout = options.parts.handshake_timeout;
        match runtime::spawn_on_tokio(open(admitted, stream, timeout, handler)) {
            Some(()) => response,
            None => refuse(HandshakeError::StreamMissing),
        }
    }

    fn check(&self, options: &UpgradeOptions) -> Result<Upgrade, HandshakeError> {
        Upgrade::check_version(self.version)?;
        let check = if self.is_secure { Upgrade::check_over_tls } else { Upgrade::check };
        let mut upgrade = check(&self.method, &self.headers, options)?;
        if self.stream.is_none() {
            return Err(HandshakeError::StreamMissing);
        }
        upgrade = upgrade.path(&self.path);
        if let Some(addr) = self.peer_addr {
            upgrade = upgrade.peer_addr(addr);
        }
        Ok(match self.client_ip {
            Some(address) => upgrade.client_ip(address),
            None => upgrade,
        })
    }

    fn take(parts: &mut Parts) -> Self {
        let connect_info = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        Self {
            method: parts.method.clone(),
            version: parts.version,
            headers: parts.headers.clone(),
            path: parts.uri.path().into(),
            peer_addr: connect_info.map(|ConnectInfo(addr)| *addr),
            client_ip: None,
            is_secure: false,
            connections: parts.extensions.get().cloned().unwrap_or_default(),
            stream: parts.extensions.remove(),
        }
    }
}

/// Waits for the stream behind the 101, and runs the connection.
async fn open<F, Fut, T>(admitted: Admitted, stream: OnUpgrade, timeout: Duration, handler: F)
where
    F: FnOnce(WebSocket) -> Fut,
    Fut: Future<Output = HandlerResult<T>> + Send + 'static,
    T: 'static,
{
    // Without it, the client has gone, or takes no answer, or a shutdown has dropped what was left.
    let clock = Clock::default();
    let opening = admitted.unless_cut(clock.timeout(Some(timeout), stream));
    let Some(Some(Ok(stream))) = opening.await else { return };
    admitted.run(TokioIo::new(stream).compat(), handler).await;
}

fn refuse(error: HandshakeError) -> Response {
    error.response().into_response()
}

impl<S: Send + Sync> FromRequestParts<S> for WebSocketUpgrade {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::take(parts))
    }
}

impl<S: Send + Sync> OptionalFromRequestParts<S> for WebSocketUpgrade {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Infallible> {
        let asks = parts.headers.has_token("upgrade", "websocket");
        Ok(asks.then(|| Self::take(parts)))
    }
}

impl fmt::Debug for WebSocketUpgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketUpgrade")
            .field("peer_addr", &self.peer_addr)
            .finish_non_exhaustive()
    }
}
