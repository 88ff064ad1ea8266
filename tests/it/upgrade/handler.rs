//! The upgrade as a handler sees it, and what a handler may do with a request besides.

use std::time::Duration;

use async_std::future::timeout;
use async_std::task;
use futures::channel::{mpsc, oneshot};
use futures::{SinkExt, StreamExt};
use serde_json::json;
use tide::StatusCode;
use tidewire::server::endpoint;
use tidewire::upgrade::UpgradeOptions;
use tidewire::websocket::Initiator;
use tidewire::{Error, HandshakeError, Message, RequestContext, Server, WebSocketOptions};

use crate::support::frames::{CLOSE, TEXT, close, masked, plain};
use crate::support::peer::{WITHIN, echo, within};
use crate::support::tcp::{OPENING, Tcp, bind, echo_server};

fn opening_with(headers: &str) -> String {
    OPENING.replace("\r\n\r\n", &format!("\r\n{headers}\r\n"))
}

#[test]
fn the_101_has_the_headers_of_options_and_middleware_and_none_of_a_body() {
    let mut server = Server::new();
    server.with(tide::utils::After(|mut response: tide::Response| async move {
        response.insert_header("x-middleware", "was here");
        Ok(response)
    }));
    server.get("/", |mut ctx: RequestContext| async move {
        let options = UpgradeOptions::default()
            .header("X-Session", "s3ss10n")
            .header("Content-Length", "7")
            .header("Connection", "close");
        echo(ctx.upgrade_to_websocket(options).await?).await?;
        Ok(())
    });
    let mut client = Tcp::connect(bind(server));
    client.send(OPENING);
    let head = client.head().to_lowercase();
    assert!(head.starts_with("http/1.1 101 "), "{head}");
    for line in ["x-session: s3ss10n\r\n", "x-middleware: was here\r\n", "connection: upgrade\r\n"]
    {
        assert!(head.contains(line), "{line}: {head}");
    }
    for name in ["content-length", "transfer-encoding", "content-type", "close"] {
        assert!(!head.contains(name), "{name}: {head}");
    }
}

#[test]
pub(crate) fn the_101_has_the_prepared_headers_except_those_of_the_handshake_itself() {
    let mut server = Server::new();
    server.get("/", |mut ctx: RequestContext| async move {
        let response = ctx.response();
        response.set_status(StatusCode::Unauthorized);
        response.set_body("no body in a 101");
        for (name, value) in [
            ("set-cookie", "a=1; HttpOnly"),
            ("set-cookie", "b=2"),
            ("x-session", "s3ss10n"),
            ("connection", "close"),
            ("upgrade", "h2c"),
            ("sec-websocket-accept", "bm90aGluZw=="),
            ("sec-websocket-extensions", "x-other"),
            ("sec-websocket-protocol", "mqtt"),
            ("sec-websocket-version", "8"),
            ("content-length", "16"),
            ("transfer-encoding", "chunked"),
        ] {
            response.append_header(name, value);
        }
        // An upgrade that is given up leaves the response as it was.
        let upgrade = ctx.upgrade_to_websocket(WebSocketOptions::default());
        assert!(timeout(Duration::ZERO, upgrade).await.is_err());
        assert_eq!(ctx.response().status(), StatusCode::Unauthorized);
        let options = UpgradeOptions::default().header("x-session", "s3c0nd");
        echo(ctx.upgrade_to_websocket(options).await?).await?;
        Ok(())
    });
    let mut client = Tcp::connect(bind(server));
    client.send(OPENING);
    let head = client.head();
    let mut lines: Vec<_> = head.lines().filter(|line| !line.starts_with("date: ")).collect();
    lines[1..].sort_unstable();
    let expected = [
        "HTTP/1.1 101 Switching Protocols",
        "",
        "connection: Upgrade",
        "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        "set-cookie: a=1; HttpOnly",
        "set-cookie: b=2",
        "upgrade: websocket",
        "x-session: s3c0nd",
        "x-session: s3ss10n",
    ];
    assert_eq!(lines, expected, "{head}");
    client.send(masked(TEXT, "now"));
    client.expect(plain(TEXT, "now"));
}

