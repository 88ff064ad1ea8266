//! Peers that are slow, silent or gone.

use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::io::{AsyncBufRead, AsyncRead};
use tide::http::Body;
use tide::{Request, Response};
use tidewire::server::ServerOptions;
use tidewire::{RequestContext, Server};

use super::{Client, PONG, WITHIN, pong, serve};

const SOON: Duration = Duration::from_millis(200);

#[test]
fn a_head_that_is_not_complete_in_time_is_answered_with_408() {
    let mut server = pong();
    server.options(ServerOptions::default().head_timeout(SOON));
    let addr = serve(server);

    let mut client = Client::to(addr, "GET / HTTP/1.1\r\nHost: x\r\n");
    assert_eq!(client.status(), "HTTP/1.1 408 Request Timeout");
    assert_eq!(client.rest(), "");

    let mut second = Client::to(addr, "GET / HTTP/1.1\r\nHost: x\r\n\r\nGET");
    assert_eq!(second.response(), PONG);
    second = second.send(" / HTTP/1.1\r\n");
    assert_eq!(second.status(), "HTTP/1.1 408 Request Timeout");
}

#[test]
fn a_head_that_begins_with_or_during_the_request_before_it_has_its_time_from_there() {
    let (tell, told) = mpsc::channel();
    let (go, gone) = async_std::channel::unbounded::<()>();
    let mut server = pong();
    server.at("/body").post(|mut req: Request<()>| async move { req.body_string().await });
    server.at("/unread").post(|_| async { Ok("pong") });
    server.at("/slow").get(move |_| {
        let (tell, gone) = (tell.clone(), gone.clone());
        async move {
            tell.send(())?;
            gone.recv().await?;
            Ok("pong")
        }
    });
    server.options(ServerOptions::default().head_timeout(SOON).idle_timeout(WITHIN * 10));
    let addr = serve(server);

    for request in [
        "GET / HTTP/1.1\r\nHost: x\r\n\r\nG",
        "GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\nG",
        "POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\npongG",
        "POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npong\r\n0\r\n\r\nG",
        "POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbodyG",
    ] {
        let mut client = Client::to(addr, request);
        for _ in 0..request.matches("GET ").count().max(1) {
            assert_eq!(client.response(), PONG, "{request:?}");
        }
        assert_eq!(client.status(), "HTTP/1.1 408 Request Timeout", "{request:?}");
        assert_eq!(client.rest(), "");
    }

    let mut client = Client::to(addr, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    told.recv_timeout(WITHIN).unwrap();
    client = client.send("G");
    // By the time another connection has missed a whole deadline, the byte has been read.
    assert_eq!(Client::connect(addr).rest(), "");
    go.send_blocking(()).unwrap();
    assert_eq!(client.response(), PONG);
    assert_eq!(client.status(), "HTTP/1.1 408 Request Timeout");
}

#[test]
fn a_connection_on_which_nothing_comes_is_closed_without_a_word() {
    let mut server = pong();
    server.options(ServerOptions::default().head_timeout(SOON));
    assert_eq!(Client::connect(serve(server)).rest(), "");
}

#[test]
fn a_connection_that_idles_after_a_response_is_closed_without_a_word() {
    let mut server = pong();
    server.options(ServerOptions::default().idle_timeout(SOON));
    let mut client = Client::to(serve(server), "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.response(), PONG);
    assert_eq!(client.rest(), "");
}

#[test]
fn the_deadline_for_a_head_does_not_end_an_idle_connection() {
    let mut server = pong();
    server.options(ServerOptions::default().head_timeout(SOON));
    let addr = serve(server);
    let mut client = Client::to(addr, "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.response(), PONG);

    // Another connection misses a whole deadline that began after this one was idle.
    assert_eq!(Client::connect(addr).rest(), "");
    client = client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(client.response(), PONG);
}

#[test]
fn bytes_before_a_response_are_a_head_only_if_some_of_them_are_left() {
    let mut server = pong();
    server.at("/body").post(|mut req: Request<()>| async move { req.body_string().await });
    server.at("/unread").post(|_| async { Ok("pong") });
    server.options(ServerOptions::default().head_timeout(SOON));
    let addr = serve(server);
    let chunked = "Transfer-Encoding: chunked\r\n\r\n";
    let cases = [
        vec!["GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned()],
        vec!["POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\npong".to_owned()],
        vec![
            "POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n".to_owned(),
            "po".to_owned(),
            "ng".to_owned(),
        ],
        vec![format!("POST /body HTTP/1.1\r\nHost: x\r\n{chunked}4\r\npong\r\n0\r\n\r\n")],
        vec![
            format!("POST /body HTTP/1.1\r\nHost: x\r\n{chunked}4\r\npo"),
            "ng\r\n0\r\n\r\n".to_owned(),
        ],
        vec!["POST /unread HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody".to_owned()],
    ];
    let mut clients = Vec::new();
    for pieces in &cases {
        let mut client = Client::connect(addr);
        for piece in pieces {
            client = client.send(piece);
        }
        for _ in 0..pieces[0].matches(" HTTP/1.1").count() {
            assert_eq!(client.response(), PONG, "{pieces:?}");
        }
        clients.push((client, pieces));
    }
    // Another connection misses a whole deadline that began after these were idle.
    assert_eq!(Client::connect(addr).rest(), "");
    for (client, pieces) in clients {
        let mut client = client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.response(), PONG, "{pieces:?}");
    }
}

#[test]
fn no_deadline_runs_while_a_handler_works() {
    let mut server = Server::new();
    let (go, gone) = futures::channel::oneshot::channel::<()>();
    let gone = std::sync::Mutex::new(Some(gone));
    server.at("/slow").get(move |_| {
        let gone = gone.lock().unwrap().take().unwrap();
        async move { Ok(gone.await.map_or("cut off", |()| "done")) }
    });
    server.options(ServerOptions::default().head_timeout(SOON).idle_timeout(SOON));
    let addr = serve(server);

    let mut client = Client::to(addr, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(Client::connect(addr).rest(), "", "a deadline has passed");
    go.send(()).unwrap();
    assert!(client.response().ends_with("done"));
}

#[test]
fn a_body_that_stops_coming_fails_the_read() {
    let mut server = Server::new();
    server.at("/").post(|mut req: Request<()>| async move { req.body_string().await });
    server.options(ServerOptions::default().body_timeout(SOON));
    let request = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhel";
    let mut client = Client::to(serve(server), request);
    assert_eq!(client.status(), "HTTP/1.1 422 Unprocessable Entity");
    assert_eq!(client.rest(), "");
}

#[test]
fn a_context_answers_a_body_that_stops_coming_with_408() {
    let mut server = Server::new();
    server.post("/", |mut ctx: RequestContext| async move { ctx.body_string().await });
    server.options(ServerOptions::default().body_timeout(SOON));
    let request = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhel";
    assert_eq!(Client::to(serve(server), request).status(), "HTTP/1.1 408 Request Timeout");
}

#[test]
fn a_body_that_drips_for_too_long_is_answered_with_408() {
    let mut server = Server::new();
    server.post("/", |mut ctx: RequestContext| async move { ctx.body_string().await });
    server.options(ServerOptions::default().body_deadline(SOON));
    let addr = serve(server);
    for framing in ["Content-Length: 1000000", "Transfer-Encoding: chunked"] {
        let head = format!("POST / HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n");
        let mut client = Client::to(addr, head);
        let begin = Instant::now();
        // It is never silent for long, until it has its answer.
        while client.socket.set_read_timeout(Some(SOON / 10)).is_ok()
            && client.socket.peek(&mut [0]).is_err()
        {
            assert!(begin.elapsed() < WITHIN, "{framing}");
            client = client.send(if framing.ends_with("chunked") { "1\r\nx\r\n" } else { "x" });
        }
        assert!(begin.elapsed() >= SOON, "{framing}");
        client.socket.set_read_timeout(Some(WITHIN)).unwrap();
        let response = client.response();
        assert!(response.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{response}");
        assert_eq!(client.rest(), "");
    }
}

#[test]
fn a_body_that_is_complete_in_time_is_not_cut_off_while_its_handler_works() {
    let mut server = Server::new();
    server.post("/", |mut ctx: RequestContext| async move {
        let body = ctx.body_string().await?;
        let _ = async_std::future::timeout(SOON * 2, std::future::pending::<()>()).await;
        Ok(body)
    });
    server.options(ServerOptions::default().body_deadline(SOON));
    let request = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello";
    assert!(Client::to(serve(server), request).response().ends_with("hello"));
}

#[test]
fn a_client_that_never_reads_is_dropped() {
    let (dropped, wait) = mpsc::channel();
    let mut server = Server::new();
    server.at("/").get(move |_| {
        let endless = Endless { _dropped: OnDrop(dropped.clone()) };
        async move { Ok(Response::from(Body::from_reader(endless, None))) }
    });
    server.options(ServerOptions::default().write_timeout(SOON));
    let _client = Client::to(serve(server), "GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    wait.recv_timeout(WITHIN).unwrap();
}

#[test]
fn the_handler_of_a_client_that_is_gone_is_dropped() {
    let (dropped, wait) = mpsc::channel();
    let mut server = Server::new();
    server.at("/").get(move |_| {
        let guard = OnDrop(dropped.clone());
        async move {
            let _guard = guard;
            std::future::pending::<()>().await;
            Ok("never")
        }
    });
    let addr = serve(server);
    for lines in ["", "Connection: Upgrade\r\nUpgrade: websocket\r\n"] {
        let client = Client::to(addr, format!("GET / HTTP/1.1\r\nHost: x\r\n{lines}\r\n"));
        drop(client);
        wait.recv_timeout(WITHIN).unwrap();
    }
}

struct OnDrop(mpsc::Sender<()>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

/// A body without end.
struct Endless {
    _dropped: OnDrop,
}

impl AsyncRead for Endless {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<std::io::Result<usize>> {
        buf.fill(b'x');
        Poll::Ready(Ok(buf.len()))
    }
}

impl AsyncBufRead for Endless {
    fn poll_fill_buf(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<&[u8]>> {
        Poll::Ready(Ok(b"x"))
    }

    fn consume(self: Pin<&mut Self>, _: usize) {}
}
