//! permessage-deflate, as a peer sees it and as a handler does ([RFC 7692]).
//!
//! | file | shows |
//! | --- | --- |
//! | `negotiation` | the opening handshake: offers, answers, and that both sides keep to them |
//! | `budget` | memory for context takeover that connections share |
//! | `wire` | what is sent and received, in hex: the examples of §7.2.3, and what may come between |
//! | `violations` | what fails the connection, and how both sides learn of it |
//! | `corruption` | messages with a bit, or more, changed |
//! | `bombs` | short messages that become very long ones, and what they cost |
//! | `sending` | which messages are compressed, and what is counted |
//! | `senders` | messages of many tasks |
//! | `frames` | messages by their frames, received and sent |
//! | `cancel` | futures that are dropped at every poll |
//! | `turns` | long messages beside other tasks |
//! | `roundtrip` | random messages under random parameters |
//! | `codec`, `inflater` | helpers: the peer's side |
//!
//! [RFC 7692]: https://www.rfc-editor.org/rfc/rfc7692

pub(super) mod codec;
mod inflater;

mod budget;
mod negotiation;

mod corruption;
mod violations;
mod wire;

// It reads `/proc`.
#[cfg(target_os = "linux")]
mod bombs;

mod frames;
mod senders;
mod sending;

mod cancel;
mod turns;

mod roundtrip;

use tidewire::{DeflateParameters, WebSocketOptions};

use crate::support::rng::Rng;

/// What a sender cuts off the end of a message (§7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// RSV1, in the head of the first frame of a compressed message (§6).
const DEFLATED: u8 = 0x40;

/// Messages refer to those before them, in both directions.
pub(super) const TAKEOVER: &str = "permessage-deflate";

/// Each message is compressed on its own, in both directions.
pub(super) const ALONE: &str =
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

/// The parameters of an answer.
pub(super) fn parameters(answer: &str) -> DeflateParameters {
    answer.parse().unwrap()
}

/// Options of a connection on which this was agreed.
pub(super) fn agreed(answer: &str) -> WebSocketOptions {
    WebSocketOptions::default().agreed_deflate(parameters(answer))
}

/// Text that becomes a third of its length or less.
pub(super) fn words(rng: &mut Rng, len: usize) -> String {
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
fn noise(rng: &mut Rng, len: usize) -> Vec<u8> {
    (0..len).map(|_| u8::try_from(rng.next() >> 56).unwrap()).collect()
}
