//! The client: from a URL to a [`WebSocket`].
//!
//! | file | holds |
//! | --- | --- |
//! | `target` | what a URL says |
//! | `dial`, `proxy` | the way to the server: sockets, tunnels, TLS on top |
//! | `tls`, `unverified` | which certificates are trusted |
//! | `request`, `response`, `check_response` | the opening handshake: what is sent, what is read, whether it is right |
//! | `opening` | all of that in its order, with redirects and deadlines |
//! | `reconnect`, `backoff` | connections one after the other, and the pauses between them |

mod backoff;
mod check_response;
mod dial;
mod opening;
mod proxy;
mod reconnect;
mod request;
mod response;
mod target;
#[cfg(feature = "tls")]
mod tls;
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

use self::dial::Route;
use self::opening::Opened;
pub use self::reconnect::{Reconnect, ReconnectOptions};
#[cfg(feature = "tls")]
pub use self::tls::ClientTls;
use crate::connection::{ConnectionTask, Handling, Shared, WebSocket};
use crate::error::{Error, HandshakeResponse, Result, without_secrets};
use crate::foreign::attempt;
use crate::options::{DeflateOptions, WebSocketOptions};
use crate::runtime::Clock;
use crate::stream::Stream;

/// Opens a WebSocket connection, with all defaults of [`Client`].
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
/// [`Error::Connect`].
///
/// # Cancel safety
///
/// Dropping the future drops the connection that is not open yet.
pub async fn connect(url: impl Into<String>) -> Result<WebSocket> {
    Client::new(url).connect().await
}

/// Opens WebSocket connections to one URL (RFC 6455 §4.1).
///
/// Default: a direct connection over IPv6 or IPv4, whichever answers; for `wss` the certificates that
/// the system trusts; no redirects; 10 s to connect and 10 s for the opening handshake.
///
/// ```no_run
/// use tidewire::{Client, DeflateOptions};
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
/// The [`WebSocket`] of [`connect`](Self::connect) lives from the calls made on it: `send` writes, and
/// pings are answered while something waits in `recv`. [`run`](Self::run) gives it a task of its own, with
/// everything that a handler of the server has.
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
    /// What the deadlines of connecting follow: the clock of the connection.
    fn clock(&self) -> &Clock {
        &self.options.parts.settings.clock
    }
}

impl Client {
    /// A client for `url`: `ws://` or `wss://` (`http` and `https` are taken for them), without a
    /// fragment. User and password become a header, `Authorization: Basic`.
    ///
    /// What is wrong with it is told by [`connect`](Self::connect).
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

    /// Adds a header to the request.
    ///
    /// `Host` and `Authorization` replace what the URL says; those of the handshake itself
    /// (`Connection`, `Upgrade`, `Sec-WebSocket-*`) and of a body fail it.
    #[must_use]
    pub fn header(self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.change(|parts| parts.headers.push((name.into(), value.into())))
    }

    /// Says which page the connection is for, as a browser does (§10.2): `https://example.com`.
    ///
    /// Programs need none, but a server may ask for it.
    #[must_use]
    pub fn origin(self, origin: impl Into<String>) -> Self {
        self.header("Origin", origin)
    }

    /// Subprotocols to offer, in the order of preference (§1.9). Default: none.
    ///
    /// [`WebSocket::subprotocol`] tells which the server has chosen;
    /// [`require_subprotocol`](WebSocketOptions::require_subprotocol) fails a handshake without.
    #[must_use]
    pub fn subprotocols<T: Into<String>>(self, names: impl IntoIterator<Item = T>) -> Self {
        self.change(|parts| parts.options = std::mem::take(&mut parts.options).subprotocols(names))
    }

    /// Offers to compress messages (permessage-deflate, RFC 7692). Default: no.
    ///
    /// [`WebSocket::deflate`] tells what the server has agreed to.
    #[must_use]
    pub fn deflate(self, options: DeflateOptions) -> Self {
        self.change(|parts| parts.options = std::mem::take(&mut parts.options).deflate(options))
    }

    /// What the connection may cost, as on a server: sizes, deadlines, heartbeat.
    ///
    /// Replaces what [`subprotocols`](Self::subprotocols) and [`deflate`](Self::deflate) have set before.
    /// What only a server can do with options (origins, connection limits, headers of the 101) is ignored.
    #[must_use]
    pub fn options(self, options: WebSocketOptions) -> Self {
        self.change(|parts| parts.options = options)
    }

