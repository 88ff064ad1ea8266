//! The WebSocket connection.
//!
//! | file | holds |
//! | --- | --- |
//! | `websocket`, `sink` | the connection as its user sees it |
//! | `core` | the connection itself: stream, queues, closing handshake, deadlines |
//! | `shared` | the core under its lock, and who waits for it |
//! | `task` | the future at the root of a connection's own task |
//! | `queue`, `turn` | how a frame is sent, and how without the lock |
//! | `inbox`, `outbox` | frames that have arrived; frames on their way out |
//! | `deadlines`, `stats` | limits on time; counters, and how it ended |
//! | `scratch`, `masking` | buffers and masking keys that belong to a thread |

mod core;
mod deadlines;
mod inbox;
mod masking;
mod outbox;
mod queue;
mod scratch;
mod shared;
mod sink;
mod stats;
mod task;
mod turn;
mod websocket;

pub(crate) use self::shared::Shared;
#[cfg(feature = "server")]
pub(crate) use self::task::ConnectionTask;

pub use self::stats::{CloseInfo, Initiator, Stats};
pub use self::websocket::WebSocket;
