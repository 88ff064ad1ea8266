//! The server of a [`TestClient`](super::TestClient): its connections, its time, and whether it is at rest.
//!
//! # Rest
//!
//! The server is at rest when no task of its worker can go on, and no byte is on its way between it and the sockets of
//! the test. [`InMemory::at_rest`] waits for that without sleeping:
//!
//! 1. Each socket of the test does what a client does that runs: it answers pings and close frames, and reads ahead.
//! 2. A task on the worker goes to the end of the queue, until nothing is behind it, and no task has stalled: all tasks
//!    that were woken have run.
//! 3. If a byte has moved since step 1, all of this again.
//!
//! A task that waits for something outside of the server counts as at rest. An executor of the application, or of
//! `workers(0)`, does not show its queue. There the tasks of connections are counted from their waking to the end of
//! their turn (`instance/busy`); tasks that handlers have spawned, and the writing for rooms, are not.
//!
//! # Time
//!
//! Server and sockets share a clock that runs with the system's. [`InMemory::advance`] turns it from one deadline to the
//! next, and each time waits until the server is at rest. So of an hour no heartbeat is left out, and none goes unanswered.

use std::future::Future;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Weak, mpsc};
use std::thread;
use std::time::Duration;

use futures::channel::oneshot;
use futures::lock::Mutex as AsyncMutex;

use super::line::End;
use super::patience::Caller;
use crate::connection::Shared;
use crate::http::Addrs;
use crate::instance::{HandlerFailure, Instance, Tasks};
use crate::runtime::{Clock, Home, ManualClock, WorkerStats, yield_now};
use crate::server::{BoundServer, Server, ServerHandle};
use crate::stream::Stream;
use crate::sync::Mutex;

/// The first of the ports that systems give to clients.
const FIRST_PORT: u16 = 49_152;

/// How long a client that is dropped waits for handlers that are at work.
const LAST_LOOK: Duration = Duration::from_secs(1);

/// A server in memory, with any type of state.
pub(super) struct InMemory {
    serve: Box<dyn Fn(End, Addrs, oneshot::Sender<()>) + Send + Sync>,
    pub(super) handle: ServerHandle,
    /// The number of ports given to connections.
    ports: AtomicU16,
    time: ManualClock,
    /// The sockets of the test.
    sockets: Mutex<Vec<Weak<Shared>>>,
    /// Reads and writes of all connections.
    pub(super) traffic: Arc<AtomicU64>,
    /// One look at a time: two tasks that wait for the end of the queue would wait for each other.
    looking: AsyncMutex<()>,
}

impl InMemory {
    pub(super) fn new<State>(server: &Server<State>, caller: Caller) -> Self
    where
        State: Clone + Send + Sync + 'static,
    {
        let time = ManualClock::running();
        let bound = server.unlisted(&Clock::manual(&time));
        let bound = bound.unwrap_or_else(|error| caller.fail(error));
        let (handle, bound) = (bound.handle(), Arc::new(bound));
        handle.instance().failures.watch(true);
        let serve = Box::new(move |end: End, addrs, served| {
            BoundServer::take_unlisted(&bound, |held| Stream::boxed(end.keep(held)), addrs, served);
        });
        Self {
            serve,
            handle,
            ports: AtomicU16::new(0),
            time,
            sockets: Mutex::default(),
            traffic: Arc::default(),
            looking: AsyncMutex::new(()),
        }
    }

    /// Serves a connection. `served` is dropped without a value if its task is.
    pub(super) fn serve(&self, end: End, addrs: Addrs, served: oneshot::Sender<()>) {
        (self.serve)(end, addrs, served);
    }

    pub(super) fn next_port(&self) -> u16 {
        FIRST_PORT | self.ports.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn instance(&self) -> &Instance {
        self.handle.instance()
    }

    /// The clock of the server and of the test's sockets.
    pub(super) fn clock(&self) -> Clock {
        Clock::manual(&self.time)
    }

    /// Has the socket of a test do its part while the server comes to rest.
    pub(super) fn attend(&self, socket: &Arc<Shared>) {
        let mut sockets = self.sockets.lock();
        sockets.retain(|socket| socket.strong_count() > 0);
        sockets.push(Arc::downgrade(socket));
    }

    /// Waits until the server is at rest.
    pub(super) async fn at_rest(&self) {
        let _alone = self.looking.lock().await;
        loop {
            let before = self.traffic.load(Ordering::SeqCst);
            let sockets: Vec<_> = self.sockets.lock().iter().filter_map(Weak::upgrade).collect();
            for socket in &sockets {
                socket.attend();
            }
            drop(sockets);
            self.tasks_at_rest().await;
            if self.traffic.load(Ordering::SeqCst) == before {
                return;
            }
        }
    }

    async fn tasks_at_rest(&self) {
        let tasks = &self.instance().tasks;
        let (tell, told) = oneshot::channel();
        let asked = Arc::new(());
        let looks = look(tasks, &asked, move || {
            let _ = tell.send(());
        });
        if looks {
            // An error means that the server has ended.
            let _ = told.await;
        }
        // At least once: a test may call this in a loop, beside others in its task.
        yield_now().await;
        while !tasks.are_waiting() {
            yield_now().await;
        }
    }

    /// Turns the time by `by`, one deadline after another. `at_rest` waits for what is due each time.
    pub(super) async fn advance<F: Future<Output = ()>>(
        &self,
        by: Duration,
        at_rest: impl Fn() -> F,
    ) {
        let mut left = by;
        at_rest().await;
        loop {
            let (turned, is_due) = self.time.advance_to_next(left);
            left = left.saturating_sub(turned);
            if is_due {
                at_rest().await;
            } else if left.is_zero() {
                return;
            }
        }
    }
}

/// Calls `told` once the worker of a server has nothing to do, unless `asked` is dropped before; false if there is no
/// worker.
fn look(tasks: &Arc<Tasks>, asked: &Arc<()>, told: impl FnOnce() + Send + 'static) -> bool {
    let (seen, asked) = (Arc::clone(tasks), Arc::downgrade(asked));
    let looking = async move {
        // This task is not in the queue while it runs.
        let is_busy = |worker: &WorkerStats| worker.is_stalled || worker.queued > 0;
        while asked.strong_count() > 0 && seen.workers().iter().any(is_busy) {
            yield_now().await;
        }
        told();
    };
    tasks.spawn_on_worker(looking).is_ok()
}

/// The text for a test of which handlers have failed.
pub(super) fn told(failures: &[HandlerFailure]) -> String {
    let lines: Vec<String> = failures.iter().map(|it| format!("\n  {it}")).collect();
    format!(
        "a handler has failed, and the test has not asked about it:{}\n  \
         `TestClient::failures` takes what has failed, and `expect_failure` waits for it",
        lines.concat()
    )
}

impl Drop for InMemory {
    /// The last client is dropped: handlers that have failed fail the test.
    fn drop(&mut self) {
        if thread::panicking() || !self.instance().failures.is_watched() {
            return;
        }
        // What the test has sent last may be in a handler's hands.
        if !Home::here().is_worker() {
            let (tell, told) = mpsc::channel();
            let asked = Arc::new(());
            let looks = look(&self.instance().tasks, &asked, move || {
                let _ = tell.send(());
            });
            if looks {
                let _ = told.recv_timeout(LAST_LOOK);
            }
        }
        let failures = self.instance().failures.take();
        assert!(failures.is_empty(), "{}", told(&failures));
    }
}
