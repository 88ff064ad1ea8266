//! The end of a connection: the closing handshake, failures, deadlines, and what is left of the stream
//! ([RFC 6455 §7]).
//!
//! [RFC 6455 §7]: https://www.rfc-editor.org/rfc/rfc6455#section-7

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::io::{AsyncRead, AsyncWrite};

use super::budget::PATIENCE;
use super::state::{Connection, Deferred, Phase};
use super::stats::{CloseInfo, Initiator};
use super::thread_cache;
use super::timers::Deadline;
use crate::error::{Error, Result, Timeout};
use crate::proto::{CloseCode, CloseFrame, Frame, OpCode, Payload, ProtocolError, Role, WireBatch};

/// How long to wait for the end of the stream, after the closing handshake.
const LINGER: Duration = Duration::from_secs(1);

impl Connection {
    /// Ends the connection as the peer's last frame demands; true if there was one.
    pub(super) fn take_up_deferred(&mut self) -> bool {
        match self.deferred.take().map(|deferred| *deferred) {
            Some(Deferred::Close(reply)) => {
                self.end(Ok(()));
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

    pub(super) fn queue_close(&mut self, frame: Option<CloseFrame>) {
        let payload = frame.as_ref().map_or_else(Payload::empty, |frame| frame.encode().into());
        self.refill_all();
        if self.state.send_close(frame) {
            self.push(&mut Some(Frame::from_payload(true, OpCode::Close, payload)));
            self.timers.start_close(Deadline::Close, self.settings.close_timeout);
        }
        if self.phase == Phase::Open {
            self.phase = Phase::Closing;
            (self.has_news, self.is_task_owed) = (true, true);
        }
    }

    /// Fails the connection (§7.1.7): tells the peer why, and waits for nothing more from it.
    pub(super) fn fail(&mut self, error: Error, code: CloseCode) {
        let frame = CloseFrame::lossy(code, &error.to_string());
        self.unlogged = Some(Box::new((error.clone(), code)));
        self.end(Err(error));
        self.queue_close(Some(frame));
    }

    /// Fails the connection because of a message that was received whole.
    pub(super) fn refuse(&mut self, error: ProtocolError) {
        self.run = WireBatch::default();
        self.inbox.clear();
        self.forget_batch();
        self.deferred = None;
        if self.state.can_send() {
            self.initiator = Initiator::Local;
        }
        self.fail(Error::Protocol(error), error.close_code());
    }

    /// The stream is lost.
    pub(super) fn lose(&mut self, error: io::Error) {
        if self.state.can_send() {
            self.initiator = Initiator::Remote;
        }
        if self.is_closed_by_peer() {
            // The peer has said good-bye; that it did not wait for ours is no failure.
            self.end(Ok(()));
        }
        self.drop_stream(Error::from(error));
    }

    /// Ends the connection where it is; `error` unless it has ended already.
    ///
    /// Whatever ended it, the stream is ended in order, as far as it takes that at once.
    pub(super) fn drop_stream(&mut self, error: Error) {
        self.end(Err(error));
        let is_ended = self.phase == (Phase::Lingering { has_ended: true });
        self.phase = Phase::Gone;
        self.deferred = None;
        self.is_task_owed = true;
        self.unread = Bytes::new();
        self.decoder.forget();
        self.pong = None;
        self.outbox.clear();
        self.during_poll = None;
        self.backlog = None;
        if let Some(deflation) = self.deflation.take() {
            deflation.end();
        }
        self.limiter = None;
        self.timers.clear();
        if let Some(mut stream) = self.stream.take().filter(|_| !is_ended) {
            stream.end();
        }
    }

    /// Sets what the connection ends with, unless it has ended; those who wait for that are told.
    fn end(&mut self, outcome: Result<()>) {
        self.end.get_or_insert(outcome);
        self.has_news = true;
    }

    /// Waits for the close frames of both sides; true if something happened.
    pub(super) fn continue_closing(&mut self, cx: &mut Context<'_>) -> bool {
        if self.end.is_none() {
            return self.read_ahead(cx).is_ready();
        }
        let is_written = self.is_all_written();
        if is_written {
            self.phase = Phase::Lingering { has_ended: false };
            self.has_news = true;
            self.timers.start_close(Deadline::Linger, LINGER.min(self.settings.close_timeout));
        }
        is_written
    }

    /// Reads to the end of the stream, and drops it; true if something happened.
    pub(super) fn linger(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        if self.phase == (Phase::Lingering { has_ended: false }) && self.role == Role::Server {
            // The server ends the stream first (§7.1.1), so that TIME_WAIT stays with it.
            if Pin::new(&mut *stream).poll_close(cx).is_pending() {
                return false;
            }
            self.phase = Phase::Lingering { has_ended: true };
        }
        let read = thread_cache::with_read_buffer(|buf| Pin::new(stream).poll_read(cx, buf));
        match read {
            Poll::Pending => return false,
            Poll::Ready(Ok(len)) if len > 0 => {}
            Poll::Ready(_) => self.drop_stream(Error::Closed),
        }
        true
    }

    /// Does what is due, and has `cx` woken when something else is.
    pub(super) fn check_deadlines(&mut self, cx: &mut Context<'_>) {
        match self.settings.message_timeout {
            Some(timeout) if self.is_waiting_for_message() => {
                self.timers.start_message(self.tally.messages_in, timeout);
            }
            _ => self.timers.stop_message(),
        }
        self.record_activity();
        self.count_held(cx.waker());
        while let Some(deadline) = self.timers.poll(cx) {
            if self.on_deadline(deadline, cx) {
                // What follows from it happens in the next turn.
                return self.owe_look();
            }
        }
    }

    /// Is the rest of a message to come? Not if the connection has failed over it.
    fn is_waiting_for_message(&self) -> bool {
        self.decoder.is_inside_message() && self.is_reading() && self.end.is_none()
    }

    /// Does what is to be done at this time; true if more follows from it.
    fn on_deadline(&mut self, deadline: Deadline, cx: &mut Context<'_>) -> bool {
        match deadline {
            Deadline::Heartbeat => {
                self.beat(cx);
                return false;
            }
            Deadline::Room => {
                self.account.lose_patience();
                self.timers.resume();
                self.timers.pause(Some(PATIENCE));
                return false;
            }
            Deadline::Message(_) => {
                self.fail(Error::Timeout(Timeout::Message), CloseCode::POLICY_VIOLATION);
            }
            Deadline::Deferred => {
                self.take_up_deferred();
            }
            Deadline::Send => self.drop_stream(Error::Timeout(Timeout::Send)),
            Deadline::Close => self.drop_stream(Error::Timeout(Timeout::Close)),
            Deadline::Linger => self.drop_stream(Error::Closed),
            Deadline::Idle => self.close_going_away("idle timeout"),
            Deadline::Lifetime => self.close_going_away("maximum lifetime"),
            Deadline::Expiry => self.expire(),
        }
        true
    }

    /// Does a close frame of the peer wait for the messages before it?
    fn is_closed_by_peer(&self) -> bool {
        matches!(self.deferred.as_deref(), Some(Deferred::Close(_)))
    }

    /// How the connection ended, once it has.
    pub(super) fn close_info(&self) -> Option<CloseInfo> {
        let has_ended = self.end.is_some() || self.is_closed_by_peer();
        has_ended.then(|| CloseInfo::new(&self.state, self.initiator))
    }

    /// What the connection ended with, once it has.
    pub(super) fn outcome(&self) -> Option<Result<()>> {
        self.end.clone().or_else(|| self.is_closed_by_peer().then_some(Ok(())))
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
        self.has_task = false;
        if !self.is_gone() {
            self.drop_stream(Error::Closed);
        }
        self.account.close();
    }

    /// Ends a connection that nobody reads or writes for any more: one attempt, no waiting.
    pub(super) fn abandon(&mut self, cx: &mut Context<'_>, code: CloseCode) {
        self.begin_close(Some(CloseFrame::lossy(code, "")));
        self.write(cx);
        self.drop_stream(Error::Closed);
    }

    /// Fails the connection without waiting for anything: the peer is told why if the stream takes
    /// that at once.
    pub(super) fn give_up(&mut self, cx: &mut Context<'_>, error: Error, code: CloseCode) {
        if self.is_all_written() {
            self.fail(error.clone(), code);
            self.write(cx);
        }
        self.drop_stream(error);
    }
}
