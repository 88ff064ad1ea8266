//! Whole messages of text or bytes.

use std::fmt;

use bytes::Bytes;
use serde::Serialize;

use crate::proto::{Frame, OpCode, Payload};

/// A text or binary message (RFC 6455 §5.6).
///
/// A clone is cheap: a long payload is shared, a short one (up to 32 bytes) is stored in the message.
///
/// ```
/// use tidewire::Message;
///
/// let message = Message::from("hello");
/// assert_eq!(message.as_text(), Some("hello"));
/// assert_eq!(message, Message::text("hello"));
/// assert_ne!(message, Message::binary("hello"));
/// ```
// It wraps a frame, so that nothing has to be rebuilt on the way in or out.
#[derive(Clone, Eq, PartialEq)]
pub struct Message(Frame);

impl Message {
    /// Creates a text message.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::new(OpCode::Text, text.into().into_bytes().into())
    }

    /// Creates a binary message.
    #[must_use]
    pub fn binary(bytes: impl Into<Bytes>) -> Self {
        Self::new(OpCode::Binary, Payload::from(bytes.into()))
    }

    /// Creates a text message that holds `value` as JSON (RFC 8259).
    ///
    /// ```
    /// # use tidewire::Message;
    /// let message = Message::json(&["a", "b"])?;
    /// assert_eq!(message.as_text(), Some(r#"["a","b"]"#));
    /// # Ok::<(), tidewire::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`serde_json::Error`] if the value cannot be written as JSON, such as a map whose keys are not
    /// strings.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::to_string(value).map(Self::text)
    }

    fn new(opcode: OpCode, payload: Payload) -> Self {
        Self(Frame::from_payload(true, opcode, payload))
    }

    /// Creates a text message from bytes that the caller knows to be UTF-8.
    #[cfg(any(feature = "rooms", feature = "tungstenite"))]
    pub(crate) fn from_text_bytes(text: Bytes) -> Self {
        Self::new(OpCode::Text, Payload::from(text))
    }

    /// Creates a text message; `None` if the bytes are not UTF-8.
    #[cfg(feature = "rooms")]
    pub(crate) fn from_utf8(text: Bytes) -> Option<Self> {
        simdutf8::basic::from_utf8(&text).is_ok().then(|| Self::from_text_bytes(text))
    }

    /// Whether to compress the message; `None` if the application has not decided.
    #[cfg(feature = "rooms")]
    pub(crate) fn compression(&self) -> Option<bool> {
        self.0.compression()
    }

    /// Turns a frame into a message. The caller has checked that the frame is a whole message.
    pub(crate) fn from_frame(frame: Frame) -> Self {
        Self(frame)
    }

    /// Marks this message to be sent uncompressed, regardless of the options.
    ///
    /// Use it for secrets. If a secret is compressed together with text that an attacker chooses, the
    /// length of the result shows whether the two resemble each other (the attack known as CRIME; RFC
    /// 7692 §8). Use it also for data that is compressed already, such as images.
    ///
    /// ```
    /// # use tidewire::Message;
    /// let message = Message::from("session=8f14e45f").uncompressed();
    /// ```
    #[must_use]
    pub fn uncompressed(mut self) -> Self {
        self.0.set_compression(false);
        self
    }

    /// Marks this message to be sent compressed, even if it is shorter than
    /// [`threshold`](crate::DeflateOptions::threshold) or does not become smaller.
    ///
    /// It has no effect on a connection without permessage-deflate.
    #[must_use]
    pub fn compressed(mut self) -> Self {
        self.0.set_compression(true);
        self
    }

    /// Whether this is a text message.
    #[must_use]
    pub fn is_text(&self) -> bool {
        self.0.opcode() == OpCode::Text
    }

    /// Whether this is a binary message.
    #[must_use]
    pub fn is_binary(&self) -> bool {
        !self.is_text()
    }

    /// The text; `None` if the message is binary.
    ///
    /// Each call validates the bytes again, at some 15 GB/s. Keep the `&str` rather than call this
    /// twice.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        if self.is_text() { simdutf8::basic::from_utf8(self.as_bytes()).ok() } else { None }
    }

    /// Converts a text message into its text.
    ///
    /// # Errors
    ///
    /// The message itself, if it is binary.
    pub fn into_text(self) -> Result<String, Self> {
        self.as_text().map(str::to_owned).ok_or(self)
    }

    /// The payload of a text or binary message.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.payload()
    }

    /// Converts the message into its payload. More than 32 bytes are shared, not copied.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0.into_payload()
    }

    /// Length of the payload, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether the payload is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.as_bytes().is_empty()
    }

    pub(crate) fn into_frame(self) -> Frame {
        self.0
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        Self::new(OpCode::Text, Payload::copy_from(text.as_bytes()))
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self::text(text)
    }
}

impl From<&String> for Message {
    fn from(text: &String) -> Self {
        Self::from(text.as_str())
    }
}

impl From<Bytes> for Message {
    fn from(bytes: Bytes) -> Self {
        Self::binary(bytes)
    }
}

impl From<Vec<u8>> for Message {
    fn from(bytes: Vec<u8>) -> Self {
        Self::binary(bytes)
    }
}

impl From<&[u8]> for Message {
    fn from(bytes: &[u8]) -> Self {
        Self::new(OpCode::Binary, Payload::copy_from(bytes))
    }
}

impl<const N: usize> From<&[u8; N]> for Message {
    fn from(bytes: &[u8; N]) -> Self {
        Self::from(bytes.as_slice())
    }
}

impl<const N: usize> From<[u8; N]> for Message {
    fn from(bytes: [u8; N]) -> Self {
        Self::from(bytes.as_slice())
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_text() { "Text" } else { "Binary" };
        f.debug_tuple(kind).field(self.0.payload_debug()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_shows_its_kind_and_its_bytes() {
        assert_eq!(format!("{:?}", Message::from("é")), r#"Text(b"\xc3\xa9")"#);
        assert_eq!(format!("{:?}", Message::from([0])), r#"Binary(b"\x00")"#);
    }
}
