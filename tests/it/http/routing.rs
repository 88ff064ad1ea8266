//! Routes, state, middleware and files: tide's, through our front.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tide::{Next, Request};
use tidewire::{RequestContext, Server};

use super::{Client, header, serve};

fn get(addr: std::net::SocketAddr, path: &str) -> String {
    Client::to(addr, format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).response()
}

#[test]
fn an_unknown_path_is_404_and_an_unknown_method_405() {
    let mut server = Server::new();
    server.at("/here").get(|_| async { Ok("") });
    let addr = serve(server);
    assert!(get(addr, "/there").starts_with("HTTP/1.1 404 Not Found\r\n"));
    let mut client = Client::to(addr, "DELETE /here HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.status(), "HTTP/1.1 405 Method Not Allowed");
}

#[test]
fn each_method_has_its_handler() {
    let mut server = Server::new();
    server
        .get("/", |_: RequestContext| async { Ok("get") })
        .post("/", |_: RequestContext| async { Ok("post") })
        .put("/", |_: RequestContext| async { Ok("put") })
        .patch("/", |_: RequestContext| async { Ok("patch") })
        .delete("/", |_: RequestContext| async { Ok("delete") });
    let addr = serve(server);
    for method in ["get", "post", "put", "patch", "delete"] {
        let line = format!("{} / HTTP/1.1\r\nHost: x\r\n\r\n", method.to_uppercase());
        assert!(Client::to(addr, line).response().ends_with(&format!("\r\n\r\n{method}")));
    }
}

#[test]
fn a_handler_sees_parameters_state_and_addresses() {
    let mut server = Server::with_state(Arc::new(AtomicUsize::new(40)));
    server.at("/add/:n").get(|req: Request<Arc<AtomicUsize>>| async move {
        let n: usize = req.param("n")?.parse()?;
        let sum = req.state().fetch_add(n, Ordering::Relaxed) + n;
        Ok(format!("{sum} {:?} {:?}", req.peer_addr(), req.local_addr()))
    });
    assert_eq!(server.state().load(Ordering::Relaxed), 40);
    let addr = serve(server);

    let mut client = Client::to(addr, "GET /add/2 HTTP/1.1\r\nHost: x\r\n\r\n");
    let peer = client.socket.local_addr().unwrap().to_string();
    let seen = format!("42 {:?} {:?}", Some(peer), Some(addr.to_string()));
    assert!(client.response().ends_with(&seen));
}

#[test]
fn middleware_runs_around_the_routes_of_a_server_and_of_a_path() {
    let mut server = Server::new();
    server.with(Tag("x-server"));
    server.at("/path").with(Tag("x-path")).get(|_| async { Ok("") });
    server.at("/").get(|_| async { Ok("") });
    let addr = serve(server);

    let both = get(addr, "/path");
    assert_eq!((header(&both, "x-server"), header(&both, "x-path")), (Some("1"), Some("1")));
    let one = get(addr, "/");
    assert_eq!((header(&one, "x-server"), header(&one, "x-path")), (Some("1"), None));
    assert_eq!(header(&get(addr, "/missing"), "x-server"), Some("1"));
}

#[test]
fn a_nested_server_keeps_its_own_state_and_sees_the_rest_of_the_path() {
    let mut inner = Server::with_state("inner");
    inner.at("/who/:name").get(|req: Request<&'static str>| async move {
        Ok(format!("{} {} {}", req.state(), req.param("name")?, req.url().path()))
    });
    let mut server = Server::with_state(1);
    server.nest("/api", inner);
    assert!(get(serve(server), "/api/who/me").ends_with("inner me /who/me"));
}

#[test]
fn a_parameter_is_decoded_and_parsed_and_one_that_does_not_fit_is_a_400_that_names_it() {
    let mut server = Server::new();
    server.get("/number/:n", |ctx: RequestContext| async move {
        Ok(format!("{:?}", ctx.param::<u8>("n")?))
    });
    server.get("/text/:n", |ctx: RequestContext| async move { ctx.param::<String>("n") });
    server.get("/raw/:n", |ctx: RequestContext| async move {
        Ok(format!("{:?} {:?}", ctx.param_raw("n"), ctx.param_raw("other")))
    });
    server.get("/other/:n", |ctx: RequestContext| async move { ctx.param::<String>("other") });
    server.with(Text);
    let addr = serve(server);

    for (path, status, body) in [
        ("/number/255", 200, "255"),
        ("/number/%32%35", 200, "25"),
        ("/text/caf%C3%A9%20%2F%25", 200, "caf\u{e9} /%"),
        ("/text/a+b", 200, "a+b"),
        ("/raw/caf%C3%A9", 200, "Some(\"caf%C3%A9\") None"),
        (
            "/number/256",
            400,
            "the parameter \"n\" of the path: number too large to fit in target type",
        ),
        ("/number/x", 400, "the parameter \"n\" of the path: invalid digit found in string"),
        (
            "/text/%ff",
            400,
            "the parameter \"n\" of the path: invalid utf-8 sequence of 1 bytes from index 0",
        ),
        (
            "/text/a%2",
            400,
            "the parameter \"n\" of the path: a % that is not followed by two hexadecimal digits",
        ),
        (
            "/text/%+1",
            400,
            "the parameter \"n\" of the path: a % that is not followed by two hexadecimal digits",
        ),
        ("/other/x", 500, "the route has no parameter \"other\""),
    ] {
        let response = get(addr, path);
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {response}");
        assert!(response.ends_with(&format!("\r\n\r\n{body}")), "{path}: {response}");
    }
}

