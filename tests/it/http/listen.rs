//! What a server listens on: several addresses at once, sockets in the file system, and sockets that
//! somebody else has made.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};

use tidewire::server::{BoundServer, Listeners, LocalAddr};

use super::{Client, PONG, pong};

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const REQUEST_AND_CLOSE: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

/// Serves for as long as the tests run.
fn run(listeners: Listeners) -> Vec<LocalAddr> {
    let bound = pong().bind_to(listeners).unwrap();
    let addrs = bound.local_addrs();
    async_std::task::spawn(bound.serve());
    addrs
}

fn tcp(listeners: Listeners, addr: &str) -> Listeners {
    async_std::task::block_on(listeners.tcp(addr)).unwrap()
}

fn message<T: std::fmt::Debug>(result: tidewire::Result<T>) -> String {
    let error = result.unwrap_err();
    std::error::Error::source(&error).expect("a cause").to_string()
}

fn port_of(addr: &LocalAddr) -> u16 {
    addr.as_tcp().unwrap().port()
}

#[test]
fn a_server_listens_on_several_addresses_of_both_families_at_once() {
    let listeners = ["127.0.0.1:0", "[::1]:0", "127.0.0.1:0"];
    let addrs = run(listeners.iter().fold(Listeners::new(), |all, addr| tcp(all, addr)));
    let families: Vec<_> = addrs.iter().map(|addr| addr.as_tcp().unwrap().is_ipv6()).collect();
    assert_eq!(families, [false, true, false]);
    for addr in addrs {
        assert_eq!(Client::to(addr.as_tcp().unwrap(), REQUEST).response(), PONG, "{addr}");
    }
}

#[test]
fn both_wildcard_addresses_share_a_port() {
    let listeners = tcp(Listeners::new(), "0.0.0.0:0");
    let port = port_of(&listeners.local_addrs()[0]);
    run(tcp(listeners, &format!("[::]:{port}")));
    for addr in [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), (Ipv6Addr::LOCALHOST, port).into()]
    {
        assert_eq!(Client::to(addr, REQUEST).response(), PONG, "{addr}");
    }
}

#[test]
fn the_local_address_is_the_first_tcp_address() {
    let bound: BoundServer = pong().bind_to(tcp(Listeners::new(), "127.0.0.1:0")).unwrap();
    assert_eq!(bound.local_addrs(), [LocalAddr::Tcp(bound.local_addr())]);
    assert_eq!(bound.local_addrs()[0].to_string(), bound.local_addr().to_string());
}

#[test]
fn a_server_needs_something_to_listen_on() {
    assert_eq!(message(pong().bind_to(Listeners::new())), "no address to listen on");
}

#[test]
fn a_taken_port_is_named_and_ports_bound_before_are_free_again() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let listeners = tcp(Listeners::new(), "127.0.0.1:0");
    let free = listeners.local_addrs()[0].as_tcp().unwrap();
    let message = message(async_std::task::block_on(listeners.tcp(addr)));
    assert!(message.starts_with(&format!("cannot listen on {addr}: ")), "{message}");
    TcpListener::bind(free).unwrap();
}

#[test]
fn an_inherited_listener_is_taken_over() {
    let inherited = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = inherited.local_addr().unwrap();
    // Connected before there was a server.
    let client = Client::to(addr, REQUEST);
    let addrs = run(Listeners::new().from_tcp(inherited).unwrap());
    assert_eq!(addrs, [LocalAddr::Tcp(addr)]);
    assert_eq!({ client }.response(), PONG);
}

#[cfg(unix)]
#[test]
fn servers_share_a_port_if_all_of_them_ask_to() {
    let reuse =
        |addr: SocketAddr| async_std::task::block_on(Listeners::new().reuse_port(addr)).unwrap();
    let first = reuse((Ipv4Addr::LOCALHOST, 0).into());
    let addr = first.local_addrs()[0].as_tcp().unwrap();
    let second = reuse(addr);
    assert_eq!(first.local_addrs(), second.local_addrs());
    let unwilling = message(async_std::task::block_on(Listeners::new().tcp(addr)));
    assert!(unwilling.starts_with(&format!("cannot listen on {addr}: ")), "{unwilling}");

    // With the first gone, all connections are the second's.
    drop(first);
    run(second);
    assert_eq!(Client::to(addr, REQUEST).response(), PONG);
}

#[cfg(unix)]
mod unix {
    use std::fs;
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::path::{Path, PathBuf};

    use tidewire::{RequestContext, Server, WebSocketOptions};

    use super::*;
    use crate::http::WITHIN;

    /// A path of its own for each test, with nothing there at the beginning and at the end.
    struct TempPath(PathBuf);

    impl TempPath {
        fn new(name: &str) -> Self {
            let name = format!("tidewire-{}-{name}.sock", std::process::id());
            Self(std::env::temp_dir().join(name))
        }
    }

