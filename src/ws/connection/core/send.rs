//! From the queue of what is sent to the stream.

use std::task::{Context, Poll};

use super::{Core, Phase, as_u64};
use crate::error::{Error, Result};
use crate::ws::connection::backlog::Place;
use crate::ws::connection::deadlines::Deadline;
use crate::ws::connection::outbox::Outbox;
use crate::ws::proto::Frame;

impl Core {
    /// Writes what is queued, as far as the stream takes it.
    pub(in crate::ws::connection) fn write(&mut self, cx: &mut Context<'_>) {
        self.is_write_scheduled = false;
        loop {
            // A pong that had no room has some once the stream has taken what was before it.
            self.queue_pong();
            if !self.refill() && self.outbox.is_empty() {
                break;
            }
            if !self.write_queued(cx) {
                return;
            }
        }
        self.pass_turn();
    }

    /// Writes what is in the outbox; false if the stream takes no more.
    fn write_queued(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(stream) = &mut self.stream else { return false };
        let (written, result) = self.outbox.write(stream, cx);
        self.tally.wire_bytes_out += as_u64(written);
        if written > 0 || result.is_ready() {
            self.deadlines.stop_send();
            self.has_news = true;
            if std::mem::take(&mut self.is_refused) {
                self.note_room();
            }
        }
        match result {
            Poll::Ready(Ok(())) => return true,
            Poll::Ready(Err(error)) => self.lose(error),
            Poll::Pending => {
                self.is_refused = true;
                if let Some(timeout) = self.settings.send_timeout {
                    // Only the task sets the timer of a clock that has begun to run.
                    self.is_task_owed |= self.deadlines.start_send(timeout);
                }
            }
        }
        false
    }

    /// The peer has made room for bytes that waited: it is there.
    fn note_room(&mut self) {
        self.tally.room_made += 1;
        if self.phase == Phase::Closing {
            // It has time until it has come to our close frame, and then to answer that.
            self.deadlines.start_close(Deadline::Close, self.settings.close_timeout);
        }
    }

    /// Queues a frame that is sent directly.
    pub(in crate::ws::connection) fn send(&mut self, frame: &mut Option<Frame>) {
        if let Some(backlog) = &mut self.backlog {
            backlog.release();
        }
        self.push(frame);
    }

    /// Queues a frame.
    pub(in crate::ws::connection) fn push(&mut self, frame: &mut Option<Frame>) {
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
        self.is_task_owed |= !self.is_write_scheduled;
        if self.is_aside {
            self.aside.get_or_insert_with(|| Box::new(Outbox::new(self.role)))
        } else {
            &mut self.outbox
        }
    }

    /// May the handler send without asking? Not behind what another task has sent meanwhile.
    pub(in crate::ws::connection) fn can_stage(&self) -> bool {
        let is_ordered = self.deflation.as_ref().is_some_and(|deflation| deflation.is_ordered());
        let is_first = self.aside.is_none() && self.backlog.is_none();
        let is_free = !is_ordered && is_first && !self.state.is_sending_fragments();
        is_free && self.send_error().is_none()
    }

    /// Takes what the handler has staged.
    pub(in crate::ws::connection) fn unstage(&mut self, staged: &mut Outbox) {
        self.outbox.append(staged);
    }

    /// Bytes that the handler may send before it has to ask.
    pub(in crate::ws::connection) fn room(&self) -> usize {
        if !self.can_stage() {
            return 0;
        }
        self.settings.send_buffer_size.saturating_sub(self.queued_len())
    }

    /// Has the outbox room for a message of somebody at this place?
    pub(in crate::ws::connection) fn has_room(&self, place: Option<Place>) -> bool {
        self.is_ahead_of_backlog(place) && self.queued_len() < self.settings.send_buffer_size
    }

    /// Has the stream taken the first `mark` bytes that were queued? An error if it never will.
    pub(in crate::ws::connection) fn is_written(&self, mark: u64) -> Option<Result<()>> {
        if self.is_gone() {
            let is_lost = self.tally.wire_bytes_out < mark;
            return Some(if is_lost { Err(self.lost_error()) } else { Ok(()) });
        }
        (self.is_all_written() || self.outbox.written() >= mark).then_some(Ok(()))
    }

    /// How much will have been written, at most, when all that is queued now is; `None` if what the
    /// handler has sent before is not here yet.
    pub(in crate::ws::connection) fn mark(&mut self) -> Option<u64> {
        if self.is_aside {
            self.is_turn_awaited = true;
            return None;
        }
        let waiting = self.backlog.as_ref().map_or(0, |backlog| backlog.most_wire_bytes());
        Some(self.outbox.queued().saturating_add(waiting))
    }

    /// Has the stream taken, and flushed, everything?
    pub(super) fn is_all_written(&self) -> bool {
        self.outbox.is_empty() && self.aside.is_none() && self.backlog.is_none()
    }

    /// Bytes that the stream has not taken, without the backlog.
    pub(super) fn queued_len(&self) -> usize {
        let aside = self.aside.as_ref().map_or(0, |aside| aside.len());
        self.outbox.len().saturating_add(aside)
    }

    /// Bytes that were sent and that the stream has not taken.
    #[cfg(feature = "server")]
    pub(in crate::ws::connection) fn waiting_len(&self) -> usize {
        let backlog = self.backlog.as_ref().map_or(0, |backlog| backlog.bytes());
        self.queued_len().saturating_add(backlog)
    }

    fn lost_error(&self) -> Error {
        self.send_error().unwrap_or(Error::Closed)
    }

    /// Why nothing can be sent, if so.
    pub(in crate::ws::connection) fn send_error(&self) -> Option<Error> {
        match &self.end {
            Some(Err(error)) => Some(error.clone()),
            Some(Ok(())) => Some(Error::Closed),
            None => (!self.state.can_send()).then_some(Error::Closed),
        }
    }
}
