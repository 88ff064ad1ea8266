//! Waiting for a change by another task. Wakers are called without a lock.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::fence;
use std::sync::{Arc, OnceLock};
#[cfg(any(feature = "accept", feature = "rooms"))]
use std::task::ready;
use std::task::{Context, Poll, Waker};
use std::{fmt, mem};

use slab::Slab;

use crate::foreign::attempt;
use crate::sync::{Mutex, MutexGuard};

/// The tasks that wait for a change. A task that makes a change calls [`tell`](Self::tell) after it.
///
/// A waker is code of the application's executor. It may run or drop its task at once, and that task may be
/// waiting here. So wakers are cloned, called and dropped without the lock. `event-listener` does all of that
/// under its own lock.
#[derive(Default)]
pub(crate) struct Changes(OnceLock<Arc<Waiting>>);

/// Created when the first task waits. Most connections never need it.
#[derive(Default)]
struct Waiting(Mutex<Slab<Wait>>);

/// The state of one waiting task.
enum Wait {
    /// It has not been polled.
    Begun,
    Asleep(Waker),
    Told,
}

impl Changes {
    /// Wakes all waiting tasks, so that they look again.
    pub(crate) fn tell(&self) {
        // A task that begins to wait after this line sees the change. A task that began before it is woken below.
        fence(SeqCst);
        let Some(waiting) = self.0.get() else { return };
        let woken: Vec<Waker> =
            waiting.lock().iter_mut().filter_map(|(_, wait)| wait.tell()).collect();
        // A waker that panics must not keep the others from being woken.
        for waker in woken {
            let _ = attempt(|| waker.wake());
        }
    }

    /// Begins to wait. The next `tell` completes the listener, even if it has not been polled.
    pub(crate) fn listen(&self) -> Listener {
        let waiting = Arc::clone(self.0.get_or_init(Arc::default));
        let key = waiting.lock().insert(Wait::Begun);
        fence(SeqCst);
        Listener { waiting, key }
    }

    /// Waits until `look` returns a value. Each poll calls it, so a task that was woken for another reason sees the
    /// change, too.
    #[cfg(any(feature = "accept", feature = "rooms"))]
    pub(crate) fn until<T, F: FnMut() -> Option<T> + Unpin>(&self, look: F) -> Until<'_, F> {
        Until { changes: self, listener: None, look }
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Slab<Wait>> {
        self.0.lock()
    }
}

impl Wait {
    /// Takes the waker to call.
    fn tell(&mut self) -> Option<Waker> {
        match mem::replace(self, Self::Told) {
            Self::Asleep(waker) => Some(waker),
            Self::Begun | Self::Told => None,
        }
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").finish_non_exhaustive()
    }
}

/// The wait for the next change. Dropping it ends the wait.
pub(crate) struct Listener {
    waiting: Arc<Waiting>,
    key: usize,
}

impl Future for Listener {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut waiting = self.waiting.lock();
        match waiting.get(self.key) {
            Some(Wait::Asleep(known)) if known.will_wake(cx.waker()) => return Poll::Pending,
            Some(Wait::Begun | Wait::Asleep(_)) => {}
            Some(Wait::Told) | None => return Poll::Ready(()),
        }
        drop(waiting);
        let mut fresh = Wait::Asleep(cx.waker().clone());
        waiting = self.waiting.lock();
        let was_told = match waiting.get_mut(self.key) {
            Some(Wait::Told) | None => true,
            Some(wait) => {
                mem::swap(wait, &mut fresh);
                false
            }
        };
        drop(waiting);
        drop(fresh);
        if was_told { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let wait = self.waiting.lock().try_remove(self.key);
        drop(wait);
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").finish_non_exhaustive()
    }
}

/// The wait until `look` returns a value. Dropping it ends the wait.
#[cfg(any(feature = "accept", feature = "rooms"))]
pub(crate) struct Until<'a, F> {
    changes: &'a Changes,
    /// `None` until a first look was in vain.
    listener: Option<Listener>,
    look: F,
}

#[cfg(any(feature = "accept", feature = "rooms"))]
impl<T, F: FnMut() -> Option<T> + Unpin> Future for Until<'_, F> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        loop {
            if let Some(found) = (self.look)() {
                return Poll::Ready(found);
            }
            match &mut self.listener {
                // Then the loop looks once more: the listener hears of any later change.
                None => self.listener = Some(self.changes.listen()),
                Some(listener) => {
                    ready!(Pin::new(listener).poll(cx));
                    self.listener = None;
                }
            }
        }
    }
}

#[cfg(all(test, feature = "server"))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering::SeqCst;
    use std::sync::atomic::{AtomicBool, AtomicUsize};
    use std::task::Wake;

    use futures::FutureExt;

    use super::*;

    fn waiting(changes: &Changes) -> usize {
        changes.0.get().map_or(0, |waiting| waiting.lock().len())
    }

    /// A waker that uses the `Changes` in every possible way.
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
    fn a_task_that_is_woken_or_dropped_may_wait_and_tell() {
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
        assert_eq!(waiting(&changes), 0);
    }

    #[test]
    fn a_change_is_seen_by_all_waiting_tasks_and_by_later_ones() {
        let (changes, is_so) = (Changes::default(), AtomicBool::new(false));
        let look = || is_so.load(SeqCst).then_some(());
        let mut listening = [(); 3].map(|()| changes.until(look));
        assert!(listening.iter_mut().all(|until| until.now_or_never().is_none()));
        is_so.store(true, SeqCst);
        changes.tell();
        assert!(listening.iter_mut().all(|until| until.now_or_never().is_some()));
        assert!(changes.until(look).now_or_never().is_some());
        drop(listening);
        assert_eq!(waiting(&changes), 0);
    }

    #[test]
    fn a_listener_hears_of_a_change_before_it_is_polled() {
        let changes = Changes::default();
        changes.tell();
        let mut listener = changes.listen();
        assert!((&mut listener).now_or_never().is_none());
        let mut second = changes.listen();
        changes.tell();
        for listener in [&mut listener, &mut second] {
            assert!(listener.now_or_never().is_some());
        }
        assert!(changes.listen().now_or_never().is_none(), "each hears what comes later");
        drop((listener, second));
        assert_eq!(waiting(&changes), 0);
    }
}
