//! The error type of this crate.

#[cfg(feature = "client")]
mod connect;

use std::sync::Arc;
use std::{error, fmt, io};

#[cfg(feature = "client")]
pub(crate) use self::connect::without_secrets;
#[cfg(feature = "client")]
pub use self::connect::{ConnectError, ConnectStep, HandshakeResponse, ResponseViolation};
use crate::causes;
#[cfg(all(feature = "tls", any(feature = "server", feature = "client")))]
use crate::certificates::TlsError;
use crate::proto::handshake::HandshakeError;
use crate::proto::{FrameError, ProtocolError};

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The reason why an operation of this crate failed.
///
/// An orderly end of a connection is not an error: `recv` then returns `Ok(None)`.
///
/// `{}` shows what failed, and [`source`](error::Error::source) returns the cause. `{:#}` shows both, in
/// one line, with all further causes: `the peer broke the protocol: payload is not UTF-8`.
#[derive(Clone, Debug)]
#[non_exhaustive]
// A tag of a whole word: results are moved often, and a move in odd pieces waits for stores.
#[repr(u64)]
pub enum Error {
    /// The request did not become a WebSocket connection. A handler that returns this error, with `?`
    /// for instance, answers the request with it.
    Handshake(HandshakeError),
    /// A client could not open a connection.
    #[cfg(feature = "client")]
    Connect(Arc<ConnectError>),
    /// The peer broke a rule. A close frame has told it which one.
    Protocol(ProtocolError),
    /// The peer took longer than a limit allows.
    Timeout(TimeoutKind),
    /// All the bytes that `ServerOptions::message_memory` allows were in use, and this connection held the
    /// most of them. It was closed with 1013, and the messages that it held are lost.
    Overloaded,
    /// The connection is closed, or a close frame has been sent. No more messages can be sent.
    Closed,
    /// The frame was not sent, since it would have broken the protocol.
    Frame(FrameError),
    /// `recv` was called after `recv_frame` had returned only the first fragments of a message.
    ///
    /// No data is lost: `recv_frame` returns the rest of the message.
    MessageBegun,
    /// The close frame was not sent: its code must not be sent, or its reason has more than 123 bytes
    /// (RFC 6455 §5.5.1).
    InvalidClose(ProtocolError),
    /// A message is not JSON, or not of the expected shape. A handler that fails with it, with `?` for instance, closes
    /// the connection with 1007 and serde's sentence.
    Json(Arc<serde_json::Error>),
    /// A value cannot be written as JSON. Nothing was sent.
    Serialize(Arc<serde_json::Error>),
    /// A message is none that a [`Codec`](crate::websocket::Codec) knows. A handler that fails with it closes the
    /// connection with 1007 and the text of the cause.
    Decode(Arc<dyn error::Error + Send + Sync>),
    /// A [`Codec`](crate::websocket::Codec) has no message for a value. Nothing was sent.
    Encode(Arc<dyn error::Error + Send + Sync>),
    /// A certificate or a key cannot be used, or TLS cannot be configured with it.
    #[cfg(all(feature = "tls", any(feature = "server", feature = "client")))]
    Tls(Arc<TlsError>),
    /// The stream below failed, or ended without a closing handshake
    /// ([`io::ErrorKind::UnexpectedEof`]). Also: an address cannot be listened on, or a value of the
    /// options is invalid ([`io::ErrorKind::InvalidInput`]).
    Io(Arc<io::Error>),
}

/// The time limit that was exceeded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum TimeoutKind {
    /// The peer did not finish a message within
    /// [`message_timeout`](crate::WebSocketOptions::message_timeout).
    Message,
    /// The peer took no data for [`send_timeout`](crate::WebSocketOptions::send_timeout).
    Send,
    /// The peer did not answer our close frame within
    /// [`close_timeout`](crate::WebSocketOptions::close_timeout).
    Close,
    /// The peer did not answer a ping within [`timeout`](crate::websocket::HeartbeatOptions::timeout).
    Pong,
}

