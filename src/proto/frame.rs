//! Whole, unmasked frames, as `recv_frame` returns and `send_frame` takes them.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

use super::{FrameHeader, OpCode};

/// One WebSocket frame (RFC 6455 §5.2).
///
/// ```
/// use tidewire::frame::{Frame, OpCode};
///
/// let first = Frame::new(false, OpCode::Text, "Hel");
/// let last = Frame::new(true, OpCode::Continuation, "lo");
/// assert!(!first.fin() && last.fin());
/// assert_eq!(last.payload(), b"lo");
/// ```
// Each field is a number of whole words. A frame is moved several times on its way, and a load of a
// word whose parts were stored apart has to wait for those stores.
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
    /// Set if the payload is compressed (RFC 7692 §6).
    const DEFLATED: u64 = 2;
    /// Set if the frame is to be compressed, regardless of the options.
    const COMPRESS: u64 = 4;
    const PLAIN: u64 = 8;
    /// The number of flag bits. The bits above hold the length of the payload before compression.
    const BITS: u32 = 8;

    fn new(fin: bool) -> Self {
        Self(if fin { Self::FIN } else { 0 })
    }
}

impl Frame {
    /// Creates a frame. `fin` marks the last frame of its message.
    #[must_use]
    pub fn new(fin: bool, opcode: OpCode, payload: impl Into<Bytes>) -> Self {
        Self::from_payload(fin, opcode, Payload::from(payload.into()))
    }

    pub(crate) fn from_payload(fin: bool, opcode: OpCode, payload: Payload) -> Self {
        Self { opcode, flags: Flags::new(fin), payload }
    }

    /// Whether this is the last frame of its message. Always true for control frames.
    #[must_use]
    pub fn fin(&self) -> bool {
        self.flags.0 & Flags::FIN != 0
    }

    /// The opcode of the frame.
    #[must_use]
    pub fn opcode(&self) -> OpCode {
        self.opcode
    }

    /// The payload, unmasked.
    ///
    /// A fragment of a text message may end inside a character.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// Converts the frame into its payload. More than 32 bytes are shared, not copied.
    #[must_use]
    pub fn into_payload(self) -> Bytes {
        self.payload.into_bytes()
    }

    /// Marks the message to be compressed, if permessage-deflate was negotiated.
    ///
    /// Set it on the first frame of a message; it holds for the other frames, too. Without it,
    /// [`send_frame`](crate::WebSocket::send_frame) sends frames uncompressed. A frame of any length is
    /// compressed in one go.
    #[must_use]
    pub fn compressed(mut self) -> Self {
        self.set_compression(true);
        self
    }

    /// Sets whether to compress the frame, regardless of the options.
    pub(crate) fn set_compression(&mut self, wanted: bool) {
        self.flags.0 &= !(Flags::COMPRESS | Flags::PLAIN);
        self.flags.0 |= if wanted { Flags::COMPRESS } else { Flags::PLAIN };
    }

    /// Whether to compress the frame; `None` if the caller has not decided.
    pub(crate) fn compression(&self) -> Option<bool> {
        match self.flags.0 & (Flags::COMPRESS | Flags::PLAIN) {
            0 => None,
            wish => Some(wish == Flags::COMPRESS),
        }
    }

    /// Whether the payload is compressed.
    pub(crate) fn is_deflated(&self) -> bool {
        self.flags.0 & Flags::DEFLATED != 0
    }

    /// Marks the payload as compressed.
    pub(crate) fn into_deflated(mut self) -> Self {
        self.flags.0 |= Flags::DEFLATED;
        self
    }

    /// A copy of the frame with the compressed `payload` in place of its own.
    pub(crate) fn deflate(&self, payload: Payload) -> Self {
        let plain_len = u64::try_from(self.payload.len()).unwrap_or_default();
        let flags = (self.flags.0 & Flags::FIN) | Flags::DEFLATED | (plain_len << Flags::BITS);
        Self { opcode: self.opcode, flags: Flags(flags), payload }
    }

    /// Length of the payload in bytes, before any compression.
    pub(crate) fn plain_len(&self) -> u64 {
        let len = u64::try_from(self.payload.len()).unwrap_or(u64::MAX);
        if self.is_deflated() { self.flags.0 >> Flags::BITS } else { len }
    }

    pub(crate) fn is_whole_message(&self) -> bool {
        self.fin() && matches!(self.opcode, OpCode::Text | OpCode::Binary)
    }

    #[cfg(feature = "tungstenite")]
    pub(crate) fn append_payload_to(&self, out: &mut Vec<u8>) {
        self.payload.append_to(out);
    }

    /// Appends the header and the payload to `out`. A short frame is one copy of a fixed size.
    #[inline]
    pub(crate) fn append_to(&self, header: &FrameHeader, out: &mut Vec<u8>) {
        let short = header.short();
        if let (Repr::Inline { block, len }, Some([first, second])) = (&self.payload.0, short) {
            let mut frame = [0; 2 + Payload::INLINE];
            let [at_first, at_second, payload @ ..] = &mut frame;
            (*at_first, *at_second, *payload) = (first, second, block.0);
            let end = out.len() + 2 + *len;
            out.extend_from_slice(&frame);
            out.truncate(end);
        } else {
            header.encode(out);
            self.payload.append_to(out);
        }
    }

    pub(crate) fn payload_debug(&self) -> &dyn fmt::Debug {
        &self.payload
    }
}

/// Two frames are equal if they mean the same to the application.
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

/// The payload of a frame or a message.
///
/// Most messages of most protocols are short, and an allocation costs more than all other work for
/// such a message. So a short payload is stored in place. A longer one is shared, not copied.
#[derive(Clone)]
pub(crate) struct Payload(Repr);

