//! Connections, what is negotiated for them, and refusals.

use futures::StreamExt;
use futures::channel::mpsc::unbounded;
use tidewire::deflate::DeflateOptions;
use tidewire::server::ServerOptions;
use tidewire::testing::{RawFrame, TestClient};
use tidewire::{Error, Message, RequestContext, Server, WebSocketOptions};

use super::{addr, echo, within};

#[test]
fn a_connection_is_opened_used_and_closed() {
    let (client, mut outcomes) = super::observed(WebSocketOptions::default());
    within(async {
        let mut ws = client.connect("/ws").await.unwrap();
        for len in [0, 1, 125, 126, 65_536, 1 << 20] {
            ws.send(vec![7; len]).await.unwrap();
            assert_eq!(ws.recv().await.unwrap(), Some(Message::from(vec![7; len])), "{len}");
        }
        assert_eq!(client.metrics().open_websockets, 1);
        let info = ws.close(4000, "enough").await.unwrap();
        assert!(info.clean);
        let (last, info) = super::next(&mut outcomes).await;
        assert_eq!((last.unwrap(), info.reported_code(), &*info.reason), (None, 4000, "enough"));
    });
}

#[test]
fn a_handshake_at_an_invalid_path_is_not_sent() {
    let client = echo(WebSocketOptions::default());
    within(async {
        for path in ["ws", "", "?a", "@elsewhere.example/ws"] {
            let connected = client.connect(path).await.map(drop);
            for outcome in [connected, client.peer(path).await.map(drop)] {
                match outcome {
                    Err(Error::Io(error)) => {
                        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{path}");
                    }
                    other => panic!("{path}: {other:?}"),
                }
            }
        }
        assert_eq!(client.metrics().accepted, 0);
    });
}

#[test]
fn an_offer_of_the_client_is_negotiated() {
    let options = WebSocketOptions::default()
        .subprotocols(["chat.v2", "chat.v1"])
        .deflate(DeflateOptions::default().threshold(0));
    let client = echo(options);
    within(async {
        let upgrade = client.websocket("/ws").subprotocols(["chat.v1", "mqtt"]);
        let mut ws = upgrade.deflate(DeflateOptions::default()).connect().await.unwrap();
        assert_eq!(ws.subprotocol(), Some("chat.v1"));
        assert!(ws.deflate_parameters().is_some());
        ws.send("Hello ".repeat(100)).await.unwrap();
        assert_eq!(ws.recv().await.unwrap(), Some(Message::from("Hello ".repeat(100))));
        assert_eq!(ws.stats().compressed_in, 1);

        let ws = client.connect("/ws").await.unwrap();
        assert_eq!((ws.subprotocol(), ws.deflate_parameters()), (None, None));
    });
}

#[test]
fn a_peer_sees_the_answer_and_compressed_frames_as_they_are() {
    let options = WebSocketOptions::default()
        .subprotocols(["chat.v2"])
        .deflate(DeflateOptions::default().threshold(0));
    let client = echo(options);
    within(async {
        let upgrade = client.websocket("/ws").subprotocols(["chat.v2"]);
        let mut peer = upgrade.deflate(DeflateOptions::default()).peer().await.unwrap();
        let response = peer.response().unwrap();
        response.assert_status(101).assert_header("Sec-WebSocket-Protocol", "chat.v2");
        assert!(response.header("sec-websocket-extensions").is_some());
        // RFC 7692 §7.2.3.1: a compressed "Hello".
        let hello: &[u8] = b"\xf2\x48\xcd\xc9\xc9\x07\x00";
        peer.send_frame(RawFrame::text(hello).with_reserved_bits(4)).await.unwrap();
        peer.expect_text("Hello").await;
        peer.send_frame(RawFrame::text("Hello ".repeat(20))).await.unwrap();
        let compressed = peer.recv_frame().await.unwrap().into_payload();
        assert!(compressed.len() < 20, "{compressed:?}");
        let frame = RawFrame::text(compressed.clone()).with_reserved_bits(4);
        peer.send_frame(frame).await.unwrap();
        peer.expect_hex("c1").await;
        let len = u8::try_from(compressed.len()).unwrap();
        peer.expect_bytes([&[len], &*compressed].concat()).await;

        let mut plain = client.peer("/ws").await.unwrap();
        plain.send_frame(RawFrame::text(hello).with_reserved_bits(4)).await.unwrap();
        plain.expect_close(1002).await;
    });
}

