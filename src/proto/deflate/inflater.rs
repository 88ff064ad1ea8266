//! Decompression ([RFC 7692 §7.2.2]).
//!
//! [RFC 7692 §7.2.2]: https://www.rfc-editor.org/rfc/rfc7692#section-7.2.2

use std::fmt;

use zlib_rs::{Inflate, InflateFlush, Status};

use super::{TAIL, since};
use crate::proto::ProtocolError;

/// The largest window of DEFLATE, which can read data compressed with any window. zlib-rs would
/// allocate as much for a smaller one.
const WINDOW_BITS: u8 = 15;

/// The tail, and the first byte of another block, which the codec must not read.
const TAIL_AND_MORE: [u8; 5] = [0x00, 0x00, 0xFF, 0xFF, 0x03];

/// A decompressor, which keeps a window of its recent output.
pub(crate) struct Inflater {
    stream: Inflate,
    /// Whether no byte has been read since the message began, or since a block marked as the last.
    is_untouched: bool,
}

impl Inflater {
    /// Memory that an inflater takes, in bytes.
    #[cfg(feature = "accept")]
    pub(crate) const MEMORY: usize = 48 << 10;

    pub(crate) fn new() -> Self {
        Self { stream: Inflate::new(false, WINDOW_BITS), is_untouched: true }
    }

    /// Forgets the window.
    pub(crate) fn reset(&mut self) {
        self.stream.reset(false);
        self.is_untouched = true;
    }

    /// Begins a message that may refer to those before it.
    pub(crate) fn begin_message(&mut self) {
        self.is_untouched = true;
    }

    /// Decompresses until `input` is used up or `output` is full. Returns the number of bytes written.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::DeflateCorrupt`] at the first byte that is not valid DEFLATE.
    pub(crate) fn inflate(
        &mut self,
        input: &mut &[u8],
        output: &mut [u8],
    ) -> Result<usize, ProtocolError> {
        let mut written = 0;
        loop {
            let room = output.get_mut(written..).unwrap_or_default();
            let (old_in, old_out) = (self.stream.total_in(), self.stream.total_out());
            let status = self
                .stream
                .decompress(input, room, InflateFlush::NoFlush)
                .map_err(|_| ProtocolError::DeflateCorrupt)?;
            let read = since(old_in, self.stream.total_in());
            *input = input.get(read..).unwrap_or_default();
            written += since(old_out, self.stream.total_out());
            self.is_untouched &= read == 0;
            if status != Status::StreamEnd {
                return Ok(written);
            }
            // A block marked as the last (§7.2.3.4). The data after it starts with an empty window.
            self.reset();
            if input.is_empty() {
                return Ok(written);
            }
        }
    }

    /// Ends a message by reading its tail. The caller has read all of its payload and its output.
    ///
    /// # Errors
    ///
    /// [`ProtocolError::DeflateCorrupt`] if the message ended inside a block.
    pub(crate) fn finish(&mut self) -> Result<(), ProtocolError> {
        if self.is_untouched {
            // The payload was empty, or ended with a block marked as the last.
            return Ok(());
        }
        let (old_in, old_out) = (self.stream.total_in(), self.stream.total_out());
        let result = self.stream.decompress(&TAIL_AND_MORE, &mut [0], InflateFlush::Block);
        let read = since(old_in, self.stream.total_in());
        let written = since(old_out, self.stream.total_out());
        // In a whole message the tail reads as an empty block: all of it is read, nothing is written.
        let is_whole = result == Ok(Status::Ok) && (read, written) == (TAIL.len(), 0);
        if is_whole { Ok(()) } else { Err(ProtocolError::DeflateCorrupt) }
    }
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::deflate::{Deflater, DeflaterConfig, Flush};

