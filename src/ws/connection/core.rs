//! One connection, from the stream to the queues of both directions.
//!
//! Everything here happens under the connection's lock and never waits: what cannot go on leaves
//! the connection's waker with the stream or the timer. Who calls, and when, is `task.rs` for a
//! connection with a task of its own, and the methods of [`WebSocket`](super::WebSocket) else.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::io::{AsyncRead, AsyncWrite};

use super::deadlines::{Deadline, Deadlines};
use super::inbox::Inbox;
use super::outbox::Outbox;
use super::scratch;
use super::stats::{CloseInfo, Initiator, Stats};
use crate::error::{Error, Result, Timeout};
use crate::stream::Stream;
use crate::ws::options::Settings;
use crate::ws::proto::{
    CloseCode, CloseFrame, Decoder, Frame, OpCode, Payload, ProtocolError, Role, Run, State,
};

/// Reads per turn, so that a peer who never stops cannot keep the thread.
const READS_PER_TURN: usize = 16;

/// Messages per turn, for the same reason.
pub(super) const MESSAGES_PER_TURN: usize = 64;

/// Control frames kept for a caller who has not said yet whether it reads frames.
const CONTROLS_KEPT: usize = 32;

/// How long to wait for the end of the stream, after the closing handshake.
const LINGER: Duration = Duration::from_secs(1);

/// How far the connection is closed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    Open,
    /// A close frame is queued: wait for it to be written, and for the peer's.
    Closing,
    /// Our half of the stream is ended: read to the end of the other, so that what the peer still
    /// sends cannot turn our close frame into a reset.
    Lingering {
        has_ended: bool,
    },
    /// The stream is dropped.
    Gone,
}

/// The end of what the peer has to say, for as long as the messages before it wait: their replies
/// come first.
#[derive(Debug)]
enum Deferred {
    /// A close frame, to be answered with this.
    Close(Option<CloseFrame>),
    /// A violation of the protocol.
    Failure(ProtocolError),
}

/// Who waits in `recv`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Parked {
    Nobody,
    /// The handler, in the connection's own task: it reads for itself.
    InTask,
    /// Somebody the connection's task has to wake.
    Elsewhere,
}

/// What the connection is read by; the first call decides.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mode {
    Undecided,
    Messages,
    Frames,
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Core {
    stream: Option<Stream>,
    decoder: Decoder,
    /// Bytes that were read and not decoded yet.
    unread: Bytes,
    /// Short messages before everything in the inbox.
    run: Run,
    pub(super) inbox: Inbox,
    pub(super) outbox: Outbox,
    /// Messages that wait for the last fragment of another.
    held_back: Outbox,
    /// The payload of the latest ping, when the outbox was too full for its pong.
    pong: Option<Payload>,
    pub(super) state: State,
    phase: Phase,
    /// What arrived behind messages that nobody has received yet.
    deferred: Option<Deferred>,
    /// Is the caller in `recv`, so that the rest of a message is taken whatever is queued?
    is_wanted: bool,
    /// Does all that still comes after our close frame go unread?
    is_discarding: bool,
    /// May the last batch that was handed over still hold messages?
    is_handed_over: bool,
    end: Option<Result<()>>,
    initiator: Initiator,
    settings: Settings,
    deadlines: Deadlines,
    stats: Stats,
    role: Role,
    mode: Mode,
    pub(super) parked: Parked,
    /// Messages that may still pass in this turn.
    pub(super) budget: usize,
    /// Has the connection a task that reads, writes and closes for it?
    pub(super) has_task: bool,
    /// The waker of that task, to tell whether a caller runs in it.
    task_waker: Option<Waker>,
    /// Has that task been woken to write?
    pub(super) is_write_scheduled: bool,
    /// Is the `WebSocket` dropped?
    pub(super) is_abandoned: bool,
    /// Has something happened that senders, or those who wait for the end, wait for?
    pub(super) has_news: bool,
    /// Does anybody wait for news?
    pub(super) has_listeners: bool,
}

