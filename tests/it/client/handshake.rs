//! The opening handshake of the client (RFC 6455 §4.1).

use std::io::Read;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use tidewire::client::{ConnectError, ConnectStep, ReconnectOptions, ResponseViolation};
use tidewire::deflate::DeflateOptions;
use tidewire::{Client, Server, WebSocketOptions};

use super::{Scripted, accepting, refusal};
use crate::support::frames::{PING, TEXT, plain};
use crate::support::peer::within;
use crate::support::tcp::{bind, echo_server};

#[test]
fn client_and_server_agree_on_a_subprotocol_and_on_compression() {
    let options = WebSocketOptions::default()
        .subprotocols(["chat.v1", "chat.v2"])
        .deflate(DeflateOptions::default());
    let url = format!("ws://{}/", bind(echo_server(options)));
    within(async {
        let client = Client::new(url)
            .subprotocols(["chat.v2", "chat.v1"])
            .deflate(DeflateOptions::default());
        let (mut ws, response) = client.connect_with_response().await.unwrap();
        assert_eq!(ws.subprotocol(), Some("chat.v1"), "the server's preference");
        assert!(ws.deflate_parameters().is_some());
        assert_eq!(response.status(), 101);
        assert_eq!(response.header("sec-websocket-protocol"), Some("chat.v1"));
        assert!(ws.peer_addr().is_some());

        let text = "again and again ".repeat(1000);
        ws.send(text.as_str()).await.unwrap();
        assert_eq!(ws.recv().await.unwrap().unwrap().as_text(), Some(&*text));
        let stats = ws.stats();
        assert_eq!((stats.compressed_in, stats.compressed_out), (1, 1));

        let info = ws.close(1000, "done").await.unwrap();
        assert!(info.clean, "{info:?}");
    });
}

#[test]
fn a_window_of_256_bytes_is_agreed_on_and_messages_of_the_client_go_plain() {
    // RFC 7692 §7.1.2.2: the offer has no value, so the server may choose the smallest. No zlib
    // compresses with it; a message may always go as it is (§6.1).
    let answer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=8; \
         server_max_window_bits=8; server_no_context_takeover\r\n";
    // RFC 7692 §7.2.3.1: "Hello", compressed.
    let hello = [&[0xc1, 0x07][..], &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00]].concat();
    for takeover in [false, true] {
        let server = Scripted::new([accepting(answer, &hello)]);
        within(async {
            let deflate = DeflateOptions::default().client_context_takeover(takeover).threshold(0);
            let client = Client::new(server.url()).deflate(deflate);
            let mut ws = client.connect().await.unwrap();
            let agreed = ws.deflate_parameters().unwrap();
            assert_eq!((agreed.client_max_window_bits(), agreed.server_max_window_bits()), (8, 8));
            assert_eq!(ws.recv().await.unwrap().unwrap().as_text(), Some("Hello"));
            let mut socket = server.visits().remove(0).socket;
            for text in ["Hello Hello Hello", "Hello Hello Hello"] {
                ws.send(text).await.unwrap();
                let mut frame = [0; 6 + 17];
                socket.read_exact(&mut frame).unwrap();
                assert_eq!(frame[..2], [0x81, 0x91], "a bit that says it is compressed");
            }
        });
    }
}

#[test]
fn frames_that_come_along_with_the_101_are_not_lost() {
    let frames = [plain(TEXT, "first"), plain(PING, "?"), plain(TEXT, "second")].concat();
    let server = Scripted::new([accepting("", &frames)]);
    within(async {
        let mut ws = tidewire::connect(server.url()).await.unwrap();
        for text in ["first", "second"] {
            assert_eq!(ws.recv().await.unwrap().unwrap().as_text(), Some(text));
        }
        ws.flush().await.unwrap();
        // Masked, as all that a client sends (§5.3): the pong is of 7 bytes.
        let mut pong = [0; 7];
        server.visits()[0].socket.read_exact(&mut pong).unwrap();
        assert_eq!(pong[..2], [0x8a, 0x81]);
        assert_eq!(pong[6] ^ pong[2], b'?');
    });
}

