//! A server that may have only so many connections.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use tidewire::{RequestContext, Server, ServerOptions, WebSocketOptions};

use super::{Client, PONG, pong, serve};

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

#[test]
fn a_limit_of_0_is_an_error_that_names_it() {
    let mut server = Server::new();
    server.options(ServerOptions::default().max_connections(0));
    let error = async_std::task::block_on(server.bind("127.0.0.1:0")).unwrap_err();
    assert_eq!(error.to_string(), "max_connections is 0, which serves nobody");
}
