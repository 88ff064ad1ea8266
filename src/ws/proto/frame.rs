//! A frame, whole and unmasked: what `recv_frame` returns and `send_frame` takes.

use std::fmt;

use bytes::Bytes;

use super::{OpCode, Payload};

/// One WebSocket frame (RFC 6455 §5.2).
///
/// ```
/// use tidewire::{Frame, OpCode};
///
/// let first = Frame::new(false, OpCode::Text, "Hel");
/// let last = Frame::new(true, OpCode::Continuation, "lo");
/// assert!(!first.fin() && last.fin());
/// assert_eq!(last.payload(), b"lo");
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    fin: bool,
    opcode: OpCode,
    payload: Payload,
}

impl Frame {
    /// A frame with this payload; `fin` if it is the last of its message.
    #[must_use]
    pub fn new(fin: bool, opcode: OpCode, payload: impl Into<Bytes>) -> Self {
        Self { fin, opcode, payload: Payload::from(payload.into()) }
    }

    pub(crate) fn from_payload(fin: bool, opcode: OpCode, payload: Payload) -> Self {
        Self { fin, opcode, payload }
    }

    /// Is this the last frame of its message? Always so for control frames.
    #[must_use]
    pub fn fin(&self) -> bool {
        self.fin
    }

    /// What the frame is.
    #[must_use]
    pub fn opcode(&self) -> OpCode {
        self.opcode
    }

    /// The application's bytes, unmasked.
    ///
    /// A text frame that is a fragment may end inside a character.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The application's bytes, to keep. Not copied if there are more than 32.
    #[must_use]
    pub fn into_payload(self) -> Bytes {
        self.payload.into_bytes()
    }

    pub(crate) fn is_whole_message(&self) -> bool {
        self.fin && matches!(self.opcode, OpCode::Text | OpCode::Binary)
    }

    pub(crate) fn append_payload_to(&self, out: &mut Vec<u8>) {
        self.payload.append_to(out);
    }

    pub(crate) fn payload_debug(&self) -> &dyn fmt::Debug {
        &self.payload
    }
}
