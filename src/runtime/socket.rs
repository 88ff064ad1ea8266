//! Connected sockets, TCP or Unix, and the cheapest way to wait for them.

#[cfg(all(feature = "server", feature = "client"))]
use std::future::poll_fn;
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

#[cfg(all(feature = "server", feature = "client"))]
use super::worker::Place;
#[cfg(feature = "server")]
use super::worker::{self, Direction, Registered};
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
pub(crate) struct Socket<S: Kind> {
    io: Io<S>,
    drained: bool,
    second_look: SecondLook,
    /// Dropped after the socket above, so it is free once that is closed. Boxed, since few servers count
    /// sockets.
    #[cfg(feature = "server")]
    held: Option<Box<Held>>,
}

/// The socket, and who tells when it is ready.
#[derive(Debug)]
enum Io<S: Kind> {
    /// Nobody has used it yet. The thread that does decides: a worker, or any other.
    #[cfg(feature = "server")]
    New(S),
    /// async-io, on any executor.
    #[cfg_attr(
        not(any(feature = "server", feature = "client")),
        expect(dead_code, reason = "nobody connects, and nobody accepts")
    )]
    Shared(Async<S>),
    /// The worker that it lives on.
    #[cfg(feature = "server")]
    Own(Registered<S::OnWorker>),
    /// It could not be registered.
    #[cfg(feature = "server")]
    Failed,
}

