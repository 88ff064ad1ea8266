//! Tests of upgrades, of the values that a request carries for them, and of slow sockets.

use std::io::{self, Read, Write};
use std::net::{Ipv6Addr, SocketAddrV6, TcpStream};
use std::pin::Pin;
use std::task::Context;

use futures::StreamExt;
use futures::channel::mpsc;
use futures::io::{AsyncBufRead, AsyncRead, AsyncReadExt, AsyncWrite};

use super::*;
use crate::admission::{ClientAddr, LimitKey, admit};
use crate::context::{BodyLimits, RawHeaders};
use crate::limits::ConnectionLimit;
use crate::runtime::{Clock, block_on, spawn};
use crate::server::endpoint;
use crate::upgrade::Origin;
use crate::upgrade::UpgradeOptions;
use crate::{RequestContext, Server};

const WITHIN: Duration = Duration::from_secs(5);
const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n";

/// Connects to a server with one endpoint, and sends `request`.
fn client(app: tide::Server<()>, request: impl AsRef<[u8]>) -> TcpStream {
    let mut server = Server::new();
    server.at("/").all(app);
    let bound = within(server.bind("127.0.0.1:0")).unwrap();
    let mut client = TcpStream::connect(bound.local_addr()).unwrap();
    spawn(async { bound.serve().await.unwrap() });
    client.set_read_timeout(Some(WITHIN)).unwrap();
    client.write_all(request.as_ref()).unwrap();
    client
}

/// An app that answers 101 with headers that must not all go out. It sends the outcome to the receiver.
fn switching() -> (tide::Server<()>, mpsc::UnboundedReceiver<Option<Upgraded>>) {
    let (sender, receiver) = mpsc::unbounded();
    let mut app = tide::new();
    app.at("/").get(move |mut request: tide::Request<()>| {
        let sender = sender.clone();
        async move {
            let request: &mut tide::http::Request = request.as_mut();
            let Some(OnUpgrade { stream, .. }) = request.ext_mut().remove() else {
                return Ok(tide::Response::new(426));
            };
            spawn(async move { sender.unbounded_send(stream.await.ok()).unwrap() });
            let response = tide::Response::builder(101).body("no body in a 101");
            let response = response.header("connection", "upgrade").header("upgrade", "test");
            let response = response.header("content-length", "16").header("x-extra", "kept");
            Ok(response.header("transfer-encoding", "chunked").build())
        }
    });
    (app, receiver)
}

fn within<T>(future: impl Future<Output = T>) -> T {
    let outcome = block_on(Clock::default().timeout(Some(WITHIN), future));
    outcome.unwrap_or_else(|| panic!("nothing happened within {WITHIN:?}"))
}

fn next<T>(receiver: &mut mpsc::UnboundedReceiver<T>) -> T {
    within(receiver.next()).unwrap()
}

fn read(client: &mut TcpStream, len: usize) -> String {
    let mut bytes = vec![0; len];
    client.read_exact(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn read_head(client: &mut TcpStream) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head += &read(client, 1);
    }
    head
}

#[test]
fn a_101_has_no_framing_and_the_bytes_after_it_are_the_new_protocol() {
    let (app, mut upgrades) = switching();
    let mut client = client(app, format!("{UPGRADE}glued"));

    let head = read_head(&mut client);
    let mut lines: Vec<_> = head.lines().filter(|line| !line.starts_with("date: ")).collect();
    lines.sort_unstable();
    let kept = ["", "HTTP/1.1 101 Switching Protocols", "connection: upgrade", "upgrade: test"];
    assert_eq!(lines, [&kept[..], &["x-extra: kept"]].concat());

    let Upgraded { mut stream, read_ahead } = next(&mut upgrades).unwrap();
    assert_eq!(read_ahead, "glued");
    within(stream.write_all(b"raw bytes")).unwrap();
    assert_eq!(read(&mut client, 9), "raw bytes");
    client.write_all(b"and back").unwrap();
    let mut back = [0; 8];
    within(stream.read_exact(&mut back)).unwrap();
    assert_eq!(&back, b"and back");
}

#[test]
fn an_upgrade_behind_a_pipelined_request_finds_the_rest_of_the_segment() {
    let (app, mut upgrades) = switching();
    let first = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab";
    let mut client = client(app, format!("{first}{UPGRADE}{}", "z".repeat(20_000)));
    assert!(read_head(&mut client).starts_with("HTTP/1.1 405 "));
    assert!(read_head(&mut client).starts_with("HTTP/1.1 101 "));

    let Upgraded { mut stream, read_ahead } = next(&mut upgrades).unwrap();
    let mut rest = vec![0; 20_000 - read_ahead.len()];
    within(stream.read_exact(&mut rest)).unwrap();
    assert!(read_ahead.iter().chain(&rest).all(|byte| *byte == b'z'));
}

