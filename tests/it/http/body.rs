//! Bodies in both directions: RFC 9112 §6 and §7.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::channel::mpsc;
use futures::io::{AsyncBufRead, AsyncRead, AsyncReadExt, BufReader};
use futures::stream::TryStreamExt;
use tide::http::Body;
use tide::{Request, Response};
use tidewire::server::ServerOptions;
use tidewire::{HandlerError, RequestContext, Server};

use super::{Client, header, serve};

/// A server that answers `POST /` with the body it got.
fn echo() -> Server {
    let mut server = Server::new();
    server.at("/").post(|mut req: Request<()>| async move { req.body_string().await });
    server
}

#[test]
fn a_body_with_a_length_arrives_whole() {
    let request = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello";
    assert!(Client::to(serve(echo()), request).response().ends_with("\r\n\r\nhello"));
}

#[test]
fn a_chunked_body_arrives_whole_for_every_cut() {
    let head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunks = "3\r\nhel\r\n2;ext=1\r\nlo\r\n0\r\nTrailer: t\r\n\r\n";
    let addr = serve(echo());

    let mut whole = Client::to(addr, format!("{head}{chunks}"));
    assert!(whole.response().ends_with("\r\n\r\nhello"));

    let mut client = Client::to(addr, head);
    for byte in chunks.bytes() {
        client = client.send([byte]);
    }
    assert!(client.response().ends_with("\r\n\r\nhello"));
}

#[test]
fn a_large_body_passes_through_in_pieces() {
    let body = "0123456789abcdef".repeat(64 * 1024);
    let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    let mut client = Client::to(serve(echo()), head + &body);
    let response = client.response();
    assert_eq!(header(&response, "content-length"), Some("1048576"));
    assert!(response.ends_with(&body));
}