/// Middleware that answers with the text of an error, which a client is not told otherwise.
struct Text;

#[tide::utils::async_trait]
impl<State: Clone + Send + Sync + 'static> tide::Middleware<State> for Text {
    async fn handle(&self, request: Request<State>, next: Next<'_, State>) -> tide::Result {
        let mut response = next.run(request).await;
        if let Some(text) = response.error().map(ToString::to_string) {
            response.set_body(text);
        }
        Ok(response)
    }
}

#[test]
fn a_nested_server_sees_method_rest_of_the_path_and_cookies() {
    let mut inner = Server::new();
    inner.post("/who/:name", |ctx: RequestContext| async move {
        Ok(format!("{} {} {:?}", ctx.method(), ctx.path(), ctx.cookie("sid")))
    });
    let mut server = Server::new();
    server.nest("/api", inner);
    let request = "POST /api/who/m%65?a=b HTTP/1.1\r\nHost: x\r\nCookie: a=b; sid=1\r\n\r\n";
    let response = Client::to(serve(server), request).response();
    assert!(response.ends_with("POST /who/m%65 Some(\"1\")"), "{response}");
}

#[test]
fn files_and_folders_are_served_with_their_type_and_nothing_above_them() {
    let dir = folder("files_and_folders");
    fs::write(dir.join("public/page.html"), "<p>page</p>").unwrap();
    fs::write(dir.join("secret.txt"), "secret").unwrap();
    let mut server = Server::new();
    server.at("/assets").serve_dir(dir.join("public")).unwrap();
    server.at("/page").serve_file(dir.join("public/page.html")).unwrap();
    let addr = serve(server);

    for path in ["/assets/page.html", "/page"] {
        let response = get(addr, path);
        assert_eq!(header(&response, "content-type"), Some("text/html;charset=utf-8"), "{path}");
        assert!(response.ends_with("\r\n\r\n<p>page</p>"), "{response}");
    }
    assert!(get(addr, "/assets/missing").starts_with("HTTP/1.1 404 "));
    let above = ["..", "%2e%2e", "..%2f", ".%2e/..", "\\..\\..", "%5c..", "//..", "...."];
    for step in above {
        let response = get(addr, &format!("/assets/{step}/secret.txt"));
        assert!(!response.ends_with("\r\n\r\nsecret"), "{step}: {response}");
    }
}

#[test]
fn a_file_larger_than_any_buffer_arrives_whole_and_head_tells_its_size() {
    let dir = folder("large_file");
    let content = "line of text\n".repeat(100_000);
    fs::write(dir.join("large.txt"), &content).unwrap();
    let mut server = Server::new();
    server.at("/large").serve_file(dir.join("large.txt")).unwrap();
    let addr = serve(server);

    assert!(get(addr, "/large").ends_with(&content));
    let head = Client::to(addr, "HEAD /large HTTP/1.1\r\nHost: x\r\n\r\n").head();
    assert_eq!(header(&head, "content-length"), Some("1300000"));
}

#[test]
fn a_request_can_be_answered_without_a_socket() {
    let mut server = Server::new();
    server.at("/").get(|_| async { Ok("pong") });
    let request = tide::http::Request::get("http://x/");
    let mut response = async_std::task::block_on(server.respond(request)).unwrap();
    assert_eq!(async_std::task::block_on(response.body_string()).unwrap(), "pong");
}

/// An empty folder for one test, with `public` in it.
fn folder(name: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(dir.join("public")).unwrap();
    dir
}

/// Sets a header on every response that passes.
struct Tag(&'static str);

#[tide::utils::async_trait]
impl<State: Clone + Send + Sync + 'static> tide::Middleware<State> for Tag {
    async fn handle(&self, req: Request<State>, next: Next<'_, State>) -> tide::Result {
        let mut response = next.run(req).await;
        response.insert_header(self.0, "1");
        Ok(response)
    }
}
