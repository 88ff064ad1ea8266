//! What counts as the answer to a heartbeat's ping, and what does not ([RFC 6455 §5.5.3]).
//!
//! [RFC 6455 §5.5.3]: https://www.rfc-editor.org/rfc/rfc6455#section-5.5.3

use std::time::Instant;

use futures::channel::oneshot;
use tidewire::{OpCode, Role};

use super::{SOON, answer, expect_given_up, impatient, is_unanswered, often, token, with};
use crate::ws::frames::{CLOSE, PING, PONG, Seen, TEXT, close, masked, plain};
use crate::ws::peer::{Drive, Peer, collect, drive, echo, serve, within};
use crate::ws::pipe::{Knobs, pipe};

#[test]
fn a_silent_peer_fails_the_connection() {
    for role in [Role::Server, Role::Client] {
        for by in Drive::BOTH {
            eprintln!("{role:?}, {by:?}");
            within(async {
                let (stream, end) = pipe(Knobs::default());
                let (tell, told) = oneshot::channel();
                let begin = Instant::now();
                drive(by, stream, role, &with(impatient()), |mut ws| async move {
                    let sender = ws.sender();
                    let received = ws.recv().await;
                    let _ = tell.send((received, sender.send("late").await, ws.closed().await));
                    Ok(())
                });
                let mut peer = Peer { end };
                let ping = of(role, &mut peer).await;
                assert_eq!((ping.head, ping.payload.len()), (PING, 8));
                assert_eq!(of(role, &mut peer).await.close_code(), Some(1008));
                peer.expect_end().await;
                assert!(begin.elapsed() >= SOON);

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
fn a_pong_with_another_payload_is_no_answer() {
    within(async {
        let mut peer = serve(&with(impatient()), echo);
        let old = token(&mut peer).await;
        peer.send(masked(PONG, &old)).await;
        let latest = token(&mut peer).await;
        let longer = [&*latest, b"x"].concat();
        for payload in [&b""[..], b"unasked", &old, &latest[..7], &longer] {
            peer.send(masked(PONG, payload)).await;
        }
        expect_given_up(&mut peer).await;
    });
}

#[test]
fn a_peer_that_answers_only_the_latest_of_several_pings_stays() {
    within(async {
        let mut peer = serve(&with(impatient()), |mut ws| async move {
            while let Some(message) = ws.recv().await? {
                ws.ping(message.into_bytes()).await?;
            }
            Ok(())
        });
        for _ in 0..3 {
            token(&mut peer).await;
            peer.send([masked(TEXT, "first"), masked(TEXT, "second")].concat()).await;
            peer.expect([plain(PING, "first"), plain(PING, "second")].concat()).await;
            peer.send(masked(PONG, "second")).await;
        }
        // This one was answered before the heartbeat asked.
        token(&mut peer).await;
        peer.send(masked(PONG, "second")).await;
        expect_given_up(&mut peer).await;
    });
}

#[test]
fn what_a_peer_sends_counts_as_life_only_if_it_is_to() {
    for traffic_counts in [false, true] {
        within(async {
            let mut peer = serve(&with(impatient().traffic_counts(traffic_counts)), echo);
            let pings = if traffic_counts { 4 } else { 1 };
            for _ in 0..pings {
                token(&mut peer).await;
                peer.send(masked(TEXT, "Hi")).await;
                peer.expect(plain(TEXT, "Hi")).await;
            }
            if traffic_counts {
                token(&mut peer).await;
            }
            expect_given_up(&mut peer).await;
        });
    }
}

#[test]
fn pongs_are_shown_to_who_reads_frames_and_count() {
    for by in Drive::BOTH {
        within(async {
            let (stream, end) = pipe(Knobs::default());
            let (tell, told) = oneshot::channel();
            drive(by, stream, Role::Server, &with(impatient()), |mut ws| async move {
                let mut pongs = vec![];
                let end = loop {
                    match ws.recv_frame().await {
                        Ok(Some(frame)) if frame.opcode() == OpCode::Pong => {
                            pongs.push(frame.into_payload().to_vec());
                        }
                        other => break other,
                    }
                };
                let _ = tell.send((pongs, end));
                Ok(())
            });
            let (mut peer, mut tokens) = (Peer { end }, vec![]);
            for _ in 0..3 {
                let token = token(&mut peer).await;
                peer.send(masked(PONG, &token)).await;
                tokens.push(token);
            }
            token(&mut peer).await;
            expect_given_up(&mut peer).await;
            let (pongs, end) = told.await.unwrap();
            assert_eq!(pongs, tokens);
            assert!(is_unanswered(&end), "{end:?}");
        });
    }
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
