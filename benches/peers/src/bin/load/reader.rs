//! The server's bytes, as messages: counted, and now and then compared.

use std::io;

use peers::wire::{self, Header};

/// Every so many messages the content is compared; their length always is.
const SAMPLE: u64 = 64;

/// What the server sends on one connection.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// The start of a header whose end has not come yet.
    partial: Vec<u8>,
    /// Bytes still to come of the frame's payload.
    missing: usize,
    /// Bytes there already of the message.
    have: usize,
    is_final: bool,
    is_control: bool,
    messages: u64,
    is_closed: bool,
}

impl Reader {
    /// Takes in `bytes`; returns how many echoes of `payload` ended in them.
    pub(crate) fn read(&mut self, mut bytes: &[u8], payload: &[u8]) -> io::Result<u32> {
        let before = self.messages;
        if !self.partial.is_empty() {
            bytes = self.complete_header(bytes, payload)?;
        }
        loop {
            bytes = self.payload(bytes, payload)?;
            if bytes.is_empty() {
                break;
            }
            let Some(header) = Header::parse(bytes) else {
                self.partial.extend_from_slice(bytes);
                break;
            };
            self.begin(&header);
            bytes = &bytes[header.len..];
            if header.payload == 0 {
                self.end(payload)?;
            }
        }
        u32::try_from(self.messages - before).map_err(|_| invalid("too many echoes in one read"))
    }

    /// Has the server sent a close frame?
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    fn complete_header<'a>(&mut self, mut bytes: &'a [u8], payload: &[u8]) -> io::Result<&'a [u8]> {
        while let Some((first, rest)) = bytes.split_first() {
            self.partial.push(*first);
            bytes = rest;
            if let Some(header) = Header::parse(&self.partial) {
                self.partial.clear();
                self.begin(&header);
                if header.payload == 0 {
                    self.end(payload)?;
                }
                break;
            }
        }
        Ok(bytes)
    }

    fn begin(&mut self, header: &Header) {
        self.missing = header.payload;
        self.is_final = header.first & 0x80 != 0;
        self.is_control = header.first & 0x08 != 0;
        self.is_closed |= header.first == wire::CLOSE;
    }

    fn payload<'a>(&mut self, bytes: &'a [u8], payload: &[u8]) -> io::Result<&'a [u8]> {
        if self.missing == 0 {
            return Ok(bytes);
        }
        let (part, rest) = bytes.split_at(self.missing.min(bytes.len()));
        self.missing -= part.len();
        if !self.is_control {
            let expected = payload.get(self.have..self.have + part.len());
            let expected = expected.ok_or_else(|| invalid("an echo is longer than its message"))?;
            if self.messages.is_multiple_of(SAMPLE) && part != expected {
                return Err(invalid("an echo differs from its message"));
            }
            self.have += part.len();
        }
        if self.missing == 0 {
            self.end(payload)?;
        }
        Ok(rest)
    }

    fn end(&mut self, payload: &[u8]) -> io::Result<()> {
        if self.is_control || !self.is_final {
            return Ok(());
        }
        if self.have != payload.len() {
            return Err(invalid("an echo is shorter than its message"));
        }
        self.have = 0;
        self.messages += 1;
        Ok(())
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_the_stream_is_cut() {
        // Two whole messages, a ping between fragments, and a close.
        let stream = b"\x82\x03abc\x02\x01a\x89\x00\x80\x02bc\x82\x03abc\x88\x00";
        for cut in 0..stream.len() {
            let mut reader = Reader::default();
            let (one, two) = stream.split_at(cut);
            let mut count =
                reader.read(one, b"abc").unwrap_or_else(|error| panic!("{cut}: {error}"));
            count += reader.read(two, b"abc").unwrap_or_else(|error| panic!("{cut}: {error}"));
            assert_eq!(count, 3, "{cut}");
        }
    }

    #[test]
    fn a_wrong_echo_is_an_error() {
        for stream in [&b"\x82\x02ab"[..], b"\x82\x04abcd", b"\x82\x03abd"] {
            assert!(Reader::default().read(stream, b"abc").is_err());
        }
    }
}
