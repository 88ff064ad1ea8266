//! Decompression of what a connection receives: the message under way.
//!
//! It belongs to whoever is in `recv`, outside the connection's lock, and stops after each step, so
//! that a long message neither holds the thread nor gets lost when `recv` is abandoned.

use super::codecs;
use super::scratch;
use crate::ws::proto::deflate::Inflater;
use crate::ws::proto::{DeflateParameters, Frame, OpCode, Payload, ProtocolError, Role, Utf8};

/// Bytes of a long message that one step reads, and writes, at most.
const STEP: usize = 64 << 10;

/// Bytes of short messages, read and written, after which others have their turn.
const TURN: usize = 256 << 10;

#[derive(Debug)]
pub(super) struct Inflation {
    /// Do messages refer to those before them?
    takeover: bool,
    max_message_size: usize,
    /// Here between messages only with context takeover.
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
            self.inflater.get_or_insert_with(codecs::take_inflater).begin_message();
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
        if self.spent >= TURN {
            self.spent = 0;
            return Ok(None);
        }
        // One byte more than allowed is enough to know.
        let left = self.max_message_size.saturating_sub(self.len).saturating_add(1);
        let is_done = scratch::with_read_buffer(|buf| {
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
            self.utf8.take().map_or(Ok(()), Utf8::finish)?;
            if let Some(inflater) = self.inflater.take_if(|_| !self.takeover) {
                codecs::put_inflater(inflater);
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
