//! The opening handshake.

mod error;
mod origin;
mod subprotocol;

#[cfg(feature = "server")]
mod opening;

#[cfg(feature = "server")]
pub(crate) use self::opening::{HeaderLines, Opening};
pub(crate) use self::origin::Origins;
pub(crate) use self::subprotocol::Subprotocols;

pub use self::error::HandshakeError;
