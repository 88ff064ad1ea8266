//! Background tasks, on async-std's executor or on one that the application brings.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::{AbortHandle, Abortable, BoxFuture};

#[cfg(feature = "server")]
use super::tokio::Tokio;
#[cfg(feature = "server")]
use super::worker::{self, Place, Resident, Worker};
use crate::foreign;
use crate::foreign::Contained;
use crate::records::record;

type Spawner = dyn Fn(BoxFuture<'static, ()>) + Send + Sync;

static SPAWNER: OnceLock<Box<Spawner>> = OnceLock::new();

/// Whether the application has brought an executor.
#[cfg(feature = "server")]
pub(crate) fn has_spawner() -> bool {
    SPAWNER.get().is_some()
}

/// What may drop a task instead of running it, for messages: the application's executor, or a tokio runtime.
pub(crate) fn executor_name() -> &'static str {
    if SPAWNER.get().is_some() {
        "the executor of `set_spawner`"
    } else {
        "the tokio runtime of the server"
    }
}

/// Whether the last task was refused. Of several refusals in a row, only the first is logged.
static IS_REFUSED: AtomicBool = AtomicBool::new(false);

/// Sets the executor for the background tasks of this crate, for the rest of the process: connections,
/// handlers, backplanes, and the writing of broadcasts in rooms.
///
/// `spawner` gets a future, and has to run it to its end without waiting for it. It is called from any thread
/// that uses this crate. Set it before the first server starts; tasks that run already stay where they are.
/// Without a spawner, tasks run on async-std's executor; in a build without the feature `server`, which has no
/// async-std, it is the same executor by its own name, async-global-executor. Timers and sockets share one thread, on
/// any executor.
///
/// The spawner may poll the future before it returns, and leave the rest to another thread. No lock of this
/// crate is held while a spawner or a waker is called.
///
/// # An executor that is gone
///
/// The spawner, or its executor later on, may drop a future instead of running it, as tokio does while a runtime
/// shuts down. A spawner that panics counts as one that drops the future. The resources of such a task are then
/// given back: its connection is closed without a close frame, its permits and memberships are free, and an
/// upgrade whose handler has no task is refused with 503. The first refusal after a task that ran is logged at
/// level error. `Server::start` fails. `Server::listen` goes on accepting connections, and closes them, until
/// the server is shut down; the shutdown then runs on a thread of its own. If an executor keeps a future and
/// never polls it, its connection stays open until the server is shut down and its `grace` is over.
///
/// ```
/// # fn main() -> Result<(), tidewire::executor::SpawnerAlreadySet> {
/// tidewire::executor::set_spawner(|future| smol::spawn(future).detach())?;
/// # Ok(())
/// # }
/// ```
///
/// # On tokio
///
/// With the feature `tokio`, a server on tokio needs no spawner: its handlers run in the context of the runtime that
/// it is started in. See `ServerOptions::tokio`. What belongs to no connection, such as the accepting of connections by
/// `Server::start` and the tasks of a backplane, runs on async-std's executor then.
///
/// To have all tasks run on tokio, use `move |future| drop(runtime.spawn(future))` with a `tokio::runtime::Handle` of a
/// runtime that lives as long as its servers. A spawner takes precedence over the feature for servers without workers.
///
/// # Errors
///
/// [`SpawnerAlreadySet`] if a spawner was set before.
pub fn set_spawner(
    spawner: impl Fn(BoxFuture<'static, ()>) + Send + Sync + 'static,
) -> Result<(), SpawnerAlreadySet> {
    SPAWNER.set(Box::new(spawner)).map_err(|_| SpawnerAlreadySet)
}

/// The error of a second call of [`set_spawner`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct SpawnerAlreadySet;

impl fmt::Display for SpawnerAlreadySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a spawner was set before")
    }
}

impl Error for SpawnerAlreadySet {}

/// Runs `future` on a worker. It goes on if the handle is dropped.
#[cfg(feature = "server")]
pub(crate) fn spawn_at(
    place: Place,
    what: Resident,
    future: impl Future<Output = ()> + Send + 'static,
) -> Task {
    let future = Root(Contained::new(Box::pin(future)));
    Task(Handle::Worker(OnWorker(Some(Worker::spawn(place, what, future)))))
}

/// Runs `future` in the background: on the worker of this thread if it is one of a server's. It goes on if the handle is
/// dropped. `None` if the application's executor has dropped it at once.
pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Option<Task> {
    #[cfg(feature = "server")]
    if let Some(place) = worker::place() {
        return Some(spawn_at(place, Resident::Other, future));
    }
    spawn_on_executor(future)
}

