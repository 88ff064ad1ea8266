//! A connected socket, over TCP or in the file system, with the cheapest way to wait for it.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
#[cfg(any(feature = "server", feature = "client"))]
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
#[cfg(feature = "server")]
use std::time::Duration;

use async_io::Async;
use futures::io::{AsyncRead, AsyncWrite};

#[cfg(feature = "server")]
use crate::permits::Held;

/// Bytes that the kernel takes although it cannot send them yet (`TCP_NOTSENT_LOWAT`).
///
/// Without it up to 4 MiB stand before a ping, and it is not seen whether the peer reads them. Echoes cost
/// the same: 1.03 times the messages per CPU second with 1 MiB each, 0.97 with eight of 256 KiB at once, in 14
/// interleaved rounds that differed by 0.2.
#[cfg(all(target_os = "linux", any(feature = "server", feature = "client")))]
const MOST_UNSENT: u32 = 128 << 10;

/// A TCP connection.
pub(crate) type TcpStream = Socket<std::net::TcpStream>;

/// A connection through a socket in the file system.
#[cfg(unix)]
pub(crate) type UnixStream = Socket<std::os::unix::net::UnixStream>;

/// A connection that knows when the kernel has nothing more for it.
///
/// A socket that returned less than was asked for is empty, so the next read first waits for
/// readiness instead of paying a system call to hear `EAGAIN`.
#[derive(Debug)]
pub(crate) struct Socket<S> {
    io: Async<S>,
    drained: bool,
    second_look: SecondLook,
    /// Free again once the socket, above, is closed. Boxed: few servers count.
    #[cfg(feature = "server")]
    held: Option<Box<Held>>,
}

impl<S: Ends> Socket<S> {
    #[cfg(any(feature = "server", feature = "client"))]
    pub(super) fn new(io: Async<S>) -> Self {
        Self {
            io,
            drained: false,
            second_look: SecondLook::new(),
            #[cfg(feature = "server")]
            held: None,
        }
    }

    /// Keeps `held` for as long as the socket is open.
    #[cfg(feature = "server")]
    pub(crate) fn keep(&mut self, held: Held) {
        self.held = Some(Box::new(held));
    }
}

impl TcpStream {
    /// Our end of the connection.
    #[cfg(feature = "server")]
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().local_addr()
    }

    /// Ends the connection with a reset, which costs least: nothing is kept of it.
    #[cfg(feature = "server")]
    pub(crate) fn reset(self) {
        // Without it the peer is sent a FIN.
        let _ = socket2::SockRef::from(self.io.get_ref()).set_linger(Some(Duration::ZERO));
    }

    /// Connects to an address.
    #[cfg(feature = "client")]
    pub(crate) async fn connect(addr: SocketAddr) -> io::Result<Self> {
        Async::<std::net::TcpStream>::connect(addr).await.map(Self::new)
    }

    /// Sends what is written at once, instead of collecting small segments (Nagle), and has the kernel
    /// take no more than it soon sends.
    #[cfg(any(feature = "server", feature = "client"))]
    pub(crate) fn set_options(&self) -> io::Result<()> {
        self.io.get_ref().set_nodelay(true)?;
        // Kernels that stand in for Linux may not know it, and connections live without.
        #[cfg(target_os = "linux")]
        let _ = socket2::SockRef::from(self.io.get_ref()).set_tcp_notsent_lowat(MOST_UNSENT);
        Ok(())
    }
}

#[cfg(all(unix, feature = "client"))]
impl UnixStream {
    /// Connects to a socket in the file system.
    pub(crate) async fn connect(path: &std::path::Path) -> io::Result<Self> {
        Async::<std::os::unix::net::UnixStream>::connect(path).await.map(Self::new)
    }
}

impl<S: Ends> AsyncRead for Socket<S>
where
    for<'a> &'a S: Read,
{
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

impl<S: Ends> AsyncWrite for Socket<S>
where
    for<'a> &'a S: Write,
{
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

    /// Ends our direction of the stream with a FIN. async-io's `poll_close` would send none.
    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.io.get_ref().end_writing())
    }
}

fn poll_write_with<S>(
    io: &Async<S>,
    cx: &mut Context<'_>,
    mut write: impl FnMut(&S) -> io::Result<usize>,
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

/// A socket whose directions end one by one.
pub(crate) trait Ends {
    /// Sends a FIN, or what is one here.
    fn end_writing(&self) -> io::Result<()>;
}

impl Ends for std::net::TcpStream {
    fn end_writing(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

#[cfg(unix)]
impl Ends for std::os::unix::net::UnixStream {
    fn end_writing(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
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

    #[cfg(any(feature = "server", feature = "client"))]
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
