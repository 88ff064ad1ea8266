//! Peers that send faster than they may.

use futures::channel::oneshot;
use tidewire::frame::{OpCode, ProtocolError, Role};
use tidewire::limits::RateLimit;
use tidewire::{Error, WebSocketOptions};

use super::idle;
use crate::support::attempts::patience;
use crate::support::frames::{
    CLOSE, CONTINUATION, FIN, PING, PONG, Seen, TEXT, close, masked, plain,
};
use crate::support::peer::{Drive, Peer, collect, drive, echo, serve, within};
use crate::support::pipe::{Knobs, Stutter, pipe};
use crate::support::tcp::{Tcp, bind, echo_server};

/// Five at once, and as good as none later.
fn five() -> RateLimit {
    RateLimit::default()
        .messages_per_second(1)
        .message_burst(5)
        .control_frames_per_second(1)
        .control_frame_burst(5)
}

fn options() -> WebSocketOptions {
    WebSocketOptions::default().rate_limit(five())
}

const TOO_MANY_MESSAGES: &str =
    "the peer broke the protocol: messages come faster than the 1 per second allowed";

const TOO_MANY_CONTROLS: &str =
    "the peer broke the protocol: control frames come faster than the 1 per second allowed";

/// A close frame of 1008 with this reason.
fn refusal(reason: &str) -> Seen {
    Seen { head: CLOSE, payload: close(1008, reason) }
}

#[test]
fn messages_within_the_limit_are_received_and_the_next_fails_the_connection_with_1008() {
    let hi = masked(TEXT, "Hi");
    let many = hi.repeat(9);
    // What comes behind a ping does not come in a run.
    let after_ping = [masked(PING, ""), many.clone()].concat();
    let split = Knobs { read: 3, stutter: Stutter::Steady, ..Knobs::default() };
    for (knobs, sent) in
        [(Knobs::default(), &many), (split, &many), (Knobs::default(), &after_ping)]
    {
        for by in Drive::BOTH {
            within(async {
                let (stream, end) = pipe(knobs);
                let (tell, told) = oneshot::channel();
                drive(by, stream, Role::Server, &options(), |mut ws| async move {
                    let _ = tell.send((collect(&mut ws).await, ws.closed().await));
                    Ok(())
                });
                let mut peer = Peer { end };
                peer.send(sent).await;
                let frame = loop {
                    let frame = peer.frame().await;
                    if frame.head != PONG {
                        break frame;
                    }
                };
                assert_eq!(frame, refusal(TOO_MANY_MESSAGES));
                peer.expect_end().await;
                let ((messages, end), info) = told.await.unwrap();
                assert_eq!(messages.len(), 5);
                let expected = ProtocolError::MessageRateExceeded { per_second: 1 };
                assert!(matches!(end, Err(Error::Protocol(error)) if error == expected), "{end:?}");
                assert_eq!(info.reported_code(), 1008);
            });
        }
    }
}

#[test]
fn replies_to_messages_within_the_limit_go_before_the_close_frame() {
    within(async {
        let mut peer = serve(&options(), echo);
        peer.send(masked(TEXT, "Hi").repeat(6)).await;
        peer.expect(plain(TEXT, "Hi").repeat(5)).await;
        assert_eq!(peer.frame().await, refusal(TOO_MANY_MESSAGES));
    });
}

#[test]
fn fragments_count_each() {
    let empty = [masked(TEXT & !FIN, ""), masked(0x00, "").repeat(100)].concat();
    let whole = [masked(TEXT & !FIN, "a"), masked(CONTINUATION, "b")].concat().repeat(3);
    for (sent, messages) in [(empty, 0), (whole, 2)] {
        within(async {
            let (tell, told) = oneshot::channel();
            let mut peer = serve(&options(), |mut ws| async move {
                let _ = tell.send(collect(&mut ws).await.0.len());
                Ok(())
            });
            peer.send(sent).await;
            assert_eq!(peer.frame().await, refusal(TOO_MANY_MESSAGES));
            assert_eq!(told.await, Ok(messages));
        });
    }
}

#[test]
fn compressed_messages_count() {
    within(async {
        let answer = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        let options = options().agreed_deflate(answer.parse().unwrap());
        let (tell, told) = oneshot::channel();
        let mut peer = serve(&options, |mut ws| async move {
            let _ = tell.send(collect(&mut ws).await.0.len());
            Ok(())
        });
        // "Hello", as in RFC 7692 §7.2.3.1.
        peer.send(masked(TEXT | 0x40, b"\xf2\x48\xcd\xc9\xc9\x07\x00").repeat(6)).await;
        assert_eq!(peer.frame().await, refusal(TOO_MANY_MESSAGES));
        assert_eq!(told.await, Ok(5));
    });
}

