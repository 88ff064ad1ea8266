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
// Each field is whole words: a frame is moved several times on its way, and a move in odd pieces has
// to wait for the stores before it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    opcode: OpCode,
    flags: Flags,
    payload: Payload,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Flags(u64);

impl Flags {
    const FIN: u64 = 1;

    fn new(fin: bool) -> Self {
        Self(if fin { Self::FIN } else { 0 })
    }
}

impl Frame {
    /// A frame with this payload; `fin` if it is the last of its message.
    #[must_use]
    pub fn new(fin: bool, opcode: OpCode, payload: impl Into<Bytes>) -> Self {
        Self::from_payload(fin, opcode, Payload::from(payload.into()))
    }

    pub(crate) fn from_payload(fin: bool, opcode: OpCode, payload: Payload) -> Self {
        Self { opcode, flags: Flags::new(fin), payload }
    }

    /// Is this the last frame of its message? Always so for control frames.
    #[must_use]
    pub fn fin(&self) -> bool {
        self.flags.0 & Flags::FIN != 0
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
        self.fin() && matches!(self.opcode, OpCode::Text | OpCode::Binary)
    }

    pub(crate) fn append_payload_to(&self, out: &mut Vec<u8>) {
        self.payload.append_to(out);
    }

    pub(crate) fn payload_debug(&self) -> &dyn fmt::Debug {
        &self.payload
    }
}
