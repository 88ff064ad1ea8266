//! Connections that end because of the time: idle ones, old ones, and those whose time is set.

use std::time::{Duration, Instant};

use async_std::task;
use futures::channel::oneshot;
use futures::future::pending;
use tidewire::frame::Role;
use tidewire::websocket::Initiator;
use tidewire::{CloseInfo, Error, Result, WebSocket, WebSocketOptions};

use super::{SOON, answer, idle, often, other_frame, pass, turning, with};
use crate::support::frames::{BINARY, CLOSE, PING, Seen, TEXT, close, hex, masked, plain};
use crate::support::peer::{Drive, Peer, collect, drive, echo, serve, within};
use crate::support::pipe::{Knobs, pipe};
use crate::support::tcp::{Tcp, bind, echo_server};

const MINUTE: Duration = Duration::from_secs(60);

fn options() -> WebSocketOptions {
    WebSocketOptions::default()
}

/// 1001, "idle timeout".
const IDLE: &str = "88 0e 03e9 69646c652074696d656f7574";

/// 1001, "maximum lifetime".
const OLD: &str = "88 12 03e9 6d6178696d756d206c69666574696d65";

/// 4401, "token expired".
const EXPIRED: &str = "88 0f 1131 746f6b656e2065787069726564";

/// What a handler tells of the end of its connection.
type End = (Result<()>, Option<CloseInfo>);

/// A peer of a handler that receives to the end, after it has done this.
fn receive(
    by: Drive,
    options: &WebSocketOptions,
    first: fn(&WebSocket),
) -> (Peer, oneshot::Receiver<End>) {
    let (stream, end) = pipe(Knobs::default());
    let (tell, told) = oneshot::channel();
    drive(by, stream, Role::Server, options, move |mut ws| async move {
        first(&ws);
        let end = collect(&mut ws).await.1;
        let _ = tell.send((end, ws.close_info()));
        Ok(())
    });
    (Peer { end }, told)
}

/// The close frame, and that the handler is told of an orderly end with this code.
async fn expect_closed(mut peer: Peer, told: oneshot::Receiver<End>, frame: &str) {
    peer.expect_hex(frame).await;
    peer.send(masked(CLOSE, &hex(frame)[2..])).await;
    let (end, info) = told.await.unwrap();
    let info = info.unwrap();
    assert!(end.is_ok(), "{end:?}");
    assert_eq!((info.initiator, info.clean), (Initiator::Local, true));
    assert_eq!(close(info.reported_code(), &info.reason), hex(frame)[2..]);
    peer.expect_end().await;
}

#[test]
fn an_idle_connection_is_closed_with_1001() {
    for by in Drive::BOTH {
        within(async {
            let begin = Instant::now();
            let (peer, told) = receive(by, &options().idle_timeout(SOON), |_| {});
            expect_closed(peer, told, IDLE).await;
            assert!(begin.elapsed() >= SOON);
        });
    }
}

#[test]
fn an_idle_client_closes_as_well() {
    within(async {
        let (stream, end) = pipe(Knobs::default());
        drive(Drive::Task, stream, Role::Client, &options().idle_timeout(SOON), echo);
        let mut peer = Peer { end };
        let frame = peer.masked_frame().await;
        assert_eq!(frame, Seen { head: CLOSE, payload: hex(IDLE)[2..].to_vec() });
    });
}

#[test]
fn messages_in_either_direction_keep_a_connection_open() {
    let patient = 3 * SOON;
    within(async {
        let mut peer = serve(&options().idle_timeout(patient), echo);
        let mut last = Instant::now();
        for _ in 0..6 {
            idle(patient / 5).await;
            last = Instant::now();
            peer.send(masked(TEXT, "Hi")).await;
            peer.expect(plain(TEXT, "Hi")).await;
        }
        peer.expect_hex(IDLE).await;
        assert!(last.elapsed() >= patient);
    });
    within(async {
        let (tell, told) = oneshot::channel();
        let mut peer = serve(&options().idle_timeout(patient), |ws| async move {
            for _ in 0..6 {
                idle(patient / 5).await;
                ws.sender().send("Hi").await?;
            }
            let _ = tell.send(Instant::now());
            pending().await
        });
        for _ in 0..6 {
            peer.expect(plain(TEXT, "Hi")).await;
        }
        let last = told.await.unwrap();
        peer.expect_hex(IDLE).await;
        assert!(last.elapsed() + SOON >= patient);
    });
}

