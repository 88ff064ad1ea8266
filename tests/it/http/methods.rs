//! Methods that a path does not have, and those that every path has: RFC 9110 §9.3 and §15.5.6.

use std::net::SocketAddr;

use tide::{Next, Request, Response};
use tidewire::server::endpoint;
use tidewire::{RequestContext, Server, WebSocketOptions};

use super::{Client, header, serve};

async fn pong(_: RequestContext) -> tidewire::HandlerResult<&'static str> {
    Ok("pong")
}

async fn socket(mut ctx: RequestContext) -> tidewire::HandlerResult {
    let _ = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
    Ok(())
}

/// A server with a route of every kind.
fn site() -> Server {
    let mut innermost = Server::new();
    innermost.get("/", pong).at("/*").delete(endpoint(pong));
    let mut inner = Server::new();
    inner.with(Passing("x-inner")).get("/page", pong).put("/page", pong).nest("/deep", innermost);

    let mut server = Server::new();
    server.get("/", pong).get("/page", pong).post("/page", pong).get("/ws", socket);
    server.get("/users/:id", pong).patch("/users/:id", pong).get("/files/*path", pong);
    server.at("/with").with(Passing("x-route")).post(endpoint(pong));
    let mine = endpoint(|_: RequestContext| async { Ok("mine") });
    server.at("/own").options(mine).get(endpoint(pong));
    server.at("/any").all(endpoint(pong));
    server.at("/parts").at("/one").get(endpoint(pong)).at("two").put(endpoint(pong));
    server.nest("/inner", inner).post("/inner/page", pong);
    server
}

/// Path and `Allow` of the routes of [`site`] that take a few methods only.
const ALLOWED: [(&str, &str); 12] = [
    ("/", "GET, HEAD, OPTIONS"),
    ("/page", "GET, HEAD, OPTIONS, POST"),
    ("/ws", "GET, HEAD, OPTIONS"),
    ("/users/7", "GET, HEAD, OPTIONS, PATCH"),
    ("/files/a/b.txt", "GET, HEAD, OPTIONS"),
    ("/with", "OPTIONS, POST"),
    ("/own", "GET, HEAD, OPTIONS"),
    ("/parts/one", "GET, HEAD, OPTIONS"),
    ("/parts/one/two", "OPTIONS, PUT"),
    ("/inner/page", "GET, HEAD, OPTIONS, POST, PUT"),
    ("/inner/deep", "GET, HEAD, OPTIONS"),
    ("/inner/deep/er", "DELETE, OPTIONS"),
];

