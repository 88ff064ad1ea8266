//! A connection in memory: two ends, and the bytes that are on their way between them.
//!
//! A [`Flow`] says what passes in one direction, and a [`Pace`] how much of that one call moves. The test kit
//! makes its `Line` of them. The crate's own tests, which run without the test kit as well, and its fuzz targets
//! include this file by its path, so it names nothing else of the crate.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use futures::io::{AsyncRead, AsyncWrite};

/// A new connection, of which each end moves bytes at its own pace.
pub(crate) fn pipe<P: Pace>(
    near: P,
    far: P,
    to_far: &Arc<Flow>,
    to_near: &Arc<Flow>,
) -> (End<P>, End<P>) {
    let (to_far, to_near) = (Half::new(Arc::clone(to_far)), Half::new(Arc::clone(to_near)));
    let wire = Wire(Arc::new(Mutex::new(Connection { to_far, to_near, is_reset: false })));
    let end = |pace, side| End { wire: wire.clone(), side, pace };
    (end(near, Side::Near), end(far, Side::Far))
}

/// What one direction lets pass. It may change at any time, and be that of many connections.
#[derive(Debug)]
pub(crate) struct Flow {
    /// Most bytes on their way, beyond which writes wait.
    capacity: AtomicUsize,
    /// Whether nothing is read and nothing is written.
    is_stalled: AtomicBool,
}

impl Flow {
    pub(crate) fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self { capacity: capacity.into(), is_stalled: false.into() })
    }

    pub(crate) fn set_capacity(&self, bytes: usize) {
        self.capacity.store(bytes, Ordering::SeqCst);
    }

    /// Those who wait do not learn of it, until they are [woken](Wire::wake).
    pub(crate) fn set_stalled(&self, is_stalled: bool) {
        self.is_stalled.store(is_stalled, Ordering::SeqCst);
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity.load(Ordering::SeqCst)
    }

    pub(crate) fn is_stalled(&self) -> bool {
        self.is_stalled.load(Ordering::SeqCst)
    }
}

/// How many bytes each call of an end moves.
pub(crate) trait Pace: Unpin {
    /// The most that this call moves; `None` if the caller has to come again, for which it is woken at once.
    fn most(&mut self, way: Way) -> Option<usize>;

    /// A call has moved this many bytes. The connection is locked: its ends cannot be used here.
    fn moved(&mut self, way: Way, len: usize);
}

/// What a call does to bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    Read,
    Write,
}

#[derive(Clone, Copy, Debug)]
enum Side {
    Near,
    Far,
}

/// A connection, apart from its ends.
#[derive(Clone, Debug)]
pub(crate) struct Wire(Arc<Mutex<Connection>>);

impl Wire {
    /// Makes all that wait look again.
    pub(crate) fn wake(&self) {
        self.with(Connection::wake);
    }

    /// Resets the connection: all reads and writes fail from now on.
    pub(crate) fn reset(&self) {
        self.with(|connection, woken| {
            connection.is_reset = true;
            connection.wake(woken);
        });
    }

    /// Ends the direction from the near end to the far one.
    pub(crate) fn end(&self) {
        self.with(|connection, woken| connection.to_far.end(woken));
    }

    /// Whether an end is left, or another has it in hand.
    pub(crate) fn is_open(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// Changes the connection under its lock, and wakes afterwards: a waker is code of an executor, which may use
    /// the connection on the spot.
    fn with<T>(&self, change: impl FnOnce(&mut Connection, &mut Vec<Waker>) -> T) -> T {
        let mut woken = Vec::new();
        let mut connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let result = change(&mut connection, &mut woken);
        drop(connection);
        for waker in woken {
            // A panic of one keeps no other from being woken, and what it panics with may panic, too.
            catch_unwind(AssertUnwindSafe(|| waker.wake())).unwrap_or_else(mem::forget);
        }
        result
    }
}

#[derive(Debug)]
struct Connection {
    to_far: Half,
    to_near: Half,
    is_reset: bool,
}

impl Connection {
    /// What `side` reads.
    fn incoming(&mut self, side: Side) -> &mut Half {
        match side {
            Side::Near => &mut self.to_near,
            Side::Far => &mut self.to_far,
        }
    }

    /// The direction to which `side` writes.
    fn outgoing(&mut self, side: Side) -> &mut Half {
        match side {
            Side::Near => &mut self.to_far,
            Side::Far => &mut self.to_near,
        }
    }

