//! The rooms of a hub by name.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Weak};

use super::backplane::Backplane;
use super::keeper::Keeper;
use super::options::RoomOptions;
use super::publisher::Bridge;
use super::room::{Inner, Room};
use super::state::{MakeState, RoomState};
use crate::sync::{Mutex, MutexGuard};

/// The number of locks that the names of rooms are spread over.
const SHARDS: usize = 16;

/// The number of names for which a shard may keep memory that is not in use.
const LARGE: usize = 64;

/// Rooms by name. A room is created when it is first asked for, and removed when it is empty and no
/// [`Room`] value is left.
///
/// A hub is cheap to clone. It belongs in the state of a server, or of several servers in one process.
/// Tasks without a connection may use it, too. `U` is the application's data about a member, and `S` the state of a
/// room: see [`with_rooms`](Self::with_rooms).
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
pub struct Hub<U = (), S = ()>(Arc<Registry<U, S>>);

/// The rooms of a hub.
pub(super) struct Registry<U, S> {
    shards: [Mutex<Rooms<U, S>>; SHARDS],
    hasher: RandomState,
    options: RoomOptions,
    make_state: MakeState<S>,
    bridge: Option<Bridge>,
    /// Rooms that last longer than their members, for their history.
    keeper: Keeper<U, S>,
}

/// A room lives as long as a `Room` or a member of it. The last of them removes its entry.
type Rooms<U, S> = HashMap<Arc<str>, Weak<Inner<U, S>>>;

impl<U> Hub<U> {
    /// Creates a hub whose rooms have the default [`RoomOptions`].
    #[must_use]
    pub fn new() -> Self {
        Self::with_options(RoomOptions::default())
    }

    /// Creates a hub whose rooms have these options, unless [`room_with`](Self::room_with) sets others.
    #[must_use]
    pub fn with_options(options: RoomOptions) -> Self {
        Self::with_rooms_and(options, |_| ())
    }
}

impl<U, S> Hub<U, S> {
    /// Creates a hub whose rooms have a state, which `make` makes from the name of the room. Their options are the default
    /// [`RoomOptions`].
    ///
    /// The state of a room is made once, by the first [`update`](Room::update) or [`join_then`](Room::join_then). It lives
    /// as long as the room, and is dropped with it, on the thread that drops the last
    /// [`Membership`](super::Membership) or [`Room`]; a panic of its destructor is caught. A later room of the same name
    /// has a new state, which may be made before the old one is dropped. To keep a state while the room has no members,
    /// keep the `Room`. A state that holds a `Room` of its own keeps itself.
    ///
    /// `make` runs under a lock of the room, as the closures of `update` do, and must not wait for anything. Load what
    /// the state needs before.
    ///
    /// ```
    /// use tidewire::Hub;
    ///
    /// let hub: Hub<(), Vec<String>> = Hub::with_rooms(|name| vec![format!("welcome to {name}")]);
    /// let room = hub.room("lobby");
    /// room.update(|lines, _| lines.push("it rains".into()))?;
    /// assert_eq!(hub.room("lobby").update(|lines, _| lines.clone())?, ["welcome to lobby", "it rains"]);
    /// drop(room);
    /// assert_eq!(hub.room("lobby").update(|lines, _| lines.len())?, 1, "the room was gone");
    /// # Ok::<(), tidewire::rooms::NestedUpdate>(())
    /// ```
    #[must_use]
    pub fn with_rooms(make: impl Fn(&str) -> S + Send + Sync + 'static) -> Self {
        Self::with_rooms_and(RoomOptions::default(), make)
    }

    /// Creates a hub whose rooms have these options, unless [`room_with`](Self::room_with) sets others, and a state, as
    /// [`with_rooms`](Self::with_rooms) says.
    #[must_use]
    pub fn with_rooms_and(
        options: RoomOptions,
        make: impl Fn(&str) -> S + Send + Sync + 'static,
    ) -> Self {
        Self::build(options, Arc::new(make), None)
    }

    fn build(options: RoomOptions, make_state: MakeState<S>, bridge: Option<Bridge>) -> Self {
        let shards = std::array::from_fn(|_| Mutex::default());
        let hasher = RandomState::new();
        Self(Arc::new(Registry {
            shards,
            hasher,
            options,
            make_state,
            bridge,
            keeper: Keeper::new(),
        }))
    }
}

impl<U: Send + Sync + 'static> Hub<U> {
    /// Creates a hub whose rooms span all processes that share the backplane.
    ///
    /// Members receive the broadcasts of all these processes. Each process knows its own members only.
    /// [`Backplane`] lists the promises of both sides.
    #[must_use]
    pub fn with_backplane(backplane: impl Backplane) -> Self {
        Self::with_backplane_and(backplane, RoomOptions::default(), |_| ())
    }
}

