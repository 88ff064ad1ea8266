//! The end of a connection: the closing handshake, failures, deadlines, and what is left of the stream
//! ([RFC 6455 §7]).
//!
//! [RFC 6455 §7]: https://www.rfc-editor.org/rfc/rfc6455#section-7

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures::io::{AsyncRead, AsyncWrite};

use super::state::{Connection, Driver, HandlerPoll, Taken};
use super::stats::{CloseInfo, Initiator};
use super::thread_cache;
use super::timers::Deadline;
use crate::budget::PATIENCE;
use crate::error::{Error, Result, TimeoutKind};
use crate::proto::{CloseCode, CloseFrame, Frame, OpCode, Payload, ProtocolError, Role, WireBatch};

/// The wait for the end of the stream, after the closing handshake.
const LINGER: Duration = Duration::from_secs(1);

/// How far the connection is closed. The page of `mod.rs` has the diagram.
#[derive(Debug)]
pub(super) enum Lifecycle {
    Open,
    /// The peer has closed, or has broken a rule. The messages before that have not been received yet, and replies to
    /// them go out before our close frame.
    Draining(Box<PeerEnd>),
    /// Our close frame is queued.
    Closing {
        /// `None` until the peer's close frame is here.
        outcome: Option<Result<()>>,
        /// Whether data frames go unread, so that the peer's close frame behind them is found.
        is_discarding: bool,
    },
    /// The closing handshake is over, as far as it will be. This side reads to the end of the stream, so that bytes
    /// that the peer still sends cannot turn our close frame into a reset.
    Lingering {
        outcome: Result<()>,
        /// Whether our half of the stream is ended.
        has_ended: bool,
    },
    /// The stream is dropped.
    Gone {
        outcome: Result<()>,
    },
}

/// The last that is read of the peer.
#[derive(Debug)]
pub(super) enum PeerEnd {
    /// A close frame, to be answered with this.
    Close(Option<CloseFrame>),
    Violation(ProtocolError),
}

impl Lifecycle {
    /// Whether our close frame is neither queued nor sent.
    #[cfg(feature = "rooms")]
    pub(super) fn is_before_close(&self) -> bool {
        matches!(self, Self::Open | Self::Draining(_))
    }

    /// Whether frames of the peer are still taken.
    #[inline]
    pub(super) fn is_reading(&self) -> bool {
        matches!(self, Self::Open | Self::Closing { outcome: None, .. })
    }

    /// The outcome of the connection, once it is settled.
    #[inline]
    pub(super) fn outcome(&self) -> Option<&Result<()>> {
        match self {
            Self::Open | Self::Draining(_) => None,
            Self::Closing { outcome, .. } => outcome.as_ref(),
            Self::Lingering { outcome, .. } | Self::Gone { outcome } => Some(outcome),
        }
    }

    /// Replaces an outcome that is settled.
    pub(super) fn replace_outcome(&mut self, new: Result<()>) {
        match self {
            Self::Open | Self::Draining(_) => {}
            Self::Closing { outcome, .. } => *outcome = Some(new),
            Self::Lingering { outcome, .. } | Self::Gone { outcome } => *outcome = new,
        }
    }
}

/// The close frame that a caller asks for, if it may be sent (§7.4, §5.5).
pub(crate) fn close_frame(
    code: Result<CloseCode, ProtocolError>,
    reason: &str,
) -> Result<CloseFrame> {
    code.and_then(|code| CloseFrame::new(code, reason)).map_err(Error::InvalidClose)
}

impl Connection {
    /// Ends the connection by the peer's close frame or violation: now, or once the messages before it are received.
    pub(super) fn on_peer_end(&mut self, end: PeerEnd) {
        let has_held = self.taken != Taken::Received;
        let is_waited_for = self.run.len() > 0 || self.inbox.has_data() || has_held;
        if is_waited_for && self.is_open() {
            self.lifecycle = Lifecycle::Draining(Box::new(end));
            self.timers.start_close(Deadline::Drain, self.settings.close_timeout);
        } else {
            self.close_for_peer(end);
        }
    }

    /// The messages before the peer's close frame or violation are received, or are not waited for any more.
    pub(super) fn stop_draining(&mut self) {
        if let Lifecycle::Draining(_) = self.lifecycle {
            let before = std::mem::replace(&mut self.lifecycle, Lifecycle::Open);
            if let Lifecycle::Draining(end) = before {
                self.close_for_peer(*end);
            }
        }
    }

    fn close_for_peer(&mut self, end: PeerEnd) {
        match end {
            PeerEnd::Close(reply) => self.queue_close(reply, Some(Ok(()))),
            PeerEnd::Violation(error) => self.fail(Error::Protocol(error), error.close_code()),
        }
    }

