//! Who writes what is broadcast: for most members, nobody has to wake up.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_std::task;
use futures::channel::oneshot;
use futures::future::join_all;
use futures::io::{AsyncRead, AsyncWrite};
use tidewire::frame::Role;
use tidewire::websocket::TimeoutKind;
use tidewire::{Error, Result, Room, Sender, WebSocket, WebSocketOptions};

use super::{enter, narrow, options, room};
use crate::support::frames::{CLOSE, TEXT, close, masked, plain};
use crate::support::peer::{Peer, collect, within};
use crate::support::pipe::{Knobs, pipe};

/// More than are written for without a pause.
const MANY: usize = 150;

/// A future, and how often it has been polled.
struct Counted<F> {
    future: F,
    polls: Arc<AtomicUsize>,
}

impl<F: Future + Unpin> Future for Counted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.polls.fetch_add(1, Ordering::SeqCst);
        Pin::new(&mut self.future).poll(cx)
    }
}

/// A member over this stream, and what its handler ends with.
async fn enter_over<S>(
    room: &Room,
    stream: S,
    options: &WebSocketOptions,
    polls: &Arc<AtomicUsize>,
) -> (Sender, oneshot::Receiver<Result<()>>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let ((tell, told), (tell_end, end)) = (oneshot::channel(), oneshot::channel());
    let room = room.clone();
    let handler = |mut ws: WebSocket| async move {
        let member = room.join(&ws);
        let _ = tell.send(ws.sender());
        let end = collect(&mut ws).await.1;
        drop(member);
        let _ = tell_end.send(end);
        Ok::<_, Error>(())
    };
    let future = WebSocket::run(stream, [].as_slice(), Role::Server, options, handler);
    task::spawn(Counted { future, polls: Arc::clone(polls) });
    (told.await.unwrap(), end)
}

#[test]
fn members_are_written_to_and_not_woken() {
    within(async {
        let (room, polls) = (room(), Arc::default());
        let mut peers = vec![];
        for _ in 0..MANY {
            let (stream, end) = pipe(Knobs::default());
            let (_, _) = enter_over(&room, stream, &options(), &polls).await;
            peers.push(Peer { end });
        }
        for text in ["one", "two", "three"] {
            assert_eq!(room.broadcast(text).queued, MANY);
            for peer in &mut peers {
                peer.expect(plain(TEXT, text)).await;
            }
        }
        assert_eq!(polls.load(Ordering::SeqCst), MANY);
    });
}

#[test]
fn connections_that_close_right_after_a_broadcast_close_in_order() {
    within(async {
        let room = room();
        let (mut peers, mut senders) = (vec![], vec![]);
        for _ in 0..MANY {
            let (peer, sender) = enter(&room, Knobs::default(), &options()).await;
            peers.push(peer);
            senders.push(sender);
        }
        room.broadcast("last words");
        let closing = join_all(senders.iter().map(|sender| sender.close(1001, "")));
        let peers = join_all(peers.iter_mut().map(async |peer| {
            peer.expect(plain(TEXT, "last words")).await;
            peer.expect(plain(CLOSE, close(1001, ""))).await;
            peer.send(masked(CLOSE, close(1001, ""))).await;
            peer.expect_end().await;
        }));
        let (closed, _) = futures::join!(closing, peers);
        assert!(closed.iter().all(|info| info.as_ref().unwrap().clean), "{closed:?}");
    });
}

#[test]
fn members_that_take_no_broadcast_are_given_up_in_time() {
    let options = options().send_timeout(Some(Duration::from_millis(50)));
    within(async {
        let (room, polls) = (room(), Arc::default());
        let (mut ends, mut peers) = (vec![], vec![]);
        for _ in 0..10 {
            let (stream, peer) = pipe(narrow(1));
            ends.push(enter_over(&room, stream, &options, &polls).await.1);
            peers.push(peer);
        }
        room.broadcast("too long");
        for end in ends {
            let end = end.await.unwrap();
            assert!(matches!(end, Err(Error::Timeout(TimeoutKind::Send))), "{end:?}");
        }
    });
}

/// A stream that says nothing, and takes nothing.
struct Broken(fn() -> io::Error);

/// One that can be told so.
const BROKEN: Broken = Broken(|| io::ErrorKind::BrokenPipe.into());

impl AsyncRead for Broken {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Pending
    }
}

impl AsyncWrite for Broken {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err((self.0)()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[test]
fn members_whose_stream_fails_learn_of_it_wherever_they_wait() {
    within(async {
        let (room, polls) = (room(), Arc::default());
        let mut ends = vec![];
        for _ in 0..10 {
            ends.push(enter_over(&room, BROKEN, &options(), &polls).await.1);
        }
        let (mut watching, mut watched) = (vec![], vec![]);
        for _ in 0..10 {
            let (tell, told) = oneshot::channel();
            let room = room.clone();
            let handler = |ws: WebSocket| async move {
                let _member = room.join(&ws);
                let _ = tell.send(ws.sender());
                ws.closed().await;
                Ok::<_, Error>(())
            };
            watching.push(task::spawn(WebSocket::run(
                BROKEN,
                [].as_slice(),
                Role::Server,
                &options(),
                handler,
            )));
            watched.push(told.await.unwrap());
        }
        assert_eq!(room.broadcast("nobody hears this").queued, 20);
        for end in ends {
            let end = end.await.unwrap();
            assert!(matches!(end, Err(Error::Io(_))), "{end:?}");
        }
        join_all(watching).await;
        assert!(watched.iter().all(|sender| !sender.is_open()));
        assert!(room.is_empty());
    });
}

#[test]
fn a_member_whose_stream_panics_ends_and_the_others_are_written_to() {
    within(async {
        let (room, polls) = (room(), Arc::default());
        let panicking = Broken(|| panic!("a stream of a test panics"));
        let (sender, _) = enter_over(&room, panicking, &options(), &polls).await;
        let mut peers = vec![];
        for _ in 0..10 {
            peers.push(enter(&room, Knobs::default(), &options()).await.0);
        }
        assert_eq!(room.broadcast("to the others").queued, 11);
        for peer in &mut peers {
            peer.expect(plain(TEXT, "to the others")).await;
        }
        sender.closed().await;
        assert_eq!(room.broadcast("goes on").queued, 10);
    });
}