// A tag of a whole word keeps the rest at word offsets. Payloads are moved often, and a load of a word
// whose parts were stored apart has to wait for those stores.
#[derive(Clone)]
#[repr(u64)]
enum Repr {
    /// The first `len` bytes of the block. The bytes after them have no meaning.
    Inline {
        len: usize,
        block: Block,
    },
    Shared(Bytes),
}

#[derive(Clone, Copy)]
#[repr(align(16))]
struct Block([u8; Payload::INLINE]);

impl Payload {
    /// Longest payload that is stored in place, in bytes. It takes as much room as a [`Bytes`].
    pub(crate) const INLINE: usize = 32;

    /// An empty payload.
    pub(crate) const fn empty() -> Self {
        Self(Repr::Inline { block: Block([0; Self::INLINE]), len: 0 })
    }

    /// Copies `bytes`.
    pub(crate) fn copy_from(bytes: &[u8]) -> Self {
        Self::inline(bytes).unwrap_or_else(|| Self(Repr::Shared(Bytes::copy_from_slice(bytes))))
    }

    /// Unmasks the first `len` of `bytes`; `None` if they are too many to be stored in place.
    #[inline]
    pub(crate) fn unmask_inline(key: [u8; 4], bytes: &[u8], len: usize) -> Option<Self> {
        if len > Self::INLINE {
            return None;
        }
        let mut block = Block([0; Self::INLINE]);
        if let Some(bytes) = bytes.first_chunk() {
            // The whole block, needed or not: a copy of a fixed size takes two instructions.
            block.0 = *bytes;
        } else {
            block.0.get_mut(..len)?.copy_from_slice(bytes.get(..len)?);
        }
        for word in block.0.chunks_exact_mut(4) {
            for (byte, key) in word.iter_mut().zip(key) {
                *byte ^= key;
            }
        }
        Some(Self(Repr::Inline { block, len }))
    }

    /// Appends the payload to `out`.
    #[inline]
    pub(crate) fn append_to(&self, out: &mut Vec<u8>) {
        match &self.0 {
            Repr::Inline { block, len } => {
                let end = out.len() + *len;
                out.extend_from_slice(&block.0);
                out.truncate(end);
            }
            Repr::Shared(bytes) => out.extend_from_slice(bytes),
        }
    }

    /// Converts the payload into [`Bytes`]. It is copied only if it is stored in place.
    pub(crate) fn into_bytes(self) -> Bytes {
        match self.0 {
            Repr::Inline { .. } => Bytes::copy_from_slice(&self),
            Repr::Shared(bytes) => bytes,
        }
    }

    fn inline(bytes: &[u8]) -> Option<Self> {
        let mut block = [0; Self::INLINE];
        block.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self(Repr::Inline { block: Block(block), len: bytes.len() }))
    }
}

impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { block, len } => block.0.get(..*len).unwrap_or_default(),
            Repr::Shared(bytes) => bytes,
        }
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::inline(&bytes).unwrap_or(Self(Repr::Shared(bytes)))
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Self::inline(&bytes).unwrap_or_else(|| Self(Repr::Shared(bytes.into())))
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Payload {}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 32;
        let shown = self.get(..SHOWN).unwrap_or(self);
        write!(f, "b\"{}\"", shown.escape_ascii())?;
        if self.len() > SHOWN { write!(f, "… ({} bytes)", self.len()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_eight_words_and_so_is_the_result_of_recv() {
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
    fn a_frame_shows_its_parts() {
        let frame = Frame::new(false, OpCode::Binary, b"a\xff".as_slice());
        let shown = r#"Frame { fin: false, opcode: Binary, payload: b"a\xff", .. }"#;
        assert_eq!(format!("{frame:?}"), shown);
    }

    #[test]
    fn a_payload_is_six_words() {
        assert_eq!(size_of::<Payload>(), 48);
    }

    #[test]
    fn payloads_of_every_length_hold_their_bytes() {
        for len in 0..100_u8 {
            let bytes: Vec<u8> = (0..len).collect();
            let shared = Bytes::from(bytes.clone());
            assert_eq!(*Payload::copy_from(&bytes), *bytes);
            assert_eq!(*Payload::from(shared.clone()), *bytes);
            assert_eq!(Payload::from(bytes).into_bytes(), shared);
        }
    }

    #[test]
    fn a_short_payload_is_unmasked_before_any_other_bytes() {
        let masked = b"\x7f\x9f\x4d\x51\x58, and then the next frame begins";
        for end in [5, 20, masked.len()] {
            let payload = Payload::unmask_inline([0x37, 0xfa, 0x21, 0x3d], &masked[..end], 5);
            assert_eq!(payload, Some(Payload::copy_from(b"Hello")));
        }
        assert_eq!(Payload::unmask_inline([0; 4], &[0; 64], Payload::INLINE + 1), None);
    }

    #[test]
    fn a_long_payload_is_shared_and_not_copied() {
        let bytes = Bytes::from(vec![7; 4096]);
        let payload = Payload::from(bytes.clone());
        let copy = payload.clone();
        assert_eq!(payload.into_bytes().as_ptr(), bytes.as_ptr());
        assert_eq!(copy.into_bytes().as_ptr(), bytes.as_ptr());
    }

    #[test]
    fn a_payload_shows_its_length_and_no_more_than_its_beginning() {
        let shown = |bytes: &[u8]| format!("{:?}", Payload::copy_from(bytes));
        assert_eq!(shown(b""), r#"b"""#);
        assert_eq!(shown(b"a\"\n\xff"), r#"b"a\"\n\xff""#);
        let long = "x".repeat(32);
        assert_eq!(shown(long.as_bytes()), format!("b\"{long}\""));
        assert_eq!(shown(&[b'x'; 33]), format!("b\"{long}\"… (33 bytes)"));
    }
}