impl Core {
    pub(super) fn new(stream: Stream, unread: Bytes, role: Role, settings: Settings) -> Self {
        Self {
            stream: Some(stream),
            decoder: Decoder::new(role, settings.limits),
            unread,
            run: Run::default(),
            inbox: Inbox::default(),
            outbox: Outbox::new(role),
            held_back: Outbox::new(role),
            pong: None,
            state: State::default(),
            phase: Phase::Open,
            deferred: None,
            is_wanted: false,
            is_discarding: false,
            is_handed_over: false,
            end: None,
            initiator: Initiator::Local,
            settings,
            deadlines: Deadlines::default(),
            stats: Stats::new(),
            role,
            mode: Mode::Undecided,
            parked: Parked::Nobody,
            budget: MESSAGES_PER_TURN,
            has_task: false,
            task_waker: None,
            is_write_scheduled: false,
            is_abandoned: false,
            has_news: false,
            has_listeners: false,
        }
    }

    /// The caller has received all that was handed over, and asks for more.
    ///
    /// The mode decides whether control frames are kept for it.
    pub(super) fn ask(&mut self, mode: Mode) {
        self.is_handed_over = false;
        if self.mode != mode {
            self.mode = mode;
            if mode == Mode::Messages {
                self.inbox.drop_controls();
            }
        }
    }

    /// Writes, reads ahead and closes as far as possible without waiting.
    pub(super) fn service(&mut self, cx: &mut Context<'_>) {
        self.inbox.release();
        for _ in 0..READS_PER_TURN {
            self.write(cx);
            let has_progressed = match self.phase {
                Phase::Open => self.can_read_ahead() && self.read_ahead(cx).is_ready(),
                Phase::Closing => self.continue_closing(cx),
                Phase::Lingering { .. } => self.linger(cx),
                Phase::Gone => return,
            };
            if !has_progressed {
                return self.check_deadlines(cx);
            }
        }
        cx.waker().wake_by_ref();
    }