impl<S: Kind> Io<S> {
    /// The socket on async-io, if it is there.
    #[cfg_attr(
        not(feature = "server"),
        expect(clippy::unnecessary_wraps, reason = "there is nothing else")
    )]
    fn shared(&self) -> io::Result<&Async<S>> {
        match self {
            Self::Shared(io) => Ok(io),
            #[cfg(feature = "server")]
            Self::New(_) | Self::Own(_) | Self::Failed => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Registers a socket that is new.
    #[cfg(feature = "server")]
    fn settle(&mut self) -> io::Result<()> {
        if !matches!(self, Self::New(_)) {
            return Ok(());
        }
        let Self::New(socket) = std::mem::replace(self, Self::Failed) else { return Ok(()) };
        *self = match worker::place() {
            Some(place) => Self::Own(Registered::new(socket.on_worker(), place)?),
            None => Self::Shared(socket.shared()?),
        };
        Ok(())
    }
}

impl<S: Kind> Socket<S> {
    /// Takes a socket that does not block.
    #[cfg(feature = "server")]
    pub(super) fn accepted(socket: S) -> Self {
        Self::with(Io::New(socket))
    }

    #[cfg(any(feature = "server", feature = "client"))]
    fn with(io: Io<S>) -> Self {
        Self {
            io,
            drained: false,
            second_look: SecondLook::new(),
            #[cfg(feature = "server")]
            held: None,
        }
    }

    /// Waits on a worker until the connection is there, or has failed.
    #[cfg(all(feature = "server", feature = "client"))]
    async fn connecting(
        socket: S::OnWorker,
        place: Place,
        error: impl Fn(&S::OnWorker) -> io::Result<Option<io::Error>>,
        peer: impl Fn(&S::OnWorker) -> io::Result<()>,
    ) -> io::Result<Self> {
        let io = Registered::new(socket, place)?;
        let is_there = |socket: &S::OnWorker| match error(socket)? {
            Some(error) => Err(error),
            // Linux, and then the BSDs: a socket that still connects has no peer.
            None => peer(socket).map_err(|error| match error.kind() {
                io::ErrorKind::NotConnected | io::ErrorKind::InvalidInput => {
                    io::ErrorKind::WouldBlock.into()
                }
                _ => error,
            }),
        };
        poll_fn(|cx| io.poll_io(cx, Direction::Write, is_there)).await?;
        Ok(Self::with(Io::Own(io)))
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
        match &self.io {
            Io::New(socket) => socket.local_addr(),
            Io::Shared(io) => io.get_ref().local_addr(),
            Io::Own(io) => io.get_ref().local_addr(),
            Io::Failed => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Ends the connection with a reset. That costs least, since the kernel keeps no state of it.
    #[cfg(feature = "server")]
    pub(crate) fn reset(self) {
        // Without this option the kernel would send a FIN.
        let _ = self.with_options(|socket| socket.set_linger(Some(Duration::ZERO)));
    }

    /// Connects to an address.
    #[cfg(feature = "client")]
    pub(crate) async fn connect(addr: SocketAddr) -> io::Result<Self> {
        #[cfg(feature = "server")]
        if let Some(place) = worker::place() {
            let socket = mio::net::TcpStream::connect(addr)?;
            return Self::connecting(socket, place, mio::net::TcpStream::take_error, |socket| {
                socket.peer_addr().map(drop)
            })
            .await;
        }
        Async::<std::net::TcpStream>::connect(addr).await.map(|io| Self::with(Io::Shared(io)))
    }

    /// Switches off Nagle's algorithm, so that written bytes are sent at once, and limits the bytes that the
    /// kernel accepts before it can send them.
    #[cfg(any(feature = "server", feature = "client"))]
    pub(crate) fn set_options(&self) -> io::Result<()> {
        self.with_options(|socket| set_options(&socket))
    }

    /// Whether the socket has these options from the one that listens.
    #[cfg(feature = "server")]
    pub(crate) fn has_options(&self) -> bool {
        let mut has_options = false;
        let asked = self.with_options(|socket| {
            has_options = socket.tcp_nodelay()?;
            #[cfg(target_os = "linux")]
            {
                has_options &= socket.tcp_notsent_lowat()? == MOST_UNSENT;
            }
            Ok(())
        });
        has_options && asked.is_ok()
    }

    #[cfg(any(feature = "server", feature = "client"))]
    fn with_options(
        &self,
        set: impl FnOnce(socket2::SockRef<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        match &self.io {
            #[cfg(feature = "server")]
            Io::New(socket) => set(socket.into()),
            Io::Shared(io) => set(io.get_ref().into()),
            #[cfg(feature = "server")]
            Io::Own(io) => set(io.get_ref().into()),
            #[cfg(feature = "server")]
            Io::Failed => Ok(()),
        }
    }
}

/// Sets the options of a TCP connection on a socket, or on one that listens: Linux gives them to the sockets that it
/// accepts.
#[cfg(any(feature = "server", feature = "client"))]
pub(crate) fn set_options(socket: &socket2::SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    // Kernels that emulate Linux may not know the option. Connections work without it.
    #[cfg(target_os = "linux")]
    let _ = socket.set_tcp_notsent_lowat(MOST_UNSENT);
    Ok(())
}

#[cfg(all(unix, feature = "client"))]
impl UnixStream {
    /// Connects to a Unix socket.
    pub(crate) async fn connect(path: &std::path::Path) -> io::Result<Self> {
        #[cfg(feature = "server")]
        if let Some(place) = worker::place() {
            let socket = mio::net::UnixStream::connect(path)?;
            return Self::connecting(socket, place, mio::net::UnixStream::take_error, |socket| {
                socket.peer_addr().map(drop)
            })
            .await;
        }
        let io = Async::<std::os::unix::net::UnixStream>::connect(path).await?;
        Ok(Self::with(Io::Shared(io)))
    }
}

impl<S: Kind> AsyncRead for Socket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        #[cfg(feature = "server")]
        if matches!(this.io, Io::New(_)) {
            this.io.settle()?;
        }
        #[cfg(feature = "server")]
        if let Io::Own(io) = &this.io {
            let room = buf.len();
            return io.poll_read(cx, room, |socket| socket.read(buf));
        }
        let io = this.io.shared()?;
        loop {
            if this.drained && !this.second_look.is_due() {
                if this.second_look.begin() {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                ready!(io.poll_readable(cx))?;
                this.drained = false;
            }
            let socket = io.get_ref();
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

impl<S: Kind> AsyncWrite for Socket<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_with(
            cx,
            |socket| socket.write(buf),
            #[cfg(feature = "server")]
            |socket| socket.write(buf),
        )
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_with(
            cx,
            |socket| socket.write_vectored(bufs),
            #[cfg(feature = "server")]
            |socket| socket.write_vectored(bufs),
        )
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Ends our direction of the stream with a FIN. async-io's `poll_close` would send none.
    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match &self.io {
            #[cfg(feature = "server")]
            Io::New(socket) => socket.end_writing(),
            Io::Shared(io) => io.get_ref().end_writing(),
            #[cfg(feature = "server")]
            Io::Own(io) => io.get_ref().end_writing(),
            #[cfg(feature = "server")]
            Io::Failed => Ok(()),
        })
    }
}

impl<S: Kind> Socket<S> {
    fn poll_write_with(
        &mut self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&S) -> io::Result<usize>,
        #[cfg(feature = "server")] write_own: impl FnMut(&S::OnWorker) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        #[cfg(feature = "server")]
        if matches!(self.io, Io::New(_)) {
            self.io.settle()?;
        }
        #[cfg(feature = "server")]
        if let Io::Own(io) = &self.io {
            return io.poll_io(cx, Direction::Write, write_own);
        }
        let io = self.io.shared()?;
        loop {
            match write(io.get_ref()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => return Poll::Ready(result),
            }
            ready!(io.poll_writable(cx))?;
        }
    }
}

/// The calls on a connected socket, which do not block.
pub(crate) trait Duplex: std::fmt::Debug + Unpin {
    fn read(&self, buf: &mut [u8]) -> io::Result<usize>;
    fn write(&self, buf: &[u8]) -> io::Result<usize>;
    fn write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Ends the direction to the peer: a FIN on TCP.
    fn end_writing(&self) -> io::Result<()>;
}

macro_rules! duplex {
    ($socket:ty) => {
        impl Duplex for $socket {
            fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
                let mut socket = self;
                Read::read(&mut socket, buf)
            }

            fn write(&self, buf: &[u8]) -> io::Result<usize> {
                let mut socket = self;
                Write::write(&mut socket, buf)
            }

            fn write_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
                let mut socket = self;
                Write::write_vectored(&mut socket, bufs)
            }

            fn end_writing(&self) -> io::Result<()> {
                self.shutdown(Shutdown::Write)
            }
        }
    };
}

