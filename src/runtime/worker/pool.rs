//! The workers of a server: which one gets the next task, their threads, and their end.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::thread;

use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::Shared;

use super::pass::{Left, Resident, Worker};
use super::stall::Watch;
use super::turn::Turn;
use crate::runtime::Tokio;
use crate::runtime::task::{self, Task, spawn_at};
use crate::sync::{Condition, Mutex};

/// Threads that may be inside tasks that do not return, besides the owners. When there are so many, a worker that
/// stalls stays so.
const MOST_STALLED: usize = 64;

/// The workers of a server.
///
/// They end once the server has ended and nothing is left on them: no task, no socket, no timer.
#[derive(Debug)]
pub(crate) struct Workers(Arc<Pool>, Ended);

/// Completes when the last thread, and with it the pool, is gone.
type Ended = Shared<oneshot::Receiver<()>>;

#[derive(Debug)]
struct Pool {
    workers: Vec<Arc<Worker>>,
    watch: Arc<Watch>,
    tokio: Tokio,
    threads: Mutex<Threads>,
    changed: Condition,
    /// Dropped last.
    _end: oneshot::Sender<()>,
}

#[derive(Debug, Default)]
struct Threads {
    /// Workers that wait for a thread.
    vacant: VecDeque<(Arc<Worker>, Turn)>,
    /// Threads that wait for a worker.
    spare: usize,
    /// All threads but the supervisor's.
    all: usize,
    /// Workers that have not ended.
    left: usize,
}

/// A look at one worker.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct WorkerStats {
    /// Whether a task has not returned, so that another thread went on.
    #[cfg(feature = "testing")]
    pub(crate) is_stalled: bool,
    /// Tasks that have not ended: connections, and what handlers have spawned.
    pub(crate) tasks: usize,
    /// Connections that have not ended.
    pub(crate) connections: usize,
    /// Tasks that wait for their turn.
    pub(crate) queued: usize,
    /// Times that a task did not return for 20 ms, so that another thread went on.
    pub(crate) stalls: u64,
}

impl Workers {
    /// Starts so many workers, at least one, each on a thread in the context of `tokio`.
    pub(crate) fn start(count: usize, tokio: Tokio) -> io::Result<Self> {
        let count = count.max(1);
        let watch = Arc::new(Watch::default());
        let workers = (0..count).map(|_| Worker::new(Arc::clone(&watch)).map(Arc::new));
        let workers: Vec<_> = workers.collect::<io::Result<_>>()?;
        // All of them at once: if a thread cannot be started, the others end what is left for it.
        let vacant = workers.iter().map(|worker| (Arc::clone(worker), worker.turn())).collect();
        let threads = Threads { vacant, left: count, ..Threads::default() };
        let (end, ended) = oneshot::channel();
        let pool = Pool {
            workers,
            watch,
            tokio,
            threads: Mutex::new(threads),
            changed: Condition::default(),
            _end: end,
        };
        let this = Self(Arc::new(pool), ended.shared());
        for _ in 0..count {
            // If one cannot be started, dropping `this` ends the workers.
            this.0.start_thread()?;
        }
        let pool = Arc::clone(&this.0);
        let supervise = move || {
            pool.watch.supervise(&pool.workers, |worker, turn| pool.replace(worker, turn));
        };
        thread::Builder::new().name("tidewire-supervisor".to_owned()).spawn(supervise)?;
        Ok(this)
    }

