//! Peers that never stop: what they send is always there to read, others have their turn all the same,
//! and no deadline is missed over it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::io::{AsyncRead, AsyncWrite};
use tidewire::frame::Role;
use tidewire::websocket::TimeoutKind;
use tidewire::{Error, Result, WebSocket, WebSocketOptions};

use crate::support::frames::{BINARY, PING, masked};
use crate::support::peer::{Drive, within};

/// Reads in one poll, beyond which nobody else has had a turn.
const MANY: usize = 100;

/// When the stream ends, so that a test that would never end does.
const AT_LAST: Duration = Duration::from_secs(2);

/// What is timed in these tests.
const SHORT: Duration = Duration::from_millis(30);

/// A stream that has the same frames to read over and over, and takes all that is written.
struct Endless {
    frames: Vec<u8>,
    reads: Arc<AtomicUsize>,
    end: Instant,
}

impl Endless {
    fn new(frame: &[u8]) -> Self {
        Self { frames: frame.repeat(50), reads: Arc::default(), end: Instant::now() + AT_LAST }
    }
}

impl AsyncRead for Endless {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if Instant::now() >= self.end {
            return Poll::Ready(Ok(0));
        }
        buf[..self.frames.len()].copy_from_slice(&self.frames);
        Poll::Ready(Ok(self.frames.len()))
    }
}

impl AsyncWrite for Endless {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What a handler does with such a connection, and what that ends with.
#[derive(Clone, Copy, Debug)]
enum Call {
    Recv,
    Close,
    Closed,
}

impl Call {
    async fn make(self, mut ws: WebSocket) -> Result<()> {
        match self {
            Self::Recv => while ws.recv().await?.is_some() {},
            Self::Close => drop(ws.close(1000, "").await?),
            Self::Closed => drop(ws.closed().await),
        }
        // Behind what was received meanwhile is what the connection has ended with.
        while ws.recv().await?.is_some() {}
        Ok(())
    }
}

/// All calls over a connection whose peer sends `frame` without end.
fn each_call(frame: &[u8], options: &WebSocketOptions, test: impl Fn(Run, Arc<AtomicUsize>)) {
    for call in [Call::Recv, Call::Close, Call::Closed] {
        for by in Drive::BOTH {
            eprintln!("{call:?} {by:?}");
            let stream = Endless::new(frame);
            let reads = Arc::clone(&stream.reads);
            let (tell, told) = futures::channel::oneshot::channel();
            let handler = |ws| async move {
                let _ = tell.send(call.make(ws).await);
                Ok::<_, Error>(())
            };
            let driven = match by {
                Drive::Task => {
                    WebSocket::run(stream, [].as_slice(), Role::Server, options, handler)
                }
                Drive::Caller => {
                    let ws = WebSocket::from_stream(stream, [].as_slice(), Role::Server, options);
                    handler(ws).map(drop).boxed()
                }
            };
            test(
                async move {
                    driven.await;
                    told.await.unwrap()
                }
                .boxed(),
                reads,
            );
        }
    }
}

type Run = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

#[test]
fn a_peer_that_never_stops_pinging_does_not_keep_the_thread() {
    each_call(&masked(PING, "p"), &WebSocketOptions::default(), |mut run, reads| {
        for _ in 0..10 {
            let before = reads.load(Ordering::SeqCst);
            assert!((&mut run).now_or_never().is_none());
            let read = reads.load(Ordering::SeqCst) - before;
            assert!((1..MANY).contains(&read), "{read} reads");
        }
    });
}

#[test]
fn a_peer_that_never_stops_sending_is_not_waited_for_beyond_any_deadline() {
    let options = WebSocketOptions::default().max_lifetime(SHORT).close_timeout(SHORT);
    for frame in [masked(PING, "p"), masked(BINARY, "b")] {
        each_call(&frame, &options, |run, _| {
            let end = within(run);
            assert!(matches!(end, Err(Error::Timeout(TimeoutKind::Close))), "{end:?}");
        });
    }
}
