//! The closing handshake (RFC 6455 §5.5.1, §7).

use futures::channel::oneshot;
use futures::stream::FusedStream;
use futures::{StreamExt, select};
use tidewire::frame::Role;
use tidewire::websocket::Initiator;
use tidewire::{CloseInfo, Error, WebSocketOptions};

use super::Delivery;
use crate::support::frames::{CLOSE, TEXT, Transcript, close, hex, masked, plain, shown};
use crate::support::peer::{Drive, Peer, collect, drive, echo, serve, within};
use crate::support::pipe::{Knobs, pipe};

#[test]
pub(crate) fn a_close_frame_is_answered_with_its_code_and_the_stream_ends() {
    let mut cases = vec![
        (masked(CLOSE, ""), plain(CLOSE, ""), None),
        (masked(CLOSE, close(1000, "bye")), plain(CLOSE, close(1000, "")), Some(1000)),
        (masked(CLOSE, close(3000, &"x".repeat(123))), plain(CLOSE, close(3000, "")), Some(3000)),
    ];
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3999, 4999]
    {
        let payload = close(code, "");
        cases.push((masked(CLOSE, &payload), plain(CLOSE, &payload), Some(code)));
    }
    #[cfg(feature = "tls")]
    super::tls::each_is_closed(cases.iter().map(|(sent, seen, _)| (&**sent, &**seen)));
    for (sent, seen, code) in cases {
        for delivery in Delivery::ALL {
            for by in Drive::BOTH {
                eprintln!("{}, {delivery:?}, {by:?}", shown(&sent));
                within(is_closed(delivery, by, &sent, &seen, code));
            }
        }
    }
}

#[test]
fn the_stream_of_messages_is_fused_after_a_close_and_after_an_error() {
    // A frame from a client must be masked.
    for (end_of_it, errors) in [(masked(CLOSE, close(1000, "")), 0), (hex("81 00"), 1)] {
        for by in Drive::BOTH {
            let (stream, end) = pipe(Knobs::default());
            let (tell, told) = oneshot::channel();
            drive(by, stream, Role::Server, &WebSocketOptions::default(), |mut ws| async move {
                let mut seen = [0, 0];
                loop {
                    select! {
                        message = ws.select_next_some() => seen[usize::from(message.is_err())] += 1,
                        complete => break,
                    }
                }
                let is_over = ws.is_terminated() && ws.next().await.is_none();
                let _ = tell.send((seen, is_over));
                Ok(())
            });
            within(async {
                let mut peer = Peer { end };
                peer.send([masked(TEXT, "one"), masked(TEXT, "two"), end_of_it.clone()].concat())
                    .await;
                assert_eq!(told.await.unwrap(), ([2, errors], true), "{by:?}");
            });
        }
    }
}

async fn is_closed(delivery: Delivery, by: Drive, sent: &[u8], seen: &[u8], code: Option<u16>) {
    let (stream, end) = pipe(delivery.knobs());
    let (tell, told) = oneshot::channel();
    drive(by, stream, Role::Server, &WebSocketOptions::default(), |mut ws| async move {
        let collected = collect(&mut ws).await;
        let _ = tell.send((collected, ws.close_info(), ws.is_open()));
        Ok(())
    });
    let mut peer = Peer { end };
    // What follows a close frame is nobody's (§5.5.1).
    let merged = delivery == Delivery::Merged;
    let (before, after) = if merged {
        (masked(TEXT, "Hi"), [masked(TEXT, "late"), hex("81 00")].concat())
    } else {
        (vec![], vec![])
    };
    peer.send([&*before, sent, &after].concat()).await;
    peer.expect(seen).await;
    peer.expect_end().await;
    drop(peer);

    let ((messages, end), info, is_open) = told.await.unwrap();
    assert_eq!(messages.len(), usize::from(merged));
    assert!(end.is_ok(), "{end:?}");
    assert!(!is_open);
    let info = info.unwrap();
    assert_eq!(info.code.map(u16::from), code);
    assert_eq!(info.reported_code(), code.unwrap_or(1005));
    assert!(info.clean && info.initiator == Initiator::Remote, "{info:?}");
}

#[test]
pub(crate) fn messages_before_a_close_frame_or_a_violation_are_answered_first() {
    let hi = masked(TEXT, "Hi");
    for (last, code) in [(masked(CLOSE, close(3000, "")), 3000), (hex("c1 80 00000000"), 1002)] {
        for count in [1, 3, 100] {
            for by in Drive::BOTH {
                eprintln!("{count}, {}, {by:?}", shown(&last));
                within(async {
                    let (stream, end) = pipe(Knobs::default());
                    drive(by, stream, Role::Server, &WebSocketOptions::default(), echo);
                    let mut peer = Peer { end };
                    peer.send([&*hi.repeat(count), &last].concat()).await;
                    peer.expect(plain(TEXT, "Hi").repeat(count)).await;
                    peer.expect_close(code).await;
                });
            }
        }
    }
}