    /// Begins the closing handshake, unless it has begun.
    pub(super) fn begin_close(&mut self, frame: Option<CloseFrame>) {
        match self.lifecycle {
            Lifecycle::Open => self.queue_close(frame, None),
            Lifecycle::Draining(_) => self.stop_draining(),
            Lifecycle::Closing { .. } | Lifecycle::Lingering { .. } | Lifecycle::Gone { .. } => {}
        }
    }

    /// Queues our close frame behind all that waits, unless it is queued already. `outcome` is what the connection
    /// ends with, if that is known and nothing else came first.
    fn queue_close(&mut self, frame: Option<CloseFrame>, outcome: Option<Result<()>>) {
        self.has_news = true;
        if matches!(self.lifecycle, Lifecycle::Lingering { .. } | Lifecycle::Gone { .. }) {
            return;
        }
        // Broadcasts that wait were sent before, and nothing goes out behind a close frame (§5.5.1). First of all: a
        // payload of the application may panic when it is dropped, and the connection is still to be closed then.
        self.refill_all();
        let payload = frame.as_ref().map_or_else(Payload::empty, |frame| frame.encode().into());
        if let Lifecycle::Closing { outcome: settled, .. } = &mut self.lifecycle {
            *settled = settled.take().or(outcome);
        } else {
            self.lifecycle = Lifecycle::Closing { outcome, is_discarding: false };
            self.owe_task();
        }
        if self.state.send_close(frame) {
            self.push(&mut Some(Frame::from_payload(true, OpCode::Close, payload)));
            self.timers.start_close(Deadline::Close, self.settings.close_timeout);
        }
    }

    /// Fails the connection (§7.1.7): tells the peer why, and waits for nothing more from it.
    pub(super) fn fail(&mut self, error: Error, code: CloseCode) {
        let frame = CloseFrame::lossy(code, &format!("{error:#}"));
        self.unlogged = Some(Box::new((error.clone(), code)));
        self.queue_close(Some(frame), Some(Err(error)));
    }

    /// Fails the connection because of a message that was received whole.
    pub(super) fn refuse(&mut self, error: ProtocolError) {
        self.run = WireBatch::default();
        self.inbox.clear();
        self.taken = Taken::Received;
        // A stream that has ended before was ended by the peer.
        if self.state.can_send() && !self.is_gone() {
            self.initiator = Initiator::Local;
        }
        self.fail(Error::Protocol(error), error.close_code());
    }

    /// The stream is lost.
    pub(super) fn lose(&mut self, error: io::Error) {
        if self.state.can_send() {
            self.initiator = Initiator::Remote;
        }
        // A peer that has said good-bye, and did not wait for ours, has not failed.
        let outcome = if self.is_closed_by_peer() { Ok(()) } else { Err(Error::from(error)) };
        self.drop_stream(outcome);
    }

