//! Permits: so many there are, and who finds none free waits in line.
//!
//! What is limited, and what happens to those who must not wait, is `ws/admission/` for WebSocket
//! connections and `server/accept.rs` for sockets.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_lock::{Semaphore, SemaphoreGuardArc};
use event_listener::{Event, EventListener, Listener};

/// A permit; dropped, it is free again.
pub(crate) type Permit = SemaphoreGuardArc;

/// A number of permits, and the line in front of them.
///
/// The semaphore counts. Of many who wait it wakes one, lets it race with newcomers, and sends it to
/// the end if it loses; so only the first in line waits there.
#[derive(Debug)]
pub(crate) struct Permits {
    free: Arc<Semaphore>,
    /// How many are in line.
    waiting: Mutex<usize>,
    /// Tells the next in line that it is the first now. Wakes in the order of arrival.
    moved_up: Event,
}

impl Permits {
    pub(crate) fn new(number: usize) -> Self {
        let free = Arc::new(Semaphore::new(number));
        Self { free, waiting: Mutex::new(0), moved_up: Event::new() }
    }

    /// Takes a permit, if one is free and nobody is in line.
    pub(crate) fn try_acquire(&self) -> Option<Permit> {
        let waiting = self.lock();
        if *waiting == 0 { self.free.try_acquire_arc() } else { None }
    }

    /// Goes to the end of the line, unless it has `max` in it.
    pub(crate) fn queue(&self, max: usize) -> Option<InLine<'_>> {
        let waiting = self.lock();
        (*waiting < max).then(|| self.join(waiting))
    }

    fn join(&self, mut waiting: MutexGuard<'_, usize>) -> InLine<'_> {
        let behind_others = (*waiting > 0).then(|| self.moved_up.listen());
        *waiting = waiting.saturating_add(1);
        InLine { permits: self, behind_others }
    }

    /// Waits in line for a permit. Dropped, the future leaves the line, and loses no permit.
    pub(crate) async fn acquire(&self) -> Permit {
        match self.try_acquire() {
            Some(permit) => permit,
            None => self.join(self.lock()).permit().await,
        }
    }

    /// How many are free.
    pub(crate) fn available(&self) -> usize {
        self.free.available_permits()
    }

    /// How many are in line.
    pub(crate) fn waiting(&self) -> usize {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in line; dropped, it is left.
#[derive(Debug)]
pub(crate) struct InLine<'a> {
    permits: &'a Permits,
    /// `None` for the first.
    behind_others: Option<EventListener>,
}

impl InLine<'_> {
    /// Waits for a permit.
    pub(crate) async fn permit(mut self) -> Permit {
        if let Some(moved_up) = &mut self.behind_others {
            moved_up.await;
        }
        self.behind_others = None;
        self.permits.free.acquire_arc().await
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        let mut waiting = self.permits.lock();
        *waiting = waiting.saturating_sub(1);
        // It may have been told that it is the first, and not have looked.
        if self.behind_others.take().is_none_or(EventListener::discard) {
            self.permits.moved_up.notify(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use futures::StreamExt;
    use futures::future::{Either, select};

    use super::*;
    use crate::runtime::{self, Timer};

    type Acquire<'a> = Pin<Box<dyn Future<Output = Permit> + 'a>>;

    /// Goes in line at once.
    fn acquire(permits: &Permits) -> Acquire<'_> {
        Box::pin(permits.queue(usize::MAX).unwrap().permit())
    }

    fn poll(future: &mut Acquire<'_>) -> Option<Permit> {
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(permit) => Some(permit),
            Poll::Pending => None,
        }
    }

    #[test]
    fn whoever_came_first_is_first_however_they_are_polled() {
        let permits = Permits::new(1);
        let mut held = permits.try_acquire();
        let mut line: Vec<Acquire<'_>> = (0..10).map(|_| acquire(&permits)).collect();
        // Half of them are polled for the first time when it is their turn.
        assert!(line.iter_mut().step_by(2).all(|waiting| poll(waiting).is_none()));
        for left in (0..10).rev() {
            drop(held.take());
            assert!(permits.try_acquire().is_none(), "a newcomer is last");
            assert!(line.iter_mut().skip(1).rev().all(|waiting| poll(waiting).is_none()));
            held = poll(&mut line.remove(0));
            assert!(held.is_some());
            assert_eq!(permits.waiting(), left);
        }
    }

    #[test]
    fn a_line_has_an_end() {
        let permits = Permits::new(1);
        let held = permits.try_acquire();
        assert!(permits.queue(0).is_none());
        let first = permits.queue(2).unwrap();
        let _second = permits.queue(2).unwrap();
        assert!(permits.queue(2).is_none());
        drop(first);
        assert!(permits.queue(2).is_some());
        drop(held);
    }

    #[test]
    fn nobody_is_forgotten_among_many_tasks_on_many_threads() {
        const TASKS: usize = 32;
        let permits = Arc::new(Permits::new(3));
        let (done, all_done) = futures::channel::mpsc::unbounded();
        for _ in 0..TASKS {
            let (permits, done) = (Arc::clone(&permits), done.clone());
            runtime::spawn(async move {
                for _ in 0..200 {
                    let _permit = permits.acquire().await;
                    let mut was_here = false;
                    poll_fn(|cx| {
                        cx.waker().wake_by_ref();
                        if std::mem::replace(&mut was_here, true) {
                            Poll::Ready(())
                        } else {
                            Poll::Pending
                        }
                    })
                    .await;
                }
                done.unbounded_send(()).unwrap();
            });
        }
        let deadline = Timer::at(runtime::after(Duration::from_secs(5)));
        let all_done = pin!(all_done.take(TASKS).count());
        let outcome = runtime::block_on(select(all_done, deadline));
        assert!(matches!(outcome, Either::Left((TASKS, _))), "some still wait");
        assert_eq!(permits.available(), 3);
    }

    #[test]
    fn whoever_leaves_the_line_takes_nothing_along() {
        // Polled or not, told or not that they are first.
        for polled in [[true, true], [true, false], [false, true], [false, false]] {
            let permits = Permits::new(1);
            let held = permits.try_acquire().unwrap();
            let mut leaving = [(); 3].map(|()| acquire(&permits));
            let mut last = acquire(&permits);
            assert!(poll(&mut last).is_none());
            for (waiting, _) in leaving.iter_mut().zip(polled).filter(|(_, polled)| *polled) {
                assert!(poll(waiting).is_none());
            }
            let [first, second, third] = leaving;
            drop(third);
            drop(held);
            drop(first);
            drop(second);
            assert_eq!(permits.waiting(), 1);
            assert!(poll(&mut last).is_some(), "{polled:?}");
            drop(last);
            assert_eq!((permits.waiting(), permits.available()), (0, 1));
            assert!(permits.try_acquire().is_some());
        }
    }
}
