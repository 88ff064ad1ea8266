//! Opcodes: the kinds of frames ([RFC 6455 §5.2], §11.8).
//!
//! [RFC 6455 §5.2]: https://www.rfc-editor.org/rfc/rfc6455#section-5.2

use std::fmt;

use super::ProtocolError;

/// The opcode of a frame.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "RFC 6455 reserves the rest; they fail the connection")]
#[repr(u64)]
pub enum OpCode {
    /// 0: continues the message that an earlier frame began.
    Continuation,
    /// 1: text, in UTF-8.
    Text,
    /// 2: bytes.
    Binary,
    /// 8: begins or answers the closing handshake.
    Close,
    /// 9: asks for a pong with the same payload.
    Ping,
    /// 10: answers a ping, or shows without a ping that the sender is alive.
    Pong,
}

impl OpCode {
    /// Whether this is close, ping or pong. Such frames have at most 125 bytes, and are never fragmented
    /// (§5.5).
    #[must_use]
    pub fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }

    /// Whether this is text, binary or a continuation (§5.6).
    #[must_use]
    pub fn is_data(self) -> bool {
        !self.is_control()
    }
}

impl TryFrom<u8> for OpCode {
    type Error = ProtocolError;

    fn try_from(bits: u8) -> Result<Self, ProtocolError> {
        match bits {
            0x0 => Ok(Self::Continuation),
            0x1 => Ok(Self::Text),
            0x2 => Ok(Self::Binary),
            0x8 => Ok(Self::Close),
            0x9 => Ok(Self::Ping),
            0xA => Ok(Self::Pong),
            _ => Err(ProtocolError::ReservedOpcode(bits)),
        }
    }
}

impl From<OpCode> for u8 {
    fn from(opcode: OpCode) -> Self {
        match opcode {
            OpCode::Continuation => 0x0,
            OpCode::Text => 0x1,
            OpCode::Binary => 0x2,
            OpCode::Close => 0x8,
            OpCode::Ping => 0x9,
            OpCode::Pong => 0xA,
        }
    }
}

/// The name of the RFC, in lower case.
impl fmt::Display for OpCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Continuation => "continuation",
            Self::Text => "text",
            Self::Binary => "binary",
            Self::Close => "close",
            Self::Ping => "ping",
            Self::Pong => "pong",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_opcode_round_trips_and_the_reserved_ten_are_refused() {
        let (known, reserved): (Vec<u8>, Vec<u8>) =
            (0..=0xF).partition(|bits| OpCode::try_from(*bits).is_ok());
        assert_eq!(known, [0x0, 0x1, 0x2, 0x8, 0x9, 0xA]);
        assert_eq!(reserved.len(), 10);
        for bits in known {
            let opcode = OpCode::try_from(bits).unwrap();
            assert_eq!(u8::from(opcode), bits);
            assert_eq!(opcode.to_string(), format!("{opcode:?}").to_lowercase());
        }
    }
}
