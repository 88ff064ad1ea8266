//! A WebSocket connection is a coroutine: HTTP and WebSocket routes in one async server, and a client.
//!
//! A route handler is one `async` closure. It looks at the request, calls
//! `ctx.upgrade_to_websocket(options).await`, and goes on in the same lines with a loop over
//! [`recv`](WebSocket::recv) and [`send`](WebSocket::send). The state of a connection is the local
//! variables of its handler.
//!

#![cfg_attr(feature = "server", doc = "```no_run")]
#![cfg_attr(not(feature = "server"), doc = "```ignore")]
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
//!     server.listen_until("127.0.0.1:8080", tidewire::signals()).await
//! }
//! ```
//!
//! ```toml
//! [dependencies]
//! async-std = { version = "1.13", features = ["attributes"] }
//! tidewire = "0.1"
//! ```
//!
//! **With tokio** it is the same program under `#[tokio::main]`, and its handlers may use tokio, reqwest, sqlx:
//!
//! ```toml
//! [dependencies]
//! tidewire = { version = "0.1", features = ["tokio"] }
//! tokio = { version = "1", features = ["full"] }
//! ```
//!
//! **In axum** a handler takes the extractor [`axum::WebSocketUpgrade`](crate::axum::WebSocketUpgrade). On another executor, use
//! [`set_spawner`](executor::set_spawner) and that executor's `main`.
//!
//! # Where to look
//!
//! What most programs name is here; the rest is in modules.
//!
//! | for | see |
//! | --- | --- |
//! | a server | [`Server`], and the module [`server`](mod@server): handlers, sockets, options, metrics, shutdown |
//! | a request, before and at the upgrade | [`RequestContext`] |
//! | a connection, on either side | [`WebSocket`], [`Sender`], [`Message`], [`CloseInfo`], and the module [`websocket`] |
//! | options and limits of a connection | [`WebSocketOptions`], and the modules [`deflate`] and [`limits`] |
//! | many connections | [`Hub`], [`Room`], and the module [`rooms`](mod@rooms) |
//! | a client | [`connect`], [`Client`], and the module [`client`](mod@client) |
//! | TLS | the module [`tls`](mod@tls) |
//! | an opening handshake without the server, or its options | the module [`upgrade`](mod@upgrade), [`WebSocket::from_stream`], [`WebSocket::run`] |
//! | single frames | [`WebSocket::recv_frame`], and the module [`frame`] |
//! | errors | [`Error`], [`HandshakeError`]; of handlers: [`HandlerError`], and [`Reject`] for what the client is told |
//! | HTTP responses of handlers | [`server::IntoResponse`], [`server::Json`], and the module [`tide`]: `Response`, `Body`, `StatusCode` |
//! | tokio, and libraries on it | [`server::ServerOptions::tokio`] |
//! | another executor than async-std's | the module [`executor`](mod@executor) |
//!
//! Chapters: [a tutorial, from an empty folder to a server behind nginx](guide::building); [code that blocks](guide::blocking); [all options, and their price](guide::options); [cancel safety](guide::cancel_safety);
//! [security, threat by threat](guide::security); [the log](guide::logs); [proxies](guide::proxies);
//! [clients with special needs](guide::clients); [migrating from other crates](guide::migrating).
//!
//! # A connection
//!
//! **Writing.** Messages that a handler sends are queued. As soon as the handler waits, for any reason, they
//! go out in one write, without a call of `flush`. If more than 64 KiB are queued, `send` waits for the peer.
//!
//! **Reading.** While the handler is busy elsewhere, the connection reads ahead into a bounded buffer. So it
//! answers pings, and notices a close.
//!
//! **Ending.** [`recv`](WebSocket::recv) returns `Ok(None)` after a closing handshake, and an [`Error`]
//! after any other end. When a handler returns, its connection is closed: with 1000 after `Ok`; after `Err`
//! as its [`Reject`] says, with 1007 if a message was not the expected JSON, and else, as after a panic, with 1011.
//! [`CloseInfo`] tells which side closed, and how.
//!
//! **Cancelling.** Any future of [`WebSocket`] or [`Sender`] may be dropped at any time without the loss of a
//! byte or a message. So `select!` and timeouts around them are normal use.
//!
//! **Compressing.** [`WebSocketOptions::deflate`] allows permessage-deflate (RFC 7692) on a route, for clients
//! that offer it. By default each message is compressed on its own, so that an idle connection takes less
//! than 1 KiB more than without compression. Do not compress a secret together with text that another party
//! chooses: see [`Message::uncompressed`].
//!
//! **Watching.** A server pings its clients from the connection's own task, and fails a connection whose
//! peer shows no sign of life: [`HeartbeatOptions`](websocket::HeartbeatOptions). [`idle_timeout`](WebSocketOptions::idle_timeout),
//! [`max_lifetime`](WebSocketOptions::max_lifetime) and [`WebSocket::expire_at`] close connections in
//! order. A connection has one timer for all of that, and does not touch it for each message.
//!
//! # Rooms
//!
//! A [`Hub`] holds rooms by name. A connection is a member of a room while its handler holds the [`Membership`](rooms::Membership)
//! that [`Room::join`] returns. [`Room::broadcast`] sends to all members, and waits for none. A member that does
//! not keep up does not delay the others, and takes no more memory than [`RoomOptions`](rooms::RoomOptions) allow.
//!
//! A room may have a state, such as a board or a history: `Hub::with_rooms` makes it on demand, and it goes with the room.
//! `Room::update` changes it and broadcasts the change in one order, and `Room::join_then` sends a newcomer the first
//! messages without a gap or a double.
//!
//! # A server
//!
//! A small program needs only [`Server::listen_until`], which ends the server in order when a future resolves, such as
//! that of [`tidewire::signals`](signals): it accepts no more connections, completes the responses under way, sends a close
//! frame on every connection, and leaves no task behind. [`ServerHandle::shutdown`](server::ServerHandle::shutdown) does the same from another task.
//! [`Server::bind`] returns the port before it serves, [`Server::start`] serves in the background, and [`Server::bind_to`]
//! takes several addresses, Unix sockets, and sockets of a service manager.
//!
//! Until a handler upgrades, its result is an HTTP response, an `Err` included, whose status and text a [`Reject`]
//! says. Any error converts into a [`HandlerError`] by `?`. So a request without the right token never becomes a connection. A page cannot read such a response; for pages,
//! [`RequestContext::reject_websocket`] refuses in a close frame. [`ConnectionLimit`](limits::ConnectionLimit) caps connections, in total,
//! per address, or per account.
//!
//! [`ServerHandle::metrics`](server::ServerHandle::metrics) takes a snapshot of all counters, and the handler [`tidewire::metrics`](server::metrics) answers with
//! it in the format of Prometheus. [`WebSocket::stats`] has the counters of one connection.
//!
//! Log records go to the subscriber of `tracing`, or to the logger of `log` where there is none. A failure of the
//! application is a record of level warn, and a panic one of level error; what a peer does is told at level debug, never
//! above, so that strangers cannot fill the log. `Server::access_log` has a line for each request. [The log](guide::logs)
//! is a chapter.
//!
//! The server speaks HTTP/1.1. For other versions, put a [proxy](guide::proxies) in front of it.
//!
//! # A client
//!
//! [`connect`] opens a connection to a URL. [`Client`] sets headers, subprotocols, compression, TLS, proxies and
//! deadlines. [`Client::run`] runs a handler on the connection, as a server does. [`Client::reconnect`] keeps a
//! connection open, and reconnects when it is lost. A response that breaks a rule of the opening handshake
//! fails the handshake (RFC 6455 §4.1). [`ConnectError`](client::ConnectError) names the rule, and has the status, the headers and the
//! beginning of the body.
//!
//! # Testing
//!
//! With the feature `testing`, a [`TestClient`](testing::TestClient) runs a [`Server`] in memory, without a port: HTTP requests,
//! connections, refused upgrades, peers that break the protocol, and lines that stall or are cut. The module
//! [`tidewire::testing`](testing) is a chapter about it.
//!
//! # Features
//!
//! | feature | default | brings |
//! | --- | --- | --- |
//! | `server` | on | the HTTP server with its router; includes [`accept`](upgrade::accept) and `rooms` |
//! | `client` | on | [`connect`] and [`Client`] |
//! | `tls` | on | `https` and `wss`, by rustls, for the server and the client |
//! | `testing` | | requests and connections to a [`Server`] in memory: [`tidewire::testing`](testing) |
//! | `axum` | | WebSocket handlers in an application of axum 0.8: [`axum::WebSocketUpgrade`](crate::axum::WebSocketUpgrade); brings neither tide nor async-std |
//! | `tokio` | | handlers in the context of the tokio runtime that the server is started in: [`server::ServerOptions::tokio`] |
//! | `webpki-roots` | | Mozilla's root certificates as part of the program: [`ClientTls::webpki`](tls::ClientTls::webpki) |
//! | `tungstenite` | | conversions of messages, and of whole connections, from and to async-tungstenite; a new version of that crate is a breaking change of this feature only |
//! | `rooms` | | [`Hub`] and [`Room`] |
//! | `accept` | | [`accept`](upgrade::accept): the opening handshake over a stream that you have accepted, without a router; [`Upgrade`](upgrade::Upgrade): the same for an HTTP library of yours |
//!
//! Without any feature, the crate is the protocol and a [`WebSocket`] over any `futures::io` stream
//! ([`WebSocket::from_stream`], [`WebSocket::run`]).
//!
//! # Threads and executors
//!
//! A server has a thread for each core, and a connection stays on one of them, with its socket, its handler and its
//! timers: [`ServerOptions::workers`](server::ServerOptions::workers). A handler that blocks its thread for long is logged, and another thread goes on
//! with the other connections. [`blocking`](fn@blocking) runs code that blocks on a thread apart. Handlers are ordinary futures, and may use async-std's tasks, timers and sockets.
//!
//! With the feature `tokio`, a server that is started inside a tokio runtime, such as that of `#[tokio::main]` or
//! `#[tokio::test]`, lets its handlers use that runtime: tokio's tasks, timers and sockets, and libraries on tokio. The
//! threads of the server stay the same. [`ServerOptions::tokio`](server::ServerOptions::tokio) names a runtime elsewhere, and tells what happens when a
//! runtime ends before its server.
//!
//! All else runs on any executor: clients, [`accept`](upgrade::accept), rooms without a server, and servers with `workers(0)`. They wait on
//! async-io's reactor, which has a thread of its own, and their background tasks run on async-std's executor, or on the
//! one of [`set_spawner`](executor::set_spawner). The connections of a server with `workers(0)` run on its tokio runtime, if it has one and there
//! is no spawner. With a spawner, servers have no workers unless they ask for some. Only the feature `server` depends on
//! async-std, because tide needs it.
#![forbid(unsafe_code)]
// The front page links names of all features. The build with all of them finds every one.
#![cfg_attr(
    not(all(
        feature = "axum",
        feature = "client",
        feature = "testing",
        feature = "tls",
        feature = "webpki-roots"
    )),
    allow(rustdoc::broken_intra_doc_links, reason = "they are names of other features")
)]
// Published docs say which feature an item belongs to.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod budget;
mod causes;
mod changes;
mod connection;
mod error;
mod escaped;
mod foreign;
mod message;
mod options;
mod proto;
mod records;
mod reject;
mod runtime;
mod stream;
mod sync;
mod typed;

