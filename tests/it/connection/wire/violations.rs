//! Frames that break a rule, and the close code each is answered with (RFC 6455 §5, §7.1.7).

use futures::channel::oneshot;
use futures::future::pending;
use tidewire::frame::Role;
use tidewire::{Error, WebSocketOptions};

use super::{Violation, each_fails_the_connection, violation};
use crate::support::frames::{hex, shown};
use crate::support::peer::{collect, echo, serve, within};

fn each_is_a_protocol_error(violations: &[(&str, &str)]) {
    let violations: Vec<_> =
        violations.iter().map(|(what, sent)| violation(*what, sent, 1002)).collect();
    each_fails_the_connection(&WebSocketOptions::default(), Role::Server, &violations);
}

#[test]
pub(crate) fn a_client_frame_without_a_mask_fails_the_connection() {
    each_is_a_protocol_error(&[
        ("text", "81 05 48656c6c6f"),
        ("empty text", "81 00"),
        ("a ping", "89 00"),
        ("a close", "88 00"),
        ("a second fragment", "01 81 00000000 61 80 01 62"),
        ("a long frame", "82 7e 0100"),
    ]);
}

#[test]
pub(crate) fn a_server_frame_with_a_mask_fails_the_connection() {
    let options = WebSocketOptions::default();
    let violations = [
        violation("text", "81 85 37fa213d 7f9f4d5158", 1002),
        violation("empty text", "81 80 37fa213d", 1002),
        violation("a ping", "89 80 37fa213d", 1002),
        violation("a close", "88 80 37fa213d", 1002),
        violation("a reserved bit, as from a client", "c1 00", 1002),
    ];
    each_fails_the_connection(&options, Role::Client, &violations);
}

#[test]
pub(crate) fn reserved_bits_fail_the_connection() {
    let mut violations = Vec::new();
    for bits in [0x40, 0x20, 0x10, 0x70] {
        for (what, head) in [
            ("text", 0x81),
            ("a fragment", 0x01),
            ("binary", 0x82),
            ("close", 0x88),
            ("ping", 0x89),
        ] {
            violations.push(violation(what, &format!("{:02x} 80 00000000", head | bits), 1002));
        }
        let next = format!("01 80 00000000 {:02x} 80 00000000", 0x80 | bits);
        violations.push(violation("a continuation", &next, 1002));
    }
    each_fails_the_connection(&WebSocketOptions::default(), Role::Server, &violations);
}

#[test]
pub(crate) fn reserved_opcodes_fail_the_connection() {
    let reserved = (3..=7).chain(0xb..=0xf);
    let frame = |opcode: u8| format!("{:02x} 80 00000000", 0x80 | opcode);
    let violations: Vec<_> =
        reserved.map(|opcode| violation("reserved", &frame(opcode), 1002)).collect();
    each_fails_the_connection(&WebSocketOptions::default(), Role::Server, &violations);
}

#[test]
pub(crate) fn a_control_frame_that_is_too_long_fails_the_connection() {
    each_is_a_protocol_error(&[
        ("a ping of 126 bytes", "89 fe 007e 00000000"),
        ("a pong of 126 bytes", "8a fe 007e 00000000"),
        ("a close of 126 bytes", "88 fe 007e 00000000 03e8"),
        ("a ping of 64 KiB", "89 ff 0000000000010000 00000000"),
    ]);
}

#[test]
pub(crate) fn a_fragmented_control_frame_fails_the_connection() {
    each_is_a_protocol_error(&[
        ("a ping", "09 80 00000000"),
        ("a pong", "0a 80 00000000"),
        ("a close", "08 80 00000000"),
        ("a ping between fragments", "01 80 00000000 09 80 00000000"),
    ]);
}

#[test]
pub(crate) fn a_length_in_more_bytes_than_it_needs_fails_the_connection() {
    each_is_a_protocol_error(&[
        ("0 in 16 bits", "82 fe 0000 00000000"),
        ("125 in 16 bits", "82 fe 007d 00000000"),
        ("0 in 64 bits", "82 ff 0000000000000000 00000000"),
        ("126 in 64 bits", "82 ff 000000000000007e 00000000"),
        ("65 535 in 64 bits", "82 ff 000000000000ffff 00000000"),
    ]);
}

