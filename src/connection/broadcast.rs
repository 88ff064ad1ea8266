//! Delivery of a broadcast to one connection: into the outbox, or into the backlog until that has room.

#[cfg(feature = "rooms")]
use std::sync::Arc;
#[cfg(feature = "rooms")]
use std::task::Context;

use super::backlog::{Bounds, Delivery, SendTicket, SlowConsumer};
#[cfg(feature = "rooms")]
use super::group_write::GroupWrites;
use super::prepared::PreparedMessage;
use super::shared::Shared;
use super::state::Connection;
#[cfg(feature = "rooms")]
use super::state::Phase;
use crate::error::Result;
use crate::proto::{CloseCode, CloseFrame};

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
        if self.is_free_for(bounds.policy) {
            self.push_prepared(message);
            return Delivery::Sent;
        }
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
            // What waits is not sent: the peer would not take it in time.
            self.backlog = None;
            self.begin_close(Some(CloseFrame::lossy(CloseCode::TRY_AGAIN_LATER, "too slow")));
        }
        delivery
    }

    /// Writes in place of the connection's task, which is woken for what only it does.
    #[cfg(feature = "rooms")]
    pub(super) fn write_for_task(&mut self, cx: &mut Context<'_>) {
        if self.is_during_poll {
            // The task writes at the end of its turn.
        } else if self.phase != Phase::Open {
            self.is_task_owed = true;
        } else if self.is_write_scheduled {
            self.write(cx);
            self.record_activity();
        }
    }

    /// Bytes that the stream has taken so far.
    #[cfg(feature = "rooms")]
    pub(super) fn bytes_written(&self) -> u64 {
        self.tally.wire_bytes_out
    }

    /// Does a broadcast go to the outbox at once? Not ahead of others, and not between fragments.
    fn is_free_for(&self, policy: SlowConsumer) -> bool {
        let is_replaceable = policy == SlowConsumer::Conflate;
        let is_first = self.backlog.is_none() && !self.state.is_sending_fragments();
        is_first && self.has_room_for(is_replaceable)
    }

    /// What may be replaced has room when nothing else waits: what is in the outbox will be sent.
    fn has_room_for(&self, is_replaceable: bool) -> bool {
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

    /// May somebody at this place, if it has one, send directly? Not ahead of broadcasts, but inside a
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
        self.compress(message);
        self.with(|connection, wakes| {
            let delivery = connection.deliver(source, message, bounds);
            match delivery {
                Delivery::Sent if connection.claim_write() => writers.add(self),
                // Without a task, those who wait in a call write it.
                Delivery::Sent | Delivery::Closed if !connection.has_task => connection.owe_look(),
                // A task writes it, or what is in the way, and then goes on with it.
                _ => {}
            }
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

    /// Sends a prepared message, once there is room.
    pub(crate) async fn send_prepared(&self, message: &PreparedMessage) -> Result<()> {
        self.compress(message);
        let (mut listener, mut ticket) = (None, None);
        let mark = std::future::poll_fn(|cx| {
            self.poll_wait(cx, &mut listener, |connection| {
                match self.has_room(connection, &mut ticket) {
                    Err(error) => Some(Err(error)),
                    Ok(has_room) if !has_room || connection.state.is_sending_fragments() => None,
                    Ok(_) => {
                        connection.send_prepared(message);
                        Some(Ok((!connection.has_task).then(|| connection.outbox.queued())))
                    }
                }
            })
        });
        match mark.await? {
            // Nobody else would write it.
            Some(mark) => self.flush_to(mark).await,
            None => Ok(()),
        }
    }
}
