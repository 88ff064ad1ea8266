//! Rooms: groups of connections that all receive what is broadcast.
//!
//! A [`Hub`] has [`Room`]s by name. A [`Membership`] is the place of one connection in a room. A room may have a state,
//! such as a board or a history, which lives as long as the room. A [`Backplane`] lets rooms span processes.
//!
//! # Those who come back
//!
//! A connection that is lost takes with it what is said until the client is back. A room with a
//! [`History`] keeps its latest messages, and gives each an offset. The client keeps a
//! [`Position`] as a text, and brings it when it connects again: [`Room::join_from`] then sends it all that it has missed, in
//! order and each message once, and after that what comes; or it says [`Recovery::Lost`], and sends nothing of it, so
//! that the client loads what it shows anew. There is nothing in between: never a part of what was missed.
//!
//! | promise | by |
//! | --- | --- |
//! | `Complete(n)` means that nothing is missing | the offsets: if one is not kept any more, it is `Lost` |
//! | no message twice, none out of order | one lock for the history, the membership and what is broadcast |
//! | a client that has received nothing can come back, too | the position is known when it joins: [`Membership::position`] |
//! | a recovery that is cut off can be made again | the position is the client's, and stays where it was |
//! | the last one to lose its connection finds the room | a room with messages waits for twice their [age](History::age) |
//! | a member that was too slow knows it | it has no position any more: [`Membership::lost_step`] |
//! | a client is not there twice | its old connection is closed: [`History::RESUMED_ELSEWHERE`] |
//!
//! A history is a cache in this process, and no store: it begins anew with the program, and each process has one of its
//! own. With a [`Backplane`], a client that comes back to another process is told `Lost`.
//!
//! # The state of a room
//!
//! [`Hub::with_rooms`] says how the state of a room is made, from its name. [`Room::update`] changes it and broadcasts
//! the change in one step, and [`Room::join_then`] adds a connection and sends it the first messages in one step. So a
//! game, a document or an auction needs no table beside the hub, and no lock of its own:
//!
//! ```no_run
//! use tidewire::{Hub, Message, RequestContext, Server, WebSocketOptions};
//!
//! /// The text of a document.
//! #[derive(Default)]
//! struct Document {
//!     lines: Vec<Message>,
//! }
//!
//! type Documents = Hub<(), Document>;
//!
//! # async fn run() -> tidewire::Result<()> {
//! let mut server = Server::with_state(Documents::with_rooms(|_name| Document::default()));
//! server.get("/documents/:name", |mut ctx: RequestContext<Documents>| async move {
//!     let room = ctx.state().room(&ctx.param::<String>("name")?);
//!     let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
//!     // The document as it is now, and after that each new line once.
//!     let _member = room.join_then(&ws, (), |document, member| {
//!         for line in &document.lines {
//!             member.send(line.clone());
//!         }
//!     })?;
//!     while let Some(line) = ws.recv().await? {
//!         room.update(|document, room| {
//!             document.lines.push(line.clone());
//!             room.broadcast(line);
//!         })?;
//!     }
//!     Ok(())
//! });
//! server.listen_until("127.0.0.1:8080", tidewire::signals()).await
//! # }
//! ```

// | file | holds |
// | --- | --- |
// | `hub` | the rooms by name |
// | `room` | a room and its broadcasts |
// | `membership` | the membership of a connection in a room |
// | `state` | the state of a room, and its changes |
// | `history` | the latest messages of a room, and positions among them |
// | `resume` | the way back into a room: what was missed, or that it is lost |
// | `keeper` | rooms that outlast their members, for their history |
// | `roster` | the members of a room, and the counters of each |
// | `presence` | a stream of the members that come and go |
// | `options` | the bounds for messages that wait for a slow member |
// | `backplane`, `publisher` | rooms that span processes: the trait, and the tasks that serve it |
// | `payload` | the bytes that go over a backplane |
// | `tail` | a channel that keeps the latest items for slow readers |
// | `condition` | conditions that are logged when they change |
//
// A hub knows nothing of frames: it hands a message to the member's connection, which has its own bounds.
//
// # Locks
//
// No lock is held across an `await`, or while code of the application runs: destructors of users (`U`),
// wakers, backplanes and their streams, loggers, the spawner. So each of these may use the hub. A value
// of the application is moved out under the lock, and dropped or called after the lock is released.
//
// `RoomState::value` is the exception: its lock is there for code of the application to run under, namely
// the closures of `update` and `join_then`, and the function that makes the state. It comes first, so these may
// use the hub, and all that `update` calls runs under it as well: destructors of users, wakers. A second
// `update` of the room on the same thread would wait for itself, and is an error instead: `RoomState::updating`
// has the thread that holds the lock. The destructor of the state (`S`) runs after the room is gone, without a
// lock.
//
// | lock | holds | taken under it |
// | --- | --- | --- |
// | `RoomState::value` | the state of a room | all below; that of another room, in an order that the application keeps |
// | a shard of `Registry` | names of rooms | none |
// | `Keeper::kept` | rooms that are kept for their history | `Inner::roster` |
// | `Inner::roster` | members of a room | those of a member's connection, `Line::waiting`, a `Tail` of events |
// | `Line::waiting` | messages to be published | none |
// | `RoomFeed::unheard` | whether the room has still to subscribe | none |
// | `Condition` | the number of failures, and the time of the latest | none |
// | topics of a `LocalBackplane` | the subscribers of each topic | a `Tail` of payloads |
// | a `Tail` | its items and its readers | none |
//
// The lock of the roster is held while a message is handed to all members and to the backplane's queue, so
// that all have the same order. No task is woken and no byte is written meanwhile: `GroupWrites` do that
// afterwards. A connection's own lock is held while its stream is polled, so a stream must not use rooms or
// its connection.

mod backplane;
mod condition;
mod history;
mod hub;
mod keeper;
mod membership;
mod options;
mod payload;
mod presence;
mod publisher;
mod resume;
mod room;
mod roster;
mod state;
mod tail;

pub use self::backplane::{Backplane, LocalBackplane};
pub use self::history::{History, InvalidPosition, Position};
pub use self::hub::Hub;
pub use self::membership::Membership;
pub use self::options::RoomOptions;
pub use self::presence::{PresenceEvent, PresenceEvents};
pub use self::resume::{Recovery, Start};
pub use self::room::{BroadcastReport, Room};
pub use self::roster::{MemberStats, RoomStats};
pub use self::state::NestedUpdate;
pub use crate::connection::SlowConsumer;