    /// Whom to trust for `wss`, and which certificate to show. Default: whom the system trusts, none.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(self, tls: ClientTls) -> Self {
        self.change(|parts| parts.route.tls = Some(tls))
    }

    /// Connects through an HTTP proxy, by `CONNECT`: `http://user:password@proxy.example:3128`, or
    /// `https` if the proxy speaks TLS. Default: none; the environment is not asked.
    ///
    /// What is wrong with the URL is told by [`connect`](Self::connect).
    #[must_use]
    pub fn proxy(self, url: impl Into<String>) -> Self {
        self.change(|parts| parts.route.proxy = Some(url.into()))
    }

    /// Connects to a socket in the file system, without a proxy; the URL still says what to ask for there.
    #[cfg(unix)]
    #[must_use]
    pub fn unix_socket(self, path: impl Into<PathBuf>) -> Self {
        self.change(|parts| parts.route.unix_socket = Some(path.into()))
    }

    /// Most redirects to follow. Default: 0, as in a browser.
    ///
    /// Another origin is not sent the headers `Authorization`, `Cookie`, `Proxy-Authorization` and `Host` of
    /// the caller, and `wss` is never left for `ws`. All other headers go along, an `X-Api-Key` as well. A
    /// redirect may lead anywhere, to this machine and to hosts of a private network: follow those of
    /// servers only that you trust as much.
    #[must_use]
    pub fn max_redirects(self, max: u32) -> Self {
        self.change(|parts| parts.max_redirects = max)
    }

    /// Longest time for lookup, TCP, proxy and TLS together. Default: 10 s; `None` for ever.
    #[must_use]
    pub fn connect_timeout(self, timeout: impl Into<Option<Duration>>) -> Self {
        self.change(|parts| parts.connect_timeout = timeout.into())
    }

    /// Longest time from the request to the whole head of its answer. Default: 10 s; `None` for ever.
    #[must_use]
    pub fn handshake_timeout(self, timeout: impl Into<Option<Duration>>) -> Self {
        self.change(|parts| parts.handshake_timeout = timeout.into())
    }

    /// Opens a connection.
    ///
    /// # Errors
    ///
    /// [`Error::Connect`]; its [`response`](crate::ConnectError::response) is what a server that
    /// refuses has answered.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the connection that is not open yet.
    pub async fn connect(&self) -> Result<WebSocket> {
        Ok(self.connect_with_response().await?.0)
    }

    /// As [`connect`](Self::connect), with the 101 response, whose headers may say more.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    ///
    /// # Cancel safety
    ///
    /// As [`connect`](Self::connect).
    pub async fn connect_with_response(&self) -> Result<(WebSocket, HandshakeResponse)> {
        let opened = Box::pin(opening::open(&self.parts)).await?;
        Ok((WebSocket::new(opened.shared), opened.response))
    }

    /// Opens a connection over a stream that leads to the server already: a tunnel, a pipe in a test.
    ///
    /// It is not encrypted on top, whatever the URL says, and redirects are not followed.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the stream.
    pub async fn over<S>(&self, stream: S) -> Result<WebSocket>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let opened = Box::pin(opening::over(&self.parts, Stream::boxed(stream))).await?;
        Ok(WebSocket::new(opened.shared))
    }

    /// The opening handshake over a stream, and nothing after it: the stream, the bytes behind the
    /// answer, and the answer.
    #[cfg(feature = "testing")]
    pub(crate) async fn greet(&self, stream: Stream) -> Result<(Stream, Bytes, HandshakeResponse)> {
        Ok(Box::pin(opening::greet(&self.parts, stream)).await?)
    }

    /// Opens a connection and runs `handler` on it, as a server runs its own: what it sends goes out
    /// in one write whenever it waits, pings are answered while it is busy elsewhere, and when it returns
    /// the connection is closed, with 1000 after `Ok` and 1011 after `Err`. Returns what it returned, once
    /// that is done.
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
    /// [`Error::Connect`], and what the handler fails with.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops handler and connection, without a closing handshake.
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

    /// Connections one after the other: when one is lost, the next is opened after a pause.
    ///
    /// ```no_run
    /// # use tidewire::{Client, ReconnectOptions};
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

/// Runs a handler in the connection's task, which is the caller's.
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
            // It is the caller's in any case, also if it cannot be written.
            Ok(Err(error)) => Err(attempt(|| error.to_string()).unwrap_or_default()),
            Err(_) => Err("the handler panicked".to_owned()),
        };
        // Nobody waits for it if the whole is dropped.
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

/// Without what may be secret: the values of headers, user and password, the query, the proxy.
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
