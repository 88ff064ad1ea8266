//! The members of a room.

use std::collections::BTreeMap;
use std::mem;
use std::ops::AddAssign;
use std::sync::Arc;

use super::history::{Log, Position};
use super::presence::PresenceEvent;
use super::resume::{Recovery, Start, Step};
use crate::connection::{
    Bounds, ConnectionId, Delivery, GroupWrites, PreparedMessage, Shared, SlowConsumer,
};
use crate::runtime::Clock;

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

/// What is to be done and dropped after a broadcast, without the lock of the roster: payloads may have destructors of the
/// application, and wakers are its executor's.
#[derive(Default)]
pub(super) struct Aftermath {
    /// Messages that the history has let go of.
    pub(super) gone: Vec<PreparedMessage>,
    /// Members that have lost their step.
    lost: Vec<Arc<Step>>,
}

impl Aftermath {
    pub(super) fn settle(self) {
        self.lost.iter().for_each(|step| step.tell());
    }
}

/// One member.
pub(super) struct Member<U> {
    pub(super) user: Arc<U>,
    shared: Arc<Shared>,
    bounds: Bounds,
    pub(super) stats: MemberStats,
    /// The number of this connection's latest membership.
    pub(super) generation: u64,
    /// In a room with a history.
    pub(super) track: Option<Track>,
}

/// How a member follows the history of its room.
#[derive(Clone, Debug)]
pub(super) struct Track {
    /// A random number, by which its client shows that it is the same.
    pub(super) token: u64,
    pub(super) step: Arc<Step>,
}

/// A member that has just joined.
pub(super) struct Entered {
    pub(super) generation: u64,
    pub(super) track: Option<Track>,
}

/// The members of a room by connection, and the counters of the room.
pub(super) struct Roster<U> {
    members: BTreeMap<ConnectionId, Member<U>>,
    generations: u64,
    pub(super) stats: RoomStats,
    /// The history of the room, if it has one.
    pub(super) log: Option<Log>,
    /// Whether the hub keeps the room for its history.
    pub(super) is_kept: bool,
}

impl<U> Roster<U> {
    pub(super) fn new(log: Option<Log>) -> Self {
        let stats = RoomStats::default();
        Self { members: BTreeMap::new(), generations: 0, stats, log, is_kept: false }
    }

    /// Adds a member. Returns the earlier member of the same connection, if there was one.
    pub(super) fn enter(
        &mut self,
        shared: Arc<Shared>,
        user: Arc<U>,
        bounds: Bounds,
        token: u64,
    ) -> (Entered, Option<Member<U>>) {
        self.generations += 1;
        let (id, generation) = (shared.connection_id(), self.generations);
        let track = self.log.is_some().then(|| Track { token, step: Arc::default() });
        let entered = Entered { generation, track: track.clone() };
        let stats = MemberStats::default();
        let member = Member { user, shared, bounds, stats, generation, track };
        let before = self.members.insert(id, member);
        self.retire(before.as_ref());
        (entered, before)
    }

    /// Whether the hub has to be asked to keep the room, which is then marked as kept: it has messages in its history.
    pub(super) fn is_to_be_kept(&mut self) -> bool {
        self.log.is_some() && !mem::replace(&mut self.is_kept, true)
    }

    /// Lets go of messages of the history that are too old.
    pub(super) fn trim(&mut self, after: &mut Aftermath) {
        if let Some(log) = &mut self.log {
            log.trim(Clock::default().now(), &mut after.gone);
        }
    }

    /// What a member has missed that begins there.
    pub(super) fn missed_by(&self, start: Start) -> (Recovery, Vec<PreparedMessage>) {
        let log = self.log.as_ref();
        match start {
            Start::Now => (Recovery::Fresh, Vec::new()),
            Start::Latest(count) => {
                (Recovery::Fresh, log.map(|log| log.last(count)).unwrap_or_default())
            }
            Start::After(position) => match log.and_then(|log| log.after(position)) {
                Some(missed) => (Recovery::Complete(missed.len()), missed),
                None => (Recovery::Lost, Vec::new()),
            },
        }
    }

    /// The member that the position was given to, if it is still there.
    pub(super) fn owner_of(&self, position: Position) -> Option<&Member<U>> {
        let is_owner = |member: &&Member<U>| {
            member.track.as_ref().is_some_and(|track| track.token == position.member)
        };
        // No token is 0.
        (position.member != 0).then(|| self.members.values().find(is_owner)).flatten()
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

    /// Hands a broadcast to the member's connection.
    pub(super) fn deliver(
        &mut self,
        source: u64,
        message: &PreparedMessage,
        writers: &mut GroupWrites,
        after: &mut Aftermath,
    ) -> Delivery {
        let delivery = self.hand_over(source, message, writers);
        if !matches!(delivery, Delivery::Sent | Delivery::Waiting { replaced: 0 }) {
            self.lose_step(after);
        }
        delivery
    }

    /// Hands over a message that is to this member alone.
    pub(super) fn deliver_alone(
        &mut self,
        source: u64,
        message: &PreparedMessage,
        writers: &mut GroupWrites,
        after: &mut Aftermath,
    ) -> Delivery {
        let delivery = self.hand_over(source, message, writers);
        // It is no broadcast. But it may have taken the place of one.
        if matches!(delivery, Delivery::Waiting { replaced } if replaced > 0) {
            self.lose_step(after);
        }
        delivery
    }

    fn hand_over(
        &mut self,
        source: u64,
        message: &PreparedMessage,
        writers: &mut GroupWrites,
    ) -> Delivery {
        let delivery = self.shared.deliver(source, message, &self.bounds, writers);
        self.stats.count(delivery);
        delivery
    }

    /// Hands over what a member has missed. It may be behind by that much more from then on.
    pub(super) fn replay(
        &mut self,
        source: u64,
        missed: &[PreparedMessage],
        writers: &mut GroupWrites,
    ) {
        let bytes = missed.iter().map(PreparedMessage::len).fold(0, usize::saturating_add);
        self.bounds.max_messages = self.bounds.max_messages.saturating_add(missed.len());
        self.bounds.max_bytes = self.bounds.max_bytes.saturating_add(bytes);
        // Each of them, whatever the policy of the room: nothing takes the place of another.
        let bounds = Bounds { policy: SlowConsumer::DropNewest, ..self.bounds };
        for message in missed {
            self.stats.count(self.shared.deliver(source, message, &bounds, writers));
        }
    }

    fn lose_step(&self, after: &mut Aftermath) {
        if let Some(track) = self.track.as_ref().filter(|track| track.step.lose()) {
            after.lost.push(Arc::clone(&track.step));
        }
    }
}
