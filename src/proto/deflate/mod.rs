//! permessage-deflate ([RFC 7692]): the negotiation and the codec.
//!
//! | file | holds |
//! | --- | --- |
//! | `negotiation` | the parameters, and how offers and answers agree on them |
//! | `deflater`, `inflater` | one message at a time, piece by piece |
//!
//! Only the last two name zlib-rs.
//!
//! [RFC 7692]: https://www.rfc-editor.org/rfc/rfc7692

mod deflater;
mod inflater;
mod negotiation;
#[cfg(test)]
mod tests;

pub(crate) use self::deflater::{Deflater, DeflaterConfig, Flush};
pub(crate) use self::inflater::Inflater;
pub use self::negotiation::{DeflateAnswerError, DeflateParameters, InvalidDeflateParameters};
pub(crate) use self::negotiation::{Terms, accept, check_answer, offer};

/// The bytes that a sender cuts off the end of each message, and a receiver appends (§7.2.1, §7.2.2).
const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

/// The advance of a counter of zlib. It counts bytes in memory, so the difference fits `usize`.
fn since(old: u64, new: u64) -> usize {
    usize::try_from(new.saturating_sub(old)).unwrap_or(usize::MAX)
}
