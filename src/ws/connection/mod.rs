//! The WebSocket connection.
//!
//! | file | holds |
//! | --- | --- |
//! | `websocket`, `sink` | the connection as its user sees it |
//! | `batch` | what `recv` has taken from the connection |
//! | `core` | the connection itself: stream, queues, closing handshake, deadlines |
//! | `shared`, `signals` | the core under its lock; who is to be woken |
//! | `waiting` | what is waited for: room, writes, the end |
//! | `task` | the future at the root of a connection's own task |
//! | `queue`, `turn` | how a frame is sent, and how without the lock |
//! | `fanout`, `writers` | a connection among many; writing for many |
//! | `prepared`, `backlog` | a message for many connections; those that have to wait |
//! | `inbox`, `outbox` | frames that have arrived; frames on their way out |
//! | `deflation`, `inflation` | compression of what is sent; of what is received |
//! | `deadlines`, `alarm` | what is to happen when, and the timer |
//! | `agenda`, `heartbeat` | what an open connection does at times of its own; pings and answers |
//! | `lifetime` | all that, as its user sees it |
//! | `hand_over` | the stream, given to another implementation |
//! | `limiter` | how fast the peer may send |
//! | `stats` | counters, and how it ended |
//! | `connection_id` | what a connection is called |
//! | `scratch`, `codecs`, `random` | buffers, codecs and random numbers that belong to a thread |

mod agenda;
mod alarm;
mod backlog;
mod batch;
mod codecs;
mod connection_id;
mod core;
mod deadlines;
mod deflation;
mod fanout;
#[cfg(feature = "tungstenite")]
mod hand_over;
mod heartbeat;
mod inbox;
mod inflation;
mod lifetime;
mod limiter;
mod outbox;
mod prepared;
mod queue;
mod random;
mod scratch;
mod shared;
mod signals;
mod sink;
mod stats;
mod task;
mod turn;
mod waiting;
mod websocket;
#[cfg(feature = "rooms")]
mod writers;

#[cfg(any(feature = "accept", feature = "client"))]
pub(crate) use self::deflation::Deflation;
#[cfg(feature = "client")]
pub(crate) use self::random::bytes as random_bytes;
#[cfg(any(feature = "accept", feature = "client", feature = "tungstenite"))]
pub(crate) use self::shared::Opened;
pub(crate) use self::shared::Shared;
#[cfg(any(feature = "accept", feature = "client"))]
pub(crate) use self::task::ConnectionTask;

#[cfg(feature = "rooms")]
pub(crate) use self::backlog::{Bounds, Delivery};
#[cfg(feature = "rooms")]
pub(crate) use self::writers::Writers;

pub use self::backlog::SlowConsumer;
pub use self::connection_id::ConnectionId;
#[cfg(feature = "tungstenite")]
pub use self::hand_over::HandOverError;
#[cfg(feature = "tungstenite")]
pub(crate) use self::hand_over::HandedOver;
pub use self::prepared::PreparedMessage;
pub use self::stats::{CloseInfo, Initiator, Stats};
pub use self::websocket::WebSocket;
