//! The primitives of `worker`, as loom has them.

use std::task::Waker;
use std::time::Duration;

use loom::sync::MutexGuard;

pub(super) mod atomic {
    pub(in super::super) use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering, fence};

    /// A flag whose stores are exchanges.
    ///
    /// loom does not know that an exchange comes directly after the store that it replaces, so that a thread may read the
    /// exchanged value after a later store. With exchanges alone there is one order.
    #[derive(Debug, Default)]
    pub(in super::super) struct AtomicBool(loom::sync::atomic::AtomicBool);

    impl AtomicBool {
        pub(in super::super) fn new(value: bool) -> Self {
            Self(loom::sync::atomic::AtomicBool::new(value))
        }

        pub(in super::super) fn load(&self, ordering: Ordering) -> bool {
            self.0.load(ordering)
        }

        pub(in super::super) fn store(&self, value: bool, ordering: Ordering) {
            self.0.swap(value, ordering);
        }

        pub(in super::super) fn swap(&self, value: bool, ordering: Ordering) -> bool {
            self.0.swap(value, ordering)
        }
    }
}

/// Thread switches in one run that no thread has asked for, unless `LOOM_MAX_PREEMPTIONS` says another number. With one
/// more, the tests take a minute.
const SWITCHES: usize = 2;

/// Runs a test in all interleavings of its threads, up to a number of switches.
pub(super) fn check(test: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = model.preemption_bound.or(Some(SWITCHES));
    model.check(test);
}

/// A waker in a lock. That of futures holds none, and its own tests check it.
#[derive(Debug, Default)]
pub(super) struct AtomicWaker(Mutex<Option<Waker>>);

impl AtomicWaker {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn register(&self, waker: &Waker) {
        *self.0.lock() = Some(waker.clone());
    }

    pub(super) fn wake(&self) {
        let waker = self.0.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Mutex<T>(loom::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap()
    }
}

#[derive(Debug, Default)]
pub(super) struct Condition(loom::sync::Condvar);

impl Condition {
    pub(super) fn notify_all(&self) {
        self.0.notify_all();
    }

    pub(super) fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        self.0.wait(guard).unwrap()
    }

    pub(super) fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        time: Duration,
    ) -> MutexGuard<'a, T> {
        self.0.wait_timeout(guard, time).unwrap().0
    }
}
