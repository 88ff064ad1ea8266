//! A room: its members, and who is sent what.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use super::Registry;
use super::options::RoomOptions;
use super::presence::{KEPT, Presence, PresenceEvents};
use super::publisher::RoomFeed;
use super::roster::{MemberStats, RoomStats, Roster};
use super::tail::Tail;
use crate::connection::{
    ConnectionId, Delivery, GroupWrites, PreparedMessage, Sender, charge_turn,
};
use crate::sync::{Mutex, MutexGuard};

/// A room of a [`Hub`](super::Hub): whoever has joined is sent what is broadcast.
///
/// Clones are the same room. It lasts as long as somebody holds it or is in it.
///
/// # Order
///
/// All members in this process see the messages of a room in one order. What a task broadcasts and what
/// it sends to a member directly arrives there in the order of its calls. Nothing is promised about the
/// order of messages of different rooms at different members.
///
/// With a [`Backplane`](crate::Backplane) each process has such an order, and they need not be the same:
/// of two messages that are broadcast at the same time in two processes, each process may have its own
/// first. Those of one process are in one order everywhere.
///
/// # Slow members
///
/// A broadcast never waits: what a member is too slow for is kept up to the bounds of
/// [`RoomOptions`], and no other member notices. What a handler or a [`Sender`] sends to such a member
/// waits for the broadcasts before it, and for none that come later.
///
/// # Closing
///
/// A close frame follows what was broadcast before it, except where a member is closed for being too
/// slow. When the stream of a member fails, what waits for it is freed at once.
///
/// # Members who never stop speaking
///
/// One message of a peer is work for every member: with a thousand members 1 MB a second becomes a
/// gigabyte. A broadcast counts against the turn of its handler: after 32 768 deliveries, where each KiB of a
/// message counts as one more, [`recv`](crate::WebSocket::recv) lets other tasks of the thread go on. That
/// shares the thread, but saves no work. Set [`rate_limit`](crate::WebSocketOptions::rate_limit) and
/// [`max_message_size`](crate::WebSocketOptions::max_message_size) on routes where strangers speak to a room.
pub struct Room<U = ()>(Arc<Inner<U>>);

pub(super) struct Inner<U> {
    name: Arc<str>,
    /// Tells this room's messages apart in the backlog of a member.
    source: u64,
    options: RoomOptions,
    roster: Mutex<Roster<U>>,
    events: Tail<Presence<U>>,
    shelf: Weak<Registry<U>>,
    /// To the same room in other processes, if the hub has a backplane.
    pub(super) link: Option<RoomFeed>,
}

/// What became of one broadcast: how many members will be sent it, or why not.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Broadcast {
    /// Members that will be sent it.
    pub queued: usize,
    /// Members that will not, because they are too slow.
    pub dropped: usize,
    /// Members that are closed now, because they are too slow
    /// ([`SlowConsumer::Close`](crate::SlowConsumer::Close)).
    pub closed: usize,
    /// Members whose connection had ended, and whose handler has not yet.
    pub gone: usize,
}

impl Broadcast {
    fn count(&mut self, delivery: Delivery) {
        *match delivery {
            Delivery::Sent | Delivery::Waiting { .. } => &mut self.queued,
            Delivery::Dropped => &mut self.dropped,
            Delivery::Closed => &mut self.closed,
            Delivery::Gone => &mut self.gone,
        } += 1;
    }

    /// The number of members that it was work for.
    fn reached(&self) -> usize {
        self.queued.saturating_add(self.dropped).saturating_add(self.closed)
    }
}

impl<U> Inner<U> {
    pub(super) fn new(
        name: Arc<str>,
        options: RoomOptions,
        shelf: Weak<Registry<U>>,
        link: Option<RoomFeed>,
    ) -> Self {
        static SOURCES: AtomicU64 = AtomicU64::new(0);
        Self {
            name,
            source: SOURCES.fetch_add(1, Ordering::Relaxed),
            options,
            roster: Mutex::default(),
            events: Tail::new(KEPT),
            shelf,
            link,
        }
    }

