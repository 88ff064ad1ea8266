//! Delivery of a broadcast to one connection: into the outbox, or into the backlog until that has room. And
//! [`PreparedMessage`], which is encoded once for all connections, and compressed once for those that agreed on the same.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, OnceLock};
#[cfg(feature = "rooms")]
use std::task::Context;
use std::task::Poll;

use super::backlog::{Bounds, Delivery, SendTicket, SlowConsumer};
use super::compression;
#[cfg(feature = "rooms")]
use super::group_write::GroupWrites;
use super::shared::Shared;
use super::state::Connection;
#[cfg(feature = "rooms")]
use super::state::Work;
use crate::error::Result;
use crate::message::Message;
use crate::proto::deflate::{DeflaterConfig, Flush};
use crate::proto::{CloseCode, CloseFrame, Frame};

impl Connection {
    /// Queues a broadcast, without waiting for anything.
    pub(super) fn deliver(
        &mut self,
        source: u64,
        message: &PreparedMessage,
        bounds: &Bounds,
    ) -> Delivery {
        if self.send_error().is_some() {
            return Delivery::Gone;
        }
        // A member that keeps up gets it at once, into its outbox.
        if self.is_free_for(bounds.policy) {
            self.push_prepared(message);
            return Delivery::Sent;
        }
        // One that does not keep up has a backlog, whose bounds and policy are the room's.
        let backlog = self.backlog.get_or_insert_default();
        let delivery = backlog.offer(&mut self.backlog_end, source, message, bounds);
        if backlog.is_empty() {
            self.backlog = None;
        }
        if matches!(delivery, Delivery::Waiting { replaced } if replaced > 0) {
            // It may be the turn of a send that waited behind one of these.
            self.has_news = true;
        }
        if delivery == Delivery::Closed {
            // Waiting broadcasts are not sent: the peer would not take them in time.
            self.backlog = None;
            self.begin_close(Some(CloseFrame::lossy(CloseCode::TRY_AGAIN_LATER, "too slow")));
        }
        delivery
    }

    /// Writes in place of the connection's task, which is woken for what only it does.
    #[cfg(feature = "rooms")]
    pub(super) fn write_for_task(&mut self, cx: &mut Context<'_>) {
        if self.is_during_poll() {
            // The task writes at the end of its poll.
        } else if !self.lifecycle.is_before_close() {
            self.owe_task();
        } else if self.work == Work::Told {
            self.write(cx);
            self.record_activity();
        }
    }

    /// Bytes that the stream has taken so far.
    #[cfg(feature = "rooms")]
    pub(super) fn bytes_written(&self) -> u64 {
        self.tally.wire_bytes_out
    }

    /// Whether a broadcast goes to the outbox at once: not ahead of others, and not between fragments.
    fn is_free_for(&self, policy: SlowConsumer) -> bool {
        let is_replaceable = policy == SlowConsumer::Conflate;
        let is_first = self.backlog.is_none() && !self.state.is_sending_fragments();
        is_first && self.has_room_for(is_replaceable)
    }

    /// A replaceable message has room only if nothing else waits, because a message in the outbox will be sent.
    fn has_room_for(&self, is_replaceable: bool) -> bool {
        // One byte queued is enough: the newest value shall replace it as long as possible.
        let max = if is_replaceable { 1 } else { self.settings.send_buffer_size };
        self.queued_len() < max
    }

    /// Queues, directly, a message that other connections get as well.
    pub(super) fn send_prepared(&mut self, message: &PreparedMessage) {
        if let Some(backlog) = &mut self.backlog {
            backlog.release();
        }
        self.push_prepared(message);
    }

    fn push_prepared(&mut self, message: &PreparedMessage) {
        let frame = match &self.deflation {
            Some(deflation) => deflation.share(message),
            None => message.plain(),
        };
        self.push_shared(frame);
    }

    /// Moves broadcasts into the outbox, as far as it has room; true if it has any to write then.
    pub(super) fn refill(&mut self) -> bool {
        while let Some(backlog) = &self.backlog {
            let has_room = self.has_room_for(backlog.is_replaceable());
            // A send that waits has its turn first, and fragments of a message stay together.
            if !has_room || backlog.is_held() || self.state.is_sending_fragments() {
                break;
            }
            self.push_next();
        }
        !self.outbox.is_empty()
    }

