//! What was put off is taken up by the event that makes it possible, not by the next byte of the peer or by
//! an old timer.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use async_std::task;
use futures::channel::oneshot;
use futures::future::{join_all, pending};
use futures::io::{AsyncRead, AsyncWrite};
use futures::{AsyncWriteExt, FutureExt};
use tidewire::frame::{Frame, OpCode, Role};
use tidewire::{Error, Message, Result, Sender, WebSocket, WebSocketOptions};

use crate::support::attempts::patience;
use crate::support::frames::{CLOSE, PING, TEXT, masked, plain};
use crate::support::peer::{Peer, WITHIN, serve, serve_over, within};
use crate::support::pipe::{Knobs, pipe};

/// No timer comes to the rescue within a test.
fn options() -> WebSocketOptions {
    let minute = Duration::from_secs(60);
    WebSocketOptions::default().close_timeout(minute).message_timeout(minute).send_timeout(minute)
}

/// Runs a connection with `receiver` in another task than the connection's, whose handler stays.
fn apart<F, Fut>(options: &WebSocketOptions, receiver: F) -> Peer
where
    F: FnOnce(WebSocket) -> Fut + Send + 'static,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    serve(options, |ws| async move {
        task::spawn(receiver(ws));
        pending().await
    })
}

#[test]
fn the_last_of_many_pings_is_answered_once_there_is_room_section_5_5_3() {
    const PINGS: usize = 2000;
    let ping = |number: usize| masked(PING, format!("{number:0125}"));
    within(async {
        // The handler waits in `recv`, or for something else.
        for receives in [true, false] {
            let knobs = Knobs { in_flight: 1000, ..Knobs::default() };
            let options = options().send_buffer_size(4000);
            let mut peer = serve_over(knobs, &options, move |mut ws| async move {
                if receives { ws.recv().await.map(drop) } else { pending().await }
            });
            peer.send((0..PINGS).flat_map(ping).collect::<Vec<u8>>()).await;
            // All of them are read before the peer reads a pong.
            while peer.end.unread() > 0 {
                task::yield_now().await;
            }
            let mut last = peer.frame().await;
            while last.payload != format!("{:0125}", PINGS - 1).into_bytes() {
                last = peer.frame().await;
            }
        }
    });
}

#[test]
fn a_close_frame_is_answered_at_once_when_another_task_takes_the_end_up() {
    within(async {
        let (go, gone) = oneshot::channel::<()>();
        let mut peer = apart(&options(), |mut ws| async move {
            assert_eq!(ws.recv().await?, Some(Message::from("Hello")));
            gone.await.unwrap();
            assert_eq!(ws.recv().await?, None);
            // It is kept: dropping it would end the connection as well.
            pending().await
        });
        peer.send([masked(TEXT, "Hello"), masked(CLOSE, "")].concat()).await;
        while peer.end.unread() > 0 {
            task::yield_now().await;
        }
        go.send(()).unwrap();
        peer.expect_hex("88 00").await;
    });
}

#[test]
fn a_close_frame_behind_half_a_message_is_answered_while_another_task_receives() {
    within(async {
        let mut peer = apart(&options(), |mut ws| async move {
            assert_eq!(ws.recv().await?, None);
            pending().await
        });
        // The pong tells that the receiver is there, and that it has read the fragment.
        peer.send([masked(0x01, "begun"), masked(PING, "p")].concat()).await;
        peer.expect_hex("8a 01 70").await;
        peer.send(masked(CLOSE, "")).await;
        peer.expect_hex("88 00").await;
    });
}

#[test]
fn a_ping_before_a_message_is_answered_while_the_receiver_in_another_task_is_busy() {
    within(async {
        let mut peer = apart(&options(), |mut ws| async move {
            ws.recv().await?;
            pending().await
        });
        peer.send([masked(PING, "p"), masked(TEXT, "Hello")].concat()).await;
        peer.expect_hex("8a 01 70").await;
    });
}

