//! A byte stream in memory between a connection and its peer: narrow, stuttering, perhaps with a buffer
//! that has to be flushed.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::{fmt, io};

use futures::io::{AsyncRead, AsyncWrite};

use super::choices::Choices;
use super::seen::Seen;

/// Calls after which a stream moves all it can, since long messages would take seconds otherwise.
const MOST_CALLS: usize = 300;

/// The end that the connection has.
pub(super) struct Pipe(Line);

/// The same from the side of the world: the peer's end, and what an observer sees.
#[derive(Clone)]
pub(super) struct Line(Arc<Mutex<Wire>>);

#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "facts that are noted one by one")]
pub(super) struct Wire {
    /// How many bytes may be on their way to the peer.
    room: usize,
    under_way: VecDeque<u8>,
    /// Bytes that the stream may take before they are flushed; with 0 it has no buffer.
    buffer: usize,
    unflushed: VecDeque<u8>,
    /// Bytes that the peer has sent and the connection has not read.
    arrived: VecDeque<u8>,
    end: Option<End>,
    /// How many bytes each call moves, in turn; a call with 0 moves none and has to be repeated.
    sizes: Vec<u8>,
    /// Calls to read, to write, and to flush.
    calls: [usize; 3],
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Whether the stream does not wake those who wait for it.
    forgets: bool,

    /// The frames that were put on their way to the peer.
    pub(super) seen: Seen,
    /// Bytes that the connection has read.
    pub(super) read: u64,
    /// Whether the connection was told that the peer's direction has ended, or the stream is broken.
    pub(super) has_seen_end: bool,
    /// Whether the connection has ended its direction.
    pub(super) has_ended: bool,
    /// Whether the connection has dropped the stream.
    pub(super) is_dropped: bool,
}

#[derive(Clone, Copy)]
enum Way {
    Read,
    Write,
    Flush,
}

/// How the peer ends the stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum End {
    Fin,
    Reset,
}

pub(super) fn pipe(choices: &mut Choices<'_>, forgets: bool) -> (Pipe, Line) {
    let count = choices.pick([0, 0, 1, 2, 5]);
    let mut sizes: Vec<u8> = (0..count).map(|_| choices.byte()).collect();
    if sizes.iter().all(|size| *size == 0) {
        sizes.clear();
    }
    let wire = Wire {
        room: choices.pick([1 << 16, 1, 20, 300, 3_000]),
        buffer: choices.pick([0, 0, 1, 50, 2_000]),
        sizes,
        forgets,
        ..Wire::default()
    };
    let line = Line(Arc::new(Mutex::new(wire)));
    (Pipe(line.clone()), line)
}

impl Line {
    pub(super) fn wire(&self) -> MutexGuard<'_, Wire> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The peer reads so many bytes, if there are as many.
    pub(super) fn read(&self, most: usize) {
        let mut wire = self.wire();
        let len = most.min(wire.under_way.len());
        wire.under_way.drain(..len);
        let writer = wire.writer.take_if(|_| len > 0);
        Self::wake(wire, [writer, None]);
    }

    /// Bytes of the peer arrive.
    pub(super) fn deliver(&self, bytes: impl Iterator<Item = u8>) {
        let mut wire = self.wire();
        wire.arrived.extend(bytes);
        let reader = wire.reader.take();
        Self::wake(wire, [reader, None]);
    }

    /// The peer ends the stream.
    pub(super) fn end(&self, end: End) {
        let mut wire = self.wire();
        wire.end = Some(end);
        let wakers = [wire.reader.take(), wire.writer.take_if(|_| end == End::Reset)];
        Self::wake(wire, wakers);
    }

    fn wake(wire: MutexGuard<'_, Wire>, wakers: [Option<Waker>; 2]) {
        let forgets = wire.forgets;
        drop(wire);
        wakers.into_iter().flatten().filter(|_| !forgets).for_each(Waker::wake);
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Wire { room, buffer, sizes, .. } = &*self.wire();
        write!(f, "room {room}, buffer {buffer}, sizes {sizes:?}")
    }
}

impl Wire {
    /// Whether the stream takes no more until the peer reads.
    pub(super) fn is_full(&self) -> bool {
        self.under_way.len() >= self.room
    }

    /// Whether bytes wait in the stream to be flushed.
    pub(super) fn is_dirty(&self) -> bool {
        !self.unflushed.is_empty()
    }

    /// How many bytes this call may move, at most; `None` if it has to be repeated.
    fn quota(&mut self, way: Way, cx: &Context<'_>) -> Option<usize> {
        let calls = &mut self.calls[way as usize];
        if self.sizes.is_empty() || *calls == MOST_CALLS {
            return Some(usize::MAX);
        }
        let size = self.sizes[*calls % self.sizes.len()];
        *calls += 1;
        match size {
            0 => {
                cx.waker().wake_by_ref();
                None
            }
            128.. => Some(usize::MAX),
            size => Some(size.into()),
        }
    }

    fn put_under_way(&mut self, bytes: &[u8]) {
        self.seen.take(bytes);
        self.under_way.extend(bytes);
    }

    fn flush(&mut self) {
        let room = self.room - self.under_way.len();
        let len = room.min(self.unflushed.len());
        let bytes: Vec<u8> = self.unflushed.drain(..len).collect();
        self.put_under_way(&bytes);
    }

    fn poll_flush(&mut self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        if self.end == Some(End::Reset) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if self.is_dirty() && !self.is_full() && self.quota(Way::Flush, cx).is_none() {
            return Poll::Pending;
        }
        self.flush();
        if self.is_dirty() {
            self.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut wire = self.0.wire();
        if wire.arrived.is_empty() && wire.end.is_none() {
            wire.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let Some(most) = wire.quota(Way::Read, cx) else { return Poll::Pending };
        if wire.end == Some(End::Reset) {
            wire.has_seen_end = true;
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let len = most.min(buf.len()).min(wire.arrived.len());
        wire.has_seen_end |= wire.arrived.is_empty();
        for (slot, byte) in buf.iter_mut().zip(wire.arrived.drain(..len)) {
            *slot = byte;
        }
        wire.read += len as u64;
        Poll::Ready(Ok(len))
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut wire = self.0.wire();
        if wire.end == Some(End::Reset) || wire.has_ended {
            wire.has_seen_end = true;
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let has_buffer = wire.buffer > 0;
        if has_buffer && wire.unflushed.len() == wire.buffer {
            wire.flush();
        }
        let room = if has_buffer {
            wire.buffer - wire.unflushed.len()
        } else {
            wire.room - wire.under_way.len()
        };
        if room == 0 {
            wire.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let Some(most) = wire.quota(Way::Write, cx) else { return Poll::Pending };
        let bytes = &buf[..most.min(buf.len()).min(room)];
        if has_buffer {
            wire.unflushed.extend(bytes);
        } else {
            wire.put_under_way(bytes);
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.wire().poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut wire = self.0.wire();
        let flushed = wire.poll_flush(cx);
        wire.has_ended |= flushed.is_ready();
        flushed
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.0.wire().is_dropped = true;
    }
}
