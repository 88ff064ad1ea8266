//! A socket that listens, from the address it is bound to on.

#[cfg(unix)]
use std::fs;
use std::net::SocketAddr;
#[cfg(unix)]
use std::os::unix::fs::{FileTypeExt, MetadataExt};
#[cfg(unix)]
use std::path::{Path, PathBuf};
use std::{fmt, io, net};

use futures::FutureExt;
#[cfg(unix)]
use socket2::SockAddr;
use socket2::{Domain, Type};

use super::capacity::{Capacity, Refused};
use crate::escaped::Escaped;
use crate::foreign::tell;
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
    pub(super) fn tcp(listener: net::TcpListener) -> io::Result<Self> {
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
                        tell(|| {
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

/// Connections that may wait to be accepted. std asks for fewer, and a burst of clients that finds
/// the queue full tries again a second later.
const BACKLOG: i32 = 1024;

/// How a TCP socket is bound.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TcpOptions {
    /// May other processes listen on the same port?
    #[cfg_attr(not(unix), expect(dead_code, reason = "only Unix can share one"))]
    pub(super) reuse_port: bool,
    /// Does an IPv6 socket leave IPv4 clients to another?
    pub(super) only_v6: bool,
}

/// Listens on `addr`; port 0 takes any free port.
pub(super) fn tcp(addr: SocketAddr, options: TcpOptions) -> io::Result<net::TcpListener> {
    let socket = socket2::Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    // On Unix, connections in TIME_WAIT do not hold the port; on Windows the option would let any
    // program take a port that is in use.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    #[cfg(all(unix, not(any(target_os = "solaris", target_os = "illumos"))))]
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    if options.only_v6 {
        socket.set_only_v6(true)?;
    }
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Listens on a socket in the file system.
#[cfg(unix)]
pub(super) fn unix(path: &Path) -> io::Result<Listener> {
    let addr = SockAddr::unix(path)?;
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    match socket.bind(&addr) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left_behind(path, &addr) => {
            fs::remove_file(path)?;
            socket.bind(&addr)?;
        }
        result => result?,
    }
    let file = SocketFile::at(path)?;
    socket.listen(BACKLOG)?;
    Listener::unix(socket.into(), Some(file))
}

/// Is this the file of a socket that nobody listens on any more?
#[cfg(unix)]
fn is_left_behind(path: &Path, addr: &SockAddr) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    is_socket && refuses(addr).unwrap_or(false)
}

/// Does nobody accept connections at `addr`? One whose queue is full is alive.
#[cfg(unix)]
fn refuses(addr: &SockAddr) -> io::Result<bool> {
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let refusal = socket.connect(addr).err();
    Ok(refusal.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
}

/// The file of a socket, removed with this value unless another has taken its place.
#[cfg(unix)]
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

#[cfg(unix)]
impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { path: std::path::absolute(path)?, identity: identity(path)? })
    }
}

#[cfg(unix)]
impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = identity(&self.path).is_ok_and(|identity| identity == self.identity);
        if let Some(error) = is_ours.then(|| fs::remove_file(&self.path).err()).flatten() {
            let (path, error) = (Escaped(self.path.display()), Escaped(error));
            tell(|| log::warn!(path:%, error:%; "cannot remove {path}: {error}"));
        }
    }
}

#[cfg(unix)]
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}
