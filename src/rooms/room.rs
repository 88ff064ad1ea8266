//! Rooms: members, broadcasts and memberships.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use serde::Serialize;

use super::Registry;
use super::options::RoomOptions;
use super::presence::{KEPT, PresenceEvent, PresenceEvents};
use super::publisher::RoomFeed;
use super::roster::{MemberStats, RoomStats, Roster};
use super::tail::Tail;
use crate::connection::{
    ConnectionId, Delivery, GroupWrites, PreparedMessage, Sender, charge_turn,
};
use crate::message::Message;
use crate::sync::{Mutex, MutexGuard};

/// Connections that are loaded into the processor's cache side by side.
const PREFETCH: usize = 8;

/// A room of a [`Hub`](super::Hub). All members are sent what is broadcast.
///
/// Clones are handles of the same room. A room lasts as long as a handle or a member of it.
///
/// # Order
///
/// All members in this process see the messages of a room in the same order. If a task broadcasts to a room
/// and sends to one of its members directly, that member receives the messages in the order of the calls.
/// The order of messages of different rooms may differ from member to member.
///
/// With a [`Backplane`](crate::rooms::Backplane) each process has an order of its own: of two messages that are
/// broadcast at the same time in two processes, each process may see its own first. The broadcasts of one
/// process have the same order everywhere.
///
/// # Slow members
///
/// A broadcast never waits. Messages for a member that is behind are kept, up to the bounds of
/// [`RoomOptions`]; the other members are not affected. A message that a handler or a [`Sender`] sends to
/// such a member waits for the broadcasts before it, and not for later ones.
///
/// # Closing
///
/// A close frame goes out after the messages that were broadcast before it, except if a member is closed
/// for being too slow. When the stream of a member fails, its waiting messages are freed at once.
///
/// # Members who never stop speaking
///
/// One message of a peer is work for every member: with a thousand members, 1 MB a second becomes 1 GB.
/// After 32 768 deliveries, where each KiB of a message counts as one more,
/// [`recv`](crate::WebSocket::recv) lets other tasks of the thread run before it returns to the handler.
/// That shares the thread, but does not reduce the work. Set
/// [`rate_limit`](crate::WebSocketOptions::rate_limit) and
/// [`max_message_size`](crate::WebSocketOptions::max_message_size) on routes where strangers speak to a
/// room.
pub struct Room<U = ()>(Arc<Inner<U>>);

pub(super) struct Inner<U> {
    name: Arc<str>,
    /// The number that marks this room's messages in the backlog of a member.
    source: u64,
    options: RoomOptions,
    roster: Mutex<Roster<U>>,
    events: Tail<PresenceEvent<U>>,
    shelf: Weak<Registry<U>>,
    /// The link to the same room in other processes, if the hub has a backplane.
    pub(super) link: Option<RoomFeed>,
}

/// The result of one broadcast: the number of members that will receive it, and of those that will not.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct BroadcastReport {
    /// Members for which the message is queued.
    pub queued: usize,
    /// Members that will not receive it, because they are too slow.
    pub dropped: usize,
    /// Members that this broadcast closed, because they are too slow
    /// ([`SlowConsumer::Close`](crate::rooms::SlowConsumer::Close)).
    pub closed: usize,
    /// Members whose connection has ended, but whose handler still runs.
    pub gone: usize,
}

impl BroadcastReport {
    fn count(&mut self, delivery: Delivery) {
        *match delivery {
            Delivery::Sent | Delivery::Waiting { .. } => &mut self.queued,
            Delivery::Dropped => &mut self.dropped,
            Delivery::Closed => &mut self.closed,
            Delivery::Gone => &mut self.gone,
        } += 1;
    }

