//! Connecting to a server: TCP over IPv6 or IPv4, a Unix socket, a proxy's tunnel, TLS.

use std::io;
use std::net::SocketAddr;
#[cfg(unix)]
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};

use super::proxy::Proxy;
use super::target::Target;
#[cfg(feature = "tls")]
use super::tls::ClientTls;
use crate::error::ConnectError;
use crate::runtime;
#[cfg(unix)]
use crate::runtime::UnixStream;
use crate::runtime::{Clock, TcpStream};
use crate::stream::Stream;

/// The time before the next address is tried beside the current one (RFC 8305 §8).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// A connected socket.
#[derive(Debug)]
pub(super) struct Dialled {
    pub(super) stream: Stream,
    /// The address of the other end; `None` for a Unix socket, or behind a proxy.
    pub(super) peer_addr: Option<SocketAddr>,
}

/// Connects to a host over TCP.
pub(super) async fn tcp(host: &str, port: u16, clock: &Clock) -> Result<Dialled, ConnectError> {
    let resolve =
        |error: io::Error| ConnectError::Resolve { host: host.into(), error: error.into() };
    let addrs = runtime::lookup(host, port).await.map_err(resolve)?;
    let none = resolve(io::Error::new(io::ErrorKind::NotFound, "it has no address"));
    let (socket, peer_addr) = race(alternate(addrs), none, clock).await?;
    if let Err(error) = socket.set_options() {
        return Err(failed(peer_addr, error));
    }
    Ok(Dialled { stream: Stream::Tcp(socket), peer_addr: Some(peer_addr) })
}

/// Connects to a Unix socket.
#[cfg(unix)]
pub(super) async fn unix(path: &Path) -> Result<Dialled, ConnectError> {
    let addr = || path.display().to_string();
    let socket = UnixStream::connect(path).await;
    let socket =
        socket.map_err(|error| ConnectError::Connect { addr: addr(), error: error.into() })?;
    Ok(Dialled { stream: Stream::Unix(Box::new(socket)), peer_addr: None })
}

/// Sorts addresses so that the two families alternate, beginning with that of the first address. Within a
/// family the order stays (RFC 8305 §4).
fn alternate(addrs: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let leads_v6 = addrs.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addrs.into_iter().partition(|addr| addr.is_ipv6() == leads_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut ordered = Vec::new();
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] {
            return ordered;
        }
        ordered.extend(pair.into_iter().flatten());
    }
}

/// Tries the addresses until a connection succeeds. The error is that of the last failure.
async fn race(
    addrs: Vec<SocketAddr>,
    mut last: ConnectError,
    clock: &Clock,
) -> Result<(TcpStream, SocketAddr), ConnectError> {
    let mut attempts = FuturesUnordered::new();
    let mut addrs = addrs.into_iter();
    loop {
        match addrs.next() {
            Some(addr) => {
                attempts.push(async move { (TcpStream::connect(addr).await, addr) });
            }
            None if attempts.is_empty() => return Err(last),
            // All addresses are being tried: wait for the attempts that are left.
            None => {}
        }
        match first_of(&mut attempts, addrs.len() == 0, clock).await {
            Some((Ok(socket), addr)) => return Ok((socket, addr)),
            Some((Err(error), addr)) => last = failed(addr, error),
            // No attempt has ended: the next address is tried beside the others.
            None => {}
        }
    }
}

/// The result of the first attempt that ends; `None` if none ends within the delay. After the last address
/// there is no delay.
async fn first_of<F: Future>(
    attempts: &mut FuturesUnordered<F>,
    is_last: bool,
    clock: &Clock,
) -> Option<F::Output> {
    if is_last {
        return attempts.next().await;
    }
    clock.timeout(Some(ATTEMPT_DELAY), attempts.next()).await.flatten()
}

fn failed(addr: SocketAddr, error: io::Error) -> ConnectError {
    ConnectError::Connect { addr: addr.to_string(), error: error.into() }
}

/// The way to the server, if that is not plain TCP.
#[derive(Clone, Debug, Default)]
pub(super) struct Route {
    /// The URL of a proxy.
    pub(super) proxy: Option<String>,
    #[cfg(unix)]
    pub(super) unix_socket: Option<PathBuf>,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<ClientTls>,
}

