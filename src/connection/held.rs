//! The bytes that a connection holds for messages in progress, and their place in the [budget](crate::budget) of its
//! server.

use std::task::{Context, Waker};

use bytes::Bytes;

use super::state::{Connection, Receiver, Taken};
use super::stats::Initiator;
use crate::budget::{FREE, PATIENCE};
use crate::error::Error;
use crate::proto::{CloseCode, WireBatch};

/// A connection that holds more than this is counted after each read, and not only when it parks. Messages that come in
/// one read are not.
const MUCH: usize = 64 << 10;

impl Connection {
    /// How many bytes may be read; `None` if the connection waits for others, and `waker` is called when
    /// there is room. `is_wanted` if a handler waits for the message.
    #[inline]
    pub(super) fn room_to_read(&mut self, is_wanted: bool, waker: &Waker) -> Option<usize> {
        if !self.account.is_bounded() && !self.account.is_waiting() {
            return Some(usize::MAX);
        }
        if self.is_waiting_to_inflate() {
            // The place in line is the receiver's, who reads on once it has decompressed its message.
            return match FREE.saturating_sub(self.held()) {
                0 if self.is_peer_ahead => None,
                room => Some(room.max(1)),
            };
        }
        self.room_for(is_wanted, self.is_peer_ahead, waker)
    }

    /// Whether the receiver is in line, to go on with the decompression of a message.
    fn is_waiting_to_inflate(&self) -> bool {
        self.is_inflating() && self.receiver.is_waiting() && self.account.is_waiting()
    }

    /// Room for bytes; `is_certain` if they are known to be there.
    fn room_for(&mut self, is_urgent: bool, is_certain: bool, waker: &Waker) -> Option<usize> {
        if !self.account.is_bounded() {
            self.stop_waiting();
            return Some(usize::MAX);
        }
        let room = match FREE.saturating_sub(self.held()) {
            // In small pieces: what follows the message is then no more than is free.
            0 if self.account.has_pass() => FREE,
            // One byte tells whether the peer waits for us, or we for the peer.
            0 if !is_certain => 1,
            0 if self.wait(is_urgent, waker) => return None,
            0 => FREE,
            room => room,
        };
        self.stop_waiting();
        Some(room)
    }

    /// Puts the connection in line; false if it may go on.
    fn wait(&mut self, is_urgent: bool, waker: &Waker) -> bool {
        let must_wait = self.account.wait(is_urgent, waker);
        if must_wait {
            self.timers.pause(is_urgent.then_some(PATIENCE));
        }
        must_wait
    }

    fn stop_waiting(&mut self) {
        self.account.stop_waiting();
        self.timers.resume();
    }

    /// The connection parks, or holds much: its bytes are counted.
    pub(super) fn count_held(&mut self, waker: &Waker) {
        if !self.account.is_open() {
            return;
        }
        let held = self.held();
        if held <= FREE && !self.account.has_share() {
            return;
        }
        self.account.count(held, waker);
        // The message with which it went beyond the limit has ended: the next connection may.
        if !self.is_in_progress() {
            self.account.return_pass();
        }
        if self.account.is_waiting() {
            let is_urgent = self.receiver.is_waiting();
            if !self.wants_room() {
                self.stop_waiting();
            } else if !self.wait(is_urgent, waker) {
                // It was woken for room that the caller did not come to take.
                self.stop_waiting();
                self.owe_look();
            }
        }
    }

    /// Whether the connection is counted at once, and not only when it parks.
    pub(super) fn is_holding_much(&self) -> bool {
        self.decoder.buffered().max(self.inbox.bytes()) > MUCH
    }

    fn held(&self) -> usize {
        let received =
            [self.run.held(), self.inbox.bytes(), self.decoder.buffered(), self.unread.len()];
        received.into_iter().fold(self.taken.len(), usize::saturating_add)
    }

    /// Whether the rest of a message is to come, from the peer or from its decompression.
    fn is_in_progress(&self) -> bool {
        let has_ended = self.lifecycle.outcome().is_some();
        self.is_inflating() || (self.decoder.is_inside_message() && !has_ended)
    }

    /// Whether the receiver decompresses a message that counts.
    fn is_inflating(&self) -> bool {
        matches!(self.taken, Taken::Inflating(_))
    }

    /// Whether the connection takes bytes if there is room.
    fn wants_room(&self) -> bool {
        let is_reading = self.is_reading() && self.lifecycle.is_reading();
        is_reading || (self.is_inflating() && self.receiver.is_waiting())
    }

    /// Counts the bytes of the messages that the receiver took.
    pub(super) fn count_taken(&mut self, taken: Taken, waker: &Waker) {
        self.taken = taken;
        self.count_held(waker);
    }

    /// How many bytes the receiver, which holds `held`, may decompress; `None` if it waits for others. It is
    /// then woken like one in `recv`.
    pub(super) fn room_to_inflate(
        &mut self,
        held: usize,
        io: &Context<'_>,
        is_in_task: bool,
    ) -> Option<usize> {
        // Reading may have stopped meanwhile.
        let has_waited = self.is_waiting_to_inflate();
        self.taken = Taken::Inflating(held);
        let room = self.room_for(true, true, io.waker());
        if room.is_none() {
            self.receiver = Receiver::waiting(is_in_task);
        }
        if room.is_none() || has_waited {
            // The task has the timer, and reads.
            self.owe_look();
        }
        room
    }

    /// Whether a message that is decompressed may go on.
    pub(super) fn can_inflate(&self) -> bool {
        self.is_inflating() && (!self.account.is_bounded() || self.account.has_pass())
    }

    /// The `WebSocket` is dropped, and with it the frames that have arrived, and those that still come.
    pub(super) fn lose_receiver(&mut self) {
        (self.receiver, self.taken) = (Receiver::Dropped, Taken::Received);
        self.run = WireBatch::default();
        self.inbox.clear();
    }

    /// Fails the connection if it holds most of a budget that is spent. Its bytes are free then.
    pub(super) fn give_way(&mut self) {
        if !self.account.is_condemned() {
            return;
        }
        // All that it holds goes, and with it the messages: the peer is told by 1013.
        self.stop_waiting();
        self.account.close();
        self.run = WireBatch::default();
        self.inbox.clear();
        self.decoder.forget();
        self.unread = Bytes::new();
        if self.state.can_send() {
            self.initiator = Initiator::Local;
        }
        // Messages are lost, however the connection had ended before.
        self.lifecycle.replace_outcome(Err(Error::Overloaded));
        self.has_news = true;
        if !self.is_gone() {
            self.fail(Error::Overloaded, CloseCode::TRY_AGAIN_LATER);
        }
    }

    /// Whether the connection gave way.
    pub(super) fn has_given_way(&self) -> bool {
        matches!(self.lifecycle.outcome(), Some(Err(Error::Overloaded)))
    }
}
