//! The set of addresses and sockets that a server listens on. `listener.rs` opens each of them.

use std::io;
use std::net::{SocketAddr, TcpListener};
#[cfg(unix)]
use std::path::Path;

use super::listener;
use super::listener::{Listener, LocalAddr, TcpOptions};
use crate::runtime::ToSocketAddrs;
use crate::{Result, runtime};

/// The addresses and sockets that one server listens on.
///
/// A socket listens as soon as it is added here. Until the server runs, up to 1024 connections wait in its
/// queue.
///
/// ```no_run
/// use tidewire::server::Listeners;
/// use tidewire::{RequestContext, Server};
///
/// # async fn run() -> tidewire::Result<()> {
/// let mut server = Server::new();
/// server.get("/ping", |_ctx: RequestContext| async { Ok("pong") });
///
/// let listeners = Listeners::new().tcp("0.0.0.0:8080").await?.tcp("[::]:8080").await?;
/// # #[cfg(unix)]
/// let listeners = listeners.unix("/run/chat.sock")?;
/// server.bind_to(listeners)?.serve().await
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Listeners {
    listeners: Vec<Listener>,
}

impl Listeners {
    /// Creates an empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Listens on `addr`: `"127.0.0.1:8080"`, `("localhost", 8080)`, a [`SocketAddr`].
    ///
    /// Port 0 takes any free port. If a name has several addresses, the first that is free is used; to
    /// listen on all of them, add each. `[::]` accepts IPv4 clients, too, where the system allows it,
    /// unless `0.0.0.0` with the same port was added before.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io) if the address cannot be found or is taken. The message names the
    /// address.
    pub async fn tcp(self, addr: impl ToSocketAddrs<Iter: Send>) -> Result<Self> {
        self.tcp_with(addr, TcpOptions::default()).await
    }

    /// Listens on a port that other processes of the same user may share (`SO_REUSEPORT`). Otherwise like
    /// [`tcp`](Self::tcp).
    ///
    /// All these processes have to use this option. On Linux the system spreads new connections over them.
    ///
    /// # Errors
    ///
    /// Those of [`tcp`](Self::tcp).
    #[cfg(all(unix, not(any(target_os = "solaris", target_os = "illumos"))))]
    pub async fn reuse_port(self, addr: impl ToSocketAddrs<Iter: Send>) -> Result<Self> {
        self.tcp_with(addr, TcpOptions { reuse_port: true, ..TcpOptions::default() }).await
    }

    /// Listens on a Unix socket in the file system.
    ///
    /// A file that a dead server left behind is replaced. The file of a living server, or a file that is
    /// not a socket, is not. The permissions of the folder and the umask decide which users may connect.
    /// The file is removed when the server no longer listens.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io) if the path is taken or cannot be created. The message names the
    /// path.
    #[cfg(unix)]
    pub fn unix(self, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let listener = listener::unix(path).map_err(|error| refused(path.display(), &error))?;
        Ok(self.and(listener))
    }

    /// Takes over a TCP socket that listens already, such as one that was inherited from a service manager,
    /// or was bound with special options.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io) if the socket cannot be registered with the reactor.
    pub fn from_tcp(self, listener: TcpListener) -> Result<Self> {
        Ok(self.and(Listener::tcp(listener)?))
    }

    /// Takes over a Unix socket that listens already. Its file is not removed at the end.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io) if the socket cannot be registered with the reactor.
    #[cfg(unix)]
    pub fn from_unix(self, listener: std::os::unix::net::UnixListener) -> Result<Self> {
        Ok(self.and(Listener::unix(listener, None)?))
    }

    /// The addresses added so far, with real ports.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<LocalAddr> {
        self.listeners.iter().map(|listener| listener.local_addr().clone()).collect()
    }

    pub(super) fn into_inner(self) -> Result<Vec<Listener>> {
        if self.listeners.is_empty() {
            return Err(nothing_to_listen_on().into());
        }
        Ok(self.listeners)
    }

    async fn tcp_with(
        self,
        addr: impl ToSocketAddrs<Iter: Send>,
        options: TcpOptions,
    ) -> Result<Self> {
        let mut failure = nothing_to_listen_on();
        for addr in runtime::resolve(addr).await? {
            let only_v6 = self.shares_port_with_ipv4(addr);
            let socket = listener::tcp(addr, TcpOptions { only_v6, ..options });
            match socket.and_then(Listener::tcp) {
                Ok(listener) => return Ok(self.and(listener)),
                Err(error) => failure = refused(addr, &error),
            }
        }
        Err(failure.into())
    }

    fn and(mut self, listener: Listener) -> Self {
        self.listeners.push(listener);
        self
    }

    /// Whether `addr` is `[::]` and its port is taken for IPv4 by `0.0.0.0`.
    fn shares_port_with_ipv4(&self, addr: SocketAddr) -> bool {
        let is_other_half = |local: &LocalAddr| match local {
            LocalAddr::Tcp(SocketAddr::V4(v4)) => {
                v4.ip().is_unspecified() && v4.port() == addr.port()
            }
            _ => false,
        };
        addr.is_ipv6()
            && addr.ip().is_unspecified()
            && self.listeners.iter().any(|listener| is_other_half(listener.local_addr()))
    }
}

fn nothing_to_listen_on() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "no address to listen on")
}

fn refused(addr: impl std::fmt::Display, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot listen on {addr}: {error}"))
}
