//! The ends of a server.

use std::future::pending;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tidewire::server::{ServerHandle, ServerOptions, ShutdownOptions};
use tidewire::tls::rustls::pki_types::ServerName;
use tidewire::tls::rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion,
};
use tidewire::websocket::HeartbeatOptions;
use tidewire::{RequestContext, Server, WebSocketOptions};

use super::super::{authority, server_config};
use super::{PLAIN_CLOSE_NOTIFY, SHORT, Tap, VERSIONS, ends_with_close_notify, expect_all};
use crate::support::frames::{CLOSE, TEXT, close, masked};
use crate::support::peer::within;
use crate::support::tcp::Tcp;

type Client = Tcp<StreamOwned<ClientConnection, Tap>>;

/// A way to an end: what a client does to bring it about.
type Way = fn(&mut Client);

/// The ends of a server that serves on, but for those of the HTTP side's deadlines.
const ENDS: [(&str, Way); 19] = [
    ("the client closes", |client| {
        client.upgrade("/echo");
        client.send(masked(CLOSE, close(1000, "")));
    }),
    ("the client answers our close frame", |client| {
        client.upgrade("/waits");
        client.expect_hex("88 02 03e8");
        client.send(masked(CLOSE, close(1000, "")));
    }),
    ("the handler returned, and the client never answers", |client| client.upgrade("/returns")),
    ("the handler panicked, and the client never answers", |client| client.upgrade("/panics")),
    ("the handler closed, and the client never answers", |client| client.upgrade("/closes")),
    ("the connection was idle, and the client never answers", |client| client.upgrade("/idle")),
    ("the connection is old, and the client never answers", |client| client.upgrade("/old")),
    ("a message is late, and the client never answers", |client| {
        client.upgrade("/late");
        client.send(b"\x81\x85");
    }),
    ("the client breaks a rule, and never answers", |client| {
        client.upgrade("/echo");
        client.send(b"\x83\x80\x00\x00\x00\x00");
    }),
    ("no pong", |client| client.upgrade("/beats")),
    ("TLS ends without a close frame", |client| {
        client.upgrade("/echo");
        end_tls(client);
    }),
    ("TLS ends in the middle of a frame", |client| {
        client.upgrade("/echo");
        client.send(&masked(TEXT, "Hello")[..7]);
        end_tls(client);
    }),
    ("TCP ends without a word", |client| {
        client.upgrade("/echo");
        end_tcp(client);
    }),
    ("an opening handshake is refused, and the client ends TLS", |client| {
        client.send(
            "GET /echo HTTP/1.1\r\nHost: x\r\nOrigin: http://y\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Version: 13\r\n\r\n",
        );
        assert!(client.head().starts_with("HTTP/1.1 403 "));
        end_tls(client);
    }),
    ("HTTP: the last response", |client| {
        client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    }),
    ("HTTP: a malformed request", |client| client.send("GET  / HTTP/1.1\r\n\r\n")),
    ("HTTP: TLS ends between requests", |client| {
        request(client);
        end_tls(client);
    }),
    ("HTTP: TCP ends between requests", |client| {
        request(client);
        end_tcp(client);
    }),
    ("HTTP: TLS ends in the middle of a head", |client| {
        client.send("GET /");
        end_tls(client);
    }),
];

/// A request whose connection stays.
fn request(client: &mut Client) {
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    client.head();
    client.expect("pong");
}

/// Sends a `close_notify`, and reads on.
fn end_tls(client: &mut Client) {
    client.socket.conn.send_close_notify();
    client.socket.flush().unwrap();
}

/// Sends a FIN, and reads on.
fn end_tcp(client: &mut Client) {
    client.socket.sock.socket.shutdown(Shutdown::Write).unwrap();
}

type Options = fn() -> ServerOptions;

/// The ends of a server that is not patient.
const DEADLINES: [(&str, Way, Options); 3] = [
    ("no request", |_| {}, || ServerOptions::default().head_timeout(SHORT)),
    // It may be late before it begins.
    (
        "a head that is late",
        |client| drop(client.socket.write_all(b"GET /")),
        || ServerOptions::default().head_timeout(SHORT),
    ),
    ("no further request", request, || ServerOptions::default().idle_timeout(SHORT)),
];

