//! The upgrade of a request to a WebSocket connection, by a real server.
//!
//! | file | shows |
//! | --- | --- |
//! | `handshake` | the opening handshake, as bytes |
//! | `one_handshake` | that a server, `accept` and `Upgrade` answer alike |
//! | `connections` | limits, counters and the end of connections without a `Server` |
//! | `axum` | handlers in an application of axum |
//! | `subprotocols` | which subprotocol is agreed on |
//! | `handler` | the upgrade as a handler sees it, and what else it may do with a request |
//! | `tasks` | tasks beside a handler, which end with the request or the connection |

#[cfg(feature = "axum")]
mod axum;
mod connections;
pub(crate) mod handler;
pub(crate) mod handshake;
mod one_handshake;
pub(crate) mod subprotocols;
mod tasks;
