//! HTTP in memory, and that it is the HTTP of a port.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::{Deserialize, Serialize};
use tidewire::server::ServerOptions;
use tidewire::testing::TestClient;
use tidewire::{Error, RequestContext, Server};

use super::within;

#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
struct Order {
    name: String,
    count: u32,
}

#[test]
fn a_request_has_its_parts_and_the_response_those_of_the_handler() {
    let mut server = Server::new();
    server.at("/echo/:name").all(tidewire::server::endpoint(
        |mut ctx: RequestContext| async move {
            let method = ctx.request().method().to_string();
            let url = ctx.request().url().to_string();
            let header = ctx.header("x-one").unwrap_or("none").to_owned();
            let body = ctx.body_string().await?;
            ctx.response().insert_header("x-two", "2");
            ctx.response().set_status(201);
            Ok(format!("{method} {url} {header} {body}"))
        },
    ));
    within(async {
        let client = TestClient::new(&server);
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let request = client.request(method, "/echo/ada?a=b").header("X-One", "1");
            let response = request.body("Hello").send().await.unwrap();
            response.assert_status(201).assert_header("X-Two", "2").assert_no_header("x-three");
            response.assert_text(&format!("{method} http://localhost/echo/ada?a=b 1 Hello"));
        }
        for (request, line) in [
            (client.get("/echo/x"), "GET http://localhost/echo/x none "),
            (client.post("/echo/x"), "POST http://localhost/echo/x none "),
            (client.put("/echo/x"), "PUT http://localhost/echo/x none "),
            (client.patch("/echo/x"), "PATCH http://localhost/echo/x none "),
            (client.delete("/echo/x"), "DELETE http://localhost/echo/x none "),
            (client.head("/echo/x"), ""),
            (client.get("/echo/x").header("Host", "a.b:81"), "GET http://a.b:81/echo/x none "),
        ] {
            request.send().await.unwrap().assert_text(line);
        }
        client.get("/").send().await.unwrap().assert_status(404);
    });
}

#[test]
fn json_goes_both_ways() {
    let mut server = Server::new();
    server.post("/orders", |mut ctx: RequestContext| async move {
        assert_eq!(ctx.header("content-type"), Some("application/json"));
        let order: Order = ctx.body_json().await?;
        Ok(serde_json::json!({ "name": order.name, "count": order.count + 1 }))
    });
    within(async {
        let client = TestClient::new(&server);
        let order = Order { name: "tea".to_owned(), count: 1 };
        let response = client.post("/orders").json(&order).send().await.unwrap();
        let answer = Order { count: 2, ..order };
        response.assert_status(200).assert_json(&answer);
        assert_eq!(response.json::<Order>().unwrap(), answer);
        assert!(matches!(response.json::<u32>(), Err(Error::Json(_))));
    });
}

#[test]
fn state_and_middleware_are_those_of_the_server() {
    let mut server = Server::with_state(Arc::new(AtomicUsize::new(0)));
    server.with(tide::utils::After(|mut response: tide::Response| async move {
        response.insert_header("x-passed", "yes");
        Ok(response)
    }));
    server.get("/", |ctx: RequestContext<Arc<AtomicUsize>>| async move {
        Ok(ctx.state().fetch_add(1, Ordering::Relaxed).to_string())
    });
    within(async {
        let client = TestClient::new(&server);
        client.get("/").send().await.unwrap().assert_text("0").assert_header("x-passed", "yes");
        client.get("/").send().await.unwrap().assert_text("1");
        assert_eq!(server.state().load(Ordering::Relaxed), 2);
    });
}

#[test]
fn the_options_of_the_server_hold() {
    let mut server = Server::new();
    server.options(ServerOptions::default().max_body_size(10).max_headers(2));
    server.post("/", |mut ctx: RequestContext| async move { ctx.body_bytes().await });
    within(async {
        let client = TestClient::new(&server);
        client.post("/").body("0123456789").send().await.unwrap().assert_text("0123456789");
        client.post("/").body("0123456789a").send().await.unwrap().assert_status(413);
        let request = client.post("/").header("a", "b").header("c", "d");
        request.send().await.unwrap().assert_status(431);
    });
}

#[test]
fn a_handler_that_panics_is_a_500_and_the_server_goes_on() {
    let mut server = Server::new();
    server.get("/", |ctx: RequestContext| async move {
        assert!(ctx.header("x-panic").is_none(), "on purpose");
        Ok("pong")
    });
    within(async {
        let client = TestClient::new(&server);
        client.get("/").header("x-panic", "1").send().await.unwrap().assert_status(500);
        client.expect_failure("on purpose").await;
        client.get("/").send().await.unwrap().assert_status(200);
    });
}

#[test]
fn bodies_of_any_size_pass() {
    let mut server = Server::new();
    server.options(ServerOptions::default().max_body_size(10 << 20));
    server.post("/", |mut ctx: RequestContext| async move { ctx.body_bytes().await });
    within(async {
        let client = TestClient::new(&server);
        for len in [1, 65_535, 65_536, 65_537, 3 << 20] {
            let body: Vec<u8> = (0..=250).cycle().take(len).collect();
            let response = client.post("/").body(body.clone()).send().await.unwrap();
            assert!(response.bytes() == body, "{len}");
        }
    });
}

#[test]
fn a_request_that_no_client_sends_is_written_by_hand() {
    let mut server = Server::new();
    server.get("/", |_ctx: RequestContext| async { Ok("pong") });
    within(async {
        let client = TestClient::new(&server);
        let mut peer = client.open().unwrap();
        assert!(peer.response().is_none());
        peer.send_bytes("GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n").await.unwrap();
        let answer = String::from_utf8(peer.rest().await.unwrap()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
        assert!(
            answer.ends_with("\r\n\r\nthe request has more than one Host header\n"),
            "{answer}"
        );

        // Pipelined, and over one connection.
        let mut peer = client.open().unwrap();
        peer.send_bytes("GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(3)).await.unwrap();
        peer.line().end();
        let answers = String::from_utf8(peer.rest().await.unwrap()).unwrap();
        assert_eq!(answers.matches("HTTP/1.1 200 OK\r\n").count(), 3, "{answers}");
        client.idle().await;
        assert_eq!((client.metrics().accepted, client.metrics().responses), (2, [0, 3, 0, 1, 0]));
    });
}

#[test]
fn a_request_that_http_does_not_allow_is_not_sent() {
    let client = TestClient::new(&Server::new());
    within(async {
        for request in [
            client.get("ping"),
            client.get(""),
            client.get("/a b"),
            client.request("GET /", "/"),
            client.get("/").header("a b", "c"),
            client.get("/").header("a", "b\r\nc: d"),
        ] {
            let shown = format!("{request:?}");
            match request.send().await {
                Err(Error::Io(error)) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{shown}");
                }
                other => panic!("{shown}: {other:?}"),
            }
        }
        let request = client.get("/").json(&std::collections::HashMap::from([([1], 2)]));
        assert!(matches!(request.send().await, Err(Error::Serialize(_))));
        assert_eq!(client.metrics().accepted, 0);
    });
}

#[test]
fn an_upgrade_by_another_way_is_an_answer_like_any_other() {
    let client = super::echo(tidewire::WebSocketOptions::default());
    within(async {
        let request = client
            .get("/ws")
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        let response = request.send().await.unwrap();
        response
            .assert_status(101)
            .assert_header("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        client.idle().await;
        client.get("/ws").send().await.unwrap().assert_status(400);
    });
}
