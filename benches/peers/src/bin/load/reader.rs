//! The server's bytes, as messages: counted, and now and then compared.

use std::io;

use peers::wire::{self, Header};

use crate::deflate::{Deflate, Inflater};
use crate::messages::Messages;

/// Every so many messages the content is compared; their length always is.
const SAMPLE: u64 = 64;

/// What the server sends on one connection.
#[derive(Debug)]
pub(crate) struct Reader {
    echoes: Echoes,
    /// The message whose echo comes next.
    at: usize,
    /// Above 1, the next echo is that of any of so many messages, of which that is the first.
    among: usize,
    /// What has come of an echo that is compared once it is whole.
    collected: Vec<u8>,
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

/// How echoes come, and which of them are looked into.
#[derive(Debug)]
pub(crate) enum Echoes {
    Plain,
    /// Without an inflater they are counted only.
    Compressed(Option<Inflater>),
}

impl Echoes {
    /// What is expected on a connection.
    ///
    /// An echo that may refer to earlier ones can only be inflated if all of them are, and that costs
    /// as much as the server's work: so it is done on the first connection alone.
    pub(crate) fn of(deflate: Option<Deflate>, is_first: bool) -> Self {
        match deflate {
            Some(deflate) if deflate.compresses_out() => {
                let is_read = is_first || !deflate.takeover;
                Self::Compressed(is_read.then(|| Inflater::new(deflate.takeover)))
            }
            _ => Self::Plain,
        }
    }
}

impl Reader {
    /// `at` is the message whose echo comes first.
    pub(crate) fn new(echoes: Echoes, at: usize) -> Self {
        Self {
            echoes,
            at,
            among: 1,
            collected: Vec::new(),
            partial: Vec::new(),
            missing: 0,
            have: 0,
            is_final: false,
            is_control: false,
            messages: 0,
            is_closed: false,
        }
    }

    /// From now on messages come from `at` on, in their order; if `among` is above 1, all are any of
    /// so many, which are of one length.
    pub(crate) fn expect(&mut self, at: usize, among: usize) {
        (self.at, self.among) = (at, among);
    }

    /// Takes in `bytes`; returns how many echoes of `sent` ended in them.
    pub(crate) fn read(&mut self, mut bytes: &[u8], sent: &Messages) -> io::Result<u32> {
        let before = self.messages;
        if !self.partial.is_empty() {
            bytes = self.complete_header(bytes, sent)?;
        }
        loop {
            bytes = self.payload(bytes, sent)?;
            if bytes.is_empty() {
                break;
            }
            let Some(header) = Header::parse(bytes) else {
                self.partial.extend_from_slice(bytes);
                break;
            };
            self.begin(&header)?;
            bytes = &bytes[header.len..];
            if header.payload == 0 {
                self.end(sent)?;
            }
        }
        u32::try_from(self.messages - before).map_err(|_| invalid("too many echoes in one read"))
    }

    /// Has the server sent a close frame?
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    fn complete_header<'a>(
        &mut self,
        mut bytes: &'a [u8],
        sent: &Messages,
    ) -> io::Result<&'a [u8]> {
        while let Some((first, rest)) = bytes.split_first() {
            self.partial.push(*first);
            bytes = rest;
            if let Some(header) = Header::parse(&self.partial) {
                self.partial.clear();
                self.begin(&header)?;
                if header.payload == 0 {
                    self.end(sent)?;
                }
                break;
            }
        }
        Ok(bytes)
    }

    fn begin(&mut self, header: &Header) -> io::Result<()> {
        self.missing = header.payload;
        self.is_final = header.first & 0x80 != 0;
        self.is_control = header.first & 0x08 != 0;
        self.is_closed |= header.first == wire::CLOSE;
        let is_message = !self.is_control && header.first & 0x0f != 0;
        let is_compressed = header.first & wire::RSV1 != 0;
        if is_message && is_compressed == matches!(self.echoes, Echoes::Plain) {
            let how = if is_compressed { "compressed" } else { "plain" };
            return Err(invalid(format!("an echo is {how}, which this run does not measure")));
        }
        Ok(())
    }

    fn payload<'a>(&mut self, bytes: &'a [u8], sent: &Messages) -> io::Result<&'a [u8]> {
        if self.missing == 0 {
            return Ok(bytes);
        }
        let (part, rest) = bytes.split_at(self.missing.min(bytes.len()));
        self.missing -= part.len();
        if !self.is_control {
            self.take_in(part, sent.payload(self.at))?;
        }
        if self.missing == 0 {
            self.end(sent)?;
        }
        Ok(rest)
    }

    fn take_in(&mut self, part: &[u8], payload: &[u8]) -> io::Result<()> {
        let (is_compared, is_ordered) = (self.is_compared(), self.among == 1);
        let is_plain = matches!(self.echoes, Echoes::Plain);
        if is_compared && !(is_plain && is_ordered) {
            self.collected.extend_from_slice(part);
        }
        if !is_plain {
            return Ok(());
        }
        let expected = payload.get(self.have..self.have + part.len());
        let expected = expected.ok_or_else(|| invalid("an echo is longer than its message"))?;
        if is_compared && is_ordered && part != expected {
            return Err(invalid("an echo differs from its message"));
        }
        self.have += part.len();
        Ok(())
    }

    /// Is the content of the current echo looked at?
    fn is_compared(&self) -> bool {
        let has_context = match &self.echoes {
            Echoes::Plain => false,
            Echoes::Compressed(None) => return false,
            Echoes::Compressed(Some(inflater)) => inflater.has_context(),
        };
        has_context || self.messages.is_multiple_of(SAMPLE)
    }

    fn end(&mut self, sent: &Messages) -> io::Result<()> {
        if self.is_control || !self.is_final {
            return Ok(());
        }
        let (len, is_compared) = (sent.payload(self.at).len(), self.is_compared());
        let is_sent = |payload: &[u8]| sent.is_among(payload, self.at, self.among);
        let is_right = match &mut self.echoes {
            Echoes::Plain if is_compared && self.among > 1 => is_sent(&self.collected),
            Echoes::Plain => self.have == len,
            Echoes::Compressed(Some(inflater)) if is_compared => {
                inflater.inflate(&mut self.collected, len).is_some_and(is_sent)
            }
            Echoes::Compressed(_) => true,
        };
        if !is_right {
            return Err(invalid("an echo is shorter than its message, or another"));
        }
        self.have = 0;
        self.collected.clear();
        self.messages += 1;
        if self.among == 1 {
            self.at = if self.at + 1 == sent.count() { 0 } else { self.at + 1 };
        }
        Ok(())
    }
}

