//! permessage-deflate (RFC 7692 §7.2) by other hands: what a message decompresses to, by miniz.

use arbitrary::{Result, Unstructured};
use miniz_oxide::deflate::core::{CompressorOxide, create_comp_flags_from_zip_params};
use miniz_oxide::deflate::stream::deflate;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};
use miniz_oxide::{DataFormat, MZFlush};
use tidewire::frame::Role;

use crate::oracle::{self, Limits, Verdict};

/// What the sender leaves out of every message.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// A last block without anything in it: only where a block may begin can it be read.
const NOTHING: [u8; 2] = [3, 0];

const WINDOW: usize = 32 << 10;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    Corrupt,
    TooBig,
    /// Too big, and corrupt soon after: which of them is noticed first is open.
    Both,
}

/// Bytes that a decoder may look ahead, and more.
const AHEAD: usize = 600;

/// Decompresses one message after the other.
#[derive(Clone, Default)]
pub struct Inflater {
    state: DecompressorOxide,
    /// What the next message may refer to.
    window: Vec<u8>,
}

impl Inflater {
    /// The message, and what came out of it before it was refused.
    pub fn message(
        &mut self,
        payload: &[u8],
        max: usize,
        takeover: bool,
    ) -> (Vec<u8>, std::result::Result<(), Refusal>) {
        let (before, mut message) = (self.clone(), Vec::new());
        let mut result = self.read(payload, &mut message, max);
        if result == Err(Refusal::TooBig) {
            let mut further = before;
            if further.read(payload, &mut Vec::new(), max + AHEAD) == Err(Refusal::Corrupt) {
                result = Err(Refusal::Both);
            }
        }
        if !takeover {
            *self = Self::default();
        }
        (message, result)
    }

    fn read(
        &mut self,
        payload: &[u8],
        message: &mut Vec<u8>,
        max: usize,
    ) -> std::result::Result<(), Refusal> {
        let is_ended = self.feed(payload, message, max)?;
        if payload.is_empty() || is_ended {
            return Ok(());
        }
        let len = message.len();
        // The tail is the rest of an empty block, the last one perhaps, and nothing else.
        let is_ended = self.feed(&TAIL, message, max + TAIL.len())?;
        let is_next = is_ended || self.clone().feed(&NOTHING, message, max).ok() == Some(true);
        if message.len() == len && is_next { Ok(()) } else { Err(Refusal::Corrupt) }
    }

    /// Reads some bytes; true if they end with a last block.
    fn feed(
        &mut self,
        mut input: &[u8],
        message: &mut Vec<u8>,
        max: usize,
    ) -> std::result::Result<bool, Refusal> {
        loop {
            let start = self.window.len();
            let room = (max + 1).saturating_sub(message.len());
            self.window.resize(start + room, 0);
            let flags = inflate_flags::TINFL_FLAG_HAS_MORE_INPUT
                | inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
            let (status, read, written) =
                decompress(&mut self.state, input, &mut self.window, start, flags);
            self.window.truncate(start + written);
            message.extend(&self.window[start..]);
            input = &input[read..];
            if message.len() > max {
                return Err(Refusal::TooBig);
            }
            match status {
                TINFLStatus::Done => {
                    *self = Self::default();
                    if input.is_empty() {
                        return Ok(true);
                    }
                }
                TINFLStatus::NeedsMoreInput => {
                    let old = self.window.len().saturating_sub(WINDOW);
                    self.window.drain(..old);
                    return Ok(false);
                }
                _ => return Err(Refusal::Corrupt),
            }
        }
    }
}

/// Compresses one message after the other.
pub struct Deflater {
    level: u8,
    /// Made when it is needed: it takes longer than all else.
    compressor: Option<Box<CompressorOxide>>,
}

impl Deflater {
    pub fn new(level: u8) -> Self {
        Self { level: level % 10, compressor: None }
    }

    fn compressor(&mut self) -> &mut CompressorOxide {
        self.compressor.get_or_insert_with(|| {
            // A negative window stands for no header.
            let flags = create_comp_flags_from_zip_params(i32::from(self.level), -15, 0);
            let mut compressor = Box::new(CompressorOxide::new(flags));
            compressor.set_format_and_level(DataFormat::Raw, self.level);
            compressor
        })
    }

    pub fn message(&mut self, message: &[u8], takeover: bool) -> Vec<u8> {
        let (mut payload, mut buf, mut input) = (Vec::new(), vec![0; 16 << 10], message);
        loop {
            let result = deflate(self.compressor(), input, &mut buf, MZFlush::Sync);
            input = &input[result.bytes_consumed..];
            payload.extend(&buf[..result.bytes_written]);
            if input.is_empty() && result.bytes_written < buf.len() {
                break;
            }
        }
        if !takeover {
            self.compressor().reset();
        }
        payload.truncate(payload.len().saturating_sub(TAIL.len()));
        payload
    }
}

/// A message to compress: text, numbers, bytes of the input, or one byte very often.
pub fn message(choice: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let (kind, seed): (u8, u32) = choice.arbitrary()?;
    let len = match kind >> 4 {
        0..=7 => usize::from(choice.arbitrary::<u8>()?),
        8..=13 => usize::from(choice.arbitrary::<u16>()?) >> 2,
        14 => usize::from(choice.arbitrary::<u16>()?) * 4,
        _ if seed & 7 == 0 => 1 << 20,
        _ => 70_000,
    };
    Ok(match kind & 3 {
        0 => "the quick brown fox é ".bytes().cycle().take(len).collect(),
        1 => (0..len as u32).map(|n| (n.wrapping_mul(seed | 1) >> 13) as u8 & 0x3f).collect(),
        2 => choice.bytes(len.min(choice.len()))?.to_vec(),
        _ => vec![seed as u8 & 0x7f; len],
    })
}

/// The longest message, and the longest that does not compress.
const MOST: usize = 2 << 20;

/// What the side `role` has written, and perhaps compressed: it is whole, and breaks no rule.
///
/// # Panics
///
/// If it is not, or does.
pub fn read(mut bytes: &[u8], role: Role, takeover: bool) -> Verdict {
    let to = if role == Role::Server { Role::Client } else { Role::Server };
    let limits = Limits { message: MOST + MOST / 8, frame: usize::MAX, fragments: usize::MAX };
    let (mut inflater, mut compressed, mut plain) = (Inflater::default(), Vec::new(), Vec::new());
    let mut count = 0;
    while !bytes.is_empty() {
        let mut frame = oracle::split(&mut bytes);
        let opcode = frame[0] & 0x0f;
        if matches!(opcode, 1 | 2) {
            compressed.push(frame[0] & 0x40 != 0);
            frame[0] &= !0x40;
            // Whether it is text is known when it has been decompressed.
            let is_text = opcode == 1 && compressed.last() == Some(&true);
            frame[0] += u8::from(is_text);
        }
        count += 1;
        plain.extend(frame);
    }
    let mut verdict = oracle::read(&plain, to, &limits);
    assert_eq!(verdict.frames.len(), count, "{:?}", verdict.end);
    for (message, _) in verdict.messages.iter_mut().zip(compressed).filter(|(_, is)| *is) {
        let (payload, result) = inflater.message(&message.payload, MOST, takeover);
        assert_eq!(result, Ok(()));
        message.payload = payload;
    }
    verdict
}
