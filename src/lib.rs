//! A WebSocket connection is a coroutine.
#![forbid(unsafe_code)]

mod runtime;
mod stream;

#[cfg(feature = "server")]
mod server;
#[cfg(feature = "server")]
mod http;

#[cfg(feature = "server")]
pub use self::server::{Bound, Server, ServerOptions};

/// What [`tide`] calls a request, a response and so on, for handlers that build them.
#[cfg(feature = "server")]
pub use tide;
