//! The membership of a connection in a room, and the ways to get one.

use std::fmt;
use std::mem;
use std::sync::Arc;

use super::history::Position;
use super::options::RoomOptions;
use super::room::{Inner, Room};
use super::roster::{Entered, MemberStats, Track};
use super::state::NestedUpdate;
use crate::connection::{ConnectionId, Delivery, PreparedMessage, Sender};

/// The membership of a connection in a [`Room`]. Dropping it makes the connection leave.
///
/// Keep it in the handler: it is then dropped when the handler returns, fails, panics, or is dropped with
/// its task. Messages that were broadcast before are still sent. A membership keeps its room alive.
pub struct Membership<U = (), S = ()> {
    room: Arc<Inner<U, S>>,
    id: ConnectionId,
    generation: u64,
    user: Arc<U>,
    /// In a room with a history.
    track: Option<Track>,
}

impl<U, S> Room<U, S> {
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
    pub fn join(&self, ws: impl Into<Sender>) -> Membership<U, S>
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
    pub fn join_with(&self, ws: impl Into<Sender>, user: U) -> Membership<U, S> {
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
    ) -> Membership<U, S> {
        let (sender, user): (Sender, _) = (ws.into(), Arc::new(user));
        let entered = self.0.enter(&sender, &user, options);
        Membership::new(Arc::clone(&self.0), sender.id(), entered, user)
    }

    /// Adds a connection to the room, and sends it the first messages, in one step.
    ///
    /// No [`update`](Self::update) comes in between. So the connection receives what `then` sends it from the state, and
    /// after that the broadcasts of all later updates: none is missing, and none comes twice.
    ///
    /// `ws`, `user` and the returned value are those of [`join_with`](Self::join_with). To join with options, to refuse a
    /// connection by what the state says, or to return more, call `join_with` and its kind inside `update`: it is the same.
    ///
    /// ```
    /// use tidewire::{Hub, WebSocket};
    ///
    /// /// The latest messages of each room.
    /// type Chat = Hub<String, Vec<String>>;
    ///
    /// async fn chat(hub: Chat, mut ws: WebSocket, name: String) -> tidewire::HandlerResult {
    ///     let room = hub.room("lobby");
    ///     let member = room.join_then(&ws, name, |latest, member| {
    ///         for message in latest.iter() {
    ///             member.send(message.as_str());
    ///         }
    ///     })?;
    ///     while let Some(message) = ws.recv().await? {
    ///         let line = format!("{}: {}", member.user(), message.as_text().unwrap_or_default());
    ///         room.update(|latest, room| {
    ///             latest.push(line.clone());
    ///             let too_many = latest.len().saturating_sub(50);
    ///             latest.drain(..too_many);
    ///             room.broadcast(line);
    ///         })?;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// What `then` sends has the bounds of [`RoomOptions`](crate::rooms::RoomOptions), which are 256 messages and 1 MiB by
    /// default: a longer history needs other options, or fewer and longer messages.
    ///
    /// # Panics
    ///
    /// As [`update`](Self::update). The connection leaves the room then.
    ///
    /// # Errors
    ///
    /// As [`update`](Self::update). The connection has not joined then.
    pub fn join_then(
        &self,
        ws: impl Into<Sender>,
        user: U,
        then: impl FnOnce(&mut S, &mut Membership<U, S>),
    ) -> Result<Membership<U, S>, NestedUpdate> {
        let ws = ws.into();
        self.update(|state, room| {
            let mut member = room.join_with(ws, user);
            then(state, &mut member);
            member
        })
    }
}

impl<U, S> Membership<U, S> {
    pub(super) fn new(
        room: Arc<Inner<U, S>>,
        id: ConnectionId,
        entered: Entered,
        user: Arc<U>,
    ) -> Self {
        let Entered { generation, track } = entered;
        Self { room, id, generation, user, track }
    }

