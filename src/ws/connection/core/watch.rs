//! What an open connection does unasked, when it is time: it pings, gives the peer up, or closes.

use std::task::Context;
use std::time::Instant;

use super::Core;
use crate::error::{Error, Timeout};
use crate::ws::connection::agenda::{Agenda, Passed};
use crate::ws::connection::heartbeat::{Beat, Signs, Token};
use crate::ws::connection::random;
use crate::ws::heartbeat::HeartbeatOptions;
use crate::ws::proto::{CloseCode, CloseFrame, Frame, OpCode, Payload};

impl Core {
    /// Starts a heartbeat in place of the one before, or just ends that; its number.
    pub(in crate::ws::connection) fn set_heartbeat(
        &mut self,
        options: Option<HeartbeatOptions>,
    ) -> u64 {
        match (self.agenda(), options) {
            (Some(agenda), Some(options)) => return agenda.start_heartbeat(options),
            (Some(agenda), None) => agenda.stop_heartbeat(None),
            (None, _) => {}
        }
        0
    }

    /// Ends the heartbeat of this number, unless another has taken its place.
    pub(in crate::ws::connection) fn stop_heartbeat(&mut self, number: u64) {
        if let Some(agenda) = &mut self.deadlines.agenda {
            agenda.stop_heartbeat(Some(number));
        }
    }

    /// Closes the connection at a point in time, in place of the one before, or at none.
    pub(in crate::ws::connection) fn set_expiry(&mut self, expiry: Option<(Instant, CloseFrame)>) {
        if let Some(agenda) = self.agenda() {
            agenda.set_expiry(expiry);
        }
    }

    /// Where an open connection keeps what it has to do.
    fn agenda(&mut self) -> Option<&mut Agenda> {
        let is_open = self.is_open();
        let clock = &self.settings.clock;
        let agenda = &mut self.deadlines.agenda;
        is_open.then(|| &mut **agenda.get_or_insert_with(|| Box::new(Agenda::empty(clock))))
    }

    /// The connection parks: what has passed is noted, so that nothing has to be when it does.
    pub(super) fn take_note(&mut self) {
        if self.deadlines.agenda.is_none() {
            return;
        }
        // A connection in line does not read what its peer has answered.
        let is_reading = self.is_reading() && !self.account.is_waiting();
        let passed = self.passed();
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
            room_made: received.room_made,
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

    /// Sends a ping, or gives up a peer that has not shown a sign of life since the last.
    pub(super) fn beat(&mut self, cx: &mut Context<'_>) {
        let signs = Signs { read: self.tally.wire_bytes_in, room_made: self.tally.room_made };
        let now = self.settings.clock.now();
        let mut token = Token::default();
        let fresh = random::bytes::<4>();
        for (slot, byte) in token.iter_mut().zip(self.ping_tag.into_iter().chain(fresh)) {
            *slot = byte;
        }
        let Some(heartbeat) = self.deadlines.heartbeat() else { return };
        match heartbeat.beat(now, signs, token, random::number()) {
            Beat::Nothing => {}
            Beat::Ping(token) => self.send_ping(token, cx),
            Beat::Fail => {
                self.give_up(cx, Error::Timeout(Timeout::Pong), CloseCode::POLICY_VIOLATION);
            }
        }
    }

    fn send_ping(&mut self, token: Token, cx: &mut Context<'_>) {
        let payload = Payload::copy_from(&token);
        self.push(&mut Some(Frame::from_payload(true, OpCode::Ping, payload)));
        // At once: the handler has no reason to be woken.
        self.write(cx);
    }

    /// A pong has arrived; true if it answers a ping of a heartbeat, be it an earlier one.
    pub(super) fn accept_pong(&mut self, payload: &[u8]) -> bool {
        let asked_at = self.deadlines.heartbeat().and_then(|heartbeat| heartbeat.answer(payload));
        if let Some(asked_at) = asked_at {
            self.tally.rtt = Some(self.settings.clock.since(asked_at));
            self.deadlines.postpone();
        }
        payload.len() == size_of::<Token>() && payload.starts_with(&self.ping_tag)
    }
}