#[test]
fn reading_ahead_goes_on_once_another_task_has_taken_the_messages() {
    within(async {
        let (go, gone) = oneshot::channel::<()>();
        let mut peer = apart(&options().read_ahead_size(100), |mut ws| async move {
            gone.await.unwrap();
            assert_eq!(ws.recv().await?.map(|message| message.len()), Some(500));
            pending().await
        });
        peer.send(masked(TEXT, "x".repeat(500))).await;
        while peer.end.unread() > 0 {
            task::yield_now().await;
        }
        peer.send(masked(PING, "p")).await;
        go.send(()).unwrap();
        peer.expect_hex("8a 01 70").await;
    });
}

#[test]
fn reading_ahead_goes_on_once_another_task_reads_messages_and_the_pings_are_let_go() {
    const PINGS: usize = 40;
    within(async {
        let (go, gone) = oneshot::channel::<()>();
        let mut peer = apart(&options().read_ahead_size(60), |mut ws| async move {
            gone.await.unwrap();
            // Until it is known that the caller reads no frames, pings are kept for it.
            assert_eq!(ws.recv().await?, Some(Message::from("Hello")));
            pending().await
        });
        let ping = |number: usize| masked(PING, format!("{number:05}"));
        peer.send([masked(TEXT, "Hello"), (0..PINGS).flat_map(ping).collect()].concat()).await;
        while peer.end.unread() > 0 {
            task::yield_now().await;
        }
        go.send(()).unwrap();
        let last = format!("{:05}", PINGS - 1);
        while peer.frame().await.payload != last.as_bytes() {}
    });
}

#[test]
fn reading_ahead_goes_on_in_a_call_that_waits_once_recv_has_made_room() {
    within(async {
        let (stream, end) = pipe(Knobs::default());
        let mut peer = Peer { end };
        let options = options().read_ahead_size(100);
        let mut ws = WebSocket::from_stream(stream, [].as_slice(), Role::Server, &options);
        // The connection has no task: the call that waits reads ahead.
        let sender = ws.sender();
        task::spawn(async move { sender.closed().await });
        peer.send(masked(TEXT, "x".repeat(500))).await;
        while peer.end.unread() > 0 {
            task::yield_now().await;
        }
        peer.send(masked(PING, "p")).await;
        assert_eq!(ws.recv().await.unwrap().map(|message| message.len()), Some(500));
        peer.expect_hex("8a 01 70").await;
    });
}

#[test]
fn a_close_frame_behind_pings_that_are_kept_for_recv_frame_is_answered() {
    within(async {
        let mut peer = serve(&options().auto_pong(false), |ws| async move {
            let _ws = ws;
            pending().await
        });
        let pings = masked(PING, "p").repeat(100);
        peer.send([pings, masked(CLOSE, "")].concat()).await;
        peer.expect_hex("88 00").await;
    });
}

#[test]
fn a_connection_without_a_task_writes_its_pong_before_recv_returns() {
    within(async {
        let (stream, end) = pipe(Knobs::default());
        let mut peer = Peer { end };
        peer.send([masked(PING, "p"), masked(TEXT, "Hello")].concat()).await;
        let mut ws = WebSocket::from_stream(stream, [].as_slice(), Role::Server, &options());
        ws.recv().await.unwrap();
        peer.expect_hex("8a 01 70").await;
    });
}

/// A way to wait for a connection.
#[derive(Clone, Copy, Debug)]
enum Waiter {
    Closed,
    Flush,
    Room,
    Close,
}

impl Waiter {
    const ALL: [Self; 4] = [Self::Closed, Self::Flush, Self::Room, Self::Close];

    async fn wait(self, sender: Sender) {
        match self {
            Self::Closed => _ = sender.closed().await,
            Self::Flush => _ = sender.flush().await,
            Self::Room => _ = sender.send("more").await,
            Self::Close => _ = sender.close(1000, "").await,
        }
    }
}

