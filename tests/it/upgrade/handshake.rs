//! The opening handshake as a client sees it (RFC 6455 §4.2).

use std::io::Read;

use futures::channel::oneshot;
use tidewire::limits::ConnectionLimit;
use tidewire::server::{ServerOptions, endpoint};
use tidewire::upgrade::UpgradeOptions;
use tidewire::{Error, HandshakeError, RequestContext, Server, WebSocketOptions};

use crate::support::frames::{TEXT, masked, plain};
use crate::support::peer::{echo, within};
use crate::support::tcp::{OPENING, Tcp, bind, echo_server};

/// The head of the answer to a request, in lower case, without its date.
fn answer(client: &mut Tcp) -> String {
    let head = client.head().to_lowercase();
    head.split_inclusive("\r\n").filter(|line| !line.starts_with("date: ")).collect()
}

#[test]
pub(crate) fn the_request_of_section_1_3_is_answered_with_101() {
    let mut client = Tcp::connect(bind(echo_server(WebSocketOptions::default())));
    client.send(OPENING);
    let head = client.head();
    let mut lines: Vec<_> = head.lines().filter(|line| !line.starts_with("date: ")).collect();
    lines[1..].sort_unstable();
    let expected = [
        "HTTP/1.1 101 Switching Protocols",
        "",
        "connection: Upgrade",
        "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        "upgrade: websocket",
    ];
    assert_eq!(lines, expected, "{head}");
}

#[test]
pub(crate) fn extensions_and_subprotocols_that_are_offered_are_not_agreed_to() {
    let mut client = Tcp::connect(bind(echo_server(WebSocketOptions::default())));
    let offers = "Sec-WebSocket-Extensions: permessage-deflate\r\n\
                  Sec-WebSocket-Protocol: chat, superchat\r\n\r\n";
    client.send(OPENING.replace("\r\n\r\n", &format!("\r\n{offers}")));
    let head = answer(&mut client);
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    assert!(!head.contains("sec-websocket-extensions"), "{head}");
    assert!(!head.contains("sec-websocket-protocol"), "{head}");
}

#[test]
pub(crate) fn tokens_may_stand_in_any_case_on_any_line() {
    let addr = bind(echo_server(WebSocketOptions::default()));
    for (line, other) in [
        ("Upgrade: websocket", "Upgrade: WebSocket"),
        ("Upgrade: websocket", "upgrade: h2c, WEBSOCKET"),
        ("Connection: Upgrade", "Connection: keep-alive, upgrade"),
        ("Connection: Upgrade", "Connection: keep-alive\r\nConnection: UPGRADE"),
        ("Sec-WebSocket-Key:", "SEC-WEBSOCKET-KEY:"),
    ] {
        let mut client = Tcp::connect(addr);
        client.send(OPENING.replace(line, other));
        let head = answer(&mut client);
        assert!(head.starts_with("http/1.1 101 "), "{other}: {head}");
    }
}

