//! Tasks, polled when they have been woken, one at a time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use futures::future::BoxFuture;

use super::judge::owe;

/// More polls than a world takes between two events.
const MOST_POLLS: usize = 20_000;

/// Returns the futures that the crate has spawned since the last call.
pub(crate) type Spawned = fn() -> Vec<BoxFuture<'static, ()>>;

pub(super) struct Executor {
    tasks: Mutex<Vec<Arc<Task>>>,
    spawned: Spawned,
}

/// A future, and whether it has been woken.
pub(super) struct Task {
    pub(super) name: String,
    /// `None` once it has ended or was dropped.
    future: Mutex<Option<BoxFuture<'static, ()>>>,
    flag: Mutex<Arc<Flag>>,
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Executor {
    pub(super) fn new(spawned: Spawned) -> Self {
        // Futures of another world are not for this one.
        drop(spawned());
        Self { tasks: Mutex::default(), spawned }
    }

    pub(super) fn spawn(
        &self,
        name: String,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> Arc<Task> {
        let task = Arc::new(Task {
            name,
            future: Mutex::new(Some(Box::pin(future))),
            flag: Mutex::new(Arc::new(Flag(AtomicBool::new(true)))),
        });
        self.tasks.lock().unwrap().push(Arc::clone(&task));
        task
    }

    /// The tasks that have not ended, those that the crate has spawned included.
    pub(super) fn tasks(&self) -> Vec<Arc<Task>> {
        for future in (self.spawned)() {
            self.spawn("background".into(), future);
        }
        let mut tasks = self.tasks.lock().unwrap();
        tasks.retain(|task| !task.has_ended());
        tasks.clone()
    }

    /// The tasks that have been woken.
    pub(super) fn woken(&self) -> Vec<Arc<Task>> {
        let mut tasks = self.tasks();
        tasks.retain(|task| task.is_woken());
        tasks
    }

    /// Polls until no task is woken.
    ///
    /// # Panics
    ///
    /// If that does not come to an end. If that debt is passed over, all tasks are dropped.
    pub(super) fn settle(&self) {
        let mut polls = 0;
        loop {
            let woken = self.woken();
            let Some(last) = woken.last() else { return };
            polls += woken.len();
            if polls > MOST_POLLS {
                owe("rest", &last.name, "woken again and again");
                return self.clear();
            }
            for task in &woken {
                task.poll();
            }
        }
    }

    /// Polls tasks that have been woken, up to so many, on another thread, which is waited for.
    pub(super) fn poll_elsewhere(&self, most: usize) {
        let woken = self.woken();
        let poll = || woken.iter().take(most).for_each(|task| task.poll());
        thread::scope(|scope| scope.spawn(poll).join()).expect("no task panics");
    }

    /// Drops all tasks.
    pub(super) fn clear(&self) {
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap());
        for task in &tasks {
            task.cancel();
        }
    }
}

impl Task {
    /// Polls the future, unless it is being polled by a caller of this.
    pub(super) fn poll(&self) {
        let Ok(mut future) = self.future.try_lock() else { return };
        let Some(running) = &mut *future else { return };
        let flag = Arc::clone(&self.flag.lock().unwrap());
        flag.0.store(false, Ordering::SeqCst);
        let waker = Waker::from(flag);
        if let Poll::Ready(()) = running.as_mut().poll(&mut Context::from_waker(&waker)) {
            *future = None;
        }
    }

    pub(super) fn wake(&self) {
        self.flag.lock().unwrap().0.store(true, Ordering::SeqCst);
    }

    /// Gives the task another waker, as an executor may, and wakes it. The old one wakes nothing.
    pub(super) fn change_waker(&self) {
        *self.flag.lock().unwrap() = Arc::new(Flag(AtomicBool::new(true)));
    }

    /// Drops the future.
    pub(super) fn cancel(&self) {
        let future = self.future.lock().unwrap().take();
        drop(future);
    }

    pub(super) fn is_woken(&self) -> bool {
        self.flag.lock().unwrap().0.load(Ordering::SeqCst)
    }

    pub(super) fn has_ended(&self) -> bool {
        // One that is being polled has not.
        self.future.try_lock().is_ok_and(|future| future.is_none())
    }
}
