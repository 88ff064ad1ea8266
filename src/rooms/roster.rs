//! The members of a room.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::Arc;

use super::presence::PresenceEvent;
use crate::connection::{Bounds, ConnectionId, Delivery, GroupWrites, PreparedMessage, Shared};

/// The counters of one member.
///
/// The sum of `queued`, `dropped` and `gone` is the number of messages that were meant for it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct MemberStats {
    /// Messages queued for it.
    pub queued: u64,
    /// Queued messages that a later one has replaced before they were sent.
    pub replaced: u64,
    /// Messages dropped because it was too slow. If that closed it, the message of that moment is included.
    pub dropped: u64,
    /// Messages not queued because its connection had ended.
    pub gone: u64,
}

impl MemberStats {
    fn count(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Sent => self.queued += 1,
            Delivery::Waiting { replaced } => {
                self.queued += 1;
                self.replaced += u64::try_from(replaced).unwrap_or_default();
            }
            Delivery::Dropped | Delivery::Closed => self.dropped += 1,
            Delivery::Gone => self.gone += 1,
        }
    }
}

impl AddAssign for MemberStats {
    fn add_assign(&mut self, other: Self) {
        self.queued += other.queued;
        self.replaced += other.replaced;
        self.dropped += other.dropped;
        self.gone += other.gone;
    }
}

/// The counters of a room since it was created.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct RoomStats {
    /// Messages broadcast, or sent to one member.
    pub messages: u64,
    /// The sums of the counters of all members, those included that have left.
    pub members: MemberStats,
    /// Members closed for being too slow.
    pub closed: u64,
}

/// One member.
pub(super) struct Member<U> {
    pub(super) user: Arc<U>,
    shared: Arc<Shared>,
    bounds: Bounds,
    pub(super) stats: MemberStats,
    /// The number of this connection's latest membership.
    pub(super) generation: u64,
}

/// The members of a room by connection, and the counters of the room.
pub(super) struct Roster<U> {
    members: BTreeMap<ConnectionId, Member<U>>,
    generations: u64,
    pub(super) stats: RoomStats,
}

impl<U> Default for Roster<U> {
    fn default() -> Self {
        Self { members: BTreeMap::new(), generations: 0, stats: RoomStats::default() }
    }
}

impl<U> Roster<U> {
    /// Adds a member. Returns the earlier member of the same connection, if there was one.
    pub(super) fn enter(
        &mut self,
        shared: Arc<Shared>,
        user: Arc<U>,
        bounds: Bounds,
    ) -> (u64, Option<Member<U>>) {
        self.generations += 1;
        let (id, generation) = (shared.connection_id(), self.generations);
        let member = Member { user, shared, bounds, stats: MemberStats::default(), generation };
        let before = self.members.insert(id, member);
        self.retire(before.as_ref());
        (generation, before)
    }

    /// Removes a member, unless its connection has joined again since.
    pub(super) fn leave(&mut self, id: ConnectionId, generation: u64) -> Option<Member<U>> {
        let is_same = self.members.get(&id).is_some_and(|member| member.generation == generation);
        let member = if is_same { self.members.remove(&id) } else { None };
        self.retire(member.as_ref());
        member
    }

    fn retire(&mut self, member: Option<&Member<U>>) {
        if let Some(member) = member {
            self.stats.members += member.stats;
        }
    }

    /// The counters of the room, over current and former members.
    pub(super) fn stats(&self) -> RoomStats {
        let mut stats = self.stats;
        self.members.values().for_each(|member| stats.members += member.stats);
        stats
    }

    pub(super) fn get(&self, id: ConnectionId) -> Option<&Member<U>> {
        self.members.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Member<U>> {
        self.members.get_mut(&id)
    }

    /// The members, in the order in which their connections were opened.
    pub(super) fn users(&self) -> Vec<(ConnectionId, Arc<U>)> {
        self.members.iter().map(|(id, member)| (*id, Arc::clone(&member.user))).collect()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (ConnectionId, &mut Member<U>)> {
        self.members.iter_mut().map(|(id, member)| (*id, member))
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }
}

impl<U> Member<U> {
    pub(super) fn left(&self, id: ConnectionId) -> PresenceEvent<U> {
        PresenceEvent::Left(id, Arc::clone(&self.user))
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Before a few members get a message, one after the other.
    pub(super) fn prefetch(&self) {
        self.shared.prefetch();
    }

    /// Hands the message to the member's connection.
    pub(super) fn deliver(
        &mut self,
        source: u64,
        message: &PreparedMessage,
        writers: &mut GroupWrites,
    ) -> Delivery {
        let delivery = self.shared.deliver(source, message, &self.bounds, writers);
        self.stats.count(delivery);
        delivery
    }
}
