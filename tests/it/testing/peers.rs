//! Clients that speak bytes and frames, most of them wrong.

use async_tungstenite::client_async;
use async_tungstenite::tungstenite::Message as TungsteniteMessage;
use futures::{FutureExt, StreamExt};
use tidewire::frame::{Frame, OpCode, ProtocolError};
use tidewire::testing::{RawFrame, TestClient};
use tidewire::websocket::{HeartbeatOptions, TimeoutKind};
use tidewire::{Error, RequestContext, Server, WebSocketOptions};

use super::{SOON, echo, next, observed, within};

#[test]
fn each_bad_frame_has_its_close_code() {
    type Frames = Vec<RawFrame>;
    let text = || RawFrame::text("Hello");
    let cases: [(&str, Frames, u16); 19] = [
        ("unmasked", vec![text().unmasked()], 1002),
        ("RSV1", vec![text().with_reserved_bits(4)], 1002),
        ("RSV2", vec![text().with_reserved_bits(2)], 1002),
        ("RSV3", vec![text().with_reserved_bits(1)], 1002),
        ("a reserved opcode", vec![text().with_opcode(3)], 1002),
        ("a reserved control opcode", vec![RawFrame::ping("").with_opcode(0xb)], 1002),
        ("a long ping", vec![RawFrame::ping(vec![0; 126])], 1002),
        ("a long close", vec![RawFrame::close(1000, &"x".repeat(124))], 1002),
        ("a fragment of a ping", vec![RawFrame::ping("").without_fin()], 1002),
        ("nothing to continue", vec![RawFrame::continuation("lo")], 1002),
        ("a message inside another", vec![text().without_fin(), text()], 1002),
        ("a length of eight bytes", vec![text().with_long_length()], 1002),
        ("a length of 64 bits", vec![text().announcing(1 << 63)], 1002),
        ("a length beyond the limit", vec![text().announcing(1001)], 1009),
        ("a message beyond the limit", vec![RawFrame::binary(vec![0; 1001])], 1009),
        ("no UTF-8", vec![RawFrame::text(b"\xff".as_slice())], 1007),
        (
            "half a character",
            vec![RawFrame::text(b"\xc3".as_slice()).without_fin(), RawFrame::continuation("")],
            1007,
        ),
        ("a code that may not be sent", vec![RawFrame::close(1006, "")], 1002),
        ("a close of one byte", vec![RawFrame::ping("x").with_opcode(8)], 1002),
    ];
    let options = WebSocketOptions::default().max_message_size(1000);
    within(async {
        let (client, mut outcomes) = observed(options);
        for (what, frames, code) in cases {
            let mut peer = client.peer("/ws").await.unwrap();
            for frame in frames {
                peer.send_frame(frame).await.unwrap();
            }
            let (last, info) = next(&mut outcomes).await;
            assert!(matches!(last, Err(Error::Protocol(_))), "{what}: {last:?}");
            assert_eq!(info.reported_code(), code, "{what}");
            peer.expect_close(code).await;
            peer.end_of_stream().await;
        }
        client.idle().await;
    });
}

#[test]
fn a_frame_that_is_right_is_written_as_section_5_2_says() {
    let masked = "37fa213d";
    for (frame, head) in [
        (RawFrame::text(""), "81 80"),
        (RawFrame::text("").without_fin(), "01 80"),
        (RawFrame::binary(vec![0; 125]), "82 fd"),
        (RawFrame::binary(vec![0; 126]), "82 fe 007e"),
        (RawFrame::binary(vec![0; 65_535]), "82 fe ffff"),
        (RawFrame::binary(vec![0; 65_536]), "82 ff 0000000000010000"),
        (RawFrame::continuation("").announcing(7), "80 87"),
        (RawFrame::ping(""), "89 80"),
        (RawFrame::pong("").with_long_length(), "8a ff 0000000000000000"),
        (RawFrame::close(1005, "ignored"), "88 80"),
        (RawFrame::from(Frame::new(false, OpCode::Binary, "")), "02 80"),
    ] {
        let head = crate::support::frames::hex(&format!("{head}{masked}"));
        assert!(frame.encode().starts_with(&head), "{frame:?}");
    }
    assert_eq!(RawFrame::close(1001, "bye").unmasked().encode(), b"\x88\x05\x03\xe9bye");
    assert_eq!(RawFrame::text("ab").with_key([1, 2, 3, 4]).encode(), b"\x81\x82\x01\x02\x03\x04``");
}