impl Error {
    /// Whether a time limit was exceeded: one of the connection's ([`Error::Timeout`]), of a handshake,
    /// of a client's steps to a connection, or of the system ([`io::ErrorKind::TimedOut`]).
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::Timeout(_) => true,
            Self::Handshake(error) => {
                matches!(error, HandshakeError::TimedOut | HandshakeError::HeadTimedOut)
            }
            #[cfg(feature = "client")]
            Self::Connect(error) => error.is_timeout(),
            Self::Io(error) => error.kind() == io::ErrorKind::TimedOut,
            _ => false,
        }
    }

    /// Whether the error only says that the connection has ended: it was closed before the call
    /// ([`Error::Closed`]), or the stream ended without a closing handshake, as when the peer crashes or
    /// the network is lost.
    ///
    /// For a stream that means an [`Error::Io`] of the kind
    /// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof), [`BrokenPipe`](io::ErrorKind::BrokenPipe),
    /// [`ConnectionReset`](io::ErrorKind::ConnectionReset),
    /// [`ConnectionAborted`](io::ErrorKind::ConnectionAborted) or
    /// [`NotConnected`](io::ErrorKind::NotConnected).
    #[must_use]
    pub fn is_closed(&self) -> bool {
        match self {
            Self::Closed => true,
            Self::Io(error) => matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::NotConnected
            ),
            _ => false,
        }
    }
}

impl fmt::Display for TimeoutKind {
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
            Self::Handshake(_) => f.write_str("the request did not become a WebSocket connection"),
            #[cfg(feature = "client")]
            Self::Connect(_) => f.write_str("no connection to the server"),
            Self::Protocol(_) => f.write_str("the peer broke the protocol"),
            Self::Timeout(timeout) => timeout.fmt(f),
            Self::Overloaded => {
                f.write_str("the server holds too many bytes of unfinished messages")
            }
            Self::Closed => f.write_str("the connection is closed"),
            Self::Frame(_) => f.write_str("the frame was not sent"),
            Self::MessageBegun => f.write_str("recv_frame has read a part of the message"),
            Self::InvalidClose(_) => f.write_str("the close frame was not sent"),
            Self::Json(_) => f.write_str("the message is not the expected JSON"),
            Self::Serialize(_) => f.write_str("the value cannot be written as JSON"),
            Self::Decode(_) => f.write_str("the message cannot be decoded"),
            Self::Encode(_) => f.write_str("the value cannot be encoded"),
            #[cfg(all(feature = "tls", any(feature = "server", feature = "client")))]
            Self::Tls(_) => f.write_str("TLS is not configured"),
            Self::Io(_) => f.write_str("I/O failed"),
        }?;
        causes::append(self, f)
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
            Self::Json(error) | Self::Serialize(error) => Some(&**error),
            Self::Decode(error) | Self::Encode(error) => Some(&**error),
            #[cfg(all(feature = "tls", any(feature = "server", feature = "client")))]
            Self::Tls(error) => Some(&**error),
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

#[cfg(all(feature = "tls", any(feature = "server", feature = "client")))]
impl From<TlsError> for Error {
    fn from(error: TlsError) -> Self {
        Self::Tls(Arc::new(error))
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

/// The error of reading JSON. One of writing is [`Error::Serialize`].
impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(Arc::new(error))
    }
}

#[cfg(test)]
mod tests {
    use io::ErrorKind;

    use super::*;

    fn json() -> Error {
        serde_json::from_str::<u8>("x").unwrap_err().into()
    }

    fn not_json() -> Error {
        let no_keys = std::collections::HashMap::from([((1, 2), 3)]);
        crate::Message::json(&no_keys).unwrap_err()
    }

    #[test]
    fn json_that_is_read_and_json_that_is_written_are_told_apart() {
        /// Its errors have no place in the text.
        #[derive(Debug, serde::Deserialize)]
        #[serde(tag = "type")]
        #[expect(dead_code, reason = "it is only read")]
        enum Tagged {
            A { field: u8 },
        }

        let read = |text: &str| crate::Message::from(text).parse::<Tagged>().unwrap_err();
        for text in ["", "x", "{}", r#"{"type":"A"}"#, r#"{"type":"A","field":-1}"#] {
            assert!(matches!(read(text), Error::Json(_)), "{text}");
        }
        assert!(matches!(not_json(), Error::Serialize(_)));
    }

