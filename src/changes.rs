//! Waiting for what another task changes, with no lock held while somebody is woken.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use slab::Slab;

use crate::foreign::attempt;

/// Those who wait for a change. A task that makes one [tells](Self::tell) them afterwards.
///
/// A waker belongs to an executor, and that to the application: called, it may run or drop the task on the
/// spot, and what is dropped may be waiting here. So wakers are cloned, called and dropped without the lock;
/// `event-listener` does all of that under its own.
#[derive(Default)]
pub(crate) struct Changes(Mutex<Slab<Option<Waker>>>);

impl Changes {
    /// Has all who wait look again.
    pub(crate) fn tell(&self) {
        let woken: Vec<Waker> =
            self.lock().iter_mut().filter_map(|(_, waker)| waker.take()).collect();
        // One that panics keeps no other from being woken.
        for waker in woken {
            let _ = attempt(|| waker.wake());
        }
    }

    /// Waits until `look` finds something. It is called by each poll, so that a task that was woken by
    /// something else is not behind.
    pub(crate) fn until<T, F: FnMut() -> Option<T> + Unpin>(&self, look: F) -> Until<'_, F> {
        Until { changes: self, key: None, look }
    }

    fn lock(&self) -> MutexGuard<'_, Slab<Option<Waker>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").finish_non_exhaustive()
    }
}

/// The wait for a change; dropped, it is over.
pub(crate) struct Until<'a, F> {
    changes: &'a Changes,
    /// Among those who wait; `None` before the first poll.
    key: Option<usize>,
    look: F,
}

impl<F> Until<'_, F> {
    /// Keeps the waker of `cx` for the next change.
    fn register(&mut self, cx: &Context<'_>) {
        let mut waiting = self.changes.lock();
        let known = self.key.and_then(|key| waiting.get(key)).and_then(Option::as_ref);
        if known.is_some_and(|known| known.will_wake(cx.waker())) {
            return;
        }
        drop(waiting);
        let mut waker = Some(cx.waker().clone());
        waiting = self.changes.lock();
        if let Some(kept) = self.key.and_then(|key| waiting.get_mut(key)) {
            std::mem::swap(kept, &mut waker);
        } else {
            self.key = Some(waiting.insert(waker.take()));
        }
        drop(waiting);
        drop(waker);
    }
}

impl<T, F: FnMut() -> Option<T> + Unpin> Future for Until<'_, F> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        // Registered first: what changes after the look is told.
        self.register(cx);
        (self.look)().map_or(Poll::Pending, Poll::Ready)
    }
}

impl<F> Drop for Until<'_, F> {
    fn drop(&mut self) {
        let waker = self.key.and_then(|key| self.changes.lock().try_remove(key));
        drop(waker);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
    use std::task::Wake;

    use futures::FutureExt;

    use super::*;

    /// A waker that uses what it is told of, in every way that there is.
    struct Curious(Arc<Changes>, AtomicUsize);

    impl Curious {
        fn look(&self) {
            self.1.fetch_add(1, SeqCst);
            assert!(self.0.until(|| None::<()>).now_or_never().is_none());
            self.0.tell();
        }
    }

    impl Wake for Curious {
        fn wake(self: Arc<Self>) {
            self.look();
        }
    }

    impl Drop for Curious {
        fn drop(&mut self) {
            self.look();
        }
    }

    #[test]
    fn whoever_is_woken_or_dropped_may_wait_and_tell() {
        let changes = Arc::new(Changes::default());
        let curious = || Arc::new(Curious(Arc::clone(&changes), AtomicUsize::new(0)));
        let (first, second) = (curious(), curious());
        let mut until = changes.until(|| None::<()>);
        for waker in [&first, &first, &second, &first] {
            let waker = Waker::from(Arc::clone(waker));
            assert!(until.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
        }
        drop(second);
        changes.tell();
        assert_eq!(first.1.load(SeqCst), 1);
        let waker = Waker::from(Arc::clone(&first));
        assert!(until.poll_unpin(&mut Context::from_waker(&waker)).is_pending());
        drop((waker, first));
        drop(until);
        assert!(changes.lock().is_empty());
    }

    #[test]
    fn a_change_is_seen_by_all_who_wait_and_by_those_who_come_later() {
        let (changes, is_so) = (Changes::default(), AtomicBool::new(false));
        let look = || is_so.load(SeqCst).then_some(());
        let mut waiting = [(); 3].map(|()| changes.until(look));
        assert!(waiting.iter_mut().all(|until| until.now_or_never().is_none()));
        is_so.store(true, SeqCst);
        changes.tell();
        assert!(waiting.iter_mut().all(|until| until.now_or_never().is_some()));
        assert!(changes.until(look).now_or_never().is_some());
        drop(waiting);
        assert!(changes.lock().is_empty());
    }
}