    /// Runs a connection on the worker of this thread if it is one of these, else where [`spread`](Self::spread) does.
    /// `None` if the workers have ended and the application's executor has dropped it at once.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) -> Option<Task> {
        match self.own() {
            Some(own) => self.spawn_at(&own, Resident::Connection, future),
            None => self.spread(Resident::Connection, future),
        }
    }

    /// Runs `future` on the worker with the fewest connections: of several the one of this thread, which need not be
    /// woken. `None` as for [`spawn`](Self::spawn).
    pub(crate) fn spread(
        &self,
        what: Resident,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> Option<Task> {
        let own = self.own();
        let fewest = own.iter().chain(&self.0.workers).min_by_key(|worker| worker.connections());
        match fewest {
            Some(worker) => self.spawn_at(worker, what, future),
            None => task::spawn_for_server(&self.0.tokio, future),
        }
    }

    fn spawn_at(
        &self,
        worker: &Arc<Worker>,
        what: Resident,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> Option<Task> {
        match worker.live() {
            Some(place) => Some(spawn_at(place, what, future)),
            None => task::spawn_for_server(&self.0.tokio, future),
        }
    }

    /// The worker of this thread, if it is one of these.
    fn own(&self) -> Option<Arc<Worker>> {
        super::current().filter(|it| self.0.workers.iter().any(|own| Arc::ptr_eq(own, it)))
    }

    /// Has the workers end, each as soon as nothing lives on it. The future completes when the threads have ended and,
    /// if nobody refers to the workers any more, their descriptors are closed.
    pub(crate) fn end(&self) -> impl Future<Output = ()> + use<> {
        self.0.workers.iter().for_each(|worker| worker.end());
        self.1.clone().map(drop)
    }

    pub(crate) fn stats(&self) -> Vec<WorkerStats> {
        let stats = |worker: &Arc<Worker>| WorkerStats {
            // Before the queue: a task that returns in between is not missed, and neither are those that it wakes.
            #[cfg(feature = "testing")]
            is_stalled: worker.stalls().are_present(),
            tasks: worker.tasks(),
            connections: worker.connections(),
            queued: worker.queued(),
            stalls: worker.stalls().count(),
        };
        self.0.workers.iter().map(stats).collect()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        drop(self.end());
    }
}

impl Pool {
    /// Has a thread run the worker: a spare, or a new one.
    fn give(self: &Arc<Self>, worker: &Arc<Worker>, turn: Turn) -> io::Result<()> {
        let mut threads = self.threads.lock();
        threads.vacant.push_back((Arc::clone(worker), turn));
        if threads.spare >= threads.vacant.len() {
            drop(threads);
            self.changed.notify_one();
            return Ok(());
        }
        drop(threads);
        // Without a thread, the worker waits for one that comes back.
        self.start_thread()
    }

    fn start_thread(self: &Arc<Self>) -> io::Result<()> {
        self.threads.lock().all += 1;
        let pool = Arc::clone(self);
        // A spare that continues a worker is in the same context.
        let serve = move || pool.tokio.enter(|| pool.serve());
        let started = thread::Builder::new().name("tidewire-worker".to_owned()).spawn(serve);
        if started.is_err() {
            self.threads.lock().all -= 1;
        }
        started.map(drop)
    }

    /// Continues a worker whose owner does not return.
    fn replace(self: &Arc<Self>, worker: &Arc<Worker>, seen: Turn) {
        let most = self.workers.len() + MOST_STALLED;
        let is_possible = {
            let threads = self.threads.lock();
            threads.spare > 0 || threads.all < most
        };
        if let Some(turn) = is_possible.then(|| worker.take_over(seen)).flatten() {
            // Without a thread to be had, the next spare takes it.
            let _ = self.give(worker, turn);
        }
    }

    /// The life of a thread: it runs one worker after another, and is a spare in between.
    fn serve(self: &Arc<Self>) {
        while let Some((worker, turn)) = self.next() {
            if worker.run(turn) == Left::Ended {
                let mut threads = self.threads.lock();
                threads.left -= 1;
                let is_last = threads.left == 0;
                drop(threads);
                if is_last {
                    self.watch.end();
                    self.changed.notify_all();
                }
            }
        }
    }

    /// Waits for a worker to run; `None` if there will be none.
    fn next(&self) -> Option<(Arc<Worker>, Turn)> {
        let mut threads = self.threads.lock();
        threads.spare += 1;
        loop {
            let next = threads.vacant.pop_front();
            if next.is_some() || threads.left == 0 {
                threads.spare -= 1;
                threads.all -= usize::from(next.is_none());
                return next;
            }
            threads = self.changed.wait(threads);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};
    use std::mem::ManuallyDrop;
    use std::net::{TcpListener, TcpStream};
    use std::sync::Mutex as StdMutex;
    use std::sync::mpsc;
    use std::task::{Poll, Waker};
    use std::time::{Duration, Instant};

    use futures::io::AsyncReadExt;

    use super::*;
    use crate::runtime::socket::Socket;
    use crate::runtime::{Clock, block_on, yield_now};

    fn start(count: usize) -> Workers {
        Workers::start(count, Tokio::default()).unwrap()
    }

    /// Runs `future` on the workers, and waits for its value.
    fn run<T: Send + 'static>(
        workers: &Workers,
        future: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let (tell, told) = oneshot::channel();
        workers.spawn(async move {
            // Fails if the test has given up.
            let _ = tell.send(future.await);
        });
        block_on(told).unwrap()
    }

    /// Waits until the workers have no thread left.
    fn wait_for_end(pool: &Pool) {
        while pool.threads.lock().all > 0 {
            thread::yield_now();
        }
    }

    #[test]
    fn tasks_that_other_threads_wake_run_on_their_worker() {
        let workers = start(2);
        let (first, second) = run(&workers, async {
            let first = thread::current().id();
            let (wake, woken) = oneshot::channel();
            thread::spawn(move || wake.send(()));
            woken.await.unwrap();
            (first, thread::current().id())
        });
        assert_eq!(first, second);
    }

    #[test]
    fn threads_end_when_nothing_lives_on_the_workers() {
        let workers = start(2);
        let pool = Arc::clone(&workers.0);
        let (release, released) = oneshot::channel::<()>();
        let (tell, told) = oneshot::channel();
        workers.spawn(async move {
            let _ = released.await;
            Clock::default().timer(Instant::now() + Duration::from_millis(1)).await;
            let _ = tell.send(super::super::current().is_some());
        });
        drop(workers);
        // A worker that ends goes on with what lives there.
        release.send(()).unwrap();
        assert!(block_on(told).unwrap());
        wait_for_end(&pool);
        assert!(pool.workers.iter().all(|worker| worker.live().is_none()), "they are closed");
    }

    #[test]
    fn what_is_spawned_after_the_end_runs_elsewhere() {
        let workers = start(1);
        drop(workers.end());
        wait_for_end(&workers.0);
        assert!(run(&workers, async { super::super::current().is_none() }));
    }

    #[test]
    fn timers_are_due_in_their_order_and_can_be_moved_by_another_thread() {
        let workers = start(1);
        let clock = Clock::default();
        let order = Arc::new(StdMutex::new(Vec::new()));
        let begun = Instant::now();
        let tasks = [30, 10, 20].map(|millis| {
            let (order, clock) = (Arc::clone(&order), clock.clone());
            async move {
                clock.timer(begun + Duration::from_millis(millis)).await;
                order.lock().unwrap().push(millis);
            }
        });
        run(&workers, futures::future::join_all(tasks));
        assert_eq!(*order.lock().unwrap(), [10, 20, 30]);
        assert!(begun.elapsed() >= Duration::from_millis(30));
        // The worker is parked until an hour from now, and then a thread that is no worker sets the timer.
        let (mut timer,) = run(&workers, async move {
            let mut timer = clock.timer(begun + Duration::from_secs(3600));
            let once =
                poll_fn(|cx| Poll::Ready(std::pin::Pin::new(&mut timer).poll(cx).is_ready()));
            assert!(!once.await);
            (timer,)
        });
        timer.set_at(Instant::now());
        block_on(timer);
    }

    #[test]
    fn ten_thousand_timers_at_once_let_others_run() {
        let workers = start(1);
        let clock = Clock::default();
        let at = Instant::now() + Duration::from_millis(20);
        for _ in 0..10_000 {
            workers.spawn(clock.timer(at));
        }
        while workers.stats()[0].tasks > 0 {
            run(&workers, yield_now());
        }
    }

    #[test]
    fn a_worker_whose_task_blocks_is_continued_by_another_thread() {
        let workers = start(1);
        let (release, may_go) = mpsc::channel::<()>();
        let (tell, told) = oneshot::channel();
        let (say, said) = oneshot::channel();
        workers.spawn(async move {
            say.send(thread::current().id()).unwrap();
            let _ = may_go.recv();
            // It is still the worker's, and goes on there.
            yield_now().await;
            tell.send(thread::current().id()).unwrap();
        });
        let blocked = block_on(said).unwrap();
        let next = run(&workers, async { thread::current().id() });
        assert_ne!(blocked, next);
        assert_eq!(workers.stats()[0].stalls, 1);
        release.send(()).unwrap();
        assert_eq!(block_on(told).unwrap(), next);
        let pool = Arc::clone(&workers.0);
        // The thread that was blocked is a spare.
        while pool.threads.lock().spare == 0 {
            thread::yield_now();
        }
        assert_eq!(pool.threads.lock().all, 2);
        drop(workers);
        wait_for_end(&pool);
    }

    #[test]
    fn a_panic_of_a_task_a_waker_or_a_destructor_ends_no_worker() {
        struct Bomb;

        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("on purpose");
            }
        }

        impl std::task::Wake for Bomb {
            fn wake(self: Arc<Self>) {
                std::mem::forget(self);
                panic!("on purpose");
            }
        }

        let workers = start(1);
        let worker = run(&workers, async { super::super::current().unwrap() });
        workers.spawn(async { panic!("on purpose") });
        workers.spawn(async {
            let _bomb = Bomb;
        });
        // A timer of this worker, with a waker that panics, and would also if it were dropped.
        let waker = ManuallyDrop::new(Waker::from(Arc::new(Bomb)));
        let _timer = loop {
            let (mut timer,) = run(&workers, async {
                (Box::pin(Clock::default().timer(Instant::now() + Duration::from_millis(5))),)
            });
            // On a busy machine its time may be over before it is asked.
            if timer.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending() {
                break timer;
            }
        };
        while worker.timers().first().is_some() {
            thread::yield_now();
        }
        // A task that is dropped with its worker's queue, and not polled.
        let task = workers.spawn(async {
            let _bomb = Bomb;
            pending::<()>().await;
        });
        block_on(task.unwrap().cancel());
        assert!(run(&workers, async { true }));
    }

    #[test]
    fn an_end_that_comes_with_the_last_bytes_is_seen() {
        let workers = start(1);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        for _ in 0..10_000 {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (socket, _) = listener.accept().unwrap();
            socket.set_nonblocking(true).unwrap();
            let (ready, is_ready) = oneshot::channel();
            let (tell, told) = oneshot::channel();
            workers.spawn(async move {
                let mut socket = Socket::accepted(socket);
                let mut bytes = Vec::new();
                ready.send(()).unwrap();
                let read = socket.read_to_end(&mut bytes).await;
                tell.send((read.is_ok(), bytes)).unwrap();
            });
            block_on(is_ready).unwrap();
            io::Write::write_all(&mut client, b"the last").unwrap();
            drop(client);
            assert_eq!(block_on(told).unwrap(), (true, b"the last".to_vec()));
        }
        while workers.stats()[0].tasks > 0 {
            thread::yield_now();
        }
    }
}
