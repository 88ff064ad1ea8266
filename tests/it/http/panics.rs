//! Panics of an application, wherever they come from: each ends its own connection at most, with a 500
//! where there is still one to be sent.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::{fmt, io};

use async_std::task::block_on;
use futures::StreamExt;
use futures::channel::mpsc;
use futures::io::{AsyncBufRead, AsyncRead};
use tide::http::Body;
use tide::{Request, Response};
use tidewire::server::{ServerHandle, ShutdownOptions};
use tidewire::{RequestContext, Server};

use super::{Client, PONG, pong};

/// Panics when it is dropped.
#[derive(Debug)]
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        // One panic is enough; a second one while the first unwinds ends the process, by the language.
        assert!(std::thread::panicking(), "in a destructor");
    }
}

impl fmt::Display for Bomb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bomb")
    }
}

impl std::error::Error for Bomb {}

/// A body that panics when it is read, or when it is dropped.
struct Trap {
    bomb: Option<Bomb>,
    is_read: bool,
}

impl AsyncRead for Trap {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        assert!(self.bomb.is_some(), "in a reader");
        let len = if std::mem::replace(&mut self.is_read, true) { 0 } else { 4 };
        buf[..len].copy_from_slice(&b"pong"[..len]);
        Poll::Ready(Ok(len))
    }
}

impl AsyncBufRead for Trap {
    fn poll_fill_buf(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        Poll::Ready(Ok(b""))
    }

    fn consume(self: Pin<&mut Self>, _: usize) {}
}

fn body(bomb: Option<Bomb>) -> Body {
    Body::from_reader(Trap { bomb, is_read: false }, Some(4))
}

fn start(server: Server) -> (ServerHandle, SocketAddr) {
    let handle = block_on(server.start("127.0.0.1:0")).unwrap();
    let addr = handle.local_addr();
    (handle, addr)
}

/// The server answers, ends in order, and nothing is left of any connection.
fn is_sound(handle: &ServerHandle) {
    let mut client =
        Client::to(handle.local_addr(), "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(client.response().ends_with("pong"));
    let report = block_on(handle.shutdown(ShutdownOptions::default()));
    assert_eq!(report.dropped, 0, "{report:?}");
    assert_eq!(handle.metrics().open_http, 0);
}

#[test]
fn a_panic_before_the_answer_is_a_500_also_with_panics_of_dropped_values() {
    let mut server = pong();
    server
        .at("/payload")
        .get(|_| async { if true { std::panic::panic_any(Bomb) } else { Ok("") } });
    server.at("/error").get(|_| async { Err::<Body, _>(tide::Error::new(409, Bomb)) });
    server.get("/ours", |_: RequestContext| async { Err::<(), _>(Bomb.into()) });
    server.at("/local").get(|_| async {
        let _local = Bomb;
        Ok("")
    });
    server.at("/none").get(|_| async { Ok(Response::builder(204).body(body(Some(Bomb))).build()) });
    let (handle, addr) = start(server);
    let mut client = Client::connect(addr);
    for path in ["/payload", "/error", "/ours", "/local", "/none"] {
        client = client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let response = client.response();
        assert!(response.starts_with("HTTP/1.1 500 "), "{path}: {response}");
        client = client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(client.response(), PONG, "after {path}");
    }
    drop(client);
    is_sound(&handle);
}

#[test]
fn a_reader_that_panics_cuts_its_response_off() {
    let mut server = pong();
    server.at("/read").get(|_| async { Ok(Response::builder(200).body(body(None)).build()) });
    let (handle, addr) = start(server);
    let mut client = Client::to(addr, "GET /read HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 200 "));
    assert_eq!(client.rest(), "");
    is_sound(&handle);
}

#[test]
fn a_body_that_panics_when_it_is_dropped_has_been_sent() {
    let mut server = pong();
    server.at("/drop").get(|_| async { Ok(Response::builder(200).body(body(Some(Bomb))).build()) });
    let (handle, addr) = start(server);
    let mut client = Client::to(addr, "GET /drop HTTP/1.1\r\nHost: x\r\n\r\n");
    for _ in 0..2 {
        assert!(client.response().ends_with("\r\n\r\npong"));
        client = client.send("GET /drop HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    drop(client);
    is_sound(&handle);
}

/// A server whose handler waits for ever, with something that panics when it is dropped.
fn waiting() -> (Server, mpsc::UnboundedReceiver<()>) {
    let (tell, told) = mpsc::unbounded();
    let mut server = pong();
    server.at("/wait").get(move |_: Request<()>| {
        let tell = tell.clone();
        async move {
            let _bomb = Bomb;
            tell.unbounded_send(())?;
            std::future::pending::<()>().await;
            Ok("")
        }
    });
    (server, told)
}

#[test]
fn a_destructor_that_panics_when_the_client_has_left_harms_no_other_client() {
    let (server, mut told) = waiting();
    let (handle, addr) = start(server);
    for _ in 0..3 {
        let client = Client::to(addr, "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n");
        block_on(told.next()).unwrap();
        drop(client);
    }
    is_sound(&handle);
}

#[test]
fn a_destructor_that_panics_in_a_shutdown_does_not_end_the_process() {
    let (server, mut told) = waiting();
    let (handle, addr) = start(server);
    let clients: Vec<_> =
        (0..3).map(|_| Client::to(addr, "GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")).collect();
    for _ in &clients {
        block_on(told.next()).unwrap();
    }
    let report =
        block_on(handle.shutdown(ShutdownOptions::default().grace(std::time::Duration::ZERO)));
    assert_eq!(report.dropped, 3, "{report:?}");
    assert_eq!(handle.metrics().open_http, 0);
}
