//! `Sender`: the connection as other tasks see it.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Serialize;

use super::close::close_frame;
use super::send::SendFuture;
use super::{CloseInfo, ConnectionId, PreparedMessage, Shared, WebSocket};
use crate::error::Result;
use crate::message::Message;
use crate::options::heartbeat::HeartbeatOptions;
use crate::proto::{CloseCode, Frame, OpCode, ProtocolError};

/// Sends over a connection from any task, at any time.
///
/// Whole messages of many senders interleave, never their frames. A `Sender` does not keep its
/// connection open: that is the [`WebSocket`](crate::WebSocket)'s part.
///
/// # Sending
///
/// Messages and frames are queued **when a method is called**, if there is room, and not when it is awaited, as with
/// [`WebSocket`](crate::WebSocket#sending).
///
/// # Cancel safety
///
/// Every future of this type may be dropped at any time: the whole message is queued, or nothing.
#[derive(Clone)]
pub struct Sender {
    shared: Arc<Shared>,
}

impl Sender {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Sends a message, queued at the call like that of [`WebSocket::send`](crate::WebSocket::send).
    ///
    /// There is no room while the connection's own task is between the fragments of a message.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`](crate::Error::Closed) after a close frame has gone either way, or the
    /// error that ended the connection.
    pub fn send(&self, message: impl Into<Message>) -> impl Future<Output = Result<()>> + Send {
        self.shared.send(message.into(), true)
    }

