//! Frames that a peer may send, valid or not ([RFC 6455 §5.2]).
//!
//! [RFC 6455 §5.2]: https://www.rfc-editor.org/rfc/rfc6455#section-5.2

use bytes::Bytes;

use crate::proto::{Frame, OpCode, apply_mask};

/// The masking key of the example in RFC 6455 §5.7. A fixed key makes the bytes of a test predictable.
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A frame of a client. Any part of it may be invalid.
///
/// A new frame is valid: whole, masked, and with its true length. Each method breaks one rule.
///
/// ```
/// use tidewire::testing::RawFrame;
///
/// assert_eq!(RawFrame::text("Hello").encode(), b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
/// assert_eq!(RawFrame::text("Hello").unmasked().encode(), b"\x81\x05Hello");
/// assert_eq!(RawFrame::ping("").with_opcode(0xb).encode(), b"\x8b\x80\x37\xfa\x21\x3d");
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RawFrame {
    /// FIN, the reserved bits and the opcode.
    first: u8,
    mask: Option<[u8; 4]>,
    /// The length in the header; `None` for the true length.
    len: Option<u64>,
    is_long: bool,
    payload: Bytes,
}

impl RawFrame {
    /// Creates a text frame. Its payload may be invalid UTF-8.
    #[must_use]
    pub fn text(payload: impl Into<Bytes>) -> Self {
        Self::new(true, OpCode::Text, payload.into())
    }

    /// Creates a binary frame.
    #[must_use]
    pub fn binary(payload: impl Into<Bytes>) -> Self {
        Self::new(true, OpCode::Binary, payload.into())
    }

    /// Creates a frame that continues the message of an earlier frame, and ends it.
    #[must_use]
    pub fn continuation(payload: impl Into<Bytes>) -> Self {
        Self::new(true, OpCode::Continuation, payload.into())
    }

    /// Creates a ping. More than 125 bytes are invalid (§5.5), and allowed here.
    #[must_use]
    pub fn ping(payload: impl Into<Bytes>) -> Self {
        Self::new(true, OpCode::Ping, payload.into())
    }

    /// Creates a pong. More than 125 bytes are invalid (§5.5), and allowed here.
    #[must_use]
    pub fn pong(payload: impl Into<Bytes>) -> Self {
        Self::new(true, OpCode::Pong, payload.into())
    }

    /// Creates a close frame with any code and reason. 1005 stands for a frame with neither (§7.1.5).
    #[must_use]
    pub fn close(code: u16, reason: &str) -> Self {
        let payload = match code {
            1005 => Vec::new(),
            code => [&code.to_be_bytes(), reason.as_bytes()].concat(),
        };
        Self::new(true, OpCode::Close, payload.into())
    }

    fn new(fin: bool, opcode: OpCode, payload: Bytes) -> Self {
        let fin = if fin { 0x80 } else { 0 };
        Self { first: fin | u8::from(opcode), mask: Some(KEY), len: None, is_long: false, payload }
    }

    /// Removes FIN: more frames of the message follow (§5.4). That is invalid for a control frame.
    #[must_use]
    pub fn without_fin(mut self) -> Self {
        self.first &= 0x7f;
        self
    }

    /// Sets these reserved bits; RSV1 is 4, RSV2 is 2, RSV3 is 1 (§5.2).
    #[must_use]
    pub fn with_reserved_bits(mut self, bits: u8) -> Self {
        self.first |= (bits & 0x7) << 4;
        self
    }

    /// Sets the opcode, from 0 to 15 (§5.2).
    #[must_use]
    pub fn with_opcode(mut self, opcode: u8) -> Self {
        self.first = (self.first & 0xf0) | (opcode & 0xf);
        self
    }

    /// Removes the mask. Only a server may send such a frame (§5.1).
    #[must_use]
    pub fn unmasked(mut self) -> Self {
        self.mask = None;
        self
    }

    /// Sets the masking key. Default: the key of the example in §5.7.
    #[must_use]
    pub fn with_key(mut self, key: [u8; 4]) -> Self {
        self.mask = Some(key);
        self
    }

    /// Makes the header announce `len` bytes, in place of the true length.
    #[must_use]
    pub fn announcing(mut self, len: u64) -> Self {
        self.len = Some(len);
        self
    }

    /// Writes the length in eight bytes, even if fewer would be enough (§5.2).
    #[must_use]
    pub fn with_long_length(mut self) -> Self {
        self.is_long = true;
        self
    }

    /// The bytes of the frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let len = u64::try_from(self.payload.len()).unwrap_or(u64::MAX);
        let len = self.len.unwrap_or(len);
        let mut frame = vec![self.first];
        let mask = if self.mask.is_some() { 0x80 } else { 0 };
        match (u8::try_from(len), u16::try_from(len)) {
            (Ok(len @ ..=125), _) if !self.is_long => frame.push(mask | len),
            (_, Ok(len)) if !self.is_long => {
                frame.push(mask | 0x7e);
                frame.extend(len.to_be_bytes());
            }
            _ => {
                frame.push(mask | 0x7f);
                frame.extend(len.to_be_bytes());
            }
        }
        frame.extend(self.mask.iter().flatten());
        let start = frame.len();
        frame.extend_from_slice(&self.payload);
        if let (Some(key), Some(payload)) = (self.mask, frame.get_mut(start..)) {
            apply_mask(key, 0, payload);
        }
        frame
    }
}

/// Takes the same frame, and masks it.
impl From<Frame> for RawFrame {
    fn from(frame: Frame) -> Self {
        Self::new(frame.fin(), frame.opcode(), frame.into_payload())
    }
}
