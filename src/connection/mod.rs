//! The WebSocket connection: a stream, frames in both directions, and the closing handshake.
//!
//! Read this page first. It says how a message passes, who may do what, how a connection ends, which lock comes
//! first, and what each trick buys. Files are placed by one rule: `send` and `recv` move messages, `read` and
//! `write` move bytes.
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
//! # A message comes in
//!
//! 1. `driver`: the connection's task polls the handler, which waits in `WebSocket::recv`.
//! 2. `recv`: `poll_recv` returns a message of those that it took before (`Received`), without a lock. If there is
//!    none, `poll_take` locks the connection.
//! 3. `read`: `fill` reads once, into the buffer of the thread (`thread_cache`), and decodes what it read. Whole
//!    short messages stay encoded in a `WireBatch`; all other frames go to the `Inbox`.
//! 4. `read`: a ping is answered in `accept`, where `queue_pong` queues the pong of the latest; a close frame goes
//!    to `accept_close`.
//! 5. `read`: `take_batch` gives all that has arrived to the caller. `recv` joins fragments, and decompresses.
//! 6. Nothing is there: the handler parks. The driver writes, reads ahead up to `read_ahead_size`, and sets the timer.
//!
//! # A message goes out
//!
//! 1. `websocket`: `send` makes a frame of the message. `send`: while the connection's task polls the handler,
//!    `Shared::buffer` copies it to the thread's `handler_buffer`. No lock is taken, and nothing waits.
//! 2. The buffer is full, or another task sends: `Shared::send_slow` locks the connection. There is room: the frame
//!    goes to the `Outbox`. There is none: the future waits, with a `SendTicket` that keeps its place among broadcasts.
//! 3. `driver`: the handler parks, and its buffer is drained into the outbox. During the poll, frames of other tasks
//!    went to `during_poll`; they follow.
//! 4. `write`: all of it goes out in one write. If the peer stops reading, the stream refuses bytes: `send` waits from
//!    `send_buffer_size` on, and `Deadline::Send` drops the stream after `send_timeout` without progress.
//!
//! A broadcast takes another way: a room hands it to `Shared::deliver` of each member (`broadcast`), into the outbox
//! or the `Backlog`, and `group_write` writes for 64 members in one task.
//!
//! # Who may do what
//!
//! | | polls the handler | writes | reads | closes, and has the timer |
//! | --- | --- | --- | --- | --- |
//! | the connection's task (`driver`) | yes | yes | yes | yes |
//! | the caller in `recv` | | in its own task, when it yields | yes | |
//! | who waits for room, `flush`, `closed` | | if the outbox is in the way | without a task | without a task |
//! | a group write | | for a task that was not woken | | |
//!
//! `from_stream` makes a connection without a task: `service`, the driver's work, is then done by all who wait in a
//! call. Dropping the `WebSocket` has its connection closed, by the task or at once.
//!
//! # How it ends
//!
//! ```text
//! Open ── the peer's close frame or violation behind unread messages ──▶ Open, with `deferred`
//!   │                                                                      │ all are received, or `close_timeout`
//!   │ close(), a failure, nothing unread                                   ▼
//!   └───────────────────────────────▶ Closing: our close frame is queued ◀─┘
//!                                       │ it is written, and the peer's is here
//!                                       ▼
//!                                     Lingering: a server ends the stream first, both read to its end
//!                                       │ the end of the stream, or 1 s
//!                                       ▼
//!   the stream fails, a deadline ──▶  Gone: the stream is dropped
//! ```
//!
//! `end` is set once: by the first of the peer's close frame, a failure, the loss of the stream. `queue_close` in
//! `close` queues our close frame behind all that waits; the next write sends it.
//!
//! # Locks
//!
//! `Shared::with` is the only way to a connection: it takes the lock, runs a step, lets the lock go, and only then wakes
//! those whom the step owes that, also where the step unwinds. No guard leaves it. A room takes its roster
//! before the connection of a member; a connection never takes a lock of a room. Under `Shared::connection` these are
//! taken, and each is let go before the next: the window, fragments and reservation of `Deflation`, the tasks in
//! `Signals`, and the table of the `MessageBudget`.
//!
//! Foreign code runs without any of them. A step only notes which wakers are to be called and what is to be logged;
//! `Wakes` does all of that when the lock is free, and catches what panics. Three things of the caller's are used under `Shared::connection` all the same, because the connection is made of them: its stream, the
//! clone of a waker, and the destructor of a payload (`bytes::Bytes::from_owner`). None of them may use the
//! connection it belongs to.
//!
//! What is owed is noted where it comes up, and told by `Wakes`:
//!
//! | noted by | is told | for |
//! | --- | --- | --- |
//! | `is_task_owed` | the connection's task, unless it is at work | frames to write, a phase that changed, a clock that began to run |
//! | `is_look_owed` | the task; without one, all who wait in a call | deadlines that moved, room to read ahead, work that is left for the next turn |
//! | `parked` with `can_recv` | the caller in `recv` | a message, the end |
//! | `has_news` | senders that wait for room, `flush`, `close`, `closed` | bytes that were written, the end |
//! | `Account::owed` | another connection of the server | room in the budget for messages, or that it is to be closed |
//!
//! # What the tricks buy
//!
//! Figures are those of the commit that brought the trick, CPU time of the server per message or delivery on the machine
//! of that day; the command shows the cell as it is now.
//!
//! | mechanism | buys | command: `benches/run.py` |
//! | --- | --- | --- |
//! | `handler_buffer` and `WireBatch`: no lock per send, no frame per short message | 507 → 302 ns | `--cells 64x16x32` |
//! | a `WireBatch` also for longer messages, which share its memory | 645 → 486 ns at 1 KiB | `--cells 64x1024x32` |
//! | `Received`: all that has arrived leaves under one lock | 302 → 264 ns | `--cells 64x16x32` |
//! | one write when the handler parks | 0.07 system calls per message | `--calls` |
//! | wake-ups that are not owed cost a comparison | 6 150 → 5 690 instructions at one in flight | `--cells 64x16x1` |
//! | a second look at a busy socket (`runtime/socket.rs`) | 0.71 → 0.84 of the raw loop | `--cells 64x16x32` |
//! | `group_write`: one task writes for 64 members | 5 358 → 4 506 ns | `--fanout` |
//! | a timer that remembers whether it went off (`Alarm`) | no clock read and no system call per message | `--calls` |
//! | `thread_cache`, boxed rarities | 2.4 KB for an idle connection | `--idle` |

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
pub(crate) use self::group_write::GroupWrites;
#[cfg(feature = "tungstenite")]
pub use self::hand_over::HandOverError;
#[cfg(feature = "tungstenite")]
pub(crate) use self::hand_over::HandedOver;
#[cfg(feature = "rooms")]
pub(crate) use self::handler_buffer::{DeliveryShare, charge_turn};
pub use self::prepared::PreparedMessage;
pub use self::sender::Sender;
#[cfg(any(feature = "accept", feature = "client", feature = "tungstenite"))]
pub(crate) use self::shared::Opened;
pub(crate) use self::shared::Shared;
pub use self::stats::{CloseInfo, ConnectionId, Initiator, Stats};
#[cfg(any(feature = "client", feature = "rooms"))]
pub(crate) use self::thread_cache::bytes as random_bytes;
pub use self::websocket::WebSocket;
