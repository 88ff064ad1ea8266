//! Executors as applications bring them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread;

use futures::future::BoxFuture;

pub(super) type Future = BoxFuture<'static, ()>;

/// One thread, a queue, and what else it does with the tasks that it is given.
#[derive(Default)]
pub(super) struct Executor {
    queue: Mutex<VecDeque<Arc<Task>>>,
    /// Something is in the queue, or the executor stops.
    changed: Condvar,
    /// Whether a task is polled by whoever wakes it.
    is_inline: bool,
    has_stopped: AtomicBool,
    /// All tasks that have not ended.
    alive: Mutex<Vec<Arc<Task>>>,
    /// How many more tasks it takes, if that is limited.
    room: Option<AtomicUsize>,
}

struct Task {
    state: Mutex<State>,
    executor: Arc<Executor>,
}

struct State {
    /// `None` while it is polled, and once it has ended.
    future: Option<Future>,
    is_polled: bool,
    is_woken: bool,
}

impl Executor {
    /// Runs tasks on a thread of its own.
    pub(super) fn start() -> Arc<Self> {
        Self::default().on_a_thread()
    }

    /// Runs each task where it is woken.
    pub(super) fn inline() -> Arc<Self> {
        Arc::new(Self { is_inline: true, ..Self::default() })
    }

    /// Takes so many tasks and drops the others.
    pub(super) fn with_room(tasks: usize) -> Arc<Self> {
        Self { room: Some(AtomicUsize::new(tasks)), ..Self::default() }.on_a_thread()
    }

    fn on_a_thread(self) -> Arc<Self> {
        let this = Arc::new(self);
        let running = Arc::clone(&this);
        thread::spawn(move || running.run());
        this
    }

    pub(super) fn spawn(self: &Arc<Self>, future: Future) {
        let is_full = self.room.as_ref().is_some_and(|room| {
            room.fetch_update(SeqCst, SeqCst, |room| room.checked_sub(1)).is_err()
        });
        if is_full || self.has_stopped.load(SeqCst) {
            return drop(future);
        }
        let state = State { future: Some(future), is_polled: false, is_woken: false };
        let task = Arc::new(Task { state: Mutex::new(state), executor: Arc::clone(self) });
        self.alive.lock().unwrap().push(Arc::clone(&task));
        task.wake();
    }

    /// How many tasks have not ended.
    pub(super) fn alive(&self) -> usize {
        self.alive.lock().unwrap().len()
    }

    /// Polls nothing any more. What is spawned or woken from now on is dropped on the spot.
    pub(super) fn stop(&self) {
        self.has_stopped.store(true, SeqCst);
        self.changed.notify_all();
    }

    /// Drops all tasks, after [`stop`](Self::stop).
    pub(super) fn drop_all(&self) {
        let alive = std::mem::take(&mut *self.alive.lock().unwrap());
        for task in alive {
            task.discard();
        }
    }

    fn forget(&self, ended: &Arc<Task>) {
        self.alive.lock().unwrap().retain(|task| !Arc::ptr_eq(task, ended));
    }

    fn run(&self) {
        while let Some(task) = self.next() {
            task.poll();
        }
    }

    /// Waits for a task that was woken; `None` once the executor has stopped.
    fn next(&self) -> Option<Arc<Task>> {
        let mut queue = self.queue.lock().unwrap();
        loop {
            if self.has_stopped.load(SeqCst) {
                return None;
            }
            if let Some(task) = queue.pop_front() {
                return Some(task);
            }
            queue = self.changed.wait(queue).unwrap();
        }
    }
}

impl Task {
    fn poll(self: &Arc<Self>) {
        loop {
            let mut state = self.state.lock().unwrap();
            state.is_woken = state.is_polled;
            if state.is_polled {
                // Who polls it looks again.
                return;
            }
            let Some(mut future) = state.future.take() else { return };
            state.is_polled = true;
            drop(state);

            let waker = Waker::from(Arc::clone(self));
            let is_over = future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
            let mut state = self.state.lock().unwrap();
            state.is_polled = false;
            if is_over || self.executor.has_stopped.load(SeqCst) {
                drop(state);
                return self.executor.forget(self);
            }
            state.future = Some(future);
            if !state.is_woken {
                return;
            }
        }
    }

    fn discard(&self) {
        let future = self.state.lock().unwrap().future.take();
        drop(future);
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if self.executor.has_stopped.load(SeqCst) {
            self.executor.forget(&self);
            return self.discard();
        }
        if self.executor.is_inline {
            return self.poll();
        }
        let was_woken = std::mem::replace(&mut self.state.lock().unwrap().is_woken, true);
        if !was_woken {
            self.executor.queue.lock().unwrap().push_back(Arc::clone(&self));
            self.executor.changed.notify_one();
        }
    }
}