    /// Moves all that waits into the outbox: a close frame follows.
    pub(super) fn refill_all(&mut self) {
        if self.state.is_sending_fragments() {
            // Nothing has a place inside a message, and this one will not end.
            self.backlog = None;
        }
        while self.push_next() {}
    }

    /// Gives a waiting send a ticket behind the broadcasts that wait already, so that later ones cannot starve it.
    pub(super) fn hold_ticket(&mut self, ticket: &mut Option<SendTicket>) {
        if let Some(backlog) = &mut self.backlog {
            backlog.hold(*ticket.get_or_insert(self.backlog_end));
        }
    }

    /// Whether a send with this ticket, or with none, is next: not ahead of broadcasts, but inside a
    /// message in fragments, which they wait for.
    pub(super) fn is_ahead_of_backlog(&self, ticket: Option<SendTicket>) -> bool {
        let ticket = ticket.unwrap_or(self.backlog_end);
        let is_next = self.backlog.as_ref().is_none_or(|backlog| backlog.is_turn_of(ticket));
        is_next || self.state.is_sending_fragments()
    }

    /// Goes on with the broadcasts if the send whose turn it was has been woken and did not come: its future was dropped.
    pub(super) fn pass_turn(&mut self) {
        let Some(backlog) = self.backlog.as_mut().filter(|backlog| backlog.is_held()) else {
            return;
        };
        if !self.has_news {
            backlog.release();
        }
        self.owe_look();
    }

    fn push_next(&mut self) -> bool {
        let Some(message) = self.backlog.as_mut().and_then(|backlog| backlog.pop()) else {
            return false;
        };
        self.push_prepared(&message);
        if self.backlog.as_ref().is_some_and(|backlog| backlog.is_empty()) {
            self.backlog = None;
            self.has_news = true;
        }
        true
    }
}

impl Shared {
    /// Queues a broadcast from `source`. Writing and waking is left to `writers`, for the caller holds the
    /// lock of a room.
    #[cfg(feature = "rooms")]
    pub(crate) fn deliver(
        self: &Arc<Self>,
        source: u64,
        message: &PreparedMessage,
        bounds: &Bounds,
        writers: &mut GroupWrites,
    ) -> Delivery {
        // Once for all members that agreed on the same, and before the lock.
        self.compress(message);
        self.with(|connection, wakes| {
            let delivery = connection.deliver(source, message, bounds);
            match delivery {
                Delivery::Sent if connection.claim_write() => writers.add(self),
                // Without a task, those who wait in a call write it.
                Delivery::Sent | Delivery::Closed if !connection.has_task() => {
                    connection.owe_look();
                }
                // A task writes it, or what is in the way, and then goes on with it.
                _ => {}
            }
            // The caller holds the roster of its room.
            if wakes.postpone(connection) {
                writers.add_waker(self);
            }
            delivery
        })
    }

    /// Wakes the tasks for which a broadcast has changed something. Call it without a lock.
    #[cfg(feature = "rooms")]
    pub(super) fn wake_for_broadcast(&self) {
        self.with(|_, _| {});
    }

    /// Writes what broadcasts have queued, in place of the connection's task; how many bytes that were.
    #[cfg(feature = "rooms")]
    pub(super) fn write_for_task(&self) -> u64 {
        self.with(|connection, _| {
            let before = connection.bytes_written();
            connection.write_for_task(&mut self.io_context());
            connection.bytes_written().saturating_sub(before)
        })
    }

    /// Compresses a message before the lock is taken, which others wait for.
    fn compress(&self, message: &PreparedMessage) {
        if let Some(deflation) = self.deflation() {
            deflation.compress(message);
        }
    }