    fn check_reset(&self) -> io::Result<()> {
        if self.is_reset { Err(ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }

    fn wake(&mut self, woken: &mut Vec<Waker>) {
        self.to_far.wake(woken);
        self.to_near.wake(woken);
    }
}

/// One direction of a connection.
#[derive(Debug)]
struct Half {
    bytes: VecDeque<u8>,
    flow: Arc<Flow>,
    /// Whether nothing more will be written.
    is_ended: bool,
    /// Whether nothing more will be read.
    is_unread: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Half {
    fn new(flow: Arc<Flow>) -> Self {
        let bytes = VecDeque::new();
        Self { bytes, flow, is_ended: false, is_unread: false, reader: None, writer: None }
    }

    fn end(&mut self, woken: &mut Vec<Waker>) {
        self.is_ended = true;
        self.wake(woken);
    }

    fn wake(&mut self, woken: &mut Vec<Waker>) {
        woken.extend([self.reader.take(), self.writer.take()].into_iter().flatten());
    }

    /// Takes bytes from the front; `None` if the reader has to wait.
    fn read(&mut self, buf: &mut [u8], woken: &mut Vec<Waker>) -> Option<usize> {
        if self.flow.is_stalled() || (self.bytes.is_empty() && !self.is_ended) {
            return None;
        }
        let len = buf.len().min(self.bytes.len());
        for (slot, byte) in buf.iter_mut().zip(self.bytes.drain(..len)) {
            *slot = byte;
        }
        woken.extend(self.writer.take());
        Some(len)
    }

    /// Appends `most` bytes or fewer; `None` if the writer has to wait.
    fn write(
        &mut self,
        bufs: &[IoSlice<'_>],
        most: usize,
        woken: &mut Vec<Waker>,
    ) -> Option<usize> {
        let capacity = if self.flow.is_stalled() { 0 } else { self.flow.capacity() };
        let room = capacity.saturating_sub(self.bytes.len());
        if room == 0 && bufs.iter().any(|buf| !buf.is_empty()) {
            return None;
        }
        let mut rest = most.min(room);
        let before = self.bytes.len();
        for buf in bufs {
            let taken = buf.get(..rest).unwrap_or(buf);
            self.bytes.extend(taken);
            rest = rest.saturating_sub(taken.len());
        }
        woken.extend(self.reader.take());
        Some(self.bytes.len().saturating_sub(before))
    }
}

/// One end of a connection.
///
/// Dropped, it ends what it writes, and what is written to it fails.
#[derive(Debug)]
pub(crate) struct End<P> {
    wire: Wire,
    side: Side,
    pub(crate) pace: P,
}

impl<P> End<P> {
    pub(crate) fn wire(&self) -> &Wire {
        &self.wire
    }
}

impl<P: Pace> AsyncRead for End<P> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let Self { wire, side, pace } = &mut *self;
        let Some(most) = pace.most(Way::Read) else {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        };
        let most = most.min(buf.len());
        let buf = buf.get_mut(..most).unwrap_or_default();
        // The waker that was there before is dropped without the lock.
        let mut waker = Some(cx.waker().clone());
        let read = wire.with(|connection, woken| {
            connection.check_reset()?;
            let half = connection.incoming(*side);
            let read = half.read(buf, woken);
            match read {
                Some(len) => pace.moved(Way::Read, len),
                None => mem::swap(&mut half.reader, &mut waker),
            }
            Ok::<_, io::Error>(read)
        });
        read?.map_or(Poll::Pending, |len| Poll::Ready(Ok(len)))
    }
}

impl<P: Pace> AsyncWrite for End<P> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { wire, side, pace } = &mut *self;
        let Some(most) = pace.most(Way::Write) else {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        };
        let mut waker = Some(cx.waker().clone());
        let written = wire.with(|connection, woken| {
            connection.check_reset()?;
            let half = connection.outgoing(*side);
            if half.is_unread || half.is_ended {
                return Err(ErrorKind::BrokenPipe.into());
            }
            let written = half.write(bufs, most, woken);
            match written {
                Some(len) => pace.moved(Way::Write, len),
                None => mem::swap(&mut half.writer, &mut waker),
            }
            Ok::<_, io::Error>(written)
        });
        written?.map_or(Poll::Pending, |len| Poll::Ready(Ok(len)))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.with(|connection, woken| connection.outgoing(self.side).end(woken));
        Poll::Ready(Ok(()))
    }
}

impl<P> Drop for End<P> {
    fn drop(&mut self) {
        self.wire.with(|connection, woken| {
            connection.outgoing(self.side).end(woken);
            let incoming = connection.incoming(self.side);
            incoming.is_unread = true;
            incoming.bytes = VecDeque::new();
            incoming.wake(woken);
        });
    }
}
