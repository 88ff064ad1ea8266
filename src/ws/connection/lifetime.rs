//! How long a connection lives, as its user decides: a heartbeat, and a time to end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::WebSocket;
use super::shared::Shared;
use crate::error::{Error, Result};
use crate::ws::heartbeat::HeartbeatOptions;
use crate::ws::proto::{CloseCode, CloseFrame, ProtocolError};

impl WebSocket {
    /// Starts to ping the peer (RFC 6455 §5.5.2), or stops it with `None`.
    ///
    /// A server pings without being asked to: see
    /// [`WebSocketOptions::heartbeat`](crate::WebSocketOptions::heartbeat).
    ///
    /// The pings go out from the connection's own task while the handler does whatever it does, and
    /// [`rtt`](Self::rtt) is measured by them; without a task
    /// ([`from_stream`](Self::from_stream)), while somebody waits in a call. A heartbeat replaces
    /// the one before.
    ///
    /// A peer that shows no sign of life for [`timeout`](HeartbeatOptions::timeout) after a ping fails the
    /// connection: [`recv`](Self::recv) returns
    /// [`Error::Timeout`](crate::Error::Timeout) with [`Timeout::Pong`](crate::Timeout::Pong), and
    /// the stream is dropped at once. A close frame with 1008 goes ahead of that if nothing else
    /// waits to be written; nobody waits for an answer to it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tidewire::{HeartbeatOptions, Result, WebSocket};
    ///
    /// async fn echo(mut ws: WebSocket) -> Result<()> {
    ///     ws.heartbeat(HeartbeatOptions::default().interval(Duration::from_secs(5)));
    ///     while let Some(message) = ws.recv().await? {
    ///         ws.send(message).await?;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn heartbeat(&self, options: impl Into<Option<HeartbeatOptions>>) {
        let options = options.into();
        self.shared.reschedule(|core| core.set_heartbeat(options));
    }

    /// How long the latest answered ping of the heartbeat was under way, from the queue to its pong;
    /// `None` before.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.shared.rtt()
    }

    /// Closes the connection at a point in time, with a code of the caller's choice: when a token
    /// expires, say.
    ///
    /// It is closed as by [`close`](Self::close), and [`recv`](Self::recv) returns `None` then. A
    /// later call replaces an earlier one, [`cancel_expiry`](Self::cancel_expiry) takes it back, and
    /// once the connection closes it has no effect. A time that has passed closes the connection as
    /// soon as its handler waits.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidClose`](crate::Error::InvalidClose) if `code` may not be sent (§7.4) or
    /// `reason` exceeds 123 bytes; what was set before remains.
    pub fn expire_at(
        &self,
        at: Instant,
        code: impl TryInto<CloseCode, Error: Into<ProtocolError>>,
        reason: &str,
    ) -> Result<()> {
        self.shared.expire_at(at, code.try_into().map_err(Into::into), reason)
    }

    /// Takes [`expire_at`](Self::expire_at) back, by whomever it was called.
    pub fn cancel_expiry(&self) {
        self.shared.cancel_expiry();
    }
}

impl Shared {
    pub(crate) async fn run_heartbeat(self: Arc<Self>, options: HeartbeatOptions) -> Result<()> {
        let number = self.reschedule(|core| core.set_heartbeat(Some(options)));
        let _stop = StopHeartbeat { shared: &self, number };
        let mut listener = None;
        std::future::poll_fn(|cx| self.poll_wait(cx, &mut listener, |core| core.outcome())).await
    }

    pub(crate) fn rtt(&self) -> Option<Duration> {
        self.lock().stats().rtt
    }

    pub(crate) fn expire_at(
        &self,
        at: Instant,
        code: Result<CloseCode, ProtocolError>,
        reason: &str,
    ) -> Result<()> {
        let code = code.map_err(Error::InvalidClose)?;
        let frame = CloseFrame::new(code, reason).map_err(Error::InvalidClose)?;
        self.reschedule(|core| core.set_expiry(Some((at, frame))));
        Ok(())
    }

    pub(crate) fn cancel_expiry(&self) {
        self.lock().set_expiry(None);
    }
}

/// Ends a heartbeat with the future that runs it.
struct StopHeartbeat<'a> {
    shared: &'a Shared,
    number: u64,
}

impl Drop for StopHeartbeat<'_> {
    fn drop(&mut self) {
        self.shared.lock().stop_heartbeat(self.number);
    }
}
