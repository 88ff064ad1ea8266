//! The readiness of a socket, and the tasks that wait for it.

use std::task::{Context, Poll};

use mio::event::Event;

use super::primitives::AtomicWaker;
use super::primitives::atomic::{AtomicUsize, Ordering};
use crate::foreign::attempt;

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
    pub(super) fn forget(&self, direction: Direction) {
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

#[cfg(test)]
impl Happened {
    pub(super) const READ: Self = Self(READABLE);
    /// The last bytes, and the end of the stream.
    pub(super) const LAST: Self = Self(READABLE | READ_CLOSED);
}

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

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::super::primitives::check;
    use super::*;

    fn is_ready(source: &Source, direction: Direction) -> bool {
        source.poll_ready(&mut Context::from_waker(Waker::noop()), direction).is_ready()
    }

    fn seen(source: &Source) -> Seen {
        Seen(source.word.load(Ordering::Relaxed))
    }

    #[test]
    fn an_event_that_comes_during_a_call_in_vain_is_kept() {
        check(|| {
            let source = Source::new();
            let before = seen(&source);
            source.note(Happened::READ);
            source.clear(before, Direction::Read);
            assert!(is_ready(&source, Direction::Read));
            source.clear(seen(&source), Direction::Read);
            assert!(!is_ready(&source, Direction::Read));
            assert!(is_ready(&source, Direction::Write), "each direction has its own bit");
        });
    }

    #[test]
    fn the_end_of_a_direction_and_an_error_stay() {
        check(|| {
            for (event, reads, writes) in [
                (Happened::LAST.0, true, false),
                (READ_CLOSED, true, false),
                (WRITE_CLOSED, false, true),
                (FAILED, true, true),
            ] {
                let source = Source::new();
                source.note(Happened(event));
                for direction in [Direction::Read, Direction::Write] {
                    source.clear(seen(&source), direction);
                }
                assert_eq!(is_ready(&source, Direction::Read), reads, "{event}");
                assert_eq!(is_ready(&source, Direction::Write), writes, "{event}");
            }
        });
    }

    #[test]
    fn the_count_of_events_may_overflow() {
        check(|| {
            let source = Source::new();
            source.word.store(usize::MAX & !FLAGS, Ordering::Relaxed);
            let before = seen(&source);
            source.note(Happened::READ);
            source.clear(before, Direction::Read);
            assert!(is_ready(&source, Direction::Read));
            assert_eq!(source.word.load(Ordering::Relaxed), READABLE);
        });
    }
}
