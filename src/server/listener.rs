//! A listening socket, from its address to the connections that it accepts.

#[cfg(unix)]
use std::fs;
use std::net::SocketAddr;
#[cfg(unix)]
use std::os::unix::fs::{FileTypeExt, MetadataExt};
#[cfg(unix)]
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::{fmt, io, net};

use futures::FutureExt;
#[cfg(unix)]
use socket2::SockAddr;
use socket2::{Domain, Type};

use super::capacity::{Capacity, Refused};
use crate::escaped::Escaped;
use crate::http::Addrs;
use crate::permits::Held;
use crate::records::record;
#[cfg(unix)]
use crate::runtime::UnixListener;
use crate::runtime::{TcpListener, TcpStream, set_options};
use crate::stream::Stream;
#[cfg(unix)]
use crate::sync::Mutex;

/// An address that a server listens on.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum LocalAddr {
    /// A TCP port.
    Tcp(SocketAddr),
    /// The path of a Unix socket; empty if it has no name in the file system.
    #[cfg(unix)]
    Unix(PathBuf),
}

impl LocalAddr {
    /// The TCP address; `None` for a Unix socket.
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

/// A listening socket.
#[derive(Debug)]
pub(super) struct Listener {
    socket: Socket,
    local_addr: LocalAddr,
    /// Whether accepted sockets have the options of this one. The first one shows it.
    is_inherited: OnceLock<bool>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix {
        /// Dropped, and so removed, while the socket still listens: until then no other file can get its
        /// inode.
        file: Mutex<Option<SocketFile>>,
        listener: UnixListener,
    },
}

impl Listener {
    /// Takes a TCP socket that listens already.
    pub(super) fn tcp(listener: net::TcpListener) -> io::Result<Self> {
        // Where they are not inherited, each connection gets them, and an error is told there.
        let _ = set_options(&(&listener).into());
        let local_addr = LocalAddr::Tcp(listener.local_addr()?);
        let socket = Socket::Tcp(TcpListener::new(listener)?);
        Ok(Self { socket, local_addr, is_inherited: OnceLock::new() })
    }

    /// Takes a Unix socket that listens already. Its `file`, if given, is removed at the end.
    #[cfg(unix)]
    pub(super) fn unix(
        listener: std::os::unix::net::UnixListener,
        file: Option<SocketFile>,
    ) -> io::Result<Self> {
        let path = listener.local_addr()?.as_pathname().map(PathBuf::from);
        let listener = UnixListener::new(listener)?;
        let local_addr = LocalAddr::Unix(path.unwrap_or_default());
        let socket = Socket::Unix { file: Mutex::new(file), listener };
        Ok(Self { socket, local_addr, is_inherited: OnceLock::new() })
    }

    /// Listens no more, though others refer to this.
    pub(super) fn close(&self) {
        match &self.socket {
            Socket::Tcp(listener) => listener.close(),
            #[cfg(unix)]
            Socket::Unix { file, listener } => {
                let file = file.lock().take();
                drop(file);
                listener.close();
            }
        }
    }

    /// The address that it listens on.
    pub(super) fn local_addr(&self) -> &LocalAddr {
        &self.local_addr
    }

    /// Waits for the next connection, and for a place for it. Until there is one, the connection stays in
    /// the kernel's queue.
    pub(super) async fn accept_within(
        &self,
        capacity: &Capacity,
    ) -> io::Result<Result<(Stream, Addrs), Refused>> {
        if !capacity.is_limited() {
            return Ok(take_in(self.accept().await?, capacity, Held::default()));
        }
        loop {
            // First the client, then the place: a listener without clients must not hold a place.
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
                let is_inherited = *self.is_inherited.get_or_init(|| stream.has_options());
                match if is_inherited { Ok(()) } else { stream.set_options() } {
                    Ok(()) => {
                        let addrs = Addrs { peer: Some(peer), local: self.end_of(&stream) };
                        return Ok((Stream::Tcp(stream), addrs));
                    }
                    Err(error) => {
                        record!(
                            debug,
                            "a connection is gone before it is accepted",
                            peer = peer,
                            error = Escaped(&error)
                        );
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

    /// The local address of a connection. If we listen on a wildcard address, the socket is asked.
    fn end_of(&self, stream: &TcpStream) -> Option<SocketAddr> {
        let bound = self.local_addr.as_tcp().filter(|addr| !addr.ip().is_unspecified());
        bound.or_else(|| stream.local_addr().ok()).or_else(|| self.local_addr.as_tcp())
    }
}

/// Counts a connection for its address. One too many is reset.
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

/// Connections that may wait in the kernel's queue. std asks for fewer, and a client that finds the queue
/// full tries again only a second later.
const BACKLOG: i32 = 1024;

/// Options for binding a TCP socket.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TcpOptions {
    /// Whether other processes may listen on the same port.
    #[cfg_attr(not(unix), expect(dead_code, reason = "only Unix can share one"))]
    pub(super) reuse_port: bool,
    /// Whether an IPv6 socket does not accept IPv4 clients, since another socket does.
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

/// Whether this is the file of a socket that no process listens on any more.
#[cfg(unix)]
fn is_left_behind(path: &Path, addr: &SockAddr) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    is_socket && refuses(addr).unwrap_or(false)
}

/// Whether connections to `addr` are refused. A socket whose queue is full is alive, and does not refuse.
#[cfg(unix)]
fn refuses(addr: &SockAddr) -> io::Result<bool> {
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    let refusal = socket.connect(addr).err();
    Ok(refusal.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused))
}

/// The file of a socket. Dropping this removes the file, unless another has taken its place.
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
            record!(
                warn,
                "cannot remove the file of a socket",
                path = Escaped(self.path.display()),
                error = Escaped(&error)
            );
        }
    }
}

#[cfg(unix)]
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream as Client;

    use super::*;
    use crate::runtime::block_on;

    #[test]
    fn each_accepted_socket_has_the_options_of_a_connection() {
        let listener = tcp(([127, 0, 0, 1], 0).into(), TcpOptions::default()).unwrap();
        let listener = Listener::tcp(listener).unwrap();
        let addr = listener.local_addr().as_tcp().unwrap();
        for number in 0..3 {
            let _client = Client::connect(addr).unwrap();
            let (stream, _) = block_on(listener.accept()).unwrap();
            let Stream::Tcp(stream) = stream else { panic!("it is TCP") };
            assert!(stream.has_options(), "{number}");
        }
    }
}
