//! What can go wrong, in one type.

#[cfg(feature = "client")]
mod connect;

use std::sync::Arc;
use std::{error, fmt, io};

#[cfg(feature = "client")]
pub(crate) use self::connect::without_secrets;
#[cfg(feature = "client")]
pub use self::connect::{ConnectError, ConnectStep, HandshakeResponse, ResponseViolation};
use crate::proto::handshake::HandshakeError;
use crate::proto::{FrameError, ProtocolError};

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation of this crate failed.
///
/// An orderly end of a connection is none of these: `recv` then returns `Ok(None)`.
#[derive(Clone, Debug)]
#[non_exhaustive]
// A tag of a whole word: results are moved often, and a move in odd pieces waits for stores.
#[repr(u64)]
pub enum Error {
    /// The request did not become a WebSocket connection. Passed on with `?`, it answers the
    /// request.
    Handshake(HandshakeError),
    /// A client did not get its connection.
    #[cfg(feature = "client")]
    Connect(Arc<ConnectError>),
    /// The peer broke a rule; it has been told which, in a close frame.
    Protocol(ProtocolError),
    /// The peer, or this side of it, took longer than a limit allows.
    Timeout(Timeout),
    /// The server held all the bytes that `ServerOptions::message_memory` allows, and this connection most of
    /// them. Messages that it held are lost. The peer has been told, with 1013.
    Overloaded,
    /// The connection is closed, or a close frame has been sent: nothing can be sent any more.
    Closed,
    /// The frame would have broken the protocol, and was not sent.
    Frame(FrameError),
    /// `recv` was called where `recv_frame` had read only the first fragments of a message.
    ///
    /// Nothing is lost: `recv_frame` goes on with the message.
    MessageBegun,
    /// A close code that must not be sent, or a reason of more than 123 bytes (RFC 6455 §5.5.1).
    InvalidClose(ProtocolError),
    /// A message is not the JSON that was asked for, or a value cannot be written as JSON.
    Json(Arc<serde_json::Error>),
    /// The stream below failed, or ended without a closing handshake
    /// ([`io::ErrorKind::UnexpectedEof`]).
    Io(Arc<io::Error>),
}

/// The limit that was exceeded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Timeout {
    /// A message was begun and not finished within
    /// [`message_timeout`](crate::WebSocketOptions::message_timeout).
    Message,
    /// The peer took nothing for [`send_timeout`](crate::WebSocketOptions::send_timeout).
    Send,
    /// The peer did not answer our close frame within
    /// [`close_timeout`](crate::WebSocketOptions::close_timeout).
    Close,
    /// The peer did not answer a ping within [`timeout`](crate::HeartbeatOptions::timeout).
    Pong,
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Message => "the peer did not finish a message in time",
            Self::Send => "the peer took no data in time",
            Self::Close => "the peer did not answer the close frame in time",
            Self::Pong => "the peer did not answer a ping in time",
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handshake(error) => error.fmt(f),
            #[cfg(feature = "client")]
            Self::Connect(error) => error.fmt(f),
            Self::Protocol(error) => write!(f, "the peer broke the protocol: {error}"),
            Self::Timeout(timeout) => timeout.fmt(f),
            Self::Overloaded => f.write_str("the server holds too much of unfinished messages"),
            Self::Closed => f.write_str("the connection is closed"),
            Self::Frame(error) => write!(f, "the frame was not sent: {error}"),
            Self::MessageBegun => f.write_str("recv_frame has read a part of the message"),
            Self::InvalidClose(error) => write!(f, "the close frame was not sent: {error}"),
            Self::Json(error) => error.fmt(f),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            Self::Handshake(error) => Some(error),
            #[cfg(feature = "client")]
            Self::Connect(error) => Some(&**error),
            Self::Protocol(error) | Self::InvalidClose(error) => Some(error),
            Self::Frame(error) => Some(error),
            Self::Json(error) => Some(&**error),
            Self::Io(error) => Some(&**error),
            Self::Timeout(_) | Self::Overloaded | Self::Closed | Self::MessageBegun => None,
        }
    }
}

impl From<HandshakeError> for Error {
    fn from(error: HandshakeError) -> Self {
        Self::Handshake(error)
    }
}

#[cfg(feature = "client")]
impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        Self::Connect(Arc::new(error))
    }
}

impl From<FrameError> for Error {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(Arc::new(error))
    }
}
