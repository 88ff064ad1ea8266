//! What is the application's and must not panic into hyper, or into the executor.

use std::future::Future;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

/// A value of the application, dropped wherever its connection stands. A panic of its destructor ends
/// there: unwound through a task that is being dropped, it would end the process.
#[derive(Debug)]
pub(super) struct Contained<T>(Option<T>);

impl<T> Contained<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Some(value))
    }

    /// Calls `act` with the value; `None` if it panics, after which the value is gone.
    pub(super) fn with<R>(&mut self, act: impl FnOnce(&mut T) -> R) -> Option<R> {
        let value = self.0.as_mut()?;
        match catch_unwind(AssertUnwindSafe(|| act(value))) {
            Ok(outcome) => Some(outcome),
            Err(payload) => {
                // One after the other: two panics of one unwinding end the process.
                discard(payload);
                discard(self.0.take());
                None
            }
        }
    }
}

impl<T> Drop for Contained<T> {
    fn drop(&mut self) {
        discard(self.0.take());
    }
}

/// Only where it is dropped before its end: what it does when it is polled is its own to contain.
impl<F: Future + Unpin> Future for Contained<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.0.as_mut().map_or(Poll::Pending, |future| Pin::new(future).poll(cx))
    }
}

/// Drops a value whose destructor may panic.
pub(super) fn discard<T>(value: T) {
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(value)));
    let Err(payload) = dropped else { return };
    if let Err(worse) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        // A payload that panics when it is dropped, with one that may do the same.
        mem::forget(worse);
    }
}
