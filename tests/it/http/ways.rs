//! The two ways of a request to its handler: straight, and through tide. A client and a handler see no difference.

use std::collections::BTreeMap;

use tide::StatusCode;
use tide::utils::async_trait;
use tidewire::server::{ServerOptions, endpoint};
use tidewire::{Reject, RequestContext, Server};

use super::{Client, serve};

/// Middleware that does nothing. A server that has it sends every request through tide.
struct Nothing;

#[async_trait]
impl<State: Clone + Send + Sync + 'static> tide::Middleware<State> for Nothing {
    async fn handle(
        &self,
        request: tide::Request<State>,
        next: tide::Next<'_, State>,
    ) -> tide::Result {
        Ok(next.run(request).await)
    }
}

/// All that a handler can ask the context for.
fn seen_by_context(ctx: &RequestContext<&'static str>) -> String {
    format!(
        "{ctx:?} {} {} {} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        ctx.method(),
        ctx.path(),
        ctx.state(),
        ["name", "other", "rest"].map(|name| ctx.param_raw(name)),
        ["name", "other", "rest"].map(|name| told(ctx.param::<String>(name))),
        ["name", "other", "rest"].map(|name| told(ctx.param::<u8>(name))),
        ["sid", "x", "latin", ""].map(|name| ctx.cookie(name)),
        ["host", "X-Two", "x-latin", "content-type", "content-length", "?"]
            .map(|name| ctx.header_bytes(name)),
        ctx.header("x-two"),
        told(ctx.query::<BTreeMap<String, String>>()),
        ctx.peer_addr().map(|addr| addr.ip()),
        ctx.client_ip(),
        ctx.is_secure(),
        ctx.is_websocket_upgrade(),
        ctx.offered_subprotocols(),
        ctx.is_shutting_down(),
        ctx.peer_certificates().len(),
    )
}

/// A value, or the status and the text of the error.
fn told<T>(outcome: tidewire::HandlerResult<T>) -> Result<T, String> {
    outcome
        .map_err(|error| format!("{:?} {error}", error.reject().map(|reject| reject.status_code())))
}

/// All that a handler can ask tide's request for.
fn seen_by_tide(request: &tide::Request<&'static str>) -> String {
    let mut headers: Vec<_> =
        request.iter().map(|(name, values)| format!("{name}={values}")).collect();
    headers.sort();
    let peer = request.peer_addr().and_then(|addr| addr.rsplit_once(':'));
    format!(
        "{} {:?} {:?} {:?} {:?} {:?} {headers:?}",
        request.method(),
        request.url().path(),
        request.url().query(),
        request.version(),
        (request.state(), request.len(), request.content_type(), peer.map(|(ip, _)| ip)),
        ["name", "other", "rest"].map(|name| request.param(name).ok()),
    )
}

async fn tell(mut ctx: RequestContext<&'static str>) -> tidewire::HandlerResult<String> {
    let before = seen_by_context(&ctx);
    let of_tide = seen_by_tide(ctx.request());
    let after = seen_by_context(&ctx);
    assert_eq!(before, after, "the context says the same once the request is one of tide");
    let body = ctx.body_string().await.unwrap_or_else(|error| error.to_string());
    let len = ctx.request_mut().len();
    Ok(format!("{before}\n{of_tide}\n{body:?} {len:?} {}", seen_by_tide(ctx.request())))
}