impl Route {
    /// Connects: socket, proxy tunnel, TLS. Then the opening handshake can begin.
    pub(super) async fn go(&self, target: &Target, clock: &Clock) -> Result<Dialled, ConnectError> {
        let Dialled { mut stream, peer_addr } = self.dial(target, clock).await?;
        if target.is_secure {
            stream = encrypt(self, stream, &target.host).await?;
        }
        Ok(Dialled { stream, peer_addr })
    }

    async fn dial(&self, target: &Target, clock: &Clock) -> Result<Dialled, ConnectError> {
        #[cfg(unix)]
        if let Some(path) = &self.unix_socket {
            return unix(path).await;
        }
        let Some(proxy) = &self.proxy else {
            return tcp(&target.host, target.port, clock).await;
        };
        let proxy = Proxy::parse(proxy)?;
        let Dialled { mut stream, .. } = tcp(&proxy.host, proxy.port, clock).await?;
        if proxy.is_secure {
            stream = encrypt(self, stream, &proxy.host).await?;
        }
        // The socket's peer is the proxy, not the server.
        Ok(Dialled { stream: proxy.tunnel(stream, target, clock).await?, peer_addr: None })
    }
}

#[cfg(feature = "tls")]
async fn encrypt(route: &Route, stream: Stream, host: &str) -> Result<Stream, ConnectError> {
    let shared = match &route.tls {
        Some(tls) => Ok(tls.clone()),
        None => ClientTls::shared(),
    };
    let failed =
        |error| ConnectError::Tls { host: host.to_owned(), error: io::Error::other(error).into() };
    shared.map_err(failed)?.encrypt(stream, host).await
}

#[cfg(not(feature = "tls"))]
fn encrypt(_: &Route, _: Stream, _: &str) -> std::future::Ready<Result<Stream, ConnectError>> {
    std::future::ready(Err(ConnectError::TlsMissing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_beginning_with_that_of_the_first_address() {
        let parse = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        for (resolved, ordered) in [
            (&["[::1]:1", "[::2]:1", "1.1.1.1:1"][..], &["[::1]:1", "1.1.1.1:1", "[::2]:1"][..]),
            (&["1.1.1.1:1", "1.1.1.2:1", "[::1]:1"], &["1.1.1.1:1", "[::1]:1", "1.1.1.2:1"]),
            (&["1.1.1.1:1", "1.1.1.2:1"], &["1.1.1.1:1", "1.1.1.2:1"]),
            (&[], &[]),
        ] {
            assert_eq!(alternate(parse(resolved)), parse(ordered));
        }
    }

    #[cfg(all(feature = "server", target_os = "linux"))]
    #[test]
    fn an_address_that_refuses_or_says_nothing_gives_way_to_the_next() {
        use std::net::{TcpListener, TcpStream as Blocking};

        use socket2::{Domain, Socket, Type};

        let good = TcpListener::bind("127.0.0.1:0").unwrap();
        let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        // A full queue: the system ignores further connections.
        let deaf = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        deaf.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        deaf.listen(0).unwrap();
        let deaf = TcpListener::from(deaf);
        let (silent, short) = (deaf.local_addr().unwrap(), Duration::from_millis(100));
        let queue = std::iter::from_fn(|| Blocking::connect_timeout(&silent, short).ok());
        let _queue: Vec<_> = queue.collect();

        let good = good.local_addr().unwrap();
        let none = || ConnectError::Connect {
            addr: String::new(),
            error: io::Error::from(io::ErrorKind::NotFound).into(),
        };
        for addrs in [vec![refusing, good], vec![silent, good], vec![silent, refusing, good]] {
            let (_, addr) = runtime::block_on(race(addrs, none(), &Clock::default())).unwrap();
            assert_eq!(addr, good);
        }
        let refused =
            runtime::block_on(race(vec![refusing], none(), &Clock::default())).unwrap_err();
        assert!(refused.to_string().contains(&refusing.to_string()), "{refused}");
    }
}