#[test]
fn a_prepared_response_is_still_there_after_a_refused_upgrade() {
    let mut server = Server::new();
    server.get("/", |mut ctx: RequestContext| async move {
        ctx.response().insert_header("x-session", "s3ss10n");
        let options = WebSocketOptions::default().subprotocols(["chat"]).require_subprotocol();
        assert!(ctx.upgrade_to_websocket(options).await.is_err());
        ctx.response().set_status(StatusCode::ImATeapot);
        Ok(())
    });
    let mut client = Tcp::connect(bind(server));
    client.send(OPENING);
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 418 ") && head.contains("x-session: s3ss10n"), "{head}");
}

#[test]
fn a_header_of_the_context_that_http_does_not_allow_fails_the_upgrade() {
    let (tell, mut told) = mpsc::unbounded();
    let mut server = Server::new();
    server.get("/", move |mut ctx: RequestContext| {
        let tell = tell.clone();
        async move {
            ctx.response().insert_header("x", "a\r\nset-cookie: b");
            let error = ctx.upgrade_to_websocket(WebSocketOptions::default()).await.unwrap_err();
            tell.unbounded_send(format!("{error:#}")).unwrap();
            Err::<(), _>(error.into())
        }
    });
    let mut client = Tcp::connect(bind(server));
    client.send(OPENING);
    assert!(client.head().starts_with("HTTP/1.1 500 "));
    let error = within(told.next()).unwrap();
    assert_eq!(error, format!("{:#}", Error::from(HandshakeError::InvalidHeader)));
}

#[test]
fn a_header_of_the_options_that_http_does_not_allow_fails_the_upgrade() {
    for (name, value) in [("x y", "z"), ("x", "a\r\nset-cookie: b"), ("x", "é")] {
        let (tell, mut told) = mpsc::unbounded();
        let mut server = Server::new();
        server.get("/", move |mut ctx: RequestContext| {
            let tell = tell.clone();
            async move {
                let options = UpgradeOptions::default().header(name, value);
                let error = ctx.upgrade_to_websocket(options).await.unwrap_err();
                tell.unbounded_send(format!("{error:#}")).unwrap();
                Err::<(), _>(error.into())
            }
        });
        let mut client = Tcp::connect(bind(server));
        client.send(OPENING);
        assert!(client.head().starts_with("HTTP/1.1 500 "), "{name}: {value}");
        let error = within(told.next()).unwrap();
        assert_eq!(error, format!("{:#}", Error::from(HandshakeError::InvalidHeader)));
    }
}

#[test]
fn a_refused_handshake_names_the_fault_and_its_usual_cause() {
    let mut client = Tcp::connect(bind(echo_server(WebSocketOptions::default())));
    client.send(OPENING.replace("Connection: Upgrade", "Connection: close"));
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    let mut body = String::new();
    std::io::Read::read_to_string(&mut client.socket, &mut body).unwrap();
    assert!(body.contains("`Connection: Upgrade`") && body.contains("proxy"), "{body}");
}

#[test]
fn a_head_request_does_not_enter_the_loop() {
    let mut client = Tcp::connect(bind(echo_server(WebSocketOptions::default())));
    client.send(OPENING.replace("GET", "HEAD"));
    assert!(client.head().starts_with("HTTP/1.1 405 "));
}

