//! From a connection of ours to one of async-tungstenite.

use std::error::Error;
use std::fmt;

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::protocol::{self, WebSocketConfig};

use super::stream::BridgeStream;
use crate::connection::{HandOverError, HandedOver, WebSocket};
use crate::proto::{Limits, Role};

impl WebSocket {
    /// Hands the connection over to async-tungstenite, for code that wants its `WebSocketStream`.
    ///
    /// Waits until all that was sent is written. What has arrived and was not received yet, part of
    /// a message included, is what the `WebSocketStream` reads first. It keeps
    /// [`max_message_size`](crate::WebSocketOptions::max_message_size) and
    /// [`max_frame_size`](crate::WebSocketOptions::max_frame_size); everything else that options
    /// promise ends here, timeouts and the limit on fragments above all. So does the connection for
    /// its [`Sender`](crate::Sender)s and rooms, which find it closed.
    ///
    /// In a handler of a server the permits of the connection are kept until the handler returns.
    /// It has to close the connection itself: neither its outcome nor a shutdown sends a close frame
    /// any more, and a shutdown drops it when the grace is over.
    ///
    /// ```no_run
    /// use futures::StreamExt;
    /// use tidewire::{Result, WebSocket};
    ///
    /// async fn handle(ws: WebSocket) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    ///     let mut stream = ws.into_tungstenite().await?;
    ///     while let Some(message) = stream.next().await {
    ///         let message = message?;
    ///         if message.is_text() || message.is_binary() {
    ///             stream.send(message).await?;
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`IntoTungsteniteError`], which has the `WebSocket`, unharmed, and the
    /// [reason](IntoTungsteniteError::reason).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the connection.
    pub async fn into_tungstenite(
        mut self,
    ) -> Result<WebSocketStream<BridgeStream>, IntoTungsteniteError> {
        let handed_over = match std::future::poll_fn(|cx| self.poll_hand_over(cx)).await {
            Ok(handed_over) => handed_over,
            Err(reason) => return Err(IntoTungsteniteError { reason, ws: self }),
        };
        drop(self);
        let HandedOver { stream, unread, role, limits, peer_addr, subprotocol } = handed_over;
        let mut stream =
            BridgeStream { peer_addr, subprotocol, ..BridgeStream::from_stream(stream) };
        stream.read.pass(&unread);
        let (role, config) = (protocol::Role::from(role), Some(config(&limits)));
        Ok(WebSocketStream::from_partially_read(stream, unread, role, config).await)
    }
}

/// Tungstenite makes room for whatever length a frame announces within its limit, so there is always
/// one.
fn config(limits: &Limits) -> WebSocketConfig {
    let max_frame_size = limits.max_frame_size.min(limits.max_message_size);
    WebSocketConfig::default()
        .max_message_size(Some(limits.max_message_size))
        .max_frame_size(Some(max_frame_size))
}

impl From<Role> for protocol::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Server => Self::Server,
            Role::Client => Self::Client,
        }
    }
}

/// A connection that did not go to async-tungstenite.
#[derive(Debug)]
pub struct IntoTungsteniteError {
    reason: HandOverError,
    ws: WebSocket,
}

impl IntoTungsteniteError {
    /// Why not.
    #[must_use]
    pub fn reason(&self) -> HandOverError {
        self.reason
    }

    /// The connection, which is as it was before.
    #[must_use]
    pub fn into_websocket(self) -> WebSocket {
        self.ws
    }
}

impl fmt::Display for IntoTungsteniteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the connection was not handed over: {}", self.reason)
    }
}

impl Error for IntoTungsteniteError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.reason)
    }
}
