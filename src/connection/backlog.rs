//! Broadcasts that a connection has no room for yet, and what becomes of them.
//!
//! A broadcast does not wait for a slow peer. Its message is kept here, up to a bound, and moves to the outbox when that
//! has room. A message that the application sends itself waits behind it.

use std::collections::VecDeque;

use super::broadcast::PreparedMessage;

/// The policy for a member that is too slow for the broadcasts of its room, once as much waits for it as
/// may.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
#[cfg_attr(
    not(feature = "rooms"),
    expect(dead_code, unreachable_pub, reason = "a room has the policy")
)]
pub enum SlowConsumer {
    /// Leave out the message that has no place any more, and those after it until there is. The
    /// default.
    #[default]
    DropNewest,
    /// Leave out the oldest messages of the same room that still wait.
    DropOldest,
    /// Keep only the latest message of the room while the connection is busy with another one: what
    /// it has not begun to send is replaced. For tickers, whose older messages are worth nothing.
    Conflate,
    /// Close the connection with 1013, try again later.
    Close,
}

/// How much may wait for one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) max_messages: usize,
    pub(crate) max_bytes: usize,
    pub(crate) policy: SlowConsumer,
}

/// The outcome of a broadcast, for one connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Delivery {
    /// It is queued to be written.
    Sent,
    /// It waits, in place of so many older ones.
    Waiting { replaced: usize },
    /// It is left out.
    Dropped,
    /// The connection is closed for being too slow.
    Closed,
    /// The connection has ended.
    Gone,
}

/// The messages that wait, oldest first.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    waiting: VecDeque<WaitingBroadcast>,
    bytes: usize,
    /// The first ticket of the direct sends that wait; `None` if none does.
    held_from: Option<SendTicket>,
}

/// A position in the order of all that ever waited for a connection. A send with ticket *n* goes before broadcast *n*
/// and after all lower ones.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct SendTicket(u64);

impl SendTicket {
    /// Takes this place, and leaves the one after it.
    fn take(&mut self) -> Self {
        let taken = *self;
        self.0 += 1;
        taken
    }
}

#[derive(Debug)]
struct WaitingBroadcast {
    ticket: SendTicket,
    source: u64,
    message: PreparedMessage,
    /// Whether a later message may still take its place.
    is_replaceable: bool,
}

/// How much waits.
#[derive(Clone, Copy)]
struct Load {
    messages: usize,
    bytes: usize,
}

impl Load {
    fn leaves_room_for(self, message: &PreparedMessage, bounds: &Bounds) -> bool {
        let bytes = self.bytes.saturating_add(message.len());
        self.messages < bounds.max_messages && bytes <= bounds.max_bytes
    }
}

impl Backlog {
    /// Keeps the message for later, if the policy finds room for it: at the end, whose place is `end`.
    /// `Delivery::Closed` is for the caller to carry out.
    pub(super) fn offer(
        &mut self,
        end: &mut SendTicket,
        source: u64,
        message: &PreparedMessage,
        bounds: &Bounds,
    ) -> Delivery {
        // Room is made before it is looked for: a message that has none even so replaces nothing.
        let replaced = match bounds.policy {
            SlowConsumer::Conflate => self.make_room(source, message, bounds, true),
            SlowConsumer::DropOldest => self.make_room(source, message, bounds, false),
            SlowConsumer::DropNewest | SlowConsumer::Close => 0,
        };
        if !self.load().leaves_room_for(message, bounds) {
            let closes = bounds.policy == SlowConsumer::Close;
            return if closes { Delivery::Closed } else { Delivery::Dropped };
        }
        let is_replaceable = bounds.policy == SlowConsumer::Conflate;
        self.bytes += message.len();
        let (ticket, message) = (end.take(), message.clone());
        self.waiting.push_back(WaitingBroadcast { ticket, source, message, is_replaceable });
        Delivery::Waiting { replaced }
    }

