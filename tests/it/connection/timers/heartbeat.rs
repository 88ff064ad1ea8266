//! A heartbeat beside all else that a connection does, and does not.

use std::time::Duration;

use async_std::task;
use futures::channel::oneshot;
use futures::future::pending;
use tidewire::frame::{Frame, OpCode, Role};
use tidewire::websocket::HeartbeatOptions;
use tidewire::{WebSocket, WebSocketOptions};

use super::{
    INTERVAL, SERVER, SOON, TIMEOUT, answer, expect_given_up, impatient, is_unanswered, often,
    other_frame, pass, timed, token, turning, with,
};
use crate::support::attempts::patience;
use crate::support::frames::{CLOSE, CONTINUATION, FIN, PING, PONG, TEXT, close, masked, plain};
use crate::support::peer::{Drive, Peer, collect, drive, echo, serve, serve_over, within};
use crate::support::pipe::{Knobs, pipe};
use crate::support::tcp::{Tcp, bind, echo_server};

#[test]
fn a_handler_that_waits_for_something_else_has_its_peer_asked() {
    within(async {
        let (tell, told) = oneshot::channel();
        let mut peer = serve(&WebSocketOptions::default(), |ws| async move {
            ws.set_heartbeat(impatient());
            let _ = tell.send(ws.sender());
            pending().await
        });
        let sender = told.await.unwrap();
        for _ in 0..5 {
            answer(&mut peer).await;
        }
        assert!(sender.is_open() && sender.rtt().is_some());
        token(&mut peer).await;
        expect_given_up(&mut peer).await;
        assert!(!sender.closed().await.clean);
        assert!(is_unanswered(&sender.send("late").await));
    });
}

#[test]
fn the_connection_is_over_when_its_peer_is_given_up() {
    within(async {
        let (stream, end) = pipe(Knobs::default());
        let running = drive(Drive::Task, stream, Role::Server, &with(impatient()), echo);
        running.await;
        let mut peer = Peer { end };
        token(&mut peer).await;
        expect_given_up(&mut peer).await;
    });
}

#[test]
fn a_peer_whose_answer_this_side_does_not_read_is_not_given_up() {
    for by in Drive::BOTH {
        let (go, gone) = oneshot::channel::<()>();
        let options = with(timed()).read_ahead_size(1);
        let handler = |mut ws: WebSocket| async move {
            assert!(ws.recv().await?.is_some());
            ws.send("busy").await?;
            gone.await.unwrap();
            collect(&mut ws).await.1
        };
        let sides = (by, Role::Server, Knobs::WIDE);
        turning(sides, options, handler, async |mut peer, clock| {
            // Without a task of its own the connection pings while somebody receives.
            let mut pings = vec![];
            if by == Drive::Caller {
                pass(&clock, INTERVAL).await;
                pings.push(token(&mut peer).await);
            }
            peer.send(masked(TEXT, "work")).await;
            peer.expect(plain(TEXT, "busy")).await;
            peer.send(masked(TEXT, "more")).await;
            if by == Drive::Task {
                pass(&clock, INTERVAL).await;
                pings.push(token(&mut peer).await);
            }
            peer.send(masked(PONG, &pings[0])).await;
            for _ in 0..5 {
                pass(&clock, TIMEOUT).await;
            }
            assert_eq!(peer.end.arrived(), 0);
            go.send(()).unwrap();
            for _ in 0..2 {
                pass(&clock, INTERVAL).await;
                answer(&mut peer).await;
            }
        });
    }
}

#[test]
fn a_peer_that_takes_nothing_is_given_up_without_a_close_frame() {
    within(async {
        let (tell, told) = oneshot::channel();
        let stuck = Knobs { in_flight: 0, ..Knobs::default() };
        let options = with(impatient()).send_timeout(None);
        let mut peer = serve_over(stuck, &options, |mut ws| async move {
            ws.send("Hello").await?;
            let _ = tell.send((ws.recv().await, ws.closed().await));
            Ok(())
        });
        let (received, info) = told.await.unwrap();
        assert!(is_unanswered(&received), "{received:?}");
        assert_eq!((info.reported_code(), info.clean), (1006, false));
        peer.expect_end().await;
    });
}

#[test]
fn a_heartbeat_asks_between_the_fragments_of_a_message() {
    within(async {
        let (go, gone) = oneshot::channel::<()>();
        let mut peer = serve(&WebSocketOptions::default(), |mut ws| async move {
            ws.send_frame(Frame::new(false, OpCode::Text, "Hel")).await?;
            ws.set_heartbeat(often());
            gone.await.unwrap();
            ws.set_heartbeat(None);
            ws.send_frame(Frame::new(true, OpCode::Continuation, "lo")).await?;
            collect(&mut ws).await.1
        });
        peer.expect(plain(TEXT & !FIN, "Hel")).await;
        answer(&mut peer).await;
        answer(&mut peer).await;
        go.send(()).unwrap();
        let last = other_frame(&mut peer).await;
        assert_eq!((last.head, &*last.payload), (CONTINUATION, &b"lo"[..]));
    });
}

