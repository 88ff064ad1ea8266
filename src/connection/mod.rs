//! The WebSocket connection: a stream, frames in both directions, and the closing handshake.
//!
//! This page describes the path of a message, the rights of each task, the end of a connection, the order of locks,
//! and the gain of each optimisation. `send` and `recv` are about messages, `read` and `write` about bytes.
//!
//! | file | holds |
//! | --- | --- |
//! | `websocket` | the connection as its handler sees it |
//! | `sender` | the connection as other tasks see it |
//! | `read` | reading: bytes become frames; pings of the peer are answered; the rate limit |
//! | `inbox` | frames that have arrived, and how fragments are joined |
//! | `recv` | receiving: messages leave for the caller; decompression |
//! | `send` | sending: a message becomes a frame |
//! | `handler_buffer` | frames that a handler sends while its task polls it |
//! | `write` | the outbox, and writing: frames become bytes |
//! | `state` | `Connection`, its states, and `drive`, the work of its driver |
//! | `close` | `Lifecycle`: the closing handshake, failures, the end of the stream |
//! | `shared` | the connection under its lock, and the calls that wait for it |
//! | `wakes` | wake-ups: what a step under the lock leaves for later, and the tasks that wait |
//! | `driver` | the connection's own task, which polls the handler |
//! | `timers` | timeouts, the ends by idleness and age, pings that are due, and pongs that the peer sends |
//! | `heartbeat` | when this side pings, and when it gives the peer up |
//! | `broadcast`, `backlog` | one message for many connections: its delivery to one, and broadcasts that wait |
//! | `group_write` | writing for many connections |
//! | `held` | memory for messages in progress, which the connections of a server share (`src/budget.rs`) |
//! | `compression` | compression of what is sent, and the decompressors of a thread |
//! | `stats` | counters, the name of the connection, and how it ended |
//! | `thread_cache` | buffers and random numbers that belong to a thread |
//! | `hand_over` | the stream, given to async-tungstenite |
//!
//! # A message comes in
//!
//! 1. `wakes`: the stream has bytes and calls `io_waker`, which is `Signals`. That wakes the connection's task.
//! 2. `driver`: the task polls the handler, which waits in `WebSocket::recv` (`websocket`).
//! 3. `recv`: `poll_recv` takes the next message from `Received`, without a lock. If `Received` is empty, `poll_take` locks
//!    the connection.
//! 4. `read`: `fill` decodes what an earlier read has left, or reads once, into the buffer of the thread (`thread_cache`).
//!    Whole uncompressed messages at the front of a read stay encoded in a `WireBatch` (`proto/wire_batch`), if nothing is
//!    before them in the inbox and the caller takes messages. `proto/decoder` makes frames of the rest, and `accept` gets
//!    each. Data frames go to the `Inbox`. So do control frames for a caller that reads frames, or that has not called yet
//!    (32 of them). For a ping, `queue_pong` queues a pong; when the outbox is full, it keeps the latest ping only.
//!    `accept_close` takes a close frame.
//! 5. `read`: `take_batch` hands over what has arrived, at most 64 messages and control frames per turn. `inbox` joins
//!    fragments, `recv` decompresses.
//! 6. If no message is there, the handler parks in `recv`, the driver writes and sets the timer. While the handler waits
//!    elsewhere, the driver reads ahead, up to `read_ahead_size`.
//!
//! # A message goes out
//!
//! 1. `websocket` calls `Shared::send` in `send`, which turns the message into a frame.
//! 2. `shared`: `buffer` copies the frame to the handler's buffer of this thread (`handler_buffer`). The task writes when
//!    the handler parks, so until then no other thread has to see the frame: no lock is taken. A lock is taken if
//!    - this thread does not poll the handler, or the connection has no task;
//!    - the buffer is full;
//!    - the payload has 16 KiB or more on a server: it is written from where it is, and not copied;
//!    - another task has sent since the handler held the lock, a broadcast waits, or a message is sent in fragments;
//!    - our close frame is queued, or the connection has ended;
//!    - messages are compressed with context takeover, or this one is compressed in steps;
//!    - it is a frame, a ping, a pong or a `PreparedMessage`, and no message.
//! 3. With the lock, the frame goes to the `Outbox` if that has room; while the handler is polled, frames of other tasks
//!    go to `during_poll`. If there is no room, `send` writes, and waits if there is still none. If broadcasts wait, it gets
//!    a `SendTicket`, so that later broadcasts cannot starve it. Without a task, each `send` waits until it is written.
//! 4. `driver`: the handler parks. Its buffer is drained into the outbox (each lock by its thread does that), the frames in
//!    `during_poll` follow.
//! 5. `state`: `drive` calls `write` (file `write`), which writes as much as the stream takes, 32 pieces in one call.
//!
//! If the peer stops reading, the stream refuses bytes:
//!
//! - when the queue holds `send_buffer_size` bytes, `send` waits (`has_room` in `shared`);
//! - broadcasts go to the `Backlog`, and once that has what it may, the policy of the room decides;
//! - of the peer's pings, only the latest is answered;
//! - after `send_timeout` without progress, if there is one, `Deadline::Send` drops the stream; the heartbeat may give the
//!   peer up before.
//!
//! A broadcast takes another way: `rooms/room.rs` hands it to `Shared::deliver` of each member (`broadcast`), which puts it
//! into the outbox, `during_poll` or the `Backlog`. `group_write` then writes for up to 64 members in one task. If fewer
//! than three connections have something to write, or the executor drops that task, it wakes the tasks of the members.
//!
//! # Who does what
//!
//! | who | polls the handler | reads | writes | continues the closing, sets the timer |
//! | --- | --- | --- | --- | --- |
//! | the connection's task (`driver`) | yes | ahead | yes | yes |
//! | `recv` in the connection's task | | yes | | |
//! | `recv` in another task | | yes | when it parks or yields; without a task, before each batch | when it parks |
//! | `flush`, and a `send` that waits | | without a task | yes | without a task |
//! | `close`, `closed`, `run_heartbeat` | | without a task | without a task | without a task |
//! | a group write | | | instead of the member's task, unless its handler runs, or it closes | |
//!
//! `from_stream` makes a connection without a task. Each caller that waits then runs `drive`, which is the driver's work
//! without the handler. Dropping the `WebSocket` closes the connection: its task runs the closing handshake; without a
//! task, `abandon` writes once and drops the stream. A handler that panics is caught by `Handling` in `driver`, and the
//! connection closes with 1011.
//!
//! # How it ends
//!
//! ```text
//! Open ── the peer's close frame, or a violation, while data before it is unread ──▶ Draining
//!   │ begin_close: close(), a dropped WebSocket, a shutdown,        │ all is received; a failure;
//!   │ a deadline of idleness or age; a failure; the peer's          │ `close_timeout`; begin_close
//!   │ close frame, if nothing is unread                             ▼
//!   └────────────────▶ Closing: our close frame is queued ◀─────────┘
//!                        │ it is written; unless the connection failed, the peer's is here, too
//!                        ▼
//!                      Lingering: a server ends the stream first, both read to its end
//!                        │ the end of the stream, or 1 s (`close_timeout` if that is shorter)
//!                        ▼
//!                      Gone: the stream is dropped
//!
//! From any state to Gone: the stream fails; `send_timeout`, `close_timeout`, a heartbeat that gives up; the task is dropped.
//! ```
//!
//! What ends the connection first decides its outcome, which `Lifecycle` carries for `recv` and `send`: the peer's close
//! frame once the messages before it are received, a failure, or the loss of the stream. Only `give_way` in `held` replaces
//! an outcome. `closed` and `close_info` tell of the peer's close frame as soon as it is here. `queue_close` in `close`
//! queues our close frame behind the outbox and the backlog; inside a fragmented message, and for a member that is too slow,
//! the backlog is dropped instead. The driver's next write sends it, or that of a caller in `send`, `flush` or `recv`.
//!
//! # Locks
//!
//! `Shared::with` locks, runs a step, unlocks, then wakes the tasks that the step noted. It also wakes them if the step
//! panics. It returns no guard. A delivery of a broadcast leaves its wake-ups to `wake_for_broadcast`, since the room is
//! locked as well. `with_handler_parked` is the same at the end of a handler's poll.
//!
//! A room takes its roster (`rooms/room.rs`; `rooms/mod.rs` has its other locks) before the connection of a member; a
//! connection never takes a lock of a room. Under the lock of the connection these are taken: the window, fragments and
//! reservation of `Deflation` (fragments before window), the wakers in `Signals` and the list in `Signals::progress`, the
//! table of the `MessageBudget`, and in tests the hands of a `ManualClock`. No other two of them are held together.
//!
//! No lock of the connection is held while foreign code runs. A step only notes which wakers are to be called and what is
//! to be logged; `Wakes` does all of that when the lock is free, and catches what panics. A stream or a timer that wakes
//! while a step polls it is noted in `Signals::polling`, for the same reason. Four things of the application run under the
//! lock all the same, and must not use their connection: the application's stream; the clone of a waker; the destructor
//! of a payload (`bytes::Bytes::from_owner`); the logger, if the operating system has no random numbers.
//!
//! | what a step has left | who is woken | reason |
//! | --- | --- | --- |
//! | `Work::Owed` | the connection's task, unless it is at work | frames to write, a lifecycle that changed, a clock that began to run |
//! | `Work::OwedToAll` | the connection's task; if there is none, all waiting callers | deadlines that moved, room to read ahead or to decompress, work that is left for the next turn, a broadcast for a connection without a task |
//! | `Receiver` waits, and `can_recv` | the caller in `recv` | a message, room to go on decompressing, the end |
//! | `has_news` | waiting `send`, `flush`, `close`, `closed` | bytes that were written, a backlog that emptied or changed, the last fragment of a message, the end of the handler's poll, the peer's close frame, each stage of the end |
//! | `unlogged` | the log | a failure |
//! | `Account::owed` | another connection of the server | room in the budget for messages; the one that holds most is closed |
//!
//! # What the optimisations gain
//!
//! Each figure is from the commit that added the mechanism; ns are CPU time of the server per message or delivery. Run the
//! command for today's.
//!
//! | mechanism | gain | `benches/run.py` |
//! | --- | --- | --- |
//! | `handler_buffer` and `WireBatch` together: no lock per send, no frame per message | 507 → 302 ns | `--cells 64x16x32` |
//! | a `WireBatch` also for messages that share its memory | 645 → 486 ns at 1 KiB | `--cells 64x1024x32` |
//! | `Received`: all that has arrived leaves under one lock | 302 → 264 ns | `--cells 64x16x32` |
//! | one write when the handler parks | 0.07 system calls per message | `--calls` |
//! | a step that owes no wake-up pays a few comparisons | 6 152 → 5 690 instructions | callgrind, 64 × 16 B × 1 |
//! | a second look at a busy socket (`runtime/socket.rs`) | 0.71 → 0.77 to 0.84 of the raw loop | `--cells 64x16x32` |
//! | `group_write`: one task writes for 64 members | 5 358 → 4 506 ns | `--fanout` |
//! | a timer that remembers whether it went off (`Alarm`) | no clock read and no system call per message | `--calls` |
//! | deadlines that are not looked at before they move (`has_moved`) | at most a fifth of a delivery, with 8 speakers | `--fanout --cells 1000x16x8x1` |
//! | the order of the fields; `prefetch` of eight connections | 890 → 731 ns of user time, with 5 000 members | `--fanout` |
//! | `thread_cache`; rarely used fields are boxed | 2.7 KB for an idle connection | `--idle` |

