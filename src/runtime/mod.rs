//! The async runtime: tasks, timers and sockets.
//!
//! The only folder that names async-std and async-io. Everything above speaks `futures::io` and the
//! handful of types here, so another runtime means another version of it. `listener` waits for
//! connections, `socket` is one of them, and `task` says where tasks run.

#[cfg(feature = "server")]
mod listener;
mod socket;
#[cfg(feature = "rooms")]
mod task;

use std::future::Future;
#[cfg(any(feature = "server", feature = "client"))]
use std::io;
#[cfg(any(feature = "server", feature = "client"))]
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

#[cfg(feature = "server")]
pub(crate) use async_std::net::ToSocketAddrs;

#[cfg(feature = "server")]
pub(crate) use self::listener::TcpListener;
#[cfg(all(feature = "server", unix))]
pub(crate) use self::listener::UnixListener;
pub(crate) use self::socket::TcpStream;
#[cfg(unix)]
pub(crate) use self::socket::UnixStream;
#[cfg(feature = "server")]
pub(crate) use self::task::Task;
#[cfg(feature = "rooms")]
pub use self::task::{SpawnerAlreadySet, set_spawner};
#[cfg(feature = "rooms")]
pub(crate) use self::task::{has_executor, spawn};

/// Runs `future` on this thread, to its end.
#[cfg(all(test, feature = "server"))]
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    async_std::task::block_on(future)
}

/// The end of a timeout that begins now. One beyond the reach of the clock never comes.
pub(crate) fn after(timeout: Duration) -> Instant {
    later(Instant::now(), timeout)
}

/// The end of a timeout that begins then. One beyond the reach of the clock never comes.
pub(crate) fn later(then: Instant, timeout: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
    then.checked_add(timeout).or_else(|| then.checked_add(FAR)).unwrap_or(then)
}

/// The last point before `at` on a grid that all connections share: what goes off together wakes
/// the threads once.
pub(crate) fn align(at: Instant, grid: Duration) -> Instant {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let beyond = at.saturating_duration_since(*START).as_nanos() % grid.as_nanos().max(1);
    let beyond = Duration::from_nanos(u64::try_from(beyond).unwrap_or_default());
    at.checked_sub(beyond).unwrap_or(at)
}

/// Completes at a point in time.
#[derive(Debug)]
pub(crate) struct Timer(async_io::Timer);

impl Timer {
    /// A timer for `deadline`; it reaches the reactor only when it is first polled.
    pub(crate) fn at(deadline: Instant) -> Self {
        Self(async_io::Timer::at(deadline))
    }

    /// Moves the timer to another point in time.
    pub(crate) fn set_at(&mut self, deadline: Instant) {
        self.0.set_at(deadline);
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx).map(drop)
    }
}

/// Waits for `future`; `None` if `deadline` comes first.
#[cfg(any(feature = "accept", feature = "client"))]
pub(crate) async fn until<T>(
    deadline: Option<Instant>,
    future: impl Future<Output = T>,
) -> Option<T> {
    use futures::future::{Either, select};

    let Some(deadline) = deadline else { return Some(future.await) };
    match select(std::pin::pin!(future), Timer::at(deadline)).await {
        Either::Left((outcome, _)) => Some(outcome),
        Either::Right(_) => None,
    }
}

/// Looks up the socket addresses behind a name.
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
    blocking::unblock(move || (host, port).to_socket_addrs().map(Iterator::collect)).await
}