#[test]
fn a_reader_of_frames_gets_those_within_the_limit() {
    within(async {
        let (tell, told) = oneshot::channel();
        let mut peer = serve(&options(), |mut ws| async move {
            let mut texts = 0;
            while let Ok(Some(frame)) = ws.recv_frame().await {
                assert_eq!(frame.opcode(), OpCode::Text);
                texts += 1;
            }
            let _ = tell.send(texts);
            Ok(())
        });
        peer.send(masked(TEXT, "Hi").repeat(7)).await;
        assert_eq!(peer.frame().await, refusal(TOO_MANY_MESSAGES));
        assert_eq!(told.await, Ok(5));
    });
}

#[test]
fn control_frames_beyond_the_limit_fail_the_connection_with_1008() {
    for head in [PING, PONG] {
        within(async {
            let (tell, told) = oneshot::channel();
            let mut peer = serve(&options(), |mut ws| async move {
                let received = ws.recv().await;
                let _ = tell.send((received, ws.stats()));
                Ok(())
            });
            peer.send(masked(head, "p").repeat(6)).await;
            let answered = if head == PING { 5 } else { 0 };
            peer.expect(plain(PONG, "p").repeat(answered)).await;
            assert_eq!(peer.frame().await, refusal(TOO_MANY_CONTROLS));
            let (received, stats) = told.await.unwrap();
            let expected = ProtocolError::ControlRateExceeded { per_second: 1 };
            assert!(matches!(received, Err(Error::Protocol(error)) if error == expected));
            assert_eq!(stats.pings_in + stats.pongs_in, 5);
            assert_eq!(stats.pongs_out, if head == PING { 5 } else { 0 });
        });
    }
}

#[test]
fn pongs_that_were_asked_for_do_not_count() {
    within(async {
        let mut peer = serve(&options(), |mut ws| async move {
            for number in 0..20_u8 {
                ws.ping(vec![number]).await?;
            }
            echo(ws).await
        });
        for number in 0..20_u8 {
            peer.expect(plain(PING, [number])).await;
            peer.send(masked(PONG, [number])).await;
        }
        peer.send([masked(PONG, "unasked").repeat(5), masked(TEXT, "Hi")].concat()).await;
        peer.expect(plain(TEXT, "Hi")).await;
        peer.send(masked(PONG, "unasked")).await;
        assert_eq!(peer.frame().await, refusal(TOO_MANY_CONTROLS));
    });
}

#[test]
fn a_peer_that_keeps_to_the_rate_sends_as_much_as_it_likes() {
    within(async {
        let fast = RateLimit::default().messages_per_second(1_000_000).message_burst(50);
        let mut peer = serve(&WebSocketOptions::default().rate_limit(fast), echo);
        for _ in 0..500 {
            peer.send(masked(TEXT, "Hi")).await;
            peer.expect(plain(TEXT, "Hi")).await;
        }
    });
}

#[test]
fn frames_that_waited_while_this_side_did_not_read_do_not_count_against_the_peer() {
    within(async {
        let limit = RateLimit::default().messages_per_second(100).message_burst(5);
        let options = WebSocketOptions::default().rate_limit(limit).read_ahead_size(1);
        let (go, gone) = oneshot::channel::<()>();
        let mut peer = serve(&options, |ws| async move {
            gone.await.unwrap();
            echo(ws).await
        });
        peer.send(masked(TEXT, "Hi").repeat(30)).await;
        idle(super::SOON).await;
        go.send(()).unwrap();
        peer.expect(plain(TEXT, "Hi").repeat(30)).await;
    });
}

#[test]
fn a_closing_connection_is_not_failed_any_more() {
    within(async {
        let (tell, told) = oneshot::channel();
        let mut peer = serve(&options(), |mut ws| async move {
            assert!(patience(1, ws.close(1000_u16, "")).await.is_none());
            let _ = tell.send(collect(&mut ws).await.1);
            Ok(())
        });
        peer.expect_hex("88 02 03e8").await;
        peer.send(masked(PING, "").repeat(20)).await;
        peer.send(masked(CLOSE, close(1000, ""))).await;
        assert!(told.await.unwrap().is_ok());
    });
}

#[test]
fn a_flood_over_tcp_is_cut_off() {
    let addr = bind(echo_server(options()));
    let mut client = Tcp::upgraded(addr);
    client.send(masked(TEXT, "Hi").repeat(100));
    for _ in 0..5 {
        client.expect(plain(TEXT, "Hi"));
    }
    assert_eq!(client.frame(), refusal(TOO_MANY_MESSAGES));
    client.expect_end();
}
