//! A server that may have only so many connections, in all and of each address.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

#[cfg(target_os = "linux")]
use socket2::{Domain, Socket, Type};
use tidewire::{RequestContext, Server, ServerHandle, ServerOptions, WebSocketOptions};

use super::{Client, PONG, WITHIN, pong, serve};
use crate::ws::tcp::until;

const PING: &str = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

/// At most two connections.
fn two() -> ServerOptions {
    ServerOptions::default().max_connections(2)
}

/// Has had no answer so far.
fn waits(client: &Client) -> bool {
    client.socket.set_nonblocking(true).unwrap();
    let peeked = client.socket.peek(&mut [0]);
    client.socket.set_nonblocking(false).unwrap();
    peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn a_connection_beyond_the_limit_is_served_when_another_ends() {
    let mut server = pong();
    server.options(two());
    let addr = serve(server);
    let mut first = Client::to(addr, PING);
    let mut second = Client::to(addr, PING);
    assert_eq!([first.response(), second.response()], [PONG, PONG]);

    let mut third = Client::to(addr, PING);
    // Both others are served meanwhile, long enough for a third to have its turn.
    for _ in 0..50 {
        first = first.send(PING);
        second = second.send(PING);
        assert_eq!([first.response(), second.response()], [PONG, PONG]);
    }
    assert!(waits(&third));
    drop(first);
    assert_eq!(third.response(), PONG);

    let mut fourth = Client::to(addr, PING);
    second = second.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(second.rest().ends_with("pong"));
    drop(second);
    assert_eq!(fourth.response(), PONG);
}

#[test]
fn many_more_clients_than_connections_are_all_served() {
    let mut server = pong();
    server.options(two());
    let addr = serve(server);
    let clients: Vec<_> = (0..50).map(|_| Client::to(addr, PING)).collect();
    for mut client in clients {
        assert_eq!(client.response(), PONG);
    }
}

#[test]
fn a_connection_that_sends_nothing_gives_its_place_back_when_its_head_is_overdue() {
    let mut server = pong();
    let soon = Duration::from_millis(200);
    server.options(two().head_timeout(soon));
    let addr = serve(server);
    let begin = Instant::now();
    let silent = [Client::connect(addr), Client::to(addr, "GET /")];
    assert_eq!(Client::to(addr, PING).response(), PONG);
    assert!(begin.elapsed() >= soon);
    drop(silent);
}

#[test]
fn an_upgraded_connection_keeps_its_place_until_it_is_closed() {
    let mut server = pong();
    server.get("/ws", |mut ctx: RequestContext| async move {
        let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
        while ws.recv().await?.is_some() {}
        Ok(())
    });
    server.options(ServerOptions::default().max_connections(1));
    let addr = serve(server);
    let mut socket = Client::to(
        addr,
        "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    );
    assert!(socket.head().starts_with("HTTP/1.1 101 "));
    let mut other = Client::to(addr, PING);
    // A ping, and its pong.
    socket = socket.send(b"\x89\x80\x37\xfa\x21\x3d");
    assert_eq!(socket.take_through(b"\x8a\x00"), b"\x8a\x00");
    assert!(waits(&other));
    drop(socket);
    assert_eq!(other.response(), PONG);
}

#[test]
fn clients_that_leave_the_queue_take_no_place_along() {
    let mut server = pong();
    server.options(ServerOptions::default().max_connections(1));
    let addr = serve(server);
    let mut first = Client::to(addr, PING);
    assert_eq!(first.response(), PONG);
    for _ in 0..20 {
        drop(Client::to(addr, PING));
    }
    let mut last = Client::to(addr, PING);
    drop(first);
    assert_eq!(last.response(), PONG);
}

/// A server that turns clients away, and its address.
fn counting(options: ServerOptions) -> (SocketAddr, ServerHandle) {
    let mut server = pong();
    server.options(options);
    let handle = async_std::task::block_on(server.start("127.0.0.1:0")).unwrap();
    (handle.local_addr(), handle)
}

/// Is one more connection reset, without a byte?
fn is_turned_away(connected: io::Result<TcpStream>) -> bool {
    let mut rest = Vec::new();
    let ended = connected.and_then(|mut socket| {
        socket.set_read_timeout(Some(WITHIN))?;
        socket.read_to_end(&mut rest)
    });
    rest.is_empty() && ended.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
}

/// Is one more connection served?
fn is_served(addr: SocketAddr) -> bool {
    let served = TcpStream::connect(addr).and_then(|mut socket| {
        socket.set_read_timeout(Some(WITHIN))?;
        socket.write_all(PING.as_bytes())?;
        socket.read_exact(&mut [0])
    });
    served.is_ok()
}

#[test]
fn an_address_has_so_many_connections_and_one_more_is_reset() {
    let (addr, handle) = counting(ServerOptions::default().max_connections_per_address(2));
    let mut inside = [(); 2].map(|()| Client::to(addr, PING));
    assert_eq!(inside.each_mut().map(Client::response), [PONG, PONG]);
    assert!(is_turned_away(TcpStream::connect(addr)));
    assert_eq!(handle.metrics().turned_away, 1);
    let text = handle.metrics().to_prometheus();
    assert!(text.contains("\ntidewire_turned_away_total 1\n"), "{text}");

    let [mut leaving, staying] = inside;
    leaving = leaving.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(leaving.rest().ends_with("pong"));
    drop(leaving);
    until("there is room for another", || is_served(addr));
    assert_eq!(staying.send(PING).response(), PONG);
}

// Other systems have one address on the loopback.
#[cfg(target_os = "linux")]
#[test]
fn an_address_that_has_all_its_connections_does_not_keep_others_out() {
    let (addr, _handle) = counting(ServerOptions::default().max_connections_per_address(1));
    let from = |ip: [u8; 4]| {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((ip, 0)).into()).unwrap();
        socket.connect(&addr.into()).map(|()| TcpStream::from(socket))
    };
    let [one, other] = [1, 2].map(|host| Client::of(from([127, 0, 0, host]).unwrap()).send(PING));
    let mut inside = [one, other];
    assert_eq!(inside.each_mut().map(Client::response), [PONG, PONG]);
    assert!(is_turned_away(from([127, 0, 0, 1])));
    assert!(is_turned_away(from([127, 0, 0, 2])));
}

#[test]
fn a_trusted_proxy_has_as_many_connections_as_it_needs() {
    let options = ServerOptions::default().max_connections_per_address(1);
    for proxies in ["127.0.0.1", "127.0.0.0/8", "::ffff:127.0.0.1"] {
        let (addr, handle) = counting(options.clone().trusted_proxies([proxies]));
        let mut clients = [(); 5].map(|()| Client::to(addr, PING));
        assert_eq!(clients.each_mut().map(Client::response), [PONG; 5]);
        assert_eq!(handle.metrics().turned_away, 0);
    }
}

#[test]
fn whoever_is_turned_away_takes_no_place_along() {
    let options = two().max_connections_per_address(1);
    let (addr, _handle) = counting(options);
    let mut inside = Client::to(addr, PING);
    assert_eq!(inside.response(), PONG);
    for _ in 0..20 {
        assert!(is_turned_away(TcpStream::connect(addr)));
    }
    // It made no room for them.
    assert_eq!(inside.send(PING).response(), PONG);
}

#[test]
fn a_limit_of_0_is_an_error_that_names_it() {
    for (options, name) in [
        (ServerOptions::default().max_connections(0), "max_connections"),
        (ServerOptions::default().max_connections_per_address(0), "max_connections_per_address"),
    ] {
        let mut server = Server::new();
        server.options(options);
        let error = async_std::task::block_on(server.bind("127.0.0.1:0")).unwrap_err();
        assert_eq!(error.to_string(), format!("{name} is 0, which serves nobody"));
    }
}
