//! Every future of the public API dropped after 0, 1, 2 … polls, then asked for again: nothing is
//! lost and nothing comes twice.
//!
//! The stream under each test passes one byte at a time and lets every other call wait, so there is
//! a poll between any two bytes.

use std::future::Future;

use async_std::task;
use futures::FutureExt;
use futures::future::BoxFuture;
use tidewire::frame::{Frame, OpCode, Role};
use tidewire::websocket::PreparedMessage;
use tidewire::{
    CloseInfo, Error, Message, RequestContext, Result, Sender, Server, WebSocket, WebSocketOptions,
};

use crate::support::attempts::patience;
use crate::support::cancel_each_poll::{self, TRICKLE, insist, insist_on_all};
use crate::support::frames::{BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, TEXT, Transcript};
use crate::support::frames::{close, masked};
use crate::support::peer;
use crate::support::peer::{Drive, Peer, collect, echo, serve, within};
use crate::support::pipe::{Knobs, pipe};
use crate::support::tcp::{Tcp, bind};

/// Runs `handler` with each number of polls after which it abandons a call.
fn each_number_of_polls<H, HF, P, PF, T>(handler: H, peer: P, check: impl Fn(bool, T))
where
    H: Fn(usize, WebSocket) -> HF,
    HF: Future<Output = Result<bool>> + Send + 'static,
    P: Fn(Peer) -> PF,
    PF: Future<Output = T>,
{
    cancel_each_poll::each_number_of_polls(
        TRICKLE,
        &WebSocketOptions::default(),
        handler,
        peer,
        check,
    );
}

/// Three messages in six frames, and a close frame.
async fn converse(mut peer: Peer) {
    let conversation = [
        masked(TEXT, "[1]"),
        masked(BINARY & !FIN, "[2,"),
        masked(PING, "p"),
        masked(CONTINUATION, "2]"),
        masked(PONG, "q"),
        masked(TEXT, format!("[{}3]", " ".repeat(130))),
        masked(CLOSE, close(1000, "")),
    ];
    peer.send(conversation.concat()).await;
    peer.expect_hex("8a 01 70 88 02 03e8").await;
    peer.expect_end().await;
}

#[test]
fn recv_loses_nothing() {
    async fn handler(polls: usize, mut ws: WebSocket) -> Result<bool> {
        let (received, was_enough) = insist_on_all!(polls, ws.recv());
        let third = format!("[{}3]", " ".repeat(130));
        let sent = [Message::text("[1]"), Message::binary("[2,2]"), Message::text(third)];
        assert_eq!(received, sent);
        Ok(was_enough)
    }
    each_number_of_polls(handler, converse, |_, ()| {});
}

#[test]
fn recv_frame_loses_nothing() {
    async fn handler(polls: usize, mut ws: WebSocket) -> Result<bool> {
        let (received, was_enough) = insist_on_all!(polls, ws.recv_frame());
        let sent = [
            Frame::new(true, OpCode::Text, "[1]"),
            Frame::new(false, OpCode::Binary, "[2,"),
            Frame::new(true, OpCode::Ping, "p"),
            Frame::new(true, OpCode::Continuation, "2]"),
            Frame::new(true, OpCode::Pong, "q"),
            Frame::new(true, OpCode::Text, format!("[{}3]", " ".repeat(130))),
            Frame::new(true, OpCode::Close, close(1000, "")),
        ];
        assert_eq!(received, sent);
        Ok(was_enough)
    }
    each_number_of_polls(handler, converse, |_, ()| {});
}

#[test]
fn recv_json_loses_nothing() {
    async fn handler(polls: usize, mut ws: WebSocket) -> Result<bool> {
        let (received, was_enough) = insist_on_all!(polls, ws.recv_json::<Vec<u8>>());
        assert_eq!(received.concat(), [1, 2, 2, 3]);
        Ok(was_enough)
    }
    each_number_of_polls(handler, converse, |_, ()| {});
}

