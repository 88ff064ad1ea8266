//! Messages and connections: RFC 9112 §2, §6 and §9.

use std::collections::HashMap;

use super::{Client, PONG, header, pong, serve};
use tide::http::Body;
use tide::{Response, StatusCode};
use tidewire::{RequestContext, Server, WebSocketOptions};

use crate::support::tcp::OPENING;

#[test]
fn a_response_has_a_length_a_type_and_a_date() {
    let mut client = Client::to(serve(pong()), "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let head = String::from_utf8(client.take_through(b"\r\n\r\n")).unwrap();
    assert!(head.contains("\r\ndate: "), "{head}");

    let mut client = Client::to(serve(pong()), "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.response(), PONG);
}

#[test]
fn a_connection_serves_one_request_after_another() {
    let mut client = Client::connect(serve(pong()));
    for _ in 0..3 {
        client = client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.response(), PONG);
    }
}

#[test]
fn pipelined_requests_in_one_segment_are_answered_in_order() {
    let mut server = Server::new();
    server
        .at("/:word")
        .get(|req: tide::Request<()>| async move { Ok(req.param("word")?.to_owned()) });
    let requests = "GET /one HTTP/1.1\r\nHost: x\r\n\r\nGET /two HTTP/1.1\r\nHost: x\r\n\r\n";

    let mut client = Client::to(serve(server), requests);
    assert!(client.response().ends_with("\r\n\r\none"));
    assert!(client.response().ends_with("\r\n\r\ntwo"));
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let mut client = Client::connect(serve(pong()));
    for byte in b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" {
        client = client.send([*byte]);
    }
    assert_eq!(client.response(), PONG);
}

#[test]
fn connection_close_ends_the_connection_after_the_response() {
    let request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let mut client = Client::to(serve(pong()), request);
    assert_eq!(header(&client.response(), "connection"), Some("close"));
    assert_eq!(client.rest(), "");
}

#[test]
fn http_1_0_is_answered_without_a_host_and_then_closed() {
    let mut client = Client::to(serve(pong()), "GET / HTTP/1.0\r\n\r\n");
    assert!(client.response().starts_with("HTTP/1.0 200 OK\r\n"));
    assert_eq!(client.rest(), "");
}

#[test]
fn http_1_0_is_told_of_the_end_although_it_asked_to_go_on() {
    let mut server = pong();
    server.at("/last").get(|_| async {
        Ok(Response::builder(200).header("connection", "close").body("pong").build())
    });
    let addr = serve(server);
    for (target, lines) in [("/last", ""), ("http://user@x/", ""), ("/", "Host: x\r\nHost: y\r\n")]
    {
        let request = format!("GET {target} HTTP/1.0\r\nConnection: keep-alive\r\n{lines}\r\n");
        let mut client = Client::to(addr, request);
        assert_eq!(header(&client.response(), "connection"), Some("close"), "{target} {lines}");
        assert_eq!(client.rest(), "");
    }
    let request = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let mut client = Client::to(addr, request);
    for _ in 0..2 {
        assert_eq!(header(&client.response(), "connection"), Some("keep-alive"));
        client = client.send(request);
    }
}

#[test]
fn a_client_that_half_closes_is_answered() {
    let mut server = Server::new();
    server.at("/").get(|_| async {
        async_std::task::yield_now().await;
        Ok("pong")
    });
    let mut client = Client::to(serve(server), "GET / HTTP/1.1\r\nHost: x\r\n\r\n").half_close();
    assert_eq!(client.response(), PONG);
    assert_eq!(client.rest(), "");
}

#[test]
fn a_client_that_half_closes_is_answered_for_any_upgrade() {
    let mut server = Server::new();
    server.at("/").get(|_| async {
        async_std::task::yield_now().await;
        Ok("pong")
    });
    let addr = serve(server);
    for lines in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
        "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n",
        // Without `Connection: Upgrade` it is not asked for (RFC 9110 §7.8).
        "Upgrade: websocket\r\n",
    ] {
        let request = format!("GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n");
        let mut client = Client::to(addr, request).half_close();
        // Behind what may look like an upgrade the connection ends.
        let response = client.response().replace("connection: close\r\n", "");
        assert_eq!(response, PONG, "{lines}");
        assert_eq!(client.rest(), "");
    }
}

#[test]
fn a_handler_that_upgrades_at_once_is_not_too_late_for_a_client_that_half_closes() {
    let mut server = Server::new();
    server.get("/", |mut ctx: RequestContext| async move {
        let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
        ws.recv().await?;
        Ok(())
    });
    let addr = serve(server);
    // The FIN comes at another moment each time, most often between two reads.
    for round in 0..300 {
        let mut client = Client::connect(addr);
        for _ in 0..round * 100 {
            std::hint::spin_loop();
        }
        client = client.send(OPENING).half_close();
        assert!(client.head().starts_with("HTTP/1.1 101 "), "round {round}");
    }
}

#[test]
fn head_has_the_headers_of_get_and_no_body() {
    let mut client = Client::to(serve(pong()), "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.head(), PONG.strip_suffix("pong").unwrap());

    client = client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.response(), PONG);
}

