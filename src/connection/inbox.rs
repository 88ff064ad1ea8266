//! Frames that have arrived and wait for a receiver.
//!
//! They stay frames until then: `recv` joins those of a message, `recv_frame` does not, and either may be
//! dropped or take turns with the other without losing anything. A fragment need not be a frame of the peer:
//! the decoder hands out a long frame in pieces if it is told to, and they join like fragments.

use std::collections::VecDeque;

use super::thread_cache;
use crate::error::{Error, Result};
use crate::message::Message;
use crate::proto::{Frame, OpCode, Payload};

/// The cost of a frame besides its payload, in bytes.
const FRAME_COST: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Inbox {
    frames: VecDeque<Frame>,
    /// Payloads and overhead of all frames.
    bytes: usize,
    /// Last frames of messages among them.
    messages: usize,
    /// Control frames among them.
    controls: usize,
}

impl Inbox {
    pub(super) fn push(&mut self, frame: Frame) {
        // The queue of the thread, so that an idle connection has none.
        if self.frames.capacity() == 0 {
            self.frames = thread_cache::take_frames();
        }
        self.bytes += cost(&frame);
        if frame.opcode().is_control() {
            self.controls += 1;
        } else if frame.fin() {
            self.messages += 1;
        }
        self.frames.push_back(frame);
    }

    /// The next message, if it is whole.
    ///
    /// # Errors
    ///
    /// [`Error::MessageBegun`] if its first fragments were taken as frames.
    #[inline]
    pub(super) fn pop_message(&mut self) -> Result<Option<Message>> {
        if self.messages == 0 {
            return Ok(None);
        }
        // Nearly every message is one frame, and no control frame is in front of it.
        match self.frames.front() {
            Some(frame) if frame.is_whole_message() => Ok(self.pop().map(Message::from_frame)),
            _ => self.pop_joined(),
        }
    }

    fn pop_joined(&mut self) -> Result<Option<Message>> {
        // Kept for `recv_frame`, and the caller reads messages now.
        while self.frames.front().is_some_and(|frame| frame.opcode().is_control()) {
            self.pop();
        }
        let Some(first) = self.frames.front() else { return Ok(None) };
        if first.opcode() == OpCode::Continuation {
            return Err(Error::MessageBegun);
        }
        let (opcode, is_deflated) = (first.opcode(), first.is_deflated());
        if first.fin() {
            return Ok(self.pop().map(Message::from_frame));
        }
        let joined = self.join().map(|payload| Frame::from_payload(true, opcode, payload));
        let joined = joined.map(|frame| if is_deflated { frame.into_deflated() } else { frame });
        Ok(joined.map(Message::from_frame))
    }

    /// The next frame.
    pub(super) fn pop(&mut self) -> Option<Frame> {
        let frame = self.frames.pop_front()?;
        self.bytes = self.bytes.saturating_sub(cost(&frame));
        if frame.opcode().is_control() {
            self.controls = self.controls.saturating_sub(1);
        } else if frame.fin() {
            self.messages = self.messages.saturating_sub(1);
        }
        Some(frame)
    }

    /// Joins the fragments of the first message, which is whole.
    fn join(&mut self) -> Option<Payload> {
        let last = self.frames.iter().position(|frame| frame.opcode().is_data() && frame.fin())?;
        let fragments = self.frames.iter().take(last + 1).filter(|f| f.opcode().is_data());
        // One allocation of the exact size. Control frames between the fragments are dropped (§5.4).
        let mut joined = Vec::with_capacity(fragments.map(|frame| frame.payload().len()).sum());
        for _ in 0..=last {
            let frame = self.pop()?;
            if frame.opcode().is_data() {
                joined.extend_from_slice(frame.payload());
            }
        }
        Some(Payload::from(joined))
    }

    /// Takes all frames of `other` behind those that are here.
    pub(super) fn append(&mut self, other: &mut Self) {
        if self.frames.is_empty() {
            return std::mem::swap(self, other);
        }
        self.frames.append(&mut other.frames);
        self.bytes += std::mem::take(&mut other.bytes);
        self.messages += std::mem::take(&mut other.messages);
        self.controls += std::mem::take(&mut other.controls);
    }

    /// Gives up to `max` messages and control frames, the first ones, to another; how many those are.
    pub(super) fn give(&mut self, max: usize, other: &mut Self) -> usize {
        // Nearly always all of it fits, and the queues are swapped.
        let units = self.units();
        if units <= max {
            other.append(self);
            return units;
        }
        let mut given = 0;
        while given < max {
            let Some(frame) = self.pop() else { break };
            given += usize::from(frame.opcode().is_control() || frame.fin());
            other.push(frame);
        }
        given
    }

    /// Payloads and overhead of all frames but the first, or those of the first message.
    pub(super) fn bytes_behind_first(&self, by_frames: bool) -> usize {
        let mut is_first = true;
        let mut is_behind = |frame: &Frame| {
            let is_behind = !is_first;
            is_first &= !by_frames && (frame.opcode().is_control() || !frame.fin());
            is_behind
        };
        self.frames.iter().filter(|frame| is_behind(frame)).map(cost).sum()
    }