/// A call that sends one frame or message, and what the peer sees of it: its head, and its payload.
type Sends = (fn(&mut WebSocket) -> BoxFuture<'_, Result<()>>, u8, &'static [u8]);

const SENDS: [Sends; 7] = [
    (|ws| ws.send("abandoned message").boxed(), TEXT, b"abandoned message"),
    (|ws| ws.send_text("abandoned text").boxed(), TEXT, b"abandoned text"),
    (|ws| ws.send_binary("abandoned bytes").boxed(), BINARY, b"abandoned bytes"),
    (|ws| ws.send_json("abandoned json").boxed(), TEXT, b"\"abandoned json\""),
    (
        |ws| ws.send_frame(Frame::new(true, OpCode::Text, "abandoned frame")).boxed(),
        TEXT,
        b"abandoned frame",
    ),
    (|ws| ws.ping("abandoned ping").boxed(), PING, b"abandoned ping"),
    (|ws| ws.pong("abandoned pong").boxed(), PONG, b"abandoned pong"),
];

/// All that comes until the close frame, which is answered.
async fn transcript(mut peer: Peer) -> Transcript {
    let mut seen = vec![];
    while !seen.ends_with(b"\x88\x02\x03\xe8") {
        seen.extend(peer.read(1).await);
    }
    peer.send(masked(CLOSE, close(1000, ""))).await;
    peer.expect_end().await;
    Transcript::of(&seen, false)
}

#[test]
fn a_send_that_is_abandoned_has_sent_the_whole_or_nothing() {
    for (call, head, payload) in SENDS {
        eprintln!("{}", payload.escape_ascii());
        each_number_of_polls(
            |polls, mut ws| async move {
                // Fills the queue, so that what comes next has to wait.
                ws.send("a message that is before the others").await?;
                let was_enough = patience(polls, call(&mut ws)).await.is_some();
                ws.send("last").await?;
                ws.close(1000_u16, "").await?;
                Ok(was_enough)
            },
            transcript,
            |was_enough, seen| {
                let abandoned: Vec<Vec<u8>> = match head {
                    PING => seen.pings,
                    PONG => seen.pongs,
                    _ => {
                        let middle = seen.messages[1..seen.messages.len() - 1].to_vec();
                        middle.into_iter().map(|message| message.payload).collect()
                    }
                };
                let whole = abandoned == [payload];
                assert!(whole || (abandoned.is_empty() && !was_enough), "{abandoned:?}");
                assert!(seen.messages[0].payload.starts_with(b"a message"));
                assert_eq!(seen.messages.last().unwrap().payload, b"last");
            },
        );
    }
}

#[test]
fn each_way_to_send_queues_at_the_call_and_not_when_it_is_awaited() {
    within(async {
        let mut peer = serve(&WebSocketOptions::default(), |mut ws| async move {
            drop(ws.send("a"));
            drop(ws.send_text("b"));
            drop(ws.send_binary("c"));
            drop(ws.send_json("d"));
            drop(ws.send_frame(Frame::new(true, OpCode::Text, "e")));
            drop(ws.ping("f"));
            drop(ws.pong("g"));
            let sender = ws.sender();
            drop(sender.send("h"));
            drop(sender.send_text("i"));
            drop(sender.send_binary("j"));
            drop(sender.send_json("k"));
            drop(sender.ping("l"));
            drop(sender.pong("m"));
            drop(sender.send_prepared(&PreparedMessage::new("n")));
            ws.close(1000_u16, "").await?;
            Ok(())
        });
        peer.expect_hex("81 01 61  81 01 62  82 01 63  81 03 226422  81 01 65  89 01 66  8a 01 67")
            .await;
        peer.expect_hex("81 01 68  81 01 69  82 01 6a  81 03 226b22  89 01 6c  8a 01 6d  81 01 6e")
            .await;
        peer.expect_hex("88 02 03e8").await;
    });
}

