//! Calls that are given up, and what may arrive of them.
//!
//! The fuzz targets include this file.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

/// Polls `future` at most `polls` times, then drops it: a caller who lost patience.
pub async fn patience<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let (mut future, mut left) = (pin!(future), polls);
    poll_fn(|cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// A message or ping that a caller sent, or gave up on.
#[derive(Debug)]
pub struct Attempt {
    /// Its opcode: 1 is text, 2 is binary, 9 is a ping.
    pub opcode: u8,
    /// The payloads of its frames, and whether each was sent for certain.
    pub parts: Vec<(Vec<u8>, bool)>,
}

impl Attempt {
    /// One frame.
    pub fn new(opcode: u8, payload: Vec<u8>, is_certain: bool) -> Self {
        Self { opcode, parts: vec![(payload, is_certain)] }
    }

    fn is_certain(&self) -> bool {
        self.parts.iter().any(|(_, is_certain)| *is_certain)
    }

    /// Whether this payload is made of all parts that were sent for certain, and whole ones of the others.
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
    /// Checks that all messages and pings that were sent for certain have arrived, in order, and nothing that
    /// was not sent. A message comes with its opcode.
    pub fn check<'a>(
        &self,
        messages: impl IntoIterator<Item = (u8, &'a [u8])>,
        pings: impl IntoIterator<Item = &'a [u8]>,
    ) {
        check(messages, &self.messages);
        check(pings.into_iter().map(|ping| (9, ping)), &self.pings);
    }
}

/// Each is the next attempt that can have made it; those left out were given up.
fn check<'a>(arrived: impl IntoIterator<Item = (u8, &'a [u8])>, attempts: &[Attempt]) {
    let mut attempts = attempts.iter();
    for (opcode, payload) in arrived {
        let made_it = attempts.by_ref().find(|attempt| {
            let is_it = attempt.opcode == opcode && attempt.can_be(payload);
            assert!(
                is_it || !attempt.is_certain(),
                "opcode {opcode}, {} bytes instead of {attempt:?}",
                payload.len()
            );
            is_it
        });
        assert!(made_it.is_some(), "nobody sent opcode {opcode}, {} bytes", payload.len());
    }
    assert!(!attempts.any(Attempt::is_certain), "something is missing");
}

/// Checks that pongs answer the pings that `asked`, in order. A pong may stand for the pings before it.
pub fn check_pongs<'a>(pongs: impl IntoIterator<Item = &'a [u8]>, asked: &[Vec<u8>]) {
    let mut rest = asked.iter();
    for pong in pongs {
        assert!(rest.any(|ping| ping == pong), "{pong:?} of {asked:?}");
    }
}
