//! Many tasks and their streams, of which the caller says who goes on, and when.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once};
use std::task::{Context, Poll, Wake, Waker};

use futures::future::BoxFuture;
use futures::io::{AsyncRead, AsyncWrite};

/// A future, and whether it has been woken.
pub struct Task<T> {
    future: Option<BoxFuture<'static, T>>,
    flag: Arc<Flag>,
    pub output: Option<T>,
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl<T> Task<T> {
    pub fn new(future: impl Future<Output = T> + Send + 'static) -> Self {
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        Self { future: Some(Box::pin(future)), flag, output: None }
    }

    /// Polls the future if it has been woken; false if there was nothing to do.
    pub fn go_on(&mut self) -> bool {
        let Some(future) = &mut self.future else { return false };
        if !self.flag.0.swap(false, Ordering::SeqCst) {
            return false;
        }
        let waker = Waker::from(Arc::clone(&self.flag));
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            self.future = None;
            self.output = Some(output);
        }
        true
    }
}

static SPAWNED: Mutex<Vec<BoxFuture<'static, ()>>> = Mutex::new(Vec::new());

/// What the crate has spawned since this was last called, none of it polled, as tasks.
pub fn spawned() -> Vec<Task<()>> {
    spawned_futures().into_iter().map(Task::new).collect()
}

/// The same as futures.
pub fn spawned_futures() -> Vec<BoxFuture<'static, ()>> {
    static SETS: Once = Once::new();
    SETS.call_once(|| {
        tidewire::set_spawner(|future| SPAWNED.lock().unwrap().push(future)).unwrap();
    });
    std::mem::take(&mut *SPAWNED.lock().unwrap())
}

/// A stream with so much room, and the peer at its other end.
pub fn pipe(room: usize) -> (Pipe, Peer) {
    let wire = Arc::new(Mutex::new(Wire { room, ..Wire::default() }));
    (Pipe(Arc::clone(&wire)), Peer(wire))
}

pub struct Pipe(Arc<Mutex<Wire>>);

#[derive(Default)]
struct Wire {
    /// Bytes that may be on their way to the peer.
    room: usize,
    under_way: VecDeque<u8>,
    arrived: Vec<u8>,
    said: VecDeque<u8>,
    is_broken: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

pub struct Peer(Arc<Mutex<Wire>>);

impl Peer {
    /// Reads so many bytes, if there are as many; false if there are none.
    pub fn read(&self, most: usize) -> bool {
        let mut wire = self.wire();
        let len = most.min(wire.under_way.len());
        let read: Vec<u8> = wire.under_way.drain(..len).collect();
        wire.arrived.extend(read);
        let writer = wire.writer.take_if(|_| len > 0);
        drop(wire);
        if let Some(writer) = writer {
            writer.wake();
        }
        len > 0
    }

    pub fn say(&self, bytes: &[u8]) {
        let mut wire = self.wire();
        wire.said.extend(bytes);
        let reader = wire.reader.take();
        drop(wire);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Resets the connection.
    pub fn go(&self) {
        let mut wire = self.wire();
        wire.is_broken = true;
        let wakers = [wire.reader.take(), wire.writer.take()];
        drop(wire);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    pub fn is_gone(&self) -> bool {
        self.wire().is_broken
    }

    /// All that was read.
    pub fn arrived(&self) -> Vec<u8> {
        self.wire().arrived.clone()
    }

    fn wire(&self) -> MutexGuard<'_, Wire> {
        self.0.lock().unwrap()
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut wire = self.0.lock().unwrap();
        if wire.is_broken {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let len = wire.said.len().min(buf.len());
        if len == 0 {
            wire.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        for (slot, byte) in buf.iter_mut().zip(wire.said.drain(..len)) {
            *slot = byte;
        }
        Poll::Ready(Ok(len))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut wire = self.0.lock().unwrap();
        if wire.is_broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let len = buf.len().min(wire.room - wire.under_way.len());
        if len == 0 {
            wire.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        wire.under_way.extend(&buf[..len]);
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