fn ask(addr: SocketAddr, method: &str, path: &str) -> (Client, String) {
    let mut client = Client::to(addr, format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
    let head = client.head();
    (client, head)
}

/// The lines of a head: the order of its fields says nothing.
fn lines(head: &str) -> Vec<&str> {
    let mut lines: Vec<_> = head.lines().collect();
    lines.sort_unstable();
    lines
}

/// The next request on the connection is answered, so the last response has ended where it should.
fn goes_on(client: Client, case: &str) {
    let mut client = client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(client.response().ends_with("\r\n\r\npong"), "{case}");
}

#[test]
fn a_405_says_which_methods_the_path_has() {
    let mut behind = Server::new();
    behind.with(Passing("x-server")).nest("/", site());
    for addr in [serve(site()), serve(behind)] {
        for (path, allow) in ALLOWED {
            for method in ["TRACE", "LINK"] {
                let (client, head) = ask(addr, method, path);
                assert!(head.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{path}: {head}");
                assert_eq!(header(&head, "allow"), Some(allow), "{path}");
                goes_on(client, path);
            }
        }
        let (_, head) = ask(addr, "TRACE", "/any");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    }
}

#[test]
fn options_is_answered_with_the_methods_of_the_path_unless_it_has_a_handler() {
    let addr = serve(site());
    for (path, allow) in ALLOWED {
        if path == "/own" {
            continue;
        }
        let (client, head) = ask(addr, "OPTIONS", path);
        assert!(head.starts_with("HTTP/1.1 204 No Content\r\n"), "{path}: {head}");
        assert_eq!(header(&head, "allow"), Some(allow), "{path}");
        assert!(!head.contains("content-"), "{path}: {head}");
        goes_on(client, path);
    }
    for (path, body) in [("/own", "mine"), ("/any", "pong")] {
        let response =
            Client::to(addr, format!("OPTIONS {path} HTTP/1.1\r\nHost: x\r\n\r\n")).response();
        assert!(response.starts_with("HTTP/1.1 200 ") && response.ends_with(body), "{response}");
        assert_eq!(header(&response, "allow"), None);
    }
    for method in ["OPTIONS", "GET", "TRACE"] {
        let (_, head) = ask(addr, method, "/missing");
        assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
        assert_eq!(header(&head, "allow"), None);
    }
    // RFC 9110 §9.3.7: of the server as a whole
    let (client, head) = ask(addr, "OPTIONS", "*");
    assert!(head.starts_with("HTTP/1.1 204 "), "{head}");
    assert_eq!(header(&head, "allow"), Some("DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"));
    goes_on(client, "*");
}

#[test]
fn the_allow_of_middleware_in_a_405_stays() {
    let mut server = Server::new();
    server.with(Passing("x-server")).post("/", pong);
    let addr = serve(server);
    for (method, status) in [("GET", 405), ("OPTIONS", 204)] {
        let (_, head) = ask(addr, method, "/");
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert_eq!(header(&head, "x-server"), Some("1"));
        assert_eq!(header(&head, "allow"), Some("OPTIONS, POST"));
    }
}

#[test]
fn a_handler_that_answers_405_is_helped_out_or_believed() {
    let mut server = Server::new();
    server.at("/mute").get(|_| async { Ok(Response::new(405)) }).put(endpoint(pong));
    server.at("/told").get(|_| async { Ok(Response::builder(405).header("allow", "PUT").build()) });
    let addr = serve(server);
    let (_, head) = ask(addr, "GET", "/mute");
    assert_eq!(header(&head, "allow"), Some("OPTIONS, PUT"));
    let (_, head) = ask(addr, "GET", "/told");
    assert_eq!(header(&head, "allow"), Some("PUT"));
}

#[test]
fn head_is_answered_as_get_without_the_body() {
    let mut server = site();
    // A route for all methods does not come before one for GET.
    server.at("/*").all(|_| async { Ok(Response::builder(404).body("no such page").build()) });
    let addr = serve(server);
    for path in ["/", "/page", "/ws", "/users/7", "/files/a", "/any", "/inner/page", "/missing"] {
        let (_, get) = ask(addr, "GET", path);
        let (client, head) = ask(addr, "HEAD", path);
        assert_eq!(lines(&head), lines(&get), "{path}");
        goes_on(client, path);
    }
    let (_, head) = ask(addr, "HEAD", "/page");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
}

#[test]
fn a_head_route_comes_before_the_get_route() {
    let mut server = Server::new();
    server.at("/").get(endpoint(pong)).head(|_| async { Ok(Response::new(204)) });
    server.at("/*").all(|_| async { Ok("any") });
    let (_, head) = ask(serve(server), "HEAD", "/");
    assert!(head.starts_with("HTTP/1.1 204 "), "{head}");
}

#[test]
fn a_request_without_a_socket_is_answered_the_same() {
    let server = site();
    let url = tide::http::Url::parse("http://x/inner/page").unwrap();
    for (method, status) in [(tide::http::Method::Delete, 405), (tide::http::Method::Options, 204)]
    {
        let request = tide::http::Request::new(method, url.clone());
        let response = async_std::task::block_on(server.respond(request)).unwrap();
        assert_eq!(u16::from(response.status()), status);
        assert_eq!(response["allow"].as_str(), "GET, HEAD, OPTIONS, POST, PUT");
    }
}

#[test]
fn a_route_with_two_wildcards_is_refused_when_it_is_added() {
    // The router keeps a thread for each way to match: 8 000 slashes took it four seconds.
    let wrong: [fn(&mut Server); 6] = [
        |server| drop(server.at("/a/*b/*c")),
        |server| {
            server.get("*a/x/*b", pong);
        },
        |server| drop(server.at("/a/*b").at("c/*d")),
        |server| drop(server.at("/a/*b").serve_dir(".")),
        |server| {
            server.nest("/a/*b", Server::new());
        },
        |server| drop(server.at("/*").at("/*")),
    ];
    for (number, add) in wrong.into_iter().enumerate() {
        let adding = std::panic::catch_unwind(|| add(&mut Server::new()));
        let payload = adding.expect_err(&format!("route {number} was added"));
        let message = payload.downcast_ref::<String>().cloned().unwrap_or_default();
        assert!(message.contains("more than one wildcard"), "{number}: {message}");
    }
    let mut server = Server::new();
    server.get("/a/*b", pong).get("/a/*b/c/:d", pong).get("/2*3/*", pong);
    server.nest("/c", site());
}

/// Sets a header on every response that passes.
struct Passing(&'static str);

#[tide::utils::async_trait]
impl tide::Middleware<()> for Passing {
    async fn handle(&self, request: Request<()>, next: Next<'_, ()>) -> tide::Result {
        let mut response = next.run(request).await;
        response.insert_header(self.0, "1");
        Ok(response)
    }
}
