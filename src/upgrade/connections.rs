//! The WebSocket connections of a program whose HTTP server is not a `Server`: their limits, counters and end.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{Either, select};
use futures::io::{AsyncRead, AsyncWrite};
use http::Response;

use super::{Metrics, ShutdownOptions, ShutdownReport, Upgrade};
use crate::admission::{Admission, ClientAddr, admit};
use crate::changes::Changes;
use crate::connection::{ConnectionTask, Handling, Opened, Shared, WebSocket};
use crate::escaped::Escaped;
use crate::instance::{OpenSocket, Sockets, close_all};
use crate::options::UpgradeOptions;
use crate::proto::handshake::HandshakeError;
use crate::proto::{DeflateParameters, Role};
use crate::records::record;
use crate::runtime;
use crate::runtime::Clock;
use crate::stream::Stream;

/// Longest time for dropping the connections that are left. Only one that blocks its thread needs longer.
const DROPPING: Duration = Duration::from_secs(1);

/// The WebSocket connections behind an HTTP server of another library, with what a `Server` has for its own: limits,
/// metrics, a bound on the memory of messages, and an orderly end. Clones are of the same connections.
///
/// A request goes through [`Upgrade::check`], then through [`admit`](Self::admit), and the connection is run by
/// [`Admitted::run`]. The feature `axum` has an extractor that does these three.
///
/// ```
/// use http::{Request, Response};
/// use tidewire::upgrade::{Connections, Upgrade, UpgradeOptions};
/// use tidewire::{Error, WebSocket};
///
/// /// The answer to a request for `/echo`, and what the program runs when its HTTP library has the stream.
/// async fn echo(request: Request<()>, connections: &Connections) -> Response<String> {
///     let options = UpgradeOptions::default();
///     let checked = Upgrade::check_version(request.version())
///         .and_then(|()| Upgrade::check(request.method(), request.headers(), &options));
///     let admitted = match connections.admit(checked, &options).await {
///         Ok(admitted) => admitted,
///         Err(error) => return error.response(),
///     };
///     let response = admitted.response().map(|()| String::new());
///     let run = |stream: futures::io::Cursor<Vec<u8>>| {
///         admitted.run(stream, |mut ws: WebSocket| async move {
///             while let Some(message) = ws.recv().await? {
///                 ws.send(message).await?;
///             }
///             Ok::<_, Error>(())
///         })
///     };
///     # let _ = run;
///     response
/// }
/// ```
///
/// `examples/hyper.rs` is a whole program.
#[derive(Clone)]
pub struct Connections(Arc<Inner>);

struct Inner {
    sockets: Arc<Sockets>,
    clock: Clock,
    /// The number of admitted upgrades and running connections.
    places: AtomicUsize,
    /// Whether connections that are left are dropped.
    is_cut: AtomicBool,
    /// Signals that the last place was left, or that connections are cut.
    changed: Changes,
}

impl Connections {
    /// Creates a set of connections, which may hold 256 MiB for messages in progress.
    #[must_use]
    pub fn new() -> Self {
        const MESSAGE_MEMORY: usize = 256 * 1024 * 1024;
        Self::with_message_memory(MESSAGE_MEMORY)
    }

    /// Creates a set of connections that may hold `bytes` bytes for messages in progress; `None` for no limit.
    ///
    /// Such bytes are those of unfinished messages and of messages that wait for their handler. When the limit is reached,
    /// connections that would need more do not read on until others are done; if none is, the one that holds most is closed
    /// with 1013.
    #[must_use]
    pub fn with_message_memory(bytes: impl Into<Option<usize>>) -> Self {
        Self(Arc::new(Inner {
            sockets: Arc::new(Sockets::new(bytes.into())),
            clock: Clock::default(),
            places: AtomicUsize::new(0),
            is_cut: AtomicBool::new(false),
            changed: Changes::default(),
        }))
    }

    /// Takes the permits of the [limits](UpgradeOptions::limit) for an upgrade that has been checked, and waits for
    /// them if a limit says so. A refusal by the check is counted and returned.
    ///
    /// A limit for each address counts the [client's](Upgrade::client_ip).
    ///
    /// # Errors
    ///
    /// That of `checked`; [`HandshakeError::LimitReached`]; [`HandshakeError::ShuttingDown`] once
    /// [`shutdown`](Self::shutdown) was called. [`HandshakeError::response`] is the answer to the request.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives all permits back.
    pub async fn admit(
        &self,
        checked: Result<Upgrade, HandshakeError>,
        options: &UpgradeOptions,
    ) -> Result<Admitted, HandshakeError> {
        self.admit_told(checked, options, (None, None)).await
    }

