//! Requests that no handler may see: each is answered, and nothing behind it is taken for a request.

use super::{Client, PONG, header, pong, serve};
use tidewire::Server;
use tidewire::server::ServerOptions;

const BAD_REQUEST: &str = "HTTP/1.1 400 Bad Request";
const NOT_IMPLEMENTED: &str = "HTTP/1.1 501 Not Implemented";

/// Every path answers, so that what is refused is refused before the router.
fn any_path() -> Server {
    let mut server = Server::new();
    server.at("/").all(|_| async { Ok("/") });
    server.at("/*rest").all(|req: tide::Request<()>| async move { Ok(req.url().to_string()) });
    server
}

#[test]
fn each_malformed_request_is_answered_and_ends_the_connection() {
    let cases = [
        // RFC 9112 §3: the request line
        ("GET /\r\nHost: x\r\n\r\n", BAD_REQUEST),
        ("G@T / HTTP/1.1\r\nHost: x\r\n\r\n", BAD_REQUEST),
        ("GET  / HTTP/1.1\r\nHost: x\r\n\r\n", BAD_REQUEST),
        ("GET / HTTP/1.1 \r\nHost: x\r\n\r\n", BAD_REQUEST),
        ("GET / HTTP/2.0\r\nHost: x\r\n\r\n", BAD_REQUEST),
        ("GET / http/1.1\r\nHost: x\r\n\r\n", BAD_REQUEST),
        ("\x16\x03\x01\x02\x01\x01\x01", BAD_REQUEST),
        // RFC 9112 §3.2: the target
        ("GET path HTTP/1.1\r\nHost: x\r\n\r\n", BAD_REQUEST),
        ("GET x:80 HTTP/1.1\r\nHost: x\r\n\r\n", BAD_REQUEST),
        ("GET * HTTP/1.1\r\nHost: x\r\n\r\n", BAD_REQUEST),
        ("GET ftp://x/ HTTP/1.1\r\nHost: x\r\n\r\n", BAD_REQUEST),
        ("GET http://user@x/ HTTP/1.1\r\nHost: x\r\n\r\n", BAD_REQUEST),
        // RFC 9112 §3.2: Host
        ("GET / HTTP/1.1\r\n\r\n", BAD_REQUEST),
        ("GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", BAD_REQUEST),
        ("GET / HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n", "HTTP/1.0 400 Bad Request"),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n", BAD_REQUEST),
        ("GET / HTTP/1.1\r\nHost: x/admin?\r\n\r\n", BAD_REQUEST),
        ("GET / HTTP/1.1\r\nHost: user@x\r\n\r\n", BAD_REQUEST),
        ("GET / HTTP/1.1\r\nHost: x y\r\n\r\n", BAD_REQUEST),
        ("GET / HTTP/1.1\r\nHost: x, y\r\n\r\n", BAD_REQUEST),
        ("GET / HTTP/1.1\r\nHost: x#y\r\n\r\n", BAD_REQUEST),
        ("GET / HTTP/1.1\r\nHost: x\\y\r\n\r\n", BAD_REQUEST),
        ("GET / HTTP/1.1\r\nHost: x%2fadmin\r\n\r\n", BAD_REQUEST),
        ("GET / HTTP/1.1\r\nHost: x:99999\r\n\r\n", BAD_REQUEST),
        ("GET / HTTP/1.1\r\nHost: x:80:80\r\n\r\n", BAD_REQUEST),
        ("GET / HTTP/1.1\r\nHost: :80\r\n\r\n", BAD_REQUEST),
        ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", BAD_REQUEST),
        ("GET / HTTP/1.1\r\nHost: [1]\r\n\r\n", BAD_REQUEST),
        ("GET / HTTP/1.1\r\nHost: \u{e9}\r\n\r\n", BAD_REQUEST),
        // RFC 9112 §5: header lines
        ("GET / HTTP/1.1\r\nHost : x\r\n\r\n", BAD_REQUEST),
        ("GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", BAD_REQUEST),
        ("GET / HTTP/1.1\r\nHost: x\r\n: no name\r\n\r\n", BAD_REQUEST),
        ("GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n folded\r\n\r\n", BAD_REQUEST),
        ("GET / HTTP/1.1\r\nHost: x\r\nA: \0\r\n\r\n", BAD_REQUEST),
        // RFC 9110 §9.1: methods are known and case-sensitive
        ("BREW / HTTP/1.1\r\nHost: x\r\n\r\n", NOT_IMPLEMENTED),
        ("get / HTTP/1.1\r\nHost: x\r\n\r\n", NOT_IMPLEMENTED),
        ("CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n", NOT_IMPLEMENTED),
        // RFC 9113 §3.4: the preface of HTTP/2
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/1.1 505 HTTP Version Not Supported"),
    ];
    let addr = serve(any_path());
    for (request, status) in cases {
        let mut client = Client::to(addr, request);
        let response = client.response();
        assert_eq!(response.lines().next(), Some(status), "{request:?}");
        // RFC 9112 §9.6
        assert_eq!(header(&response, "connection"), Some("close"), "{request:?}");
        assert_eq!(client.rest(), "", "{request:?}");
    }
}

