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
//!     server.listen("127.0.0.1:8080").await
//! }
//! ```
//!
//! It needs async-std's attribute, or `set_spawner` and the `main` of another executor:
//!
//! ```toml
//! [dependencies]
//! async-std = { version = "1.13", features = ["attributes"] }
//! tidewire = "0.1"
//! ```
//!
//! # What is where
//!
//! | for | see |
//! | --- | --- |
//! | a server: routes, sockets, TLS, its end | `Server`, `Listeners`, `TlsConfig`, `ServerHandle` |
//! | a request, before and at the upgrade | `RequestContext` |
//! | a connection, on either side | [`WebSocket`], [`Sender`], [`Message`], [`Frame`], [`CloseInfo`] |
//! | what it may cost | [`WebSocketOptions`], [`DeflateOptions`], [`HeartbeatOptions`], [`RateLimit`], `ConnectionLimit` |
//! | many connections | `Hub`, `Room`, [`PreparedMessage`], `Backplane` |
//! | a client | `connect`, `Client`, `ClientTls`, `Reconnect` |
//! | a handshake without the server | `accept`, [`WebSocket::from_stream`], [`WebSocket::run`] |
//! | what can go wrong | [`Error`], [`HandshakeError`], `ConnectError` |
//! | what handlers answer with by HTTP | `tide`, which is here by that name: `Response`, `Body`, `StatusCode`, `Error` |
//!
//! Chapters: [all options, and their price](guide::options); [cancel safety](guide::cancel_safety);
//! [security, threat by threat](guide::security); [proxies](guide::proxies);
//! [clients that are particular](guide::clients); [coming from elsewhere](guide::migrating).
//!
//! # A connection
//!
//! **Writing.** What a handler sends is queued. The moment the handler waits, for whatever reason, all of
//! it goes out in one write; nobody has to call `flush`. Beyond 64 KiB `send` waits for the peer.
//!
//! **Reading.** While the handler is busy elsewhere, the connection reads ahead up to one bounded buffer:
//! pings are answered, and a close is noticed.
//!
//! **Ending.** [`recv`](WebSocket::recv) returns `Ok(None)` after a closing handshake, and an [`Error`]
//! after anything else. A handler that returns closes its connection: with 1000 for `Ok`, with 1011 for
//! `Err` and for a panic. [`CloseInfo`] tells who ended what, and how.
//!
//! **Cancelling.** Dropping any future of [`WebSocket`] or [`Sender`] at any time loses no byte and no
//! message, so `select!` and timeouts around them are normal use.
//!
//! **Compressing.** [`WebSocketOptions::deflate`] allows permessage-deflate (RFC 7692) on a route; it
//! takes place where the client offers it. By default each message is compressed on its own, so that an
//! idle connection costs less than 1 KiB more than a plain one. Do not compress secrets beside text that
//! somebody else chooses: [`Message::uncompressed`].
//!
//! **Watching.** A server pings its clients from the connection's own task, and fails a connection whose
//! peer shows no sign of life: [`HeartbeatOptions`]. [`idle_timeout`](WebSocketOptions::idle_timeout),
//! [`max_lifetime`](WebSocketOptions::max_lifetime) and [`WebSocket::expire_at`] close connections in
//! order. A connection has one timer for all of that, which is not touched while messages pass.
//!
//! # Rooms
//!
//! A `Hub` holds rooms by name. A connection is in one for as long as its handler holds the `Membership`
//! that `Room::join` returns; `Room::broadcast` sends to all of them and waits for none. A member that
//! does not keep up costs the others nothing, and the server no more than `RoomOptions` allow.
//!
//! # A server
//!
//! `Server::listen` is all that a small program needs; `Server::bind` tells the port before it serves,
//! `Server::start` serves in the background, and `Server::bind_to` takes several addresses, Unix
//! sockets and sockets of a service manager. `ServerHandle::shutdown` ends a server in order: nobody
//! new, the response under way, a close frame to every connection, and no task left behind.
//!
//! Until a handler upgrades, whatever it returns is an HTTP response, and an `Err` is one too: a
//! request without the right token never becomes a connection. A page cannot read such a response, so
//! `RequestContext::reject_websocket` says no in a close frame. How many may connect is for a
//! `ConnectionLimit` to say, of all clients or of each address.
//!
//! `ServerHandle::metrics` is a snapshot, and `tidewire::metrics` a handler that answers with it as
//! Prometheus reads it; [`WebSocket::stats`] has the counters of one connection. Log records have the
//! module as target and fields beside their text (`peer`, `error`, `code`). What a peer did is told at
//! level debug, never above: a stranger cannot fill the log.
//!
//! The server speaks HTTP/1.1; [proxies](guide::proxies) speak the others.
//!
//! # A client
//!
//! `connect` opens a connection to a URL, and `Client` says how: headers, subprotocols, compression, TLS,
//! proxies, deadlines. `Client::run` runs a handler on it as a server does, and `Client::reconnect` is
//! for a client that should always have one. An answer that breaks a rule of the opening handshake fails
//! it (RFC 6455 §4.1); `ConnectError` says which, with status, headers and the beginning of the body.
//!
//! # Testing
//!
//! With the feature `testing` a `TestClient` runs a `Server` in memory: HTTP requests, connections, refused
//! upgrades, peers that break the protocol and lines that stall or are cut, without a port. The module
//! `tidewire::testing` is the chapter about it.
//!
//! # Features
//!
//! | feature | default | brings |
//! | --- | --- | --- |
//! | `server` | on | the HTTP server with its router; brings `accept` and `rooms` |
//! | `client` | on | `connect` and `Client` |
//! | `tls` | on | `https` and `wss`, by rustls, for whichever of the two is there |
//! | `testing` | | requests and connections against a `Server` in memory: `tidewire::testing` |
//! | `webpki-roots` | | Mozilla's root certificates as part of the program: `ClientTls::webpki` |
//! | `tungstenite` | | messages and whole connections go to async-tungstenite and come back; a new version of that crate is a breaking change there, and only there |
//! | `rooms` | | `Hub` and `Room` |
//! | `accept` | | `accept`: the opening handshake over a stream that you have accepted, without a router |
//!
//! Without any there is the protocol and [`WebSocket`] over any `futures::io` stream
//! ([`WebSocket::from_stream`], [`WebSocket::run`]).
//!
//! # Executors
//!
//! async-std comes with `server` only, because tide needs it; with `accept`, `client` and `rooms` it is
//! not in the tree. Futures of this crate can be polled by any executor: they wait on async-io's reactor,
//! which has a thread of its own. `set_spawner` says where background tasks run, those of the server too.
#![forbid(unsafe_code)]

