//! Rooms: members and broadcasts.

use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::history::{History, Log, Position, random};
use super::hub::Registry;
use super::options::RoomOptions;
use super::presence::{KEPT, PresenceEvent, PresenceEvents};
use super::publisher::RoomFeed;
use super::resume::{Recovery, Start};
use super::roster::{Aftermath, Entered, Member, MemberStats, RoomStats, Roster, Track};
use super::state::{NestedUpdate, RoomState};
use super::tail::{Tail, Told};
use crate::connection::{
    ConnectionId, Delivery, GroupWrites, PreparedMessage, Sender, charge_turn, close_frame,
};
use crate::message::Message;
use crate::proto::{CloseCode, CloseFrame, ProtocolError};
use crate::runtime::Clock;
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
/// After 163 840 deliveries, where each KiB of a message counts as one more,
/// [`recv`](crate::WebSocket::recv) lets other tasks of the thread run before it returns to the handler.
/// That shares the thread, but does not reduce the work. Set
/// [`rate_limit`](crate::WebSocketOptions::rate_limit) and
/// [`max_message_size`](crate::WebSocketOptions::max_message_size) on routes where strangers speak to a
/// room.
pub struct Room<U = (), S = ()>(pub(super) Arc<Inner<U, S>>);

pub(super) struct Inner<U, S> {
    name: Arc<str>,
    /// The number that marks this room's messages in the backlog of a member.
    source: u64,
    pub(super) options: RoomOptions,
    roster: Mutex<Roster<U>>,
    events: Tail<PresenceEvent<U>>,
    pub(super) state: RoomState<S>,
    shelf: Weak<Registry<U, S>>,
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
    /// The place behind the message, if the room has a [history](crate::rooms::RoomOptions::history).
    pub position: Option<Position>,
}

/// A broadcast has come meanwhile.
pub(super) struct Moved;

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