/// A request with this target is refused, and nothing behind it is read.
fn expect_refusal(target: &str) {
    let addr = serve(any_path());
    let method = if target.starts_with('*') { "OPTIONS" } else { "GET" };
    let request = format!("{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut client = Client::to(addr, request);
    let response = client.response();
    assert_eq!(response.lines().next(), Some(BAD_REQUEST), "{target}");
    assert_eq!(header(&response, "connection"), Some("close"), "{target}");
    assert_eq!(client.rest(), "", "{target}");
}

#[test]
fn a_target_with_a_fragment_is_refused() {
    // RFC 9112 §3.2: no form of a target has one.
    for target in ["/#b", "/a#b", "/a?b#c", "/#", "http://x/a#b", "http://x#b", "*#b", "#"] {
        expect_refusal(target);
    }
}

#[test]
fn a_target_with_a_dot_segment_is_refused() {
    // RFC 3986 §3.3: whoever resolves it takes it for another path.
    for target in [
        "/..",
        "/.",
        "/a/..",
        "/a/../b",
        "/a/./b",
        "/a/%2e%2e/b",
        "/a/%2E%2e/b",
        "/a/.%2e/b",
        "/a/%2e./b",
        "/a/%2e",
        "/a/%2e%2e?b",
        "http://x/../b",
    ] {
        expect_refusal(target);
    }
}

#[test]
fn a_body_whose_end_is_disputed_hides_no_second_request() {
    const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n";
    let cases = [
        // RFC 9112 §6.1: codings that are not ours, and `chunked` that is not last
        ("Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", NOT_IMPLEMENTED),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", NOT_IMPLEMENTED),
        ("Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", NOT_IMPLEMENTED),
        ("Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", BAD_REQUEST),
        ("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", BAD_REQUEST),
        ("Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", BAD_REQUEST),
        ("Transfer-Encoding:\r\n\r\n0\r\n\r\n", BAD_REQUEST),
        // RFC 9112 §6.3: with both, `chunked` counts, and the connection ends
        ("Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 200 OK"),
        ("Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n", "HTTP/1.1 200 OK"),
        // RFC 9112 §6.3: lengths
        ("Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", BAD_REQUEST),
        ("Content-Length: 5, 6\r\n\r\nhello", BAD_REQUEST),
        ("Content-Length: +5\r\n\r\nhello", BAD_REQUEST),
        ("Content-Length: -5\r\n\r\nhello", BAD_REQUEST),
        ("Content-Length: 0x5\r\n\r\nhello", BAD_REQUEST),
        ("Content-Length: 5 5\r\n\r\nhello", BAD_REQUEST),
        ("Content-Length:\r\n\r\nhello", BAD_REQUEST),
        ("Content-Length: 18446744073709551616\r\n\r\nhello", BAD_REQUEST),
    ];
    let addr = serve(any_path());
    for (framing, status) in cases {
        let mut client =
            Client::to(addr, format!("POST / HTTP/1.1\r\nHost: x\r\n{framing}{HIDDEN}"));
        let response = client.response();
        assert_eq!(response.lines().next(), Some(status), "{framing:?}");
        assert_eq!(header(&response, "connection"), Some("close"), "{framing:?}");
        assert_eq!(client.rest(), "", "{framing:?}");
    }
}

#[test]
fn a_body_that_ends_with_trailers_hides_no_second_request() {
    // Others take the empty line after `A: b` for the end; hyper goes on to the next CR LF CR LF.
    const BARE: &str = "1\r\na\r\n0\r\nA: b\n\nGET /hidden HTTP/1.1\r\nHost: x\r\n\r\n";
    const ORDERLY: &str = "1\r\na\r\n0\r\nA: b\r\n\r\n";
    const EMPTY: &str = "0\r\nA: b\n\nGET /hidden HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut server = any_path();
    server.at("/read").post(|mut req: tide::Request<()>| async move { req.body_string().await });
    let addr = serve(server);
    for path in ["/read", "/unread"] {
        for body in [BARE, ORDERLY, EMPTY] {
            let head = "HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked";
            let next = "GET /next HTTP/1.1\r\nHost: x\r\n\r\n";
            let mut client = Client::to(addr, format!("POST {path} {head}\r\n\r\n{body}{next}"));
            let response = client.response();
            assert!(response.starts_with("HTTP/1.1 200 "), "{path} {body:?}: {response}");
            assert_eq!(header(&response, "connection"), Some("close"), "{path} {body:?}");
            assert_eq!(client.rest(), "", "{path} {body:?}");
        }
    }
}

#[test]
fn a_transfer_coding_in_http_1_0_is_refused() {
    let request = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let mut client = Client::to(serve(any_path()), request);
    assert!(client.status().ends_with(" 400 Bad Request"));
    assert_eq!(client.rest(), "");
}

#[test]
fn a_refusal_names_the_fault() {
    let addr = serve(pong());
    let mut client = Client::to(addr, "GET / HTTP/1.1\r\n\r\n");
    let body = "the request has no Host header\n";
    assert_eq!(
        client.rest_without_date(),
        format!(
            "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )
    );
    let mut client = Client::to(addr, "HEAD / HTTP/1.1\r\n\r\n");
    assert!(client.rest().ends_with("\r\n\r\n"), "a HEAD gets no body");
}

#[test]
fn valid_hosts_are_accepted() {
    let addr = serve(pong());
    for host in ["x", "x:80", "x:", "127.0.0.1:8080", "[::1]", "[::1]:8080", "a_b.example", "X-Y."]
    {
        let mut client = Client::to(addr, format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!(client.response(), PONG, "{host}");
    }
}

#[test]
fn the_url_is_made_of_the_target_and_the_host_and_neither_changes_the_other() {
    let cases = [
        ("/a/b?c=d%20e", "x:8080", "http://x:8080/a/b?c=d%20e"),
        ("//evil.example/a", "x", "http://x//evil.example/a"),
        ("/a%2fb%00", "x", "http://x/a%2fb%00"),
        ("/a\\..\\b", "x", "http://x/a%5C..%5Cb"),
        ("/a?b=/../c", "x", "http://x/a?b=/../c"),
        // What is no dot segment stays as it was sent.
        ("/a/.../b", "x", "http://x/a/.../b"),
        ("/a/..b/.c", "x", "http://x/a/..b/.c"),
        ("/a/..;x/b", "x", "http://x/a/..;x/b"),
        ("/a%2f..%2fb", "x", "http://x/a%2f..%2fb"),
        ("/a/%252e%252e/b", "x", "http://x/a/%252e%252e/b"),
        ("/a//b", "x", "http://x/a//b"),
        ("/a/..%5cb", "x", "http://x/a/..%5cb"),
        // RFC 9112 §3.2.2: the host of an absolute target wins
        ("http://y:81/a", "x", "http://y:81/a"),
        ("http://y", "x", "/"),
    ];
    let addr = serve(any_path());
    for (target, host, url) in cases {
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let response = Client::to(addr, request).response();
        assert!(response.ends_with(&format!("\r\n\r\n{url}")), "{target}: {response}");
    }
}

#[test]
fn a_host_that_is_not_allowed_is_a_421() {
    let mut server = any_path();
    server.options(ServerOptions::default().allow_hosts(["localhost", "*.example.com", "[::1]"]));
    let addr = serve(server);
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "200 OK"),
        ("GET / HTTP/1.1\r\nHost: LocalHost.:8080\r\n\r\n", "200 OK"),
        ("GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n", "200 OK"),
        ("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "200 OK"),
        // RFC 9112 §3.2.2: the host of an absolute target counts
        ("GET http://localhost/ HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK"),
        ("GET http://x/ HTTP/1.1\r\nHost: localhost\r\n\r\n", "421 Misdirected Request"),
        ("GET / HTTP/1.1\r\nHost: rebound.evil.org\r\n\r\n", "421 Misdirected Request"),
        ("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n", "421 Misdirected Request"),
        ("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", "421 Misdirected Request"),
    ] {
        let mut client = Client::to(addr, request);
        assert_eq!(client.status(), format!("HTTP/1.1 {status}"), "{request}");
    }
}

#[test]
fn no_spelling_of_a_path_reaches_the_route_of_another() {
    let mut server = Server::new();
    server.at("/public/*rest").get(|_| async { Ok("public") });
    server.at("/public/").get(|_| async { Ok("public") });
    server.at("/admin").get(|_| async { Ok("admin") });
    server.at("/public/admin").get(|_| async { Ok("public admin") });
    let addr = serve(server);
    for (target, end) in [
        ("/admin", "admin"),
        ("/public/admin", "public admin"),
        ("/public/../admin", "400"),
        ("/public/%2e%2e/admin", "400"),
        ("/./admin", "400"),
        ("/public/x/%2e%2e/%2e%2e/admin", "400"),
        ("/public/..;/admin", "public"),
        ("/public/..%2fadmin", "public"),
        ("/public%2fadmin", "404"),
        ("/public\\..\\admin", "404"),
        ("//admin", "404"),
        ("/%61dmin", "404"),
        ("/ADMIN", "404"),
        ("/admin;x", "404"),
        ("/admin/", "404"),
        ("/admin%00", "404"),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
        let response = Client::to(addr, request).response();
        match end {
            "400" | "404" => {
                assert!(response.starts_with(&format!("HTTP/1.1 {end} ")), "{target}: {response}");
            }
            body => assert!(response.ends_with(&format!("\r\n\r\n{body}")), "{target}: {response}"),
        }
    }
}

#[test]
fn a_fragment_is_found_wherever_a_head_begins() {
    let get = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
    let post = "POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello";
    let chunked = "POST /read HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let mut server = any_path();
    server.at("/read").post(|mut req: tide::Request<()>| async move { req.body_string().await });
    let addr = serve(server);
    for before in [String::new(), "\r\n".to_owned(), get("/a"), post.to_owned(), chunked.to_owned()]
    {
        let answers = usize::from(before.len() > 2);
        let request = before + &get("/b#c") + &get("/hidden");
        for step in [1, 7, usize::MAX] {
            let mut client = Client::connect(addr);
            for piece in request.as_bytes().chunks(step) {
                client = client.send(piece);
            }
            for _ in 0..answers {
                assert_eq!(client.status(), "HTTP/1.1 200 OK", "{request:?}");
            }
            assert_eq!(client.status(), BAD_REQUEST, "{request:?}");
            assert_eq!(client.rest(), "", "{request:?}");
        }
    }
    // It is one in a target only.
    let body = "see GET /a#b HTTP/1.1\r\n\r\nGET /a#b HTTP/1.1\r\n\r\n";
    let request = format!(
        "POST /read HTTP/1.1\r\nHost: x\r\nReferer: /a#b\r\nContent-Length: {}\r\n\r\n{body}{}",
        body.len(),
        get("/a").repeat(2)
    );
    let mut client = Client::to(addr, request);
    for _ in 0..3 {
        assert_eq!(client.status(), "HTTP/1.1 200 OK");
    }
}

#[test]
fn the_host_header_is_that_of_an_absolute_target() {
    let mut server = Server::new();
    server.at("/").get(|req: tide::Request<()>| async move {
        Ok(req.header("host").map(ToString::to_string).unwrap_or_default())
    });
    let request = "GET http://y:81/ HTTP/1.1\r\nHost: x\r\n\r\n";
    assert!(Client::to(serve(server), request).response().ends_with("[\"y:81\"]"));
}

#[test]
fn a_target_or_head_over_its_limit_is_named_by_its_status() {
    let addr = serve(pong());
    let get = |target: &str, field: usize| {
        let field = "f".repeat(field);
        let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\nA: {field}\r\n\r\n");
        let mut client = Client::to(addr, request);
        let status = client.status();
        (status, client)
    };
    // A target of 8 KiB and a head of 16 KiB are the longest by default.
    let longest = "/".to_owned() + &"t".repeat(8 * 1024 - 1);
    assert_eq!(get(&longest, 1).0, "HTTP/1.1 404 Not Found");
    assert_eq!(get(&(longest + "t"), 1).0, "HTTP/1.1 414 URI Too Long");
    assert_eq!(get(&"/t".repeat(6 * 1024), 1).0, "HTTP/1.1 414 URI Too Long");

    let rest = "GET / HTTP/1.1\r\nHost: x\r\nA: \r\n\r\n".len();
    assert_eq!(get("/", 16 * 1024 - rest).0, "HTTP/1.1 200 OK");
    let (status, mut client) = get("/", 16 * 1024 - rest + 1);
    assert_eq!(status, "HTTP/1.1 431 Request Header Fields Too Large");
    assert_eq!(client.rest(), "");
}

#[test]
fn a_head_without_end_is_refused_although_the_client_still_sends() {
    let mut client = Client::to(serve(pong()), "GET / HTTP/1.1\r\nHost: x\r\n");
    // Less than the socket buffers take, so that the client can finish before it reads.
    client = client.send("A: bcdefgh\r\n".repeat(6 * 1024));
    assert_eq!(client.status(), "HTTP/1.1 431 Request Header Fields Too Large");
    assert_eq!(client.half_close().rest(), "", "the end is orderly, not a reset");
}

#[test]
fn more_than_a_hundred_header_lines_are_refused() {
    let addr = serve(pong());
    let status = |lines: usize| {
        let lines = "A: b\r\n".repeat(lines);
        Client::to(addr, format!("GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n")).status()
    };
    assert_eq!(status(99), "HTTP/1.1 200 OK");
    assert_eq!(status(100), "HTTP/1.1 431 Request Header Fields Too Large");
}

#[test]
fn the_limits_are_options() {
    let mut server = any_path();
    server.options(ServerOptions::default().max_uri_len(4).max_head_size(100).max_headers(2));
    let addr = serve(server);
    let cases = [
        ("GET /abc HTTP/1.1\r\nHost: x\r\nA: b\r\n\r\n".to_owned(), "200 OK"),
        ("GET /abcd HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), "414 URI Too Long"),
        ("GET / HTTP/1.1\r\nHost: x\r\nA: b\r\nA: b\r\n\r\n".to_owned(), "431 Request Header"),
        (format!("GET / HTTP/1.1\r\nHost: {:x<90}\r\n\r\n", ""), "431 Request Header"),
    ];
    for (request, status) in cases {
        let line = Client::to(addr, &request).status();
        assert!(line.starts_with(&format!("HTTP/1.1 {status}")), "{request}: {line}");
    }
}

#[test]
fn a_client_that_gives_up_in_the_middle_of_a_head_is_told_so() {
    let mut client = Client::to(serve(pong()), "GET / HTTP/1.1\r\nHos").half_close();
    assert_eq!(client.status(), BAD_REQUEST);
    assert_eq!(client.rest(), "");

    let mut client = Client::connect(serve(pong())).half_close();
    assert_eq!(client.rest(), "", "who asked nothing is answered nothing");
}
