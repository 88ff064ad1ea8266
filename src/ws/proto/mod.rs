//! The WebSocket protocol, without I/O.
//!
//! Nothing in this folder is `async`, reads a clock or touches a socket: bytes come in, values go
//! out. That is why every file here can be tested byte by byte, and fuzzed.

mod assembler;
mod bucket;
mod close;
mod decoder;
pub(crate) mod deflate;
mod error;
pub(crate) mod extension;
mod frame;
mod header;
mod limits;
mod mask;
mod opcode;
mod payload;
mod run;
mod state;
mod utf8;

pub(crate) use self::bucket::Bucket;
pub(crate) use self::decoder::Decoder;
pub(crate) use self::header::FrameHeader;
pub(crate) use self::limits::Limits;
pub(crate) use self::mask::apply as apply_mask;
pub(crate) use self::payload::Payload;
pub(crate) use self::run::Run;
pub(crate) use self::state::State;
pub(crate) use self::utf8::Utf8;

pub use self::close::{CloseCode, CloseFrame};
pub use self::deflate::{DeflateAnswerError, DeflateParameters, InvalidDeflateParameters};
pub use self::error::{FrameError, ProtocolError};
pub use self::frame::Frame;
pub use self::opcode::OpCode;

/// Longest payload of a control frame, in bytes (RFC 6455 §5.5).
pub(crate) const MAX_CONTROL_PAYLOAD: usize = 125;

/// Which side of the connection this is.
///
/// A client masks what it sends and a server does not (RFC 6455 §5.1); all else is the same.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "a connection has two sides")]
pub enum Role {
    /// The side that answered the opening handshake.
    Server,
    /// The side that sent the opening handshake.
    Client,
}