    /// The number of members for which the broadcast was work.
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
    fn broadcast(
        &self,
        message: &PreparedMessage,
        except: Option<ConnectionId>,
    ) -> BroadcastReport {
        let mut outgoing = self.link.as_ref().map(|link| link.prepare(&self.name, message));
        // Before the guard of the roster: also if a payload's destructor panics, they come after its lock.
        let mut writers = GroupWrites::among(0);
        let mut roster = self.roster();
        let broadcast = self.hand_out(&mut roster, message, except, &mut writers);
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

    /// Hands a message of another process to all members. Returns the number for which it was work.
    pub(super) fn deliver(&self, message: &PreparedMessage) -> usize {
        let mut writers = GroupWrites::among(0);
        let mut roster = self.roster();
        let broadcast = self.hand_out(&mut roster, message, None, &mut writers);
        drop(roster);
        writers.start();
        broadcast.reached()
    }

    /// Hands the message to all members but one. The caller starts the writers after the lock: they wake and
    /// spawn tasks.
    fn hand_out(
        &self,
        roster: &mut Roster<U>,
        message: &PreparedMessage,
        except: Option<ConnectionId>,
        writers: &mut GroupWrites,
    ) -> BroadcastReport {
        let mut broadcast = BroadcastReport::default();
        writers.reserve(roster.len());
        roster.stats.messages += 1;
        let (mut members, mut next) = (roster.iter_mut(), Vec::with_capacity(PREFETCH));
        loop {
            next.extend(members.by_ref().take(PREFETCH));
            if next.is_empty() {
                break;
            }
            // Connections of thousands of members are not in the cache: they are loaded side by side.
            for (_, member) in &next {
                member.prefetch();
            }
            let others = next.drain(..).filter(|(id, _)| Some(*id) != except);
            for (_, member) in others {
                broadcast.count(member.deliver(self.source, message, writers));
            }
        }
        drop((members, next));
        roster.stats.closed += u64::try_from(broadcast.closed).unwrap_or_default();
        broadcast
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
        let joined = self.events.tell(PresenceEvent::Joined(id, Arc::clone(user)));
        drop(roster);
        // Without the lock: destructors of users and wakers of watchers are code of the application.
        drop((left, joined, before));
        generation
    }

    pub(super) fn leave(&self, id: ConnectionId, generation: u64) {
        let mut roster = self.roster();
        let member = roster.leave(id, generation);
        // Under the lock, so that watchers see joins and leaves in their order.
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

    /// The name of the room.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Adds a connection to the room, without presence data.
    ///
    /// `ws` is a `&WebSocket` or a [`Sender`]. The connection leaves when the returned value is dropped. Keep
    /// that value in the handler, so that the connection leaves when the handler ends in any way. A
    /// connection may be in many rooms. If it joins a room again, the earlier membership ends.
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

    /// Adds a connection to the room, with presence data about it. Otherwise like [`join`](Self::join).
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

    /// Adds a connection with options of its own, in place of the room's. Otherwise like
    /// [`join`](Self::join).
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

    /// Sends a message to all members of the room, and to the same room of other hubs if there is a
    /// [`Backplane`](crate::rooms::Backplane).
    ///
    /// The message is queued for each member before this returns. It is encoded once, and compressed once
    /// for all members that agreed on the same parameters (RFC 7692 §7.1). Both happen on this thread and
    /// without a pause: see [`DeflateOptions::level`](crate::deflate::DeflateOptions::level) for the cost. Tasks in
    /// the background write the queued messages, each task for many members, and all messages that were
    /// broadcast meanwhile at once.
    ///
    /// ```
    /// use tidewire::{Hub, Room};
    ///
    /// let room: Room = Hub::new().room("lobby");
    /// let broadcast = room.broadcast("the doors are open");
    /// assert_eq!(broadcast.queued, 0, "nobody is here yet");
    /// assert_eq!(room.stats().messages, 1);
    /// ```
    pub fn broadcast(&self, message: impl Into<PreparedMessage>) -> BroadcastReport {
        self.0.broadcast(&message.into(), None)
    }

    /// Sends a value as JSON, in a text message, to all members. Otherwise like [`broadcast`](Self::broadcast).
    ///
    /// ```
    /// use tidewire::{Hub, Room};
    ///
    /// let room: Room = Hub::new().room("lobby");
    /// room.broadcast_json(&["the doors", "are open"])?;
    /// # Ok::<(), tidewire::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Serialize`](crate::Error::Serialize) if the value cannot be written as JSON; nothing is sent then.
    pub fn broadcast_json<T: Serialize + ?Sized>(
        &self,
        value: &T,
    ) -> crate::Result<BroadcastReport> {
        Ok(self.broadcast(Message::json(value)?))
    }

    /// Sends a message to all members but one. Otherwise like [`broadcast`](Self::broadcast).
    pub fn broadcast_except(
        &self,
        except: ConnectionId,
        message: impl Into<PreparedMessage>,
    ) -> BroadcastReport {
        self.0.broadcast(&message.into(), Some(except))
    }

    /// Sends a message to one member; false if that is not in the room, too slow, or gone.
    ///
    /// The message keeps its order among the broadcasts of the room. If the member is too slow, it may be
    /// dropped or replaced as they are.
    pub fn send_to(&self, id: ConnectionId, message: impl Into<PreparedMessage>) -> bool {
        let delivery = self.0.deliver_to(id, &message.into());
        matches!(delivery, Some(Delivery::Sent | Delivery::Waiting { .. }))
    }

    /// The members of the room, in the order in which their connections were opened.
    #[must_use]
    pub fn members(&self) -> Vec<(ConnectionId, Arc<U>)> {
        self.0.roster().users()
    }

    /// The number of members.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.roster().len()
    }

    /// Whether the room has no members.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The counters of the room since it was created.
    #[must_use]
    pub fn stats(&self) -> RoomStats {
        self.0.roster().stats()
    }

    /// Returns the members, as [`members`](Self::members) does, and a stream of all changes from exactly
    /// then on. No change is missed, and none appears twice.
    ///
    /// Call it again after [`PresenceEvent::Lagged`].
    ///
    /// ```
    /// use futures::StreamExt;
    /// use tidewire::Room;
    /// use tidewire::rooms::PresenceEvent;
    ///
    /// # async fn watch(room: Room<String>) {
    /// let (members, mut events) = room.watch();
    /// let mut here: Vec<_> = members.into_iter().map(|(id, _)| id).collect();
    /// while let Some(event) = events.next().await {
    ///     match event {
    ///         PresenceEvent::Joined(id, _) => here.push(id),
    ///         PresenceEvent::Left(id, _) => here.retain(|one| *one != id),
    ///         PresenceEvent::Lagged(_) => {
    ///             let (members, later) = room.watch();
    ///             here = members.into_iter().map(|(id, _)| id).collect();
    ///             events = later;
    ///         }
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

    /// Returns a stream of the members that join and leave from now on. [`watch`](Self::watch) returns the
    /// current members, too.
    ///
    /// ```
    /// # use futures::StreamExt;
    /// # use tidewire::Room;
    /// # use tidewire::rooms::PresenceEvent;
    /// # async fn watch(room: Room<String>) {
    /// let mut events = room.events();
    /// drop(room);
    /// while let Some(event) = events.next().await {
    ///     match event {
    ///         PresenceEvent::Joined(_, name) => println!("{name} comes"),
    ///         PresenceEvent::Left(_, name) => println!("{name} goes"),
    ///         PresenceEvent::Lagged(missed) => println!("{missed} came or went"),
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

/// The membership of a connection in a [`Room`]. Dropping it makes the connection leave.
///
/// Keep it in the handler: it is then dropped when the handler returns, fails, panics, or is dropped with
/// its task. Messages that were broadcast before are still sent. A membership keeps its room alive.
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

    /// The id of the connection.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// The presence data of the connection.
    #[must_use]
    pub fn user(&self) -> &Arc<U> {
        &self.user
    }

    /// The room.
    #[must_use]
    pub fn room(&self) -> Room<U> {
        Room::new(Arc::clone(&self.room))
    }

    /// The counters of this member since it joined. All are zero once the connection has joined the room
    /// again.
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
