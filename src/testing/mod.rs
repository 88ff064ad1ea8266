//! The test kit: tests of handlers without a port, with clients that keep the rules and clients that break
//! them.
//!
//! It needs the feature `testing`, and is for the tests of an application. async-std's feature `attributes`
//! provides `#[async_std::test]`, which runs a test:
//!
//! ```toml
//! [dev-dependencies]
//! async-std = { version = "1.13", features = ["attributes"] }
//! tidewire = { version = "0.1", features = ["testing"] }
//! ```
//!
//! # Testing a handler
//!
//! A function of the application makes its [`Server`](crate::Server), and a [`TestClient`] runs it in memory.
//! Requests and connections go through the same code as on a port: hyper, routes, middleware, limits, the
//! upgrade, the connection's own task. Only the sockets are missing, and TLS, even if the server is configured for
//! it: [`is_secure`](crate::RequestContext::is_secure) is false.
//!
//! ```
//! use tidewire::testing::TestClient;
//! use tidewire::{RequestContext, Server, WebSocketOptions};
//!
//! fn app() -> Server {
//!     let mut server = Server::new();
//!     server.get("/ping", |_ctx: RequestContext| async { Ok("pong") });
//!     server.get("/ws", |mut ctx: RequestContext| async move {
//!         let options = WebSocketOptions::default().subprotocols(["chat.v2"]);
//!         let mut ws = ctx.upgrade_to_websocket(options).await?;
//!         while let Some(message) = ws.recv().await? {
//!             ws.send(message).await?;
//!         }
//!         Ok(())
//!     });
//!     server
//! }
//!
//! # #[async_std::main]
//! # async fn main() -> tidewire::Result<()> {
//! #     the_socket_echoes().await
//! # }
//! # /*
//! #[async_std::test]
//! # */
//! async fn the_socket_echoes() -> tidewire::Result<()> {
//!     let client = TestClient::new(&app());
//!
//!     let response = client.get("/ping").send().await?;
//!     response.assert_status(200).assert_text("pong");
//!
//!     let mut ws = client.connect("/ws").await?;
//!     ws.send("Hello").await?;
//!     ws.expect_text("Hello").await;
//!     let end = ws.close(1000, "").await?;
//!     assert!(end.clean);
//!
//!     let ws = client.websocket("/ws").subprotocols(["chat.v1", "chat.v2"]).connect().await?;
//!     assert_eq!(ws.subprotocol(), Some("chat.v2"));
//!     Ok(())
//! }
//! ```
//!
//! The server of a client has one [worker](crate::server::ServerOptions::workers), or runs on the executor of
//! `set_spawner` if there is one. Any executor can poll the client: `#[async_std::test]`, `#[tokio::test]`,
//! `smol::block_on`, `futures::executor::block_on`. The examples below leave out the function around their lines.
//!
//! With the feature `tokio`, tests of handlers that use tokio are a `#[tokio::test]` each. Handlers then use the runtime
//! in which their [`TestClient`] was made. It ends with its test, so make a client in each test:
//!
//! ```text
//! #[tokio::test]
//! async fn the_socket_echoes() -> tidewire::Result<()> {
//!     let client = TestClient::new(&app());
//!     // …
//! }
//! ```
//!
//! An executor of `set_spawner` has to live as long as the tests. A process has one spawner. If its executor is the
//! runtime of one `#[tokio::test]`, then in all later tests requests and handshakes fail at once, with an error that
//! says so.
//!
//! # Testing messages, time and failures
//!
//! [`TestClient::connect`] opens a [`TestSocket`]: a [`WebSocket`](crate::WebSocket) whose waits end. It checks what comes
//! ([`expect_text`](TestSocket::expect_text), [`expect_json`](TestSocket::expect_json),
//! [`expect_close`](TestSocket::expect_close)) and that nothing does ([`expect_silence`](TestSocket::expect_silence)).
//! [`TestClient::advance`] turns the time of the server, so that heartbeats, expiry and idle timeouts need no waiting.
//! A client keeps [cookies](TestClient::cookies). And a handler that has panicked or failed
//! [fails the test](TestClient#handlers-that-fail), unless the test asks for it.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use serde_json::json;
//! use tidewire::testing::TestClient;
//! use tidewire::{Reject, RequestContext, Server, WebSocketOptions};
//!
//! const HOUR: Duration = Duration::from_secs(3600);
//!
//! fn app() -> Server {
//!     let mut server = Server::new();
//!     server.get("/login", |mut ctx: RequestContext| async move {
//!         ctx.response().insert_header("Set-Cookie", "name=ann; Path=/; Secure; HttpOnly");
//!         Ok("welcome")
//!     });
//!     server.get("/bids", |mut ctx: RequestContext| async move {
//!         let name = ctx.cookie("name").ok_or(Reject::status(401, "log in first"))?.to_owned();
//!         let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
//!         ws.expire_at(Instant::now() + 8 * HOUR, 4001, "log in again")?;
//!         while let Some(message) = ws.recv().await? {
//!             let bid: u32 = message.parse()?;
//!             assert_ne!(bid, 13, "an unlucky bid");
//!             if bid >= 10 {
//!                 ws.send_json(&json!({ "bid": bid, "by": name })).await?;
//!             }
//!         }
//!         Ok(())
//!     });
//!     server
//! }
//!
//! # async_std::task::block_on(async {
//! let client = TestClient::new(&app());
//! client.websocket("/bids").refused().await.assert_status(401);
//! client.get("/login").send().await?.assert_status(200);
//!
//! let mut ws = client.connect("/bids").await?;
//! ws.send("12").await?;
//! ws.expect_json(json!({ "bid": 12, "by": "ann" })).await;
//! ws.send("9").await?;
//! ws.expect_silence().await;
//!
//! client.advance(8 * HOUR).await;
//! assert_eq!(ws.expect_close(4001).await.reason, "log in again");
//!
//! let mut ws = client.connect("/bids").await?;
//! ws.send("many").await?;
//! // The client's fault is no failure of the handler, and its panic is one.
//! ws.expect_close(1007).await;
//! let mut ws = client.connect("/bids").await?;
//! ws.send("13").await?;
//! ws.expect_close(1011).await;
//! assert!(client.expect_failure("an unlucky bid").await.is_panic());
//! # Ok::<(), tidewire::Error>(())
//! # }).unwrap();
//! ```
//!
//! # Testing a refusal
//!
//! [`TestUpgrade::refused`] returns the answer of a server that does not upgrade. Connections come from 127.0.0.1,
//! unless [`TestClient::peer_addr`] sets another address. Limits for each address count that address.
//!
//! ```
//! use std::net::SocketAddr;
//! use tidewire::testing::TestClient;
//! # use tidewire::limits::ConnectionLimit;
//! # use tidewire::{RequestContext, Server, WebSocketOptions};
//! # fn app() -> Server {
//! #     let mut server = Server::new();
//! #     server.connection_limit(&ConnectionLimit::per_address(1));
//! #     server.get("/ws", |mut ctx: RequestContext| async move {
//! #         let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
//! #         while let Some(message) = ws.recv().await? {
//! #             ws.send(message).await?;
//! #         }
//! #         Ok(())
//! #     });
//! #     server
//! # }
//!
//! # async_std::task::block_on(async {
//! // It lets each address have one connection.
//! let client = TestClient::new(&app());
//!
//! let refusal = client.websocket("/ws").origin("https://evil.example").refused().await;
//! refusal.assert_status(403).assert_contains("pages of this origin may not connect");
//!
//! let inside = client.connect("/ws").await?;
//! client.websocket("/ws").refused().await.assert_status(503);
//! let elsewhere = client.peer_addr(SocketAddr::from(([192, 0, 2, 7], 0)));
//! elsewhere.connect("/ws").await?;
//!
//! drop(inside);
//! client.idle().await;
//! client.connect("/ws").await?;
//! # Ok::<(), tidewire::Error>(())
//! # }).unwrap();
//! ```
//!
//! # Testing with an ill-behaved client
//!
//! A [`Peer`] sends exactly the bytes that the test tells it to: a [`RawFrame`] with any part invalid, or bytes in
//! pieces of any size. [`Peer::expect_close`] and [`Peer::end_of_stream`] check the reaction of the server.
//!
//! ```
//! use tidewire::testing::{RawFrame, TestClient};
//! # use tidewire::{RequestContext, Server, WebSocketOptions};
//! # fn app() -> Server {
//! #     let mut server = Server::new();
//! #     server.get("/ws", |mut ctx: RequestContext| async move {
//! #         let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
//! #         while let Some(message) = ws.recv().await? {
//! #             ws.send(message).await?;
//! #         }
//! #         Ok(())
//! #     });
//! #     server
//! # }
//!
//! # async_std::task::block_on(async {
//! let client = TestClient::new(&app());
//!
//! let mut peer = client.peer("/ws").await?;
//! peer.send_frame(RawFrame::text("Hel").without_fin()).await?;
//! peer.send_frame(RawFrame::continuation("lo")).await?;
//! peer.expect_text("Hello").await;
//! peer.send_frame(RawFrame::text("Hello").unmasked()).await?;
//! peer.expect_close(1002).await;
//! peer.end_of_stream().await;
//!
//! // §5.7 in hex: a masked "Hello", and its echo.
//! let mut peer = client.peer("/ws").await?;
//! peer.send_hex("81 85 37fa213d 7f9f4d5158").await?;
//! peer.expect_hex("81 05 48656c6c6f").await;
//! # Ok::<(), tidewire::Error>(())
//! # }).unwrap();
//! ```
//!
//! # Testing faults of the network
//!
//! A [`Line`] lies between client and server. It can move bytes in chunks of any size, so that a message can be
//! split at every byte. It can stall, like a client that does not read. And it can be cut, or end.
//!
//! ```
//! use std::time::Duration;
//! use tidewire::testing::{Line, TestClient};
//! use tidewire::{RequestContext, Server, WebSocketOptions};
//!
//! # async_std::task::block_on(async {
//! let mut server = Server::new();
//! server.get("/clock", |mut ctx: RequestContext| async move {
//!     let options = WebSocketOptions::default().send_timeout(Duration::from_millis(50));
//!     let mut ws = ctx.upgrade_to_websocket(options).await?;
//!     while ws.is_open() {
//!         ws.send("tick").await?;
//!     }
//!     Ok(())
//! });
//! let client = TestClient::new(&server);
//!
//! let line = Line::new();
//! let peer = client.over(&line).peer("/clock").await?;
//! line.stall();
//! // The handler fails, since the client does not read, although it is still there.
//! client.idle().await;
//! assert_eq!(client.metrics().closes[&1006], 1);
//! # drop(peer);
//! # Ok::<(), tidewire::Error>(())
//! # }).unwrap();
//! ```
//!
//! # Waiting
//!
//! No test needs to sleep. Each call of a client waits for its own result. [`TestClient::idle`] waits until the
//! server is idle, and [`TestClient::advance`] until it is at rest. For events in between, the application can use a
//! channel. If an event does not come within the [patience](TestClient::patience) of the client, a [`TestSocket`] fails the
//! test, and any other wait ends with an error that names it.
//!
//! # Checking for leftovers
//!
//! [`TestClient::metrics`] returns the same counters as `ServerHandle::metrics`. The report of
//! [`TestClient::shutdown`] shows whether all connections ended in order, and whether a handler had to be dropped.
//!
//! ```
//! use tidewire::testing::TestClient;
//! # use tidewire::{RequestContext, Server, WebSocketOptions};
//! # let mut server = Server::new();
//! # server.get("/ws", |mut ctx: RequestContext| async move {
//! #     let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
//! #     while let Some(message) = ws.recv().await? {
//! #         ws.send(message).await?;
//! #     }
//! #     Ok(())
//! # });
//!
//! # async_std::task::block_on(async {
//! let client = TestClient::new(&server);
//! let mut ws = client.connect("/ws").await?;
//!
//! let (report, end) = futures::join!(client.shutdown(), ws.recv());
//! assert_eq!(end?, None);
//! assert_eq!((report.closed, report.lost, report.dropped), (1, 0, 0));
//! # Ok::<(), tidewire::Error>(())
//! # }).unwrap();
//! ```

mod client;
mod cookies;
mod frame;
mod hex;
mod in_memory;
mod line;
mod patience;
mod peer;
mod pipe;
mod request;
mod response;
mod socket;
mod upgrade;

pub use self::client::TestClient;
pub use self::frame::RawFrame;
pub use self::line::Line;
pub use self::peer::Peer;
pub use self::request::TestRequest;
pub use self::response::TestResponse;
pub use self::socket::TestSocket;
pub use self::upgrade::TestUpgrade;
pub use crate::instance::HandlerFailure;
pub use crate::runtime::ManualClock;
