//! Runs of messages of one whole frame each. Most connections carry such messages, and if they are short,
//! the work per message, not per byte or per system call, decides the speed.
//!
//! The headers of a run are checked once, when the run is read; its bytes are kept as they came. Each
//! message is unmasked when the user receives it. All other frames go through the
//! [`Decoder`](super::Decoder).

use bytes::{Buf, BytesMut};

use super::{Frame, FrameHeader, Limits, OpCode, Payload, Role, mask};

/// A payload shares the memory of its run only if it is at least a 64th of it. So a message that the
/// user keeps for long keeps at most 64 times its size alive.
const MIN_SHARE: usize = 64;

/// Whole, unfragmented messages in the form that they had on the wire. Text is known to be UTF-8.
#[derive(Debug, Default)]
pub(crate) struct WireBatch {
    bytes: BytesMut,
    /// Bytes of messages that were taken out already. They are cut off when the rest is split: an index costs less than a
    /// cut for each message.
    taken: usize,
    messages: usize,
    /// Largest size of the run so far, in bytes. A payload that shares its memory keeps that much alive.
    memory: usize,
    /// Whether the buffer was given to the run, and goes back when the run is used up.
    has_buffer: bool,
}

/// The parts of a header that a run needs.
#[derive(Clone, Copy)]
struct Head {
    opcode: OpCode,
    mask: Option<[u8; 4]>,
    /// The offset of the payload, and its length.
    start: usize,
    len: usize,
}

impl Head {
    /// Length of the frame, in bytes.
    fn frame_len(self) -> usize {
        self.start + self.len
    }
}

impl WireBatch {
    /// Takes up to `max` messages off the front of `input`. Returns their number, and the sum of their
    /// payloads in bytes.
    ///
    /// The caller makes sure that no fragmented message is under way.
    pub(crate) fn fill(
        &mut self,
        input: &mut &[u8],
        role: Role,
        limits: &Limits,
        max: usize,
    ) -> (usize, usize) {
        self.cut_taken();
        let longest = limits.max_message_size.min(limits.max_frame_size);
        let (mut messages, mut payloads) = (0, 0);
        let mut rest = *input;
        while messages < max {
            let Some(head) = Head::decode(rest) else { break };
            let Some((frame, after)) = rest.split_at_checked(head.frame_len()) else { break };
            // A message over a limit, with a wrong mask or not UTF-8 ends the run: the decoder reports it.
            let is_masked = head.mask.is_some();
            if head.len > longest || is_masked != (role == Role::Server) {
                break;
            }
            if head.opcode == OpCode::Text && !self.push_text(frame, head) {
                break;
            }
            if head.opcode == OpCode::Binary {
                self.bytes.extend_from_slice(frame);
            }
            messages += 1;
            payloads += head.len;
            rest = after;
        }
        *input = rest;
        self.messages += messages;
        self.memory = self.memory.max(self.bytes.len());
        (messages, payloads)
    }

    /// Appends a text message; false if it is not UTF-8.
    fn push_text(&mut self, frame: &[u8], head: Head) -> bool {
        let old_len = self.bytes.len();
        self.bytes.extend_from_slice(frame);
        let frame = self.bytes.get_mut(old_len..).unwrap_or_default();
        let parts = frame.split_at_mut_checked(head.start);
        let is_text = parts.is_some_and(|(header, payload)| {
            if let (Some(key), Some(masked)) = (head.mask, header.last_chunk_mut::<4>()) {
                // The payload is unmasked now, so its key becomes zero.
                mask::apply(key, 0, payload);
                *masked = [0; 4];
            }
            simdutf8::basic::from_utf8(payload).is_ok()
        });
        if !is_text {
            self.bytes.truncate(old_len);
        }
        is_text
    }

