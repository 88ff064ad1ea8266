//! The async runtime: tasks, timers and sockets.
//!
//! No other folder names async-std, async-io, mio or tokio. All code above uses `futures::io` and the few types of this
//! folder, so another runtime would need another version of this folder only. `blocking` runs code that blocks, `clock`
//! holds clocks and timers,
//! `listener` listening sockets, `socket` connected ones, `task` background tasks, `spawned` those that end with
//! something else, `signals` those that ask a program to end, and `tokio` the runtime that a server was started in, for
//! what its handlers use of tokio.
//!
//! There are two engines. A server has workers (`worker`), threads of its own that run its connections. Everything else,
//! and a server with `workers(0)`, runs on an executor and waits on async-io's reactor. What a task creates decides by
//! itself, when it is used first: on the thread of a worker, sockets, timers and tasks are that worker's. `home` tells
//! later on where that was.

#[cfg(any(feature = "server", feature = "client"))]
mod blocking;
mod clock;
#[cfg(feature = "rooms")]
mod home;
#[cfg(feature = "server")]
mod listener;
#[cfg(feature = "testing")]
mod manual_clock;
#[cfg(feature = "server")]
mod signals;
mod socket;
#[cfg(feature = "rooms")]
mod spawned;
#[cfg(feature = "rooms")]
mod task;
#[cfg(feature = "server")]
mod tokio;
#[cfg(feature = "server")]
mod worker;

#[cfg(any(feature = "axum", all(test, feature = "server")))]
use std::future::Future;
#[cfg(any(feature = "server", feature = "client"))]
use std::io;
#[cfg(any(feature = "server", feature = "client"))]
use std::net::SocketAddr;

/// Work of [`unblock`]. Dropped, it does not begin; once it has begun, it goes on to its end.
#[cfg(feature = "server")]
pub(crate) use ::blocking::Task as Unblocked;
#[cfg(feature = "tokio")]
pub(crate) use ::tokio::runtime::Handle as TokioHandle;
#[cfg(feature = "server")]
pub(crate) use async_std::net::ToSocketAddrs;

#[cfg(any(feature = "server", feature = "client"))]
pub use self::blocking::blocking;
pub(crate) use self::clock::{Clock, Timer, align, later};
#[cfg(feature = "rooms")]
pub(crate) use self::home::Home;
#[cfg(feature = "server")]
pub(crate) use self::listener::TcpListener;
#[cfg(all(feature = "server", unix))]
pub(crate) use self::listener::UnixListener;
#[cfg(feature = "testing")]
pub use self::manual_clock::ManualClock;
#[cfg(feature = "server")]
pub(crate) use self::signals::signals_if_caught;
#[cfg(feature = "server")]
pub use self::signals::{Signals, signals};
pub(crate) use self::socket::TcpStream;
#[cfg(unix)]
pub(crate) use self::socket::UnixStream;
#[cfg(feature = "server")]
pub(crate) use self::socket::set_options;
#[cfg(feature = "rooms")]
pub use self::spawned::Spawned;
#[cfg(feature = "rooms")]
pub(crate) use self::spawned::until;
#[cfg(feature = "rooms")]
pub use self::task::{SpawnerAlreadySet, set_spawner};
#[cfg(feature = "server")]
pub(crate) use self::task::{Task, executor_name, has_spawner, spawn_apart, spawn_for_server};
#[cfg(feature = "rooms")]
pub(crate) use self::task::{spawn, spawn_on_executor};
#[cfg(feature = "server")]
pub(crate) use self::tokio::Tokio;
#[cfg(feature = "server")]
pub(crate) use self::worker::{Label, Resident, WorkerStats, Workers};

/// The number of workers of a server that does not say it.
#[cfg(feature = "server")]
pub(crate) fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs `future` to its end on this thread.
#[cfg(all(test, feature = "server"))]
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    async_std::task::block_on(future)
}

/// Lets other tasks run: this task goes to the end of the queue.
#[cfg(any(feature = "accept", feature = "rooms"))]
pub(crate) async fn yield_now() {
    let mut has_yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut has_yielded, true) {
            return std::task::Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

/// Does work that may wait for a disk on a thread that is there for that. If the work panics, so does the task that
/// waits for it.
#[cfg(feature = "server")]
pub(crate) fn unblock<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Unblocked<T> {
    ::blocking::unblock(work)
}

/// Runs a future in a task of the tokio runtime of this thread; `None` if there is none.
#[cfg(feature = "axum")]
pub(crate) fn spawn_on_tokio(future: impl Future<Output = ()> + Send + 'static) -> Option<()> {
    let runtime = ::tokio::runtime::Handle::try_current().ok()?;
    let _goes_on = runtime.spawn(future);
    Some(())
}

/// Looks up the socket addresses of a name.
#[cfg(feature = "server")]
pub(crate) async fn resolve(addrs: impl ToSocketAddrs<Iter: Send>) -> io::Result<Vec<SocketAddr>> {
    addrs.to_socket_addrs().await.map(Iterator::collect)
}

/// Looks up the addresses of a host.
#[cfg(feature = "client")]
pub(crate) async fn lookup(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    use std::net::ToSocketAddrs;

    if let Ok(ip) = host.parse() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let host = host.to_owned();
    ::blocking::unblock(move || (host, port).to_socket_addrs().map(Iterator::collect)).await
}