#[test]
fn a_handler_may_answer_with_http_after_a_look_at_the_request() {
    let mut server = Server::new();
    server.get("/", |mut ctx: RequestContext| async move {
        assert!(ctx.is_websocket_upgrade());
        if ctx.header("authorization") != Some("Bearer good") {
            ctx.response().set_status(StatusCode::Unauthorized);
            ctx.response().insert_header("www-authenticate", "Bearer");
            return Ok(());
        }
        echo(ctx.upgrade_to_websocket(WebSocketOptions::default()).await?).await?;
        Ok(())
    });
    let addr = bind(server);
    let mut refused = Tcp::connect(addr);
    refused.send(OPENING);
    let head = refused.head();
    assert!(head.starts_with("HTTP/1.1 401 ") && head.contains("www-authenticate: Bearer"));
    let mut admitted = Tcp::connect(addr);
    admitted.send(opening_with("Authorization: Bearer good\r\n"));
    assert!(admitted.head().starts_with("HTTP/1.1 101 "));
    admitted.send(masked(TEXT, "now"));
    admitted.expect(plain(TEXT, "now"));
}

/// Tells when it is dropped.
struct Guard(Option<oneshot::Sender<()>>);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.take().map(|tell| tell.send(()));
    }
}

#[test]
fn a_client_that_vanishes_before_the_101_leaves_nothing_behind() {
    let (tell, mut entered) = mpsc::unbounded();
    let mut server = Server::new();
    server.get("/", move |mut ctx: RequestContext| {
        let tell = tell.clone();
        async move {
            let (dropped, drops) = oneshot::channel();
            let (go, gone) = oneshot::channel::<()>();
            let _guard = Guard(Some(dropped));
            tell.unbounded_send((go, drops)).unwrap();
            let _ = gone.await;
            ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
            Ok(())
        }
    });
    let addr = bind(server);
    let mut client = Tcp::connect(addr);
    client.send(OPENING);
    let (go, drops) = within(entered.next()).unwrap();
    drop(client);
    // Whether the server has noticed it already or is told to go on, the handler ends.
    drop(go);
    within(drops).unwrap();
}

#[test]
fn a_timeout_may_be_longer_than_the_clock_goes() {
    let longest = Duration::MAX;
    let options = WebSocketOptions::default()
        .message_timeout(longest)
        .send_timeout(longest)
        .close_timeout(longest);
    let options = UpgradeOptions::from(options).handshake_timeout(longest);
    let mut client = Tcp::upgraded(bind(echo_server(options)));
    let message = masked(TEXT, "in two parts");
    client.send(&message[..8]);
    client.send(&message[8..]);
    client.expect(plain(TEXT, "in two parts"));
    client.send(masked(CLOSE, close(1000, "")));
    client.expect_hex("88 02 03e8");
}

#[test]
fn an_upgrade_that_was_abandoned_goes_on_in_the_next_call() {
    let mut server = Server::new();
    server.get("/", |mut ctx: RequestContext| async move {
        let options = WebSocketOptions::default;
        for _ in 0..3 {
            let upgrade = ctx.upgrade_to_websocket(options());
            assert!(timeout(Duration::ZERO, upgrade).await.is_err());
        }
        echo(ctx.upgrade_to_websocket(options()).await?).await?;
        Ok(())
    });
    let mut client = Tcp::upgraded(bind(server));
    client.send(masked(TEXT, "still here"));
    client.expect(plain(TEXT, "still here"));
}

#[test]
fn the_context_shows_the_request() {
    #[derive(serde::Deserialize)]
    struct Query {
        page: u32,
    }
    let mut server = Server::with_state("shared");
    server.post("/users/:id", |mut ctx: RequestContext<&'static str>| async move {
        let Query { page } = ctx.query()?;
        let id: String = ctx.param("id")?;
        let offered = ctx.offered_subprotocols().join(" ");
        let (city, raw) = (ctx.header("x-city").map(str::to_owned), ctx.header_bytes("x-raw"));
        let raw = raw.map(<[u8]>::to_vec);
        let body: serde_json::Value = ctx.body_json().await?;
        let is_local = ctx.peer_addr().is_some_and(|addr| addr.ip().is_loopback());
        let state = *ctx.state();
        Ok(json!([id, page, offered, city, raw, body, is_local, state]))
    });
    let bound = within(server.bind("127.0.0.1:0")).unwrap();
    let mut client = Tcp::connect(bound.local_addr());
    task::spawn(bound.serve());
    let head = "POST /users/7?page=2 HTTP/1.1\r\nHost: x\r\nX-City: Zürich\r\n\
        Sec-WebSocket-Protocol: chat, \r\nSec-WebSocket-Protocol: superchat\r\n";
    client.send(head);
    client.send(b"X-Raw: \xff\r\nContent-Length: 7\r\n\r\n{\"a\":1}");
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let expected = json!(["7", 2, "chat superchat", "Zürich", [255], {"a": 1}, true, "shared"]);
    client.expect(expected.to_string());
}