    /// Leaves out older messages of the same source, all of them or as many as need be, and says how
    /// many; none if there is no place for the message even so.
    fn make_room(
        &mut self,
        source: u64,
        message: &PreparedMessage,
        bounds: &Bounds,
        all: bool,
    ) -> usize {
        let has_room = self.load().leaves_room_for(message, bounds);
        // Nothing is left out in vain: with all older ones of this source gone, the message has to fit.
        if (has_room && !all) || !self.load_without(source).leaves_room_for(message, bounds) {
            return 0;
        }
        let mut removed = 0;
        while (all || !self.load().leaves_room_for(message, bounds)) && self.remove_first(source) {
            removed += 1;
        }
        removed
    }

    fn load(&self) -> Load {
        Load { messages: self.waiting.len(), bytes: self.bytes }
    }

    /// How much waits from other sources.
    fn load_without(&self, source: u64) -> Load {
        let others = self.waiting.iter().filter(|waiting| waiting.source != source);
        others.fold(Load { messages: 0, bytes: 0 }, |load, waiting| Load {
            messages: load.messages + 1,
            bytes: load.bytes + waiting.message.len(),
        })
    }

    /// Leaves out the oldest message of a source; false if none waits.
    fn remove_first(&mut self, source: u64) -> bool {
        let Some(position) = self.waiting.iter().position(|waiting| waiting.source == source)
        else {
            return false;
        };
        if let Some(removed) = self.waiting.remove(position) {
            self.bytes -= removed.message.len();
        }
        true
    }

    /// The message whose turn it is.
    pub(super) fn pop(&mut self) -> Option<PreparedMessage> {
        let WaitingBroadcast { message, .. } = self.waiting.pop_front()?;
        self.bytes -= message.len();
        Some(message)
    }

    /// Whether the message whose turn it is may still be replaced.
    pub(super) fn is_replaceable(&self) -> bool {
        self.waiting.front().is_some_and(|waiting| waiting.is_replaceable)
    }

    /// A direct send with this ticket waits.
    pub(super) fn hold(&mut self, ticket: SendTicket) {
        self.held_from = Some(self.held_from.map_or(ticket, |first| first.min(ticket)));
    }

    /// Whether all messages before this ticket have been sent.
    pub(super) fn is_turn_of(&self, ticket: SendTicket) -> bool {
        self.waiting.front().is_none_or(|next| ticket <= next.ticket)
    }

    /// Whether it is the turn of a direct send.
    pub(super) fn is_held(&self) -> bool {
        self.held_from.is_some_and(|ticket| self.is_turn_of(ticket))
    }

