//! What is sent leaves whole, in order and together, from whichever task.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use async_std::task;
use futures::channel::oneshot;
use futures::future::{join_all, pending};
use tidewire::frame::{Frame, OpCode, Role};
use tidewire::websocket::{Initiator, TimeoutKind};
use tidewire::{Error, WebSocketOptions};

use crate::support::attempts::patience;
use crate::support::frames::{CLOSE, PING, TEXT, Transcript, close, hex, masked, plain};
use crate::support::peer::{Drive, Peer, collect, drive, echo, serve, serve_over, within};
use crate::support::pipe::{Knobs, Stutter, pipe};

fn options() -> WebSocketOptions {
    WebSocketOptions::default()
}

#[test]
fn messages_of_many_senders_are_whole_and_each_senders_are_in_order() {
    const SENDERS: usize = 8;
    const MESSAGES: usize = 100;
    let narrow = Knobs { write: 50, in_flight: 500, stutter: Stutter::Steady, ..Knobs::default() };
    for knobs in [Knobs::default(), narrow] {
        for by in Drive::BOTH {
            eprintln!("{by:?}, {knobs:?}");
            within(async {
                let (stream, end) = pipe(knobs);
                let small = options().send_buffer_size(1000);
                drive(by, stream, Role::Server, &small, |mut ws| async move {
                    let senders = (0..SENDERS).map(|number| {
                        let sender = ws.sender();
                        task::spawn(async move {
                            for message in 0..MESSAGES {
                                let tail = "x".repeat(message * number);
                                sender.send(format!("{number} {message} {tail}")).await?;
                            }
                            Ok::<(), Error>(())
                        })
                    });
                    let receiving = task::spawn({
                        let senders: Vec<_> = senders.collect();
                        let sender = ws.sender();
                        async move {
                            for result in join_all(senders).await {
                                result.unwrap();
                            }
                            sender.close(1000_u16, "").await
                        }
                    });
                    collect(&mut ws).await.1?;
                    receiving.await.map(drop)
                });
                let mut peer = Peer { end };
                let mut seen = vec![];
                while !seen.ends_with(&hex("88 02 03e8")) {
                    let len = peer.end.arrived().max(1);
                    seen.extend(peer.read(len).await);
                }
                peer.send(masked(CLOSE, close(1000, ""))).await;
                peer.expect_end().await;

                let mut next = [0; SENDERS];
                for message in Transcript::of(&seen, false).messages {
                    let text = String::from_utf8(message.payload).unwrap();
                    let mut words = text.splitn(3, ' ');
                    let mut number = || words.next().unwrap().parse::<usize>().unwrap();
                    let (sender, message) = (number(), number());
                    assert_eq!(next[sender], message, "of sender {sender}");
                    assert_eq!(words.next().unwrap().len(), sender * message);
                    next[sender] += 1;
                }
                assert_eq!(next, [MESSAGES; SENDERS]);
            });
        }
    }
}

#[test]
fn senders_wait_while_a_message_is_sent_in_fragments() {
    within(async {
        let (go, gone) = oneshot::channel::<()>();
        let (give_up, has_given_up) = oneshot::channel::<()>();
        let mut peer = serve(&options(), |mut ws| async move {
            ws.send_frame(Frame::new(false, OpCode::Text, "a")).await?;
            let sender = ws.sender();
            let sending = task::spawn(async move {
                assert!(patience(1, sender.send("given up")).await.is_none());
                give_up.send(()).unwrap();
                let sent = sender.send("between").await;
                sent.and(sender.ping("q").await)
            });
            ws.ping("p").await?;
            gone.await.unwrap();
            has_given_up.await.unwrap();
            ws.send_frame(Frame::new(true, OpCode::Continuation, "b")).await?;
            sending.await
        });
        peer.expect_hex("01 01 61 89 01 70").await;
        go.send(()).unwrap();
        peer.expect_hex("80 01 62 81 07 6265747765656e 89 01 71").await;
    });
}

/// Runs `call` to its end in another thread, while this one waits: as another task would at the
/// worst moment.
fn meanwhile<T: Send>(call: impl Future<Output = T> + Send) -> T {
    std::thread::scope(|scope| scope.spawn(|| task::block_on(call)).join().unwrap())
}

#[test]
pub(crate) fn no_message_follows_the_close_frame_that_another_task_sends_meanwhile() {
    within(async {
        let mut peer = serve(&options(), |mut ws| async move {
            let sender = ws.sender();
            meanwhile(patience(1, sender.close(1000_u16, "")));
            let sent = ws.send("late").await;
            assert!(matches!(sent, Err(Error::Closed)), "{sent:?}");
            Ok(())
        });
        peer.expect_hex("88 02 03e8").await;
        peer.send(masked(CLOSE, close(1000, ""))).await;
        peer.expect_end().await;
    });
}

#[test]
fn messages_sent_before_another_task_closes_go_out_first() {
    within(async {
        let mut peer = serve(&options(), |mut ws| async move {
            ws.send("before").await?;
            meanwhile(patience(1, ws.sender().close(1000_u16, "")));
            Ok(())
        });
        peer.expect(plain(TEXT, "before")).await;
        peer.send(masked(CLOSE, close(1000, ""))).await;
        peer.expect_close(1000).await;
    });
}

#[test]
fn messages_sent_before_another_task_sends_go_out_first() {
    within(async {
        let mut peer = serve(&options(), |mut ws| async move {
            ws.send("first").await?;
            meanwhile(ws.sender().send("second"))?;
            ws.send("third").await?;
            meanwhile(ws.sender().ping("fourth"))?;
            Ok(())
        });
        for (head, payload) in
            [(TEXT, "first"), (TEXT, "second"), (TEXT, "third"), (PING, "fourth")]
        {
            peer.expect(plain(head, payload)).await;
        }
    });
}