fn app(has_middleware: bool) -> Server<&'static str> {
    type Context = RequestContext<&'static str>;
    let mut server = Server::with_state("state");
    if has_middleware {
        server.with(Nothing);
    }
    server.options(ServerOptions::default().max_body_size(16).max_uri_len(100));
    server.get("/", tell).get("/plain", tell).post("/plain", tell).get("slashless", tell);
    server.get("/a/b", |_: Context| async { Ok("a and b") });
    server.get("/a/:name", tell).put("/a/:name", tell).get("/a/:name/:other", tell);
    server.get("/a/:name/c", |_: Context| async { Ok(StatusCode::Accepted) });
    server.get("/rest/*rest", tell).post("/rest/*rest", tell);
    server.get("/twice", |_: Context| async { Ok("first") });
    server.get("/twice", |_: Context| async { Ok("second") });
    server.at("/trailing/").get(endpoint(tell));
    server.at("/tide").get(|_| async { Ok("of tide") });
    server
        .at("/tide/:name")
        .get(|request: tide::Request<&'static str>| async move { Ok(seen_by_tide(&request)) });
    server.at("/all").all(endpoint(tell)).get(endpoint(tell));
    server.at("/both").options(endpoint(tell)).head(endpoint(tell)).trace(endpoint(tell));
    let mut nested = Server::new();
    nested.get("/below", |_: RequestContext| async { Ok("nested") });
    server.nest("/nested", nested);
    server.get("/nothing", |_: Context| async { Ok(()) });
    server.get("/bytes", |_: Context| async { Ok(vec![b'x'; 3]) });
    server.get("/empty", |_: Context| async { Ok("") });
    server.get("/json", |_: Context| async { Ok(serde_json::json!({"a": 1})) });
    server.get("/no-method", |_: Context| async { Ok(StatusCode::MethodNotAllowed) });
    server.get("/error", |_: Context| async {
        Err::<(), _>(Reject::status(418, "short and stout").header("x-pot", "tea").into())
    });
    server.get("/panic", |_: Context| async { if true { panic!("on purpose") } else { Ok(()) } });
    server.get("/prepared", |mut ctx: Context| async move {
        ctx.set_response_header("x-prepared", "yes")?;
        ctx.response().set_status(201);
        Ok("body")
    });
    server.get("/prepared-alone", |mut ctx: Context| async move {
        ctx.response().set_body("prepared");
        Ok(())
    });
    server.get("/switching", |_: Context| async { Ok(StatusCode::SwitchingProtocols) });
    server.post("/large", |mut ctx: Context| async move {
        ctx.set_max_body_size(64);
        ctx.body_string().await
    });
    server.post("/unread", |_: Context| async { Ok("unread") });
    server
}