#[test]
fn waiting_tasks_learn_of_the_end_when_a_receiver_meets_it() {
    for (waiter, has_task) in Waiter::ALL.into_iter().flat_map(|it| [(it, false), (it, true)]) {
        eprintln!("{waiter:?}, a task of its own: {has_task}");
        within(async {
            let knobs = Knobs { in_flight: 10, ..Knobs::default() };
            let (stream, end) = pipe(knobs);
            let mut peer = Peer { end };
            // Nothing is read ahead, so the end is not met before both messages are taken.
            let options = options().read_ahead_size(0).send_buffer_size(1);
            peer.send([masked(TEXT, "one"), masked(TEXT, "two")].concat()).await;
            // The peer reads nothing, and sends nothing more.
            peer.end.close().await.unwrap();
            let (tell, told) = oneshot::channel();
            let mut ws = if has_task {
                let handler = |ws| async move {
                    let _ = tell.send(ws);
                    pending::<Result<()>>().await
                };
                let run = WebSocket::run(stream, [].as_slice(), Role::Server, &options, handler);
                task::spawn(run);
                told.await.unwrap()
            } else {
                WebSocket::from_stream(stream, [].as_slice(), Role::Server, &options)
            };
            if !matches!(waiter, Waiter::Closed) {
                // The stream takes ten bytes of it.
                let sent = patience(1, ws.send("x".repeat(100))).await;
                assert_eq!(sent.is_some(), has_task, "queued, or written");
            }
            let waiting = task::spawn(waiter.wait(ws.sender()));
            let last = loop {
                match ws.recv().await {
                    Ok(Some(_)) => task::yield_now().await,
                    last => break last,
                }
            };
            assert!(matches!(last, Err(Error::Io(_)) | Ok(None)), "{last:?}");
            waiting.await;
            drop(ws);
        });
    }
}

#[test]
fn a_task_whose_handler_has_returned_ends_when_another_task_meets_the_end_of_the_stream() {
    within(async {
        let (stream, end) = pipe(Knobs::default());
        let mut peer = Peer { end };
        let (tell, told) = oneshot::channel();
        let handler = |ws| async move {
            let _ = tell.send(ws);
            Ok::<(), Error>(())
        };
        let options = options().read_ahead_size(0);
        let run = WebSocket::run(stream, [].as_slice(), Role::Server, &options, handler);
        let running = task::spawn(run);
        let mut ws = told.await.unwrap();
        peer.send(masked(TEXT, "one")).await;
        assert_eq!(ws.recv().await.unwrap(), Some(Message::from("one")));
        drop(peer);
        assert!(ws.recv().await.is_err());
        running.await;
        drop(ws);
    });
}

#[test]
fn messages_of_a_task_during_the_turn_of_the_handler_are_written_after_it() {
    within(async {
        let (tell, told) = oneshot::channel();
        let mut peer = serve(&options(), |ws| async move {
            let sender = ws.sender();
            // Sent from another thread, while the handler does not come to an `await`.
            let sending = thread::spawn(move || sender.send("meanwhile").now_or_never());
            assert!(matches!(sending.join().unwrap(), Some(Ok(()))));
            let _ = tell.send(());
            let _ws = ws;
            pending().await
        });
        told.await.unwrap();
        peer.expect(plain(TEXT, "meanwhile")).await;
    });
}

