//! Long messages leave other tasks of the thread their turns.

use std::cell::Cell;
use std::future::Future;

use async_std::task;
use futures::future::LocalBoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use futures::{FutureExt, SinkExt};
use tidewire::frame::Role;
use tidewire::{Message, Result, WebSocket, WebSocketOptions};

use crate::support::deflate::codec::Deflater;
use crate::support::deflate::{ALONE, DEFLATED, TAKEOVER, agreed};
use crate::support::frames::{BINARY, CONTINUATION, FIN, masked};
use crate::support::peer::{Drive, Peer, within};
use crate::support::pipe::{End, Knobs, pipe};

/// Length of a long message, in bytes.
const LONG: usize = 4 << 20;

/// As many turns as others get at least while so much is compressed or decompressed.
const TURNS: usize = LONG / (128 << 10);

/// Runs `work` beside another task of the same thread, and returns how often that had its turn.
fn turns_beside(work: impl Future<Output = ()>) -> usize {
    let turns = Cell::new(0);
    let other = async {
        loop {
            turns.set(turns.get() + 1);
            task::yield_now().await;
        }
    };
    let mut tasks: FuturesUnordered<LocalBoxFuture<'_, ()>> =
        [work.boxed_local(), other.boxed_local()].into_iter().collect();
    within(tasks.next());
    turns.get()
}

/// Turns of another task while `handler` is at work.
fn turns_beside_handler<F, Fut>(
    by: Drive,
    stream: End,
    options: &WebSocketOptions,
    handler: F,
) -> usize
where
    F: FnOnce(WebSocket) -> Fut,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let none = [].as_slice();
    match by {
        Drive::Task => {
            let (done, is_done) = futures::channel::oneshot::channel();
            let run = WebSocket::run(stream, none, Role::Server, options, |ws| {
                let work = handler(ws);
                async move {
                    work.await.unwrap();
                    done.send(()).unwrap();
                    Ok::<_, tidewire::Error>(())
                }
            });
            turns_beside(async {
                futures::future::select(run, is_done).await;
            })
        }
        Drive::Caller => {
            let work = handler(WebSocket::from_stream(stream, none, Role::Server, options));
            turns_beside(async { work.await.unwrap() })
        }
    }
}

/// The calls that send a message.
#[derive(Clone, Copy, Debug)]
enum Call {
    Send,
    Sender,
    Sink,
}

impl Call {
    async fn send(self, mut ws: WebSocket, message: Message) -> Result<()> {
        match self {
            Self::Send => ws.send(message).await,
            Self::Sender => ws.sender().send(message).await,
            Self::Sink => SinkExt::<Message>::send(&mut ws, message).await,
        }
    }
}

#[test]
fn another_task_has_its_turns_while_a_long_message_is_compressed() {
    let message = Message::binary(vec![7; LONG]);
    for (answer, by, call) in [
        (ALONE, Drive::Task, Call::Send),
        (TAKEOVER, Drive::Task, Call::Sender),
        (TAKEOVER, Drive::Caller, Call::Send),
        (ALONE, Drive::Caller, Call::Sink),
    ] {
        let options = agreed(answer);
        let (stream, end) = pipe(Knobs::default());
        let (compressed, plain) = (message.clone(), message.clone().uncompressed());
        let turns = turns_beside_handler(by, stream, &options, |ws| call.send(ws, compressed));
        assert!(end.arrived() < LONG / 50, "{} bytes", end.arrived());
        // It is not the stream that takes them.
        let (stream, _end) = pipe(Knobs::default());
        let least = turns_beside_handler(by, stream, &options, |ws| call.send(ws, plain));
        eprintln!("{answer}, {by:?}, {call:?}: {turns} turns, {least} without compression");
        assert!(turns >= least + TURNS, "{turns} turns, {least} without compression");
    }
}

#[test]
fn another_task_has_its_turns_while_a_long_message_is_decompressed() {
    let zeros = vec![0; LONG];
    let mut deflater = Deflater::new(1, 15, false);
    let fragments = deflater.fragments(&[&zeros[..LONG / 2], &zeros[LONG / 2..]]);
    let head = BINARY | DEFLATED;
    let sent = [masked(head & !FIN, &fragments[0]), masked(CONTINUATION, &fragments[1])].concat();
    assert!(sent.len() < LONG / 50, "{} bytes", sent.len());
    for (answer, by) in [(ALONE, Drive::Task), (TAKEOVER, Drive::Caller), (TAKEOVER, Drive::Task)] {
        for by_frames in [false, true] {
            let options = agreed(answer).max_message_size(LONG);
            let (stream, end) = pipe(Knobs::default());
            let mut peer = Peer { end };
            within(peer.send(&sent));
            let turns = turns_beside_handler(by, stream, &options, |mut ws| async move {
                let mut len = 0;
                while len < LONG {
                    len += if by_frames {
                        ws.recv_frame().await?.unwrap().payload().len()
                    } else {
                        ws.recv().await?.unwrap().len()
                    };
                }
                assert_eq!(len, LONG);
                Ok(())
            });
            eprintln!("{answer}, {by:?}, by frames: {by_frames}: {turns} turns");
            assert!(turns >= TURNS, "{turns} turns");
        }
    }
}

#[test]
fn another_task_has_its_turns_between_messages_that_each_become_much() {
    // Fewer than the messages of a turn.
    let (count, len) = (60, 60_000);
    let message = masked(BINARY | DEFLATED, Deflater::new(1, 15, false).deflate(vec![0; len]));
    for by in Drive::BOTH {
        let (stream, end) = pipe(Knobs::default());
        let mut peer = Peer { end };
        within(peer.send(message.repeat(count)));
        let turns = turns_beside_handler(by, stream, &agreed(ALONE), |mut ws| async move {
            for _ in 0..count {
                assert_eq!(ws.recv().await?.unwrap().len(), len);
            }
            Ok(())
        });
        assert!(turns >= count * len / (512 << 10), "{by:?}: {turns} turns");
    }
}
