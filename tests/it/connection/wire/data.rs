//! Messages of every size and in any number of fragments (RFC 6455 §5.2, §5.4, §5.6).

use tidewire::WebSocketOptions;

use super::{
    Exchange, Violation, each_fails_the_connection, each_is_answered, exchange, violation,
};
use crate::support::frames::{BINARY, CONTINUATION, FIN, TEXT, hex, masked, plain};
use crate::support::peer::{echo, serve, within};
use tidewire::frame::Role;

/// Largest message of these tests, in bytes.
const LIMIT: usize = 70_000;

fn options() -> WebSocketOptions {
    WebSocketOptions::default().max_message_size(LIMIT)
}

#[test]
pub(crate) fn messages_of_every_size_are_echoed() {
    let sizes = [
        (0, "00", "80"),
        (1, "01", "81"),
        (125, "7d", "fd"),
        (126, "7e 007e", "fe 007e"),
        (65_535, "7e ffff", "fe ffff"),
        (65_536, "7f 0000000000010000", "ff 0000000000010000"),
        (LIMIT, "7f 0000000000011170", "ff 0000000000011170"),
    ];
    let mut exchanges = Vec::new();
    for (size, plain_len, masked_len) in sizes {
        for (what, head, byte) in [("text", "81", b'a'), ("binary", "82", 0xff)] {
            let key = hex("37 fa 21 3d");
            let payload = vec![byte; size];
            let covered: Vec<u8> = key.iter().cycle().take(size).map(|key| key ^ byte).collect();
            let sent = [hex(head), hex(masked_len), key, covered].concat();
            let seen = [hex(head), hex(plain_len), payload].concat();
            exchanges.push(exchange(what, sent, seen));
        }
    }
    each_is_answered(&options(), &exchanges);
}

#[test]
pub(crate) fn fragments_are_joined_in_order_with_control_frames_between() {
    let asked = "89 81 00000000 70";
    let answered = "8a 01 70";
    let cases = [
        ("two fragments", "01 83 00000000 48656c  80 82 00000000 6c6f", "81 05 48656c6c6f"),
        ("three binary", "02 81 00000000 ff 00 81 00000000 fe 80 81 00000000 fd", "82 03 fffefd"),
        ("all empty", "01 80 00000000 00 80 00000000 80 80 00000000", "81 00"),
        ("empty but the middle", "01 80 00000000 00 81 00000000 61 80 80 00000000", "81 01 61"),
        ("an empty first", "02 80 00000000 80 81 00000000 61", "82 01 61"),
        ("an empty last", "02 81 00000000 61 80 80 00000000", "82 01 61"),
        ("a character cut", "01 82 00000000 e282 80 81 00000000 ac", "81 03 e282ac"),
        ("another key each", "02 82 01020304 0103 80 82 05060708 0607", "82 04 00010301"),
    ];
    let mut exchanges: Vec<Exchange> =
        cases.iter().map(|(what, sent, seen)| exchange(what, hex(sent), hex(seen))).collect();
    let between = format!("01 81 00000000 61 {asked} 00 81 00000000 62 {asked} 80 81 00000000 63");
    let pongs = format!("{answered} {answered} 81 03 616263");
    exchanges.push(exchange("pings between", hex(&between), hex(&pongs)));
    let between = "01 81 00000000 61 8a 81 00000000 70 80 81 00000000 63";
    exchanges.push(exchange("a pong between", hex(between), hex("81 02 6163")));
    each_is_answered(&options(), &exchanges);
}

#[test]
fn as_many_fragments_as_allowed_are_joined() {
    let middle = masked(CONTINUATION & !FIN, "b").repeat(6);
    let sent = [masked(TEXT & !FIN, "a"), middle, masked(CONTINUATION, "c")].concat();
    let eight = exchange("eight fragments", sent, plain(TEXT, "abbbbbbc"));
    each_is_answered(&options().max_fragments(8), &[eight]);
}