#[test]
fn a_peer_hears_control_frames_and_answers_none() {
    let heartbeat = HeartbeatOptions::default().interval(SOON).timeout(SOON);
    let (client, mut outcomes) = observed(WebSocketOptions::default().heartbeat(heartbeat));
    within(async {
        let mut peer = client.peer("/ws").await.unwrap();
        let ping = peer.recv_frame().await.unwrap();
        assert_eq!((ping.opcode(), ping.fin()), (OpCode::Ping, true));
        let (last, _) = next(&mut outcomes).await;
        assert!(matches!(last, Err(Error::Timeout(TimeoutKind::Pong))), "{last:?}");

        let mut peer = client.peer("/ws").await.unwrap();
        peer.send_frame(Frame::new(true, OpCode::Ping, "are you there?")).await.unwrap();
        let answer = Frame::new(true, OpCode::Pong, "are you there?");
        assert_eq!(peer.recv_frame().await.unwrap(), answer);
    });
}

#[test]
fn a_closing_handshake_is_done_by_hand_and_its_reason_seen() {
    let mut server = Server::new();
    server.get("/expired", |mut ctx: RequestContext| async move {
        ctx.reject_websocket(4401, "token expired").await
    });
    let refusing = TestClient::new(&server);
    let (client, mut outcomes) = observed(WebSocketOptions::default());
    within(async {
        for (code, reason) in [(1000, "bye"), (1005, ""), (4999, "")] {
            let mut peer = client.peer("/ws").await.unwrap();
            peer.send_frame(RawFrame::close(code, reason)).await.unwrap();
            peer.expect_close(code).await;
            peer.end_of_stream().await;
            let (last, info) = next(&mut outcomes).await;
            assert_eq!((last.unwrap(), &*info.reason, info.clean), (None, reason, true));
        }
        client.idle().await;
        assert_eq!(client.metrics().closes, [(1000, 1), (1005, 1), (4999, 1)].into());

        let mut peer = refusing.peer("/expired").await.unwrap();
        assert_eq!(peer.expect_close(4401).await, "token expired");
        peer.send_frame(RawFrame::close(4401, "")).await.unwrap();
        peer.end_of_stream().await;
        refusing.idle().await;
    });
}

#[test]
fn a_message_that_does_not_end_is_waited_for_as_long_as_the_options_say() {
    let client = echo(WebSocketOptions::default().message_timeout(SOON));
    within(async {
        let mut peer = client.peer("/ws").await.unwrap();
        peer.send_frame(RawFrame::text("Hello").announcing(100)).await.unwrap();
        peer.expect_close(1008).await;
        peer.end_of_stream().await;
    });
}

#[test]
fn bytes_may_leave_and_arrive_in_pieces() {
    let client = echo(WebSocketOptions::default());
    within(async {
        let mut peer = client.peer("/ws").await.unwrap();
        for byte in RawFrame::text("Hello").encode() {
            peer.send_bytes([byte]).await.unwrap();
        }
        peer.expect_hex("81 05").await;
        peer.expect_bytes("Hel").await;
        // Dropped half-way, nothing is lost.
        assert!(peer.expect_bytes("lo and more").now_or_never().is_none());
        peer.expect_bytes("lo").await;

        peer.send_bytes(&RawFrame::text("Hello").encode()[..8]).await.unwrap();
        assert!(peer.recv_frame().now_or_never().is_none());
        peer.send_bytes(&RawFrame::text("Hello").encode()[8..]).await.unwrap();
        peer.expect_text("Hello").await;
    });
}

#[test]
fn a_client_of_another_crate_goes_over_a_peer() {
    let client = echo(WebSocketOptions::default());
    within(async {
        let peer = client.open().unwrap();
        let (mut ws, response) = client_async("ws://localhost/ws", peer).await.unwrap();
        assert_eq!(response.status(), 101);
        ws.send(TungsteniteMessage::text("Hello")).await.unwrap();
        assert_eq!(ws.next().await.unwrap().unwrap(), TungsteniteMessage::text("Hello"));
        ws.close(None).await.unwrap();
        drop(ws);
        client.idle().await;
    });
}

#[test]
fn a_frame_of_the_server_that_breaks_a_rule_is_an_error() {
    let client = echo(WebSocketOptions::default());
    within(async {
        let mut peer = client.open().unwrap();
        peer.send_bytes("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        // The first letter of "HTTP" has RSV1 set.
        let error = peer.recv_frame().await.unwrap_err();
        assert!(matches!(error, Error::Protocol(ProtocolError::ReservedBits(4))), "{error:?}");
    });
}
