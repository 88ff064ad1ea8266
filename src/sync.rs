//! A lock that cannot be poisoned, and the order in which locks are taken.
//!
//! After a panic under a lock of ours, its value is still valid: each step under a lock changes the value at once. Code
//! of the application, which may panic, does not run there, but for the few things that `connection/mod.rs` and
//! `rooms/mod.rs` list. So [`Mutex`] hands out the value after a panic, and taking a lock cannot fail.
//!
//! # Order
//!
//! A thread that holds one lock takes only locks further down in this list:
//!
//! 1. the state of a room, under which code of the application runs, see `rooms/mod.rs`;
//! 2. the roster of a room, see there;
//! 3. a connection, see `connection/mod.rs`;
//! 4. its compressor, its tasks' wakers, a channel of presence events.
//!
//! All other locks are leaves: no lock is taken under them. Under the first, any may be taken.

use std::fmt;
pub(crate) use std::sync::MutexGuard;
use std::sync::PoisonError;
#[cfg(feature = "server")]
use std::time::Duration;

/// A [`std::sync::Mutex`] whose value outlives a panic.
#[derive(Default)]
pub(crate) struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    /// Waits for the lock and takes it.
    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A [`std::sync::Condvar`] for the guards of [`Mutex`].
#[cfg(feature = "server")]
#[derive(Debug, Default)]
pub(crate) struct Condition(std::sync::Condvar);

#[cfg(feature = "server")]
impl Condition {
    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    /// Waits for a notification. It may also return without one.
    pub(crate) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a notification, at most for `time`.
    pub(crate) fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        time: Duration,
    ) -> MutexGuard<'a, T> {
        self.0.wait_timeout(guard, time).unwrap_or_else(PoisonError::into_inner).0
    }
}
