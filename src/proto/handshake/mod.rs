//! The opening handshake.

mod error;
#[cfg(any(feature = "accept", feature = "client"))]
mod header_lines;
#[cfg(feature = "accept")]
mod host;
#[cfg(feature = "accept")]
mod opening;
#[cfg(feature = "accept")]
mod origin;
mod subprotocol;

pub use self::error::HandshakeError;
#[cfg(feature = "server")]
pub(crate) use self::header_lines::RESERVED;
#[cfg(feature = "accept")]
pub(crate) use self::header_lines::is_header_line;
#[cfg(any(feature = "accept", feature = "client"))]
pub(crate) use self::header_lines::{HeaderLines, as_text, is_reserved};
#[cfg(feature = "accept")]
pub(crate) use self::host::is_host_and_port;
#[cfg(feature = "accept")]
pub(crate) use self::opening::Opening;
#[cfg(feature = "accept")]
pub(crate) use self::origin::Origins;
pub(crate) use self::subprotocol::Subprotocols;