    fn roster(&self) -> MutexGuard<'_, Roster<U>> {
        self.roster.lock()
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Hands a message of this process to all members but one, and to the backplane.
    fn broadcast(&self, message: &PreparedMessage, except: Option<ConnectionId>) -> Broadcast {
        let mut outgoing = self.link.as_ref().map(|link| link.prepare(&self.name, message));
        let mut roster = self.roster();
        let (broadcast, writers) = self.hand_out(&mut roster, message, except);
        if let Some(outgoing) = &mut outgoing {
            outgoing.queue();
        }
        drop(roster);
        if let Some(outgoing) = outgoing {
            outgoing.announce();
        }
        writers.start();
        charge_turn(broadcast.reached(), message.len());
        broadcast
    }

    /// Hands a message of another process to all members; the number of those it was work for.
    pub(super) fn deliver(&self, message: &PreparedMessage) -> usize {
        let mut roster = self.roster();
        let (broadcast, writers) = self.hand_out(&mut roster, message, None);
        drop(roster);
        writers.start();
        broadcast.reached()
    }

    /// Hands the message to all members but one. Start the writers without the lock: they wake tasks, and
    /// spawn some.
    fn hand_out(
        &self,
        roster: &mut Roster<U>,
        message: &PreparedMessage,
        except: Option<ConnectionId>,
    ) -> (Broadcast, GroupWrites) {
        let mut broadcast = Broadcast::default();
        let mut writers = GroupWrites::among(roster.len());
        roster.stats.messages += 1;
        for (id, member) in roster.iter_mut() {
            if Some(id) != except {
                broadcast.count(member.deliver(self.source, message, &mut writers));
            }
        }
        roster.stats.closed += u64::try_from(broadcast.closed).unwrap_or_default();
        (broadcast, writers)
    }

    /// Hands the message to one member; `None` if it is not in the room.
    fn deliver_to(&self, id: ConnectionId, message: &PreparedMessage) -> Option<Delivery> {
        let mut writers = GroupWrites::among(1);
        let mut roster = self.roster();
        let delivery = roster.get_mut(id)?.deliver(self.source, message, &mut writers);
        roster.stats.messages += 1;
        roster.stats.closed += u64::from(delivery == Delivery::Closed);
        drop(roster);
        writers.start();
        charge_turn(1, message.len());
        Some(delivery)
    }

    fn enter(&self, sender: &Sender, user: &Arc<U>, options: &RoomOptions) -> u64 {
        let (id, shared) = (sender.id(), Arc::clone(sender.shared()));
        let mut roster = self.roster();
        let (generation, before) = roster.enter(shared, Arc::clone(user), options.bounds());
        let left = before.as_ref().map(|member| self.events.tell(member.left(id)));
        let joined = self.events.tell(Presence::Joined(id, Arc::clone(user)));
        drop(roster);
        // Without the lock: destructors of users and wakers of watchers are the application's.
        drop((left, joined, before));
        generation
    }

    pub(super) fn leave(&self, id: ConnectionId, generation: u64) {
        let mut roster = self.roster();
        let member = roster.leave(id, generation);
        // Under the lock, so that who watches sees comings and goings in their order.
        let left = member.as_ref().map(|member| self.events.tell(member.left(id)));
        drop(roster);
        drop((left, member));
    }

    pub(super) fn member_stats(&self, id: ConnectionId, generation: u64) -> Option<MemberStats> {
        let roster = self.roster();
        roster.get(id).filter(|member| member.generation == generation).map(|member| member.stats)
    }
}

impl<U> Room<U> {
    pub(super) fn new(inner: Arc<Inner<U>>) -> Self {
        Self(inner)
    }