    /// As [`admit`](Self::admit); a refusal is told with the path and the peer of the request.
    pub(crate) async fn admit_told(
        &self,
        checked: Result<Upgrade, HandshakeError>,
        options: &UpgradeOptions,
        (path, peer): (Option<&str>, Option<SocketAddr>),
    ) -> Result<Admitted, HandshakeError> {
        let admitted = match checked {
            Ok(upgrade) => self.seat(upgrade, options).await,
            Err(error) => Err(error),
        };
        admitted.inspect_err(|error| {
            self.0.sockets.count_refused(*error);
            record!(
                target: "tidewire::handler",
                debug,
                "request refused",
                path = path.map(Escaped),
                peer = peer,
                status = error.status(),
                reason = error.name(),
            );
        })
    }

    async fn seat(
        &self,
        mut upgrade: Upgrade,
        options: &UpgradeOptions,
    ) -> Result<Admitted, HandshakeError> {
        let place = Place::take(Arc::clone(&self.0));
        let sockets = &self.0.sockets;
        if sockets.is_shutting_down() {
            return Err(HandshakeError::ShuttingDown);
        }
        let limits: Vec<_> = options.parts.limits.iter().collect();
        let admission = if limits.is_empty() {
            Admission::default()
        } else {
            let client = upgrade.client().map_or(ClientAddr::Unknown, ClientAddr::Known);
            // Others may have its memory while it waits.
            upgrade.release_memory();
            let admitting =
                std::pin::pin!(admit(limits, client, &options.parts.limit_key, &self.0.clock));
            let admission = match select(admitting, sockets.shutting_down()).await {
                Either::Left((admission, _)) => admission?,
                Either::Right(_) => return Err(HandshakeError::ShuttingDown),
            };
            upgrade.take_memory(options);
            admission
        };
        Ok(Admitted { upgrade, admission, place })
    }

    /// The number of open connections.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.sockets.len()
    }

    /// Whether no connection is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A snapshot of the counters. Those of HTTP, of sockets and of workers are zero: they are the HTTP server's.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        Metrics::of_sockets(&self.0.sockets)
    }

    /// Ends all connections: sends each a close frame, and waits for them. From now on upgrades are refused with 503.
    ///
    /// What is left when [`grace`](ShutdownOptions::grace) is over is dropped: the futures of [`Admitted::run`] end then.
    /// A second call waits, too, and its grace may be shorter.
    ///
    /// Your HTTP server stops by its own means. Call both, in any order.
    ///
    /// # Cancel safety
    ///
    /// Once it was polled the shutdown has begun. Dropped, it neither sends close frames that are not due yet nor drops what
    /// is left.
    pub async fn shutdown(&self, options: impl Into<ShutdownOptions>) -> ShutdownReport {
        let (options, Inner { sockets, clock, .. }) = (options.into(), &*self.0);
        let (begin, before) = (clock.now(), sockets.ended());
        sockets.begin_shutdown(options.close.clone());
        let ending = async {
            close_all(sockets, &options, clock).await;
            self.0.emptied().await;
        };
        let time = options.spread.saturating_add(options.grace);
        let in_time = clock.until(runtime::later(begin, time), Box::pin(ending)).await.is_some();
        let dropped = if in_time { 0 } else { self.0.cut().await };
        ShutdownReport::of(sockets, &before, dropped, clock.since(begin))
    }
}

impl Default for Connections {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Inner {
    /// Waits until no place is taken.
    async fn emptied(&self) {
        self.changed.until(|| (self.places() == 0).then_some(())).await;
    }

    /// Drops all connections. Returns the number of those that were left.
    async fn cut(&self) -> usize {
        let left = self.places();
        self.is_cut.store(true, Ordering::SeqCst);
        self.changed.tell();
        let _ = self.clock.timeout(Some(DROPPING), Box::pin(self.emptied())).await;
        left
    }