impl<U: Send + Sync + 'static, S: Send + 'static> Hub<U, S> {
    /// Creates a hub whose rooms span all processes that share the backplane, as
    /// [`with_backplane`](Self::with_backplane) does, and have these options and a state, as
    /// [`with_rooms_and`](Self::with_rooms_and) says.
    ///
    /// **The state is not shared**: each process makes its own, and changes it in its own [`update`](Room::update). A
    /// broadcast of another process reaches the members here at any time, also during an update, and changes no state
    /// here. So the state suits what concerns this process alone, such as its own members. What all processes must
    /// agree on belongs in a store that they share, or in the one process that a room's clients are routed to.
    #[must_use]
    pub fn with_backplane_and(
        backplane: impl Backplane,
        options: RoomOptions,
        make: impl Fn(&str) -> S + Send + Sync + 'static,
    ) -> Self {
        Self::build(options, Arc::new(make), Some(Bridge::new(backplane)))
    }

    /// Returns the room of this name. It is created if it does not exist.
    #[must_use]
    pub fn room(&self, name: &str) -> Room<U, S> {
        self.room_with(name, self.0.options.clone())
    }

    /// Returns the room of this name. If it does not exist, it is created with `options`; a room that
    /// exists keeps its own.
    #[must_use]
    pub fn room_with(&self, name: &str, options: RoomOptions) -> Room<U, S> {
        self.0.subscribed(self.0.find_or_create(name, options))
    }

    /// Returns the room of this name, if it exists: it has a member, or a [`Room`] of it is left.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Room<U, S>> {
        self.0.find(name).map(|room| self.0.subscribed(room))
    }

    /// Returns the rooms that have members, sorted by name.
    #[must_use]
    pub fn rooms(&self) -> Vec<Room<U, S>> {
        let shards = self.0.shards.iter().map(Mutex::lock);
        let mut rooms: Vec<Room<U, S>> = shards
            .flat_map(|rooms| rooms.values().filter_map(Weak::upgrade).collect::<Vec<_>>())
            .map(|room| self.0.subscribed(room))
            .filter(|room| !room.is_empty())
            .collect();
        rooms.sort_by(|one, other| one.name().cmp(other.name()));
        rooms
    }
}

impl<U: Send + Sync + 'static, S: Send + 'static> Registry<U, S> {
    fn find_or_create(self: &Arc<Self>, name: &str, options: RoomOptions) -> Arc<Inner<U, S>> {
        let mut rooms = self.shard(name);
        if let Some(room) = rooms.get(name).and_then(Weak::upgrade) {
            return room;
        }
        if options.kept_history().is_some() {
            self.keeper.start(self);
        }
        let name: Arc<str> = name.into();
        let link = self.bridge.as_ref().map(Bridge::link);
        let state = RoomState::new(Arc::clone(&self.make_state));
        let room = Inner::new(Arc::clone(&name), options, state, Arc::downgrade(self), link);
        let room = Arc::new(room);
        rooms.insert(name, Arc::downgrade(&room));
        room
    }

    /// Subscribes the room to the broadcasts of other processes, and returns it. Call it without a lock: a
    /// backplane is code of the application.
    fn subscribed(&self, room: Arc<Inner<U, S>>) -> Room<U, S> {
        if let Some(bridge) = &self.bridge {
            bridge.subscribe(&room);
        }
        Room::new(room)
    }
}

impl<U, S> Registry<U, S> {
    fn find(&self, name: &str) -> Option<Arc<Inner<U, S>>> {
        self.shard(name).get(name).and_then(Weak::upgrade)
    }

    pub(super) fn keeper(&self) -> &Keeper<U, S> {
        &self.keeper
    }

    /// Keeps a room for its history.
    pub(super) fn keep(&self, name: &str) {
        let room = self.find(name);
        if let Some(room) = room {
            self.keeper.keep(room);
        }
    }

    fn shard(&self, name: &str) -> MutexGuard<'_, Rooms<U, S>> {
        let hash = usize::try_from(self.hasher.hash_one(name) % 16).unwrap_or_default();
        // There is a shard for each remainder.
        let [first, ..] = &self.shards;
        self.shards.get(hash).unwrap_or(first).lock()
    }

    /// Removes the entry of a room that is gone.
    pub(super) fn forget(&self, name: &str) {
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

impl<U, S> Clone for Hub<U, S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// Rooms whose state is the default one.
impl<U, S: Default + 'static> Default for Hub<U, S> {
    fn default() -> Self {
        Self::with_rooms(|_| S::default())
    }
}

impl<U, S> fmt::Debug for Hub<U, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rooms: usize = self.0.shards.iter().map(|shard| shard.lock().len()).sum();
        f.debug_struct("Hub").field("rooms", &rooms).finish_non_exhaustive()
    }
}
