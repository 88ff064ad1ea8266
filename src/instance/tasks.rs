//! The tasks that serve connections, so that none is left behind.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_listener::Event;
use futures::FutureExt;
use futures::future::join_all;
use slab::Slab;

use crate::runtime::{self, Task};

/// The running tasks of a server.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    /// `None` for what is waited for, but cannot be cancelled.
    running: Mutex<Slab<Option<Task>>>,
    /// The last task has ended; with the test kit, any.
    ended: Event,
}

impl Tasks {
    /// Runs `future` in a task of its own.
    pub(crate) fn spawn(self: &Arc<Self>, future: impl Future<Output = ()> + Send + 'static) {
        // The lock is held until the handle is in its place: a task may end at once.
        let mut running = self.running();
        let entry = running.vacant_entry();
        let place = Running { tasks: Arc::clone(self), key: entry.key() };
        entry.insert(Some(runtime::spawn(future.map(move |()| drop(place)))));
    }

    /// Counts the caller among the tasks until the returned value is dropped.
    pub(crate) fn enter(self: &Arc<Self>) -> Running {
        let key = self.running().insert(None);
        Running { tasks: Arc::clone(self), key }
    }

    /// Waits until no task is left.
    pub(crate) async fn finished(&self) {
        self.down_to(0).await;
    }

    /// Waits until no more than this many tasks are left; without the test kit, until none is.
    pub(crate) async fn down_to(&self, number: usize) {
        loop {
            let ended = self.ended.listen();
            if self.len() <= number {
                return;
            }
            ended.await;
        }
    }

    /// Drops the futures of all tasks, waits until that is done, and returns how many there were.
    ///
    /// A task that does not come to an `await` goes on, and is waited for.
    pub(crate) async fn cancel(&self) -> usize {
        let tasks: Vec<Task> =
            self.running().iter_mut().filter_map(|(_, task)| task.take()).collect();
        let dropped = join_all(tasks.into_iter().map(Task::cancel)).await;
        dropped.into_iter().filter(|is_dropped| *is_dropped).count()
    }

    pub(crate) fn len(&self) -> usize {
        self.running().len()
    }

    fn running(&self) -> MutexGuard<'_, Slab<Option<Task>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among the running tasks.
#[derive(Debug)]
pub(crate) struct Running {
    tasks: Arc<Tasks>,
    key: usize,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut running = self.tasks.running();
        let task = running.try_remove(self.key);
        let is_last = running.is_empty();
        drop(running);
        // Outside of the lock: the handle's own destructor is not ours.
        drop(task);
        if is_last || cfg!(feature = "testing") {
            self.tasks.ended.notify(usize::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures::channel::oneshot;

    use super::*;
    use crate::runtime::block_on;

    #[test]
    fn tasks_are_waited_for_until_the_last_has_ended() {
        let tasks = Arc::new(Tasks::default());
        let (go, may_go) = oneshot::channel::<()>();
        tasks.spawn(may_go.map(drop));
        tasks.spawn(async {});
        let entered = tasks.enter();
        assert!(tasks.finished().now_or_never().is_none());
        go.send(()).unwrap();
        assert!(tasks.finished().now_or_never().is_none());
        drop(entered);
        block_on(tasks.finished());
        assert!(tasks.running().is_empty());
    }

    #[test]
    fn cancelled_tasks_are_dropped_and_counted_whatever_they_wait_for() {
        let tasks = Arc::new(Tasks::default());
        let (held, is_dropped) = oneshot::channel::<()>();
        tasks.spawn(async move {
            pending::<()>().await;
            drop(held);
        });
        tasks.spawn(pending());
        assert_eq!(block_on(tasks.cancel()), 2);
        assert!(block_on(is_dropped).is_err());
        block_on(tasks.finished());
    }
}
