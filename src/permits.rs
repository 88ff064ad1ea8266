//! A fixed number of permits, and the line of those that wait for one.
//!
//! `admission/` uses them to limit WebSocket connections, and `server/capacity.rs` to limit sockets.

use std::collections::BTreeMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

#[cfg(feature = "server")]
use crate::addresses::Visitor;
use crate::foreign::attempt;
use crate::sync::{Mutex, MutexGuard};

/// A number of permits, and the line of those that wait for one.
#[derive(Debug)]
pub(crate) struct Permits {
    line: Arc<Line>,
}

/// The lock. No waker is cloned, called or dropped under it: wakers are code of the application's executor.
struct Line(Mutex<State>);

struct State {
    free: usize,
    /// The line, in order of arrival, with the waker of each; `None` for one that has not been polled since it was
    /// woken.
    waiting: BTreeMap<u64, Option<Waker>>,
    /// The number for the next that joins the line.
    next: u64,
}

impl Permits {
    pub(crate) fn new(number: usize) -> Self {
        let state = State { free: number, waiting: BTreeMap::new(), next: 0 };
        Self { line: Arc::new(Line(Mutex::new(state))) }
    }

    /// Takes a permit, if one is free and the line is empty.
    pub(crate) fn try_acquire(&self) -> Option<Permit> {
        let mut state = self.line.lock();
        if !state.waiting.is_empty() {
            return None;
        }
        state.free = state.free.checked_sub(1)?;
        drop(state);
        Some(Permit(Arc::clone(&self.line)))
    }

    /// Joins the end of the line; `None` if `max` are in it already.
    pub(crate) fn queue(&self, max: usize) -> Option<InLine> {
        let state = self.line.lock();
        (state.waiting.len() < max).then(|| self.join(state))
    }

    fn join(&self, mut state: MutexGuard<'_, State>) -> InLine {
        let number = state.next;
        state.next = number.wrapping_add(1);
        state.waiting.insert(number, None);
        InLine { line: Arc::clone(&self.line), number }
    }

    /// Waits in line for a permit. If the future is dropped, it leaves the line, and no permit is lost.
    #[cfg(feature = "server")]
    pub(crate) async fn acquire(&self) -> Permit {
        match self.try_acquire() {
            Some(permit) => permit,
            None => self.join(self.line.lock()).permit().await,
        }
    }

    /// The number of free permits.
    pub(crate) fn available(&self) -> usize {
        self.line.lock().free
    }

    /// The length of the line.
    pub(crate) fn waiting(&self) -> usize {
        self.line.lock().waiting.len()
    }
}

impl Line {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl State {
    /// Takes the waker of the first in line, if a permit is free for it.
    fn first(&mut self) -> Option<Waker> {
        if self.free == 0 {
            return None;
        }
        self.waiting.first_entry()?.get_mut().take()
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        let (free, waiting) = (state.free, state.waiting.len());
        drop(state);
        f.debug_struct("Line").field("free", &free).field("waiting", &waiting).finish()
    }
}

/// A permit. Dropping it frees it.
#[derive(Debug)]
pub(crate) struct Permit(Arc<Line>);

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.free = state.free.saturating_add(1);
        let first = state.first();
        drop(state);
        wake(first);
    }
}

/// The part of its server's capacity that an open socket holds. Dropping it frees that part.
#[cfg(feature = "server")]
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// `None` if sockets are not counted.
    pub(crate) place: Option<Permit>,
    /// `None` if the sockets of its address are not counted.
    pub(crate) visitor: Option<Visitor>,
}

/// A place in line. Dropping it leaves the line.
#[derive(Debug)]
pub(crate) struct InLine {
    line: Arc<Line>,
    number: u64,
}

impl InLine {
    /// Waits for a permit.
    pub(crate) async fn permit(self) -> Permit {
        poll_fn(|cx| self.poll_permit(cx)).await
    }

    fn poll_permit(&self, cx: &Context<'_>) -> Poll<Permit> {
        let waker = cx.waker().clone();
        let mut state = self.line.lock();
        let is_first = state.waiting.keys().next() == Some(&self.number);
        if is_first && state.free > 0 {
            state.free = state.free.saturating_sub(1);
            let left = state.waiting.remove(&self.number);
            let first = state.first();
            drop(state);
            drop(left);
            wake(first);
            return Poll::Ready(Permit(Arc::clone(&self.line)));
        }
        let replaced = state.waiting.insert(self.number, Some(waker));
        drop(state);
        drop(replaced);
        Poll::Pending
    }
}

impl Drop for InLine {
    fn drop(&mut self) {
        let mut state = self.line.lock();
        let left = state.waiting.remove(&self.number);
        let first = state.first();
        drop(state);
        drop(left);
        wake(first);
    }
}

fn wake(waker: Option<Waker>) {
    // Panics are contained, since this is often called by a destructor.
    let _ = attempt(|| waker.map(Waker::wake));
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::SeqCst;
    use std::task::Wake;
    use std::time::Duration;

    use futures::StreamExt;

    use super::*;
    use crate::runtime;
    use crate::runtime::Clock;

    type Acquire = Pin<Box<dyn Future<Output = Permit> + Send>>;

    /// Joins the line at once.
    fn acquire(permits: &Permits) -> Acquire {
        Box::pin(permits.queue(usize::MAX).unwrap().permit())
    }

    fn poll(future: &mut Acquire) -> Option<Permit> {
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(permit) => Some(permit),
            Poll::Pending => None,
        }
    }

    #[test]
    fn the_first_to_join_the_line_is_first_in_every_order_of_polls() {
        let permits = Permits::new(1);
        let mut held = permits.try_acquire();
        let mut line: Vec<Acquire> = (0..10).map(|_| acquire(&permits)).collect();
        // Every second one is polled for the first time only when it is its turn.
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
    fn no_task_is_forgotten_among_many_on_many_threads() {
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
        let patience = Some(Duration::from_secs(5));
        let all_done = all_done.take(TASKS).count();
        let outcome = runtime::block_on(Clock::default().timeout(patience, all_done));
        assert_eq!(outcome, Some(TASKS), "some still wait");
        assert_eq!(permits.available(), 3);
    }

    #[test]
    fn a_task_that_leaves_the_line_takes_no_permit_along() {
        // Each may have been polled or not, before or after it became the first in line.
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

    /// An executor that drops a task as soon as the task is woken, or its waker dropped.
    struct Gone(Arc<Permits>, Mutex<Option<Acquire>>, AtomicUsize);

    impl Gone {
        fn drop_task(&self) {
            let task = self.1.lock().take();
            self.2.fetch_add(usize::from(task.is_some()), SeqCst);
            drop(task);
            assert_eq!(self.0.available() + self.0.waiting(), 1);
        }
    }

    impl Wake for Gone {
        fn wake(self: Arc<Self>) {
            self.drop_task();
        }
    }

    #[test]
    fn a_task_may_be_dropped_where_it_is_woken() {
        let permits = Arc::new(Permits::new(1));
        let held = permits.try_acquire().unwrap();
        let gone = Gone(Arc::clone(&permits), Mutex::default(), AtomicUsize::new(0));
        let gone = Arc::new(gone);
        let mut waiting = acquire(&permits);
        let waker = Waker::from(Arc::clone(&gone));
        assert!(waiting.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        *gone.1.lock() = Some(waiting);
        drop(held);
        assert_eq!(gone.2.load(SeqCst), 1);
        assert_eq!((permits.available(), permits.waiting()), (1, 0));
    }
}