#[test]
fn an_answer_before_the_answer_is_passed_over() {
    let early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
    let server = Scripted::new([[&early[..], &accepting("", b"")].concat()]);
    within(async {
        let (_, response) = Client::new(server.url()).connect_with_response().await.unwrap();
        assert_eq!(response.header("link"), None);
    });
    let endless = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(100);
    let error = refusal(within(tidewire::connect(Scripted::new([endless]).url())));
    assert!(matches!(*error, ConnectError::MalformedResponse { .. }), "{error:?}");
}

#[test]
fn a_refusal_has_status_headers_and_the_beginning_of_the_body() {
    let long = "x".repeat(100_000);
    let framed = format!("Content-Length: {}\r\n\r\n{long}", long.len());
    let chunked = format!("Transfer-Encoding: chunked\r\n\r\n186A0\r\n{long}\r\n0\r\n\r\n");
    for (rest, body) in [
        ("Content-Length: 2\r\n\r\nno", "no"),
        ("Content-Length: 0\r\n\r\n", ""),
        ("Transfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n", "no"),
        (&framed, &long[..1024]),
        (&chunked, &long[..1024]),
    ] {
        let server = Scripted::new([format!("HTTP/1.1 403 Forbidden\r\nX-Why: you\r\n{rest}")]);
        let error = refusal(within(tidewire::connect(server.url())));
        assert!(matches!(*error, ConnectError::Refused(_)), "{error:?}");
        assert!(!error.is_transient());
        let response = error.response().unwrap();
        assert_eq!((response.status(), response.header("x-why")), (403, Some("you")));
        assert_eq!(response.body(), body.as_bytes());
    }
}

#[test]
fn our_own_server_says_why_it_refuses() {
    let url = format!("ws://{}/", bind(echo_server(WebSocketOptions::default())));
    let error = refusal(within(Client::new(url).origin("https://evil.example").connect()));
    let response = error.response().unwrap();
    assert_eq!(response.status(), 403);
    let body = String::from_utf8_lossy(response.body());
    assert!(body.contains("origin"), "{body}");

    let url = format!("ws://{}/nowhere", bind(Server::new()));
    let error = refusal(within(tidewire::connect(url)));
    assert_eq!(error.response().unwrap().status(), 404);
    assert_eq!(error.to_string(), "the server answered 404 instead of 101");
}

#[test]
fn a_101_that_breaks_a_rule_fails_the_connection_and_is_shown() {
    for (response, violation) in [
        (accepting("Sec-WebSocket-Protocol: mqtt\r\n", b""), None),
        (accepting("Sec-WebSocket-Extensions: x-other\r\n", b""), None),
        (
            b"HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
              Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
                .to_vec(),
            Some(ResponseViolation::AcceptMismatch),
        ),
        (b"HTTP/1.1 101 x\r\n\r\n".to_vec(), Some(ResponseViolation::UpgradeMissing)),
    ] {
        let server = Scripted::new([response]);
        let error = refusal(within(tidewire::connect(server.url())));
        let ConnectError::InvalidResponse { violation: found, response } = &*error else {
            panic!("{error:?}");
        };
        assert_eq!(response.status(), 101);
        assert!(violation.is_none_or(|violation| violation == *found), "{found:?}");
        // The socket is closed, without a frame.
        let mut rest = Vec::new();
        server.visits()[0].socket.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty());
    }
}

#[test]
fn a_response_that_is_not_http_is_reported_as_such() {
    for answer in ["SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.0 101 x\r\n\r\n", "\x16\x03\x01\r\n\r\n"] {
        let error = refusal(within(tidewire::connect(Scripted::new([answer]).url())));
        assert!(matches!(*error, ConnectError::MalformedResponse { .. }), "{error:?}");
    }
    for answer in ["", "HTTP/1.1 101 Switching"] {
        let server = Scripted::new([answer]);
        let url = server.url();
        // Closes as soon as it has answered.
        thread::spawn(|| drop(server.visits()));
        let error = refusal(within(tidewire::connect(url)));
        assert!(matches!(*error, ConnectError::Io(_)), "{error:?}");
        assert!(error.is_transient());
    }
}

