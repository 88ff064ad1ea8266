//! Receiving: messages leave the connection for the caller in `recv`, who takes all that has arrived at once.
//!
//! Messages that were taken are outside the lock, so most calls of `recv` take no lock. Compressed messages are
//! decompressed here, in steps: a long one does not hold the thread, and is not lost when `recv` is dropped.

use std::task::{Context, Poll, ready};

use super::inbox::Inbox;
use super::state::{MESSAGES_PER_TURN, Mode, Receiver, Taken};
use super::{WebSocket, compression, handler_buffer, thread_cache};
use crate::budget::FREE;
use crate::error::{Error, Result};
use crate::message::Message;
use crate::proto::deflate::Inflater;
use crate::proto::{
    DeflateParameters, Frame, OpCode, Payload, ProtocolError, Role, Utf8, WireBatch,
};

/// The messages that were taken from the connection at once, so that most calls of `recv` take no lock: first the
/// run, then the frames.
pub(super) struct Received {
    pub(super) run: WireBatch,
    pub(super) inbox: Inbox,
    /// The compressed message under way; `None` if messages are not compressed.
    inflation: Option<Box<Inflation>>,
    /// Whether the message under way is counted as the connection's.
    is_counted: bool,
}

impl Received {
    pub(super) fn new(inflation: Option<Inflation>) -> Self {
        let inflation = inflation.map(Box::new);
        Self { run: WireBatch::default(), inbox: Inbox::default(), inflation, is_counted: false }
    }

    /// Bytes that came out of compressed messages.
    pub(super) fn inflated(&self) -> u64 {
        self.inflation.as_ref().map_or(0, |inflation| inflation.total())
    }

    /// Forgets the frames, and the message under way.
    fn forget(&mut self) {
        if let Some(inflation) = &mut self.inflation {
            inflation.abandon();
        }
        self.inbox.clear();
    }

    /// Bytes held.
    fn held(&self) -> usize {
        let inflating = self.inflation.as_ref().map_or(0, |inflation| inflation.held());
        [self.run.held(), self.inbox.bytes()].into_iter().fold(inflating, usize::saturating_add)
    }

    /// The compressed frame under way.
    fn inflating(&self) -> Option<&Frame> {
        self.inflation.as_ref()?.frame()
    }

    /// Begins to decompress the frame, or returns it if there is nothing to do.
    fn inflate_later(&mut self, frame: Frame) -> Option<Frame> {
        match &mut self.inflation {
            Some(inflation) if frame.is_deflated() => {
                inflation.begin(frame);
                None
            }
            _ => Some(frame),
        }
    }
}

impl WebSocket {
    #[inline]
    pub(super) fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Message>>> {
        // A handler that has delivered much to rooms yields before it takes the next message.
        if handler_buffer::is_spent() {
            handler_buffer::yield_to_others(cx);
            return Poll::Pending;
        }
        loop {
            // 1. Short messages, still encoded: nearly always there is one, or nothing at all.
            if let Some(frame) = self.received.run.next() {
                return Poll::Ready(Ok(Some(Message::from_frame(frame))));
            }
            // 2. Messages that came as frames, to be joined and decompressed.
            if self.received.inflation.is_some() {
                let inflated = ready!(self.poll_recv_inflated(cx))?;
                if inflated.is_some() {
                    return Poll::Ready(Ok(inflated));
                }
            } else if let Some(message) = self.received.inbox.pop_message()? {
                return Poll::Ready(Ok(Some(message)));
            }
            // 3. Nothing is left: the connection is asked, under its lock.
            if !ready!(self.poll_take(cx, Mode::Messages))? {
                return Poll::Ready(Ok(None));
            }
        }
    }

