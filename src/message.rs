//! Whole messages of text or bytes.

use std::borrow::Cow;
use std::fmt;
use std::str::Utf8Error;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;
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
    /// [`Error::Serialize`] if the value cannot be written as JSON, such as a map whose keys are not strings.
    pub fn json<T: Serialize + ?Sized>(value: &T) -> crate::Result<Self> {
        let text = serde_json::to_string(value);
        text.map(Self::text).map_err(|error| Error::Serialize(Arc::new(error)))
    }

    /// Reads the message as JSON (RFC 8259), whether it is text or binary.
    ///
    /// ```
    /// # use tidewire::Message;
    /// let numbers: Vec<u32> = Message::from("[1, 2]").parse()?;
    /// assert_eq!(numbers, [1, 2]);
    /// # Ok::<(), tidewire::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Json`](crate::Error::Json) if it is not JSON, or not of this shape. A handler that returns the error
    /// closes the connection with 1007 and serde's sentence.
    pub fn parse<T: DeserializeOwned>(&self) -> crate::Result<T> {
        Ok(serde_json::from_slice(self.as_bytes())?)
    }

    fn new(opcode: OpCode, payload: Payload) -> Self {
        Self(Frame::from_payload(true, opcode, payload))
    }

    /// Creates a text message from bytes that the caller knows to be UTF-8.
    #[cfg(feature = "tungstenite")]
    pub(crate) fn from_text_bytes(text: Bytes) -> Self {
        Self::new(OpCode::Text, Payload::from(text))
    }

    /// Creates a text message from bytes, without a copy of more than 32 bytes.
    ///
    /// ```
    /// # use tidewire::Message;
    /// assert_eq!(Message::from_utf8("Grüße").unwrap(), Message::from("Grüße"));
    /// assert!(Message::from_utf8(b"\xFF".as_slice()).is_err());
    /// ```
    ///
    /// # Errors
    ///
    /// [`Utf8Error`] if the bytes are not UTF-8. It has the place of the first one.
    pub fn from_utf8(text: impl Into<Bytes>) -> Result<Self, Utf8Error> {
        let text = text.into();
        // Fast for valid text; the slow check finds the place of the error.
        if simdutf8::basic::from_utf8(&text).is_err() {
            std::str::from_utf8(&text)?;
        }
        Ok(Self::new(OpCode::Text, Payload::from(text)))
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
    /// [`threshold`](crate::deflate::DeflateOptions::threshold) or does not become smaller.
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
        if !self.is_text() {
            return Err(self);
        }
        // The bytes are copied only if another message shares them.
        let bytes = Vec::from(self.into_bytes());
        String::from_utf8(bytes).map_err(|error| Self::binary(error.into_bytes()))
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

impl From<Cow<'_, str>> for Message {
    fn from(text: Cow<'_, str>) -> Self {
        match text {
            Cow::Borrowed(text) => Self::from(text),
            Cow::Owned(text) => Self::from(text),
        }
    }
}

impl From<Box<str>> for Message {
    fn from(text: Box<str>) -> Self {
        Self::text(text)
    }
}

impl From<Arc<str>> for Message {
    fn from(text: Arc<str>) -> Self {
        Self::from(&*text)
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

/// The payload.
impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// Whether the message is a text message with this text.
impl PartialEq<str> for Message {
    fn eq(&self, text: &str) -> bool {
        self.is_text() && self.as_bytes() == text.as_bytes()
    }
}

/// Whether the message is a text message with this text.
impl PartialEq<&str> for Message {
    fn eq(&self, text: &&str) -> bool {
        *self == **text
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
    fn every_kind_of_string_becomes_the_same_text_message() {
        let texts: [Message; 7] = [
            "Grüße".into(),
            String::from("Grüße").into(),
            (&String::from("Grüße")).into(),
            Cow::Borrowed("Grüße").into(),
            Cow::<str>::Owned("Grüße".into()).into(),
            Box::<str>::from("Grüße").into(),
            Arc::<str>::from("Grüße").into(),
        ];
        for text in texts {
            assert_eq!(text, "Grüße");
            assert_eq!(text.as_ref(), "Grüße".as_bytes());
            assert_eq!(text.into_text().as_deref(), Ok("Grüße"));
        }
        assert_ne!(Message::binary("Grüße"), "Grüße");
        assert_eq!(Message::binary("a").into_text(), Err(Message::binary("a")));
    }

    #[test]
    fn text_from_bytes_is_checked_and_the_error_has_its_place() {
        let error = Message::from_utf8([b"ab".as_slice(), &[0xC3]].concat()).unwrap_err();
        assert_eq!((error.valid_up_to(), error.error_len()), (2, None));
        let long = "é".repeat(100);
        assert_eq!(Message::from_utf8(long.clone()).unwrap(), *long.as_str());
    }

    #[test]
    fn a_message_shows_its_kind_and_its_bytes() {
        assert_eq!(format!("{:?}", Message::from("é")), r#"Text(b"\xc3\xa9")"#);
        assert_eq!(format!("{:?}", Message::from([0])), r#"Binary(b"\x00")"#);
    }
}
