//! The async runtime: tasks, timers and sockets.
//!
//! The only file that names async-std and async-io. Everything above speaks `futures::io` and the
//! handful of types here, so another runtime means another version of this file.

use std::future::Future;
use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
#[cfg(feature = "server")]
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_io::Async;
#[cfg(feature = "server")]
pub(crate) use async_std::net::ToSocketAddrs;
use futures::io::{AsyncRead, AsyncWrite};

/// Runs `future` in the background. It goes on if the handle is dropped.
#[cfg(feature = "server")]
pub(crate) fn spawn(future: impl Future<Output = ()> + Send + 'static) -> Task {
    Task(async_std::task::spawn(future))
}

/// A task in the background.
#[cfg(feature = "server")]
#[derive(Debug)]
pub(crate) struct Task(async_std::task::JoinHandle<()>);

#[cfg(feature = "server")]
impl Task {
    /// Drops the task's future where it stands, and waits until that is done.
    pub(crate) async fn cancel(self) {
        self.0.cancel().await;
    }
}

/// Runs `future` on this thread, to its end.
#[cfg(all(test, feature = "server"))]
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    async_std::task::block_on(future)
}

/// The end of a timeout that begins now. One beyond the reach of the clock never comes.
pub(crate) fn after(timeout: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
    let now = Instant::now();
    now.checked_add(timeout).or_else(|| now.checked_add(FAR)).unwrap_or(now)
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

/// A listening TCP socket.
#[cfg(feature = "server")]
#[derive(Debug)]
pub(crate) struct TcpListener(Async<std::net::TcpListener>);

#[cfg(feature = "server")]
impl TcpListener {
    /// Listens on `addr`; port 0 takes any free port.
    pub(crate) fn bind(addr: SocketAddr) -> io::Result<Self> {
        Async::<std::net::TcpListener>::bind(addr).map(Self)
    }

    /// The address the socket is bound to.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.get_ref().local_addr()
    }

    /// Waits for the next connection.
    pub(crate) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (socket, peer_addr) = self.0.accept().await?;
        Ok((TcpStream::new(socket), peer_addr))
    }
}

/// Looks up the socket addresses behind a name.
#[cfg(feature = "server")]
pub(crate) async fn resolve(addrs: impl ToSocketAddrs<Iter: Send>) -> io::Result<Vec<SocketAddr>> {
    addrs.to_socket_addrs().await.map(Iterator::collect)
}

/// A TCP connection that knows when the kernel has nothing more for it.
///
/// A socket that returned less than was asked for is empty, so the next read first waits for
/// readiness instead of paying a system call to hear `EAGAIN`.
#[derive(Debug)]
pub(crate) struct TcpStream {
    io: Async<std::net::TcpStream>,
    drained: bool,
    second_look: SecondLook,
}

/// Whether to look at a drained socket once more, after the other tasks had their turn, before the
/// reactor is asked to watch it.
///
/// On a busy thread the peer has often answered by then, and a read costs less than to be told that
/// there is something to read. On an idle one it has not, so each look in vain doubles the number of
/// waits until the next.
#[derive(Debug)]
struct SecondLook {
    state: Look,
    /// Waits to go until the next look.
    pause: u8,
    /// Waits between the last two looks.
    last_pause: u8,
}

#[derive(Debug, Eq, PartialEq)]
enum Look {
    /// The socket was read since.
    Idle,
    /// The task is sent to the end of the queue, to look when it is back.
    Due,
    /// The reactor watches.
    Waiting,
}

impl SecondLook {
    const MAX_PAUSE: u8 = 127;

    #[cfg(feature = "server")]
    fn new() -> Self {
        // A short connection is over before the first look would pay.
        Self { state: Look::Idle, pause: 7, last_pause: 7 }
    }

    fn is_due(&self) -> bool {
        self.state == Look::Due
    }

    /// The socket is empty: should the task come back and look again?
    fn begin(&mut self) -> bool {
        if self.state == Look::Idle {
            self.state = if self.pause == 0 { Look::Due } else { Look::Waiting };
            self.pause = self.pause.saturating_sub(1);
        }
        self.is_due()
    }

    /// The socket was read; was anything there?
    fn end(&mut self, found: bool) {
        if std::mem::replace(&mut self.state, Look::Idle) == Look::Due {
            let longer = self.last_pause.saturating_mul(2).saturating_add(1).min(Self::MAX_PAUSE);
            self.last_pause = if found { 0 } else { longer };
            self.pause = self.last_pause;
        }
    }
}

impl TcpStream {
    #[cfg(feature = "server")]
    fn new(io: Async<std::net::TcpStream>) -> Self {
        Self { io, drained: false, second_look: SecondLook::new() }
    }

    /// Our end of the connection.
    #[cfg(feature = "server")]
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().local_addr()
    }

    /// Sends what is written at once, instead of collecting small segments (Nagle).
    #[cfg(feature = "server")]
    pub(crate) fn set_nodelay(&self) -> io::Result<()> {
        self.io.get_ref().set_nodelay(true)
    }

    /// Ends our direction of the stream with a FIN. async-io's `poll_close` would send none.
    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        self.io.get_ref().shutdown(Shutdown::Write)
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            if this.drained && !this.second_look.is_due() {
                if this.second_look.begin() {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                ready!(this.io.poll_readable(cx))?;
                this.drained = false;
            }
            let mut socket = this.io.get_ref();
            match socket.read(buf) {
                Ok(len) => {
                    this.second_look.end(true);
                    this.drained = len < buf.len();
                    return Poll::Ready(Ok(len));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    this.second_look.end(false);
                    this.drained = true;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        poll_write_with(&self.get_mut().io, cx, |mut socket| socket.write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        poll_write_with(&self.get_mut().io, cx, |mut socket| socket.write_vectored(bufs))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shutdown_write())
    }
}

fn poll_write_with(
    io: &Async<std::net::TcpStream>,
    cx: &mut Context<'_>,
    mut write: impl FnMut(&std::net::TcpStream) -> io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        match write(io.get_ref()) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => return Poll::Ready(result),
        }
        ready!(io.poll_writable(cx))?;
    }
}

#[cfg(all(test, feature = "server"))]
mod tests {
    use super::SecondLook;

    #[test]
    fn looks_in_vain_become_rare_and_one_that_finds_makes_the_next_wait_look() {
        let mut second_look = SecondLook::new();
        let mut waits_until_look = |found| {
            let waits = (0..1000).find(|_| {
                let looks = second_look.begin();
                assert_eq!(second_look.begin(), looks, "one wait is polled more than once");
                second_look.end(looks && found);
                looks
            });
            waits.unwrap_or(0)
        };
        let in_vain: Vec<i32> = (0..7).map(|_| waits_until_look(false)).collect();
        assert_eq!(in_vain, [7, 15, 31, 63, 127, 127, 127]);
        assert_eq!([true, true, false].map(&mut waits_until_look), [127, 0, 0]);
        assert_eq!(waits_until_look(true), 1);
    }
}
