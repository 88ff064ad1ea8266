//! Handlers that wait for something else, and what the end of a handler does.

use async_std::task;
use futures::StreamExt;
use futures::channel::oneshot;
use futures::future::pending;
use futures::stream::FuturesUnordered;
use tidewire::frame::Role;
use tidewire::{Error, Result, WebSocket, WebSocketOptions};

use crate::support::attempts::patience;
use crate::support::frames::{CLOSE, PING, TEXT, close, masked, plain};
use crate::support::peer::{Peer, collect, echo, serve, within};
use crate::support::pipe::{Knobs, pipe};

fn options() -> WebSocketOptions {
    WebSocketOptions::default()
}

#[test]
pub(crate) fn a_handler_that_waits_for_something_else_answers_pings() {
    within(async {
        let (go, gone) = oneshot::channel();
        let mut peer = serve(&options(), |mut ws| async move {
            assert_eq!(ws.recv().await?.unwrap().as_text(), Some("first"));
            gone.await.unwrap();
            assert_eq!(ws.recv().await?.unwrap().as_text(), Some("second"));
            Ok(())
        });
        peer.send(masked(TEXT, "first")).await;
        for number in 0..200_u8 {
            peer.send(masked(PING, [number])).await;
            peer.expect(plain(0x8a, [number])).await;
        }
        peer.send(masked(TEXT, "second")).await;
        peer.send(masked(PING, "behind a message")).await;
        peer.expect(plain(0x8a, "behind a message")).await;
        go.send(()).unwrap();
        peer.expect_hex("88 02 03e8").await;
    });
}

#[test]
pub(crate) fn a_handler_that_never_receives_answers_pings() {
    within(async {
        let mut peer = serve(&options(), |ws| async move {
            ws.closed().await;
            Ok(())
        });
        for number in 0..200_u8 {
            peer.send(masked(PING, [number])).await;
            peer.expect(plain(0x8a, [number])).await;
        }
        peer.send(masked(CLOSE, "")).await;
        peer.expect_hex("88 00").await;
    });
}

#[test]
fn a_handler_that_waits_for_something_else_learns_of_the_close() {
    for (sent, code) in [(masked(CLOSE, close(1001, "")), 1001), (vec![], 1006)] {
        within(async {
            let (tell, told) = oneshot::channel();
            let mut peer = serve(&options(), |ws| async move {
                let sender = ws.sender();
                assert!(ws.is_open() && sender.is_open() && ws.close_info().is_none());
                let info = ws.closed().await;
                assert!(!ws.is_open() && !sender.is_open());
                assert_eq!(sender.close_info().as_ref(), Some(&info));
                assert_eq!(sender.closed().await, info);
                assert!(sender.send("late").await.is_err());
                let _ = tell.send(info.reported_code());
                Ok(())
            });
            peer.send(sent).await;
            drop(peer);
            assert_eq!(told.await, Ok(code));
        });
    }
}

#[test]
fn the_close_is_noticed_behind_unreceived_messages() {
    is_noticed_behind(1, 60_000);
    is_noticed_behind(60, 1000);
}

#[test]
fn the_close_is_noticed_behind_many_short_unreceived_messages() {
    is_noticed_behind(200, 10);
}

/// A close frame behind messages that are fewer bytes than are read ahead.
fn is_noticed_behind(count: usize, len: usize) {
    eprintln!("{count} messages of {len} bytes");
    within(async {
        let (tell, told) = oneshot::channel();
        let mut peer = serve(&options(), |mut ws| async move {
            ws.closed().await;
            let _ = tell.send(collect(&mut ws).await.0.len());
            Ok(())
        });
        peer.send(masked(TEXT, "x".repeat(len)).repeat(count)).await;
        peer.send(masked(CLOSE, "")).await;
        peer.expect_hex("88 00").await;
        assert_eq!(told.await, Ok(count));
    });
}

#[test]
fn a_recv_that_was_given_up_does_not_stop_the_reading_ahead() {
    within(async {
        let mut peer = serve(&options(), |mut ws| async move {
            assert!(patience(1, ws.recv()).await.is_none());
            pending().await
        });
        peer.send(masked(PING, "p")).await;
        peer.expect_hex("8a 01 70").await;
    });
}

#[test]
fn a_websocket_that_moved_to_another_task_works_on_when_its_handler_has_returned() {
    within(async {
        let mut peer = serve(&options(), |ws| async move {
            task::spawn(echo(ws));
            Ok(())
        });
        for number in 0..500 {
            peer.send(masked(TEXT, number.to_string())).await;
            peer.expect(plain(TEXT, number.to_string())).await;
        }
        let many: Vec<u8> = (0..500).flat_map(|n| masked(TEXT, n.to_string())).collect();
        let echoed: Vec<u8> = (0..500).flat_map(|n| plain(TEXT, n.to_string())).collect();
        peer.send(many).await;
        peer.expect(echoed).await;
        peer.send(masked(CLOSE, "")).await;
        peer.expect_hex("88 00").await;
        peer.expect_end().await;
    });
}