#[test]
fn a_refusal_may_be_http_1_0() {
    // As those of older load balancers are, which have no server to ask at the moment.
    let server = Scripted::ending(["HTTP/1.0 503 Service Unavailable\r\n\r\nlater"]);
    let error = refusal(within(tidewire::connect(server.url())));
    assert!(error.is_transient(), "{error:?}");
    let response = error.response().unwrap();
    assert_eq!((response.status(), response.body()), (503, &b"later"[..]));
}

#[test]
fn a_server_that_does_not_answer_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let client = Client::new(url).handshake_timeout(Duration::from_millis(50));
    let error = refusal(within(client.connect()));
    assert!(matches!(*error, ConnectError::TimedOut(ConnectStep::Handshake)), "{error:?}");
}

#[test]
fn an_invalid_request_fails_before_a_byte_is_sent() {
    for (client, message) in [
        (
            Client::new("example.com"),
            "\"example.com\" cannot be opened: relative URL without a base",
        ),
        (
            Client::new("ws://x/a?token=secret#b"),
            "\"ws://x/a?…\" cannot be opened: there must be no fragment",
        ),
        (Client::new("ws://x/").header("Upgrade", "h2c"), "the header \"Upgrade\" cannot be sent"),
        (Client::new("ws://x/").subprotocols([""]), "the subprotocol \"\" cannot be offered"),
    ] {
        assert_eq!(refusal(within(client.connect())).to_string(), message);
    }
}

#[test]
fn secrets_are_not_printed() {
    let client = Client::new("ws://ada:secret@x/a?token=secret")
        .header("Authorization", "Bearer secret")
        .proxy("http://ada:secret@proxy.example:3128");
    let shown = format!("{client:?}");
    assert!(shown.contains("x/a") && shown.contains("Authorization"), "{shown}");
    assert!(!shown.contains("secret"), "{shown}");
    let reconnect = format!("{:?}", client.reconnect(ReconnectOptions::default()));
    assert!(!reconnect.contains("secret"), "{reconnect}");
}

#[test]
fn an_error_repeats_no_secret_of_the_url() {
    for url in [
        "ws://x/?token=secret#b",
        "ws://x/a#secret",
        "ftp://x/?token=secret",
        "ws://:secret@x/#b",
        "wss://ada:secret@x:70000/",
        "ws://x:70000/?token=secret",
        "ws://?token=secret",
        "//x/?token=secret",
        "x/a?token=secret",
        "x/a#token=secret",
        "ada:secret@x/",
        "ws:ada:secret@x:y/",
    ] {
        for client in [Client::new(url), Client::new("ws://x/").proxy(url)] {
            let error = refusal(within(client.connect()));
            assert!(matches!(*error, ConnectError::InvalidUrl { .. }), "{error:?}");
            let told = format!("{error} {error:?}");
            assert!(!told.contains("secret"), "{told}");
        }
    }
}

#[test]
fn the_answer_of_a_server_is_shown_without_secrets_and_without_line_breaks() {
    let location = "/a?token=secret\u{9b}31m";
    let response = format!(
        "HTTP/1.1 302 Found\r\nLocation: {location}\r\nSet-Cookie: id=secret\r\n\
         Content-Length: 0\r\n\r\n"
    );
    let error = refusal(within(tidewire::connect(Scripted::new([response]).url())));
    for told in [error.to_string(), format!("{error:?}")] {
        assert!(!told.contains("secret") && !told.contains('\u{9b}'), "{told}");
        assert!(told.contains("/a?…"), "{told}");
    }
    assert_eq!(error.response().unwrap().header("location"), Some(location));
}
