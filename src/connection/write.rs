//! Writing: the outbox, and how its frames get into the stream.
//!
//! Frames are encoded into one buffer when they are queued, and all of them go out in one write. Long payloads
//! are not copied: they follow as pieces of a vectored write.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use futures::io::AsyncWrite;

use super::backlog::SendTicket;
use super::close::Lifecycle;
use super::state::{Connection, HandlerPoll, Work, as_u64};
use super::thread_cache;
use super::timers::Deadline;
use crate::error::{Error, Result};
use crate::proto::{Frame, FrameHeader, OpCode, Role, append_masked};
use crate::stream::Stream;

impl Connection {
    /// Writes all that is queued, as far as the stream takes it.
    pub(super) fn write(&mut self, cx: &mut Context<'_>) {
        // The driver was told to write. Frames that are queued from here on are new work.
        if self.work == Work::Told {
            self.work = Work::Known;
        }
        loop {
            // A pong that had no room has some once the stream has taken what was before it.
            self.queue_pong();
            // Broadcasts that wait get into the outbox as far as that has room, which each write makes.
            if !self.refill() && self.outbox.is_empty() {
                break;
            }
            if !self.write_queued(cx) {
                return;
            }
        }
        // The backlog is written, or stands behind a send that waits: that is woken, or has not come.
        self.pass_turn();
    }

    /// Writes the outbox. Returns false if the stream takes no more.
    fn write_queued(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        let was_refused = self.outbox.is_refused();
        let (written, result) = self.outbox.write(stream, cx);
        self.tally.wire_bytes_out += as_u64(written);
        if written > 0 || result.is_ready() {
            self.timers.stop_send();
            self.has_news = true;
            if was_refused {
                self.note_room();
            }
        }
        match result {
            Poll::Ready(Ok(())) => return true,
            Poll::Ready(Err(error)) => self.lose(error),
            Poll::Pending => {
                let timeout = self.settings.send_timeout;
                if timeout.is_some_and(|timeout| self.timers.start_send(timeout)) {
                    // Only the task sets the timer of a clock that has begun to run.
                    self.owe_task();
                }
            }
        }
        false
    }

    /// The peer has made room for bytes that waited: it is there.
    fn note_room(&mut self) {
        self.tally.room_made += 1;
        if matches!(self.lifecycle, Lifecycle::Closing { .. }) {
            // It has time until it has come to our close frame, and then to answer that.
            self.timers.start_close(Deadline::Close, self.settings.close_timeout);
        }
    }

    /// Queues a frame that is sent directly.
    pub(super) fn send(&mut self, frame: &mut Option<Frame>) {
        // The send whose turn it was has come.
        if let Some(backlog) = &mut self.backlog {
            backlog.release();
        }
        self.push(frame);
    }

    /// Queues a frame.
    pub(super) fn push(&mut self, frame: &mut Option<Frame>) {
        self.current_outbox().push(frame);
    }

    /// Queues a frame that others have as well: most are copied, and not cloned before.
    pub(super) fn push_shared(&mut self, frame: &Frame) {
        let outbox = self.current_outbox();
        if !outbox.push_copy(frame) {
            outbox.push(&mut Some(frame.clone()));
        }
    }

    /// The queue for the next frame, which the connection's task has to write.
    fn current_outbox(&mut self) -> &mut Outbox {
        if self.work == Work::Known {
            self.work = Work::Owed;
        }
        match &mut self.handler {
            HandlerPoll::Running { is_other: true, during_poll, .. } => {
                during_poll.get_or_insert_with(|| Box::new(Outbox::new(self.role)))
            }
            _ => &mut self.outbox,
        }
    }

    /// Frames that other tasks have sent while the handler is polled.
    fn during_poll(&self) -> Option<&Outbox> {
        match &self.handler {
            HandlerPoll::Running { during_poll, .. } => during_poll.as_deref(),
            HandlerPoll::Parked => None,
        }
    }

    /// Whether the handler may send without the lock: not behind frames that another task has sent meanwhile.
    pub(super) fn can_buffer(&self) -> bool {
        // With takeover, the order of compression is that of the outbox, which only the lock gives.
        let is_ordered = self.deflation.as_ref().is_some_and(|deflation| deflation.is_ordered());
        let is_first = self.during_poll().is_none() && self.backlog.is_none();
        let is_free = !is_ordered && is_first && !self.state.is_sending_fragments();
        is_free && self.lifecycle.outcome().is_none() && self.state.can_send()
    }

