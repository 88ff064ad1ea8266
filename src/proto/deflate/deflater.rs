//! Compression ([RFC 7692 §7.2.1]).
//!
//! [RFC 7692 §7.2.1]: https://www.rfc-editor.org/rfc/rfc7692#section-7.2.1

use std::fmt;

use zlib_rs::{Deflate, DeflateConfig, DeflateFlush};

use super::{TAIL, since};

/// Least room for output, in bytes. With six bytes or fewer, zlib writes a second flush marker.
const MIN_ROOM: usize = 64;

/// The parameters of a compressor. Deflaters with equal parameters are interchangeable.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct DeflaterConfig {
    /// 0 to 9.
    pub(crate) level: u8,
    /// 9 to 15.
    pub(crate) window_bits: u8,
    /// 1 to 9.
    pub(crate) memory_level: u8,
}

impl DeflaterConfig {
    /// Memory that a deflater takes, in bytes.
    #[cfg(feature = "accept")]
    pub(crate) const fn memory(self) -> usize {
        const HEADS: usize = 128 << 10;
        const STATE: usize = 4 << 10;
        // The window twice, and a two-byte link for each of its bytes.
        let window = 4 << self.window_bits;
        // The symbols of a block, and their encoded bytes.
        let block = 7 << (self.memory_level + 6);
        HEADS + STATE + window + block
    }
}

/// The boundary at the end of a piece.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Flush {
    /// More of the frame follows: no output is needed yet.
    Piece,
    /// The frame ends: the peer must be able to read all input so far.
    Frame,
    /// The message ends: the same as a frame, without the tail.
    Message,
    /// The message ends, and the next one will not refer to it. Works as a reset, but costs less.
    LastMessage,
}

/// A compressor: a window of its recent input, and tables to search the window.
pub(crate) struct Deflater {
    /// Boxed, since a deflater is moved from hand to hand.
    stream: Box<Deflate>,
    config: DeflaterConfig,
}

impl Deflater {
    pub(crate) fn new(config: DeflaterConfig) -> Self {
        let stream = Deflate::new_with_config(DeflateConfig {
            level: i32::from(config.level),
            // Negative: without the header of zlib's own format.
            window_bits: -i32::from(config.window_bits),
            mem_level: i32::from(config.memory_level),
            ..DeflateConfig::default()
        });
        Self { stream: Box::new(stream), config }
    }

    pub(crate) fn config(&self) -> DeflaterConfig {
        self.config
    }

    /// Forgets the window, so that the next message does not refer to earlier ones.
    pub(crate) fn reset(&mut self) {
        self.stream.reset();
    }

    /// Compresses the next piece of a message, and appends the output to `out`.
    ///
    /// Returns false if the codec failed, which should not happen. `out` is unusable then.
    pub(crate) fn deflate(&mut self, piece: &[u8], out: &mut Vec<u8>, flush: Flush) -> bool {
        let mode = match flush {
            Flush::Piece => DeflateFlush::NoFlush,
            Flush::Frame | Flush::Message => DeflateFlush::SyncFlush,
            Flush::LastMessage => DeflateFlush::FullFlush,
        };
        let (mut rest, start) = (piece, out.len());
        let is_sound = loop {
            let (old_len, old_in, old_out) =
                (out.len(), self.stream.total_in(), self.stream.total_out());
            // Data that does not compress grows by a few bytes.
            out.resize(old_len + rest.len() + rest.len() / 1024 + MIN_ROOM, 0);
            let room = out.get_mut(old_len..).unwrap_or_default();
            let room_len = room.len();
            let result = self.stream.compress(rest, room, mode);
            let written = since(old_out, self.stream.total_out());
            out.truncate(old_len + written);
            rest = rest.get(since(old_in, self.stream.total_in())..).unwrap_or_default();
            if result.is_err() || written < room_len {
                break result.is_ok();
            }
        };
        if matches!(flush, Flush::Message | Flush::LastMessage) {
            cut_tail(out, start);
        }
        is_sound && rest.is_empty()
    }
}

/// Cuts the tail off a message whose last piece began at `start`.
fn cut_tail(out: &mut Vec<u8>, start: usize) {
    if out.len() > start && out.ends_with(&TAIL) {
        out.truncate(out.len() - TAIL.len());
    } else if out.len() == start {
        // There was no input since the last flush, so there is no output. The zero byte is an empty
        // block without its tail (§7.2.3.6).
        out.push(0);
    }
}

impl fmt::Debug for Deflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deflater").field("config", &self.config).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(level: u8) -> DeflaterConfig {
        DeflaterConfig { level, window_bits: 15, memory_level: 8 }
    }

    fn deflated(deflater: &mut Deflater, message: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        assert!(deflater.deflate(message, &mut out, Flush::Message));
        out
    }

    fn deflated_alone(deflater: &mut Deflater, message: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        assert!(deflater.deflate(message, &mut out, Flush::LastMessage));
        out
    }

    #[test]
    fn hello_is_compressed_as_in_sections_7_2_3_1_and_7_2_3_2() {
        let mut deflater = Deflater::new(config(6));
        assert_eq!(deflated(&mut deflater, b"Hello"), b"\xf2\x48\xcd\xc9\xc9\x07\x00");
        assert_eq!(deflated(&mut deflater, b"Hello"), b"\xf2\x00\x11\x00\x00");
        deflater.reset();
        assert_eq!(deflated(&mut deflater, b"Hello"), b"\xf2\x48\xcd\xc9\xc9\x07\x00");
    }

    #[test]
    fn hello_without_compression_is_the_block_of_section_7_2_3_3() {
        let mut deflater = Deflater::new(config(0));
        let stored = b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00";
        assert_eq!(deflated(&mut deflater, b"Hello"), stored);
    }

    #[test]
    fn every_empty_message_is_the_byte_of_section_7_2_3_6() {
        let mut deflater = Deflater::new(config(6));
        for _ in 0..3 {
            assert_eq!(deflated(&mut deflater, b""), b"\x00");
        }
        deflated(&mut deflater, b"Hello");
        assert_eq!(deflated(&mut deflater, b""), b"\x00");
    }

    #[test]
    fn after_a_last_message_the_next_is_compressed_as_if_it_were_the_first() {
        let messages = [&b"Hello"[..], b"", b"Hello Hello", b"Hello", b"", b""];
        for level in 0..=9 {
            let mut deflater = Deflater::new(config(level));
            for message in messages.iter().cycle().take(20) {
                let first = deflated(&mut Deflater::new(config(level)), message);
                assert_eq!(deflated_alone(&mut deflater, message), first, "level {level}");
            }
        }
    }

    #[test]
    fn frames_of_a_message_keep_their_tail_but_for_the_last() {
        let mut deflater = Deflater::new(config(6));
        let mut frame = |piece: &[u8], flush| {
            let mut out = Vec::new();
            assert!(deflater.deflate(piece, &mut out, flush));
            out
        };
        assert!(frame(b"Hel", Flush::Frame).ends_with(&TAIL));
        assert!(frame(b"", Flush::Piece).is_empty());
        let last = frame(b"lo", Flush::Message);
        assert!(!last.is_empty() && !last.ends_with(&TAIL));
    }

    #[test]
    fn a_deflater_shows_how_it_compresses_and_not_its_window() {
        assert_eq!(
            format!("{:?}", Deflater::new(config(6))),
            "Deflater { config: DeflaterConfig { level: 6, window_bits: 15, memory_level: 8 }, .. }",
        );
    }
}
