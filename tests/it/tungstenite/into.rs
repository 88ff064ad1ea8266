//! Connections of ours that go on in async-tungstenite.

use std::time::{Duration, Instant};

use async_std::net::TcpStream;
use async_tungstenite::tungstenite::{self, Message};
use async_tungstenite::{WebSocketStream, client_async};
use futures::channel::oneshot;
use futures::{SinkExt, StreamExt};
use tidewire::frame::{OpCode, Role};
use tidewire::limits::{ConnectionLimit, RateLimit};
use tidewire::server::ShutdownOptions;
use tidewire::tungstenite::HandOverError;
use tidewire::upgrade::UpgradeOptions;
use tidewire::websocket::HeartbeatOptions;
use tidewire::{Error, Hub, RequestContext, Room, Server, WebSocket, WebSocketOptions};

use super::{conversation, echo, encode_for, take};
use crate::support::attempts::patience;
use crate::support::frames::{
    BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, TEXT, close, masked, plain,
};
use crate::support::peer::{Drive, Peer, drive, within};
use crate::support::pipe::{Knobs, Stutter, pipe};
use crate::support::tcp::{Tcp, bind};

fn options() -> WebSocketOptions {
    WebSocketOptions::default()
}

/// A peer of `handler`, which ends well.
fn peer_of<F, Fut>(by: Drive, role: Role, options: &WebSocketOptions, handler: F) -> Peer
where
    F: FnOnce(WebSocket) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    peer_over(Knobs::default(), by, role, options, handler)
}

fn peer_over<F, Fut>(
    knobs: Knobs,
    by: Drive,
    role: Role,
    options: &WebSocketOptions,
    handler: F,
) -> Peer
where
    F: FnOnce(WebSocket) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let (stream, end) = pipe(knobs);
    drive(by, stream, role, options, |ws| {
        let work = handler(ws);
        async move {
            work.await;
            Ok(())
        }
    });
    Peer { end }
}

/// Hands over after the first message, with `cut` bytes of the conversation glued to that.
async fn try_cut(by: Drive, role: Role, options: &WebSocketOptions, cut: usize) {
    let encode = encode_for(role);
    let (wire, messages) = conversation(encode);
    let (tell, told) = oneshot::channel();
    let (done, finished) = oneshot::channel();
    let expected = messages.len();
    let mut peer = peer_of(by, role, options, async move |mut ws: WebSocket| {
        assert_eq!(ws.recv().await.unwrap(), Some("first".into()));
        let mut stream = ws.into_tungstenite().await.unwrap();
        tell.send(()).unwrap();
        done.send(take(&mut stream, expected).await).unwrap();
        WebSocketStream::send(&mut stream, Message::text("bye")).await.unwrap();
    });
    let (before, after) = wire.split_at(cut);
    peer.send([encode(TEXT, b"first"), before.to_vec()].concat()).await;
    told.await.unwrap();
    peer.send(after).await;
    assert_eq!(finished.await.unwrap(), messages, "{by:?} {role:?} cut at {cut}");

    // One pong, from whichever side of the bridge saw the ping.
    let mut next = async || match role {
        Role::Server => peer.frame().await,
        Role::Client => peer.masked_frame().await,
    };
    let (pong, bye) = (next().await, next().await);
    assert_eq!((pong.head, &*pong.payload), (PONG, b"between".as_slice()), "{cut}");
    assert_eq!((bye.head, &*bye.payload), (TEXT, b"bye".as_slice()), "{cut}");
}

#[test]
fn bytes_that_have_arrived_are_read_by_tungstenite_for_every_cut() {
    let len = conversation(encode_for(Role::Server)).0.len();
    for by in Drive::BOTH {
        for cut in 0..=len {
            within(try_cut(by, Role::Server, &options(), cut));
        }
    }
}

#[test]
fn a_client_hands_over_unparsed_bytes() {
    let len = conversation(encode_for(Role::Client)).0.len();
    for read_ahead in [0, 20, 64 << 10] {
        let options = options().read_ahead_size(read_ahead);
        for cut in (0..=len).step_by(7) {
            within(try_cut(Drive::Caller, Role::Client, &options, cut));
        }
    }
}

