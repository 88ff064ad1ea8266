//! What counts as a sign of life after a heartbeat's ping, and what does not ([RFC 6455 §5.5.3]).
//!
//! [RFC 6455 §5.5.3]: https://www.rfc-editor.org/rfc/rfc6455#section-5.5.3

use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::channel::{mpsc, oneshot};
use tidewire::WebSocket;
use tidewire::frame::Role;

use super::{
    INTERVAL, SERVER, SOON, TIMEOUT, answer, expect_given_up, is_unanswered, often, pass, settle,
    timed, token, turning, with,
};
use crate::support::frames::{BINARY, CLOSE, PING, PONG, Seen, TEXT, close, masked, plain};
use crate::support::peer::{Drive, Peer, collect, drive, echo, serve, within};
use crate::support::pipe::{Knobs, pipe};

#[test]
fn a_silent_peer_fails_the_connection() {
    for role in [Role::Server, Role::Client] {
        for by in Drive::BOTH {
            eprintln!("{role:?}, {by:?}");
            let (tell, told) = oneshot::channel();
            let handler = |mut ws: WebSocket| async move {
                let sender = ws.sender();
                let received = ws.recv().await;
                let _ = tell.send((received, sender.send("late").await, ws.closed().await));
                Ok(())
            };
            let sides = (by, role, Knobs::WIDE);
            turning(sides, with(timed()), handler, async |mut peer, clock| {
                pass(&clock, INTERVAL).await;
                let ping = of(role, &mut peer).await;
                assert_eq!((ping.head, ping.payload.len()), (PING, 8));
                pass(&clock, TIMEOUT.saturating_sub(Duration::from_millis(1))).await;
                assert_eq!(peer.end.arrived(), 0);
                pass(&clock, Duration::from_millis(1)).await;
                assert_eq!(of(role, &mut peer).await.close_code(), Some(1008));
                peer.expect_end().await;

                let (received, sent, info) = told.await.unwrap();
                assert!(is_unanswered(&received), "{received:?}");
                assert!(is_unanswered(&sent), "{sent:?}");
                assert_eq!((info.reported_code(), info.clean), (1008, false));
                assert_eq!(info.reason, "the peer did not answer a ping in time");
            });
        }
    }
}

async fn of(role: Role, peer: &mut Peer) -> Seen {
    if role == Role::Server { peer.frame().await } else { peer.masked_frame().await }
}

#[test]
fn a_peer_that_answers_stays_and_is_asked_something_else_each_time() {
    for by in Drive::BOTH {
        within(async {
            let (stream, end) = pipe(Knobs::default());
            let (tell, told) = oneshot::channel();
            let begin = Instant::now();
            drive(by, stream, Role::Server, &with(often()), |mut ws| async move {
                assert_eq!((ws.rtt(), ws.stats().rtt), (None, None));
                collect(&mut ws).await.1?;
                let _ = tell.send((ws.rtt(), ws.sender().rtt(), ws.stats()));
                Ok(())
            });
            let (mut peer, mut tokens) = (Peer { end }, vec![]);
            for _ in 0..10 {
                let token = token(&mut peer).await;
                peer.send(masked(PONG, &token)).await;
                assert!(!tokens.contains(&token), "{token:02x?} of {tokens:02x?}");
                tokens.push(token);
            }
            peer.send(masked(CLOSE, close(1000, ""))).await;
            let (rtt, of_sender, stats) = told.await.unwrap();
            assert_eq!((of_sender, stats.rtt), (rtt, rtt));
            assert!(rtt.is_some_and(|rtt| !rtt.is_zero() && rtt < begin.elapsed()), "{rtt:?}");
            assert_eq!(stats.pongs_in, 10);
            assert!(stats.pings_out >= 10 && stats.messages_out == 0, "{stats:?}");
        });
    }
}

