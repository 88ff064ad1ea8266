//! The rules of RFC 6455 for what one side receives, written a second time: as plain as they can be,
//! and without care for speed.

use std::fmt;

use tidewire::frame::Role;

use crate::wire::masked;

/// What a receiver puts up with.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub message: usize,
    pub frame: usize,
    pub fragments: usize,
}

/// What the bytes of one side say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Verdict {
    /// All frames before the end, unmasked; the close frame included.
    pub frames: Vec<Frame>,
    /// All messages before the end.
    pub messages: Vec<Message>,
    pub end: End,
}

#[derive(Clone, Eq, PartialEq)]
pub struct Frame {
    pub fin: bool,
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}{}", self.opcode, if self.fin { " " } else { "… " })?;
        shown(&self.payload, f)
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_text { "text " } else { "binary " })?;
        shown(&self.payload, f)
    }
}

/// The first of some bytes, and how many there are.
fn shown(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "\"{}\" ({})", bytes[..bytes.len().min(16)].escape_ascii(), bytes.len())
}

#[derive(Clone, Eq, PartialEq)]
pub struct Message {
    pub is_text: bool,
    pub payload: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// The bytes end between frames or inside one.
    Cut,
    /// They end inside a header, of which a part may be enough to refuse it.
    CutHeader,
    /// A close frame, with its code if it had one.
    Close(Option<u16>),
    /// A violation, and the code to fail with.
    Violation(u16),
}

const PROTOCOL_ERROR: u16 = 1002;
const INVALID_PAYLOAD: u16 = 1007;
const POLICY_VIOLATION: u16 = 1008;
const TOO_BIG: u16 = 1009;

/// The message under way.
struct Partial {
    is_text: bool,
    payload: Vec<u8>,
    /// With what has been announced and has not arrived.
    announced: u64,
    fragments: usize,
}

/// Reads what arrives at the side `role`.
pub fn read(mut bytes: &[u8], role: Role, limits: &Limits) -> Verdict {
    let (mut frames, mut messages, mut partial) = (Vec::new(), Vec::new(), None);
    let end = loop {
        match read_frame(&mut bytes, role, limits, &mut partial) {
            Ok(frame) => {
                let close = (frame.opcode == 8).then(|| close_code(&frame.payload));
                match close {
                    None if frame.opcode < 8 && frame.fin => {
                        if let Some(Partial { is_text, payload, .. }) = partial.take() {
                            messages.push(Message { is_text, payload });
                        }
                    }
                    None => {}
                    Some(Err(code)) => break End::Violation(code),
                    Some(Ok(code)) => {
                        frames.push(frame);
                        break End::Close(code);
                    }
                }
                frames.push(frame);
            }
            Err(end) => break end,
        }
    };
    Verdict { frames, messages, end }
}

fn read_frame(
    bytes: &mut &[u8],
    role: Role,
    limits: &Limits,
    partial: &mut Option<Partial>,
) -> Result<Frame, End> {
    let violation = End::Violation(PROTOCOL_ERROR);
    let at_start = bytes.is_empty();
    let cut = if at_start { End::Cut } else { End::CutHeader };
    let [first, second] = take(bytes).ok_or(cut)?;
    let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
    let is_control = opcode & 8 != 0;
    if first & 0x70 != 0 || !matches!(opcode, 0..=2 | 8..=10) || (is_control && !fin) {
        return Err(violation);
    }
    if is_control && second & 0x7f > 125 {
        return Err(violation);
    }
    let (len, least) = match second & 0x7f {
        126 => (u64::from(u16::from_be_bytes(take(bytes).ok_or(cut)?)), 126),
        127 => (u64::from_be_bytes(take(bytes).ok_or(cut)?), 1 << 16),
        len => (u64::from(len), 0),
    };
    if len < least || len >> 63 != 0 {
        return Err(violation);
    }
    let is_masked = second & 0x80 != 0;
    let key = if is_masked { take(bytes).ok_or(cut)? } else { [0; 4] };
    if is_masked != (role == Role::Server) {
        return Err(violation);
    }
    if !is_control {
        begin(partial, opcode, len, limits)?;
    }
    let available = usize::try_from(len).map_or(bytes.len(), |len| len.min(bytes.len()));
    let (payload, rest) = bytes.split_at(available);
    *bytes = rest;
    let payload: Vec<u8> = masked(key, payload).collect();
    let is_whole = available as u64 == len;
    if let Some(partial) = partial.as_mut().filter(|_| !is_control) {
        partial.payload.extend(&payload);
        if partial.is_text {
            check_text(&partial.payload, is_whole && fin)?;
        }
    }
    if is_whole { Ok(Frame { fin, opcode, payload }) } else { Err(End::Cut) }
}

fn begin(partial: &mut Option<Partial>, opcode: u8, len: u64, limits: &Limits) -> Result<(), End> {
    if (opcode == 0) != partial.is_some() {
        return Err(End::Violation(PROTOCOL_ERROR));
    }
    let message = partial.get_or_insert(Partial {
        is_text: opcode == 1,
        payload: Vec::new(),
        announced: 0,
        fragments: 0,
    });
    message.fragments += 1;
    if message.fragments > limits.fragments {
        return Err(End::Violation(POLICY_VIOLATION));
    }
    message.announced = message.announced.saturating_add(len);
    if len > limits.frame as u64 || message.announced > limits.message as u64 {
        return Err(End::Violation(TOO_BIG));
    }
    Ok(())
}

/// Text is refused at the first byte that cannot be part of it (§8.1).
fn check_text(text: &[u8], is_whole: bool) -> Result<(), End> {
    match std::str::from_utf8(text) {
        Err(error) if is_whole || error.error_len().is_some() => {
            Err(End::Violation(INVALID_PAYLOAD))
        }
        _ => Ok(()),
    }
}

/// The code of a close frame, or the one to answer it with.
fn close_code(payload: &[u8]) -> Result<Option<u16>, u16> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() { Ok(None) } else { Err(PROTOCOL_ERROR) };
    };
    let code = u16::from_be_bytes(*code);
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(PROTOCOL_ERROR);
    }
    std::str::from_utf8(reason).map_or(Err(INVALID_PAYLOAD), |_| Ok(Some(code)))
}

/// The first frame of some bytes, as they are. It is whole.
pub fn split(bytes: &mut &[u8]) -> Vec<u8> {
    let extended = match bytes[1] & 0x7f {
        126 => u64::from(u16::from_be_bytes([bytes[2], bytes[3]])) + 2,
        127 => u64::from_be_bytes(*bytes[2..].first_chunk().unwrap()) + 8,
        len => len.into(),
    };
    let key = if bytes[1] & 0x80 != 0 { 4 } else { 0 };
    let (frame, rest) = bytes.split_at(2 + key + extended as usize);
    *bytes = rest;
    frame.to_vec()
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*taken)
}
