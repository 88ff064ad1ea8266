//! Reading: bytes from the stream become frames in the inbox, under the connection's lock.
//!
//! The rate limit counts here what the peer sends. It reads the clock once for all that was read together, not
//! for each frame.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Buf, Bytes};
use futures::io::AsyncRead;

use super::close::{Lifecycle, PeerEnd};
use super::inbox::Inbox;
use super::state::{Connection, MESSAGES_PER_TURN, Mode, READS_PER_TURN, Receiver, Taken, as_u64};
use super::stats::Initiator;
use super::thread_cache;
use crate::error::Result;
use crate::options::rate_limit::{Rate, RateLimit};
use crate::proto::{Bucket, CloseFrame, Frame, OpCode, Payload, ProtocolError, WireBatch};

/// Control frames kept for a caller who has not said yet whether it reads frames.
const CONTROLS_KEPT: usize = 32;

impl Connection {
    /// The receiver has received all that it took, and asks for more.
    ///
    /// The mode decides whether control frames are kept for it.
    pub(super) fn ask(&mut self, mode: Mode) {
        self.taken = Taken::Received;
        // Another way of reading: what had filled the queue may be no item any more, or may be one now.
        if self.mode != Some(mode) {
            self.make_room();
            self.mode = Some(mode);
            if mode == Mode::Messages {
                self.inbox.drop_controls();
            }
        }
    }

    /// Reads once and decodes the bytes; pending if there are none.
    ///
    /// `is_wanted` says whether the receiver waits for the rest of a message, however much is queued.
    pub(super) fn fill(&mut self, cx: &mut Context<'_>, is_wanted: bool) -> Poll<()> {
        if !self.lifecycle.is_reading() {
            return Poll::Pending;
        }
        // Bytes of an earlier read come first. They were left when enough was queued.
        if !self.unread.is_empty() {
            let mut unread = std::mem::take(&mut self.unread);
            let mut input = &*unread;
            self.decode(&mut input, is_wanted);
            let used = unread.len() - input.len();
            unread.advance(used);
            self.unread = unread;
            return Poll::Ready(());
        }
        // A server whose budget for messages is spent has its connections read less, or wait in line.
        let waker = cx.waker();
        let Some(room) = self.room_to_read(is_wanted, waker) else { return Poll::Pending };
        thread_cache::with_read_buffer(|buf| {
            let Some(stream) = &mut self.stream else { return Poll::Pending };
            let room = room.min(buf.len());
            match Pin::new(stream).poll_read(cx, buf.get_mut(..room).unwrap_or_default()) {
                Poll::Pending => {
                    // The stream is drained: the peer is not ahead of its rate, and no peer waits because of us.
                    self.is_peer_ahead = false;
                    if let Some(limiter) = &mut self.limiter {
                        limiter.catch_up();
                    }
                    return Poll::Pending;
                }
                // No close frame has come, so this is not an orderly end (§7.1.5: 1006).
                Poll::Ready(Ok(0)) => self.lose(io::ErrorKind::UnexpectedEof.into()),
                Poll::Ready(Ok(len)) => {
                    self.tally.wire_bytes_in += as_u64(len);
                    self.is_peer_ahead = len == room;
                    let mut input = buf.get(..len).unwrap_or_default();
                    self.decode(&mut input, is_wanted);
                    // The buffer is the thread's, so the rest is copied. Nearly always there is none.
                    self.unread = Bytes::copy_from_slice(input);
                    if self.is_holding_much() {
                        self.count_held(cx.waker());
                    }
                }
                Poll::Ready(Err(error)) => self.lose(error),
            }
            Poll::Ready(())
        })
    }

    /// Counts a read that has brought nothing to receive; true if it was the last of the turn: a peer
    /// that sends pings alone must not keep the thread.
    pub(super) fn has_read_enough(&mut self) -> bool {
        if self.has_item() {
            return false;
        }
        self.budget = self.budget.saturating_sub(MESSAGES_PER_TURN / READS_PER_TURN);
        self.budget == 0
    }

    /// Takes frames off the front of `input` until it is used up or enough is queued.
    fn decode(&mut self, input: &mut &[u8], is_wanted: bool) {
        // One look at the clock for all frames of a read.
        if let Some(limiter) = &mut self.limiter {
            limiter.refill(self.settings.clock.now());
        }
        self.take_run(input);
        while !self.has_enough(is_wanted) {
            match self.decoder.next(input) {
                Ok(Some(frame)) => self.accept(frame, is_wanted),
                Ok(None) => return,
                Err(error) => self.on_peer_end(PeerEnd::Violation(error)),
            }
            if !self.lifecycle.is_reading() {
                // Bytes after a close frame, or after a violation, are not for us (§5.5.1, §7.1.7).
                *input = &[];
                return;
            }
        }
    }

