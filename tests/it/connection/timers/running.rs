//! `Sender::run_heartbeat`: a heartbeat as a future, to spawn beside the handler.

use async_std::task::{self, JoinHandle};
use futures::channel::oneshot;
use futures::future::pending;
use tidewire::frame::Role;
use tidewire::{Error, Result, Sender, WebSocketOptions};

use super::{
    SOON, answer, expect_given_up, idle, impatient, is_unanswered, often, other_frame, token,
};
use crate::support::attempts::patience;
use crate::support::frames::{CLOSE, TEXT, close, masked, plain};
use crate::support::peer::{Drive, Peer, drive, echo, within};
use crate::support::pipe::{Knobs, pipe};

/// A peer of an echo, and a sender over its connection.
async fn echo_of(by: Drive) -> (Peer, Sender) {
    let (stream, end) = pipe(Knobs::default());
    let (tell, told) = oneshot::channel();
    drive(by, stream, Role::Server, &WebSocketOptions::default(), |ws| {
        let _ = tell.send(ws.sender());
        echo(ws)
    });
    (Peer { end }, told.await.unwrap())
}

fn spawn(sender: &Sender) -> JoinHandle<Result<()>> {
    task::spawn(sender.run_heartbeat(impatient()))
}

#[test]
fn it_fails_when_the_peer_does_not_answer() {
    for by in Drive::BOTH {
        within(async {
            let (mut peer, sender) = echo_of(by).await;
            let running = spawn(&sender);
            answer(&mut peer).await;
            token(&mut peer).await;
            expect_given_up(&mut peer).await;
            let result = running.await;
            assert!(is_unanswered(&result), "{result:?}");
        });
    }
}

#[test]
fn it_ends_in_order_with_the_connection_for_a_close_by_either_side() {
    for by in Drive::BOTH {
        within(async {
            let (mut peer, sender) = echo_of(by).await;
            let running = spawn(&sender);
            answer(&mut peer).await;
            peer.send(masked(CLOSE, close(1000, ""))).await;
            running.await.unwrap();
            assert_eq!(other_frame(&mut peer).await.close_code(), Some(1000));
        });
        within(async {
            let (mut peer, sender) = echo_of(by).await;
            let running = spawn(&sender);
            answer(&mut peer).await;
            let closing = task::spawn(async move { sender.close(4000_u16, "").await });
            assert_eq!(other_frame(&mut peer).await.close_code(), Some(4000));
            peer.send(masked(CLOSE, close(4000, ""))).await;
            running.await.unwrap();
            assert!(closing.await.unwrap().clean);
        });
    }
}

#[test]
fn it_fails_as_the_connection_does() {
    for by in Drive::BOTH {
        within(async {
            let (mut peer, sender) = echo_of(by).await;
            let running = spawn(&sender);
            answer(&mut peer).await;
            peer.end.reset();
            let result = running.await;
            assert!(matches!(result, Err(Error::Io(_))), "{result:?}");
            let late = sender.run_heartbeat(often()).await;
            assert!(matches!(late, Err(Error::Io(_))), "{late:?}");
        });
    }
}

#[test]
fn it_asks_no_more_once_it_is_dropped() {
    for by in Drive::BOTH {
        within(async {
            let (mut peer, sender) = echo_of(by).await;
            let running = spawn(&sender);
            token(&mut peer).await;
            running.cancel().await;
            idle(3 * SOON).await;
            peer.send(masked(TEXT, "Hi")).await;
            peer.expect(plain(TEXT, "Hi")).await;
        });
    }
}

#[test]
fn dropping_an_earlier_one_leaves_the_latest() {
    within(async {
        let (mut peer, sender) = echo_of(Drive::Task).await;
        let first = spawn(&sender);
        token(&mut peer).await;
        let second = spawn(&sender);
        token(&mut peer).await;
        assert!(first.cancel().await.is_none());
        expect_given_up(&mut peer).await;
        assert!(is_unanswered(&second.await));
    });
}

#[test]
fn it_can_be_given_up_at_any_time() {
    for by in Drive::BOTH {
        within(async {
            let (mut peer, sender) = echo_of(by).await;
            for polls in 0..3 {
                let given_up = patience(polls, sender.run_heartbeat(often())).await;
                assert!(given_up.is_none());
            }
            peer.send(masked(TEXT, "Hi")).await;
            assert_eq!(other_frame(&mut peer).await.payload, b"Hi");
            idle(SOON).await;
            peer.send(masked(TEXT, "Hi")).await;
            peer.expect(plain(TEXT, "Hi")).await;
        });
    }
}

#[test]
fn it_serves_a_connection_without_a_task_and_without_other_waiters() {
    within(async {
        let (stream, end) = pipe(Knobs::default());
        let (tell, told) = oneshot::channel();
        drive(Drive::Caller, stream, Role::Server, &WebSocketOptions::default(), |ws| async move {
            let _ = tell.send(ws.sender());
            let _ws = ws;
            pending().await
        });
        let sender = told.await.unwrap();
        let running = spawn(&sender);
        let mut peer = Peer { end };
        answer(&mut peer).await;
        token(&mut peer).await;
        expect_given_up(&mut peer).await;
        assert!(is_unanswered(&running.await));
    });
}