mod budget;
mod changes;
mod error;
mod escaped;
mod foreign;
mod runtime;
mod stream;
mod sync;

#[cfg(any(feature = "accept", feature = "client"))]
mod head;

#[cfg(all(feature = "tls", any(feature = "server", feature = "client")))]
mod tls;

#[cfg(feature = "server")]
mod addresses;

#[cfg(feature = "server")]
mod permits;

#[cfg(feature = "rooms")]
mod rooms;

#[cfg(feature = "server")]
mod server;

#[cfg(feature = "server")]
mod http;

#[cfg(feature = "server")]
mod handler;

#[cfg(feature = "server")]
mod context;

#[cfg(feature = "server")]
mod instance;

#[cfg(feature = "server")]
mod admission;

mod connection;
mod message;
mod options;
mod proto;

#[cfg(feature = "tungstenite")]
mod tungstenite;

#[cfg(feature = "server")]
mod upgrade;

#[cfg(feature = "accept")]
mod accept;

#[cfg(feature = "client")]
mod client;

#[cfg(any(doc, doctest))]
pub mod guide;

#[cfg(feature = "testing")]
pub mod testing;

#[cfg(feature = "accept")]
pub use self::accept::{OpeningRequest, accept};
#[cfg(feature = "server")]
pub use self::admission::ConnectionLimit;
#[cfg(feature = "tungstenite")]
pub use self::connection::HandOverError;
pub use self::connection::{
    CloseInfo, ConnectionId, Initiator, PreparedMessage, Sender, SlowConsumer, Stats, WebSocket,
};
pub use self::message::Message;
pub use self::options::{
    DeflateBudget, DeflateOptions, HeartbeatOptions, RateLimit, WebSocketOptions,
};
pub use self::proto::handshake::HandshakeError;
pub use self::proto::{
    CloseCode, CloseFrame, DeflateAnswerError, DeflateParameters, Frame, FrameError,
    InvalidDeflateParameters, OpCode, ProtocolError, Role,
};

#[cfg(all(feature = "client", feature = "tls"))]
pub use self::client::ClientTls;
#[cfg(feature = "client")]
pub use self::client::{Client, Reconnect, ReconnectOptions, connect};
#[cfg(feature = "server")]
pub use self::context::RequestContext;
#[cfg(feature = "client")]
pub use self::error::{ConnectError, ConnectStep, HandshakeResponse, ResponseViolation};
pub use self::error::{Error, Result, Timeout};
#[cfg(feature = "server")]
pub use self::handler::{Handler, IntoResponse, endpoint};
#[cfg(feature = "server")]
pub use self::http::ServerOptions;
#[cfg(feature = "server")]
pub use self::instance::Metrics;
#[cfg(feature = "rooms")]
pub use self::rooms::{
    Backplane, Broadcast, Hub, LocalBackplane, MemberStats, Membership, Presence, PresenceEvents,
    Room, RoomOptions, RoomStats,
};
#[cfg(feature = "rooms")]
pub use self::runtime::{SpawnerAlreadySet, set_spawner};
#[cfg(feature = "server")]
pub use self::server::{
    Bound, Listeners, LocalAddr, Route, Server, ServerHandle, ShutdownOptions, ShutdownReport,
    metrics,
};
#[cfg(all(feature = "server", feature = "tls"))]
pub use self::server::{ClientCertificates, TlsConfig};
#[cfg(all(feature = "tls", any(feature = "server", feature = "client")))]
pub use self::tls::TlsError;
#[cfg(feature = "tungstenite")]
pub use self::tungstenite::{BridgeStream, FromTungsteniteError, IntoTungsteniteError};

/// The crate whose `ServerConfig` a `TlsConfig` can be made from, and whose `ClientConfig` a `ClientTls`.
#[cfg(feature = "tls")]
pub use rustls;

/// The crate that connections are handed over to and taken over from, and whose messages become ours.
#[cfg(feature = "tungstenite")]
pub use async_tungstenite;

/// The crate whose `Request`, `Response`, `Body` and `StatusCode` handlers work with.
#[cfg(feature = "server")]
pub use tide;
