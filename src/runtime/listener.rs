//! Listening sockets.

use std::io;
use std::net::SocketAddr;

use async_io::Async;

use super::TcpStream;
#[cfg(unix)]
use super::UnixStream;
use super::socket::Socket;

/// A listening TCP socket.
#[derive(Debug)]
pub(crate) struct TcpListener(Async<std::net::TcpListener>);

impl TcpListener {
    /// Takes a socket that listens already.
    pub(crate) fn new(socket: std::net::TcpListener) -> io::Result<Self> {
        Async::new(socket).map(Self)
    }

    /// The address that the socket is bound to.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.get_ref().local_addr()
    }

    /// Waits until a connection may be waiting.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.0.readable().await
    }

    /// Waits for the next connection.
    pub(crate) async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (socket, peer_addr) = self.0.read_with(std::net::TcpListener::accept).await?;
        socket.set_nonblocking(true)?;
        Ok((Socket::accepted(socket), peer_addr))
    }
}

/// A listening Unix socket.
#[cfg(unix)]
#[derive(Debug)]
pub(crate) struct UnixListener(Async<std::os::unix::net::UnixListener>);

#[cfg(unix)]
impl UnixListener {
    /// Takes a socket that listens already.
    pub(crate) fn new(socket: std::os::unix::net::UnixListener) -> io::Result<Self> {
        Async::new(socket).map(Self)
    }

    /// Waits until a connection may be waiting.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.0.readable().await
    }

    /// Waits for the next connection. The other end of a Unix socket usually has no name, so none is returned.
    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        let (socket, _) = self.0.read_with(std::os::unix::net::UnixListener::accept).await?;
        socket.set_nonblocking(true)?;
        Ok(Socket::accepted(socket))
    }
}