#[test]
fn a_bad_body_or_query_is_a_400() {
    let mut server = Server::new();
    server.post("/", |mut ctx: RequestContext| async move {
        ctx.query::<std::collections::HashMap<String, u32>>()?;
        ctx.body_json::<Vec<u32>>().await?;
        Ok(())
    });
    let addr = bind(server);
    for (target, body, status) in
        [("/?a=1", "[1]", 200), ("/?a=x", "[1]", 400), ("/?a=1", "[", 400), ("/?a=1", "{}", 400)]
    {
        let mut client = Tcp::connect(addr);
        let len = body.len();
        client.send(format!(
            "POST {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len}\r\n\r\n{body}"
        ));
        let head = client.head();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{target} {body}: {head}");
    }
}

#[test]
fn a_handler_mounted_in_a_tide_app_upgrades_under_tides_own_listener() {
    let (tell, told) = oneshot::channel();
    let told_once = std::sync::Mutex::new(Some(tell));
    let mut app = tide::new();
    let handler = move |mut ctx: RequestContext| {
        let tell = told_once.lock().unwrap().take();
        async move {
            let ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
            let info = {
                let mut ws = ws;
                while let Some(message) = ws.recv().await? {
                    ws.send(message).await?;
                }
                ws.close_info()
            };
            let _ = tell.map(|tell| tell.send(info));
            Ok(())
        }
    };
    app.at("/").get(endpoint(handler));
    let mut listener = within(app.bind("127.0.0.1:0")).unwrap();
    let info = tide::listener::Listener::info(&listener).remove(0);
    let addr = info.connection().trim_start_matches("http://").parse().unwrap();
    task::spawn(async move { tide::listener::Listener::accept(&mut listener).await });

    let mut client = Tcp::upgraded(addr);
    for text in ["one", "two"] {
        client.send(masked(TEXT, text));
        client.expect(plain(TEXT, text));
    }
    client.send(masked(CLOSE, close(1000, "")));
    client.expect_hex("88 02 03e8");
    let info = within(told).unwrap().unwrap();
    assert!(info.clean && info.initiator == Initiator::Remote);
}

#[test]
fn the_connection_is_a_stream_and_a_sink() {
    let mut server = Server::new();
    server.get("/", |mut ctx: RequestContext| async move {
        let ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
        let (sink, stream) = ws.split();
        stream.take(2).forward(sink).await?;
        Ok(())
    });
    let mut client = Tcp::upgraded(bind(server));
    client.send([masked(TEXT, "a"), masked(TEXT, "b")].concat());
    client.expect([plain(TEXT, "a"), plain(TEXT, "b")].concat());
    // `forward` closes the sink at the end of the stream.
    assert_eq!(client.frame().close_code(), Some(1000));
}

#[test]
fn a_sink_is_fed_and_flushed() {
    let mut server = Server::new();
    server.get("/", |mut ctx: RequestContext| async move {
        let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
        for text in ["a", "b"] {
            ws.feed(text).await?;
        }
        SinkExt::<Message>::flush(&mut ws).await?;
        assert_eq!(ws.stats().messages_out, 2);
        assert!(timeout(WITHIN, ws.recv()).await.is_ok_and(|end| end.is_err()));
        Ok(())
    });
    let mut client = Tcp::upgraded(bind(server));
    client.expect([plain(TEXT, "a"), plain(TEXT, "b")].concat());
    drop(client);
}
