//! What was sent, or given up, beside what has arrived.

use crate::oracle::{Message, Verdict};

/// Something that a caller sent, or gave up on.
#[derive(Debug)]
pub struct Attempt {
    /// The payloads of its frames, and whether each was sent for certain.
    pub parts: Vec<(Vec<u8>, bool)>,
}

impl Attempt {
    fn is_certain(&self) -> bool {
        self.parts.iter().any(|(_, is_certain)| *is_certain)
    }

    /// Is this payload made of all parts that were sent for certain, and whole ones of the others?
    fn can_be(&self, payload: &[u8]) -> bool {
        let mut rest = payload;
        for (part, is_certain) in &self.parts {
            match rest.strip_prefix(&**part) {
                Some(after) => rest = after,
                None if *is_certain => return false,
                None => {}
            }
        }
        rest.is_empty()
    }
}

/// All that a caller did.
#[derive(Debug, Default)]
pub struct Attempts {
    pub messages: Vec<Attempt>,
    pub pings: Vec<Attempt>,
}

impl Attempts {
    /// Whatever was sent for certain has arrived, in order, and nothing that nobody sent.
    pub fn check(&self, arrived: &Verdict, pinged: &[Vec<u8>]) {
        let messages = arrived.messages.iter().map(|Message { payload, .. }| &**payload);
        check(messages, &self.messages);
        let of = |opcode| arrived.frames.iter().filter(move |frame| frame.opcode == opcode);
        check(of(9).map(|frame| &*frame.payload), &self.pings);
        // A pong may stand for the pings before it.
        let mut pings = pinged.iter();
        for pong in of(10) {
            assert!(pings.any(|ping| *ping == pong.payload), "{pong:?} of {pinged:?}");
        }
    }
}

/// Each is the next attempt that can have made it; those left out were given up.
fn check<'a>(arrived: impl Iterator<Item = &'a [u8]>, attempts: &[Attempt]) {
    let mut attempts = attempts.iter();
    for payload in arrived {
        let made_it = attempts.by_ref().find(|attempt| {
            let is_it = attempt.can_be(payload);
            assert!(is_it || !attempt.is_certain(), "{} bytes, {attempt:?}", payload.len());
            is_it
        });
        assert!(made_it.is_some(), "nobody sent {} bytes", payload.len());
    }
    assert!(!attempts.any(Attempt::is_certain), "something is missing");
}
