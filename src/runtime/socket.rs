//! Connected sockets, TCP or Unix, and the cheapest way to wait for them.

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

/// Bytes that the kernel accepts although it cannot send them yet (`TCP_NOTSENT_LOWAT`).
///
/// Without this limit, up to 4 MiB may stand before a ping, and we cannot see whether the peer reads them. The
/// limit does not make echoes slower: 1.03 times the messages per CPU second with messages of 1 MiB, and 0.97
/// with eight of 256 KiB at once, in 14 interleaved rounds that differed by 0.2.
#[cfg(all(target_os = "linux", any(feature = "server", feature = "client")))]
const MOST_UNSENT: u32 = 128 << 10;

/// A TCP connection.
pub(crate) type TcpStream = Socket<std::net::TcpStream>;

/// A connection through a Unix socket.
#[cfg(unix)]
pub(crate) type UnixStream = Socket<std::os::unix::net::UnixStream>;

/// A connection that remembers when the kernel has no more bytes for it.
///
/// If a read returned fewer bytes than it asked for, the socket is empty. So the next read first waits for
/// readiness, and saves a system call that would return `EAGAIN`.
#[derive(Debug)]
pub(crate) struct Socket<S> {
    io: Async<S>,
    drained: bool,
    second_look: SecondLook,
    /// Dropped after the socket above, so it is free once that is closed. Boxed, since few servers count
    /// sockets.
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

    /// Holds `held` while the socket is open.
    #[cfg(feature = "server")]
    pub(crate) fn keep(&mut self, held: Held) {
        self.held = Some(Box::new(held));
    }
}

impl TcpStream {
    /// The local address of the connection.
    #[cfg(feature = "server")]
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.get_ref().local_addr()
    }

    /// Ends the connection with a reset. That costs least, since the kernel keeps no state of it.
    #[cfg(feature = "server")]
    pub(crate) fn reset(self) {
        // Without this option the kernel would send a FIN.
        let _ = socket2::SockRef::from(self.io.get_ref()).set_linger(Some(Duration::ZERO));
    }

    /// Connects to an address.
    #[cfg(feature = "client")]
    pub(crate) async fn connect(addr: SocketAddr) -> io::Result<Self> {
        Async::<std::net::TcpStream>::connect(addr).await.map(Self::new)
    }

    /// Switches off Nagle's algorithm, so that written bytes are sent at once, and limits the bytes that the
    /// kernel accepts before it can send them.
    #[cfg(any(feature = "server", feature = "client"))]
    pub(crate) fn set_options(&self) -> io::Result<()> {
        self.io.get_ref().set_nodelay(true)?;
        // Kernels that emulate Linux may not know the option. Connections work without it.
        #[cfg(target_os = "linux")]
        let _ = socket2::SockRef::from(self.io.get_ref()).set_tcp_notsent_lowat(MOST_UNSENT);
        Ok(())
    }
}

#[cfg(all(unix, feature = "client"))]
impl UnixStream {
    /// Connects to a Unix socket.
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

/// A socket whose two directions can end separately.
pub(crate) trait Ends {
    /// Ends the direction to the peer: a FIN on TCP.
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

/// The decision whether to read a drained socket once more, after the other tasks had their turn, before the
/// reactor is asked to watch it.
///
/// On a busy thread the peer has often answered by then, and a read costs less than a wake-up by the reactor. On
/// an idle thread the peer has not answered. So each look in vain doubles the number of waits until the next
/// look.
#[derive(Debug)]
struct SecondLook {
    state: Look,
    /// The number of waits until the next look.
    pause: u8,
    /// The number of waits between the last two looks.
    last_pause: u8,
}

#[derive(Debug, Eq, PartialEq)]
enum Look {
    /// The socket has been read since the last wait.
    Idle,
    /// The task is at the end of the queue, and looks when it runs again.
    Due,
    /// The reactor watches the socket.
    Waiting,
}

impl SecondLook {
    const MAX_PAUSE: u8 = 127;

    #[cfg(any(feature = "server", feature = "client"))]
    fn new() -> Self {
        // A short connection is over before a look would save anything.
        Self { state: Look::Idle, pause: 7, last_pause: 7 }
    }

    fn is_due(&self) -> bool {
        self.state == Look::Due
    }

    /// Begins to wait for an empty socket. Returns whether the task should run again and look.
    fn begin(&mut self) -> bool {
        if self.state == Look::Idle {
            self.state = if self.pause == 0 { Look::Due } else { Look::Waiting };
            self.pause = self.pause.saturating_sub(1);
        }
        self.is_due()
    }

    /// Records a read, and whether it `found` bytes.
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
