//! A socket that is registered with a worker, and its readiness.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use futures::task::AtomicWaker;
use mio::event::Event;

use super::pass::Place;
use crate::foreign::attempt;
use crate::sync::Mutex;

const READABLE: usize = 1;
const WRITABLE: usize = 1 << 1;
const READ_CLOSED: usize = 1 << 2;
const WRITE_CLOSED: usize = 1 << 3;
const FAILED: usize = 1 << 4;

/// The lowest bit of the count of events.
const TICK: usize = 1 << 8;
const FLAGS: usize = TICK - 1;

/// A direction of a socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Direction {
    Read,
    Write,
}

impl Direction {
    /// The bit that a `WouldBlock` clears.
    fn ready(self) -> usize {
        match self {
            Self::Read => READABLE,
            Self::Write => WRITABLE,
        }
    }

    /// All bits with which a call does not wait.
    fn any(self) -> usize {
        match self {
            Self::Read => READABLE | READ_CLOSED | FAILED,
            Self::Write => WRITABLE | WRITE_CLOSED | FAILED,
        }
    }
}

/// The readiness of a socket.
///
/// It begins as ready in both directions, so that the first calls try, and nothing depends on an event that the
/// operating system may have for the registration itself.
#[derive(Debug)]
pub(super) struct Source {
    /// Flags, and from [`TICK`] on the count of events.
    word: AtomicUsize,
    reader: AtomicWaker,
    writer: AtomicWaker,
}

/// The readiness that a call began with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen(usize);

impl Source {
    pub(super) fn new() -> Self {
        Self {
            word: AtomicUsize::new(READABLE | WRITABLE),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
        }
    }

    /// Notes an event. The owner of the worker alone calls this.
    pub(super) fn note(&self, event: Happened) {
        let add =
            |word: usize| Some(((word & !FLAGS).wrapping_add(TICK)) | (word & FLAGS) | event.0);
        // Never fails: there is always a next word.
        let _ = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, add);
    }

    /// Wakes the tasks that the event is for. Wakers are foreign code, and one that panics must not keep the other from
    /// being called.
    pub(super) fn wake(&self, event: Happened) {
        if event.0 & Direction::Read.any() != 0 {
            let _ = attempt(|| self.reader.wake());
        }
        if event.0 & Direction::Write.any() != 0 {
            let _ = attempt(|| self.writer.wake());
        }
    }

    /// Waits until a call in this direction is worth a try.
    pub(super) fn poll_ready(&self, cx: &mut Context<'_>, direction: Direction) -> Poll<Seen> {
        let look = || {
            let word = self.word.load(Ordering::Acquire);
            (word & direction.any() != 0).then_some(Poll::Ready(Seen(word)))
        };
        if let Some(ready) = look() {
            return ready;
        }
        match direction {
            Direction::Read => self.reader.register(cx.waker()),
            Direction::Write => self.writer.register(cx.waker()),
        }
        // An event that came before the waker was there.
        look().unwrap_or(Poll::Pending)
    }

    /// The next event tells whether the socket is ready in this direction.
    fn forget(&self, direction: Direction) {
        self.word.fetch_and(!direction.ready(), Ordering::AcqRel);
    }

    /// A call has returned `WouldBlock`. An event that has come since the call began is kept.
    pub(super) fn clear(&self, seen: Seen, direction: Direction) {
        let clear =
            |word: usize| (word & !FLAGS == seen.0 & !FLAGS).then_some(word & !direction.ready());
        let _ = self.word.fetch_update(Ordering::AcqRel, Ordering::Acquire, clear);
    }
}

/// The readiness that an event tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Happened(usize);

impl From<&Event> for Happened {
    fn from(event: &Event) -> Self {
        let flag = |is_set: bool, flag| if is_set { flag } else { 0 };
        Self(
            flag(event.is_readable(), READABLE)
                | flag(event.is_writable(), WRITABLE)
                | flag(event.is_read_closed(), READ_CLOSED)
                | flag(event.is_write_closed(), WRITE_CLOSED)
                | flag(event.is_error(), FAILED),
        )
    }
}

/// A socket on its worker.
#[derive(Debug)]
pub(crate) struct Registered<S: mio::event::Source> {
    io: S,
    source: Arc<Source>,
    place: Place,
    key: usize,
}

impl<S: mio::event::Source> Registered<S> {
    /// Registers a socket, which does not block, for both directions.
    pub(crate) fn new(mut io: S, place: Place) -> io::Result<Self> {
        let (key, source) = place.worker().register(&mut io)?;
        Ok(Self { io, source, place, key })
    }

