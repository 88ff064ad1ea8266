//! A lock that cannot be poisoned, and the order in which locks are taken.
//!
//! A panic under a lock of ours leaves a value that is whole: each step under a lock changes it at once, and code
//! of the application, which may panic, never runs there. So [`Mutex`] hands the value out again after a panic,
//! and taking a lock cannot fail.
//!
//! # Order
//!
//! A thread that holds one lock takes only those further down:
//!
//! 1. `hub::room::Room`'s roster;
//! 2. a connection, see `connection/mod.rs`;
//! 3. its compressor, its tasks' wakers, a channel of presence events.
//!
//! All others are leaves: under them no other lock is taken.

use std::fmt;
pub(crate) use std::sync::MutexGuard;
use std::sync::PoisonError;

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