    /// Messages and control frames: what a turn may take of them is limited.
    pub(super) fn units(&self) -> usize {
        self.messages + self.controls
    }

    /// Forgets control frames: the connection is read by messages.
    pub(super) fn drop_controls(&mut self) {
        if self.controls > 0 {
            self.frames.retain(|frame| frame.opcode().is_data());
            self.bytes = self.frames.iter().map(cost).sum();
            self.controls = 0;
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.frames.clear();
        (self.bytes, self.messages, self.controls) = (0, 0, 0);
        self.release();
    }

    /// Returns the memory of an empty queue.
    pub(super) fn release(&mut self) {
        if self.frames.is_empty() && self.frames.capacity() > 0 {
            thread_cache::put_frames(std::mem::take(&mut self.frames));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Control frames among those that are queued.
    pub(super) fn controls(&self) -> usize {
        self.controls
    }

    /// Forgets the fragments of a message whose last one will not come.
    pub(super) fn drop_unfinished(&mut self) {
        while self.frames.back().is_some_and(|frame| frame.opcode().is_data() && !frame.fin()) {
            let dropped = self.frames.pop_back();
            self.bytes = self.bytes.saturating_sub(dropped.as_ref().map_or(0, cost));
        }
    }

    /// The first data frame.
    #[cfg(feature = "tungstenite")]
    pub(super) fn first_data(&self) -> Option<&Frame> {
        self.frames.iter().find(|frame| frame.opcode().is_data())
    }

    /// Whether there is a data frame.
    pub(super) fn has_data(&self) -> bool {
        self.frames.len() > self.controls
    }

    pub(super) fn has_message(&self) -> bool {
        self.messages > 0
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

fn cost(frame: &Frame) -> usize {
    frame.payload().len().saturating_add(FRAME_COST)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::proto::{Decoder, Limits, Role};

    fn inbox(opcodes: &[(bool, OpCode)]) -> Inbox {
        let mut inbox = Inbox::default();
        for (fin, opcode) in opcodes {
            inbox.push(Frame::new(*fin, *opcode, "x"));
        }
        inbox
    }

    fn opcodes(inbox: &mut Inbox) -> Vec<OpCode> {
        std::iter::from_fn(|| inbox.pop().map(|frame| frame.opcode())).collect()
    }

    #[test]
    fn the_pieces_of_a_long_frame_join_to_its_message() {
        let (first, second) = ([7; 100], [8; 100]);
        let wire = [&b"\x02\x64"[..], &first, b"\x80\x64", &second].concat();
        let message = |piece_len: usize, cut: usize| {
            let mut decoder = Decoder::new(Role::Client, Limits::default(), false);
            decoder.set_piece_len(NonZeroUsize::new(piece_len));
            let (mut inbox, mut frames) = (Inbox::default(), 0);
            for mut input in wire.chunks(cut) {
                while let Some(frame) = decoder.next(&mut input).unwrap() {
                    assert!(!inbox.has_message());
                    inbox.push(frame);
                    frames += 1;
                }
            }
            assert_eq!(inbox.bytes(), 200 + frames * FRAME_COST);
            let message = inbox.pop_message().unwrap();
            assert!(inbox.is_empty() && inbox.bytes() == 0);
            (frames, message.unwrap())
        };
        let expected = Message::binary([first, second].concat());
        assert_eq!(message(0, 64), (2, expected.clone()));
        // 62, 38 and 24, 64, 12 bytes arrive at once, of which 30 at most are one piece.
        assert_eq!(message(30, 64), (3 + 2 + 1 + 3 + 1, expected));
    }

    #[test]
    fn no_more_is_given_than_is_asked_for_and_the_rest_stays_in_order() {
        use OpCode::{Binary, Continuation, Ping, Text};

        let frames =
            [(false, Text), (true, Ping), (true, Continuation), (true, Binary), (false, Text)];
        let mut given = Inbox::default();
        let mut whole = inbox(&frames);
        assert_eq!(whole.give(0, &mut given), 0);
        // The ping, and the message around it.
        assert_eq!(whole.give(2, &mut given), 2);
        assert_eq!(opcodes(&mut given), [Text, Ping, Continuation]);
        assert_eq!((whole.units(), whole.bytes()), (1, 2 * (1 + FRAME_COST)));
        // All that is left, with the beginning of a message that is not whole.
        assert_eq!(whole.give(64, &mut given), 1);
        assert_eq!(opcodes(&mut given), [Binary, Text]);
        assert!(whole.is_empty() && whole.bytes() == 0);
    }

    #[test]
    fn what_is_behind_the_first_counts_and_the_first_is_a_frame_for_those_who_take_frames() {
        let pings = inbox(&[(true, OpCode::Ping); 3]);
        assert_eq!(pings.bytes_behind_first(true), 2 * (1 + FRAME_COST));
        let fragments = inbox(&[(false, OpCode::Text), (true, OpCode::Continuation)]);
        assert_eq!(fragments.bytes_behind_first(true), 1 + FRAME_COST);
        assert_eq!(fragments.bytes_behind_first(false), 0);
    }
}