#[test]
fn a_body_that_no_handler_reads_leaves_the_connection_in_step_or_ends_it() {
    let mut server = Server::new();
    server.at("/").post(|_| async { Ok("unread") });
    let addr = serve(server);

    let small = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello";
    let mut client = Client::to(addr, small);
    assert!(client.response().ends_with("unread"));
    client = client.send(small);
    assert!(client.response().ends_with("unread"));

    let mut client =
        Client::to(addr, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\nhello");
    assert!(client.response().ends_with("unread"));
    assert_eq!(client.rest(), "");
}

#[test]
fn expect_100_continue_is_answered_when_the_body_is_read() {
    let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    let mut client = Client::to(serve(echo()), head);
    assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n");
    client = client.send("hello");
    assert!(client.response().ends_with("\r\n\r\nhello"));
}

#[test]
fn expect_100_continue_is_not_answered_when_the_body_is_refused() {
    let mut server = Server::new();
    server.at("/").post(|_| async { Ok(Response::new(403)) });
    let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    assert_eq!(Client::to(serve(server), head).status(), "HTTP/1.1 403 Forbidden");
}

#[test]
fn the_content_type_a_handler_sees_is_the_clients_or_none() {
    let mut server = Server::new();
    server.at("/").post(|req: Request<()>| async move {
        Ok(req.header("content-type").map_or("none", |values| values.last().as_str()).to_owned())
    });
    let addr = serve(server);
    let post = |lines: &str| {
        let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n{lines}\r\n{{}}");
        Client::to(addr, head).response()
    };
    assert!(post("").ends_with("\r\n\r\nnone"));
    assert!(post("Content-Type: application/json\r\n").ends_with("\r\n\r\napplication/json"));
}

#[test]
fn a_broken_chunk_fails_the_read_and_ends_the_connection() {
    let request = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n";
    let mut client = Client::to(serve(echo()), request);
    assert_eq!(client.status(), "HTTP/1.1 422 Unprocessable Entity");
    assert_eq!(client.rest(), "");
}

#[test]
fn a_body_that_ends_early_fails_the_read() {
    let request = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhel";
    let mut client = Client::to(serve(echo()), request).half_close();
    assert_eq!(client.status(), "HTTP/1.1 422 Unprocessable Entity");
    assert_eq!(client.rest(), "");
}

#[test]
fn a_collected_body_over_the_limit_is_413_whether_or_not_it_says_its_length() {
    let mut server = Server::new();
    server.post("/", |mut ctx: RequestContext| async move { ctx.body_string().await });
    server.options(ServerOptions::default().max_body_size(5));
    let addr = serve(server);
    let post = |framing: &str| {
        Client::to(addr, format!("POST / HTTP/1.1\r\nHost: x\r\n{framing}")).status()
    };
    assert_eq!(post("Content-Length: 5\r\n\r\nhello"), "HTTP/1.1 200 OK");
    assert_eq!(post("Content-Length: 6\r\n\r\nhello!"), "HTTP/1.1 413 Payload Too Large");
    let chunked = "Transfer-Encoding: chunked\r\n\r\n";
    let fits = post(&format!("{chunked}5\r\nhello\r\n0\r\n\r\n"));
    assert_eq!(fits, "HTTP/1.1 200 OK");
    let exceeds = post(&format!("{chunked}6\r\nhello!\r\n0\r\n\r\n"));
    assert_eq!(exceeds, "HTTP/1.1 413 Payload Too Large");
}

/// Reads the body in every way there is, as the path says.
fn readers() -> Server {
    let mut app = tide::new();
    app.at("/app").post(|mut req: Request<()>| async move { req.body_string().await });
    let mut server = Server::new();
    server.post("/ours", |mut ctx: RequestContext| async move { ctx.body_string().await });
    server.post("/bytes", |mut ctx: RequestContext| async move {
        Ok(String::from_utf8(
            ctx.request_mut().body_bytes().await.map_err(HandlerError::from_tide)?,
        )?)
    });
    server.post("/json", |mut ctx: RequestContext| async move {
        let value: serde_json::Value =
            ctx.request_mut().body_json().await.map_err(HandlerError::from_tide)?;
        Ok(value.to_string())
    });
    server.post("/taken", |mut ctx: RequestContext| async move {
        let mut text = String::new();
        ctx.request_mut().take_body().read_to_string(&mut text).await?;
        Ok(text)
    });
    server.at("/string").post(|mut req: Request<()>| async move { req.body_string().await });
    server.at("/tide").nest(app);
    server
}

const READERS: [&str; 6] = ["/ours", "/bytes", "/json", "/taken", "/string", "/tide/app"];

#[test]
fn a_body_over_the_limit_is_413_in_every_way_to_read_it() {
    let mut server = readers();
    server.options(ServerOptions::default().max_body_size(5));
    let addr = serve(server);
    for path in READERS {
        for (framing, status) in [
            ("Content-Length: 5\r\n\r\n\"abc\"", "200 OK"),
            ("Content-Length: 6\r\n\r\n\"abcd\"", "413 Payload Too Large"),
            ("Content-Length: 6\r\nExpect: 100-continue\r\n\r\n", "413 Payload Too Large"),
            ("Transfer-Encoding: chunked\r\n\r\n5\r\n\"abc\"\r\n0\r\n\r\n", "200 OK"),
            (
                "Transfer-Encoding: chunked\r\n\r\n6\r\n\"abcd\"\r\n0\r\n\r\n",
                "413 Payload Too Large",
            ),
        ] {
            let request = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{framing}");
            let response = Client::to(addr, request).response();
            assert!(response.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{path}: {response}");
            let body = match (status, path) {
                ("200 OK", _) => "\r\n\r\n\"abc\"",
                (_, "/ours") => "\r\n\r\nthe body exceeds 5 bytes",
                _ => "\r\n\r\nthe body exceeds 5 bytes\n",
            };
            assert!(response.ends_with(body), "{path}: {response}");
        }
    }
}

#[test]
fn a_route_or_a_handler_takes_a_body_over_the_limit_if_it_says_so() {
    let mut server = Server::new();
    server.post("/request", |mut ctx: RequestContext| async move {
        match ctx.header("x-max") {
            Some("none") => ctx.set_max_body_size(None),
            _ => ctx.set_max_body_size(6),
        }
        ctx.body_string().await
    });
    server.post("/before", |mut ctx: RequestContext| async move { ctx.body_string().await });
    let read = |mut req: Request<()>| async move { req.body_string().await };
    server.at("/route").post(read).max_body_size(6).put(read).max_body_size(None).patch(read);
    server.options(ServerOptions::default().max_body_size(5));
    let addr = serve(server);
    for (line, len, status) in [
        ("POST /before", 6, 413),
        ("POST /request", 6, 200),
        ("POST /request", 7, 413),
        ("POST /route", 6, 413),
        ("PUT /route", 6, 200),
        ("PUT /route", 7, 413),
        ("PATCH /route", 100_000, 200),
    ] {
        let body = "x".repeat(len);
        for framing in [
            format!("Content-Length: {len}\r\n\r\n{body}"),
            format!("Transfer-Encoding: chunked\r\n\r\n{len:x}\r\n{body}\r\n0\r\n\r\n"),
        ] {
            let request = format!("{line} HTTP/1.1\r\nHost: x\r\n{framing}");
            let status_line = Client::to(addr, request).status();
            assert!(status_line.starts_with(&format!("HTTP/1.1 {status} ")), "{line} {len}");
        }
    }
    let request = "POST /request HTTP/1.1\r\nHost: x\r\nX-Max: none\r\nContent-Length: 9\r\n\r\n";
    assert_eq!(Client::to(addr, format!("{request}123456789")).status(), "HTTP/1.1 200 OK");
}

#[test]
fn a_handler_that_bears_with_a_body_over_the_limit_has_the_word() {
    let mut server = Server::new();
    server.at("/").post(|mut req: Request<()>| async move {
        let error = req.take_body().read_to_end(&mut Vec::new()).await.unwrap_err();
        Ok(Response::builder(202).body(format!("{:?}", error.kind())).build())
    });
    server.options(ServerOptions::default().max_body_size(5));
    let request = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nhello!";
    let response = Client::to(serve(server), request).response();
    assert!(response.starts_with("HTTP/1.1 202 "), "{response}");
    assert!(response.ends_with("FileTooLarge"), "{response}");
}

#[test]
fn a_collected_body_costs_its_size() {
    let mut server = Server::new();
    server.post("/", |mut ctx: RequestContext| async move {
        let body = ctx.body_bytes().await?;
        Ok(format!("{} {}", body.len(), body.capacity()))
    });
    let addr = serve(server);
    for len in [1, 5_000, 700_000, 1 << 20] {
        let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len}\r\n\r\n");
        let response = Client::to(addr, head + &"x".repeat(len)).response();
        let costs = response.rsplit("\r\n").next().unwrap();
        assert_eq!(costs, format!("{len} {len}"));
    }
}

#[test]
fn a_handler_reads_a_body_while_it_still_arrives() {
    let mut server = Server::new();
    server.at("/").post(|mut req: Request<()>| async move {
        let mut body = req.take_body();
        let mut first = [0; 3];
        body.read_exact(&mut first).await?;
        // Sent before the client goes on, and the client goes on only then.
        let first = futures::io::Cursor::new(first);
        Ok(Response::from(Body::from_reader(BufReader::new(first.chain(body)), None)))
    });
    let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\n";
    let mut client = Client::to(serve(server), head.to_owned() + "one");
    // Whether the rest of the body will be read is not known yet.
    assert_eq!(header(&client.head(), "connection"), Some("close"));
    assert_eq!(client.take_through(b"one\r\n"), b"3\r\none\r\n");
    client = client.send("two");
    assert_eq!(client.take_through(b"0\r\n\r\n"), b"3\r\ntwo\r\n0\r\n\r\n");
    assert_eq!(client.rest(), "");
}

#[test]
fn a_response_of_unknown_length_is_chunked_piece_by_piece() {
    let (pieces, stream) = mpsc::unbounded::<std::io::Result<&'static str>>();
    let stream = std::sync::Mutex::new(Some(Locked(stream.into_async_read())));
    let mut server = Server::new();
    server.at("/").get(move |_| {
        let stream = stream.lock().unwrap().take().unwrap();
        async move { Ok(Response::from(Body::from_reader(stream, None))) }
    });

    let mut client = Client::to(serve(server), "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(header(&client.head(), "transfer-encoding"), Some("chunked"));
    for (piece, wire) in [("one", "3\r\none\r\n"), ("three", "5\r\nthree\r\n")] {
        pieces.unbounded_send(Ok(piece)).unwrap();
        assert_eq!(client.take_through(wire.as_bytes()), wire.as_bytes());
    }
    drop(pieces);
    assert_eq!(client.take_through(b"0\r\n\r\n"), b"0\r\n\r\n");
}

#[test]
fn a_response_of_unknown_length_to_http_1_0_ends_with_the_connection() {
    let mut server = Server::new();
    server.at("/").get(|_| async {
        Ok(Response::from(Body::from_reader(futures::io::Cursor::new("until the end"), None)))
    });
    let addr = serve(server);
    for asked in ["", "Connection: keep-alive\r\n"] {
        let mut client = Client::to(addr, format!("GET / HTTP/1.0\r\n{asked}\r\n"));
        let head = client.head();
        assert!(!head.contains("transfer-encoding"), "{head}");
        // RFC 9112 §9.3: what has no length of its own does not keep the connection
        assert!(!head.contains("keep-alive"), "{head}");
        assert_eq!(client.rest(), "until the end");
    }
}

#[test]
fn a_response_shorter_than_its_length_is_cut_off_not_filled_up() {
    let mut server = Server::new();
    server.at("/").get(|_| async {
        Ok(Response::from(Body::from_reader(futures::io::Cursor::new("short"), Some(10))))
    });
    let mut client = Client::to(serve(server), "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(header(&client.head(), "content-length"), Some("10"));
    assert_eq!(client.rest(), "short");
}

#[test]
fn a_response_longer_than_its_length_is_cut_there() {
    let mut server = Server::new();
    server.at("/").get(|_| async {
        Ok(Response::from(Body::from_reader(futures::io::Cursor::new("too long"), Some(3))))
    });
    let mut client = Client::connect(serve(server));
    for _ in 0..2 {
        client = client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(client.response().ends_with("\r\n\r\ntoo"));
    }
}

/// `Sync` for a reader that is not: `http_types` asks for it and never shares.
struct Locked<R>(R);

impl<R: AsyncRead + Unpin> AsyncRead for Locked<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl<R: AsyncBufRead + Unpin> AsyncBufRead for Locked<R> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<&[u8]>> {
        Pin::new(&mut self.get_mut().0).poll_fill_buf(cx)
    }

    fn consume(mut self: Pin<&mut Self>, len: usize) {
        Pin::new(&mut self.0).consume(len);
    }
}
