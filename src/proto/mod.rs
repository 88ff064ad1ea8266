//! The WebSocket protocol, without I/O.
//!
//! No code in this folder is `async`, reads a clock or touches a socket: bytes come in, values go
//! out. So every file here can be tested byte by byte, and fuzzed. `handshake` holds the opening
//! handshake.

mod close;
mod decoder;
pub(crate) mod deflate;
mod error;
pub(crate) mod extension;
mod frame;
pub(crate) mod handshake;
mod header;
mod mask;
mod opcode;
mod state;
mod token_bucket;
mod utf8;
mod wire_batch;

pub use self::close::{CloseCode, CloseFrame};
pub(crate) use self::decoder::{Decoder, Limits};
pub use self::deflate::{DeflateAnswerError, DeflateParameters, InvalidDeflateParameters};
pub use self::error::{FrameError, ProtocolError};
pub use self::frame::Frame;
pub(crate) use self::frame::Payload;
pub(crate) use self::header::FrameHeader;
pub(crate) use self::mask::append as append_masked;
#[cfg(feature = "testing")]
pub(crate) use self::mask::apply as apply_mask;
pub use self::opcode::OpCode;
pub(crate) use self::state::State;
pub(crate) use self::token_bucket::Bucket;
pub(crate) use self::utf8::Utf8;
pub(crate) use self::wire_batch::WireBatch;

/// Longest payload of a control frame, in bytes (RFC 6455 §5.5).
pub(crate) const MAX_CONTROL_PAYLOAD: usize = 125;

/// A side of a connection.
///
/// A client masks its frames and a server does not (RFC 6455 §5.1). In all else they are equal.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "a connection has two sides")]
pub enum Role {
    /// The side that answered the opening handshake.
    Server,
    /// The side that sent the opening handshake.
    Client,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Client => "client",
        })
    }
}
