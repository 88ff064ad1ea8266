//! Peers that do not read, do not answer, or stop in the middle.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_std::task;
use futures::channel::oneshot;
use futures::future::pending;
use futures::io::{AsyncRead, AsyncWrite};
use tidewire::frame::Role;
use tidewire::websocket::TimeoutKind;
use tidewire::{Error, Result, WebSocket, WebSocketOptions};

use crate::support::attempts::patience;
use crate::support::frames::{BINARY, CLOSE, FIN, PING, TEXT, close, masked, plain};
use crate::support::peer::{Drive, Peer, collect, drive, echo, serve, serve_over, within};
use crate::support::pipe::{End, Knobs, Stutter, pipe};

/// A limit that is meant to be exceeded.
const SOON: Duration = Duration::from_millis(100);

const WIDE: Knobs =
    Knobs { read: usize::MAX, write: usize::MAX, in_flight: usize::MAX, stutter: Stutter::Never };

/// A stream whose peer takes nothing.
const STUCK: Knobs = Knobs { in_flight: 0, ..WIDE };

fn options() -> WebSocketOptions {
    WebSocketOptions::default()
}

#[test]
fn send_waits_when_its_buffer_is_full() {
    // The last message that finds room may exceed it.
    let cases = [
        (options(), 1024, 64),
        (options().send_buffer_size(100), 10, 9),
        (options().send_buffer_size(1), 10, 1),
        (options(), 1 << 20, 1),
    ];
    for (options, len, count) in cases {
        eprintln!("{len} bytes");
        within(async {
            let (tell, told) = oneshot::channel();
            let _peer = serve_over(STUCK, &options, move |mut ws| async move {
                for _ in 0..count {
                    ws.send(vec![7; len]).await?;
                }
                let one_more = patience(1, ws.send(vec![7; len])).await;
                let _ = tell.send((one_more.is_none(), ws.stats()));
                pending().await
            });
            let (has_waited, stats) = told.await.unwrap();
            assert!(has_waited);
            assert_eq!(stats.messages_out, count);
            assert_eq!(stats.wire_bytes_out, 0);
        });
    }
}

#[test]
fn senders_of_other_tasks_wait_for_the_same_buffer() {
    within(async {
        let (tell, told) = oneshot::channel();
        let mut peer = serve_over(
            Knobs { in_flight: 1000, ..WIDE },
            &options().send_buffer_size(1000),
            |ws| async move {
                let _ = tell.send(ws.sender());
                ws.closed().await;
                Ok(())
            },
        );
        let sender = told.await.unwrap();
        let sending = {
            let sender = sender.clone();
            task::spawn(async move {
                for _ in 0..50 {
                    sender.send(vec![7; 100]).await?;
                }
                Ok::<(), Error>(())
            })
        };
        for _ in 0..50 {
            peer.expect(plain(BINARY, [7; 100])).await;
        }
        sending.await.unwrap();
    });
}

#[test]
fn a_peer_that_takes_nothing_fails_the_connection_after_the_send_timeout() {
    for by in Drive::BOTH {
        within(async {
            let (stream, end) = pipe(STUCK);
            let (tell, told) = oneshot::channel();
            let options = options().send_timeout(SOON).send_buffer_size(100);
            drive(by, stream, Role::Server, &options, |mut ws| async move {
                let sent: Result<()> = loop {
                    let sent = ws.send([7; 60]).await;
                    if sent.is_err() {
                        break sent;
                    }
                };
                let _ = tell.send((sent, ws.recv().await, ws.closed().await));
                Ok(())
            });
            let (sent, received, info) = told.await.unwrap();
            assert!(matches!(sent, Err(Error::Timeout(TimeoutKind::Send))), "{sent:?}");
            assert!(matches!(received, Err(Error::Timeout(TimeoutKind::Send))), "{received:?}");
            assert_eq!((info.reported_code(), info.clean), (1006, false));
            Peer { end }.expect_end().await;
        });
    }
}

#[test]
fn the_send_timeout_passes_although_the_handler_only_waits() {
    within(async {
        let (tell, told) = oneshot::channel();
        let _peer = serve_over(STUCK, &options().send_timeout(SOON), |mut ws| async move {
            ws.send("Hello").await?;
            let _ = tell.send(ws.recv().await);
            Ok(())
        });
        let received = told.await.unwrap();
        assert!(matches!(received, Err(Error::Timeout(TimeoutKind::Send))), "{received:?}");
    });
}

#[test]
pub(crate) fn a_message_that_is_not_finished_in_time_fails_the_connection_with_1008() {
    for by in Drive::BOTH {
        for begun in [masked(TEXT & !FIN, "a"), vec![0x81], masked(BINARY, [7; 100])[..50].to_vec()]
        {
            within(async {
                let (stream, end) = pipe(WIDE);
                let (tell, told) = oneshot::channel();
                let options = options().message_timeout(SOON);
                drive(by, stream, Role::Server, &options, |mut ws| async move {
                    let _ = tell.send(collect(&mut ws).await);
                    Ok(())
                });
                let mut peer = Peer { end };
                peer.send([masked(TEXT, "whole"), begun].concat()).await;
                peer.expect_close(1008).await;
                drop(peer);
                let (messages, end) = told.await.unwrap();
                assert_eq!(messages.len(), 1);
                assert!(matches!(end, Err(Error::Timeout(TimeoutKind::Message))), "{end:?}");
            });
        }
    }
}

