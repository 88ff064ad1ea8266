//! The end of all WebSocket connections: options, report, and the close frames.

use std::time::Duration;

use super::Sockets;
use super::sockets::Totals;
use crate::error::Result;
use crate::proto::{CloseCode, CloseFrame, ProtocolError};
use crate::runtime;
use crate::runtime::Clock;

/// Options for the shutdown of a server, or of `Connections` without one.
///
/// ```
/// use std::time::Duration;
/// use tidewire::CloseCode;
/// use tidewire::upgrade::ShutdownOptions;
///
/// // A new version takes over: come back, but not all at once.
/// let options = ShutdownOptions::default()
///     .close_code(CloseCode::SERVICE_RESTART)
///     .spread(Duration::from_secs(20));
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
pub struct ShutdownOptions {
    pub(crate) grace: Duration,
    pub(crate) spread: Duration,
    pub(crate) close: CloseFrame,
}

impl ShutdownOptions {
    /// Longest time for requests and connections to end, counted from the last close frame. Default 10 s.
    ///
    /// A WebSocket connection whose peer does not answer the close frame ends earlier, after
    /// [`close_timeout`](crate::WebSocketOptions::close_timeout).
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// The time over which close frames are sent, in random order. Default: zero, all at once.
    ///
    /// Clients that reconnect after a close are then spread over the same time.
    #[must_use]
    pub fn spread(mut self, spread: Duration) -> Self {
        self.spread = spread;
        self
    }

    /// The code of the close frames (RFC 6455 §7.4). Default 1001, going away.
    /// [`CloseCode::SERVICE_RESTART`] asks clients to reconnect.
    #[must_use]
    pub fn close_code(mut self, code: CloseCode) -> Self {
        self.close = CloseFrame::lossy(code, self.close.reason());
        self
    }

    /// The reason in the close frames. Default: none.
    ///
    /// # Errors
    ///
    /// [`ProtocolError`] if it exceeds 123 bytes (§5.5.1).
    pub fn reason(mut self, reason: &str) -> Result<Self, ProtocolError> {
        self.close = CloseFrame::new(self.close.code(), reason)?;
        Ok(self)
    }
}

impl Default for ShutdownOptions {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(10),
            spread: Duration::ZERO,
            close: CloseFrame::lossy(CloseCode::GOING_AWAY, ""),
        }
    }
}

/// The default options, for a future that resolves to nothing else: see
/// `BoundServer::serve_until`.
impl From<()> for ShutdownOptions {
    fn from((): ()) -> Self {
        Self::default()
    }
}

/// The report of a shutdown.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// WebSocket connections that ended with a closing handshake.
    pub closed: u64,
    /// WebSocket connections that ended without a closing handshake: the peer did not answer or was gone,
    /// or the grace period was over.
    pub lost: u64,
    /// Tasks that were dropped because they had not ended within the grace period: handlers, requests, and
    /// connections whose client has read its last response and not ended its side.
    ///
    /// Of `Connections`, only handlers and connections that were cut.
    pub dropped: usize,
    /// The duration of the shutdown.
    pub elapsed: Duration,
}

impl ShutdownReport {
    /// The report about connections whose sums were `before` when the shutdown began.
    pub(crate) fn of(
        sockets: &Sockets,
        before: &Totals,
        dropped: usize,
        elapsed: Duration,
    ) -> Self {
        let after = sockets.ended();
        let ended = after.connections.saturating_sub(before.connections);
        let closed = after.clean.saturating_sub(before.clean);
        Self { closed, lost: ended.saturating_sub(closed), dropped, elapsed }
    }
}

/// Sends the close frames, spread over a time as the options say. Connections that are opened meanwhile close by
/// themselves.
pub(crate) async fn close_all(sockets: &Sockets, options: &ShutdownOptions, clock: &Clock) {
    let begin = clock.now();
    let sockets = sockets.open().into_iter();
    let mut due: Vec<_> =
        sockets.map(|shared| (options.spread.mul_f64(fastrand::f64()), shared)).collect();
    due.sort_by_key(|(delay, _)| *delay);
    for (delay, shared) in due {
        if delay > clock.since(begin) {
            clock.timer(runtime::later(begin, delay)).await;
        }
        shared.start_close(options.close.clone());
    }
}
