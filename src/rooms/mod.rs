//! Rooms: what is said to one is sent to everybody in it.
//!
//! | file | holds |
//! | --- | --- |
//! | `room` | a room, who is sent what, and the place of a connection in it |
//! | `roster` | its members, and the counters of each |
//! | `presence` | who comes and goes, as a stream |
//! | `options` | how much may wait for a slow member |
//! | `backplane`, `publisher` | rooms that span processes: the seam, and the tasks that serve it |
//! | `payload` | what goes over the seam, as bytes |
//! | `tail` | a channel that keeps the latest items for slow readers |
//! | `condition` | whether something goes well; logged when that changes |
//!
//! A hub knows nothing of frames: what a member is sent goes to its connection, which has its own
//! bounds.
//!
//! # Locks
//!
//! No lock is held across an `await`, and none while code of the application runs: destructors of users
//! (`U`), wakers, backplanes and their streams, loggers, the spawner. So each of these may use the hub. A
//! value of the application is moved out under the lock, and dropped or called after it.
//!
//! | lock | holds | taken under it |
//! | --- | --- | --- |
//! | a shard of `Registry` | names of rooms | none |
//! | `Inner::roster` | members of a room | those of a member's connection, `Line::waiting`, a `Tail` of events |
//! | `Line::waiting` | what is to be published | none |
//! | `RoomFeed::unheard` | whether the room is still to subscribe | none |
//! | `Condition` | since when something fails | none |
//! | topics of a `LocalBackplane` | who subscribes to what | a `Tail` of payloads |
//! | a `Tail` | what was told, and who reads it | none |
//!
//! The lock of the roster is held while all members and the backplane's queue are handed a message, so that
//! all have the same order. No task is woken and nothing is written meanwhile: `GroupWrites` do that afterwards.
//! A connection's own lock is held while its stream is polled, so a stream must not use rooms, nor its
//! connection.

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
pub use self::presence::{Presence, PresenceEvents};
use self::publisher::Bridge;
use self::room::Inner;
pub use self::room::{Broadcast, Membership, Room};
pub use self::roster::{MemberStats, RoomStats};
use crate::sync::{Mutex, MutexGuard};

/// Locks that the names of rooms are spread over.
const SHARDS: usize = 16;

/// Names that one lock may keep memory for although they are not in use.
const LARGE: usize = 64;

/// Rooms by name: created when somebody asks for them, gone when nobody is left.
///
/// A hub is cheap to clone and belongs in the state of a server, or of several in one process; tasks
/// without a connection use it just the same. `U` is what is known of each member.
///
/// ```no_run
/// use tidewire::{Hub, RequestContext, Server, WebSocketOptions};
///
/// # async fn run() -> tidewire::Result<()> {
/// let mut server = Server::with_state(Hub::new());
/// server.get("/rooms/:name", |mut ctx: RequestContext<Hub>| async move {
///     let room = ctx.state().room(ctx.param("name").unwrap_or("lobby"));
///     let mut ws = ctx.upgrade_to_websocket(WebSocketOptions::default()).await?;
///     let _member = room.join(&ws);
///     while let Some(message) = ws.recv().await? {
///         room.broadcast(message);
///     }
///     Ok(())
/// });
/// server.listen("127.0.0.1:8080").await
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

/// Rooms live as long as somebody holds them; the last to go strikes them off.
type Rooms<U> = HashMap<Arc<str>, Weak<Inner<U>>>;

impl<U> Hub<U> {
    /// A hub whose rooms have the default [`RoomOptions`].
    #[must_use]
    pub fn new() -> Self {
        Self::with_options(RoomOptions::default())
    }

    /// A hub whose rooms have these options, unless they are created with others.
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
    /// A hub whose rooms span all processes that share the backplane.
    ///
    /// What is broadcast here is heard there, and the other way round; who is a member is known only
    /// here. [`Backplane`] says what is promised.
    #[must_use]
    pub fn with_backplane(backplane: impl Backplane) -> Self {
        Self::build(RoomOptions::default(), Some(Bridge::new(backplane)))
    }

    /// The room of this name; it is created if nobody is in it or holds it.
    #[must_use]
    pub fn room(&self, name: &str) -> Room<U> {
        self.room_with(name, self.0.options.clone())
    }

    /// As [`room`](Self::room), with options of its own if it is created now: one that exists keeps
    /// those that it has.
    #[must_use]
    pub fn room_with(&self, name: &str, options: RoomOptions) -> Room<U> {
        self.0.subscribed(self.0.find_or_create(name, options))
    }

    /// The room of this name, if somebody is in it or holds it.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Room<U>> {
        self.0.find(name).map(|room| self.0.subscribed(room))
    }

    /// The rooms that somebody is in, by name.
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

    /// The room, which hears what is said in other processes. No lock is held: a backplane is the
    /// application's.
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
        // There are as many as the remainder can be.
        let [first, ..] = &self.shards;
        self.shards.get(hash).unwrap_or(first).lock()
    }

    /// Strikes a room off that nobody holds any more.
    fn forget(&self, name: &str) {
        let mut rooms = self.shard(name);
        // Another one of the same name may have been created meanwhile.
        if rooms.get(name).is_some_and(|room| room.strong_count() == 0) {
            rooms.remove(name);
            // A crowd of names that has gone gives its memory back.
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
