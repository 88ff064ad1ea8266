//! Who is to be woken when something happens to a connection.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};

use event_listener::Event;
use futures::task::AtomicWaker;

/// Who waits for the connection.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// The connection's own task, if it has one: it passes on what concerns the others.
    task: Mutex<Option<Waker>>,
    /// Whoever is in `recv`.
    pub(super) recv: AtomicWaker,
    /// Everybody else: senders that wait for room, `flush`, `close`, `closed`.
    pub(super) progress: Event,
}

impl Wake for Signals {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.wake_task() {
            return;
        }
        self.recv.wake();
        self.progress.notify(usize::MAX);
    }
}

impl Signals {
    /// Wakes the connection's task; false if it has none.
    pub(super) fn wake_task(&self) -> bool {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        task.as_ref().map(Waker::wake_by_ref).is_some()
    }

    pub(super) fn clear_task(&self) {
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(super) fn set_task(&self, waker: &Waker) {
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
    }
}
