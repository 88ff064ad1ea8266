//! The peer's side of permessage-deflate ([RFC 7692]), and what a test compresses.
//!
//! | file | offers |
//! | --- | --- |
//! | `codec` | messages compressed as the peer likes, and what it receives read strictly |
//! | `inflater` | DEFLATE by the letter, so that zlib-rs is not its own judge |
//!
//! [RFC 7692]: https://www.rfc-editor.org/rfc/rfc7692

pub(crate) mod codec;
pub(crate) mod inflater;

use tidewire::WebSocketOptions;
use tidewire::deflate::DeflateParameters;

use crate::support::rng::Rng;

/// What a sender cuts off the end of a message (§7.2.1).
pub(crate) const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// RSV1, in the head of the first frame of a compressed message (§6).
pub(crate) const DEFLATED: u8 = 0x40;

/// Messages refer to those before them, in both directions.
pub(crate) const TAKEOVER: &str = "permessage-deflate";

/// Each message is compressed on its own, in both directions.
pub(crate) const ALONE: &str =
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// The parameters of an answer.
pub(crate) fn parameters(answer: &str) -> DeflateParameters {
    answer.parse().unwrap()
}

/// Options of a connection on which this was agreed.
pub(crate) fn agreed(answer: &str) -> WebSocketOptions {
    WebSocketOptions::default().agreed_deflate(parameters(answer))
}

/// Text that becomes a third of its length or less.
pub(crate) fn words(rng: &mut Rng, len: usize) -> String {
    const WORDS: [&str; 8] =
        ["{\"time\":", ",\"price\":", "\"symbol\"", "null}", "[true,", "0.", "ä€", "𝄞"];
    let mut text = String::new();
    while text.len() < len {
        text.push_str(WORDS[rng.below(8)]);
        text.push_str(&rng.below(1000).to_string());
    }
    let end = (0..=len).rev().find(|end| text.is_char_boundary(*end)).unwrap();
    text.truncate(end);
    // Not a byte less.
    text + &"x".repeat(len - end)
}

/// Bytes that do not become fewer.
pub(crate) fn noise(rng: &mut Rng, len: usize) -> Vec<u8> {
    (0..len).map(|_| u8::try_from(rng.next() >> 56).unwrap()).collect()
}