#[test]
fn a_long_frame_that_goes_on_arriving_keeps_a_connection_open() {
    let patient = 2 * SOON;
    within(async {
        let mut peer = serve(&options().idle_timeout(patient), echo);
        let frame = masked(BINARY, [7; 60]);
        for piece in frame.chunks(11) {
            peer.send(piece).await;
            idle(patient / 4).await;
        }
        peer.expect(plain(BINARY, [7; 60])).await;
        peer.expect_hex(IDLE).await;
    });
}

#[test]
fn a_long_message_that_the_peer_goes_on_reading_keeps_a_connection_open() {
    let narrow = Knobs { in_flight: 4 << 10, ..Knobs::WIDE };
    let options = options().idle_timeout(MINUTE).send_timeout(None).heartbeat(None);
    let handler = |mut ws: WebSocket| async move {
        ws.send(vec![7; 60 << 10]).await?;
        collect(&mut ws).await.1
    };
    let sides = (Drive::Task, Role::Server, narrow);
    turning(sides, options, handler, async |mut peer, clock| {
        for _ in 0..20 {
            pass(&clock, MINUTE * 3 / 4).await;
            peer.read(2 << 10).await;
        }
        peer.read((20 << 10) + 4).await;
        assert_eq!(peer.end.arrived(), 0);
        pass(&clock, MINUTE).await;
        peer.expect_hex(IDLE).await;
    });
}

#[test]
fn a_peer_that_goes_on_reading_has_time_to_answer_our_close_frame() {
    let narrow = Knobs { in_flight: 4 << 10, ..Knobs::WIDE };
    let options = options().send_timeout(None);
    for stops in [false, true] {
        let (tell, told) = oneshot::channel();
        let handler = |mut ws: WebSocket| async move {
            ws.send(vec![7; 60 << 10]).await?;
            let _ = tell.send(ws.close(1000_u16, "").await);
            Ok(())
        };
        let sides = (Drive::Task, Role::Server, narrow);
        turning(sides, options.clone(), handler, async |mut peer, clock| {
            let almost = Duration::from_secs(5) - Duration::from_millis(1);
            for _ in 0..15 {
                pass(&clock, almost).await;
                peer.read(2 << 10).await;
            }
            if stops {
                pass(&clock, Duration::from_secs(5)).await;
                assert_eq!(peer.rest().await.len(), 4 << 10);
            } else {
                peer.read((30 << 10) + 4).await;
                peer.expect_hex("88 02 03e8").await;
                pass(&clock, almost).await;
                peer.send(masked(CLOSE, close(1000, ""))).await;
                peer.expect_end().await;
            }
            assert_eq!(told.await.unwrap().unwrap().clean, !stops);
        });
    }
}

#[test]
fn control_frames_do_not_keep_a_connection_open() {
    within(async {
        let mut peer = serve(&with(often()).idle_timeout(SOON), echo);
        answer(&mut peer).await;
        peer.send(masked(PING, "p")).await;
        let closing = loop {
            let frame = other_frame(&mut peer).await;
            if frame.head == CLOSE {
                break frame;
            }
            assert_eq!(frame.payload, b"p");
            peer.send(masked(PING, "p")).await;
        };
        assert_eq!(closing.payload, hex(IDLE)[2..]);
    });
}

#[test]
fn a_handler_that_does_not_receive_does_not_make_its_connection_idle() {
    within(async {
        let (go, gone) = oneshot::channel::<()>();
        let options = options().idle_timeout(SOON).read_ahead_size(1);
        let mut peer = serve(&options, |ws| async move {
            gone.await.unwrap();
            echo(ws).await
        });
        peer.send(masked(TEXT, "Hi").repeat(2)).await;
        idle(3 * SOON).await;
        assert_eq!(peer.end.arrived(), 0);
        go.send(()).unwrap();
        peer.expect(plain(TEXT, "Hi").repeat(2)).await;
        peer.expect_hex(IDLE).await;
    });
}

#[test]
fn an_old_connection_is_closed_with_1001_even_while_messages_pass() {
    for by in Drive::BOTH {
        within(async {
            let begin = Instant::now();
            let (peer, told) = receive(by, &options().max_lifetime(SOON), |_| {});
            expect_closed(peer, told, OLD).await;
            assert!(begin.elapsed() >= SOON * 9 / 10);
        });
    }
    within(async {
        let mut peer = serve(&options().max_lifetime(SOON).idle_timeout(SOON * 5), echo);
        let closing = loop {
            peer.send(masked(TEXT, "Hi")).await;
            let frame = peer.frame().await;
            if frame.head == CLOSE {
                break frame;
            }
        };
        assert_eq!(closing.payload, hex(OLD)[2..]);
    });
}

