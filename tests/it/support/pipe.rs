//! An in-memory byte stream that is as slow, narrow and unreliable as a test wants it.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use futures::io::{AsyncRead, AsyncWrite};

use super::rng::Rng;

/// How a stream treats the side under test.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Knobs {
    /// Bytes that one read delivers, at most.
    pub(crate) read: usize,
    /// Bytes that one write takes, at most.
    pub(crate) write: usize,
    /// Bytes on their way to the peer, beyond which writes wait for it to read.
    pub(crate) in_flight: usize,
    pub(crate) stutter: Stutter,
}

/// When a stream that could go on lets its caller wait all the same.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stutter {
    Never,
    /// Every other call.
    Steady,
    /// As the seed wills, and so do the sizes of reads and writes.
    Random(u64),
}

impl Knobs {
    /// A stream that takes everything.
    pub(crate) const WIDE: Self = Self {
        read: usize::MAX,
        write: usize::MAX,
        in_flight: usize::MAX,
        stutter: Stutter::Never,
    };
}

impl Default for Knobs {
    fn default() -> Self {
        Self::WIDE
    }
}

/// Two ends of a stream: the first obeys the knobs, the second does as it is told.
pub(crate) fn pipe(knobs: Knobs) -> (End, End) {
    let halves = [Half::new(knobs.in_flight), Half::new(usize::MAX)];
    let wire = Arc::new(Wire { halves: Mutex::new(halves), writes: AtomicUsize::new(0) });
    let end = |side: usize, knobs: Knobs| End {
        wire: Arc::clone(&wire),
        side,
        knobs,
        rng: Rng::new(if let Stutter::Random(seed) = knobs.stutter { seed } else { 0 }),
        goes_on: [false; 2],
    };
    (end(0, knobs), end(1, Knobs::default()))
}

#[derive(Debug)]
pub(crate) struct End {
    wire: Arc<Wire>,
    side: usize,
    knobs: Knobs,
    rng: Rng,
    /// Does the next read, or write, of a steady stutter go through?
    goes_on: [bool; 2],
}

#[derive(Debug)]
struct Wire {
    /// The bytes that each side has written.
    halves: Mutex<[Half; 2]>,
    /// Writes of the first side that took bytes.
    writes: AtomicUsize,
}

#[derive(Debug)]
struct Half {
    bytes: VecDeque<u8>,
    capacity: usize,
    /// Will nothing more be written?
    ended: bool,
    /// Will nothing more be read?
    unread: bool,
    reset: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Half {
    fn new(capacity: usize) -> Self {
        Self {
            bytes: VecDeque::new(),
            capacity,
            ended: false,
            unread: false,
            reset: false,
            reader: None,
            writer: None,
        }
    }

    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

impl End {
    /// Cuts the stream: whoever uses it next learns that it was reset, whatever is on its way.
    pub(crate) fn reset(&self) {
        for half in &mut *self.halves() {
            half.reset = true;
            half.wake();
        }
    }

    /// Writes of the side under test so far.
    pub(crate) fn writes(&self) -> usize {
        self.wire.writes.load(Ordering::SeqCst)
    }

    /// Bytes that the other side has written and this one has not read.
    pub(crate) fn arrived(&self) -> usize {
        self.halves()[1 - self.side].bytes.len()
    }

    /// Bytes that this side has written and the other has not read.
    pub(crate) fn unread(&self) -> usize {
        self.halves()[self.side].bytes.len()
    }

    fn halves(&self) -> MutexGuard<'_, [Half; 2]> {
        self.wire.halves.lock().unwrap()
    }

    /// How many bytes may pass now; `None` if the caller has to come again.
    fn quota(&mut self, way: usize, most: usize, cx: &Context<'_>) -> Option<usize> {
        match self.knobs.stutter {
            Stutter::Never => return Some(most),
            Stutter::Steady => {
                self.goes_on[way] = !self.goes_on[way];
                if !self.goes_on[way] {
                    return Some(most);
                }
            }
            Stutter::Random(_) => {
                if self.rng.below(3) > 0 {
                    let fewer = 1 + self.rng.below(64);
                    return Some(if self.rng.below(3) == 0 { fewer.min(most) } else { most });
                }
            }
        }
        cx.waker().wake_by_ref();
        None
    }
}

impl AsyncRead for End {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let most = self.knobs.read.min(buf.len());
        let Some(most) = self.quota(0, most, cx) else { return Poll::Pending };
        let half = &mut self.halves()[1 - self.side];
        if half.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if half.bytes.is_empty() && !half.ended {
            half.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let len = most.min(half.bytes.len());
        for (slot, byte) in buf.iter_mut().zip(half.bytes.drain(..len)) {
            *slot = byte;
        }
        if let Some(writer) = half.writer.take() {
            writer.wake();
        }
        Poll::Ready(Ok(len))
    }
}

impl AsyncWrite for End {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let most = self.knobs.write.min(buf.len());
        let Some(most) = self.quota(1, most, cx) else { return Poll::Pending };
        let half = &mut self.halves()[self.side];
        if half.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if half.unread || half.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = half.capacity - half.bytes.len();
        if room == 0 {
            half.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let len = most.min(room);
        half.bytes.extend(&buf[..len]);
        if let Some(reader) = half.reader.take() {
            reader.wake();
        }
        if self.side == 0 {
            self.wire.writes.fetch_add(1, Ordering::SeqCst);
        }
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let half = &mut self.halves()[self.side];
        half.ended = true;
        half.wake();
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut halves = self.halves();
        halves[self.side].ended = true;
        halves[1 - self.side].unread = true;
        halves.iter_mut().for_each(Half::wake);
    }
}