#[test]
pub(crate) fn a_length_with_its_top_bit_set_fails_the_connection() {
    each_is_a_protocol_error(&[
        ("2^63", "82 ff 8000000000000000 00000000"),
        ("2^64 - 1", "82 ff ffffffffffffffff 00000000"),
    ]);
}

#[test]
pub(crate) fn fragments_out_of_order_fail_the_connection() {
    each_is_a_protocol_error(&[
        ("a continuation of nothing", "80 81 00000000 61"),
        ("an unfinished one", "00 81 00000000 61"),
        ("text inside text", "01 81 00000000 61 81 81 00000000 62"),
        ("binary inside text", "01 81 00000000 61 82 81 00000000 62"),
        ("a first fragment inside a message", "02 81 00000000 61 02 81 00000000 62"),
    ]);
}

#[test]
pub(crate) fn a_close_frame_that_is_malformed_fails_the_connection() {
    let mut violations = vec![
        violation("half a code", "88 81 00000000 03", 1002),
        violation("a reason that is not text", "88 84 00000000 03e8 c328", 1007),
        violation("a reason that is cut", "88 83 00000000 03e8 e2", 1007),
    ];
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        violations.push(violation("a code", &format!("88 82 00000000 {code:04x}"), 1002));
    }
    each_fails_the_connection(&WebSocketOptions::default(), Role::Server, &violations);
}

#[test]
fn a_violation_is_told_although_the_handler_waits_for_something_else() {
    let violations = [
        violation("a reserved bit", "c1 80 00000000", 1002),
        violation("no mask", "81 00", 1002),
        violation("long text", "81 fe 0080 00000000 ff", 1007),
        violation("a message that is too big", "82 ff 0000000000100001 00000000", 1009),
    ];
    for violation in violations {
        is_told_to_the_peer_of_a_busy_handler(&violation);
    }
}

#[test]
fn short_text_that_is_not_utf_8_is_told_although_the_handler_waits_for_something_else() {
    let violation = violation("short text", "81 81 00000000 ff", 1007);
    is_told_to_the_peer_of_a_busy_handler(&violation);
}

fn is_told_to_the_peer_of_a_busy_handler(Violation { what, sent, code }: &Violation) {
    eprintln!("{what}: {}", shown(sent));
    within(async {
        let mut peer = serve(&WebSocketOptions::default(), |ws| async move {
            let _ws = ws;
            pending().await
        });
        peer.send(sent).await;
        peer.expect_close(*code).await;
    });
}

#[test]
pub(crate) fn a_ping_behind_a_violation_is_not_answered() {
    for (violation, code) in
        [("c1 80 00000000", 1002), ("81 fe 0080 00000000 ff", 1007), ("81 81 00000000 ff", 1007)]
    {
        eprintln!("{violation}");
        within(async {
            let mut peer = serve(&WebSocketOptions::default(), echo);
            peer.send([hex(violation), hex("89 80 00000000")].concat()).await;
            peer.expect_close(code).await;
        });
    }
}

#[test]
pub(crate) fn nothing_that_follows_a_violation_is_read() {
    within(async {
        let (tell, told) = oneshot::channel();
        let mut peer = serve(&WebSocketOptions::default(), |mut ws| async move {
            let _ = tell.send(collect(&mut ws).await);
            Ok(())
        });
        peer.send(hex("81 00")).await;
        assert_eq!(peer.frame().await.close_code(), Some(1002));
        peer.send(hex("81 81 00000000 61 89 80 00000000 82 80 00000000")).await;
        peer.expect_end().await;
        let (messages, end) = told.await.unwrap();
        assert!(messages.is_empty() && matches!(end, Err(Error::Protocol(_))), "{end:?}");
    });
}
