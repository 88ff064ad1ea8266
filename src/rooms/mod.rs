//! Rooms: groups of connections that all receive what is broadcast.
//!
//! A [`Hub`] has [`Room`]s by name. A [`Membership`] is the place of one connection in a room. A [`Backplane`] lets
//! rooms span processes.

// | file | holds |
// | --- | --- |
// | `room` | a room, its broadcasts, and the membership of a connection |
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
// | lock | holds | taken under it |
// | --- | --- | --- |
// | a shard of `Registry` | names of rooms | none |
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
mod options;
mod payload;
mod presence;
mod publisher;
mod room;
mod roster;
mod tail;

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Weak};

pub use self::backplane::{Backplane, LocalBackplane};
pub use self::options::RoomOptions;
pub use self::presence::{PresenceEvent, PresenceEvents};
use self::publisher::Bridge;
use self::room::Inner;
pub use self::room::{BroadcastReport, Membership, Room};
pub use self::roster::{MemberStats, RoomStats};
pub use crate::connection::SlowConsumer;
use crate::sync::{Mutex, MutexGuard};

/// The number of locks that the names of rooms are spread over.
const SHARDS: usize = 16;

/// The number of names for which a shard may keep memory that is not in use.
const LARGE: usize = 64;

/// Rooms by name. A room is created when it is first asked for, and removed when it is empty and no
/// [`Room`] value is left.
///
/// A hub is cheap to clone. It belongs in the state of a server, or of several servers in one process.
/// Tasks without a connection may use it, too. `U` is the application's data about a member.
///
/// ```no_run
/// use tidewire::{Hub, RequestContext, Server, WebSocketOptions};
///
/// # async fn run() -> tidewire::Result<()> {
/// let mut server = Server::with_state(Hub::new());
/// server.get("/rooms/:name", |mut ctx: RequestContext<Hub>| async move {
///     let room = ctx.state().room(&ctx.param::<String>("name")?);
///     let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
///     let _member = room.join(&ws);
///     while let Some(message) = ws.recv().await? {
///         room.broadcast(message);
///     }
///     Ok(())
/// });
/// server.listen_until("127.0.0.1:8080", tidewire::signals()).await
/// # }
/// ```
pub struct Hub<U = ()>(Arc<Registry<U>>);

/// The rooms of a hub.
struct Registry<U> {
    shards: [Mutex<Rooms<U>>; SHARDS],
    hasher: RandomState,
    options: RoomOptions,
    bridge: Option<Bridge>,
}

/// A room lives as long as a `Room` or a member of it. The last of them removes its entry.
type Rooms<U> = HashMap<Arc<str>, Weak<Inner<U>>>;

impl<U> Hub<U> {
    /// Creates a hub whose rooms have the default [`RoomOptions`].
    #[must_use]
    pub fn new() -> Self {
        Self::with_options(RoomOptions::default())
    }

    /// Creates a hub whose rooms have these options, unless [`room_with`](Self::room_with) sets others.
    #[must_use]
    pub fn with_options(options: RoomOptions) -> Self {
        Self::build(options, None)
    }

    fn build(options: RoomOptions, bridge: Option<Bridge>) -> Self {
        let shards = std::array::from_fn(|_| Mutex::default());
        Self(Arc::new(Registry { shards, hasher: RandomState::new(), options, bridge }))
    }
}

impl<U: Send + Sync + 'static> Hub<U> {
    /// Creates a hub whose rooms span all processes that share the backplane.
    ///
    /// Members receive the broadcasts of all these processes. Each process knows its own members only.
    /// [`Backplane`] lists the promises of both sides.
    #[must_use]
    pub fn with_backplane(backplane: impl Backplane) -> Self {
        Self::build(RoomOptions::default(), Some(Bridge::new(backplane)))
    }

    /// Returns the room of this name. It is created if it does not exist.
    #[must_use]
    pub fn room(&self, name: &str) -> Room<U> {
        self.room_with(name, self.0.options.clone())
    }

    /// Returns the room of this name. If it does not exist, it is created with `options`; a room that
    /// exists keeps its own.
    #[must_use]
    pub fn room_with(&self, name: &str, options: RoomOptions) -> Room<U> {
        self.0.subscribed(self.0.find_or_create(name, options))
    }

    /// Returns the room of this name, if it exists: it has a member, or a [`Room`] of it is left.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Room<U>> {
        self.0.find(name).map(|room| self.0.subscribed(room))
    }

    /// Returns the rooms that have members, sorted by name.
    #[must_use]
    pub fn rooms(&self) -> Vec<Room<U>> {
        let shards = self.0.shards.iter().map(Mutex::lock);
        let mut rooms: Vec<Room<U>> = shards
            .flat_map(|rooms| rooms.values().filter_map(Weak::upgrade).collect::<Vec<_>>())
            .map(|room| self.0.subscribed(room))
            .filter(|room| !room.is_empty())
            .collect();
        rooms.sort_by(|one, other| one.name().cmp(other.name()));
        rooms
    }
}

impl<U: Send + Sync + 'static> Registry<U> {
    fn find_or_create(self: &Arc<Self>, name: &str, options: RoomOptions) -> Arc<Inner<U>> {
        let mut rooms = self.shard(name);
        if let Some(room) = rooms.get(name).and_then(Weak::upgrade) {
            return room;
        }
        let name: Arc<str> = name.into();
        let link = self.bridge.as_ref().map(Bridge::link);
        let room = Inner::new(Arc::clone(&name), options, Arc::downgrade(self), link);
        let room = Arc::new(room);
        rooms.insert(name, Arc::downgrade(&room));
        room
    }

    /// Subscribes the room to the broadcasts of other processes, and returns it. Call it without a lock: a
    /// backplane is code of the application.
    fn subscribed(&self, room: Arc<Inner<U>>) -> Room<U> {
        if let Some(bridge) = &self.bridge {
            bridge.subscribe(&room);
        }
        Room::new(room)
    }
}

impl<U> Registry<U> {
    fn find(&self, name: &str) -> Option<Arc<Inner<U>>> {
        self.shard(name).get(name).and_then(Weak::upgrade)
    }

    fn shard(&self, name: &str) -> MutexGuard<'_, Rooms<U>> {
        let hash = usize::try_from(self.hasher.hash_one(name) % 16).unwrap_or_default();
        // There is a shard for each remainder.
        let [first, ..] = &self.shards;
        self.shards.get(hash).unwrap_or(first).lock()
    }

    /// Removes the entry of a room that is gone.
    fn forget(&self, name: &str) {
        let mut rooms = self.shard(name);
        // Another room of the same name may have been created meanwhile.
        if rooms.get(name).is_some_and(|room| room.strong_count() == 0) {
            rooms.remove(name);
            // Frees memory after many names have gone.
            if rooms.capacity() > LARGE && rooms.len() < rooms.capacity() / 4 {
                let len = rooms.len();
                rooms.shrink_to(2 * len);
            }
        }
    }
}

impl<U> Clone for Hub<U> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<U> Default for Hub<U> {
    fn default() -> Self {
        Self::new()
    }
}

impl<U> fmt::Debug for Hub<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rooms: usize = self.0.shards.iter().map(|shard| shard.lock().len()).sum();
        f.debug_struct("Hub").field("rooms", &rooms).finish_non_exhaustive()
    }
}