/// As [`spawn`], for a task that belongs to no connection: it runs on the executor, and may outlive a server.
pub(crate) fn spawn_on_executor(future: impl Future<Output = ()> + Send + 'static) -> Option<Task> {
    let future = Root(Contained::new(Box::pin(future)));
    match SPAWNER.get() {
        Some(spawner) => Task::brought(spawner, future),
        #[cfg(feature = "server")]
        None => Some(Task(Handle::AsyncStd(async_std::task::spawn(future)))),
        #[cfg(not(feature = "server"))]
        None => {
            async_global_executor::spawn(future).detach();
            Some(Task(Handle::Detached))
        }
    }
}

/// As [`spawn`], for a task of a server that has no workers, or whose workers have ended: without a spawner, it runs on
/// the server's tokio runtime if there is one. `None` if that has dropped it at once.
#[cfg(feature = "server")]
pub(crate) fn spawn_for_server(
    tokio: &Tokio,
    future: impl Future<Output = ()> + Send + 'static,
) -> Option<Task> {
    match tokio.spawner().filter(|_| !has_spawner()) {
        Some(spawner) => Task::brought(spawner, Root(Contained::new(Box::pin(future)))),
        None => spawn(future),
    }
}

/// Runs `future` in the background, even if the application's executor is gone.
#[cfg(feature = "server")]
pub(crate) fn spawn_apart(future: impl Future<Output = ()> + Send + 'static) {
    match SPAWNER.get() {
        Some(_) => blocking::unblock(|| async_io::block_on(future)).detach(),
        None => drop(async_std::task::spawn(future)),
    }
}

/// The future of a task. A panic in it ends it, and a panic while it is dropped is contained.
struct Root<F>(Contained<Pin<Box<F>>>);

impl<F: Future<Output = ()>> Future for Root<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.with(|future| future.as_mut().poll(cx)).unwrap_or_else(|panic| {
            record!(error, "a task panicked", error = panic.0);
            Poll::Ready(())
        })
    }
}

/// A background task.
#[derive(Debug)]
#[cfg_attr(not(feature = "server"), expect(dead_code, reason = "the server alone ends tasks"))]
pub(crate) struct Task(Handle);

#[derive(Debug)]
#[cfg_attr(not(feature = "server"), expect(dead_code, reason = "the server alone ends tasks"))]
enum Handle {
    #[cfg(feature = "server")]
    AsyncStd(async_std::task::JoinHandle<()>),
    #[cfg(feature = "server")]
    Worker(OnWorker),
    Brought {
        abort: AbortHandle,
        /// Receives, once the future is gone, whether it was dropped before its end.
        ended: oneshot::Receiver<bool>,
    },
    /// The future had ended when the spawner returned.
    Ended,
    #[cfg(not(feature = "server"))]
    Detached,
}

impl Task {
    /// Runs `future` by a spawner of the application, or of tokio; `None` if that has dropped it.
    fn brought(
        spawner: impl Fn(BoxFuture<'static, ()>),
        future: impl Future<Output = ()> + Send + 'static,
    ) -> Option<Self> {
        let (abort, registration) = AbortHandle::new_pair();
        let (tell, mut ended) = oneshot::channel();
        let running = async move {
            let was_aborted = Abortable::new(future, registration).await.is_err();
            // Fails if the handle is gone, as is usual.
            let _ = tell.send(was_aborted);
        };
        let running = running.boxed();
        let called = foreign::attempt(|| spawner(running));
        let handle = match ended.try_recv() {
            Ok(None) => Handle::Brought { abort, ended },
            Ok(Some(_)) => Handle::Ended,
            Err(oneshot::Canceled) => {
                if !IS_REFUSED.swap(true, Relaxed) {
                    let who = executor_name();
                    let how = if called.is_ok() { "drops tasks" } else { "panics" };
                    record!(error, "a task is refused", how = how, executor = who);
                }
                return None;
            }
        };
        IS_REFUSED.store(false, Relaxed);
        Some(Self(handle))
    }

    /// Drops the task's future, and waits until that is done; false if it had ended before.
    #[cfg(feature = "server")]
    pub(crate) async fn cancel(self) -> bool {
        match self.0 {
            Handle::AsyncStd(task) => task.cancel().await.is_none(),
            Handle::Worker(mut task) => match task.0.take() {
                Some(task) => task.cancel().await.is_none(),
                None => false,
            },
            Handle::Brought { abort, ended } => {
                abort.abort();
                // An executor that is gone has dropped the future, too.
                ended.await.unwrap_or(true)
            }
            Handle::Ended => false,
        }
    }
}

/// A task of a worker. It goes on if this is dropped: the handle of async-task would cancel it.
#[cfg(feature = "server")]
#[derive(Debug)]
struct OnWorker(Option<async_task::Task<()>>);

#[cfg(feature = "server")]
impl Drop for OnWorker {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.detach();
        }
    }
}