    /// Takes whole messages as they are, if they come first and are asked for as messages.
    fn take_run(&mut self, input: &mut &[u8]) {
        if !self.inbox.is_empty() || self.mode == Some(Mode::Frames) || !self.is_open() {
            return;
        }
        // The buffer of the thread, so that an idle connection has none.
        if self.run.len() == 0 {
            self.run = WireBatch::in_buffer(thread_cache::take_run());
        }
        let limiter = self.limiter.as_mut();
        // Not more messages than the rate allows: the next one is a frame, and is refused by itself.
        let max = limiter.as_ref().map_or(usize::MAX, |limiter| limiter.messages_left());
        let (messages, payload_bytes) = self.decoder.fill_wire_batch(&mut self.run, input, max);
        if let Some(limiter) = limiter {
            limiter.take_run(messages);
        }
        self.tally.frames_in += as_u64(messages);
        self.tally.messages_in += as_u64(messages);
        self.tally.payload_bytes_in += as_u64(payload_bytes);
        if self.run.len() == 0 {
            thread_cache::put_run(std::mem::take(&mut self.run));
        }
    }

    fn accept(&mut self, frame: Frame, is_wanted: bool) {
        self.tally.frames_in += 1;
        if let Err(error) = self.check_rate(&frame) {
            return self.on_peer_end(PeerEnd::Violation(error));
        }
        match frame.opcode() {
            OpCode::Continuation | OpCode::Text | OpCode::Binary => {
                if !frame.is_deflated() {
                    self.tally.payload_bytes_in += as_u64(frame.payload().len());
                }
                self.tally.messages_in += u64::from(frame.fin());
                self.tally.compressed_in += u64::from(frame.fin() && frame.is_deflated());
                self.accept_data(frame, is_wanted);
                return;
            }
            // §5.5.2: a ping is answered as soon as is practical, unless our close frame has gone.
            OpCode::Ping => {
                self.tally.pings_in += 1;
                if self.settings.auto_pong && self.state.can_send() {
                    self.pong = Some(Box::new(Payload::copy_from(frame.payload())));
                    self.queue_pong();
                }
            }
            OpCode::Pong => {
                self.tally.pongs_in += 1;
                if self.accept_pong(frame.payload()) {
                    // It answers a heartbeat, of which the caller knows nothing.
                    return;
                }
            }
            OpCode::Close => self.accept_close(frame.payload()),
        }
        let is_shown = match self.mode {
            Some(Mode::Messages) => false,
            // A ping that is not answered here is kept in any case, up to `read_ahead_size`.
            None => self.inbox.controls() < CONTROLS_KEPT || self.leaves_to_caller(&frame),
            Some(Mode::Frames) => true,
        };
        if is_shown {
            self.inbox.push(frame);
        }
    }

    /// Whether the caller has to answer this frame.
    fn leaves_to_caller(&self, frame: &Frame) -> bool {
        frame.opcode() == OpCode::Ping && !self.settings.auto_pong
    }

    /// An error if the peer sends faster than it may. To a connection that closes it may: it is told nothing more.
    fn check_rate(&mut self, frame: &Frame) -> Result<(), ProtocolError> {
        let is_open = self.is_open();
        let Some(limiter) = self.limiter.as_mut().filter(|_| is_open) else { return Ok(()) };
        match frame.opcode() {
            OpCode::Continuation | OpCode::Text | OpCode::Binary => limiter.take_message(),
            OpCode::Ping => limiter.take_control(),
            // Pongs that answer our pings are not counted. More of them than pings are a flood (§5.5.3).
            OpCode::Pong if self.tally.pongs_in >= self.outbox.counts.pings => {
                limiter.take_control()
            }
            OpCode::Pong | OpCode::Close => Ok(()),
        }
    }

    /// Queues a data frame. After our close frame, if the queue is full and the receiver does not wait, this frame and
    /// all later ones are discarded, so that the peer's close frame is found.
    fn accept_data(&mut self, frame: Frame, is_wanted: bool) {
        let is_unwanted = !is_wanted && !self.receiver.is_waiting() && self.is_full();
        let is_closing_unread = match &mut self.lifecycle {
            Lifecycle::Closing { is_discarding, .. } => {
                *is_discarding |= is_unwanted;
                *is_discarding
            }
            _ => false,
        };
        if is_closing_unread || self.receiver == Receiver::Dropped {
            self.inbox.drop_unfinished();
        } else {
            self.inbox.push(frame);
        }
    }

    /// Answers the latest ping, unless the peer leaves too much unread: a flood of pings then
    /// costs one payload, and §5.5.3 allows to answer the last of them only.
    pub(super) fn queue_pong(&mut self) {
        if self.outbox.len() >= self.settings.send_buffer_size || !self.state.can_send() {
            return;
        }
        if let Some(payload) = self.pong.take() {
            self.push(&mut Some(Frame::from_payload(true, OpCode::Pong, *payload)));
        }
    }

    fn accept_close(&mut self, payload: &[u8]) {
        // The decoder has checked the payload.
        let frame = CloseFrame::decode(payload).unwrap_or_default();
        if self.state.can_send() {
            self.initiator = Initiator::Remote;
        }
        // §5.5.1: the reply echoes the code.
        let reply = frame.as_ref().map(|frame| CloseFrame::lossy(frame.code(), ""));
        self.state.receive_close(frame);
        self.has_news = true;
        self.on_peer_end(PeerEnd::Close(reply));
    }