    /// Inflates a whole message through an output buffer of `room` bytes.
    fn inflated(
        inflater: &mut Inflater,
        payload: &[u8],
        room: usize,
    ) -> Result<Vec<u8>, ProtocolError> {
        let (mut message, mut output, mut input) = (Vec::new(), vec![0; room], payload);
        inflater.begin_message();
        loop {
            let written = inflater.inflate(&mut input, &mut output)?;
            message.extend_from_slice(&output[..written]);
            if input.is_empty() && written < room {
                return inflater.finish().map(|()| message);
            }
        }
    }

    /// The same without context takeover.
    fn inflated_alone(payload: &[u8]) -> Result<Vec<u8>, ProtocolError> {
        inflated(&mut Inflater::new(), payload, 1 << 10)
    }

    #[test]
    fn the_examples_of_section_7_2_3_are_read() {
        let cases: [(&str, &[u8], &[u8]); 6] = [
            ("7.2.3.1", b"\xf2\x48\xcd\xc9\xc9\x07\x00", b"Hello"),
            ("7.2.3.3", b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00", b"Hello"),
            ("7.2.3.4", b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00", b"Hello"),
            ("7.2.3.5", b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00", b"Hello"),
            ("7.2.3.6", b"\x00", b""),
            ("7.2.3.6, a block with fixed codes", b"\x02\x00", b""),
        ];
        for (section, payload, message) in cases {
            assert_eq!(inflated_alone(payload).as_deref(), Ok(message), "{section}");
        }
    }

    #[test]
    fn the_second_message_of_section_7_2_3_2_refers_to_the_first() {
        let mut inflater = Inflater::new();
        let first = inflated(&mut inflater, b"\xf2\x48\xcd\xc9\xc9\x07\x00", 64);
        assert_eq!(first.as_deref(), Ok(b"Hello".as_slice()));
        let second = inflated(&mut inflater, b"\xf2\x00\x11\x00\x00", 64);
        assert_eq!(second.as_deref(), Ok(b"Hello".as_slice()));
        inflater.reset();
        let alone = inflated(&mut inflater, b"\xf2\x00\x11\x00\x00", 64);
        assert_eq!(alone, Err(ProtocolError::DeflateCorrupt));
    }

    #[test]
    fn messages_end_with_a_last_block_or_without_payload_as_well() {
        let hello = b"\xf3\x48\xcd\xc9\xc9\x07\x00".as_slice();
        assert_eq!(inflated_alone(hello).as_deref(), Ok(b"Hello".as_slice()));
        assert_eq!(inflated_alone(b"").as_deref(), Ok(b"".as_slice()));
        let twice = [hello, hello, b"\x00"].concat();
        assert_eq!(inflated_alone(&twice).as_deref(), Ok(b"HelloHello".as_slice()));
        let mut inflater = Inflater::new();
        for payload in [hello, b"", b"\x00", hello] {
            assert!(inflated(&mut inflater, payload, 64).is_ok());
        }
    }

    #[test]
    fn a_message_that_ends_inside_a_block_is_corrupt() {
        let whole = b"\xf2\x48\xcd\xc9\xc9\x07\x00";
        for len in 1..whole.len() - 1 {
            let cut = inflated_alone(&whole[..len]);
            assert_eq!(cut, Err(ProtocolError::DeflateCorrupt), "{len} bytes");
        }
    }

    #[test]
    fn every_window_is_read_through_every_output() {
        let message: Vec<u8> = (0..40_000_u32).flat_map(|n| (n * n % 977).to_le_bytes()).collect();
        for window_bits in 9..=15 {
            let config = DeflaterConfig { level: 6, window_bits, memory_level: 8 };
            let (mut deflater, mut inflater) = (Deflater::new(config), Inflater::new());
            for room in [1, 7, 4096, 1 << 20] {
                let mut payload = Vec::new();
                assert!(deflater.deflate(&message, &mut payload, Flush::Message));
                assert_eq!(inflated(&mut inflater, &payload, room), Ok(message.clone()));
            }
        }
    }

    #[test]
    fn an_inflater_does_not_show_its_window() {
        assert_eq!(format!("{:?}", Inflater::new()), "Inflater { .. }");
    }
}
