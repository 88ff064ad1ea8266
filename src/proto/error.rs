//! Violations of the protocol, by the peer and by the caller.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;

use super::{CloseCode, OpCode};

/// A rule of RFC 6455, or a limit of this endpoint, that the peer broke.
///
/// Every variant maps to exactly one [close code](Self::close_code). The connection fails with that
/// code when it finds the violation (§7.1.7).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A close frame with a payload of one byte. It must be empty, or hold at least the two bytes of a
    /// code (§5.5.1).
    ClosePayloadTruncated,
    /// A control frame without FIN (§5.5).
    ControlFrameFragmented(OpCode),
    /// A control frame with more than 125 bytes (§5.5).
    ControlFrameTooLong {
        /// Payload length that the peer announced, in bytes.
        len: usize,
    },
    /// A compressed message that cannot be decompressed (RFC 7692 §7.2.2).
    DeflateCorrupt,
    /// More control frames than [`rate_limit`](crate::WebSocketOptions::rate_limit) allows.
    ControlRateExceeded {
        /// The limit, in control frames each second.
        per_second: u32,
    },
    /// A frame larger than [`max_frame_size`](crate::WebSocketOptions::max_frame_size).
    FrameTooBig {
        /// Payload length that the peer announced, in bytes.
        len: u64,
        /// The limit, in bytes.
        max: usize,
    },
    /// A close code that must not be sent (§7.4).
    InvalidCloseCode(u16),
    /// A text message, or the reason of a close frame, that is not UTF-8 (§8.1).
    InvalidUtf8,
    /// A 64-bit payload length with its top bit set (§5.2).
    LengthOverflow(u64),
    /// A payload length written in more bytes than it needs (§5.2).
    LengthNotMinimal(u64),
    /// A frame from a client without a mask (§5.1).
    MaskMissing,
    /// A frame from a server with a mask (§5.1).
    MaskUnexpected,
    /// A message larger than [`max_message_size`](crate::WebSocketOptions::max_message_size), on
    /// the wire or decompressed.
    MessageTooBig {
        /// Length of the message so far, in bytes, the announced frame included.
        len: u64,
        /// The limit, in bytes.
        max: usize,
    },
    /// More messages than [`rate_limit`](crate::WebSocketOptions::rate_limit) allows.
    MessageRateExceeded {
        /// The limit, in messages each second.
        per_second: u32,
    },
    /// A new message before the last fragment of the one under way (§5.4).
    MessageInterrupted(OpCode),
    /// A reserved bit that no negotiated extension uses in this frame (§5.2). permessage-deflate uses
    /// RSV1, and only in the first frame of a message (RFC 7692 §6).
    ReservedBits(u8),
    /// An opcode that the RFC reserves (§5.2).
    ReservedOpcode(u8),
    /// A message of more than [`max_fragments`](crate::WebSocketOptions::max_fragments) frames.
    TooManyFragments {
        /// The limit.
        max: usize,
    },
    /// A continuation frame without a message to continue (§5.4).
    UnexpectedContinuation,
}

impl ProtocolError {
    /// The close code that the connection fails with.
    #[must_use]
    pub fn close_code(self) -> CloseCode {
        match self {
            Self::DeflateCorrupt | Self::InvalidUtf8 => CloseCode::INVALID_PAYLOAD,
            Self::FrameTooBig { .. } | Self::MessageTooBig { .. } => CloseCode::MESSAGE_TOO_BIG,
            Self::ControlRateExceeded { .. }
            | Self::MessageRateExceeded { .. }
            | Self::TooManyFragments { .. } => CloseCode::POLICY_VIOLATION,
            Self::ClosePayloadTruncated
            | Self::ControlFrameFragmented(_)
            | Self::ControlFrameTooLong { .. }
            | Self::InvalidCloseCode(_)
            | Self::LengthOverflow(_)
            | Self::LengthNotMinimal(_)
            | Self::MaskMissing
            | Self::MaskUnexpected
            | Self::MessageInterrupted(_)
            | Self::ReservedBits(_)
            | Self::ReservedOpcode(_)
            | Self::UnexpectedContinuation => CloseCode::PROTOCOL_ERROR,
        }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClosePayloadTruncated => f.write_str("close frame with a one-byte payload"),
            Self::ControlFrameFragmented(opcode) => write!(f, "fragmented {opcode:?} frame"),
            Self::ControlFrameTooLong { len } => {
                write!(f, "control frame of {len} bytes, the limit is 125")
            }
            Self::ControlRateExceeded { per_second } => {
                write!(f, "control frames come faster than the {per_second} per second allowed")
            }
            Self::DeflateCorrupt => f.write_str("compressed message is corrupt"),
            Self::FrameTooBig { len, max } => {
                write!(f, "frame of {len} bytes, the limit is {max}")
            }
            Self::InvalidCloseCode(code) => write!(f, "close code {code} may not be sent"),
            Self::InvalidUtf8 => f.write_str("payload is not UTF-8"),
            Self::LengthOverflow(len) => write!(f, "frame length {len} exceeds 2^63 - 1"),
            Self::LengthNotMinimal(len) => {
                write!(f, "frame length {len} is written in more bytes than it needs")
            }
            Self::MaskMissing => f.write_str("frame from a client without a mask"),
            Self::MaskUnexpected => f.write_str("frame from a server with a mask"),
            Self::MessageTooBig { len, max } => {
                write!(f, "message of {len} bytes or more, the limit is {max}")
            }
            Self::MessageInterrupted(opcode) => {
                write!(f, "{opcode:?} frame inside a fragmented message")
            }
            Self::MessageRateExceeded { per_second } => {
                write!(f, "messages come faster than the {per_second} per second allowed")
            }
            Self::ReservedBits(bits) => write!(f, "reserved bits {bits:03b} are set"),
            Self::ReservedOpcode(opcode) => write!(f, "opcode {opcode:#x} is reserved"),
            Self::TooManyFragments { max } => {
                write!(f, "message of more than {max} fragments")
            }
            Self::UnexpectedContinuation => f.write_str("continuation frame without a message"),
        }
    }
}