#[test]
fn a_message_over_a_limit_fails_the_connection_before_it_has_arrived() {
    let options = options().max_fragments(8).max_frame_size(60_000);
    let whole = WebSocketOptions::default().max_message_size(LIMIT);
    let fragments = |count: usize| "00 81 00000000 62".repeat(count);
    each_fails_the_connection(
        &options,
        Role::Server,
        &[
            violation("one byte more in a frame", "82 fe ea61 00000000", 1009),
            violation(
                "the ninth fragment",
                &format!("{} {}", "02 80 00000000", fragments(8)),
                1008,
            ),
            violation(
                "an empty ninth",
                &("02 80 00000000".to_owned() + &"00 80 00000000".repeat(8)),
                1008,
            ),
        ],
    );
    each_fails_the_connection(
        &whole,
        Role::Server,
        &[
            violation("one byte more", "82 ff 0000000000011171 00000000", 1009),
            violation("one byte more of text", "81 ff 0000000000011171 00000000", 1009),
            violation("2^63 - 1 bytes", "82 ff 7fffffffffffffff 00000000", 1009),
        ],
    );
    let sum = Violation {
        what: "one byte more in two fragments".to_owned(),
        sent: [masked(BINARY & !FIN, vec![0; LIMIT]), hex("80 81 00000000")].concat(),
        code: 1009,
    };
    each_fails_the_connection(&whole, Role::Server, &[sum]);
}

#[test]
fn a_limit_of_nothing_takes_empty_messages_only() {
    within(async {
        let mut peer = serve(&WebSocketOptions::default().max_message_size(0), echo);
        peer.send(hex("81 80 00000000 82 80 00000000")).await;
        peer.expect_hex("81 00 82 00").await;
        peer.send(hex("81 81 00000000 61")).await;
        peer.expect_close(1009).await;
    });
}

#[test]
fn bytes_read_beyond_the_handshake_are_the_first_of_the_connection() {
    use crate::support::peer::Peer;
    use crate::support::pipe::{Knobs, pipe};
    let sent = [masked(TEXT, "Hello"), masked(TEXT, "there")].concat();
    for cut in 0..=sent.len() {
        let (unread, rest) = sent.split_at(cut);
        let (stream, end) = pipe(Knobs::default());
        let options = WebSocketOptions::default();
        let unread = bytes::Bytes::copy_from_slice(unread);
        let run = tidewire::WebSocket::run(stream, unread, Role::Server, &options, echo);
        async_std::task::spawn(run);
        let mut peer = Peer { end };
        within(async {
            peer.send(rest).await;
            peer.expect_hex("81 05 48656c6c6f 81 05 7468657265").await;
        });
    }
}

#[test]
pub(crate) fn a_client_masks_with_a_new_key_each_time_and_a_server_does_not_mask() {
    use crate::support::peer::{Drive, Peer, drive};
    use crate::support::pipe::{Knobs, pipe};
    within(async {
        let mut peer = serve(&WebSocketOptions::default(), |mut ws| async move {
            ws.send("Hello").await?;
            ws.send([1, 2, 3]).await
        });
        peer.expect_hex("81 05 48656c6c6f 82 03 010203").await;

        let (stream, end) = pipe(Knobs::default());
        drive(
            Drive::Task,
            stream,
            Role::Client,
            &WebSocketOptions::default(),
            |mut ws| async move {
                for _ in 0..100 {
                    ws.send(vec![0; 4]).await?;
                }
                ws.close(1000_u16, "").await.map(drop)
            },
        );
        let mut peer = Peer { end };
        let mut keys = std::collections::HashSet::new();
        for _ in 0..100 {
            let frame = peer.read(10).await;
            assert_eq!(frame[..2], hex("82 84"));
            // The payload is zeros, so what is on the wire is the key.
            assert_eq!(frame[2..6], frame[6..]);
            keys.insert(frame[2..6].to_vec());
        }
        assert!(keys.len() > 98, "{} keys for 100 frames", keys.len());
        assert_eq!(peer.masked_frame().await.close_code(), Some(1000));
    });
}