    /// The next message of the batch, decompressed if need be; `None` if there is none in it.
    #[cold]
    fn poll_recv_inflated(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Message>>> {
        loop {
            if let Some(frame) = self.received.inflating() {
                if !frame.is_whole_message() {
                    // `recv_frame` has begun it. Its caller has the fragments before.
                    return Poll::Ready(Err(Error::MessageBegun));
                }
                let inflated = ready!(self.poll_inflate(cx));
                return Poll::Ready(Ok(inflated.map(Message::from_frame)));
            }
            let Some(message) = self.received.inbox.pop_message()? else {
                return Poll::Ready(Ok(None));
            };
            if let Some(frame) = self.received.inflate_later(message.into_frame()) {
                return Poll::Ready(Ok(Some(Message::from_frame(frame))));
            }
        }
    }

    pub(super) fn poll_recv_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>>> {
        if handler_buffer::is_spent() {
            handler_buffer::yield_to_others(cx);
            return Poll::Pending;
        }
        loop {
            if let Some(frame) = self.received.run.next() {
                return Poll::Ready(Ok(Some(frame)));
            }
            if self.received.inflating().is_some() {
                let inflated = ready!(self.poll_inflate(cx));
                if inflated.is_some() {
                    return Poll::Ready(Ok(inflated));
                }
            }
            if let Some(frame) = self.received.inbox.pop() {
                let Some(frame) = self.received.inflate_later(frame) else { continue };
                return Poll::Ready(Ok(Some(frame)));
            }
            if !ready!(self.poll_take(cx, Mode::Frames))? {
                return Poll::Ready(Ok(None));
            }
        }
    }

    /// Goes on with the compressed frame under way; `None` if the connection has failed over it.
    fn poll_inflate(&mut self, cx: &mut Context<'_>) -> Poll<Option<Frame>> {
        // Output counts against the budget of the server. The connection fails if it holds most of a spent one.
        let held = self.received.held();
        let Some(room) = ready!(self.poll_room(cx, held)) else {
            self.received.forget();
            return Poll::Ready(None);
        };
        let Some(inflation) = &mut self.received.inflation else { return Poll::Ready(None) };
        match inflation.step(room) {
            Ok(Some(frame)) => {
                if self.received.is_counted {
                    self.count_received(Taken::Held);
                }
                return Poll::Ready(Some(frame));
            }
            Ok(None) => {
                // Others have their turn before the next step.
                self.count_received(Taken::Inflating);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Err(error) => {
                // All behind it is inflated with the same window, and would be garbage.
                self.received.forget();
                self.shared.with(|connection, _| connection.refuse(error));
            }
        }
        Poll::Ready(None)
    }

    /// How many bytes may come out of the compressed frame under way; `None` if the connection has failed, because it
    /// holds most of what its server may. `held` is what this batch holds.
    fn poll_room(&mut self, cx: &Context<'_>, held: usize) -> Poll<Option<usize>> {
        let is_free = self.shared.budget().is_none_or(|it| held <= FREE && !it.is_spent());
        if is_free {
            return Poll::Ready(Some(usize::MAX));
        }
        // As many bytes of the message under way are free: short ones wait for no other connection.
        let inflating = self.received.inflation.as_ref().map_or(0, |inflation| inflation.held());
        if inflating < FREE {
            return Poll::Ready(Some(FREE - inflating));
        }
        self.received.is_counted = true;
        let shared = &self.shared;
        // Dropped without the lock: it is foreign code.
        let mut replaced = None;
        let room = shared.with(|connection, _| {
            // Another connection may have lost its patience with this one meanwhile.
            connection.give_way();
            if connection.has_given_way() {
                return Poll::Ready(None);
            }
            let is_in_task = connection.is_in_task(cx);
            if !is_in_task {
                replaced = shared.register_recv(cx.waker());
            }
            match connection.room_to_inflate(held, &shared.io_context(), is_in_task) {
                Some(room) => Poll::Ready(Some(room)),
                None => Poll::Pending,
            }
        });
        drop(replaced);
        room
    }

    /// Counts the bytes that are held here as the connection's.
    fn count_received(&mut self, taken: fn(usize) -> Taken) {
        if self.shared.budget().is_some() {
            let (taken, waker) = (taken(self.received.held()), &self.shared.io_waker);
            self.received.is_counted = matches!(taken, Taken::Inflating(_));
            self.shared.with(|connection, _| connection.count_taken(taken, waker));
        }
    }

    /// Takes the next batch from the connection; false once it has ended in order.
    #[cold]
    fn poll_take(&mut self, cx: &mut Context<'_>, mode: Mode) -> Poll<Result<bool>> {
        let Self { shared, received, .. } = self;
        thread_cache::put_run(std::mem::take(&mut received.run));
        // Dropped without the lock: it is foreign code.
        let mut replaced = None;
        let look = shared.with(|connection, _| {
            let io = &mut shared.io_context();
            connection.ask(mode);
            let is_in_task = connection.is_in_task(cx);
            let mut is_registered = false;
            // 1. Until there is something to take: read, and take up the end once all before it is received.
            while !connection.has_item() {
                connection.stop_draining();
                if let Some(end) = connection.recv_end().cloned() {
                    connection.receiver.stop_waiting();
                    return Look::End(end);
                }
                if !is_registered && !is_in_task {
                    // Before the last look at the stream, whose event may come at any time.
                    replaced = shared.register_recv(cx.waker());
                    is_registered = true;
                }
                if connection.fill(io, true).is_ready() {
                    if connection.has_read_enough() {
                        break;
                    }
                    continue;
                }
                // 2. There is nothing: the caller parks. In its own task it is the driver that writes then.
                connection.receiver = Receiver::waiting(is_in_task);
                received.inbox.release();
                if is_in_task {
                    return Look::Nothing;
                }
                // In another task, nothing else may write for a long time.
                connection.drive(io);
                if !connection.can_recv() {
                    return Look::Nothing;
                }
            }
            if !connection.has_task() {
                // There may be no other call for a long time: a pong does not wait for it.
                connection.write(io);
            }
            // 3. All that has arrived goes to the caller, as far as its turn allows.
            if connection.budget > 0 {
                connection.take_batch(&mut received.run, &mut received.inbox);
                return Look::Some;
            }
            // 4. Others have their turn, and what was sent goes out.
            connection.receiver = if is_in_task { Receiver::InTask } else { Receiver::Away };
            if !is_in_task {
                connection.budget = MESSAGES_PER_TURN;
                connection.write(io);
                connection.check_deadlines(io);
            }
            Look::Yield
        });
        drop(replaced);
        match look {
            Look::Some => Poll::Ready(Ok(true)),
            Look::End(end) => Poll::Ready(end.map(|()| false)),
            Look::Nothing => Poll::Pending,
            Look::Yield => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

/// The result of a look for messages.
enum Look {
    /// Messages, or frames, were taken.
    Some,
    Nothing,
    /// Other tasks have their turn first.
    Yield,
    /// The connection has ended.
    End(Result<()>),
}

/// Bytes of a long message that one step reads, and writes, at most.
const STEP: usize = 64 << 10;

/// Bytes of short messages, read and written, after which others have their turn.
const TURN: usize = 256 << 10;

#[derive(Debug)]
pub(super) struct Inflation {
    /// Whether messages refer to earlier ones.
    takeover: bool,
    max_message_size: usize,
    /// Kept between messages only with context takeover. Else it goes back to the thread, for any connection.
    inflater: Option<Inflater>,
    /// The text so far, if the message is one.
    utf8: Option<Utf8>,
    /// Length of the message so far, in bytes.
    len: usize,
    /// The frame that is decompressed.
    job: Option<Job>,
    /// Bytes read and written since others had their turn.
    spent: usize,
    /// Bytes that came out since the connection was opened.
    total: u64,
}

#[derive(Debug)]
struct Job {
    frame: Frame,
    /// How much of the frame's payload is read.
    pos: usize,
    out: Vec<u8>,
}

impl Inflation {
    pub(super) fn new(parameters: DeflateParameters, role: Role, max_message_size: usize) -> Self {
        let (_, theirs) = parameters.directions(role);
        Self {
            takeover: theirs.takeover,
            max_message_size,
            inflater: None,
            utf8: None,
            len: 0,
            job: None,
            spent: 0,
            total: 0,
        }
    }

    /// The frame under way, if any, as it came.
    pub(super) fn frame(&self) -> Option<&Frame> {
        self.job.as_ref().map(|job| &job.frame)
    }

    /// Bytes held of the frame under way, compressed and not.
    pub(super) fn held(&self) -> usize {
        let held = |job: &Job| job.frame.payload().len().saturating_add(job.out.len());
        self.job.as_ref().map_or(0, held)
    }

    /// Bytes that came out since the connection was opened.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Forgets the message under way.
    pub(super) fn abandon(&mut self) {
        self.job = None;
    }

    /// Begins with the next compressed frame, which may be a message with its fragments joined.
    pub(super) fn begin(&mut self, frame: Frame) {
        if frame.opcode() != OpCode::Continuation {
            self.utf8 = (frame.opcode() == OpCode::Text).then(Utf8::default);
            self.len = 0;
            self.inflater.get_or_insert_with(compression::take_inflater).begin_message();
        }
        self.job = Some(Job { frame, pos: 0, out: Vec::new() });
    }

    /// Goes on with the frame, of which at most `room` bytes come out; `None` if there is more to do after
    /// others had their turn.
    ///
    /// # Errors
    ///
    /// [`ProtocolError`] if it is corrupt, too long, or text that is not UTF-8.
    pub(super) fn step(&mut self, room: usize) -> Result<Option<Frame>, ProtocolError> {
        let (Some(inflater), Some(job)) = (&mut self.inflater, &mut self.job) else {
            return Ok(None);
        };
        // Many short messages in a row take a turn, too.
        if self.spent >= TURN {
            self.spent = 0;
            return Ok(None);
        }
        // One byte more than allowed is enough to know.
        let left = self.max_message_size.saturating_sub(self.len).saturating_add(1);
        let is_done = thread_cache::with_read_buffer(|buf| {
            let room = left.min(buf.len()).min(room);
            let old_pos = job.pos;
            let (written, is_done) = job.step(inflater, buf.get_mut(..room).unwrap_or_default())?;
            self.spent += job.pos - old_pos + written;
            self.len = self.len.saturating_add(written);
            self.total = self.total.saturating_add(u64::try_from(written).unwrap_or_default());
            if self.len > self.max_message_size {
                let len = u64::try_from(self.len).unwrap_or(u64::MAX);
                return Err(ProtocolError::MessageTooBig { len, max: self.max_message_size });
            }
            let new = buf.get(..written).unwrap_or_default();
            if let Some(utf8) = &mut self.utf8 {
                utf8.push(new)?;
            }
            job.take(new, is_done, self.max_message_size);
            Ok(is_done)
        })?;
        if is_done {
            return self.finish();
        }
        self.spent = 0;
        Ok(None)
    }

    fn finish(&mut self) -> Result<Option<Frame>, ProtocolError> {
        let Some(Job { frame, out, .. }) = self.job.take() else { return Ok(None) };
        if frame.fin() {
            // A text that ends inside a character is not UTF-8 (§8.1).
            self.utf8.take().map_or(Ok(()), Utf8::finish)?;
            if let Some(inflater) = self.inflater.take_if(|_| !self.takeover) {
                compression::put_inflater(inflater);
            }
        }
        Ok(Some(Frame::from_payload(frame.fin(), frame.opcode(), Payload::from(out))))
    }
}

impl Job {
    /// Decompresses up to as much as fits; the bytes written, and whether that was all.
    fn step(
        &mut self,
        inflater: &mut Inflater,
        output: &mut [u8],
    ) -> Result<(usize, bool), ProtocolError> {
        let payload = self.frame.payload().get(self.pos..).unwrap_or_default();
        let mut input = payload.get(..STEP).unwrap_or(payload);
        let given = input.len();
        let written = inflater.inflate(&mut input, output)?;
        self.pos += given - input.len();
        // A full buffer may hide more output of the same input.
        if given < payload.len() || written == output.len() {
            return Ok((written, false));
        }
        if self.frame.fin() {
            inflater.finish()?;
        }
        Ok((written, true))
    }

    /// Keeps what came out. Grows by doubling, and never beyond the longest message.
    fn take(&mut self, new: &[u8], is_last: bool, max: usize) {
        let need = self.out.len() + new.len();
        if need > self.out.capacity() {
            let more = if is_last { need } else { self.out.capacity().saturating_mul(2).min(max) };
            self.out.reserve_exact(more.max(need) - self.out.len());
        }
        self.out.extend_from_slice(new);
    }
}