    /// Takes the frames of the handler's buffer.
    pub(super) fn take_handler_buffer(&mut self, frames: &mut Outbox) {
        self.outbox.append(frames);
    }

    /// Bytes that the handler may send before it has to ask.
    pub(super) fn room(&self) -> usize {
        self.room_if(self.can_buffer())
    }

    /// [`room`](Self::room), where the caller has asked whether it [may send](Self::can_buffer) without the lock.
    #[inline]
    pub(super) fn room_if(&self, can_buffer: bool) -> usize {
        if !can_buffer {
            return 0;
        }
        self.settings.send_buffer_size.saturating_sub(self.queued_len())
    }

    /// Whether the outbox has room for a message with this ticket.
    pub(super) fn has_room(&self, ticket: Option<SendTicket>) -> bool {
        self.is_ahead_of_backlog(ticket) && self.queued_len() < self.settings.send_buffer_size
    }

    /// `Ok` once the stream has taken the first `mark` bytes that were queued. An error if it never will.
    pub(super) fn is_written(&self, mark: u64) -> Option<Result<()>> {
        if self.is_gone() {
            let is_lost = self.tally.wire_bytes_out < mark;
            return Some(if is_lost { Err(self.lost_error()) } else { Ok(()) });
        }
        (self.is_all_written() || self.outbox.written() >= mark).then_some(Ok(()))
    }

    /// Upper bound of `Outbox::written` once all that is queued now has been written. `None` while frames that the handler
    /// has sent before may be in its buffer.
    pub(super) fn mark(&mut self) -> Option<u64> {
        if let HandlerPoll::Running { is_other: true, is_awaited, .. } = &mut self.handler {
            *is_awaited = true;
            return None;
        }
        // Broadcasts that wait are not encoded: their bytes on the wire are an upper bound.
        let waiting = self.backlog.as_ref().map_or(0, |backlog| backlog.most_wire_bytes());
        Some(self.outbox.queued().saturating_add(waiting))
    }

    /// Whether the stream has taken, and flushed, everything.
    pub(super) fn is_all_written(&self) -> bool {
        self.outbox.is_empty() && self.during_poll().is_none() && self.backlog.is_none()
    }

    /// Bytes that the stream has not taken, without the backlog.
    pub(super) fn queued_len(&self) -> usize {
        let during_poll = self.during_poll().map_or(0, Outbox::len);
        self.outbox.len().saturating_add(during_poll)
    }

    /// Bytes that were sent and that the stream has not taken.
    #[cfg(feature = "accept")]
    pub(super) fn waiting_len(&self) -> usize {
        let backlog = self.backlog.as_ref().map_or(0, |backlog| backlog.bytes());
        self.queued_len().saturating_add(backlog)
    }

    fn lost_error(&self) -> Error {
        self.send_error().unwrap_or(Error::Closed)
    }

    /// Why nothing can be sent, if so.
    pub(super) fn send_error(&self) -> Option<Error> {
        match self.lifecycle.outcome() {
            Some(Err(error)) => Some(error.clone()),
            Some(Ok(())) => Some(Error::Closed),
            None => (!self.state.can_send()).then_some(Error::Closed),
        }
    }
}

/// From this many bytes on a payload is passed to the kernel from where it is, not copied.
const SHARE_FROM: usize = 16 << 10;

/// Most pieces that are passed to the kernel in one write.
const MAX_PIECES: usize = 32;

/// Written bytes at the front of the buffer, from which on the rest is moved there.
const COMPACT_FROM: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Outbox {
    role: Role,
    /// Headers and short payloads, in order.
    buf: Vec<u8>,
    /// Bytes of `buf` that are written.
    pos: usize,
    /// Long payloads, each with its place in `buf`.
    long: VecDeque<(usize, Bytes)>,
    /// Bytes not yet written.
    len: usize,
    /// Bytes ever queued.
    total: u64,
    /// Whether something was written since the stream was last flushed.
    is_dirty: bool,
    /// Whether the stream refused bytes when it was written to last.
    is_refused: bool,
    pub(super) counts: Counts,
}

/// Counters of all that was queued.
#[derive(Debug)]
pub(super) struct Counts {
    pub(super) frames: u64,
    pub(super) messages: u64,
    pub(super) payload_bytes: u64,
    pub(super) compressed: u64,
    pub(super) pings: u64,
    pub(super) pongs: u64,
}

