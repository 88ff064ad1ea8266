//! Whether tasks can go on, for a test that waits until none can. Only where an executor runs them: the queue of a worker
//! shows it.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use crate::foreign::discard;
use crate::sync::Mutex;

/// The number of tasks that run or were woken.
#[derive(Clone, Debug, Default)]
pub(super) struct Busy(Arc<AtomicUsize>);

impl Busy {
    pub(super) fn is_none(&self) -> bool {
        self.0.load(Ordering::SeqCst) == 0
    }

    /// Counts a task whenever it can go on.
    pub(super) fn count<F: Future<Output = ()>>(&self, future: F) -> Counted<F> {
        self.enter();
        let state = Mutex::new(State { is_woken: true, is_over: false, waker: None });
        let task = Arc::new(Task { busy: self.clone(), state });
        Counted { future: Box::pin(future), waker: Arc::clone(&task).into(), task }
    }

    fn enter(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn leave(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The future of a task that is counted.
pub(super) struct Counted<F> {
    future: Pin<Box<F>>,
    task: Arc<Task>,
    /// That of `task`, which wakes the executor's.
    waker: Waker,
}

struct Task {
    busy: Busy,
    state: Mutex<State>,
}

struct State {
    /// Whether the task was woken, and counts for that.
    is_woken: bool,
    is_over: bool,
    /// The executor's.
    waker: Option<Waker>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut state = self.state.lock();
        if state.is_over {
            return;
        }
        if !mem::replace(&mut state.is_woken, true) {
            self.busy.enter();
        }
        let waker = state.waker.clone();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<F: Future<Output = ()>> Future for Counted<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { future, task, waker } = &mut *self;
        let ours = cx.waker().clone();
        let mut state = task.state.lock();
        let replaced = state.waker.replace(ours);
        // From here on it counts because it runs.
        if !mem::replace(&mut state.is_woken, false) {
            task.busy.enter();
        }
        drop(state);
        discard(replaced);
        let _running = Running(&task.busy);
        future.as_mut().poll(&mut Context::from_waker(waker))
    }
}

struct Running<'a>(&'a Busy);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl<F> Drop for Counted<F> {
    fn drop(&mut self) {
        let mut state = self.task.state.lock();
        state.is_over = true;
        let waker = state.waker.take();
        if mem::replace(&mut state.is_woken, false) {
            self.task.busy.leave();
        }
        drop(state);
        discard(waker);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::channel::oneshot;

    use super::*;

    #[test]
    fn a_task_is_counted_until_it_waits_and_again_once_it_is_woken() {
        let (busy, (go, may_go)) = (Busy::default(), oneshot::channel::<()>());
        let mut task = busy.count(may_go.map(drop));
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(!busy.is_none(), "it has not run");
        assert!(task.poll_unpin(cx).is_pending());
        assert!(busy.is_none());
        go.send(()).unwrap();
        assert!(!busy.is_none());
        assert!(task.poll_unpin(cx).is_ready());
        assert!(busy.is_none());
    }

    #[test]
    fn a_task_that_is_dropped_is_not_counted() {
        let busy = Busy::default();
        drop(busy.count(async {}));
        assert!(busy.is_none());
        let (go, may_go) = oneshot::channel::<()>();
        let mut task = busy.count(may_go.map(drop));
        assert!(task.poll_unpin(&mut Context::from_waker(Waker::noop())).is_pending());
        drop(go);
        assert!(!busy.is_none());
        drop(task);
        assert!(busy.is_none());
    }
}
