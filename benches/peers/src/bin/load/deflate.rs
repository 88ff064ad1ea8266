//! permessage-deflate (RFC 7692) as a load generator needs it: an offer, frames compressed
//! beforehand, and a look into what comes back.

use std::io;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

/// What a flushed stream ends with, which a message leaves out (§7.2.1).
const TAIL: &[u8] = &[0, 0, 0xff, 0xff];
/// Level of the messages that the load sends: zlib's default.
const LEVEL: u32 = 6;

/// What the load offers and sends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deflate {
    pub(crate) direction: Direction,
    pub(crate) takeover: bool,
}

/// Which messages are compressed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Direction {
    Both,
    /// Those that go in to the server; it has to answer plain.
    In,
    /// Those that come out of the server.
    Out,
}

impl Direction {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "both" => Ok(Self::Both),
            "in" => Ok(Self::In),
            "out" => Ok(Self::Out),
            _ => Err(format!("cannot compress {text:?}: both, in or out")),
        }
    }
}

impl Deflate {
    pub(crate) fn compresses_in(self) -> bool {
        self.direction != Direction::Out
    }

    pub(crate) fn compresses_out(self) -> bool {
        self.direction != Direction::In
    }

    /// The offer. It names no window, for one peer answers `client_max_window_bits` with the least.
    pub(crate) fn offer(self) -> &'static str {
        if self.takeover {
            "permessage-deflate"
        } else {
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        }
    }

    /// Does the server's answer grant the takeover that was wanted, with full windows?
    pub(crate) fn check(self, answer: &str) -> io::Result<()> {
        let mut words = answer.split(';').map(str::trim);
        let is_deflate = words.next() == Some("permessage-deflate");
        let (mut server_keeps, mut client_keeps, mut is_full) = (true, true, true);
        for word in words {
            match word {
                "server_no_context_takeover" => server_keeps = false,
                "client_no_context_takeover" => client_keeps = false,
                "server_max_window_bits=15" | "client_max_window_bits=15" => {}
                _ => is_full = false,
            }
        }
        let is_wanted = (server_keeps, client_keeps) == (self.takeover, self.takeover);
        (is_deflate && is_wanted && is_full).then_some(()).ok_or_else(|| {
            let offer = self.offer();
            io::Error::other(format!("{offer:?} was answered with {answer:?}: another measurement"))
        })
    }
}

/// Compresses each message by itself.
///
/// On a connection with context takeover as well, where a sender may refer back but need not.
pub(crate) fn compress(messages: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut deflater = Compress::new(Compression::new(LEVEL), false);
    let mut compress = |message: &Vec<u8>| {
        deflater.reset();
        // Whatever does not shrink grows by less than this.
        let mut compressed = Vec::with_capacity(message.len() + message.len() / 8 + 64);
        deflater
            .compress_vec(message, &mut compressed, FlushCompress::Sync)
            .expect("deflate takes everything");
        assert!(compressed.ends_with(TAIL), "a flushed stream ends so");
        compressed.truncate(compressed.len() - TAIL.len());
        compressed
    };
    messages.iter().map(&mut compress).collect()
}

/// Inflates a connection's echoes, or some of them.
#[derive(Debug)]
pub(crate) struct Inflater {
    stream: Decompress,
    takeover: bool,
    output: Vec<u8>,
}

impl Inflater {
    pub(crate) fn new(takeover: bool) -> Self {
        Self { stream: Decompress::new(false), takeover, output: Vec::new() }
    }

    /// May an echo refer to earlier ones, so that none can be left out?
    pub(crate) fn has_context(&self) -> bool {
        self.takeover
    }

    /// The message in `compressed`, which this leaves empty; `None` if it is none of `len` bytes.
    pub(crate) fn inflate(&mut self, compressed: &mut Vec<u8>, len: usize) -> Option<&[u8]> {
        if !self.takeover {
            self.stream.reset(false);
        }
        compressed.extend_from_slice(TAIL);
        self.output.clear();
        // More room than the message needs: a longer one must show, and zlib must not stop for it.
        self.output.reserve(len + 16);
        let before = self.stream.total_in();
        let outcome =
            self.stream.decompress_vec(compressed, &mut self.output, FlushDecompress::Sync);
        let is_read = self.stream.total_in() - before == compressed.len() as u64;
        compressed.clear();
        (outcome.is_ok() && is_read && self.output.len() == len).then_some(&self.output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn what_was_compressed_is_recognised_with_and_without_context() {
        let messages = json::messages(5, 1024);
        for takeover in [false, true] {
            let mut inflater = Inflater::new(takeover);
            for (message, mut compressed) in messages.iter().zip(compress(&messages)) {
                assert!(compressed.len() < message.len());
                assert_eq!(inflater.inflate(&mut compressed, 1024), Some(message.as_slice()));
            }
            assert_eq!(inflater.inflate(&mut compress(&messages)[0], 1023), None);
        }
    }

    #[test]
    fn an_answer_must_grant_what_was_wanted() {
        let none = "permessage-deflate; client_no_context_takeover; server_no_context_takeover";
        let full = "permessage-deflate; server_max_window_bits=15";
        for (takeover, answer, agrees) in [
            (false, none, true),
            (true, full, true),
            (true, none, false),
            (false, full, false),
            (false, "", false),
            (true, "permessage-deflate; server_no_context_takeover", false),
            (true, "permessage-deflate; client_max_window_bits=9", false),
        ] {
            let deflate = Deflate { direction: Direction::Both, takeover };
            assert_eq!(deflate.check(answer).is_ok(), agrees, "{takeover} {answer}");
        }
    }
}
