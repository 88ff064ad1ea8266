//! From the bytes of the stream to whole, unmasked, checked frames.
//!
//! The decoder keeps what is incomplete, so its caller never has to: every byte that is given to
//! it is used up, and the buffer it was read into is free again.

use super::utf8::Utf8;
use super::{
    CloseFrame, Frame, FrameHeader, OpCode, Payload, ProtocolError, Role, WireBatch, mask,
};

/// Least room made for a payload that has not arrived as a whole, in bytes.
const MIN_BODY: usize = 1 << 10;

/// Pieces of this many bytes are copied and then unmasked while they are in the nearest cache.
const UNMASK_BLOCK: usize = 1 << 12;

/// The receiving half of the protocol.
#[derive(Debug)]
pub(crate) struct Decoder {
    role: Role,
    limits: Limits,
    /// Was permessage-deflate negotiated?
    deflates: bool,
    assembler: Assembler,
    part: Part,
}

/// The part of a frame that has arrived.
#[derive(Debug)]
enum Part {
    Header {
        bytes: [u8; FrameHeader::MAX_LEN],
        len: u8,
    },
    /// Boxed because an idle connection has none.
    Body(Box<Body>),
}

#[derive(Debug)]
struct Body {
    header: FrameHeader,
    len: usize,
    payload: Vec<u8>,
}

impl Part {
    const NOTHING: Self = Self::Header { bytes: [0; FrameHeader::MAX_LEN], len: 0 };
}

impl Decoder {
    /// A decoder for what arrives at the side `role`.
    pub(crate) fn new(role: Role, limits: Limits, deflates: bool) -> Self {
        Self { role, limits, deflates, assembler: Assembler::default(), part: Part::NOTHING }
    }

