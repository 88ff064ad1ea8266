//! Tasks in the background, on async-std's executor or on one that the application brings.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::sync::OnceLock;

use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::{AbortHandle, Abortable, BoxFuture};

type Spawner = dyn Fn(BoxFuture<'static, ()>) + Send + Sync;

static SPAWNER: OnceLock<Box<Spawner>> = OnceLock::new();

/// Runs what this crate does in the background on an executor of the application, for as long as the
/// process lives: connections, handlers, backplanes, and the writing of what is broadcast in rooms.
///
/// `spawner` is given a future to run to its end, which it must not wait for, and is called from any
/// thread that uses this crate. To be set before the first server starts; what runs by then stays where
/// it is. Without it, tasks run on async-std's executor; where that is not part of the build, which is
/// without the feature `server`, each has a thread of its own. Timers and sockets have one thread for
/// all, whatever the executor.
///
/// ```
/// # fn main() -> Result<(), tidewire::SpawnerAlreadySet> {
/// tidewire::set_spawner(|future| smol::spawn(future).detach())?;
/// # Ok(())
/// # }
/// ```
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

/// Runs `future` in the background. It goes on if the handle is dropped.
pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Task {
    match SPAWNER.get() {
        Some(spawner) => Task::on(spawner, future),
        None => Task::on_default(future),
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
}

impl Task {
    fn on(spawner: &Spawner, future: impl Future<Output = ()> + Send + 'static) -> Self {
        let (abort, registration) = AbortHandle::new_pair();
        let (tell, ended) = oneshot::channel();
        let running = async move {
            let was_aborted = Abortable::new(future, registration).await.is_err();
            // Few want to know.
            let _ = tell.send(was_aborted);
        };
        spawner(running.boxed());
        Self(Handle::Brought { abort, ended })
    }

    #[cfg(feature = "server")]
    fn on_default(future: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Handle::AsyncStd(async_std::task::spawn(future)))
    }

    #[cfg(not(feature = "server"))]
    fn on_default(future: impl Future<Output = ()> + Send + 'static) -> Self {
        let thread = |future| blocking::unblock(|| async_io::block_on(future)).detach();
        Self::on(&thread, future)
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
        }
    }
}
