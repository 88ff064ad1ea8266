//! The examples of [RFC 7692 §7.2.3] in both directions, and what may stand between them.
//!
//! [RFC 7692 §7.2.3]: https://www.rfc-editor.org/rfc/rfc7692#section-7.2.3

use futures::channel::oneshot;
use tidewire::deflate::DeflateOptions;
use tidewire::frame::Role;
use tidewire::{Message, WebSocketOptions};

use crate::support::deflate::codec::{Deflater, Reader, read_frame};
use crate::support::deflate::inflater::Inflater;
use crate::support::deflate::{ALONE, TAKEOVER, agreed, parameters};
use crate::support::frames::{CLOSE, CONTINUATION, Seen, TEXT, close};
use crate::support::frames::{hex, masked, plain, shown, take_frame};
use crate::support::peer::{Drive, Peer, collect, drive, echo, within};
use crate::support::pipe::{Knobs, pipe};

/// What is agreed on, what a client sends, and what an echo answers.
type Exchange = (&'static str, &'static str, &'static str, &'static str);

const HELLO: &str = "81 05 48656c6c6f";

/// A client's frames are masked with zeros, so that the examples can be seen in them.
const EXAMPLES: [Exchange; 12] = [
    ("§7.2.3.1", ALONE, "c1 87 00000000 f248cdc9c90700", HELLO),
    ("§7.2.3.1", TAKEOVER, "c1 87 00000000 f248cdc9c90700", HELLO),
    ("§7.2.3.1, two frames", ALONE, "41 83 00000000 f248cd  80 84 00000000 c9c90700", HELLO),
    ("§7.2.3.1, two frames", TAKEOVER, "41 83 00000000 f248cd  80 84 00000000 c9c90700", HELLO),
    (
        "§7.2.3.2",
        TAKEOVER,
        "c1 87 00000000 f248cdc9c90700  c1 85 00000000 f200110000",
        "81 05 48656c6c6f  81 05 48656c6c6f",
    ),
    (
        "§7.2.3.2, without takeover",
        ALONE,
        "c1 87 00000000 f248cdc9c90700  c1 87 00000000 f248cdc9c90700",
        "81 05 48656c6c6f  81 05 48656c6c6f",
    ),
    ("§7.2.3.3", ALONE, "c1 8b 00000000 000500faff48656c6c6f00", HELLO),
    ("§7.2.3.4", ALONE, "c1 88 00000000 f348cdc9c9070000", HELLO),
    ("§7.2.3.4", TAKEOVER, "c1 88 00000000 f348cdc9c9070000", HELLO),
    ("§7.2.3.5", ALONE, "c1 8d 00000000 f248050000 00ffff cac9c90700", HELLO),
    ("§7.2.3.6", ALONE, "c1 81 00000000 00", "81 00"),
    ("§7.2.3.6", TAKEOVER, "c1 81 00000000 00", "81 00"),
];

const VARIATIONS: [Exchange; 16] = [
    ("a block with fixed codes and nothing in it", ALONE, "c1 82 00000000 0200", "81 00"),
    ("no payload at all", ALONE, "c2 80 00000000", "82 00"),
    ("no payload at all", TAKEOVER, "c2 80 00000000", "82 00"),
    ("binary", ALONE, "c2 87 00000000 f248cdc9c90700", "82 05 48656c6c6f"),
    ("a last block at the end", ALONE, "c1 87 00000000 f348cdc9c90700", HELLO),
    ("a last block at the end", TAKEOVER, "c1 87 00000000 f348cdc9c90700", HELLO),
    (
        "two last blocks",
        ALONE,
        "c1 8f 00000000 f348cdc9c90700 f348cdc9c90700 00",
        "81 0a 48656c6c6f48656c6c6f",
    ),
    (
        "a message after one with a last block",
        TAKEOVER,
        "c1 88 00000000 f348cdc9c9070000  c1 87 00000000 f248cdc9c90700  c1 85 00000000 f200110000",
        "81 05 48656c6c6f  81 05 48656c6c6f  81 05 48656c6c6f",
    ),
    (
        "control frames between",
        ALONE,
        "41 83 00000000 f248cd  89 81 00000000 70  8a 81 00000000 71  80 84 00000000 c9c90700",
        "8a 01 70  81 05 48656c6c6f",
    ),
    ("plain", ALONE, "81 85 00000000 48656c6c6f", HELLO),
    ("plain in two frames", TAKEOVER, "01 82 00000000 4865  80 83 00000000 6c6c6f", HELLO),
    (
        "plain between a message and one that refers to it",
        TAKEOVER,
        "c1 87 00000000 f248cdc9c90700  01 81 00000000 61  80 81 00000000 62  \
         c1 85 00000000 f200110000",
        "81 05 48656c6c6f  81 02 6162  81 05 48656c6c6f",
    ),
    (
        "empty between a message and one that refers to it",
        TAKEOVER,
        "c1 87 00000000 f248cdc9c90700  c1 81 00000000 00  c1 80 00000000  \
         c1 85 00000000 f200110000",
        "81 05 48656c6c6f  81 00  81 00  81 05 48656c6c6f",
    ),
    (
        "empty frames",
        ALONE,
        "41 80 00000000  00 83 00000000 f248cd  00 80 00000000  00 84 00000000 c9c90700  \
         80 80 00000000",
        HELLO,
    ),
    (
        "a byte in each frame",
        TAKEOVER,
        "41 81 00000000 f2  00 81 00000000 48  00 81 00000000 cd  00 81 00000000 c9  \
         00 81 00000000 c9  00 81 00000000 07  80 81 00000000 00",
        HELLO,
    ),
    (
        "a character cut",
        ALONE,
        "41 87 00000000 000200fdffe282  80 87 00000000 000100feffac00",
        "81 03 e282ac",
    ),
];

