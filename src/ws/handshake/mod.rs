//! The opening handshake.

mod error;
mod origin;

#[cfg(feature = "server")]
mod opening;

#[cfg(feature = "server")]
pub(crate) use self::opening::{HeaderLines, Opening};
pub(crate) use self::origin::Origins;

pub use self::error::HandshakeError;
