//! What fails a connection on which compression was agreed: the peer is told why in a close frame,
//! the receiver by an error that stays, and nothing behind it is received.

use futures::channel::oneshot;
use tidewire::frame::{OpCode, ProtocolError, Role};
use tidewire::websocket::Initiator;
use tidewire::{Error, WebSocket, WebSocketOptions};

use crate::support::deflate::codec::{Deflater, Reader};
use crate::support::deflate::{ALONE, DEFLATED, TAKEOVER, agreed, parameters};
use crate::support::frames::{BINARY, CLOSE, CONTINUATION, FIN, TEXT, close, hex, masked, shown};
use crate::support::peer::{Drive, Peer, drive, echo, serve, within};
use crate::support::pipe::{Knobs, pipe};

/// Largest message of these tests, in bytes.
const MAX: usize = 1000;

const TOO_BIG: ProtocolError = ProtocolError::MessageTooBig { len: 1001, max: MAX };

/// What a client sends, and what is wrong with it.
struct Violation {
    what: &'static str,
    sent: Vec<u8>,
    error: ProtocolError,
}

fn violation(what: &'static str, sent: &str, error: ProtocolError) -> Violation {
    Violation { what, sent: hex(sent), error }
}

/// What a handler receives by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum By {
    Messages,
    Frames,
}

/// What a handler received: payloads, the error after them, and what comes of asking again.
type Outcome = (Vec<Vec<u8>>, Error, Error);

impl By {
    async fn next(self, ws: &mut WebSocket) -> Result<Option<Vec<u8>>, Error> {
        match self {
            Self::Messages => Ok(ws.recv().await?.map(|message| message.as_bytes().to_vec())),
            Self::Frames => Ok(ws.recv_frame().await?.map(|frame| frame.payload().to_vec())),
        }
    }

    async fn outcome(self, mut ws: WebSocket) -> Outcome {
        let mut payloads = vec![];
        loop {
            match self.next(&mut ws).await {
                Ok(Some(payload)) => payloads.push(payload),
                Ok(None) => panic!("an orderly end after {payloads:?}"),
                Err(first) => {
                    let again = [Self::Messages.next(&mut ws).await, self.next(&mut ws).await];
                    let [Err(second), Err(third)] = again else { panic!("{again:?}") };
                    assert_eq!(format!("{second:?}"), format!("{third:?}"));
                    return (payloads, first, second);
                }
            }
        }
    }
}

/// Sends each violation in every way: it fails the connection with its code and its error.
fn each_fails_the_connection(options: &WebSocketOptions, violations: &[Violation]) {
    for violation in violations {
        for by in Drive::BOTH {
            for read_by in [By::Messages, By::Frames] {
                let Violation { what, sent, error } = violation;
                eprintln!("{what}, {by:?}, {read_by:?}: {}, {error}", shown(sent));
                for (read, is_merged) in [(usize::MAX, false), (1, false), (usize::MAX, true)] {
                    let (stream, end) = pipe(Knobs { read, ..Knobs::default() });
                    let (tell, told) = oneshot::channel();
                    drive(by, stream, Role::Server, options, |ws| async move {
                        let _ = tell.send(read_by.outcome(ws).await);
                        Ok(())
                    });
                    within(fails(Peer { end }, violation, read_by, is_merged, told));
                }
            }
        }
    }
}