#[test]
pub(crate) fn a_request_that_is_not_an_opening_handshake_is_answered_with_its_status() {
    let mut server = Server::new();
    server.at("/").all(endpoint(|mut ctx: RequestContext| async move {
        assert!(!ctx.is_websocket_upgrade());
        ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
        Ok(())
    }));
    let addr = bind(server);
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (line, other, status) in [
        ("GET", "POST", 405),
        ("GET", "PUT", 405),
        ("HTTP/1.1", "HTTP/1.0", 400),
        ("Host: x\r\n", "", 400),
        ("Upgrade: websocket\r\n", "", 400),
        ("Upgrade: websocket", "Upgrade: h2c", 400),
        ("Connection: Upgrade\r\n", "", 400),
        ("Connection: Upgrade", "Connection: keep-alive", 400),
        (key, "", 400),
        (key, "Sec-WebSocket-Key: c2hvcnQ=\r\n", 400),
        (key, "Sec-WebSocket-Key: \r\n", 400),
        (key, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j!!==\r\n", 400),
        (key, &key.repeat(2), 400),
        ("Sec-WebSocket-Version: 13\r\n", "", 400),
        ("Version: 13", "Version: 12", 426),
        ("Version: 13", "Version: 0", 426),
        ("Version: 13", "Version: 013", 426),
    ] {
        let mut client = Tcp::connect(addr);
        client.send(OPENING.replace(line, other));
        let head = answer(&mut client);
        // An HTTP/1.0 client is answered in its own version.
        let is_told = head["http/1.x".len()..].starts_with(&format!(" {status} "));
        assert!(is_told, "{line} → {other:?}: {head}");
        assert!(!head.contains("sec-websocket-accept"), "{head}");
    }
}

#[test]
pub(crate) fn another_version_is_answered_with_the_one_that_is_spoken() {
    let mut client = Tcp::connect(bind(echo_server(WebSocketOptions::default())));
    client.send(OPENING.replace("Version: 13", "Version: 8"));
    let head = answer(&mut client);
    assert!(head.starts_with("http/1.1 426 "), "{head}");
    assert!(head.contains("\r\nsec-websocket-version: 13\r\n"), "{head}");
    // RFC 9110 §15.5.22 and §7.8
    assert!(head.contains("\r\nupgrade: websocket\r\n"), "{head}");
    assert!(head.contains("\r\nconnection: upgrade, close\r\n"), "{head}");
}

#[test]
fn bytes_after_a_refused_upgrade_are_never_the_next_request() {
    // A proxy that tunnels without a look at the status takes it for frames (RFC 9112 §9.6).
    let limit = ConnectionLimit::new(1);
    let mut server = echo_server(UpgradeOptions::default().limit(&limit));
    server.get("/http", |_: RequestContext| async { Ok("taken for HTTP") });
    server.get("/private", |mut ctx: RequestContext| async move {
        ctx.response().set_status(401);
        Ok(())
    });
    let addr = bind(server);
    let _inside = Tcp::upgraded(addr);
    for (line, other, status) in [
        ("Version: 13", "Version: 12", 426),
        ("Host: x", "Host: x\r\nOrigin: https://evil.example", 403),
        ("Sec-WebSocket-Key", "Sec-WebSocket-Kay", 400),
        ("Connection: Upgrade", "Connection: keep-alive", 400),
        ("GET / ", "POST / ", 405),
        ("GET / ", "GET /nowhere ", 404),
        ("GET / ", "GET /private ", 401),
        ("GET / ", "GET /http ", 200),
        ("nothing", "is changed", 503),
        // The handshake takes this for an upgrade, and so does the rule.
        ("Upgrade: w", "Origin: https://evil.example\r\nUpgrade: \u{e9}, w", 403),
    ] {
        let mut client = Tcp::connect(addr);
        let request = OPENING.replace(line, other);
        client.send(format!("{request}GET /http HTTP/1.1\r\nHost: x\r\n\r\n"));
        let mut answers = String::new();
        client.socket.read_to_string(&mut answers).unwrap();
        assert!(answers.starts_with(&format!("HTTP/1.1 {status} ")), "{other}: {answers}");
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{other}: {answers}");
        let connection = answers.lines().find_map(|line| line.strip_prefix("connection: "));
        let expected = if status == 426 { "Upgrade, close" } else { "close" };
        assert_eq!(connection, Some(expected), "{other}: {answers}");
    }
    // Another protocol is passed over, and the request is one like others (RFC 9110 §7.8).
    let mut client = Tcp::connect(addr);
    let request = OPENING.replace("GET / ", "GET /http ").replace("websocket", "h2c");
    client.send(request.repeat(2));
    for _ in 0..2 {
        assert!(client.head().starts_with("HTTP/1.1 200 "));
        client.expect("taken for HTTP");
    }
}

#[test]
pub(crate) fn a_page_of_another_site_is_refused_unless_it_is_allowed() {
    let options = WebSocketOptions::default;
    let strict = bind(echo_server(options()));
    let listed =
        bind(echo_server(UpgradeOptions::default().allow_origins(["https://app.example"])));
    let open = bind(echo_server(UpgradeOptions::default().allow_any_origin()));
    for (origin, statuses) in [
        ("http://x", [101, 101, 101]),
        ("https://x", [101, 101, 101]),
        // Of programs: no browser sends these schemes.
        ("ws://x", [101, 101, 101]),
        ("wss://x", [101, 101, 101]),
        ("ws://x:80", [101, 101, 101]),
        ("wss://x:443", [101, 101, 101]),
        ("ws://x:443", [403, 403, 101]),
        ("wss://evil.example", [403, 403, 101]),
        ("file://", [403, 403, 101]),
        ("https://app.example", [403, 101, 101]),
        ("https://evil.example", [403, 403, 101]),
        ("null", [403, 403, 101]),
        // It is no URL, and there all the same.
        ("http://é.example", [403, 403, 101]),
    ] {
        for (addr, status) in [strict, listed, open].into_iter().zip(statuses) {
            let mut client = Tcp::connect(addr);
            client.send(OPENING.replace("Host: x", &format!("Host: x\r\nOrigin: {origin}")));
            let head = answer(&mut client);
            assert!(head.starts_with(&format!("http/1.1 {status} ")), "{origin}: {head}");
        }
    }
}

#[test]
fn a_name_that_was_made_to_lead_here_opens_no_connection() {
    // DNS rebinding: page and server have the same host, which is the attacker's.
    let opening = |host: &str| {
        let lines = format!("Host: {host}\r\nOrigin: http://{host}\r\n");
        OPENING.replace("Host: x\r\n", &lines)
    };
    for (is_listed, host, status) in [
        (true, "localhost:8080", 101),
        (true, "rebound.evil.org", 421),
        (false, "rebound.evil.org", 101),
    ] {
        let mut server = echo_server(WebSocketOptions::default());
        if is_listed {
            server.options(ServerOptions::default().allow_hosts(["localhost"]));
        }
        let mut client = Tcp::connect(bind(server));
        client.send(opening(host));
        let head = client.head();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{host}: {head}");
    }
}

#[test]
fn where_a_trusted_proxy_speaks_tls_a_page_of_the_same_host_came_over_tls_as_well() {
    for (is_trusted, proto, origin, status) in [
        (true, "X-Forwarded-Proto: https\r\n", "https://x", 101),
        (true, "X-Forwarded-Proto: https\r\n", "http://x", 403),
        (true, "Forwarded: for=192.0.2.1;proto=https\r\n", "http://x", 403),
        (true, "X-Forwarded-Proto: http\r\n", "http://x", 101),
        (true, "", "http://x", 101),
        // Anybody can say that.
        (false, "X-Forwarded-Proto: https\r\n", "http://x", 101),
    ] {
        let mut server = echo_server(WebSocketOptions::default());
        if is_trusted {
            server.options(ServerOptions::default().trusted_proxies(["127.0.0.1"]));
        }
        let mut client = Tcp::connect(bind(server));
        let lines = format!("Host: x\r\n{proto}Origin: {origin}\r\n");
        client.send(OPENING.replace("Host: x\r\n", &lines));
        let head = client.head();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{proto}{origin}: {head}");
    }
}

#[test]
pub(crate) fn frames_that_come_with_the_request_are_not_lost() {
    let addr = bind(echo_server(WebSocketOptions::default()));
    let frames = [masked(TEXT, "first"), masked(TEXT, "second")].concat();
    for cut in 0..=frames.len() {
        let mut client = Tcp::connect(addr);
        client.send([OPENING.as_bytes(), &frames[..cut]].concat());
        assert!(answer(&mut client).starts_with("http/1.1 101 "));
        client.send(&frames[cut..]);
        client.expect(plain(TEXT, "first"));
        client.expect(plain(TEXT, "second"));
    }
}

#[test]
fn a_request_that_arrives_byte_by_byte_opens_a_connection() {
    let mut client = Tcp::connect(bind(echo_server(WebSocketOptions::default())));
    for byte in [OPENING.as_bytes(), &masked(TEXT, "Hello")].concat() {
        client.send([byte]);
    }
    assert!(answer(&mut client).starts_with("http/1.1 101 "));
    client.expect_hex("81 05 48656c6c6f");
}

#[test]
fn a_message_that_the_server_sends_at_once_follows_the_101() {
    let mut server = Server::new();
    server.get("/", |mut ctx: RequestContext| async move {
        let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
        ws.send("Hello").await?;
        echo(ws).await?;
        Ok(())
    });
    let mut client = Tcp::upgraded(bind(server));
    client.expect_hex("81 05 48656c6c6f");
}

#[test]
fn a_context_is_upgraded_once() {
    within(async {
        let (tell, told) = oneshot::channel();
        let tell = std::sync::Mutex::new(Some(tell));
        let mut server = Server::new();
        server.get("/", move |mut ctx: RequestContext| {
            let tell = tell.lock().unwrap().take().unwrap();
            async move {
                let _ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
                let again = ctx.upgrade_to_websocket(WebSocketOptions::default()).await;
                let _ = tell.send(again.map(drop));
                Ok(())
            }
        });
        let _client = Tcp::upgraded(bind(server));
        let again = told.await.unwrap();
        assert!(matches!(again, Err(Error::Handshake(HandshakeError::AlreadyUpgraded))));
    });
}