#[test]
fn the_examples_of_section_7_2_3_are_received() {
    each_is_answered(&EXAMPLES);
}

#[test]
fn compressed_messages_are_received_in_any_fragments_with_control_frames_between() {
    each_is_answered(&VARIATIONS);
}

/// Sends each exchange to an echo: whole, byte by byte, and in one read with a message before and
/// a message after, of which one is compressed.
fn each_is_answered(exchanges: &[Exchange]) {
    let (hi, hi_echoed) = (masked(TEXT, "Hi"), plain(TEXT, "Hi"));
    let (hello, hello_echoed) = (hex("c1 87 00000000 f248cdc9c90700"), hex(HELLO));
    for (what, answer, sent, seen) in exchanges {
        let (sent, seen) = (hex(sent), hex(seen));
        let merged = [
            ([&*hi, &sent, &hello].concat(), [&*hi_echoed, &seen, &hello_echoed].concat()),
            ([&*hello, &sent, &hi].concat(), [&*hello_echoed, &seen, &hi_echoed].concat()),
        ];
        for by in Drive::BOTH {
            eprintln!("{what}, {answer}, {by:?}: {}", shown(&sent));
            within(is_answered(by, usize::MAX, answer, &sent, &seen));
            within(is_answered(by, 1, answer, &sent, &seen));
            for (sent, seen) in &merged {
                within(is_answered(by, usize::MAX, answer, sent, seen));
            }
        }
    }
}

async fn is_answered(by: Drive, read: usize, answer: &str, sent: &[u8], seen: &[u8]) {
    let (stream, end) = pipe(Knobs { read, ..Knobs::default() });
    drive(by, stream, Role::Server, &agreed(answer), echo);
    let mut peer = Peer { end };
    peer.send(sent).await;
    let read = peer.read(seen.len()).await;
    assert!(by_kind(&read) == by_kind(seen), "{} instead of {}", shown(&read), shown(seen));
    peer.send(masked(CLOSE, close(1000, ""))).await;
    peer.expect_close(1000).await;
}

/// Data and control frames: a pong may overtake the echo of an earlier message.
fn by_kind(mut bytes: &[u8]) -> (Vec<Seen>, Vec<Seen>) {
    let frames = std::iter::from_fn(|| take_frame(&mut bytes, false)).collect::<Vec<_>>();
    assert!(bytes.is_empty(), "{} is not a frame", shown(bytes));
    frames.into_iter().partition(Seen::is_control)
}

/// Options of a server with this level.
fn level(level: u8, answer: &str) -> WebSocketOptions {
    agreed(answer).deflate(DeflateOptions::default().level(level))
}

fn hello() -> Message {
    Message::from("Hello").compressed()
}