    /// The position of the member: behind all that it was handed. Its client brings it to
    /// [`Room::join_from`] after it has lost its connection.
    ///
    /// `None` if the room has no [history](crate::rooms::RoomOptions::history), or if the member has lost its step: it was
    /// too slow, and a message was dropped or replaced. That does not come back; see [`lost_step`](Self::lost_step).
    ///
    /// A client has received what stands before its position once it has received a message that was sent after this call,
    /// on the same connection: so send it the position, with [`send_position`](Self::send_position).
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.room.position_of(self.track.as_ref()?)
    }

    /// Sends the member its position, in a message that `make` makes of it, and returns whether it was sent: false if there is
    /// no [position](Self::position), or as [`send`](Self::send).
    ///
    /// The message stands exactly there among the broadcasts: the client has received all before it, and none after it. If a
    /// broadcast comes while `make` runs, `make` is called again.
    ///
    /// ```
    /// # use tidewire::rooms::Membership;
    /// # fn tell(member: &Membership) {
    /// member.send_position(|position| format!(r#"{{"position":"{position}"}}"#));
    /// # }
    /// ```
    pub fn send_position<M: Into<PreparedMessage>>(
        &self,
        mut make: impl FnMut(Position) -> M,
    ) -> bool {
        loop {
            let Some(position) = self.position() else { return false };
            let message = make(position).into();
            let delivery = self.room.deliver_at(self.id, self.generation, position, &message);
            if let Ok(delivery) = delivery {
                return matches!(delivery, Some(Delivery::Sent | Delivery::Waiting { .. }));
            }
        }
    }

    /// Waits until the member has lost its step: it was too slow, and a message of the room was dropped or replaced. It
    /// never resolves in a room without a history.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn lost_step(&self) {
        match &self.track {
            Some(track) => track.step.lost().await,
            None => std::future::pending().await,
        }
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

    /// Replaces the presence data of the connection. [`Room::members`] returns the new data from now on, and watchers of
    /// the room see [`PresenceEvent::Updated`](crate::rooms::PresenceEvent::Updated), in order with joins and leaves.
    ///
    /// Returns false, and changes nothing, if the connection has joined the room again since: a later membership has data
    /// of its own.
    ///
    /// ```
    /// use tidewire::rooms::Membership;
    ///
    /// #[derive(Clone)]
    /// struct Guest {
    ///     name: String,
    ///     is_typing: bool,
    /// }
    ///
    /// fn rename(member: &mut Membership<Guest>, name: String) {
    ///     member.set(Guest { name, ..Guest::clone(member.user()) });
    /// }
    /// ```
    pub fn set(&mut self, user: U) -> bool {
        let user = Arc::new(user);
        let Some(told) = self.room.set(self.id, self.generation, &user) else { return false };
        let before = mem::replace(&mut self.user, user);
        // Last: destructors of users and wakers of watchers are code of the application.
        drop((told, before));
        true
    }

    /// Sends a message to this member. Returns false if it is too slow or gone, or has joined the room again since.
    /// Otherwise like [`Room::send_to`].
    pub fn send(&self, message: impl Into<PreparedMessage>) -> bool {
        let delivery = self.room.deliver_to(self.id, Some(self.generation), &message.into());
        matches!(delivery, Some(Delivery::Sent | Delivery::Waiting { .. }))
    }

    /// The room.
    #[must_use]
    pub fn room(&self) -> Room<U, S> {
        Room::new(Arc::clone(&self.room))
    }

    /// The counters of this member since it joined. All are zero once the connection has joined the room
    /// again.
    #[must_use]
    pub fn stats(&self) -> MemberStats {
        self.room.member_stats(self.id, self.generation).unwrap_or_default()
    }
}

impl<U, S> Drop for Membership<U, S> {
    fn drop(&mut self) {
        self.room.leave(self.id, self.generation);
    }
}

impl<U, S> fmt::Debug for Membership<U, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership")
            .field("room", &self.room.name())
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