async fn fails(
    mut peer: Peer,
    violation: &Violation,
    read_by: By,
    is_merged: bool,
    told: oneshot::Receiver<Outcome>,
) {
    let (before, after) = if is_merged {
        let after = [masked(TEXT, "late"), masked(CLOSE, close(1000, ""))];
        (masked(TEXT, "Hi"), after.concat())
    } else {
        (vec![], vec![])
    };
    peer.send([&*before, &violation.sent, &after].concat()).await;
    let frame = peer.frame().await;
    let code = u16::from(violation.error.close_code());
    assert_eq!(frame.close_code(), Some(code), "{frame:?}");
    let reason = violation.error.to_string();
    assert!(
        frame.payload.ends_with(reason.as_bytes()),
        "{reason}: {}",
        frame.payload.escape_ascii()
    );
    peer.expect_end().await;
    drop(peer);

    let (payloads, first, second) = told.await.unwrap();
    assert!(matches!(&first, Error::Protocol(error) if *error == violation.error), "{first:?}");
    assert_eq!(format!("{first:?}"), format!("{second:?}"));
    if read_by == By::Messages {
        let before: &[&[u8]] = if is_merged { &[b"Hi"] } else { &[] };
        assert_eq!(payloads, before);
    }
    assert!(!payloads.contains(&b"late".to_vec()), "{payloads:?}");
}

#[test]
fn reserved_bits_where_compression_gives_them_no_meaning_fail_the_connection() {
    let reserved = ProtocolError::ReservedBits;
    let negotiated = [
        violation("RSV2", "a1 80 00000000", reserved(0b010)),
        violation("RSV3", "91 80 00000000", reserved(0b001)),
        violation("RSV2 and RSV1", "e1 87 00000000 f248cdc9c90700", reserved(0b110)),
        violation("RSV3 and RSV1", "d2 87 00000000 f248cdc9c90700", reserved(0b101)),
        violation("RSV1 on a ping", "c9 80 00000000", reserved(0b100)),
        violation("RSV1 on a pong", "ca 80 00000000", reserved(0b100)),
        violation("RSV1 on a close frame", "c8 82 00000000 03e8", reserved(0b100)),
        violation("RSV1 on a ping between", "41 80 00000000 c9 80 00000000", reserved(0b100)),
        violation(
            "RSV1 on a continuation",
            "41 83 00000000 f248cd  c0 84 00000000 c9c90700",
            reserved(0b100),
        ),
        violation(
            "RSV1 on a continuation that is not the last",
            "41 83 00000000 f248cd  40 84 00000000 c9c90700",
            reserved(0b100),
        ),
        violation(
            "RSV1 on a continuation of a plain message",
            "01 81 00000000 61  c0 87 00000000 f248cdc9c90700",
            reserved(0b100),
        ),
        violation("RSV1 and a reserved opcode", "c3 80 00000000", ProtocolError::ReservedOpcode(3)),
        violation(
            "a compressed message inside another",
            "41 83 00000000 f248cd  c1 87 00000000 f248cdc9c90700",
            ProtocolError::MessageInterrupted(OpCode::Text),
        ),
    ];
    each_fails_the_connection(&agreed(ALONE), &negotiated);
    each_fails_the_connection(&agreed(TAKEOVER), &negotiated[4..10]);

    let plain = [
        violation("RSV1", "c1 87 00000000 f248cdc9c90700", reserved(0b100)),
        violation("RSV1 on a fragment", "41 83 00000000 f248cd", reserved(0b100)),
        violation("RSV1, no payload", "c2 80 00000000", reserved(0b100)),
    ];
    each_fails_the_connection(&WebSocketOptions::default(), &plain);
}

#[test]
fn invalid_deflate_data_fails_the_connection_with_1007() {
    let corrupt = ProtocolError::DeflateCorrupt;
    let both = [
        violation("a reserved block", "c1 81 00000000 06", corrupt),
        violation("a last block of the reserved type", "c2 81 00000000 07", corrupt),
        violation("two lengths", "c1 8b 00000000 000500fafe48656c6c6f00", corrupt),
        violation("a match with nothing before", "c1 85 00000000 f200110000", corrupt),
        violation("after a last block", "c1 89 00000000 f348cdc9c90700 0600", corrupt),
        violation(
            "in the second frame",
            "41 87 00000000 000500faff4865  80 84 00000000 6c6c6f06",
            corrupt,
        ),
        violation("in a frame before the last", "41 81 00000000 06  80 81 00000000 00", corrupt),
    ];
    each_fails_the_connection(&agreed(ALONE), &both);
    each_fails_the_connection(&agreed(TAKEOVER), &both);
}

