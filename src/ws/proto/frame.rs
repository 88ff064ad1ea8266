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
#[derive(Clone, Eq)]
pub struct Frame {
    opcode: OpCode,
    flags: Flags,
    payload: Payload,
}

#[derive(Clone, Copy, Eq, PartialEq)]
struct Flags(u64);

impl Flags {
    const FIN: u64 = 1;
    /// The payload is compressed (RFC 7692 §6).
    const DEFLATED: u64 = 2;
    /// To be compressed, or not, whatever the options say.
    const COMPRESS: u64 = 4;
    const PLAIN: u64 = 8;
    /// Above it, the length of what was compressed.
    const BITS: u32 = 8;

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

    /// Asks for this message to be compressed, where permessage-deflate was negotiated.
    ///
    /// Set on the first frame of a message; the others follow it. Without it,
    /// [`send_frame`](crate::WebSocket::send_frame) sends frames as they are. Each frame is
    /// compressed in one go, however long it is.
    #[must_use]
    pub fn compressed(mut self) -> Self {
        self.set_compression(true);
        self
    }

    /// Decides on compression, whatever the options say.
    pub(crate) fn set_compression(&mut self, wanted: bool) {
        self.flags.0 &= !(Flags::COMPRESS | Flags::PLAIN);
        self.flags.0 |= if wanted { Flags::COMPRESS } else { Flags::PLAIN };
    }

    /// Whether to compress, if the caller has decided.
    pub(crate) fn compression(&self) -> Option<bool> {
        match self.flags.0 & (Flags::COMPRESS | Flags::PLAIN) {
            0 => None,
            wish => Some(wish == Flags::COMPRESS),
        }
    }

    /// Is the payload compressed?
    pub(crate) fn is_deflated(&self) -> bool {
        self.flags.0 & Flags::DEFLATED != 0
    }

    /// The frame, of whose payload it is known now that it is compressed.
    pub(crate) fn into_deflated(mut self) -> Self {
        self.flags.0 |= Flags::DEFLATED;
        self
    }

    /// The frame with a compressed payload in place of its own.
    pub(crate) fn deflate(&self, payload: Payload) -> Self {
        let plain_len = u64::try_from(self.payload.len()).unwrap_or_default();
        let flags = (self.flags.0 & Flags::FIN) | Flags::DEFLATED | (plain_len << Flags::BITS);
        Self { opcode: self.opcode, flags: Flags(flags), payload }
    }

    /// Length of the payload before it was compressed, if it was, in bytes.
    pub(crate) fn plain_len(&self) -> u64 {
        let len = u64::try_from(self.payload.len()).unwrap_or(u64::MAX);
        if self.is_deflated() { self.flags.0 >> Flags::BITS } else { len }
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

/// Equal are frames that say the same to the application.
impl PartialEq for Frame {
    fn eq(&self, other: &Self) -> bool {
        let same_head = self.fin() == other.fin() && self.opcode == other.opcode;
        same_head && self.payload == other.payload
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("fin", &self.fin())
            .field("opcode", &self.opcode)
            .field("payload", &self.payload)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_eight_words_and_so_is_what_recv_returns() {
        assert_eq!(size_of::<Frame>(), 64);
        assert_eq!(size_of::<Result<Option<Frame>, [u64; 3]>>(), 64);
    }

    #[test]
    fn a_compressed_frame_knows_how_long_it_was() {
        let plain = Frame::new(true, OpCode::Text, "Hello").compressed();
        assert_eq!((plain.compression(), plain.is_deflated()), (Some(true), false));
        let deflated = plain.deflate(Payload::copy_from(b"\xf2\x48\xcd\xc9\xc9\x07\x00"));
        assert_eq!((deflated.plain_len(), deflated.payload().len()), (5, 7));
        assert!(deflated.is_deflated() && deflated.fin());
        assert_eq!(deflated.compression(), None);
    }

    #[test]
    fn a_frame_shows_what_it_is() {
        let frame = Frame::new(false, OpCode::Binary, b"a\xff".as_slice());
        let shown = r#"Frame { fin: false, opcode: Binary, payload: b"a\xff", .. }"#;
        assert_eq!(format!("{frame:?}"), shown);
    }
}
