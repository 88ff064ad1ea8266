//! The heartbeat that a server has without being asked to.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use futures::FutureExt;
use futures::channel::oneshot;
use tidewire::frame::{OpCode, Role};
use tidewire::limits::ConnectionLimit;
use tidewire::testing::{ManualClock, TestClient};
use tidewire::upgrade::UpgradeOptions;
use tidewire::{RequestContext, Server, WebSocket, WebSocketOptions};

use super::{
    INTERVAL, SERVER, TIMEOUT, expect_given_up, in_one_task, pass, settle, timed, token, turning,
    with,
};
use crate::support::frames::{CLOSE, PONG, TEXT, close, masked};
use crate::support::peer::{Peer, echo, within};
use crate::support::pipe::{End, Knobs, pipe};
use crate::support::tcp::OPENING;

type Connection = Pin<Box<dyn Future<Output = ()>>>;

/// Opens a connection of an echo over this stream.
type Way = fn(End, WebSocketOptions) -> Connection;

/// The ways to a connection: what they are called, whether they begin with an opening handshake, and
/// whether the connection pings.
const WAYS: [(&str, Way, bool, bool); 5] = [
    (
        "run as a server",
        |stream, options| WebSocket::run(stream, [].as_slice(), Role::Server, &options, echo),
        false,
        true,
    ),
    (
        "run as a client",
        |stream, options| WebSocket::run(stream, [].as_slice(), Role::Client, &options, echo),
        false,
        false,
    ),
    (
        "without a task",
        |stream, options| {
            let ws = WebSocket::from_stream(stream, [].as_slice(), Role::Server, &options);
            Box::pin(echo(ws).map(drop))
        },
        false,
        false,
    ),
    (
        "accepted, with a task",
        |stream, options| {
            Box::pin(async move {
                let request = tidewire::upgrade::accept(stream).await.unwrap();
                request.run(options, echo).await.unwrap();
            })
        },
        true,
        true,
    ),
    (
        "accepted, without a task",
        |stream, options| {
            Box::pin(async move {
                let request = tidewire::upgrade::accept(stream).await.unwrap();
                let _ = echo(request.upgrade(options).await.unwrap()).await;
            })
        },
        true,
        false,
    ),
];

#[test]
fn a_server_with_a_task_for_its_connection_pings_unless_it_is_told_not_to() {
    for (name, way, has_handshake, pings) in WAYS {
        for is_switched_off in [false, true] {
            eprintln!("{name}, switched off: {is_switched_off}");
            let clock = ManualClock::new();
            let mut options = WebSocketOptions::default().clock(&clock);
            if is_switched_off {
                options = options.heartbeat(None);
            }
            let (stream, end) = pipe(Knobs::default());
            in_one_task(way(stream, options), async {
                let mut peer = Peer { end };
                if has_handshake {
                    peer.send(OPENING).await;
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.extend(peer.read(1).await);
                    }
                }
                // The first ping waits for half of the interval, at least.
                pass(&clock, (INTERVAL / 2).saturating_sub(Duration::from_millis(200))).await;
                assert_eq!(peer.end.arrived(), 0);
                pass(&clock, INTERVAL / 2 + Duration::from_millis(200)).await;
                if pings && !is_switched_off {
                    token(&mut peer).await;
                    pass(&clock, TIMEOUT).await;
                    return expect_given_up(&mut peer).await;
                }
                for _ in 0..10 {
                    pass(&clock, INTERVAL).await;
                }
                assert_eq!(peer.end.arrived(), 0);
            });
        }
    }
}

#[test]
fn a_client_that_has_vanished_gives_its_permit_back() {
    let (clock, limit) = (ManualClock::new(), ConnectionLimit::new(1));
    let options = UpgradeOptions::from(WebSocketOptions::default().clock(&clock)).limit(&limit);
    let mut server = Server::new();
    server.get("/ws", move |mut ctx: RequestContext| {
        let options = options.clone();
        async move { Ok(echo(ctx.upgrade_to_websocket(options).await?).await?) }
    });
    let client = TestClient::new(&server);
    within(async {
        let mut vanished = client.peer("/ws").await.unwrap();
        client.websocket("/ws").refused().await.assert_status(503);
        // The timer of the opening handshake is gone once the handler has the connection.
        vanished.send_bytes(masked(TEXT, "here")).await.unwrap();
        vanished.expect_text("here").await;
        // That of the heartbeat is registered when the connection parks.
        while clock.next_deadline().is_none() {
            async_std::task::yield_now().await;
        }
        clock.advance(INTERVAL);
        assert_eq!(vanished.recv_frame().await.unwrap().opcode(), OpCode::Ping);
        clock.advance(TIMEOUT);
        vanished.expect_close(1008).await;
        vanished.end_of_stream().await;
        client.idle().await;
        client.connect("/ws").await.unwrap();
    });
}

#[test]
fn pongs_of_a_heartbeat_are_not_shown_to_a_reader_of_frames_and_others_are() {
    let (tell, told) = oneshot::channel();
    let handler = |mut ws: WebSocket| async move {
        let mut shown = vec![];
        while let Some(frame) = ws.recv_frame().await? {
            shown.push((frame.opcode(), frame.into_payload().to_vec()));
        }
        let _ = tell.send((shown, ws.stats()));
        Ok(())
    };
    turning(SERVER, with(timed()), handler, async |mut peer, clock| {
        pass(&clock, INTERVAL).await;
        let first = token(&mut peer).await;
        // A sign of life is no pong: the connection asks again, and both may be answered.
        peer.send(masked(TEXT, "Hi")).await;
        pass(&clock, TIMEOUT).await;
        pass(&clock, INTERVAL.saturating_sub(TIMEOUT)).await;
        let second = token(&mut peer).await;
        let longer = [&*second, b"x"].concat();
        for payload in [&*first, &second, &longer, b"unasked", b""] {
            peer.send(masked(PONG, payload)).await;
        }
        peer.send(masked(CLOSE, close(1000, ""))).await;
        settle().await;
        let (shown, stats) = told.await.unwrap();
        let pong = |payload: &[u8]| (OpCode::Pong, payload.to_vec());
        let close = (OpCode::Close, close(1000, ""));
        let text = (OpCode::Text, b"Hi".to_vec());
        assert_eq!(shown, [text, pong(&longer), pong(b"unasked"), pong(b""), close]);
        assert_eq!((stats.pings_out, stats.pongs_in), (2, 5));
        assert_eq!(stats.rtt, Some(Duration::ZERO));
    });
}