#[test]
fn a_peer_that_goes_after_its_close_frame_has_ended_in_order() {
    for by in Drive::BOTH {
        within(async {
            let (stream, end) = pipe(Knobs::default());
            let (tell, told) = oneshot::channel();
            drive(by, stream, Role::Server, &WebSocketOptions::default(), |mut ws| async move {
                let _ = tell.send((collect(&mut ws).await, ws.close_info()));
                Ok(())
            });
            let mut peer = Peer { end };
            peer.send([masked(TEXT, "Hi"), masked(CLOSE, close(1001, ""))].concat()).await;
            drop(peer);
            let ((messages, end), info) = told.await.unwrap();
            assert_eq!(messages.len(), 1);
            assert!(end.is_ok(), "{end:?}");
            assert_eq!(info.unwrap().reported_code(), 1001);
        });
    }
}

#[test]
fn the_reason_of_the_peer_is_told_to_the_handler() {
    within(async {
        let (tell, told) = oneshot::channel();
        let mut peer = serve(&WebSocketOptions::default(), |mut ws| async move {
            collect(&mut ws).await.1?;
            let _ = tell.send(ws.close_info());
            Ok(())
        });
        peer.send(masked(CLOSE, close(4000, "schön"))).await;
        peer.expect_hex("88 02 0fa0").await;
        assert_eq!(told.await.unwrap().unwrap().reason, "schön");
    });
}

/// A handler that closes, and what `close` returned to it.
fn closing(
    by: Drive,
    code: u16,
    reason: &'static str,
) -> (Peer, oneshot::Receiver<tidewire::Result<CloseInfo>>) {
    let (stream, end) = pipe(Knobs::default());
    let (tell, told) = oneshot::channel();
    drive(by, stream, Role::Server, &WebSocketOptions::default(), move |mut ws| async move {
        ws.send("last words").await?;
        let _ = tell.send(ws.close(code, reason).await);
        Ok(())
    });
    (Peer { end }, told)
}

#[test]
pub(crate) fn close_sends_the_frame_after_all_else_and_waits_for_the_answer() {
    for by in Drive::BOTH {
        within(async {
            let (mut peer, told) = closing(by, 1001, "bye");
            peer.expect_hex("81 0a 6c61737420776f726473 88 05 03e9 627965").await;
            peer.send(masked(CLOSE, close(1001, ""))).await;
            peer.expect_end().await;
            drop(peer);
            let info = told.await.unwrap().unwrap();
            assert_eq!(info.code.map(u16::from), Some(1001));
            assert_eq!(info.reason, "bye");
            assert!(info.clean && info.initiator == Initiator::Local, "{info:?}");
        });
    }
}

#[test]
fn close_frames_that_cross_are_one_clean_end() {
    for by in Drive::BOTH {
        within(async {
            let (mut peer, told) = closing(by, 1000, "");
            peer.send(masked(CLOSE, close(3000, ""))).await;
            let rest = peer.rest().await;
            drop(peer);
            assert!(Transcript::of(&rest, false).close.is_some(), "{rest:02x?}");
            // Either close frame may have been the first.
            if let Ok(info) = told.await.unwrap() {
                assert!(info.clean, "{info:?}");
            }
        });
    }
}

#[test]
pub(crate) fn codes_that_may_not_travel_are_refused_and_nothing_is_sent() {
    within(async {
        let mut peer = serve(&WebSocketOptions::default(), |mut ws| async move {
            for code in [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, u16::MAX] {
                let closed = ws.close(code, "").await;
                assert!(matches!(closed, Err(Error::InvalidClose(_))), "{code}: {closed:?}");
            }
            let closed = ws.close(1000_u16, &"x".repeat(124)).await;
            assert!(matches!(closed, Err(Error::InvalidClose(_))), "{closed:?}");
            assert!(ws.is_open());
            ws.close(1000_u16, &"x".repeat(123)).await.map(drop)
        });
        peer.expect(plain(CLOSE, close(1000, &"x".repeat(123)))).await;
    });
}

#[test]
pub(crate) fn nothing_is_sent_after_a_close_frame() {
    within(async {
        let mut peer = serve(&WebSocketOptions::default(), |mut ws| async move {
            let sender = ws.sender();
            async_std::task::spawn(async move { sender.close(1000_u16, "").await });
            let seen = collect(&mut ws).await;
            assert_eq!(seen.0.len(), 1, "what crossed our close frame is received");
            assert!(matches!(ws.send("late").await, Err(Error::Closed)));
            assert!(matches!(ws.ping("late").await, Err(Error::Closed)));
            assert!(matches!(ws.pong("late").await, Err(Error::Closed)));
            assert!(matches!(ws.sender().send("late").await, Err(Error::Closed)));
            Ok(())
        });
        peer.expect_hex("88 02 03e8").await;
        // A ping after our close frame stays unanswered, and a message is still received.
        peer.send(hex("89 81 00000000 70 81 82 00000000 4869")).await;
        peer.send(masked(CLOSE, close(1000, ""))).await;
        peer.expect_end().await;
    });
}