#[test]
fn a_ping_that_was_read_ahead_has_one_pong_from_the_side_that_owes_it() {
    for auto_pong in [true, false] {
        within(async {
            let (go, may_go) = oneshot::channel::<()>();
            let options = options().auto_pong(auto_pong);
            let mut peer = peer_of(Drive::Task, Role::Server, &options, async move |mut ws| {
                ws.ping("ahead").await.unwrap();
                may_go.await.unwrap();
                let _ = echo(ws.into_tungstenite().await.unwrap()).await;
            });
            peer.expect(plain(PING, "ahead")).await;
            peer.send([masked(PING, "p"), masked(TEXT, "x")].concat()).await;
            if auto_pong {
                peer.expect(plain(PONG, "p")).await;
            }
            while peer.end.unread() > 0 {
                async_std::task::yield_now().await;
            }
            go.send(()).unwrap();
            if !auto_pong {
                peer.expect(plain(PONG, "p")).await;
            }
            peer.expect(plain(TEXT, "x")).await;
        });
    }
}

#[test]
fn messages_sent_before_are_written_first() {
    for by in Drive::BOTH {
        within(async {
            let narrow = Knobs { in_flight: 100, stutter: Stutter::Steady, ..Knobs::default() };
            let mut peer =
                peer_over(narrow, by, Role::Server, &options(), async move |mut ws: WebSocket| {
                    for n in 0..3 {
                        // Queued, whether it is written or not.
                        SinkExt::feed(&mut ws, vec![n; 200]).await.unwrap();
                    }
                    let mut stream = ws.into_tungstenite().await.unwrap();
                    WebSocketStream::send(&mut stream, Message::text("last")).await.unwrap();
                });
            for n in 0..3 {
                peer.expect(plain(BINARY, [n; 200])).await;
            }
            peer.expect(plain(TEXT, "last")).await;
        });
    }
}

#[test]
fn the_others_find_the_connection_closed() {
    for by in Drive::BOTH {
        within(async {
            let (tell, told) = oneshot::channel();
            let mut peer = peer_of(by, Role::Server, &options(), async move |ws: WebSocket| {
                let sender = ws.sender();
                let stream = ws.into_tungstenite().await.unwrap();
                tell.send(sender).unwrap();
                let _ = echo(stream).await;
            });
            let sender = told.await.unwrap();
            assert!(!sender.is_open());
            assert!(matches!(sender.send("x").await, Err(Error::Closed)));
            assert_eq!(sender.closed().await.code, None);
            peer.send(masked(TEXT, "still here")).await;
            peer.expect(plain(TEXT, "still here")).await;
        });
    }
}

#[test]
fn limits_on_messages_and_frames_go_along() {
    let cases = [
        options().max_message_size(100),
        options().max_frame_size(100),
        options().max_frame_size(1000).max_message_size(100),
    ];
    for options in cases {
        within(async {
            let (tell, told) = oneshot::channel();
            let mut peer = peer_of(Drive::Task, Role::Server, &options, async move |ws| {
                let mut stream = ws.into_tungstenite().await.unwrap();
                assert_eq!(take(&mut stream, 1).await[0].len(), 100);
                tell.send(stream.next().await).unwrap();
            });
            peer.send(masked(BINARY, [0; 100])).await;
            peer.send(masked(BINARY, [0; 101])).await;
            let refused = told.await.unwrap();
            let is_refused = matches!(refused, Some(Err(tungstenite::Error::Capacity(_))));
            assert!(is_refused, "{refused:?}");
        });
    }
}

/// Asks for the hand-over, which is refused, and goes on with the connection.
async fn refused(ws: WebSocket, reason: HandOverError) -> WebSocket {
    let error = ws.into_tungstenite().await.unwrap_err();
    assert_eq!(error.reason(), reason, "{error:#}");
    assert_eq!(error.to_string(), "the connection was not handed over");
    assert_eq!(format!("{error:#}"), format!("the connection was not handed over: {reason}"));
    error.into_websocket()
}

