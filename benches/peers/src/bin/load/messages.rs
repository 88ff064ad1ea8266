//! What is sent, again and again: one message of letters, or a cycle of different JSON texts.

use peers::wire;

use crate::args::{Args, Content};
use crate::{deflate, json};

/// Most bytes of repeated messages kept ready for one `write`.
const READY: usize = 1 << 20;
/// Fewest messages of a cycle, and bytes: four windows of deflate, so that a context never holds the
/// message that it is about to compress.
const CYCLE: (usize, usize) = (64, 128 << 10);
/// The masking key of every frame; nothing on loopback needs an unpredictable one.
const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Messages in the order in which they are sent, and the frames that carry them.
#[derive(Debug)]
pub(crate) struct Messages {
    payloads: Vec<Vec<u8>>,
    /// The frames end to end, the whole cycle more than once, so that a `write` need not end with it.
    bytes: Vec<u8>,
    /// Where each message's frame begins, and where the cycle ends.
    starts: Vec<usize>,
}

impl Messages {
    pub(crate) fn new(args: &Args) -> Self {
        let (first, payloads) = match args.content {
            Content::Binary => (wire::BINARY, vec![letters(args.bytes)]),
            Content::Text => (wire::TEXT, vec![letters(args.bytes)]),
            Content::Json => (wire::TEXT, cycle(args.bytes)),
        };
        let frames = match args.deflate {
            Some(deflate) if deflate.compresses_in() => {
                frames(first | wire::RSV1, &deflate::compress(&payloads))
            }
            _ => frames(first, &payloads),
        };
        Self::lay_out(payloads, &frames, args.in_flight)
    }

    /// Puts the frames end to end, enough of them for what is written at once.
    pub(crate) fn lay_out(payloads: Vec<Vec<u8>>, frames: &[Vec<u8>], in_flight: u32) -> Self {
        let mut starts = vec![0];
        starts.extend(frames.iter().scan(0, |end, frame| {
            *end += frame.len();
            Some(*end)
        }));
        let frames = frames.concat();
        let least = if payloads.len() > 1 { 2 } else { 1 };
        let times = (READY / frames.len()).min(in_flight as usize).max(least);
        Self { payloads, bytes: frames.repeat(times), starts }
    }

    /// How many different ones there are.
    pub(crate) fn count(&self) -> usize {
        self.payloads.len()
    }

    pub(crate) fn payload(&self, at: usize) -> &[u8] {
        &self.payloads[at]
    }

    /// Is this one of so many messages in a row?
    pub(crate) fn is_among(&self, payload: &[u8], at: usize, among: usize) -> bool {
        (at..at + among).any(|at| self.payload(at % self.count()) == payload)
    }

    /// The frame of the first message.
    pub(crate) fn frame(&self) -> &[u8] {
        &self.bytes[..self.starts[1]]
    }

    /// The message after `count` more, and the bytes of those.
    pub(crate) fn step(&self, at: usize, count: u32) -> (usize, usize) {
        let end = at + count as usize;
        let (rounds, next) = (end / self.count(), end % self.count());
        (next, rounds * self.cycle_len() + self.starts[next] - self.starts[at])
    }

    /// Where in the cycle's bytes a message begins.
    pub(crate) fn start(&self, at: usize) -> usize {
        self.starts[at]
    }

    /// Frames from a place in the cycle on.
    pub(crate) fn bytes_from(&self, offset: usize) -> &[u8] {
        &self.bytes[offset..]
    }

    pub(crate) fn cycle_len(&self) -> usize {
        self.starts[self.count()]
    }
}

fn frames(first: u8, payloads: &[Vec<u8>]) -> Vec<Vec<u8>> {
    payloads.iter().map(|payload| wire::masked_frame(first, KEY, payload)).collect()
}

/// An odd number, so that every 64th message is not always the same.
fn cycle(len: usize) -> Vec<Vec<u8>> {
    let (fewest, bytes) = CYCLE;
    json::messages(fewest.max(bytes / len) | 1, len)
}

/// Letters, so that it is text as well.
fn letters(len: usize) -> Vec<u8> {
    // A linear congruential generator: no two neighbours of a misplaced byte agree for long.
    let mut state = 1_u32;
    let letter = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b'a' + (state >> 24) as u8 % 26
    };
    (0..len).map(letter).collect()
}