    /// Ends the connection where it is, with this outcome unless another is settled.
    ///
    /// The stream is always ended in order, as far as it takes that at once.
    pub(super) fn drop_stream(&mut self, outcome: Result<()>) {
        let outcome = self.lifecycle.outcome().cloned().unwrap_or(outcome);
        let before = std::mem::replace(&mut self.lifecycle, Lifecycle::Gone { outcome });
        let is_ended = matches!(before, Lifecycle::Lingering { has_ended: true, .. });
        self.has_news = true;
        // Those who wait for the end alone have not said so.
        self.has_listeners = true;
        self.owe_task();
        self.unread = Bytes::new();
        self.decoder.forget();
        self.pong = None;
        // Nothing of it can be written any more.
        self.outbox.clear();
        if let HandlerPoll::Running { during_poll, .. } = &mut self.handler {
            *during_poll = None;
        }
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

    /// Waits for the close frames of both sides; true if something happened.
    pub(super) fn continue_closing(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(outcome) = self.lifecycle.outcome().cloned() else {
            return self.read_ahead(cx).is_ready();
        };
        let is_written = self.is_all_written();
        if is_written {
            self.lifecycle = Lifecycle::Lingering { outcome, has_ended: false };
            self.has_news = true;
            self.timers.start_close(Deadline::Linger, LINGER.min(self.settings.close_timeout));
        }
        is_written
    }

    /// Reads to the end of the stream, and drops it; true if something happened.
    pub(super) fn linger(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        if let Lifecycle::Lingering { has_ended: has_ended @ false, .. } = &mut self.lifecycle {
            // The server ends the stream first (§7.1.1), so that TIME_WAIT stays with it.
            if self.role == Role::Server {
                if Pin::new(&mut *stream).poll_close(cx).is_pending() {
                    return false;
                }
                *has_ended = true;
            }
        }
        // One read for each call: `drive` counts them.
        let read = thread_cache::with_read_buffer(|buf| Pin::new(stream).poll_read(cx, buf));
        match read {
            Poll::Pending => return false,
            Poll::Ready(Ok(len)) if len > 0 => {}
            Poll::Ready(_) => self.drop_stream(Err(Error::Closed)),
        }
        true
    }

    /// Meets the deadlines that have passed, and has `cx` woken at the next one.
    pub(super) fn check_deadlines(&mut self, cx: &mut Context<'_>) {
        match self.settings.message_timeout {
            Some(timeout) if self.is_waiting_for_message() => {
                self.timers.start_message(self.tally.messages_in, timeout);
            }
            _ => self.timers.stop_message(),
        }
        self.record_activity();
        self.count_held(cx.waker());
        // A deadline of which nothing follows, such as a ping, is met here, and the next is looked at.
        while let Some(deadline) = self.timers.poll(cx) {
            if self.on_deadline(deadline, cx) {
                // The work that follows from it is done in the next turn.
                return self.owe_look();
            }
        }
    }

    /// Whether the rest of a message is to come. Not if the connection has failed over it.
    fn is_waiting_for_message(&self) -> bool {
        let has_ended = self.lifecycle.outcome().is_some();
        self.decoder.is_inside_message() && self.is_reading() && !has_ended
    }

    /// Meets a deadline. Returns true if more work follows from it.
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
                self.fail(Error::Timeout(TimeoutKind::Message), CloseCode::POLICY_VIOLATION);
            }
            Deadline::Drain => self.stop_draining(),
            Deadline::Send => self.drop_stream(Err(Error::Timeout(TimeoutKind::Send))),
            Deadline::Close => self.drop_stream(Err(Error::Timeout(TimeoutKind::Close))),
            Deadline::Linger => self.drop_stream(Err(Error::Closed)),
            Deadline::Idle => self.close_going_away("idle timeout"),
            Deadline::Lifetime => self.close_going_away("maximum lifetime"),
            Deadline::Expiry => self.expire(),
        }
        true
    }

    /// Whether a close frame of the peer waits for the messages before it.
    fn is_closed_by_peer(&self) -> bool {
        matches!(&self.lifecycle, Lifecycle::Draining(end) if matches!(**end, PeerEnd::Close(_)))
    }

    /// How the connection ended, once it has.
    pub(super) fn close_info(&self) -> Option<CloseInfo> {
        let has_ended = self.lifecycle.outcome().is_some() || self.is_closed_by_peer();
        has_ended.then(|| CloseInfo::new(&self.state, self.initiator))
    }

    /// The outcome of the connection, once it has ended.
    pub(super) fn outcome(&self) -> Option<Result<()>> {
        let outcome = self.lifecycle.outcome().cloned();
        outcome.or_else(|| self.is_closed_by_peer().then_some(Ok(())))
    }

    /// Whether the connection is open, as far as one can know.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.lifecycle, Lifecycle::Open)
    }

    /// Whether the closing handshake is over, as far as a caller waits for it.
    pub(super) fn is_settled(&self) -> bool {
        let is_lingering = matches!(self.lifecycle, Lifecycle::Lingering { .. });
        self.is_gone() || (is_lingering && self.has_task())
    }

    /// Whether the stream is dropped.
    pub(super) fn is_gone(&self) -> bool {
        matches!(self.lifecycle, Lifecycle::Gone { .. })
    }

    /// The connection's task is dropped: the stream goes with it, for nothing reads, writes or closes any more. Returns
    /// the task's waker, to be dropped without the lock.
    pub(super) fn lose_task(&mut self) -> Option<Waker> {
        if !self.is_gone() {
            self.drop_stream(Err(Error::Closed));
        }
        self.account.close();
        match std::mem::replace(&mut self.driver, Driver::Callers) {
            Driver::Task(waker) => waker,
            Driver::Callers => None,
        }
    }

    /// Ends a connection without a task whose `WebSocket` is dropped: it writes once, and does not wait.
    pub(super) fn abandon(&mut self, cx: &mut Context<'_>, code: CloseCode) {
        self.begin_close(Some(CloseFrame::lossy(code, "")));
        self.write(cx);
        self.drop_stream(Err(Error::Closed));
    }

    /// Fails the connection without waiting for anything: the peer is told why if the stream takes
    /// that at once.
    pub(super) fn give_up(&mut self, cx: &mut Context<'_>, error: Error, code: CloseCode) {
        // Behind queued bytes a close frame would not reach a peer that takes nothing.
        if self.is_all_written() {
            self.fail(error.clone(), code);
            self.write(cx);
        }
        self.drop_stream(Err(error));
    }
}
