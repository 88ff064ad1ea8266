//! The client: from a URL to a [`WebSocket`], once or again and again.
//!
//! [`connect`] opens a connection with the defaults, [`Client`] with options, and [`Reconnect`] opens the
//! next one when one is lost.

// | file | holds |
// | --- | --- |
// | `target` | the parts of a URL |
// | `dial`, `proxy` | the way to the server: sockets, tunnels, TLS on top |
// | `tls`, `unverified` | the certificates that are trusted |
// | `request`, `response`, `check_response` | the opening handshake: the request, the response, and its check |
// | `opening` | all these steps in order, with redirects and deadlines |
// | `reconnect`, `backoff` | connections one after another, and the pauses between them |
// | `states` | the state of that, for other tasks |

mod backoff;
mod check_response;
mod dial;
mod opening;
mod proxy;
mod reconnect;
mod request;
mod response;
mod states;
mod target;
#[cfg(feature = "tls")]
pub(crate) mod tls;
#[cfg(feature = "tls")]
mod unverified;

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, resume_unwind};
#[cfg(unix)]
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "testing")]
use bytes::Bytes;
use futures::FutureExt;
use futures::channel::oneshot;
use futures::io::{AsyncRead, AsyncWrite};
use url::Url;

use self::dial::Route;
use self::opening::Opened;
pub use self::reconnect::{Reconnect, ReconnectOptions};
pub use self::states::{ReconnectState, ReconnectStates};
#[cfg(feature = "tls")]
pub(crate) use self::tls::ClientTls;
use crate::connection::{ConnectionTask, Handling, Shared, WebSocket};
pub use crate::error::{ConnectError, ConnectStep, HandshakeResponse, ResponseViolation};
use crate::error::{Error, Result, without_secrets};
use crate::foreign::attempt;
use crate::options::{DeflateOptions, WebSocketOptions};
use crate::reject::Returned;
use crate::runtime::Clock;
use crate::stream::Stream;

/// Opens a WebSocket connection with the defaults of [`Client`].
///
/// ```no_run
/// # async fn run() -> tidewire::Result<()> {
/// let mut ws = tidewire::connect("wss://example.com/ws").await?;
/// ws.send("Hello").await?;
/// while let Some(message) = ws.recv().await? {
///     println!("{message:?}");
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`Error::Connect`] if the connection cannot be opened.
///
/// # Cancel safety
///
/// Dropping the future drops the unfinished connection.
pub async fn connect(url: impl Into<String>) -> Result<WebSocket> {
    Client::new(url).connect().await
}

/// A client that opens WebSocket connections to one URL (RFC 6455 §4.1).
///
/// By default it connects directly, over IPv6 or IPv4, to the address that answers first; trusts, for `wss`,
/// the certificates that the system trusts; follows no redirects; and allows 10 s to connect and 10 s for the
/// opening handshake.
///
/// # Cancel safety
///
/// Dropping a future of this type drops its connection, if that is not open yet. [`run`](Self::run) drops the
/// handler, too.
///
/// ```no_run
/// use tidewire::Client;
/// use tidewire::deflate::DeflateOptions;
///
/// # async fn run() -> tidewire::Result<()> {
/// let ws = Client::new("wss://example.com/ws")
///     .header("Authorization", "Bearer 123")
///     .subprotocols(["chat.v2", "chat.v1"])
///     .deflate(DeflateOptions::default())
///     .connect()
///     .await?;
/// println!("{:?}", ws.subprotocol());
/// # Ok(())
/// # }
/// ```
///
/// # A connection without a task
///
/// The [`WebSocket`] of [`connect`](Self::connect) makes progress only during calls on it: `send` writes, and
/// pings are answered while a call of `recv` waits. [`run`](Self::run) gives the connection a task of its own,
/// with all features of a connection on a server.
#[derive(Clone, Debug)]
pub struct Client {
    parts: Arc<Parts>,
}

#[derive(Clone)]
struct Parts {
    url: String,
    headers: Vec<(String, String)>,
    options: WebSocketOptions,
    route: Route,
    max_redirects: u32,
    connect_timeout: Option<Duration>,
    handshake_timeout: Option<Duration>,
}

impl Parts {
    /// The clock for the deadlines of connecting, which is that of the connection.
    fn clock(&self) -> &Clock {
        &self.options.parts.settings.clock
    }
}