impl<U, S> Inner<U, S> {
    pub(super) fn new(
        name: Arc<str>,
        options: RoomOptions,
        state: RoomState<S>,
        shelf: Weak<Registry<U, S>>,
        link: Option<RoomFeed>,
    ) -> Self {
        static SOURCES: AtomicU64 = AtomicU64::new(0);
        let log = options.kept_history().map(Log::new);
        Self {
            name,
            source: SOURCES.fetch_add(1, Ordering::Relaxed),
            options,
            roster: Mutex::new(Roster::new(log)),
            events: Tail::new(KEPT),
            state,
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
        let (mut writers, mut after) = (GroupWrites::among(0), Aftermath::default());
        let mut roster = self.roster();
        let broadcast = self.hand_out(&mut roster, message, except, &mut writers, &mut after);
        if let Some(outgoing) = &mut outgoing {
            outgoing.queue();
        }
        let is_to_be_kept = roster.is_to_be_kept();
        drop(roster);
        if let Some(outgoing) = outgoing {
            outgoing.announce();
        }
        if is_to_be_kept {
            self.keep();
        }
        writers.start();
        after.settle();
        charge_turn(broadcast.reached(), message.len());
        broadcast
    }

    /// Hands a message of another process to all members. Returns the number for which it was work.
    pub(super) fn deliver(&self, message: &PreparedMessage) -> usize {
        let (mut writers, mut after) = (GroupWrites::among(0), Aftermath::default());
        let mut roster = self.roster();
        let broadcast = self.hand_out(&mut roster, message, None, &mut writers, &mut after);
        let is_to_be_kept = roster.is_to_be_kept();
        drop(roster);
        if is_to_be_kept {
            self.keep();
        }
        writers.start();
        after.settle();
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
        after: &mut Aftermath,
    ) -> BroadcastReport {
        let mut broadcast = BroadcastReport::default();
        writers.reserve(roster.len());
        roster.stats.messages += 1;
        if let Some(log) = &mut roster.log {
            log.push(message, Clock::default().now(), &mut after.gone);
            broadcast.position = Some(log.position());
        }
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
                broadcast.count(member.deliver(self.source, message, writers, after));
            }
        }
        drop((members, next));
        roster.stats.closed += u64::try_from(broadcast.closed).unwrap_or_default();
        broadcast
    }

    /// Hands the message to one member; `None` if it is not in the room, or not by this membership if one is given.
    pub(super) fn deliver_to(
        &self,
        id: ConnectionId,
        generation: Option<u64>,
        message: &PreparedMessage,
    ) -> Option<Delivery> {
        let (mut writers, mut after) = (GroupWrites::among(1), Aftermath::default());
        let mut roster = self.roster();
        let is_meant =
            |member: &&mut Member<U>| generation.is_none_or(|it| it == member.generation);
        let member = roster.get_mut(id).filter(is_meant)?;
        let delivery = member.deliver_alone(self.source, message, &mut writers, &mut after);
        roster.stats.messages += 1;
        roster.stats.closed += u64::from(delivery == Delivery::Closed);
        drop(roster);
        writers.start();
        after.settle();
        charge_turn(1, message.len());
        Some(delivery)
    }

    /// As [`deliver_to`](Self::deliver_to), if `position` still is the latest.
    pub(super) fn deliver_at(
        &self,
        id: ConnectionId,
        generation: u64,
        position: Position,
        message: &PreparedMessage,
    ) -> Result<Option<Delivery>, Moved> {
        let (mut writers, mut after) = (GroupWrites::among(1), Aftermath::default());
        let mut roster = self.roster();
        let top = roster.log.as_ref().map(Log::position);
        if top.is_none_or(|top| top.offset != position.offset) {
            return Err(Moved);
        }
        let is_meant = |member: &&mut Member<U>| member.generation == generation;
        let delivery = roster
            .get_mut(id)
            .filter(is_meant)
            .map(|member| member.deliver_alone(self.source, message, &mut writers, &mut after));
        drop(roster);
        writers.start();
        after.settle();
        Ok(delivery)
    }

    pub(super) fn enter(&self, sender: &Sender, user: &Arc<U>, options: &RoomOptions) -> Entered {
        let (id, shared) = (sender.id(), Arc::clone(sender.shared()));
        let mut roster = self.roster();
        let (entered, before) = roster.enter(shared, Arc::clone(user), options.bounds(), random());
        let left = before.as_ref().map(|member| self.events.tell(member.left(id)));
        let joined = self.events.tell(PresenceEvent::Joined(id, Arc::clone(user)));
        drop(roster);
        // Without the lock: destructors of users and wakers of watchers are code of the application.
        drop((left, joined, before));
        entered
    }

    /// What a member that begins there would be told: whether all that it has missed is there, and the position behind it.
    pub(super) fn outlook(&self, start: Start) -> (Recovery, Option<Position>) {
        let mut after = Aftermath::default();
        let mut roster = self.roster();
        roster.trim(&mut after);
        let (recovery, _) = roster.missed_by(start);
        let position = roster.log.as_ref().map(Log::position);
        drop(roster);
        (recovery, position)
    }

    /// Adds a member, and hands it a greeting, if there is one, and what it has missed, under one lock: nothing comes in
    /// between. The greeting is for this recovery and this position; if they are others meanwhile, nothing is done.
    pub(super) fn enter_from(
        &self,
        sender: &Sender,
        user: &Arc<U>,
        (start, token): (Start, u64),
        greeting: Option<(Recovery, Option<Position>, &PreparedMessage)>,
    ) -> Result<(Entered, Recovery), Moved> {
        let (id, shared) = (sender.id(), Arc::clone(sender.shared()));
        let (mut writers, mut after) = (GroupWrites::among(1), Aftermath::default());
        // Declared before the guard, so dropped after it.
        let mut handed = Vec::new();
        let mut roster = self.roster();
        roster.trim(&mut after);
        let (recovery, missed) = roster.missed_by(start);
        if let Some((expected, position, message)) = greeting {
            if expected != recovery || position != roster.log.as_ref().map(Log::position) {
                return Err(Moved);
            }
            handed.push(message.clone());
        }
        handed.extend(missed);
        let owner = match start {
            Start::After(position) => roster.owner_of(position).map(Member::shared),
            Start::Now | Start::Latest(_) => None,
        };
        let owner = owner.filter(|owner| owner.connection_id() != id);
        let bounds = self.options.bounds();
        let (entered, before) = roster.enter(shared, Arc::clone(user), bounds, token);
        let left = before.as_ref().map(|member| self.events.tell(member.left(id)));
        let joined = self.events.tell(PresenceEvent::Joined(id, Arc::clone(user)));
        if let Some(member) = roster.get_mut(id).filter(|_| !handed.is_empty()) {
            member.replay(self.source, &handed, &mut writers);
        }
        drop(roster);
        writers.start();
        if let Some(owner) = owner {
            let code = CloseCode::try_from(History::RESUMED_ELSEWHERE);
            let code = code.unwrap_or(CloseCode::POLICY_VIOLATION);
            owner.start_close(CloseFrame::lossy(code, "resumed elsewhere"));
        }
        drop((left, joined, before));
        after.settle();
        Ok((entered, recovery))
    }

    pub(super) fn position(&self) -> Option<Position> {
        self.roster().log.as_ref().map(Log::position)
    }

    /// The position of a member that has been handed every message.
    pub(super) fn position_of(&self, track: &Track) -> Option<Position> {
        let roster = self.roster();
        let position = roster.log.as_ref()?.position();
        // Under the lock, under which a step is lost.
        (!track.step.is_lost()).then_some(Position { member: track.token, ..position })
    }

    pub(super) fn forget(&self, position: Position) -> bool {
        let mut roster = self.roster();
        let message = roster.log.as_mut().and_then(|log| log.forget(position));
        drop(roster);
        message.is_some()
    }

    /// Has the hub keep this room for its history.
    fn keep(&self) {
        if let Some(registry) = self.shelf.upgrade() {
            registry.keep(&self.name);
        }
    }

    /// Lets go of messages that are too old; true if the room itself need not be kept any more.
    pub(super) fn let_go_of_old(&self, now: Instant, gone: &mut Vec<PreparedMessage>) -> bool {
        let mut roster = self.roster();
        let Some(log) = &mut roster.log else { return true };
        log.trim(now, gone);
        let time = log.options().keeps_room_for();
        let since = log.latest().and_then(|latest| now.checked_duration_since(latest));
        let is_over = since.is_none_or(|since| since >= time);
        roster.is_kept = !is_over;
        is_over
    }

    /// How long the room is kept after its latest message.
    pub(super) fn keeps_for(&self) -> Option<Duration> {
        self.options.kept_history().map(|history| history.keeps_room_for())
    }

    pub(super) fn leave(&self, id: ConnectionId, generation: u64) {
        let mut roster = self.roster();
        let member = roster.leave(id, generation);
        // Under the lock, so that watchers see joins and leaves in their order.
        let left = member.as_ref().map(|member| self.events.tell(member.left(id)));
        drop(roster);
        drop((left, member));
    }

    /// Replaces the data of a member; `None` if its connection has joined again since. Drop the returned values without a
    /// lock.
    pub(super) fn set(
        &self,
        id: ConnectionId,
        generation: u64,
        user: &Arc<U>,
    ) -> Option<(Told<PresenceEvent<U>>, Arc<U>)> {
        let mut roster = self.roster();
        let member = roster.get_mut(id).filter(|member| member.generation == generation)?;
        let before = mem::replace(&mut member.user, Arc::clone(user));
        // Under the lock, so that watchers see changes, joins and leaves in their order.
        Some((self.events.tell(PresenceEvent::Updated(id, Arc::clone(user))), before))
    }

    pub(super) fn member_stats(&self, id: ConnectionId, generation: u64) -> Option<MemberStats> {
        let roster = self.roster();
        roster.get(id).filter(|member| member.generation == generation).map(|member| member.stats)
    }
}

