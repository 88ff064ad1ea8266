//! The check that text is UTF-8, done as the text arrives ([RFC 6455 §8.1]).
//!
//! A message may be cut anywhere, also inside a character. Invalid text is refused at the first byte
//! that proves it invalid, not at the end of the message.
//!
//! [RFC 6455 §8.1]: https://www.rfc-editor.org/rfc/rfc6455#section-8.1

use super::ProtocolError;

/// The check of one text, piece by piece.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Utf8 {
    /// The beginning of a character whose end has not arrived.
    tail: [u8; 4],
    tail_len: u8,
}

impl Utf8 {
    /// Checks the next piece.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Result<(), ProtocolError> {
        let mut piece = piece;
        while self.tail_len > 0 {
            let Some((byte, rest)) = piece.split_first() else { return Ok(()) };
            piece = rest;
            self.push_to_tail(*byte)?;
        }
        let Err(error) = simdutf8::compat::from_utf8(piece) else { return Ok(()) };
        if error.error_len().is_some() {
            return Err(ProtocolError::InvalidUtf8);
        }
        piece.get(error.valid_up_to()..).unwrap_or_default().iter().try_for_each(|byte| {
            // An unfinished character has one to three bytes, and none of them completes it.
            self.push_to_tail(*byte)
        })
    }

    /// Checks that the text does not end inside a character.
    pub(crate) fn finish(self) -> Result<(), ProtocolError> {
        if self.tail_len == 0 { Ok(()) } else { Err(ProtocolError::InvalidUtf8) }
    }

    fn push_to_tail(&mut self, byte: u8) -> Result<(), ProtocolError> {
        let len = usize::from(self.tail_len) + 1;
        let Some(tail) = self.tail.get_mut(..len) else { return Err(ProtocolError::InvalidUtf8) };
        if let Some(last) = tail.last_mut() {
            *last = byte;
        }
        self.tail_len = match std::str::from_utf8(tail) {
            Ok(_) => 0,
            Err(error) if error.error_len().is_none() => self.tail_len + 1,
            Err(_) => return Err(ProtocolError::InvalidUtf8),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pieces: &[&[u8]]) -> Result<(), ProtocolError> {
        let mut utf8 = Utf8::default();
        pieces.iter().try_for_each(|piece| utf8.push(piece))?;
        utf8.finish()
    }

    #[test]
    fn text_may_be_cut_anywhere() {
        let text =
            "κόσμε — 𝄞 plain text long enough for the vectorised path 🦀 και τέλος".as_bytes();
        for first in 0..text.len() {
            for second in first..text.len() {
                let pieces = [&text[..first], &text[first..second], &text[second..]];
                assert_eq!(check(&pieces), Ok(()), "cut at {first} and {second}");
            }
        }
    }

    #[test]
    fn invalid_text_is_refused_at_the_byte_that_proves_it() {
        let cases: [(&[u8], usize); 6] = [
            (b"\x80", 0),             // a continuation byte first
            (b"ab\xc0\xaf", 2),       // overlong: no character begins with c0
            (b"\xed\xa0\x80", 1),     // a surrogate
            (b"\xf4\x90\x80\x80", 1), // beyond U+10FFFF
            (b"\xe2\x82x", 2),        // three bytes promised, two sent
            (b"\xf5", 0),
        ];
        for (bytes, bad) in cases {
            let mut utf8 = Utf8::default();
            for (at, byte) in bytes.iter().enumerate().take(bad + 1) {
                assert_eq!(utf8.push(&[*byte]).is_err(), at == bad, "{bytes:02x?} at {at}");
            }
            assert_eq!(check(&[bytes]), Err(ProtocolError::InvalidUtf8), "{bytes:02x?}");
        }
    }

    #[test]
    fn a_text_that_ends_inside_a_character_is_refused() {
        assert_eq!(check(&[b"abc\xe2\x82"]), Err(ProtocolError::InvalidUtf8));
        assert_eq!(check(&[b"abc\xe2", b"\x82"]), Err(ProtocolError::InvalidUtf8));
    }
}