#[test]
fn a_refusal_has_status_headers_and_body() {
    let mut server = Server::new();
    server.get("/ws", |mut ctx: RequestContext| async move {
        if ctx.header("authorization") != Some("Bearer 123") {
            ctx.response().set_status(401);
            ctx.response().insert_header("www-authenticate", "Bearer");
            return Ok("who are you?");
        }
        let options = WebSocketOptions::default().subprotocols(["a"]).require_subprotocol();
        ctx.upgrade_to_websocket(options).await?;
        Ok("")
    });
    server.get("/long", |_ctx: RequestContext| async { Ok("x".repeat(5000)) });
    within(async {
        let client = TestClient::new(&server);
        let upgrade = || client.websocket("/ws").header("Authorization", "Bearer 123");
        let refusal = client.websocket("/ws").refused().await;
        refusal.assert_status(401).assert_header("WWW-Authenticate", "Bearer");
        refusal.assert_text("who are you?");
        upgrade().origin("https://evil.example").refused().await.assert_status(403);
        let refusal = upgrade().subprotocols(["b"]).refused().await;
        refusal.assert_status(400).assert_contains("no subprotocol of this server");
        upgrade().subprotocols(["b", "a"]).connect().await.unwrap();
        upgrade().origin("http://localhost").subprotocols(["a"]).connect().await.unwrap();
        client.websocket("/nowhere").refused().await.assert_status(404);
        assert_eq!(client.websocket("/long").refused().await.bytes().len(), 1024);
        let refused = client.metrics().refused;
        assert_eq!((refused["origin_forbidden"], refused["subprotocol_unsupported"]), (1, 1));

        let error = client.connect("/ws").await.unwrap_err();
        let Error::Connect(error) = error else { panic!("{error}") };
        assert_eq!(error.response().map(tidewire::client::HandshakeResponse::status), Some(401));
    });
}

#[test]
fn frames_beside_the_handshake_are_not_lost_on_either_side() {
    let mut server = Server::new();
    server.get("/", |mut ctx: RequestContext| async move {
        let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
        ws.send("welcome").await?;
        while let Some(message) = ws.recv().await? {
            ws.send(message).await?;
        }
        Ok(())
    });
    within(async {
        let client = TestClient::new(&server);
        let mut ws = client.connect("/").await.unwrap();
        assert_eq!(ws.recv().await.unwrap(), Some("welcome".into()));
        let mut peer = client.peer("/").await.unwrap();
        peer.expect_text("welcome").await;

        let mut peer = client.open().unwrap();
        let request = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
            Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
            Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let frame = RawFrame::text("glued").encode();
        peer.send_bytes([request.as_bytes(), &frame].concat()).await.unwrap();
        let close = RawFrame::close(1000, "").encode();
        peer.send_bytes(close).await.unwrap();
        let answer = peer.rest().await.unwrap();
        let frames = b"\r\n\r\n\x81\x07welcome\x81\x05glued\x88\x02\x03\xe8";
        assert!(answer.ends_with(frames), "{answer:x?}");
    });
}

#[test]
fn a_connection_comes_from_where_its_client_says() {
    let (tell, mut told) = unbounded();
    let mut server = Server::new();
    server.options(ServerOptions::default().trusted_proxies(["192.0.2.1"]));
    server.get("/", move |mut ctx: RequestContext| {
        let tell = tell.clone();
        async move {
            tell.unbounded_send((ctx.peer_addr(), ctx.client_ip()))?;
            let ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
            assert_eq!(ws.peer_addr(), ctx.peer_addr());
            Ok(())
        }
    });
    within(async {
        let client = TestClient::new(&server);
        let mut ports = Vec::new();
        for _ in 0..3 {
            client.connect("/").await.unwrap();
            let (peer_addr, client_ip) = told.next().await.unwrap();
            let peer_addr = peer_addr.unwrap();
            assert_eq!((peer_addr.ip(), Some(peer_addr.ip())), ([127, 0, 0, 1].into(), client_ip));
            assert!(peer_addr.port() >= 49_152 && !ports.contains(&peer_addr.port()));
            ports.push(peer_addr.port());
        }
        let mut from = addr(2);
        from.set_port(4711);
        client.peer_addr(from).connect("/").await.unwrap();
        assert_eq!(told.next().await.unwrap(), (Some(from), Some(from.ip())));

        let proxy = client.peer_addr(addr(1));
        let upgrade = proxy.websocket("/").header("X-Forwarded-For", "198.51.100.1");
        upgrade.connect().await.unwrap();
        let (peer_addr, client_ip) = told.next().await.unwrap();
        assert_eq!(peer_addr.map(|addr| addr.ip()), Some(addr(1).ip()));
        assert_eq!(client_ip, Some([198, 51, 100, 1].into()));

        client.peer_addr(None).connect("/").await.unwrap();
        assert_eq!(told.next().await.unwrap(), (None, None));
    });
}