#[test]
fn nothing_is_received_behind_a_corrupt_message_that_takes_many_steps() {
    let mut sent = Deflater::new(6, 15, false).full_flush(&vec![0; 500_000]);
    sent.push(0x06);
    let long = Violation {
        what: "the last byte of a long one",
        sent: masked(BINARY | DEFLATED, sent),
        error: ProtocolError::DeflateCorrupt,
    };
    // What follows is read ahead while this is decompressed.
    let options = agreed(ALONE).read_ahead_size(1);
    each_fails_the_connection(&options, &[long]);
}

#[test]
fn a_message_that_refers_to_one_that_is_forgotten_fails_the_connection_with_1007() {
    for (what, answer, first) in [
        ("no takeover", ALONE, "c1 87 00000000 f248cdc9c90700"),
        ("a last block, no takeover", ALONE, "c1 87 00000000 f348cdc9c90700"),
        ("a last block", TAKEOVER, "c1 87 00000000 f348cdc9c90700"),
        ("a plain message", TAKEOVER, "81 85 00000000 48656c6c6f"),
    ] {
        eprintln!("{what}");
        within(async {
            let mut peer = serve(&agreed(answer), echo);
            peer.send([hex(first), hex("c1 85 00000000 f200110000")].concat()).await;
            peer.expect_hex("81 05 48656c6c6f").await;
            peer.expect_close(1007).await;
        });
    }
}

#[test]
fn a_message_that_ends_inside_a_block_fails_the_connection_with_1007() {
    each_fails_the_connection(&agreed(ALONE), &cut_anywhere());
    each_fails_the_connection(&agreed(TAKEOVER), &cut_anywhere());
}

#[test]
fn a_close_frame_behind_a_corrupt_message_does_not_hide_the_failure() {
    within(async {
        let (tell, told) = oneshot::channel();
        let mut peer = serve(&agreed(ALONE), |mut ws| async move {
            let _ = ws.recv().await;
            let _ = tell.send(ws.close_info());
            Ok(())
        });
        peer.send([hex("c1 81 00000000 06"), masked(CLOSE, close(4000, "bye"))].concat()).await;
        let info = told.await.unwrap().unwrap();
        assert_eq!((info.code.map(u16::from), info.initiator), (Some(1007), Initiator::Local));
        peer.expect_close(1007).await;
    });
}

/// A message without its end.
fn cut_anywhere() -> Vec<Violation> {
    let whole = Deflater::new(6, 15, false).deflate("Hello, hello, hello and good-bye");
    let cuts = (1..whole.len()).map(|len| Violation {
        what: "cut",
        sent: masked(BINARY | DEFLATED, &whole[..len]),
        error: ProtocolError::DeflateCorrupt,
    });
    cuts.collect()
}

#[test]
fn compressed_text_that_is_not_utf8_fails_the_connection_with_1007() {
    let invalid = ProtocolError::InvalidUtf8;
    let violations = [
        violation("ff", "c1 87 00000000 000100feffff00", invalid),
        violation("a character cut at the end", "c1 88 00000000 000200fdffe28200", invalid),
        violation(
            "a character cut in the last frame",
            "41 86 00000000 000100feff61  80 88 00000000 000200fdffe28200",
            invalid,
        ),
        violation(
            "a character that goes on with another",
            "41 87 00000000 000200fdffe282  80 87 00000000 000100feff2800",
            invalid,
        ),
        violation(
            "a character that does not go on",
            "41 87 00000000 000200fdffe282  80 81 00000000 00",
            invalid,
        ),
        violation("a surrogate", "c1 89 00000000 000300fcffeda08000", invalid),
    ];
    for answer in [ALONE, TAKEOVER] {
        each_fails_the_connection(&agreed(answer), &violations);
    }
    within(async {
        let mut peer = serve(&agreed(ALONE), echo);
        peer.send(hex("c2 87 00000000 000100feffff00")).await;
        peer.expect_hex("82 01 ff").await;
    });
}