#[test]
fn times_of_nothing_close_the_connection_and_none_at_all_leave_it_open() {
    for (options, frame) in [
        (options().idle_timeout(Duration::ZERO), IDLE),
        (options().max_lifetime(Duration::ZERO), OLD),
    ] {
        within(async {
            let (peer, told) = receive(Drive::Task, &options, |_| {});
            expect_closed(peer, told, frame).await;
        });
        within(async {
            let forever = options.max_lifetime(Duration::MAX).idle_timeout(None);
            let mut peer = serve(&forever, echo);
            idle(SOON).await;
            peer.send(masked(TEXT, "Hi")).await;
            peer.expect(plain(TEXT, "Hi")).await;
        });
    }
}

#[test]
fn a_connection_expires_with_the_code_that_was_set() {
    let expire: [fn(&WebSocket); 4] = [
        |ws| ws.expire_at(Instant::now() + SOON, 4401, "token expired").unwrap(),
        |ws| ws.sender().expire_at(Instant::now() + SOON, 4401, "token expired").unwrap(),
        // What has passed already.
        |ws| ws.expire_at(Instant::now(), 4401, "token expired").unwrap(),
        // The latest counts.
        |ws| {
            ws.expire_at(Instant::now(), 4000, "earlier").unwrap();
            ws.expire_at(Instant::now() + SOON, 4401, "token expired").unwrap();
        },
    ];
    for first in expire {
        for by in Drive::BOTH {
            within(async {
                let (peer, told) = receive(by, &options(), first);
                expect_closed(peer, told, EXPIRED).await;
            });
        }
    }
}

#[test]
fn a_connection_expires_although_its_handler_is_busy() {
    within(async {
        let (tell, told) = oneshot::channel();
        let mut peer = serve(&options(), |ws| async move {
            let _ = tell.send(ws.sender());
            ws.closed().await;
            pending().await
        });
        let sender = told.await.unwrap();
        let begin = Instant::now();
        sender.expire_at(begin + SOON, 4401, "token expired").unwrap();
        peer.expect_hex(EXPIRED).await;
        assert!(begin.elapsed() >= SOON);
        peer.send(masked(CLOSE, close(4401, ""))).await;
        assert_eq!(sender.closed().await.reported_code(), 4401);
    });
}

#[test]
fn a_close_that_cannot_be_sent_is_refused_and_the_earlier_setting_remains() {
    let first = |ws: &WebSocket| {
        ws.expire_at(Instant::now() + SOON, 4401, "token expired").unwrap();
        for refused in [
            ws.expire_at(Instant::now(), 1005, ""),
            ws.expire_at(Instant::now(), 70_000, ""),
            ws.sender().expire_at(Instant::now(), 1006_u16, ""),
            ws.expire_at(Instant::now(), 4000, &"x".repeat(124)),
        ] {
            assert!(matches!(refused, Err(Error::InvalidClose(_))), "{refused:?}");
        }
    };
    within(async {
        let (peer, told) = receive(Drive::Task, &options(), first);
        expect_closed(peer, told, EXPIRED).await;
    });
}

#[test]
fn an_expiry_that_is_cancelled_does_not_come() {
    let cancel: [fn(&WebSocket); 2] = [|ws| ws.cancel_expiry(), |ws| ws.sender().cancel_expiry()];
    for cancel in cancel {
        within(async {
            let mut peer = serve(&options(), move |ws| async move {
                ws.expire_at(Instant::now() + SOON / 3, 4401, "token expired")?;
                cancel(&ws);
                echo(ws).await
            });
            idle(SOON).await;
            peer.send(masked(TEXT, "Hi")).await;
            peer.expect(plain(TEXT, "Hi")).await;
        });
    }
}

#[test]
fn an_expiry_that_is_set_by_another_task_is_noticed_without_a_task_of_its_own() {
    within(async {
        let (stream, end) = pipe(Knobs::default());
        let (tell, told) = oneshot::channel();
        drive(Drive::Caller, stream, Role::Server, &options(), |ws| {
            let _ = tell.send(ws.sender());
            echo(ws)
        });
        let (mut peer, sender) = (Peer { end }, told.await.unwrap());
        // The echo waits in `recv` by then.
        peer.send(masked(TEXT, "Hi")).await;
        peer.expect(plain(TEXT, "Hi")).await;
        task::yield_now().await;
        sender.expire_at(Instant::now() + SOON, 4401, "token expired").unwrap();
        peer.expect_hex(EXPIRED).await;
    });
}

#[test]
fn an_idle_client_is_closed_over_tcp() {
    let addr = bind(echo_server(options().idle_timeout(SOON)));
    let mut client = Tcp::upgraded(addr);
    client.send(masked(TEXT, "Hi"));
    client.expect(plain(TEXT, "Hi"));
    client.expect_hex(IDLE);
    client.send(masked(CLOSE, close(1001, "")));
    client.expect_end();
}