#[cfg(any(feature = "accept", feature = "client"))]
mod head;

#[cfg(feature = "accept")]
mod addresses;

#[cfg(feature = "accept")]
mod admission;

#[cfg(feature = "server")]
mod context;

#[cfg(feature = "server")]
mod files;

#[cfg(feature = "server")]
mod handler;

#[cfg(feature = "server")]
mod http;

#[cfg(feature = "accept")]
mod instance;

#[cfg(feature = "accept")]
mod permits;

#[cfg(feature = "axum")]
pub mod axum;

#[cfg(feature = "client")]
pub mod client;

#[cfg(feature = "rooms")]
pub mod rooms;

#[cfg(feature = "server")]
pub mod server;

#[cfg(feature = "testing")]
pub mod testing;

#[cfg(all(feature = "tls", any(feature = "server", feature = "client")))]
mod certificates;

#[cfg(feature = "tungstenite")]
pub mod tungstenite;

#[cfg(feature = "accept")]
pub mod upgrade;

#[cfg(any(doc, doctest))]
pub mod guide;

#[cfg(feature = "client")]
#[doc(inline)]
pub use self::client::{Client, connect};
pub use self::connection::{CloseInfo, Sender, WebSocket};
#[cfg(feature = "server")]
pub use self::context::RequestContext;
pub use self::error::{Error, Result};
pub use self::message::Message;
pub use self::options::WebSocketOptions;
pub use self::proto::handshake::HandshakeError;
pub use self::proto::{CloseCode, CloseFrame};
pub use self::reject::Reject;
#[cfg(any(feature = "server", feature = "axum"))]
pub use self::reject::{HandlerError, HandlerResult};
#[cfg(feature = "rooms")]
#[doc(inline)]
pub use self::rooms::{Hub, Room};
#[cfg(any(feature = "server", feature = "client"))]
pub use self::runtime::blocking;
#[cfg(feature = "server")]
pub use self::runtime::signals;
#[cfg(feature = "server")]
#[doc(inline)]
pub use self::server::Server;