impl Client {
    /// Creates a client for `url`: `ws://` or `wss://`, without a fragment.
    ///
    /// `http` and `https` count as `ws` and `wss`. User and password become a header, `Authorization: Basic`.
    /// [`connect`](Self::connect) reports an invalid URL.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            parts: Arc::new(Parts {
                url: url.into(),
                headers: Vec::new(),
                options: WebSocketOptions::default(),
                route: Route::default(),
                max_redirects: 0,
                connect_timeout: Some(Duration::from_secs(10)),
                handshake_timeout: Some(Duration::from_secs(10)),
            }),
        }
    }

    fn change(mut self, change: impl FnOnce(&mut Parts)) -> Self {
        change(Arc::make_mut(&mut self.parts));
        self
    }

    /// Replaces the URL.
    #[must_use]
    pub fn url(self, url: impl Into<String>) -> Self {
        self.change(|parts| parts.url = url.into())
    }

    /// Adds a parameter to the query of the URL, in the encoding of forms: a space becomes `+`.
    ///
    /// An invalid URL stays as it is; [`connect`](Self::connect) reports it.
    #[must_use]
    pub fn query(self, name: &str, value: &str) -> Self {
        self.change(|parts| {
            if let Ok(mut url) = Url::parse(&parts.url) {
                url.query_pairs_mut().append_pair(name, value);
                parts.url = url.into();
            }
        })
    }

    /// Adds a header to the request.
    ///
    /// `Host` and `Authorization` replace the values from the URL. Headers of the handshake itself
    /// (`Connection`, `Upgrade`, `Sec-WebSocket-*`) and of a body make [`connect`](Self::connect) fail.
    #[must_use]
    pub fn header(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.change(|parts| parts.headers.push((name.into(), value.into())))
    }

    /// Sets the `Origin` header, in which a browser names the site of its page (§10.2):
    /// `https://example.com`. Default: none.
    ///
    /// Programs need no origin, but a server may require one.
    #[must_use]
    pub fn origin(self, origin: impl Into<String>) -> Self {
        self.header("Origin", origin)
    }

    /// Offers subprotocols, in the order of preference (§1.9). Default: none.
    ///
    /// [`WebSocket::subprotocol`] returns the server's choice. With
    /// [`require_subprotocol`](WebSocketOptions::require_subprotocol) a handshake without one fails.
    #[must_use]
    pub fn subprotocols<T: Into<String>>(self, names: impl IntoIterator<Item = T>) -> Self {
        self.change(|parts| parts.options = std::mem::take(&mut parts.options).subprotocols(names))
    }

    /// Offers to compress messages (permessage-deflate, RFC 7692). Default: no offer.
    ///
    /// [`WebSocket::deflate_parameters`] returns the parameters that the server has agreed to.
    #[must_use]
    pub fn deflate(self, options: DeflateOptions) -> Self {
        self.change(|parts| parts.options = std::mem::take(&mut parts.options).deflate(options))
    }

    /// Sets the options of the connection, as on a server: sizes, deadlines, heartbeat.
    ///
    /// They replace the values that [`subprotocols`](Self::subprotocols) and [`deflate`](Self::deflate) have
    /// set before. Options for servers only (origins, connection limits, headers of the 101) are ignored.
    #[must_use]
    pub fn options(self, options: WebSocketOptions) -> Self {
        self.change(|parts| parts.options = options)
    }

    /// Sets the TLS configuration for `wss`: the certificates to trust, and one to show. Default: the
    /// certificates that the system trusts, and none to show.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(self, tls: ClientTls) -> Self {
        self.change(|parts| parts.route.tls = Some(tls))
    }

    /// Connects through an HTTP proxy, by `CONNECT`: `http://user:password@proxy.example:3128`, or `https` if
    /// the proxy uses TLS. Default: no proxy; environment variables are not read.
    ///
    /// [`connect`](Self::connect) reports an invalid URL.
    #[must_use]
    pub fn proxy(self, url: impl Into<String>) -> Self {
        self.change(|parts| parts.route.proxy = Some(url.into()))
    }

    /// Connects to a Unix socket, without a proxy. Host and path of the request still come from the URL.
    #[cfg(unix)]
    #[must_use]
    pub fn unix_socket(self, path: impl Into<PathBuf>) -> Self {
        self.change(|parts| parts.route.unix_socket = Some(path.into()))
    }

    /// Largest number of redirects to follow. Default: 0, as in a browser.
    ///
    /// If a redirect leads to another origin, the caller's headers `Authorization`, `Cookie`,
    /// `Proxy-Authorization` and `Host` are not sent there. All other headers are, an `X-Api-Key` included. A
    /// redirect from `wss` to `ws` fails. A redirect may lead to any host, this machine and private networks
    /// included, so follow redirects only of servers that you trust that far.
    #[must_use]
    pub fn max_redirects(self, max: u32) -> Self {
        self.change(|parts| parts.max_redirects = max)
    }

    /// Longest time for lookup, TCP, proxy and TLS together. Default: 10 s; `None` for no limit.
    #[must_use]
    pub fn connect_timeout(self, timeout: impl Into<Option<Duration>>) -> Self {
        self.change(|parts| parts.connect_timeout = timeout.into())
    }

    /// Longest time from the request to the end of the response's head. Default: 10 s; `None` for no limit.
    #[must_use]
    pub fn handshake_timeout(self, timeout: impl Into<Option<Duration>>) -> Self {
        self.change(|parts| parts.handshake_timeout = timeout.into())
    }

    /// Opens a connection.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`] if the connection cannot be opened. If a server refuses, its answer is the error's
    /// [`response`](crate::client::ConnectError::response).
    pub async fn connect(&self) -> Result<WebSocket> {
        Ok(self.connect_with_response().await?.0)
    }

    /// Opens a connection, and returns the 101 response with it, for the sake of its headers.
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Self::connect).
    pub async fn connect_with_response(&self) -> Result<(WebSocket, HandshakeResponse)> {
        let opened = Box::pin(opening::open(&self.parts)).await?;
        Ok((WebSocket::new(opened.shared), opened.response))
    }

    /// Opens a connection over a stream that leads to the server already, such as a tunnel, or a pipe in a test.
    ///
    /// The stream is not encrypted on top, even if the URL says `wss`. Redirects are not followed. If the future
    /// is dropped, so is the stream.
    ///
    /// # Errors
    ///
    /// Those of [`connect`](Self::connect).
    pub async fn connect_over<S>(&self, stream: S) -> Result<WebSocket>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let opened = Box::pin(opening::over(&self.parts, Stream::boxed(stream))).await?;
        Ok(WebSocket::new(opened.shared))
    }

    /// Opens a connection over a stream, and returns the 101 response with it.
    #[cfg(feature = "testing")]
    pub(crate) async fn open_over(
        &self,
        stream: Stream,
    ) -> Result<(Arc<Shared>, HandshakeResponse)> {
        let opened = Box::pin(opening::over(&self.parts, stream)).await?;
        Ok((opened.shared, opened.response))
    }

    /// Has the connection follow `clock`, unless its options have a clock.
    #[cfg(feature = "testing")]
    pub(crate) fn inherit_clock(self, clock: &Clock) -> Self {
        self.change(|parts| parts.options.parts.settings.clock.inherit(clock))
    }

    /// Makes the opening handshake over a stream. Returns the stream, the bytes after the response, and the
    /// response.
    #[cfg(feature = "testing")]
    pub(crate) async fn greet(&self, stream: Stream) -> Result<(Stream, Bytes, HandshakeResponse)> {
        Ok(Box::pin(opening::greet(&self.parts, stream)).await?)
    }

    /// Opens a connection and runs `handler` on it, as a server runs its handlers.
    ///
    /// Messages that the handler sends go out in one write when it waits. Pings are answered while it is busy
    /// elsewhere. When it returns, the connection is closed, with 1000 after `Ok` and 1011 after `Err`. Then
    /// this returns the result of the handler.
    ///
    /// ```no_run
    /// # use tidewire::Client;
    /// # async fn run() -> tidewire::Result<()> {
    /// let answer = Client::new("ws://127.0.0.1:8080/ws")
    ///     .run(|mut ws| async move {
    ///         ws.send("Hello").await?;
    ///         ws.recv().await
    ///     })
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Connect`] if the connection cannot be opened, and the error of the handler.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the handler and the connection, without a closing handshake.
    pub async fn run<F, Fut, T, E>(&self, handler: F) -> Result<T, E>
    where
        F: FnOnce(WebSocket) -> Fut,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + fmt::Display + Send + 'static,
    {
        let Opened { shared, .. } =
            Box::pin(opening::open(&self.parts)).await.map_err(Error::from)?;
        let handler = handler(WebSocket::new(Arc::clone(&shared)));
        run(shared, handler).await
    }

    /// Opens connections one after another: when one is lost, the next is opened after a pause.
    ///
    /// ```no_run
    /// # use tidewire::Client;
    /// # use tidewire::client::ReconnectOptions;
    /// # async fn run() -> tidewire::Result<()> {
    /// let mut reconnect = Client::new("wss://example.com/feed").reconnect(ReconnectOptions::default());
    /// while let Some(mut ws) = reconnect.next().await? {
    ///     while let Ok(Some(message)) = ws.recv().await {
    ///         println!("{message:?}");
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn reconnect(self, options: ReconnectOptions) -> Reconnect {
        Reconnect::new(self, options)
    }
}

