//! A WebSocket connection is a coroutine: HTTP and WebSocket routes in one async server.
//!
//! A route handler is one `async` closure. It looks at the request, calls
//! [`ctx.upgrade_to_websocket(options).await`](RequestContext::upgrade_to_websocket), and goes on
//! in the same lines with a loop over [`recv`](WebSocket::recv) and [`send`](WebSocket::send).
//!
//! ```no_run
//! use tidewire::{RequestContext, Server, WebSocketOptions};
//!
//! #[async_std::main]
//! async fn main() -> tidewire::Result<()> {
//!     let mut server = Server::new();
//!     server.get("/ping", |_ctx: RequestContext| async { Ok("pong") });
//!     server.get("/ws", |mut ctx: RequestContext| async move {
//!         let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
//!         while let Some(message) = ws.recv().await? {
//!             ws.send(message).await?;
//!         }
//!         Ok(())
//!     });
//!     server.listen("127.0.0.1:8080").await
//! }
//! ```
#![forbid(unsafe_code)]

mod error;
mod runtime;
mod stream;

#[cfg(feature = "server")]
mod server;

#[cfg(feature = "server")]
mod http;

#[cfg(feature = "server")]
mod handler;

#[cfg(feature = "server")]
mod context;

mod ws;

#[cfg(feature = "server")]
pub use self::context::RequestContext;
pub use self::error::{Error, Result, Timeout};
#[cfg(feature = "server")]
pub use self::handler::{Handler, IntoResponse, endpoint};
#[cfg(feature = "server")]
pub use self::http::ServerOptions;
#[cfg(feature = "server")]
pub use self::server::{Bound, Server};
pub use self::ws::{
    CloseCode, CloseFrame, CloseInfo, Frame, FrameError, HandshakeError, Initiator, Message,
    OpCode, ProtocolError, Role, Sender, Stats, WebSocket, WebSocketOptions,
};

/// The crate whose `Request`, `Response`, `Body` and `StatusCode` handlers work with.
#[cfg(feature = "server")]
pub use tide;