/// The answer, its lines in order of the alphabet: headers have no order.
fn answer(addr: std::net::SocketAddr, request: &str) -> Vec<String> {
    let request = request.replacen("\r\n", "\r\nConnection: close\r\n", 1);
    let rest = Client::to(addr, request).rest_without_date();
    let mut lines: Vec<_> = rest.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn a_request_has_the_same_answer_straight_from_its_handler_and_through_tide() {
    let (straight, through_tide) = (serve(app(false)), serve(app(true)));
    let paths = [
        "/",
        "/plain",
        "/plain/",
        "//plain",
        "/plain?a=1&b=%41",
        "/plain?",
        "/plain??",
        "/slashless",
        "/a/b",
        "/a/x",
        "/a/x/y",
        "/a/x/c",
        "/a/",
        "/a/%62",
        "/a/x%2fy",
        "/a/255",
        "/a/256",
        "/a/%32%35",
        "/a/caf%C3%A9",
        "/a/%ff",
        "/a/%",
        "/a/%4",
        "/a/%zz",
        "/rest/a%20b/%00/+",
        "/a/b?",
        "/a/..",
        "/a/%2e%2E/plain",
        "/a/caf\u{e9}",
        "/a/\"{}",
        "/a/a|b",
        "/a/a^b",
        "/a/a\\b",
        "/a/a'b",
        "/a/:name",
        "/a/*",
        "/A/B",
        "/a/b;c",
        "/rest",
        "/rest/",
        "/rest/x",
        "/rest/x/y//z",
        "/rest/:rest",
        "/twice",
        "/trailing/",
        "/trailing",
        "/tide",
        "/tide/x",
        "/all",
        "/both",
        "/nested",
        "/nested/below",
        "/nested/x",
        "/nothing",
        "/bytes",
        "/empty",
        "/json",
        "/no-method",
        "/error",
        "/panic",
        "/prepared",
        "/prepared-alone",
        "/switching",
        "/large",
        "/unread",
        "/missing",
        "*",
        "http://y/plain",
        "http://y",
        "//",
        "/a#b",
    ];
    let long = format!("/plain?{}", "x".repeat(100));
    let methods =
        ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get", "LINK"];
    let mut requests = Vec::new();
    for path in paths.into_iter().chain([&*long]) {
        for method in methods {
            requests.push(format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        }
        requests.push(format!("GET {path} HTTP/1.0\r\n\r\n"));
        for len in [2, 17, 65] {
            let body = "x".repeat(len);
            requests.push(format!(
                "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: a/b\r\nContent-Length: {len}\r\n\r\n{body}"
            ));
            requests.push(format!(
                "POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{len:x}\r\n{body}\r\n0\r\n\r\n"
            ));
        }
    }
    for host in [
        "x",
        "X",
        "localhost:8080",
        "example.com.",
        "a-b.example",
        "a--b",
        "xn--a",
        "xn--nxasmq6b",
        "a..b",
        ".a",
        "a_b",
        "127.0.0.1",
        "127.0.0.1:80",
        "127.1",
        "127.0.0.01",
        "127.0.0.256",
        "1.2.3.4.5",
        "0x7f.1",
        "x.0x1",
        "x.1",
        "[::1]:80",
        "[::1",
        "x:",
        "x:0",
        "x:99999",
        "x:8a",
        "x:+80",
        "x:00080",
        "u@x",
        "x y",
        "",
        "\u{e9}",
        "%78",
    ] {
        requests.push(format!("GET /plain HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    }
    for headers in [
        "",
        "Host: x\r\nHost: x\r\n",
        "Host: x\r\nTransfer-Encoding: gzip\r\n",
        "Host: x\r\nX-Two: \u{e9}\r\nX-Two: 1\r\nX-Two: 2\r\nX-Latin: \u{e9}\r\n",
        "Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
        "Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: a, b\r\n",
        "Host: x\r\nUpgrade: else\r\nConnection: Upgrade\r\n",
        "Host: x\r\nCookie: sid=1; x=2\r\n",
        "Host: x\r\nCookie: latin=\u{e9}; x=2\r\nCookie: sid=1\r\n",
        "Host: x\r\ncookie: sid=\"a b\";x=; sid=2\r\nCookie: =1\r\n",
        "Host: x\r\nConnection: close\r\n",
    ] {
        requests.push(format!("GET /plain HTTP/1.1\r\n{headers}\r\n"));
        requests.push(format!("GET /switching HTTP/1.1\r\n{headers}\r\n"));
    }
    for request in &requests {
        let answer_straight = answer(straight, request);
        assert!(!answer_straight.is_empty(), "no answer to {request}");
        assert_eq!(answer_straight, answer(through_tide, request), "{request}");
    }
}

#[test]
fn a_route_with_middleware_has_it_and_one_without_is_called_straight() {
    let mut server = Server::new();
    let mut route = server.at("/with");
    route.with(Tag).get(endpoint(|_: RequestContext| async { Ok("") }));
    route.at("/below").get(endpoint(|_: RequestContext| async { Ok("") }));
    route.reset_middleware().put(endpoint(|_: RequestContext| async { Ok("") }));
    server.get("/without", |_: RequestContext| async { Ok("") });
    let addr = serve(server);
    for (line, has_tag) in [
        ("GET /with", true),
        ("GET /with/below", true),
        ("PUT /with", false),
        ("GET /without", false),
    ] {
        let request = format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n");
        let response = Client::to(addr, request).response();
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{line}: {response}");
        assert_eq!(super::header(&response, "x-tag").is_some(), has_tag, "{line}");
    }
}

/// Middleware that adds a header.
struct Tag;

#[async_trait]
impl<State: Clone + Send + Sync + 'static> tide::Middleware<State> for Tag {
    async fn handle(
        &self,
        request: tide::Request<State>,
        next: tide::Next<'_, State>,
    ) -> tide::Result {
        let mut response = next.run(request).await;
        response.insert_header("x-tag", "1");
        Ok(response)
    }
}