#[test]
fn a_websocket_that_moved_to_another_task_receives_more_than_is_read_ahead() {
    for options in [options(), options().read_ahead_size(0)] {
        within(async {
            let mut peer = serve(&options, |ws| async move {
                task::spawn(echo(ws));
                Ok(())
            });
            peer.send(masked(0x02, vec![7; 70_000])).await;
            // The pong tells that what is before it has been read.
            peer.send(masked(PING, "p")).await;
            peer.expect_hex("8a 01 70").await;
            peer.send(masked(0x80, "end")).await;
            let whole = [&*vec![7; 70_000], b"end"].concat();
            peer.expect(plain(0x82, whole)).await;
        });
    }
}

#[test]
fn a_recv_below_a_waker_of_its_own_is_woken() {
    within(async {
        let mut peer = serve(&options(), |mut ws| async move {
            loop {
                // Each member of this set is polled when its own waker was woken, and not else.
                let mut calls: FuturesUnordered<_> = [ws.recv()].into_iter().collect();
                let Some(message) = calls.next().await.transpose()?.flatten() else { break };
                drop(calls);
                ws.send(message).await?;
            }
            Ok(())
        });
        for len in [1, 100, 40_000] {
            peer.send([masked(0x01, "x".repeat(len)), masked(PING, "p")].concat()).await;
            peer.expect_hex("8a 01 70").await;
            peer.send(masked(0x80, "y")).await;
            peer.expect(plain(TEXT, "x".repeat(len) + "y")).await;
        }
        peer.send(masked(CLOSE, "")).await;
        peer.expect_hex("88 00").await;
    });
}

#[test]
fn a_websocket_that_moved_to_another_task_works_beside_its_handler() {
    within(async {
        let (go, gone) = oneshot::channel::<()>();
        let mut peer = serve(&options(), |mut ws| async move {
            let sender = ws.sender();
            let receiving = task::spawn(async move {
                while let Some(message) = ws.recv().await? {
                    ws.send(message).await?;
                }
                Ok::<(), Error>(())
            });
            gone.await.unwrap();
            sender.send("from the handler").await?;
            receiving.await
        });
        peer.send(masked(TEXT, "Hello")).await;
        peer.expect_hex("81 05 48656c6c6f").await;
        go.send(()).unwrap();
        peer.expect(plain(TEXT, "from the handler")).await;
        peer.send(masked(CLOSE, "")).await;
        peer.expect_hex("88 00").await;
        peer.expect_end().await;
    });
}

/// A way for a handler to end.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Ok,
    Err,
    ErrWhileHeld,
    Panic,
    PanicAfterAWait,
    DroppedEarly,
    MovedAndDropped,
}

impl Ending {
    async fn end(self, mut ws: WebSocket) -> Result<()> {
        match self {
            Self::Ok => Ok(()),
            Self::Err => {
                drop(ws);
                Err(Error::Closed)
            }
            Self::ErrWhileHeld => Err(Error::Closed),
            Self::Panic => panic!("a test panics"),
            Self::PanicAfterAWait => {
                ws.flush().await?;
                task::yield_now().await;
                panic!("a test panics after a wait")
            }
            Self::DroppedEarly => {
                drop(ws);
                pending().await
            }
            Self::MovedAndDropped => {
                task::spawn(async move { drop(ws) });
                Ok(())
            }
        }
    }
}

#[test]
pub(crate) fn the_outcome_of_a_handler_is_told_in_its_close_frame() {
    for (ending, code) in [
        (Ending::Ok, 1000),
        (Ending::Err, 1011),
        (Ending::ErrWhileHeld, 1011),
        (Ending::Panic, 1011),
        (Ending::PanicAfterAWait, 1011),
        (Ending::DroppedEarly, 1000),
        (Ending::MovedAndDropped, 1000),
    ] {
        eprintln!("{ending:?}");
        within(async {
            let mut peer = serve(&options(), move |mut ws| async move {
                ws.send("before").await?;
                ending.end(ws).await
            });
            peer.expect(plain(TEXT, "before")).await;
            assert_eq!(peer.frame().await.close_code(), Some(code));
            peer.send(masked(CLOSE, close(code, ""))).await;
            peer.expect_end().await;
        });
    }
}

#[test]
fn dropping_the_task_drops_the_connection_although_a_sender_is_left() {
    within(async {
        let (stream, end) = pipe(Knobs::default());
        let (tell, told) = oneshot::channel();
        let run =
            WebSocket::run(stream, [].as_slice(), Role::Server, &options(), |ws| async move {
                tell.send(ws.sender()).unwrap();
                ws.closed().await;
                Ok::<(), Error>(())
            });
        let running = task::spawn(run);
        let sender = told.await.unwrap();
        running.cancel().await;
        Peer { end }.expect_end().await;
        sender.closed().await;
        assert!(sender.send("late").await.is_err() && !sender.is_open());
    });
}

#[test]
fn dropping_the_task_ends_a_recv_in_another_task() {
    within(async {
        let (stream, end) = pipe(Knobs::default());
        let (tell, told) = oneshot::channel();
        let run =
            WebSocket::run(stream, [].as_slice(), Role::Server, &options(), |ws| async move {
                let _ = tell.send(ws);
                pending::<Result<()>>().await
            });
        let running = task::spawn(run);
        let mut ws = told.await.unwrap();
        assert!(patience(1, ws.recv()).await.is_none());
        running.cancel().await;
        assert!(ws.recv().await.is_err());
        Peer { end }.expect_end().await;
    });
}
