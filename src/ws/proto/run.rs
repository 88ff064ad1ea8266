//! Runs of short messages: what most connections carry, and the only thing where the work per
//! message, rather than per byte or per system call, decides.
//!
//! A run is looked through once, header by header, when it is read, and kept as it came. Each
//! message is unmasked when somebody asks for it. All else goes through the
//! [`Decoder`](super::Decoder).

use super::utf8::Utf8;
use super::{Frame, Limits, OpCode, Payload, ProtocolError, Role, mask};

/// Longest payload whose length is in the second byte of its frame.
const MAX_SHORT: usize = 125;

/// Whole, short, unfragmented messages, as they were on the wire.
#[derive(Debug, Default)]
pub(crate) struct Run {
    bytes: Vec<u8>,
    pos: usize,
    messages: usize,
}

/// A header of a message that a run may hold, and where its payload is.
struct Short {
    opcode: OpCode,
    key: [u8; 4],
    start: usize,
    len: usize,
}

impl Run {
    /// Takes up to `max` messages off the front of `input`, and the sum of their payloads in bytes.
    ///
    /// The caller sees to it that no message is under way.
    pub(crate) fn fill(
        &mut self,
        input: &mut &[u8],
        role: Role,
        limits: &Limits,
        max: usize,
    ) -> usize {
        let longest = MAX_SHORT.min(limits.max_message_size).min(limits.max_frame_size);
        let (mut used, mut payloads) = (0, 0);
        while self.messages < max {
            let rest = input.get(used..).unwrap_or_default();
            let Some(short) = Short::decode(role, rest).filter(|short| short.len <= longest) else {
                break;
            };
            let end = short.start + short.len;
            if end > rest.len() {
                break;
            }
            used += end;
            payloads += short.len;
            self.messages += 1;
        }
        let (run, rest) = input.split_at_checked(used).unwrap_or((&[], *input));
        self.bytes.extend_from_slice(run);
        *input = rest;
        payloads
    }

    /// Unmasks the next message.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::InvalidUtf8`] if it is text and is not.
    #[inline]
    pub(crate) fn next(&mut self, role: Role) -> Result<Option<Frame>, ProtocolError> {
        if self.messages == 0 {
            return Ok(None);
        }
        let rest = self.bytes.get(self.pos..).unwrap_or_default();
        let Some(short) = Short::decode(role, rest) else { return Ok(None) };
        self.messages -= 1;
        self.pos += short.start + short.len;
        let payload = short.payload(rest);
        if short.opcode == OpCode::Text {
            let mut utf8 = Utf8::default();
            utf8.push(&payload)?;
            utf8.finish()?;
        }
        Ok(Some(Frame::from_payload(true, short.opcode, payload)))
    }

    /// Messages that are left.
    pub(crate) fn len(&self) -> usize {
        self.messages
    }

    /// Bytes that are held.
    pub(crate) fn held(&self) -> usize {
        self.bytes.len()
    }

    /// The memory of a run that is used up, to be used again.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }

    /// An empty run, in memory that was used before.
    pub(crate) fn in_buffer(mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        Self { bytes, pos: 0, messages: 0 }
    }
}

impl Short {
    /// Reads a header; `None` if it is not that of a short, unfragmented message of the peer.
    #[inline]
    fn decode(role: Role, bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<2>()?;
        let opcode = match head[0] {
            0x81 => OpCode::Text,
            0x82 => OpCode::Binary,
            _ => return None,
        };
        let len = usize::from(head[1] & 0x7F);
        let is_masked = head[1] & 0x80 != 0;
        if len > MAX_SHORT || is_masked != (role == Role::Server) {
            return None;
        }
        match role {
            Role::Server => Some(Self { opcode, key: *rest.first_chunk()?, start: 6, len }),
            Role::Client => Some(Self { opcode, key: [0; 4], start: 2, len }),
        }
    }

    #[inline]
    fn payload(&self, frame: &[u8]) -> Payload {
        let body = frame.get(self.start..).unwrap_or_default();
        Payload::unmask_inline(self.key, body, self.len).unwrap_or_else(|| {
            let mut payload = body.get(..self.len).unwrap_or_default().to_vec();
            mask::apply(self.key, 0, &mut payload);
            Payload::from(payload)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(input: &mut &[u8], role: Role, limits: &Limits, max: usize) -> Run {
        let mut run = Run::default();
        run.fill(input, role, limits, max);
        run
    }

    #[test]
    fn a_run_ends_before_the_first_frame_that_is_not_a_whole_short_message() {
        let hello: &[u8] = b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58";
        let others: [&[u8]; 7] = [
            b"\x89\x80\0\0\0\0",       // a ping
            b"\x01\x80\0\0\0\0",       // a first fragment
            b"\x80\x80\0\0\0\0",       // a continuation
            b"\xc1\x80\0\0\0\0",       // a reserved bit
            b"\x82\xfe\0\x7e\0\0\0\0", // a length of 16 bits
            b"\x82\x00",               // no mask
            b"\x82\x85\0\0\0\0abcd",   // not whole
        ];
        for other in others {
            let bytes = [hello, hello, other].concat();
            let mut input = &*bytes;
            let mut run = fill(&mut input, Role::Server, &Limits::default(), 64);
            assert_eq!((run.len(), input), (2, other));
            for _ in 0..2 {
                let hello = Frame::new(true, OpCode::Text, "Hello");
                assert_eq!(run.next(Role::Server), Ok(Some(hello)));
            }
            assert_eq!(run.next(Role::Server), Ok(None));
        }
    }

    #[test]
    fn a_run_keeps_to_the_limits_and_to_its_length() {
        let frames = b"\x82\x03abc\x82\x03def\x82\x04ghij".as_slice();
        let limits = Limits { max_message_size: 3, ..Limits::default() };
        let mut input = frames;
        assert_eq!(fill(&mut input, Role::Client, &limits, 64).len(), 2);
        assert_eq!(input, b"\x82\x04ghij");
        let mut input = frames;
        assert_eq!(fill(&mut input, Role::Client, &Limits::default(), 1).len(), 1);
    }

    #[test]
    fn text_in_a_run_is_checked() {
        let mut input = b"\x81\x02\xc3\xa9\x81\x01\xc3".as_slice();
        let mut run = fill(&mut input, Role::Client, &Limits::default(), 64);
        assert_eq!(run.next(Role::Client), Ok(Some(Frame::new(true, OpCode::Text, "é"))));
        assert_eq!(run.next(Role::Client), Err(ProtocolError::InvalidUtf8));
    }

    #[test]
    fn every_short_length_is_unmasked() {
        for len in 0..=125_u8 {
            let payload: Vec<u8> = (0..len).collect();
            let mut frame = vec![0x82, 0x80 | len, 1, 2, 3, 4];
            frame.extend(payload.iter().zip([1, 2, 3, 4].iter().cycle()).map(|(a, b)| a ^ b));
            let mut input = &*frame;
            let mut run = fill(&mut input, Role::Server, &Limits::default(), 64);
            let message = Frame::new(true, OpCode::Binary, payload);
            assert_eq!(run.next(Role::Server), Ok(Some(message)));
        }
    }
}