    /// Sends a text message.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    pub fn send_text(&self, text: impl Into<String>) -> impl Future<Output = Result<()>> + Send {
        self.send(Message::text(text))
    }

    /// Sends a binary message.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    pub fn send_binary(&self, bytes: impl Into<Bytes>) -> impl Future<Output = Result<()>> + Send {
        self.send(Message::binary(bytes))
    }

    /// Sends a value as JSON, in a text message.
    ///
    /// # Errors
    ///
    /// [`Error::Serialize`](crate::Error::Serialize) if the value cannot be written as JSON; nothing is sent then. Else those
    /// of [`send`](Self::send).
    pub fn send_json<T: Serialize + ?Sized>(
        &self,
        value: &T,
    ) -> impl Future<Output = Result<()>> + Send + use<'_, T> {
        match Message::json(value) {
            // Serialized at the call: the value may change before there is room.
            Ok(message) => self.shared.send(message, true),
            Err(error) => SendFuture::failed(&self.shared, error),
        }
    }

    /// Sends a message that is sent over other connections, too: encoded and compressed only once.
    ///
    /// # Errors
    ///
    /// Those of [`send`](Self::send).
    pub fn send_prepared<'a>(
        &'a self,
        message: &'a PreparedMessage,
    ) -> impl Future<Output = Result<()>> + Send + 'a {
        self.shared.send_prepared(message)
    }

    /// Sends a ping (RFC 6455 §5.5.2).
    ///
    /// # Errors
    ///
    /// [`Error::Frame`](crate::Error::Frame) if the payload exceeds 125 bytes. Else those of
    /// [`send`](Self::send).
    pub fn ping(&self, payload: impl Into<Bytes>) -> impl Future<Output = Result<()>> + Send {
        self.shared.send_frame(Frame::new(true, OpCode::Ping, payload))
    }

    /// Sends a pong that no ping asked for (RFC 6455 §5.5.3).
    ///
    /// # Errors
    ///
    /// Those of [`ping`](Self::ping).
    pub fn pong(&self, payload: impl Into<Bytes>) -> impl Future<Output = Result<()>> + Send {
        self.shared.send_frame(Frame::new(true, OpCode::Pong, payload))
    }

    /// Closes the connection, as [`WebSocket::close`](crate::WebSocket::close) does. The close frame is queued by the
    /// first poll.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidClose`](crate::Error::InvalidClose) if `code` may not be sent or `reason`
    /// exceeds 123 bytes.
    pub async fn close(
        &self,
        code: impl TryInto<CloseCode, Error: Into<ProtocolError>>,
        reason: &str,
    ) -> Result<CloseInfo> {
        self.shared.close(code.try_into().map_err(Into::into), reason).await
    }

    /// Begins to close the connection, and does not wait for the peer: the close frame is queued at the call, behind
    /// everything that was sent before. Otherwise like [`close`](Self::close), with the same deadlines.
    ///
    /// The connection's own task does the rest; without one, those who wait in a call on the connection. Once the
    /// connection closes, this has no effect. [`closed`](Self::closed) waits for the end.
    ///
    /// ```
    /// # use tidewire::Sender;
    /// fn kick(sender: &Sender) -> tidewire::Result<()> {
    ///     sender.start_close(4003, "kicked")
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`close`](Self::close); the connection stays open then.
    pub fn start_close(
        &self,
        code: impl TryInto<CloseCode, Error: Into<ProtocolError>>,
        reason: &str,
    ) -> Result<()> {
        let frame = close_frame(code.try_into().map_err(Into::into), reason)?;
        self.shared.start_close(frame);
        Ok(())
    }

    /// Closes the connection at a point in time, as
    /// [`WebSocket::expire_at`](crate::WebSocket::expire_at).
    ///
    /// # Errors
    ///
    /// As [`close`](Self::close).
    pub fn expire_at(
        &self,
        at: Instant,
        code: impl TryInto<CloseCode, Error: Into<ProtocolError>>,
        reason: &str,
    ) -> Result<()> {
        self.shared.expire_at(at, code.try_into().map_err(Into::into), reason)
    }

    /// Takes [`expire_at`](Self::expire_at) back. Any handle of the connection may have set it.
    pub fn cancel_expiry(&self) {
        self.shared.cancel_expiry();
    }

    /// Runs a heartbeat until the connection has ended, as a future to [spawn](WebSocket::spawn).
    ///
    /// The pings are those of [`WebSocket::set_heartbeat`](crate::WebSocket::set_heartbeat), and go out from
    /// the connection's own task. Of several heartbeats only the one that was started last runs;
    /// the future of an earlier one ends with the connection all the same.
    ///
    /// ```
    /// use tidewire::websocket::{HeartbeatOptions, TimeoutKind};
    /// use tidewire::{Error, WebSocket};
    ///
    /// fn watch(ws: &WebSocket) {
    ///     let heartbeat = ws.sender().run_heartbeat(HeartbeatOptions::default());
    ///     ws.spawn(async move {
    ///         match heartbeat.await {
    ///             Ok(()) => println!("closed"),
    ///             Err(Error::Timeout(TimeoutKind::Pong)) => println!("no answer"),
    ///             Err(error) => println!("lost: {error}"),
    ///         }
    ///     });
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// The error that ended the connection: [`Error::Timeout`](crate::Error::Timeout) with
    /// [`TimeoutKind::Pong`](crate::websocket::TimeoutKind::Pong) if the peer did not answer. An orderly end is none.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future stops its heartbeat; the connection stays.
    pub fn run_heartbeat(
        &self,
        options: HeartbeatOptions,
    ) -> impl Future<Output = Result<()>> + Send + use<> {
        Arc::clone(&self.shared).run_heartbeat(options)
    }

    /// How long the latest answered ping of a heartbeat was under way; `None` before.
    #[must_use]
    pub fn rtt(&self) -> Option<Duration> {
        self.shared.rtt()
    }

    /// Waits until the stream has taken all that was sent, including messages of other senders.
    ///
    /// # Errors
    ///
    /// The error that ended the connection before.
    pub async fn flush(&self) -> Result<()> {
        self.shared.flush().await
    }

    /// Waits until the connection has ended.
    pub async fn closed(&self) -> CloseInfo {
        self.shared.closed().await
    }

    /// How the connection ended; `None` while it has not.
    #[must_use]
    pub fn close_info(&self) -> Option<CloseInfo> {
        self.shared.close_info()
    }

    /// Whether no close frame has gone either way, and the stream has not failed.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.shared.is_open()
    }

    /// The identity of the connection, here and in rooms.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.shared.connection_id()
    }

    #[cfg(feature = "rooms")]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The address of the peer; `None` if the stream is not a socket of our listener.
    #[must_use]
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.shared.peer_addr()
    }
}

/// The sender of the connection, as [`WebSocket::sender`] returns it.
impl From<&WebSocket> for Sender {
    fn from(ws: &WebSocket) -> Self {
        ws.sender()
    }
}

impl From<&Self> for Sender {
    fn from(sender: &Self) -> Self {
        sender.clone()
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("peer_addr", &self.peer_addr())
            .field("is_open", &self.is_open())
            .finish_non_exhaustive()
    }
}