#[test]
fn many_sends_of_one_task_come_to_rest_while_the_peer_reads_nothing() {
    within(async {
        let (tell, told) = oneshot::channel();
        let knobs = Knobs { in_flight: 10, ..Knobs::default() };
        let _peer = serve_over(knobs, &options().send_buffer_size(10), |ws| async move {
            let _ = tell.send(ws.sender());
            let _ws = ws;
            pending().await
        });
        let sender = told.await.unwrap();
        // What does not fit is written until the stream takes no more.
        sender.send("x".repeat(100)).await.unwrap();
        let mut waiting = Box::pin(join_all((0..20).map(|_| sender.send("more"))));
        let mut polls = 0;
        while polls < 1000 {
            let woken = Arc::new(Flag::default());
            let waker = Waker::from(Arc::clone(&woken));
            assert!(waiting.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
            polls += 1;
            // The connection's own task has its turns meanwhile.
            for _ in 0..100 {
                task::yield_now().await;
            }
            if !woken.0.load(Ordering::SeqCst) {
                break;
            }
        }
        assert!(polls < 10, "polled {polls} times for nothing");
    });
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_send_that_waits_for_the_fragments_of_another_task_is_woken_by_the_last_of_them() {
    within(async {
        let (tell, told) = oneshot::channel();
        let (go, gone) = oneshot::channel::<()>();
        let knobs = Knobs { in_flight: 10, ..Knobs::default() };
        let peer = serve_over(knobs, &options(), |mut ws| async move {
            ws.send_frame(Frame::new(false, OpCode::Text, "x".repeat(100))).await?;
            let _ = tell.send(ws.sender());
            gone.await.unwrap();
            ws.send_frame(Frame::new(true, OpCode::Continuation, "y")).await?;
            pending().await
        });
        let sender = told.await.unwrap();
        let mut sending = Box::pin(sender.send("behind"));
        assert!(futures::poll!(&mut sending).is_pending());
        go.send(()).unwrap();
        // The peer reads nothing.
        sending.await.unwrap();
        drop(peer);
    });
}

#[test]
fn a_connection_that_is_run_has_its_task_before_that_is_polled() {
    within(async {
        let (stream, end) = pipe(Knobs { in_flight: 1, ..Knobs::default() });
        let mut peer = Peer { end };
        let (tell, told) = oneshot::channel();
        let handler = |ws| {
            let _ = tell.send(ws);
            pending::<Result<()>>()
        };
        let run = WebSocket::run(stream, [].as_slice(), Role::Server, &options(), handler);
        let mut ws = told.await.unwrap();
        // It is queued for the task, and does not wait for the stream.
        assert!(matches!(ws.send("Hello").now_or_never(), Some(Ok(()))));
        task::spawn(run);
        peer.expect(plain(TEXT, "Hello")).await;
        drop(ws);
    });
}

/// A stream without bytes that wakes its reader at each read, as the sockets of a runtime do where a task has used up its
/// share.
struct Restless;

impl AsyncRead for Restless {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        _: &mut [u8],
    ) -> Poll<std::io::Result<usize>> {
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl AsyncWrite for Restless {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A waker of an executor that looks at the connection at once.
#[derive(Default)]
struct Looks {
    sender: OnceLock<Sender>,
    times: AtomicUsize,
}

impl Wake for Looks {
    fn wake(self: Arc<Self>) {
        if let Some(sender) = self.sender.get() {
            assert!(sender.is_open());
            self.times.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn a_stream_that_wakes_while_it_is_polled_calls_no_waker_under_the_lock() {
    for has_task in [true, false] {
        let (tell, told) = channel();
        thread::spawn(move || {
            let looks = Arc::new(Looks::default());
            let waker = Waker::from(Arc::clone(&looks));
            let cx = &mut Context::from_waker(&waker);
            let reader = |mut ws: WebSocket| {
                assert!(looks.sender.set(ws.sender()).is_ok());
                async move { ws.recv().await.map(drop) }
            };
            let mut reading: Pin<Box<dyn Future<Output = ()>>> = if has_task {
                Box::pin(WebSocket::run(Restless, [].as_slice(), Role::Server, &options(), reader))
            } else {
                let ws = WebSocket::from_stream(Restless, [].as_slice(), Role::Server, &options());
                Box::pin(reader(ws).map(drop))
            };
            // Where another task drives the connection, the reader registers its waker by the first poll.
            for _ in 0..3 {
                assert!(reading.as_mut().poll(cx).is_pending());
            }
            tell.send(looks.times.load(Ordering::Relaxed)).unwrap();
        });
        let times = told.recv_timeout(WITHIN).expect("no poll waits for a lock of its own thread");
        assert!(times > 0, "with a task: {has_task}");
    }
}
