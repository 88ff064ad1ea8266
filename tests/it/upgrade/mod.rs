//! The upgrade of a request to a WebSocket connection, by a real server.
//!
//! | file | shows |
//! | --- | --- |
//! | `handshake` | the opening handshake, as bytes |
//! | `subprotocols` | which subprotocol is agreed on |
//! | `handler` | the upgrade as a handler sees it, and what else it may do with a request |

pub(crate) mod handler;
pub(crate) mod handshake;
pub(crate) mod subprotocols;