    /// Takes bytes off the front of `input` until a frame is whole; `None` when they are used up.
    ///
    /// # Errors
    ///
    /// [`ProtocolError`] if the peer broke a rule. Nothing after that can be decoded.
    #[inline]
    pub(crate) fn next(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, ProtocolError> {
        if !input.is_empty() && matches!(self.part, Part::Header { len: 0, .. }) {
            return self.begin_frame(input);
        }
        self.resume(input)
    }

    /// Has part of a message arrived, and not the rest?
    pub(crate) fn is_inside_message(&self) -> bool {
        self.assembler.is_inside_message() || !matches!(self.part, Part::Header { len: 0, .. })
    }

    /// Is what comes next inside a message of which at least one frame has come out?
    ///
    /// Only if no frame of it waits anywhere.
    #[cfg(feature = "tungstenite")]
    pub(crate) fn is_inside_rest(&self) -> bool {
        let is_first = |body: &Body| matches!(body.header.opcode, OpCode::Text | OpCode::Binary);
        let has_first = matches!(&self.part, Part::Body(body) if is_first(body));
        self.assembler.is_inside_message() && !has_first
    }

    /// Appends what is held of a frame to `out`, as it came.
    #[cfg(feature = "tungstenite")]
    pub(crate) fn put_back(&mut self, out: &mut Vec<u8>) {
        match std::mem::replace(&mut self.part, Part::NOTHING) {
            Part::Header { bytes, len } => {
                out.extend_from_slice(bytes.get(..usize::from(len)).unwrap_or_default());
            }
            Part::Body(body) => {
                body.header.encode(out);
                let start = out.len();
                out.extend_from_slice(&body.payload);
                if let Some(key) = body.header.mask {
                    // What follows it is masked as well.
                    mask::apply(key, 0, out.get_mut(start..).unwrap_or_default());
                }
            }
        }
    }

    /// Takes up to `max` whole messages off the front of `input`, if none is under way; their
    /// number, and the sum of their payloads in bytes.
    pub(crate) fn fill_wire_batch(
        &self,
        run: &mut WireBatch,
        input: &mut &[u8],
        max: usize,
    ) -> (usize, usize) {
        if self.is_inside_message() {
            return (0, 0);
        }
        run.fill(input, self.role, &self.limits, max)
    }

    /// Bytes held for a frame that has not arrived as a whole.
    pub(crate) fn buffered(&self) -> usize {
        match &self.part {
            Part::Header { len, .. } => usize::from(*len),
            Part::Body(body) => body.payload.len(),
        }
    }

    /// Forgets the frame that has not arrived as a whole. Nothing after that can be decoded.
    pub(crate) fn forget(&mut self) {
        self.part = Part::NOTHING;
    }

    /// Goes on where the last input ended.
    fn resume(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, ProtocolError> {
        while let Some((byte, rest)) = input.split_first() {
            let Part::Header { bytes, len } = &mut self.part else {
                return self.continue_body(input);
            };
            let used = usize::from(*len);
            // There is room: a header of the greatest length is complete.
            if let Some(slot) = bytes.get_mut(used) {
                *slot = *byte;
            }
            *len += 1;
            *input = rest;
            let header = bytes.get(..=used).unwrap_or_default();
            if let Some((header, _)) = FrameHeader::decode(header, self.deflates)? {
                self.check(&header)?;
                self.part = Part::NOTHING;
                return self.take_body(header, input);
            }
        }
        Ok(None)
    }

    /// Reads a frame whose first byte is the first of `input`: nearly all frames are whole.
    fn begin_frame(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, ProtocolError> {
        if let Some((header, used)) = FrameHeader::decode(input, self.deflates)? {
            self.check(&header)?;
            *input = input.get(used..).unwrap_or_default();
            return self.take_body(header, input);
        }
        let mut bytes = [0; FrameHeader::MAX_LEN];
        if let Some(kept) = bytes.get_mut(..input.len()) {
            kept.copy_from_slice(input);
        }
        // An incomplete header is shorter than the longest one.
        let len = u8::try_from(input.len()).unwrap_or_default();
        self.part = Part::Header { bytes, len };
        *input = &[];
        Ok(None)
    }

    fn check(&mut self, header: &FrameHeader) -> Result<(), ProtocolError> {
        match (self.role, header.mask) {
            (Role::Server, None) => return Err(ProtocolError::MaskMissing),
            (Role::Client, Some(_)) => return Err(ProtocolError::MaskUnexpected),
            _ => {}
        }
        if header.opcode.is_data() {
            self.assembler.begin_frame(header, &self.limits)?;
        }
        Ok(())
    }

    fn take_body(
        &mut self,
        header: FrameHeader,
        input: &mut &[u8],
    ) -> Result<Option<Frame>, ProtocolError> {
        // A length beyond the address space is beyond every limit.
        let too_big = ProtocolError::FrameTooBig { len: header.len, max: usize::MAX };
        let len = usize::try_from(header.len).map_err(|_| too_big)?;
        if let Some((body, rest)) = input.split_at_checked(len) {
            let short = Payload::unmask_inline(header.mask.unwrap_or_default(), input, len);
            let payload = short.unwrap_or_else(|| unmasked(header.mask, body));
            *input = rest;
            return self.finish_frame(&header, payload).map(Some);
        }
        // Room for what has arrived and as much again: memory follows what a peer sent, not what
        // it announced.
        let room = input.len().saturating_mul(2).max(MIN_BODY).min(len);
        let body = Body { header, len, payload: Vec::with_capacity(room) };
        self.part = Part::Body(Box::new(body));
        self.continue_body(input)
    }

    fn continue_body(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, ProtocolError> {
        let Part::Body(body) = &mut self.part else { return Ok(None) };
        let old_len = body.payload.len();
        let missing = body.len.saturating_sub(old_len);
        let (piece, rest) = input.split_at_checked(missing).unwrap_or((*input, &[]));
        *input = rest;
        body.append(piece);

        let header = body.header;
        let is_whole = piece.len() == missing;
        let new = body.payload.get(old_len..).unwrap_or_default();
        if header.opcode.is_data() {
            self.assembler.push(new)?;
        }
        if !is_whole {
            return Ok(None);
        }
        let payload = Payload::from(std::mem::take(&mut body.payload));
        self.part = Part::NOTHING;
        self.end_frame(&header, payload).map(Some)
    }

    fn finish_frame(
        &mut self,
        header: &FrameHeader,
        payload: Payload,
    ) -> Result<Frame, ProtocolError> {
        if header.opcode.is_data() {
            self.assembler.push(&payload)?;
        }
        self.end_frame(header, payload)
    }

    fn end_frame(
        &mut self,
        header: &FrameHeader,
        payload: Payload,
    ) -> Result<Frame, ProtocolError> {
        let mut is_deflated = false;
        match header.opcode {
            OpCode::Close => {
                CloseFrame::decode(&payload)?;
            }
            OpCode::Ping | OpCode::Pong => {}
            OpCode::Continuation | OpCode::Text | OpCode::Binary => {
                is_deflated = self.assembler.is_deflated();
                self.assembler.end_frame(header.fin)?;
            }
        }
        let frame = Frame::from_payload(header.fin, header.opcode, payload);
        Ok(if is_deflated { frame.into_deflated() } else { frame })
    }
}

impl Body {
    /// Appends a piece, unmasked. Grows by doubling, and never beyond the announced length.
    fn append(&mut self, piece: &[u8]) {
        let old_len = self.payload.len();
        let need = old_len + piece.len();
        if need > self.payload.capacity() {
            let capacity = self.payload.capacity().saturating_mul(2).max(need).min(self.len);
            self.payload.reserve_exact(capacity.saturating_sub(old_len));
        }
        append_unmasked(&mut self.payload, self.header.mask, piece);
    }
}

fn unmasked(key: Option<[u8; 4]>, body: &[u8]) -> Payload {
    let mut payload = Vec::with_capacity(body.len());
    append_unmasked(&mut payload, key, body);
    Payload::from(payload)
}

fn append_unmasked(payload: &mut Vec<u8>, key: Option<[u8; 4]>, piece: &[u8]) {
    let Some(key) = key else { return payload.extend_from_slice(piece) };
    for block in piece.chunks(UNMASK_BLOCK) {
        let old_len = payload.len();
        payload.extend_from_slice(block);
        if let Some(new) = payload.get_mut(old_len..) {
            mask::apply(key, old_len, new);
        }
    }
}

/// What a message may cost, checked before anything is allocated for it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::struct_field_names, reason = "named as the options that set them")]
pub(crate) struct Limits {
    /// Largest message, in bytes: the sum of its frames. Default 1 MiB; beyond it, close code 1009.
    pub(crate) max_message_size: usize,
    /// Largest frame, in bytes. Default: no limit but that of the message; beyond it, 1009.
    pub(crate) max_frame_size: usize,
    /// Most frames a message may come in. Default 1 024; beyond it, 1008.
    pub(crate) max_fragments: usize,
}

impl Limits {
    /// Largest compressed message, in bytes: what does not compress may grow by an eighth.
    pub(crate) fn max_deflated_size(&self) -> usize {
        self.max_message_size.saturating_add(self.max_message_size / 8).saturating_add(64)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_message_size: 1 << 20, max_frame_size: usize::MAX, max_fragments: 1024 }
    }
}

/// The message under way, if any.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    message: Option<Message>,
}

#[derive(Debug)]
struct Message {
    /// The text so far; `None` for binary, and for text that is compressed.
    utf8: Option<Utf8>,
    is_deflated: bool,
    /// Sum of the frames so far, in bytes.
    len: u64,
    fragments: usize,
}

impl Assembler {
    /// Is a message begun and not finished?
    pub(super) fn is_inside_message(&self) -> bool {
        self.message.is_some()
    }

    /// Is the message under way a compressed one?
    pub(super) fn is_deflated(&self) -> bool {
        self.message.as_ref().is_some_and(|message| message.is_deflated)
    }

    /// Takes the header of the next data frame, before its payload costs anything.
    pub(super) fn begin_frame(
        &mut self,
        header: &FrameHeader,
        limits: &Limits,
    ) -> Result<(), ProtocolError> {
        let message = match (header.opcode, &mut self.message) {
            (OpCode::Continuation, None) => return Err(ProtocolError::UnexpectedContinuation),
            (OpCode::Continuation, Some(message)) => message,
            (opcode, Some(_)) => return Err(ProtocolError::MessageInterrupted(opcode)),
            (opcode, empty) => {
                let is_deflated = header.rsv1;
                let utf8 = (opcode == OpCode::Text && !is_deflated).then(Utf8::default);
                empty.insert(Message { utf8, is_deflated, len: 0, fragments: 0 })
            }
        };
        message.fragments += 1;
        if message.fragments > limits.max_fragments {
            return Err(ProtocolError::TooManyFragments { max: limits.max_fragments });
        }
        if exceeds(header.len, limits.max_frame_size) {
            return Err(ProtocolError::FrameTooBig { len: header.len, max: limits.max_frame_size });
        }
        message.len = message.len.saturating_add(header.len);
        let max =
            if message.is_deflated { limits.max_deflated_size() } else { limits.max_message_size };
        if exceeds(message.len, max) {
            let (len, max) = (message.len, limits.max_message_size);
            return Err(ProtocolError::MessageTooBig { len, max });
        }
        Ok(())
    }

    /// Takes the next piece of the frame's payload.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), ProtocolError> {
        match &mut self.message {
            Some(Message { utf8: Some(utf8), .. }) => utf8.push(piece),
            _ => Ok(()),
        }
    }

    /// Takes the end of the frame.
    pub(super) fn end_frame(&mut self, fin: bool) -> Result<(), ProtocolError> {
        if !fin {
            return Ok(());
        }
        match self.message.take() {
            Some(Message { utf8: Some(utf8), .. }) => utf8.finish(),
            _ => Ok(()),
        }
    }
}

fn exceeds(len: u64, max: usize) -> bool {
    usize::try_from(len).map_or(true, |len| len > max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { max_message_size: 8, max_frame_size: 6, max_fragments: 2 };

    /// What is wrong with `input`, which arrives in pieces of `len` bytes.
    fn decode(role: Role, input: &[u8], len: usize) -> Result<(), ProtocolError> {
        let mut decoder = Decoder::new(role, LIMITS, false);
        for mut piece in input.chunks(len) {
            while decoder.next(&mut piece)?.is_some() {}
        }
        Ok(())
    }

    #[test]
    fn whatever_a_peer_does_wrong_has_its_own_error_however_it_is_cut() {
        use ProtocolError as E;
        let cases: [(&[u8], E); 17] = [
            (b"\x88\x01\x03", E::ClosePayloadTruncated),
            (b"\x09\x00", E::ControlFrameFragmented(OpCode::Ping)),
            (b"\x89\x7e\x00\x7e", E::ControlFrameTooLong { len: 126 }),
            (b"\x82\x07", E::FrameTooBig { len: 7, max: 6 }),
            (b"\x88\x02\x03\xed", E::InvalidCloseCode(1005)),
            (b"\x88\x03\x03\xe8\xff", E::InvalidUtf8),
            (b"\x81\x01\xff", E::InvalidUtf8),
            (b"\x01\x01\xc2\x80\x00", E::InvalidUtf8),
            (b"\x82\x7f\x80\0\0\0\0\0\0\0", E::LengthOverflow(1 << 63)),
            (b"\x82\x7e\x00\x05", E::LengthNotMinimal(5)),
            (b"\x82\x80\0\0\0\0", E::MaskUnexpected),
            (b"\x02\x06abcdef\x80\x03", E::MessageTooBig { len: 9, max: 8 }),
            (b"\x01\x00\x82\x00", E::MessageInterrupted(OpCode::Binary)),
            (b"\xa1", E::ReservedBits(0b010)),
            (b"\x83", E::ReservedOpcode(3)),
            (b"\x01\x00\x00\x00\x80\x00", E::TooManyFragments { max: 2 }),
            (b"\x80\x00", E::UnexpectedContinuation),
        ];
        for (input, error) in cases {
            for len in [1, 2, input.len()] {
                assert_eq!(decode(Role::Client, input, len), Err(error), "{input:02x?} by {len}");
            }
        }
        for len in [1, 2] {
            assert_eq!(decode(Role::Server, b"\x81\x00", len), Err(E::MaskMissing));
        }
    }

    #[test]
    fn what_is_just_within_the_rules_and_the_limits_is_taken() {
        let input = b"\x02\x06abcdef\x89\x00\x80\x02gh\x01\x01\xc2\x80\x01\xab\x88\x00";
        for len in 1..=input.len() {
            assert_eq!(decode(Role::Client, input, len), Ok(()), "by {len}");
        }
    }
}
