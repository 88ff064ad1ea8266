//! The place of a connection in a room.

use std::fmt;
use std::sync::Arc;

use super::room::{Inner, Room};
use super::roster::MemberStats;
use crate::ws::ConnectionId;

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
