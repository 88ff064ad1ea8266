//! The tasks that serve connections, so that a shutdown can wait for all of them.

use std::future::Future;
use std::io;
use std::mem;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::join_all;
use slab::Slab;

#[cfg(feature = "testing")]
use super::busy::Busy;
use crate::changes::Changes;
use crate::runtime;
use crate::runtime::{Resident, Task, Tokio, WorkerStats, Workers};
use crate::sync::{Mutex, MutexGuard};

/// The running tasks of a server.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    table: Mutex<Table>,
    engine: Mutex<Engine>,
    /// Signals that the last task has ended; with the test kit, that any task has.
    ended: Changes,
    /// Those that can go on, where an executor runs them.
    #[cfg(feature = "testing")]
    busy: Busy,
}

/// What runs the tasks of a server.
#[derive(Clone, Debug)]
enum Engine {
    /// Until the server has ended.
    Workers(Arc<Workers>),
    /// The application's executor, else this runtime, else async-std's executor.
    Executor(Tokio),
}

impl Default for Engine {
    fn default() -> Self {
        Self::Executor(Tokio::default())
    }
}

/// The entries of the tasks. Under its lock no task is spawned or dropped, since both run code of the
/// application's executor, which may run or drop a task at once.
#[derive(Debug, Default)]
struct Table {
    running: Slab<Entry>,
    /// The number of entries ever made.
    entries: u64,
    /// Whether all tasks were cancelled. New ones are then cancelled, too.
    is_cancelled: bool,
}

#[derive(Debug)]
struct Entry {
    /// A unique number of the entry. A key, in contrast, is used again.
    number: u64,
    /// `None` while the task is being spawned, or if it can be waited for but not cancelled.
    task: Option<Task>,
}

impl Tasks {
    /// Has so many workers run the tasks from here on, in the context of `tokio`; with 0, an executor does.
    pub(crate) fn start_workers(&self, count: usize, tokio: Tokio) -> io::Result<()> {
        *self.engine.lock() = match count {
            0 => Engine::Executor(tokio),
            _ => Engine::Workers(Arc::new(Workers::start(count, tokio)?)),
        };
        Ok(())
    }

    /// Has the workers end, each once nothing lives on it. The future waits until their threads have ended.
    pub(crate) fn end_workers(&self) -> impl Future<Output = ()> + use<> {
        let engine = mem::take(&mut *self.engine.lock());
        let ended = match &engine {
            Engine::Workers(workers) => Some(workers.end()),
            Engine::Executor(_) => None,
        };
        // Their descriptors are closed with the last reference.
        drop(engine);
        async move {
            if let Some(ended) = ended {
                ended.await;
            }
        }
    }

    /// A look at each worker.
    pub(crate) fn workers(&self) -> Vec<WorkerStats> {
        match self.engine() {
            Engine::Workers(workers) => workers.stats(),
            Engine::Executor(_) => Vec::new(),
        }
    }

    /// Runs a connection in a task of its own, on the worker of the caller; false if an executor that is gone has dropped
    /// it at once.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> bool {
        self.run(future, false)
    }

    /// Runs a new connection in a task of its own, on the worker with the fewest. Otherwise as [`spawn`](Self::spawn).
    pub(crate) fn spread(
        self: &Arc<Self>,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> bool {
        self.run(future, true)
    }

    /// Runs `future`, which is no connection and is not waited for, on a worker; if there are none, gives it back.
    pub(crate) fn spawn_on_worker<F>(&self, future: F) -> Result<Option<Task>, F>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        match self.engine() {
            Engine::Workers(workers) => Ok(workers.spread(Resident::Other, future)),
            Engine::Executor(_) => Err(future),
        }
    }

    fn run(
        self: &Arc<Self>,
        future: impl Future<Output = ()> + Send + 'static,
        is_new: bool,
    ) -> bool {
        let place = self.enter();
        let (key, number) = (place.key, place.number);
        let future = future.map(move |()| drop(place));
        let task = match self.engine() {
            Engine::Workers(workers) if is_new => workers.spread(Resident::Connection, future),
            Engine::Workers(workers) => workers.spawn(future),
            Engine::Executor(tokio) => {
                #[cfg(feature = "testing")]
                let future = self.busy.count(future);
                runtime::spawn_for_server(&tokio, future)
            }
        };
        let Some(task) = task else { return false };
        // Before the lock is taken, the task may have ended, and its key may have a new owner.
        let mut table = self.table();
        let is_cancelled = table.is_cancelled;
        match table.running.get_mut(key).filter(|entry| entry.number == number) {
            Some(entry) if !is_cancelled => entry.task = Some(task),
            Some(_) => {
                drop(table);
                // One poll starts the cancellation.
                let _ = task.cancel().now_or_never();
            }
            // The task has ended meanwhile.
            None => drop(table),
        }
        true
    }

    /// Counts the caller among the tasks until the returned value is dropped.
    pub(crate) fn enter(self: &Arc<Self>) -> Running {
        let mut table = self.table();
        let number = table.entries;
        table.entries = number.wrapping_add(1);
        let key = table.running.insert(Entry { number, task: None });
        Running { tasks: Arc::clone(self), key, number }
    }

    /// Whether tasks of an executor wait, all of them. What a worker runs, it tells by its queue.
    #[cfg(feature = "testing")]
    pub(crate) fn are_waiting(&self) -> bool {
        self.busy.is_none()
    }

    /// Waits until no task is left.
    pub(crate) async fn finished(&self) {
        self.down_to(0).await;
    }

    /// Waits until at most this many tasks are left.
    pub(crate) async fn down_to(&self, number: usize) {
        self.ended.until(|| (self.len() <= number).then_some(())).await;
    }

    /// Drops the futures of all tasks, those of later tasks included, and waits until that is done. Returns
    /// the number of tasks.
    ///
    /// A task that does not reach an `await` goes on, and this waits for it.
    pub(crate) async fn cancel(&self) -> usize {
        let tasks = self.table().cancel();
        let dropped = join_all(tasks.into_iter().map(Task::cancel)).await;
        dropped.into_iter().filter(|is_dropped| *is_dropped).count()
    }

    pub(crate) fn len(&self) -> usize {
        self.table().running.len()
    }

    fn engine(&self) -> Engine {
        self.engine.lock().clone()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock()
    }
}

impl Table {
    /// Takes the tasks that have to be cancelled.
    fn cancel(&mut self) -> Vec<Task> {
        self.is_cancelled = true;
        self.running.iter_mut().filter_map(|(_, entry)| entry.task.take()).collect()
    }
}

/// The entry of a running task. It is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    tasks: Arc<Tasks>,
    key: usize,
    number: u64,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut table = self.tasks.table();
        let entry = table.running.try_remove(self.key);
        drop(table);
        drop(entry);
        self.tasks.ended.tell();
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
        assert_eq!(tasks.len(), 0);
    }

    #[test]
    fn cancelled_tasks_are_dropped_and_counted_in_every_state() {
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