impl Counts {
    const NONE: Self =
        Self { frames: 0, messages: 0, payload_bytes: 0, compressed: 0, pings: 0, pongs: 0 };

    /// Counts a control frame.
    #[cold]
    fn add_control(&mut self, opcode: OpCode) {
        self.pings += u64::from(opcode == OpCode::Ping);
        self.pongs += u64::from(opcode == OpCode::Pong);
    }

    /// Counts what `other` has, and empties it.
    fn append(&mut self, other: &mut Self) {
        self.frames += other.frames;
        self.messages += other.messages;
        self.payload_bytes += other.payload_bytes;
        self.compressed += other.compressed;
        self.pings += other.pings;
        self.pongs += other.pongs;
        *other = Self::NONE;
    }
}

impl Outbox {
    pub(super) const fn new(role: Role) -> Self {
        Self {
            role,
            buf: Vec::new(),
            pos: 0,
            long: VecDeque::new(),
            len: 0,
            total: 0,
            is_dirty: false,
            is_refused: false,
            counts: Counts::NONE,
        }
    }

    /// Whether frames are masked from here on.
    pub(super) fn set_role(&mut self, role: Role) {
        self.role = role;
    }

    /// Queues the frame and takes it.
    pub(super) fn push(&mut self, slot: &mut Option<Frame>) {
        let Some(frame) = slot.take() else { return };
        if self.push_copy(&frame) {
            return;
        }
        let len = frame.payload().len();
        self.push_header(&frame, None, len, |header, buf| header.encode(buf));
        self.long.push_back((self.buf.len(), frame.into_payload()));
    }

    /// Queues a copy of the frame; false if its payload is better shared.
    #[inline]
    pub(super) fn push_copy(&mut self, frame: &Frame) -> bool {
        // A client masks each payload, so it needs a copy of its own in any case (§5.3).
        if self.role == Role::Server && frame.payload().len() >= SHARE_FROM {
            return false;
        }
        let mask = (self.role == Role::Client).then(thread_cache::bytes);
        self.push_header(frame, mask, 0, |header, buf| match mask {
            Some(key) => {
                header.encode(buf);
                append_masked(key, 0, frame.payload(), buf);
            }
            None => frame.append_to(&header, buf),
        });
        true
    }

    /// Queues what `append` appends, and counts the whole frame, of whose payload so many bytes are not copied.
    #[expect(clippy::inline_always, reason = "called twice, and cheaper than the call")]
    #[inline(always)]
    fn push_header(
        &mut self,
        frame: &Frame,
        mask: Option<[u8; 4]>,
        not_copied: usize,
        append: impl FnOnce(FrameHeader, &mut Vec<u8>),
    ) {
        // A connection without queued bytes has no buffer.
        if self.buf.capacity() == 0 {
            self.buf = thread_cache::take_write_buffer();
        }
        let (fin, opcode, payload_len) = (frame.fin(), frame.opcode(), frame.payload().len());
        // Only the first frame of a message says so (RFC 7692 §6).
        let rsv1 = frame.is_deflated() && opcode != OpCode::Continuation;
        let old_len = self.buf.len();
        // A length in memory fits 64 bits.
        let len = u64::try_from(payload_len).unwrap_or(u64::MAX);
        append(FrameHeader { fin, rsv1, opcode, mask, len }, &mut self.buf);
        let queued = self.buf.len() - old_len + not_copied;
        self.len += queued;
        self.total += u64::try_from(queued).unwrap_or_default();
        self.counts.frames += 1;
        if opcode.is_data() {
            self.counts.messages += u64::from(fin);
            self.counts.payload_bytes += frame.plain_len();
            if rsv1 {
                self.counts.compressed += 1;
            }
        } else {
            self.counts.add_control(opcode);
        }
    }

    /// Queues everything that `frames` holds, and leaves it empty.
    pub(super) fn append(&mut self, frames: &mut Self) {
        self.counts.append(&mut frames.counts);
        self.total += frames.total;
        frames.total = 0;
        // Nearly always the outbox is empty, and takes the handler's buffer as it is.
        if self.len == 0 {
            self.release();
            std::mem::swap(&mut self.buf, &mut frames.buf);
            std::mem::swap(&mut self.long, &mut frames.long);
        } else {
            let start = self.buf.len();
            self.buf.append(&mut frames.buf);
            self.long.extend(frames.long.drain(..).map(|(at, bytes)| (start + at, bytes)));
        }
        self.len += std::mem::take(&mut frames.len);
    }