#[test]
fn a_message_may_be_as_long_as_allowed_and_not_a_byte_longer() {
    let mut deflater = Deflater::new(6, 15, false);
    let mut fragments = |sizes: &[usize]| {
        let parts: Vec<_> = sizes.iter().map(|size| vec![b'a'; *size]).collect();
        let parts: Vec<_> = parts.iter().map(Vec::as_slice).collect();
        let payloads = deflater.fragments(&parts);
        let last = payloads.len() - 1;
        let frames = payloads.iter().enumerate().map(|(at, payload)| {
            let head = if at == 0 { 0xc1 } else { CONTINUATION };
            masked(if at == last { head } else { head & !FIN }, payload)
        });
        frames.collect::<Vec<_>>().concat()
    };
    let too_long = |what, sent| Violation { what, sent, error: TOO_BIG };
    let violations = [
        too_long("a frame", fragments(&[1001])),
        too_long("two frames", fragments(&[500, 501])),
        too_long("the first of two", fragments(&[1001, 0])),
        too_long("the byte after the limit", fragments(&[1000, 1])),
        too_long("much more", fragments(&[900_000])),
    ];
    for answer in [ALONE, TAKEOVER] {
        let options = agreed(answer).max_message_size(MAX);
        each_fails_the_connection(&options, &violations);
        for sizes in [&[1000_usize] as &[usize], &[500, 500], &[1000, 0], &[0, 1000, 0, 0], &[999]]
        {
            within(async {
                let mut peer = serve(&options, |mut ws| async move {
                    while let Some(message) = ws.recv().await? {
                        ws.send(message.len().to_string()).await?;
                    }
                    Ok(())
                });
                // The length of one message is not added to that of the next.
                for _ in 0..2 {
                    peer.send(fragments(sizes)).await;
                    let len = sizes.iter().sum::<usize>().to_string();
                    assert_eq!(peer.frame().await.payload, len.as_bytes(), "{sizes:?}");
                }
            });
        }
    }
}

#[test]
fn a_compressed_message_that_is_much_too_long_is_refused_before_it_has_arrived() {
    let options = agreed(ALONE).max_message_size(MAX);
    let too_big = |len| ProtocolError::MessageTooBig { len, max: MAX };
    let violations = [
        // An eighth and 64 bytes more than the limit may become short enough, no more.
        violation("one frame", "c2 fe 04a6 00000000", too_big(1190)),
        violation("2^63 - 1 bytes", "c2 ff 7fffffffffffffff 00000000", too_big((1 << 63) - 1)),
        Violation {
            what: "two frames",
            sent: [masked(0x42, [0; 1]), hex("80 fe 04a5 00000000")].concat(),
            error: too_big(1190),
        },
        violation("plain", "82 fe 03e9 00000000", too_big(1001)),
    ];
    each_fails_the_connection(&options, &violations);

    // What does not compress is a little longer than the message.
    let stored: Vec<u8> = [&hex("00 e803 17fc"), &vec![7; 1000][..], &hex("00")].concat();
    within(async {
        let mut peer = serve(&options, echo);
        peer.send(masked(BINARY | DEFLATED, stored)).await;
        let echoed = Reader::of_server(parameters(ALONE)).next(&mut peer).await;
        assert_eq!(echoed.payload, [7; 1000]);
    });
}

#[test]
fn a_limit_of_nothing_takes_empty_messages_only() {
    within(async {
        let mut peer = serve(&agreed(TAKEOVER).max_message_size(0), echo);
        peer.send(hex("c1 81 00000000 00  c2 80 00000000")).await;
        peer.expect_hex("81 00 82 00").await;
        peer.send(hex("c1 87 00000000 f248cdc9c90700")).await;
        peer.expect_close(1009).await;
    });
}