/// A server with a route for each way that a connection may end.
fn routes() -> Server {
    let patient = WebSocketOptions::default();
    // The client of these never answers a close frame.
    let options = patient.clone().close_timeout(SHORT);
    let heartbeat = HeartbeatOptions::default().interval(SHORT).timeout(SHORT);
    let mut server = Server::new();
    server.at("/").get(|_| async { Ok("pong") });
    for (path, options) in [
        ("/echo", options.clone()),
        ("/idle", options.clone().idle_timeout(SHORT)),
        ("/old", options.clone().max_lifetime(SHORT)),
        ("/late", options.clone().message_timeout(SHORT)),
        ("/beats", options.clone().heartbeat(heartbeat)),
    ] {
        receiving(&mut server, path, options);
    }
    for (path, options) in [("/returns", options.clone()), ("/waits", patient)] {
        server.get(path, move |mut ctx: RequestContext| {
            let options = options.clone();
            async move { ctx.upgrade_to_websocket(options).await.map(drop).map_err(Into::into) }
        });
    }
    let closing = options.clone();
    server.get("/closes", move |mut ctx: RequestContext| {
        let options = closing.clone();
        async move {
            let mut ws = ctx.upgrade_to_websocket(options).await?;
            let _ = ws.close(1000, "").await;
            Ok(())
        }
    });
    server.get("/panics", move |mut ctx: RequestContext| {
        let options = options.clone();
        async move {
            let _ws = ctx.upgrade_to_websocket(options).await?;
            panics()
        }
    });
    server
}

fn panics() -> tidewire::HandlerResult {
    panic!("the handler of a test");
}

/// A route whose handler receives to the end.
fn receiving(server: &mut Server, path: &str, options: WebSocketOptions) {
    server.get(path, move |mut ctx: RequestContext| {
        let options = options.clone();
        async move {
            let mut ws = ctx.upgrade_to_websocket(options).await?;
            while ws.recv().await?.is_some() {}
            Ok(())
        }
    });
}

/// Serves, until it is told not to.
fn start(mut server: Server) -> (SocketAddr, ServerHandle) {
    server.tls(server_config());
    let handle = async_std::task::block_on(server.start("127.0.0.1:0")).unwrap();
    (handle.local_addr(), handle)
}

fn config(version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority().0.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&[version]).unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

/// The session of a client that has said nothing yet.
fn session(version: &'static SupportedProtocolVersion) -> ClientConnection {
    let name = ServerName::try_from("localhost").unwrap();
    ClientConnection::new(config(version), name).unwrap()
}

fn connect(addr: SocketAddr, version: &'static SupportedProtocolVersion) -> Client {
    let (mut conn, mut tap) = (session(version), Tap::new(Tcp::connect(addr).socket));
    while conn.is_handshaking() {
        conn.complete_io(&mut tap).unwrap();
    }
    Tcp { socket: StreamOwned::new(conn, tap) }
}

#[test]
fn a_server_says_close_notify_at_every_end() {
    let (addr, _handle) = start(routes());
    for (name, version) in VERSIONS {
        expect_all(ENDS.map(|(end, way)| {
            let mut client = connect(addr, version);
            way(&mut client);
            (format!("{end}, TLS {name}"), ends_with_close_notify(&mut client.socket))
        }));
    }
}

#[test]
fn a_server_says_close_notify_at_the_deadlines_of_http() {
    for (end, way, options) in DEADLINES {
        let mut server = routes();
        server.options(options());
        let (addr, _handle) = start(server);
        for (name, version) in VERSIONS {
            let mut client = connect(addr, version);
            way(&mut client);
            let outcome = ends_with_close_notify(&mut client.socket);
            expect_all([(format!("{end}, TLS {name}"), outcome)]);
        }
    }
}

