//! Giving the stream away, to whoever speaks WebSocket over it from then on.
//!
//! What was received and not asked for goes along, as the bytes it would be on the wire.

use std::task::Context;

use super::{Core, as_u64};
use crate::error::Error;
use crate::stream::Stream;
use crate::ws::connection::hand_over::HandOverError;
use crate::ws::connection::inbox::Inbox;
use crate::ws::proto::{Frame, FrameHeader, OpCode, Role, Run};

impl Core {
    /// Can another implementation go on here? `run` and `inbox` are what the caller was handed.
    pub(in crate::ws::connection) fn check_hand_over(
        &self,
        run: &Run,
        inbox: &Inbox,
    ) -> Result<(), HandOverError> {
        if !self.is_open() {
            return Err(HandOverError::Closed);
        }
        if self.deflation.is_some() {
            return Err(HandOverError::Deflate);
        }
        let is_watched = self.deadlines.agenda.as_ref().is_some_and(|it| it.is_asked_for());
        if is_watched || self.limiter.is_some() {
            return Err(HandOverError::Watched);
        }
        if self.state.is_sending_fragments() {
            return Err(HandOverError::SendingMessage);
        }
        if self.is_receiving_rest(run, inbox) {
            return Err(HandOverError::ReceivingMessage);
        }
        Ok(())
    }

    /// Does what is still to be received begin inside a message?
    fn is_receiving_rest(&self, run: &Run, inbox: &Inbox) -> bool {
        let next = [(run, inbox), (&self.run, &self.inbox)].into_iter().find_map(|(run, inbox)| {
            if run.len() > 0 { Some(OpCode::Binary) } else { inbox.first_data().map(Frame::opcode) }
        });
        let is_rest = |opcode| opcode == OpCode::Continuation;
        next.map_or_else(|| self.decoder.is_inside_rest(), is_rest)
    }

    /// Writes what is queued; true if nothing is left.
    pub(in crate::ws::connection) fn write_all(&mut self, cx: &mut Context<'_>) -> bool {
        self.write(cx);
        if self.pong.is_some() {
            // It had no room before.
            self.write(cx);
        }
        self.is_all_written() && self.pong.is_none()
    }

    /// Gives the stream away, with the bytes that its next reader begins with: `run` and `inbox`,
    /// and what is behind them here. The connection is closed for everybody else.
    pub(in crate::ws::connection) fn hand_over(
        &mut self,
        run: &mut Run,
        inbox: &mut Inbox,
    ) -> Option<(Stream, Vec<u8>)> {
        let stream = self.stream.take()?;
        let mut unread = Vec::new();
        self.put_back(run, inbox, &mut unread);
        let (mut run, mut inbox) = (std::mem::take(&mut self.run), std::mem::take(&mut self.inbox));
        self.put_back(&mut run, &mut inbox, &mut unread);
        self.decoder.put_back(&mut unread);
        unread.extend_from_slice(&self.unread);
        self.drop_stream(Error::Closed);
        Some((stream, unread))
    }

    fn put_back(&self, run: &mut Run, inbox: &mut Inbox, out: &mut Vec<u8>) {
        while let Some(frame) = run.next().or_else(|| inbox.pop()) {
            // It has had its pong.
            if frame.opcode() != OpCode::Ping || !self.settings.auto_pong {
                encode(&frame, self.role, out);
            }
        }
    }
}

/// Writes a frame that was received by the side `role`. A mask of zeros changes nothing.
fn encode(frame: &Frame, role: Role, out: &mut Vec<u8>) {
    let mask = (role == Role::Server).then_some([0; 4]);
    let (fin, opcode, len) = (frame.fin(), frame.opcode(), as_u64(frame.payload().len()));
    FrameHeader { fin, rsv1: false, opcode, mask, len }.encode(out);
    frame.append_payload_to(out);
}