fn invalid(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deflate::{self, Direction};
    use crate::json;

    #[test]
    fn messages_are_counted_however_the_stream_is_cut() {
        // Two whole messages, a ping between fragments, and a close.
        let stream = b"\x82\x03abc\x02\x01a\x89\x00\x80\x02bc\x82\x03abc\x88\x00";
        assert_cuts(&Messages::lay_out(vec![b"abc".to_vec()], &[vec![0]], 1), None, stream, 3);
    }

    #[test]
    fn compressed_messages_are_recognised_however_the_stream_is_cut() {
        let payloads = json::messages(3, 200);
        let mut stream = Vec::new();
        for payload in deflate::compress(&payloads) {
            stream.extend_from_slice(&[wire::TEXT | wire::RSV1, 126]);
            stream.extend_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
            stream.extend_from_slice(&payload);
        }
        let sent = Messages::lay_out(payloads, &[vec![0], vec![0], vec![0]], 1);
        for takeover in [false, true] {
            let deflate = Deflate { direction: Direction::Both, takeover };
            assert_cuts(&sent, Some(deflate), &stream, 3);
        }
        stream[50] ^= 1;
        let deflate = Some(Deflate { direction: Direction::Both, takeover: false });
        assert!(Reader::new(Echoes::of(deflate, true), 0).read(&stream, &sent).is_err());
    }

    #[test]
    fn any_of_those_that_were_said_may_come() {
        let payloads: Vec<Vec<u8>> = [b"abc", b"def", b"ghi", b"jkl"].map(|it| it.to_vec()).into();
        let frames: Vec<Vec<u8>> = payloads.iter().map(|_| vec![0]).collect();
        let sent = Messages::lay_out(payloads, &frames, 1);
        // Beginning with the last, two of them: those around the end of the cycle.
        for (stream, is_right) in [
            (&b"\x82\x03jkl"[..], true),
            (b"\x02\x02ab\x80\x01c", true),
            (b"\x82\x03def", false),
            (b"\x82\x02ab", false),
            (b"\x82\x04abcd", false),
        ] {
            let mut reader = Reader::new(Echoes::Plain, 0);
            reader.expect(3, 2);
            assert_eq!(reader.read(stream, &sent).is_ok(), is_right, "{stream:02x?}");
        }
    }

    #[test]
    fn a_wrong_echo_is_an_error() {
        let sent = Messages::lay_out(vec![b"abc".to_vec()], &[vec![0]], 1);
        for stream in [&b"\x82\x02ab"[..], b"\x82\x04abcd", b"\x82\x03abd", b"\xc2\x03abc"] {
            assert!(Reader::new(Echoes::Plain, 0).read(stream, &sent).is_err());
        }
    }

    fn assert_cuts(sent: &Messages, deflate: Option<Deflate>, stream: &[u8], messages: u32) {
        for cut in 0..stream.len() {
            let mut reader = Reader::new(Echoes::of(deflate, true), 0);
            let (one, two) = stream.split_at(cut);
            let mut count = reader.read(one, sent).unwrap_or_else(|error| panic!("{cut}: {error}"));
            count += reader.read(two, sent).unwrap_or_else(|error| panic!("{cut}: {error}"));
            assert_eq!(count, messages, "{cut}");
        }
    }
}
