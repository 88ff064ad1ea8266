//! Hands a connection over to async-tungstenite.

use std::error::Error;
use std::fmt;

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::protocol::{self, WebSocketConfig};

use super::stream::BridgeStream;
use crate::causes;
use crate::connection::{HandOverError, HandedOver, WebSocket};
use crate::proto::{Limits, Role};

impl WebSocket {
    /// Hands the connection over to async-tungstenite, for code that needs its `WebSocketStream`.
    ///
    /// This waits until all queued bytes are written. Bytes that have arrived and were not received, parts of
    /// a message included, are what the `WebSocketStream` reads first. The limits
    /// [`max_message_size`](crate::WebSocketOptions::max_message_size) and
    /// [`max_frame_size`](crate::WebSocketOptions::max_frame_size) still hold. All other options end here, above
    /// all timeouts and the limit on fragments. For its [`Sender`](crate::Sender)s and rooms, the connection is
    /// closed.
    ///
    /// In a handler of a server, the permits of the connection are held until the handler returns. The handler has
    /// to close the connection itself: its return and a shutdown of the server no longer send a close frame. A
    /// shutdown drops the handler when the grace period is over.
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
    /// [`IntoTungsteniteError`], which holds the unchanged `WebSocket` and the
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

/// The limits for tungstenite. There is always one: tungstenite allocates as much as a frame announces, up to its
/// limit.
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

/// The error of a connection that cannot be handed over to async-tungstenite.
#[derive(Debug)]
pub struct IntoTungsteniteError {
    reason: HandOverError,
    ws: WebSocket,
}

impl IntoTungsteniteError {
    /// The reason.
    #[must_use]
    pub fn reason(&self) -> HandOverError {
        self.reason
    }

    /// Returns the connection, which is unchanged.
    #[must_use]
    pub fn into_websocket(self) -> WebSocket {
        self.ws
    }
}

impl fmt::Display for IntoTungsteniteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection was not handed over")?;
        causes::append(self, f)
    }
}

impl Error for IntoTungsteniteError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.reason)
    }
}