#[test]
fn a_turn_that_is_used_up_keeps_no_call_from_queueing() {
    for drive in Drive::BOTH {
        within(async {
            let (stream, end) = pipe(Knobs::default());
            let mut peer = Peer { end };
            // All that one turn may take, in one read.
            peer.send(masked(TEXT, "m").repeat(64)).await;
            peer::drive(drive, stream, Role::Server, &options(), |mut ws| async move {
                for _ in 0..64 {
                    ws.recv().await?;
                }
                drop(ws.ping("p"));
                drop(ws.sender().send("q"));
                ws.close(1000_u16, "").await?;
                Ok(())
            });
            peer.expect_hex("89 01 70  81 01 71  88 02 03e8").await;
        });
    }
}

fn options() -> WebSocketOptions {
    WebSocketOptions::default()
}

#[test]
fn fragments_that_are_abandoned_do_not_tear_the_message() {
    each_number_of_polls(
        |polls, mut ws| async move {
            let mut was_enough = true;
            let (first, last) = (OpCode::Text, OpCode::Continuation);
            for (fin, opcode, text) in [(false, first, "first, "), (true, last, "last")] {
                let sent = ws.stats().frames_out;
                let frame = Frame::new(fin, opcode, text);
                if patience(polls, ws.send_frame(frame.clone())).await.is_none() {
                    was_enough = false;
                    if ws.stats().frames_out == sent {
                        ws.send_frame(frame).await?;
                    }
                }
            }
            ws.close(1000_u16, "").await?;
            Ok(was_enough)
        },
        async |mut peer: Peer| {
            peer.expect_hex("01 07 66697273742c20 80 04 6c617374 88 02 03e8").await;
            peer.send(masked(CLOSE, "")).await;
            peer.expect_end().await;
        },
        |_, ()| {},
    );
}

/// The peer of a handler that closes: it answers the first close frame, and must see no other.
async fn answer_close(mut peer: Peer) -> u16 {
    peer.expect_hex("81 06 6265666f7265").await;
    let code = peer.frame().await.close_code().unwrap();
    peer.send(masked(CLOSE, close(code, ""))).await;
    peer.expect_end().await;
    code
}

fn check_closed(info: &CloseInfo) {
    assert!(info.clean && matches!(info.code.map(u16::from), Some(4000 | 4001)), "{info:?}");
}

#[test]
fn close_goes_on_where_it_was_abandoned() {
    each_number_of_polls(
        |polls, mut ws| async move {
            let _ = patience(0, ws.send("before")).await;
            let first = patience(polls, ws.close(4000_u16, "")).await;
            let was_enough = first.is_some();
            check_closed(&match first {
                Some(info) => info?,
                None => ws.close(4001_u16, "").await?,
            });
            assert!(!ws.is_open());
            Ok(was_enough)
        },
        answer_close,
        // A call that was never polled has done nothing.
        |_, code| assert!(matches!(code, 4000 | 4001)),
    );
}

#[test]
fn close_of_a_sender_goes_on_where_it_was_abandoned() {
    each_number_of_polls(
        |polls, mut ws| async move {
            let sender = ws.sender();
            let receiving = task::spawn(async move { collect(&mut ws).await.1 });
            sender.send("before").await?;
            let (info, was_enough) = insist!(polls, sender.close(4000_u16, ""));
            check_closed(&info?);
            receiving.await?;
            Ok(was_enough)
        },
        answer_close,
        |_, code| assert_eq!(code, 4000),
    );
}

#[test]
fn flush_goes_on_where_it_was_abandoned() {
    const LONG: usize = 100;
    each_number_of_polls(
        |polls, mut ws| async move {
            let _ = patience(0, ws.send([b'x'; LONG])).await;
            let (flushed, was_enough) = insist!(polls, ws.flush());
            flushed?;
            assert_eq!(ws.stats().wire_bytes_out, 2 + 100);
            let _ = patience(0, ws.send([b'y'; LONG])).await;
            let sender = ws.sender();
            let (flushed, was_also_enough) = insist!(polls, sender.flush());
            flushed?;
            assert_eq!(ws.stats().wire_bytes_out, 2 * (2 + 100));
            ws.close(1000_u16, "").await?;
            Ok(was_enough && was_also_enough)
        },
        async |mut peer: Peer| {
            for byte in *b"xy" {
                peer.expect(crate::support::frames::plain(BINARY, [byte; LONG])).await;
            }
            peer.expect_hex("88 02 03e8").await;
            peer.send(masked(CLOSE, "")).await;
            peer.expect_end().await;
        },
        |_, ()| {},
    );
}