    #[test]
    fn no_text_repeats_its_cause() {
        let unexpected_eof = io::Error::new(ErrorKind::UnexpectedEof, "the stream has ended");
        let invalid_close = ProtocolError::InvalidCloseCode(1005);
        let cases = [
            (HandshakeError::HostMissing.into(), 2),
            (Error::Protocol(ProtocolError::InvalidUtf8), 2),
            (Error::Timeout(TimeoutKind::Pong), 1),
            (Error::Overloaded, 1),
            (Error::Closed, 1),
            (FrameError::CloseFrame.into(), 2),
            (Error::MessageBegun, 1),
            (Error::InvalidClose(invalid_close), 2),
            (json(), 2),
            (not_json(), 2),
            (Error::decode("too short"), 2),
            (Error::encode("too long"), 2),
            (unexpected_eof.into(), 2),
            // An error inside of `io::Error` has the same text, and is not shown twice.
            (io::Error::other(Error::Protocol(ProtocolError::InvalidUtf8)).into(), 3),
        ];
        for (error, texts) in cases {
            assert_eq!(causes::check_texts(&error), texts, "{error:#}");
        }
    }

    #[cfg(all(feature = "tls", any(feature = "server", feature = "client")))]
    #[test]
    fn a_tls_error_is_the_cause_of_an_error_of_its_own() {
        let error = Error::from(TlsError::Ready);
        assert!(matches!(&error, Error::Tls(tls) if matches!(**tls, TlsError::Ready)), "{error}");
        assert_eq!(causes::check_texts(&error), 2);
    }

    #[cfg(feature = "server")]
    #[test]
    fn an_error_of_another_crate_is_shown_with_its_causes() {
        let error = io::Error::other(Error::Protocol(ProtocolError::InvalidUtf8));
        assert_eq!(error.to_string(), "the peer broke the protocol");
        let shown = causes::WithCauses(&error).to_string();
        assert_eq!(shown, "the peer broke the protocol: payload is not UTF-8");
    }

    #[test]
    fn the_alternate_text_shows_the_cause() {
        let error = Error::Protocol(ProtocolError::InvalidUtf8);
        assert_eq!(error.to_string(), "the peer broke the protocol");
        assert_eq!(format!("{error:#}"), "the peer broke the protocol: payload is not UTF-8");
    }

    #[test]
    fn a_timeout_is_told_from_an_end_and_from_other_errors() {
        let io = |kind: ErrorKind| Error::from(io::Error::from(kind));
        let cases = [
            (Error::Timeout(TimeoutKind::Send), (true, false)),
            (HandshakeError::TimedOut.into(), (true, false)),
            (HandshakeError::HeadTimedOut.into(), (true, false)),
            (HandshakeError::HostMissing.into(), (false, false)),
            (io(ErrorKind::TimedOut), (true, false)),
            (io(ErrorKind::UnexpectedEof), (false, true)),
            (io(ErrorKind::BrokenPipe), (false, true)),
            (io(ErrorKind::ConnectionReset), (false, true)),
            (io(ErrorKind::ConnectionAborted), (false, true)),
            (io(ErrorKind::NotConnected), (false, true)),
            (io(ErrorKind::InvalidInput), (false, false)),
            (Error::Closed, (false, true)),
            (Error::Overloaded, (false, false)),
            (Error::Protocol(ProtocolError::InvalidUtf8), (false, false)),
            (json(), (false, false)),
        ];
        for (error, expected) in cases {
            assert_eq!((error.is_timeout(), error.is_closed()), expected, "{error:#}");
        }
    }

    #[cfg(feature = "client")]
    #[test]
    fn a_step_of_a_client_that_took_too_long_is_a_timeout() {
        for step in [ConnectStep::Connect, ConnectStep::Handshake] {
            let error = Error::from(ConnectError::TimedOut(step));
            assert!(error.is_timeout() && !error.is_closed(), "{error:#}");
        }
        let missing = Error::from(ConnectError::TlsMissing);
        assert!(!missing.is_timeout() && !missing.is_closed(), "{missing:#}");
    }
}
