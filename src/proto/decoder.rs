//! The decoder: from the bytes of the stream to whole, unmasked, checked frames.
//!
//! The decoder keeps an incomplete frame, so its caller never has to: every byte that is given to
//! it is used up, and the buffer it was read into is free again.

use std::num::NonZeroUsize;

use super::utf8::Utf8;
use super::{
    CloseFrame, Frame, FrameHeader, OpCode, Payload, ProtocolError, Role, WireBatch, mask,
};

/// Least room made for a payload that has not arrived as a whole, in bytes.
const MIN_BODY: usize = 1 << 10;

/// The receiving half of the protocol.
#[derive(Debug)]
pub(crate) struct Decoder {
    role: Role,
    limits: Limits,
    /// Whether permessage-deflate was negotiated.
    deflates: bool,
    /// Most bytes held of a data frame before they are handed out; `None` if a frame is handed out as a whole.
    piece_len: Option<NonZeroUsize>,
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
    /// Bytes of the payload that were handed out in pieces.
    handed_out: usize,
    /// The bytes behind those, unmasked.
    payload: Vec<u8>,
}

impl Part {
    const NOTHING: Self = Self::Header { bytes: [0; FrameHeader::MAX_LEN], len: 0 };
}

impl Decoder {
    /// A decoder for what arrives at the side `role`.
    pub(crate) fn new(role: Role, limits: Limits, deflates: bool) -> Self {
        let (assembler, part) = (Assembler::default(), Part::NOTHING);
        Self { role, limits, deflates, piece_len: None, assembler, part }
    }