#[test]
pub(crate) fn no_message_falls_between_the_fragments_that_another_task_sends_meanwhile() {
    within(async {
        let (tell, told) = oneshot::channel();
        let mut peer = serve(&options(), |mut ws| async move {
            let sender = ws.sender();
            let first = ws.send_frame(Frame::new(false, OpCode::Text, "a"));
            let sent = meanwhile(first);
            let mut sending = pin!(sender.send("between"));
            let early = futures::poll!(&mut sending);
            // What the handler has sent by now is queued when it waits.
            task::yield_now().await;
            let _ = tell.send(ws);
            if early.is_pending() {
                sending.await?;
            }
            sent
        });
        let mut ws = told.await.unwrap();
        ws.send_frame(Frame::new(true, OpCode::Continuation, "b")).await.unwrap();
        let mut seen = vec![];
        while !seen.ends_with(b"between") {
            seen.extend(peer.read(1).await);
        }
        Transcript::of(&seen, false);
    });
}

#[test]
fn echoes_of_messages_that_came_together_leave_together() {
    within(async {
        let mut peer = serve(&options(), echo);
        for round in 1..=3 {
            peer.send(masked(TEXT, "Hello").repeat(32)).await;
            peer.expect(plain(TEXT, "Hello").repeat(32)).await;
            assert_eq!(peer.end.writes(), round, "one write per park");
        }
    });
}

#[test]
fn messages_leave_in_one_write_for_any_wait_of_the_handler() {
    within(async {
        let (go, gone) = oneshot::channel::<()>();
        let mut peer = serve(&options(), |mut ws| async move {
            for _ in 0..10 {
                ws.send("Hello").await?;
            }
            ws.ping("p").await?;
            gone.await.unwrap();
            ws.send(vec![7; 40_000]).await?;
            ws.send("last").await?;
            pending().await
        });
        peer.expect(plain(TEXT, "Hello").repeat(10)).await;
        peer.expect_hex("89 01 70").await;
        assert_eq!(peer.end.writes(), 1);
        go.send(()).unwrap();
        peer.expect(plain(0x82, vec![7; 40_000])).await;
        peer.expect(plain(TEXT, "last")).await;
    });
}

#[test]
fn messages_of_a_sender_go_out_without_a_call_of_recv() {
    let slow = Knobs { in_flight: 10, write: 3, stutter: Stutter::Steady, ..Knobs::default() };
    for knobs in [Knobs::default(), slow] {
        within(async {
            let (tell, told) = oneshot::channel();
            let mut peer = serve_over(knobs, &options(), |ws| async move {
                tell.send(ws.sender()).unwrap();
                pending::<()>().await;
                drop(ws);
                Ok(())
            });
            let sender = told.await.unwrap();
            for _ in 0..10 {
                sender.send("Hello").await.unwrap();
                peer.expect_hex("81 05 48656c6c6f").await;
            }
        });
    }
}

#[test]
fn a_close_that_is_started_does_not_wait_and_ends_as_any_other() {
    for by in Drive::BOTH {
        for answers in [true, false] {
            eprintln!("{by:?}, {answers}");
            within(async {
                let (stream, end) = pipe(Knobs::default());
                let brief = options().close_timeout(Duration::from_millis(50));
                let (tell, told) = oneshot::channel();
                let handling = drive(by, stream, Role::Server, &brief, |mut ws| async move {
                    let _ = tell.send(ws.sender());
                    let outcome = collect(&mut ws).await.1;
                    let timed_out = matches!(outcome, Err(Error::Timeout(TimeoutKind::Close)));
                    assert_eq!((outcome.is_ok(), timed_out), (answers, !answers), "{outcome:?}");
                    Ok(())
                });
                let (sender, mut peer) = (told.await.unwrap(), Peer { end });
                for (code, reason) in [(1005, ""), (5000, ""), (4003, &*"x".repeat(124))] {
                    let error = sender.start_close(code, reason).unwrap_err();
                    assert!(matches!(error, Error::InvalidClose(_)), "{error:?}");
                }
                assert!(sender.is_open());
                drop(sender.send("before"));
                sender.start_close(4003, "kicked").unwrap();
                assert!(!sender.is_open());
                assert!(sender.send("after").await.is_err());
                sender.start_close(4004, "too late").unwrap();
                peer.expect(plain(TEXT, "before")).await;
                peer.expect(plain(CLOSE, close(4003, "kicked"))).await;
                if answers {
                    peer.send(masked(CLOSE, close(4003, "kicked"))).await;
                }
                peer.expect_end().await;
                let info = sender.closed().await;
                assert_eq!(info.initiator, Initiator::Local);
                handling.await;
            });
        }
    }
}

#[test]
fn a_handler_may_start_to_close_its_own_connection() {
    for by in Drive::BOTH {
        within(async {
            let (stream, end) = pipe(Knobs::default());
            let mut peer = Peer { end };
            let handling = drive(by, stream, Role::Server, &options(), |mut ws| async move {
                ws.send("before").await?;
                ws.sender().start_close(1000_u16, "enough")?;
                let (messages, outcome) = collect(&mut ws).await;
                assert_eq!((messages.len(), outcome.is_ok()), (1, true), "{outcome:?}");
                Ok(())
            });
            peer.expect(plain(TEXT, "before")).await;
            peer.expect(plain(CLOSE, close(1000, "enough"))).await;
            peer.send(masked(TEXT, "was on its way")).await;
            peer.send(masked(CLOSE, close(1000, ""))).await;
            peer.expect_end().await;
            handling.await;
        });
    }
}
