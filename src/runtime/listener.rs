//! Listening sockets.

use std::future::{pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::task::{Context, Poll, ready};

use async_io::Async;

use super::TcpStream;
#[cfg(unix)]
use super::UnixStream;
use super::socket::Socket;
use super::worker::{self, Listening, Registered};
use crate::sync::Mutex;

/// A listening TCP socket.
pub(crate) type TcpListener = Listener<std::net::TcpListener>;

/// A listening Unix socket.
#[cfg(unix)]
pub(crate) type UnixListener = Listener<std::os::unix::net::UnixListener>;

/// A listening socket. Whoever waits for a connection first decides who tells of it: a worker, or async-io.
#[derive(Debug)]
pub(crate) struct Listener<L: Listen> {
    /// Until somebody waits.
    new: Mutex<Option<L>>,
    io: OnceLock<Io<L>>,
}

#[derive(Debug)]
enum Io<L: Listen> {
    Shared(Async<L>),
    Own(Listening<L::OnWorker>),
}

impl<L: Listen> Listener<L> {
    /// Takes a socket that listens already.
    pub(crate) fn new(socket: L) -> io::Result<Self> {
        socket.set_nonblocking()?;
        Ok(Self { new: Mutex::new(Some(socket)), io: OnceLock::new() })
    }

    /// Waits until a connection may be waiting.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self.io()? {
            Some(Io::Own(io)) => {
                io.ask_again()?;
                poll_fn(|cx| io.poll_ready(cx)).await;
                Ok(())
            }
            Some(Io::Shared(io)) => io.readable().await,
            None => pending().await,
        }
    }

    /// Waits for the next connection. None comes once the socket is closed.
    pub(crate) async fn accept(&self) -> io::Result<L::Accepted> {
        poll_fn(|cx| match self.io()? {
            Some(Io::Own(io)) => io.poll_accept(cx, L::accept_on_worker),
            Some(Io::Shared(io)) => Self::poll_accept(io, cx),
            None => Poll::Pending,
        })
        .await
    }

    fn poll_accept(io: &Async<L>, cx: &mut Context<'_>) -> Poll<io::Result<L::Accepted>> {
        loop {
            match io.get_ref().accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => return Poll::Ready(result),
            }
            ready!(io.poll_readable(cx))?;
        }
    }

    /// Closes the socket, at once: unless a task waits for it outside of a worker, which closes it when it is dropped.
    pub(crate) fn close(&self) {
        let new = self.new.lock().take();
        drop(new);
        if let Some(Io::Own(io)) = self.io.get() {
            io.close();
        }
    }

    /// The registered socket; `None` once it is closed.
    fn io(&self) -> io::Result<Option<&Io<L>>> {
        if self.io.get().is_none() {
            let Some(socket) = self.new.lock().take() else { return Ok(None) };
            let io = match worker::place() {
                Some(place) => Io::Own(Listening::new(Registered::new(socket.on_worker(), place)?)),
                None => Io::Shared(socket.shared()?),
            };
            // One task alone waits, so nobody else has set it.
            let _ = self.io.set(io);
        }
        Ok(self.io.get())
    }
}

/// A kind of listening socket, which a worker registers in a form of its own.
pub(crate) trait Listen: std::fmt::Debug + Sized {
    type OnWorker: std::fmt::Debug + mio::event::Source;
    /// A connection, and the address of the other end, if it has one.
    type Accepted;

    fn set_nonblocking(&self) -> io::Result<()>;
    fn on_worker(self) -> Self::OnWorker;
    fn shared(self) -> io::Result<Async<Self>>;
    fn accept(&self) -> io::Result<Self::Accepted>;
    fn accept_on_worker(socket: &Self::OnWorker) -> io::Result<Self::Accepted>;
}

impl Listen for std::net::TcpListener {
    type OnWorker = mio::net::TcpListener;
    type Accepted = (TcpStream, SocketAddr);

    fn set_nonblocking(&self) -> io::Result<()> {
        self.set_nonblocking(true)
    }

    fn on_worker(self) -> Self::OnWorker {
        mio::net::TcpListener::from_std(self)
    }

    fn shared(self) -> io::Result<Async<Self>> {
        Async::new_nonblocking(self)
    }

    fn accept(&self) -> io::Result<Self::Accepted> {
        let (socket, peer_addr) = self.accept()?;
        socket.set_nonblocking(true)?;
        Ok((Socket::accepted(socket), peer_addr))
    }

    fn accept_on_worker(socket: &Self::OnWorker) -> io::Result<Self::Accepted> {
        // It does not block: mio asks for that in the same system call.
        let (socket, peer_addr) = socket.accept()?;
        Ok((Socket::accepted(socket.into()), peer_addr))
    }
}

#[cfg(unix)]
impl Listen for std::os::unix::net::UnixListener {
    type OnWorker = mio::net::UnixListener;
    /// The other end usually has no name, so none is returned.
    type Accepted = UnixStream;

    fn set_nonblocking(&self) -> io::Result<()> {
        self.set_nonblocking(true)
    }

    fn on_worker(self) -> Self::OnWorker {
        mio::net::UnixListener::from_std(self)
    }

    fn shared(self) -> io::Result<Async<Self>> {
        Async::new_nonblocking(self)
    }

    fn accept(&self) -> io::Result<UnixStream> {
        let (socket, _) = self.accept()?;
        socket.set_nonblocking(true)?;
        Ok(Socket::accepted(socket))
    }

    fn accept_on_worker(socket: &Self::OnWorker) -> io::Result<UnixStream> {
        let (socket, _) = socket.accept()?;
        Ok(Socket::accepted(socket.into()))
    }
}