    /// Queues a prepared message: now if there is room, else once there is.
    pub(crate) fn send_prepared<'a>(
        &'a self,
        message: &'a PreparedMessage,
    ) -> impl Future<Output = Result<()>> + Send + 'a {
        self.compress(message);
        let mut ticket = None;
        let (queued, mut is_spent) = self.with(|it, _| {
            let queued = self.try_send_prepared(it, message, &mut ticket);
            (queued, it.budget == 0)
        });
        async move {
            let mut listener = None;
            let mark = if let Some(mark) = queued {
                // A turn that is used up: others have theirs before the sender goes on.
                let turn = std::future::poll_fn(|cx| {
                    if !std::mem::take(&mut is_spent) {
                        return Poll::Ready(());
                    }
                    self.yield_turn(cx);
                    Poll::Pending
                });
                turn.await;
                mark?
            } else {
                let wait = std::future::poll_fn(|cx| {
                    self.poll_wait_in_turn(cx, &mut listener, |it| {
                        self.try_send_prepared(it, message, &mut ticket)
                    })
                });
                wait.await?
            };
            match mark {
                // Without a task, the caller writes.
                Some(mark) => self.flush_to(mark).await,
                None => Ok(()),
            }
        }
    }

    /// Queues a prepared message if there is room. `Some(mark)` of it if the caller has to write up to there.
    fn try_send_prepared(
        &self,
        connection: &mut Connection,
        message: &PreparedMessage,
        ticket: &mut Option<SendTicket>,
    ) -> Option<Result<Option<u64>>> {
        match self.has_room(connection, ticket) {
            Err(error) => Some(Err(error)),
            Ok(has_room) if !has_room || connection.state.is_sending_fragments() => None,
            Ok(_) => {
                connection.send_prepared(message);
                Some(Ok((!connection.has_task()).then(|| connection.outbox.queued())))
            }
        }
    }
}

/// A message to be sent over many connections.
///
/// Clones share everything. Where connections compress, the message is compressed once for all that
/// agreed on the same parameters (RFC 7692 §7.1), when the first of them is sent it.
///
/// A `Room` prepares what it broadcasts; this is for a fan-out of your own, with
/// [`Sender::send_prepared`](crate::Sender::send_prepared).
///
/// ```
/// use tidewire::websocket::PreparedMessage;
///
/// let prepared = PreparedMessage::new(r#"{"price":42}"#);
/// assert_eq!(prepared.message().as_text(), Some(r#"{"price":42}"#));
///
/// # async fn fan_out(senders: &[tidewire::Sender], prepared: PreparedMessage) {
/// for sender in senders {
///     // Waits for each that is slow: rooms do not.
///     let _ = sender.send_prepared(&prepared).await;
/// }
/// # }
/// ```
#[derive(Clone)]
pub struct PreparedMessage(Arc<Prepared>);

struct Prepared {
    plain: Frame,
    /// Compressed under one configuration, and from there on under the others.
    deflated: OnceLock<Box<Deflated>>,
}

/// A message as compressed under one configuration.
struct Deflated {
    config: DeflaterConfig,
    /// `None` if it goes plain all the same.
    frame: Option<Frame>,
    next: OnceLock<Box<Self>>,
}

impl Deflated {
    fn new(plain: &Frame, config: DeflaterConfig) -> Self {
        let (mut deflater, mut out) = (compression::take_deflater(config), Vec::new());
        let is_good = deflater.deflate(plain.payload(), &mut out, Flush::LastMessage);
        if is_good {
            compression::put_deflater(deflater);
        }
        let frame = compression::deflated(plain, out).filter(|_| is_good);
        Self { config, frame, next: OnceLock::new() }
    }
}

impl PreparedMessage {
    /// Prepares a message.
    #[must_use]
    pub fn new(message: impl Into<Message>) -> Self {
        let plain = message.into().into_frame();
        Self(Arc::new(Prepared { plain, deflated: OnceLock::new() }))
    }

    /// The message, as the application sees it.
    #[must_use]
    pub fn message(&self) -> Message {
        Message::from_frame(self.0.plain.clone())
    }

    /// Length of the payload, in bytes, uncompressed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.plain.payload().len()
    }

    /// Whether the message has no payload.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The frame as it is without compression.
    pub(super) fn plain(&self) -> &Frame {
        &self.0.plain
    }

    /// The frame compressed so that it refers to nothing before it, and nothing after it needs to
    /// refer to it; `None` if it is better sent plain.
    pub(super) fn deflated(&self, config: DeflaterConfig) -> Option<&Frame> {
        let mut place = &self.0.deflated;
        loop {
            // Another thread that wants the same waits here. That takes less time than to compress it again.
            let known = place.get_or_init(|| Box::new(Deflated::new(&self.0.plain, config)));
            if known.config == config {
                return known.frame.as_ref();
            }
            place = &known.next;
        }
    }
}

impl<M: Into<Message>> From<M> for PreparedMessage {
    fn from(message: M) -> Self {
        Self::new(message)
    }
}

impl fmt::Debug for PreparedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PreparedMessage").field(&self.message()).finish()
    }
}
