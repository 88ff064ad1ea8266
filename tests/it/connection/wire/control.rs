//! Pings and pongs (RFC 6455 §5.5.2, §5.5.3).

use async_std::task;
use futures::channel::oneshot;
use tidewire::WebSocketOptions;
use tidewire::frame::{Frame, OpCode};

use super::{each_is_answered, exchange};
use crate::support::frames::{PING, PONG, hex, masked, plain};
use crate::support::peer::{collect, serve, within};

#[test]
pub(crate) fn a_ping_is_answered_once_with_its_own_payload() {
    each_is_answered(
        &WebSocketOptions::default(),
        &[
            exchange("empty", hex("89 80 00000000"), hex("8a 00")),
            exchange("hello", hex("89 85 37fa213d 7f9f4d5158"), hex("8a 05 48656c6c6f")),
            exchange("not text", hex("89 82 00000000 ff00"), hex("8a 02 ff00")),
            exchange("125 bytes", masked(PING, [7; 125]), plain(PONG, [7; 125])),
            exchange(
                "three in a row",
                hex("89 81 00000000 61 89 81 00000000 62 89 81 00000000 63"),
                hex("8a 01 61 8a 01 62 8a 01 63"),
            ),
        ],
    );
}

#[test]
pub(crate) fn an_unsolicited_pong_is_not_answered() {
    each_is_answered(
        &WebSocketOptions::default(),
        &[
            exchange("empty", hex("8a 80 00000000"), vec![]),
            exchange("125 bytes", masked(PONG, [7; 125]), vec![]),
            exchange("then a ping", hex("8a 81 00000000 61 89 81 00000000 62"), hex("8a 01 62")),
        ],
    );
}

#[test]
fn recv_frame_shows_every_frame_and_pings_are_answered_once_all_the_same() {
    within(async {
        let mut peer = serve(&WebSocketOptions::default(), |mut ws| async move {
            while let Some(frame) = ws.recv_frame().await? {
                let (fin, opcode) = (frame.fin(), frame.opcode());
                let kind = format!("{fin} {opcode:?} {}", frame.payload().escape_ascii());
                if opcode != OpCode::Close {
                    ws.send(kind).await?;
                }
            }
            Ok(())
        });
        for (sent, seen) in [
            ("01 81 00000000 61", &["false Text a"] as &[&str]),
            ("89 81 00000000 70", &["\u{8a}p", "true Ping p"]),
            ("80 81 00000000 62", &["true Continuation b"]),
            ("8a 80 00000000", &["true Pong "]),
            ("81 81 00000000 63", &["true Text c"]),
            ("82 80 00000000", &["true Binary "]),
        ] {
            peer.send(hex(sent)).await;
            for text in seen {
                match text.strip_prefix('\u{8a}') {
                    Some(payload) => peer.expect(plain(PONG, payload)).await,
                    None => peer.expect(plain(0x81, text)).await,
                }
            }
        }
        peer.send(hex("88 80 00000000")).await;
        peer.expect_hex("88 00").await;
        peer.expect_end().await;
    });
}

#[test]
fn pings_that_the_caller_answers_are_not_answered_twice() {
    within(async {
        let options = WebSocketOptions::default().auto_pong(false);
        let mut peer = serve(&options, |mut ws| async move {
            while let Some(frame) = ws.recv_frame().await? {
                if frame.opcode() == OpCode::Ping {
                    ws.pong(frame.into_payload()).await?;
                }
            }
            Ok(())
        });
        peer.send(hex("89 81 00000000 61 89 81 00000000 62 88 80 00000000")).await;
        let rest = peer.rest().await;
        // A close frame in the same read may overtake what the handler has to say.
        assert!(rest.ends_with(&hex("88 00")), "{rest:02x?}");

        let mut peer = serve(&options, |mut ws| async move { collect(&mut ws).await.1 });
        peer.send(hex("89 81 00000000 61 88 80 00000000")).await;
        assert_eq!(peer.rest().await, hex("88 00"));
    });
}

#[test]
pub(crate) fn control_frames_pass_between_the_fragments_that_are_sent() {
    within(async {
        let mut peer = serve(&WebSocketOptions::default(), |mut ws| async move {
            ws.send_frame(Frame::new(false, OpCode::Text, "Hel")).await?;
            ws.ping("p").await?;
            ws.pong("q").await?;
            ws.send_frame(Frame::new(false, OpCode::Continuation, "")).await?;
            ws.send_frame(Frame::new(true, OpCode::Continuation, "lo")).await?;
            collect(&mut ws).await.1
        });
        peer.expect_hex("01 03 48656c 89 01 70 8a 01 71 00 00 80 02 6c6f").await;
        peer.send(hex("88 80 00000000")).await;
        peer.expect_hex("88 00").await;
        peer.expect_end().await;
    });
}

#[test]
pub(crate) fn a_frame_that_would_break_the_protocol_is_refused_and_not_sent() {
    within(async {
        let mut peer = serve(&WebSocketOptions::default(), |mut ws| async move {
            let refused = [
                Frame::new(true, OpCode::Continuation, "a"),
                Frame::new(false, OpCode::Continuation, "a"),
                Frame::new(false, OpCode::Ping, "a"),
                Frame::new(true, OpCode::Ping, vec![0; 126]),
                Frame::new(true, OpCode::Pong, vec![0; 126]),
                Frame::new(true, OpCode::Close, ""),
                Frame::new(true, OpCode::Text, vec![0xff]),
                Frame::new(false, OpCode::Text, vec![0xff]),
            ];
            for frame in refused {
                assert!(ws.send_frame(frame.clone()).await.is_err(), "{frame:?}");
            }
            ws.send_frame(Frame::new(false, OpCode::Text, vec![0xe2, 0x82])).await?;
            let refused = [
                Frame::new(true, OpCode::Text, "a"),
                Frame::new(false, OpCode::Binary, "a"),
                Frame::new(true, OpCode::Continuation, ""),
                Frame::new(true, OpCode::Continuation, "a"),
            ];
            for frame in refused {
                assert!(ws.send_frame(frame.clone()).await.is_err(), "{frame:?}");
            }
            assert!(ws.send("a").await.is_err(), "a message inside another");
            ws.send_frame(Frame::new(true, OpCode::Continuation, vec![0xac])).await?;
            ws.send("a").await
        });
        peer.expect_hex("01 02 e282 80 01 ac 81 01 61 88 02 03e8").await;
        peer.send(hex("88 82 00000000 03e8")).await;
        peer.expect_end().await;
    });
}

#[test]
fn without_auto_pong_no_ping_before_the_first_recv_frame_is_lost() {
    const PINGS: u16 = 1000;
    within(async {
        let (go, gone) = oneshot::channel::<()>();
        let options = WebSocketOptions::default().auto_pong(false);
        let mut peer = serve(&options, |mut ws| async move {
            gone.await.unwrap();
            for number in 0..PINGS {
                let frame = ws.recv_frame().await?.unwrap();
                assert_eq!(
                    (frame.opcode(), frame.payload()),
                    (OpCode::Ping, &number.to_be_bytes()[..])
                );
                ws.pong(frame.into_payload()).await?;
            }
            Ok(())
        });
        for number in 0..PINGS {
            peer.send(masked(PING, number.to_be_bytes())).await;
        }
        // Some of them are read ahead; the pipe holds the rest.
        while usize::from(PINGS) * 8 == peer.end.unread() {
            task::yield_now().await;
        }
        go.send(()).unwrap();
        for number in 0..PINGS {
            peer.expect(plain(PONG, number.to_be_bytes())).await;
        }
    });
}