#[test]
fn a_server_that_shuts_down_sends_close_notify_to_all_clients() {
    for (name, version) in VERSIONS {
        let mut server = Server::new();
        server.at("/").get(|_| async { Ok("pong") });
        receiving(&mut server, "/echo", WebSocketOptions::default().close_timeout(SHORT));
        // The client of this one has still not answered when the grace period is over.
        receiving(&mut server, "/patient", WebSocketOptions::default());
        server.get("/stuck", |mut ctx: RequestContext| async move {
            let _ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
            pending::<tidewire::HandlerResult>().await
        });
        let (addr, handle) = start(server);

        let silent = connect(addr, version);
        let mut between_requests = connect(addr, version);
        request(&mut between_requests);
        let upgraded = ["/echo", "/patient", "/stuck"].map(|path| {
            let mut client = connect(addr, version);
            client.upgrade(path);
            client
        });
        let shutdown = ShutdownOptions::default().grace(Duration::from_millis(500));
        let shutting_down = async_std::task::spawn(async move { handle.shutdown(shutdown).await });
        let [never_answers, patient, stuck] = upgraded;
        let ends = [
            ("the client never answers", never_answers),
            ("the client has not answered yet", patient),
            ("the handler does not return", stuck),
            ("no request", silent),
            ("no further request", between_requests),
        ];
        expect_all(ends.map(|(end, mut client)| {
            (format!("{end}, TLS {name}"), ends_with_close_notify(&mut client.socket))
        }));
        within(shutting_down);
    }
}

#[test]
fn a_connection_that_makes_room_for_another_is_ended_with_close_notify() {
    for (name, version) in VERSIONS {
        let mut server = routes();
        server.options(ServerOptions::default().max_connections(1));
        let (addr, _handle) = start(server);
        let mut idle = connect(addr, version);
        request(&mut idle);
        let mut hello = Vec::new();
        session(version).write_tls(&mut hello).unwrap();
        let mut half = Tcp::connect(addr);
        half.send(&hello[..hello.len() / 2]);
        let outcome = ends_with_close_notify(&mut idle.socket);
        expect_all([(format!("no further request, TLS {name}"), outcome)]);
        let mut next = connect(addr, version);
        half.expect(PLAIN_CLOSE_NOTIFY);
        half.expect_end();
        request(&mut next);
    }
}

/// What a client that stops after so many bytes of its hello is sent, to the end.
fn stops(addr: SocketAddr, hello: &[u8]) -> Vec<u8> {
    let mut client = Tcp::connect(addr);
    client.send(hello);
    let mut answer = Vec::new();
    client.socket.read_to_end(&mut answer).unwrap();
    answer
}

#[test]
fn a_handshake_that_takes_too_long_is_ended_with_close_notify() {
    let mut server = Server::new();
    server.tls(server_config().handshake_timeout(SHORT));
    let handle = async_std::task::block_on(server.start("127.0.0.1:0")).unwrap();
    let addr = handle.local_addr();
    for (name, version) in VERSIONS {
        let mut session = session(version);
        let mut hello = Vec::new();
        session.write_tls(&mut hello).unwrap();
        // Nothing is agreed on yet, so nothing is encrypted.
        for len in [1, hello.len() / 2] {
            assert_eq!(stops(addr, &hello[..len]), PLAIN_CLOSE_NOTIFY, "{len} bytes, TLS {name}");
        }
        // The server has said all that it has to; the client falls silent.
        let answer = stops(addr, &hello);
        let mut answer = answer.as_slice();
        while !answer.is_empty() {
            session.read_tls(&mut answer).unwrap();
            let state = session.process_new_packets().unwrap();
            // rustls lets an alert pass only where it may end the data (TLS 1.3).
            assert!(!answer.is_empty() || state.peer_has_closed() || name == "1.2", "TLS {name}");
        }
    }
}

#[test]
fn a_handshake_is_ended_with_close_notify_when_the_server_shuts_down() {
    let mut server = routes();
    server.tls(server_config().handshake_timeout(None));
    let handle = async_std::task::block_on(server.start("127.0.0.1:0")).unwrap();
    let mut hello = Vec::new();
    session(VERSIONS[1].1).write_tls(&mut hello).unwrap();
    let mut client = Tcp::connect(handle.local_addr());
    client.send(&hello[..hello.len() / 2]);
    // By then the first one is accepted.
    let mut other = connect(handle.local_addr(), VERSIONS[1].1);
    request(&mut other);
    within(handle.shutdown(ShutdownOptions::default()));
    client.expect(PLAIN_CLOSE_NOTIFY);
    client.expect_end();
}
