//! What an open connection does unasked, when it is time: it closes.

use std::time::Instant;

use super::Core;
use crate::ws::connection::agenda::{Agenda, Passed};
use crate::ws::proto::{CloseCode, CloseFrame};

impl Core {
    /// Closes the connection at a point in time, in place of the one before, or at none.
    pub(in crate::ws::connection) fn set_expiry(&mut self, expiry: Option<(Instant, CloseFrame)>) {
        if let Some(agenda) = self.agenda() {
            agenda.set_expiry(expiry);
        }
    }

    /// Where an open connection keeps what it has to do.
    fn agenda(&mut self) -> Option<&mut Agenda> {
        let is_open = self.is_open();
        is_open.then(|| &mut **self.deadlines.agenda.get_or_insert_default())
    }

    /// The connection parks: what has passed is noted, so that nothing has to be when it does.
    pub(super) fn take_note(&mut self) {
        if self.deadlines.agenda.is_none() {
            return;
        }
        let (passed, is_reading) = (self.passed(), self.is_reading());
        if let Some(agenda) = &mut self.deadlines.agenda {
            agenda.take_note(passed, is_reading);
        }
    }

    fn passed(&self) -> Passed {
        let (received, sent) = (&self.tally, &self.outbox.counts);
        let frames_in = received.frames_in.saturating_sub(received.pings_in + received.pongs_in);
        let frames_out = sent.frames.saturating_sub(sent.pings + sent.pongs);
        Passed {
            frames: frames_in + frames_out,
            partial: self.decoder.buffered(),
            written: if self.is_all_written() { 0 } else { self.outbox.written() },
        }
    }

    /// Closes the connection, which is asked for nothing any more.
    pub(super) fn go_away(&mut self, reason: &str) {
        self.begin_close(Some(CloseFrame::lossy(CloseCode::GOING_AWAY, reason)));
    }

    /// Closes the connection, as its user has asked to.
    pub(super) fn expire(&mut self) {
        let agenda = self.deadlines.agenda.as_mut();
        let frame = agenda.and_then(|agenda| agenda.take_expiry());
        self.begin_close(frame);
    }
}