#[test]
fn a_connection_that_is_watched_or_compressed_is_given_back_and_goes_on() {
    let hour = Duration::from_secs(3600);
    let watched = HandOverError::Watched;
    let cases = [
        (options().heartbeat(HeartbeatOptions::default()), watched),
        (options().idle_timeout(hour), watched),
        (options().max_lifetime(hour), watched),
        (options().rate_limit(RateLimit::default()), watched),
        (options().agreed_deflate("permessage-deflate".parse().unwrap()), HandOverError::Deflate),
    ];
    for by in Drive::BOTH {
        for (options, reason) in &cases {
            let reason = *reason;
            within(async {
                let mut peer = peer_of(by, Role::Server, options, async move |ws: WebSocket| {
                    let mut ws = refused(ws, reason).await;
                    let message = ws.recv().await.unwrap().unwrap();
                    ws.send(message).await.unwrap();
                });
                peer.send(masked(TEXT, "on")).await;
                peer.expect(plain(TEXT, "on")).await;
            });
        }
    }
}

#[test]
fn a_connection_that_is_no_longer_watched_is_handed_over() {
    within(async {
        let options = options().heartbeat(HeartbeatOptions::default());
        let mut peer = peer_of(Drive::Task, Role::Server, &options, async move |mut ws| {
            ws = refused(ws, HandOverError::Watched).await;
            ws.set_heartbeat(None);
            ws.expire_at(Instant::now() + Duration::from_secs(3600), 1000, "").unwrap();
            ws = refused(ws, HandOverError::Watched).await;
            ws.cancel_expiry();
            let _ = echo(ws.into_tungstenite().await.unwrap()).await;
        });
        peer.send(masked(TEXT, "on")).await;
        peer.expect(plain(TEXT, "on")).await;
    });
}

#[test]
fn a_message_sent_in_part_is_ended_first() {
    within(async {
        let mut peer = peer_of(Drive::Task, Role::Server, &options(), async move |mut ws| {
            let first = tidewire::frame::Frame::new(false, OpCode::Text, "a");
            ws.send_frame(first).await.unwrap();
            ws = refused(ws, HandOverError::SendingMessage).await;
            let last = tidewire::frame::Frame::new(true, OpCode::Continuation, "b");
            ws.send_frame(last).await.unwrap();
            let _ = echo(ws.into_tungstenite().await.unwrap()).await;
        });
        peer.expect_hex("01 01 61 80 01 62").await;
        peer.send(masked(TEXT, "on")).await;
        peer.expect(plain(TEXT, "on")).await;
    });
}

#[test]
fn a_message_received_in_part_is_received_to_its_end_first() {
    let first = masked(TEXT & !FIN, "a");
    let last = masked(CONTINUATION, "b");
    // The rest is here, in part, or not at all.
    for glued in [0, 1, 6, 7] {
        for by in Drive::BOTH {
            within(async {
                let (tell, told) = oneshot::channel();
                let mut peer = peer_of(by, Role::Server, &options(), async move |mut ws| {
                    assert_eq!(ws.recv_frame().await.unwrap().unwrap().payload(), b"a");
                    ws = refused(ws, HandOverError::ReceivingMessage).await;
                    tell.send(()).unwrap();
                    assert_eq!(ws.recv_frame().await.unwrap().unwrap().payload(), b"b");
                    let _ = echo(ws.into_tungstenite().await.unwrap()).await;
                });
                peer.send([&first, &last[..glued]].concat()).await;
                told.await.unwrap();
                peer.send(&last[glued..]).await;
                peer.send(masked(TEXT, "on")).await;
                peer.expect(plain(TEXT, "on")).await;
            });
        }
    }
}

#[test]
fn a_connection_that_closes_is_given_back_with_its_messages() {
    for by in Drive::BOTH {
        within(async {
            let mut peer = peer_of(by, Role::Server, &options(), async move |mut ws: WebSocket| {
                assert_eq!(ws.recv().await.unwrap(), Some("one".into()));
                let mut ws = refused(ws, HandOverError::Closed).await;
                assert_eq!(ws.recv().await.unwrap(), Some("two".into()));
                assert_eq!(ws.recv().await.unwrap(), None);
                refused(ws, HandOverError::Closed).await;
            });
            let goodbye = masked(CLOSE, close(1000, ""));
            peer.send([masked(TEXT, "one"), masked(TEXT, "two"), goodbye].concat()).await;
            peer.expect_close(1000).await;
        });
    }
}

