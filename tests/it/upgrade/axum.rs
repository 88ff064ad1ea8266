//! Handlers in an application of axum, on real sockets, with clients of this crate.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::{FromRequestParts, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Extension, Router};
use futures::channel::oneshot;
use futures::future::{Shared, pending};
use futures::{FutureExt, StreamExt};
use tidewire::axum::WebSocketUpgrade;
use tidewire::client::Client;
use tidewire::deflate::DeflateOptions;
use tidewire::limits::ConnectionLimit;
use tidewire::upgrade::{Connections, ShutdownOptions, UpgradeOptions};
use tidewire::{CloseCode, Hub, Reject, WebSocket, WebSocketOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// An application at work.
struct Serving {
    addr: SocketAddr,
    connections: Connections,
    stop: oneshot::Sender<()>,
    served: JoinHandle<std::io::Result<()>>,
}

impl Serving {
    async fn new(router: Router) -> Self {
        let connections = Connections::new();
        let router = router.layer(Extension(connections.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let service = router.into_make_service_with_connect_info::<SocketAddr>();
        let serving = axum::serve(listener, service).with_graceful_shutdown(stopped.map(drop));
        Self { addr, connections, stop, served: tokio::spawn(serving.into_future()) }
    }

    fn url(&self, path: &str) -> String {
        format!("ws://{}{path}", self.addr)
    }

    /// The whole answer to a request with these lines, whose connection then ends.
    async fn answer(&self, method: &str, path: &str, lines: &[&str]) -> String {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        let lines = [&["Host: x"], lines].concat().join("\r\n");
        let head = format!("{method} {path} HTTP/1.1\r\n{lines}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn end(self) {
        self.stop.send(()).unwrap();
        self.served.await.unwrap().unwrap();
    }
}

const OPENING: [&str; 4] = [
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
];

async fn echo(upgrade: WebSocketUpgrade) -> Response {
    let options =
        WebSocketOptions::default().subprotocols(["chat.v2"]).deflate(DeflateOptions::default());
    upgrade
        .run(options, |mut ws: WebSocket| async move {
            ws.send(format!("{:?}", ws.peer_addr().map(|addr| addr.ip()))).await?;
            while let Some(message) = ws.recv().await? {
                ws.send(message).await?;
            }
            Ok(())
        })
        .await
}

#[tokio::test]
async fn a_route_of_axum_is_a_connection_of_ours() {
    let serving = Serving::new(Router::new().route("/echo", any(echo))).await;
    let client = Client::new(serving.url("/echo"));
    let options =
        WebSocketOptions::default().subprotocols(["chat.v2"]).deflate(DeflateOptions::default());
    let mut ws = client.options(options).connect().await.unwrap();
    assert_eq!(ws.subprotocol(), Some("chat.v2"));
    assert!(ws.deflate_parameters().is_some());
    assert_eq!(ws.recv().await.unwrap(), Some("Some(127.0.0.1)".into()));
    for len in [0, 1, 125, 126, 70_000] {
        let text = "x".repeat(len);
        ws.send(text.clone()).await.unwrap();
        assert_eq!(ws.recv().await.unwrap(), Some(text.into()));
    }
    assert_eq!(serving.connections.len(), 1);
    ws.close(CloseCode::NORMAL, "").await.unwrap();
    serving.end().await;
}

#[tokio::test]
async fn what_is_no_opening_handshake_is_told_why() {
    let serving = Serving::new(Router::new().route("/echo", any(echo))).await;
    let refused = async |method: &str, lines: &[&str]| {
        let answer = serving.answer(method, "/echo", lines).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().to_owned();
        (status, head.to_lowercase(), body.lines().next().unwrap_or_default().to_owned())
    };
    let (status, _, body) = refused("GET", &["Connection: close"]).await;
    assert_eq!((&*status, &*body), ("400", "the request has no `Upgrade: websocket` header"));
    let (status, _, body) = refused("POST", &OPENING).await;
    assert_eq!((&*status, &*body), ("405", "the method of an opening handshake is GET"));
    let evil: Vec<_> = OPENING.into_iter().chain(["Origin: https://evil.example"]).collect();
    let (status, _, body) = refused("GET", &evil).await;
    assert_eq!((&*status, &*body), ("403", "pages of this origin may not connect"));
    let [upgrade, connection, key, _] = OPENING;
    let old = [upgrade, connection, key, "Sec-WebSocket-Version: 8"];
    let (status, head, _) = refused("GET", &old).await;
    assert_eq!(status, "426");
    assert!(head.contains("sec-websocket-version: 13"), "{head}");
    let counted = serving.connections.metrics().refused;
    let names = ["method_not_get", "origin_forbidden", "upgrade_missing", "version_unsupported"];
    assert_eq!(counted, names.map(|name| (name, 1)).into());
    serving.end().await;
}

#[tokio::test]
async fn a_request_without_a_stream_is_answered_with_500() {
    let mut request = http::Request::get("/").header("Host", "x");
    for (name, value) in OPENING.map(|line| line.split_once(": ").unwrap()) {
        request = request.header(name, value);
    }
    let (mut parts, ()) = request.body(()).unwrap().into_parts();
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await.unwrap();
    let response = upgrade.run(WebSocketOptions::default(), |_| async { Ok(()) }).await;
    assert_eq!(response.status(), 500);
}

#[tokio::test]
async fn a_route_may_have_a_page_as_well() {
    async fn page_or_echo(upgrade: Option<WebSocketUpgrade>) -> Response {
        match upgrade {
            Some(upgrade) => echo(upgrade).await,
            None => "the page".into_response(),
        }
    }
    let serving = Serving::new(Router::new().route("/", any(page_or_echo))).await;
    let answer = serving.answer("GET", "/", &["Connection: close"]).await;
    assert!(answer.ends_with("\r\n\r\nthe page"), "{answer}");
    let mut ws = tidewire::connect(&serving.url("/")).await.unwrap();
    assert_eq!(ws.recv().await.unwrap(), Some("Some(127.0.0.1)".into()));
    ws.close(CloseCode::NORMAL, "").await.unwrap();
    serving.end().await;
}

#[tokio::test]
async fn the_end_of_a_handler_is_told_in_the_close_frame() {
    async fn ends(how: axum::extract::Path<String>, upgrade: WebSocketUpgrade) -> Response {
        upgrade
            .run(WebSocketOptions::default(), |ws: WebSocket| async move {
                match how.as_str() {
                    "returns" => Ok(()),
                    "rejects" => Err(Reject::close(4003, "kicked").into()),
                    "fails" => Err(std::io::Error::other("the database is on fire"))?,
                    _ => panic!("{ws:?} ends in a panic, as the test wants it"),
                }
            })
            .await
    }
    let serving = Serving::new(Router::new().route("/{how}", any(ends))).await;
    for (how, code, reason) in [
        ("returns", 1000, ""),
        ("rejects", 4003, "kicked"),
        ("fails", 1011, ""),
        ("panics", 1011, ""),
    ] {
        let mut ws = tidewire::connect(&serving.url(&format!("/{how}"))).await.unwrap();
        assert_eq!(ws.recv().await.unwrap(), None);
        let info = ws.close_info().unwrap();
        assert_eq!((info.reported_code(), info.reason.as_str()), (code, reason), "{how}");
    }
    serving.end().await;
}

#[tokio::test]
async fn limits_rooms_and_the_shutdown_span_the_connections_of_an_application() {
    #[derive(Clone)]
    struct App {
        hub: Hub,
        limit: ConnectionLimit,
        stays: Shared<oneshot::Receiver<()>>,
    }
    async fn room(State(app): State<App>, upgrade: WebSocketUpgrade) -> Response {
        let options = UpgradeOptions::default().limit(&app.limit);
        upgrade
            .run(options, move |mut ws: WebSocket| async move {
                let room = app.hub.room("tea");
                let _membership = room.join(&ws);
                ws.send("in").await?;
                while let Some(message) = ws.recv().await? {
                    room.broadcast(message);
                }
                // tokio's own are there.
                tokio::time::sleep(Duration::from_millis(1)).await;
                let _ = app.stays.await;
                Ok(())
            })
            .await
    }
    let (go, stays) = oneshot::channel();
    let limit = ConnectionLimit::new(2);
    let app = App { hub: Hub::new(), limit: limit.clone(), stays: stays.shared() };
    let serving = Serving::new(Router::new().route("/", any(room)).with_state(app)).await;
    let mut members = Vec::new();
    for _ in 0..2 {
        let mut ws = tidewire::connect(&serving.url("/")).await.unwrap();
        assert_eq!(ws.recv().await.unwrap(), Some("in".into()));
        members.push(ws);
    }
    let refused: Vec<_> = OPENING.to_vec();
    let answer = serving.answer("GET", "/", &refused).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    members[0].send("tea is ready").await.unwrap();
    for ws in &mut members {
        assert_eq!(ws.recv().await.unwrap(), Some("tea is ready".into()));
    }
    let connections = serving.connections.clone();
    serving.end().await;
    let mut shutdown = Box::pin(connections.shutdown(()));
    assert!((&mut shutdown).now_or_never().is_none());
    for ws in &mut members {
        assert_eq!(ws.recv().await.unwrap(), None);
        assert_eq!(ws.close_info().unwrap().code, Some(CloseCode::GOING_AWAY));
    }
    // It waits for the handlers.
    assert!((&mut shutdown).now_or_never().is_none());
    go.send(()).unwrap();
    let report = shutdown.await;
    assert_eq!((report.closed, report.lost, report.dropped), (2, 0, 0));
    assert_eq!(limit.available(), 2);
}

#[tokio::test]
async fn a_client_that_hangs_up_while_it_waits_in_line_leaves_it() {
    let limit = ConnectionLimit::new(1).wait(Duration::from_secs(60), 10);
    let app = limit.clone();
    let waits = async move |upgrade: WebSocketUpgrade| {
        let options = UpgradeOptions::default().limit(&app);
        upgrade.run(options, |_ws: WebSocket| pending::<tidewire::HandlerResult>()).await
    };
    let serving = Serving::new(Router::new().route("/", any(waits))).await;
    let first = tidewire::connect(&serving.url("/")).await.unwrap();
    let mut second = TcpStream::connect(serving.addr).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n\r\n", OPENING.join("\r\n"));
    second.write_all(head.as_bytes()).await.unwrap();
    until(|| limit.waiting() == 1).await;
    drop(second);
    until(|| limit.waiting() == 0).await;
    drop(first);
    drop(serving);
}

#[tokio::test]
async fn an_upgrade_whose_101_is_not_taken_is_dropped_by_the_shutdown() {
    let limit = ConnectionLimit::new(1);
    let app = limit.clone();
    // The 101 never goes out.
    let keeps = async move |upgrade: WebSocketUpgrade| {
        let options = UpgradeOptions::default().limit(&app);
        let run = upgrade.run(options, |_ws: WebSocket| pending::<tidewire::HandlerResult>());
        let _response = run.await;
        pending::<Response>().await
    };
    let serving = Serving::new(Router::new().route("/", any(keeps))).await;
    let mut client = TcpStream::connect(serving.addr).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n\r\n", OPENING.join("\r\n"));
    client.write_all(head.as_bytes()).await.unwrap();
    until(|| limit.in_use() == 1).await;
    let options = ShutdownOptions::default().grace(Duration::ZERO);
    let report = serving.connections.shutdown(options).await;
    assert_eq!((report.closed, report.lost, report.dropped), (0, 0, 1));
    assert_eq!(limit.in_use(), 0);
}

/// Waits for what another task does, and looks again and again.
async fn until(mut is_so: impl FnMut() -> bool) {
    let looks = futures::stream::iter(0..).then(|_| tokio::task::yield_now());
    let mut looks = std::pin::pin!(looks);
    while !is_so() {
        looks.next().await;
    }
}
