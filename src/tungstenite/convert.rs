//! Conversions of messages, close frames and close codes between the types of the two crates.

use async_tungstenite::tungstenite;
use async_tungstenite::tungstenite::Utf8Bytes;
use async_tungstenite::tungstenite::protocol::frame::coding;

use crate::message::Message;
use crate::proto::{CloseCode, CloseFrame, ProtocolError};

/// Shares the payload, unless it is short and is copied.
impl From<Message> for tungstenite::Message {
    fn from(message: Message) -> Self {
        let is_text = message.is_text();
        let bytes = message.into_bytes();
        match Utf8Bytes::try_from(bytes.clone()) {
            Ok(text) if is_text => Self::Text(text),
            _ => Self::Binary(bytes),
        }
    }
}

/// Returns messages that are neither text nor binary as the error: pings, pongs, close frames and raw frames.
///
/// ```
/// use tidewire::Message;
/// use tidewire::tungstenite::async_tungstenite::tungstenite;
///
/// assert_eq!(Message::try_from(tungstenite::Message::text("hello")), Ok("hello".into()));
/// let ping = tungstenite::Message::Ping("are you there".into());
/// assert_eq!(Message::try_from(ping.clone()), Err(ping));
/// ```
impl TryFrom<tungstenite::Message> for Message {
    type Error = tungstenite::Message;

    fn try_from(message: tungstenite::Message) -> Result<Self, tungstenite::Message> {
        match message {
            tungstenite::Message::Text(text) => Ok(Self::from_text_bytes(text.into())),
            tungstenite::Message::Binary(bytes) => Ok(Self::binary(bytes)),
            other => Err(other),
        }
    }
}

impl From<CloseCode> for coding::CloseCode {
    fn from(code: CloseCode) -> Self {
        u16::from(code).into()
    }
}

/// Refuses codes that must not be sent. tungstenite's type can hold these, too.
impl TryFrom<coding::CloseCode> for CloseCode {
    type Error = ProtocolError;

    fn try_from(code: coding::CloseCode) -> Result<Self, ProtocolError> {
        u16::from(code).try_into()
    }
}

impl From<CloseFrame> for tungstenite::protocol::CloseFrame {
    fn from(frame: CloseFrame) -> Self {
        Self { code: frame.code().into(), reason: frame.reason().into() }
    }
}

/// Refuses a code that must not be sent, and a reason of more than 123 bytes.
impl TryFrom<tungstenite::protocol::CloseFrame> for CloseFrame {
    type Error = ProtocolError;

    fn try_from(frame: tungstenite::protocol::CloseFrame) -> Result<Self, ProtocolError> {
        Self::new(frame.code.try_into()?, frame.reason.as_str())
    }
}