    /// They had their turn.
    pub(super) fn release(&mut self) {
        self.held_from = None;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Bytes that wait, uncompressed.
    #[cfg(any(test, feature = "accept"))]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that the frames of all that waits take, at most.
    pub(super) fn most_wire_bytes(&self) -> u64 {
        // The header, and what compression adds to bytes that do not compress.
        const MOST_ADDED: usize = 64;
        let added = self.bytes / 1024 + self.waiting.len() * MOST_ADDED;
        u64::try_from(self.bytes + added).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: u64 = 1;

    fn bounds(policy: SlowConsumer) -> Bounds {
        Bounds { max_messages: 3, max_bytes: 10, policy }
    }

    fn offer(backlog: &mut Backlog, text: &str, policy: SlowConsumer) -> Delivery {
        offer_from(backlog, ROOM, text, policy)
    }

    fn offer_from(
        backlog: &mut Backlog,
        source: u64,
        text: &str,
        policy: SlowConsumer,
    ) -> Delivery {
        let mut end = end(backlog);
        backlog.offer(&mut end, source, &PreparedMessage::new(text), &bounds(policy))
    }

    /// The place behind all that waits.
    fn end(backlog: &Backlog) -> SendTicket {
        SendTicket(backlog.waiting.back().map_or(0, |last| last.ticket.0 + 1))
    }

    fn waiting(backlog: &mut Backlog) -> Vec<String> {
        let popped = std::iter::from_fn(|| backlog.pop()).collect::<Vec<_>>();
        assert_eq!((backlog.bytes(), backlog.is_empty()), (0, true));
        popped.into_iter().map(|message| message.message().into_text().unwrap()).collect()
    }

    #[test]
    fn the_newest_is_dropped_when_messages_or_bytes_are_too_many() {
        let mut backlog = Backlog::default();
        let queued = Delivery::Waiting { replaced: 0 };
        for (text, delivery) in [
            ("aaaa", queued),
            ("bbbb", queued),
            ("ccc", Delivery::Dropped),
            ("cc", queued),
            ("", Delivery::Dropped),
        ] {
            assert_eq!(offer(&mut backlog, text, SlowConsumer::DropNewest), delivery, "{text}");
        }
        assert_eq!(waiting(&mut backlog), ["aaaa", "bbbb", "cc"]);
    }

    #[test]
    fn the_oldest_of_the_same_room_make_room() {
        let mut backlog = Backlog::default();
        offer_from(&mut backlog, 2, "o", SlowConsumer::DropOldest);
        for text in ["aaaa", "bbbb"] {
            offer(&mut backlog, text, SlowConsumer::DropOldest);
        }
        let delivery = offer(&mut backlog, "cccccccc", SlowConsumer::DropOldest);
        assert_eq!(delivery, Delivery::Waiting { replaced: 2 });
        assert_eq!(waiting(&mut backlog), ["o", "cccccccc"]);
    }

    #[test]
    fn nothing_makes_room_for_a_message_that_has_no_place_even_so() {
        for policy in [SlowConsumer::DropOldest, SlowConsumer::Conflate] {
            let mut backlog = Backlog::default();
            offer_from(&mut backlog, 2, "other", policy);
            offer(&mut backlog, "aaaaa", policy);
            assert_eq!(offer(&mut backlog, "bbbbbb", policy), Delivery::Dropped, "{policy:?}");
            assert_eq!(waiting(&mut backlog), ["other", "aaaaa"]);
        }
    }

    #[test]
    fn who_waits_to_send_directly_waits_for_what_was_there_before() {
        let mut backlog = Backlog::default();
        for (text, source) in [("a", 2), ("b", ROOM), ("c", 2)] {
            offer_from(&mut backlog, source, text, SlowConsumer::DropOldest);
        }
        let first = end(&backlog);
        backlog.hold(first);
        // In place of "b", but behind the send that waits.
        offer(&mut backlog, "d", SlowConsumer::DropOldest);
        let second = end(&backlog);
        backlog.hold(second);
        assert!(!backlog.is_held());
        backlog.pop();
        assert!(!backlog.is_held());
        backlog.pop();
        assert!(backlog.is_held());
        // A send that came after "d" waits for it.
        assert_eq!([first, second].map(|ticket| backlog.is_turn_of(ticket)), [true, false]);
        backlog.release();
        assert!(!backlog.is_held());
        assert_eq!(waiting(&mut backlog), ["d"]);
        assert!(backlog.is_turn_of(second));
    }

    #[test]
    fn only_the_latest_of_a_room_is_kept_by_conflation() {
        let mut backlog = Backlog::default();
        offer_from(&mut backlog, 2, "o", SlowConsumer::Conflate);
        for (text, replaced) in [("a", 0), ("b", 1), ("c", 1)] {
            let delivery = offer(&mut backlog, text, SlowConsumer::Conflate);
            assert_eq!(delivery, Delivery::Waiting { replaced });
        }
        assert_eq!(waiting(&mut backlog), ["o", "c"]);
    }

    #[test]
    fn whoever_should_be_closed_is() {
        let mut backlog = Backlog::default();
        assert_eq!(offer(&mut backlog, &"x".repeat(11), SlowConsumer::Close), Delivery::Closed);
    }
}
