//! The WebSocket connection.
//!
//! Files are placed by one rule: `send` and `recv` move messages, `read` and `write` move bytes.
//!
//! | file | holds |
//! | --- | --- |
//! | `websocket`, `sender` | the connection as its handler sees it, and as other tasks do |
//! | `read`, `inbox`, `recv` | bytes become frames; frames that wait; messages leave for the caller |
//! | `send`, `handler_buffer`, `write` | a message becomes a frame; what a handler sends meanwhile; frames become bytes |
//! | `state`, `close` | what a connection consists of; how it ends |
//! | `shared`, `driver` | the connection under its lock, and who waits for it; the task that drives it |
//! | `timers`, `heartbeat` | what happens when; pings and their answers |
//! | `broadcast`, `backlog`, `group_write`, `prepared` | one message for many connections |
//! | `budget` | the memory that the connections of a server share |
//! | `compression` | compression of what is sent |
//! | `stats` | counters, the connection's name, and how it ended |
//! | `thread_cache` | buffers and random numbers that belong to a thread |
//! | `hand_over` | the stream, given to async-tungstenite |
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

mod backlog;
#[cfg_attr(
    not(feature = "rooms"),
    expect(dead_code, reason = "rooms alone have use for all of it")
)]
mod broadcast;
mod budget;
mod close;
mod compression;
mod driver;
#[cfg(feature = "rooms")]
mod group_write;
#[cfg(feature = "tungstenite")]
mod hand_over;
mod handler_buffer;
mod heartbeat;
mod inbox;
mod prepared;
mod read;
mod recv;
mod send;
mod sender;
mod shared;
mod state;
mod stats;
mod thread_cache;
mod timers;
mod websocket;
mod write;

pub use self::backlog::SlowConsumer;
#[cfg(feature = "rooms")]
pub(crate) use self::backlog::{Bounds, Delivery};
#[cfg(feature = "server")]
pub(crate) use self::budget::MessageBudget;
#[cfg(any(feature = "accept", feature = "client"))]
pub(crate) use self::compression::Deflation;
#[cfg(any(feature = "accept", feature = "client"))]
pub(crate) use self::driver::{ConnectionTask, Handling};
#[cfg(feature = "rooms")]
pub(crate) use self::group_write::Writers;
#[cfg(feature = "tungstenite")]
pub use self::hand_over::HandOverError;
#[cfg(feature = "tungstenite")]
pub(crate) use self::hand_over::HandedOver;
#[cfg(feature = "rooms")]
pub(crate) use self::handler_buffer::{Share, charge_turn};
pub use self::prepared::PreparedMessage;
pub use self::sender::Sender;
#[cfg(any(feature = "accept", feature = "client", feature = "tungstenite"))]
pub(crate) use self::shared::Opened;
pub(crate) use self::shared::Shared;
pub use self::stats::{CloseInfo, ConnectionId, Initiator, Stats};
#[cfg(any(feature = "client", feature = "rooms"))]
pub(crate) use self::thread_cache::bytes as random_bytes;
pub use self::websocket::WebSocket;