#[test]
fn a_stopped_heartbeat_sends_no_pings_and_fails_no_connection() {
    let handler = |mut ws: WebSocket| async move {
        assert!(ws.recv().await?.is_some());
        ws.set_heartbeat(None);
        ws.send("stopped").await?;
        echo(ws).await
    };
    turning(SERVER, with(timed()), handler, async |mut peer, clock| {
        pass(&clock, INTERVAL).await;
        token(&mut peer).await;
        peer.send(masked(TEXT, "stop")).await;
        peer.expect(plain(TEXT, "stopped")).await;
        for _ in 0..5 {
            pass(&clock, TIMEOUT).await;
        }
        peer.send(masked(TEXT, "Hi")).await;
        peer.expect(plain(TEXT, "Hi")).await;
    });
}

#[test]
fn a_closing_connection_has_no_heartbeat() {
    let options = with(timed()).close_timeout(Duration::from_secs(3600));
    let handler = |mut ws: WebSocket| async move {
        assert!(ws.recv().await?.is_some());
        assert!(patience(1, ws.close(1000_u16, "")).await.is_none());
        ws.set_heartbeat(timed());
        collect(&mut ws).await.1
    };
    turning(SERVER, options, handler, async |mut peer, clock| {
        pass(&clock, INTERVAL).await;
        answer(&mut peer).await;
        peer.send(masked(TEXT, "close")).await;
        assert_eq!(peer.frame().await.close_code(), Some(1000));
        for _ in 0..5 {
            pass(&clock, TIMEOUT).await;
        }
        peer.send(masked(CLOSE, close(1000, ""))).await;
        peer.expect_end().await;
    });
}

#[test]
fn receiving_that_is_given_up_again_and_again_loses_neither_pings_nor_messages() {
    for by in Drive::BOTH {
        within(async {
            let (stream, end) = pipe(Knobs::default());
            let (tell, told) = oneshot::channel();
            drive(by, stream, Role::Server, &with(often()), |mut ws| async move {
                let mut messages = vec![];
                loop {
                    match patience(1, ws.recv()).await.transpose()? {
                        Some(Some(message)) => messages.push(message),
                        Some(None) => break,
                        None => task::yield_now().await,
                    }
                }
                let _ = tell.send(messages.len());
                Ok(())
            });
            let mut peer = Peer { end };
            for _ in 0..10 {
                let token = token(&mut peer).await;
                peer.send([masked(TEXT, "Hi"), masked(PONG, token)].concat()).await;
            }
            peer.send(masked(CLOSE, close(1000, ""))).await;
            assert_eq!(other_frame(&mut peer).await.close_code(), Some(1000));
            assert_eq!(told.await, Ok(10));
        });
    }
}

#[test]
fn an_interval_of_nothing_leaves_the_connection_its_rest() {
    within(async {
        let busy = HeartbeatOptions::default().interval(Duration::ZERO).timeout(Duration::ZERO);
        let mut peer = serve(&with(busy.timeout(3 * SOON)), echo);
        let begin = std::time::Instant::now();
        for _ in 0..20 {
            answer(&mut peer).await;
        }
        // The first may come at once, and all others after nine tenths of 10 ms, or a little less.
        assert!(begin.elapsed() >= 19 * Duration::from_millis(8));
    });
}

#[test]
fn a_route_with_a_heartbeat_gives_a_silent_client_up_over_tcp() {
    let addr = bind(echo_server(with(impatient())));
    let mut client = Tcp::upgraded(addr);
    for number in 0..5_u8 {
        let ping = client.frame();
        assert_eq!((ping.head, ping.payload.len()), (PING, 8));
        client.send([masked(PONG, ping.payload), masked(TEXT, [b'0' + number])].concat());
        client.expect(plain(TEXT, [b'0' + number]));
    }
    assert_eq!(client.frame().head, PING);
    assert_eq!(client.frame().close_code(), Some(1008));
    client.expect_end();
}

#[test]
fn pings_of_the_peer_are_answered_beside_those_of_a_heartbeat() {
    within(async {
        let mut peer = serve(&with(often()), echo);
        for number in 0..5_u8 {
            answer(&mut peer).await;
            peer.send(masked(PING, [number])).await;
            let pong = other_frame(&mut peer).await;
            assert_eq!((pong.head, &*pong.payload), (PONG, &[number][..]));
        }
    });
}