mod backlog;
#[cfg_attr(
    not(feature = "rooms"),
    expect(dead_code, reason = "rooms alone have use for all of it")
)]
mod broadcast;
mod close;
mod compression;
mod driver;
#[cfg(feature = "rooms")]
mod group_write;
#[cfg(feature = "tungstenite")]
mod hand_over;
mod handler_buffer;
mod heartbeat;
mod held;
mod inbox;
mod read;
mod recv;
mod send;
mod sender;
mod shared;
mod state;
mod stats;
mod thread_cache;
mod timers;
mod wakes;
mod websocket;
mod write;

#[cfg(feature = "rooms")]
pub use self::backlog::SlowConsumer;
#[cfg(feature = "rooms")]
pub(crate) use self::backlog::{Bounds, Delivery};
pub use self::broadcast::PreparedMessage;
#[cfg(feature = "rooms")]
pub(crate) use self::close::close_frame;
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
pub use self::sender::Sender;
#[cfg(any(feature = "accept", feature = "client", feature = "tungstenite"))]
pub(crate) use self::shared::Opened;
pub(crate) use self::shared::Shared;
#[cfg(feature = "server")]
pub(crate) use self::shared::Whose;
pub use self::stats::{CloseInfo, ConnectionId, ConnectionStats, Initiator};
#[cfg(any(feature = "client", feature = "rooms"))]
pub(crate) use self::thread_cache::bytes as random_bytes;
#[cfg(feature = "server")]
pub(crate) use self::thread_cache::with_read_buffer;
pub use self::websocket::WebSocket;
