//! A connection goes on after a response, or the response says that it does not (RFC 9112 §9.6).

use tide::{Next, Request, Response};
use tidewire::server::ServerOptions;
use tidewire::{RequestContext, Server, WebSocketOptions};

use super::{Client, PONG, header, serve};

/// Answers a `POST` with the status that its path names, and reads no more than four bytes of its body.
fn site() -> Server {
    let mut server = Server::new();
    server.options(ServerOptions::default().max_body_size(4));
    server.at("/").get(|_| async { Ok("pong") });
    server.post("/200", |_: RequestContext| async { Ok("unread") });
    server.at("/401").with(Strangers).post(|_| async { Ok("") });
    server.get("/405", |_: RequestContext| async { Ok("") });
    server.post("/413", |mut ctx: RequestContext| async move { ctx.body_bytes().await });
    server.post("/500", |_: RequestContext| async {
        if true { panic!("on purpose") } else { Ok("") }
    });
    server
}

const PATHS: [&str; 6] = ["/200", "/401", "/404", "/405", "/413", "/500"];

/// Refuses whoever asks.
struct Strangers;

#[tide::utils::async_trait]
impl tide::Middleware<()> for Strangers {
    async fn handle(&self, _: Request<()>, _: Next<'_, ()>) -> tide::Result {
        Ok(Response::new(401))
    }
}

#[test]
fn every_response_to_a_body_that_is_not_read_says_close_or_the_connection_goes_on() {
    let long = "z".repeat(100_000);
    // The fields of the head, what is sent of the body, and whether the next request is answered.
    let cases = [
        ("Content-Length: 5", "hello", true),
        ("Content-Length: 6", "hello", false),
        ("Content-Length: 100000", "", false),
        ("Content-Length: 100000", &long, false),
        // RFC 9110 §10.1.1: a final response in place of the 100 says what becomes of the connection
        ("Content-Length: 10\r\nExpect: 100-continue", "", false),
        ("Transfer-Encoding: chunked\r\nExpect: 100-continue", "", false),
        // What ends a chunked body is known to those who read it.
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n", false),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n", false),
    ];
    let addr = serve(site());
    for path in PATHS {
        for (fields, body, goes_on) in cases {
            if path == "/413" && fields.starts_with("Transfer-Encoding: chunked\r\nExpect") {
                continue; // It asks for the first bytes, to see how many there are.
            }
            let case = format!("{path}, {fields:?}, {} bytes", body.len());
            let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n");
            let mut client = Client::to(addr, head + body);
            let response = client.response();
            assert!(
                response.starts_with(&format!("HTTP/1.1 {} ", &path[1..])),
                "{case}: {response}"
            );
            let says_close = header(&response, "connection") == Some("close");
            assert_eq!(says_close, !goes_on, "{case}: {response}");
            if goes_on {
                client = client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
                assert_eq!(client.response(), PONG, "{case}");
            } else {
                assert_eq!(client.rest(), "", "{case}");
            }
        }
    }
}

#[test]
fn a_response_to_a_body_that_broke_off_says_close() {
    let mut server = site();
    server.options(ServerOptions::default());
    let addr = serve(server);
    for (fields, body) in [
        ("Transfer-Encoding: chunked", "xyz\r\n"),
        ("Transfer-Encoding: chunked", "5\r\nhello!!"),
        ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\nno field\r\n\r\n"),
        ("Content-Length: 9", "hello"),
    ] {
        let request = format!("POST /413 HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n{body}");
        let mut client = Client::to(addr, request).half_close();
        let response = client.response();
        assert!(response.starts_with("HTTP/1.1 400 "), "{body:?}: {response}");
        assert_eq!(header(&response, "connection"), Some("close"), "{body:?}");
        assert_eq!(client.rest(), "");
    }
}

#[test]
fn a_response_that_has_options_of_its_own_for_the_connection_keeps_them() {
    let mut server = Server::new();
    server.get("/", |mut ctx: RequestContext| async move {
        ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
        Ok(())
    });
    let request = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 12\r\n\
                   Content-Length: 9\r\n\r\nhello";
    let mut client = Client::to(serve(server), request);
    let response = client.response();
    assert!(response.starts_with("HTTP/1.1 426 "), "{response}");
    assert_eq!(header(&response, "connection"), Some("Upgrade, close"));
    assert_eq!(client.rest(), "");
}

#[test]
fn a_response_to_http_1_0_does_not_promise_to_go_on_after_a_body_that_is_not_read() {
    let addr = serve(site());
    for (body, goes_on) in [("hello", true), ("hell", false)] {
        let head = "POST /200 HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\n";
        let mut client = Client::to(addr, format!("{head}{body}"));
        let response = client.response();
        assert!(response.starts_with("HTTP/1.0 200 OK\r\n"), "{response}");
        assert_eq!(header(&response, "connection") == Some("keep-alive"), goes_on, "{response}");
        if !goes_on {
            assert_eq!(client.rest(), "");
        }
    }
}
