//! The peer's side: messages compressed as it likes, and what it receives read strictly.

use tidewire::deflate::DeflateParameters;
use zlib_rs::{Deflate, DeflateFlush};

use super::inflater::Inflater;
use super::{DEFLATED, TAIL};
use crate::support::frames::{FIN, Seen, shown};
use crate::support::peer::Peer;

/// Compresses what a peer sends.
pub(crate) struct Deflater {
    stream: Deflate,
    takeover: bool,
}

impl Deflater {
    pub(crate) fn new(level: i32, window_bits: u8, takeover: bool) -> Self {
        Self { stream: Deflate::new(level, false, window_bits), takeover }
    }

    /// The payload of a message.
    pub(crate) fn deflate(&mut self, message: impl AsRef<[u8]>) -> Vec<u8> {
        self.fragments(&[message.as_ref()]).concat()
    }

    /// The payloads of a message in fragments, each of which can be read when it has arrived.
    pub(crate) fn fragments(&mut self, parts: &[&[u8]]) -> Vec<Vec<u8>> {
        if !self.takeover {
            self.stream.reset();
        }
        let mut fragments: Vec<_> =
            parts.iter().map(|part| self.flushed(part, DeflateFlush::SyncFlush)).collect();
        let last = fragments.last_mut().unwrap();
        if last.is_empty() {
            // Nothing comes out if nothing went in since the last flush.
            last.push(0);
        } else {
            assert!(last.ends_with(&TAIL));
            last.truncate(last.len() - TAIL.len());
        }
        fragments
    }

    /// What comes out if nothing after it may refer to anything before.
    pub(crate) fn full_flush(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.flushed(bytes, DeflateFlush::FullFlush)
    }

    fn flushed(&mut self, bytes: &[u8], flush: DeflateFlush) -> Vec<u8> {
        let mut out = vec![0; bytes.len() + bytes.len() / 8 + 64];
        let (old_in, old_out) = (self.stream.total_in(), self.stream.total_out());
        self.stream.compress(bytes, &mut out, flush).unwrap();
        assert_eq!(self.stream.total_in() - old_in, u64::try_from(bytes.len()).unwrap());
        out.truncate(usize::try_from(self.stream.total_out() - old_out).unwrap());
        out
    }
}

/// Reads what the side under test sends: compressed messages, by what was agreed on.
pub(crate) struct Reader {
    inflater: Inflater,
    is_masked: bool,
    begun: Option<Seen>,
}

impl Reader {
    pub(crate) fn of_server(agreed: DeflateParameters) -> Self {
        let takeover = !agreed.server_no_context_takeover();
        Self::new(Inflater::new(agreed.server_max_window_bits(), takeover), false)
    }

    pub(crate) fn of_client(agreed: DeflateParameters) -> Self {
        let takeover = !agreed.client_no_context_takeover();
        Self::new(Inflater::new(agreed.client_max_window_bits(), takeover), true)
    }

    fn new(inflater: Inflater, is_masked: bool) -> Self {
        Self { inflater, is_masked, begun: None }
    }

    /// The next message, joined and decompressed, or control frame. The head of a message is that
    /// of its first frame, with FIN: 0xc1 or 0xc2 if it was compressed.
    pub(crate) async fn next(&mut self, peer: &mut Peer) -> Seen {
        loop {
            let frame = read_frame(peer, self.is_masked).await;
            if let Some(seen) = self.take(frame) {
                return seen;
            }
        }
    }

    /// The same for a frame that was read; `None` if more of the message follows.
    pub(crate) fn take(&mut self, frame: Seen) -> Option<Seen> {
        if frame.is_control() {
            return Some(frame);
        }
        let is_last = frame.head & FIN != 0;
        let mut message = match (frame.head & 0x0f, self.begun.take()) {
            (0, Some(first)) => {
                Seen { head: first.head, payload: [first.payload, frame.payload].concat() }
            }
            (1 | 2, None) => Seen { head: frame.head | FIN, ..frame },
            _ => panic!("{frame:?} is out of order"),
        };
        if !is_last {
            self.begun = Some(message);
            return None;
        }
        if message.head & DEFLATED != 0 {
            let inflated = self.inflater.inflate(&message.payload);
            message.payload = inflated.unwrap_or_else(|error| panic!("{error} in {message:?}"));
        }
        let is_text = message.head & 0x0f == 1;
        assert!(!is_text || std::str::from_utf8(&message.payload).is_ok(), "text {message:?}");
        Some(message)
    }
}

/// The next frame as it is; only the first of a message may be marked as compressed (§6).
pub(crate) async fn read_frame(peer: &mut Peer, is_masked: bool) -> Seen {
    let start = peer.read(2).await;
    let (head, second) = (start[0], start[1]);
    let may_be_deflated = matches!(head & 0x0f, 1 | 2);
    let reserved = if may_be_deflated { 0x30 } else { 0x70 };
    assert!(head & reserved == 0, "reserved bits in {}", shown(&start));
    assert_eq!(second & 0x80 != 0, is_masked, "mask of {}", shown(&start));
    let len = match second & 0x7f {
        126 => peer.read(2).await,
        127 => peer.read(8).await,
        len => vec![len],
    };
    let len = len.into_iter().fold(0, |len, byte| len << 8 | usize::from(byte));
    let key = if is_masked { peer.read(4).await } else { vec![0; 4] };
    let mut payload = peer.read(len).await;
    payload.iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
    Seen { head, payload }
}