#[test]
fn no_upgrade_is_offered_with_a_body_or_before_http_1_1_or_unasked() {
    let requests = [
        UPGRADE.replace("\r\n\r\n", "\r\nContent-Length: 2\r\n\r\nab"),
        UPGRADE.replace("HTTP/1.1", "HTTP/1.0"),
        UPGRADE.replace("Upgrade: test\r\n", ""),
    ];
    for request in requests {
        let mut client = client(switching().0, &request);
        assert_eq!(read_head(&mut client)[9..12], *"426", "{request}");
    }
}

#[test]
fn a_client_that_is_gone_before_the_101_ends_the_wait_for_the_stream() {
    let (go, gone) = oneshot::channel::<()>();
    let gone = std::sync::Mutex::new(Some(gone));
    let (sender, mut waits) = mpsc::unbounded();
    let mut app = tide::new();
    app.at("/").get(move |mut request: tide::Request<()>| {
        let gone = gone.lock().unwrap().take().unwrap();
        let request: &mut tide::http::Request = request.as_mut();
        let OnUpgrade { stream, .. } = request.ext_mut().remove().unwrap();
        let sender = sender.clone();
        spawn(async move { sender.unbounded_send(stream.await.is_err()).unwrap() });
        async move {
            gone.await.ok();
            Ok(tide::Response::new(101))
        }
    });
    drop(client(app, UPGRADE));
    assert!(next(&mut waits));
    drop(go);
}

#[test]
fn an_upgrade_that_is_not_taken_leaves_an_http_connection() {
    let mut app = tide::new();
    app.at("/").get(|_| async { Ok("http") });
    let mut client = client(app, UPGRADE);
    for _ in 0..2 {
        assert!(read_head(&mut client).starts_with("HTTP/1.1 200 OK\r\n"));
        assert_eq!(read(&mut client, 4), "http");
        client.write_all(UPGRADE.as_bytes()).unwrap();
    }
}

#[test]
fn a_last_answer_is_written_to_its_end_into_a_socket_that_takes_a_byte_at_a_time() {
    let close = UPGRADE.replace("Upgrade\r\n", "Upgrade, close\r\n");
    let cases = [
        (UPGRADE, "HTTP/1.1 101 Switching Protocols\r\n", "\r\n\r\n"),
        (&close.replace("GET", "POST"), "HTTP/1.1 200 OK\r\n", "the last byte is this one."),
        ("GET  /", "HTTP/1.1 400 Bad Request\r\n", "\r\n\r\n"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/1.1 505 ", "HTTP/1.1 only\n"),
    ];
    for (request, begin, end) in cases {
        let mut app = switching().0;
        app.at("/").post(|_| async { Ok("the last byte is this one.") });
        let written = Arc::default();
        let narrow = Narrow {
            input: request.as_bytes().to_vec(),
            written: Arc::clone(&written),
            ..Narrow::default()
        };
        let addr = SocketAddr::from(([127, 0, 0, 1], 80));
        let front = Arc::new(HttpServer::new(app.into(), ServerOptions::default(), Arc::default()));
        within(front.serve(Stream::boxed(narrow), Addrs { peer: Some(addr), local: Some(addr) }));

        let written = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        assert!(written.starts_with(begin) && written.ends_with(end), "{request:?}: {written}");
    }
}

#[test]
fn a_client_that_names_no_host_may_have_connected_to_a_link_local_address() {
    let mut app = tide::new();
    app.at("/").get(|request: tide::Request<()>| async move { Ok(request.url().to_string()) });
    let (input, written) = (b"GET / HTTP/1.0\r\n\r\n".to_vec(), Arc::default());
    let narrow = Narrow { input, written: Arc::clone(&written), ..Narrow::default() };
    let front = Arc::new(HttpServer::new(app.into(), ServerOptions::default(), Arc::default()));
    let local = SocketAddrV6::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), 81, 0, 3);
    within(front.serve(Stream::boxed(narrow), Addrs { peer: None, local: Some(local.into()) }));
    let written = String::from_utf8(written.lock().unwrap().clone()).unwrap();
    assert!(written.ends_with("\r\n\r\nhttp://[fe80::1]:81/"), "{written}");
}

#[test]
fn an_error_that_panics_when_it_is_dropped_does_not_reach_the_executor() {
    let mut app = tide::new();
    app.at("/").get(|_| async { Ok(tide::Body::from_reader(Failing, Some(4))) });
    let written = Arc::default();
    let input = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
    let narrow = Narrow { input, written: Arc::clone(&written), ..Narrow::default() };
    let front = Arc::new(HttpServer::new(app.into(), ServerOptions::default(), Arc::default()));
    within(front.serve(Stream::boxed(narrow), Addrs { peer: None, local: None }));
    assert!(written.lock().unwrap().starts_with(b"H"), "a response had begun");
}