#[test]
fn a_byte_of_the_peer_is_a_sign_of_life_and_only_the_pong_measures() {
    // The last is the first byte of a frame.
    for sign in [masked(PONG, "unasked"), masked(PING, ""), masked(TEXT, "Hi"), vec![TEXT]] {
        for by in Drive::BOTH {
            let (tell, told) = oneshot::channel();
            let handler = |mut ws: WebSocket| async move {
                let end = collect(&mut ws).await.1;
                let _ = tell.send((end, ws.rtt()));
                Ok(())
            };
            let options = with(timed()).message_timeout(None);
            let sides = (by, Role::Server, Knobs::WIDE);
            turning(sides, options, handler, async |mut peer, clock| {
                pass(&clock, INTERVAL).await;
                let first = token(&mut peer).await;
                peer.send(&sign).await;
                pass(&clock, TIMEOUT).await;
                // It is asked again after the interval, and not given up.
                pass(&clock, INTERVAL.saturating_sub(TIMEOUT)).await;
                if sign[0] == PING {
                    peer.expect(plain(PONG, "")).await;
                }
                assert_ne!(token(&mut peer).await, first);
                pass(&clock, TIMEOUT).await;
                expect_given_up(&mut peer).await;
                let (end, rtt) = told.await.unwrap();
                assert!(is_unanswered(&end), "{end:?}");
                assert_eq!(rtt, None);
            });
        }
    }
}

#[test]
fn a_peer_that_answers_only_the_latest_of_several_pings_stays() {
    let handler = |mut ws: WebSocket| async move {
        while let Some(message) = ws.recv().await? {
            ws.ping(message.into_bytes()).await?;
        }
        Ok(())
    };
    turning(SERVER, with(timed()), handler, async |mut peer, clock| {
        for _ in 0..3 {
            pass(&clock, INTERVAL).await;
            token(&mut peer).await;
            peer.send([masked(TEXT, "first"), masked(TEXT, "second")].concat()).await;
            peer.expect([plain(PING, "first"), plain(PING, "second")].concat()).await;
            peer.send(masked(PONG, "second")).await;
        }
    });
}

#[test]
fn a_peer_inside_one_long_frame_is_not_given_up() {
    // As much as comes in 27 s at 33 kB/s. There is no place for a pong before its end (RFC 6455 §5.4).
    let frame = masked(BINARY, vec![7; 900_000]);
    let options = with(timed().interval(Duration::from_secs(1)));
    turning(SERVER, options, echo, async |mut peer, clock| {
        for piece in frame.chunks(33_334) {
            pass(&clock, Duration::from_secs(1)).await;
            peer.send(piece).await;
        }
        settle().await;
        let arrived = peer.read(peer.end.arrived()).await;
        assert!(arrived.ends_with(&plain(BINARY, vec![7; 900_000])), "{} bytes", arrived.len());
    });
}

#[test]
fn a_peer_that_slowly_reads_the_bytes_before_the_ping_is_not_given_up() {
    for by in Drive::BOTH {
        let narrow = Knobs { in_flight: 4 << 10, ..Knobs::WIDE };
        let options = with(timed().interval(Duration::from_secs(1))).send_timeout(None);
        let handler = |mut ws: WebSocket| async move {
            ws.send(vec![7; 60 << 10]).await?;
            collect(&mut ws).await.1
        };
        turning((by, Role::Server, narrow), options, handler, async |mut peer, clock| {
            for _ in 0..150 {
                pass(&clock, Duration::from_secs(1)).await;
                peer.read(200).await;
            }
            // Then it stops, and what it has room for is all that still comes.
            for _ in 0..40 {
                pass(&clock, Duration::from_secs(1)).await;
            }
            assert_eq!(peer.rest().await.len(), 4 << 10);
        });
    }
}

#[test]
fn bytes_that_fit_into_the_kernel_are_not_a_sign_of_life() {
    let (mut feed, mut ticks) = mpsc::channel::<()>(1);
    let handler = |mut ws: WebSocket| async move {
        while ticks.next().await.is_some() {
            ws.send("tick").await?;
        }
        Ok(())
    };
    turning(SERVER, with(timed()), handler, async |mut peer, clock| {
        for _ in 0..(INTERVAL + TIMEOUT).as_secs() {
            // The kernel takes them for a peer that is gone, too.
            feed.try_send(()).unwrap();
            pass(&clock, Duration::from_secs(1)).await;
        }
        let ticks = |count| plain(TEXT, "tick").repeat(count);
        peer.expect(ticks(25)).await;
        token(&mut peer).await;
        peer.expect(ticks(20)).await;
        expect_given_up(&mut peer).await;
    });
}

#[test]
fn a_peer_that_answers_late_is_not_asked_again_meanwhile() {
    within(async {
        let mut peer = serve(&with(often()), echo);
        let first = token(&mut peer).await;
        // Many intervals later only the echo has come.
        super::idle(SOON).await;
        peer.send(masked(TEXT, "Hi")).await;
        peer.expect(plain(TEXT, "Hi")).await;
        peer.send(masked(PONG, first)).await;
        answer(&mut peer).await;
    });
}