    impl Drop for TempPath {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.0);
        }
    }

    impl AsRef<Path> for TempPath {
        fn as_ref(&self) -> &Path {
            &self.0
        }
    }

    fn connect(path: &TempPath) -> UnixStream {
        let socket = UnixStream::connect(path).unwrap();
        socket.set_read_timeout(Some(WITHIN)).unwrap();
        socket
    }

    /// What the server answers to one request, to the end of the stream.
    fn answer(mut socket: UnixStream) -> String {
        socket.write_all(REQUEST_AND_CLOSE.as_bytes()).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn http_over_a_unix_socket_has_no_addresses() {
        let path = TempPath::new("http");
        let mut server = Server::new();
        server.get("/", |ctx: RequestContext| async move {
            let local = ctx.request().local_addr().map(str::to_owned);
            Ok(format!("{:?} {local:?} {}", ctx.peer_addr(), ctx.request().url()))
        });
        let bound = server.bind_to(Listeners::new().unix(&path).unwrap()).unwrap();
        assert_eq!(bound.local_addrs(), [LocalAddr::Unix(path.0.clone())]);
        assert_eq!(bound.local_addrs()[0].to_string(), format!("unix:{}", path.0.display()));
        assert_eq!(bound.local_addr(), SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        async_std::task::spawn(bound.serve());
        let answer = answer(connect(&path));
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nNone None http://x/"), "{answer}");

        let mut old = connect(&path);
        old.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        old.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with("\r\n\r\nNone None http://localhost/"), "{answer}");
    }

    #[test]
    fn a_websocket_over_a_unix_socket_echoes_and_closes() {
        let path = TempPath::new("websocket");
        let mut server = Server::new();
        server.get("/", |mut ctx: RequestContext| async move {
            let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
            assert_eq!(ws.peer_addr(), None);
            while let Some(message) = ws.recv().await? {
                ws.send(message).await?;
            }
            Ok(())
        });
        let bound = server.bind_to(Listeners::new().unix(&path).unwrap()).unwrap();
        async_std::task::spawn(bound.serve());
        let mut client = connect(&path);
        // The handshake of RFC 6455 §1.3 with the masked "Hello" of §5.7 and a close right after.
        client
            .write_all(
                b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n\
                \x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58\x88\x82\x00\x00\x00\x00\x03\xe8",
            )
            .unwrap();
        let mut seen = Vec::new();
        client.read_to_end(&mut seen).unwrap();
        let head_len = seen.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
        assert!(seen.starts_with(b"HTTP/1.1 101 "));
        assert_eq!(seen[head_len..], *b"\x81\x05Hello\x88\x02\x03\xe8");
    }

    #[test]
    fn unix_and_tcp_are_served_together() {
        let path = TempPath::new("together");
        let addrs = run(tcp(Listeners::new(), "127.0.0.1:0").unix(&path).unwrap());
        assert!(answer(connect(&path)).ends_with("pong"));
        assert_eq!(Client::to(addrs[0].as_tcp().unwrap(), REQUEST).response(), PONG);
    }

    #[test]
    fn the_file_of_a_dead_server_is_replaced_and_ours_is_removed_at_the_end() {
        let path = TempPath::new("stale");
        // std leaves the file behind.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.0.exists());

        let bound = pong().bind_to(Listeners::new().unix(&path).unwrap()).unwrap();
        let serving = async_std::task::spawn(bound.serve());
        assert!(answer(connect(&path)).ends_with("pong"));
        async_std::task::block_on(serving.cancel());
        assert!(!path.0.exists());
    }

    #[test]
    fn the_socket_of_a_living_server_is_in_use() {
        let path = TempPath::new("alive");
        let alive = Listeners::new().unix(&path).unwrap();
        let message = message(Listeners::new().unix(&path));
        let expected = format!("cannot listen on {}: Address already in use", path.0.display());
        assert!(message.starts_with(&expected), "{message}");
        run(alive);
        assert!(answer(connect(&path)).ends_with("pong"));
    }

    #[test]
    fn a_file_that_is_not_a_socket_stays() {
        let path = TempPath::new("file");
        fs::write(&path, "precious").unwrap();
        let message = message(Listeners::new().unix(&path));
        assert!(message.contains("Address already in use"), "{message}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_path_that_cannot_be_had_is_an_error_that_names_it() {
        let missing = Path::new("/no/such/folder/x.sock");
        let long = PathBuf::from(format!("/tmp/{}", "x".repeat(200)));
        for path in [missing, &long] {
            let message = message(Listeners::new().unix(path));
            assert!(message.starts_with(&format!("cannot listen on {}: ", path.display())));
        }
    }

    #[test]
    fn a_file_that_another_server_has_put_in_the_place_of_ours_stays() {
        let path = TempPath::new("successor");
        let first = Listeners::new().unix(&path).unwrap();
        let successor = TempPath::new("successor-new");
        let second = UnixListener::bind(&successor).unwrap();
        fs::rename(&successor, &path).unwrap();
        drop(first);
        assert!(path.0.exists());
        drop(second);
    }

    #[test]
    fn an_inherited_unix_listener_is_taken_over_and_its_file_stays() {
        let path = TempPath::new("inherited");
        let inherited = UnixListener::bind(&path).unwrap();
        let client = connect(&path);
        let listeners = Listeners::new().from_unix(inherited).unwrap();
        let serving = async_std::task::spawn(pong().bind_to(listeners).unwrap().serve());
        assert!(answer(client).ends_with("pong"));
        async_std::task::block_on(serving.cancel());
        assert!(path.0.exists());
    }
}