/// A body that cannot be read. Its error panics when it is dropped.
struct Failing;

impl AsyncRead for Failing {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(io::Error::other(Bomb)))
    }
}

impl AsyncBufRead for Failing {
    fn poll_fill_buf(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        Poll::Ready(Err(io::Error::other(Bomb)))
    }

    fn consume(self: Pin<&mut Self>, _: usize) {}
}

#[derive(Debug)]
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "in a destructor");
    }
}

impl fmt::Display for Bomb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bomb")
    }
}

impl std::error::Error for Bomb {}

#[test]
fn a_connection_that_is_dropped_while_its_handler_waits_for_a_permit_leaves_the_queue() {
    let limit = ConnectionLimit::new(1).wait(Duration::from_secs(60), 1);
    let clock = Clock::default();
    let held = admit(vec![&limit], ClientAddr::Unknown, &LimitKey::Missing, &clock);
    let held = held.now_or_never().unwrap().unwrap();
    let options = UpgradeOptions::default().limit(&limit);
    let mut app = tide::new();
    app.at("/").get(endpoint(move |mut ctx: RequestContext| {
        let options = options.clone();
        async move {
            ctx.upgrade_to_websocket(options).await?;
            Ok(())
        }
    }));
    let request = "GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let front = Arc::new(HttpServer::new(app.into(), ServerOptions::default(), Arc::default()));
    let narrow = Narrow { input: request.into(), ..Narrow::default() };
    let addr = SocketAddr::from(([127, 0, 0, 1], 80));
    let addrs = Addrs { peer: Some(addr), local: Some(addr) };
    let mut serving = Box::pin(front.serve(Stream::boxed(narrow), addrs));
    assert!((&mut serving).now_or_never().is_none());
    assert_eq!(limit.waiting(), 1);
    drop(serving);
    assert_eq!(limit.waiting(), 0);
    drop(held);
    assert_eq!(limit.available(), 1);
}

#[test]
fn a_header_value_that_is_not_ascii_is_kept_aside_unaltered() {
    let (sender, mut seen) = mpsc::unbounded();
    let mut app = tide::new();
    app.at("/").get(move |request: tide::Request<()>| {
        let raw = request.ext::<RawHeaders>().cloned();
        let max = request.ext::<BodyLimits>().map(BodyLimits::max_size);
        let name = request.header("x-name").map(ToString::to_string);
        sender
            .unbounded_send((
                raw,
                name,
                max,
                request.ext::<Arc<Origin>>().map(|origin| origin.peer),
            ))
            .unwrap();
        async { Ok("") }
    });
    let request = b"GET / HTTP/1.1\r\nHost: x\r\nX-Name: Jos\xc3\xa9\r\nX-Name: Jose\r\n\
                    X-Latin: \xe9\xff\r\n\r\n";
    let mut client = client(app, request);
    assert!(read_head(&mut client).starts_with("HTTP/1.1 200 OK\r\n"));

    let (raw, name, max, peer) = next(&mut seen);
    let raw = raw.unwrap();
    let values = |name| raw.values(name).collect::<Vec<_>>();
    assert_eq!(values("X-NAME"), ["José".as_bytes()]);
    assert_eq!(values("x-latin"), [&b"\xe9\xff"[..]]);
    assert!(values("host").is_empty());
    assert_eq!(name.as_deref(), Some("[\"Jose\"]"));
    assert_eq!(max, Some(1 << 20));
    assert_eq!(peer.flatten(), client.local_addr().ok());
}

/// A socket with one request. It takes a byte now and then, and ends when we end it.
#[derive(Default)]
struct Narrow {
    input: Vec<u8>,
    written: Arc<std::sync::Mutex<Vec<u8>>>,
    ready: bool,
    closed: bool,
}

impl AsyncRead for Narrow {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let len = self.input.len();
        buf[..len].copy_from_slice(&std::mem::take(&mut self.input));
        if len > 0 || self.closed { Poll::Ready(Ok(len)) } else { Poll::Pending }
    }
}

impl AsyncWrite for Narrow {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.ready = !self.ready;
        if !self.ready {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.written.lock().unwrap().extend(buf.first());
        Poll::Ready(Ok(1))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.closed = true;
        Poll::Ready(Ok(()))
    }
}

#[test]
fn an_access_log_is_no_middleware_and_leaves_requests_on_the_short_way() {
    let mut app = App::with_state(());
    app.log_access();
    assert!(app.handlers().is_some());
    app.with(tide::utils::Before(|request| async { request }));
    assert!(app.handlers().is_none());
}