    pub(crate) fn get_ref(&self) -> &S {
        &self.io
    }

    /// Calls `call` when the socket is ready, until it returns anything but `WouldBlock`.
    pub(crate) fn poll_io<T>(
        &self,
        cx: &mut Context<'_>,
        direction: Direction,
        mut call: impl FnMut(&S) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            let Poll::Ready(seen) = self.source.poll_ready(cx, direction) else {
                return Poll::Pending;
            };
            match call(&self.io) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.source.clear(seen, direction);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// [`poll_io`](Self::poll_io) for a read of at most `room` bytes. Fewer bytes than that mean that the socket is
    /// empty: the next read waits for an event, instead of asking once more.
    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        room: usize,
        mut read: impl FnMut(&S) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let Poll::Ready(seen) = self.source.poll_ready(cx, Direction::Read) else {
                return Poll::Pending;
            };
            match read(&self.io) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.source.clear(seen, Direction::Read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(len) => {
                    if len < room {
                        self.source.clear(seen, Direction::Read);
                    }
                    return Poll::Ready(Ok(len));
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

/// A listening socket on its worker. Any thread may close it.
#[derive(Debug)]
pub(crate) struct Listening<S: mio::event::Source> {
    source: Arc<Source>,
    /// `None` once it is closed. No waker is called or dropped under this lock.
    socket: Mutex<Option<Registered<S>>>,
}

impl<S: mio::event::Source> Listening<S> {
    pub(crate) fn new(socket: Registered<S>) -> Self {
        Self { source: Arc::clone(&socket.source), socket: Mutex::new(Some(socket)) }
    }

    /// Asks the operating system anew whether a connection waits. Without this, the socket counts as ready until
    /// `accept` has been called in vain. To be called on the worker.
    pub(crate) fn ask_again(&self) -> io::Result<()> {
        if let Some(socket) = &mut *self.socket.lock() {
            self.source.forget(Direction::Read);
            socket.place.worker().register_again(&mut socket.io, socket.key)?;
        }
        Ok(())
    }

    /// Waits until a connection may wait.
    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.source.poll_ready(cx, Direction::Read).map(drop)
    }

    /// Calls `accept` when a connection may wait. A socket that is closed waits for ever.
    pub(crate) fn poll_accept<T>(
        &self,
        cx: &mut Context<'_>,
        mut accept: impl FnMut(&S) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            let seen = ready!(self.source.poll_ready(cx, Direction::Read));
            let Some(result) = self.socket.lock().as_ref().map(|socket| accept(&socket.io)) else {
                return Poll::Pending;
            };
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.source.clear(seen, Direction::Read);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }

    /// Closes the socket, at once.
    pub(crate) fn close(&self) {
        let socket = self.socket.lock().take();
        drop(socket);
    }
}

impl<S: mio::event::Source> Drop for Registered<S> {
    fn drop(&mut self) {
        self.place.worker().deregister(&mut self.io, self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    const READ: Happened = Happened(READABLE);

    fn is_ready(source: &Source, direction: Direction) -> bool {
        source.poll_ready(&mut Context::from_waker(Waker::noop()), direction).is_ready()
    }

    fn seen(source: &Source) -> Seen {
        Seen(source.word.load(Ordering::Relaxed))
    }

    #[test]
    fn an_event_that_comes_during_a_call_in_vain_is_kept() {
        let source = Source::new();
        let before = seen(&source);
        source.note(READ);
        source.clear(before, Direction::Read);
        assert!(is_ready(&source, Direction::Read));
        source.clear(seen(&source), Direction::Read);
        assert!(!is_ready(&source, Direction::Read));
        assert!(is_ready(&source, Direction::Write), "each direction has its own bit");
    }

    #[test]
    fn the_end_of_a_direction_and_an_error_stay() {
        for (event, reads, writes) in
            [(READ_CLOSED, true, false), (WRITE_CLOSED, false, true), (FAILED, true, true)]
        {
            let source = Source::new();
            source.note(Happened(event));
            for direction in [Direction::Read, Direction::Write] {
                source.clear(seen(&source), direction);
            }
            assert_eq!(is_ready(&source, Direction::Read), reads, "{event}");
            assert_eq!(is_ready(&source, Direction::Write), writes, "{event}");
        }
    }

    #[test]
    fn the_count_of_events_may_overflow() {
        let source = Source::new();
        source.word.store(usize::MAX & !FLAGS, Ordering::Relaxed);
        let before = seen(&source);
        source.note(READ);
        source.clear(before, Direction::Read);
        assert!(is_ready(&source, Direction::Read));
        assert_eq!(source.word.load(Ordering::Relaxed), READABLE);
    }
}
