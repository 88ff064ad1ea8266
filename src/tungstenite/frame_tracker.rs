//! The position of a stream in its frames, tracked as its bytes pass.
//!
//! tungstenite does not tell which bytes it has read beyond the last message. This tracker does.

use crate::proto::{FrameHeader, OpCode};

/// The position of one direction.
#[derive(Debug)]
pub(super) struct FrameTracker {
    part: Part,
    is_inside_message: bool,
    has_close: bool,
}

#[derive(Debug)]
enum Part {
    /// No byte has passed.
    Start,
    /// The opening handshake, which ends with an empty line.
    Handshake {
        is_line_empty: bool,
    },
    Header {
        bytes: [u8; FrameHeader::MAX_LEN],
        len: usize,
    },
    Payload {
        left: u64,
    },
    /// Bytes have passed that are not a frame.
    Unreadable,
}

impl Part {
    const NO_HEADER: Self = Self::Header { bytes: [0; FrameHeader::MAX_LEN], len: 0 };
}

impl FrameTracker {
    pub(super) const START: Self =
        Self { part: Part::Start, is_inside_message: false, has_close: false };

    /// Records that these bytes have passed.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            match &mut self.part {
                Part::Start => {
                    self.part = match byte {
                        // `GET` or `HTTP/1.1`. No frame begins like this, since it would have RSV1 set, and no
                        // extension is agreed on.
                        b'G' | b'H' => Part::Handshake { is_line_empty: false },
                        _ => Part::NO_HEADER,
                    };
                    continue;
                }
                Part::Handshake { is_line_empty } => match byte {
                    b'\n' if *is_line_empty => self.part = Part::NO_HEADER,
                    b'\n' => *is_line_empty = true,
                    b'\r' => {}
                    _ => *is_line_empty = false,
                },
                Part::Header { .. } => self.pass_header(byte),
                Part::Payload { left } => {
                    let len = u64::try_from(bytes.len()).map_or(*left, |len| len.min(*left));
                    *left -= len;
                    if *left == 0 {
                        self.part = Part::NO_HEADER;
                    }
                    bytes =
                        usize::try_from(len).ok().and_then(|len| bytes.get(len..)).unwrap_or(&[]);
                    continue;
                }
                Part::Unreadable => return,
            }
            bytes = rest;
        }
    }

    fn pass_header(&mut self, byte: u8) {
        let Part::Header { bytes, len } = &mut self.part else { return };
        if let Some(slot) = bytes.get_mut(*len) {
            *slot = byte;
            *len += 1;
        }
        match FrameHeader::decode(bytes.get(..*len).unwrap_or_default(), false) {
            Ok(None) => {}
            Ok(Some((header, _))) => {
                if header.opcode.is_data() {
                    self.is_inside_message = !header.fin;
                }
                self.has_close |= header.opcode == OpCode::Close;
                let left = header.len;
                self.part = if left > 0 { Part::Payload { left } } else { Part::NO_HEADER };
            }
            Err(_) => self.part = Part::Unreadable,
        }
    }

    /// Whether no frame and no message is under way.
    pub(super) fn is_between_messages(&self) -> bool {
        let is_between_frames = matches!(self.part, Part::Start | Part::Header { len: 0, .. });
        is_between_frames && !self.is_inside_message
    }

    /// Whether a close frame has passed, or a part of one.
    pub(super) fn has_close(&self) -> bool {
        self.has_close
    }

    pub(super) fn is_unreadable(&self) -> bool {
        matches!(self.part, Part::Unreadable)
    }

    /// The number of bytes that may pass so that at most the last of them ends a frame. At least one.
    pub(super) fn within_frame(&self) -> usize {
        match self.part {
            Part::Payload { left } => usize::try_from(left).unwrap_or(usize::MAX),
            _ => 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_ends_with_its_last_frame_for_every_split_of_the_bytes() {
        let bytes = b"\x01\x02ab\x89\x00\x80\x83\x01\x02\x03\x04xyz";
        for step in 1..=bytes.len() {
            let mut position = FrameTracker::START;
            let mut passed = 0;
            for piece in bytes.chunks(step) {
                position.pass(piece);
                passed += piece.len();
                assert_eq!(
                    position.is_between_messages(),
                    passed == bytes.len(),
                    "{step} {passed}"
                );
            }
        }
    }

    #[test]
    fn a_handshake_may_come_first() {
        let mut position = FrameTracker::START;
        position.pass(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r");
        assert!(!position.is_between_messages());
        position.pass(b"\n");
        assert!(position.is_between_messages());
        position.pass(b"\x81");
        assert!(!position.is_between_messages());
    }

    #[test]
    fn a_close_frame_and_bytes_that_are_not_a_frame_are_noticed() {
        let mut position = FrameTracker::START;
        position.pass(b"\x88\x00");
        assert!(position.has_close() && !position.is_unreadable());
        position.pass(b"\xff\xff");
        assert!(position.is_unreadable() && !position.is_between_messages());
    }

    #[test]
    fn no_more_than_the_frame_is_let_through() {
        let mut position = FrameTracker::START;
        assert_eq!(position.within_frame(), 1);
        position.pass(b"\x82\x7e\x01\x00");
        assert_eq!(position.within_frame(), 256);
        position.pass(&[0; 255]);
        assert_eq!(position.within_frame(), 1);
    }
}