    /// Takes the next message out and unmasks it; `None` at the end of the run.
    #[inline]
    pub(crate) fn next(&mut self) -> Option<Frame> {
        if self.messages == 0 {
            return None;
        }
        let head = Head::decode(self.bytes.get(self.taken..)?)?;
        self.messages -= 1;
        let payload = self.take_payload(head);
        Some(Frame::from_payload(true, head.opcode, payload))
    }

    /// Splits up to `max` messages off the front of the run.
    pub(crate) fn take(&mut self, max: usize) -> Self {
        if self.messages <= max {
            return std::mem::take(self);
        }
        self.cut_taken();
        let mut end = 0;
        for _ in 0..max {
            let head = self.bytes.get(end..).and_then(Head::decode);
            end += head.map_or(0, Head::frame_len);
        }
        self.messages -= max;
        let bytes = self.bytes.split_to(end);
        Self { bytes, taken: 0, messages: max, memory: self.memory, has_buffer: false }
    }

    #[inline]
    fn take_payload(&mut self, head: Head) -> Payload {
        let Head { mask: key, start, len, .. } = head;
        let body = self.bytes.get(self.taken + start..).unwrap_or_default();
        if let Some(payload) = Payload::unmask_inline(key.unwrap_or_default(), body, len) {
            self.taken += start + len;
            return payload;
        }
        self.cut_taken();
        let mut frame = self.bytes.split_to(start + len);
        frame.advance(start);
        if let Some(key) = key {
            mask::apply(key, 0, &mut frame);
        }
        if len < self.memory / MIN_SHARE {
            return Payload::copy_from(&frame);
        }
        Payload::from(frame.freeze())
    }

    fn cut_taken(&mut self) {
        self.bytes.advance(std::mem::take(&mut self.taken));
    }

    /// The number of messages that are left.
    pub(crate) fn len(&self) -> usize {
        self.messages
    }

    /// The bytes that the run holds.
    pub(crate) fn held(&self) -> usize {
        self.bytes.len() - self.taken
    }

    /// The buffer of a run that is used up, to be used again; `None` if the run was not given one.
    pub(crate) fn into_buffer(self) -> Option<BytesMut> {
        self.has_buffer.then_some(self.bytes)
    }

    /// An empty run in a buffer that was used before.
    pub(crate) fn in_buffer(mut bytes: BytesMut) -> Self {
        bytes.clear();
        Self { bytes, taken: 0, messages: 0, memory: 0, has_buffer: true }
    }
}

impl Head {
    /// Reads a header; `None` if the frame is not an unfragmented message.
    #[inline]
    fn decode(bytes: &[u8]) -> Option<Self> {
        let opcode = match bytes.first()? {
            0x81 => OpCode::Text,
            0x82 => OpCode::Binary,
            _ => return None,
        };
        // A short message of a client, as nearly all are: one check for the whole header.
        if let Some(&[_, second @ 0x80..0xFE, k0, k1, k2, k3]) = bytes.first_chunk() {
            let len = usize::from(second & 0x7F);
            return Some(Self { opcode, mask: Some([k0, k1, k2, k3]), start: 6, len });
        }
        // The decoder reports what is wrong with a header, if anything.
        let (header, start) = FrameHeader::decode(bytes, false).ok()??;
        let len = usize::try_from(header.len).ok()?;
        Some(Self { opcode, mask: header.mask, start, len })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(input: &mut &[u8], role: Role, limits: &Limits) -> WireBatch {
        let mut run = WireBatch::default();
        run.fill(input, role, limits, usize::MAX);
        run
    }

    #[test]
    fn a_run_ends_before_the_first_frame_that_is_not_a_whole_message() {
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
            let mut run = fill(&mut input, Role::Server, &Limits::default());
            assert_eq!((run.len(), input), (2, other));
            for _ in 0..2 {
                let hello = Frame::new(true, OpCode::Text, "Hello");
                assert_eq!(run.next(), Some(hello));
            }
            assert_eq!(run.next(), None);
        }
    }