/// tide, with the types `Request`, `Response`, `Body` and `StatusCode` of handlers.
#[cfg(feature = "server")]
pub use tide;

pub mod websocket {
    //! What belongs to a [`WebSocket`](crate::WebSocket): its counters, its heartbeat, typed messages, messages for many connections.

    pub use crate::connection::{ConnectionId, ConnectionStats, Initiator, PreparedMessage};
    pub use crate::error::TimeoutKind;
    pub use crate::options::HeartbeatOptions;
    pub use crate::typed::{Codec, JsonCodec, Typed};
}

pub mod frame {
    //! Frames ([RFC 6455 §5]), for those who receive and send them one by one.
    //!
    //! [RFC 6455 §5]: https://www.rfc-editor.org/rfc/rfc6455#section-5

    pub use crate::proto::{Frame, FrameError, OpCode, ProtocolError, Role};
}

pub mod deflate {
    //! permessage-deflate ([RFC 7692]): options, a bound on its memory, and the parameters that both sides agree on.
    //!
    //! [RFC 7692]: https://www.rfc-editor.org/rfc/rfc7692

    pub use crate::options::{DeflateBudget, DeflateOptions};
    pub use crate::proto::{DeflateAnswerError, DeflateParameters, InvalidDeflateParameters};
}

pub mod limits {
    //! Limits on the number of connections, and on what a peer may send.

    #[cfg(feature = "accept")]
    pub use crate::admission::ConnectionLimit;
    pub use crate::options::RateLimit;
}

#[cfg(feature = "tls")]
pub mod tls {
    //! TLS ([RFC 8446]): the certificates and keys of both sides.
    //!
    //! [RFC 8446]: https://www.rfc-editor.org/rfc/rfc8446

    /// rustls, from whose `ServerConfig` a `TlsConfig` can be made, and from whose `ClientConfig` a `ClientTls`.
    pub use rustls;

    #[cfg(any(feature = "server", feature = "client"))]
    pub use crate::certificates::TlsError;
    #[cfg(feature = "client")]
    pub use crate::client::tls::ClientTls;
    #[cfg(feature = "server")]
    pub use crate::server::tls::{ClientCertificates, TlsConfig};
}

#[cfg(feature = "rooms")]
pub mod executor {
    //! The executor that runs background tasks: async-std's, or one of the application. And the tasks beside a handler.

    pub use crate::runtime::{Spawned, SpawnerAlreadySet, set_spawner};
}