    /// Writes what is queued, and flushes the stream after the last byte.
    ///
    /// Returns the number of bytes written before the stream could take no more.
    pub(super) fn write(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
    ) -> (usize, Poll<io::Result<()>>) {
        let (written, result) = self.write_all(stream, cx);
        self.is_refused = result.is_pending();
        (written, result)
    }

    fn write_all(
        &mut self,
        stream: &mut Stream,
        cx: &mut Context<'_>,
    ) -> (usize, Poll<io::Result<()>>) {
        let mut written = 0;
        while self.len > 0 {
            match self.write_once(stream, cx) {
                Poll::Ready(Ok(0)) => {
                    return (written, Poll::Ready(Err(io::ErrorKind::WriteZero.into())));
                }
                Poll::Ready(Ok(len)) => {
                    self.consume(len);
                    self.is_dirty = true;
                    written += len;
                }
                Poll::Ready(Err(error)) => return (written, Poll::Ready(Err(error))),
                Poll::Pending => return (written, Poll::Pending),
            }
        }
        self.release();
        (written, self.flush(stream, cx))
    }

    fn flush(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_dirty {
            ready!(Pin::new(stream).poll_flush(cx))?;
            self.is_dirty = false;
        }
        Poll::Ready(Ok(()))
    }

    fn write_once(&self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let stream = Pin::new(stream);
        // One contiguous buffer: a plain write costs the kernel less than a vectored one.
        if self.long.is_empty() {
            return stream.poll_write(cx, self.buf.get(self.pos..).unwrap_or_default());
        }
        let mut pieces = [IoSlice::new(&[]); MAX_PIECES];
        let mut used = 0;
        for (slot, piece) in pieces.iter_mut().zip(self.pieces()) {
            *slot = IoSlice::new(piece);
            used += 1;
        }
        stream.poll_write_vectored(cx, pieces.get(..used).unwrap_or_default())
    }

    /// The bytes that are not written, in order.
    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let mut from = self.pos;
        let between = self.long.iter().flat_map(move |(at, bytes)| {
            let short = self.buf.get(from..*at).unwrap_or_default();
            from = *at;
            [short, bytes]
        });
        let rest = self.long.back().map_or(self.pos, |(at, _)| *at);
        between.chain([self.buf.get(rest..).unwrap_or_default()]).filter(|piece| !piece.is_empty())
    }

    fn consume(&mut self, len: usize) {
        self.len = self.len.saturating_sub(len);
        let mut len = len;
        // Short bytes up to the next long payload, then that, and so on.
        while len > 0 {
            let end = self.long.front().map_or(self.buf.len(), |(at, _)| *at);
            let short = len.min(end - self.pos);
            self.pos += short;
            len -= short;
            let Some((_, bytes)) = self.long.front_mut().filter(|_| len > 0) else { break };
            let long = len.min(bytes.len());
            bytes.advance(long);
            len -= long;
            if bytes.is_empty() {
                self.long.pop_front();
            }
        }
        // A peer that is always behind would else have the buffer grow without end.
        if self.pos >= COMPACT_FROM && self.pos * 2 >= self.buf.len() {
            self.buf.drain(..self.pos);
            self.long.iter_mut().for_each(|(at, _)| *at -= self.pos);
            self.pos = 0;
        }
    }

    /// Gives the memory of an empty queue back.
    fn release(&mut self) {
        self.pos = 0;
        if self.buf.capacity() > 0 {
            thread_cache::put_write_buffer(std::mem::take(&mut self.buf));
        }
        if self.long.capacity() > 0 {
            self.long = VecDeque::new();
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        (self.len, self.is_dirty, self.is_refused) = (0, false, false);
        self.long.clear();
        self.release();
    }

    /// Bytes not yet taken by the stream.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether the stream has taken, and flushed, everything.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0 && !self.is_dirty
    }

    /// Whether the stream refused bytes when it was written to last.
    fn is_refused(&self) -> bool {
        self.is_refused
    }

    /// Bytes ever queued.
    pub(super) fn queued(&self) -> u64 {
        self.total
    }

    /// Bytes ever taken by the stream.
    pub(super) fn written(&self) -> u64 {
        self.total.saturating_sub(u64::try_from(self.len).unwrap_or_default())
    }
}
