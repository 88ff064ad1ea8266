//! A connection whose messages are values: a codec stands between the two.

use std::error::Error as StdError;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::stream::{FusedStream, Stream};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::connection::{Sender, WebSocket};
use crate::error::{Error, Result};
use crate::message::Message;

/// Translates between messages and values: `In` is received, `Out` is sent.
///
/// [`JsonCodec`] is one. Another is for an application to write:
///
/// ```
/// use tidewire::websocket::Codec;
/// use tidewire::{Error, Message, Result};
///
/// /// Numbers of eight bytes, in network order.
/// #[derive(Clone, Copy, Debug)]
/// struct Numbers;
///
/// impl Codec<u64, u64> for Numbers {
///     fn decode(&mut self, message: Message) -> Result<u64> {
///         let bytes = message.as_bytes().try_into().map_err(Error::decode)?;
///         Ok(u64::from_be_bytes(bytes))
///     }
///
///     fn encode(&mut self, value: &u64) -> Result<Message> {
///         Ok(Message::binary(value.to_be_bytes().to_vec()))
///     }
/// }
/// ```
pub trait Codec<In, Out> {
    /// The value of a message.
    ///
    /// # Errors
    ///
    /// [`Error::Decode`], or [`Error::Json`], if the message is none of the peer's protocol.
    fn decode(&mut self, message: Message) -> Result<In>;

    /// The message for a value.
    ///
    /// # Errors
    ///
    /// [`Error::Encode`], or [`Error::Serialize`], if the value has none.
    fn encode(&mut self, value: &Out) -> Result<Message>;
}

/// Values as JSON (RFC 8259): text messages out, and text or binary messages in.
#[derive(Clone, Copy, Debug, Default)]
pub struct JsonCodec;

impl<In: DeserializeOwned, Out: Serialize> Codec<In, Out> for JsonCodec {
    fn decode(&mut self, message: Message) -> Result<In> {
        message.parse()
    }

    fn encode(&mut self, value: &Out) -> Result<Message> {
        Message::json(value)
    }
}

/// A [`WebSocket`] whose messages are values: made by [`WebSocket::typed`] and [`WebSocket::typed_with`].
///
/// It is a [`Stream`] of results as well. All else of the connection is there too, since it dereferences to the
/// `WebSocket`.
///
/// ```no_run
/// use serde::{Deserialize, Serialize};
/// use tidewire::{HandlerResult, RequestContext, WebSocketOptions};
///
/// #[derive(Deserialize)]
/// #[serde(tag = "type", rename_all = "snake_case")]
/// enum Asked {
///     Bid { amount: u32 },
/// }
///
/// #[derive(Serialize)]
/// #[serde(tag = "type", rename_all = "snake_case")]
/// enum Told {
///     Leads { amount: u32 },
/// }
///
/// async fn auction(mut ctx: RequestContext) -> HandlerResult {
///     let ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
///     let mut ws = ws.typed::<Asked, Told>();
///     // A message that is none of these ends the handler, and the connection with 1007 and serde's sentence.
///     while let Some(Asked::Bid { amount }) = ws.recv().await? {
///         ws.send(&Told::Leads { amount }).await?;
///     }
///     Ok(())
/// }
/// ```
pub struct Typed<In, Out, C = JsonCodec> {
    ws: WebSocket,
    codec: C,
    /// Whether the stream has ended.
    is_over: bool,
    values: PhantomData<fn(Out) -> In>,
}

/// So that a room takes it: `room.join(&ws)`.
impl<In, Out, C> From<&Typed<In, Out, C>> for Sender {
    fn from(ws: &Typed<In, Out, C>) -> Self {
        ws.ws.sender()
    }
}

impl WebSocket {
    /// A loop over values as JSON: `In` is received and `Out` is sent.
    #[must_use]
    pub fn typed<In: DeserializeOwned, Out: Serialize>(self) -> Typed<In, Out> {
        self.typed_with(JsonCodec)
    }

    /// A loop over values by a codec of the application.
    #[must_use]
    pub fn typed_with<In, Out, C: Codec<In, Out>>(self, codec: C) -> Typed<In, Out, C> {
        Typed { ws: self, codec, is_over: false, values: PhantomData }
    }
}

impl<In, Out, C: Codec<In, Out>> Typed<In, Out, C> {
    /// Receives the next value; `None` after the closing handshake.
    ///
    /// # Errors
    ///
    /// What the codec says of a message: the connection stays open, and the next call reads the next message. A handler
    /// that returns the error closes with 1007. Else those of [`WebSocket::recv`].
    ///
    /// # Cancel safety
    ///
    /// A dropped future loses no message.
    pub async fn recv(&mut self) -> Result<Option<In>> {
        let Some(message) = self.ws.recv().await? else { return Ok(None) };
        self.codec.decode(message).map(Some)
    }

    /// Sends a value. It is encoded and queued at the call, as by [`WebSocket::send`].
    ///
    /// # Errors
    ///
    /// What the codec says of the value; nothing is sent then. Else those of [`WebSocket::send`].
    pub fn send<'a>(
        &'a mut self,
        value: &Out,
    ) -> impl Future<Output = Result<()>> + Send + use<'a, In, Out, C> {
        let ws = &mut self.ws;
        let sending = self.codec.encode(value).map(|message| ws.send(message));
        async move { sending?.await }
    }

    /// Returns the connection.
    #[must_use]
    pub fn into_inner(self) -> WebSocket {
        self.ws
    }
}

impl<In, Out, C> Deref for Typed<In, Out, C> {
    type Target = WebSocket;

    fn deref(&self) -> &WebSocket {
        &self.ws
    }
}

impl<In, Out, C> DerefMut for Typed<In, Out, C> {
    fn deref_mut(&mut self) -> &mut WebSocket {
        &mut self.ws
    }
}

/// Values and errors, until the connection ends. A message that the codec refuses is one error, and the next values follow.
impl<In, Out, C: Codec<In, Out> + Unpin> Stream for Typed<In, Out, C> {
    type Item = Result<In>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<In>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let next = ready!(Pin::new(&mut self.ws).poll_next(cx));
        self.is_over = !matches!(next, Some(Ok(_)));
        Poll::Ready(next.map(|message| self.codec.decode(message?)))
    }
}

impl<In, Out, C: Codec<In, Out> + Unpin> FusedStream for Typed<In, Out, C> {
    fn is_terminated(&self) -> bool {
        self.is_over
    }
}

impl<In, Out, C> fmt::Debug for Typed<In, Out, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Typed").field("ws", &self.ws).finish_non_exhaustive()
    }
}

impl Error {
    /// The error of a [`Codec`] over a message of the peer.
    pub fn decode(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Decode(Arc::from(error.into()))
    }

    /// The error of a [`Codec`] over a value of ours.
    pub fn encode(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Encode(Arc::from(error.into()))
    }
}
