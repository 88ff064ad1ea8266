//! Wake-ups: the tasks that wait for a connection, and the calls that a step under the lock leaves for later.
//!
//! Wakers and loggers are foreign code. A step only notes which of them are due; [`Wakes`] calls them when the lock is
//! free, and catches panics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Wake, Waker};

use super::shared::Shared;
use super::state::{Connection, Receiver, Work};
use crate::budget::{MessageBudget, Owed};
use crate::changes::Changes;
use crate::error::Error;
use crate::escaped::Escaped;
use crate::foreign::attempt;
use crate::proto::CloseCode;
use crate::records::record;
use crate::sync::{Mutex, MutexGuard};

/// The wake-ups and records that a step under the lock owes, and must not do itself: wakers and loggers are foreign code.
/// [`Shared::with`] drops it when the lock is free, which does all of it.
pub(super) struct Wakes<'a> {
    pub(super) shared: &'a Shared,
    /// Whether what is owed is left for the next step.
    is_postponed: bool,
    driver: WakeDriver,
    recv: bool,
    waiters: bool,
    rare: Option<Box<Rare>>,
}

/// Debts that few steps have: boxed, so that the other steps do not look at each of them.
#[derive(Default)]
struct Rare {
    failure: Option<Box<(Error, CloseCode)>>,
    /// The debt to the other connections of the server.
    owed: Option<(Arc<MessageBudget>, Owed)>,
}

/// Whether the driver is to be woken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum WakeDriver {
    Not,
    /// The connection's task. Without one, the caller has done the work.
    Task,
    /// The task; without one, all callers that wait.
    TaskOrCallers,
}

impl<'a> Wakes<'a> {
    #[inline]
    pub(super) fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            is_postponed: false,
            driver: WakeDriver::Not,
            recv: false,
            waiters: false,
            rare: None,
        }
    }

    /// Wakes no task after this step, for the caller holds another lock. If this returns true, a task is owed a
    /// wake-up: another step, when the other lock is free, is enough.
    #[cfg(feature = "rooms")]
    pub(super) fn postpone(&mut self, connection: &mut Connection) -> bool {
        self.is_postponed = true;
        connection.has_news &= connection.has_listeners;
        connection.is_owing_for_broadcast()
    }

    /// Takes over what the step owes to others: nearly always nothing, which costs a few comparisons.
    #[inline]
    pub(super) fn collect(&mut self, connection: &mut Connection) {
        self.collect_debts(connection);
        if self.shared.signals.end_polling() {
            self.driver = WakeDriver::TaskOrCallers;
        }
    }

    #[inline]
    fn collect_debts(&mut self, connection: &mut Connection) {
        if self.is_postponed {
            return;
        }
        if connection.is_owing() {
            self.collect_owed(connection);
        }
        connection.has_news = false;
    }

    #[cold]
    fn collect_owed(&mut self, connection: &mut Connection) {
        if connection.receiver.is_waiting() && connection.can_recv() {
            match connection.receiver {
                Receiver::InTask => self.driver = WakeDriver::Task,
                _ => self.recv = true,
            }
            connection.receiver.stop_waiting();
        }
        // All of them: each looks for itself whether its condition holds.
        self.waiters = connection.has_news && std::mem::take(&mut connection.has_listeners);
        // While the handler is polled the task is awake, and sees to all of it when the handler parks.
        if !connection.is_polled() {
            match connection.work {
                Work::Owed if connection.has_task() => self.driver = WakeDriver::Task,
                Work::OwedToAll => self.driver = WakeDriver::TaskOrCallers,
                Work::Known | Work::Told | Work::Owed => {}
            }
            if self.driver != WakeDriver::Not {
                connection.work = if connection.has_task() { Work::Told } else { Work::Known };
            }
        }
        let rare =
            Rare { failure: connection.unlogged.take(), owed: connection.account.take_owed() };
        self.rare = Some(rare).filter(|it| it.failure.is_some() || it.owed.is_some()).map(Box::new);
    }

    #[cold]
    fn fire(&mut self) {
        let signals = &self.shared.signals;
        match self.driver {
            WakeDriver::Not => {}
            WakeDriver::Task => _ = signals.wake_task(),
            WakeDriver::TaskOrCallers => signals.wake_driver(),
        }
        if self.recv {
            signals.wake_recv();
        }
        if self.waiters {
            signals.wake_waiters();
        }
        // Wakers first: a logger may be slow.
        let Rare { failure, owed } = self.rare.take().map(|rare| *rare).unwrap_or_default();
        if let Some((error, code)) = failure.map(|failure| *failure) {
            record!(
                debug,
                "connection failed",
                peer = self.shared.peer_addr(),
                connection = self.shared.connection_id(),
                code = u16::from(code),
                error = Escaped(error)
            );
        }
        // Last: it may close and wake other connections.
        if let Some((budget, owed)) = owed {
            budget.settle(owed);
        }
    }
}

impl Drop for Wakes<'_> {
    #[inline]
    fn drop(&mut self) {
        let is_due = self.driver != WakeDriver::Not || self.recv || self.waiters;
        if is_due || self.rare.is_some() {
            self.fire();
        }
    }
}

/// The tasks that wait for the connection.
///
/// Wakers are foreign code: none runs under a lock of ours, and one that panics keeps no other from being
/// woken.
#[derive(Debug, Default)]
pub(super) struct Signals {
    /// The connection's own task, if it has one: it passes on what concerns the others.
    task: Mutex<Option<Waker>>,
    /// The task in `recv`. No `AtomicWaker`: that may call the waker where it is registered, under the lock.
    pub(super) recv: Mutex<Option<Waker>>,
    /// All other waiters: senders that wait for room, `flush`, `close`, `closed`.
    pub(super) progress: Changes,
    /// See [`Polling`].
    polling: AtomicU8,
}

/// Whether a step polls the stream or the timer under the lock, and what these have called meanwhile.
///
/// A stream may wake while it is polled, to be polled again after others had their turn. The wakers behind that are
/// foreign code, so they are called when the lock is free.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
enum Polling {
    Not,
    Begun,
    Woken,
}

impl Wake for Signals {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let (begun, woken) = (Polling::Begun as u8, Polling::Woken as u8);
        let noted =
            self.polling.compare_exchange(begun, woken, Ordering::AcqRel, Ordering::Acquire);
        // The step that polls sees it, also if another thread has called this.
        if noted.is_err_and(|now| now != woken) {
            self.wake_driver();
        }
    }
}

impl Signals {
    /// A step begins to poll, under the lock.
    pub(super) fn begin_polling(&self) {
        // One step may begin several times. Threads that see it late do not hold the lock, and may call wakers.
        if self.polling.load(Ordering::Relaxed) == Polling::Not as u8 {
            self.polling.store(Polling::Begun as u8, Ordering::Relaxed);
        }
    }

    /// The step ends, under the lock still. Returns whether the driver is to be woken.
    #[inline]
    pub(super) fn end_polling(&self) -> bool {
        let not = Polling::Not as u8;
        self.polling.load(Ordering::Relaxed) != not
            && self.polling.swap(not, Ordering::AcqRel) == Polling::Woken as u8
    }

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
        let recv = self.recv.lock().take();
        if let Some(recv) = recv {
            guarded(|| recv.wake());
        }
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