    #[test]
    fn a_run_keeps_to_the_limits_and_to_its_length() {
        let frames = b"\x82\x03abc\x82\x03def\x82\x04ghij".as_slice();
        let limits = Limits { max_message_size: 3, ..Limits::default() };
        let mut input = frames;
        assert_eq!(fill(&mut input, Role::Client, &limits).len(), 2);
        assert_eq!(input, b"\x82\x04ghij");
    }

    #[test]
    fn a_run_takes_no_more_messages_than_it_may() {
        let mut input = b"\x82\x03abc\x81\x03def\x82\x04ghij".as_slice();
        let (mut run, limits) = (WireBatch::default(), Limits::default());
        assert_eq!(run.fill(&mut input, Role::Client, &limits, 0), (0, 0));
        assert_eq!(run.fill(&mut input, Role::Client, &limits, 2), (2, 6));
        assert_eq!((run.len(), input), (2, b"\x82\x04ghij".as_slice()));
    }

    #[test]
    fn a_run_is_handed_over_in_parts() {
        let frames = b"\x82\x03abc\x81\x03def\x82\x04ghij".as_slice();
        let mut run = fill(&mut &*frames, Role::Client, &Limits::default());
        let mut first = run.take(2);
        assert_eq!((first.len(), run.len()), (2, 1));
        let payloads = [first.next(), first.next(), first.next(), run.take(2).next()];
        let payloads = payloads.map(|frame| frame.map(Frame::into_payload));
        let expected = [Some("abc"), Some("def"), None, Some("ghij")];
        assert_eq!(payloads, expected.map(|payload| payload.map(Into::into)));
        assert_eq!(run.len(), 0);
    }

    #[test]
    fn a_run_ends_before_text_that_is_not_utf_8() {
        let (good, bad) = (b"\x81\x82\x01\x02\x03\x04\xc2\xab", b"\x81\x81\0\0\0\0\xc3");
        let bytes = [&good[..], &bad[..]].concat();
        let mut input = &*bytes;
        let mut run = fill(&mut input, Role::Server, &Limits::default());
        assert_eq!(input, bad);
        assert_eq!(run.next(), Some(Frame::new(true, OpCode::Text, "é")));
        assert_eq!(run.next(), None);
    }

    #[test]
    fn messages_of_every_length_are_unmasked() {
        for len in (0..=300).chain([4096, 65_536]) {
            let payload: Vec<u8> = (0..=255).cycle().take(len).collect();
            let mut frame = Vec::new();
            let header = FrameHeader {
                fin: true,
                rsv1: false,
                opcode: OpCode::Binary,
                mask: Some([1, 2, 3, 4]),
                len: len as u64,
            };
            header.encode(&mut frame);
            frame.extend(payload.iter().zip([1, 2, 3, 4].iter().cycle()).map(|(a, b)| a ^ b));
            let mut input = &*frame;
            let mut run = fill(&mut input, Role::Server, &Limits::default());
            let message = Frame::new(true, OpCode::Binary, payload);
            assert_eq!(run.next(), Some(message));
        }
    }

    #[test]
    fn a_message_that_is_a_small_part_of_its_run_does_not_keep_the_rest_of_it() {
        let (small, large) = ([1; 40], vec![2; 41 * MIN_SHARE]);
        let mut bytes = vec![0x82, 40];
        bytes.extend(small);
        bytes.extend([0x82, 126, 0x0a, 0x40]);
        bytes.extend(&large);
        let mut run = fill(&mut &*bytes, Role::Client, &Limits::default());
        assert_eq!(run.len(), 2);
        let memory = run.bytes.as_ptr().addr()..run.bytes.as_ptr().addr() + bytes.len();
        let mut next = || run.next().unwrap().into_payload();
        assert!(!memory.contains(&next().as_ptr().addr()));
        assert!(memory.contains(&next().as_ptr().addr()));
    }
}