    /// What the room is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Enters a connection, about which nothing more is to be known.
    ///
    /// `ws` is a `&WebSocket` or a [`Sender`]. It leaves when the returned value is dropped, which
    /// belongs in the handler, so that it happens however that ends. A connection may be in many rooms;
    /// if it joins one again, the earlier membership ends.
    ///
    /// ```
    /// # use tidewire::{Room, WebSocket};
    /// # async fn handler(room: Room, mut ws: WebSocket) -> tidewire::Result<()> {
    /// let _member = room.join(&ws);
    /// while let Some(message) = ws.recv().await? {
    ///     room.broadcast(message);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "dropped, the connection leaves at once"]
    pub fn join(&self, ws: impl Into<Sender>) -> Membership<U>
    where
        U: Default,
    {
        self.join_with(ws, U::default())
    }

    /// Enters a connection, with what is to be known of it; else as [`join`](Self::join).
    ///
    /// ```
    /// # use tidewire::{Room, WebSocket};
    /// # async fn handler(room: Room<String>, ws: WebSocket, name: String) {
    /// let member = room.join_with(&ws, name);
    /// for (id, name) in room.members() {
    ///     println!("{name} is here, over connection {id}");
    /// }
    /// room.broadcast_except(member.id(), format!("{} comes in", member.user()));
    /// # }
    /// ```
    #[must_use = "dropped, the connection leaves at once"]
    pub fn join_with(&self, ws: impl Into<Sender>, user: U) -> Membership<U> {
        self.join_with_options(ws, user, &self.0.options)
    }

    /// Enters a connection that is treated another way than the others in the room when it is slow;
    /// else as [`join`](Self::join).
    #[must_use = "dropped, the connection leaves at once"]
    pub fn join_with_options(
        &self,
        ws: impl Into<Sender>,
        user: U,
        options: &RoomOptions,
    ) -> Membership<U> {
        let (sender, user): (Sender, _) = (ws.into(), Arc::new(user));
        let generation = self.0.enter(&sender, &user, options);
        Membership::new(Arc::clone(&self.0), sender.id(), generation, user)
    }

    /// Sends a message to everybody in the room, and to the same room of other hubs if there is a
    /// [`Backplane`](crate::Backplane).
    ///
    /// It is encoded once, and compressed once for all members that agreed on the same parameters (RFC
    /// 7692 §7.1), on this thread and without a pause: see
    /// [`DeflateOptions::level`](crate::DeflateOptions::level) for what that costs. Nothing is written
    /// here: tasks in the background do that, each for many members, and all at once that was broadcast
    /// meanwhile.
    ///
    /// ```
    /// use tidewire::{Hub, Room};
    ///
    /// let room: Room = Hub::new().room("lobby");
    /// let broadcast = room.broadcast("the doors are open");
    /// assert_eq!(broadcast.queued, 0, "nobody is here yet");
    /// assert_eq!(room.stats().messages, 1);
    /// ```
    pub fn broadcast(&self, message: impl Into<PreparedMessage>) -> Broadcast {
        self.0.broadcast(&message.into(), None)
    }

    /// Sends a message to everybody in the room but one; else as [`broadcast`](Self::broadcast).
    pub fn broadcast_except(
        &self,
        except: ConnectionId,
        message: impl Into<PreparedMessage>,
    ) -> Broadcast {
        self.0.broadcast(&message.into(), Some(except))
    }

    /// Sends a message to one member; false if it is not in the room, too slow, or gone.
    ///
    /// It keeps its place among the broadcasts of the room, and may be left out or replaced as they
    /// are.
    pub fn send_to(&self, id: ConnectionId, message: impl Into<PreparedMessage>) -> bool {
        let delivery = self.0.deliver_to(id, &message.into());
        matches!(delivery, Some(Delivery::Sent | Delivery::Waiting { .. }))
    }

    /// Who is in the room, in the order in which their connections were opened.
    #[must_use]
    pub fn members(&self) -> Vec<(ConnectionId, Arc<U>)> {
        self.0.roster().users()
    }