#[test]
fn a_head_route_may_state_the_length_a_get_would_have() {
    let mut server = Server::new();
    server
        .at("/")
        .head(|_| async { Ok(Response::builder(200).header("content-length", "1234").build()) });
    let mut client = Client::to(serve(server), "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(header(&client.head(), "content-length"), Some("1234"));
}

#[test]
fn responses_without_content_leave_the_connection_in_step() {
    for status in [StatusCode::NoContent, StatusCode::ResetContent, StatusCode::NotModified] {
        let mut server = pong();
        server.at("/none").get(move |_| async move {
            let response = Response::builder(status).body("must not be sent");
            Ok(response.header("content-length", "16").build())
        });
        let mut client = Client::to(serve(server), "GET /none HTTP/1.1\r\nHost: x\r\n\r\n");
        let head = client.head();
        assert!(!head.contains("content-length: 16"), "{head}");
        assert!(!head.contains("transfer-encoding"), "{head}");

        client = client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.response(), PONG, "after {status}");
    }
}

#[test]
fn framing_headers_of_a_handler_do_not_reach_the_wire() {
    let mut server = Server::new();
    server.at("/").get(|_| async {
        let response = Response::builder(200).body("pong").header("content-length", "3");
        Ok(response.header("transfer-encoding", "gzip, chunked").build())
    });
    let mut client = Client::to(serve(server), "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.response(), PONG);
}

#[test]
fn several_values_of_a_header_stay_several_lines() {
    let mut server = Server::new();
    server.at("/").get(|_| async {
        let mut response = Response::new(200);
        response.append_header("set-cookie", "a=1");
        response.append_header("set-cookie", "b=2");
        Ok(response)
    });
    let mut client = Client::to(serve(server), "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let head = client.head();
    assert!(head.contains("set-cookie: a=1\r\nset-cookie: b=2\r\n"), "{head}");
}

#[test]
fn a_response_that_is_not_http_becomes_a_500_and_injects_nothing() {
    let mut server = pong();
    server.at("/split").get(|_| async {
        Ok(Response::builder(200).header("x-name", "a\r\nset-cookie: b").build())
    });
    server.at("/name").get(|_| async { Ok(Response::builder(200).header("a b", "c").build()) });
    server.at("/early").get(|_| async { Ok(Response::new(103)) });
    server.at("/switch").get(|_| async { Ok(Response::new(101)) });
    let addr = serve(server);

    for path in ["/split", "/name", "/early", "/switch"] {
        let mut client = Client::to(addr, format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let response = client.response();
        assert!(response.starts_with("HTTP/1.1 500 "), "{path}: {response}");
        assert!(!response.contains("set-cookie"), "{path}: {response}");

        client = client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.response(), PONG, "after {path}");
    }
}

#[test]
fn a_header_that_a_peer_has_a_say_in_is_set_or_refused_without_a_panic() {
    let mut server = pong();
    server.get("/to", |mut ctx: RequestContext| async move {
        let target = ctx.query::<HashMap<String, String>>()?.remove("path").unwrap_or_default();
        let outcome = ctx.set_response_header("location", &target);
        if let Err(error) = outcome {
            // The handler goes on, with the response as it was.
            assert!(error.reject().is_none(), "the peer is not told");
            ctx.set_response_header("x-refused", "1")?;
        }
        assert!(ctx.set_response_header("no name", "x").is_err());
        Ok(StatusCode::Found)
    });
    let addr = serve(server);
    for (query, location) in [
        ("/a%20b", Some("/a b")),
        ("/%09", Some("/\t")),
        ("/%C3%A9", None),
        ("/%0D%0Aset-cookie:%20a=b", None),
        ("/%00", None),
        ("/%7F", None),
    ] {
        let mut client =
            Client::to(addr, format!("GET /to?path={query} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let head = client.head();
        assert!(head.starts_with("HTTP/1.1 302 Found\r\n"), "{query}: {head}");
        assert_eq!(header(&head, "location"), location, "{query}");
        assert_eq!(header(&head, "x-refused").is_some(), location.is_none(), "{query}");
        assert_eq!(header(&head, "set-cookie"), None);
    }
}

#[test]
fn a_panic_is_a_500_and_the_connection_goes_on() {
    let mut server = pong();
    server.at("/handler").get(|_| async { if true { panic!("in a handler") } else { Ok("") } });
    server.at("/middleware").with(Panicking).get(|_| async { Ok("") });
    let mut client = Client::connect(serve(server));

    for path in ["/handler", "/middleware"] {
        client = client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let response = client.response();
        assert!(response.starts_with("HTTP/1.1 500 Internal Server Error\r\n"), "{response}");
        assert!(response.ends_with("the server failed to answer this request\n"), "{response}");

        client = client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.response(), PONG);
    }
}

#[test]
fn an_error_of_a_handler_is_its_status() {
    let mut server = Server::new();
    server
        .at("/")
        .get(|_| async { Err::<Body, _>(tide::Error::from_str(StatusCode::Conflict, "taken")) });
    let mut client = Client::to(serve(server), "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.status(), "HTTP/1.1 409 Conflict");
}

struct Panicking;

#[tide::utils::async_trait]
impl tide::Middleware<()> for Panicking {
    async fn handle(&self, _: tide::Request<()>, _: tide::Next<'_, ()>) -> tide::Result {
        panic!("in a middleware")
    }
}