impl<U, S> Room<U, S> {
    pub(super) fn new(inner: Arc<Inner<U, S>>) -> Self {
        Self(inner)
    }

    /// The name of the room.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
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

    /// Changes the state of the room, and broadcasts what has changed, in one step.
    ///
    /// The state is made by the first call: see [`Hub::with_rooms`](crate::Hub::with_rooms). One call at a time runs in
    /// each room. So all members receive the broadcasts of the closures in the order in which the state has changed.
    /// Broadcasts outside of `update` wait for no closure, and have no place in that order.
    ///
    /// ```
    /// use tidewire::Hub;
    ///
    /// #[derive(Default)]
    /// struct Lot {
    ///     price: u32,
    /// }
    ///
    /// let hub: Hub<(), Lot> = Hub::with_rooms(|_name| Lot::default());
    /// let room = hub.room("a clock");
    /// let bid = |amount: u32| {
    ///     room.update(|lot, room| {
    ///         if amount <= lot.price {
    ///             return false;
    ///         }
    ///         lot.price = amount;
    ///         room.broadcast(format!("{amount} is bid"));
    ///         true
    ///     })
    /// };
    /// assert!(bid(120)?);
    /// assert!(!bid(110)?);
    /// # Ok::<(), tidewire::rooms::NestedUpdate>(())
    /// ```
    ///
    /// # Locks
    ///
    /// A lock of this room is held while `update` runs, and other calls block their threads meanwhile. So keep the closure
    /// short: it must not wait for anything. It may use the hub, all rooms, their members and connections. If
    /// it updates another room, all code has to take the two rooms in the same order; else two threads may wait for each
    /// other without end.
    ///
    /// # Panics
    ///
    /// A panic of the closure goes through. The state stays as the closure has left it, and the next call gets that. A
    /// panic of the function that makes the state goes through as well, and the next call calls that function again.
    ///
    /// # Errors
    ///
    /// [`NestedUpdate`] inside another `update` or [`join_then`](Self::join_then) of this room, on the same thread. It
    /// would wait for itself.
    pub fn update<R>(&self, update: impl FnOnce(&mut S, &Self) -> R) -> Result<R, NestedUpdate> {
        self.0.state.update(self.name(), |state| update(state, self))
    }