duplex!(std::net::TcpStream);
#[cfg(unix)]
duplex!(std::os::unix::net::UnixStream);
#[cfg(feature = "server")]
duplex!(mio::net::TcpStream);
#[cfg(all(feature = "server", unix))]
duplex!(mio::net::UnixStream);

/// A kind of socket, which a worker registers in a form of its own.
pub(crate) trait Kind: Duplex + Sized {
    #[cfg(feature = "server")]
    type OnWorker: Duplex + mio::event::Source;

    #[cfg(feature = "server")]
    fn on_worker(self) -> Self::OnWorker;

    /// Registers the socket, which does not block, with async-io.
    #[cfg(feature = "server")]
    fn shared(self) -> io::Result<Async<Self>>;
}

impl Kind for std::net::TcpStream {
    #[cfg(feature = "server")]
    type OnWorker = mio::net::TcpStream;

    #[cfg(feature = "server")]
    fn on_worker(self) -> Self::OnWorker {
        mio::net::TcpStream::from_std(self)
    }

    #[cfg(feature = "server")]
    fn shared(self) -> io::Result<Async<Self>> {
        Async::new_nonblocking(self)
    }
}

#[cfg(unix)]
impl Kind for std::os::unix::net::UnixStream {
    #[cfg(feature = "server")]
    type OnWorker = mio::net::UnixStream;

    #[cfg(feature = "server")]
    fn on_worker(self) -> Self::OnWorker {
        mio::net::UnixStream::from_std(self)
    }

    #[cfg(feature = "server")]
    fn shared(self) -> io::Result<Async<Self>> {
        Async::new_nonblocking(self)
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
    use super::*;

    #[cfg(feature = "client")]
    #[test]
    fn a_socket_that_connects_on_a_worker_lives_there() {
        use futures::channel::oneshot;
        use futures::io::{AsyncReadExt, AsyncWriteExt};

        use super::super::worker::Workers;
        use crate::runtime::{Tokio, block_on};

        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let workers = Workers::start(1, Tokio::default()).unwrap();
        let (tell, told) = oneshot::channel();
        workers.spawn(async move {
            let refused = TcpStream::connect(free).await.map(drop);
            let mut socket = TcpStream::connect(addr).await.unwrap();
            socket.write_all(b"hello").await.unwrap();
            let mut answer = [0; 5];
            socket.read_exact(&mut answer).await.unwrap();
            let is_own = matches!(socket.io, Io::Own(_));
            tell.send((is_own, answer, refused.map_err(|error| error.kind()))).unwrap();
        });
        let (mut peer, mut letter) = (listener.accept().unwrap().0, [0; 5]);
        peer.read_exact(&mut letter).unwrap();
        peer.write_all(&letter).unwrap();
        let refused = Err(io::ErrorKind::ConnectionRefused);
        assert_eq!(block_on(told).unwrap(), (true, *b"hello", refused));
    }

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
