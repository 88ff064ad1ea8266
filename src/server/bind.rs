//! From an address to a socket that listens there.

#[cfg(unix)]
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
#[cfg(unix)]
use std::os::unix::fs::{FileTypeExt, MetadataExt};
#[cfg(unix)]
use std::path::{Path, PathBuf};

#[cfg(unix)]
use socket2::SockAddr;
use socket2::{Domain, Socket, Type};

#[cfg(unix)]
use super::listener::Listener;
#[cfg(unix)]
use crate::escaped::Escaped;
use crate::foreign::attempt;

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
pub(super) fn tcp(addr: SocketAddr, options: TcpOptions) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
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
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
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
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
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
            let _ = attempt(|| log::warn!(path:%, error:%; "cannot remove {path}: {error}"));
        }
    }
}

#[cfg(unix)]
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|file| (file.dev(), file.ino()))
}