    /// Hands the queued messages, or frames, to the receiver, as far as the turn allows.
    pub(super) fn take_batch(&mut self, run: &mut WireBatch, inbox: &mut Inbox) {
        self.receiver.stop_waiting();
        self.make_room();
        // In order: frames of the inbox arrived behind the run.
        *run = self.run.take(self.budget);
        self.budget = self.budget.saturating_sub(run.len());
        if self.run.len() == 0 {
            self.budget = self.budget.saturating_sub(self.inbox.give(self.budget, inbox));
        }
        // The first message, or frame, goes to the caller at once.
        let behind_first = inbox.bytes_behind_first(self.mode == Some(Mode::Frames));
        self.taken = Taken::Held(run.held().saturating_add(behind_first));
    }

    /// The caller makes room for reading ahead: where it had stopped for want of room, it has to go on.
    fn make_room(&mut self) {
        if self.is_full() {
            self.owe_look();
        }
    }

    /// Whether an item is queued: a message, or a frame for a receiver that reads frames.
    pub(super) fn has_item(&self) -> bool {
        match self.mode {
            Some(Mode::Messages) => self.run.len() > 0 || self.inbox.has_message(),
            Some(Mode::Frames) | None => self.run.len() > 0 || !self.inbox.is_empty(),
        }
    }

    /// Whether the caller in `recv` has something to do: an item to take, or the end to take up.
    pub(super) fn can_recv(&self) -> bool {
        let is_draining = matches!(self.lifecycle, Lifecycle::Draining(_));
        self.has_item() || is_draining || self.recv_end().is_some() || self.can_inflate()
    }

    /// The end that `recv` returns when nothing is left to receive.
    ///
    /// Without a task, the caller in `recv` closes the connection to its last step.
    pub(super) fn recv_end(&self) -> Option<&Result<()>> {
        self.lifecycle.outcome().filter(|_| self.has_task() || self.is_gone())
    }

    /// Whether the driver reads. A caller in `recv` that runs in the same task reads for itself.
    pub(super) fn can_read_ahead(&self) -> bool {
        match self.receiver {
            Receiver::InTask => false,
            Receiver::Elsewhere => !self.has_item() || !self.is_full(),
            Receiver::Away | Receiver::Dropped => !self.is_full(),
        }
    }

    pub(super) fn read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.fill(cx, self.receiver.is_waiting())
    }

    /// Whether this side reads. While it does not, the timeouts of messages and of idleness stand still.
    pub(super) fn is_reading(&self) -> bool {
        self.receiver.is_waiting() || !self.is_full()
    }

    /// Whether enough is queued for a receiver that does not wait.
    fn is_full(&self) -> bool {
        let queued = [self.run.held(), self.inbox.bytes(), self.decoder.buffered()];
        queued.into_iter().fold(0, usize::saturating_add) > self.settings.read_ahead_size
    }

    /// Whether decoding stops. It does not after our close frame, for the peer's may come.
    fn has_enough(&self, is_wanted: bool) -> bool {
        self.is_open() && self.is_full() && (self.has_item() || !is_wanted)
    }
}

#[derive(Debug)]
pub(super) struct Limiter {
    limit: RateLimit,
    messages: Bucket,
    controls: Bucket,
    /// Whether the stream was drained since the last refill. If not, bytes read now may have arrived before it, so the
    /// bucket may overflow.
    has_caught_up: bool,
}

impl Limiter {
    pub(super) fn new(limit: RateLimit, now: Instant) -> Self {
        let bucket = |rate: Rate| Bucket::new(rate.per_second, rate.burst, now);
        let (messages, controls) = (bucket(limit.messages), bucket(limit.controls));
        Self { limit, messages, controls, has_caught_up: true }
    }

    /// Something was read: it may be as much as time allows.
    pub(super) fn refill(&mut self, now: Instant) {
        let overflow = !std::mem::take(&mut self.has_caught_up);
        self.messages.refill(now, overflow);
        self.controls.refill(now, overflow);
    }

    /// There is nothing to read: what comes next was not kept waiting.
    pub(super) fn catch_up(&mut self) {
        self.has_caught_up = true;
    }

    /// Messages that the peer may send now.
    pub(super) fn messages_left(&self) -> usize {
        self.messages.available()
    }

    /// Counts a run of messages, which are no more than were left.
    pub(super) fn take_run(&mut self, messages: usize) {
        self.messages.take_many(messages);
    }

    /// Counts a data frame.
    pub(super) fn take_message(&mut self) -> Result<(), ProtocolError> {
        let per_second = self.limit.messages.per_second;
        let is_allowed = self.messages.take();
        is_allowed.then_some(()).ok_or(ProtocolError::MessageRateExceeded { per_second })
    }

    /// Counts a control frame.
    pub(super) fn take_control(&mut self) -> Result<(), ProtocolError> {
        let per_second = self.limit.controls.per_second;
        let is_allowed = self.controls.take();
        is_allowed.then_some(()).ok_or(ProtocolError::ControlRateExceeded { per_second })
    }
}
