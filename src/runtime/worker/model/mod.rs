//! A model check of the workers: the files `park`, `turn`, `readiness` and `stall` once more, on primitives of loom.
//!
//! loom runs each test in all interleavings of its threads, and gives each relaxed load all values that the memory model
//! allows, so that a missing fence is found. A thread that waits for a wake-up that never comes is a deadlock, which loom
//! reports. The rest of the crate stays on the primitives of std: `--cfg loom`, which is not set, would switch those of
//! other crates as well.
//!
//! The queue is a count that is added to, the operating system a lock and a `Notify`. What is not modelled: reordering
//! within a thread of relaxed accesses to different words where no fence is near, and total orders of `SeqCst` accesses
//! beyond fences (loom takes such an access for `AcqRel`). The word `load` of `pass` relies on those; it is not checked
//! here.

#![expect(clippy::duplicate_mod, reason = "the files are checked as they are")]
#![expect(dead_code, reason = "a file is included whole")]

use std::task::Wake;

use loom::sync::{Arc, Notify};
use loom::thread;

use self::park::Parking;
use self::primitives::atomic::{AtomicUsize, Ordering};
use self::primitives::check;
use self::readiness::{Direction, Happened, Source};
use self::run_delay::RunDelay;
use self::stall::{Stalls, Watch};
use self::turn::{Replaced, Turn, Turns};

#[path = "../park.rs"]
mod park;
mod primitives;
#[path = "../readiness.rs"]
mod readiness;
#[path = "../stall.rs"]
mod stall;
#[path = "../turn.rs"]
mod turn;

/// What `stall` names of the others.
mod label {
    pub(super) use super::super::label::Label;
}

mod run_delay {
    pub(super) use super::super::run_delay::RunDelay;
}

mod pass {
    use super::{Stalls, Turn};

    /// The supervisor's loop is not modelled, for it is about time.
    pub(super) enum Worker {}

    impl Worker {
        pub(super) fn turn(&self) -> Turn {
            match *self {}
        }

        pub(super) fn is_parked(&self) -> bool {
            match *self {}
        }

        pub(super) fn stalls(&self) -> &Stalls {
            match *self {}
        }
    }
}

/// Park and notify: what other threads push while the owner goes to sleep wakes it.
#[test]
fn the_owner_never_sleeps_over_a_task() {
    const PUSHERS: usize = 2;

    check(|| {
        let parking = Arc::new(Parking::new());
        let queue = Arc::new(AtomicUsize::new(0));
        let waker = Arc::new(Notify::new());
        for _ in 0..PUSHERS {
            let (parking, queue, waker) = (parking.clone(), queue.clone(), waker.clone());
            thread::spawn(move || {
                queue.fetch_add(1, Ordering::Release);
                if parking.must_wake() {
                    waker.notify();
                }
            });
        }
        let mut popped = 0;
        while popped < PUSHERS {
            parking.begin();
            if queue.load(Ordering::Acquire) == popped {
                waker.wait();
            }
            parking.end();
            popped = queue.load(Ordering::Acquire);
        }
    });
}

/// The supervisor sleeps while the worker is parked, and no longer.
#[test]
fn the_supervisor_never_sleeps_over_a_worker() {
    check(|| {
        let parking = Arc::new(Parking::new());
        let watch = Arc::new(Watch::default());
        watch.begin();
        parking.begin();
        let worker = {
            let (parking, watch) = (parking.clone(), watch.clone());
            thread::spawn(move || {
                parking.end();
                watch.begin();
            })
        };
        // Deadlocks if it sleeps on.
        watch.sleep(|| parking.is_parked());
        worker.join().unwrap();
    });
}

#[test]
fn the_supervisor_never_sleeps_over_the_end() {
    check(|| {
        let watch = Arc::new(Watch::default());
        watch.begin();
        let end = watch.clone();
        thread::spawn(move || end.end());
        watch.sleep(|| true);
    });
}

/// A socket of the operating system.
struct Socket {
    /// Bytes that are not read, and [`END`](Self::END).
    unread: AtomicUsize,
    source: Source,
}

impl Socket {
    /// Nothing comes after the bytes.
    const END: usize = 1 << 8;

    fn new() -> Arc<Self> {
        Arc::new(Self { unread: AtomicUsize::new(0), source: Source::new() })
    }

    /// Takes all bytes; `None` if there are none yet.
    fn read(&self) -> Option<usize> {
        let unread = self.unread.fetch_and(Self::END, Ordering::AcqRel);
        (unread > 0).then_some(unread & !Self::END)
    }

    /// Bytes come in, and the owner of the worker fetches their event.
    fn receive(&self, bytes: usize, event: Happened) {
        self.unread.fetch_add(bytes, Ordering::AcqRel);
        self.source.note(event);
        self.source.wake(event);
    }

