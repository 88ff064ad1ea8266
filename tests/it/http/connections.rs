//! A server that may have only so many connections, in all and of each address.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

#[cfg(target_os = "linux")]
use socket2::{Domain, Socket, Type};
use tidewire::server::{ServerHandle, ServerOptions};
use tidewire::{RequestContext, Server, WebSocketOptions};

use super::{Client, PONG, WITHIN, pong, serve};
use crate::support::tcp::until;

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

/// A server that answers `/` and, once the body is there, `/body`.
fn with_body(options: ServerOptions) -> Server {
    let mut server = pong();
    server.at("/body").post(|mut req: tide::Request<()>| async move { req.body_string().await });
    server.options(options);
    server
}

/// A client whose request is under way: its body is not there yet.
fn busy(addr: SocketAddr) -> Client {
    let head =
        "POST /body HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    let mut client = Client::to(addr, head);
    // The handler reads.
    assert!(client.head().starts_with("HTTP/1.1 100 "));
    client
}

#[test]
fn a_connection_beyond_the_limit_is_served_when_another_ends() {
    let addr = serve(with_body(two()));
    let [mut first, second] = [(); 2].map(|()| busy(addr));
    let mut third = Client::to(addr, PING);
    // A request that is under way is answered, and its connection is closed when it is.
    first = first.send("done");
    assert!(first.response().ends_with("done"));
    assert_eq!(third.response(), PONG);
    assert_eq!(first.rest(), "");
    assert!(waits(&second));
    assert!(second.send("done").response().ends_with("done"));
}

#[test]
fn idle_connections_of_a_server_that_is_full_make_room_the_longest_idle_first() {
    let mut server = pong();
    server.options(ServerOptions::default().max_connections(50));
    let handle = async_std::task::block_on(server.start("127.0.0.1:0")).unwrap();
    let addr = handle.local_addr();
    let crowd = (0..50).map(|_| {
        let mut client = Client::to(addr, PING);
        assert_eq!(client.response(), PONG);
        client
    });
    let mut crowd: Vec<_> = crowd.collect();
    // The first was idle for the longest time, and is not any more.
    let mut first = crowd.remove(0).send(PING);
    assert_eq!(first.response(), PONG);

    let mut honest = [(); 2].map(|()| Client::to(addr, PING));
    assert_eq!(honest.each_mut().map(Client::response), [PONG, PONG]);
    // Two of those that were idle for the longest time are closed, and certainly none of these.
    for client in [first].into_iter().chain(crowd.drain(25..)).chain(honest) {
        assert_eq!(client.send(PING).response(), PONG);
    }
    assert_eq!(handle.metrics().made_room, 2);
}

#[test]
fn connections_without_a_request_make_room_as_well() {
    let mut server = pong();
    server.options(two());
    let addr = serve(server);
    let silent = [(); 20].map(|()| Client::connect(addr));
    assert_eq!(Client::to(addr, PING).response(), PONG);
    drop(silent);
}

#[test]
fn a_connection_makes_room_as_soon_as_it_is_idle() {
    let addr = serve(with_body(ServerOptions::default().max_connections(1)));
    let first = busy(addr);
    let mut second = Client::to(addr, PING);
    assert!(waits(&second));
    let mut first = first.send("done");
    assert_eq!(second.response(), PONG);
    assert!(first.response().ends_with("done"));
    assert_eq!(first.rest(), "");
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
fn a_connection_in_the_middle_of_a_head_gives_its_place_back_when_that_is_overdue() {
    let mut server = pong();
    let soon = Duration::from_millis(200);
    server.options(two().head_timeout(soon));
    let addr = serve(server);
    let half = [(); 2].map(|()| Client::to(addr, "GET /"));
    assert_eq!(Client::to(addr, PING).response(), PONG);
    for mut client in half {
        assert!(client.rest().starts_with("HTTP/1.1 408 "));
    }
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
fn a_client_that_is_turned_away_takes_no_place_along() {
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
        assert_eq!(
            format!("{error:#}"),
            format!("I/O failed: {name} is 0, so no client could be served")
        );
    }
}
