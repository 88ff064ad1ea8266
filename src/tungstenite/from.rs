//! Takes a connection over from async-tungstenite.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_tungstenite::WebSocketStream;
use async_tungstenite::tungstenite::{self, Message};
use futures::{Sink, Stream};

use super::stream::BridgeStream;
use crate::causes;
use crate::connection::{HandOverError, Opened, Shared, WebSocket};
use crate::options::WebSocketOptions;
use crate::proto::{FrameHeader, OpCode, Role};

impl WebSocket {
    /// Takes a connection over from async-tungstenite.
    ///
    /// Messages that async-tungstenite has read, and that were not asked for, are received first. If the last of
    /// them has arrived in part, this waits for the rest, since async-tungstenite does not give out a part; it
    /// waits at most for [`message_timeout`](WebSocketOptions::message_timeout). The connection has no task of its
    /// own, as with [`from_stream`](Self::from_stream), and its messages are not compressed.
    ///
    /// The stream below has to be a [`BridgeStream`]. It comes from [`into_tungstenite`](Self::into_tungstenite),
    /// or was put there when the connection was opened. With any other stream, the bytes that tungstenite has read
    /// ahead are lost. If it certainly has read none, because the peer waits for an answer, use
    /// [`from_stream`](Self::from_stream) with `WebSocketStream::into_inner` instead.
    ///
    /// ```no_run
    /// use futures::io::{AsyncRead, AsyncWrite};
    /// use tidewire::tungstenite::async_tungstenite::client_async;
    /// use tidewire::frame::Role;
    /// use tidewire::tungstenite::BridgeStream;
    /// use tidewire::{WebSocket, WebSocketOptions};
    ///
    /// # async fn f(socket: impl AsyncRead + AsyncWrite + Send + Unpin + 'static)
    /// # -> Result<(), Box<dyn std::error::Error>> {
    /// let (stream, _response) = client_async("ws://host/", BridgeStream::new(socket)).await?;
    /// let options = WebSocketOptions::default();
    /// let mut ws = WebSocket::from_tungstenite(stream, Role::Client, &options).await?;
    /// ws.send("hello").await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`FromTungsteniteError`], which holds the `WebSocketStream`, the messages that were read from it meanwhile,
    /// and the [reason](FromTungsteniteError::reason).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the connection.
    pub async fn from_tungstenite(
        stream: WebSocketStream<BridgeStream>,
        role: Role,
        options: &WebSocketOptions,
    ) -> Result<Self, FromTungsteniteError> {
        let mut leaving = Box::new(Leaving { stream, received: Vec::new() });
        let settings = options.parts.settings.clone();
        let left = settings.clock.timeout(settings.message_timeout, leaving.empty()).await;
        let left = left.unwrap_or(Err(HandOverError::ReceivingMessage.into()));
        let Leaving { mut stream, received } = *leaving;
        if let Err(failure) = left {
            stream.get_mut().is_stopping = false;
            return Err(FromTungsteniteError(Box::new(Parts { failure, stream, received })));
        }
        let mut unread = Vec::new();
        for message in received {
            encode(message, role, &mut unread);
        }
        let BridgeStream { stream, peer_addr, subprotocol, .. } = stream.into_inner();
        let opened = Opened { subprotocol, peer_addr, ..Opened::default() };
        Ok(Self::new(Shared::new(stream, unread.into(), role, settings, opened)))
    }
}

/// A connection that leaves tungstenite.
struct Leaving {
    stream: WebSocketStream<BridgeStream>,
    received: Vec<Message>,
}

/// The reason why a connection cannot leave, and the error of tungstenite, if there is one.
#[derive(Debug)]
struct Failure {
    reason: HandOverError,
    source: Option<tungstenite::Error>,
}

impl From<HandOverError> for Failure {
    fn from(reason: HandOverError) -> Self {
        Self { reason, source: None }
    }
}

impl From<tungstenite::Error> for Failure {
    fn from(source: tungstenite::Error) -> Self {
        Self { reason: HandOverError::Closed, source: Some(source) }
    }
}

impl Leaving {
    /// Waits until tungstenite holds no bytes.
    fn empty(&mut self) -> impl Future<Output = Result<(), Failure>> + Send {
        self.stream.get_mut().is_stopping = true;
        std::future::poll_fn(|cx| self.poll_empty(cx))
    }

    fn poll_empty(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.check()?;
        while let Poll::Ready(next) = Pin::new(&mut self.stream).poll_next(cx) {
            match next {
                Some(Ok(message)) => self.received.push(message),
                Some(Err(error)) => return Poll::Ready(Err(error.into())),
                None => return Poll::Ready(Err(HandOverError::Closed.into())),
            }
        }
        self.check()?;
        // A pong that did not fit before the first flush goes out with the second.
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        let bridge = self.stream.get_ref();
        if !bridge.written.is_between_messages() {
            return Poll::Ready(Err(HandOverError::SendingMessage.into()));
        }
        if bridge.read.is_between_messages() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    fn check(&self) -> Result<(), HandOverError> {
        let BridgeStream { read, written, .. } = self.stream.get_ref();
        if read.has_close() || written.has_close() {
            return Err(HandOverError::Closed);
        }
        if read.is_unreadable() || written.is_unreadable() {
            return Err(HandOverError::Unreadable);
        }
        Ok(())
    }
}

/// Writes a message as the frame that the side `role` received. A server needs a mask; zeros change no byte.
fn encode(message: Message, role: Role, out: &mut Vec<u8>) {
    let opcode = match message {
        Message::Text(_) => OpCode::Text,
        Message::Binary(_) => OpCode::Binary,
        Message::Pong(_) => OpCode::Pong,
        // A ping has been answered already. Other kinds are not returned by reads.
        _ => return,
    };
    let payload = message.into_data();
    let mask = (role == Role::Server).then_some([0; 4]);
    let len = u64::try_from(payload.len()).unwrap_or(u64::MAX);
    FrameHeader { fin: true, rsv1: false, opcode, mask, len }.encode(out);
    out.extend_from_slice(&payload);
}

/// The error of a connection that cannot be taken over from async-tungstenite.
pub struct FromTungsteniteError(Box<Parts>);

struct Parts {
    failure: Failure,
    stream: WebSocketStream<BridgeStream>,
    received: Vec<Message>,
}

impl FromTungsteniteError {
    /// The reason.
    #[must_use]
    pub fn reason(&self) -> HandOverError {
        self.0.failure.reason
    }

    /// Returns the connection, and the messages that were read from it meanwhile.
    #[must_use]
    pub fn into_parts(self) -> (WebSocketStream<BridgeStream>, Vec<Message>) {
        (self.0.stream, self.0.received)
    }
}

impl fmt::Display for FromTungsteniteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection was not taken over")?;
        causes::append(self, f)
    }
}

impl fmt::Debug for FromTungsteniteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FromTungsteniteError")
            .field("failure", &self.0.failure)
            .field("received", &self.0.received.len())
            .finish_non_exhaustive()
    }
}

impl Error for FromTungsteniteError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0.failure {
            Failure { source: Some(source), .. } => Some(source),
            Failure { reason, source: None } => Some(reason),
        }
    }
}