    /// From now on, hands out a data frame that has not arrived as a whole in pieces of at most `len` bytes, as
    /// they arrive: the decoder holds no more of it, however long the frame is. `None`, the default, waits for
    /// the whole frame.
    ///
    /// Pieces are fragments, as an intermediary may make them (RFC 6455 §5.4): the first has the opcode of the
    /// frame, the others are continuations, and the last has the frame's own FIN. Limits and UTF-8 are those of
    /// frame and message, as without pieces; an error may come behind pieces that were handed out. A frame that
    /// is whole in the input of [`next`](Self::next) comes out whole, since its bytes are in memory already.
    ///
    /// It may change inside a frame: the bytes that are held then are the next piece, or belong to it.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for receivers that read a message in pieces")
    )]
    pub(crate) fn set_piece_len(&mut self, len: Option<NonZeroUsize>) {
        self.piece_len = len;
    }

    /// Takes bytes off the front of `input` until there is a frame, or a [piece](Self::set_piece_len) of one;
    /// `None` when they are used up.
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

    /// Whether part of a message has arrived, and not the rest.
    pub(crate) fn is_inside_message(&self) -> bool {
        self.assembler.is_inside_message() || !matches!(self.part, Part::Header { len: 0, .. })
    }

    /// Whether the next frame continues a message that was partly returned. Valid only when the caller holds no
    /// frames of it.
    #[cfg(feature = "tungstenite")]
    pub(crate) fn is_inside_rest(&self) -> bool {
        let is_first = |body: &Body| {
            body.handed_out == 0 && matches!(body.header.opcode, OpCode::Text | OpCode::Binary)
        };
        let has_first = matches!(&self.part, Part::Body(body) if is_first(body));
        self.assembler.is_inside_message() && !has_first
    }

    /// Appends the bytes that are held of a frame to `out`, as they came. After pieces, they are the beginning of
    /// a continuation that is as long as the rest of the frame.
    #[cfg(feature = "tungstenite")]
    pub(crate) fn put_back(&mut self, out: &mut Vec<u8>) {
        match std::mem::replace(&mut self.part, Part::NOTHING) {
            Part::Header { bytes, len } => {
                out.extend_from_slice(bytes.get(..usize::from(len)).unwrap_or_default());
            }
            Part::Body(body) => {
                let header = body.rest_header();
                header.encode(out);
                match header.mask {
                    // The bytes that follow are masked as well.
                    Some(key) => mask::append(key, 0, &body.payload, out),
                    None => out.extend_from_slice(&body.payload),
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
        loop {
            let Part::Header { bytes, len } = &mut self.part else {
                return self.continue_body(input);
            };
            let Some((byte, rest)) = input.split_first() else { return Ok(None) };
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
        // Room for the bytes that have arrived and as many again: memory follows what a peer has sent, not
        // what it announced.
        let most = self.most_held(&header).min(len);
        let room = input.len().saturating_mul(2).max(MIN_BODY).min(most);
        let body = Body { header, len, handed_out: 0, payload: Vec::with_capacity(room) };
        self.part = Part::Body(Box::new(body));
        self.continue_body(input)
    }

    fn continue_body(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, ProtocolError> {
        let Part::Body(body) = &self.part else { return Ok(None) };
        let (header, most) = (body.header, self.most_held(&body.header));
        let Part::Body(body) = &mut self.part else { return Ok(None) };
        let old_len = body.payload.len();
        let missing = body.missing();
        let room = missing.min(most.saturating_sub(old_len));
        let (piece, rest) = input.split_at_checked(room).unwrap_or((*input, &[]));
        *input = rest;
        body.append(piece);

        let is_whole = piece.len() == missing;
        let new = body.payload.get(old_len..).unwrap_or_default();
        if header.opcode.is_data() {
            self.assembler.push(new)?;
        }
        if is_whole {
            let (header, payload) = (body.rest_header(), std::mem::take(&mut body.payload));
            self.part = Part::NOTHING;
            return self.end_frame(&header, Payload::from(payload)).map(Some);
        }
        if most == usize::MAX || body.payload.is_empty() {
            return Ok(None);
        }
        Ok(self.take_piece())
    }

    /// Hands out the bytes that are held of a data frame, as a fragment.
    fn take_piece(&mut self) -> Option<Frame> {
        let Part::Body(body) = &mut self.part else { return None };
        let opcode = body.rest_header().opcode;
        let payload = std::mem::take(&mut body.payload);
        body.handed_out += payload.len();
        let frame = Frame::from_payload(false, opcode, Payload::from(payload));
        Some(if self.assembler.is_deflated() { frame.into_deflated() } else { frame })
    }

    /// Most bytes to hold of a frame that has not arrived as a whole.
    fn most_held(&self, header: &FrameHeader) -> usize {
        match self.piece_len {
            Some(len) if header.opcode.is_data() => len.get(),
            _ => usize::MAX,
        }
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
    /// Bytes that have not arrived.
    fn missing(&self) -> usize {
        self.len.saturating_sub(self.handed_out).saturating_sub(self.payload.len())
    }

    /// The header of the frame; after pieces, that of a continuation with the rest of it.
    fn rest_header(&self) -> FrameHeader {
        if self.handed_out == 0 {
            return self.header;
        }
        let mask = self.header.mask.map(|mut key| {
            key.rotate_left(self.handed_out % 4);
            key
        });
        let handed_out = u64::try_from(self.handed_out).unwrap_or(u64::MAX);
        let len = self.header.len.saturating_sub(handed_out);
        FrameHeader { rsv1: false, opcode: OpCode::Continuation, mask, len, ..self.header }
    }

    /// Appends a piece, unmasked. Grows by doubling, and never beyond the announced length.
    fn append(&mut self, piece: &[u8]) {
        let old_len = self.payload.len();
        let need = old_len + piece.len();
        if need > self.payload.capacity() {
            let rest = self.len.saturating_sub(self.handed_out);
            let capacity = self.payload.capacity().saturating_mul(2).max(need).min(rest);
            self.payload.reserve_exact(capacity.saturating_sub(old_len));
        }
        let key = self.rest_header().mask;
        append_unmasked(&mut self.payload, key, piece);
    }
}

fn unmasked(key: Option<[u8; 4]>, body: &[u8]) -> Payload {
    let mut payload = Vec::with_capacity(body.len());
    append_unmasked(&mut payload, key, body);
    Payload::from(payload)
}

fn append_unmasked(payload: &mut Vec<u8>, key: Option<[u8; 4]>, piece: &[u8]) {
    let Some(key) = key else { return payload.extend_from_slice(piece) };
    mask::append(key, payload.len(), piece, payload);
}

/// The limits of a message, checked before anything is allocated for it.
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
    /// Largest compressed message, in bytes: bytes that do not compress may grow by an eighth.
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
    /// Whether a message is begun and not finished.
    pub(super) fn is_inside_message(&self) -> bool {
        self.message.is_some()
    }

    /// Whether the message under way is compressed.
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
mod tests;