#[test]
fn the_examples_of_section_7_2_3_are_sent() {
    let (hello, empty) = (hello(), Message::from("").compressed());
    let plain = Message::from("Hello");
    let twice = [&hello, &hello];
    for (what, options, messages, seen) in [
        ("§7.2.3.1", level(6, ALONE), &[&hello] as &[_], "c1 07 f248cdc9c90700"),
        ("§7.2.3.1, level 1", level(1, ALONE), &[&hello], "c1 07 f248cdc9c90700"),
        ("§7.2.3.2", level(6, TAKEOVER), &twice, "c1 07 f248cdc9c90700 c1 05 f200110000"),
        ("§7.2.3.2, no takeover", level(6, ALONE), &twice, &"c1 07 f248cdc9c90700".repeat(2)),
        ("§7.2.3.3", level(0, ALONE), &[&hello], "c1 0b 000500faff48656c6c6f00"),
        ("§7.2.3.6", level(6, ALONE), &[&empty, &empty], "c1 01 00 c1 01 00"),
        ("§7.2.3.6, takeover", level(6, TAKEOVER), &[&empty, &empty], "c1 01 00 c1 01 00"),
        (
            "plain and empty ones between",
            level(6, TAKEOVER),
            &[&hello, &plain, &empty, &hello],
            "c1 07 f248cdc9c90700 81 05 48656c6c6f c1 01 00 c1 05 f200110000",
        ),
    ] {
        for by in Drive::BOTH {
            eprintln!("{what}, {by:?}");
            within(async {
                let (stream, end) = pipe(Knobs::default());
                let messages: Vec<Message> = messages.iter().copied().cloned().collect();
                drive(by, stream, Role::Server, &options, |mut ws| async move {
                    for message in messages {
                        ws.send(message).await?;
                    }
                    ws.close(1000_u16, "").await.map(drop)
                });
                let mut peer = Peer { end };
                peer.expect_hex(seen).await;
                peer.expect_hex("88 02 03e8").await;
            });
        }
    }
}

#[test]
fn a_client_masks_its_compressed_messages_and_reads_unmasked_ones_of_a_server() {
    for (answer, second) in [(TAKEOVER, "f200110000"), (ALONE, "f248cdc9c90700")] {
        for (by, read) in [(Drive::Task, usize::MAX), (Drive::Caller, 1)] {
            eprintln!("{answer}, {by:?}");
            within(async {
                let (stream, end) = pipe(Knobs { read, ..Knobs::default() });
                let (tell, told) = oneshot::channel();
                drive(by, stream, Role::Client, &level(6, answer), |mut ws| async move {
                    ws.send(hello()).await?;
                    ws.send(hello()).await?;
                    let (received, end) = collect(&mut ws).await;
                    tell.send(received).unwrap();
                    end
                });
                let mut peer = Peer { end };
                for payload in ["f248cdc9c90700", second] {
                    let frame = read_frame(&mut peer, true).await;
                    assert_eq!(frame, Seen { head: 0xc1, payload: hex(payload) });
                }
                let second = hex(second);
                peer.send(hex("c1 07 f248cdc9c90700")).await;
                peer.send(plain(0x41, &second[..2])).await;
                peer.send(plain(CONTINUATION, &second[2..])).await;
                peer.send(plain(CLOSE, close(1000, ""))).await;
                assert_eq!(peer.masked_frame().await.close_code(), Some(1000));
                drop(peer);
                assert_eq!(told.await.unwrap(), [Message::from("Hello"), Message::from("Hello")]);
            });
        }
    }
}

#[test]
fn the_tests_own_inflater_reads_the_examples_and_nothing_that_is_wrong() {
    for payload in ["f248cdc9c90700", "000500faff48656c6c6f00", "f348cdc9c9070000"] {
        let read = Inflater::new(9, false).inflate(&hex(payload));
        assert_eq!(read.as_deref(), Ok(b"Hello".as_slice()), "{payload}");
    }
    let mut reader = Reader::of_server(parameters(TAKEOVER));
    let frames = ["f248cdc9c90700", "f200110000", "00"];
    let mut read = frames.map(|payload| Seen { head: 0xc1, payload: hex(payload) }).into_iter();
    for text in ["Hello", "Hello", ""] {
        let seen = reader.take(read.next().unwrap()).unwrap();
        assert_eq!(seen, Seen { head: 0xc1, payload: text.into() });
    }
    let mut alone = Inflater::new(15, false);
    assert!(alone.inflate(&hex("f248cdc9c90700")).is_ok());
    assert!(alone.inflate(&hex("f200110000")).is_err(), "the window was forgotten");
    for cut in 1..6 {
        assert!(alone.inflate(&hex("f248cdc9c90700")[..cut]).is_err(), "{cut} bytes");
    }

    // A match reaches as far back as the window, and not a byte farther.
    let noise: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
    let message = [&noise[..], &noise[..]].concat();
    let payload = Deflater::new(9, 15, false).deflate(&message);
    assert_eq!(Inflater::new(9, false).inflate(&payload), Ok(message));
    let far = [&noise[..], &[7], &noise[..]].concat();
    let payload = Deflater::new(9, 15, false).deflate(&far);
    assert!(Inflater::new(9, false).inflate(&payload).is_err(), "513 bytes back");
    assert_eq!(Inflater::new(10, false).inflate(&payload), Ok(far));
}