    /// The task of a connection: reads so many bytes, or to the end, in short reads, as `Registered::poll_read` does.
    fn read_all(&self, most: usize) -> usize {
        let woken = std::sync::Arc::new(Woken(Notify::new()));
        let waker = std::task::Waker::from(woken.clone());
        let mut cx = std::task::Context::from_waker(&waker);
        let mut len = 0;
        while len < most {
            let std::task::Poll::Ready(seen) = self.source.poll_ready(&mut cx, Direction::Read)
            else {
                woken.0.wait();
                continue;
            };
            match self.read() {
                Some(0) => break,
                // There was room for more bytes.
                read => {
                    len += read.unwrap_or_default();
                    self.source.clear(seen, Direction::Read);
                }
            }
        }
        len
    }
}

struct Woken(Notify);

impl Wake for Woken {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.notify();
    }
}

/// The readiness word: an event between a call and the clearing of its bit is kept, and so is one between a look and the
/// registration of the waker.
#[test]
fn no_event_of_a_socket_is_lost() {
    check(|| {
        let socket = Socket::new();
        let of_owner = socket.clone();
        thread::spawn(move || {
            for _ in 0..2 {
                of_owner.receive(1, Happened::READ);
            }
        });
        assert_eq!(socket.read_all(2), 2);
    });
}

/// One event tells of the last bytes and of the end.
#[test]
fn the_end_of_a_stream_is_never_lost() {
    check(|| {
        let socket = Socket::new();
        let of_owner = socket.clone();
        thread::spawn(move || of_owner.receive(1 | Socket::END, Happened::LAST));
        assert_eq!(socket.read_all(usize::MAX), 1);
    });
}

/// The two directions are of two tasks, and each clears its own bit.
#[test]
fn a_writer_takes_no_event_from_a_reader() {
    check(|| {
        let socket = Socket::new();
        let (of_owner, of_writer) = (socket.clone(), socket.clone());
        thread::spawn(move || of_owner.receive(1, Happened::READ));
        thread::spawn(move || {
            let waker = std::task::Waker::noop();
            let mut cx = std::task::Context::from_waker(waker);
            if let std::task::Poll::Ready(seen) =
                of_writer.source.poll_ready(&mut cx, Direction::Write)
            {
                of_writer.source.clear(seen, Direction::Write);
            }
        });
        assert_eq!(socket.read_all(1), 1);
    });
}

/// A worker that changes hands.
struct Shifts {
    turns: Turns,
    stalls: Stalls,
    /// Threads that do what the owner alone may do.
    owners: AtomicUsize,
    /// Passes of all owners, which each owner has to see.
    passes: AtomicUsize,
    ended: AtomicUsize,
}

impl Shifts {
    const PASSES: usize = 2;

    fn new() -> Arc<Self> {
        Arc::new(Self {
            turns: Turns::new(),
            stalls: Stalls::default(),
            owners: AtomicUsize::new(0),
            passes: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
        })
    }

    /// `Worker::run`.
    fn run(&self, turn: Turn) {
        match self.run_passes(turn) {
            Ok(()) => {
                self.ended.fetch_add(1, Ordering::Relaxed);
            }
            Err(Replaced(seen)) => self.stalls.end(seen),
        }
    }

    fn run_passes(&self, mut turn: Turn) -> Result<(), Replaced> {
        loop {
            // All of it relaxed, as what an owner changes without a lock: the turn has to publish it.
            assert_eq!(self.owners.fetch_add(1, Ordering::Relaxed), 0, "one owner at a time");
            let passes = self.passes.load(Ordering::Relaxed);
            self.passes.store(passes + 1, Ordering::Relaxed);
            self.owners.fetch_sub(1, Ordering::Relaxed);
            if passes + 1 == Self::PASSES {
                return Ok(());
            }
            self.turns.step(&mut turn)?;
            // A task.
            thread::yield_now();
            self.turns.step(&mut turn)?;
        }
    }

    /// `Worker::take_over`.
    fn take_over(&self, seen: Turn) -> Option<Turn> {
        self.stalls.begin(seen, None, RunDelay::default(), || self.turns.take_over(seen))
    }
}

/// Hand-over: there is one owner at a time, each goes on where the last has left, one of them ends the worker, and no
/// stall is left over.
#[test]
fn a_worker_has_one_owner_at_a_time() {
    check(|| {
        let shifts = Shifts::new();
        let turn = shifts.turns.now();
        let first = shifts.clone();
        let first = thread::spawn(move || first.run(turn));
        // The supervisor.
        let next = shifts.take_over(shifts.turns.now());
        let next = next.map(|turn| {
            let next = shifts.clone();
            thread::spawn(move || next.run(turn))
        });
        first.join().unwrap();
        if let Some(next) = next {
            next.join().unwrap();
        }
        assert_eq!(shifts.ended.load(Ordering::Relaxed), 1);
        assert_eq!(shifts.passes.load(Ordering::Relaxed), Shifts::PASSES);
        assert!(!shifts.stalls.look(), "a stall that has ended is still there");
    });
}
