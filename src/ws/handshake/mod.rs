//! The opening handshake.

mod error;
#[cfg(any(feature = "accept", feature = "client"))]
mod header_lines;
#[cfg(feature = "accept")]
mod host;
#[cfg(feature = "accept")]
mod opening;
mod origin;
#[cfg(feature = "accept")]
mod reserved;
mod subprotocol;

#[cfg(feature = "accept")]
pub(crate) use self::header_lines::is_token;
#[cfg(any(feature = "accept", feature = "client"))]
pub(crate) use self::header_lines::{HeaderLines, as_text};
#[cfg(feature = "accept")]
pub(crate) use self::host::is_host_and_port;
#[cfg(feature = "accept")]
pub(crate) use self::opening::Opening;
pub(crate) use self::origin::Origins;
#[cfg(feature = "server")]
pub(crate) use self::reserved::RESERVED;
#[cfg(feature = "accept")]
pub(crate) use self::reserved::is_reserved;
pub(crate) use self::subprotocol::Subprotocols;

pub use self::error::HandshakeError;
