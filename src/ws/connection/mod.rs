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
//! | `budget` | the memory that the connections of a server share |
//! | `stats` | counters, and how it ended |
//! | `connection_id` | what a connection is called |
//! | `scratch`, `codecs`, `random` | buffers, codecs and random numbers that belong to a thread |
//!
//! # Locks
//!
//! A step takes `Shared::core`, does its work on the connection and lets the guard go. Under it these are
//! taken, and each is let go before the next: `Deflation::{window, fragments, reservation}`,
//! `MessageBudget::table` and `Signals::task`. A room takes its roster before the connection of a member; a
//! connection never takes a lock of a room.
//!
//! Foreign code runs without any of them. A step only notes which wakers are to be called, which were replaced
//! and what is to be logged; `CoreGuard` does all of that when it is dropped, after the lock, and catches what
//! panics. Three things of the caller's are used under `Shared::core` all the same, because the connection is
//! made of them: its stream, the clone of a waker, and the destructor of a payload
//! (`bytes::Bytes::from_owner`). None of them may use the connection it belongs to.
//!
//! What is owed is noted where it comes up, and told by the guard:
//!
//! | noted by | is told | for |
//! | --- | --- | --- |
//! | `is_task_owed` | the connection's task, unless it is at work | frames to write, a phase that changed, a clock that began to run |
//! | `is_look_owed` | the task; without one, all who wait in a call | deadlines that moved, room to read ahead, work that is left for the next turn |
//! | `parked` with `can_recv` | the caller in `recv` | a message, the end |
//! | `has_news` | senders that wait for room, `flush`, `close`, `closed` | bytes that were written, the end |
//! | `Account::owed` | another connection of the server | room in the budget for messages, or that it is to be closed |

mod agenda;
mod alarm;
mod backlog;
mod batch;
mod budget;
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

#[cfg(feature = "server")]
pub(crate) use self::budget::MessageBudget;
#[cfg(any(feature = "accept", feature = "client"))]
pub(crate) use self::deflation::Deflation;
#[cfg(any(feature = "client", feature = "rooms"))]
pub(crate) use self::random::bytes as random_bytes;
#[cfg(any(feature = "accept", feature = "client", feature = "tungstenite"))]
pub(crate) use self::shared::Opened;
pub(crate) use self::shared::Shared;
#[cfg(any(feature = "accept", feature = "client"))]
pub(crate) use self::task::{ConnectionTask, Handling};

#[cfg(feature = "rooms")]
pub(crate) use self::backlog::{Bounds, Delivery};
#[cfg(feature = "rooms")]
pub(crate) use self::turn::{Share, charge_turn};
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