#[test]
fn closed_waits_on_where_it_was_abandoned() {
    each_number_of_polls(
        |polls, mut ws| async move {
            let sender = ws.sender();
            let (info, was_enough) = insist!(polls, ws.closed());
            let (same, _) = insist!(polls, sender.closed());
            assert_eq!(info, same);
            assert_eq!(info.code.map(u16::from), Some(1000));
            // Without a task, what is left of the closing happens in the next call.
            ws.close(1000_u16, "").await?;
            Ok(was_enough)
        },
        async |mut peer: Peer| {
            peer.send(masked(CLOSE, close(1000, ""))).await;
            peer.expect_hex("88 02 03e8").await;
            peer.expect_end().await;
        },
        |_, ()| {},
    );
}

/// As [`Sends`], of a sender.
type SenderSends = (fn(&Sender) -> BoxFuture<'_, Result<()>>, u8, &'static [u8]);

const SENDER_SENDS: [SenderSends; 4] = [
    (|sender| sender.send("abandoned message").boxed(), TEXT, b"abandoned message"),
    (|sender| sender.send_binary("abandoned bytes").boxed(), BINARY, b"abandoned bytes"),
    (|sender| sender.ping("abandoned ping").boxed(), PING, b"abandoned ping"),
    (|sender| sender.pong("abandoned pong").boxed(), PONG, b"abandoned pong"),
];

#[test]
fn a_send_of_a_sender_that_is_abandoned_has_sent_the_whole_or_nothing() {
    for (call, head, payload) in SENDER_SENDS {
        eprintln!("{}", payload.escape_ascii());
        each_number_of_polls(
            |polls, mut ws| async move {
                let sender = ws.sender();
                let receiving = task::spawn(async move { collect(&mut ws).await.1 });
                sender.send("a message that is before the others").await?;
                let was_enough = patience(polls, call(&sender)).await.is_some();
                sender.send("last").await?;
                sender.close(1000_u16, "").await?;
                receiving.await?;
                Ok(was_enough)
            },
            transcript,
            |was_enough, seen| {
                let count = |messages: usize| messages - 2;
                let abandoned = match head {
                    PING => seen.pings.len(),
                    PONG => seen.pongs.len(),
                    _ => count(seen.messages.len()),
                };
                assert!(abandoned == 1 || (abandoned == 0 && !was_enough), "{abandoned}");
                assert_eq!(seen.messages.last().unwrap().payload, b"last");
                let bytes = seen.messages.iter().map(|message| &message.payload);
                let seen: Vec<_> = bytes.chain(&seen.pings).chain(&seen.pongs).collect();
                assert_eq!(seen.contains(&&payload.to_vec()), abandoned == 1);
            },
        );
    }
}

#[test]
fn an_upgrade_that_is_abandoned_goes_on_at_the_next_call() {
    for polls in 0..4 {
        let mut server = Server::new();
        server.get("/", move |mut ctx: RequestContext| async move {
            let options = WebSocketOptions::default;
            let (ws, _) = insist!(polls, ctx.upgrade_to_websocket(options()));
            let again = ctx.upgrade_to_websocket(options()).await;
            assert!(matches!(again, Err(Error::Handshake(_))), "{again:?}");
            echo(ws?).await?;
            Ok(())
        });
        eprintln!("{polls} polls");
        let mut client = Tcp::upgraded(bind(server));
        client.send(masked(TEXT, "Hello"));
        client.expect_hex("81 05 48656c6c6f");
        client.send(masked(CLOSE, close(1000, "")));
        client.expect_hex("88 02 03e8");
        client.expect_end();
    }
}