    /// Waits until all connections are dropped.
    async fn until_cut(&self) {
        self.changed.until(|| self.is_cut.load(Ordering::SeqCst).then_some(())).await;
    }

    fn places(&self) -> usize {
        self.places.load(Ordering::SeqCst)
    }
}

/// An admitted upgrade, or its connection. The shutdown waits until it is dropped.
struct Place(Arc<Inner>);

impl Place {
    fn take(connections: Arc<Inner>) -> Self {
        connections.places.fetch_add(1, Ordering::SeqCst);
        Self(connections)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.0.places.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.changed.tell();
        }
    }
}

/// An upgrade that has been checked and has its permits: the answer to the request, and the connection once that is
/// written. Dropped, it gives its permits back, and no connection comes about.
#[must_use = "the client waits for the response and the connection"]
pub struct Admitted {
    upgrade: Upgrade,
    admission: Admission,
    place: Place,
}

impl Admitted {
    /// The answer to the request: 101 with all its headers.
    #[must_use]
    pub fn response(&self) -> Response<()> {
        self.upgrade.response()
    }

    /// The subprotocol that the 101 names (RFC 6455 §4.2.2), if one was agreed on.
    #[must_use]
    pub fn subprotocol(&self) -> Option<&str> {
        self.upgrade.subprotocol()
    }

    /// The parameters of permessage-deflate that the 101 names (RFC 7692 §5.1), if it was agreed on.
    #[must_use]
    pub fn deflate(&self) -> Option<DeflateParameters> {
        self.upgrade.deflate()
    }

    /// Gives bytes that were read behind the head of the request: see [`Upgrade::unread`].
    pub fn unread(mut self, bytes: impl Into<Bytes>) -> Self {
        self.upgrade = self.upgrade.unread(bytes);
        self
    }

    /// Waits for `future`, such as the stream of the request; `None` if a shutdown drops what is left before.
    #[cfg(feature = "axum")]
    pub(crate) async fn unless_cut<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        match select(std::pin::pin!(future), Box::pin(self.place.0.until_cut())).await {
            Either::Left((outcome, _)) => Some(outcome),
            Either::Right(_) => None,
        }
    }

    /// Runs `handler` on the connection over the stream of the request, after the [response](Self::response) has been
    /// written.
    ///
    /// The future that is returned is the connection's task, to be spawned on any executor. It ends when the handler has
    /// returned and the connection is closed, or when a shutdown drops what is left. The permits are free then. The
    /// connection is closed as the [`Reject`](crate::Reject) in the handler's error says, or with 1011 if there is none.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops handler and connection, without a closing handshake.
    pub fn run<S, F, Fut, T, E>(
        self,
        stream: S,
        handler: F,
    ) -> Pin<Box<dyn Future<Output = ()> + Send>>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
        F: FnOnce(WebSocket) -> Fut,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: 'static,
        E: fmt::Display + 'static,
    {
        let Self { upgrade, admission, place } = self;
        let sockets = &place.0.sockets;
        let (settings, opened, unread) = upgrade.into_parts();
        let opened = Opened { budget: sockets.budget().cloned(), ..opened };
        let (stream, settings) = (Stream::boxed(stream), settings.with_task());
        let shared = Shared::new(stream, unread, Role::Server, settings, opened);
        let open = Sockets::enter(sockets, &shared);
        let handler = handler(WebSocket::new(Arc::clone(&shared)));
        let task = ConnectionTask::new(Handling::new(Box::pin(handler)), shared);
        let mut running = Running { task, _open: open, _admission: admission, place };
        Box::pin(async move { running.until_end().await })
    }
}

/// A connection at work. Its fields are dropped in this order, also if its future is dropped: the permits are free when the
/// handler is gone, and the shutdown goes on when the connection is counted.
struct Running<T, E> {
    task: ConnectionTask<T, E>,
    _open: OpenSocket,
    _admission: Admission,
    place: Place,
}

impl<T, E: fmt::Display + 'static> Running<T, E> {
    /// Runs it until it ends, or all are dropped.
    async fn until_end(&mut self) {
        let cut = Box::pin(self.place.0.until_cut());
        let _ = select(&mut self.task, cut).await;
    }
}

impl fmt::Debug for Admitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admitted").field("upgrade", &self.upgrade).finish_non_exhaustive()
    }
}