#[test]
fn failing_a_peer_that_reads_nothing_leaves_the_thread_alone() {
    within(async {
        let (stream, end) = pipe(STUCK);
        let (tries, options) =
            (Arc::default(), options().message_timeout(SOON).close_timeout(3 * SOON));
        let stream = Tried { stream, tries: Arc::clone(&tries) };
        let running =
            task::spawn(WebSocket::run(stream, [].as_slice(), Role::Server, &options, echo));
        let mut peer = Peer { end };
        peer.send(masked(TEXT & !FIN, "a")).await;
        running.await;
        let tries = tries.load(Ordering::Relaxed);
        assert!(tries < 50, "{tries} attempts to write to a peer that takes nothing");
    });
}

/// A stream that counts how often somebody tries to write.
struct Tried {
    stream: End,
    tries: Arc<AtomicUsize>,
}

impl AsyncRead for Tried {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tried {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.tries.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}

#[test]
fn pings_do_not_give_an_unfinished_message_more_time() {
    within(async {
        let mut peer =
            serve(
                &options().message_timeout(SOON),
                |mut ws| async move { collect(&mut ws).await.1 },
            );
        peer.send(masked(TEXT & !FIN, "a")).await;
        loop {
            peer.send(masked(PING, "")).await;
            let frame = peer.frame().await;
            if frame.head == CLOSE {
                assert_eq!(frame.close_code(), Some(1008));
                break;
            }
        }
    });
}

#[test]
pub(crate) fn a_peer_that_does_not_answer_the_close_frame_is_given_up_after_the_close_timeout() {
    for by in Drive::BOTH {
        within(async {
            let (stream, end) = pipe(WIDE);
            let (tell, told) = oneshot::channel();
            let options = options().close_timeout(SOON);
            drive(by, stream, Role::Server, &options, |mut ws| async move {
                let info = ws.close(1000_u16, "").await;
                let _ = tell.send((info, ws.recv().await));
                Ok(())
            });
            let mut peer = Peer { end };
            peer.expect_hex("88 02 03e8").await;
            // Data is no answer.
            peer.send(masked(PING, "")).await;
            peer.expect_end().await;
            let (info, received) = told.await.unwrap();
            let info = info.unwrap();
            assert!(!info.clean, "{info:?}");
            assert_eq!(info.code.map(u16::from), Some(1000));
            assert!(matches!(received, Err(Error::Timeout(TimeoutKind::Close))), "{received:?}");
        });
    }
}

#[test]
fn a_peer_that_does_not_read_the_close_frame_is_given_up_too() {
    for sent in [masked(CLOSE, close(1000, "")), masked(0x83, "")] {
        within(async {
            let (tell, told) = oneshot::channel();
            let options = options().close_timeout(SOON);
            let mut peer = serve_over(STUCK, &options, |mut ws| async move {
                let _ = collect(&mut ws).await;
                drop(ws);
                let _ = tell.send(());
                Ok(())
            });
            peer.send(sent).await;
            told.await.unwrap();
            peer.expect_end().await;
        });
    }
}

#[test]
fn a_handler_that_does_not_receive_delays_the_answer_to_a_close_frame_for_the_close_timeout() {
    within(async {
        let (tell, told) = oneshot::channel();
        let mut peer = serve(&options().close_timeout(SOON), |ws| async move {
            let _ = tell.send(ws.closed().await);
            pending().await
        });
        peer.send([masked(TEXT, "Hi"), masked(CLOSE, close(1000, ""))].concat()).await;
        assert_eq!(told.await.unwrap().reported_code(), 1000);
        peer.expect_hex("88 02 03e8").await;
        peer.expect_end().await;
    });
}

#[test]
fn a_peer_that_never_ends_the_stream_does_not_hold_the_connection() {
    within(async {
        let (stream, end) = pipe(WIDE);
        let running =
            drive(Drive::Task, stream, Role::Server, &options().close_timeout(SOON), echo);
        let mut peer = Peer { end };
        peer.send(masked(CLOSE, "")).await;
        running.await;
    });
}

#[test]
fn bytes_read_ahead_for_a_busy_handler_are_bounded() {
    for (what, bytes) in [
        ("messages", masked(BINARY, [7; 1000]).repeat(2_000)),
        ("short messages", masked(TEXT, "a").repeat(200_000)),
        ("empty fragments", [masked(0x02, ""), masked(0x00, "").repeat(200_000)].concat()),
        ("one message", masked(BINARY, vec![7; 1 << 20])),
    ] {
        within(async {
            let (stop, stopped) = oneshot::channel::<()>();
            let (tell, told) = oneshot::channel();
            let mut peer = serve(&options(), |mut ws| async move {
                ws.send("open").await?;
                stopped.await.unwrap();
                let _ = tell.send(ws.stats());
                Ok(())
            });
            peer.send(bytes).await;
            peer.expect_hex("81 04 6f70656e").await;
            // Whatever the task reads, it reads before it lets others have a turn for so long.
            for _ in 0..1000 {
                task::yield_now().await;
            }
            stop.send(()).unwrap();
            let stats = told.await.unwrap();
            eprintln!("{what}: {} bytes, {} frames", stats.wire_bytes_in, stats.frames_in);
            assert!(stats.wire_bytes_in <= 4 * 65_536, "{what}: {stats:?}");
        });
    }
}
