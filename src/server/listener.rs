//! One listening socket, and the connections that come out of it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
#[cfg(unix)]
use std::path::PathBuf;

use futures::FutureExt;

#[cfg(unix)]
use super::bind::SocketFile;
use super::capacity::{Capacity, Refused};
use crate::escaped::Escaped;
use crate::foreign::attempt;
use crate::http::Addrs;
use crate::permits::Held;
#[cfg(unix)]
use crate::runtime::UnixListener;
use crate::runtime::{TcpListener, TcpStream};
use crate::stream::Stream;

/// Where a server listens.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum LocalAddr {
    /// A TCP port.
    Tcp(SocketAddr),
    /// A socket in the file system; an empty path if it has no name there.
    #[cfg(unix)]
    Unix(PathBuf),
}

impl LocalAddr {
    /// The address of a TCP port.
    #[must_use]
    pub fn as_tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(addr) => Some(*addr),
            #[cfg(unix)]
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for LocalAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(addr) => addr.fmt(f),
            #[cfg(unix)]
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A socket that listens.
#[derive(Debug)]
pub(super) struct Listener {
    socket: Socket,
    local_addr: LocalAddr,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix {
        /// Removed while the socket still listens, so that no other file can have its inode.
        _file: Option<SocketFile>,
        listener: UnixListener,
    },
}

impl Listener {
    /// Waits on a TCP socket.
    pub(super) fn tcp(listener: std::net::TcpListener) -> io::Result<Self> {
        let listener = TcpListener::new(listener)?;
        let local_addr = LocalAddr::Tcp(listener.local_addr()?);
        Ok(Self { socket: Socket::Tcp(listener), local_addr })
    }

    /// Waits on a Unix socket, and removes its file at the end if it is given.
    #[cfg(unix)]
    pub(super) fn unix(
        listener: std::os::unix::net::UnixListener,
        file: Option<SocketFile>,
    ) -> io::Result<Self> {
        let path = listener.local_addr()?.as_pathname().map(PathBuf::from);
        let listener = UnixListener::new(listener)?;
        let local_addr = LocalAddr::Unix(path.unwrap_or_default());
        Ok(Self { socket: Socket::Unix { _file: file, listener }, local_addr })
    }

    /// Where it listens.
    pub(super) fn local_addr(&self) -> &LocalAddr {
        &self.local_addr
    }

    /// Waits for the next connection, and for a place for it; until then it stays in the kernel's
    /// queue.
    pub(super) async fn accept_within(
        &self,
        capacity: &Capacity,
    ) -> io::Result<Result<(Stream, Addrs), Refused>> {
        if !capacity.is_limited() {
            return Ok(take_in(self.accept().await?, capacity, Held::default()));
        }
        loop {
            // First the client, then the place: a listener without clients takes none from others.
            self.readable().await?;
            let held = Held { place: capacity.place().await, visitor: None };
            // The client may have left the queue.
            if let Some(accepted) = self.accept().now_or_never() {
                return Ok(take_in(accepted?, capacity, held));
            }
        }
    }

    /// Waits until a connection may be waiting.
    async fn readable(&self) -> io::Result<()> {
        match &self.socket {
            Socket::Tcp(listener) => listener.readable().await,
            #[cfg(unix)]
            Socket::Unix { listener, .. } => listener.readable().await,
        }
    }

    /// Waits for the next connection.
    async fn accept(&self) -> io::Result<(Stream, Addrs)> {
        match &self.socket {
            Socket::Tcp(listener) => loop {
                let (stream, peer) = listener.accept().await?;
                match stream.set_options() {
                    Ok(()) => {
                        let addrs = Addrs { peer: Some(peer), local: self.end_of(&stream) };
                        return Ok((Stream::Tcp(stream), addrs));
                    }
                    Err(error) => {
                        let error = Escaped(error);
                        let _ = attempt(|| {
                            log::debug!(peer:%, error:%; "connection from {peer} is already gone: {error}");
                        });
                    }
                }
            },
            #[cfg(unix)]
            Socket::Unix { listener, .. } => {
                let stream = listener.accept().await?;
                Ok((Stream::Unix(Box::new(stream)), Addrs { peer: None, local: None }))
            }
        }
    }

    /// Our end of a connection. A wildcard address does not say where its client connected to.
    fn end_of(&self, stream: &TcpStream) -> Option<SocketAddr> {
        let bound = self.local_addr.as_tcp().filter(|addr| !addr.ip().is_unspecified());
        bound.or_else(|| stream.local_addr().ok()).or_else(|| self.local_addr.as_tcp())
    }
}

/// Counts a connection for its address, or ends it.
fn take_in(
    (mut stream, addrs): (Stream, Addrs),
    capacity: &Capacity,
    mut held: Held,
) -> Result<(Stream, Addrs), Refused> {
    match addrs.peer.map_or(Ok(None), |peer| capacity.admit(peer)) {
        Ok(visitor) => held.visitor = visitor,
        Err(refused) => {
            if let Stream::Tcp(socket) = stream {
                socket.reset();
            }
            return Err(refused);
        }
    }
    if held.place.is_some() || held.visitor.is_some() {
        stream.keep(held);
    }
    Ok((stream, addrs))
}