#[test]
fn a_message_that_crosses_our_close_frame_is_received_whole_or_not_at_all() {
    within(async {
        let (tell, told) = oneshot::channel();
        let options = WebSocketOptions::default().read_ahead_size(1000);
        let mut peer = serve(&options, |mut ws| async move {
            let sender = ws.sender();
            async_std::task::spawn(async move { sender.close(1000_u16, "").await });
            let _ = tell.send(collect(&mut ws).await);
            Ok(())
        });
        peer.expect_hex("88 02 03e8").await;
        let long = "x".repeat(600);
        for (head, payload) in [(0x01, &*long), (0x00, &*long), (0x00, &*long), (0x80, "end")] {
            peer.send(masked(head, payload)).await;
        }
        peer.send(masked(TEXT, "after")).await;
        peer.send(masked(CLOSE, close(1000, ""))).await;
        peer.expect_end().await;
        let (messages, end) = told.await.unwrap();
        assert!(end.is_ok(), "{end:?}");
        let lens: Vec<usize> = messages.iter().map(tidewire::Message::len).collect();
        assert_eq!(lens, [1803, 5]);
    });
}

#[test]
pub(crate) fn a_stream_that_ends_without_a_close_frame_is_an_error_and_not_clean() {
    for by in Drive::BOTH {
        for cut in ["", "81", "81 85 00000000 48", "01 81 00000000 61"] {
            eprintln!("{by:?} {cut}");
            within(async {
                let (stream, end) = pipe(Knobs::default());
                let (tell, told) = oneshot::channel();
                drive(
                    by,
                    stream,
                    Role::Server,
                    &WebSocketOptions::default(),
                    |mut ws| async move {
                        let collected = collect(&mut ws).await;
                        let _ = tell.send((collected, ws.close_info()));
                        Ok(())
                    },
                );
                let mut peer = Peer { end };
                peer.send([masked(TEXT, "Hi"), hex(cut)].concat()).await;
                drop(peer);
                let ((messages, end), info) = told.await.unwrap();
                assert_eq!(messages.len(), 1);
                let Err(Error::Io(error)) = end else { panic!("{end:?}") };
                assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
                let info = info.unwrap();
                assert!(!info.clean && info.code.is_none(), "{info:?}");
                assert_eq!(info.reported_code(), 1006);
                assert_eq!(info.initiator, Initiator::Remote);
            });
        }
    }
}

#[test]
fn a_stream_that_is_reset_is_an_error_for_every_user_of_it() {
    for by in Drive::BOTH {
        within(async {
            let (stream, end) = pipe(Knobs::default());
            let (tell, told) = oneshot::channel();
            drive(by, stream, Role::Server, &WebSocketOptions::default(), |mut ws| async move {
                let (_, end) = collect(&mut ws).await;
                let sent = ws.send("late").await;
                let closed = ws.close(1000_u16, "").await;
                let _ = tell.send((end, sent, closed, ws.closed().await));
                Ok(())
            });
            let peer = Peer { end };
            peer.end.reset();
            let (end, sent, closed, info) = told.await.unwrap();
            let Err(Error::Io(error)) = end else { panic!("{end:?}") };
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
            assert!(matches!(sent, Err(Error::Io(_))), "{sent:?}");
            assert_eq!(closed.unwrap(), info);
            assert_eq!(info.reported_code(), 1006);
        });
    }
}

#[test]
pub(crate) fn a_server_ends_the_stream_first_and_reads_the_bytes_that_still_come() {
    within(async {
        let mut peer = serve(&WebSocketOptions::default(), echo);
        peer.send(masked(CLOSE, close(1000, ""))).await;
        peer.expect_hex("88 02 03e8").await;
        peer.expect_end().await;
        // The stream is still there, or this would fail: a client that is slow to notice is not
        // answered with a reset that swallows our close frame.
        peer.send(masked(TEXT, [b'x'; 1000])).await;
    });
}

#[test]
pub(crate) fn a_client_waits_for_the_server_to_end_the_stream() {
    within(async {
        let (stream, end) = pipe(Knobs::default());
        drive(
            Drive::Task,
            stream,
            Role::Client,
            &WebSocketOptions::default(),
            |mut ws| async move { ws.close(1000_u16, "").await.map(drop) },
        );
        let mut peer = Peer { end };
        assert_eq!(peer.masked_frame().await.close_code(), Some(1000));
        peer.send(plain(CLOSE, close(1000, ""))).await;
        let ended = async_std::future::timeout(std::time::Duration::from_millis(50), peer.rest());
        assert!(ended.await.is_err(), "the client ends the stream before the server does");
    });
}