    /// Reads once and decodes what was read; pending when nothing is there.
    ///
    /// `is_wanted` if somebody waits for the rest of a message, whatever else is queued.
    pub(super) fn fill(&mut self, cx: &mut Context<'_>, is_wanted: bool) -> Poll<()> {
        if self.end.is_some() || self.deferred.is_some() {
            return Poll::Pending;
        }
        if !self.unread.is_empty() {
            let mut unread = std::mem::take(&mut self.unread);
            let mut input = &*unread;
            self.decode(&mut input, is_wanted);
            let used = unread.len() - input.len();
            unread.advance(used);
            self.unread = unread;
            return Poll::Ready(());
        }
        scratch::with_read_buffer(|buf| {
            let Some(stream) = &mut self.stream else { return Poll::Pending };
            match Pin::new(stream).poll_read(cx, buf) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => self.lose(io::ErrorKind::UnexpectedEof.into()),
                Poll::Ready(Ok(len)) => {
                    self.stats.wire_bytes_in += as_u64(len);
                    let mut input = buf.get(..len).unwrap_or_default();
                    self.decode(&mut input, is_wanted);
                    self.unread = Bytes::copy_from_slice(input);
                }
                Poll::Ready(Err(error)) => self.lose(error),
            }
            Poll::Ready(())
        })
    }

    /// Takes frames off the front of `input` until it is used up or enough is queued.
    fn decode(&mut self, input: &mut &[u8], is_wanted: bool) {
        self.is_wanted = is_wanted;
        self.take_run(input);
        while !self.has_enough() {
            match self.decoder.next(input) {
                Ok(Some(frame)) => self.accept(frame),
                Ok(None) => return,
                Err(error) => self.defer(Deferred::Failure(error)),
            }
            if self.end.is_some() || self.deferred.is_some() {
                // Whatever follows a close frame is not for us (§5.5.1, §7.1.7).
                *input = &[];
                return;
            }
        }
    }

    /// Takes whole messages as they are, if they come first and are asked for as messages.
    fn take_run(&mut self, input: &mut &[u8]) {
        if !self.inbox.is_empty() || self.mode == Mode::Frames || self.phase != Phase::Open {
            return;
        }
        if self.run.len() == 0 {
            self.run = Run::in_buffer(scratch::take_run());
        }
        let (messages, payload_bytes) = self.decoder.fill_run(&mut self.run, input);
        self.stats.frames_in += as_u64(messages);
        self.stats.messages_in += as_u64(messages);
        self.stats.payload_bytes_in += as_u64(payload_bytes);
        if self.run.len() == 0 {
            scratch::put_run(std::mem::take(&mut self.run).into_buffer());
        }
    }

    fn accept(&mut self, frame: Frame) {
        self.stats.frames_in += 1;
        match frame.opcode() {
            OpCode::Continuation | OpCode::Text | OpCode::Binary => {
                self.stats.payload_bytes_in += as_u64(frame.payload().len());
                self.stats.messages_in += u64::from(frame.fin());
                self.accept_data(frame);
                return;
            }
            OpCode::Ping => {
                self.stats.pings_in += 1;
                if self.settings.auto_pong && self.state.can_send() {
                    self.pong = Some(Payload::copy_from(frame.payload()));
                    self.queue_pong();
                }
            }
            OpCode::Pong => self.stats.pongs_in += 1,
            OpCode::Close => self.accept_close(frame.payload()),
        }
        let is_shown = match self.mode {
            Mode::Messages => false,
            Mode::Undecided => self.inbox.controls() < CONTROLS_KEPT,
            Mode::Frames => true,
        };
        if is_shown {
            self.inbox.push(frame);
        }
    }

    /// Queues a data frame, unless it comes after our close frame and nobody asks for it: then it
    /// and all that follows is discarded, so that the peer's close frame is found.
    fn accept_data(&mut self, frame: Frame) {
        let is_unwanted = !self.is_wanted && self.parked == Parked::Nobody && self.is_full();
        if self.phase != Phase::Open && is_unwanted {
            self.is_discarding = true;
        }
        if self.is_discarding {
            self.inbox.drop_unfinished();
        } else {
            self.inbox.push(frame);
        }
    }

    /// Answers the latest ping, unless the peer leaves too much unread: a flood of pings then
    /// costs one payload, and §5.5.3 allows to answer the last of them only.
    fn queue_pong(&mut self) {
        if self.outbox.len() >= self.settings.send_buffer_size || !self.state.can_send() {
            return;
        }
        if let Some(payload) = self.pong.take() {
            self.push(&mut Some(Frame::from_payload(true, OpCode::Pong, payload)));
        }
    }

    fn accept_close(&mut self, payload: &[u8]) {
        // The decoder has checked the payload.
        let frame = CloseFrame::decode(payload).unwrap_or_default();
        if self.state.can_send() {
            self.initiator = Initiator::Remote;
        }
        let reply = frame.as_ref().map(|frame| CloseFrame::lossy(frame.code(), ""));
        self.state.receive_close(frame);
        self.has_news = true;
        self.defer(Deferred::Close(reply));
    }

    /// Takes the end up now, or once the messages before it are received.
    fn defer(&mut self, deferred: Deferred) {
        self.deferred = Some(deferred);
        let is_waited_for = self.run.len() > 0 || self.inbox.has_data() || self.is_handed_over;
        if is_waited_for && self.phase == Phase::Open {
            self.deadlines.start_close(Deadline::Deferred, self.settings.close_timeout);
        } else {
            self.take_up_deferred();
        }
    }

    /// Ends the connection as the peer's last frame demands; true if there was one.
    pub(super) fn take_up_deferred(&mut self) -> bool {
        match self.deferred.take() {
            Some(Deferred::Close(reply)) => {
                self.end.get_or_insert(Ok(()));
                self.queue_close(reply);
            }
            Some(Deferred::Failure(error)) => {
                self.fail(Error::Protocol(error), error.close_code());
            }
            None => return false,
        }
        true
    }

    /// Begins the closing handshake, unless it has begun.
    pub(super) fn begin_close(&mut self, frame: Option<CloseFrame>) {
        if self.phase == Phase::Open && !self.take_up_deferred() {
            self.queue_close(frame);
        }
    }

    fn queue_close(&mut self, frame: Option<CloseFrame>) {
        let payload = frame.as_ref().map_or_else(Payload::empty, |frame| frame.encode().into());
        if self.state.send_close(frame) {
            self.push(&mut Some(Frame::from_payload(true, OpCode::Close, payload)));
            self.deadlines.start_close(Deadline::Close, self.settings.close_timeout);
        }
        if self.phase == Phase::Open {
            self.phase = Phase::Closing;
            self.has_news = true;
        }
    }

    /// Fails the connection (§7.1.7): tells the peer why, and waits for nothing more from it.
    fn fail(&mut self, error: Error, code: CloseCode) {
        log::debug!("connection failed: {error}");
        let frame = CloseFrame::lossy(code, &error.to_string());
        self.end.get_or_insert(Err(error));
        self.queue_close(Some(frame));
    }

    /// The stream is lost.
    fn lose(&mut self, error: io::Error) {
        if self.state.can_send() {
            self.initiator = Initiator::Remote;
        }
        if matches!(self.deferred, Some(Deferred::Close(_))) {
            // The peer has said good-bye; that it did not wait for ours is no failure.
            self.end.get_or_insert(Ok(()));
        }
        self.drop_stream(Error::from(error));
    }

    /// Ends the connection where it is; `error` unless it has ended already.
    fn drop_stream(&mut self, error: Error) {
        self.end.get_or_insert(Err(error));
        self.phase = Phase::Gone;
        self.deferred = None;
        self.has_news = true;
        self.stream = None;
        self.unread = Bytes::new();
        self.pong = None;
        self.outbox.clear();
        self.held_back.clear();
        self.deadlines.clear();
    }

    /// Waits for the close frames of both sides; true if something happened.
    fn continue_closing(&mut self, cx: &mut Context<'_>) -> bool {
        if self.end.is_none() {
            return self.read_ahead(cx).is_ready();
        }
        let is_written = self.outbox.is_empty();
        if is_written {
            self.phase = Phase::Lingering { has_ended: false };
            self.has_news = true;
            self.deadlines.start_close(Deadline::Linger, LINGER.min(self.settings.close_timeout));
        }
        is_written
    }

    /// Reads to the end of the stream, and drops it; true if something happened.
    fn linger(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        if self.phase == (Phase::Lingering { has_ended: false }) && self.role == Role::Server {
            // The server ends the stream first (§7.1.1), so that TIME_WAIT stays with it.
            if Pin::new(&mut *stream).poll_close(cx).is_pending() {
                return false;
            }
            self.phase = Phase::Lingering { has_ended: true };
        }
        let read = scratch::with_read_buffer(|buf| Pin::new(stream).poll_read(cx, buf));
        match read {
            Poll::Pending => return false,
            Poll::Ready(Ok(len)) if len > 0 => {}
            Poll::Ready(_) => self.drop_stream(Error::Closed),
        }
        true
    }

    /// Writes what is queued, as far as the stream takes it.
    pub(super) fn write(&mut self, cx: &mut Context<'_>) {
        self.is_write_scheduled = false;
        self.queue_pong();
        if self.outbox.is_empty() {
            return;
        }
        let Some(stream) = &mut self.stream else { return };
        let (written, result) = self.outbox.write(stream, cx);
        self.stats.wire_bytes_out += as_u64(written);
        if written > 0 || result.is_ready() {
            self.deadlines.stop_send();
            self.has_news = true;
        }
        match result {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => self.lose(error),
            Poll::Pending => {
                if let Some(timeout) = self.settings.send_timeout {
                    self.deadlines.start_send(timeout);
                }
            }
        }
    }

    fn check_deadlines(&mut self, cx: &mut Context<'_>) {
        match self.settings.message_timeout {
            Some(timeout) if self.decoder.is_inside_message() && self.is_reading() => {
                self.deadlines.start_message(self.stats.messages_in, timeout);
            }
            _ => self.deadlines.stop_message(),
        }
        match self.deadlines.poll(cx) {
            None => return,
            Some(Deadline::Message(_)) => {
                self.fail(Error::Timeout(Timeout::Message), CloseCode::POLICY_VIOLATION);
            }
            Some(Deadline::Deferred) => {
                self.take_up_deferred();
            }
            Some(Deadline::Send) => self.drop_stream(Error::Timeout(Timeout::Send)),
            Some(Deadline::Close) => self.drop_stream(Error::Timeout(Timeout::Close)),
            Some(Deadline::Linger) => self.drop_stream(Error::Closed),
        }
        // What follows from it happens in the next turn.
        cx.waker().wake_by_ref();
    }

    /// Queues a frame.
    pub(super) fn push(&mut self, frame: &mut Option<Frame>) {
        self.outbox.push(frame);
        if !self.held_back.is_empty() && !self.state.is_sending_fragments() {
            self.outbox.append(&mut self.held_back);
        }
    }

    /// May the handler send without asking?
    pub(super) fn can_stage(&self) -> bool {
        self.send_error().is_none() && !self.state.is_sending_fragments()
    }

    /// Takes what the handler has staged. What another task has begun or ended meanwhile goes
    /// first: the rest of its fragments, or the connection.
    pub(super) fn unstage(&mut self, staged: &mut Outbox) {
        if self.state.is_sending_fragments() {
            self.held_back.append(staged);
        } else if self.state.can_send() {
            self.outbox.append(staged);
        } else {
            staged.clear();
        }
    }

    /// Bytes that the handler may send before it has to ask.
    pub(super) fn room(&self) -> usize {
        if !self.can_stage() {
            return 0;
        }
        self.settings.send_buffer_size.saturating_sub(self.outbox.len())
    }

    /// The connection's task polls its handler.
    ///
    /// True if the waker of the task is a new one.
    pub(super) fn begin_turn(&mut self, waker: &Waker) -> bool {
        let is_new = !self.task_waker.as_ref().is_some_and(|known| known.will_wake(waker));
        if is_new {
            self.task_waker = Some(waker.clone());
        }
        self.has_task = true;
        self.budget = MESSAGES_PER_TURN;
        if self.parked == Parked::InTask {
            self.parked = Parked::Nobody;
        }
        is_new
    }

    /// Does `cx` belong to the connection's task?
    pub(super) fn is_in_task(&self, cx: &Context<'_>) -> bool {
        self.task_waker.as_ref().is_some_and(|task| task.will_wake(cx.waker()))
    }

    pub(super) fn role(&self) -> Role {
        self.role
    }

    /// What passed so far.
    pub(super) fn stats(&self) -> Stats {
        let sent = &self.outbox.counts;
        Stats {
            frames_out: sent.frames,
            messages_out: sent.messages,
            payload_bytes_out: sent.payload_bytes,
            ..self.stats
        }
    }

    /// Has the outbox room for another message?
    pub(super) fn has_room(&self) -> bool {
        self.outbox.len() < self.settings.send_buffer_size
    }

    /// Has the stream taken the first `mark` bytes that were queued? An error if it never will.
    pub(super) fn is_written(&self, mark: u64) -> Option<Result<()>> {
        if self.is_gone() {
            let is_lost = self.stats.wire_bytes_out < mark;
            return Some(if is_lost { Err(self.lost_error()) } else { Ok(()) });
        }
        (self.outbox.is_empty() || self.outbox.written() >= mark).then_some(Ok(()))
    }

    fn lost_error(&self) -> Error {
        self.send_error().unwrap_or(Error::Closed)
    }

    /// Why nothing can be sent, if so.
    pub(super) fn send_error(&self) -> Option<Error> {
        match &self.end {
            Some(Err(error)) => Some(error.clone()),
            Some(Ok(())) => Some(Error::Closed),
            None => (!self.state.can_send()).then_some(Error::Closed),
        }
    }

    /// Hands what is queued over to the caller, as far as the turn allows.
    pub(super) fn take_batch(&mut self, run: &mut Run, inbox: &mut Inbox) {
        self.parked = Parked::Nobody;
        self.is_handed_over = true;
        *run = self.run.take(self.budget);
        self.budget = self.budget.saturating_sub(run.len());
        if self.run.len() == 0 {
            self.budget = self.budget.saturating_sub(self.inbox.units());
            inbox.append(&mut self.inbox);
        }
    }

    /// Is there what the caller reads the connection by?
    pub(super) fn has_item(&self) -> bool {
        match self.mode {
            Mode::Messages => self.run.len() > 0 || self.inbox.has_message(),
            Mode::Frames | Mode::Undecided => self.run.len() > 0 || !self.inbox.is_empty(),
        }
    }

    /// What `recv` returns when nothing is left to receive.
    ///
    /// A connection without a task is closed to its last step by whoever waits in `recv`.
    pub(super) fn recv_end(&self) -> Option<Result<()>> {
        if self.has_task || self.is_gone() { self.end.clone() } else { None }
    }

    /// How the connection ended, once it has.
    pub(super) fn close_info(&self) -> Option<CloseInfo> {
        let has_ended = self.end.is_some() || matches!(self.deferred, Some(Deferred::Close(_)));
        has_ended.then(|| CloseInfo::new(&self.state, self.initiator))
    }

    /// Is the connection open, as far as one can know?
    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open && self.deferred.is_none()
    }

    /// Is the closing handshake over, as far as a caller should wait for it?
    pub(super) fn is_settled(&self) -> bool {
        let is_lingering = matches!(self.phase, Phase::Lingering { .. });
        self.is_gone() || (is_lingering && self.has_task)
    }

    /// Is the stream dropped?
    pub(super) fn is_gone(&self) -> bool {
        self.phase == Phase::Gone
    }

    /// The connection's task is gone, and with it whoever would read, write and close.
    pub(super) fn lose_task(&mut self) {
        (self.has_task, self.task_waker) = (false, None);
        if !self.is_gone() {
            self.drop_stream(Error::Closed);
        }
    }

    /// Ends a connection that nobody reads or writes for any more: one attempt, no waiting.
    pub(super) fn abandon(&mut self, cx: &mut Context<'_>, code: CloseCode) {
        self.begin_close(Some(CloseFrame::lossy(code, "")));
        self.write(cx);
        if let Some(stream) = &mut self.stream {
            // Whether it succeeds or not, the stream is dropped now.
            let _ = Pin::new(stream).poll_close(cx);
        }
        self.drop_stream(Error::Closed);
    }

    fn can_read_ahead(&self) -> bool {
        let may_read = match self.parked {
            Parked::InTask => false,
            Parked::Elsewhere => !self.has_item() || !self.is_full(),
            Parked::Nobody => !self.is_full(),
        };
        may_read && self.deferred.is_none()
    }

    fn read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.fill(cx, self.parked != Parked::Nobody)
    }

    /// Does this side take more from the stream? If not, the peer's clock stands still.
    fn is_reading(&self) -> bool {
        self.parked != Parked::Nobody || !self.is_full()
    }

    /// Is enough queued, when nobody waits for it?
    fn is_full(&self) -> bool {
        let queued = [self.run.held(), self.inbox.bytes(), self.decoder.buffered()];
        queued.into_iter().fold(0, usize::saturating_add) > self.settings.read_ahead_size
    }

    fn has_enough(&self) -> bool {
        if self.phase != Phase::Open {
            return false;
        }
        let has_message = self.run.len() > 0 || self.inbox.has_message();
        self.is_full() && (has_message || !self.is_wanted)
    }
}

fn as_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