    /// How many are in the room.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.roster().len()
    }

    /// Is nobody in the room?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What passed through the room since it was created.
    #[must_use]
    pub fn stats(&self) -> RoomStats {
        self.0.roster().stats()
    }

    /// The members, as [`members`](Self::members) returns them, and all comings and goings from exactly then
    /// on: none is missed and none is told twice.
    ///
    /// Call it again after [`Presence::Lagged`].
    ///
    /// ```
    /// use futures::StreamExt;
    /// use tidewire::{Presence, Room};
    ///
    /// # async fn watch(room: Room<String>) {
    /// let (members, mut events) = room.watch();
    /// let mut here: Vec<_> = members.into_iter().map(|(id, _)| id).collect();
    /// while let Some(event) = events.next().await {
    ///     match event {
    ///         Presence::Joined(id, _) => here.push(id),
    ///         Presence::Left(id, _) => here.retain(|one| *one != id),
    ///         Presence::Lagged(_) => {
    ///             let (members, later) = room.watch();
    ///             here = members.into_iter().map(|(id, _)| id).collect();
    ///             events = later;
    ///         }
    ///         _ => {}
    ///     }
    ///     println!("{} are here", here.len());
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn watch(&self) -> (Vec<(ConnectionId, Arc<U>)>, PresenceEvents<U>) {
        let roster = self.0.roster();
        (roster.users(), self.events())
    }

    /// Who comes and goes, from now on. [`watch`](Self::watch) returns the members as well.
    ///
    /// ```
    /// # use futures::StreamExt;
    /// # use tidewire::{Presence, Room};
    /// # async fn watch(room: Room<String>) {
    /// let mut events = room.events();
    /// drop(room);
    /// while let Some(event) = events.next().await {
    ///     match event {
    ///         Presence::Joined(_, name) => println!("{name} comes"),
    ///         Presence::Left(_, name) => println!("{name} goes"),
    ///         Presence::Lagged(missed) => println!("{missed} came or went"),
    ///         _ => {}
    ///     }
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn events(&self) -> PresenceEvents<U> {
        PresenceEvents::new(self.0.events.reader())
    }
}

impl<U> Drop for Inner<U> {
    fn drop(&mut self) {
        if let Some(shelf) = self.shelf.upgrade() {
            shelf.forget(&self.name);
        }
    }
}

impl<U> Clone for Room<U> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<U> fmt::Debug for Room<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room")
            .field("name", &self.name())
            .field("members", &self.len())
            .finish_non_exhaustive()
    }
}

/// The place of a connection in a [`Room`]; dropped, the connection has left.
///
/// Held in the handler, it goes with it: when that returns, fails, panics, or is dropped with its task.
/// What was broadcast before is still sent. The room lasts at least as long.
pub struct Membership<U = ()> {
    room: Arc<Inner<U>>,
    id: ConnectionId,
    generation: u64,
    user: Arc<U>,
}

impl<U> Membership<U> {
    pub(super) fn new(
        room: Arc<Inner<U>>,
        id: ConnectionId,
        generation: u64,
        user: Arc<U>,
    ) -> Self {
        Self { room, id, generation, user }
    }

    /// The connection.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// What the room knows of the connection.
    #[must_use]
    pub fn user(&self) -> &Arc<U> {
        &self.user
    }

    /// The room.
    #[must_use]
    pub fn room(&self) -> Room<U> {
        Room::new(Arc::clone(&self.room))
    }

    /// What this member was sent since it joined; zeros once the connection has joined the room again.
    #[must_use]
    pub fn stats(&self) -> MemberStats {
        self.room.member_stats(self.id, self.generation).unwrap_or_default()
    }
}

impl<U> Drop for Membership<U> {
    fn drop(&mut self) {
        self.room.leave(self.id, self.generation);
    }
}

impl<U> fmt::Debug for Membership<U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership")
            .field("room", &self.room.name())
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
