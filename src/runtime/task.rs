//! Tasks in the background, on async-std's executor or on one that the application brings.

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

use crate::foreign;
use crate::foreign::Contained;

type Spawner = dyn Fn(BoxFuture<'static, ()>) + Send + Sync;

static SPAWNER: OnceLock<Box<Spawner>> = OnceLock::new();

/// Whether the last task was refused: of several in a row the log tells of the first.
static IS_REFUSED: AtomicBool = AtomicBool::new(false);

/// Runs what this crate does in the background on an executor of the application, for as long as the
/// process lives: connections, handlers, backplanes, and the writing of what is broadcast in rooms.
///
/// `spawner` is given a future to run to its end, which it must not wait for, and is called from any
/// thread that uses this crate. To be set before the first server starts; what runs by then stays where
/// it is. Without it, tasks run on async-std's executor; where that is not part of the build, which is
/// without the feature `server`, each has a thread of its own. Timers and sockets have one thread for
/// all, whatever the executor.
///
/// The spawner may begin with the future before it returns, and hand the rest to another thread. It is never
/// called under a lock of this crate, and neither is a waker.
///
/// # An executor that is gone
///
/// The spawner, or its executor later on, may drop a future instead of running it, as tokio does while a
/// runtime shuts down; a spawner that panics has dropped it, too. What the task had is then given back: its
/// connection is closed without a word, permits and memberships are free, and an upgrade whose handler has
/// no task is refused with 503. The first refusal after a task that was taken is logged at level error.
/// `Server::start` fails, and `Server::listen` goes on to accept connections, and to close them, until the
/// server is shut down, which has a thread of its own then. A future that is kept and never polled keeps its
/// connection until the server is shut down and its `grace` is over.
///
/// ```
/// # fn main() -> Result<(), tidewire::SpawnerAlreadySet> {
/// tidewire::set_spawner(|future| smol::spawn(future).detach())?;
/// # Ok(())
/// # }
/// ```
///
/// On tokio it is `move |future| drop(runtime.spawn(future))` with a `tokio::runtime::Handle`, of a runtime
/// that lasts as long as its servers do.
///
/// # Errors
///
/// [`SpawnerAlreadySet`] if there is one.
pub fn set_spawner(
    spawner: impl Fn(BoxFuture<'static, ()>) + Send + Sync + 'static,
) -> Result<(), SpawnerAlreadySet> {
    SPAWNER.set(Box::new(spawner)).map_err(|_| SpawnerAlreadySet)
}

/// [`set_spawner`] was called before.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct SpawnerAlreadySet;

impl fmt::Display for SpawnerAlreadySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("there is a spawner already")
    }
}

impl Error for SpawnerAlreadySet {}

/// Do tasks run on an executor, so that one costs little?
pub(crate) fn has_executor() -> bool {
    cfg!(feature = "server") || SPAWNER.get().is_some()
}

/// Runs `future` in the background. It goes on if the handle is dropped. `None` if the executor of the
/// application has dropped it at once.
pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Option<Task> {
    let future = Root(Contained::new(Box::pin(future)));
    match SPAWNER.get() {
        Some(spawner) => Task::brought(spawner, future),
        #[cfg(feature = "server")]
        None => Some(Task(Handle::AsyncStd(async_std::task::spawn(future)))),
        #[cfg(not(feature = "server"))]
        None => {
            let thread = |future| blocking::unblock(|| async_io::block_on(future)).detach();
            Task::brought(&thread, future)
        }
    }
}

/// Runs `future` in the background, whatever has become of the executor of the application.
#[cfg(feature = "server")]
pub(crate) fn spawn_apart(future: impl Future<Output = ()> + Send + 'static) {
    match SPAWNER.get() {
        Some(_) => blocking::unblock(|| async_io::block_on(future)).detach(),
        None => drop(async_std::task::spawn(future)),
    }
}

/// The future of a task. It ends with what panics in it; dropped, it is dropped with care.
struct Root<F>(Contained<Pin<Box<F>>>);

impl<F: Future<Output = ()>> Future for Root<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.with(|future| future.as_mut().poll(cx)).unwrap_or_else(|| {
            foreign::tell(|| log::error!("a task panicked"));
            Poll::Ready(())
        })
    }
}

/// A task in the background.
#[derive(Debug)]
#[cfg_attr(not(feature = "server"), expect(dead_code, reason = "the server alone ends tasks"))]
pub(crate) struct Task(Handle);

#[derive(Debug)]
#[cfg_attr(not(feature = "server"), expect(dead_code, reason = "the server alone ends tasks"))]
enum Handle {
    #[cfg(feature = "server")]
    AsyncStd(async_std::task::JoinHandle<()>),
    Brought {
        abort: AbortHandle,
        /// Whether the future was dropped before its end, once it is gone.
        ended: oneshot::Receiver<bool>,
    },
    /// It had come to its end when the spawner returned.
    Ended,
}

impl Task {
    /// Runs `future` where the application says; `None` if it was dropped there.
    fn brought(
        spawner: &Spawner,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> Option<Self> {
        let (abort, registration) = AbortHandle::new_pair();
        let (tell, mut ended) = oneshot::channel();
        let running = async move {
            let was_aborted = Abortable::new(future, registration).await.is_err();
            // Few want to know.
            let _ = tell.send(was_aborted);
        };
        let running = running.boxed();
        let called = foreign::attempt(|| spawner(running));
        let handle = match ended.try_recv() {
            Ok(None) => Handle::Brought { abort, ended },
            Ok(Some(_)) => Handle::Ended,
            Err(oneshot::Canceled) => {
                if !IS_REFUSED.swap(true, Relaxed) {
                    let how = if called.is_ok() { "drops tasks" } else { "panics" };
                    let told = || log::error!("the executor that `set_spawner` has brought {how}");
                    let _ = foreign::attempt(told);
                }
                return None;
            }
        };
        IS_REFUSED.store(false, Relaxed);
        Some(Self(handle))
    }

    /// Drops the task's future where it stands, and waits until that is done; false if it had come to
    /// its end before.
    #[cfg(feature = "server")]
    pub(crate) async fn cancel(self) -> bool {
        match self.0 {
            Handle::AsyncStd(task) => task.cancel().await.is_none(),
            Handle::Brought { abort, ended } => {
                abort.abort();
                // An executor that is gone has dropped the future, too.
                ended.await.unwrap_or(true)
            }
            Handle::Ended => false,
        }
    }
}