impl Error for ProtocolError {}

/// Lets a function that takes any `TryInto<CloseCode>` take a [`CloseCode`], too.
impl From<Infallible> for ProtocolError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// The rule that a frame of the caller would have broken. The frame was not sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum FrameError {
    /// A close frame. [`close`](crate::WebSocket::close) sends close frames.
    CloseFrame,
    /// A control frame without FIN (§5.5).
    ControlFrameFragmented(OpCode),
    /// A control frame of more than 125 bytes (§5.5).
    ControlFrameTooLong {
        /// Payload length, in bytes.
        len: usize,
    },
    /// An unfragmented text frame that is not UTF-8 (§8.1).
    InvalidUtf8,
    /// A new message before the last fragment of the one under way (§5.4).
    MessageInterrupted(OpCode),
    /// A continuation frame without a message to continue (§5.4).
    UnexpectedContinuation,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CloseFrame => f.write_str("close frames are sent by close()"),
            Self::ControlFrameFragmented(opcode) => {
                write!(f, "{opcode:?} frames cannot be fragmented")
            }
            Self::ControlFrameTooLong { len } => {
                write!(f, "control frame of {len} bytes, the limit is 125")
            }
            Self::InvalidUtf8 => f.write_str("payload is not UTF-8"),
            Self::MessageInterrupted(opcode) => {
                write!(f, "{opcode:?} frame before the last fragment of a message")
            }
            Self::UnexpectedContinuation => f.write_str("continuation frame without a message"),
        }
    }
}

impl Error for FrameError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_violation_has_its_close_code_and_its_text() {
        use ProtocolError as E;
        let cases: [(E, u16, &str); 19] = [
            (E::ClosePayloadTruncated, 1002, "close frame with a one-byte payload"),
            (E::ControlFrameFragmented(OpCode::Ping), 1002, "fragmented Ping frame"),
            (
                E::ControlFrameTooLong { len: 126 },
                1002,
                "control frame of 126 bytes, the limit is 125",
            ),
            (E::DeflateCorrupt, 1007, "compressed message is corrupt"),
            (
                E::ControlRateExceeded { per_second: 9 },
                1008,
                "control frames come faster than the 9 per second allowed",
            ),
            (E::FrameTooBig { len: 7, max: 6 }, 1009, "frame of 7 bytes, the limit is 6"),
            (E::InvalidCloseCode(1005), 1002, "close code 1005 may not be sent"),
            (E::InvalidUtf8, 1007, "payload is not UTF-8"),
            (E::LengthOverflow(1 << 63), 1002, "frame length 9223372036854775808 exceeds 2^63 - 1"),
            (E::LengthNotMinimal(5), 1002, "frame length 5 is written in more bytes than it needs"),
            (E::MaskMissing, 1002, "frame from a client without a mask"),
            (E::MaskUnexpected, 1002, "frame from a server with a mask"),
            (
                E::MessageTooBig { len: 9, max: 8 },
                1009,
                "message of 9 bytes or more, the limit is 8",
            ),
            (
                E::MessageRateExceeded { per_second: 9 },
                1008,
                "messages come faster than the 9 per second allowed",
            ),
            (E::MessageInterrupted(OpCode::Text), 1002, "Text frame inside a fragmented message"),
            (E::ReservedBits(0b010), 1002, "reserved bits 010 are set"),
            (E::ReservedOpcode(0xB), 1002, "opcode 0xb is reserved"),
            (E::TooManyFragments { max: 2 }, 1008, "message of more than 2 fragments"),
            (E::UnexpectedContinuation, 1002, "continuation frame without a message"),
        ];
        for (error, code, text) in cases {
            assert_eq!(error.to_string(), text);
            assert_eq!(u16::from(error.close_code()), code, "{error}");
        }
    }

    #[test]
    fn each_frame_that_is_not_sent_says_why() {
        for (error, text) in [
            (FrameError::CloseFrame, "close frames are sent by close()"),
            (FrameError::ControlFrameFragmented(OpCode::Pong), "Pong frames cannot be fragmented"),
            (
                FrameError::ControlFrameTooLong { len: 126 },
                "control frame of 126 bytes, the limit is 125",
            ),
            (FrameError::InvalidUtf8, "payload is not UTF-8"),
            (
                FrameError::MessageInterrupted(OpCode::Binary),
                "Binary frame before the last fragment of a message",
            ),
            (FrameError::UnexpectedContinuation, "continuation frame without a message"),
        ] {
            assert_eq!(error.to_string(), text);
        }
    }
}