    /// Sends a message to one member; false if that is not in the room, too slow, or gone.
    ///
    /// The message keeps its order among the broadcasts of the room. If the member is too slow, it may be
    /// dropped or replaced as they are.
    pub fn send_to(&self, id: ConnectionId, message: impl Into<PreparedMessage>) -> bool {
        let delivery = self.0.deliver_to(id, None, &message.into());
        matches!(delivery, Some(Delivery::Sent | Delivery::Waiting { .. }))
    }

    /// Begins to close the connection of a member, as [`Sender::start_close`] does. Returns false if it is not in the
    /// room.
    ///
    /// To close all connections of a user, let each join a room of that user, as `examples/login.rs` does: the example below
    /// looks at all rooms. A connection that has been checked and has not joined yet is in none: check it again after it
    /// has joined.
    ///
    /// The member receives what was sent and broadcast before, and then the close frame. It leaves the room when its
    /// handler ends: [`recv`](crate::WebSocket::recv) returns `None` there once the peer has answered, or fails after
    /// [`close_timeout`](crate::WebSocketOptions::close_timeout).
    ///
    /// ```
    /// use tidewire::Hub;
    ///
    /// /// Closes all connections of a user.
    /// fn log_out_everywhere(hub: &Hub<String>, user: &str) -> tidewire::Result<()> {
    ///     for room in hub.rooms() {
    ///         for (id, _) in room.members().iter().filter(|(_, name)| **name == user) {
    ///             room.close_member(*id, 4001, "logged out")?;
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidClose`](crate::Error::InvalidClose) if `code` may not be sent (RFC 6455 §7.4) or `reason` exceeds
    /// 123 bytes.
    pub fn close_member(
        &self,
        id: ConnectionId,
        code: impl TryInto<CloseCode, Error: Into<ProtocolError>>,
        reason: &str,
    ) -> crate::Result<bool> {
        let frame = close_frame(code.try_into().map_err(Into::into), reason)?;
        let member = self.0.roster().get(id).map(Member::shared);
        // Without the lock, since it wakes tasks.
        Ok(member.is_some_and(|shared| {
            shared.start_close(frame);
            true
        }))
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
    ///         PresenceEvent::Updated(..) => {}
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

    /// Returns a stream of the members that join, change and leave from now on. [`watch`](Self::watch) returns the
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
    ///         PresenceEvent::Updated(_, name) => println!("it is {name} now"),
    ///         PresenceEvent::Left(_, name) => println!("{name} goes"),
    ///         PresenceEvent::Lagged(missed) => println!("{missed} events are missing"),
    ///     }
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn events(&self) -> PresenceEvents<U> {
        PresenceEvents::new(self.0.events.reader())
    }
}

impl<U, S> Drop for Inner<U, S> {
    fn drop(&mut self) {
        if let Some(shelf) = self.shelf.upgrade() {
            shelf.forget(&self.name);
        }
    }
}

impl<U, S> Clone for Room<U, S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<U, S> fmt::Debug for Room<U, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room")
            .field("name", &self.name())
            .field("members", &self.len())
            .finish_non_exhaustive()
    }
}