/// Runs a handler in the task of its connection, which is the caller's task.
async fn run<T, E>(
    shared: Arc<Shared>,
    handler: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: From<Error> + fmt::Display + Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    let handler = async move {
        let outcome = AssertUnwindSafe(handler).catch_unwind().await;
        let verdict = match &outcome {
            Ok(Ok(_)) => Ok(()),
            // The log needs the text. The caller gets the error, even if its `Display` panics.
            Ok(Err(error)) => Err(Returned(attempt(|| format!("{error:#}")).unwrap_or_default())),
            Err(_) => Err(Returned("the handler panicked".to_owned())),
        };
        // Fails only if the future of `run` is being dropped.
        drop(sender.send(outcome));
        verdict
    };
    Box::pin(ConnectionTask::new(Handling::new(Box::pin(handler)), shared)).await;
    match receiver.await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(panic)) => resume_unwind(panic),
        Err(_) => Err(Error::Closed.into()),
    }
}

/// Leaves out values that may be secret: the values of headers, user and password, the query, the proxy.
impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.headers.iter().map(|line| &*line.0).collect::<Vec<_>>();
        let target = target::Target::parse(&self.url);
        let url = target
            .map(|target| without_secrets(&format!("{}{}", target.authority, target.resource)));
        f.debug_struct("Parts")
            .field("url", &url.unwrap_or_default())
            .field("headers", &names)
            .finish_non_exhaustive()
    }
}
