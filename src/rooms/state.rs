//! The state of a room, which one thread at a time changes.

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::foreign;
use crate::sync::Mutex;

/// Makes the state of a room from its name.
pub(super) type MakeState<S> = Arc<dyn Fn(&str) -> S + Send + Sync>;

/// The state of a room, from the first use of it to the end of the room.
pub(super) struct RoomState<S> {
    make: MakeState<S>,
    /// `None` until it is asked for.
    value: Mutex<Option<S>>,
    /// The number of the thread that has the lock of `value`; 0 if none has it.
    updating: AtomicU64,
}

impl<S> RoomState<S> {
    pub(super) fn new(make: MakeState<S>) -> Self {
        Self { make, value: Mutex::default(), updating: AtomicU64::new(0) }
    }

    /// Calls `update` with the state, under its lock. If that panics, the state stays as it was left.
    pub(super) fn update<R>(
        &self,
        name: &str,
        update: impl FnOnce(&mut S) -> R,
    ) -> Result<R, NestedUpdate> {
        let thread = thread_number();
        // No other thread writes the number of this one, so this is right without the lock.
        if self.updating.load(Ordering::Relaxed) == thread {
            return Err(NestedUpdate);
        }
        let mut value = self.value.lock();
        // Dropped before the lock is released, also by a panic.
        let _updating = Updating::begin(&self.updating, thread);
        Ok(update(value.get_or_insert_with(|| (self.make)(name))))
    }
}

impl<S> Drop for RoomState<S> {
    fn drop(&mut self) {
        let value = self.value.lock().take();
        // The last handle may have been that of a task of ours.
        foreign::discard(value);
    }
}

/// The mark of the thread that updates a state.
struct Updating<'a>(&'a AtomicU64);

impl<'a> Updating<'a> {
    fn begin(updating: &'a AtomicU64, thread: u64) -> Self {
        updating.store(thread, Ordering::Relaxed);
        Self(updating)
    }
}

impl Drop for Updating<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// The number of this thread, from 1 on.
fn thread_number() -> u64 {
    static THREADS: AtomicU64 = AtomicU64::new(1);
    thread_local! {
        /// 0 until it is asked for. It has no destructor, so that it can be read while the thread ends.
        static NUMBER: Cell<u64> = const { Cell::new(0) };
    }
    NUMBER.with(|number| {
        if number.get() == 0 {
            number.set(THREADS.fetch_add(1, Ordering::Relaxed));
        }
        number.get()
    })
}

/// The error of a [`Room::update`](crate::Room::update) or [`Room::join_then`](crate::Room::join_then) inside another of the same room, on the same thread. It would
/// wait for itself. Nothing was changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NestedUpdate;

impl fmt::Display for NestedUpdate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an update of a room is inside another update of the same room")
    }
}

impl Error for NestedUpdate {}