#[test]
fn a_handler_of_a_server_echoes_by_tungstenite_and_keeps_its_permit_and_its_rooms() {
    within(async {
        let limit = ConnectionLimit::new(1);
        let room: Room = Hub::new().room("room");
        let mut server = Server::new();
        let (options, joined) = (UpgradeOptions::from(options()).limit(&limit), room.clone());
        server.get("/", move |mut ctx: RequestContext| {
            let (options, room) = (options.clone(), joined.clone());
            async move {
                let ws = ctx.upgrade_to_websocket(options).await?;
                let _member = room.join(&ws);
                let stream = ws.into_tungstenite().await?;
                assert!(stream.get_ref().peer_addr().is_some());
                Ok(echo(stream).await?)
            }
        });
        let addr = bind(server);
        let socket = TcpStream::connect(addr).await.unwrap();
        let (mut client, _) = client_async(format!("ws://{addr}/"), socket).await.unwrap();
        for size in [0, 125, 126, 65_536, 1 << 20] {
            let message = Message::binary(vec![7; size]);
            WebSocketStream::send(&mut client, message.clone()).await.unwrap();
            assert_eq!(take(&mut client, 1).await, [message]);
        }
        assert_eq!((limit.in_use(), room.len()), (1, 1));
        client.close(None).await.unwrap();
        while let Some(Ok(_)) = client.next().await {}
        while limit.in_use() > 0 || !room.is_empty() {
            async_std::task::yield_now().await;
        }
    });
}

#[test]
fn a_first_frame_glued_to_the_handshake_reaches_tungstenite() {
    within(async {
        let mut server = Server::new();
        server.get("/", move |mut ctx: RequestContext| async move {
            let ws = ctx.upgrade_to_websocket(options()).await?;
            Ok(echo(ws.into_tungstenite().await?).await?)
        });
        let mut client = Tcp::connect(bind(server));
        client.send([crate::support::tcp::OPENING.as_bytes(), &masked(TEXT, "glued")].concat());
        client.head();
        client.expect(plain(TEXT, "glued"));
    });
}

#[test]
fn a_shutdown_drops_a_connection_that_was_handed_over() {
    within(async {
        let mut server = Server::new();
        server.get("/", move |mut ctx: RequestContext| async move {
            let ws = ctx.upgrade_to_websocket(options()).await?;
            Ok(echo(ws.into_tungstenite().await?).await?)
        });
        let bound = server.bind("127.0.0.1:0").await.unwrap();
        let (addr, handle) = (bound.local_addr(), bound.handle());
        async_std::task::spawn(bound.serve());
        let mut client = Tcp::upgraded(addr);
        client.send(masked(TEXT, "x"));
        client.expect(plain(TEXT, "x"));
        let shutdown = ShutdownOptions::default().grace(Duration::from_millis(50));
        let report = handle.shutdown(shutdown).await;
        assert_eq!(report.dropped, 1, "{report:?}");
        client.expect_end();
    });
}

#[test]
fn messages_of_a_handler_in_its_turn_are_written_before_another_task_takes_the_stream() {
    within(async {
        let mut peer = peer_of(Drive::Task, Role::Server, &options(), |ws| async move {
            ws.sender().send("ours").await.unwrap();
            let mut into = Box::pin(ws.into_tungstenite());
            // While the handler still has what it has sent.
            let is_taken = std::thread::scope(|scope| {
                let asking =
                    scope.spawn(|| async_std::task::block_on(patience(1, &mut into)).is_some());
                asking.join().unwrap()
            });
            assert!(!is_taken);
            let mut stream = into.await.unwrap();
            stream.send(Message::text("theirs")).await.unwrap();
        });
        peer.expect(plain(TEXT, "ours")).await;
        peer.expect(plain(TEXT, "theirs")).await;
    });
}
