//! Text is UTF-8, and what is not is refused at the byte that proves it (RFC 6455 §8.1).

use tidewire::WebSocketOptions;
use tidewire::frame::Role;

use super::{each_fails_the_connection, each_is_answered, exchange, violation};
use crate::support::frames::{hex, masked};
use crate::support::peer::{Drive, Peer, drive, echo, within};
use crate::support::pipe::{Knobs, pipe};

/// Payloads that are not UTF-8, each at the byte that proves it.
const INVALID: [(&str, &str); 12] = [
    ("a byte of no sequence", "ff"),
    ("another", "fe"),
    ("a continuation first", "80"),
    ("an overlong slash", "c0"),
    ("an overlong of two", "c1"),
    ("an overlong of three", "e080"),
    ("an overlong of four", "f080"),
    ("a surrogate", "eda0"),
    ("beyond the last", "f490"),
    ("five bytes", "f8"),
    ("a sequence that stops", "c328"),
    ("a longer one that stops", "e28228"),
];

#[test]
pub(crate) fn text_that_is_not_utf_8_fails_the_connection_with_1007() {
    let whole = INVALID.map(|(what, bytes)| {
        let len = bytes.len() / 2;
        violation(what, &format!("81 {:02x} 00000000 {bytes}", 0x80 + len), 1007)
    });
    each_fails_the_connection(&WebSocketOptions::default(), Role::Server, &whole);
    let to_client = violation("from a server", "81 01 ff", 1007);
    each_fails_the_connection(&WebSocketOptions::default(), Role::Client, &[to_client]);
}

#[test]
pub(crate) fn a_bad_byte_in_the_third_fragment_fails_the_connection_there() {
    let third = INVALID.map(|(what, bytes)| {
        let len = 0x80 + bytes.len() / 2;
        let begun = "01 81 00000000 61 00 81 00000000 62";
        violation(what, &format!("{begun} 00 {len:02x} 00000000 {bytes}"), 1007)
    });
    let cut = violation("cut by frames", "01 81 00000000 c3 00 81 00000000 28", 1007);
    let violations: Vec<_> = third.into_iter().chain([cut]).collect();
    each_fails_the_connection(&WebSocketOptions::default(), Role::Server, &violations);
}

#[test]
pub(crate) fn a_bad_byte_in_the_middle_of_a_large_frame_fails_the_connection_there() {
    for (what, bytes) in INVALID {
        for by in Drive::BOTH {
            eprintln!("{what}, {by:?}");
            within(async {
                let (stream, end) = pipe(Knobs::default());
                drive(by, stream, Role::Server, &WebSocketOptions::default(), echo);
                let mut peer = Peer { end };
                peer.send(hex("81 ff 0000000000010000 00000000")).await;
                // Pieces that cut characters.
                for piece in "€".repeat(10_000).as_bytes().chunks(1000) {
                    peer.send(piece).await;
                }
                peer.send(hex(bytes)).await;
                peer.expect_close(1007).await;
            });
        }
    }
}

#[test]
pub(crate) fn text_that_ends_inside_a_character_fails_the_connection() {
    each_fails_the_connection(
        &WebSocketOptions::default(),
        Role::Server,
        &[
            violation("one byte of two", "81 81 00000000 c3", 1007),
            violation("three bytes of four", "81 83 00000000 f09f98", 1007),
            violation("in the last fragment", "01 81 00000000 61 80 81 00000000 c3", 1007),
            violation("before an empty last", "01 81 00000000 c3 80 80 00000000", 1007),
        ],
    );
}

#[test]
pub(crate) fn text_with_characters_of_all_lengths_is_received_for_every_cut() {
    let text = "$£€😀\u{0}\u{7f}\u{80}\u{7ff}\u{800}\u{fffd}\u{10000}\u{10ffff}";
    let mut exchanges = vec![];
    for cut in 0..=text.len() {
        let (first, last) = text.as_bytes().split_at(cut);
        let sent = [masked(0x01, first), masked(0x80, last)].concat();
        let seen = [&hex("81 1e"), text.as_bytes()].concat();
        exchanges.push(exchange("cut text", sent, seen));
    }
    assert_eq!(text.len(), 0x1e);
    each_is_answered(&WebSocketOptions::default(), &exchanges);
}

#[test]
fn binary_may_be_anything() {
    let sent = hex("82 84 00000000 fffec080 02 81 00000000 ff 80 81 00000000 fe");
    let binary = exchange("not text", sent, hex("82 04 fffec080 82 02 fffe"));
    each_is_answered(&WebSocketOptions::default(), &[binary]);
}
