//! The tasks that are woken when something happens to a connection.

use std::sync::Arc;
use std::task::{Wake, Waker};

use futures::task::AtomicWaker;

use crate::changes::Changes;
use crate::foreign::attempt;
use crate::sync::{Mutex, MutexGuard};

/// The tasks that wait for the connection.
///
/// Wakers are foreign code: none runs under a lock of ours, and one that panics keeps no other from being
/// woken.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// The connection's own task, if it has one: it passes on what concerns the others.
    task: Mutex<Option<Waker>>,
    /// The task in `recv`.
    pub(super) recv: AtomicWaker,
    /// All other waiters: senders that wait for room, `flush`, `close`, `closed`.
    pub(super) progress: Changes,
}

impl Wake for Signals {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_driver();
    }
}

impl Signals {
    /// Wakes the task that writes, reads ahead and closes; without one, all who wait in a call.
    pub(super) fn wake_driver(&self) {
        if !self.wake_task() {
            self.wake_recv();
            self.wake_waiters();
        }
    }

    /// Wakes the connection's task; false if it has none.
    pub(super) fn wake_task(&self) -> bool {
        // Cloned, so that the lock is free when it runs.
        let task = self.task().clone();
        let has_task = task.is_some();
        if let Some(task) = task {
            guarded(|| task.wake());
        }
        has_task
    }

    pub(super) fn wake_recv(&self) {
        guarded(|| self.recv.wake());
    }

    pub(super) fn wake_waiters(&self) {
        self.progress.tell();
    }

    /// Replaces the waker of the connection's task, and returns the one before.
    pub(super) fn set_task(&self, waker: Option<Waker>) -> Option<Waker> {
        std::mem::replace(&mut *self.task(), waker)
    }

    fn task(&self) -> MutexGuard<'_, Option<Waker>> {
        self.task.lock()
    }
}

/// Runs foreign code that must not end ours.
pub(super) fn guarded<R>(foreign: impl FnOnce() -> R) {
    let _ = attempt(|| drop(foreign()));
}
